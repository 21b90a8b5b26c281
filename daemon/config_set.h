// SPDX-License-Identifier: MIT
//
// Options that change while kvd runs: several at once, all of them or none. Values are collected
// in a copy of the configuration, checked together, and only then take the place of the old ones;
// telling the parts of kvd that keep values of their own is config_live.c's.
#pragma once

#include "daemon/config_option.h"

struct config_change {
	struct config config; // as it would be; strings that were not set belong to the old one
	bool set[CONFIG_OPTIONS_MAX];
	bool no_memory; // why it was refused: this process was short of it
};

/// Index of the option called so, in any case; config_count() if there is none.
size_t config_find(const char *name, size_t name_bytes);

/// Begins with what is in force. Ends with config_change_commit() or config_change_abort().
void config_change_begin(struct config_change *change, const struct config *config);

/// Sets one option. False: `error` tells why, in Redis's words where it has them.
bool config_change_set(struct config_change *change, size_t index, const char *text, char *error,
		       size_t error_bytes);

/// Do all values fit together?
bool config_change_check(struct config_change *change, char *error, size_t error_bytes);

/// Puts the new values in force in `config`, from which it began.
void config_change_commit(struct config_change *change, struct config *config);
void config_change_abort(struct config_change *change);

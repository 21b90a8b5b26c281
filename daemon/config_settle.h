// SPDX-License-Identifier: MIT
//
// What must hold between options, and the values that follow from others.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/config.h"

/// What somebody set, where that makes a difference.
struct config_chosen {
	bool memory; // a value-max that does not fit it is then an error instead of being lowered
	bool place;  // dir or socket: then kvd listens nowhere else by itself
	// Of two names for one thing, where both are given: one that another overrules was not.
	bool when_full;
	bool policy;
};

/// Do when-full and maxmemory-policy mean the same? False: `error` names both and the remedy.
bool config_policy_agrees(const struct config *config, char *error, size_t error_bytes);

/// Derives what is still at "0 = choose" and checks the rest against it. False with one line in
/// `error`, and *no_memory set if it is this process that was short of memory.
bool config_settle(struct config *config, const struct config_chosen *chosen, char *error,
		   size_t error_bytes, bool *no_memory);

/// The same for what may change while kvd runs.
bool config_settle_running(struct config *config, char *error, size_t error_bytes);

// SPDX-License-Identifier: MIT
//
// One option as its row describes it, and the ways between its field in struct config and text: for
// whoever sets options, at start (config.c) or later (config_set.c).
#pragma once

#include "daemon/config.h"

#define CONFIG_VALUE_BYTES_MAX 64 // text of one value, in messages

enum config_kind {
	CONFIG_KIND_STRING,
	CONFIG_KIND_SIZE,
	CONFIG_KIND_DURATION_MS,
	CONFIG_KIND_NUMBER,
	CONFIG_KIND_INTEGER,
	CONFIG_KIND_MODE,
	CONFIG_KIND_CHOICE,
};

struct config_option {
	const char *name;
	const char *help;
	const char *text; // default of a string, choices of a choice
	uint64_t dflt;	  // of an INTEGER: int64_t in the same bits, as min and max are
	uint64_t min;
	uint64_t max;
	size_t offset; // in struct config
	enum config_kind kind;
	bool dynamic; // may be set while kvd runs
	bool flag;    // a choice of no|yes, on the command line only, where its name means yes
};

/// The row of an option, 0..config_count()-1.
const struct config_option *config_option(size_t index);

/// Index of the row whose field stands at `offset` of struct config, which is one of them.
size_t config_option_at(size_t offset);

/// The value of an option that is no string, and back.
uint64_t config_option_get(const struct config *config, const struct config_option *option);
void config_option_put(struct config *config, const struct config_option *option, uint64_t number);
/// The value of a string option; the config owns it.
char *config_option_string(const struct config *config, const struct config_option *option);
/// Replaces it by a copy of `text`. False if memory is short.
bool config_option_put_string(struct config *config, const struct config_option *option,
			      const char *text);

/// A number as text in the option's units, and back; false if it is not understood.
void config_option_print(const struct config_option *option, uint64_t number, char *out,
			 size_t out_bytes);
bool config_option_parse(const struct config_option *option, const char *text, uint64_t *number);
/// Is it between the option's bounds?
bool config_option_in_range(const struct config_option *option, uint64_t number);
/// What a number of this kind looks like, for messages.
const char *config_option_expected(const struct config_option *option);

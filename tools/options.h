// SPDX-License-Identifier: MIT
//
// kvctl's command line, read by its verb and option table: options may stand before and after the
// verb, `--` ends them, and what looks like a negative number or is a lone `-` is an argument.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvctl;

enum option_id {
#define OPTION(id, name, letter, argument, common, help) OPTION_##id,
#include "tools/kvctl.tbl.h"
#undef OPTION
	OPTION_COUNT
};

#define OPTION_BIT(id) (UINT32_C(1) << OPTION_##id)

struct option_row {
	const char *name;     // with its dashes
	char letter;	      // 0 = none
	const char *argument; // what help calls it; NULL = a flag
	bool common;	      // every verb takes it
	const char *help;
};

struct verb {
	const char *name;
	int (*run)(struct kvctl *kvctl); // returns an exit code
	int arguments_min;
	int arguments_max; // -1 = any number
	uint32_t options;  // bits of those besides the common ones
	const char *syntax;
	const char *help;
};

extern const struct option_row option_table[OPTION_COUNT];
extern const struct verb verb_table[];
extern const size_t verb_count;

/// A command line that was understood. All strings are those of argv.
struct options {
	const struct verb *verb;	 // NULL: none was named
	const char *value[OPTION_COUNT]; // NULL = not given, flags are ""
	char **argument;		 // what is neither verb nor option, NULL after the last
	int arguments;
};

/// Does `verb` take this option? Without a verb: is it a common one?
bool options_allows(const struct verb *verb, enum option_id id);

const struct verb *options_verb_find(const char *name);

/// Reads argv, which is reordered so that options->argument can point into it. False if it is no
/// valid command line: `error` then has one line that says what is wrong and what would be right.
bool options_parse(struct options *options, int argc, char **argv, char *error, size_t error_bytes);

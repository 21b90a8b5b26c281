// SPDX-License-Identifier: MIT
//
// The tables themselves, and the reading of argv against them.
#include "tools/options.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tools/kvctl.h"

#define OPTIONS_NAME_BYTES_MAX 16u // names that a hint is looked for

const struct option_row option_table[OPTION_COUNT] = {
#define OPTION(id, name, letter, argument, common, help) \
	[OPTION_##id] = { name, letter, argument, common, help },
#include "tools/kvctl.tbl.h"
#undef OPTION
};

const struct verb verb_table[] = {
#define VERB(name, run, arguments_min, arguments_max, options, syntax, help) \
	{ #name, run, arguments_min, arguments_max, options, syntax, help },
#include "tools/kvctl.tbl.h"
#undef VERB
};
const size_t verb_count = sizeof verb_table / sizeof verb_table[0];

static_assert(OPTION_COUNT <= 32, "options fit the bits of struct verb");

bool options_allows(const struct verb *verb, enum option_id id)
{
	return option_table[id].common || (verb && (verb->options >> id & 1));
}

const struct verb *options_verb_find(const char *name)
{
	for (size_t i = 0; i < verb_count; i++) {
		if (strcmp(verb_table[i].name, name) == 0) {
			return &verb_table[i];
		}
	}
	return NULL;
}

// Edit distance of two short names, for hints.
static size_t options_distance(const char *left, const char *right)
{
	size_t row[OPTIONS_NAME_BYTES_MAX + 1];
	size_t left_bytes = strlen(left), right_bytes = strlen(right);
	if (left_bytes > OPTIONS_NAME_BYTES_MAX || right_bytes > OPTIONS_NAME_BYTES_MAX) {
		return SIZE_MAX;
	}
	for (size_t j = 0; j <= right_bytes; j++) {
		row[j] = j;
	}
	for (size_t i = 1; i <= left_bytes; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= right_bytes; j++) {
			size_t change = diagonal + (left[i - 1] != right[j - 1]);
			size_t step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
			diagonal = row[j];
			row[j] = change < step ? change : step;
		}
	}
	return row[right_bytes];
}

static void options_unknown_verb(const char *name, char *error, size_t error_bytes)
{
	const char *nearest = NULL;
	size_t best = 3;
	for (size_t i = 0; i < verb_count; i++) {
		size_t distance = options_distance(name, verb_table[i].name);
		if (distance < best) {
			best = distance;
			nearest = verb_table[i].name;
		}
	}
	if (nearest) {
		snprintf(error, error_bytes, "there is no verb '%.40s'; did you mean '%s'?", name,
			 nearest);
	} else {
		snprintf(error, error_bytes, "there is no verb '%.40s'; 'kvctl help' lists them",
			 name);
	}
}

// Row of `--name`, `--name=value` or `-x`; OPTION_COUNT if there is none.
static enum option_id options_find(const char *word, size_t name_bytes)
{
	for (size_t id = 0; id < OPTION_COUNT; id++) {
		const struct option_row *row = &option_table[id];
		bool same =
			strncmp(row->name, word, name_bytes) == 0 && row->name[name_bytes] == '\0';
		if (same || (row->letter && name_bytes == 2 && word[1] == row->letter)) {
			return (enum option_id)id;
		}
	}
	return OPTION_COUNT;
}

static bool options_is_option(const char *word)
{
	return word[0] == '-' && word[1] != '\0' && !isdigit((unsigned char)word[1]);
}

// Takes the option at argv[*at], and its argument from the next word if it has one.
static bool options_take(struct options *options, int argc, char **argv, int *at, char *error,
			 size_t error_bytes)
{
	const char *word = argv[*at];
	size_t name_bytes = word[1] == '-' ? strcspn(word, "=") : 2;
	enum option_id id = options_find(word, name_bytes);
	if (id == OPTION_COUNT ||
	    (word[1] != '-' && word[2] != '\0' && !option_table[id].argument)) {
		snprintf(error, error_bytes,
			 "there is no option '%.40s'; 'kvctl help%s%s' lists them ('--' before "
			 "arguments that begin with '-')",
			 word, options->verb ? " " : "", options->verb ? options->verb->name : "");
		return false;
	}
	const struct option_row *row = &option_table[id];
	const char *joined = word[name_bytes] ? word + name_bytes + (word[1] == '-') : NULL;
	if (!row->argument) {
		options->value[id] = "";
		if (joined) {
			snprintf(error, error_bytes, "option %s takes no value", row->name);
		}
		return !joined;
	}
	if (!joined && *at + 1 == argc && (!options->verb || options_allows(options->verb, id))) {
		snprintf(error, error_bytes, "option %s needs a value: %s %s", row->name, row->name,
			 row->argument);
		return false;
	}
	options->value[id] = joined ? joined : *at + 1 < argc ? argv[++*at] : "";
	return true;
}

static bool options_check(const struct options *options, char *error, size_t error_bytes)
{
	const struct verb *verb = options->verb;
	for (size_t id = 0; id < OPTION_COUNT; id++) {
		if (options->value[id] && !options_allows(verb, (enum option_id)id)) {
			snprintf(error, error_bytes, "option %s does not go with %s",
				 option_table[id].name, verb ? verb->name : "no verb");
			return false;
		}
	}
	if (!verb || options->value[OPTION_help]) {
		return true;
	}
	bool few = options->arguments < verb->arguments_min;
	if (few || (verb->arguments_max >= 0 && options->arguments > verb->arguments_max)) {
		snprintf(error, error_bytes, "%s arguments: kvctl %s%s%s",
			 few ? "not enough" : "too many", verb->name, *verb->syntax ? " " : "",
			 verb->syntax);
		return false;
	}
	return true;
}

bool options_parse(struct options *options, int argc, char **argv, char *error, size_t error_bytes)
{
	bool ended = false;
	*options = (struct options){ .argument = argv + 1 };
	for (int at = 1; at < argc; at++) {
		char *word = argv[at];
		if (!ended && strcmp(word, "--") == 0) {
			ended = true;
		} else if (!ended && options_is_option(word)) {
			if (!options_take(options, argc, argv, &at, error, error_bytes)) {
				return false;
			}
		} else if (!options->verb) {
			options->verb = options_verb_find(word);
			if (!options->verb) {
				options_unknown_verb(word, error, error_bytes);
				return false;
			}
		} else {
			options->argument[options->arguments++] = word;
		}
	}
	// The verb itself has left its place free, so the NULL overwrites nothing that is still
	// needed.
	options->argument[options->arguments] = NULL;
	return options_check(options, error, error_bytes);
}

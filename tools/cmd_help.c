// SPDX-License-Identifier: MIT
//
// kvctl help: the verb and option table as text, or as JSON, which is what the manual and
// completions are checked against.
#include <stdio.h>
#include <string.h>

#include "tools/jsonl.h"
#include "tools/kvctl.h"
#include "tools/output.h"

static void cmd_help_option_text(const struct option_row *row, char *out, size_t out_bytes)
{
	char letter[8] = "    ";
	if (row->letter) {
		snprintf(letter, sizeof letter, "-%c, ", row->letter);
	}
	snprintf(out, out_bytes, "  %s%s%s%s", letter, row->name, row->argument ? " " : "",
		 row->argument ? row->argument : "");
}

// Options of one verb, or the common ones; in columns as wide as the widest of all.
static void cmd_help_options(const struct verb *verb, bool common)
{
	for (size_t id = 0; id < OPTION_COUNT; id++) {
		char text[64];
		const struct option_row *row = &option_table[id];
		if (row->common == common && options_allows(verb, (enum option_id)id)) {
			cmd_help_option_text(row, text, sizeof text);
			printf("%-28s  %s\n", text, row->help);
		}
	}
}

static void cmd_help_verb(const struct verb *verb)
{
	printf("usage: kvctl [OPTION...] %s%s%s\n\n%s.\n", verb->name, *verb->syntax ? " " : "",
	       verb->syntax, verb->help);
	if (verb->options) {
		printf("\noptions:\n");
		cmd_help_options(verb, false);
	}
	printf("\nevery verb:\n");
	cmd_help_options(verb, true);
}

static void cmd_help_all(void)
{
	printf("usage: kvctl [OPTION...] VERB [ARGUMENT...]\n\nverbs:\n");
	for (size_t i = 0; i < verb_count; i++) {
		char text[64];
		snprintf(text, sizeof text, "  %s %s", verb_table[i].name, verb_table[i].syntax);
		printf("%-28s  %s\n", text, verb_table[i].help);
	}
	printf("\nevery verb:\n");
	cmd_help_options(NULL, true);
	printf("\n'kvctl help VERB' has the options of one verb. Exit status: 0 done, 1 not found "
	       "or "
	       "refused,\n2 usage or a local file, 3 kvd unreachable, 4 timeout, 5 damage "
	       "found.\n");
}

static void cmd_help_json_member(const char *name, const char *text, const char *before)
{
	printf("%s\"%s\":", before, name);
	jsonl_write_string(stdout, text, strlen(text));
}

static void cmd_help_json_option(const struct option_row *row, const char *before)
{
	char letter[3] = { '-', row->letter, '\0' };
	cmd_help_json_member("name", row->name, before);
	if (row->letter) {
		cmd_help_json_member("short", letter, ",");
	}
	if (row->argument) {
		cmd_help_json_member("argument", row->argument, ",");
	}
	printf(",\"common\":%s", row->common ? "true" : "false");
	cmd_help_json_member("help", row->help, ",");
	printf("}");
}

static void cmd_help_json(void)
{
	printf("{\"verbs\":[");
	for (size_t i = 0; i < verb_count; i++) {
		const struct verb *verb = &verb_table[i];
		const char *separator = "";
		cmd_help_json_member("name", verb->name, i ? ",\n{" : "{");
		cmd_help_json_member("arguments", verb->syntax, ",");
		cmd_help_json_member("help", verb->help, ",");
		printf(",\"options\":[");
		for (size_t id = 0; id < OPTION_COUNT; id++) {
			if (verb->options >> id & 1) {
				printf("%s\"%s\"", separator, option_table[id].name);
				separator = ",";
			}
		}
		printf("]}");
	}
	printf("],\n\"options\":[");
	for (size_t id = 0; id < OPTION_COUNT; id++) {
		cmd_help_json_option(&option_table[id], id ? ",\n{" : "{");
	}
	printf("]}\n");
}

int cmd_help(struct kvctl *kvctl)
{
	const struct verb *verb = kvctl->options.verb;
	const char *name = kvctl->options.arguments > 0 ? kvctl->options.argument[0] : NULL;
	bool asked = kvctl->options.value[OPTION_help] != NULL && verb;
	if (!asked) {
		verb = name ? options_verb_find(name) : NULL;
	}
	if (name && !verb) {
		return kvctl_error(KVCTL_USAGE, "there is no verb '%s'; 'kvctl help' lists them",
				   name);
	}
	if (kvctl->json) {
		cmd_help_json();
	} else if (verb) {
		cmd_help_verb(verb);
	} else {
		cmd_help_all();
	}
	return KVCTL_OK;
}

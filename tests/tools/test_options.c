// SPDX-License-Identifier: MIT
//
// kvctl's command line: options before and after the verb, their arguments, what is refused and
// with which words, and that the table itself is sound.
#include "tests/tap/tap.h"
#include "tools/kvctl.h"

// The table names the verbs' functions; parsing never calls them.
#define VERB(name, run, arguments_min, arguments_max, options, syntax, help) \
	int run(struct kvctl *kvctl)                                         \
	{                                                                    \
		return kvctl ? KVCTL_OK : KVCTL_NO;                          \
	}
#include "tools/kvctl.tbl.h"
#undef VERB

static struct options options;
static char error[200];

// Splits a command line at blanks and parses it.
static bool parse(const char *line)
{
	static char text[400];
	static char *argv[40];
	int argc = 1;
	argv[0] = text;
	snprintf(text, sizeof text, "kvctl%s%s", *line ? " " : "", line);
	for (char *c = text; *c; c++) {
		if (*c == ' ') {
			*c = '\0';
			argv[argc++] = c + 1;
		}
	}
	argv[argc] = NULL;
	error[0] = '\0';
	return options_parse(&options, argc, argv, error, sizeof error);
}

static void test_good(void)
{
	ok(parse("get k") && strcmp(options.verb->name, "get") == 0 && options.arguments == 1,
	   "verb and argument");
	ok_str(options.argument[0], "k", "the argument");
	ok(options.argument[1] == NULL, "NULL after the last");
	ok(parse("--json -s /x get --via shm k -o f") && options.value[OPTION_json] &&
		   options.arguments == 1,
	   "options on both sides of the verb");
	ok_str(options.value[OPTION_socket], "/x", "a short option's value");
	ok_str(options.value[OPTION_via], "shm", "a long option's value");
	ok_str(options.value[OPTION_output], "f", "an option behind the argument");
	ok(parse("--socket=/y=z get -of k"), "joined values");
	ok_str(options.value[OPTION_socket], "/y=z", "the value begins at the first =");
	ok_str(options.value[OPTION_output], "f", "joined to a letter");
	ok(parse("incr k -5") && options.arguments == 2, "a negative number is an argument");
	ok(parse("set k -") && options.arguments == 2, "a lone dash is an argument");
	ok(parse("set -- --k --v") && options.arguments == 2, "after -- all are arguments");
	ok_str(options.argument[1], "--v", "also those with dashes");
	ok(parse("del a b c d e f") && options.arguments == 6, "any number of keys");
	ok(parse("get --help"), "help needs no arguments");
	ok(parse("") && !options.verb, "nothing at all is for main to say");
	ok(parse("-q -q stats"), "the same flag twice");
}

static void refuse(const char *line, const char *words)
{
	if (!ok(!parse(line) && strstr(error, words), "refused: %s", line)) {
		tap_diag("'%s' is not in '%s'", words, error);
	}
}

static void test_bad(void)
{
	refuse("gte k", "did you mean 'get'?");
	refuse("frobnicate", "'kvctl help' lists them");
	refuse("frobnicatefrobnicatefrobnicate", "'kvctl help' lists them");
	refuse("get", "not enough arguments: kvctl get KEY");
	refuse("get a b", "too many arguments: kvctl get KEY");
	refuse("get k --ttl 3s", "--ttl does not go with get");
	refuse("--ttl 3s", "--ttl does not go with no verb");
	refuse("get k --socket", "--socket needs a value: --socket PATH");
	refuse("get k --json=1", "--json takes no value");
	refuse("get k --nonsense", "there is no option '--nonsense'");
	refuse("get k --jso", "there is no option '--jso'");
	refuse("get k -x", "there is no option '-x'");
	refuse("get k -qj", "there is no option '-qj'");
}

static void test_table(void)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option_row *row = &option_table[i];
		unsigned takers = 0;
		for (size_t v = 0; v < verb_count; v++) {
			takers += verb_table[v].options >> i & 1;
		}
		ok(row->common ? takers == 0 : takers > 0, "%s is common, or some verb's own",
		   row->name);
		for (size_t j = i + 1; j < OPTION_COUNT; j++) {
			if (row->letter && row->letter == option_table[j].letter) {
				ok(false, "-%c is taken twice", row->letter);
			}
		}
	}
	for (size_t v = 0; v < verb_count; v++) {
		ok(options_verb_find(verb_table[v].name) == &verb_table[v], "verb %s is found once",
		   verb_table[v].name);
	}
}

int main(void)
{
	test_good();
	test_bad();
	test_table();
	return tap_done();
}

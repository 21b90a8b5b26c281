// SPDX-License-Identifier: MIT
//
// Options from the command line, a file and defaults, all driven by one table, and what must hold
// between them. kvd starts only with settings that fit together; everything else ends here, with a
// line that names the option and what to do.
#include "daemon/config.h"

#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_option.h"
#include "daemon/config_settle.h"
#include "daemon/config_text.h"
#include "daemon/remedy.h"

#define CONFIG_WHY_BYTES 256

enum source { SOURCE_DEFAULT, SOURCE_FILE, SOURCE_COMMAND_LINE };

/// One run of config_parse: where each value came from, and the first thing that was wrong.
struct parser {
	struct config *config;
	enum source sources[CONFIG_OPTIONS_MAX];
	int lines[CONFIG_OPTIONS_MAX]; // of the file
	char *error;
	size_t error_bytes;
	FILE *file;
	const char *file_path;
	int line;
	bool failed;
	bool no_memory;
};

__attribute__((format(printf, 2, 3))) static bool fail(struct parser *p, const char *format, ...)
{
	if (!p->failed && p->error_bytes > 0) {
		size_t used = 0;
		va_list args;
		if (p->line > 0) {
			int length = snprintf(p->error, p->error_bytes, "%s:%d: ", p->file_path,
					      p->line);
			used = length > 0 ? (size_t)length : 0;
			used = used < p->error_bytes ? used : p->error_bytes - 1;
		}
		va_start(args, format);
		(void)vsnprintf(p->error + used, p->error_bytes - used, format, args);
		va_end(args);
	}
	p->failed = true;
	return false;
}

static bool string_put(struct parser *p, const struct config_option *option, const char *text)
{
	p->no_memory = !config_option_put_string(p->config, option, text);
	return !p->no_memory || fail(p, "out of memory; %s", remedy_of_errno(ENOMEM));
}

/// Sets one option from text, unless a stronger source has set it.
static bool option_set(struct parser *p, size_t index, const char *text, enum source source)
{
	const struct config_option *option = config_option(index);
	char min[CONFIG_VALUE_BYTES_MAX], max[CONFIG_VALUE_BYTES_MAX];
	uint64_t number = 0;
	if (p->sources[index] > source) {
		return true;
	}
	p->sources[index] = source;
	p->lines[index] = p->line;
	if (option->kind == CONFIG_KIND_STRING) {
		return *text ? string_put(p, option, text)
			     : fail(p, "%s needs a value", option->name);
	}
	if (!config_option_parse(option, text, &number)) {
		if (option->kind == CONFIG_KIND_CHOICE) {
			return fail(p, "%s: '%s' is none of %s", option->name, text, option->text);
		}
		return fail(p, "%s: '%s' is not %s", option->name, text,
			    config_option_expected(option));
	}
	if (!config_option_in_range(option, number)) {
		config_option_print(option, option->min, min, sizeof(min));
		config_option_print(option, option->max, max, sizeof(max));
		return fail(p, "%s: %s is out of range, give %s to %s", option->name, text, min,
			    max);
	}
	config_option_put(p->config, option, number);
	return true;
}

/// Index of the option called so, or config_count() after failing with the nearest name.
static size_t option_find(struct parser *p, const char *name, size_t name_bytes)
{
	char given[CONFIG_VALUE_BYTES_MAX];
	size_t nearest = 0;
	size_t nearest_distance = SIZE_MAX;
	(void)snprintf(given, sizeof(given), "%.*s", (int)name_bytes, name);
	for (size_t i = 0; i < config_count(); i++) {
		if (strcmp(given, config_option(i)->name) == 0) {
			return i;
		}
		size_t distance = config_text_distance(given, config_option(i)->name);
		if (distance < nearest_distance) {
			nearest = i;
			nearest_distance = distance;
		}
	}
	if (nearest_distance <= 3 && nearest_distance < strlen(config_option(nearest)->name)) {
		(void)fail(p, "unknown option '%s', did you mean '%s'?", given,
			   config_option(nearest)->name);
	} else {
		(void)fail(p, "unknown option '%s', see kvd --help", given);
	}
	return config_count();
}

static enum config_action arguments_parse(struct parser *p, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
			return CONFIG_HELP;
		}
		if (strcmp(arg, "--version") == 0 || strcmp(arg, "-V") == 0) {
			return CONFIG_VERSION;
		}
		if (arg[0] != '-' || arg[1] != '-') {
			(void)fail(p, "unexpected argument '%s', options look like --dir DIR", arg);
			return CONFIG_USAGE_ERROR;
		}
		const char *name = arg + 2;
		const char *equals = strchr(name, '=');
		size_t index =
			option_find(p, name, equals ? (size_t)(equals - name) : strlen(name));
		if (index == config_count()) {
			return CONFIG_USAGE_ERROR;
		}
		bool flag = config_option(index)->flag;
		const char *value = equals ? equals + 1 : flag ? "yes" : argv[++i];
		if (i == argc) {
			(void)fail(p, "--%s needs a value", config_option(index)->name);
			return CONFIG_USAGE_ERROR;
		}
		if (!option_set(p, index, value, SOURCE_COMMAND_LINE)) {
			return CONFIG_USAGE_ERROR;
		}
	}
	return CONFIG_RUN;
}

/// Hands the parser one line. Counts lines, which this libinih does not tell, and takes leading
/// blanks away, which it would read as a continuation of the line before.
static char *line_read(char *line, int line_bytes, void *context)
{
	struct parser *p = context;
	if (p->failed || !fgets(line, line_bytes, p->file)) {
		return NULL;
	}
	p->line++;
	size_t length = strlen(line);
	if (length + 1 == (size_t)line_bytes && line[length - 1] != '\n') {
		(void)fail(p, "line is longer than %d bytes", line_bytes - 2);
		return NULL;
	}
	size_t blanks = strspn(line, " \t");
	memmove(line, line + blanks, length - blanks + 1);
	return line;
}

/// libinih: 1 goes on, 0 is an error.
static int pair_set(void *context, const char *section, const char *name, const char *value)
{
	struct parser *p = context;
	if (*section && strcmp(section, "kvd") != 0) {
		return fail(p, "section [%s] is none of kvd's, use [kvd] or none", section);
	}
	size_t index = option_find(p, name, strlen(name));
	if (index == config_count()) {
		return 0;
	}
	if (config_option(index)->offset == offsetof(struct config, config_path) ||
	    config_option(index)->flag) {
		return fail(p, "%s stands on the command line only", config_option(index)->name);
	}
	return option_set(p, index, value, SOURCE_FILE);
}

static bool file_parse(struct parser *p)
{
	p->file_path = p->config->config_path;
	p->file = fopen(p->file_path, "re");
	if (!p->file) {
		return fail(p,
			    "config: cannot open %s: %s; give --config a file that kvd's user may "
			    "read",
			    p->file_path, strerror(errno));
	}
	int result = ini_parse_stream(line_read, p, pair_set, p);
	bool unreadable = ferror(p->file) != 0;
	(void)fclose(p->file);
	if (unreadable) {
		p->line = 0;
		return fail(p, "config: cannot read %s: is it a file?", p->file_path);
	}
	// The parser goes on after lines it cannot read; the first wrong line is the one to name.
	if (result > 0 && (!p->failed || result < p->line)) {
		p->failed = false;
		p->line = result;
		return fail(p, "not of the form `name = value`");
	}
	p->line = 0;
	p->no_memory = p->no_memory || (result < 0 && !p->failed);
	return result == 0 && !p->failed
		       ? true
		       : fail(p, "config: out of memory; %s", remedy_of_errno(ENOMEM));
}

static bool is_chosen(const struct parser *p, size_t offset)
{
	return p->sources[config_option_at(offset)] != SOURCE_DEFAULT;
}

/// Which of the two names for what is done when memory is full counts: the command line's if they
/// contradict each other. Within one source that is a mistake, for nobody can tell which was meant.
static bool policy_choose(struct parser *p, struct config_chosen *chosen)
{
	char why[CONFIG_WHY_BYTES];
	size_t full = config_option_at(offsetof(struct config, when_full));
	size_t policy = config_option_at(offsetof(struct config, maxmemory_policy));
	chosen->when_full = p->sources[full] != SOURCE_DEFAULT;
	chosen->policy = p->sources[policy] != SOURCE_DEFAULT;
	if (!chosen->when_full || !chosen->policy ||
	    config_policy_agrees(p->config, why, sizeof(why))) {
		return true;
	}
	if (p->sources[full] != p->sources[policy]) {
		// What it is otherwise is known from when-full even where the policy counts.
		chosen->policy = p->sources[policy] > p->sources[full];
		return true;
	}
	p->line = p->lines[full] > p->lines[policy] ? p->lines[full] : p->lines[policy];
	return fail(p, "%s", why);
}

static bool defaults_put(struct parser *p)
{
	for (size_t i = 0; i < config_count(); i++) {
		if (config_option(i)->kind != CONFIG_KIND_STRING) {
			config_option_put(p->config, config_option(i), config_option(i)->dflt);
		} else if (!string_put(p, config_option(i), config_option(i)->text)) {
			return false;
		}
	}
	return true;
}

// Why it was refused.
static enum config_action refused(const struct parser *p)
{
	return p->no_memory ? CONFIG_NO_MEMORY : CONFIG_USAGE_ERROR;
}

enum config_action config_parse(struct config *config, int argc, char **argv, char *error,
				size_t error_bytes)
{
	struct parser p = { .config = config, .error = error, .error_bytes = error_bytes };
	memset(config, 0, sizeof(*config));
	if (error_bytes > 0) {
		error[0] = '\0';
	}
	if (!defaults_put(&p)) {
		return refused(&p);
	}
	enum config_action action = arguments_parse(&p, argc, argv);
	if (action != CONFIG_RUN) {
		return action == CONFIG_USAGE_ERROR ? refused(&p) : action;
	}
	if (*config->config_path && !file_parse(&p)) {
		return refused(&p);
	}
	struct config_chosen chosen = {
		.memory = is_chosen(&p, offsetof(struct config, memory_bytes)),
		.place = is_chosen(&p, offsetof(struct config, dir)) ||
			 is_chosen(&p, offsetof(struct config, socket_path)),
	};
	if (!policy_choose(&p, &chosen)) {
		return refused(&p);
	}
	config->value_max_given = config->value_bytes_max != 0;
	p.failed = !config_settle(config, &chosen, error, error_bytes, &p.no_memory);
	return p.failed ? refused(&p) : CONFIG_RUN;
}

void config_fini(struct config *config)
{
	for (size_t i = 0; i < config_count(); i++) {
		if (config_option(i)->kind == CONFIG_KIND_STRING) {
			free(config_option_string(config, config_option(i)));
		}
	}
	memset(config, 0, sizeof(*config));
}

int config_arguments_without(int argc, char **argv, const char *name)
{
	int left = 1;
	for (int i = 1; i < argc; i++) {
		size_t bytes = strcspn(argv[i] + 2, "=");
		if (strlen(name) == bytes && strncmp(argv[i] + 2, name, bytes) == 0) {
			continue;
		}
		bool alone = argv[i][2 + bytes] == '=';
		for (size_t at = 0; !alone && at < config_count(); at++) {
			const struct config_option *option = config_option(at);
			alone = option->flag && strlen(option->name) == bytes &&
				strncmp(argv[i] + 2, option->name, bytes) == 0;
		}
		argv[left++] = argv[i];
		if (!alone && i + 1 < argc) { // its value, whatever that looks like
			argv[left++] = argv[++i];
		}
	}
	argv[left] = NULL;
	return left;
}

static const char *value_word(const struct config_option *option)
{
	static const char *const words[] = { "PATH", "SIZE", "TIME", "N", "N", "MODE", "CHOICE" };
	if (option->kind == CONFIG_KIND_STRING && option->dynamic) {
		return "TEXT"; // places are fixed
	}
	return option->kind == CONFIG_KIND_CHOICE ? option->text : words[option->kind];
}

void config_help(void)
{
	puts("kvd: a key-value cache that local processes read through shared memory\n\n"
	     "usage: kvd [--OPTION VALUE | --OPTION=VALUE]...\n");
	for (size_t i = 0; i < config_count(); i++) {
		const struct config_option *option = config_option(i);
		char value[CONFIG_VALUE_BYTES_MAX] = "";
		if (option->kind == CONFIG_KIND_STRING) {
			(void)snprintf(value, sizeof(value), "%s", option->text);
		} else if (!option->flag &&
			   (option->dflt > 0 || option->kind != CONFIG_KIND_SIZE)) {
			config_option_print(option, option->dflt, value, sizeof(value));
		}
		printf("  --%s%s%s\n        %s", option->name, option->flag ? "" : " ",
		       option->flag ? "" : value_word(option), option->help);
		if (*value) {
			printf(" (default %s)", value);
		}
		putchar('\n');
	}
	puts("  --help, --version\n\n"
	     "Sizes take K, M, G, T (powers of 1024), times ms, s, m, h. A file given with "
	     "--config has\n"
	     "one `name = value` a line, # starts a comment; the command line overrides it.");
}

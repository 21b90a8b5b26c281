// SPDX-License-Identifier: MIT
//
// Setting options of a running kvd; see config_set.h.
#include "daemon/config_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/config_settle.h"
#include "daemon/config_text.h"

size_t config_find(const char *name, size_t name_bytes)
{
	size_t i = 0;
	while (i < config_count() && (strlen(config_name(i)) != name_bytes ||
				      strncasecmp(config_name(i), name, name_bytes) != 0)) {
		i++;
	}
	return i;
}

void config_change_begin(struct config_change *change, const struct config *config)
{
	*change = (struct config_change){ .config = *config };
}

static bool change_refuse_value(const struct config_option *option, char *error, size_t error_bytes)
{
	char words[CONFIG_VALUE_BYTES_MAX];
	switch (option->kind) {
	case CONFIG_KIND_CHOICE:
		(void)snprintf(error, error_bytes, "argument(s) must be one of the following:");
		for (uint64_t i = 0;; i++) {
			config_option_print(option, i, words, sizeof(words));
			if (!*words) {
				return false;
			}
			size_t used = strlen(error);
			(void)snprintf(error + used, error_bytes - used, "%s %s", i ? "," : "",
				       words);
		}
	case CONFIG_KIND_SIZE:
		(void)snprintf(error, error_bytes, "argument must be a memory value");
		return false;
	case CONFIG_KIND_NUMBER:
	case CONFIG_KIND_INTEGER:
		(void)snprintf(error, error_bytes, "argument couldn't be parsed into an integer");
		return false;
	case CONFIG_KIND_DURATION_MS:
	case CONFIG_KIND_MODE:
	case CONFIG_KIND_STRING:
		break;
	}
	(void)snprintf(error, error_bytes, "argument must be %s", config_option_expected(option));
	return false;
}

static bool change_refuse_range(const struct config_option *option, char *error, size_t error_bytes)
{
	if (option->kind == CONFIG_KIND_INTEGER) {
		(void)snprintf(error, error_bytes,
			       "argument must be between %lld and %lld inclusive",
			       (long long)option->min, (long long)option->max);
	} else {
		(void)snprintf(error, error_bytes,
			       "argument must be between %llu and %llu inclusive",
			       (unsigned long long)option->min, (unsigned long long)option->max);
	}
	return false;
}

static bool change_set_string(struct config_change *change, size_t index, const char *text,
			      char *error, size_t error_bytes)
{
	const struct config_option *option = config_option(index);
	char *copy = strdup(text);
	if (!copy) {
		(void)snprintf(error, error_bytes, "out of memory");
		change->no_memory = true;
		return false;
	}
	if (change->set[index]) {
		free(config_option_string(&change->config, option));
	}
	memcpy((char *)&change->config + option->offset, &copy, sizeof(copy));
	change->set[index] = true;
	return true;
}

bool config_change_set(struct config_change *change, size_t index, const char *text, char *error,
		       size_t error_bytes)
{
	const struct config_option *option = config_option(index);
	uint64_t number = 0;
	if (!option->dynamic) {
		(void)snprintf(error, error_bytes,
			       "can't set immutable config: kvd takes it when it starts, from its "
			       "command line or file");
		return false;
	}
	if (option->kind == CONFIG_KIND_STRING) {
		return change_set_string(change, index, text, error, error_bytes);
	}
	bool parsed = config_option_parse(option, text, &number);
	bool negative = option->kind == CONFIG_KIND_NUMBER && text[0] == '-' &&
			config_text_number(text + 1, &number);
	if (!parsed && !negative) {
		return change_refuse_value(option, error, error_bytes);
	}
	if (negative || !config_option_in_range(option, number)) {
		return change_refuse_range(option, error, error_bytes);
	}
	config_option_put(&change->config, option, number);
	change->set[index] = true;
	return true;
}

bool config_change_check(struct config_change *change, char *error, size_t error_bytes)
{
	return config_settle_running(&change->config, error, error_bytes);
}

void config_change_commit(struct config_change *change, struct config *config)
{
	for (size_t i = 0; i < config_count(); i++) {
		if (change->set[i] && config_option(i)->kind == CONFIG_KIND_STRING) {
			free(config_option_string(config, config_option(i)));
		}
	}
	*config = change->config;
}

void config_change_abort(struct config_change *change)
{
	for (size_t i = 0; i < config_count(); i++) {
		if (change->set[i] && config_option(i)->kind == CONFIG_KIND_STRING) {
			free(config_option_string(&change->config, config_option(i)));
		}
	}
}

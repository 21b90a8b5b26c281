// SPDX-License-Identifier: MIT
//
// The table of options, built from config.tbl.h, and what each kind of value looks like.
#include "daemon/config_option.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_text.h"

// clang-format off
static const struct config_option config_options[] = {
#define OPTION(field, opt, help_text, text, dflt, min, max, kind, dynamic) \
	{ opt, help_text, text, dflt, min, max, offsetof(struct config, field), \
	  CONFIG_KIND_##kind, dynamic, false },
#define CONFIG_STRING(field, opt, dflt_text, dynamic, help_text) \
	OPTION(field, opt, help_text, dflt_text, 0, 0, 0, STRING, dynamic)
#define CONFIG_SIZE(field, opt, dflt, min, max, dynamic, help_text) \
	OPTION(field, opt, help_text, NULL, dflt, min, max, SIZE, dynamic)
#define CONFIG_DURATION_MS(field, opt, dflt, min, max, dynamic, help_text) \
	OPTION(field, opt, help_text, NULL, dflt, min, max, DURATION_MS, dynamic)
#define CONFIG_NUMBER(field, opt, dflt, min, max, dynamic, help_text) \
	OPTION(field, opt, help_text, NULL, dflt, min, max, NUMBER, dynamic)
#define CONFIG_INTEGER(field, opt, dflt, min, max, dynamic, help_text) \
	OPTION(field, opt, help_text, NULL, (uint64_t)(dflt), (uint64_t)(min), (uint64_t)(max), \
	       INTEGER, dynamic)
#define CONFIG_MODE(field, opt, dflt, dynamic, help_text) \
	OPTION(field, opt, help_text, NULL, dflt, 0, 0777, MODE, dynamic)
#define CONFIG_CHOICE(field, opt, choices, dflt, dynamic, help_text) \
	OPTION(field, opt, help_text, choices, dflt, 0, UINT32_MAX, CHOICE, dynamic)
#define CONFIG_FLAG(field, opt, help_text) \
	{ opt, help_text, "no|yes", 0, 0, UINT32_MAX, offsetof(struct config, field), \
	  CONFIG_KIND_CHOICE, false, true },
#include "daemon/config.tbl.h"
#undef OPTION
};
// clang-format on

#define CONFIG_OPTIONS (sizeof(config_options) / sizeof(config_options[0]))
static_assert(CONFIG_OPTIONS <= CONFIG_OPTIONS_MAX, "every option has its place");

size_t config_count(void)
{
	return CONFIG_OPTIONS;
}

const struct config_option *config_option(size_t index)
{
	return &config_options[index];
}

size_t config_option_at(size_t offset)
{
	size_t i = 0;
	while (i < CONFIG_OPTIONS && config_options[i].offset != offset) {
		i++;
	}
	assert(i < CONFIG_OPTIONS);
	return i;
}

const char *config_name(size_t index)
{
	return index < CONFIG_OPTIONS ? config_options[index].name : NULL;
}

uint64_t config_option_get(const struct config *config, const struct config_option *option)
{
	const char *field = (const char *)config + option->offset;
	uint64_t number = 0;
	if (option->kind == CONFIG_KIND_CHOICE) {
		unsigned choice = 0;
		memcpy(&choice, field, sizeof(choice));
		return choice;
	}
	memcpy(&number, field, sizeof(number));
	return number;
}

void config_option_put(struct config *config, const struct config_option *option, uint64_t number)
{
	char *field = (char *)config + option->offset;
	if (option->kind == CONFIG_KIND_CHOICE) {
		unsigned choice = (unsigned)number;
		memcpy(field, &choice, sizeof(choice));
	} else {
		memcpy(field, &number, sizeof(number));
	}
}

char *config_option_string(const struct config *config, const struct config_option *option)
{
	char *string = NULL;
	memcpy(&string, (const char *)config + option->offset, sizeof(string));
	return string;
}

bool config_option_put_string(struct config *config, const struct config_option *option,
			      const char *text)
{
	char *old = config_option_string(config, option);
	char *copy = strdup(text);
	if (!copy) {
		return false;
	}
	memcpy((char *)config + option->offset, &copy, sizeof(copy));
	free(old);
	return true;
}

void config_option_print(const struct config_option *option, uint64_t number, char *out,
			 size_t out_bytes)
{
	switch (option->kind) {
	case CONFIG_KIND_SIZE:
		config_text_print_size(number, out, out_bytes);
		break;
	case CONFIG_KIND_DURATION_MS:
		config_text_print_duration(number, out, out_bytes);
		break;
	case CONFIG_KIND_CHOICE:
		config_text_print_choice(option->text, number, out, out_bytes);
		break;
	case CONFIG_KIND_MODE:
		(void)snprintf(out, out_bytes, "0%llo", (unsigned long long)number);
		break;
	case CONFIG_KIND_INTEGER:
		(void)snprintf(out, out_bytes, "%lld", (long long)number);
		break;
	case CONFIG_KIND_NUMBER:
	case CONFIG_KIND_STRING:
		(void)snprintf(out, out_bytes, "%llu", (unsigned long long)number);
		break;
	}
}

static bool config_option_parse_integer(const char *text, uint64_t *number)
{
	bool negative = text[0] == '-';
	uint64_t digits = 0;
	if (!config_text_number(text + negative, &digits) || digits > INT64_MAX) {
		return false;
	}
	*number = negative ? -digits : digits;
	return true;
}

bool config_option_parse(const struct config_option *option, const char *text, uint64_t *number)
{
	switch (option->kind) {
	case CONFIG_KIND_SIZE:
		return config_text_size(text, number);
	case CONFIG_KIND_DURATION_MS:
		return config_text_duration(text, number);
	case CONFIG_KIND_CHOICE:
		return config_text_choice(text, option->text, number);
	case CONFIG_KIND_MODE:
		return config_text_mode(text, number);
	case CONFIG_KIND_NUMBER:
		return config_text_number(text, number);
	case CONFIG_KIND_INTEGER:
		return config_option_parse_integer(text, number);
	case CONFIG_KIND_STRING:
		break;
	}
	return false;
}

bool config_option_in_range(const struct config_option *option, uint64_t number)
{
	if (option->kind == CONFIG_KIND_INTEGER) {
		return (int64_t)number >= (int64_t)option->min &&
		       (int64_t)number <= (int64_t)option->max;
	}
	return number >= option->min && number <= option->max;
}

const char *config_option_expected(const struct config_option *option)
{
	switch (option->kind) {
	case CONFIG_KIND_SIZE:
		return "a size such as 65536, 64KiB, 256MiB or 1g";
	case CONFIG_KIND_DURATION_MS:
		return "a duration such as 250ms, 2s, 5m or 1h";
	case CONFIG_KIND_MODE:
		return "octal permissions such as 0660";
	case CONFIG_KIND_NUMBER:
	case CONFIG_KIND_INTEGER:
	case CONFIG_KIND_CHOICE:
	case CONFIG_KIND_STRING:
		break;
	}
	return "a whole number";
}

void config_value(const struct config *config, size_t index, char *out, size_t out_bytes)
{
	const struct config_option *option = &config_options[index];
	if (option->kind == CONFIG_KIND_STRING) {
		(void)snprintf(out, out_bytes, "%s", config_option_string(config, option));
	} else if (option->kind == CONFIG_KIND_CHOICE || option->kind == CONFIG_KIND_MODE ||
		   option->kind == CONFIG_KIND_INTEGER) {
		config_option_print(option, config_option_get(config, option), out, out_bytes);
	} else {
		(void)snprintf(out, out_bytes, "%llu",
			       (unsigned long long)config_option_get(config, option));
	}
}

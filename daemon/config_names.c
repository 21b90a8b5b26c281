// SPDX-License-Identifier: MIT
//
// Redis's option names; see config_names.h. The error texts are Redis's, up to the reasons why kvd
// refuses what Redis would do.
#include "daemon/config_names.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/config_option.h"
#include "daemon/config_set.h"
#include "daemon/config_text.h"
#include "daemon/keyspace.h"
#include "daemon/kvd.h"
#include "daemon/listener.h"
#include "daemon/persist.h"
#include "shm/resp.h"

#define NAMES_VALUE_BYTES 128
#define NAMES_KEPT_BYTES_MAX 4096u

enum name_kind { NAME_START, NAME_FIXED, NAME_KEPT, NAME_OTHERS, NAME_HIDDEN };
enum name_type { TYPE_BOOL, TYPE_INT, TYPE_MEM, TYPE_PERCENT, TYPE_ENUM, TYPE_TEXT };

static const struct config_named {
	const char *name;
	enum name_kind kind;
	enum name_type type;
	const char *value; // at start; NULL = computed
	int64_t min;
	int64_t max;
	const char *words; // of an ENUM
	const char *why;   // of FIXED: why it can be nothing else
} names[] = {
#define X(name, kind, type, value, min, max, words, why) \
	{ name, NAME_##kind, TYPE_##type, value, min, max, words, why },
#include "daemon/config_names.tbl.h"
#undef X
};

#define NAMES (sizeof(names) / sizeof(names[0]))

/// Values that were set, for those that only remember; NULL = the one at start.
struct config_names {
	char *kept[NAMES];
};

size_t config_names_count(void)
{
	return NAMES;
}

const char *config_names_name(size_t index)
{
	return names[index].name;
}

bool config_names_hidden(size_t index)
{
	return names[index].kind == NAME_HIDDEN;
}

size_t config_names_find(const char *name, size_t name_bytes)
{
	size_t i = 0;
	while (i < NAMES && (strlen(names[i].name) != name_bytes ||
			     strncasecmp(names[i].name, name, name_bytes) != 0)) {
		i++;
	}
	return i;
}

static void names_compute(const struct kvd *kvd, const char *name, char *out, size_t out_bytes)
{
	const struct config *config = &kvd->config;
	if (strcmp(name, "appendfsync") == 0) {
		const char *when = config->persist_policy >= PERSIST_GROUP ? "always" : "everysec";
		(void)snprintf(out, out_bytes, "%s",
			       config->persist_policy == PERSIST_MEMORY ? "no" : when);
	} else if (strcmp(name, "client-output-buffer-limit") == 0) {
		uint64_t most = config->output_bytes_max;
		(void)snprintf(out, out_bytes, "normal %llu 0 0 slave 0 0 0 pubsub %llu %llu %llu",
			       (unsigned long long)(most == UINT64_MAX ? 0 : most),
			       (unsigned long long)config->subscriber_output_max,
			       (unsigned long long)config->subscriber_soft_bytes,
			       (unsigned long long)config->subscriber_soft_ms / 1000);
	} else if (strcmp(name, "client-query-buffer-limit") == 0) {
		size_t value_bytes = keyspace_value_bytes_max(kvd->keyspace);
		(void)snprintf(out, out_bytes, "%zu",
			       config_request_bytes_max(value_bytes, config->memory_bytes));
	} else if (strcmp(name, "proto-max-bulk-len") == 0) {
		(void)snprintf(out, out_bytes, "%zu", keyspace_value_bytes_max(kvd->keyspace));
	} else if (strcmp(name, "unixsocket") == 0) {
		(void)snprintf(out, out_bytes, "%s", listener_path(kvd->listener));
	} else {
		(void)snprintf(out, out_bytes, "%llo", (unsigned long long)config->socket_mode);
	}
}

void config_names_value(const struct kvd *kvd, size_t index, char *out, size_t out_bytes)
{
	const struct config_named *named = &names[index];
	const char *kept = kvd->config_names ? kvd->config_names->kept[index] : NULL;
	if (kept || named->value) {
		(void)snprintf(out, out_bytes, "%s", kept ? kept : named->value);
	} else {
		names_compute(kvd, named->name, out, out_bytes);
	}
}

bool config_names_settable(size_t index, char *error, size_t error_bytes)
{
	if (names[index].kind == NAME_START) {
		(void)snprintf(error, error_bytes, "can't set immutable config");
		return false;
	}
	return true;
}

// ---- what Redis would accept ----

/// A size with Redis's units, where kb is 1024 and k is 1000.
static bool names_parse_memory(const char *text, int64_t *bytes)
{
	static const struct {
		const char *name;
		int64_t factor;
	} units[] = {
		{ "", 1 },	  { "b", 1 },	     { "k", 1000 },	  { "kb", 1 << 10 },
		{ "m", 1000000 }, { "mb", 1 << 20 }, { "g", 1000000000 }, { "gb", 1 << 30 },
	};
	size_t digits = strspn(text, "0123456789");
	int64_t number;
	if (!resp_parse_int(text, digits, &number)) {
		return false;
	}
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcasecmp(text + digits, units[i].name) == 0) {
			return !__builtin_mul_overflow(number, units[i].factor, bytes);
		}
	}
	return false;
}

static bool names_parse_percent(const char *text, int64_t *number)
{
	size_t bytes = strlen(text);
	if (bytes > 1 && text[bytes - 1] == '%' && resp_parse_int(text, bytes - 1, number) &&
	    *number >= 0) {
		*number = -*number; // as Redis keeps it
		return true;
	}
	return names_parse_memory(text, number);
}

static bool names_refuse(char *error, size_t error_bytes, const char *text)
{
	(void)snprintf(error, error_bytes, "%s", text);
	return false;
}

static bool names_check_number(const struct config_named *named, const char *text, int64_t *number,
			       char *error, size_t error_bytes)
{
	if (named->type == TYPE_INT && !resp_parse_int(text, strlen(text), number)) {
		return names_refuse(error, error_bytes,
				    "argument couldn't be parsed into an integer");
	}
	if (named->type == TYPE_MEM && !names_parse_memory(text, number)) {
		return names_refuse(error, error_bytes, "argument must be a memory value");
	}
	if (named->type == TYPE_PERCENT && !names_parse_percent(text, number)) {
		return names_refuse(error, error_bytes,
				    "argument must be a memory or percent value");
	}
	if (named->type == TYPE_PERCENT && *number < named->min) {
		(void)snprintf(error, error_bytes,
			       "percentage argument must be less or equal to %lld",
			       -(long long)named->min);
		return false;
	}
	if (*number < named->min || *number > named->max) {
		(void)snprintf(error, error_bytes,
			       "argument must be between %lld and %lld inclusive",
			       (long long)named->min, (long long)named->max);
		return false;
	}
	return true;
}

static bool names_check_enum(const struct config_named *named, const char *text, char *error,
			     size_t error_bytes)
{
	uint64_t word;
	if (config_text_choice(text, named->words, &word)) {
		return true;
	}
	(void)snprintf(error, error_bytes, "argument(s) must be one of the following: ");
	size_t used = strlen(error);
	for (const char *at = named->words; *at && used + 3 < error_bytes; at++) {
		error[used++] = *at == '|' ? ',' : *at;
		if (*at == '|') {
			error[used++] = ' ';
		}
	}
	error[used] = 0;
	return false;
}

/// Is it of the right type? What it is as text in one spelling in `settled`.
static bool names_check_type(const struct config_named *named, const char *text,
			     char settled[NAMES_KEPT_BYTES_MAX], char *error, size_t error_bytes)
{
	int64_t number = 0;
	(void)snprintf(settled, NAMES_KEPT_BYTES_MAX, "%s", text);
	switch (named->type) {
	case TYPE_BOOL:
		for (char *at = settled; *at; at++) {
			*at = *at >= 'A' && *at <= 'Z' ? (char)(*at - 'A' + 'a') : *at;
		}
		return strcmp(settled, "yes") == 0 || strcmp(settled, "no") == 0 ||
		       names_refuse(error, error_bytes, "argument must be 'yes' or 'no'");
	case TYPE_INT:
	case TYPE_MEM:
	case TYPE_PERCENT:
		if (!names_check_number(named, text, &number, error, error_bytes)) {
			return false;
		}
		(void)snprintf(settled, NAMES_KEPT_BYTES_MAX, "%lld", (long long)number);
		return true;
	case TYPE_ENUM:
		return names_check_enum(named, text, error, error_bytes);
	case TYPE_TEXT:
		break;
	}
	return true;
}

bool config_names_check(const struct kvd *kvd, size_t index, const char *text, char *error,
			size_t error_bytes)
{
	const struct config_named *named = &names[index];
	char settled[NAMES_KEPT_BYTES_MAX];
	char now[NAMES_KEPT_BYTES_MAX];
	if (!names_check_type(named, text, settled, error, error_bytes)) {
		return false;
	}
	config_names_value(kvd, index, now, sizeof(now));
	if (named->kind == NAME_FIXED && strcasecmp(settled, now) != 0) {
		return names_refuse(error, error_bytes, named->why);
	}
	return true;
}

// ---- client-output-buffer-limit ----

struct names_limit {
	int64_t hard, soft, soft_s;
};

static bool names_change_one(struct config_change *change, const char *name, int64_t value,
			     const char *unit, char *error, size_t error_bytes)
{
	char text[32];
	(void)snprintf(text, sizeof(text), "%lld%s", (long long)value, unit);
	return config_change_set(change, config_find(name, strlen(name)), text, error, error_bytes);
}

/// What one class of clients may leave unread: 0 = no bound, but that of all buffers together.
static bool names_change_class(struct config_change *change, const char *class,
			       const struct names_limit *limit, char *error, size_t error_bytes)
{
	if (strcasecmp(class, "normal") == 0) {
		if (limit->soft != 0 || limit->soft_s != 0) {
			return names_refuse(error, error_bytes,
					    "kvd has a soft limit for pubsub clients only");
		}
		if (limit->hard == 0) {
			return config_change_set(change, config_find("client-output-max", 17),
						 "18446744073709551615", error, error_bytes);
		}
		return names_change_one(change, "client-output-max", limit->hard, "", error,
					error_bytes);
	}
	if (strcasecmp(class, "pubsub") == 0) {
		return names_change_one(change, "subscriber-output-max", limit->hard, "", error,
					error_bytes) &&
		       names_change_one(change, "subscriber-output-soft", limit->soft, "", error,
					error_bytes) &&
		       names_change_one(change, "subscriber-output-soft-time", limit->soft_s, "s",
					error, error_bytes);
	}
	if (strcasecmp(class, "slave") != 0 && strcasecmp(class, "replica") != 0) {
		return names_refuse(error, error_bytes,
				    "Invalid client class specified in buffer limit "
				    "configuration.");
	}
	return (limit->hard == 0 && limit->soft == 0 && limit->soft_s == 0) ||
	       names_refuse(error, error_bytes, "kvd has no replicas");
}

bool config_names_is_others(size_t index)
{
	return names[index].kind == NAME_OTHERS;
}

bool config_names_change(struct config_change *change, const char *text, char *error,
			 size_t error_bytes)
{
	char class[16], hard[32], soft[32], soft_s[32];
	int used = 0;
	for (const char *at = text; at[strspn(at, " ")] != 0; at += used) {
		struct names_limit limit;
		if (sscanf(at, "%15s %31s %31s %31s%n", class, hard, soft, soft_s, &used) != 4 ||
		    (at[used] != 0 && at[used] != ' ')) {
			return names_refuse(error, error_bytes,
					    "Wrong number of arguments in buffer limit "
					    "configuration.");
		}
		if (!names_parse_memory(hard, &limit.hard) ||
		    !names_parse_memory(soft, &limit.soft) ||
		    !resp_parse_int(soft_s, strlen(soft_s), &limit.soft_s) || limit.soft_s < 0) {
			return names_refuse(error, error_bytes,
					    "Error in hard, soft or soft_seconds setting in "
					    "buffer limit configuration.");
		}
		if (!names_change_class(change, class, &limit, error, error_bytes)) {
			return false;
		}
	}
	return true;
}

void config_names_put(struct kvd *kvd, size_t index, const char *text)
{
	char settled[NAMES_KEPT_BYTES_MAX];
	char error[NAMES_VALUE_BYTES];
	enum name_kind kind = names[index].kind;
	if ((kind != NAME_KEPT && kind != NAME_HIDDEN) ||
	    !names_check_type(&names[index], text, settled, error, sizeof(error))) {
		return;
	}
	if (!kvd->config_names) {
		kvd->config_names = calloc(1, sizeof(*kvd->config_names));
	}
	char *copy = kvd->config_names ? strdup(settled) : NULL;
	if (copy) {
		free(kvd->config_names->kept[index]);
		kvd->config_names->kept[index] = copy;
	}
}

void config_names_fini(struct kvd *kvd)
{
	for (size_t i = 0; kvd->config_names && i < NAMES; i++) {
		free(kvd->config_names->kept[i]);
	}
	free(kvd->config_names);
	kvd->config_names = NULL;
}

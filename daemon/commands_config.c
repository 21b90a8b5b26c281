// SPDX-License-Identifier: MIT
//
// CONFIG GET: kvd's own options, and the names that Redis clients, benchmarks and exporters ask
// for, answered with what is true of kvd. Options are set on the command line or in the file, not
// here.
#include "daemon/commands.h"

#include <stdio.h>

#include "daemon/glob.h"
#include "daemon/listener.h"
#include "daemon/loop.h"

#define CONFIG_VALUE_BYTES 4096
#define CONFIG_MATCHES_MAX 128

/// A Redis option and its value here; computed ones have none.
struct config_alias {
	const char *name;
	const char *value;
};

static const struct config_alias config_aliases[] = {
	{ "activedefrag", "no" },
	{ "appendfsync", "everysec" },
	{ "appendonly", "no" },
	{ "bind", "" },
	{ "cluster-enabled", "no" },
	{ "databases", "1" },
	{ "hz", "0" },
	{ "io-threads", "1" },
	{ "lazyfree-lazy-user-del", "yes" },
	{ "maxmemory", NULL },
	{ "maxmemory-policy", "noeviction" },
	{ "notify-keyspace-events", "" },
	{ "port", "0" },
	{ "proto-max-bulk-len", NULL },
	{ "requirepass", "" },
	{ "save", "" },
	{ "slowlog-log-slower-than", "-1" },
	{ "slowlog-max-len", "0" },
	{ "tcp-keepalive", "0" },
	{ "timeout", "0" },
	{ "unixsocket", NULL },
	{ "unixsocketperm", NULL },
};
#define CONFIG_ALIASES (sizeof(config_aliases) / sizeof(config_aliases[0]))

/// Names of both kinds under one index: own options first.
static const char *config_any_name(size_t index)
{
	size_t own = config_count();
	return index < own ? config_name(index) : config_aliases[index - own].name;
}

static void config_any_value(const struct kvd *kvd, size_t index, char *out, size_t out_bytes)
{
	size_t own = config_count();
	if (index < own) {
		config_value(&kvd->config, index, out, out_bytes);
		return;
	}
	const struct config_alias *alias = &config_aliases[index - own];
	if (alias->value) {
		(void)snprintf(out, out_bytes, "%s", alias->value);
	} else if (strcmp(alias->name, "maxmemory") == 0) {
		(void)snprintf(out, out_bytes, "%llu",
			       (unsigned long long)kvd->config.memory_bytes);
	} else if (strcmp(alias->name, "proto-max-bulk-len") == 0) {
		(void)snprintf(out, out_bytes, "%zu", keyspace_value_bytes_max(kvd->keyspace));
	} else if (strcmp(alias->name, "unixsocket") == 0) {
		(void)snprintf(out, out_bytes, "%s", listener_path(kvd->listener));
	} else {
		(void)snprintf(out, out_bytes, "%llo", (unsigned long long)kvd->config.socket_mode);
	}
}

/// The options that a call asks for, each once. A name without wildcards is answered as it was
/// typed.
struct config_matches {
	size_t index[CONFIG_MATCHES_MAX];
	const struct resp_arg *typed[CONFIG_MATCHES_MAX]; // NULL = found by a pattern
	size_t count;
};

static void config_match(struct config_matches *matches, const struct resp_arg *pattern)
{
	bool exact = true;
	for (size_t i = 0; i < pattern->bytes; i++) {
		exact = exact && pattern->data[i] != '*' && pattern->data[i] != '?' &&
			pattern->data[i] != '[';
	}
	size_t all = config_count() + CONFIG_ALIASES;
	for (size_t index = 0; index < all && matches->count < CONFIG_MATCHES_MAX; index++) {
		const char *name = config_any_name(index);
		bool known = false;
		for (size_t i = 0; i < matches->count; i++) {
			known = known || matches->index[i] == index;
		}
		bool wanted =
			exact ? commands_arg_is(pattern, name)
			      : glob_match(pattern->data, pattern->bytes, name, strlen(name), true);
		if (wanted && !known) {
			matches->typed[matches->count] = exact ? pattern : NULL;
			matches->index[matches->count++] = index;
		}
	}
}

void commands_config_get(struct call *call)
{
	struct config_matches matches = { .count = 0 };
	for (uint32_t i = 2; i < call->argc; i++) {
		if (!commands_arg_pattern(call, &call->argv[i])) {
			return;
		}
		config_match(&matches, &call->argv[i]);
	}
	reply_map(call->session, matches.count);
	for (size_t i = 0; i < matches.count; i++) {
		char value[CONFIG_VALUE_BYTES];
		config_any_value(call->kvd, matches.index[i], value, sizeof(value));
		if (matches.typed[i]) {
			reply_bulk(call->session, matches.typed[i]->data, matches.typed[i]->bytes);
		} else {
			reply_text(call->session, config_any_name(matches.index[i]));
		}
		reply_text(call->session, value);
	}
}

void commands_config_resetstat(struct call *call)
{
	stats_reset(call->kvd->stats);
	loop_longest_reset(call->kvd->loop);
	reply_ok(call->session);
}

// SPDX-License-Identifier: MIT
//
// CONFIG GET: kvd's own options, and the names that Redis clients, benchmarks and exporters ask for,
// answered with what is true of kvd. Options are set on the command line or in the file, not here.
#include "daemon/commands.h"

#include <stdio.h>

#include "daemon/glob.h"
#include "daemon/listener.h"

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

/// Does one of the patterns name this option?
static bool config_wanted(const struct call *call, const char *name)
{
	for (uint32_t i = 2; i < call->argc; i++) {
		if (glob_match(call->argv[i].data, call->argv[i].bytes, name, strlen(name), true)) {
			return true;
		}
	}
	return false;
}

void commands_config_get(struct call *call)
{
	size_t matches[CONFIG_MATCHES_MAX];
	size_t found = 0;
	for (uint32_t i = 2; i < call->argc; i++) {
		if (!commands_arg_pattern(call, &call->argv[i])) {
			return;
		}
	}
	size_t all = config_count() + CONFIG_ALIASES;
	for (size_t i = 0; i < all && found < CONFIG_MATCHES_MAX; i++) {
		if (config_wanted(call, config_any_name(i))) {
			matches[found++] = i;
		}
	}
	reply_map(call->session, found);
	for (size_t i = 0; i < found; i++) {
		char value[CONFIG_VALUE_BYTES];
		config_any_value(call->kvd, matches[i], value, sizeof(value));
		reply_text(call->session, config_any_name(matches[i]));
		reply_text(call->session, value);
	}
}

void commands_config_resetstat(struct call *call)
{
	stats_reset(call->kvd->stats);
	reply_ok(call->session);
}

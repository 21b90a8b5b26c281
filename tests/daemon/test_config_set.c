// SPDX-License-Identifier: MIT
//
// Options of a running kvd: what may be set, what it becomes, and that of several that do not fit
// together none is set.
#include "daemon/config_set.h"

#include <string.h>

#include "tests/tap/tap.h"

static char error[512];

static size_t find(const char *name)
{
	return config_find(name, strlen(name));
}

static bool set(struct config_change *change, const char *name, const char *value)
{
	error[0] = 0;
	return config_change_set(change, find(name), value, error, sizeof(error));
}

static void refused(struct config *config, const char *name, const char *value, const char *why)
{
	struct config_change change;
	config_change_begin(&change, config);
	if (!ok(!set(&change, name, value) && strstr(error, why), "refused: %s %s", name, value)) {
		tap_diag("'%s'", error);
	}
	config_change_abort(&change);
}

static void start(struct config *config)
{
	const char *argv[] = { "kvd", "--dir", "/x", NULL };
	if (config_parse(config, 3, (char **)argv, error, sizeof(error)) != CONFIG_RUN) {
		tap_diag("%s", error);
	}
}

static void test_refusals(struct config *config)
{
	refused(config, "memory", "1g", "can't set immutable config");
	refused(config, "dir", "/y", "can't set immutable config");
	refused(config, "maxclients", "abc", "argument couldn't be parsed into an integer");
	refused(config, "maxclients", "-1", "argument must be between 1 and 1000000 inclusive");
	refused(config, "maxclients", "0", "argument must be between 1 and 1000000 inclusive");
	refused(config, "client-output-max", "many", "argument must be a memory value");
	refused(config, "write-wait", "soon", "argument must be a duration");
	refused(config, "loglevel", "loud",
		"argument(s) must be one of the following: debug, info, notice, warning, error");
	refused(config, "slowlog-log-slower-than", "-2",
		"argument must be between -1 and 9223372036854775807 inclusive");
	refused(config, "slowlog-log-slower-than", "9223372036854775808",
		"argument couldn't be parsed into an integer");
}

static void test_together(struct config *config)
{
	struct config_change change;
	config_change_begin(&change, config);
	ok(set(&change, "revoke", "100ms") && set(&change, "revoke-min", "200ms"),
	   "each by itself is good");
	ok(!config_change_check(&change, error, sizeof(error)) && strstr(error, "revoke-min"),
	   "together they are not");
	config_change_abort(&change);
	ok(config->revoke_ms == 5000 && config->revoke_min_ms == 50, "and nothing was set");
	config_change_begin(&change, config);
	ok(set(&change, "revoke-min", "200ms") && set(&change, "revoke", "300") &&
		   set(&change, "slowlog-log-slower-than", "-1") &&
		   set(&change, "notify-keyspace-events", "KEA") &&
		   set(&change, "notify-keyspace-events", "K$") &&
		   set(&change, "LogLevel", "ERROR") &&
		   config_change_check(&change, error, sizeof(error)),
	   "others are");
	ok(config->revoke_ms == 5000 && !*config->notify_events, "until the end nothing changes");
	config_change_commit(&change, config);
	ok(config->revoke_ms == 300 && config->revoke_min_ms == 200 && config->slowlog_us == -1 &&
		   config->log_level == 4 && strcmp(config->notify_events, "K$") == 0,
	   "then everything does");
	ok(change.set[find("revoke")] && !change.set[find("maxclients")], "what was set is known");
}

static void test_derived(struct config *config)
{
	struct config_change change;
	uint64_t derived = config->buffers_bytes_max;
	config_change_begin(&change, config);
	ok(set(&change, "client-buffers-max", "1g") &&
		   config_change_check(&change, error, sizeof(error)),
	   "a bound for buffers");
	config_change_commit(&change, config);
	ok_u64(config->buffers_bytes_max, 1u << 30, "is in force");
	config_change_begin(&change, config);
	ok(set(&change, "client-buffers-max", "0") &&
		   config_change_check(&change, error, sizeof(error)),
	   "0 leaves it to kvd again");
	config_change_commit(&change, config);
	ok_u64(config->buffers_bytes_max, derived, "as at start");
}

int main(void)
{
	struct config config;
	start(&config);
	ok(find("MAXclients") < config_count() && find("maxclient") == config_count() &&
		   find("") == config_count(),
	   "names in any case, but whole");
	test_refusals(&config);
	test_together(&config);
	test_derived(&config);
	config_fini(&config);
	return tap_done();
}

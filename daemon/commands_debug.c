// SPDX-License-Identifier: MIT
//
// DEBUG: what test suites need of it. SLEEP lets only its own connection wait; nobody else notices.
#include "daemon/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/commands_object.h"
#include "daemon/glob.h"
#include "daemon/keyspace_cold.h"
#include "daemon/keyspace_recount.h"
#include "daemon/log.h"
#include "daemon/session_rest.h"

#define DEBUG_SLEEP_S_MAX 86400.0
#define DEBUG_GLOB_BYTES_MAX (1u << 20)

static void debug_sleep(struct call *call)
{
	char text[COMMANDS_EXCERPT_BYTES];
	double seconds = strtod(commands_excerpt(&call->argv[2], text), NULL);
	seconds = seconds < DEBUG_SLEEP_S_MAX ? seconds : DEBUG_SLEEP_S_MAX;
	if (seconds > 0) {
		call->slept_ns = (uint64_t)(seconds * 1e9);
		session_rest_until(call->session, call->kvd->seam->monotonic_ns() + call->slept_ns);
	}
	reply_ok(call->session);
}

static void debug_log(struct call *call)
{
	char text[COMMANDS_EXCERPT_BYTES];
	log_notice("DEBUG LOG: %s", commands_excerpt(&call->argv[2], text));
	reply_ok(call->session);
}

struct debug_spill {
	struct call *call;
	int64_t spilled;
};

static void debug_spill_visit(void *context, const void *key, size_t key_bytes,
			      const struct keyspace_value *value)
{
	struct debug_spill *spill = context;
	struct keyspace *keyspace = spill->call->kvd->keyspace;
	(void)value;
	spill->spilled += keyspace_spill(keyspace, key, key_bytes) == KEYSPACE_COLD_DONE;
}

/// Leaves stubs of all values that may leave memory, or of one: the count of those that did.
static void debug_spill(struct call *call)
{
	static const char *const why[] = {
		[KEYSPACE_COLD_OTHER] = "ERR no such key, no store, or it is spilled already",
		[KEYSPACE_COLD_UNDURABLE] = "ERR it is not durable yet: KVD.SYNC waits for that",
		[KEYSPACE_COLD_UNPLACED] = "ERR its place in the store is not known any more",
		[KEYSPACE_COLD_SMALL] = "ERR it is so small that a stub would take as much",
		[KEYSPACE_COLD_NO_ROOM] = "ERR there is no room for its stub",
	};
	const struct resp_arg *key = &call->argv[2];
	struct keyspace *keyspace = call->kvd->keyspace;
	if (call->argc == 3) {
		bool is_key = key->bytes - 1 < KVS_KEY_BYTES_MAX;
		enum keyspace_cold_result result =
			is_key ? keyspace_spill(keyspace, key->data, key->bytes)
			       : KEYSPACE_COLD_OTHER;
		if (result == KEYSPACE_COLD_DONE) {
			reply_integer(call->session, 1);
		} else {
			commands_error(call, why[result]);
		}
		return;
	}
	struct debug_spill spill = { .call = call };
	struct commands_walk *walk = commands_walk(call);
	if (!walk) {
		return;
	}
	do {
		spill.spilled = 0;
		walk->at = keyspace_scan(keyspace, walk->at, debug_spill_visit, &spill);
		walk->count += (uint64_t)spill.spilled;
	} while (walk->at != 0 && !commands_cut(call));
	if (!call->again) {
		reply_integer(call->session, (int64_t)walk->count);
	}
}

static void debug_set_active_expire(struct call *call)
{
	char text[COMMANDS_EXCERPT_BYTES];
	bool on = strtol(commands_excerpt(&call->argv[2], text), NULL, 10) != 0;
	keyspace_set_active_expire(call->kvd->keyspace, on);
	reply_ok(call->session);
}

static void debug_object(struct call *call)
{
	struct keyspace_value value;
	if (call->argv[2].bytes - 1 >= KVS_KEY_BYTES_MAX || !commands_peek(call, 2, &value)) {
		commands_error(call, "ERR no such key");
		return;
	}
	char text[192];
	uint64_t idle_s = (keyspace_now_ms(call->kvd->keyspace) - value.time_ms) / 1000;
	(void)snprintf(text, sizeof(text),
		       "Value at:%p refcount:1 encoding:%s serializedlength:%zu lru:0 "
		       "lru_seconds_idle:%llu",
		       value.value, commands_object_encoding_name(&value), value.value_bytes,
		       (unsigned long long)idle_s);
	reply_status(call->session, text);
}

/// Compares all that is counted with what there is. Nobody is served meanwhile.
static void debug_recount(struct call *call)
{
	struct keyspace_recount recount;
	int result = keyspace_recount(call->kvd->keyspace, &recount);
	if (result != 0) {
		commands_errorf(call, "ERR cannot recount: %s", strerror(-result));
	} else if (recount.differences > 0) {
		commands_errorf(call, "ERR %llu counts are wrong, the first is of %s",
				(unsigned long long)recount.differences, recount.first);
	} else {
		reply_integer(call->session, (int64_t)recount.checked);
	}
}

/// Replies of all kinds, for tests of clients.
static void debug_protocol(struct call *call)
{
	struct session *session = call->session;
	const struct resp_arg *kind = &call->argv[2];
	bool resp3 = session->resp_version >= 3;
	if (commands_arg_is(kind, "string")) {
		reply_text(session, "Hello World");
	} else if (commands_arg_is(kind, "integer")) {
		reply_integer(session, 12345);
	} else if (commands_arg_is(kind, "double")) {
		reply_double(session, 3.141);
	} else if (commands_arg_is(kind, "bignum")) {
		static const char number[] = "1234567999999999999999999999999999999";
		if (resp3) {
			reply_raw(session, "(", 1);
			reply_raw(session, number, sizeof(number) - 1);
			reply_raw(session, "\r\n", 2);
		} else {
			reply_text(session, number);
		}
	} else if (commands_arg_is(kind, "null")) {
		reply_null(session);
	} else if (commands_arg_is(kind, "array") || commands_arg_is(kind, "set")) {
		(commands_arg_is(kind, "set") ? reply_set : reply_array)(session, 3);
		for (int64_t i = 0; i < 3; i++) {
			reply_integer(session, i);
		}
	} else if (commands_arg_is(kind, "map")) {
		reply_map(session, 3);
		for (int64_t i = 0; i < 3; i++) {
			reply_integer(session, i);
			reply_boolean(session, i == 1);
		}
	} else if (commands_arg_is(kind, "attrib")) {
		static const char attribute[] = "|1\r\n$14\r\nkey-popularity\r\n*2\r\n"
						"$7\r\nkey:123\r\n:90\r\n";
		reply_raw(session, attribute, resp3 ? sizeof(attribute) - 1 : 0);
		reply_text(session, "Some real reply following the attribute");
	} else if (commands_arg_is(kind, "push") && resp3) {
		reply_push(session, 2);
		reply_text(session, "server-cpu-usage");
		reply_integer(session, 42);
		reply_text(session, "Some real reply following the push reply");
	} else if (commands_arg_is(kind, "push")) {
		commands_error(call, "ERR RESP2 is not supported by this command");
	} else if (commands_arg_is(kind, "true") || commands_arg_is(kind, "false")) {
		reply_boolean(session, commands_arg_is(kind, "true"));
	} else if (commands_arg_is(kind, "verbatim")) {
		reply_verbatim(session, "This is a verbatim\nstring", 25);
	} else {
		commands_error(call, "ERR Wrong protocol type name. Please use one of the "
				     "following: string|integer|double|bignum|null|array|set|map|"
				     "attrib|push|verbatim|true|false");
	}
}

/// How long matching a pattern against so many letters takes.
static void debug_stringmatch(struct call *call)
{
	int64_t bytes;
	if (!commands_arg_int(call, &call->argv[2], &bytes, NULL) ||
	    !commands_arg_pattern(call, &call->argv[3])) {
		return;
	}
	if (bytes < 0 || bytes > DEBUG_GLOB_BYTES_MAX) {
		commands_errorf(call, "ERR length must be between 0 and %u", DEBUG_GLOB_BYTES_MAX);
		return;
	}
	char *text = malloc((size_t)bytes + 1);
	if (!text) {
		commands_error(call, "ERR out of memory");
		return;
	}
	memset(text, 'a', (size_t)bytes);
	bool matches =
		glob_match(call->argv[3].data, call->argv[3].bytes, text, (size_t)bytes, false);
	free(text);
	reply_integer(call->session, matches);
}

static void debug_help(struct call *call);

static const struct debug_row {
	const char *name;
	uint32_t argc;
	void (*run)(struct call *call);
	const char *help;
} debug_rows[] = {
	{ "help", 2, debug_help, "HELP: lists the subcommands." },
	{ "log", 3, debug_log, "LOG <message>: writes a line into kvd's log." },
	{ "object", 3, debug_object, "OBJECT <key>: tells about a value." },
	{ "protocol", 3, debug_protocol, "PROTOCOL <type>: answers with a reply of a type." },
	{ "recount", 2, debug_recount,
	  "RECOUNT: compares all that is counted with what there is; nobody is served meanwhile." },
	{ "set-active-expire", 3, debug_set_active_expire,
	  "SET-ACTIVE-EXPIRE <0|1>: are keys removed when their time comes, or when asked for?" },
	{ "sleep", 3, debug_sleep,
	  "SLEEP <seconds>: this connection, and no other, is answered so much later." },
	{ "spill", 2, debug_spill,
	  "SPILL: leaves the values of all durable keys in the store alone. Says how many." },
	{ "spill", 3, debug_spill, "SPILL <key>: the same of one." },
	{ "stringmatch-len", 4, debug_stringmatch,
	  "STRINGMATCH-LEN <length> <pattern>: matches a pattern against so many letters a." },
};
#define DEBUG_ROWS (sizeof(debug_rows) / sizeof(debug_rows[0]))

static void debug_help(struct call *call)
{
	reply_array(call->session, DEBUG_ROWS);
	for (size_t i = 0; i < DEBUG_ROWS; i++) {
		reply_status(call->session, debug_rows[i].help);
	}
}

void commands_debug_debug(struct call *call)
{
	for (size_t i = 0; i < DEBUG_ROWS; i++) {
		if (call->argc == debug_rows[i].argc &&
		    commands_arg_is(&call->argv[1], debug_rows[i].name)) {
			debug_rows[i].run(call);
			return;
		}
	}
	commands_error_subcommand(call);
}

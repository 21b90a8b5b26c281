// SPDX-License-Identifier: MIT
//
// Dispatch from inside: the command table is consistent, and a command that finds no room leaves no
// trace, neither in the keyspace nor in the replies, wherever in its course the room ran out.
// Sessions and keyspace are real; the linker puts a wrapper around the keyspace's writes that
// refuses on demand.
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/commands.h"
#include "daemon/commands_acl.h"
#include "daemon/events.h"
#include "daemon/keyspace_create.h"
#include "daemon/loop.h"
#include "shm/epoch_scan.h"
#include "shm/region.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)
#define SEGMENT_BYTES (64u << 10)

// ---- refusing on demand ----

static int refuse_with;	      // KEYSPACE_OK = never
static unsigned refuse_after; // so many writes go through first
static bool refuse_admission;

static int refusal(void)
{
	if (refuse_with == KEYSPACE_OK || refuse_after > 0) {
		refuse_after -= refuse_after > 0;
		return KEYSPACE_OK;
	}
	return refuse_with;
}

#define WRAPPED(name, declaration, arguments)                                    \
	int __real_##name declaration;                                           \
	int __wrap_##name declaration;                                           \
	int __wrap_##name declaration                                            \
	{                                                                        \
		int result = refusal();                                          \
		return result == KEYSPACE_OK ? __real_##name arguments : result; \
	}

WRAPPED(keyspace_set,
	(struct keyspace * keyspace, const void *key, size_t key_bytes, const void *value,
	 size_t value_bytes, uint64_t expiry_ms, uint64_t *seq),
	(keyspace, key, key_bytes, value, value_bytes, expiry_ms, seq))
WRAPPED(keyspace_set_pieces,
	(struct keyspace * keyspace, const void *key, size_t key_bytes,
	 const struct kvs_piece *pieces, uint32_t count, uint64_t expiry_ms, uint64_t *seq),
	(keyspace, key, key_bytes, pieces, count, expiry_ms, seq))
WRAPPED(keyspace_delete, (struct keyspace * keyspace, const void *key, size_t key_bytes),
	(keyspace, key, key_bytes))
WRAPPED(keyspace_expire,
	(struct keyspace * keyspace, const void *key, size_t key_bytes, uint64_t expiry_ms),
	(keyspace, key, key_bytes, expiry_ms))
WRAPPED(keyspace_flush, (struct keyspace * keyspace), (keyspace))

int __real_keyspace_batch_commit(struct keyspace *keyspace);
int __wrap_keyspace_batch_commit(struct keyspace *keyspace);
int __wrap_keyspace_batch_commit(struct keyspace *keyspace)
{
	int result = refusal();
	if (result == KEYSPACE_OK) {
		return __real_keyspace_batch_commit(keyspace);
	}
	keyspace_batch_abort(keyspace); // a refused batch is gone
	return result;
}

int __real_keyspace_admit(struct keyspace *keyspace, size_t bytes);
int __wrap_keyspace_admit(struct keyspace *keyspace, size_t bytes);
int __wrap_keyspace_admit(struct keyspace *keyspace, size_t bytes)
{
	return refuse_admission ? refuse_with : __real_keyspace_admit(keyspace, bytes);
}

// ---- a kvd without a door ----

struct rig {
	struct kvd kvd;
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct session_shared *sessions;
	struct session *session;
	int peer;
};

static void rig_open(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->kvd.seam = &seam_system;
	rig->kvd.config.memory_bytes = MEMORY_BYTES;
	rig->kvd.config.output_bytes_max = 64u << 20;
	struct kvs_region_options options = { .memory_bytes = MEMORY_BYTES,
					      .memory_bytes_max = MEMORY_BYTES,
					      .segment_bytes = SEGMENT_BYTES,
					      .instance_id = 1,
					      .hash_key = { 1 },
					      .fenced = true };
	ok_int(kvs_region_create(&rig->region, &options), KVS_REGION_OK, "region");
	kvs_epoch_init(&rig->epochs, &rig->region.header->hot, true);
	struct keyspace_options keyspace = { .seam = &seam_system,
					     .region = &rig->region,
					     .epochs = &rig->epochs,
					     .revoke_ms = 5000,
					     .revoke_min_ms = 50,
					     .value_bytes_max = 1u << 20 };
	rig->kvd.keyspace = keyspace_create(&keyspace);
	(void)keyspace_recover_finish(rig->kvd.keyspace, 0, false);
	kvs_region_go_alive(&rig->region);
	ok_int(loop_create(&rig->kvd.loop, &seam_system), 0, "loop");
	rig->kvd.stats = stats_create(&rig->kvd);
	ok(events_create(&rig->kvd), "events");
	rig->sessions = session_shared_create(&rig->kvd, NULL);
	int pair[2] = { -1, -1 };
	ok_int(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0,
	       "sockets");
	rig->session = session_open(rig->sessions, pair[0]);
	rig->peer = pair[1];
	ok(rig->session && rig->kvd.stats, "session and statistics");
}

static void rig_close(struct rig *rig)
{
	session_shared_destroy(rig->sessions);
	close(rig->peer);
	events_destroy(&rig->kvd);
	stats_destroy(rig->kvd.stats);
	loop_destroy(rig->kvd.loop);
	keyspace_destroy(rig->kvd.keyspace);
	kvs_epoch_fini(&rig->epochs);
	kvs_region_close(&rig->region);
}

/// Dispatches a command given as words with single spaces between; `out` gets what it answered.
static enum command_outcome run(struct rig *rig, const char *line, char *out, size_t out_bytes)
{
	struct resp_arg argv[16];
	uint32_t argc = 0;
	for (const char *at = line; *at && argc < 16;) {
		size_t bytes = strcspn(at, " ");
		argv[argc++] = (struct resp_arg){ at, bytes };
		at += bytes + (at[bytes] == ' ');
	}
	struct session *session = rig->session;
	enum command_outcome outcome = command_dispatch(&rig->kvd, session, argv, argc);
	size_t bytes = session->output_end - session->output_sent;
	bytes = bytes < out_bytes - 1 ? bytes : out_bytes - 1;
	if (bytes > 0) {
		memcpy(out, session->output + session->output_sent, bytes);
	}
	out[bytes] = 0;
	session->output_end = session->output_sent; // as if sent
	return outcome;
}

static void expect(struct rig *rig, const char *line, const char *reply)
{
	char out[1024];
	enum command_outcome outcome = run(rig, line, out, sizeof(out));
	if (!ok(outcome == COMMAND_DONE && strcmp(out, reply) == 0, "%s", line)) {
		tap_diag("got '%s', expected '%s'", out, reply);
	}
}

// ---- the table ----

static void test_table(void)
{
	size_t count;
	const struct command *table = command_table(&count);
	unsigned wrong = 0;
	for (size_t i = 0; i < count; i++) {
		const struct command *row = &table[i];
		const char *bar = strchr(row->name, '|');
		bool sorted = i == 0 || strcmp(table[i - 1].name, row->name) < 0;
		bool found = command_find(row->name, strlen(row->name)) == row;
		bool keys = row->first_key == 0
				    ? row->last_key == 0 && row->key_step == 0
				    : row->key_step > 0 && abs(row->arity) > row->first_key;
		bool flags = (!(row->flags & COMMAND_DENYOOM) || row->flags & COMMAND_WRITE) &&
			     !(row->flags & COMMAND_WRITE && row->flags & COMMAND_READONLY);
		bool parent = !bar || (command_find(row->name, (size_t)(bar - row->name)) &&
				       command_find(row->name, (size_t)(bar - row->name))->flags &
					       COMMAND_CONTAINER);
		size_t last = strlen(row->summary);
		bool text = last > 0 && row->summary[last - 1] == '.' && row->since[0];
		if (!sorted || !found || !row->run || !keys || !flags || !parent || !text ||
		    row->arity == 0) {
			tap_diag("row %s", row->name);
			wrong++;
		}
	}
	ok_u64(wrong, 0, "all %zu rows are sorted, found, and make sense", count);
	ok(command_find("GeT", 3) && strcmp(command_find("GeT", 3)->name, "get") == 0, "any case");
	ok(!command_find("ge", 2) && !command_find("getx", 4) && !command_find("", 0),
	   "no prefix, no longer name, not nothing");
	ok(!command_find("get\0", 4), "no NUL in a name");
	ok(!command_find("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 48), "no long name");
	size_t subs;
	const struct command *client = command_find("client", 6);
	const struct command *sub = commands_subcommands(client, &subs);
	ok(subs >= 7 && strncmp(sub->name, "client|", 7) == 0 &&
		   strncmp(sub[subs - 1].name, "client|", 7) == 0 &&
		   strncmp(sub[subs].name, "client|", 7) != 0,
	   "subcommands of client");
	(void)commands_subcommands(command_find("get", 3), &subs);
	ok_u64(subs, 0, "get has none");
}

static bool is_in(const struct command *command, const char *category)
{
	const char *categories[COMMANDS_CATEGORIES_MAX];
	size_t count = commands_categories(command, categories);
	bool found = false;
	for (size_t i = 0; i < count; i++) {
		found = found || strcmp(categories[i], category) == 0;
	}
	return found;
}

static void test_rights(void)
{
	size_t count;
	const struct command *table = command_table(&count);
	const uint32_t told = COMMAND_WRITE | COMMAND_MAY_REPLICATE;
	unsigned wrong = 0;
	for (size_t i = 0; i < count; i++) {
		const struct command *row = &table[i];
		bool writes = (row->flags & COMMAND_NEEDS_WRITE) != 0;
		bool administers = (row->flags & COMMAND_NEEDS_ADMIN) != 0;
		if (writes != ((row->flags & told) != 0) ||
		    (administers && !(is_in(row, "@admin") && is_in(row, "@dangerous")))) {
			tap_diag("row %s", row->name);
			wrong++;
		}
	}
	ok_u64(wrong, 0, "H: what changes keys needs the right to write; @admin what needs that");
	ok_str(commands_right(command_find("set", 3)), "write", "the right that SET needs");
	ok_str(commands_right(command_find("kvd.backup", 10)), "administer", "and KVD.BACKUP");
	ok(!commands_right(command_find("get", 3)), "GET needs none");
}

// ---- refusals ----

// Of all bounds and holders it is the memory itself.
#define OOM_BARE                                                                            \
	"OOM command not allowed when used memory > 'maxmemory'. all 8388608 bytes are in " \
	"use: remove keys, let them expire, or start kvd with more memory\r\n"
#define OOM_TEXT "-" OOM_BARE

/// Each of these writes; before it runs the keys are a=1 (with an expiry) and b=2, and after a
/// refusal they must be so still.
static const struct {
	const char *line;
	unsigned writes;   // calls of the keyspace that can be refused
	const char *reply; // when nothing is refused
} writers[] = {
	{ "SET a x", 1, "+OK\r\n" },
	{ "SET a x GET", 1, "$1\r\n1\r\n" },
	{ "SET a x KEEPTTL", 1, "+OK\r\n" },
	{ "SETNX c x", 1, ":1\r\n" },
	{ "SETEX a 100 x", 1, "+OK\r\n" },
	{ "GETDEL a", 1, "$1\r\n1\r\n" },
	{ "GETEX a PERSIST", 1, "$1\r\n1\r\n" },
	{ "GETEX a EX 100", 1, "$1\r\n1\r\n" },
	{ "GETEX a PXAT 1", 1, "$1\r\n1\r\n" },
	{ "APPEND a x", 1, ":2\r\n" },
	{ "APPEND c x", 1, ":1\r\n" },
	{ "INCR a", 1, ":2\r\n" },
	{ "MSET a x b y c z", 4, "+OK\r\n" },
	{ "MSETNX c x d y", 3, ":1\r\n" },
	{ "DEL a", 1, ":1\r\n" },
	{ "DEL a b c", 4, ":2\r\n" },
	{ "EXPIRE a 100", 1, ":1\r\n" },
	{ "EXPIRE a -1", 1, ":1\r\n" },
	{ "PERSIST a", 1, ":1\r\n" },
	{ "FLUSHALL", 1, "+OK\r\n" },
	{ "SET a x EX 100", 1, "+OK\r\n" },
	{ "SET b x IFEQ 2", 1, "+OK\r\n" },
	{ "PSETEX a 5000 x", 1, "+OK\r\n" },
	{ "GETSET a x", 1, "$1\r\n1\r\n" },
	{ "DECRBY b 3", 1, ":-1\r\n" },
	{ "INCRBYFLOAT a 0.5", 1, "$3\r\n1.5\r\n" },
	{ "SETRANGE a 3 x", 1, ":4\r\n" },
	{ "SETRANGE c 3 x", 1, ":4\r\n" },
	{ "SETBIT a 6 1", 1, ":0\r\n" },
	{ "SETBIT c 99 1", 1, ":0\r\n" },
	{ "BITFIELD a SET u8 0 50 GET u8 0", 1, "*2\r\n:49\r\n:50\r\n" },
	{ "BITFIELD c INCRBY i5 99 3", 1, "*1\r\n:3\r\n" },
	{ "BITOP OR a a b", 1, ":1\r\n" },
	{ "BITOP NOT c a", 1, ":1\r\n" },
	{ "BITOP AND a c d", 1, ":0\r\n" },
	{ "COPY a c", 1, ":1\r\n" },
	{ "COPY a b REPLACE", 1, ":1\r\n" },
	{ "RENAME a c", 2, "+OK\r\n" },
	{ "RENAME b a", 2, "+OK\r\n" },
	{ "RENAMENX b c", 2, ":1\r\n" },
	{ "UNLINK a b", 3, ":2\r\n" },
	{ "DELIFEQ b 2", 1, ":1\r\n" },
	{ "EXPIREAT a 4100000000", 1, ":1\r\n" },
	{ "PEXPIRE b 100000", 1, ":1\r\n" },
	{ "PEXPIREAT b 1", 1, ":1\r\n" },
	{ "FLUSHDB", 1, "+OK\r\n" },
	{ "KVD.SET a x PX 5", 1, NULL },
	{ "KVD.CAS c 0 x", 1, NULL },
};

static void restore(struct rig *rig)
{
	char out[256];
	refuse_with = KEYSPACE_OK;
	refuse_admission = false;
	(void)run(rig, "FLUSHALL", out, sizeof(out));
	(void)run(rig, "SET a 1 PXAT 4000000000000", out, sizeof(out));
	(void)run(rig, "SET b 2", out, sizeof(out));
}

static bool untouched(struct rig *rig)
{
	char out[256];
	char whole[1024] = "";
	static const char *const questions[] = { "MGET a b c d", "DBSIZE", "KVD.GETV b" };
	refuse_with = KEYSPACE_OK;
	refuse_admission = false;
	(void)run(rig, questions[0], whole, sizeof(whole));
	(void)run(rig, questions[1], out, sizeof(out));
	bool same = strcmp(whole, "*4\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n$-1\r\n") == 0 &&
		    strcmp(out, ":2\r\n") == 0;
	(void)run(rig, "PTTL a", out, sizeof(out));
	return same && strlen(out) > 12; // some 2 * 10^12 ms are left
}

static void test_refused(struct rig *rig, int result, bool no_wait)
{
	unsigned wrong = 0;
	for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
		for (unsigned after = 0; after < writers[i].writes; after++) {
			char out[1024];
			restore(rig);
			rig->session->no_wait = no_wait;
			refuse_after = after;
			refuse_with = result;
			enum command_outcome outcome = run(rig, writers[i].line, out, sizeof(out));
			rig->session->no_wait = false;
			bool parks = result == KEYSPACE_WAIT && !no_wait;
			bool good = outcome == (parks ? COMMAND_PARK : COMMAND_DONE) &&
				    strcmp(out, parks ? "" : OOM_TEXT) == 0 && untouched(rig);
			if (!good) {
				tap_diag("%s, refused after %u writes: '%s'", writers[i].line,
					 after, out);
				wrong++;
			}
		}
	}
	ok_u64(wrong, 0, "G: refused with %d%s: %s, and no trace", result,
	       no_wait ? " and no waiting" : "",
	       result == KEYSPACE_WAIT && !no_wait ? "parked" : "-OOM");
}

static void test_then_done(struct rig *rig)
{
	unsigned wrong = 0;
	for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
		char out[1024];
		restore(rig);
		refuse_with = KEYSPACE_WAIT;
		refuse_after = 0;
		bool parked = run(rig, writers[i].line, out, sizeof(out)) == COMMAND_PARK;
		refuse_with = KEYSPACE_OK;
		bool done = run(rig, writers[i].line, out, sizeof(out)) == COMMAND_DONE;
		bool right = writers[i].reply ? strcmp(out, writers[i].reply) == 0 : out[0] == ':';
		if (!parked || !done || !right) {
			tap_diag("%s: '%s'", writers[i].line, out);
			wrong++;
		}
	}
	ok_u64(wrong, 0, "a parked command runs when it is tried again");
}

/// EXEC whose writes are refused at every possible place.
static void test_exec(struct rig *rig, int result, const char *reply)
{
	char out[1024];
	unsigned wrong = 0;
	for (unsigned after = 0; after <= 3; after++) {
		restore(rig);
		expect(rig, "MULTI", "+OK\r\n");
		expect(rig, "SET a x", "+QUEUED\r\n");
		expect(rig, "GET a", "+QUEUED\r\n");
		expect(rig, "MSET c 1 d 2", "+QUEUED\r\n");
		refuse_with = result;
		refuse_after = after;
		enum command_outcome outcome = run(rig, "EXEC", out, sizeof(out));
		bool parks = result == KEYSPACE_WAIT;
		bool good = outcome == (parks ? COMMAND_PARK : COMMAND_DONE) &&
			    strcmp(out, reply) == 0 && rig->session->multi.active == parks;
		if (parks) {
			refuse_with = KEYSPACE_OK;
			good = run(rig, "EXEC", out, sizeof(out)) == COMMAND_DONE && good &&
			       strcmp(out, "*3\r\n+OK\r\n$1\r\nx\r\n+OK\r\n") == 0;
		} else {
			good = good && untouched(rig);
		}
		if (!good) {
			tap_diag("refused after %u: '%s'", after, out);
			wrong++;
		}
	}
	ok_u64(wrong, 0, "I: EXEC refused with %d anywhere: whole or not at all", result);
}

static void test_admission(struct rig *rig)
{
	char out[256];
	restore(rig);
	refuse_admission = true;
	refuse_with = KEYSPACE_FULL;
	refuse_after = UINT32_MAX;
	expect(rig, "SET a x", OOM_TEXT);
	expect(rig, "INCR a", OOM_TEXT);
	expect(rig, "GET a", "$1\r\n1\r\n");
	expect(rig, "DEL c", ":0\r\n");
	expect(rig, "EXPIRE c 100", ":0\r\n");
	refuse_with = KEYSPACE_WAIT;
	ok(run(rig, "SET a x", out, sizeof(out)) == COMMAND_PARK && !out[0], "admission may park");
	expect(rig, "MULTI", "+OK\r\n");
	expect(rig, "GET a", "+QUEUED\r\n");
	expect(rig, "EXEC", "*1\r\n$1\r\n1\r\n");
	refuse_with = KEYSPACE_FULL;
	expect(rig, "MULTI", "+OK\r\n");
	expect(rig, "SET a x", "+QUEUED\r\n");
	expect(rig, "EXEC", "-EXECABORT Transaction discarded because of: " OOM_BARE);
	expect(rig, "EXEC", "-ERR EXEC without MULTI\r\n");
	ok(untouched(rig), "G: whatever was refused left no trace");
	expect(rig, "MULTI", "+OK\r\n");
	expect(rig, "FLUSHALL", "+QUEUED\r\n");
	expect(rig, "SET a x", "+QUEUED\r\n");
	expect(rig, "EXEC", "*2\r\n+OK\r\n+OK\r\n"); // the batch finds room, not its parts
	expect(rig, "DBSIZE", ":1\r\n");
}

/// What was changed and is as before was changed all the same.
static void test_watch(struct rig *rig)
{
	static const struct {
		const char *watch, *before, *after, *reply;
	} cases[] = {
		{ "WATCH none", "SET none 1", "DEL none", "*-1\r\n" },
		{ "WATCH a", "SET a 2", "SET a 1", "*-1\r\n" },
		{ "WATCH a", "SET b 2", "DEL none", "*1\r\n$1\r\n1\r\n" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[64];
		restore(rig);
		expect(rig, cases[i].watch, "+OK\r\n");
		(void)run(rig, cases[i].before, out, sizeof(out));
		(void)run(rig, cases[i].after, out, sizeof(out));
		expect(rig, "MULTI", "+OK\r\n");
		expect(rig, "GET a", "+QUEUED\r\n");
		expect(rig, "EXEC", cases[i].reply);
	}
}

static void test_too_large(struct rig *rig)
{
	restore(rig);
	refuse_with = KEYSPACE_TOO_LARGE;
	refuse_after = 0;
	expect(rig, "MSET a 1 b 2",
	       "-ERR batch is too large: all its records together may have 67108864 bytes\r\n");
	ok(untouched(rig), "I: a batch over its limit is not applied");
	test_exec(
		rig, KEYSPACE_TOO_LARGE,
		"-EXECABORT Transaction discarded because of: batch is too large: all its records "
		"together may have 67108864 bytes\r\n");
}

int main(void)
{
	static struct rig rig;
	test_table();
	test_rights();
	rig_open(&rig);
	test_refused(&rig, KEYSPACE_WAIT, false);
	test_refused(&rig, KEYSPACE_WAIT, true);
	test_refused(&rig, KEYSPACE_FULL, false);
	test_then_done(&rig);
	test_exec(&rig, KEYSPACE_WAIT, "");
	test_exec(&rig, KEYSPACE_FULL, "-EXECABORT Transaction discarded because of: " OOM_BARE);
	test_admission(&rig);
	test_watch(&rig);
	test_too_large(&rig);
	rig_close(&rig);
	return tap_done();
}

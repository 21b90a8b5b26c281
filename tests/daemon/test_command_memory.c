// SPDX-License-Identifier: MIT
//
// Every command while memory is refused, at each allocation in turn, in one piece and in slices:
// kvd goes on, what is answered is whole replies or the connection is given up, a write that is
// refused has not happened, and one that is acknowledged has.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/commands.h"
#include "daemon/config_names.h"
#include "daemon/events.h"
#include "daemon/log.h"
#include "daemon/tracking.h"
#include "shm/resp.h"
#include "tests/daemon/cut_fixture.h"
#include "tests/lib/refuse_memory.h"
#include "tests/tap/tap.h"

#define ALLOCATIONS_MAX 400u // of one command; more are not tried

// Each behind those that stand before the bar, which are not refused anything. Keys before it: a
// and b, with a value, c and d without one.
static const char *const lines[] = {
	"GET a",
	"GET c",
	"STRLEN a",
	"GETRANGE a 0 -1",
	"SUBSTR a 0 1",
	"EXISTS a b c",
	"TTL a",
	"PTTL a",
	"EXPIRETIME a",
	"PEXPIRETIME a",
	"TYPE a",
	"MGET a b c d",
	"RANDOMKEY",
	"DBSIZE",
	"KEYS *",
	"SCAN 0 COUNT 10",
	"SCAN 0 MATCH *a* TYPE string",
	"TOUCH a b",
	"GETBIT a 3",
	"BITCOUNT a",
	"BITPOS a 1",
	"BITFIELD_RO a GET u8 0 GET i4 4",
	"LCS a b",
	"LCS a b IDX",
	"LCS a b LEN",
	"OBJECT ENCODING a",
	"OBJECT REFCOUNT a",
	"OBJECT IDLETIME a",
	"OBJECT FREQ a",
	"OBJECT HELP",
	"DUMP a",
	"KVD.GETV a",
	"KVD.WATERMARKS",
	"SET a x",
	"SET c x EX 100",
	"SET a x GET",
	"SET a x KEEPTTL",
	"SETNX c x",
	"SETEX a 9 x",
	"PSETEX a 9999 x",
	"GETSET a x",
	"GETDEL a",
	"GETEX a PERSIST",
	"GETEX a EX 100",
	"APPEND a x",
	"INCR a",
	"INCRBY a 5",
	"DECR b",
	"DECRBY b 5",
	"INCRBYFLOAT a 0.5",
	"MSET a x b y c z",
	"MSETNX c x d y",
	"DEL a b c",
	"UNLINK a",
	"EXPIRE a 100",
	"EXPIRE a -1",
	"PEXPIRE a 9999",
	"EXPIREAT a 4100000000",
	"PERSIST a",
	"SETRANGE a 3 x",
	"SETBIT a 6 1",
	"BITFIELD a SET u8 0 50 INCRBY u8 0 1",
	"BITOP OR c a b",
	"BITOP NOT d a",
	"COPY a c",
	"COPY a b REPLACE",
	"RENAME a c",
	"RENAMENX a d",
	"FLUSHALL",
	"FLUSHDB",
	"DELIFEQ b 2",
	"KVD.SET a x PX 5000",
	"KVD.SET a x IFV 1",
	"KVD.CAS c 0 x",
	"KVD.SYNC",
	"MULTI|SET a x",
	"MULTI|GET a",
	"MULTI;SET a x;GET a;MSET c 1 d 2|EXEC",
	"MULTI;SET a x|DISCARD",
	"WATCH a b|EXEC",
	"WATCH a c;MULTI;SET d 1|EXEC",
	"|WATCH a b c d",
	"WATCH c;WATCH d|UNWATCH",
	"SUBSCRIBE x y",
	"PSUBSCRIBE x* y*",
	"SSUBSCRIBE x",
	"SUBSCRIBE x y|UNSUBSCRIBE",
	"PSUBSCRIBE x* y*|PUNSUBSCRIBE",
	"SSUBSCRIBE x|SUNSUBSCRIBE",
	"PUBLISH x hello",
	"SUBSCRIBE x;PSUBSCRIBE x*|SUBSCRIBE z",
	"HELLO 3;SUBSCRIBE x;PSUBSCRIBE *|PUBLISH x hello",
	"SPUBLISH x hello",
	"PUBSUB CHANNELS",
	"PUBSUB NUMSUB x y",
	"PUBSUB NUMPAT",
	"HELLO 3;SUBSCRIBE x|PUBSUB CHANNELS *",
	"HELLO 3;SSUBSCRIBE x|PUBSUB SHARDCHANNELS",
	"PUBSUB HELP",
	"HELLO 3|CLIENT TRACKING ON",
	"HELLO 3;CLIENT TRACKING ON|GET a",
	"HELLO 3;CLIENT TRACKING ON;GET a|SET a x",
	"HELLO 3|CLIENT TRACKING ON BCAST PREFIX a PREFIX b",
	"HELLO 3;CLIENT TRACKING ON BCAST PREFIX a|SET a x",
	"HELLO 3;CLIENT TRACKING ON BCAST|FLUSHALL",
	"HELLO 3;CLIENT TRACKING ON OPTIN;CLIENT CACHING YES|MGET a b c",
	"HELLO 3;CLIENT TRACKING ON;MGET a b c d|FLUSHALL",
	"HELLO 3;CLIENT TRACKING ON|CLIENT TRACKING OFF",
	"HELLO 3;CLIENT TRACKING ON BCAST|CLIENT TRACKINGINFO",
	"CLIENT GETREDIR",
	"CONFIG SET notify-keyspace-events KEA;HELLO 3;PSUBSCRIBE __key*|SET a x",
	"CONFIG SET notify-keyspace-events KEA;HELLO 3;PSUBSCRIBE __key*|DEL a b",
	"CONFIG SET notify-keyspace-events KEA;HELLO 3;PSUBSCRIBE __key*|MSET a x c y d z",
	"CONFIG SET notify-keyspace-events KEA;HELLO 3;PSUBSCRIBE __key*|RENAME a c",
	"CONFIG SET notify-keyspace-events KEA;HELLO 3;PSUBSCRIBE __key*;MULTI;SET a 5;EXPIRE a "
	"0|EXEC",
	"PING",
	"PING hello",
	"ECHO hello",
	"HELLO",
	"HELLO 3",
	"HELLO 2 SETNAME me",
	"QUIT",
	"RESET",
	"SELECT 0",
	"SELECT 1",
	"AUTH x",
	"AUTH default x",
	"TIME",
	"LASTSAVE",
	"ROLE",
	"CLIENT ID",
	"CLIENT INFO",
	"CLIENT LIST",
	"CLIENT LIST TYPE normal",
	"CLIENT LIST ID 1 2 3",
	"CLIENT GETNAME",
	"CLIENT SETNAME me",
	"CLIENT SETINFO lib-name x",
	"CLIENT NO-EVICT on",
	"CLIENT NO-TOUCH on",
	"CLIENT REPLY ON",
	"CLIENT HELP",
	"CLIENT KILL ID 77",
	"CLIENT UNBLOCK 77",
	"CLIENT PAUSE 0",
	"CLIENT UNPAUSE",
	"COMMAND",
	"COMMAND COUNT",
	"COMMAND INFO get set nothing",
	"COMMAND DOCS get client",
	"COMMAND LIST",
	"COMMAND LIST FILTERBY PATTERN *a*",
	"COMMAND LIST FILTERBY ACLCAT read",
	"COMMAND GETKEYS MSET a 1 b 2",
	"COMMAND GETKEYSANDFLAGS COPY a b",
	"COMMAND HELP",
	"CONFIG GET *",
	"CONFIG GET maxmemory hz",
	"CONFIG SET slowlog-max-len 5",
	"CONFIG SET maxmemory-policy noeviction hz 10",
	"CONFIG SET write-wait 2s slowlog-max-len 7",
	"CONFIG RESETSTAT",
	"CONFIG HELP",
	"CONFIG REWRITE",
	"CONFIG SET nothing 1",
	"INFO",
	"INFO everything",
	"INFO commandstats errorstats",
	"INFO keyspace",
	"SLOWLOG GET",
	"SLOWLOG LEN",
	"SLOWLOG RESET",
	"SLOWLOG HELP",
	"LATENCY LATEST",
	"LATENCY HISTOGRAM",
	"LATENCY HISTOGRAM get set",
	"LATENCY RESET",
	"LATENCY DOCTOR",
	"LATENCY HELP",
	"LATENCY HISTORY command",
	"LATENCY GRAPH command",
	"ACL WHOAMI",
	"ACL CAT",
	"ACL CAT read",
	"ACL LIST",
	"ACL USERS",
	"ACL GETUSER default",
	"ACL HELP",
	"ACL GENPASS",
	"ACL DRYRUN default get a",
	"ACL LOG",
	"ACL SETUSER x on",
	"MEMORY USAGE a",
	"MEMORY STATS",
	"MEMORY DOCTOR",
	"MEMORY HELP",
	"MEMORY PURGE",
	"DEBUG SLEEP 0",
	"DEBUG JMAP",
	"DEBUG HELP",
	"DEBUG OBJECT a",
	"DEBUG DIGEST",
	"DEBUG SET-ACTIVE-EXPIRE 1",
	"SCRIPT EXISTS x",
	"SCRIPT HELP",
	"FUNCTION LIST",
	"EVAL x 0",
	"EVALSHA x 0",
	"MODULE LIST",
	"CLUSTER INFO",
	"WAIT 0 0",
	"WAITAOF 0 0 0",
	"LOLWUT",
	"REPLICAOF NO ONE",
	"SAVE",
	"BGSAVE",
	"BGREWRITEAOF",
	"MONITOR",
	"SYNC",
	"NOTHING a b",
	"GET",
	"SET a x NX XX",
	"SET a x EX 0",
	"SET a x EX x",
	"INCRBY a x",
	"EXPIRE a x",
	"BITOP DIFF c a",
	"BITFIELD a SET u99 0 1",
	"SETBIT a -1 1",
	"SCAN x",
	"LCS a b IDX LEN",
	"HSET a b c",
	"LPUSH a b",
};

struct told {
	char text[8192];
	bool gone; // the connection was given up
};

static struct rig rig;

static void connect_anew(void)
{
	session_kill(rig.session, NULL);
	for (unsigned i = 0; i < 4; i++) {
		session_shared_turn(sessions, now);
		pubsub_turn(&rig.kvd, now);
	}
	close(rig.peer);
	rig.session = rig_connect(&rig.peer);
}

// One line, whose answer comes with what is pushed to this connection.
static enum command_outcome ask(const char *line, bool cut, struct told *told)
{
	struct request request;
	unsigned slices;
	request_make(&request, line, 1);
	enum command_outcome outcome = run(&rig, &request, cut, 100000, &slices);
	bool armed = refuse.armed;
	refuse.armed = false;
	const struct session *session = rig.session;
	size_t bytes = session->output_end - session->output_sent;
	size_t kept = bytes < sizeof(told->text) - 1 ? bytes : sizeof(told->text) - 1;
	memcpy(told->text, kept > 0 ? session->output + session->output_sent : "", kept);
	told->text[kept] = '\0';
	// What is answered are whole replies, one of them at least.
	struct resp_reply_state state = { 0 };
	size_t at = 0, consumed, nodes;
	while (at < bytes &&
	       resp_measure_reply(&state, session->output + session->output_sent + at, bytes - at,
				  1u << 20, &consumed, &nodes) == RESP_COMPLETE) {
		at += consumed;
	}
	told->gone = session->dead || session->close_after_reply || session->output_broken;
	if (outcome == COMMAND_DONE && !told->gone && session->refs_bytes == 0 &&
	    (at < bytes || bytes == 0)) {
		tap_diag("half an answer: '%.200s'", told->text);
		outcome = COMMAND_PARK;
	}
	rig.session->output_end = rig.session->output_sent;
	refuse.armed = armed;
	return outcome;
}

static void prepare(void)
{
	struct told told;
	(void)ask("CONFIG SET notify-keyspace-events ", false, &told);
	(void)ask("FLUSHALL", false, &told);
	(void)ask("SET a 1", false, &told);
	(void)ask("SET b 2", false, &told);
}

static void look(struct told *told)
{
	(void)ask("MGET a b c d", false, told);
}

// Runs one line of the table with the `at`-th allocation refused, 0 = none. False: there are not so
// many.
static bool refused(const char *line, unsigned at, bool cut, const char *before, const char *after,
		    unsigned *wrong)
{
	struct told told, state;
	char part[256];
	connect_anew();
	prepare();
	for (const char *bar; (bar = strpbrk(line, ";|")) != NULL; line = bar + 1) {
		(void)snprintf(part, sizeof(part), "%.*s", (int)(bar - line), line);
		if (part[0]) {
			(void)ask(part, false, &told);
		}
	}
	refuse_arm(at);
	enum command_outcome outcome = ask(line, cut, &told);
	bool reached = refuse.refused > 0;
	refuse.armed = false;
	bool said_no = told.text[0] == '-' || told.gone;
	connect_anew();
	look(&state);
	bool same = strcmp(state.text, before) == 0, done = strcmp(state.text, after) == 0;
	if (at == 0) {
		return false; // to see what it does
	}
	if (outcome != COMMAND_DONE || !(same || done) ||
	    (!said_no && !done && strncmp(told.text, "*-1", 3) != 0) ||
	    (!same && told.text[0] == '-')) {
		tap_diag("%s, allocation %u refused%s: %d, '%.100s', then '%.100s'", line, at,
			 cut ? ", in slices" : "", (int)outcome, told.text, state.text);
		++*wrong;
	}
	return reached;
}

// What is promised by an answer that is no error is kept: who asked, of what, what somebody else
// does then, and what is seen of it.
static const struct {
	const char *before, *asked, *other, *then, *seen;
} promises[] = {
	{ "", "WATCH a", "SET a 9", "MULTI;SET d 1;EXEC", "*-1" },
	{ "", "WATCH c a", "SET c 9", "MULTI;SET d 1;EXEC", "*-1" },
	{ "HELLO 3", "SUBSCRIBE x y", "PUBLISH y hello", "PING", "hello" },
	{ "HELLO 3", "PSUBSCRIBE x* y*", "PUBLISH yes hello", "PING", "hello" },
	{ "HELLO 3", "SSUBSCRIBE x", "SPUBLISH x hello", "PING", "hello" },
	{ "HELLO 3;CLIENT TRACKING ON", "GET a", "SET a 9", "PING", "invalidate" },
	{ "HELLO 3;CLIENT TRACKING ON", "MGET a b", "FLUSHALL", "PING", "invalidate" },
	{ "HELLO 3", "CLIENT TRACKING ON BCAST PREFIX a", "SET a 9", "PING", "invalidate" },
};

static void ask_all(const char *line, struct told *told)
{
	char part[256];
	while (*line) {
		size_t bytes = strcspn(line, ";");
		(void)snprintf(part, sizeof(part), "%.*s", (int)bytes, line);
		(void)ask(part, false, told);
		line += bytes + (line[bytes] == ';');
	}
}

static bool promise(size_t i, unsigned at, unsigned *wrong)
{
	struct told told;
	char pushed[4096];
	connect_anew();
	prepare();
	ask_all(promises[i].before, &told);
	refuse_arm(at);
	(void)ask(promises[i].asked, false, &told);
	bool reached = refuse.refused > 0;
	refuse.armed = false;
	if (told.text[0] != '-' && !strstr(told.text, "\n-") && !told.gone) {
		aside(&rig, promises[i].other);
		ssize_t got = recv(rig.peer, pushed, sizeof(pushed) - 1, MSG_DONTWAIT);
		pushed[got > 0 ? got : 0] = '\0';
		struct told last = { .gone = false };
		ask_all(promises[i].then, &last);
		if (!strstr(told.text, promises[i].seen) && !strstr(pushed, promises[i].seen) &&
		    !strstr(last.text, promises[i].seen) && !last.gone) {
			tap_diag("%s, allocation %u refused: '%s', and then '%s'",
				 promises[i].asked, at, told.text, last.text);
			++*wrong;
		}
	}
	return reached;
}

static void test_promises(void)
{
	unsigned wrong = 0, all = 0;
	for (size_t i = 0; i < sizeof(promises) / sizeof(promises[0]); i++) {
		unsigned at = 1;
		while (promise(i, at, &wrong)) {
			at++;
		}
		all += at - 1;
	}
	ok(wrong == 0 && all > 20, "what is promised is kept, %u allocations refused", all);
}

int main(void)
{
	unsigned wrong = 0, all = 0;
	struct told before, after;
	rig_open(&rig);
	rig.kvd.config.value_bytes_max = 1u << 20;
	log_init(LOG_LEVEL_ERROR);
	ok(events_create(&rig.kvd), "events");
	ok(tracking_create(&rig.kvd), "what clients cache");
	prepare();
	look(&before);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		const char *line = lines[i];
		unsigned at = 1;
		(void)refused(line, 0, false, before.text, before.text, &wrong);
		look(&after);
		for (bool cut = false;; cut = true) {
			for (at = 1; at < ALLOCATIONS_MAX &&
				     refused(line, at, cut, before.text, after.text, &wrong);
			     at++) {
			}
			all += at - 1;
			if (cut) {
				break;
			}
		}
	}
	ok(wrong == 0 && all > 100, "%u allocations refused amid commands", all);
	test_promises();
	connect_anew(); // nobody tracks any more
	tracking_destroy(&rig.kvd);
	events_destroy(&rig.kvd);
	rig_close(&rig);
	return tap_done();
}

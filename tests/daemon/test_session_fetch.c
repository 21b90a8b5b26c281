// SPDX-License-Identifier: MIT
//
// Commands that wait for values: whenever these come, replies are whole and in the order of the
// requests (A), nothing behind a waiting command is run or sent before it, and whatever else a
// session can be waiting for, or however it ends, nothing is kept of it.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/cold.h"
#include "daemon/session_fetch.h"
#include "daemon/session_parts.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define KEYS 40
#define WAIT_BYTES 1000u // charged for one

// What stands behind sessions here: values that come when the test says so. A key's value is the
// key, and "bad" has none.
struct cold_wait {
	TAILQ_ENTRY(cold_wait) link;
	struct session *session;
	bool begun;
	bool failed;
	unsigned wants;
	char want[KEYS][8];
};

static TAILQ_HEAD(, cold_wait) waits = TAILQ_HEAD_INITIALIZER(waits);
static unsigned asked; // values
static unsigned begun; // waits
static bool at_once;   // what is waited for is there as the wait begins
static bool arrived;   // all that is wanted

struct cold_wait *cold_wait_create(struct cold *cold, void *owner)
{
	(void)cold;
	struct cold_wait *wait = calloc(1, sizeof(*wait));
	if (wait == NULL) {
		abort();
	}
	wait->session = owner;
	TAILQ_INSERT_TAIL(&waits, wait, link);
	return wait;
}

void cold_wait_drop(struct cold_wait *wait)
{
	if (wait != NULL) {
		TAILQ_REMOVE(&waits, wait, link);
		free(wait);
	}
}

const void *cold_wait_value(struct cold_wait *wait, const struct kvs_record_view *stub_record)
{
	char key[8] = "";
	memcpy(key, stub_record->key, stub_record->key_bytes < 7 ? stub_record->key_bytes : 7);
	asked++;
	for (unsigned i = 0; i < wait->wants; i++) {
		if (strcmp(wait->want[i], key) == 0) {
			bool bad = strcmp(key, "bad") == 0;
			wait->failed = wait->failed || (arrived && bad);
			return arrived && !bad ? wait->want[i] : NULL;
		}
	}
	if (wait->wants < KEYS) {
		memcpy(wait->want[wait->wants++], key, sizeof(key));
	}
	return NULL;
}

void cold_wait_begin(struct cold_wait *wait)
{
	begun++;
	wait->begun = true;
	wait->failed = false;
	if (at_once) {
		arrived = true;
		session_fetch_ready(wait->session);
	}
}

struct parcel *cold_wait_parcel(const struct cold_wait *wait, const void *at)
{
	(void)wait, (void)at;
	return NULL;
}

bool cold_wait_failed(const struct cold_wait *wait, char *text, size_t bytes)
{
	(void)snprintf(text, bytes, "DAMAGED");
	return wait->failed;
}

size_t cold_wait_bytes(const struct cold_wait *wait)
{
	(void)wait;
	return WAIT_BYTES;
}

static void start(enum persist_policy policy)
{
	stub_start(policy);
	stub.kvd.cold = (struct cold *)(void *)&stub; // nobody looks at it
	asked = begun = 0;
	at_once = arrived = false;
}

// Everything that is waited for has come.
static void values_come(void)
{
	struct cold_wait *wait;
	arrived = true;
	TAILQ_FOREACH (wait, &waits, link) {
		if (wait->begun) {
			wait->begun = false;
			session_fetch_ready(wait->session);
		}
	}
}

static void turn(void)
{
	(void)loop_turn(stub.kvd.loop, 0);
}

// Reads what is there, without a turn.
static size_t take(int fd, char *out, size_t bytes)
{
	ssize_t n = recv(fd, out, bytes, 0);
	return n > 0 ? (size_t)n : 0;
}

// ---- order ----

#define REQUESTS                                                                               \
	"SET k v\r\nCOLD a\r\nECHO 1\r\n*3\r\n$4\r\nCOLD\r\n$1\r\nb\r\n$1\r\na\r\nWCOLD c\r\n" \
	"CUT 3\r\nECHO 2\r\nCOLD d\r\nSET k w\r\nPING\r\n"
#define REPLIES                                                                            \
	"+OK\r\n*1\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$1\r\nb\r\n$1\r\na\r\n*1\r\n$1\r\nc\r\n" \
	"*3\r\n:1\r\n:2\r\n:3\r\n$1\r\n2\r\n*1\r\n$1\r\nd\r\n+OK\r\n+PONG\r\n"

// The same requests, cut at `at`, with values that come `value_turns` after they were asked for and
// commits every `commit_turns`, 0 = never before all values were there.
static bool in_order(enum persist_policy policy, size_t at, unsigned value_turns,
		     unsigned commit_turns)
{
	char got[sizeof(REPLIES) + 64] = "";
	size_t used = 0;
	unsigned waited = 0;
	start(policy);
	int fd = stub_connect(NULL);
	at_once = value_turns == 0;
	stub_send(fd, REQUESTS, at);
	for (unsigned i = 0; i < 200; i++) {
		turn();
		if (i == 3) {
			stub_send(fd, REQUESTS + at, sizeof(REQUESTS) - 1 - at);
		}
		struct cold_wait *wait = TAILQ_FIRST(&waits);
		arrived = at_once;
		if (wait != NULL && wait->begun && waited++ == value_turns) {
			values_come();
			waited = 0;
		}
		if ((commit_turns > 0 && i % commit_turns == 0) || i == 150) {
			stub.durable_seq = stub.last_seq;
		}
		used += take(fd, got + used, sizeof(got) - 1 - used);
		if (strncmp(got, REPLIES, used) != 0 || used == sizeof(REPLIES) - 1) {
			break;
		}
	}
	bool good = used == sizeof(REPLIES) - 1 && strcmp(got, REPLIES) == 0;
	if (!good) {
		tap_diag("policy %d, cut at %zu, values after %u turns, commits each %u: '%s'",
			 (int)policy, at, value_turns, commit_turns, got);
	}
	close(fd);
	stub_turns();
	good = good && TAILQ_EMPTY(&waits) && stub.sessions->buffer_bytes == 0;
	stub_stop();
	return good;
}

static void test_order(void)
{
	static const enum persist_policy policies[] = { PERSIST_MEMORY, PERSIST_LAZY,
							PERSIST_GROUP };
	static const unsigned turns[] = { 0, 1, 2, 7 };
	for (unsigned p = 0; p < 3; p++) {
		bool good = true;
		for (size_t at = 0; at < sizeof(REQUESTS) - 1 && good; at++) {
			for (unsigned v = 0; v < 4 && good; v++) {
				for (unsigned c = 0; c < 4 && good; c++) {
					good = in_order(policies[p], at, turns[v], turns[c]);
				}
			}
		}
		ok(good,
		   "A: policy %d: replies come in the order of the requests, wherever these "
		   "are cut and whenever values and commits come",
		   (int)policies[p]);
	}
}

static void test_nothing_early(void)
{
	char got[64];
	start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	int other = stub_connect(NULL);
	stub_send_text(fd, "ECHO 1\r\nCOLD a\r\nECHO 2\r\n");
	stub_turns();
	ok_u64(take(fd, got, sizeof(got)), 7, "what came before is answered");
	ok_u64(stub.commands, 1, "what comes behind is not run");
	stub_send_text(fd, "ECHO 3\r\n");
	ok(stub_expect(other, "") && stub.commands == 1, "nor is more of it");
	stub_send_text(other, "PING\r\n");
	ok(stub_expect(other, "+PONG\r\n"), "G: others are served");
	values_come();
	ok(stub_expect(fd, "*1\r\n$1\r\na\r\n$1\r\n2\r\n$1\r\n3\r\n"), "then all of it");
	ok_u64(begun, 1, "it waited once");
	ok(TAILQ_EMPTY(&waits), "and nothing is kept");
	close(fd);
	close(other);
	stub_stop();
}

__attribute__((format(printf, 4, 5))) static void add(char *text, size_t bytes, size_t *used,
						      const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int more = vsnprintf(text + *used, bytes - *used, format, args);
	va_end(args);
	if (more < 0 || (size_t)more >= bytes - *used) {
		abort();
	}
	*used += (size_t)more;
}

// Sixteen requests are parsed ahead; a long one keeps its arguments.
static void test_many(void)
{
	static char requests[20000], replies[20000];
	size_t sent = 0, expected = 0;
	start(PERSIST_GROUP);
	int fd = stub_connect(NULL);
	for (unsigned i = 0; i < 100; i++) {
		add(requests, sizeof(requests), &sent, "SET k v\r\nCOLD k%u\r\nECHO %u\r\n", i, i);
		add(replies, sizeof(replies), &expected, "+OK\r\n*1\r\n$%d\r\nk%u\r\n$%d\r\n%u\r\n",
		    i > 9 ? 3 : 2, i, i > 9 ? 2 : 1, i);
	}
	stub_send(fd, requests, sent);
	stub_turns();
	for (unsigned i = 0; i < 200 && stub.commands < 300; i++) {
		values_come();
		stub_turns();
		arrived = false;
	}
	stub.durable_seq = stub.last_seq;
	ok(stub_expect(fd, replies), "A: a hundred values, one after the other");
	ok_u64(begun, 100, "each was waited for");
	arrived = false;
	sent = 0;
	add(requests, sizeof(requests), &sent, "*%u\r\n$4\r\nCOLD\r\n", SESSION_ARGS_KEPT_MAX + 2);
	expected = 0;
	add(replies, sizeof(replies), &expected, "*%u\r\n", SESSION_ARGS_KEPT_MAX + 1);
	for (unsigned i = 0; i <= SESSION_ARGS_KEPT_MAX; i++) {
		add(requests, sizeof(requests), &sent, "$2\r\nx%u\r\n", i % 10);
		add(replies, sizeof(replies), &expected, "$2\r\nx%u\r\n", i % 10);
	}
	add(requests, sizeof(requests), &sent, "ECHO x\r\n");
	add(replies, sizeof(replies), &expected, "$1\r\nx\r\n");
	stub_send(fd, requests, sent);
	stub_turns();
	values_come();
	ok(stub_expect(fd, replies), "a long request is not parsed again");
	close(fd);
	stub_turns();
	ok_u64(stub.sessions->buffer_bytes, 0, "nothing is charged for it any more");
	stub_stop();
}

// ---- ends ----

static void test_ends(void)
{
	start(PERSIST_MEMORY);
	struct session *session;
	int fd = stub_connect(&session);
	stub_send_text(fd, "COLD a\r\nECHO 1\r\n");
	(void)shutdown(fd, SHUT_WR);
	stub_turns();
	ok(session_count(stub.sessions) == 1, "who says nothing more is still answered");
	values_come();
	ok(stub_expect(fd, "*1\r\n$1\r\na\r\n$1\r\n1\r\n"), "all of it");
	ok(stub_ended(fd), "and then closed");
	close(fd);
	for (int how = 0; how < 3; how++) {
		arrived = false;
		fd = stub_connect(&session);
		stub_send_text(fd, "COLD a\r\nECHO 1\r\n");
		stub_turns();
		if (how == 0) {
			close(fd);
		} else if (how == 1) {
			session_kill(session, "the test wants it");
		} else {
			values_come(); // and it dies before it goes on
			session_kill(session, "the test wants it");
		}
		stub_turns();
		ok(session_count(stub.sessions) == 0 && TAILQ_EMPTY(&waits) &&
			   stub.sessions->buffer_bytes == 0,
		   "G: nothing is kept of who leaves (%d)", how);
		if (how > 0) {
			close(fd);
		}
	}
	stub_stop();
}

static void test_failure(void)
{
	start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	stub_send_text(fd, "COLD a bad b\r\nCOLD a\r\nPING\r\n");
	stub_turns();
	values_come();
	turn();
	turn();
	arrived = false;
	ok(stub_expect(fd, "-DAMAGED\r\n"), "a value that cannot be read is an error");
	values_come();
	ok(stub_expect(fd, "*1\r\n$1\r\na\r\n+PONG\r\n"), "the next is asked for anew");
	close(fd);
	stub_stop();
}

// The value is there, memory is not: for a while, or for too long.
static void test_parks(void)
{
	start(PERSIST_MEMORY);
	struct session *session;
	int fd = stub_connect(&session);
	stub.memory_short = true;
	stub_send_text(fd, "WCOLD a\r\nPING\r\n");
	stub_turns();
	values_come();
	ok(stub_expect(fd, "") && stub.parks > 0, "it waits for memory then");
	stub.memory_short = false;
	stub.room_is_back = true;
	stub_turns();
	ok(stub_expect(fd, "*1\r\n$1\r\na\r\n+PONG\r\n"), "and is answered");
	ok_u64(begun, 1, "with the value that it had");
	stub.memory_short = true;
	stub.room_is_back = false;
	arrived = false;
	stub_send_text(fd, "WCOLD b\r\n");
	stub_turns();
	values_come();
	stub_turns();
	stub.now_ns += 2000000000;
	stub_turns();
	char got[256] = "";
	(void)take(fd, got, sizeof(got) - 1);
	ok(strncmp(got, "-OOM", 4) == 0, "or refused, when that takes too long");
	ok(TAILQ_EMPTY(&waits) && session->fetch_bytes == 0, "G: and lets go of the value");
	stub_send_text(fd, "PING\r\n");
	ok(stub_expect(fd, "+PONG\r\n"), "and goes on");
	close(fd);
	stub_stop();
}

int main(void)
{
	test_order();
	test_nothing_early();
	test_many();
	test_ends();
	test_failure();
	test_parks();
	return tap_done();
}

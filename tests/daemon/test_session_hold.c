// SPDX-License-Identifier: MIT
//
// Replies that wait: for a commit (group, sync, KVD.SYNC), and for memory (parked commands). The
// order of replies never changes, and a commit that fails turns exactly the writes it lost into
// errors.

#include <stdlib.h>
#include <unistd.h>

#include "shm/counters.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define SET "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
#define PING "*1\r\n$4\r\nPING\r\n"
#define PONG "+PONG\r\n"
#define LOST "-IOERR not durable: disk full\r\n"

static void test_group(void)
{
	stub_start(PERSIST_GROUP);
	int fd = stub_connect(NULL);
	int other = stub_connect(NULL);
	stub_send_text(fd, PING SET PING SET PING);
	ok(stub_expect(fd, PONG),
	   "E: nothing is sent from the first write on before it is durable");
	ok_u64(stub.requested_seq, 2, "E: the persister is asked for the turn's last version");
	ok(stub.notices > 0, "and told that there are records");
	stub_send_text(other, PING);
	ok(stub_expect(other, PONG), "another connection is not held");
	stub.durable_seq = 1;
	ok(stub_expect(fd, ""), "a turn's replies wait for its last write");
	stub_send_text(fd, SET);
	stub_turns();
	stub.durable_seq = 2;
	ok(stub_expect(fd, "+OK\r\n" PONG "+OK\r\n" PONG), "then they are sent, in order");
	stub.durable_seq = 3;
	ok(stub_expect(fd, "+OK\r\n"), "and the next turn's with its own");
	unsigned notices = stub.notices;
	stub_send_text(fd, PING);
	ok(stub_expect(fd, PONG) && stub.notices == notices,
	   "a turn without a write does not bother the persister");
	close(fd);
	close(other);
	stub_stop();
}

static void test_failed(void)
{
	stub_start(PERSIST_GROUP);
	int fd = stub_connect(NULL);
	stub_send_text(fd, PING SET "ECHO one\r\n" SET);
	stub_turns();
	stub_send_text(fd, "ECHO two\r\n" SET PING);
	stub_turns();
	stub.failed_seq = 2;
	ok(stub_expect(fd, PONG LOST "$3\r\none\r\n" LOST "$3\r\ntwo\r\n"),
	   "E: a failed commit replaces its writes' replies and no others");
	stub.durable_seq = 3;
	ok(stub_expect(fd, "+OK\r\n" PONG), "a later write that became durable is acknowledged");
	stub_send_text(fd, SET SET PING);
	stub_turns();
	stub.failed_seq = 4;
	ok(stub_expect(fd, ""), "half a turn failed: the rest is still waited for");
	stub.durable_seq = 5;
	ok(stub_expect(fd, LOST "+OK\r\n" PONG), "E: each write is answered by its own fate, once");
	close(fd);
	stub_stop();
}

static void test_lazy(void)
{
	stub_start(PERSIST_LAZY);
	struct session *session;
	int fd = stub_connect(&session);
	stub_send_text(fd, SET SET);
	ok(stub_expect(fd, "+OK\r\n+OK\r\n") && stub.requested_seq == 0, "lazy holds nothing");
	stub_send_text(fd, "SYNC\r\n" PING);
	ok(stub_expect(fd, "") && stub.requested_seq == 2,
	   "SYNC waits for what was written before");
	stub.durable_seq = 2;
	ok(stub_expect(fd, "+SYNCED\r\n" PONG), "and answers when it is durable");
	stub_send_text(fd, "SYNC\r\n");
	ok(stub_expect(fd, "+SYNCED\r\n"), "at once if it is already");
	stub_send_text(fd, SET "SYNC\r\n");
	stub_turns();
	stub.failed_seq = 3;
	ok(stub_expect(fd, "+OK\r\n" LOST), "E: SYNC says when the commit failed");
	ok(session_set_policy(session, PERSIST_SYNC) && session->policy == PERSIST_SYNC,
	   "a connection may ask for a later acknowledgement");
	stub_send_text(fd, SET);
	ok(stub_expect(fd, ""), "and gets it");
	stub.durable_seq = 4;
	ok(stub_expect(fd, "+OK\r\n"), "when durable");
	ok(session_set_policy(session, PERSIST_LAZY), "back to the server's policy");
	ok(!session_set_policy(session, PERSIST_MEMORY) && session->policy == PERSIST_LAZY,
	   "not to an earlier one");
	close(fd);
	stub_stop();
	stub_start(PERSIST_MEMORY);
	fd = stub_connect(&session);
	ok(!session_set_policy(session, PERSIST_GROUP), "without a store nothing can be asked for");
	close(fd);
	stub_stop();
}

static void test_many_held(void)
{
	stub_start(PERSIST_GROUP);
	int fd = stub_connect(NULL);
	const unsigned count = 67000;
	char frames[1000 * sizeof(SET)];
	size_t bytes = 0;
	for (int i = 0; i < 1000; i++) {
		memcpy(frames + bytes, SET, strlen(SET));
		bytes += strlen(SET);
	}
	for (unsigned i = 0; i < count / 1000; i++) {
		stub_send(fd, frames, bytes);
		stub_turns();
	}
	ok(stub.last_seq >= SESSION_HOLD_SPANS_MAX && stub.last_seq < count,
	   "G: a connection with very many held replies is read no further");
	char *got = malloc(count * 5 + 1);
	size_t n = 0;
	for (int i = 0; i < 4; i++) {
		bool ended;
		stub.durable_seq = stub.last_seq;
		n += stub_receive(fd, got + n, count * 5 + 1 - n, &ended);
	}
	ok(n == count * 5 && stub.last_seq == count,
	   "until a commit releases them: all are answered");
	free(got);
	close(fd);
	stub_stop();
}

static void test_stop(void)
{
	stub_start(PERSIST_GROUP);
	int fd = stub_connect(NULL);
	stub_send_text(fd, SET);
	stub_turns();
	stub_send_text(fd, SET);
	stub_turns();
	stub.durable_seq = 1;
	session_shared_finish(stub.sessions);
	char got[256] = "";
	ssize_t n = read(fd, got, sizeof(got) - 1);
	ok(n > 0 && strcmp(got,
			   "+OK\r\n-IOERR not durable: kvd stopped before it was written\r\n") == 0,
	   "E: at stop held replies are settled by what is durable");
	ok(read(fd, got, 1) == 0, "and the connections end");
	close(fd);
	stub_stop();
}

static void test_park(void)
{
	stub_start(PERSIST_MEMORY);
	stub.memory_short = true;
	int fd = stub_connect(NULL);
	int other = stub_connect(NULL);
	stub_send_text(fd, PING "\r\nPARK \"quoted \\x41\"\r\n" PING "*1\r\n$4\r\nPI");
	ok(stub_expect(fd, PONG), "a command that waits for memory holds what is behind it");
	stub_send_text(other, PING);
	ok(stub_expect(other, PONG), "G: and nobody else");
	ok_u64(stub_counter(KVS_COUNTER_writes_waited), 1, "it is counted");
	ok(session_shared_next_ns(stub.sessions) <= stub.now_ns + 1000000,
	   "it is tried again within a millisecond");
	unsigned parks = stub.parks;
	(void)loop_turn(stub.kvd.loop, 0);
	ok_u64(stub.parks, parks, "not in every turn");
	stub.now_ns += 1000000;
	(void)loop_turn(stub.kvd.loop, 0);
	ok_u64(stub.parks, parks + 1, "but after a millisecond");
	stub.memory_short = false;
	stub.now_ns += 1000000;
	ok(stub_expect(fd, "+OK\r\n" PONG), "with memory it is answered, and what is behind it");
	stub_send_text(fd, "NG\r\n");
	ok(stub_expect(fd, PONG), "a half frame behind it is not lost");
	stub.memory_short = true;
	stub_send_text(fd, "PARK\r\n" PING);
	stub_turns();
	stub.now_ns += UINT64_C(999) * 1000000;
	ok(stub_expect(fd, ""), "it waits for write_wait_ms");
	stub.now_ns += UINT64_C(2) * 1000000;
	ok(stub_expect(fd, "-OOM no room\r\n" PONG), "G: and is refused then");
	stub_send_text(fd, "PARK\r\n" PING);
	stub_turns();
	close(fd);
	stub_turns();
	ok_u64(session_count(stub.sessions), 1,
	       "a client that closes while parked is gone at once");
	close(other);
	stub_stop();
}

static void test_many_parked(void)
{
	stub_start(PERSIST_MEMORY);
	stub.memory_short = true;
	int fds[30];
	for (int i = 0; i < 30; i++) {
		fds[i] = stub_connect(NULL);
		stub_send_text(fds[i], "PARK\r\n");
	}
	stub_turns();
	unsigned parks = stub.parks;
	stub.now_ns += 1000000;
	(void)loop_turn(stub.kvd.loop, 0);
	ok(stub.parks - parks <= 8, "G: a pass over parked commands is bounded");
	stub.now_ns += UINT64_C(2000) * 1000000;
	bool good = true;
	for (int i = 0; i < 30; i++) {
		good = stub_expect(fds[i], "-OOM no room\r\n") && good;
		close(fds[i]);
	}
	ok(good, "all of them are answered when their time is up");
	stub_stop();
}

/// A random pipeline of writes and echoes, cut anywhere, with commits and failures at any time:
/// the stream is what it must be, only its timing differs.
static void test_random(void)
{
	uint64_t seed = tap_seed(11);
	bool good = true;
	for (int round = 0; round < 50 && good; round++) {
		stub_start(PERSIST_GROUP);
		int fd = stub_connect(NULL);
		static char expected[1 << 20], got[1 << 20];
		size_t expected_bytes = 0;
		size_t got_bytes = 0;
		for (int i = 0; i < 400; i++) {
			char frame[64];
			int n;
			if (tap_random(&seed) % 2) {
				n = snprintf(frame, sizeof(frame), "%s", SET);
				memcpy(expected + expected_bytes, "+OK\r\n", 5);
				expected_bytes += 5;
			} else {
				n = snprintf(frame, sizeof(frame), "ECHO %06d\r\n", i);
				expected_bytes += (size_t)snprintf(expected + expected_bytes, 32,
								   "$6\r\n%06d\r\n", i);
			}
			size_t cut = (size_t)(tap_random(&seed) % (unsigned)n);
			stub_send(fd, frame, cut);
			if (tap_random(&seed) % 4 == 0) {
				stub_turns();
			}
			stub_send(fd, frame + cut, (size_t)n - cut);
			if (tap_random(&seed) % 8 == 0) {
				stub_turns();
				stub.durable_seq +=
					tap_random(&seed) % (stub.last_seq - stub.durable_seq + 1);
				bool ended;
				got_bytes += stub_receive(fd, got + got_bytes,
							  sizeof(got) - got_bytes, &ended);
				good = good && memcmp(got, expected, got_bytes) == 0;
			}
		}
		stub_turns();
		stub.durable_seq = stub.last_seq;
		bool ended;
		got_bytes += stub_receive(fd, got + got_bytes, sizeof(got) - got_bytes, &ended);
		good = good && got_bytes == expected_bytes && memcmp(got, expected, got_bytes) == 0;
		close(fd);
		stub_stop();
	}
	ok(good, "50 random pipelines with commits at any time");
}

int main(void)
{
	test_group();
	test_failed();
	test_lazy();
	test_many_held();
	test_stop();
	test_park();
	test_many_parked();
	test_random();
	return tap_done();
}

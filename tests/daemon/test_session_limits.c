// SPDX-License-Identifier: MIT
//
// What clients may hold and for how long: the bound on all buffers, a uid's share of it, and the
// end of those who begin a request and never finish it.

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/session_parts.h"
#include "shm/counters.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define PING "*1\r\n$4\r\nPING\r\n"
#define PONG "+PONG\r\n"
#define HALF_HEAD "*2\r\n$4\r\nECHO\r\n$1000000\r\n"
#define TIMEOUT_TEXT "-ERR timeout: nothing more of an unfinished request came (frame-timeout)\r\n"
#define SECOND_NS UINT64_C(1000000000)

/// A client of another user, as far as the session can tell.
static int connect_as(uint32_t uid, struct session **session)
{
	int fd = stub_connect(session);
	session_owner_leave(stub.sessions, (*session)->owner);
	(*session)->uid = uid;
	(*session)->owner = session_owner_join(stub.sessions, uid);
	return fd;
}

/// Sends a request of 1 MB except for its end.
static void send_half(int fd, size_t bytes)
{
	char *body = calloc(1, bytes);
	stub_send_text(fd, HALF_HEAD);
	stub_send(fd, body, bytes);
	stub_turns();
	free(body);
}

static void test_share_of_uid(void)
{
	stub_start(PERSIST_MEMORY);
	stub.sessions->owner_bytes_max = 5 << 19;
	struct session *one, *two, *three, *other;
	int fds[3] = { connect_as(1001, &one), connect_as(1001, &two), connect_as(1001, &three) };
	int neighbour = connect_as(1002, &other);
	send_half(neighbour, 999990);
	send_half(fds[0], 999990);
	send_half(fds[1], 600000);
	ok_u64(session_count(stub.sessions), 4, "within its share a uid's half frames are kept");
	uint64_t held = one->owner->buffer_bytes;
	ok(held >= 1500000 && held <= 5 << 19, "G: they are charged to the uid: %llu",
	   (unsigned long long)held);
	send_half(fds[2], 999990);
	ok(stub_expect(fds[0], "-ERR closed: this user's clients hold their share of kvd's buffers "
			       "(client-uid-share)\r\n") &&
		   stub_ended(fds[0]),
	   "G: at its bound the largest of this uid is told why and closed");
	ok_u64(session_count(stub.sessions), 3, "G: and nobody else");
	stub_send(neighbour, "xxxxxxxxxx\r\n" PING, 12 + strlen(PING));
	char *got = malloc(1100000);
	bool ended;
	ok_u64(stub_receive(neighbour, got, 1100000, &ended), 10 + 1000000 + 2 + strlen(PONG),
	       "G: another uid's request goes on and is answered");
	free(got);
	for (int i = 0; i < 3; i++) {
		close(fds[i]);
	}
	close(neighbour);
	stub_turns();
	ok(stub.sessions->buffer_bytes == 0 && LIST_EMPTY(&stub.sessions->owners),
	   "G: when all have gone nothing is charged to anybody");
	stub_stop();
}

static void test_bound_of_all(void)
{
	stub_start(PERSIST_MEMORY);
	stub.sessions->buffer_bytes_max = 4 << 20;
	struct session *hog[2], *small[2];
	int hogs[2], smalls[2];
	for (uint32_t i = 0; i < 2; i++) {
		hogs[i] = connect_as(1001, &hog[i]);
		smalls[i] = connect_as(2000 + i, &small[i]);
		send_half(hogs[i], 999990);
	}
	for (int i = 0; i < 2; i++) {
		send_half(smalls[i], 300000);
	}
	ok_u64(session_count(stub.sessions), 4, "below the bound nobody is closed");
	// Both ask in the same turn: what the first one's victim holds serves both.
	char body[600000] = "";
	stub_send(smalls[0], body, 150000);
	stub_send(smalls[1], body, 150000);
	for (int i = 0; i < 2; i++) {
		stub_send(smalls[i], body, 1000000 - 300000 - 150000 - 10);
	}
	stub_turns();
	int alive = 0;
	for (int i = 0; i < 2; i++) {
		stub_send(smalls[i], "xxxxxxxxxx\r\n", 12);
		bool ended;
		char *got = malloc(1100000);
		alive += stub_receive(smalls[i], got, 1100000, &ended) == 10 + 1000000 + 2;
		free(got);
	}
	ok_int(alive, 2, "G: whoever holds less than the greediest uid is served");
	ok(session_count(stub.sessions) < 4, "G: at the expense of that uid");
	for (int i = 0; i < 2; i++) {
		close(hogs[i]);
		close(smalls[i]);
	}
	stub_stop();
}

static void test_one_victim_is_enough(void)
{
	stub_start(PERSIST_MEMORY);
	stub.sessions->buffer_bytes_max = 2 << 20;
	struct session *hog[2], *asking;
	int hogs[2] = { connect_as(1001, &hog[0]), connect_as(1001, &hog[1]) };
	int fd = connect_as(2000, &asking);
	send_half(hogs[0], 900000);
	send_half(hogs[1], 500000);
	size_t left = stub.sessions->buffer_bytes_max - stub.sessions->buffer_bytes;
	ok(session_charge(asking, left + 1), "G: there is room for who holds little");
	ok(hog[0]->dead && !hog[1]->dead && !asking->dead, "G: the largest makes it");
	ok(session_charge(asking, 100000) && !hog[1]->dead,
	   "G: more in the same turn comes out of what that one held");
	session_uncharge(asking, left + 100001);
	close(hogs[0]);
	close(hogs[1]);
	close(fd);
	stub_stop();
}

static void test_everything_is_charged(void)
{
	stub_start(PERSIST_MEMORY);
	struct session *session;
	int fd = stub_connect(&session);
	struct resp_arg argv[2] = { { "SET", 3 }, { "value", 5 } };
	session->multi.active = true;
	for (int i = 0; i < 1000; i++) {
		if (!session_multi_queue(session, NULL, argv, 2)) {
			abort();
		}
	}
	ok(session->buffer_bytes >= 1000 * (sizeof(struct session_queued) + sizeof(argv) + 8),
	   "G: a transaction's queue is charged to its session");
	session_multi_reset(session);
	ok(session->buffer_bytes == 0 && stub.sessions->buffer_bytes == 0,
	   "G: and given back: %llu", (unsigned long long)session->buffer_bytes);
	stub.sessions->owner_bytes_max = 4096;
	session->multi.active = true;
	unsigned queued = 0;
	while (queued < 1000 && session_multi_queue(session, NULL, argv, 2)) {
		queued++;
	}
	ok(queued < 100 && session->multi.dirty && !session->dead,
	   "G: over the uid's share a transaction is refused, the session lives");
	session_multi_reset(session);
	stub.sessions->owner_bytes_max = 1 << 30;
	stub_send_text(fd, "*200001\r\n$4\r\nPING\r\n");
	char empty[6 * 1000];
	for (size_t i = 0; i < sizeof(empty); i += 6) {
		memcpy(empty + i, "$0\r\n\r\n", 6);
	}
	for (int i = 0; i < 199; i++) {
		stub_send(fd, empty, sizeof(empty));
	}
	stub_turns();
	ok(session->buffer_bytes >= 199 * (6000 + 1000 * sizeof(struct resp_arg)),
	   "G: a half request of empty arguments is charged for its argument array");
	stub_send(fd, empty, sizeof(empty));
	ok(stub_expect(fd, PONG) && stub.sessions->buffer_bytes == 0, "G: which ends with it");
	close(fd);
	stub_stop();
}

static void test_derived(void)
{
	stub_start(PERSIST_MEMORY);
	const struct session_shared *shared = stub.sessions;
	ok(shared->buffer_bytes_max == 1 << 30 && shared->owner_bytes_max <= 1 << 29 &&
		   shared->owner_bytes_max > (1 << 29) - 100,
	   "the share is a percentage of the bound");
	stub.kvd.config.buffers_bytes_max = 1;
	session_set_limits(stub.sessions);
	uint64_t least = config_buffers_bytes_min(shared->limits.request_bytes_max);
	ok(shared->buffer_bytes_max == least && shared->owner_bytes_max == least,
	   "G: a request of the largest size has room whatever the bound");
	stub_stop();
}

static void test_frame_timeout(void)
{
	stub_start(PERSIST_MEMORY);
	stub.kvd.config.frame_timeout_ms = 60000;
	int idle = stub_connect(NULL);
	int half = stub_connect(NULL);
	int slow = stub_connect(NULL);
	int dropped = stub_connect(NULL);
	stub_send_text(idle, PING);
	ok(stub_expect(idle, PONG), "a client that is between requests");
	stub_send_text(half, "*2\r\n$4\r\nECHO\r\n$5\r\nab");
	stub_send_text(slow, "PI");
	stub_send_text(dropped, "*2\r\n$4\r\nECHO\r\n$2000000\r\nabc");
	stub_turns();
	(void)loop_turn(stub.kvd.loop, -1);
	ok(stub.epoll_timeout_ms > 0 && stub.epoll_timeout_ms <= 60000,
	   "C: the loop wakes for the deadline");
	stub.now_ns += 59 * SECOND_NS;
	stub_send_text(slow, "N");
	stub_turns();
	ok_u64(session_count(stub.sessions), 4, "before the time all are kept");
	stub.now_ns += 1 * SECOND_NS;
	ok(stub_expect(half, TIMEOUT_TEXT) && stub_ended(half),
	   "G: who leaves a request unfinished is told and closed");
	ok(stub_expect(dropped, TIMEOUT_TEXT), "G: also in the middle of one that is dropped");
	stub_send_text(slow, "G\r\n");
	ok(stub_expect(slow, PONG), "G: any byte of a request gives it the time anew");
	stub.now_ns += 1000 * SECOND_NS;
	stub_send_text(idle, PING);
	ok(stub_expect(idle, PONG), "G: without a begun request a client may be silent for ever");
	ok_u64(stub_counter(KVS_COUNTER_clients_dropped_protocol), 2, "those closed are counted");
	(void)loop_turn(stub.kvd.loop, -1);
	ok_int(stub.epoll_timeout_ms, -1, "C: then the loop sleeps without a timeout");
	close(idle);
	close(half);
	close(slow);
	close(dropped);
	stub_stop();
}

static void test_timeout_waits_for_us(void)
{
	stub_start(PERSIST_GROUP);
	stub.kvd.config.frame_timeout_ms = 1000;
	stub.kvd.config.write_wait_ms = 5000;
	stub.memory_short = true;
	int parked = stub_connect(NULL);
	int held = stub_connect(NULL);
	stub_send_text(parked, "PARK\r\nPI");
	stub_send_text(held, "SET a b\r\nPI");
	stub_turns();
	stub.now_ns += 2 * SECOND_NS;
	stub_turns();
	ok_u64(session_count(stub.sessions), 2,
	       "the time in which kvd makes a client wait does not count");
	stub.memory_short = false;
	stub.now_ns += SECOND_NS / 100;
	stub_turns();
	stub.durable_seq = stub.last_seq;
	ok(stub_expect(held, "+OK\r\n") && stub_expect(parked, "+OK\r\n"), "both get their reply");
	stub_send_text(parked, "NG\r\n");
	ok(stub_expect(parked, PONG), "and may go on");
	stub.now_ns += 3 * SECOND_NS;
	ok(stub_expect(held, TIMEOUT_TEXT) && stub_ended(held), "G: afterwards it counts");
	close(parked);
	close(held);
	stub_stop();
}

int main(void)
{
	(void)alarm(300); // what never ends is a failure, not a hang
	test_share_of_uid();
	test_bound_of_all();
	test_one_victim_is_enough();
	test_everything_is_charged();
	test_derived();
	test_frame_timeout();
	test_timeout_waits_for_us();
	return tap_done();
}

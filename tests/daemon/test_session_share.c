// SPDX-License-Identifier: MIT
//
// Sharing the loop's time: what many busy connections, of one user or of many, do to somebody who
// comes with one small request; that everybody gets on; and that whatever comes at once, events or
// ends, is dealt with in pieces. The clock is the test's: a SLOW takes 100 us, a LONG 20 ms.
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/session_parts.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define CLIENTS_MAX 300
#define US UINT64_C(1000)
#define SLOW_US 100u
#define SLOW_TIMES_MAX 2000u
#define SLOW_BYTES 7u // of its reply

static int fds[CLIENTS_MAX];
static struct session *sessions[CLIENTS_MAX];
static unsigned count;

/// A client of a user, as far as the session can tell.
static int connect_as(uint32_t uid)
{
	int fd = stub_connect(&sessions[count]);
	session_owner_leave(stub.sessions, sessions[count]->owner);
	sessions[count]->uid = uid;
	sessions[count]->owner = session_owner_join(stub.sessions, uid);
	fds[count++] = fd;
	return fd;
}

static void start(void)
{
	stub_start(PERSIST_MEMORY);
	count = 0;
}

static void stop(void)
{
	for (unsigned i = 0; i < count; i++) {
		close(fds[i]);
	}
	stub_stop();
}

static void turn(void)
{
	(void)loop_turn(stub.kvd.loop, 0);
}

static void send_slow(int fd, unsigned times)
{
	static char text[6 * SLOW_TIMES_MAX];
	for (unsigned i = 0; i < times; i++) {
		memcpy(text + (size_t)6 * i, "SLOW\r\n", 6);
	}
	stub_send(fd, text, (size_t)6 * times);
}

/// A crowd of one user with much to do, and turns until all of it is known.
static void crowd(uint32_t uid, unsigned clients, unsigned times)
{
	for (unsigned i = 0; i < clients; i++) {
		send_slow(connect_as(uid), times);
	}
}

static size_t received(int fd)
{
	static char got[1 << 16];
	size_t all = 0;
	ssize_t n;
	while ((n = recv(fd, got, sizeof(got), 0)) > 0) {
		all += (size_t)n;
	}
	return all;
}

/// How long a PING waits, in microseconds, with turns meanwhile.
static uint64_t wait_us(int fd)
{
	uint64_t before_ns = stub.now_ns;
	stub_send_text(fd, "PING\r\n");
	for (int i = 0; i < 1000 && received(fd) == 0; i++) {
		turn();
	}
	return (stub.now_ns - before_ns) / US;
}

static void test_polite(void)
{
	start();
	int polite = connect_as(1002);
	crowd(1001, 100, 200);
	uint64_t longest_us = 0;
	uint64_t longest_turn_ns = 0;
	for (int i = 0; i < 50; i++) {
		uint64_t before_ns = stub.now_ns;
		turn();
		uint64_t took_ns = stub.now_ns - before_ns;
		longest_turn_ns = took_ns > longest_turn_ns ? took_ns : longest_turn_ns;
		uint64_t us = wait_us(polite);
		longest_us = us > longest_us ? us : longest_us;
	}
	ok(longest_turn_ns <= SESSION_TURN_NS + SLOW_US * US,
	   "G: however many are ready, a turn ends in time: %llu us",
	   (unsigned long long)(longest_turn_ns / US));
	ok(longest_us <= SESSION_TURN_NS / US,
	   "G: a user who had nothing to do waits for no hundred others: %llu us",
	   (unsigned long long)longest_us);
	int same = connect_as(1001);
	longest_us = 0;
	for (int i = 0; i < 50; i++) {
		uint64_t us = wait_us(same);
		longest_us = us > longest_us ? us : longest_us;
	}
	ok(longest_us <= 2 * SESSION_TURN_NS / US, "nor does one of the same user: %llu us",
	   (unsigned long long)longest_us);
	stop();
}

/// Many of one user come at once: the last of them waits for a short slice of each.
static void test_all_new(void)
{
	start();
	crowd(1001, 20, 20);
	uint64_t us = wait_us(connect_as(1001));
	ok(us <= (20 * SESSION_SLICE_LEAST_NS + SESSION_TURN_NS) / US,
	   "of a user with many who come at once none takes a long slice: %llu us",
	   (unsigned long long)us);
	stop();
}

static void test_equal_users(void)
{
	start();
	send_slow(connect_as(1002), 2000);
	crowd(1001, 40, 200);
	size_t one = 0, many = 0, most = 0, least = SIZE_MAX;
	for (int i = 0; i < 300; i++) {
		turn();
		one += received(fds[0]);
	}
	for (unsigned i = 1; i < count; i++) {
		size_t n = received(fds[i]);
		many += n;
		most = n > most ? n : most;
		least = n < least ? n : least;
	}
	one /= SLOW_BYTES;
	many /= SLOW_BYTES;
	ok(one * 10 >= many * 9 && many * 10 >= one * 9,
	   "G: one connection of a user and forty of another get the same: %zu, %zu", one, many);
	ok(least > 0 && most - least <= 2 * SLOW_BYTES,
	   "G: and those forty get the same among themselves: %zu to %zu", least / SLOW_BYTES,
	   most / SLOW_BYTES);
	stop();
}

static void test_debt(void)
{
	start();
	int takes = connect_as(1001);
	int busy = connect_as(1002);
	stub_send_text(takes, "LONG\r\nLONG\r\nLONG\r\nLONG\r\n");
	send_slow(busy, 2000);
	size_t between = 0;
	unsigned longs = 0;
	while (longs < 3) {
		turn();
		longs += (unsigned)(received(takes) / SLOW_BYTES);
		between += received(busy) / SLOW_BYTES;
	}
	ok(between * SLOW_US * US >= 2 * SESSION_DEBT_NS,
	   "G: who takes more than its share at once owes it to those who wait: %zu", between);
	stub_turns();
	(void)received(takes);
	stub_send_text(takes, "LONG\r\n");
	turn();
	stub.now_ns += SESSION_DEBT_NS; // nobody wants anything
	send_slow(busy, 100);
	stub_send_text(takes, "PING\r\n");
	turn();
	ok(received(takes) == 14, "but it is forgiven as time passes");
	stop();
}

/// Clients who come with one small request again and again, and one with much to do.
static void test_nobody_starves(bool same_user)
{
	start();
	int busy = connect_as(1001);
	send_slow(busy, 2000);
	for (uint32_t i = 0; i < 20; i++) {
		(void)connect_as(same_user ? 1001 : 2000 + i);
	}
	size_t done = 0;
	uint64_t before_ns = stub.now_ns;
	for (int i = 0; i < 200; i++) {
		for (unsigned other = 1; other < count; other++) {
			if (received(fds[other]) > 0 || i == 0) {
				send_slow(fds[other], 1);
			}
		}
		turn();
		done += received(busy) / SLOW_BYTES;
	}
	uint64_t share = (stub.now_ns - before_ns) / US / SLOW_US / (same_user ? 4 : 45);
	ok(done >= share, "G: who has much to do gets on beside %s: %zu of %llu commands",
	   same_user ? "new requests of the same user" : "twenty other users", done,
	   (unsigned long long)(stub.now_ns - before_ns) / US / SLOW_US);
	stop();
}

static void test_all_events(void)
{
	start();
	for (int i = 0; i < CLIENTS_MAX; i++) {
		stub_send_text(connect_as(1001), "PING\r\n");
	}
	turn();
	ok_u64(stub.commands, CLIENTS_MAX,
	       "G: more events than one look shows are seen in one turn");
	stub.step_ns = 10 * US; // closing takes time
	for (unsigned i = 0; i < count; i++) {
		session_kill(sessions[i], NULL);
	}
	turn();
	size_t left = session_count(stub.sessions);
	ok(left > 0 && left < CLIENTS_MAX && session_closing(stub.sessions),
	   "G: many who end at once are closed in pieces: %zu left", left);
	ok_u64(session_shared_next_ns(stub.sessions), 0, "without a pause");
	stub_turns();
	ok_u64(session_count(stub.sessions), 0, "until all are gone");
	stop();
}

/// A client that reads slowly is sent to from its share of the time, and what is pending at the end
/// of its input is seen.
static void test_ends_and_sends(void)
{
	start();
	int fd = connect_as(1001);
	stub_send_text(fd, "BIG 3000000\r\nPING\r\n");
	(void)shutdown(fd, SHUT_WR);
	uint64_t turns = 0;
	size_t got = 0;
	while (session_count(stub.sessions) > 0 && turns++ < 1000) {
		turn();
		got += received(fd);
	}
	got += received(fd);
	ok_u64(got, 10 + 3000000 + 2 + 7, "all is sent before a half-closed connection ends");
	ok_u64(session_count(stub.sessions), 0, "and its end is seen");
	fd = connect_as(1001);
	send_slow(fd, 100);
	(void)shutdown(fd, SHUT_WR);
	stub_turns();
	ok_u64(received(fd), 100 * SLOW_BYTES, "so is one that comes while others wait");
	ok_u64(session_count(stub.sessions), 0, "and nothing lingers");
	stop();
}

int main(void)
{
	test_polite();
	test_all_new();
	test_equal_users();
	test_debt();
	test_nobody_starves(true);
	test_nobody_starves(false);
	test_all_events();
	test_ends_and_sends();
	return tap_done();
}

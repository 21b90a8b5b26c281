// SPDX-License-Identifier: MIT
//
// Large values that are received where they will stand: however the bytes are cut, the command sees
// the same; while it waits nothing is parsed anew that is not in the input; and whoever dies, stops
// midway, or sends hardly anything while memory is wanted, keeps nothing.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/command.h"
#include "daemon/session_parts.h"
#include "shm/counters.h"
#include "shm/crc32c.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define MS UINT64_C(1000000)
#define BIG 200000u

static struct session *session;
static int fd;
static char body[2 * BIG];
static char request[4 * BIG];

static void start(void)
{
	stub_start(PERSIST_MEMORY);
	stub.intakes = true;
	fd = stub_connect(&session);
	for (size_t i = 0; i < sizeof(body); i++) {
		body[i] = "\r\n*$12345abc"[(i * 7 + (i >> 8)) % 12];
	}
}

static void stop(void)
{
	close(fd);
	stub_turns();
	ok(stub.intakes_open == 0 && TAILQ_EMPTY(&stub.sessions->intakes) &&
		   stub.sessions->intake_bytes == 0 && session_buffer_bytes(stub.sessions) == 0,
	   "G: nothing is left, neither taken nor charged");
	stub_stop();
}

static size_t put(size_t at, const char *text)
{
	size_t bytes = strlen(text);
	memcpy(request + at, text, bytes);
	return at + bytes;
}

static size_t put_arg(size_t at, const char *data, size_t bytes)
{
	at += (size_t)snprintf(request + at, 32, "$%zu\r\n", bytes);
	memcpy(request + at, data, bytes);
	return put(at + bytes, "\r\n");
}

/// A SET of `bytes`, behind what is in the request.
static size_t put_set(size_t at, size_t bytes)
{
	return put_arg(put(at, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n"), body, bytes);
}

static void send_cut(size_t bytes, uint64_t *seed, size_t most)
{
	for (size_t at = 0; at < bytes;) {
		size_t piece = 1 + (size_t)(tap_random(seed) % most);
		piece = piece < bytes - at ? piece : bytes - at;
		stub_send(fd, request + at, piece);
		stub_turns();
		at += piece;
	}
}

static void test_cuts(void)
{
	uint64_t seed = tap_seed(1);
	for (unsigned round = 0; round < 12; round++) {
		start();
		size_t bytes = put_set(put(0, "PING\r\n"), BIG);
		bytes = put_set(put(bytes, "PING\r\n"), 100);
		send_cut(bytes, &seed, round % 3 == 0 ? 400000 : round % 3 == 1 ? 9000 : 60000);
		ok(stub_expect(fd, "+PONG\r\n+OK\r\n+PONG\r\n+OK\r\n"), "A: all is answered");
		ok(stub.set_crc == kvs_crc32c(0, body, 100) && memcmp(stub_arrived, body, BIG) == 0,
		   "A: the bytes are those that were sent");
		uint64_t copied = stub_counter(KVS_COUNTER_large_copied_bytes);
		uint64_t received = stub_counter(KVS_COUNTER_large_received_bytes);
		ok(copied + received == BIG && copied <= SESSION_BUFFER_BYTES,
		   "G: %" PRIu64 " bytes came by way of the buffer", copied);
		stop();
	}
}

static void test_is_taken(void)
{
	start();
	size_t bytes = put_set(0, BIG);
	stub_send(fd, request, bytes - 1);
	stub_turns();
	ok(session->input_bytes == SESSION_BUFFER_BYTES && stub.intakes_open == 1,
	   "G: the buffer is no larger than for any request");
	ok(session->buffer_bytes >= BIG, "G: and the value counts against its user");
	stub_send(fd, request + bytes - 1, 1);
	ok(stub_expect(fd, "+OK\r\n") && stub.set_arrived &&
		   stub.set_crc == kvs_crc32c(0, body, BIG),
	   "A: the command gets it where it stands");
	ok_u64(stub.intakes_open, 0, "which is over with the command");
	stop();
}

/// Only an argument that its command stores as it is, and only one at a time.
static void test_others(void)
{
	start();
	size_t bytes = put_arg(put(0, "*2\r\n$4\r\nECHO\r\n"), body, BIG);
	stub_send(fd, request, bytes);
	stub_turns();
	char *echo = malloc(2 * BIG);
	bool ended;
	ok(stub_receive(fd, echo, 2 * BIG, &ended) > BIG && stub.intakes_asked == 0,
	   "what is not stored is buffered");
	free(echo);
	session->multi.active = true;
	stub_send(fd, request, put_set(0, BIG));
	ok(stub_expect(fd, "+OK\r\n") && stub.intakes_asked == 0, "so is what MULTI queues");
	session->multi.active = false;
	bytes = put_arg(put(0, "*5\r\n$4\r\nMSET\r\n$1\r\na\r\n"), body, BIG);
	bytes = put_arg(put(bytes, "$1\r\nb\r\n"), body + 1, BIG);
	stub_send(fd, request, bytes);
	uint32_t crc = kvs_crc32c(kvs_crc32c(0, body, BIG), body + 1, BIG);
	ok(stub_expect(fd, "+OK\r\n") && stub.set_crc == crc && stub.set_arrived,
	   "A: of several in a request the first is received, the second buffered");
	ok_u64(stub.intakes_asked, 1, "and only the first is asked for");
	stop();
}

static void test_waits(enum command_outcome outcome, const char *what)
{
	start();
	stub.set_outcome = outcome;
	session->owner->writes.paid_ns = stub.now_ns + 5 * MS;
	size_t first = put_set(0, BIG);
	size_t bytes = put_set(first, BIG / 2);
	stub_send(fd, request, bytes);
	stub_turns();
	ok(stub.parks > 0 && stub.intakes_open == 1, "%s: the value is kept", what);
	stub.set_outcome = COMMAND_DONE;
	if (outcome == COMMAND_POSTPONE) {
		session_rest_until(session, stub.now_ns + MS);
	}
	stub.now_ns += 10 * MS;
	stub_turns();
	stub.now_ns += 1000 * MS;
	ok(stub_expect(fd, "+OK\r\n+OK\r\n") && stub.set_crc == kvs_crc32c(0, body, BIG / 2),
	   "A: %s: and is there when the command goes on, and what stands behind it", what);
	stop();
}

static void test_park_ends(void)
{
	start();
	stub.set_outcome = COMMAND_PARK;
	stub_send(fd, request, put_set(0, BIG));
	stub_turns();
	close(fd);
	stub_turns();
	ok_u64(stub.intakes_open, 0, "G: who dies while its command waits keeps nothing");
	fd = stub_connect(&session);
	stub_send(fd, request, put_set(0, BIG));
	stub_turns();
	stub.now_ns += 1500 * MS; // no_wait: the stub's SET is done then
	ok(stub_expect(fd, "+OK\r\n"), "it is not parked for ever");
	stop();
}

static void test_no_room(void)
{
	start();
	stub.intake_result = KEYSPACE_FULL;
	stub_send(fd, request, put_set(0, BIG));
	ok(stub_expect(fd, "+OK\r\n") && !stub.set_arrived &&
		   stub.set_crc == kvs_crc32c(0, body, BIG),
	   "A: without room it is buffered");
	ok_u64(stub.intakes_asked, 1, "which is asked once");
	stub.intake_result = KEYSPACE_WAIT;
	size_t bytes = put_set(0, BIG);
	stub_send(fd, request, 60000);
	stub_turns();
	size_t used = session_input_used(session);
	ok(session->is_parked && used <= SESSION_BUFFER_BYTES,
	   "G: while room is awaited nothing is read");
	stub.intake_result = KEYSPACE_OK;
	stub.now_ns += 2 * MS;
	stub_turns();
	stub_send(fd, request + 60000, bytes - 60000);
	ok(stub_expect(fd, "+OK\r\n") && stub.set_arrived &&
		   stub.set_crc == kvs_crc32c(0, body, BIG),
	   "A: then it is received");
	stub.intake_result = KEYSPACE_WAIT;
	stub_send(fd, request, 60000);
	stub_turns();
	stub.now_ns += 1000 * MS;
	stub_turns();
	ok(!session->is_parked, "G: it is awaited as long as a write waits");
	stub_send(fd, request + 60000, bytes - 60000);
	ok(stub_expect(fd, "+OK\r\n") && !stub.set_arrived, "A: then it is buffered");
	stop();
}

static void test_bounds(void)
{
	start();
	stub.kvd.config.memory_bytes = 1000000; // half of it for all values on their way
	struct session *others[4];
	int fds[4];
	stub.intake_result = KEYSPACE_OK;
	for (int i = 0; i < 4; i++) {
		fds[i] = stub_connect(&others[i]);
		stub_send(fds[i], request, put_set(0, BIG) / 2);
		stub_turns();
	}
	ok(stub.intakes_open == 2 && stub.sessions->intake_bytes == 2 * BIG,
	   "G: values on their way take half of the memory at most");
	for (int i = 0; i < 4; i++) {
		close(fds[i]);
	}
	stub_turns();
	ok_u64(stub.intakes_open, 0, "G: who dies midway keeps nothing");
	stop();
}

/// Sends a piece each 10 ms while memory is wanted. True if the connection outlives 3 s.
static bool outlives(size_t piece, bool wanted)
{
	start();
	stub_send(fd, request, put_set(0, BIG) - BIG / 2 - 2);
	bool ended = false;
	for (unsigned i = 0; i < 300 && !ended; i++) {
		stub.now_ns += 10 * MS;
		if (piece > 0 && i * piece < BIG / 2 - 10) {
			stub_send(fd, body + BIG / 2 + i * piece, piece);
		}
		stub.sessions->pins_wanted = wanted;
		stub_turns();
		ended = session_count(stub.sessions) == 0;
	}
	ok(stub.intakes_open == !ended, "G: what is closed keeps nothing");
	ok_u64(stub_counter(KVS_COUNTER_dropped_intakes), ended, "G: and is counted");
	if (ended) {
		ok(stub_expect(fd, "-OOM closed: the rest of a large value does not come, and its "
				   "memory is wanted\r\n"),
		   "G: and told");
	}
	stop();
	return !ended;
}

static void test_stalls(void)
{
	ok(outlives(0, false), "G: who stops midway is left alone while nobody wants memory");
	ok(!outlives(0, true), "G: not when somebody does");
	ok(!outlives(1, true), "G: nor is who sends a byte now and then");
}

static void test_steady(void)
{
	start();
	size_t bytes = put_set(0, BIG);
	bool ended = false;
	for (size_t at = 0; at < bytes && !ended; at += 5000) {
		stub.now_ns += 4 * MS;
		stub_send(fd, request + at, bytes - at < 5000 ? bytes - at : 5000);
		stub.sessions->pins_wanted = true;
		stub_turns();
		ended = session_count(stub.sessions) == 0;
	}
	ok(!ended && stub_expect(fd, "+OK\r\n"), "who sends on is not closed");
	stop();
}

static void test_machine_full(void)
{
	start();
	stub.machine_full = true;
	stub_send(fd, request, put_set(0, BIG) / 2);
	stub_turns();
	ok(stub_expect(fd, "-OOM the system has no memory for this value\r\n"),
	   "G: a machine without memory is told");
	ok(session_count(stub.sessions) == 0 && stub.intakes_open == 0, "and nothing is kept");
	stop();
}

int main(void)
{
	test_cuts();
	test_is_taken();
	test_others();
	test_waits(COMMAND_PARK, "waiting for memory");
	test_waits(COMMAND_POSTPONE, "CLIENT PAUSE");
	test_waits(COMMAND_THROTTLE, "a quota");
	test_park_ends();
	test_no_room();
	test_bounds();
	test_stalls();
	test_steady();
	test_machine_full();
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// Large replies that are sent from where they stand: whole and in order, however little a client
// reads at a time; pinned as long as they are needed and not longer.
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/session_parts.h"
#include "daemon/session_refs.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define PONG "+PONG\r\n"

static char got[3 * STUB_LARGE_BYTES];

/// Is `bytes` bytes of the large value, framed, what stands at `at`? Returns how long it is.
static size_t framed(const char *at, size_t bytes)
{
	char head[32];
	size_t n = (size_t)snprintf(head, sizeof(head), "$%zu\r\n", bytes);
	bool good = memcmp(at, head, n) == 0 && memcmp(at + n, stub_large, bytes) == 0 &&
		    memcmp(at + n + bytes, "\r\n", 2) == 0;
	return good ? n + bytes + 2 : 0;
}

static void test_in_order(void)
{
	stub_start(PERSIST_MEMORY);
	struct session *session;
	int fd = stub_connect(&session);
	stub_send_text(fd, "PING\r\nREF 3000000\r\nPING\r\nREF 70000\r\nREF 100\r\nPING\r\n");
	(void)loop_turn(stub.kvd.loop, 0);
	ok(session->output_bytes <= 64u << 10, "G: a large value is not copied for a slow reader");
	ok_u64(stub.pins, 2, "two values are pinned, the small one is copied");
	ok(session->buffer_bytes > 2500000, "G: but it counts against the client");
	bool ended;
	size_t n = stub_receive(fd, got, sizeof(got), &ended);
	const char *at = got;
	bool good = memcmp(at, PONG, 7) == 0;
	at += 7;
	size_t first = framed(at, 3000000);
	at += first;
	good = good && first > 0 && memcmp(at, PONG, 7) == 0;
	at += 7;
	size_t second = framed(at, 70000);
	at += second;
	size_t third = framed(at, 100);
	at += third;
	good = good && second > 0 && third > 0 && memcmp(at, PONG, 7) == 0;
	ok(good && n == (size_t)(at + 7 - got), "replies come whole and in order");
	ok_u64(stub.pins, 0, "G: what was sent is pinned no longer");
	ok_u64(stub.sessions->buffer_bytes, session->refs.capacity * sizeof(struct session_ref),
	       "nor does it count");
	close(fd);
	stub_turns();
	ok_u64(stub.sessions->buffer_bytes, 0, "nothing is left of it");
	stub_stop();
}

static void test_one_turn(void)
{
	stub_start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	int room = 8 << 20;
	ok(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) == 0, "room in the socket");
	stub_send_text(fd, "REF 3000000\r\n");
	(void)loop_turn(stub.kvd.loop, 0);
	ok(stub_counter(KVS_COUNTER_output_bytes) <= 256u << 10,
	   "G: a turn sends a part of it only, whatever the socket takes");
	bool ended;
	ok(stub_receive(fd, got, sizeof(got), &ended) > 3000000, "the rest follows");
	close(fd);
	stub_stop();
}

static void test_left(void)
{
	stub_start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	stub_send_text(fd, "REF 3000000\r\nREF 1000000\r\nPING\r\n");
	(void)loop_turn(stub.kvd.loop, 0);
	(void)!read(fd, got, 100000);
	(void)loop_turn(stub.kvd.loop, 0);
	ok_u64(stub.pins, 2, "a client that has read a part");
	close(fd);
	stub_turns();
	ok_u64(stub.pins, 0, "G: when it goes, nothing stays pinned");
	ok_u64(stub.sessions->buffer_bytes, 0, "nor charged");
	stub.kvd.config.output_bytes_max = 3500000;
	fd = stub_connect(NULL);
	stub_send_text(fd, "REF 3000000\r\nREF 1000000\r\nPING\r\n");
	stub_turns();
	ok_u64(stub_counter(KVS_COUNTER_clients_dropped_output), 1,
	       "G: what is pinned counts for client-output-max");
	ok_u64(stub.pins + stub.sessions->buffer_bytes, 0, "and all of it goes");
	close(fd);
	stub_stop();
}

static void test_commit_fails(void)
{
	stub_start(PERSIST_GROUP);
	int fd = stub_connect(NULL);
	stub_send_text(fd, "REF 70000\r\nWREF 80000\r\nREF 90000\r\n");
	bool ended;
	size_t n = stub_receive(fd, got, sizeof(got), &ended);
	ok(framed(got, 70000) == n, "E: what waits for its commit is not sent, in parts neither");
	ok_u64(stub.pins, 2, "and stays pinned");
	stub_send_text(fd, "WREF 65536\r\nSET a b\r\nREF 100000\r\n");
	stub_turns();
	stub.failed_seq = 1;
	const char error[] = "-IOERR not durable: disk full\r\n";
	n = stub_receive(fd, got, sizeof(got), &ended);
	size_t error_bytes = sizeof(error) - 1;
	size_t middle = framed(got + error_bytes, 90000);
	ok(n == error_bytes + middle && middle > 0 && memcmp(got, error, error_bytes) == 0,
	   "E: a write's large reply becomes the error, what follows moves up");
	stub.durable_seq = 3;
	n = stub_receive(fd, got, sizeof(got), &ended);
	size_t second = framed(got, 65536);
	ok(second > 0 && memcmp(got + second, "+OK\r\n", 5) == 0 &&
		   framed(got + second + 5, 100000) == n - second - 5,
	   "the others come as they are");
	ok_u64(stub.pins, 0, "and nothing stays pinned");
	close(fd);
	stub_stop();
}

int main(void)
{
	test_in_order();
	test_one_turn();
	test_left();
	test_commit_fails();
	return tap_done();
}

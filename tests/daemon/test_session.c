// SPDX-License-Identifier: MIT
//
// Sessions: what goes in and comes out of a connection, whatever way it is cut; what a client can
// do to others (nothing) and to itself (be closed with a reason).

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/session_parts.h"
#include "shm/counters.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define PING "*1\r\n$4\r\nPING\r\n"
#define PONG "+PONG\r\n"

static void test_many_tiny(void)
{
	stub_start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	const size_t count = 10000;
	char *frames = malloc(count * 32);
	size_t bytes = 0;
	for (size_t i = 0; i < count; i++) {
		bytes += (size_t)snprintf(frames + bytes, 32, "*2\r\n$4\r\nECHO\r\n$5\r\n%05zu\r\n",
					  i);
	}
	stub_send(fd, frames, bytes);
	char *got = malloc(count * 16);
	bool ended;
	size_t got_bytes = stub_receive(fd, got, count * 16, &ended);
	bool good = got_bytes == count * 11;
	char expected[16];
	for (size_t i = 0; good && i < count; i++) {
		(void)snprintf(expected, sizeof(expected), "$5\r\n%05zu\r\n", i);
		good = memcmp(got + i * 11, expected, 11) == 0;
	}
	ok(good, "10000 tiny requests written at once are answered in order");
	free(frames);
	free(got);
	close(fd);
	stub_turns();
	ok_u64(session_count(stub.sessions), 0, "the closed connection is gone");
	stub_stop();
}

static void test_fair_turns(void)
{
	stub_start(PERSIST_MEMORY);
	int busy = stub_connect(NULL);
	int other = stub_connect(NULL);
	char slow[6 * 1000]; // 100 µs each by the test's clock
	for (size_t i = 0; i < sizeof(slow); i += 6) {
		memcpy(slow + i, "SLOW\r\n", 6);
	}
	stub_send(busy, slow, sizeof(slow));
	stub_send_text(other, "PING\r\n");
	for (int i = 0; i < 2; i++) {
		(void)loop_turn(stub.kvd.loop, 0);
	}
	char got[16];
	ok(recv(other, got, sizeof(got), 0) == 7,
	   "G: another client is served while one has much to do");
	ok(stub.commands < 100, "G: one turn runs a share of a long pipeline only");
	stub_turns();
	ok_u64(stub.commands, 1001, "the rest is done in later turns");
	close(busy);
	close(other);
	stub_stop();
}

static void test_clock(void)
{
	stub_start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	char pings[14 * SESSION_WINDOW + 1] = "";
	for (unsigned i = 0; i < SESSION_WINDOW; i++) {
		memcpy(pings + 14 * i, PING, 14);
	}
	stub_send_text(fd, pings);
	stub_turns();
	ok_u64(stub.ticks, 1, "one look at the clock serves a window of small commands");
	stub_send_text(fd, PING);
	stub_turns();
	ok_u64(stub.ticks, 2, "a command that comes later has its own");
	stub_send_text(fd, "BIG 20000\r\n" PING);
	stub_turns();
	ok_u64(stub.ticks, 4, "so has one behind a command that took long");
	stub.memory_short = true;
	stub_send_text(fd, "PARK\r\n");
	stub_turns();
	uint64_t before = stub.ticks;
	stub.memory_short = false;
	stub.now_ns += 2000000;
	stub_turns();
	ok_u64(stub.ticks, before + 1, "and one that waited for memory");
	stub.memory_short = true;
	stub_send_text(fd, "PARK\r\n");
	stub_turns();
	before = stub.parks;
	stub.room_is_back = true;
	stub_turns();
	ok(stub.parks > before, "who waits is asked at once when room is back");
	close(fd);
	stub_stop();
}

static void test_half_frames(void)
{
	stub_start(PERSIST_MEMORY);
	int slow = stub_connect(NULL);
	int other = stub_connect(NULL);
	const char *frame = "*2\r\n$4\r\nECHO\r\n$11\r\nhello world\r\n";
	bool good = true;
	for (size_t i = 0; i < strlen(frame); i++) {
		stub_send(slow, frame + i, 1);
		stub_send_text(other, PING);
		good = stub_expect(other, PONG) && good;
	}
	ok(good, "G: half frames of one client do not block another");
	ok(stub_expect(slow, "$11\r\nhello world\r\n"), "a request that came byte by byte");
	stub_send_text(slow, PING "PI");
	ok(stub_expect(slow, PONG), "the whole request before a half one is answered");
	stub_send_text(slow, "NG\r\n" PING "*2\r\n$4\r\nECHO\r\n$3\r\n");
	ok(stub_expect(slow, PONG PONG), "inline halves too");
	stub_send_text(slow, "a\r\n\r\n\r\n\r\n" PING);
	ok(stub_expect(slow, "$3\r\na\r\n\r\n" PONG), "arguments survive the move of the buffer");
	close(slow);
	close(other);
	stub_stop();
}

static void test_big_values(void)
{
	stub_start(PERSIST_MEMORY);
	struct session *session;
	int fd = stub_connect(&session);
	const size_t bytes = 1000000;
	char *frame = malloc(bytes + 100);
	char *got = malloc(bytes + 100);
	int head = snprintf(frame, 100, PING "*2\r\n$4\r\nECHO\r\n$%zu\r\n", bytes);
	uint64_t seed = tap_seed(7);
	for (size_t i = 0; i < bytes; i++) {
		frame[(size_t)head + i] = (char)tap_random(&seed);
	}
	memcpy(frame + head + bytes, "\r\n" PING, 2 + strlen(PING));
	stub_send(fd, frame, (size_t)head + bytes + 2 + strlen(PING));
	bool ended;
	size_t n = stub_receive(fd, got, bytes + 100, &ended);
	size_t value_at = strlen(PONG) + strlen("$1000000\r\n");
	ok(n == value_at + bytes + 2 + strlen(PONG) &&
		   memcmp(got + value_at, frame + head, bytes) == 0,
	   "a value of 1 MB between two small requests");
	ok(session->input == NULL && session->output == NULL,
	   "G: an idle connection holds no buffer");
	stub_send_text(fd, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n");
	memset(frame, 'x', bytes);
	stub_send(fd, frame, bytes);
	ok(session->input_bytes <= 64 << 10, "G: a value over the limit is not buffered");
	stub_send(fd, frame, 1048577 - bytes);
	stub_send_text(fd, "\r\n" PING);
	ok(stub_expect(fd, "-ERR argument of 1048577 bytes is over the limit of 1048576 bytes "
			   "(value-max)\r\n" PONG),
	   "G: it is answered with an error, and the connection goes on");
	stub_send_text(fd, "*2\r\n$4\r\nECHO\r\n$1000000\r\n");
	stub_turns();
	ok(session->input_bytes <= 64 << 10, "G: an announcement alone allocates nothing large");
	free(frame);
	free(got);
	close(fd);
	stub_stop();
}

static void test_many_arguments(void)
{
	stub_start(PERSIST_MEMORY);
	struct session *session;
	int fd = stub_connect(&session);
	const unsigned count = 200000;
	char *frame = malloc(count * 8 + 64);
	size_t bytes = (size_t)snprintf(frame, 64, "*%u\r\n$4\r\nPING\r\n", count);
	for (unsigned i = 1; i < count; i++) {
		memcpy(frame + bytes, "$1\r\na\r\n", 7);
		bytes += 7;
	}
	stub_send(fd, frame, bytes);
	ok(stub_expect(fd, PONG), "a request of 200000 arguments, in pieces");
	bool good = session->partial.argv_capacity <= 1024;
	for (unsigned i = 0; i < SESSION_WINDOW; i++) {
		good = good && stub.sessions->window[i].argv_capacity <= 1024;
	}
	ok(good && stub.sessions->buffer_bytes == 0, "G: it leaves no memory behind");
	free(frame);
	close(fd);
	stub_stop();
}

static void test_protocol_errors(void)
{
	stub_start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	stub_send_text(fd, PING "*1\r\n$a\r\n" PING);
	ok(stub_expect(fd, PONG "-ERR Protocol error: invalid bulk length\r\n"),
	   "a protocol error is answered behind what came before");
	ok(stub_ended(fd), "and the connection is closed");
	close(fd);
	fd = stub_connect(NULL);
	char line[4096];
	memset(line, 'a', sizeof(line));
	for (int i = 0; i < 40; i++) {
		stub_send(fd, line, sizeof(line));
	}
	ok(stub_expect(fd, "-ERR Protocol error: too big inline request\r\n") && stub_ended(fd),
	   "G: an endless inline line");
	close(fd);
	ok_u64(stub_counter(KVS_COUNTER_clients_dropped_protocol), 2, "both are counted");
	fd = stub_connect(NULL);
	stub_send_text(fd, "QUIT\r\n" PING);
	ok(stub_expect(fd, "+OK\r\n") && stub_ended(fd), "QUIT ends a connection behind its reply");
	ok_u64(stub.commands, 2, "nothing behind QUIT runs");
	close(fd);
	fd = stub_connect(NULL);
	stub_send_text(fd, "ECHO \"a b\"\r\n\r\n  \r\nPING\r\n");
	ok(stub_expect(fd, "$3\r\na b\r\n" PONG), "inline commands and empty lines");
	close(fd);
	stub_stop();
}

static void test_never_reads(void)
{
	stub_start(PERSIST_MEMORY);
	stub.kvd.config.output_bytes_max = 1 << 20;
	int fd = stub_connect(NULL);
	int other = stub_connect(NULL);
	for (int i = 0; i < 40; i++) {
		stub_send_text(fd, "BIG 100000\r\n");
	}
	stub_send_text(other, PING);
	ok(stub_expect(other, PONG), "G: others are served beside a client that never reads");
	ok_u64(session_count(stub.sessions), 1, "G: it is closed at its output limit");
	ok_u64(stub_counter(KVS_COUNTER_clients_dropped_output), 1, "and counted");
	close(fd);
	close(other);
	stub_stop();
}

static void test_slow_reader(void)
{
	stub_start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	const size_t total = 30 * (100000 + 11);
	for (int i = 0; i < 30; i++) {
		stub_send_text(fd, "BIG 100000\r\n");
	}
	stub_turns();
	char *got = malloc(total + 1);
	size_t at = 0;
	for (int i = 0; i < 100000 && at < total; i++) {
		ssize_t n = recv(fd, got + at, 3000 < total - at ? 3000 : total - at, 0);
		at += n > 0 ? (size_t)n : 0;
		(void)loop_turn(stub.kvd.loop, 0);
	}
	bool good = at == total;
	for (size_t i = 0; good && i < 30; i++) {
		good = memcmp(got + i * 100011, "$100000\r\nbbb", 12) == 0 &&
		       memcmp(got + (i + 1) * 100011 - 3, "b\r\n", 3) == 0;
	}
	ok(good, "3 MB of replies reach a client that reads 3000 bytes at a time");
	stub_turns();
	unsigned long before = stub.epoll_calls;
	(void)loop_turn(stub.kvd.loop, -1);
	ok(stub.epoll_calls == before + 1 && stub.epoll_timeout_ms == -1,
	   "C: afterwards the loop sleeps without a timeout");
	free(got);
	close(fd);
	stub_stop();
}

static void test_ends(void)
{
	stub_start(PERSIST_GROUP);
	int fd = stub_connect(NULL);
	stub_send_text(fd, PING PING "*1\r\n");
	shutdown(fd, SHUT_WR);
	ok(stub_expect(fd, PONG PONG) && stub_ended(fd),
	   "a half-closed connection gets its replies");
	close(fd);
	fd = stub_connect(NULL);
	stub_send_text(fd, "SET a b\r\nSET a c\r\n");
	close(fd);
	stub_turns();
	ok_u64(stub.last_seq, 2, "what a client sent before it closed is done");
	ok_u64(session_count(stub.sessions), 0, "G: and its connection does not linger");
	fd = stub_connect(NULL);
	stub_send_text(fd, "SET a b\r\n");
	stub_turns();
	close(fd);
	stub_turns();
	ok_u64(session_count(stub.sessions), 0, "nor one that closed while its reply was held");
	stub_stop();
}

static void send_descriptor(int fd, const char *text)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec piece = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &fd, sizeof(int));
	if (sendmsg(fd, &message, MSG_NOSIGNAL) < 0) {
		abort();
	}
}

/// Receives up to `bytes` in one call; returns how many descriptors came with it.
static int receive_descriptors(int fd, char *out, size_t bytes, ssize_t *got)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * 8)];
		struct cmsghdr align;
	} control;
	struct iovec piece = { .iov_base = out, .iov_len = bytes };
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	*got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	int count = 0;
	for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); *got > 0 && head;
	     head = CMSG_NXTHDR(&message, head)) {
		size_t n = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int received;
			memcpy(&received, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
			close(received);
			count++;
		}
	}
	return count;
}

static void test_descriptors(void)
{
	stub_start(PERSIST_GROUP);
	int fd = stub_connect(NULL);
	send_descriptor(fd, PING);
	ok(stub_ended(fd), "H: a client that sends descriptors is closed");
	close(fd);

	fd = stub_connect(NULL);
	stub_send_text(fd, PING "FDS\r\n" PING "FDS\r\n");
	stub_turns();
	char got[64];
	ssize_t n;
	int count = receive_descriptors(fd, got, 7, &n);
	ok(count == 0 && n == 7 && memcmp(got, PONG, 7) == 0,
	   "output before the reply with descriptors comes without them");
	count = receive_descriptors(fd, got, 1, &n);
	ok(count == 3 && n == 1 && got[0] == '+',
	   "descriptors ride on the first byte of their reply");
	ok(stub_expect(fd, "FDS\r\n" PONG "-ERR busy\r\n"), "what follows comes behind it");
	stub_send_text(fd, "SET a b\r\nFDS\r\n");
	stub_turns();
	ok(receive_descriptors(fd, got, 1, &n) == 0 && n < 0,
	   "descriptors wait behind a held reply");
	stub.failed_seq = 1;
	stub_turns();
	static const char error[] = "-IOERR not durable: disk full\r\n";
	count = receive_descriptors(fd, got, strlen(error), &n);
	ok(count == 0 && n == (ssize_t)strlen(error) && memcmp(got, error, (size_t)n) == 0,
	   "a replaced reply before them has another length");
	count = receive_descriptors(fd, got, sizeof(got), &n);
	ok(count == 3 && n == 6 && memcmp(got, "+FDS\r\n", 6) == 0, "they still meet their byte");
	close(fd);
	stub_stop();
}

static void test_multi_queue(void)
{
	stub_start(PERSIST_MEMORY);
	struct session *session;
	int fd = stub_connect(&session);
	struct resp_arg argv[2] = { { "SET", 3 }, { "value", 5 } };
	session->multi.active = true;
	ok(session_multi_queue(session, NULL, argv, 2) && session->multi.count == 1 &&
		   !session->multi.dirty && session->multi.queued[0].argv[1].data != argv[1].data,
	   "a queued command is a copy");
	argv[1].data = calloc(1, 80 << 20);
	argv[1].bytes = 80 << 20;
	ok(!session_multi_queue(session, NULL, argv, 2) && session->multi.dirty,
	   "G: a transaction has a bound, and is spoilt beyond it");
	free((void *)(uintptr_t)argv[1].data);
	session_multi_reset(session);
	ok(!session->multi.active && session->multi.count == 0 && session->multi.queued == NULL,
	   "reset frees it");
	close(fd);
	stub_stop();
}

int main(void)
{
	(void)alarm(300); // what never ends is a failure, not a hang
	test_many_tiny();
	test_fair_turns();
	test_clock();
	test_half_frames();
	test_big_values();
	test_many_arguments();
	test_protocol_errors();
	test_never_reads();
	test_slow_reader();
	test_ends();
	test_descriptors();
	test_multi_queue();
	return tap_done();
}

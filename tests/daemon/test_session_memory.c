// SPDX-License-Identifier: MIT
//
// A connection while memory is refused, at each allocation in turn: of its input, whole or in
// pieces, of its replies, of what holds them until a commit, of values they refer to, of requests
// that wait for memory. It gets whole replies and then more of them, or its end; another connection
// is served throughout, and nothing is charged for it when it is gone.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/session_parts.h"
#include "shm/resp.h"
#include "tests/daemon/wire_stub.h"
#include "tests/lib/refuse_memory.h"
#include "tests/tap/tap.h"

#define ALLOCATIONS_MAX 300u
#define ANSWER_BYTES (8u << 20)
#define LONG_BYTES 300000u
#define PIPELINE 300u

/// What is sent, in pieces of `piece` bytes (0 = at once), and how often.
static const struct {
	const char *name, *request;
	unsigned times;
	size_t piece;
	bool is_long; // the last argument has LONG_BYTES more
} scripts[] = {
	{ "a request", "*1\r\n$4\r\nPING\r\n", 1, 0, false },
	{ "a line", "PING\r\n", 1, 0, false },
	{ "many requests", "*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n", PIPELINE, 0, false },
	{ "a request byte by byte", "*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n", 1, 1, false },
	{ "a long request", "*2\r\n$4\r\nECHO\r\n", 1, 0, true },
	{ "a long request in pieces", "*2\r\n$4\r\nECHO\r\n", 2, 7000, true },
	{ "replies that are copied", "REF 3000\r\n", 200, 0, false },
	{ "many writes that wait for a commit", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
	  PIPELINE, 0, false },
	{ "writes and reads", "SET a b\r\nPING\r\nSYNC\r\nPING\r\n", 20, 0, false },
	{ "values that are referred to", "REF 1000000\r\n", 3, 0, false },
	{ "values of writes", "WREF 200000\r\nPING\r\n", 3, 0, false },
	{ "writes that wait for memory", "PARK\r\nPING\r\n", 5, 0, false },
	{ "a long write that waits for memory", "*2\r\n$4\r\nPARK\r\n", 1, 30000, true },
	{ "descriptors", "FDS\r\nPING\r\n", 3, 0, false },
	{ "nonsense", "*1\r\n$x\r\n", 1, 0, false },
	{ "a last word", "SET a b\r\nQUIT\r\nPING\r\n", 1, 0, false },
};

static char answer[ANSWER_BYTES];

// The bytes of one request of a script.
static size_t request_of(size_t index, char *out)
{
	size_t bytes = strlen(scripts[index].request);
	memcpy(out, scripts[index].request, bytes);
	if (scripts[index].is_long) {
		bytes += (size_t)snprintf(out + bytes, 16, "$%u\r\n", LONG_BYTES);
		memset(out + bytes, 'x', LONG_BYTES);
		bytes += LONG_BYTES;
		memcpy(out + bytes, "\r\n", 2);
		bytes += 2;
	}
	return bytes;
}

// Turns of the loop, kvd alone being refused memory.
static void turns(void)
{
	refuse.armed = true;
	stub_turns();
	refuse.armed = false;
}

static size_t whole_replies(size_t bytes, size_t *replies)
{
	struct resp_reply_state state = { 0 };
	size_t at = 0, consumed, nodes;
	for (*replies = 0;
	     at < bytes && resp_measure_reply(&state, answer + at, bytes - at, 1u << 30, &consumed,
					      &nodes) == RESP_COMPLETE;
	     ++*replies) {
		at += consumed;
	}
	return at;
}

static bool other_is_served(int other)
{
	stub_send_text(other, "PING\r\n");
	return stub_expect(other, "+PONG\r\n");
}

// One script with the `at`-th allocation refused. False: there are not so many.
static bool run(size_t index, unsigned at, enum persist_policy policy, unsigned *wrong)
{
	static char request[LONG_BYTES + 100];
	stub_start(policy);
	int other = stub_connect(NULL), fd = stub_connect(NULL);
	bool ended = false;
	size_t bytes = request_of(index, request), got = 0, replies;
	stub.memory_short = true;
	refuse_arm(at);
	refuse.armed = false;
	for (unsigned i = 0; i < scripts[index].times; i++) {
		size_t piece = scripts[index].piece > 0 ? scripts[index].piece : bytes;
		for (size_t sent = 0; sent < bytes; sent += piece) {
			size_t part = bytes - sent < piece ? bytes - sent : piece;
			size_t done = 0;
			while (done < part) {
				ssize_t n =
					send(fd, request + sent + done, part - done, MSG_NOSIGNAL);
				done += n > 0 ? (size_t)n : 0;
				turns();
				if (n < 0 && errno != EAGAIN) {
					break;
				}
				got += stub_receive(fd, answer + got, sizeof(answer) - got, &ended);
			}
		}
	}
	stub.memory_short = false;
	for (unsigned i = 0; i < 20 && !ended; i++) {
		stub.now_ns += UINT64_C(200000000); // what waits for memory is tried again
		stub.durable_seq = stub.last_seq;
		turns();
		got += stub_receive(fd, answer + got, sizeof(answer) - got, &ended);
	}
	bool reached = refuse.refused > 0;
	bool good = ended || (whole_replies(got, &replies) == got && replies > 0);
	good = good && other_is_served(other) && (reached || at == 0 || got > 0);
	close(fd);
	stub_turns();
	good = good && session_count(stub.sessions) == 1 && stub.pins == 0 &&
	       other_is_served(other);
	if (!good) {
		tap_diag("%s, allocation %u refused: %zu bytes, '%.60s'", scripts[index].name, at,
			 got, answer);
		++*wrong;
	}
	close(other);
	stub_turns();
	stub_stop();
	return reached;
}

int main(void)
{
	unsigned all = 0;
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		unsigned wrong = 0, at = 1, both = 0;
		for (int policy = 0; policy < 2; policy++) {
			for (at = 1; at < ALLOCATIONS_MAX &&
				     run(i, at, policy ? PERSIST_GROUP : PERSIST_MEMORY, &wrong);
			     at += tap_step(1, 5)) {
				both++;
			}
		}
		ok(wrong == 0, "%s: %u allocations, one at a time", scripts[i].name, both);
		all += both;
	}
	ok(all > 100 / tap_step(1, 5), "%u in all", all);
	return tap_done();
}

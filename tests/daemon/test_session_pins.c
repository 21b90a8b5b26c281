// SPDX-License-Identifier: MIT
//
// Memory that unread replies keep: who keeps it is left alone as long as it is little and nobody
// wants it; then of the user that keeps most the one that has kept longest is closed, and no more
// of them than need be.
#include <unistd.h>

#include "daemon/session_parts.h"
#include "daemon/session_refs.h"
#include "shm/counters.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define MS UINT64_C(1000000)
#define MEMORY (64u << 20) // a quarter may be kept
#define CLIENTS 8

static struct session *sessions[CLIENTS];
static int fds[CLIENTS];

/// Clients of users that leave a large reply unread, 10 ms after one another.
static void start(const uint32_t *uids, unsigned count)
{
	stub_start(PERSIST_MEMORY);
	stub.kvd.config.memory_bytes = MEMORY;
	for (unsigned i = 0; i < count; i++) {
		fds[i] = stub_connect(&sessions[i]);
		session_owner_leave(stub.sessions, sessions[i]->owner);
		sessions[i]->uid = uids[i];
		sessions[i]->owner = session_owner_join(stub.sessions, uids[i]);
		stub_send_text(fds[i], "REF 3000000\r\n");
		stub_turns();
		stub.now_ns += 10 * MS;
	}
}

static void stop(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		close(fds[i]);
	}
	stub_turns();
	ok(TAILQ_EMPTY(&stub.sessions->pinning) && stub.pins == 0, "nothing is left");
	stub_stop();
}

/// Which of them are open, as bits.
static unsigned open_ones(unsigned count)
{
	unsigned bits = 0;
	const struct session *session;
	TAILQ_FOREACH (session, &stub.sessions->all, link) {
		for (unsigned i = 0; i < count; i++) {
			bits |= session == sessions[i] && !session->dead ? 1u << i : 0;
		}
	}
	return bits;
}

static void test_over(void)
{
	const uint32_t uids[] = { 1001, 1002, 1002, 1003 };
	start(uids, 4);
	ok_u64(stub.pins, 4, "four replies are not read");
	stub_turns();
	ok_u64(open_ones(4), 15, "G: which keep nothing as long as a key has the value");
	stub.orphaned = 4u << 20;
	stub_turns();
	ok_u64(open_ones(4), 15, "G: a quarter of the memory may be kept");
	stub.orphaned = (4u << 20) + 1;
	stub_turns();
	ok_u64(open_ones(4), 15 - 2, "G: beyond that the oldest of who keeps most is closed");
	stub.orphaned = 7u << 20;
	stub_turns();
	ok_u64(open_ones(4), 15 - 2 - 1, "G: of users that keep the same the oldest");
	ok_u64(stub_counter(KVS_COUNTER_dropped_pins), 2, "that is counted");
	stop(4);
}

static void test_wanted(void)
{
	const uint32_t uids[] = { 1001, 1001, 1001, 1001, 1001, 1001 };
	start(uids, 6);
	int writer = stub_connect(NULL);
	stub.orphaned = 600000; // two of them are more than a 64th
	stub_turns();
	session_pins_wanted(stub.sessions);
	stub_turns();
	ok_u64(open_ones(6), 63, "G: a client has some time to read although memory is wanted");
	stub.now_ns += 145 * MS;
	stub_turns();
	ok_u64(open_ones(6), 63, "G: and any time while it is not");
	session_pins_wanted(stub.sessions);
	stub_turns();
	ok_u64(open_ones(6), 63 - 1, "G: then who has kept longest is closed, but not the younger");
	stub.now_ns += 100 * MS;
	session_pins_wanted(stub.sessions);
	stub_turns();
	ok_u64(open_ones(6), 63 - 1 - 6, "G: no more than what gives a part of the memory");
	session_pins_wanted(stub.sessions);
	stub_turns();
	ok_u64(open_ones(6), 63 - 7, "G: and then none, until that can have come free");
	stub.now_ns += 20 * MS;
	stub.memory_short = true;
	stub_send_text(writer, "PARK\r\n");
	stub_turns();
	ok_u64(open_ones(6), 63 - 7 - 24, "G: who waits for memory wants it, too");
	stub.memory_short = false;
	close(writer);
	stop(6);
}

static void test_reading(void)
{
	const uint32_t uids[] = { 1001, 1002 };
	start(uids, 1);
	stub_send_text(fds[0], "REF 2000000\r\n");
	stub_turns();
	ok(sessions[0]->pins_since_ns < stub.now_ns, "one waits");
	ok_u64(sessions[0]->buffer_bytes - sessions[0]->refs.capacity * sizeof(struct session_ref) -
		       sessions[0]->output_bytes,
	       5000000, "what is pinned is charged");
	stub.now_ns += 100 * MS;
	static char got[3000000];
	size_t read_bytes = 0;
	while (sessions[0]->pins_count == 2 && read_bytes < sizeof(got)) {
		ssize_t n = read(fds[0], got, 65536);
		read_bytes += n > 0 ? (size_t)n : 0;
		(void)loop_turn(stub.kvd.loop, 0);
		if (sessions[0]->pins_count == 2 && read_bytes == 2 * 65536) {
			ok(sessions[0]->buffer_bytes >= 5000000,
			   "G: whole until all of it is sent");
		}
	}
	ok(sessions[0]->pins_since_ns == stub.now_ns,
	   "the next one waits since the one before it was sent");
	ok(sessions[0]->buffer_bytes < 2100000, "what was sent is charged no longer");
	session_refs_forget(sessions[0], 0, UINT64_MAX);
	ok(!sessions[0]->is_pinning, "what is taken back pins nothing");
	stop(1);
}

static void test_copied(void)
{
	const uint32_t uids[] = { 1001, 1002 };
	start(uids, 2);
	stub.orphaned = 5u << 20;
	struct session *session;
	int fd = stub_connect(&session);
	stub_send_text(fd, "REF 500000\r\n");
	(void)loop_turn(stub.kvd.loop, 0);
	ok(stub.pins == 2, "G: when much is kept small values are copied");
	stub_send_text(fds[0], "REF 2000000\r\n");
	stub_turns();
	ok(stub.pins == 3, "large ones are not");
	close(fd);
	stop(2);
}

int main(void)
{
	test_over();
	test_wanted();
	test_reading();
	test_copied();
	return tap_done();
}

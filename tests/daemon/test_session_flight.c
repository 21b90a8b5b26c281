// SPDX-License-Identifier: MIT
//
// Descriptors on their way: a user may have no more of them than are left for all others, they
// count until they have been received, and the end of a connection does not end that.
#include <unistd.h>

#include "daemon/session_parts.h"
#include "shm/counters.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define SECOND_NS UINT64_C(1000000000)
#define MAX 24u
#define KEPT 6u

static void start(void)
{
	stub_start(PERSIST_MEMORY);
	stub.sessions->flight_max = MAX;
	stub.sessions->flight_kept = KEPT;
}

/// A client of another user, as far as the session can tell, with something to read.
static int connect_as(uint32_t uid, struct session **session)
{
	int fd = stub_connect(session);
	session_owner_leave(stub.sessions, (*session)->owner);
	(*session)->uid = uid;
	(*session)->owner = session_owner_join(stub.sessions, uid);
	stub_send_text(fd, "PING\r\n");
	stub_turns();
	return fd;
}

/// Begins with `count` at a time until that is refused; how often it was not.
static unsigned begin_all(struct session *session, unsigned count, bool *mine)
{
	unsigned begun = 0;
	while (begun < 2 * MAX && session_flight_begin(session, count, mine)) {
		begun++;
	}
	return begun;
}

static uint64_t gauge(void)
{
	return kvs_load_relaxed(
		kvs_counter_word(stub.sessions->region_base, KVS_COUNTER_descriptors_in_flight));
}

static void test_shares(void)
{
	start();
	struct session *sessions[4];
	int fds[4];
	unsigned begun[4];
	bool mine = false;
	for (unsigned i = 0; i < 4; i++) {
		fds[i] = connect_as(1001 + i, &sessions[i]);
		begun[i] = begin_all(sessions[i], 1, &mine);
	}
	ok(mine, "whose bound was reached is told");
	ok_u64(begun[0], (MAX - KEPT) / 2, "G: one user gets half and leaves half");
	ok_u64(begun[1], (MAX - KEPT) / 4 + 1, "G: the next gets half of that");
	ok(begun[2] > 0 && begun[3] > 0, "G: and so on: %u, %u", begun[2], begun[3]);
	struct session *root;
	int root_fd = stub_connect(&root);
	root->uid = 0;
	stub_send_text(root_fd, "PING\r\n");
	stub_turns();
	unsigned of_root = begin_all(root, 1, &mine);
	ok(of_root >= KEPT && of_root < MAX, "G: some are kept for root: %u", of_root);
	ok(!mine && stub.sessions->flight_fds == MAX, "G: no more than all in any case");
	ok_u64(gauge(), MAX, "how many are on their way is counted");
	for (unsigned i = 0; i < 4; i++) {
		close(fds[i]);
	}
	close(root_fd);
	stub_turns();
	ok(stub.sessions->flight_fds == 0 && gauge() == 0 && LIST_EMPTY(&stub.sessions->owners),
	   "nothing is left of those who have gone");
	stub_stop();
}

static void test_until_received(void)
{
	start();
	struct session *session, *other;
	bool mine;
	int fd = connect_as(1001, &session);
	int other_fd = connect_as(1001, &other);
	(void)begin_all(session, 3, &mine);
	ok(!session_flight_begin(other, 3, &mine) && mine,
	   "G: the bound is on all connections of a user");
	ok(stub_expect(fd, "+PONG\r\n"), "one of them reads");
	ok(session_flight_begin(other, 3, &mine), "then its user may have more");
	ok(session->flight == NULL && stub.sessions->flight_fds == 3, "and nothing is remembered");
	session_flight_cancel(other, 3);
	ok(other->flight == NULL && stub.sessions->flight_fds == 0,
	   "what was not made is forgotten");
	ok(session_flight_begin(other, 3, &mine) && stub_expect(other_fd, "+PONG\r\n"), "again");
	stub.now_ns += SECOND_NS;
	stub_turns();
	ok_u64(stub.sessions->flight_fds, 0, "once a second it is asked who has read");
	session->fds_count = 1; // waits in kvd: its other end has read all there is
	ok(session_flight_begin(session, 1, &mine), "one that is to be sent");
	(void)begin_all(other, 1, &mine);
	ok(session->flight != NULL, "G: is on its way though everything was read");
	session->fds_count = 0;
	close(fd);
	close(other_fd);
	stub_turns();
	ok_u64(stub.sessions->flight_fds, 0, "until its connection ends");
	stub_stop();
}

static void test_closed(void)
{
	start();
	struct session *session;
	bool mine;
	int fd = connect_as(1001, &session);
	(void)session_flight_begin(session, 3, &mine);
	session_kill(session, NULL);
	stub_turns();
	ok_u64(session_count(stub.sessions), 0, "kvd closes a connection");
	ok_u64(stub.sessions->flight_fds, 3, "G: what was not received is on its way still");
	struct session *again;
	int again_fd = connect_as(1001, &again);
	ok_u64(again->owner->flight_fds, 3, "G: to the user that it was for");
	stub.now_ns += SECOND_NS;
	stub_turns();
	ok_u64(stub.sessions->flight_fds, 3, "G: however often it is asked");
	ok(stub_expect(fd, "+PONG\r\n") && stub_ended(fd),
	   "the client reads what was sent, and the end");
	stub_turns();
	ok_u64(stub.sessions->flight_fds, 0, "G: that is seen at once");
	session_kill(again, NULL);
	close(again_fd);
	stub_turns();
	int unread_fd = connect_as(1001, &session);
	(void)session_flight_begin(session, 3, &mine);
	session_kill(session, NULL);
	stub_turns();
	close(unread_fd);
	stub_turns();
	ok(stub.sessions->flight_fds == 0 && LIST_EMPTY(&stub.sessions->owners),
	   "G: also when it closed its end without reading");
	stub_stop();
}

static void test_stop(void)
{
	start();
	struct session *session;
	bool mine;
	int fd = connect_as(1001, &session);
	(void)session_flight_begin(session, 3, &mine);
	session_kill(session, NULL);
	stub_turns();
	stub_stop();
	char got[16];
	ok_int(read(fd, got, sizeof(got)), 7, "what was sent before a stop can be read");
	ok_int(read(fd, got, sizeof(got)), 0, "a stop leaves nothing open");
	close(fd);
}

int main(void)
{
	test_shares();
	test_until_received();
	test_closed();
	test_stop();
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// Commands that are cut: others are served at every cut, replies stay whole and in order, and a
// connection may end, a commit fail, memory run out or something be pushed between any two slices.
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/parcel.h"
#include "daemon/reply.h"
#include "daemon/session_parts.h"
#include "daemon/session_push.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define PONG "+PONG\r\n"
#define FIVE "*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n"
#define CUT5 "*2\r\n$3\r\nCUT\r\n$1\r\n5\r\n"

static void turn(void)
{
	(void)loop_turn(stub.kvd.loop, 0);
}

static void test_others(void)
{
	stub_start(PERSIST_MEMORY);
	int slow = stub_connect(NULL);
	int other = stub_connect(NULL);
	stub_send_text(slow, "\r\n\r\nPING\r\n\r\n" CUT5 "\r\nPING\r\nCUT 5\r\nECHO x\r\nEC");
	bool good = true;
	char got[64];
	for (uint64_t i = 1; i <= 4; i++) {
		stub_send_text(other, "PING\r\n");
		turn();
		good = good && recv(other, got, sizeof(got), 0) == 7 && stub.cuts == i;
	}
	ok(good, "G: at every cut another client is served");
	ok(stub_expect(slow, PONG FIVE PONG FIVE "$1\r\nx\r\n"), "replies are whole and in order");
	stub_send_text(slow, "HO y\r\n");
	ok(stub_expect(slow, "$1\r\ny\r\n"), "a half request behind them goes on");
	ok_u64(stub.states, 0, "nothing is kept");
	close(slow);
	close(other);
	stub_turns();
	ok_u64(stub.sessions->buffer_bytes, 0, "nor charged");
	stub_stop();
}

static void test_nothing_early(void)
{
	stub_start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	stub_send_text(fd, "PING\r\nCUT 5\r\nPING\r\n");
	char got[64];
	turn();
	turn();
	ok_int(recv(fd, got, sizeof(got), 0), 7, "only what came before is sent meanwhile");
	ok(stub_expect(fd, FIVE PONG), "then the rest");
	close(fd);
	stub_stop();
}

static void test_ends_anywhere(void)
{
	bool good = true;
	for (int at = 0; at < 6; at++) {
		for (int how = 0; how < 4; how++) {
			stub_start(PERSIST_MEMORY);
			struct session *session;
			int fd = stub_connect(&session);
			stub_send_text(fd, how == 3 ? "WCUT 5\r\nPING\r\n" : CUT5 "PING\r\n");
			for (int i = 0; i < at; i++) {
				turn();
			}
			if (how == 0 || how == 3) {
				close(fd);
			} else if (how == 1) {
				session_kill(session, "the test wants it");
			} else {
				good = shutdown(fd, SHUT_WR) == 0 && stub_expect(fd, FIVE PONG) &&
				       good;
			}
			stub_turns();
			good = good && stub.states == 0 && session_count(stub.sessions) == 0 &&
			       stub.sessions->buffer_bytes == 0;
			// A write that has begun is done, whoever is there to hear of it.
			good = good && (how != 3 || at == 0 || stub.last_seq == 5);
			if (how != 0 && how != 3) {
				close(fd);
			}
			stub_stop();
		}
	}
	ok(good, "G: a connection may end at every cut, and leaves nothing");
	stub_start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	stub_send_text(fd, "CUT 1000\r\n");
	turn();
	stub_stop();
	close(fd);
	ok_u64(stub.states, 0, "so may kvd");
}

static void test_memory_short(void)
{
	stub_start(PERSIST_MEMORY);
	int fd = stub_connect(NULL);
	stub.memory_short = true;
	stub_send_text(fd, "\r\nWCUT 5\r\nPING\r\n");
	stub_turns();
	ok(stub.parks > 0 && stub.states == 0, "a write that finds no room half-way waits");
	stub.memory_short = false;
	stub.now_ns += 2000000;
	ok(stub_expect(fd, FIVE PONG), "and is done from its start when there is some");
	close(fd);
	stub_stop();
}

static void test_holds(void)
{
	stub_start(PERSIST_GROUP);
	int fd = stub_connect(NULL);
	stub_send_text(fd, "SET a b\r\nPING\r\nWCUT 5\r\nPING\r\nCUT 5\r\n");
	turn();
	turn();
	stub.failed_seq = 1;
	turn();
	stub_turns();
	ok(stub_expect(fd, "-IOERR not durable: disk full\r\n" PONG),
	   "E: a commit fails while a reply is half made");
	ok_u64(stub.requested_seq, 6, "E: the whole of a write in slices is waited for");
	stub.durable_seq = 5;
	ok(stub_expect(fd, ""), "E: and not answered before");
	stub.durable_seq = 6;
	ok(stub_expect(fd, FIVE PONG FIVE), "E: nor kept longer");
	close(fd);
	stub_stop();
}

static void push_seven(struct session *session)
{
	struct parcel *seven = parcel_create(4);
	memcpy(seven->data, ":7\r\n", 4);
	session_push_parcel(session, "*1\r\n", 4, seven);
	parcel_release(stub.sessions, seven);
}

static void test_pushed(void)
{
	stub_start(PERSIST_MEMORY);
	struct session *session;
	int fd = stub_connect(&session);
	session->resp_version = 3;
	stub_send_text(fd, "CUT 5\r\nPING\r\n");
	turn();
	push_seven(session);
	turn();
	session_push_begin(session, 1);
	reply_integer(session, 8);
	session_push_end(session);
	stub_turns();
	ok(stub_expect(fd, FIVE ">1\r\n:7\r\n>1\r\n:8\r\n" PONG),
	   "what is pushed meanwhile stands behind the reply");
	stub_send_text(fd, "CUT 5\r\n");
	turn();
	push_seven(session);
	close(fd);
	stub_turns();
	ok_u64(stub.states + stub.sessions->buffer_bytes, 0, "G: or goes with its connection");
	stub_stop();
}

/// `name`, with so many arguments in all. The caller frees it.
static char *make_long(const char *name, unsigned args, size_t *bytes)
{
	char *frame = malloc(64 + (size_t)args * 7);
	*bytes = (size_t)snprintf(frame, 64, "\r\n\n*%u\r\n$4\r\n%s\r\n", args, name);
	for (unsigned i = 1; i < args; i++) {
		memcpy(frame + *bytes, "$1\r\na\r\n", 7);
		*bytes += 7;
	}
	return frame;
}

/// How much is parsed in a turn, of a long request and of one that is dropped because it is too
/// large.
static void test_parsed_in_shares(bool too_large)
{
	stub_start(PERSIST_MEMORY);
	stub.step_ns = SESSION_SLICE_NS / 2; // two pieces of work are a share
	struct session *session;
	int fd = stub_connect(&session);
	int other = stub_connect(NULL);
	size_t bytes;
	char *frame = make_long("PING", 60000, &bytes);
	stub.sessions->limits.bulk_bytes_max = too_large ? 3 : 100;
	size_t sent = 0;
	unsigned turns = 0;
	uint32_t before = 0;
	uint32_t most = 0;
	unsigned served = 0;
	char got[64];
	do {
		ssize_t n = send(fd, frame + sent, bytes - sent, MSG_DONTWAIT);
		sent += n > 0 ? (size_t)n : 0;
		stub_send_text(other, "PI\r\n");
		turn();
		served += recv(other, got, sizeof(got), 0) > 0;
		uint32_t now = session->parse.args_done;
		most = now > before && now - before > most ? now - before : most;
		before = now;
	} while ((sent < bytes || session->is_ready) && turns++ < 1000);
	ok(most > 1000 && most <= 2 * SESSION_PARSE_ARGS,
	   "D: %u arguments of %u parsed in a turn%s", most, 60000u, too_large ? ", dropped" : "");
	ok(served >= 2, "G: another client is served meanwhile, in %u of %u", served, turns);
	ok(stub_expect(fd, too_large ? "-ERR argument of 4 bytes is over the limit of 3 bytes "
				       "(value-max)\r\n"
				     : PONG),
	   "the reply comes once");
	free(frame);
	close(fd);
	close(other);
	stub_turns();
	ok_u64(stub.sessions->buffer_bytes, 0, "and nothing stays");
	stub_stop();
}

/// A long request that waits for memory is not parsed anew at every try.
static void test_parked_long(void)
{
	stub_start(PERSIST_MEMORY);
	struct session *session;
	int fd = stub_connect(&session);
	size_t bytes;
	char *frame = make_long("PARK", 3000, &bytes);
	stub.memory_short = true;
	stub_send(fd, frame, bytes);
	stub_send_text(fd, "PING\r\nECHO ");
	stub_turns();
	ok(session->is_parked && session->parked.argc == 3000, "its arguments are kept");
	ok(session->buffer_bytes >= 3000 * sizeof(struct resp_arg) + bytes, "G: and charged");
	for (unsigned i = 0; i < 3; i++) {
		stub.now_ns += 2000000;
		stub_turns();
	}
	ok(stub.parks >= 4, "it is tried again");
	stub.memory_short = false;
	stub.now_ns += 2000000;
	ok(stub_expect(fd, "+OK\r\n" PONG), "done when there is room, and what follows");
	ok(session->parked.argc == 0, "then nothing is kept");
	stub_send_text(fd, "x\r\n");
	ok(stub_expect(fd, "$1\r\nx\r\n"), "a half request behind it goes on");
	stub.memory_short = true;
	stub_send(fd, frame, bytes);
	stub_turns();
	close(fd);
	session_kill(session, "the test wants it");
	stub_turns();
	ok_u64(stub.sessions->buffer_bytes, 0, "nor if it is closed meanwhile");
	free(frame);
	stub_stop();
}

int main(void)
{
	test_others();
	test_nothing_early();
	test_ends_anywhere();
	test_memory_short();
	test_holds();
	test_pushed();
	test_parsed_in_shares(false);
	test_parsed_in_shares(true);
	test_parked_long();
	return tap_done();
}

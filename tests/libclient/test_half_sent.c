// SPDX-License-Identifier: MIT
//
// The waiting calls, against an end of the connection that moves whenever they wait for it: what
// becomes of a request of which a part was sent when the connection ends or memory is refused, and
// of a pipeline whose connection went between two of its pieces. D: nothing hangs, and what kvd may
// have run is never called undone.
#include <poll.h>
#include <string.h>

#include "libclient/internal.h"
#include "tests/lib/refuse_memory.h"
#include "tests/libclient/peer.h"
#include "tests/tap/tap.h"

#define LARGE_BYTES (4u << 20) // more than a socket takes

static struct peer peer;
static void (*when_waiting)(void); // what the other end does then
static unsigned waits;
static bool waits_for_room;
static uint64_t clock_ahead_ns; // of the library's clock

int __real_poll(struct pollfd *set, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *set, nfds_t count, int timeout_ms);

uint64_t __real_kvc_now_ns(void);
uint64_t __wrap_kvc_now_ns(void);

uint64_t __wrap_kvc_now_ns(void)
{
	return __real_kvc_now_ns() + clock_ahead_ns;
}

int __wrap_poll(struct pollfd *set, nfds_t count, int timeout_ms)
{
	if (when_waiting) {
		uint64_t before_ns = clock_ahead_ns;
		waits++;
		waits_for_room = (set[0].events & POLLOUT) != 0;
		when_waiting();
		timeout_ms = clock_ahead_ns == before_ns ? timeout_ms : 0; // it has passed
	}
	return __real_poll(set, count, timeout_ms);
}

static void answers(void)
{
	(void)peer_accept(&peer);
	(void)peer_read(&peer, PEER_ALL);
	(void)peer_write(&peer, PEER_ALL);
}

static void hangs_up(void)
{
	(void)peer_accept(&peer);
	peer_hang_up(&peer);
}

static void takes_without_memory(void)
{
	(void)peer_accept(&peer);
	(void)peer_read(&peer, PEER_ALL);
	refuse_arm(1); // for what it will say
}

static kvc *open_client(void)
{
	kvc *client = NULL;
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = peer.path,
				       .request_timeout_ms = 60000,
				       .reconnect_min_ms = 1,
				       .reconnect_max_ms = 2,
				       .flags = KVC_OPEN_NO_CONNECT };
	if (kvc_open(&client, &options) != KVC_OK) {
		printf("Bail out! no client\n");
		exit(99);
	}
	return client;
}

static void test_part(void (*other_end)(void), int expected, const char *what)
{
	static const char value[LARGE_BYTES];
	kvc *client = open_client();
	uint64_t version = 0;
	when_waiting = other_end;
	waits = 0;
	int status = kvc_set(client, "#1", 2, value, sizeof(value), NULL, &version);
	refuse.armed = false;
	ok(status == expected && waits > 0, "%s: %s (%s)", what, kvc_strerror(status),
	   kvc_error_text(client));
	ok_u64(peer.ran[1], 0, "kvd has not run it");
	peer_hang_up(&peer);
	client->conn.pause_ns = 0;
	when_waiting = answers;
	ok(kvc_set(client, "#2", 2, value, sizeof(value), NULL, &version) == KVC_OK && version > 0,
	   "the next one is run");
	ok_int(kvc_close(client), KVC_OK, "close");
	when_waiting = NULL;
	peer_hang_up(&peer);
}

// Two pieces of a pipeline, kvd gone between them: the first was sent and may have been run, so
// the second is not sent again on another connection.
static void test_pipeline(void)
{
	static char value[KVC_PIPELINE_BYTES];
	const void *argv[] = { "WRITE", value };
	const size_t bytes[] = { 5, sizeof(value) };
	const struct kvc_reply *reply;
	kvc *client = open_client();
	memset(value, 'v', sizeof(value));
	when_waiting = answers;
	ok_int(kvc_command(client, 2, argv, bytes, &reply), KVC_OK, "a connection that answers");
	when_waiting = NULL;
	unsigned accepted = peer.accepted;
	ok_int(kvc_pipeline_append(client, 2, argv, bytes), KVC_OK, "a piece that is sent");
	(void)peer_read(&peer, PEER_ALL);
	peer_hang_up(&peer);
	ok_int(kvc_pipeline_append(client, 2, argv, bytes), KVC_OK, "another, when kvd is gone");
	ok_int(kvc_pipeline_reply(client, &reply), KVC_UNKNOWN, "the first may have been run");
	ok_int(kvc_pipeline_reply(client, &reply), KVC_UNKNOWN, "nobody knows of the other");
	ok_int(kvc_pipeline_reply(client, &reply), KVC_INVALID, "no more is owed");
	ok(!peer_accept(&peer) && peer.accepted == accepted, "nothing was sent a second time");
	ok_int(kvc_close(client), KVC_OK, "close");
}

// Replies to everything, reads nothing, and then time passes.
static void answers_unread(void)
{
	(void)peer_accept(&peer);
	if (waits_for_room) {
		clock_ahead_ns += UINT64_C(61000000000);
		return;
	}
	peer_say(&peer, "+OK\r\n");
	(void)peer_write(&peer, PEER_ALL);
}

// A socket that takes not one byte more of a request.
static void test_full(void)
{
	static const char value[20000]; // goes in one piece or not at all
	const void *argv[] = { "WRITE", value };
	const size_t bytes[] = { 5, sizeof(value) };
	const struct kvc_reply *reply;
	kvc *client = open_client();
	int status = KVC_OK;
	unsigned run = 0, accepted_before = peer.accepted;
	when_waiting = answers_unread;
	for (; status == KVC_OK && run < 1000; run++) {
		status = kvc_command(client, 2, argv, bytes, &reply);
	}
	ok(status == KVC_TIMEOUT && run > 1 && waits_for_room, "no room for request %u: %s", run,
	   kvc_error_text(client));
	ok_u64(peer.accepted, 1 + accepted_before, "it is not sent again on another connection");
	when_waiting = NULL;
	ok_int(kvc_close(client), KVC_OK, "close");
	peer_hang_up(&peer);
}

int main(void)
{
	peer_start(&peer);
	test_part(hangs_up, KVC_UNREACHABLE, "kvd goes while a request is sent");
	test_part(takes_without_memory, KVC_NO_MEMORY, "no memory for what it may say");
	test_pipeline();
	test_full();
	peer_stop(&peer);
	return tap_done();
}

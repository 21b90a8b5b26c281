// SPDX-License-Identifier: MIT
//
// What one session sends to another: frames for either protocol, one system call for many, bounds
// on what a subscriber leaves unread, and subscriptions that end with their session.

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/pubsub.h"
#include "daemon/reply.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"
#include "daemon/session_push.h"
#include "shm/counters.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define SUBSCRIBERS 8
#define MESSAGE_BYTES 1000u
#define CUT_OFF                                                                                    \
	"-ERR closed: messages were not read fast enough (subscriber-output-max, "                 \
	"subscriber-output-soft)\r\n"

static unsigned sends;

static ssize_t counting_sendmsg(int fd, const struct msghdr *message, int flags)
{
	sends++;
	return sendmsg(fd, message, flags);
}

static struct seam counting_seam;

static void start(void)
{
	stub_start(PERSIST_GROUP);
	counting_seam = *stub.kvd.seam;
	counting_seam.sendmsg = counting_sendmsg;
	stub.kvd.seam = &counting_seam;
	if (!pubsub_create(&stub.kvd)) {
		abort();
	}
}

static void stop(void)
{
	stub_stop();
	ok_u64(pubsub_names_count(&stub.kvd, PUBSUB_CHANNEL) +
		       pubsub_names_count(&stub.kvd, PUBSUB_PATTERN) +
		       pubsub_names_count(&stub.kvd, PUBSUB_SHARD),
	       0, "no subscription outlives its session");
	pubsub_destroy(&stub.kvd);
}

static bool subscribe(struct session *session, enum pubsub_kind kind, const char *name)
{
	return pubsub_subscribe(session, kind, name, strlen(name));
}

static size_t publish(const char *channel, const char *message)
{
	return stub_publish(PUBSUB_CHANNEL, channel, message, strlen(message));
}

static void test_fan_out(void)
{
	struct session *session[SUBSCRIBERS];
	int fd[SUBSCRIBERS];
	bool good = true;
	start();
	for (int i = 0; i < SUBSCRIBERS; i++) {
		fd[i] = stub_connect(&session[i]);
		session[i]->resp_version = i % 2 ? 3 : 2;
		good = good && subscribe(session[i], PUBSUB_CHANNEL, "news");
	}
	ok(good && subscribe(session[0], PUBSUB_CHANNEL, "news"), "twice is as good as once");
	stub_turns();
	sends = 0;
	ok_u64(publish("news", "one"), SUBSCRIBERS, "each of them gets it");
	ok_u64(publish("news", "two") + publish("other", "x"), SUBSCRIBERS, "of its channel only");
	stub_turns();
	ok_u64(sends, SUBSCRIBERS, "one system call for each, however many messages");
	for (int i = 0; i < SUBSCRIBERS; i++) {
		char text[160];
		char type = i % 2 ? '>' : '*';
		(void)snprintf(text, sizeof(text),
			       "%c3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$3\r\none\r\n"
			       "%c3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$3\r\ntwo\r\n",
			       type, type);
		good = stub_expect(fd[i], text) && good;
	}
	ok(good, "framed for the protocol of each");
	close(fd[0]);
	stub_turns();
	ok_u64(pubsub_subscribers(&stub.kvd, PUBSUB_CHANNEL, "news", 4), SUBSCRIBERS - 1,
	       "who closed is not subscribed any more");
	session_kill(session[1], NULL);
	ok_u64(publish("news", "three"), SUBSCRIBERS - 2, "who is about to be closed gets nothing");
	stop();
	for (int i = 1; i < SUBSCRIBERS; i++) {
		close(fd[i]);
	}
}

static void test_kinds(void)
{
	struct session *session;
	start();
	int fd = stub_connect(&session);
	ok(subscribe(session, PUBSUB_CHANNEL, "a") && subscribe(session, PUBSUB_PATTERN, "?") &&
		   subscribe(session, PUBSUB_SHARD, "a"),
	   "a channel, a pattern, a shard channel");
	ok_u64(publish("a", "m"), 2, "the channel's and the pattern's message");
	ok(stub_expect(fd, "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n"
			   "*4\r\n$8\r\npmessage\r\n$1\r\n?\r\n$1\r\na\r\n$1\r\nm\r\n"),
	   "in this order");
	ok_u64(stub_publish(PUBSUB_SHARD, "a", "s", 1), 1, "no pattern for shards");
	ok(stub_expect(fd, "*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$1\r\ns\r\n"), "a shard message");
	ok_u64(pubsub_receivers(&stub.kvd, PUBSUB_CHANNEL, "a", 1), 2, "counting only …");
	ok(stub_expect(fd, ""), "… sends nothing");
	uint64_t held = session->buffer_bytes;
	pubsub_unsubscribe(session, PUBSUB_CHANNEL, "a", 1);
	pubsub_unsubscribe(session, PUBSUB_CHANNEL, "never", 5);
	ok(session->buffer_bytes < held && pubsub_count(session, PUBSUB_CHANNEL) == 0,
	   "what it held is given back");
	pubsub_leave(session);
	ok(!session->pubsub && session->buffer_bytes == 0, "all of it");
	stop();
	close(fd);
}

/// Publishes until nobody gets it any more; how often somebody did.
static unsigned flood(const char *message)
{
	unsigned count = 0;
	while (count < 100000 && publish("flood", message) == 1) {
		count++;
		if (count % 16 == 0) {
			stub_turns();
		}
	}
	return count;
}

/// Reads all that comes; true if it is whole messages, then the error, then the end.
static bool told_and_closed(int fd, size_t frame_bytes)
{
	static char got[4 << 20];
	bool ended;
	size_t bytes = stub_receive(fd, got, sizeof(got), &ended);
	size_t error_bytes = sizeof(CUT_OFF) - 1;
	tap_diag("%zu bytes came, %s", bytes, ended ? "then the end" : "no end");
	return ended && bytes > error_bytes && (bytes - error_bytes) % frame_bytes == 0 &&
	       memcmp(got + bytes - error_bytes, CUT_OFF, error_bytes) == 0;
}

static void test_hard_bound(void)
{
	struct session *session;
	char message[MESSAGE_BYTES + 1];
	memset(message, 'm', MESSAGE_BYTES);
	message[MESSAGE_BYTES] = 0;
	start();
	stub.kvd.config.subscriber_output_max = 1 << 20;
	int fd = stub_connect(&session);
	(void)subscribe(session, PUBSUB_CHANNEL, "flood");
	unsigned count = flood(message);
	ok(count > 1000 && count < 3000, "G: cut off after the bound: %u messages", count);
	ok_u64(stub_counter(KVS_COUNTER_clients_dropped_output), 1, "G: and counted");
	ok(session->buffer_bytes < 64 << 10, "G: what it left unread is gone: %llu",
	   (unsigned long long)session->buffer_bytes);
	ok(told_and_closed(fd, 35 + MESSAGE_BYTES + 2), "it is told why behind a whole message");
	ok_u64(session_count(stub.sessions), 0, "and closed");
	close(fd);
	fd = stub_connect(&session);
	(void)subscribe(session, PUBSUB_CHANNEL, "flood");
	(void)flood(message);
	ok_u64(session_count(stub.sessions), 1, "one that does not read its error …");
	stub.now_ns += UINT64_C(6000000000);
	stub_turns();
	ok_u64(session_count(stub.sessions), 0, "… is closed all the same");
	stop();
	close(fd);
}

static void test_soft_bound(void)
{
	struct session *session;
	char message[MESSAGE_BYTES + 1];
	memset(message, 'm', MESSAGE_BYTES);
	message[MESSAGE_BYTES] = 0;
	start();
	stub.kvd.config.subscriber_soft_bytes = 100000;
	stub.kvd.config.subscriber_soft_ms = 1000;
	int fd = stub_connect(&session);
	(void)subscribe(session, PUBSUB_CHANNEL, "flood");
	while (!session->is_soft) {
		(void)publish("flood", message);
		stub_turns();
	}
	ok(session_output_used(session) >= 100000, "over the soft bound");
	stub.now_ns += 900000000;
	stub_turns();
	ok(!session->dead && session->is_soft, "not for long enough");
	static char got[4 << 20];
	bool ended;
	(void)stub_receive(fd, got, sizeof(got), &ended);
	ok(!session->is_soft && !ended, "who reads in time is let off");
	while (!session->is_soft) {
		(void)publish("flood", message);
		stub_turns();
	}
	stub.now_ns += 900000000;
	stub_turns();
	ok(session->is_soft && !session->is_leaving, "the time begins anew");
	stub.now_ns += 200000000;
	stub_turns();
	ok(session->is_leaving && told_and_closed(fd, 35 + MESSAGE_BYTES + 2),
	   "G: then it is cut off");
	stop();
	close(fd);
}

static void test_held(void)
{
	struct session *session;
	start();
	int fd = stub_connect(&session);
	session->resp_version = 3;
	(void)subscribe(session, PUBSUB_CHANNEL, "c");
	stub_send_text(fd, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
	stub_turns();
	(void)publish("c", "m");
	ok(stub_expect(fd, ""), "what comes behind a reply that waits for its commit waits, too");
	stub.failed_seq = stub.last_seq;
	ok(stub_expect(fd, "-IOERR not durable: disk full\r\n"
			   ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"),
	   "and stays whole when the reply becomes an error");
	stop();
	close(fd);
}

static void test_no_room(void)
{
	struct session *session;
	start();
	int fd = stub_connect(&session);
	stub.sessions->owner_bytes_max = 100000;
	unsigned count = 0;
	char name[32];
	do {
		(void)snprintf(name, sizeof(name), "channel-%u", count);
	} while (subscribe(session, PUBSUB_CHANNEL, name) && ++count < 100000);
	ok(count > 100 && count < 2000, "G: subscriptions are charged: %u fit", count);
	ok(!session->dead && pubsub_count(session, PUBSUB_CHANNEL) == count,
	   "one too many is refused, and nobody closed for it");
	stop();
	close(fd);
}

static uint64_t slow_clock(void)
{
	return stub.now_ns += 150000;
}

static void test_slices(void)
{
	static int fd[64];
	start();
	for (size_t i = 0; i < 64; i++) {
		struct session *session;
		fd[i] = stub_connect(&session);
		(void)subscribe(session, PUBSUB_CHANNEL, "c");
	}
	stub_turns();
	counting_seam.monotonic_ns = slow_clock;
	sends = 0;
	(void)publish("c", "m");
	(void)loop_turn(stub.kvd.loop, 0);
	ok(sends > 16 && sends < 64, "a turn sends for its share of the time: %u", sends);
	stub_turns();
	ok_u64(sends, 64, "the next ones send the rest");
	stop();
	for (size_t i = 0; i < 64; i++) {
		close(fd[i]);
	}
}

int main(void)
{
	test_fan_out();
	test_slices();
	test_kinds();
	test_hard_bound();
	test_soft_bound();
	test_held();
	test_no_room();
	return tap_done();
}

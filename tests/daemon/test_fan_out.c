// SPDX-License-Identifier: MIT
//
// What is told to many: in slices with everybody else served between, in the same order for all, a
// long message kept once and charged once, and nothing left of it in the end, whoever leaves when.

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/parcel.h"
#include "daemon/pubsub.h"
#include "daemon/reply.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"
#include "daemon/session_push.h"
#include "daemon/session_rest.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define RECEIVERS 160u
#define LONG_BYTES 40000u
#define HEAD "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$"
#define ONE "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\none\r\n"
#define TWO "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\ntwo\r\n"

static struct seam slow_seam;
static struct session *session[RECEIVERS];
static int fd[RECEIVERS];
static char long_message[LONG_BYTES + 1];

static uint64_t slow_clock(void)
{
	return stub.now_ns += 150000;
}

static void start(void)
{
	stub_start(PERSIST_MEMORY);
	if (!pubsub_create(&stub.kvd)) {
		abort();
	}
	for (size_t i = 0; i < RECEIVERS; i++) {
		fd[i] = stub_connect(&session[i]);
		if (!pubsub_subscribe(session[i], PUBSUB_CHANNEL, "c", 1)) {
			abort();
		}
	}
	stub_turns();
	slow_seam = *stub.kvd.seam;
	slow_seam.monotonic_ns = slow_clock;
	memset(long_message, 'm', LONG_BYTES);
}

static void stop(void)
{
	stub_stop();
	pubsub_destroy(&stub.kvd);
	for (size_t i = 0; i < RECEIVERS; i++) {
		close(fd[i]);
	}
}

/// A message as an errand of the courier, as PUBLISH gives it.
struct errand_message {
	struct errand errand;
	struct parcel *parcel;
	bool begun;
	size_t *sent;
};

static unsigned slices;

static bool message_go(struct kvd *kvd, struct errand *errand, uint64_t until_ns)
{
	struct errand_message *message = (struct errand_message *)(void *)errand;
	if (!message->begun) {
		message->begun = true;
		pubsub_begin(kvd, PUBSUB_CHANNEL, message->parcel);
	}
	slices++;
	return pubsub_go(kvd, until_ns);
}

static void message_end(struct kvd *kvd, struct errand *errand)
{
	struct errand_message *message = (struct errand_message *)(void *)errand;
	*message->sent = pubsub_sent(kvd);
	pubsub_stop(kvd);
	parcel_release(stub.sessions, message->parcel);
	free(message);
}

static void send_later(const char *text, size_t *sent)
{
	struct errand_message *message = calloc(1, sizeof(*message));
	char *at[2];
	size_t bytes = strlen(text);
	struct parcel *parcel = message ? pubsub_parcel(1, bytes, &at[0], &at[1]) : NULL;
	if (!parcel) {
		abort();
	}
	memcpy(at[0], "c", 1);
	memcpy(at[1], text, bytes);
	*message = (struct errand_message){
		.errand = { .go = message_go, .end = message_end },
		.parcel = parcel,
		.sent = sent,
	};
	courier_add(&stub.kvd.courier, &message->errand);
}

static void test_slices(void)
{
	size_t sent[2] = { 0, 0 };
	struct session *late;
	start();
	stub.kvd.seam = &slow_seam;
	slices = 0;
	send_later("one", &sent[0]);
	send_later("two", &sent[1]);
	(void)loop_turn(stub.kvd.loop, 0);
	ok(sent[0] == 0 && !courier_idle(&stub.kvd.courier), "a turn tells for its share only");
	int other = stub_connect(&late);
	char pong[16];
	ok(send(other, "PING\r\n", 6, 0) == 6, "another client");
	(void)loop_turn(stub.kvd.loop, 0);
	(void)loop_turn(stub.kvd.loop, 0);
	ok(sent[0] == 0 && recv(other, pong, sizeof(pong), 0) == 7, "others are served between");
	(void)pubsub_subscribe(late, PUBSUB_CHANNEL, "c", 1);
	pubsub_unsubscribe(session[RECEIVERS - 1], PUBSUB_CHANNEL, "c", 1);
	session_kill(session[RECEIVERS - 2], NULL);
	stub_turns();
	ok_u64(sent[0], RECEIVERS - 2, "who left is left out, who came later is not meant");
	ok_u64(sent[1], RECEIVERS - 1, "the next message is for whoever is there when it begins");
	ok(slices >= 6, "in slices: %u", slices);
	bool good = true;
	for (size_t i = 0; i < RECEIVERS - 2; i++) {
		good = stub_expect(fd[i], ONE TWO) && good;
	}
	ok(good && stub_expect(other, TWO), "in the same order for all");
	close(other);
	stop();
}

static void test_given_up(void)
{
	size_t sent = 0;
	start();
	stub.kvd.seam = &slow_seam;
	send_later("one", &sent);
	send_later("two", &sent);
	(void)loop_turn(stub.kvd.loop, 0);
	stub_stop();
	ok(courier_idle(&stub.kvd.courier) && stub.kvd.courier.done == 2,
	   "what is on its way when everything ends is given up");
	pubsub_destroy(&stub.kvd);
	for (size_t i = 0; i < RECEIVERS; i++) {
		close(fd[i]);
	}
}

static void test_shared(void)
{
	static char expected[LONG_BYTES + 64];
	static char got[LONG_BYTES + 64];
	start();
	int size = 1;
	for (size_t i = 0; i < RECEIVERS; i++) { // their sockets take none of it at first
		(void)setsockopt(session[i]->source.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		session[i]->resp_version = i % 2 ? 3 : 2;
	}
	uint64_t before = stub.sessions->buffer_bytes;
	ok_u64(stub_publish(PUBSUB_CHANNEL, "c", long_message, LONG_BYTES), RECEIVERS, "to all");
	uint64_t more = stub.sessions->buffer_bytes - before;
	ok(more > LONG_BYTES && more < RECEIVERS * (SESSION_BUFFER_BYTES + 1000) + 2 * LONG_BYTES,
	   "G: it is charged once for all of a uid, beside a buffer for each: %llu",
	   (unsigned long long)more);
	ok(session_output_used(session[0]) > LONG_BYTES, "G: but counts as unread for each");
	stub_turns();
	int bytes =
		snprintf(expected, sizeof(expected), HEAD "%u\r\n%s\r\n", LONG_BYTES, long_message);
	bool good = true;
	for (size_t i = 0; i < RECEIVERS; i++) {
		bool ended;
		size_t n = 0;
		while (n < (size_t)bytes) {
			size_t part = stub_receive(fd[i], got + n, sizeof(got) - n, &ended);
			if (part == 0) {
				break;
			}
			n += part;
		}
		expected[0] = i % 2 ? '>' : '*';
		good = good && n == (size_t)bytes && memcmp(got, expected, n) == 0;
	}
	ok(good, "each gets every byte of it, in its own protocol");
	ok(stub.sessions->buffer_bytes <= before + RECEIVERS * 4 * sizeof(void *) * 8,
	   "G: and nothing is charged any more: %llu",
	   (unsigned long long)(stub.sessions->buffer_bytes - before));
	(void)stub_publish(PUBSUB_CHANNEL, "c", long_message, LONG_BYTES);
	for (size_t i = 0; i < RECEIVERS; i++) {
		session_kill(session[i], NULL);
	}
	ok_u64(stub.sessions->buffer_bytes, 0, "G: nor when all who were to read it are gone");
	stop();
}

static void test_aside(void)
{
	static char expected[LONG_BYTES + 256];
	static char got[LONG_BYTES + 256];
	start();
	session[0]->resp_version = 3;
	stub_send_text(fd[0], "CUT 5\r\nPING\r\n");
	(void)loop_turn(stub.kvd.loop, 0);
	(void)loop_turn(stub.kvd.loop, 0);
	ok(session[0]->task != NULL, "a command is under way");
	(void)stub_publish(PUBSUB_CHANNEL, "c", long_message, LONG_BYTES);
	int bytes = snprintf(expected, sizeof(expected),
			     "*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n>"
			     "3\r\n$7\r\nmessage\r\n$1\r\n"
			     "c\r\n$%u\r\n%s\r\n+PONG\r\n",
			     LONG_BYTES, long_message);
	bool ended;
	size_t n = 0;
	for (int tries = 0; tries < 20 && n < (size_t)bytes; tries++) {
		n += stub_receive(fd[0], got + n, sizeof(got) - n, &ended);
	}
	ok(n == (size_t)bytes && memcmp(got, expected, n) == 0,
	   "a long message stands whole behind its reply");
	(void)loop_turn(stub.kvd.loop, 0);
	stub_send_text(fd[0], "CUT 5\r\n");
	(void)loop_turn(stub.kvd.loop, 0);
	(void)stub_publish(PUBSUB_CHANNEL, "c", long_message, LONG_BYTES);
	session_kill(session[0], NULL);
	stop();
	ok_u64(stub.states, 0, "and goes with its connection");
}

static void test_leaving(void)
{
	char name[32];
	struct session *many;
	start();
	int other = stub_connect(&many);
	for (unsigned i = 0; i < 3000; i++) {
		(void)snprintf(name, sizeof(name), "channel-%u", i);
		(void)pubsub_subscribe(many, PUBSUB_CHANNEL, name, strlen(name));
	}
	uint64_t held = many->buffer_bytes;
	stub.kvd.seam = &slow_seam;
	session_kill(many, NULL);
	(void)loop_turn(stub.kvd.loop, 0);
	ok(pubsub_busy(&stub.kvd) && pubsub_names_count(&stub.kvd, PUBSUB_CHANNEL) > 2000,
	   "3000 subscriptions of one that left are forgotten little by little");
	ok(stub.sessions->buffer_bytes > held / 2 && stub.sessions->buffer_bytes < held * 2,
	   "G: and charged to its uid until then: %llu of %llu",
	   (unsigned long long)stub.sessions->buffer_bytes, (unsigned long long)held);
	ok_u64(stub_publish(PUBSUB_CHANNEL, "channel-2999", "m", 1), 0, "nobody gets a message");
	stub_turns();
	ok(!pubsub_busy(&stub.kvd), "all of them, in the end");
	ok_u64(pubsub_names_count(&stub.kvd, PUBSUB_CHANNEL), 1, "but the one that others have");
	close(other);
	stop();
}

static void test_awaiting(void)
{
	size_t sent = 0;
	start();
	send_later("one", &sent);
	session_await_courier(session[0]);
	bool slept = false;
	for (unsigned turns = 0; session[0]->is_awaiting && turns < 100; turns++) {
		slept = slept || session_shared_next_ns(stub.sessions) != 0;
		(void)loop_turn(stub.kvd.loop, 0);
	}
	ok(sent > 0 && !session[0]->is_awaiting, "who waits until all was told goes on");
	ok(!slept, "and the loop does not sleep before");
	stop();
}

int main(void)
{
	test_slices();
	test_given_up();
	test_shared();
	test_aside();
	test_leaving();
	test_awaiting();
	return tap_done();
}

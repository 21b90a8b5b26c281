// SPDX-License-Identifier: MIT
//
// Events of keys: letters, the queue that a command fills and may take back, and what comes out of
// it as messages.

#include <stdlib.h>
#include <unistd.h>

#include "daemon/events.h"
#include "daemon/keyspace.h"
#include "daemon/parcel.h"
#include "daemon/pubsub.h"
#include "daemon/session_parts.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

#define PMESSAGE "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n" // what the pattern * hears

static keyspace_ended *key_ended;
static void *key_ended_context;

void keyspace_listen(struct keyspace *keyspace, keyspace_ended *ended, void *context)
{
	(void)keyspace;
	key_ended = ended;
	key_ended_context = context;
}

static const struct letters {
	const char *text;
	const char *shown; // NULL = refused
} letters[] = {
	{ "", "" },
	{ "KEA", "AKE" },
	{ "Ex", "xE" },
	{ "$gK", "g$K" },
	{ "g$lshzxetd", "A" },
	{ "AKEnm", "AnKEm" },
	{ "mmmm", "m" },
	{ "K E", NULL },
	{ "Q", NULL },
};

static void test_letters(void)
{
	for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++) {
		const struct letters *each = &letters[i];
		char shown[EVENTS_FLAGS_BYTES] = "";
		unsigned flags = 0;
		bool good = events_flags_parse(each->text, strlen(each->text), &flags);
		events_flags_print(flags, shown);
		ok(good == (each->shown != NULL) && (!good || strcmp(shown, each->shown) == 0),
		   "'%s' is %s%s", each->text, each->shown ? "shown as " : "refused",
		   each->shown ? each->shown : "");
	}
	char shown[EVENTS_FLAGS_BYTES];
	events_flags_print(~0u, shown);
	ok(strlen(shown) < EVENTS_FLAGS_BYTES, "all of them fit");
}

static void add(enum event_class class, const char *name, const char *key)
{
	events_add(&stub.kvd, class, name, key, strlen(key));
}

static void tell(struct session *origin)
{
	events_tell(&stub.kvd, origin);
}

static void test_queue(void)
{
	struct session *session;
	unsigned flags;
	stub_start(PERSIST_MEMORY);
	if (!events_create(&stub.kvd) || !pubsub_create(&stub.kvd)) {
		abort();
	}
	int fd = stub_connect(&session);
	(void)pubsub_subscribe(session, PUBSUB_PATTERN, "*", 1);
	ok(stub.kvd.events_wanted == 0 && !stub.kvd.events_pending, "nobody wants anything");
	(void)events_flags_parse("g$", 2, &flags);
	events_set_notified(&stub.kvd, flags);
	ok_u64(stub.kvd.events_wanted, 0, "classes without K and E are told to nobody");
	(void)events_flags_parse("Eg$x", 4, &flags);
	events_set_notified(&stub.kvd, flags);
	ok(stub.kvd.events_wanted == (EVENT_GENERIC | EVENT_STRING | EVENT_EXPIRED), "these are");

	add(EVENT_STRING, "set", "a");
	size_t mark = events_mark(&stub.kvd);
	add(EVENT_GENERIC, "expire", "taken back");
	key_ended(key_ended_context, KEYSPACE_END_EXPIRED, "gone", 4);
	add(EVENT_GENERIC, "del", "taken back, too");
	events_rewind(&stub.kvd, mark);
	add(EVENT_GENERIC, "del", "b");
	ok(stub.kvd.events_pending && stub_expect(fd, ""), "nothing goes out before its time");
	tell(NULL);
	ok(!stub.kvd.events_pending &&
		   stub_expect(fd, PMESSAGE "$22\r\n__keyevent@0__:expired\r\n$4\r\ngone\r\n"
			       PMESSAGE "$18\r\n__keyevent@0__:set\r\n$1\r\na\r\n"
			       PMESSAGE "$18\r\n__keyevent@0__:del\r\n$1\r\nb\r\n"),
	   "keys that ended first, then what was not taken back");
	tell(NULL);
	ok(stub_expect(fd, ""), "once");

	(void)events_flags_parse("K$", 2, &flags);
	events_set_notified(&stub.kvd, flags);
	key_ended(key_ended_context, KEYSPACE_END_EXPIRED, "unheard", 7);
	ok(!stub.kvd.events_pending, "an end that nobody wants to hear of is not kept");
	add(EVENT_STRING, "set", "k");
	char *at[2];
	struct parcel *parcel = pubsub_parcel(1, 9, &at[0], &at[1]);
	memcpy(at[0], "c", 1);
	memcpy(at[1], "from EXEC", 9);
	ok(events_add_message(&stub.kvd, false, parcel), "a message");
	parcel_release(stub.sessions, parcel);
	tell(session);
	ok(stub_expect(fd, "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$16\r\n__keyspace@0__:k\r\n$3\r\nset"
			   "\r\n*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$9\r\nfrom EXEC\r\n"),
	   "messages keep their place among events");

	for (int i = 0; i < 100000; i++) {
		add(EVENT_STRING, "set", "many");
	}
	events_rewind(&stub.kvd, 0);
	tell(NULL);
	ok(stub_expect(fd, ""), "many, all taken back");
	stub_stop();
	pubsub_destroy(&stub.kvd);
	events_destroy(&stub.kvd);
	ok(!key_ended, "the keyspace has nobody to tell any more");
	close(fd);
}

int main(void)
{
	test_letters();
	test_queue();
	return tap_done();
}

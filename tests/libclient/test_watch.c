// SPDX-License-Identifier: MIT
//
// Watching, against an end of the connection that the test moves itself: what is asked for, who is
// told what and in which order, and that nothing that may have been missed goes untold, wherever
// the connection is cut.
#include <string.h>

#include "libclient/internal.h"
#include "tests/libclient/peer.h"
#include "tests/tap/tap.h"

/// What a watcher was told, as text: R ready, L lost, =key changed, * all.
struct told {
	char text[4096];
	size_t bytes;
	kvc_watch *close_at_change; // and then this one is closed
	kvc_watch *close_at_ready;
	const char *open_at_change; // and this prefix watched
	struct told *opened;	    // by whom
};

static kvc_watch *watch(kvc_async *async, const char *key, uint32_t flags, struct told *told);

static void tell(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
		 size_t key_bytes)
{
	struct told *told = user;
	size_t left = sizeof(told->text) - told->bytes;
	char *at = told->text + told->bytes;
	const char *word = event == KVC_WATCH_READY ? "R" : event == KVC_WATCH_LOST ? "L" : "=";
	int added =
		snprintf(at, left, "%s%.*s%s", word, (int)key_bytes, key ? (const char *)key : "",
			 event == KVC_WATCH_CHANGED && !key ? "*" : "");
	(void)async;
	told->bytes += (size_t)added < left ? (size_t)added : 0;
	if (event == KVC_WATCH_READY) {
		(void)kvc_watch_close(told->close_at_ready);
		told->close_at_ready = NULL;
	}
	if (event == KVC_WATCH_CHANGED) {
		(void)kvc_watch_close(told->close_at_change);
		told->close_at_change = NULL;
	}
	if (event == KVC_WATCH_CHANGED && told->open_at_change) {
		const char *prefix = told->open_at_change;
		told->open_at_change = NULL;
		(void)watch(async, prefix, KVC_WATCH_PREFIX, told->opened);
	}
}

static kvc_watch *watch(kvc_async *async, const char *key, uint32_t flags, struct told *told)
{
	kvc_watch *opened = NULL;
	if (kvc_watch_open(async, key, strlen(key), flags, tell, told, &opened) != KVC_OK) {
		printf("Bail out! no watch\n");
		exit(99);
	}
	return opened;
}

static bool was_told(struct told *told, const char *text)
{
	bool same = strcmp(told->text, text) == 0;
	if (!same) {
		tap_diag("told '%s', expected '%s'", told->text, text);
	}
	told->bytes = 0;
	told->text[0] = '\0';
	return same;
}

// What kvd says when these keys have changed.
static void change(struct peer *peer, const char *first, const char *second)
{
	peer_say(peer, ">2\r\n$10\r\ninvalidate\r\n*%d\r\n$%zu\r\n%s\r\n", second ? 2 : 1,
		 strlen(first), first);
	if (second) {
		peer_say(peer, "$%zu\r\n%s\r\n", strlen(second), second);
	}
}

static void test_one(struct peer *peer)
{
	struct told key = { 0 }, prefix = { 0 };
	kvc_async *async = peer_open(peer, NULL);
	kvc_watch *one = watch(async, "user:1", 0, &key);
	ok(key.bytes == 0 && peer_is_due(async), "opening tells nobody, and asks for a dispatch");
	peer_settle(peer, async);
	ok(was_told(&key, "R"), "ready");
	ok_str(peer->last, "CLIENT TRACKING ON BCAST PREFIX user:1", "asked for the key");
	ok(!peer_is_due(async) && kvc_async_timeout_ms(async) == -1, "then all is quiet");
	change(peer, "user:1", "user:12");
	peer_settle(peer, async);
	ok(was_told(&key, "=user:1"), "told of the key, not of a longer one");
	kvc_watch *two = watch(async, "user:", KVC_WATCH_PREFIX, &prefix);
	peer_settle(peer, async);
	ok(was_told(&prefix, "R"), "a prefix is ready");
	ok(was_told(&key, "LR"), "the key that it took in was lost for a moment");
	ok_str(peer->last, "CLIENT TRACKING ON BCAST PREFIX user:", "asked for the prefix alone");
	struct told third = { 0 };
	size_t runs = peer->runs;
	kvc_watch *three = watch(async, "user:3", 0, &third);
	peer_settle(peer, async);
	ok(was_told(&third, "R") && peer->runs == runs, "what is covered is asked for no more");
	kvc_watch *four = watch(async, "other", 0, &third);
	peer_settle(peer, async);
	ok_str(peer->last, "CLIENT TRACKING ON BCAST PREFIX other", "what is not, by itself");
	ok(was_told(&third, "R") && was_told(&key, "") && was_told(&prefix, ""), "without a loss");
	change(peer, "user:1", "user:3");
	peer_say(peer, ">2\r\n$10\r\ninvalidate\r\n_\r\n>2\r\n$4\r\nwhat\r\n:1\r\n");
	peer_settle(peer, async);
	ok(was_told(&key, "=user:1=*"), "a flush is told to all");
	ok(was_told(&prefix, "=user:1=user:3=*"), "in order");
	ok(was_told(&third, "=user:3=*=*"), "both of the watches of one caller");
	ok_int(kvc_watch_close(three), KVC_OK, "close one");
	third.close_at_change = four;
	prefix.close_at_change = one;
	change(peer, "other", "user:1");
	change(peer, "other", "user:1");
	peer_settle(peer, async);
	ok(was_told(&third, "=other"), "closed in its own call: not another one");
	ok(was_told(&key, "") || was_told(&key, "=user:1"), "closed by somebody else");
	ok(was_told(&prefix, "=user:1=user:1"), "by it");
	(void)kvc_watch_close(two);
	peer_settle(peer, async);
	ok_int(kvc_async_timeout_ms(async), -1, "none left: nothing to wait for");
	ok(peer_read(peer, 1) == 0 && peer->fd < 0, "and the connection is given up");
	(void)kvc_async_close(async);
}

// What the callbacks themselves open and close, while others wait to be told.
static void test_inside(struct peer *peer)
{
	struct told one = { 0 }, two = { 0 }, prefix = { 0 };
	kvc_async *async = peer_open(peer, NULL);
	kvc_watch *early = watch(async, "user:2", 0, &two);
	(void)watch(async, "user:1", 0, &one);
	one.close_at_ready = early; // told first: it is the newest
	peer_settle(peer, async);
	ok(was_told(&one, "R") && was_told(&two, ""), "closed before it is told that it is ready");
	one.close_at_change = watch(async, "user:3", 0, &two);
	one.open_at_change = "user:";
	one.opened = &prefix;
	peer_settle(peer, async);
	(void)was_told(&two, "R");
	change(peer, "user:1", "user:3");
	peer_settle(peer, async);
	ok(was_told(&one, "=user:1LR") && was_told(&two, ""),
	   "closed and taken in by a prefix in one call");
	ok(was_told(&prefix, "R"), "the prefix is ready");
	ok_str(peer->prefixes, " user: ", "and is all that is asked for");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

// Several at once, without a dispatch between them.
static void test_together(struct peer *peer)
{
	struct told one = { 0 }, others = { 0 };
	kvc_async *async = peer_open(peer, NULL);
	(void)watch(async, "abc", 0, &one);
	peer_settle(peer, async);
	(void)was_told(&one, "R");
	(void)watch(async, "abc", KVC_WATCH_PREFIX, &others);
	(void)watch(async, "abcd", 0, &others);
	peer_turn(async);
	ok(was_told(&others, "RR") && was_told(&one, ""), "two that are covered: ready at once");
	(void)watch(async, "ab", KVC_WATCH_PREFIX, &others);
	(void)watch(async, "a", KVC_WATCH_PREFIX, &others);
	peer_settle(peer, async);
	ok(was_told(&one, "LR"), "twice taken in by a shorter prefix, lost once");
	ok_str(peer->prefixes, " a ", "the shortest is all that is asked for");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

static void test_cuts(struct peer *peer)
{
	struct told told = { 0 };
	kvc_async *async = peer_open(peer, NULL);
	(void)watch(async, "k", KVC_WATCH_PREFIX, &told);
	unsigned wrong = 0, places = 0;
	peer_settle(peer, async);
	(void)was_told(&told, "R");
	for (size_t cut = 0; cut < 80; cut++) {
		change(peer, "k1", "k2");
		change(peer, "k3", NULL);
		bool all = cut >= peer_owes(peer);
		size_t first = strlen(">2\r\n$10\r\ninvalidate\r\n*2\r\n$2\r\nk1\r\n$2\r\nk2\r\n");
		peer_write(peer, cut);
		peer_turn(async);
		peer_hang_up(peer);
		peer_settle(peer, async);
		// What came whole is told, the loss always, and the handle comes back by itself.
		wrong += !was_told(&told, all ? "=k1=k2=k3LR" : cut >= first ? "=k1=k2LR" : "LR");
		places++;
	}
	ok(wrong == 0, "cut at each of %u places: LOST, then READY", places);
	unsigned before = peer->accepted;
	peer_listen(peer, false);
	peer_hang_up(peer);
	peer_turn(async);
	ok(was_told(&told, "L"), "nobody listens: lost, told once");
	int left_ms = kvc_async_timeout_ms(async);
	ok(left_ms >= 0 && left_ms <= 2, "the next attempt is due in %d ms", left_ms);
	for (unsigned i = 0; i < 3; i++) {
		while (kvc_async_timeout_ms(async) > 0) {
		}
		(void)kvc_async_dispatch(async);
	}
	ok(was_told(&told, ""), "attempts that fail are not told");
	peer_listen(peer, true);
	while (peer->accepted == before || told.bytes == 0) {
		(void)kvc_async_dispatch(async);
		peer_settle(peer, async);
	}
	ok(was_told(&told, "R"), "ready when it is there again");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

// Before READY nothing is told, whatever comes; a server that refuses is asked seldom.
static void test_refused(struct peer *peer)
{
	struct told told = { 0 };
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = peer->path,
				       .flags = KVC_OPEN_NO_CONNECT };
	kvc_async *async;
	uint64_t start_ns = kvc_now_ns();
	ok_int(kvc_async_open(&async, &options, NULL), KVC_OK, "a handle with usual pauses");
	peer->error = "ERR unknown subcommand";
	(void)watch(async, "k", 0, &told);
	peer_settle(peer, async);
	ok(was_told(&told, "L"), "refused: lost, once");
	ok(strstr(kvc_async_error_text(async), "unknown subcommand") != NULL, "%s",
	   kvc_async_error_text(async));
	int left_ms = kvc_async_timeout_ms(async);
	ok((uint64_t)left_ms + (kvc_now_ns() - start_ns) / 1000000 > 300,
	   "the next attempt is far away");
	peer->error = NULL;
	(void)kvc_async_close(async);
	async = peer_open(peer, NULL);
	(void)watch(async, "k", 0, &told);
	change(peer, "k", NULL);
	while (told.bytes == 0) {
		peer_turn(async);
		(void)peer_accept(peer);
		if (peer->got == 0) {
			peer_write(peer, 1);
		}
		peer_read(peer, 1);
		peer_write(peer, 1);
	}
	ok(was_told(&told, "R"), "a change before READY is not told");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

// One push with more keys than a dispatch may tell.
static void test_large(struct peer *peer)
{
	static struct told told;
	kvc_async *async = peer_open(peer, NULL);
	(void)watch(async, "", KVC_WATCH_PREFIX, &told);
	peer_settle(peer, async);
	(void)was_told(&told, "R");
	peer_say(peer, ">2\r\n$10\r\ninvalidate\r\n*1000\r\n");
	for (unsigned i = 0; i < 1000; i++) {
		peer_say(peer, "$1\r\n%c\r\n", 'a' + (char)(i % 26));
	}
	peer_write(peer, PEER_ALL);
	(void)kvc_async_dispatch(async);
	ok(told.bytes == 2 * 256 && peer_is_due(async), "a dispatch tells 256 of 1000 keys");
	peer_settle(peer, async);
	ok(told.bytes == 2 * 1000 && memcmp(told.text, "=a=b=c", 6) == 0, "the next ones the rest");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

// More to be asked for than a socket takes: the rest waits for room and not for the processor.
static void test_full(struct peer *peer)
{
	static struct told told;
	char key[512];
	size_t bytes = 0;
	kvc_async *async = peer_open(peer, NULL);
	memset(key, 'x', sizeof(key) - 1);
	key[sizeof(key) - 1] = '\0';
	for (unsigned i = 0; i < 1024; i++) {
		(void)snprintf(key, 5, "%04u", i);
		key[4] = ':';
		(void)watch(async, key, 0, &told);
	}
	(void)peer_turn(async);
	(void)peer_accept(peer);
	ok(told.bytes == 0 && !peer_is_due(async), "nobody reads: nothing to be done");
	while ((bytes = peer_read(peer, 65536)) > 0 || peer_turn(async) > 0) {
		(void)peer_write(peer, PEER_ALL);
	}
	peer_settle(peer, async);
	ok_u64(told.bytes, 1024, "read bit by bit: all are ready");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

static void test_arguments(struct peer *peer)
{
	static struct told told;
	char key[512] = { 'x' };
	kvc_watch *none = NULL;
	kvc_async *async = peer_open(peer, NULL);
	ok_int(kvc_watch_open(NULL, "k", 1, 0, tell, &told, &none), KVC_INVALID, "no handle");
	ok_int(kvc_watch_open(async, "k", 1, 0, NULL, &told, &none), KVC_INVALID, "nobody to tell");
	ok_int(kvc_watch_open(async, "k", 1, 2, tell, &told, &none), KVC_INVALID, "other flags");
	ok_int(kvc_watch_open(async, "", 0, 0, tell, &told, &none), KVC_INVALID, "no key");
	ok_int(kvc_watch_open(async, key, 512, 0, tell, &told, &none), KVC_TOO_LARGE, "a long key");
	ok_int(kvc_watch_close(NULL), KVC_OK, "close: nothing");
	for (unsigned i = 0; i < 1024; i++) {
		(void)snprintf(key, sizeof(key), "%u:", i);
		(void)watch(async, key, 0, &told);
	}
	ok_int(kvc_watch_open(async, "k", 1, 0, tell, &told, &none), KVC_TOO_LARGE, "too many");
	size_t runs = peer->runs;
	for (unsigned i = 0; i < 100; i++) {
		(void)peer_turn(async);
		(void)peer_accept(peer);
		(void)peer_read(peer, PEER_ALL);
	}
	ok_u64(peer->runs - runs, 1 + 1024 / 64, "asked for 64 at a time, behind HELLO");
	(void)peer_write(peer, peer_owes(peer) - 1);
	(void)peer_turn(async);
	ok_u64(told.bytes, 0, "none is ready before the last reply");
	peer_settle(peer, async);
	ok_u64(told.bytes, 1024, "1024 are ready");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

int main(void)
{
	static struct peer peer;
	peer_start(&peer);
	test_one(&peer);
	test_inside(&peer);
	test_together(&peer);
	test_cuts(&peer);
	test_refused(&peer);
	test_large(&peer);
	test_full(&peer);
	test_arguments(&peer);
	peer_stop(&peer);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// The connection of an asynchronous handle is cut at every byte of an exchange, in either
// direction, and at random places of one that is larger than any buffer. Every completion comes
// once, in order, and tells the truth: what is UNREACHABLE has not been run, what is OK has.
#include <string.h>

#include "libclient/kvclient.h"
#include "tests/libclient/peer.h"
#include "tests/tap/tap.h"

#define SCRIPT 9u
#define LARGE 8u
#define LARGE_BYTES 100000u

/// What became of the requests of one exchange.
struct fate {
	unsigned calls[SCRIPT];
	int status[SCRIPT];
	unsigned last;
	bool disorder;
	const char *wrong; // first promise that was broken
};

static struct fate fate;
static unsigned seen_unknown, seen_unreachable, seen_ok;

static void done(kvc_async *async, void *user, const struct kvc_result *result)
{
	unsigned number = (unsigned)(uintptr_t)user;
	(void)async;
	fate.calls[number]++;
	fate.status[number] = result->status;
	fate.disorder = fate.disorder || number < fate.last;
	fate.last = number;
}

// Request `number` carries its number as #N, so that the peer knows whether it has run it.
static int submit(kvc_async *async, unsigned number)
{
	char key[16];
	size_t bytes = (size_t)snprintf(key, sizeof(key), "#%u", number);
	void *user = (void *)(uintptr_t)number;
	const void *argv[] = { "ECHO", key };
	const size_t argv_bytes[] = { 4, bytes };
	switch (number) {
	case 1:
		return kvc_async_increment(async, key, bytes, 1, done, user, NULL);
	case 2:
		return kvc_async_delete(async, key, bytes, done, user, NULL);
	case 3:
		return kvc_async_get(async, key, bytes, done, user, NULL);
	case 4:
		return kvc_async_expire(async, key, bytes, 100, done, user, NULL);
	case 5:
		return kvc_async_command(async, 2, argv, argv_bytes, done, user, NULL);
	case 6:
		return kvc_async_sync(async, done, user, NULL);
	case 7: {
		kvc_batch *batch;
		int status = kvc_batch_new(&batch);
		status |= kvc_batch_increment(batch, key, bytes, 1);
		status |= kvc_batch_set(batch, key, bytes, "v", 1, 0);
		status |= kvc_async_commit(async, batch, done, user, NULL);
		kvc_batch_free(batch);
		return status;
	}
	default:
		return kvc_async_set(async, key, bytes, "value", 5, NULL, done, user, NULL);
	}
}

static void begin(struct peer *peer)
{
	memset(&fate, 0, sizeof(fate));
	memset(peer->ran, 0, sizeof(peer->ran));
}

// Holds what the completions said against what the peer has done.
static void judge(const struct peer *peer, unsigned count, bool script)
{
	for (unsigned i = 0; i < count; i++) {
		bool tracked = !script || (i != 6 && i != 7); // those carry no number
		bool read = script && i == 3;
		bool ran = peer->ran[i] > 0;
		int status = fate.status[i];
		seen_ok += status == KVC_OK;
		seen_unknown += status == KVC_UNKNOWN;
		seen_unreachable += status == KVC_UNREACHABLE;
		if (fate.calls[i] != 1) {
			fate.wrong = fate.calls[i] == 0 ? "lost" : "doubled";
		} else if (status != KVC_OK && status != KVC_UNKNOWN && status != KVC_UNREACHABLE) {
			fate.wrong = "another status";
		} else if (status == KVC_OK && tracked && !ran) {
			fate.wrong = "OK, but not run";
		} else if (status == KVC_UNREACHABLE && tracked && !read && ran) {
			fate.wrong = "UNREACHABLE, but run";
		} else if (status == KVC_UNKNOWN && read) {
			fate.wrong = "a read in doubt";
		} else if (peer->ran[i] > 1) {
			fate.wrong = "run twice";
		}
	}
	fate.wrong = fate.disorder ? "out of order" : fate.wrong;
}

static void one_status(kvc_async *async, void *user, const struct kvc_result *result)
{
	(void)async;
	*(int *)user = result->status;
}

// Until the handle is connected, and has been answered.
static void warm_up(struct peer *peer, kvc_async *async)
{
	for (int status = KVC_BUSY; status != KVC_OK;) {
		(void)kvc_async_get(async, "warm", 4, one_status, &status, NULL);
		peer_settle(peer, async);
	}
}

// One exchange of which the peer reads `reads` bytes and writes `writes`; then it is gone. False:
// both were enough for all of it.
static bool cut(struct peer *peer, kvc_async *async, bool warm, size_t reads, size_t writes)
{
	if (warm) {
		warm_up(peer, async);
	}
	size_t before = peer->got;
	do { // while the handle pauses, all are UNREACHABLE at once
		begin(peer);
		for (unsigned i = 0; i < SCRIPT; i++) {
			(void)submit(async, i);
		}
		peer_turn(async);
		(void)peer_accept(peer);
	} while (peer->fd < 0);
	peer_read(peer, reads);
	size_t owed = peer_owes(peer);
	peer_write(peer, writes);
	bool all = peer->got - before < reads && owed < writes;
	peer_hang_up(peer);
	peer_turn(async);
	judge(peer, SCRIPT, true);
	return !all;
}

static void test_cuts(struct peer *peer, kvc_async *async, bool warm)
{
	size_t places = 0;
	const char *wrong = NULL;
	unsigned ok_before = seen_ok, unknown_before = seen_unknown;
	for (size_t reads = 0; cut(peer, async, warm, reads, PEER_ALL - 1) && !wrong; reads++) {
		wrong = fate.wrong;
		places++;
	}
	ok(places > 300 && !wrong, "%scut at every byte of the requests (%zu): %s",
	   warm ? "" : "unproved, ", places, wrong ? wrong : "as promised");
	places = 0;
	for (size_t writes = 0; cut(peer, async, warm, PEER_ALL - 1, writes) && !wrong; writes++) {
		wrong = fate.wrong;
		places++;
	}
	ok(places > 60 && !wrong, "%scut at every byte of the replies (%zu): %s",
	   warm ? "" : "unproved, ", places, wrong ? wrong : "as promised");
	ok(seen_ok > ok_before && seen_unknown > unknown_before, "some were answered, some not");
}

// More than the socket takes at once: some requests are sent in part or not at all.
static void test_large(struct peer *peer, kvc_async *async, uint64_t *random)
{
	static char value[LARGE_BYTES];
	const char *wrong = NULL;
	unsigned before = seen_unreachable;
	for (unsigned i = 0; i < 200 && !wrong; i++) {
		warm_up(peer, async);
		begin(peer);
		for (uintptr_t n = 0; n < LARGE; n++) {
			char key[16];
			int bytes = snprintf(key, sizeof(key), "#%u", (unsigned)n);
			(void)kvc_async_set(async, key, (size_t)bytes, value, sizeof(value), NULL,
					    done, (void *)n, NULL);
		}
		for (unsigned steps = (unsigned)(tap_random(random) % 12); steps > 0; steps--) {
			peer_turn(async);
			peer_read(peer, tap_random(random) % LARGE_BYTES);
			peer_write(peer, tap_random(random) % 20);
		}
		peer_hang_up(peer);
		peer_settle(peer, async); // what was not begun goes out on the next connection
		judge(peer, LARGE, false);
		wrong = fate.wrong;
	}
	ok(!wrong, "cut in the middle of large requests: %s", wrong ? wrong : "as promised");
	ok(seen_unreachable > before, "some were never sent whole");
}

static void test_sync(struct peer *peer, kvc_async *async)
{
	int set = -99, sync = -99, again = -99;
	warm_up(peer, async);
	(void)kvc_async_set(async, "k", 1, "v", 1, NULL, one_status, &set, NULL);
	peer_settle(peer, async);
	peer_hang_up(peer);
	peer_settle(peer, async);
	(void)kvc_async_sync(async, one_status, &sync, NULL);
	(void)kvc_async_sync(async, one_status, &again, NULL);
	peer_settle(peer, async);
	ok(set == KVC_OK && sync == KVC_UNKNOWN && again == KVC_OK,
	   "a sync after the connection of a write has broken: UNKNOWN, once");
}

static void test_stale(struct peer *peer, kvc_async *async)
{
	int status = -99;
	warm_up(peer, async);
	peer_hang_up(peer);
	(void)kvc_async_increment(async, "k", 1, 1, one_status, &status, NULL);
	peer_settle(peer, async);
	ok_int(status, KVC_OK, "a connection that was gone before is replaced without a word");
	status = -99;
	peer_hang_up(peer);
	peer_listen(peer, false);
	(void)kvc_async_increment(async, "k", 1, 1, one_status, &status, NULL);
	peer_settle(peer, async);
	ok_int(status, KVC_UNREACHABLE, "nobody listens: %.40s...", kvc_async_error_text(async));
	ok(!peer_is_due(async), "and the descriptor rests");
	peer_listen(peer, true);
	warm_up(peer, async);
	ok(true, "after the pause it connects again");
}

static void test_last_words(struct peer *peer, kvc_async *async)
{
	int status[3] = { -99, -99, -99 };
	warm_up(peer, async);
	peer_hang_up(peer);
	peer_turn(async);
	(void)kvc_async_increment(async, "k", 1, 1, one_status, &status[0], NULL);
	peer_turn(async);
	(void)peer_accept(peer);
	peer_say(peer, "-ERR max number of clients reached\r\n");
	peer_write(peer, PEER_ALL);
	peer_hang_up(peer);
	peer_turn(async);
	ok_int(status[0], KVC_UNREACHABLE, "turned away: %.200s", kvc_async_error_text(async));
	ok(strstr(kvc_async_error_text(async), "max number") != NULL, "with its reason");
	warm_up(peer, async);
	(void)kvc_async_increment(async, "#1", 2, 1, one_status, &status[1], NULL);
	(void)kvc_async_increment(async, "#2", 2, 1, one_status, &status[2], NULL);
	peer_turn(async);
	peer_say(peer, "what is this?\r\n");
	peer_write(peer, PEER_ALL);
	peer_turn(async);
	ok(status[1] == KVC_PROTOCOL && status[2] == KVC_UNKNOWN,
	   "not RESP: the one it answers, and what is behind it");
	peer_hang_up(peer);
	warm_up(peer, async);
	peer_say(peer, "-ERR closed: too much\r\n");
	peer_write(peer, PEER_ALL);
	peer_turn(async);
	ok(strstr(kvc_async_error_text(async), "closed: too much") != NULL,
	   "a farewell that nobody asked for is kept");
	peer_hang_up(peer);
	warm_up(peer, async);
}

int main(void)
{
	static struct peer peer;
	uint64_t random = tap_seed(20261121);
	peer_start(&peer);
	kvc_async *async = peer_open(&peer, NULL);
	test_cuts(&peer, async, true);
	test_cuts(&peer, async, false);
	test_large(&peer, async, &random);
	test_sync(&peer, async);
	test_stale(&peer, async);
	test_last_words(&peer, async);
	ok_u64(kvc_async_pending(async), 0, "nothing is owed");
	ok_int(kvc_async_close(async), KVC_OK, "close");
	peer_stop(&peer);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// Cancellation of asynchronous requests in every state of a request and in every order: what was
// not begun to be sent is never sent, what stands around it is, each completion is called once, and
// it costs the same however many there are.
#include <string.h>

#include "libclient/async.h"
#include "libclient/kvclient.h"
#include "tests/libclient/peer.h"
#include "tests/tap/tap.h"

#define GAPS_REQUESTS 3000u
#define MANY_REQUESTS 300000u

static void test_cancel(struct peer *peer, kvc_async *async)
{
	struct peer_seen seen[5] = { 0 };
	uint64_t id[5];
	memset(peer->ran, 0, sizeof(peer->ran));
	for (unsigned i = 0; i < 5; i++) {
		(void)peer_set(async, i, 1, peer_see, &seen[i], &id[i]);
	}
	ok(id[0] != 0 && id[4] == id[0] + 4, "ids");
	ok_int(kvc_async_cancel(async, id[1]), KVC_OK, "before it was sent");
	ok_int(kvc_async_cancel(async, id[4]), KVC_OK, "the last one too");
	ok_int(kvc_async_cancel(async, id[1]), KVC_NOT_FOUND, "twice");
	ok_u64(seen[1].calls, 0, "not told by cancelling");
	peer_turn(async);
	ok(seen[1].calls == 1 && seen[1].status == KVC_CANCELLED, "told by the next dispatch");
	(void)peer_accept(peer);
	peer_read(peer, PEER_ALL);
	ok(peer->ran[0] == 1 && peer->ran[1] == 0 && peer->ran[2] == 1 && peer->ran[3] == 1 &&
		   peer->ran[4] == 0,
	   "and never sent, unlike the others");
	ok_int(kvc_async_cancel(async, id[2]), KVC_UNKNOWN, "after it was sent");
	peer_turn(async);
	ok(seen[2].calls == 1 && seen[2].status == KVC_CANCELLED && seen[0].calls == 0,
	   "told before the reply, and before those ahead of it");
	peer_settle(peer, async);
	ok(seen[0].status == KVC_OK && seen[3].status == KVC_OK && seen[0].calls == 1 &&
		   seen[2].calls == 1 && seen[3].calls == 1,
	   "its reply is nobody else's");
	ok_int(kvc_async_cancel(async, id[3]), KVC_NOT_FOUND, "after its completion");
	(void)peer_set(async, 0, 300000, peer_see, &seen[0], &id[0]);
	(void)peer_set(async, 1, 1, peer_see, &seen[1], &id[1]);
	peer_turn(async); // the socket does not take all of it
	ok_int(kvc_async_cancel(async, id[0]), KVC_UNKNOWN, "sent in part");
	ok_int(kvc_async_cancel(async, id[1]), KVC_OK, "behind that, not begun");
	(void)peer_set(async, 3, 1, peer_see, &seen[3], NULL);
	peer_settle(peer, async);
	ok(seen[0].calls == 2 && seen[1].calls == 2 && seen[3].calls == 2 &&
		   seen[3].status == KVC_OK,
	   "the stream is still in step");
	ok_u64(kvc_async_pending(async), 0, "nothing is owed");
}

// A connection that went stale, with a cancelled request among those that were never sent.
static void test_cancel_stale(struct peer *peer, kvc_async *async)
{
	struct peer_seen seen[3] = { 0 };
	uint64_t id;
	(void)peer_set(async, 0, 1, peer_see, &seen[0], NULL);
	peer_settle(peer, async);
	memset(peer->ran, 0, sizeof(peer->ran));
	(void)peer_set(async, 1, 1, peer_see, &seen[1], NULL);
	(void)peer_set(async, 2, 1, peer_see, &seen[2], &id);
	ok_int(kvc_async_cancel(async, id), KVC_OK, "cancelled behind one that waits");
	peer_hang_up(peer);
	peer_settle(peer, async);
	ok(seen[1].status == KVC_OK && seen[1].calls == 1 && peer->ran[1] == 1,
	   "kvd was gone: that one goes out on another connection");
	ok(seen[2].status == KVC_CANCELLED && seen[2].calls == 1 && peer->ran[2] == 0,
	   "the other one never does");
}

// What was cancelled before it was sent leaves no trace in the count of what was.
static void test_cancel_again(struct peer *peer, kvc_async *async)
{
	unsigned wrong = 0;
	for (unsigned round = 0; round < 40; round++) {
		struct peer_seen seen = { 0 };
		uint64_t id, large;
		for (unsigned i = 0; i < round; i++) {
			(void)peer_set(async, 0, 1, peer_see, &seen, &id);
			wrong += kvc_async_cancel(async, id) != KVC_OK;
			peer_turn(async);
		}
		(void)peer_set(async, 0, 300000, peer_see, &seen, &large);
		(void)peer_set(async, 1, 1, peer_see, &seen, &id);
		peer_turn(async);
		wrong += kvc_async_cancel(async, id) != KVC_OK;
		wrong += kvc_async_cancel(async, large) != KVC_UNKNOWN;
		peer_settle(peer, async);
		wrong += seen.calls != round + 2;
	}
	ok_u64(wrong, 0, "any number of them, in front of others");
}

/// A completion that cancels another.
struct canceller {
	uint64_t own, other;
	int own_status, other_status;
};

static void cancel_other(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct canceller *canceller = user;
	(void)result;
	canceller->own_status = kvc_async_cancel(async, canceller->own);
	canceller->other_status = kvc_async_cancel(async, canceller->other);
}

static void test_cancel_inside(struct peer *peer, kvc_async *async)
{
	struct canceller canceller = { 0 };
	struct peer_seen seen[2] = { 0 };
	(void)peer_set(async, 0, 1, cancel_other, &canceller, &canceller.own);
	(void)peer_set(async, 1, 1, peer_see, &seen[0], &canceller.other);
	(void)peer_set(async, 2, 1, peer_see, &seen[1], NULL);
	peer_settle(peer, async);
	ok(canceller.own_status == KVC_NOT_FOUND && canceller.other_status == KVC_UNKNOWN &&
		   seen[0].status == KVC_CANCELLED && seen[0].calls == 1 &&
		   seen[1].status == KVC_OK,
	   "from inside a completion");
	(void)peer_set(async, 0, 1, cancel_other, &canceller, &canceller.own);
	(void)peer_set(async, 1, 1, peer_see, &seen[0], &canceller.other);
	peer_turn(async);
	peer_hang_up(peer);
	peer_turn(async);
	ok(canceller.other_status == KVC_UNKNOWN && seen[0].status == KVC_CANCELLED &&
		   seen[0].calls == 2,
	   "when the connection has broken, but it was not told yet");
}

static bool gaps_which(unsigned pattern, unsigned number, uint64_t *random)
{
	switch (pattern) {
	case 0:
		return number % 2 == 0;
	case 1:
		return number % 2 == 1;
	case 2:
		return number >= 5 && number < GAPS_REQUESTS - 5;
	case 3:
		return number % 97 != 0;
	default:
		return tap_random(random) % 2;
	}
}

// Some of many that are not begun to be sent: what comes is the others, whole and in order. Sizes
// are such that a sending is cut in the middle of requests.
static void test_gaps(struct peer *peer, uint64_t *random)
{
	static uint64_t id[GAPS_REQUESTS];
	static struct peer_seen seen[GAPS_REQUESTS];
	static bool gone[GAPS_REQUESTS];
	struct kvc_async_options options = { .struct_bytes = sizeof(options),
					     .bytes_max = 64u << 20 };
	kvc_async *async = peer_open(peer, &options);
	for (unsigned pattern = 0; pattern < 8; pattern++) {
		unsigned wrong = 0;
		memset(seen, 0, sizeof(seen));
		memset(peer->ran, 0, sizeof(peer->ran));
		for (unsigned i = 0; i < GAPS_REQUESTS; i++) {
			uint64_t size = tap_random(random);
			size_t bytes = size % 100 == 0 ? size % PEER_SET_BYTES : size % 500;
			wrong += peer_set(async, i, bytes, peer_see, &seen[i], &id[i]) != KVC_OK;
			gone[i] = gaps_which(pattern, i, random);
		}
		for (unsigned k = 0; k < GAPS_REQUESTS; k++) {
			unsigned i = pattern % 2 ? k : GAPS_REQUESTS - 1 - k;
			int expected = KVC_OK;
			if (pattern >= 6 && k % 500 == 499) {
				(void)kvc_async_flush(async); // some are sent, one of them in part
				peer_read(peer, tap_random(random) % 100000);
			}
			if (gone[i]) {
				int status = kvc_async_cancel(async, id[i]);
				expected = pattern >= 6 ? status : expected;
				gone[i] = status == KVC_OK;
				wrong += status != expected;
			}
		}
		peer_settle(peer, async);
		for (unsigned i = 0; i < GAPS_REQUESTS; i++) {
			wrong += peer->ran[i] != !gone[i] || seen[i].calls != 1;
			wrong += gone[i] && seen[i].status != KVC_CANCELLED;
		}
		ok_u64(wrong + kvc_async_pending(async), 0, "some of %u, pattern %u", GAPS_REQUESTS,
		       pattern);
	}
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

// What is cancelled gives its room back, though nothing can be sent.
static void test_room(struct peer *peer)
{
	struct peer_seen seen = { 0 }, kept = { 0 };
	struct kvc_async_options options = { .struct_bytes = sizeof(options),
					     .requests_max = 5000,
					     .bytes_max = 3 * PEER_SET_BYTES };
	kvc_async *async = peer_open(peer, &options);
	unsigned wrong = 0;
	uint64_t id;
	for (unsigned i = 0; i < 4000; i++) {
		wrong += i % 1000 == 0 && peer_set(async, i, 10, peer_see, &kept, NULL) != KVC_OK;
		wrong += peer_set(async, i, PEER_SET_BYTES, peer_see, &seen, &id) != KVC_OK;
		wrong += kvc_async_cancel(async, id) != KVC_OK;
	}
	ok_u64(wrong, 0, "4000 large ones were taken and cancelled, one at a time");
	size_t kept_bytes = async->stream.out.capacity;
	ok(kept_bytes <= 8 * (size_t)PEER_SET_BYTES, "in %zu bytes of memory", kept_bytes);
	peer_settle(peer, async);
	ok(seen.calls == 4000 && kept.calls == 4 && kept.status == KVC_OK, "each is told");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

// A cost that grew with the queue would take minutes here: the test's time limit is the check.
static void test_many(struct peer *peer, bool backwards)
{
	const unsigned many = tap_rounds(MANY_REQUESTS, 20000);
	static uint64_t id[MANY_REQUESTS];
	struct peer_seen seen = { 0 }, first = { 0 };
	struct kvc_async_options options = { .struct_bytes = sizeof(options),
					     .requests_max = many,
					     .bytes_max = SIZE_MAX };
	kvc_async *async = peer_open(peer, &options);
	size_t runs = peer->runs;
	unsigned wrong = 0;
	(void)peer_set(async, 0, 1, peer_see, &first, NULL);
	for (unsigned i = 1; i < many; i++) {
		wrong += peer_set(async, i, 1, peer_see, &seen, &id[i]) != KVC_OK;
	}
	for (unsigned i = 1; i < many; i++) {
		wrong += kvc_async_cancel(async, id[backwards ? many - i : i]) != KVC_OK;
	}
	peer_settle(peer, async);
	wrong += seen.calls != many - 1 || seen.status != KVC_CANCELLED;
	wrong += first.calls != 1 || first.status != KVC_OK || peer->runs != runs + 1;
	ok_u64(wrong, 0, "all but one of %u%s", many, backwards ? ", backwards" : "");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

int main(void)
{
	static struct peer peer;
	uint64_t random = tap_seed(815);
	peer_start(&peer);
	kvc_async *async = peer_open(&peer, NULL);
	test_cancel(&peer, async);
	test_cancel_stale(&peer, async);
	test_cancel_again(&peer, async);
	test_cancel_inside(&peer, async);
	ok_int(kvc_async_close(async), KVC_OK, "close");
	peer_hang_up(&peer);
	test_gaps(&peer, &random);
	test_room(&peer);
	test_many(&peer, false);
	test_many(&peer, true);
	peer_stop(&peer);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// An asynchronous handle at its edges: full queues, deadlines under a clock of the test's own,
// closing from inside completions, and all of it with cancellation at random. Whatever happens,
// every completion is called once.
#include <string.h>

#include "libclient/kvclient.h"
#include "tests/libclient/peer.h"
#include "tests/tap/tap.h"

#define RANDOM_REQUESTS 4000u

static uint64_t clock_ahead_ns;

uint64_t __real_kvc_now_ns(void);
uint64_t __wrap_kvc_now_ns(void);
uint64_t __wrap_kvc_deadline_ns(uint32_t timeout_ms);

uint64_t __wrap_kvc_now_ns(void)
{
	return __real_kvc_now_ns() + clock_ahead_ns;
}

uint64_t __wrap_kvc_deadline_ns(uint32_t timeout_ms)
{
	return __wrap_kvc_now_ns() + (uint64_t)timeout_ms * 1000000;
}

static unsigned notices;

static void writable(kvc_async *async, void *user)
{
	struct peer_seen *seen = user;
	notices++;
	(void)peer_set(async, 0, 1, peer_see, seen, NULL);
}

static void test_pressure(struct peer *peer)
{
	static struct peer_seen seen, late;
	struct kvc_async_options options = { .struct_bytes = sizeof(options),
					     .requests_max = 8,
					     .bytes_max = 1000,
					     .writable = writable,
					     .user = &late };
	kvc_async *async = peer_open(peer, &options);
	for (unsigned i = 0; i < 8; i++) {
		(void)peer_set(async, i, 1, peer_see, &seen, NULL);
	}
	ok_int(peer_set(async, 8, 1, peer_see, &seen, NULL), KVC_BUSY,
	       "the ninth of eight requests");
	peer_turn(async);
	ok_int(peer_set(async, 8, 1, peer_see, &seen, NULL), KVC_BUSY,
	       "they count until they are answered");
	ok_u64(notices, 0, "no room, no notice");
	(void)peer_accept(peer);
	peer_read(peer, PEER_ALL);
	peer_write(peer, 4 * 4); // four of eight replies
	peer_turn(async);
	ok(notices == 1 && seen.calls == 4, "half is free: one notice");
	peer_settle(peer, async);
	ok(notices == 1 && seen.calls == 8 && late.calls == 1, "no other; it could submit");
	ok_int(peer_set(async, 1, 2000, peer_see, &seen, NULL), KVC_OK,
	       "alone a request may be larger");
	ok_int(peer_set(async, 2, 1, peer_see, &seen, NULL), KVC_BUSY,
	       "behind it nothing has room");
	peer_settle(peer, async);
	ok_int(peer_set(async, 2, 500, peer_see, &seen, NULL), KVC_OK, "half of the bytes");
	ok_int(peer_set(async, 3, 800, peer_see, &seen, NULL), KVC_BUSY, "too many bytes");
	ok_int(peer_set(async, 3, 300, peer_see, &seen, NULL), KVC_OK, "few enough");
	peer_settle(peer, async);
	ok(seen.calls == 11 && notices == 3, "bytes count until they are sent");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

static void test_deadlines(struct peer *peer, kvc_async *async)
{
	struct peer_seen seen[4] = { 0 };
	peer_settle(peer, async);
	(void)peer_set(async, 0, 1, peer_see, &seen[0], NULL);
	(void)peer_set(async, 1, 1, peer_see, &seen[1], NULL);
	peer_turn(async);
	int left_ms = kvc_async_timeout_ms(async);
	ok(left_ms > 50000 && left_ms <= 60000, "a dispatch is due in %d ms", left_ms);
	clock_ahead_ns += UINT64_C(50000000000);
	(void)peer_set(async, 2, 300000, peer_see, &seen[2], NULL);
	(void)peer_set(async, 3, 1, peer_see, &seen[3], NULL);
	peer_turn(async);
	left_ms = kvc_async_timeout_ms(async);
	ok(left_ms > 0 && left_ms <= 10000, "later in %d ms: the oldest counts", left_ms);
	ok_int(kvc_async_dispatch(async), KVC_OK, "a dispatch before that");
	ok_u64(seen[0].calls, 0, "gives nothing up");
	clock_ahead_ns += UINT64_C(10000000000);
	ok_int(kvc_async_timeout_ms(async), 0, "now one is due");
	(void)kvc_async_dispatch(async);
	ok(seen[0].status == KVC_TIMEOUT && seen[1].status == KVC_UNKNOWN &&
		   seen[2].status == KVC_UNREACHABLE && seen[3].status == KVC_UNREACHABLE,
	   "TIMEOUT; what was sent behind it UNKNOWN, what was not UNREACHABLE");
	ok(seen[0].calls + seen[1].calls + seen[2].calls + seen[3].calls == 4, "each once");
	ok(strstr(kvc_async_error_text(async), "deadline") != NULL, "%s",
	   kvc_async_error_text(async));
	peer_hang_up(peer);
	(void)peer_set(async, 0, 1, peer_see, &seen[0], NULL);
	peer_settle(peer, async);
	ok_int(seen[0].status, KVC_OK, "the next one connects anew");
}

// A thousand that fail at once are not told at once.
static void test_many_fail(struct peer *peer)
{
	struct peer_seen seen = { 0 };
	kvc_async *async = peer_open(peer, NULL);
	peer_hang_up(peer);
	peer_listen(peer, false);
	for (unsigned i = 0; i < 1000; i++) {
		(void)peer_set(async, i, 1, peer_see, &seen, NULL);
	}
	(void)kvc_async_dispatch(async);
	ok(seen.calls == 256 && peer_is_due(async), "1000 fail: a dispatch tells %u", seen.calls);
	peer_turn(async);
	ok(seen.calls == 1000 && seen.status == KVC_UNREACHABLE, "the next ones the rest");
	(void)kvc_async_close(async);
	peer_listen(peer, true);
}

static void close_inside(kvc_async *async, void *user, const struct kvc_result *result)
{
	peer_see(async, user, result);
	if (result->status == KVC_OK) {
		peer_calls += kvc_async_close(async) != KVC_OK;
	}
	// Closing already, or by this: nothing goes any more.
	peer_calls += kvc_async_close(async) != KVC_INVALID;
	peer_calls += peer_set(async, 0, 1, peer_see, user, NULL) != KVC_INVALID;
}

static void test_close(struct peer *peer)
{
	struct peer_seen seen[3] = { 0 };
	kvc_async *async = peer_open(peer, NULL);
	peer_calls = 0;
	for (unsigned i = 0; i < 3; i++) {
		(void)peer_set(async, i, 1, close_inside, &seen[i], NULL);
	}
	(void)kvc_async_dispatch(async);
	while (peer_owes(peer) == 0) {
		(void)peer_accept(peer); // dead ones come first
		peer_read(peer, PEER_ALL);
	}
	peer_write(peer, PEER_ALL);
	ok_int(kvc_async_dispatch(async), KVC_CANCELLED,
	       "closed in a completion: dispatch says so");
	ok(seen[0].status == KVC_OK && seen[1].status == KVC_CANCELLED &&
		   seen[2].status == KVC_CANCELLED && peer_calls == 3,
	   "the others are told, once, and nothing goes any more");
	peer_hang_up(peer);
	async = peer_open(peer, NULL);
	(void)peer_set(async, 0, 1, peer_see, &seen[0], NULL);
	ok_int(kvc_async_close(async), KVC_OK, "closed with a request under way");
	ok(seen[0].status == KVC_CANCELLED && seen[0].calls == 2, "which is told by it");
}

static struct peer_seen fates[RANDOM_REQUESTS];

// Everything at random, by both ends. Every accepted request is told once.
static void test_random(struct peer *peer, uint64_t *random)
{
	struct kvc_async_options options = { .struct_bytes = sizeof(options),
					     .requests_max = 40,
					     .bytes_max = 100000 };
	kvc_async *async = peer_open(peer, &options);
	uint64_t ids[RANDOM_REQUESTS] = { 0 };
	unsigned accepted = 0, wrong = 0, busy = 0, cancelled = 0;
	while (accepted < RANDOM_REQUESTS) {
		uint64_t dice = tap_random(random) % 100, more = tap_random(random);
		if (dice < 40) {
			size_t bytes = more % 50 == 0 ? more % 300000 : more % 200;
			int status = peer_set(async, accepted, bytes, peer_see, &fates[accepted],
					      &ids[accepted]);
			accepted += status == KVC_OK;
			busy += status == KVC_BUSY;
			wrong += status != KVC_OK && status != KVC_BUSY;
		} else if (dice < 50 && accepted > 0) {
			unsigned which = accepted - 1 - (unsigned)(more % 50) % accepted;
			bool told = fates[which].calls > 0;
			int status = kvc_async_cancel(async, ids[which]);
			cancelled += status != KVC_NOT_FOUND;
			wrong += told && status != KVC_NOT_FOUND;
		} else if (dice < 70) {
			wrong += kvc_async_dispatch(async) != KVC_OK;
		} else if (dice < 74) {
			wrong += kvc_async_flush(async) != KVC_OK;
		} else if (dice < 85) {
			(void)peer_accept(peer);
			peer_read(peer, more % 20 == 0 ? PEER_ALL : more % 3000);
		} else if (dice < 98) {
			peer_write(peer, more % 300);
		} else if (dice == 98) {
			peer_hang_up(peer);
		}
	}
	(void)kvc_async_close(async);
	for (unsigned i = 0; i < accepted; i++) {
		wrong += fates[i].calls != 1;
	}
	ok_u64(wrong, 0, "%u requests at random, %u cancelled, %u refused: each told once",
	       accepted, cancelled, busy);
	peer_hang_up(peer);
}

int main(void)
{
	static struct peer peer;
	uint64_t random = tap_seed(4711);
	peer_start(&peer);
	test_pressure(&peer);
	kvc_async *async = peer_open(&peer, NULL);
	test_deadlines(&peer, async);
	ok_int(kvc_async_close(async), KVC_OK, "close");
	peer_hang_up(&peer);
	test_many_fail(&peer);
	test_close(&peer);
	test_random(&peer, &random);
	peer_stop(&peer);
	return tap_done();
}

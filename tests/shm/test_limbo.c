// SPDX-License-Identifier: MIT
//
// shm/limbo.c: first in, first out, and nothing comes out before the oldest reader has gone past
// it.
#include "shm/limbo.h"

#include "tests/tap/tap.h"

static void test_order(uint64_t *random)
{
	struct kvs_limbo limbo;
	struct kvs_limbo_item item;
	ok(kvs_limbo_init(&limbo), "init");
	ok_u64(kvs_limbo_newest_stamp(&limbo), 0, "empty: no newest stamp");
	ok(!kvs_limbo_pop(&limbo, UINT64_MAX, &item), "empty: nothing comes out");
	uint64_t stamp = 1, pushed = 0, popped = 0, oldest = 1;
	unsigned wrong = 0;
	for (unsigned round = 0; round < 50000; round++) {
		if (tap_random(random) % 5 < 3) {
			kvs_limbo_push(&limbo, stamp, KVS_LIMBO_OVERFLOW, pushed, pushed << 33);
			pushed++;
		} else if (tap_random(random) % 2) {
			stamp++;
		} else {
			oldest = stamp - tap_random(random) % (stamp < 3 ? stamp : 3);
			while (kvs_limbo_pop(&limbo, oldest, &item)) {
				wrong += item.stamp >= oldest || item.a != popped ||
					 item.b != popped << 33 || item.kind != KVS_LIMBO_OVERFLOW;
				popped++;
			}
			wrong += limbo.count > 0 && kvs_limbo_at(&limbo, 0)->stamp < oldest;
		}
	}
	while (kvs_limbo_pop(&limbo, UINT64_MAX, &item)) {
		wrong += item.a != popped++;
	}
	ok_u64(wrong, 0, "order, content and stamps hold over growth of the ring");
	ok_u64(popped, pushed, "everything came out in the end");
	ok_u64(limbo.lost, 0, "nothing was lost");
	kvs_limbo_fini(&limbo);
}

// What each stamp holds back, against adding it up; over growth and wrapping of the ring.
static void test_held(uint64_t *random)
{
	struct kvs_limbo limbo;
	struct kvs_limbo_item item;
	ok(kvs_limbo_init(&limbo), "init");
	ok_u64(kvs_limbo_held_bytes(&limbo, 0), 0, "empty: nothing is held back");
	uint64_t stamp = 1;
	unsigned wrong = 0, asked = 0;
	for (unsigned round = 0; round < 20000; round++) {
		if (tap_random(random) % 5 < 3) {
			bool overflow = tap_random(random) % 2;
			kvs_limbo_push(&limbo, stamp, overflow ? KVS_LIMBO_OVERFLOW : KVS_LIMBO_RUN,
				       round, overflow ? 1 : tap_random(random) % 100000);
		} else if (tap_random(random) % 2) {
			stamp += 1 + tap_random(random) % 3;
		} else {
			uint64_t oldest = stamp - tap_random(random) % (stamp < 900 ? stamp : 900);
			while (kvs_limbo_pop(&limbo, oldest, &item)) {
			}
		}
		if (round % 50 != 0) {
			continue;
		}
		uint64_t from = stamp + 2 - tap_random(random) % (stamp < 900 ? stamp : 900);
		uint64_t sum = 0;
		for (size_t i = 0; i < limbo.count; i++) {
			item = *kvs_limbo_at(&limbo, i);
			uint64_t bytes = item.kind == KVS_LIMBO_RUN ? item.b : 64;
			sum += item.stamp >= from ? bytes : 0;
		}
		asked += sum > 0;
		wrong += kvs_limbo_held_bytes(&limbo, from) != sum;
	}
	ok_u64(wrong, 0, "bytes from a stamp on are what adding them up gives");
	ok(asked > 100, "and were some, %u times", asked);
	kvs_limbo_fini(&limbo);
}

static size_t blocks_of(const struct kvs_limbo *limbo)
{
	size_t blocks = limbo->spare != NULL;
	for (size_t i = 0; i < limbo->capacity; i++) {
		blocks += limbo->blocks[i] != NULL;
	}
	return blocks;
}

// Very many, twice: none is copied when there are more, and their memory does not stay.
static void test_many(void)
{
	struct kvs_limbo limbo;
	struct kvs_limbo_item item;
	ok(kvs_limbo_init(&limbo), "init");
	uint64_t pushed = 0, popped = 0;
	unsigned wrong = 0;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 700; i++) {
			kvs_limbo_push(&limbo, 1, KVS_LIMBO_RUN, pushed++, 1);
		}
		const struct kvs_limbo_item *oldest = kvs_limbo_at(&limbo, 0);
		for (unsigned i = 0; i < 200000; i++) {
			kvs_limbo_push(&limbo, 1, KVS_LIMBO_RUN, pushed++, 1);
		}
		ok(kvs_limbo_at(&limbo, 0) == oldest, "the oldest stands where it stood");
		ok_u64(kvs_limbo_held_bytes(&limbo, 0), pushed - popped, "all are counted");
		while (kvs_limbo_pop(&limbo, 2, &item)) {
			wrong += item.a != popped++;
		}
		ok(blocks_of(&limbo) <= 2, "%zu blocks are left", blocks_of(&limbo));
	}
	ok_u64(wrong + pushed - popped, 0, "all came out in their order");
	kvs_limbo_fini(&limbo);
}

int main(void)
{
	uint64_t random = tap_seed(7);
	test_order(&random);
	test_held(&random);
	test_many();
	return tap_done();
}

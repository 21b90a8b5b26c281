// SPDX-License-Identifier: MIT
//
// Active expiry: keys go at their time although nobody asks for them, those whose time has not come
// stay, whatever was written, moved or removed meanwhile. What the index holds beyond that has a
// bound.
#include "shm/epoch.h"
#include "tests/daemon/expire_fixture.h"

static void test_due(struct fixture *f)
{
	uint64_t start_ms = fixture_wall_ms;
	unsigned wrong = 0;
	ok(expire_turn(f->keyspace, now_ns) == UINT64_MAX, "no key, no turn");
	for (unsigned i = 0; i < KEYS; i++) {
		uint64_t after_ms = i % 4 == 0 ? 60000 : i % 4 == 1 ? 90000 : 0;
		wrong += !set_one(f, i, after_ms == 0 ? 0 : start_ms + after_ms);
	}
	ok_int(wrong, 0, "keys are written");
	ok(turns(f) < 10, "nothing is due");
	uint64_t due_ns = expire_turn(f->keyspace, now_ns);
	ok(due_ns > now_ns + CLOCK_NS / 2 && due_ns <= now_ns + CLOCK_NS,
	   "nothing due soon: a look at the clock a while later");
	pass(300 * MS_NS);
	ok(set_one(f, KEYS, fixture_wall_ms + 20), "a key that goes before that look is written");
	due_ns = expire_turn(f->keyspace, now_ns);
	ok(due_ns >= now_ns + 20 * MS_NS && due_ns <= now_ns + (20 + SLOT_MS) * MS_NS,
	   "then the next turn is at its time");
	pass((20 + SLOT_MS) * MS_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, KEYS, "and takes it away");
	pass((start_ms + 59990 - fixture_wall_ms) * MS_NS);
	(void)expire_turn(f->keyspace, now_ns);
	ok_int(f->keyspace->keys, KEYS, "none goes before its time");
	pass((10 + SLOT_MS) * MS_NS);
	ok(turns(f) > 3, "when it has come they go, in slices");
	ok_int(f->keyspace->keys, KEYS * 3 / 4, "all of them");
	ok_int(f->keyspace->keys_with_expiry, KEYS / 4, "the others stay");
	ok(is_whole(f), "and all of those are known");
	pass((start_ms + 90000 - fixture_wall_ms) * MS_NS);
	keyspace_hold_expiry(f->keyspace, true);
	pass(CLOCK_NS);
	(void)expire_turn(f->keyspace, now_ns);
	ok_int(f->keyspace->keys_with_expiry, KEYS / 4, "while that is held, none goes");
	keyspace_hold_expiry(f->keyspace, false);
	keyspace_set_active_expire(f->keyspace, false);
	ok(expire_turn(f->keyspace, now_ns) == UINT64_MAX, "nor while it is off");
	keyspace_set_active_expire(f->keyspace, true);
	(void)turns(f);
	ok_int(f->keyspace->keys_with_expiry, 0, "then they do");
	ok_int(f->keyspace->keys, KEYS / 2, "keys without a time stay");
	ok(expire_turn(f->keyspace, now_ns) == UINT64_MAX, "nothing is left to wait for");
	ok_int(f->keyspace->expire.wheel.items, 0, "the index is empty");
	uint64_t walks = counted(f, KVS_COUNTER_expiry_walks);
	ok_int(walks, 0, "no table was walked for all that");
}

struct leftover {
	struct fixture *f;
	uint64_t time_ms;
	unsigned count;
};

static void leave_behind(void *context, uint64_t entry)
{
	struct leftover *leftover = context;
	struct kvs_hit hit;
	if (kvs_table_load(&leftover->f->region.map, entry, &hit) == KVS_FIND_HIT &&
	    hit.kind != KVS_ENTRY_TOMBSTONE && hit.view.expiry_ms > leftover->time_ms) {
		leftover->count +=
			wheel_put(&leftover->f->keyspace->expire.wheel, kvs_entry_offset(entry) / 8,
				  leftover->time_ms, fixture_wall_ms);
	}
}

// What an item was left behind by: the key is there no more, or another version of it.
static void test_stale(struct fixture *f)
{
	unsigned wrong = 0;
	uint64_t soon_ms = fixture_wall_ms + 5000;
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += !set_one(f, i, soon_ms);
	}
	for (unsigned i = 0; i < KEYS; i++) {
		switch (i % 4) {
		case 0:
			wrong += !set_one(f, i, 0); // for good
			break;
		case 1:
			wrong += !delete_one(f, i);
			break;
		case 2:
			wrong += !set_one(f, i, soon_ms + YEAR_MS);
			break;
		default:
			break;
		}
	}
	ok_int(wrong, 0, "keys are written and changed");
	ok(is_whole(f), "each of those with a time is known");
	struct leftover leftover = { .f = f, .time_ms = soon_ms };
	uint64_t cursor = 0;
	do {
		cursor = kvs_table_scan(&f->region.map, cursor, leave_behind, &leftover);
	} while (cursor != 0);
	ok_int(leftover.count, KEYS / 4, "and some stand where others did that ended before");
	pass(6000 * MS_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, KEYS / 2, "only those go that still end then");
	ok_int(f->keyspace->keys_with_expiry, KEYS / 4, "whatever else was known of");
	ok_int(f->keyspace->expire.wheel.items, KEYS / 4, "what was out of date is dropped");
	ok(is_whole(f), "and no more");
}

// The bound on what is out of date, while keys are written again and again.
static uint64_t most_items(struct fixture *f, unsigned keys, unsigned writes, bool same_times)
{
	uint64_t most = 0;
	uint64_t start_ms = fixture_wall_ms;
	for (unsigned i = 0; i < writes; i++) {
		uint64_t base_ms = same_times ? start_ms : fixture_wall_ms;
		unsigned times = i / keys % 2;
		if (!set_one(f, i % keys, base_ms + YEAR_MS / (1 + times) + times)) {
			return UINT64_MAX;
		}
		if (i % 100 == 99) {
			uint64_t items = f->keyspace->expire.wheel.items;
			most = items > most ? items : most;
			fixture_durable(f);
			(void)turns(f);
		}
	}
	return most;
}

static void test_bound(struct fixture *f)
{
	unsigned writes = tap_rounds(400000, 40000);
	uint64_t most = most_items(f, 1, writes, false);
	ok(most < 2 + ITEMS_SPARE * 5 / 4, "one key written %u times: %llu items at most", writes,
	   (unsigned long long)most);
	ok(is_whole(f), "of which the key has one");
	ok(keyspace_flush(f->keyspace) == KEYSPACE_OK, "FLUSHALL");
	ok_int(f->keyspace->expire.wheel.items, 0, "leaves none");
	unsigned keys = 5000;
	most = most_items(f, keys, writes, false);
	ok(most < 2 * keys + ITEMS_SPARE * 5 / 4, "two times alternating on %u keys: %llu items",
	   keys, (unsigned long long)most);
	ok(is_whole(f), "of which each key has one");
	most = most_items(f, keys, writes, true);
	ok(most < 2 * keys + ITEMS_SPARE * 5 / 4, "the same two: %llu items",
	   (unsigned long long)most);
	ok(is_whole(f), "of which each key has one");
	ok(keyspace_flush(f->keyspace) == KEYSPACE_OK, "FLUSHALL again");
}

// The same bound while nothing may be removed: what is due, too, is moved again and again.
static void test_bound_while_still(struct fixture *f)
{
	const unsigned keys = 1000, writes = tap_rounds(200000, 60000);
	uint64_t most = 0;
	unsigned wrong = 0;
	for (unsigned i = 0; i < keys; i++) {
		wrong += !set_one(f, 100000 + i, fixture_wall_ms + 2000);
	}
	pass(1500 * MS_NS); // how far turns go beyond depends on how many are needed
	(void)turns(f);
	keyspace_set_active_expire(f->keyspace, false);
	pass(1000 * MS_NS);
	most = most_items(f, keys, writes, false);
	ok(wrong == 0 && most < 4 * keys + ITEMS_SPARE * 5 / 4,
	   "while nothing is removed: %llu items at most", (unsigned long long)most);
	ok_int(f->keyspace->keys_with_expiry, 2 * keys, "nothing was");
	ok(is_whole(f), "and each key has one");
	keyspace_hold_expiry(f->keyspace, true);
	keyspace_set_active_expire(f->keyspace, true);
	most = 0;
	for (unsigned i = 0; i < writes; i++) {
		wrong += !set_one(f, i % keys, fixture_wall_ms + YEAR_MS + i % 3);
		(void)expire_turn(f->keyspace, now_ns);
		if (i % 100 == 99) {
			fixture_durable(f);
		}
		pass(MS_NS);
		uint64_t items = f->keyspace->expire.wheel.items;
		most = items > most ? items : most;
	}
	ok(wrong == 0 && most < 4 * keys + ITEMS_SPARE * 5 / 4, "held: %llu",
	   (unsigned long long)most);
	ok_int(f->keyspace->keys_with_expiry, 2 * keys, "nothing was removed");
	keyspace_hold_expiry(f->keyspace, false);
	pass(20 * MS_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys_with_expiry, keys, "then what is due goes");
	ok(is_whole(f), "and the others are known");
	ok(keyspace_flush(f->keyspace) == KEYSPACE_OK, "FLUSHALL");
}

// Wall time is set back by half a second, which is borne with, in the middle of a slot's keys: what
// is left of them was due, and is not any more.
static void test_due_no_more(struct fixture *f)
{
	enum { MANY = 5000 };
	unsigned wrong = 0;
	for (unsigned i = 0; i < MANY; i++) {
		wrong += !set_one(f, i, fixture_wall_ms + 2000);
	}
	pass(2100 * MS_NS);
	for (unsigned i = 0; i < TURNS_MAX && f->keyspace->keys == MANY; i++) {
		(void)expire_turn(f->keyspace, now_ns);
		pass(100000);
	}
	uint64_t left = f->keyspace->keys;
	ok(wrong == 0 && left > MANY / 2 && left < MANY, "some of %u keys have gone", MANY);
	fixture_wall_ms -= 500;
	for (unsigned i = 0; i < 200; i++) {
		pass(MS_NS);
		(void)expire_turn(f->keyspace, now_ns);
	}
	ok_u64(f->keyspace->keys, left, "G: no other goes before its time has come once more");
	ok(is_whole(f), "and each is known");
	pass(600 * MS_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, 0, "then they do");
}

static struct fixture *crowded;
static unsigned crowded_next; // the key that goes next

// Making room takes a key out of the table, as eviction does.
static void evict_one(void)
{
	struct keyspace *keyspace = crowded->keyspace;
	char name[16];
	struct kvs_hit hit;
	int n = snprintf(name, sizeof(name), "%u", crowded_next);
	uint64_t hash = keyspace_hash(keyspace, name, (size_t)n);
	crowded_next += 7;
	if (keyspace_find(keyspace, hash, name, (size_t)n, &hit) == KVS_FIND_HIT) {
		(void)keyspace_version_gone(keyspace, &hit);
		kvs_table_remove(&keyspace->table, hash, hit.slot);
	}
}

// The walk that fills the index finds no room to remove what is due, while others are evicted.
static void test_walk_without_room(void)
{
	struct fixture f;
	static struct kvs_reader_page page;
	int owner = 0;
	unsigned keys = 0;
	fixture_open_sized(&f, false, 6, FIXTURE_MEMORY_BYTES / 2, true);
	f.keyspace->seam = &expire_seam;
	crowded = &f;
	struct kvs_epoch_page *entry = kvs_epoch_add(&f.epochs, &page, &owner);
	while (entry != NULL && set_one(&f, keys, fixture_wall_ms + 1000)) {
		keys++;
	}
	(void)kvs_epoch_enter(&page.slot[0], &f.region.header->hot, true);
	expire_lose(f.keyspace);
	pass(1100 * MS_NS);
	meanwhile = evict_one;
	for (unsigned i = 0; i < TURNS_MAX && f.keyspace->expire.partial; i++) {
		pass(2 * MS_NS);
		(void)expire_turn(f.keyspace, now_ns);
	}
	meanwhile = NULL;
	ok(!f.keyspace->expire.partial && f.keyspace->keys_with_expiry > keys / 2,
	   "a walk fills the index; of %u due keys %llu find no room to go", keys,
	   (unsigned long long)f.keyspace->keys_with_expiry);
	ok(crowded_next > 7, "and some are evicted meanwhile");
	ok(is_whole(&f), "it knows each key that is left");
	(void)kvs_epoch_leave(&page.slot[0], &f.region.header->hot);
	for (unsigned i = 0; i < 5000 && f.keyspace->keys_with_expiry > 0; i++) {
		pass(2 * MS_NS);
		cleaner_turn(f.keyspace, now_ns);
	}
	ok_int(f.keyspace->keys_with_expiry, 0, "and when there is room all of them go");
	kvs_epoch_remove(&f.epochs, entry);
	fixture_close(&f);
}

// Keys that stay and keys that go share segments: cleaning moves what stays.
static void test_moves(struct fixture *f)
{
	unsigned wrong = 0;
	unsigned keys = 20000;
	uint64_t copied = counted(f, KVS_COUNTER_cleaner_copied_bytes);
	for (unsigned i = 0; i < keys; i++) {
		wrong += !set_one(f, i, i % 3 == 0 ? fixture_wall_ms + 100000 : 0);
	}
	for (unsigned i = 0; i < keys; i++) {
		wrong += i % 3 != 0 && !delete_one(f, i);
	}
	for (unsigned i = 0; i < 2000; i++) {
		pass(10 * MS_NS);
		fixture_durable(f);
	}
	ok_int(wrong, 0, "keys are written, and most are removed");
	ok(counted(f, KVS_COUNTER_cleaner_copied_bytes) > copied, "the others are moved");
	ok_int(f->keyspace->keys_with_expiry, (keys + 2) / 3, "none is lost by that");
	ok(is_whole(f), "each is known where it is now");
	pass(101000 * MS_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, 0, "and all go when their time comes");
}

// A commit makes the removals of very many keys durable: they are followed in slices, and until
// that is done nothing that their tombstones stand in is cleaned.
static void test_durable(struct fixture *f)
{
	enum { MANY = 5000 };
	unsigned wrong = 0, turns_taken = 0;
	for (unsigned i = 0; i < MANY; i++) {
		wrong += !set_one(f, i, fixture_wall_ms + 1000);
	}
	fixture_durable(f);
	pass(2000 * MS_NS);
	(void)turns(f);
	ok_int(wrong + f->keyspace->keys, 0, "many keys are written, and end");
	ok_int(f->keyspace->pending.count, MANY, "the removals wait for their commit");
	uint64_t entries = f->keyspace->table.entries;
	kvs_store_release(&f->region.header->marks.durable_seq, keyspace_last_seq(f->keyspace));
	bool more = keyspace_follow_durable(f->keyspace);
	ok(more && f->keyspace->pending.count > MANY / 2, "then some of them are worked off");
	uint64_t seen = f->keyspace->durable_seen;
	ok(seen < kvs_limbo_at(&f->keyspace->pending, 0)->stamp,
	   "what is left does not count as durable yet");
	for (; more && turns_taken < MANY; turns_taken++) {
		pass(MS_NS);
		cleaner_turn(f->keyspace, now_ns);
		more = f->keyspace->pending.count > 0;
		wrong += more && cleaner_next_ns(f->keyspace) > now_ns;
	}
	ok(turns_taken > 2, "and the rest in further turns");
	ok_int(wrong, 0, "each of which follows at once");
	ok_u64(f->keyspace->durable_seen, keyspace_last_seq(f->keyspace), "until all is done");
	ok_u64(f->keyspace->table.entries, entries - MANY, "no tombstone is left in the table");
}

int main(void)
{
	struct fixture f;
	for (unsigned persisted = 0; persisted < 2; persisted++) {
		open_fixture(&f, persisted != 0, 3);
		test_due(&f);
		test_stale(&f);
		fixture_close(&f);
		open_fixture(&f, persisted != 0, 4);
		test_bound(&f);
		test_bound_while_still(&f);
		test_moves(&f);
		test_due_no_more(&f);
		fixture_close(&f);
		if (persisted) {
			open_fixture(&f, true, 5);
			test_durable(&f);
			fixture_close(&f);
		}
	}
	test_walk_without_room();
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// Values that leave memory and come back: nothing that is known of a key changes by it, nothing
// that must not leave does, and what comes back late takes no newer version's place.
#include "daemon/keyspace_promote.h"

#include <unistd.h>

#include "shm/adopt.h"
#include "tests/daemon/keyspace_fixture.h"

#define KEYS 240u
#define BLOCK 1000u

static uint64_t judged; // as a persister would have it

struct known {
	uint64_t keys, with_expiry, live_bytes, owned_bytes, owned_keys, changes, last_seq;
};

static struct known know(const struct fixture *f)
{
	struct keyspace_owned owned = keyspace_owned(f->keyspace, 1);
	return (struct known){
		.keys = keyspace_count(f->keyspace),
		.with_expiry = keyspace_count_with_expiry(f->keyspace),
		.live_bytes = keyspace_live_bytes(f->keyspace),
		.owned_bytes = owned.bytes,
		.owned_keys = owned.keys,
		.changes = keyspace_changes(f->keyspace),
		.last_seq = keyspace_last_seq(f->keyspace),
	};
}

static bool knows_the_same(const struct fixture *f, const struct known *before)
{
	struct known now = know(f);
	return memcmp(&now, before, sizeof(now)) == 0;
}

// Compaction comes to a value while it is being made a stub: at the labelled point.
static uint64_t judged_then; // 0 = it does not

void __wrap_seam_crash_slow(enum seam_crash_point point);
void __wrap_seam_crash_slow(enum seam_crash_point point)
{
	if (point == SEAM_CRASH_stub_published && judged_then != 0) {
		kvs_store_release(&judged, judged_then);
	}
}

static size_t key_of(char key[16], unsigned i)
{
	return (size_t)snprintf(key, 16, "key:%u", i);
}

// Every eighth is large: more than a quarter of a segment.
static size_t bytes_of(unsigned i)
{
	return i % 8 == 7 ? 20000 + i : 100 + i;
}

static uint64_t expiry_of(unsigned i)
{
	return i % 3 == 0 ? fixture_wall_ms + 1000000 : 0;
}

static const unsigned char *value_of(unsigned i)
{
	static unsigned char value[32768];
	memset(value, (int)(i % 251) + 1, bytes_of(i));
	return value;
}

static struct kvs_hit hit_of(const struct fixture *f, unsigned i)
{
	char key[16];
	size_t bytes = key_of(key, i);
	struct kvs_hit hit = { 0 };
	uint64_t hash = keyspace_hash(f->keyspace, key, bytes);
	if (keyspace_find(f->keyspace, hash, key, bytes, &hit) != KVS_FIND_HIT) {
		hit.view.seq = 0;
	}
	return hit;
}

static uint64_t place_of(unsigned i)
{
	return kvs_place_make(BLOCK + i, 48);
}

// The persister's part, and what it leaves in the records.
static void make_durable(struct fixture *f)
{
	for (unsigned i = 0; i < KEYS; i++) {
		struct kvs_hit hit = hit_of(f, i);
		if (hit.view.seq != 0) {
			kvs_store_relaxed((uint64_t *)(uintptr_t)&hit.view.record->place,
					  place_of(i));
		}
	}
	fixture_durable(f);
}

static bool set_one(struct fixture *f, unsigned i)
{
	char key[16];
	return keyspace_set(f->keyspace, key, key_of(key, i), value_of(i), bytes_of(i),
			    expiry_of(i), NULL) == KEYSPACE_OK;
}

static enum keyspace_cold_result spill_one(struct fixture *f, unsigned i)
{
	char key[16];
	return keyspace_spill(f->keyspace, key, key_of(key, i));
}

static enum keyspace_cold_result promote(const struct fixture *f, const char *key, size_t key_bytes,
					 uint64_t seq, const void *value, size_t value_bytes)
{
	const struct keyspace_loaded loaded = { key, key_bytes, seq, value, value_bytes };
	struct keyspace_promotion promotion = { 0 };
	return keyspace_promote(f->keyspace, &loaded, &promotion, UINT64_MAX);
}

static enum keyspace_cold_result promote_one(struct fixture *f, unsigned i, uint64_t seq)
{
	char key[16];
	return promote(f, key, key_of(key, i), seq, value_of(i), bytes_of(i));
}

static bool is_value(const struct fixture *f, unsigned i)
{
	struct kvs_hit hit = hit_of(f, i);
	return hit.view.seq == i + 1 && hit.value != NULL && hit.view.value_bytes == bytes_of(i) &&
	       hit.view.expiry_ms == expiry_of(i) && kvs_record_crc_ok(&hit.view) &&
	       kvs_record_writer(hit.view.record) == 1 &&
	       memcmp(hit.value, value_of(i), bytes_of(i)) == 0;
}

static bool is_stub(const struct fixture *f, unsigned i, uint64_t place)
{
	struct kvs_hit hit = hit_of(f, i);
	return hit.view.seq == i + 1 && hit.kind == KVS_ENTRY_STUB && hit.value == NULL &&
	       hit.view.value_bytes == bytes_of(i) && hit.view.expiry_ms == expiry_of(i) &&
	       kvs_record_crc_ok(&hit.view) && kvs_record_writer(hit.view.record) == 1 &&
	       kvs_record_time_ms(hit.view.record) == fixture_wall_ms &&
	       kvs_load_relaxed(&hit.view.record->place) == place;
}

static unsigned count_values(const struct fixture *f)
{
	unsigned count = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		count += is_value(f, i);
	}
	return count;
}

static unsigned count_stubs(const struct fixture *f)
{
	unsigned count = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		count += is_stub(f, i, place_of(i));
	}
	return count;
}

static void turn_until_quiet(struct fixture *f)
{
	for (unsigned turns = 0; turns < 20000; turns++) {
		cleaner_turn(f->keyspace, fixture_monotonic_ns());
		if (cleaner_next_ns(f->keyspace) == UINT64_MAX) {
			return;
		}
	}
}

static void open_filled(struct fixture *f)
{
	static struct keyspace_writer writer = { .uid = 1000 };
	unsigned wrong = 0;
	judged = BLOCK - 1;
	fixture_open_sized(f, true, 9, 16u << 20, false);
	writer.index = keyspace_writer_index(f->keyspace, writer.uid);
	keyspace_set_writer(f->keyspace, &writer);
	keyspace_set_judged(f->keyspace, &judged);
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += !set_one(f, i);
	}
	ok_u64(wrong, 0, "%u keys", KEYS);
}

static unsigned spill_all(struct fixture *f)
{
	unsigned done = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		done += spill_one(f, i) == KEYSPACE_COLD_DONE;
	}
	return done;
}

static void count_visit(void *context, const void *key, size_t key_bytes,
			const struct keyspace_value *value)
{
	(void)key;
	(void)key_bytes;
	*(unsigned *)context += value->value == NULL;
}

static void test_there_and_back(void)
{
	struct fixture f;
	open_filled(&f);
	make_durable(&f);
	struct known before = know(&f);
	uint64_t used = keyspace_used_bytes(f.keyspace);
	ok_u64(spill_all(&f), KEYS, "all leave memory");
	ok_u64(count_stubs(&f), KEYS, "each leaves a stub of its version");
	ok_u64(keyspace_count_stubs(f.keyspace), KEYS, "which are counted");
	ok(knows_the_same(&f, &before), "nothing that is counted of keys and users changes");
	ok(spill_one(&f, 5) == KEYSPACE_COLD_OTHER, "what is a stub already stays one");
	unsigned seen = 0;
	uint64_t cursor = 0;
	do {
		cursor = keyspace_scan(f.keyspace, cursor, count_visit, &seen);
	} while (cursor != 0);
	ok_u64(seen, KEYS, "walks see them");
	turn_until_quiet(&f);
	ok(keyspace_used_bytes(f.keyspace) < used / 3, "%" PRIu64 " bytes become %" PRIu64, used,
	   keyspace_used_bytes(f.keyspace));
	ok_u64(count_stubs(&f), KEYS, "cleaning moves stubs with their places");
	unsigned done = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		done += promote_one(&f, i, i + 1) == KEYSPACE_COLD_DONE;
	}
	ok_u64(done, KEYS, "all come back");
	ok_u64(count_values(&f), KEYS, "as they were");
	ok(knows_the_same(&f, &before) && keyspace_count_stubs(f.keyspace) == 0, "and all counts");
	ok(promote_one(&f, 5, 6) == KEYSPACE_COLD_OTHER, "what is back does not come back");
	ok_u64(spill_all(&f), KEYS, "their places are known as before");
	fixture_close(&f);
}

static void test_refusals(void)
{
	struct fixture f;
	char key[16];
	open_filled(&f);
	ok(spill_one(&f, 3) == KEYSPACE_COLD_UNDURABLE, "E: nothing leaves that is not durable");
	make_durable(&f);
	(void)set_one(&f, 3);
	ok(spill_one(&f, 3) == KEYSPACE_COLD_UNDURABLE, "E: nor a version that is not");
	ok(spill_one(&f, KEYS) == KEYSPACE_COLD_OTHER, "nor a key that is not there");
	(void)keyspace_delete(f.keyspace, key, key_of(key, 4));
	ok(spill_one(&f, 4) == KEYSPACE_COLD_OTHER, "nor a removal");
	(void)keyspace_set(f.keyspace, "empty", 5, "", 0, 0, NULL);
	fixture_durable(&f);
	ok(keyspace_spill(f.keyspace, "empty", 5) == KEYSPACE_COLD_SMALL, "nor what is too small");
	judged = BLOCK + 10;
	ok(spill_one(&f, 10) == KEYSPACE_COLD_UNPLACED && is_value(&f, 10),
	   "nor what compaction is at");
	ok(spill_one(&f, 11) == KEYSPACE_COLD_DONE, "what is behind that does");
	keyspace_set_judged(f.keyspace, NULL);
	ok(spill_one(&f, 12) == KEYSPACE_COLD_OTHER, "nothing without a store");
	fixture_close(&f);
}

// A load that ends after its key has got another version, or none.
static void test_late(void)
{
	struct fixture f;
	char key[16];
	struct keyspace_value value;
	open_filled(&f);
	make_durable(&f);
	(void)spill_all(&f);
	ok(promote_one(&f, 1, 3) == KEYSPACE_COLD_OTHER, "another version does not come back");
	ok(promote(&f, key, key_of(key, 1), 2, value_of(1), bytes_of(1) - 1) == KEYSPACE_COLD_OTHER,
	   "nor another length");
	(void)keyspace_set(f.keyspace, key, key_of(key, 1), "newer", 5, 0, NULL);
	ok(promote_one(&f, 1, 2) == KEYSPACE_COLD_OTHER, "nor one over a newer");
	ok(keyspace_get(f.keyspace, key, key_of(key, 1), &value) == KEYSPACE_OK &&
		   value.value_bytes == 5,
	   "which stays");
	ok(keyspace_move(f.keyspace, key, key_of(key, 1), 2, 77) == KEYSPACE_COLD_OTHER,
	   "a move is not its either");
	(void)keyspace_delete(f.keyspace, key, key_of(key, 2));
	ok(promote_one(&f, 2, 3) == KEYSPACE_COLD_OTHER, "nor over a removal");
	ok_u64(keyspace_count_stubs(f.keyspace), KEYS - 2, "stubs that are no more");
	fixture_wall_ms += 2000000;
	keyspace_tick(f.keyspace);
	ok(keyspace_get(f.keyspace, key, key_of(key, 3), &value) == KEYSPACE_ABSENT,
	   "a stub expires");
	ok(promote_one(&f, 3, 4) == KEYSPACE_COLD_OTHER, "and does not come back");
	turn_until_quiet(&f);
	ok_u64(keyspace_count_with_expiry(f.keyspace), 0, "so do all others");
	fixture_wall_ms -= 2000000;
	ok_int(keyspace_flush(f.keyspace), KEYSPACE_OK, "FLUSHALL");
	ok(keyspace_count_stubs(f.keyspace) == 0 && keyspace_live_bytes(f.keyspace) == 0 &&
		   keyspace_owned(f.keyspace, 1).bytes == 0,
	   "takes stubs with it");
	fixture_close(&f);
}

static void test_moved(void)
{
	struct fixture f;
	char key[16];
	open_filled(&f);
	make_durable(&f);
	(void)spill_all(&f);
	ok(keyspace_move(f.keyspace, key, key_of(key, 6), 7, place_of(600)) == KEYSPACE_COLD_DONE &&
		   is_stub(&f, 6, place_of(600)),
	   "compaction moves a record");
	ok(promote_one(&f, 6, 7) == KEYSPACE_COLD_DONE && spill_one(&f, 6) == KEYSPACE_COLD_DONE &&
		   is_stub(&f, 6, place_of(600)),
	   "its value takes the place along");
	ok(keyspace_move(f.keyspace, key, key_of(key, 7), 9, 1) == KEYSPACE_COLD_OTHER,
	   "another version's move is none");
	fixture_close(&f);
}

// What does not fit beside what writes want stays where it is.
static void test_no_room(void)
{
	struct fixture f;
	char key[16];
	unsigned more = 1000;
	open_filled(&f);
	make_durable(&f);
	(void)spill_all(&f);
	while (keyspace_set(f.keyspace, key, key_of(key, more), value_of(100), 16000, 0, NULL) ==
	       KEYSPACE_OK) {
		more++;
		fixture_durable(&f);
	}
	struct known before = know(&f);
	ok(promote_one(&f, 7, 8) == KEYSPACE_COLD_NO_ROOM && is_stub(&f, 7, place_of(7)),
	   "G: %u more keys leave no room for a value", more - 1000);
	unsigned back = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		back += i % 8 != 7 && promote_one(&f, i, i + 1) == KEYSPACE_COLD_DONE;
	}
	ok(knows_the_same(&f, &before) && back + keyspace_count_stubs(f.keyspace) == KEYS,
	   "%u small ones come back beside them", back);
	fixture_close(&f);
}

static void test_behind_compaction(void)
{
	struct fixture f;
	open_filled(&f);
	make_durable(&f);
	struct known before = know(&f);
	seam_crash_armed = 1;
	judged_then = BLOCK + 15;
	ok(spill_one(&f, 15) == KEYSPACE_COLD_UNPLACED && is_value(&f, 15),
	   "a value that compaction may have seen as one stays");
	judged = BLOCK - 1;
	judged_then = BLOCK + 15;
	ok(spill_one(&f, 16) == KEYSPACE_COLD_DONE && is_stub(&f, 16, place_of(16)),
	   "one behind it leaves");
	seam_crash_armed = 0;
	ok(knows_the_same(&f, &before) && keyspace_count_stubs(f.keyspace) == 1 &&
		   count_values(&f) == KEYS - 1,
	   "and all counts");
	turn_until_quiet(&f);
	ok(is_stub(&f, 16, place_of(16)) && count_values(&f) == KEYS - 1, "cleaned, too");
	fixture_close(&f);
}

// Every other value is a stub, and somebody else takes the region over.
static void open_left(struct fixture *f, struct kvs_region *region)
{
	open_filled(f);
	make_durable(f);
	for (unsigned i = 0; i < KEYS; i += 2) {
		(void)spill_one(f, i);
	}
	struct kvs_region_options options = { .memory_bytes = 16u << 20,
					      .segment_bytes = FIXTURE_SEGMENT_BYTES,
					      .fenced = true };
	ok_int(kvs_region_adopt(region, dup(f->region.fd), &options), KVS_REGION_OK, "a region");
}

// A region with stubs is taken over with all its counts; one that cannot be is damage.
static void test_adopted(void)
{
	struct fixture f;
	struct kvs_region region;
	struct kvs_adopt plan;
	open_left(&f, &region);
	ok_int(kvs_adopt_plan(&plan, &region, KEYS), 0, "with stubs can be taken over");
	ok_u64(plan.stubs, KEYS / 2, "with its stubs");
	ok_u64(plan.live_bytes, keyspace_live_bytes(f.keyspace), "its live bytes");
	ok_u64(plan.owners[1].bytes, keyspace_owned(f.keyspace, 1).bytes, "and its users'");
	ok_u64(plan.damaged_count, 0, "nothing is damaged");
	ok_u64(plan.stubs_astray, 0, "all of which know their places, as far as is known");
	kvs_adopt_fini(&plan);
	ok(kvs_adopt_plan_beside(&plan, &region, KEYS, BLOCK + 10, UINT64_MAX) == 0 &&
		   plan.stubs_astray == 5 && plan.values_beyond == 0,
	   "those before the store's first block do not");
	kvs_adopt_fini(&plan);
	struct kvs_hit hit = hit_of(&f, 8);
	kvs_store_relaxed((uint64_t *)(uintptr_t)&hit.view.record->place, 0);
	ok(kvs_adopt_plan(&plan, &region, KEYS) == 0 && plan.damaged_count == 1,
	   "a stub without a place is damage: its value comes from the store");
	kvs_adopt_fini(&plan);
	ok(kvs_adopt_plan(&plan, &region, KEYS / 2) == 0 && plan.damaged_count >= KEYS / 4,
	   "so is one that is not durable");
	kvs_adopt_fini(&plan);
	kvs_region_close(&region);
	fixture_close(&f);
}

// Places that a commit gave that failed, of values that were durable before it: the store has no
// such blocks yet, and will have others of these numbers.
static void test_places_beyond(void)
{
	struct fixture f;
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct kvs_adopt plan;
	struct fixture next = { 0 };
	open_left(&f, &region);
	uint64_t next_block = BLOCK + KEYS - 9;
	ok_int(kvs_adopt_plan_beside(&plan, &region, KEYS, BLOCK, next_block), 0, "taken over");
	ok_u64(plan.values_beyond, 5, "values in memory name blocks that are not there");
	kvs_epoch_init(&epochs, &region.header->hot, true);
	struct keyspace_options keyspace = { .seam = f.keyspace->seam,
					     .region = &region,
					     .epochs = &epochs,
					     .persisted = true,
					     .value_bytes_max = FIXTURE_VALUE_BYTES_MAX };
	next.keyspace = keyspace_adopt(&keyspace, &plan);
	kvs_adopt_fini(&plan);
	unsigned placed = 0, unplaced = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		struct kvs_hit hit = hit_of(&next, i);
		uint64_t place = kvs_load_relaxed(&hit.view.record->place);
		placed += place == place_of(i);
		unplaced += place == 0 && i % 2 == 1 && BLOCK + i >= next_block;
	}
	ok(unplaced == 5 && placed == KEYS - 5, "E: none of them does any more");
	keyspace_destroy(next.keyspace);
	kvs_epoch_fini(&epochs);
	kvs_region_close(&region);
	fixture_close(&f);
}

int main(void)
{
	test_there_and_back();
	test_refusals();
	test_late();
	test_moved();
	test_no_room();
	test_behind_compaction();
	test_adopted();
	test_places_beyond();
	return tap_done();
}

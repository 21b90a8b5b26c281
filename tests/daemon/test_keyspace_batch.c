// SPDX-License-Identifier: MIT
//
// Batches that come back to a key. At every point at which a batch has changed something (the
// labelled crash points, caught by the linker) all keys are looked up as a process that maps the
// region would: each must have the value from before the batch or the one behind it (A), whatever
// the batch made of the key on the way. And what is never published must leave nothing behind: no
// entry, no count, no page of a large value longer than the persister needs it (G).
#include "tests/daemon/keyspace_fixture.h"

#define KEYS 5u
#define OPS_MAX 14u
#define LARGE_BYTES 20000u
#define VALUE_BYTES_MAX 30000u

struct model {
	uint64_t number; // the value begins with it; 0 = absent
	uint64_t seq;
	uint64_t expiry_ms;
	uint32_t bytes;
};

struct rig {
	struct fixture fixture;
	struct keyspace *keyspace; // the fixture's
	struct keyspace_writer writer;
	struct model before[KEYS];
	struct model after[KEYS];
	uint64_t random;
	uint64_t number;
	uint64_t looks, wrong;
	uint64_t changes;
	bool watching; // crash points are looked at
	unsigned ended;
};

static struct rig *watched;

static const char *key_name(unsigned index)
{
	static const char *const names[KEYS] = { "a", "bb", "ccc", "a-longer-key", "e" };
	return names[index];
}

static uint64_t number_of(const void *value)
{
	uint64_t number;
	memcpy(&number, value, sizeof(number));
	return number;
}

// What a get finds.
static uint64_t table_number(const struct rig *rig, unsigned index)
{
	const char *key = key_name(index);
	const struct kvs_map *map = &rig->fixture.region.map;
	struct kvs_hit hit;
	bool there = kvs_table_find(map, kvs_map_hash(map, key, strlen(key)), key, strlen(key),
				    &hit) == KVS_FIND_HIT;
	return there && hit.kind != KVS_ENTRY_TOMBSTONE ? number_of(hit.value) : 0;
}

void __wrap_seam_crash_slow(enum seam_crash_point point);
void __wrap_seam_crash_slow(enum seam_crash_point point)
{
	struct rig *rig = watched;
	if (rig == NULL || !rig->watching) {
		return;
	}
	for (unsigned i = 0; i < KEYS; i++) {
		uint64_t number = table_number(rig, i);
		rig->looks++;
		if (number != rig->before[i].number && number != rig->after[i].number &&
		    rig->wrong++ == 0) {
			tap_diag("%s was %" PRIu64 ", becomes %" PRIu64 ", is %" PRIu64
				 " at point %d",
				 key_name(i), rig->before[i].number, rig->after[i].number, number,
				 (int)point);
		}
	}
}

static void note_ended(void *context, enum keyspace_end why, const void *key, size_t key_bytes)
{
	(void)why;
	(void)key;
	(void)key_bytes;
	((struct rig *)context)->ended++;
}

static void rig_open(struct rig *rig, bool persisted, uint64_t seed)
{
	memset(rig, 0, sizeof(*rig));
	fixture_open(&rig->fixture, persisted, seed);
	rig->keyspace = rig->fixture.keyspace;
	rig->random = seed;
	rig->writer.uid = 77;
	rig->writer.index = keyspace_writer_index(rig->keyspace, 77);
	keyspace_set_writer(rig->keyspace, &rig->writer);
	keyspace_listen(rig->keyspace, note_ended, rig);
	watched = rig;
	seam_crash_armed = 1;
}

static void rig_close(struct rig *rig)
{
	seam_crash_armed = 0;
	watched = NULL;
	fixture_close(&rig->fixture);
}

static void become_durable(struct rig *rig)
{
	for (unsigned i = 0; i < 8; i++) {
		fixture_durable(&rig->fixture);
	}
}

// ---- one op each; what the model has then ----

static void do_set_until(struct rig *rig, unsigned index, uint32_t bytes, uint64_t expiry_ms)
{
	static unsigned char value[VALUE_BYTES_MAX];
	struct model *model = &rig->after[index];
	*model = (struct model){ ++rig->number, 0, expiry_ms, bytes };
	memcpy(value, &rig->number, sizeof(rig->number));
	const char *key = key_name(index);
	if (keyspace_set(rig->keyspace, key, strlen(key), value, bytes, expiry_ms, &model->seq) !=
	    KEYSPACE_OK) {
		rig->wrong++;
	}
	rig->changes++;
}

static void do_set(struct rig *rig, unsigned index, uint32_t bytes)
{
	do_set_until(rig, index, bytes, 0);
}

static void do_delete(struct rig *rig, unsigned index)
{
	const char *key = key_name(index);
	bool there = rig->after[index].number != 0;
	int result = keyspace_delete(rig->keyspace, key, strlen(key));
	rig->wrong += result != (there ? KEYSPACE_OK : KEYSPACE_ABSENT);
	rig->changes += there;
	rig->after[index] = (struct model){ 0 };
}

static void do_expire(struct rig *rig, unsigned index, uint64_t expiry_ms)
{
	const char *key = key_name(index);
	bool there = rig->after[index].number != 0;
	int result = keyspace_expire(rig->keyspace, key, strlen(key), expiry_ms);
	rig->wrong += result != (there ? KEYSPACE_OK : KEYSPACE_ABSENT);
	rig->changes += there;
	rig->after[index].seq = 0; // another one, not told
	rig->after[index].expiry_ms = there ? expiry_ms : 0;
}

static void do_rename(struct rig *rig, unsigned from, unsigned to)
{
	const char *key = key_name(from);
	const char *other = key_name(to);
	if (from == to || rig->after[from].number == 0) {
		return;
	}
	rig->wrong += keyspace_rename_copy(rig->keyspace, key, strlen(key), other, strlen(other)) !=
		      KEYSPACE_OK;
	rig->changes++;
	rig->after[to] = rig->after[from];
	rig->after[to].seq = 0;
	do_delete(rig, from);
}

static void do_flush(struct rig *rig)
{
	rig->wrong += keyspace_flush(rig->keyspace) != KEYSPACE_OK;
	rig->changes++;
	memset(rig->after, 0, sizeof(rig->after));
}

static void begin(struct rig *rig)
{
	memcpy(rig->before, rig->after, sizeof(rig->before));
	keyspace_batch_begin(rig->keyspace);
}

static int commit(struct rig *rig)
{
	rig->watching = true;
	int result = keyspace_batch_commit(rig->keyspace);
	rig->watching = false;
	return result;
}

// ---- everything that is counted, against a fresh look ----

struct recount {
	const struct rig *rig;
	uint64_t live_bytes, keys, keys_with_expiry, entries, owned_bytes, large;
};

static void recount_visit(void *context, uint64_t entry)
{
	struct recount *recount = context;
	struct kvs_hit hit;
	recount->entries++;
	if (kvs_table_load(&recount->rig->fixture.region.map, entry, &hit) != KVS_FIND_HIT) {
		return;
	}
	bool large = hit.kind == KVS_ENTRY_LARGE;
	uint64_t bytes = hit.view.record_bytes + (large ? hit.view.value_bytes : UINT64_C(0));
	recount->live_bytes += bytes;
	recount->large += large;
	if (hit.kind != KVS_ENTRY_TOMBSTONE) {
		recount->keys++;
		recount->owned_bytes += bytes;
		recount->keys_with_expiry += hit.view.expiry_ms != 0;
	}
}

static uint64_t segments_live_bytes(const struct rig *rig)
{
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < rig->fixture.region.segments_count_max; i++) {
		bytes += rig->keyspace->log.segments[i].live_bytes;
	}
	return bytes;
}

static struct recount recount_all(const struct rig *rig)
{
	struct recount recount = { .rig = rig };
	uint64_t cursor = 0;
	do {
		cursor = kvs_table_scan(&rig->fixture.region.map, cursor, recount_visit, &recount);
	} while (cursor != 0);
	return recount;
}

static uint64_t large_bytes_of(const struct recount *recount, const struct rig *rig)
{
	uint64_t bytes = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		const struct model *model = &rig->after[i];
		bytes += model->number != 0 && model->bytes >= LARGE_BYTES ? model->bytes : 0u;
	}
	return recount->live_bytes - bytes;
}

static bool counts_agree(const struct rig *rig)
{
	const struct keyspace *keyspace = rig->keyspace;
	struct recount recount = recount_all(rig);
	struct keyspace_owned owned = keyspace_owned(keyspace, rig->writer.index);
	bool agree = recount.keys == keyspace->keys && recount.live_bytes == keyspace->live_bytes &&
		     recount.keys_with_expiry == keyspace->keys_with_expiry &&
		     recount.entries == keyspace->table.entries && owned.keys == recount.keys &&
		     owned.bytes == recount.owned_bytes &&
		     segments_live_bytes(rig) == large_bytes_of(&recount, rig) &&
		     keyspace->changes == rig->changes;
	if (!agree) {
		tap_diag("keys %" PRIu64 "/%" PRIu64 " live %" PRIu64 "/%" PRIu64
			 " entries %" PRIu64 "/%" PRIu64 " owned %" PRIu64 "/%" PRIu64
			 " segments %" PRIu64 " changes %" PRIu64 "/%" PRIu64,
			 recount.keys, keyspace->keys, recount.live_bytes, keyspace->live_bytes,
			 recount.entries, keyspace->table.entries, recount.owned_bytes, owned.bytes,
			 segments_live_bytes(rig), rig->changes, keyspace->changes);
	}
	return agree;
}

static bool values_agree(const struct rig *rig)
{
	bool agree = true;
	for (unsigned i = 0; i < KEYS; i++) {
		const struct model *model = &rig->after[i];
		struct keyspace_value value;
		bool there = keyspace_get(rig->keyspace, key_name(i), strlen(key_name(i)),
					  &value) == KEYSPACE_OK;
		agree = agree && there == (model->number != 0);
		agree = agree && (!there || (number_of(value.value) == model->number &&
					     value.value_bytes == model->bytes &&
					     value.expiry_ms == model->expiry_ms &&
					     (model->seq == 0 || value.seq == model->seq)));
	}
	return agree;
}

static uint32_t random_bytes(struct rig *rig)
{
	uint64_t dice = tap_random(&rig->random);
	return dice % 8 == 0 ? LARGE_BYTES + (uint32_t)(dice >> 32) % 10000
			     : 8 + (uint32_t)(dice >> 32) % 200;
}

static void random_op(struct rig *rig)
{
	unsigned index = (unsigned)(tap_random(&rig->random) % KEYS);
	uint64_t dice = tap_random(&rig->random) % 32;
	if (dice < 14) {
		do_set(rig, index, random_bytes(rig));
	} else if (dice < 22) {
		do_delete(rig, index);
	} else if (dice < 26) {
		do_expire(rig, index, dice % 2 == 0 ? 0 : fixture_wall_ms + 100000);
	} else if (dice < 31) {
		do_rename(rig, index, (unsigned)(tap_random(&rig->random) % KEYS));
	} else {
		do_flush(rig);
	}
}

static void test_random(bool persisted, uint64_t seed, unsigned rounds)
{
	static struct rig rig;
	unsigned disagree = 0;
	unsigned committed = 0;
	rig_open(&rig, persisted, seed);
	for (unsigned round = 0; round < rounds && disagree + rig.wrong == 0; round++) {
		uint64_t changes = rig.changes;
		begin(&rig);
		for (uint64_t n = tap_random(&rig.random) % OPS_MAX; n > 0; n--) {
			random_op(&rig);
		}
		if (commit(&rig) != KEYSPACE_OK) { // no room before something is durable
			memcpy(rig.after, rig.before, sizeof(rig.after));
			rig.changes = changes;
			become_durable(&rig);
			continue;
		}
		committed++;
		disagree += !counts_agree(&rig) || !values_agree(&rig);
		if (tap_random(&rig.random) % 8 == 0) {
			become_durable(&rig);
		}
	}
	const char *policy = persisted ? "persisted" : "memory";
	ok_u64(rig.wrong, 0, "A: a get sees what was before a batch or what is behind it, %s",
	       policy);
	ok_u64(disagree, 0, "G: values, versions and counts are those of the last ops, %s", policy);
	ok(committed > rounds / 2 && rig.looks > rounds * KEYS, "%u batches, %" PRIu64 " looks",
	   committed, rig.looks);
	become_durable(&rig);
	struct recount recount = recount_all(&rig);
	ok_u64(rig.keyspace->unpersisted_large_bytes, 0, "no large value waits for a commit");
	ok_u64(recount.entries, recount.keys, "no removal outlives its durability");
	ok(rig.keyspace->large.runs_count <= recount.large,
	   "G: no large value outlives its record");
	ok_u64(rig.keyspace->pending.count + rig.keyspace->limbo.lost, 0, "nothing waits");
	rig_close(&rig);
}

// ---- single stories ----

static void test_gone_again(void)
{
	static struct rig rig;
	rig_open(&rig, true, 3);
	begin(&rig);
	do_set(&rig, 0, 10);
	do_delete(&rig, 0);
	do_set(&rig, 1, LARGE_BYTES);
	do_delete(&rig, 1);
	ok_int(commit(&rig), KEYSPACE_OK, "keys that come and go in one batch");
	ok_u64(rig.keyspace->table.entries, 0, "no entry is left of them");
	ok_u64(rig.keyspace->live_bytes + rig.keyspace->keys, 0, "and nothing is counted");
	ok_u64(keyspace_last_seq(rig.keyspace), 4, "each of their ops has a version");
	ok_u64(*kvs_counter_word(rig.fixture.region.base, KVS_COUNTER_writes_applied), 4,
	       "and is counted");
	ok_u64(keyspace_written(rig.keyspace).keys, 2, "so are the two values");
	ok(keyspace_written(rig.keyspace).bytes > LARGE_BYTES, "with all their bytes");
	ok_u64(rig.wrong, 0, "nobody saw one");
	rig_close(&rig);
}

// The persister writes each record with its value, whether it was published or not.
static void test_large(void)
{
	static struct rig rig;
	rig_open(&rig, true, 4);
	begin(&rig);
	do_set(&rig, 0, LARGE_BYTES);
	do_set(&rig, 0, LARGE_BYTES + 1);
	do_set(&rig, 0, 10);
	ok_int(commit(&rig), KEYSPACE_OK, "large values that give way in their own batch");
	ok_u64(rig.keyspace->unpersisted_large_bytes, 2 * LARGE_BYTES + 1,
	       "both wait for the commit");
	for (unsigned i = 0; i < 8; i++) {
		cleaner_turn(rig.keyspace, fixture_monotonic_ns());
	}
	ok_u64(rig.keyspace->large.runs_count, 2, "until then their pages stay");
	become_durable(&rig);
	ok_u64(rig.keyspace->unpersisted_large_bytes, 0, "then none waits");
	ok_u64(rig.keyspace->large.runs_count, 0, "and their pages are free");
	begin(&rig);
	do_set(&rig, 0, LARGE_BYTES);
	ok_int(commit(&rig), KEYSPACE_OK, "one that stays");
	begin(&rig);
	do_expire(&rig, 0, fixture_wall_ms + 100000);
	do_rename(&rig, 0, 1);
	do_rename(&rig, 1, 2);
	ok_int(commit(&rig), KEYSPACE_OK, "and goes from name to name");
	become_durable(&rig);
	ok(rig.keyspace->large.runs_count == 1 && values_agree(&rig), "is one value with one name");
	begin(&rig);
	do_expire(&rig, 2, 0);
	do_delete(&rig, 2);
	ok_int(commit(&rig), KEYSPACE_OK, "it is changed and removed");
	become_durable(&rig);
	ok_u64(rig.keyspace->large.runs_count, 0, "and nothing is left of it");
	ok_u64(rig.wrong, 0, "nobody saw what was in between");
	rig_close(&rig);
}

static void test_expired(void)
{
	static struct rig rig;
	rig_open(&rig, true, 5);
	do_set_until(&rig, 0, 10, fixture_wall_ms + 5);
	do_set_until(&rig, 1, 10, fixture_wall_ms + 5);
	fixture_wall_ms += 10;
	keyspace_tick(rig.keyspace);
	begin(&rig);
	do_set(&rig, 0, 10);
	do_set(&rig, 0, 10);
	do_set(&rig, 1, 10);
	do_delete(&rig, 1);
	ok_int(commit(&rig), KEYSPACE_OK, "a batch takes the place of two keys that had ended");
	ok_u64(rig.ended, 2, "each end is told once, that of a key which goes at once too");
	ok_u64(*kvs_counter_word(rig.fixture.region.base, KVS_COUNTER_keys_expired), 2,
	       "and counted");
	ok(counts_agree(&rig) && values_agree(&rig), "what is left is right");
	do_set_until(&rig, 0, 10, fixture_wall_ms + 5);
	do_set_until(&rig, 1, 10, fixture_wall_ms + 5);
	fixture_wall_ms += 10;
	keyspace_tick(rig.keyspace);
	begin(&rig);
	do_set(&rig, 0, 10);
	do_set(&rig, 0, 10);
	do_flush(&rig);
	do_set(&rig, 0, 10);
	do_set(&rig, 1, 10);
	do_flush(&rig);
	ok_int(commit(&rig), KEYSPACE_OK, "a batch with such a key and FLUSHALLs");
	ok_u64(rig.ended, 3, "its end is told once, not that of one which comes behind the first");
	do_set_until(&rig, 2, 10, fixture_wall_ms + 5);
	fixture_wall_ms += 10;
	keyspace_tick(rig.keyspace);
	begin(&rig);
	(void)values_agree(&rig); // reads it
	ok(!values_agree(&rig), "it is read twice in a batch");
	do_flush(&rig);
	ok_int(commit(&rig), KEYSPACE_OK, "and flushed");
	ok_u64(rig.ended, 4, "its end is told once");
	rig_close(&rig);
}

// Two keys of one bucket: what comes again takes no place of its own.
static void test_same_bucket(void)
{
	static struct rig rig;
	char names[2][16];
	unsigned found = 0;
	uint64_t bucket = 0;
	rig_open(&rig, true, 6);
	const struct keyspace *keyspace = rig.keyspace;
	for (unsigned i = 0; found < 2; i++) {
		char name[16];
		int bytes = snprintf(name, sizeof(name), "key-%u", i);
		uint64_t index = kvs_bucket_index(keyspace_hash(keyspace, name, (size_t)bytes),
						  keyspace->table.buckets);
		bucket = found == 0 ? index : bucket;
		if (index == bucket) {
			memcpy(names[found++], name, sizeof(name));
		}
	}
	keyspace_batch_begin(rig.keyspace);
	for (unsigned i = 0; i < 4000; i++) {
		const char *name = names[i % 2];
		(void)keyspace_set(rig.keyspace, name, strlen(name), "12345678", 8, 0, NULL);
	}
	ok_int(keyspace_batch_commit(rig.keyspace), KEYSPACE_OK,
	       "a batch that goes to and fro between keys of one bucket");
	ok_u64(rig.keyspace->table.entries, 2, "gives each its entry");
	rig_close(&rig);
}

int main(void)
{
	uint64_t seed = tap_seed(1);
	unsigned rounds = tap_rounds(3000, 200);
	test_gone_again();
	test_large();
	test_expired();
	test_same_bucket();
	test_random(false, seed, rounds);
	test_random(true, seed + 1, rounds);
	return tap_done();
}

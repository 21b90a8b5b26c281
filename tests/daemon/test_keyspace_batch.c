// SPDX-License-Identifier: MIT
//
// Batches that come back to a key, at random and in single stories: whatever a batch makes of a key
// on the way (tests/daemon/batch_fixture.h has what is looked at).
#include "tests/daemon/batch_fixture.h"

#define OPS_MAX 14u

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

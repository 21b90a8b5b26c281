// SPDX-License-Identifier: MIT
//
// A keyspace, a model of its keys, and ops that change both. At every point at which a batch has
// changed something (the labelled crash points, caught by the linker) all keys are looked up as a
// process that maps the region would: each must have the value from before the batch or the one
// behind it (A). And what is never published must leave nothing behind: no entry, no count, no page
// of a large value longer than the persister needs it (G).
#pragma once

#include "tests/daemon/keyspace_fixture.h"

#define KEYS 5u
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

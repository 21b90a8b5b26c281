// SPDX-License-Identifier: MIT
//
// The scripts: sets, removals, batches, large values, splits and merges, commits with cleaning,
// FLUSHALL, evictions, keys whose time has come, a bound that moves, values that leave memory, are
// moved in the store and come back, large values that are moved out of the way, memory that goes
// back, and a table that is given another hash key, on keys that share a bucket at first.
#include "tests/daemon/step_script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cleaner.h"
#include "daemon/keyspace_promote.h"
#include "daemon/log.h"
#include "tests/tap/tap.h"

#define LARGE_BYTES (SCRIPT_SEGMENT / 4 + 5000)
#define OPERATIONS_A_SCRIPT 60u
#define KINDS 30u // of operations
#define KIND_MOVE 24u
#define KIND_RETURN 25u
#define FREE_BULKS 120u // a segment each ten of them
#define RESEED_SLICES 100u

static uint64_t step_wall(void)
{
	return 1800000000000;
}

uint64_t script_monotonic_ns(void)
{
	static uint64_t ns;
	return ns += 2000000; // every look is two milliseconds later: scans are always due
}

static void step_random(void *out, size_t bytes)
{
	static unsigned char next;
	unsigned char *at = out;
	for (size_t i = 0; i < bytes; i++) {
		at[i] = (unsigned char)(next += 47);
	}
}

static const struct seam step_seam = { .monotonic_ns = script_monotonic_ns,
				       .wall_ms = step_wall,
				       .random_bytes = step_random };

struct keyspace_options script_options(struct world *w)
{
	return (struct keyspace_options){ .seam = &step_seam,
					  .region = &w->region,
					  .epochs = &w->epochs,
					  .persisted = true,
					  .revoke_ms = 5000,
					  .revoke_min_ms = 50,
					  .value_bytes_max = 1u << 20 };
}

void script_bail(const char *what)
{
	printf("Bail out! %s\n", what);
	exit(99);
}

static void world_open(struct world *w, bool prefault)
{
	struct kvs_region_options options = { .memory_bytes = SCRIPT_MEMORY,
					      .memory_bytes_max = SCRIPT_MEMORY,
					      .segment_bytes = SCRIPT_SEGMENT,
					      .instance_id = 1,
					      .hash_key = { 7 },
					      .fenced = true };
	memset(w, 0, sizeof(*w));
	if (kvs_region_create(&w->region, &options) != KVS_REGION_OK) {
		script_bail("no region");
	}
	kvs_epoch_init(&w->epochs, &w->region.header->hot, true);
	struct keyspace_options keyspace = script_options(w);
	keyspace.prefault = prefault;
	w->keyspace = keyspace_create(&keyspace);
	if (w->keyspace == NULL || keyspace_prefault(w->keyspace) != 0) {
		script_bail("no keyspace");
	}
	(void)keyspace_recover_finish(w->keyspace, 0, false);
	kvs_region_go_alive(&w->region);
}

static int child_set(struct script *s, struct world *w, unsigned i, size_t bytes)
{
	static unsigned char value[LARGE_BYTES];
	uint32_t number = ++s->next;
	memcpy(value, &number, sizeof(number));
	s->maybe[i] = number;
	s->pending = true;
	return keyspace_set(w->keyspace, s->keys[i], strlen(s->keys[i]), value, bytes, 0, NULL);
}

static void child_delete(struct script *s, struct world *w, unsigned i)
{
	s->maybe[i] = 0;
	s->pending = true;
	(void)keyspace_delete(w->keyspace, s->keys[i], strlen(s->keys[i]));
}

// Every second one comes back to two keys again and again: only the last of each may be seen.
static void child_batch(struct script *s, struct world *w)
{
	uint32_t maybe[SCRIPT_KEYS];
	memcpy(maybe, s->sure, sizeof(maybe));
	bool repeats = tap_random(&s->random) % 2 == 0;
	unsigned first = (unsigned)(tap_random(&s->random) % SCRIPT_KEYS);
	s->counts[7] += repeats;
	keyspace_batch_begin(w->keyspace);
	for (unsigned n = 0; n < 5; n++) {
		unsigned i = (unsigned)(tap_random(&s->random) % (repeats ? 2 : SCRIPT_KEYS));
		i = (first + i) % SCRIPT_KEYS;
		if (repeats && tap_random(&s->random) % 16 == 0) {
			memset(s->maybe, 0, sizeof(s->maybe));
			(void)keyspace_flush(w->keyspace);
		}
		if (tap_random(&s->random) % 3 == 0) {
			child_delete(s, w, i);
		} else {
			bool large = repeats && tap_random(&s->random) % 32 == 0;
			(void)child_set(s, w, i,
					large ? LARGE_BYTES : 4 + tap_random(&s->random) % 100);
		}
	}
	if (keyspace_batch_commit(w->keyspace) != KEYSPACE_OK) {
		memcpy(s->maybe, maybe, sizeof(maybe));
	}
}

// A value leaves memory, or comes back. Its place says which it was: the store is not there.
static void child_cold(struct script *s, struct world *w, unsigned i)
{
	static unsigned char value[LARGE_BYTES];
	const char *key = s->keys[i];
	size_t bytes = strlen(key);
	uint64_t hash = keyspace_hash(w->keyspace, key, bytes);
	struct kvs_hit hit;
	if (keyspace_find(w->keyspace, hash, key, bytes, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE) {
		return;
	}
	if (hit.kind == KVS_ENTRY_STUB) {
		uint32_t number = script_stub_number(&hit);
		memcpy(value, &number, sizeof(number));
		const struct keyspace_loaded loaded = { key, bytes, hit.view.seq, value,
							hit.view.value_bytes };
		struct keyspace_promotion promotion = { 0 };
		while (keyspace_promote(w->keyspace, &loaded, &promotion, 0) ==
		       KEYSPACE_COLD_MORE) {
		}
		return;
	}
	kvs_store_relaxed((uint64_t *)(uintptr_t)&hit.view.record->place,
			  kvs_place_make(s->sure[i], 48));
	script_durable(w);
	s->counts[8] += keyspace_spill(w->keyspace, key, bytes) == KEYSPACE_COLD_DONE;
}

// A key goes by itself: it is evicted, or its time has come.
static void child_end(struct script *s, struct world *w, unsigned i, bool evicted)
{
	const char *key = s->keys[i];
	size_t bytes = strlen(key);
	uint64_t hash = keyspace_hash(w->keyspace, key, bytes);
	struct kvs_hit hit;
	if (keyspace_find(w->keyspace, hash, key, bytes, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || (evicted && hit.kind == KVS_ENTRY_STUB)) {
		return;
	}
	s->maybe[i] = 0;
	s->pending = true;
	bool gone;
	if (evicted) {
		gone = evict_record(w->keyspace, &hit.view, hash) == EVICT_DONE;
		evict_window_over(w->keyspace);
	} else {
		gone = keyspace_expire_now(w->keyspace, hash, key, bytes);
	}
	s->maybe[i] = gone ? 0 : s->sure[i];
	s->counts[9 + evicted] += gone;
}

// Compaction has taken the record of a value elsewhere in the store.
static void child_place(struct script *s, struct world *w, unsigned i)
{
	const char *key = s->keys[i];
	size_t bytes = strlen(key);
	uint64_t hash = keyspace_hash(w->keyspace, key, bytes);
	uint64_t place = kvs_place_make(s->sure[i], 48 + 8 * (tap_random(&s->random) % 1000));
	struct kvs_hit hit;
	if (keyspace_find(w->keyspace, hash, key, bytes, &hit) == KVS_FIND_HIT) {
		s->counts[SCRIPT_PLACES] += keyspace_move(w->keyspace, key, bytes, hit.view.seq,
							  place) == KEYSPACE_COLD_DONE;
	}
}

static uint64_t counted(const struct world *w, enum kvs_counter counter)
{
	return kvs_load_relaxed(kvs_counter_word(w->region.base, counter));
}

// Not stepped: a large value that is in the way of another, which nobody has set, is copied to
// where it is moved. What follows is one step.
static void child_scatter(struct script *s, struct world *w, unsigned i)
{
	struct kvs_large *large = &w->keyspace->large;
	struct mover *mover = &w->keyspace->mover;
	struct kvs_hit hit;
	int result = child_set(s, w, i, LARGE_BYTES);
	s->sure[i] = result == KEYSPACE_OK ? s->maybe[i] : s->sure[i];
	s->pending = false;
	script_durable(w);
	if (result != KEYSPACE_OK ||
	    fixture_find(&w->region.map, s->keys[i], strlen(s->keys[i]), &hit) != KVS_FIND_HIT ||
	    hit.kind != KVS_ENTRY_LARGE) {
		return;
	}
	uint64_t run = kvs_record_run(&hit.view).offset;
	mover->search.run_bytes_max = kvs_large_run_bytes(large, run);
	kvs_large_want(large, mover->search.run_bytes_max, &mover->search);
	kvs_large_keep_clear(large, run);
	mover->asked_ns = script_monotonic_ns();
	for (unsigned n = 0; n < 8 && (mover->from == 0 || mover->done < mover->value_bytes); n++) {
		(void)mover_turn(w->keyspace, mover->asked_ns);
	}
}

static void child_move(struct script *s, struct world *w)
{
	uint64_t before = counted(w, KVS_COUNTER_large_moved);
	uint64_t now_ns = w->keyspace->mover.asked_ns;
	for (unsigned n = 0; n < 4 && w->keyspace->mover.from != 0; n++) {
		(void)mover_turn(w->keyspace, now_ns);
	}
	s->counts[SCRIPT_MOVES] += counted(w, KVS_COUNTER_large_moved) - before;
	(void)mover_turn(w->keyspace, UINT64_MAX); // nobody waits any more
}

// What is free, and was for a while, loses its pages.
static void child_return(struct script *s, struct world *w)
{
	uint64_t before = counted(w, KVS_COUNTER_memory_returned_bytes);
	keyspace_set_memory_return(w->keyspace, 1);
	for (unsigned n = 0; n < 6; n++) {
		(void)memory_return_turn(w->keyspace, script_monotonic_ns());
	}
	keyspace_set_memory_return(w->keyspace, 0);
	s->counts[SCRIPT_RETURNS] += counted(w, KVS_COUNTER_memory_returned_bytes) > before;
}

// Slices of a rebuild of the table, which may end with them; what else happens goes on between.
static void child_reseed(struct script *s, struct world *w)
{
	uint64_t before = counted(w, KVS_COUNTER_table_reseeds);
	w->keyspace->table.crowded = !w->keyspace->reseed.running;
	for (uint64_t n = 1 + tap_random(&s->random) % RESEED_SLICES; n > 0; n--) {
		(void)reseed_turn(w->keyspace, script_monotonic_ns());
	}
	s->counts[SCRIPT_RESEEDS] += counted(w, KVS_COUNTER_table_reseeds) - before;
}

// The bound falls by what is free, or rises at once.
static void child_bound(struct script *s, struct world *w)
{
	uint64_t bytes = SCRIPT_MEMORY - tap_random(&s->random) % (SCRIPT_MEMORY / 3);
	if (bytes >= keyspace_memory_least(w->keyspace, false)) {
		keyspace_set_memory(w->keyspace, bytes);
		s->counts[11]++;
	}
	(void)keyspace_resize_turn(w->keyspace, script_monotonic_ns());
}

static void child_resize(struct kvs_table *table)
{
	if (table->buckets > table->buckets_min) {
		(void)step_force_merge(table);
	} else {
		(void)step_force_split(table);
	}
}

void script_durable(struct world *w)
{
	kvs_store_release(&w->region.header->marks.durable_seq, keyspace_last_seq(w->keyspace));
	for (unsigned i = 0; i < 3; i++) {
		cleaner_turn(w->keyspace, script_monotonic_ns());
	}
	uint64_t bytes = SCRIPT_SEGMENT;
	(void)cleaner_slice(w->keyspace, &bytes, UINT64_MAX, 95);
}

// An entry that names a record which is not written yet: what must never happen.
static void child_mutant(struct script *s, struct world *w)
{
	struct keyspace_op op = { .kind = KEYSPACE_OP_SET,
				  .key = s->keys[0],
				  .key_bytes = (uint32_t)strlen(s->keys[0]),
				  .value = "1234",
				  .value_bytes = 4 };
	op.hash = keyspace_hash(w->keyspace, op.key, op.key_bytes);
	keyspace_op_measure(w->keyspace, &op);
	if (keyspace_make_room(w->keyspace, op.record_bytes, op.record_bytes, 0,
			       KEYSPACE_FOR_WRITE) == KEYSPACE_OK) {
		op.seq = w->keyspace->log.next_seq;
		(void)kvs_log_append(&w->keyspace->log, op.record_bytes, &op.offset);
		keyspace_op_publish(w->keyspace, &op);
	}
}

// What memory does by itself.
static void child_memory(struct script *s, struct world *w, unsigned kind, unsigned i)
{
	if (kind == KIND_MOVE) {
		child_move(s, w);
	} else if (kind == KIND_RETURN) {
		child_return(s, w);
	} else if (kind == KIND_MOVE + 2) {
		child_place(s, w, i);
	} else {
		child_reseed(s, w);
	}
}

static void child_operation(struct script *s, struct world *w, unsigned kind, unsigned i)
{
	memcpy(s->maybe, s->sure, sizeof(s->maybe));
	if (s->mutant) {
		child_mutant(s, w);
	} else if (kind < 5) {
		s->counts[0]++;
		(void)child_set(s, w, i, 4 + tap_random(&s->random) % 60);
	} else if (kind < 6 && tap_random(&s->random) % 8 == 0) {
		s->counts[1]++;
		(void)child_set(s, w, i, LARGE_BYTES);
	} else if (kind < 8) {
		s->counts[2]++;
		child_delete(s, w, i);
	} else if (kind < 11) {
		s->counts[3]++;
		child_batch(s, w);
	} else if (kind < 13) {
		s->counts[4]++;
		child_resize(&w->keyspace->table);
	} else if (kind >= KIND_MOVE) {
		child_memory(s, w, kind, i);
	} else if (kind >= 23) {
		child_bound(s, w);
	} else if (kind >= 20) {
		child_end(s, w, i, kind > 20);
	} else if (kind >= 16) {
		child_cold(s, w, i);
	} else if (kind < 15 || tap_random(&s->random) % 4 != 0) {
		s->counts[5]++;
		script_durable(w);
	} else {
		s->counts[6]++;
		memset(s->maybe, 0, sizeof(s->maybe));
		s->pending = true;
		(void)keyspace_flush(w->keyspace);
	}
	memcpy(s->sure, s->maybe, sizeof(s->sure)); // one of the two was true so far
	s->pending = false;
}

// Not stepped: what makes heads roll and segments worth cleaning.
static void child_bulk(struct world *w, uint64_t count)
{
	static const unsigned char bulk[6000];
	for (; count > 0; count--) {
		(void)keyspace_set(w->keyspace, "bulk", 4, bulk, sizeof(bulk), 0, NULL);
	}
}

// Nor is this: what has to be there for the operation.
static void child_prepare(struct script *s, struct world *w, unsigned kind, unsigned i)
{
	child_bulk(w, tap_random(&s->random) % 8);
	if (kind == KIND_MOVE && !s->mutant) {
		child_scatter(s, w, i);
	} else if (kind == KIND_RETURN) {
		child_bulk(w, FREE_BULKS);
		for (unsigned n = 0; n < FREE_BULKS / 8; n++) {
			script_durable(w);
		}
	}
}

void script_run(void *context)
{
	struct script *s = context;
	struct world w;
	static const uint64_t judged = 0;
	log_set_least(LOG_LEVEL_WARNING); // not each bound
	bool prefault = tap_random(&s->random) % 2 == 0;
	world_open(&w, prefault);
	s->counts[SCRIPT_PREFAULTS] = prefault;
	keyspace_set_judged(w.keyspace, &judged);
	step_colliding_keys(&w.keyspace->table, s->keys);
	memset(s->sure, 0, sizeof(s->sure));
	s->region_fd = w.region.fd;
	s->region = (struct step_watch){ .at = w.region.base, .bytes = w.region.bytes };
	step_mark(); // the parent maps the region
	for (unsigned n = 0; n < OPERATIONS_A_SCRIPT; n++) {
		unsigned kind = (unsigned)(tap_random(&s->random) % KINDS);
		unsigned i = (unsigned)(tap_random(&s->random) % SCRIPT_KEYS);
		child_prepare(s, &w, kind, i);
		s->stepping = true;
		step_mark();
		child_operation(s, &w, kind, i);
		s->stepping = false;
		step_mark();
	}
	step_mark();
}

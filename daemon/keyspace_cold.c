// SPDX-License-Identifier: MIT
//
// Stubs and values are copied to survivor segments, as the cleaner copies records, and for the same
// reason: only new versions stand in the log's heads. The old record is dead from then on, and
// stays for who reads it until its segment's grace period is over.
//
// The one thing that may go wrong is compaction. It looks records up, appends those that are
// current anew, and deletes the block; and it tells the new place of what it saw to be a stub. If
// it saw the value, and a stub with the old place was published behind its back, the value would be
// lost. So it says which block it looks at before it looks anything up (persist_judged()), and a
// stub is looked at once more after it is published:
//
//     writer                              persister
//     entry = stub                        judged = block
//     full fence                          full fence
//     place above judged? else undo       entry: stub or value?
//
// One of the two sees what the other stored.
#include "daemon/keyspace_cold.h"

#include <string.h>

#include "daemon/keyspace_internal.h"
#include "daemon/keyspace_promote.h"

// Of a segment: so much is to leave memory and has no place, then all of the store is looked
// through; and not again for some times as long as that took.
#define UNPLACED_SHARE 4u
#define UNPLACED_PAUSE_TIMES 3u
#define UNPLACED_PAUSE_NS UINT64_C(1000000000) // at most

void keyspace_set_judged(struct keyspace *keyspace, const uint64_t *judged)
{
	keyspace->judged = judged;
}

uint64_t keyspace_count_stubs(const struct keyspace *keyspace)
{
	return keyspace->stubs;
}

uint64_t keyspace_stubs_astray(const struct keyspace *keyspace)
{
	return keyspace->stubs_astray;
}

void keyspace_stub_leaves(struct keyspace *keyspace, const struct kvs_record_view *view)
{
	// Relaxed: this thread's.
	keyspace->stubs_astray -=
		keyspace->stubs_astray > 0 &&
		kvs_place_block(kvs_load_relaxed(&view->record->place)) < keyspace->first_block;
}

void keyspace_set_fetch(struct keyspace *keyspace, keyspace_fetch *fetch, void *context)
{
	keyspace->fetch = fetch;
	keyspace->fetch_context = context;
}

int keyspace_met_cold(struct keyspace *keyspace)
{
	keyspace->looks |= KEYSPACE_MET_COLD;
	if (keyspace->damage != NULL) {
		keyspace->damage->met |= KEYSPACE_MET_COLD;
	}
	return KEYSPACE_COLD;
}

void keyspace_cold_over(struct keyspace *keyspace)
{
	keyspace->looks &= (uint8_t)~KEYSPACE_MET_COLD;
	if (keyspace->damage != NULL) {
		keyspace->damage->met &= (uint8_t)~KEYSPACE_MET_COLD;
	}
}

int keyspace_fetch_value(struct keyspace *keyspace, const struct kvs_record_view *stub,
			 struct keyspace_value *value)
{
	void *fetcher = keyspace->slice != NULL ? keyspace->slice->fetcher : NULL;
	value->value = keyspace->fetch == NULL
			       ? NULL
			       : keyspace->fetch(keyspace->fetch_context, fetcher, stub);
	return value->value != NULL ? KEYSPACE_OK : keyspace_met_cold(keyspace);
}

// The entry of a key that has a value, or a stub of one.
static bool find(struct keyspace *keyspace, const void *key, size_t key_bytes, uint64_t *hash,
		 struct kvs_hit *hit)
{
	*hash = keyspace_hash(keyspace, key, key_bytes);
	return keyspace_find(keyspace, *hash, key, key_bytes, hit) == KVS_FIND_HIT &&
	       hit->kind != KVS_ENTRY_TOMBSTONE;
}

bool keyspace_find_stub(struct keyspace *keyspace, const void *key, size_t key_bytes, uint64_t seq,
			uint64_t *hash, struct kvs_hit *hit)
{
	return find(keyspace, key, key_bytes, hash, hit) && hit->kind == KVS_ENTRY_STUB &&
	       hit->view.seq == seq;
}

// Can the place be relied on? Acquire: it was the last word before (partner: persist_judged()).
static bool place_holds(const struct keyspace *keyspace, uint64_t place)
{
	return kvs_place_block(place) > kvs_load_acquire(keyspace->judged);
}

static enum keyspace_cold_result may_spill(const struct keyspace *keyspace,
					   const struct kvs_hit *hit)
{
	const struct kvs_record_view *view = &hit->view;
	if (hit->kind == KVS_ENTRY_STUB || keyspace->judged == NULL) {
		return KEYSPACE_COLD_OTHER;
	}
	// Nor has a backup passed it by then, which follows the log with the persister.
	if (view->seq > keyspace->durable_seen && !keyspace->recover_spills) {
		return KEYSPACE_COLD_UNDURABLE;
	}
	int has_expiry = (view->flags & KVS_RECORD_EXPIRY) != 0;
	if (kvs_record_stub_bytes(view->key_bytes, has_expiry) >= view->record_bytes &&
	    (view->flags & KVS_RECORD_LARGE) == 0) {
		return KEYSPACE_COLD_SMALL;
	}
	// Relaxed: written before it was durable (partner: persist_append()).
	uint64_t place = kvs_load_relaxed(&view->record->place);
	return place_holds(keyspace, place) ? KEYSPACE_COLD_DONE : KEYSPACE_COLD_UNPLACED;
}

void keyspace_count_copy(struct keyspace *keyspace, const struct kvs_hit *hit, uint64_t offset,
			 uint32_t record_bytes)
{
	kvs_log_live_sub(&keyspace->log, kvs_entry_offset(hit->entry), hit->view.record_bytes);
	kvs_log_live_add(&keyspace->log, offset, record_bytes);
	expire_moved(keyspace, offset, hit->view.expiry_ms);
}

// What a value takes: its record, and its run.
static uint64_t memory_bytes(const struct keyspace *keyspace, const struct kvs_record_view *view)
{
	bool large = (view->flags & KVS_RECORD_LARGE) != 0;
	return view->record_bytes +
	       (large ? kvs_large_bytes(keyspace->region, view->value_bytes) : UINT64_C(0));
}

static void free_run(struct keyspace *keyspace, const struct kvs_hit *hit)
{
	if ((hit->view.flags & KVS_RECORD_LARGE) == 0) {
		return;
	}
	uint64_t run = kvs_record_run(&hit->view).offset;
	if (kvs_large_unref(&keyspace->large, run)) {
		// Older versions that name it are durable, as this one is: only readers may look.
		keyspace_limbo_run(keyspace, run);
	}
}

// Puts a stub into the place of what `hit` is.
static enum keyspace_cold_result leave_stub(struct keyspace *keyspace, const struct kvs_hit *hit,
					    uint64_t hash)
{
	uint64_t to;
	enum keyspace_cold_result may = may_spill(keyspace, hit);
	if (may != KEYSPACE_COLD_DONE) {
		return may;
	}
	uint64_t place = kvs_load_relaxed(&hit->view.record->place); // as in may_spill()
	uint32_t bytes = kvs_record_stub_bytes(hit->view.key_bytes, hit->view.expiry_ms != 0);
	void *at = kvs_log_append_survivor(&keyspace->log, bytes, hit->view.seq, &to);
	if (at == NULL) {
		return KEYSPACE_COLD_NO_ROOM;
	}
	(void)kvs_record_write_stub(at, &hit->view, place);
	kvs_table_replace(&keyspace->table, hash, hit->slot,
			  kvs_entry_make(hash, KVS_ENTRY_STUB, bytes, to));
	SEAM_CRASH(stub_published);
	kvs_fence_full(); // partner: the persister's, behind its word
	if (!place_holds(keyspace, place)) {
		// It may have been seen as a value. Nothing has happened but that.
		kvs_table_replace(&keyspace->table, hash, hit->slot, hit->entry);
		return KEYSPACE_COLD_UNPLACED;
	}
	keyspace_count_copy(keyspace, hit, to, bytes);
	keyspace->stubs++;
	keyspace->stubs_value_bytes += hit->view.value_bytes;
	keyspace_counter_add(keyspace, KVS_COUNTER_values_spilled, 1);
	keyspace_counter_add(keyspace, KVS_COUNTER_spilled_bytes,
			     memory_bytes(keyspace, &hit->view) - bytes);
	free_run(keyspace, hit);
	return KEYSPACE_COLD_DONE;
}

enum keyspace_cold_result keyspace_spill(struct keyspace *keyspace, const void *key,
					 size_t key_bytes)
{
	uint64_t hash;
	struct kvs_hit hit;
	return find(keyspace, key, key_bytes, &hash, &hit) ? leave_stub(keyspace, &hit, hash)
							   : KEYSPACE_COLD_OTHER;
}

// ---- by the cleaner, when memory is short ----

enum evict_result evict_spill(struct keyspace *keyspace, const struct kvs_record_view *view,
			      uint64_t hash)
{
	struct evict_state *evict = &keyspace->evict;
	struct kvs_hit hit;
	if (keyspace_find(keyspace, hash, view->key, view->key_bytes, &hit) != KVS_FIND_HIT ||
	    hit.view.record != view->record) {
		return EVICT_NO_ROOM;
	}
	switch (leave_stub(keyspace, &hit, hash)) {
	case KEYSPACE_COLD_DONE:
		break;
	case KEYSPACE_COLD_UNPLACED:
		evict->unplaced_bytes += memory_bytes(keyspace, view);
		return EVICT_NO_ROOM;
	default:
		return EVICT_NO_ROOM;
	}
	evict->judged_bytes += view->record_bytes;
	evict->run_went = evict->run_went || (view->flags & KVS_RECORD_LARGE) != 0;
	if (evict->probation) {
		heat_ghost_add(&evict->heat, hash); // as for a key that is evicted
	}
	return EVICT_DONE;
}

bool keyspace_follows_places(struct keyspace *keyspace)
{
	return keyspace->evict.spills && keyspace_wants_heat(keyspace);
}

void keyspace_halt_spill(struct keyspace *keyspace, bool halt)
{
	keyspace->evict.halted = halt;
}

// Are so many bytes without a place that one look at the whole store is worth it?
static bool much_is_unplaced(const struct keyspace *keyspace)
{
	return keyspace->evict.spills &&
	       keyspace->evict.unplaced_bytes >= keyspace->region->segment_bytes / UNPLACED_SHARE;
}

bool evict_awaits_places(const struct keyspace *keyspace)
{
	const struct evict_state *evict = &keyspace->evict;
	// All was judged and nothing went: without places to judge more is to copy it round.
	return evict->looking || (much_is_unplaced(keyspace) && !evict->halted &&
				  evict->barren > keyspace->log.full_count);
}

bool keyspace_wants_places(struct keyspace *keyspace, bool known, uint64_t now_ns)
{
	struct evict_state *evict = &keyspace->evict;
	if (evict->looking && known) {
		uint64_t pause_ns = (now_ns - evict->looked_ns) * UNPLACED_PAUSE_TIMES;
		evict->looking = false;
		evict->unplaced_bytes = 0; // those met before are placed
		evict->barren = 0;
		evict->look_ns =
			now_ns + (pause_ns < UNPLACED_PAUSE_NS ? pause_ns : UNPLACED_PAUSE_NS);
	}
	if (evict->looking || !known || !much_is_unplaced(keyspace) || now_ns < evict->look_ns) {
		return false;
	}
	evict->looking = true;
	evict->looked_ns = now_ns;
	return true;
}

enum keyspace_cold_result keyspace_move(struct keyspace *keyspace, const void *key,
					size_t key_bytes, uint64_t seq, uint64_t place)
{
	uint64_t hash;
	struct kvs_hit hit;
	if (!find(keyspace, key, key_bytes, &hash, &hit) || hit.view.seq != seq) {
		return KEYSPACE_COLD_OTHER;
	}
	if (hit.kind == KVS_ENTRY_STUB && kvs_place_block(place) >= keyspace->first_block) {
		keyspace_stub_leaves(keyspace, &hit.view);
	}
	// Outside the record's crc. Relaxed: it counts for this thread; the persister, which wrote
	// it before the version was durable, takes it for a hint.
	kvs_store_relaxed((uint64_t *)(uintptr_t)&hit.view.record->place, place);
	return KEYSPACE_COLD_DONE;
}

bool keyspace_stub_place(struct keyspace *keyspace, const void *key, size_t key_bytes, uint64_t seq,
			 uint64_t *place)
{
	uint64_t hash;
	struct kvs_hit hit;
	if (!keyspace_find_stub(keyspace, key, key_bytes, seq, &hash, &hit)) {
		return false;
	}
	*place = kvs_load_relaxed(&hit.view.record->place); // this thread's
	return true;
}

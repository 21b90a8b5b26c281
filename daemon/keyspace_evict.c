// SPDX-License-Identifier: MIT
//
// S3-FIFO in a log. New records stand in head segments, in the order in which they came: that is
// the queue on probation. What is read there is copied into survivor segments, the main part, and
// goes round in it for as long as it is read; what is not read goes, and a fingerprint of it stays
// for a while: if it comes back in that time it was worth keeping. Eviction is cleaning that
// declines to copy, so it costs no list, no lock and no word in a record.
//
// All shares below are from simulation (bench/hitratio): the best of those tried over Zipf's laws
// with and without scans, loops and public traces.
#include "daemon/keyspace_evict.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace_internal.h"

// So much of the last main victim was kept: probation gives next, and must be read more to stay.
#define EVICT_LITTLE_PERCENT 50u
#define EVICT_HOT_PERCENT 85u
// One unread record in so many stays: what comes round in a loop that is larger than the memory is
// never read in time, and of such keys some must stay for any to be hit.
#define EVICT_LOTTERY 64u
#define EVICT_GHOST_BYTES 128u	    // of memory for each ghost
#define EVICT_PASSES (HEAT_MAX + 1) // over all segments without a key that may go: there is none
#define EVICT_BARREN_VERSIONS 256u  // written since: there may be one again
#define EVICT_BARREN_NS UINT64_C(1000000000) // the same by time, where nothing can be written

bool keyspace_set_eviction(struct keyspace *keyspace, const struct keyspace_eviction *how)
{
	struct evict_state *evict = &keyspace->evict;
	const char *spared = how->never != NULL ? how->never : "";
	if (evict->on == how->on && evict->spills == how->spills &&
	    evict->volatile_only == how->volatile_only && evict->never != NULL &&
	    strcmp(evict->never, spared) == 0) {
		return true; // something else was set
	}
	char *never = strdup(spared);
	evict->on = false;
	evict->removes = false;
	if (evict->in_place) {
		keyspace->cleaner.victim = KVS_SEGMENT_NONE;
	}
	evict->judging = false; // else what is under way is copied
	evict->in_place = false;
	evict->hand.order = 0;
	keyspace->cleaner.none.next_seq = 0;
	if (never == NULL) {
		return false;
	}
	free(evict->never);
	evict->never = never;
	evict->volatile_only = how->volatile_only;
	evict->spills = how->spills;
	evict->barren = 0;
	if (!how->on) {
		heat_close(&evict->heat);
		return true;
	}
	const struct kvs_range_bounds *log = &keyspace->region->map.ranges[KVS_RANGE_LOG];
	if (evict->heat.counts == NULL && !heat_open(&evict->heat, log->offset, log->bytes_max,
						     keyspace->memory_bytes / EVICT_GHOST_BYTES)) {
		return false;
	}
	evict->on = true;
	evict->removes = !evict->spills;
	return true;
}

void evict_memory_rose(struct keyspace *keyspace)
{
	struct heat *heat = &keyspace->evict.heat;
	if (heat->counts != NULL) {
		heat_ghosts_grow(heat, keyspace->memory_bytes / EVICT_GHOST_BYTES);
	}
}

void evict_fini(struct evict_state *evict)
{
	heat_close(&evict->heat);
	free(evict->never);
}

// Is the bound on memory falling, and what is stored stands in its way?
static bool evict_is_over(const struct keyspace *keyspace)
{
	return keyspace_resize_wants(keyspace) > 0;
}

bool keyspace_wants_heat(struct keyspace *keyspace)
{
	const struct kvs_log *log = &keyspace->log;
	struct evict_state *evict = &keyspace->evict;
	uint64_t free = kvs_log_segments_free(log);
	// Where large values come and go much is free just before each of them.
	evict->pressed = evict->pressed &&
			 free < keyspace->memory_bytes >> (keyspace->region->segment_shift + 1);
	return evict->on && (evict->pressed || free < kvs_log_segments_allowed(log) / 4 ||
			     evict_is_over(keyspace));
}

void keyspace_warm(struct keyspace *keyspace, const uint64_t *hashes, size_t count)
{
	if (!keyspace->evict.on) {
		return;
	}
	for (size_t i = 0; i < count; i++) {
		kvs_table_prefetch_bucket(&keyspace->region->map, hashes[i]);
	}
	for (size_t i = 0; i < count; i++) {
		// Of two keys with one tag in a chain the first is taken for the other.
		const uint64_t *slot = kvs_table_slot_by_tag(&keyspace->table, hashes[i]);
		if (slot != NULL) {
			heat_warm(&keyspace->evict.heat, kvs_entry_offset(kvs_load_relaxed(slot)));
		}
	}
}

void keyspace_warm_key(struct keyspace *keyspace, const void *key, size_t key_bytes)
{
	if (keyspace->evict.on) {
		uint64_t hash = keyspace_hash(keyspace, key, key_bytes);
		keyspace_warm(keyspace, &hash, 1);
	}
}

bool evict_comes_first(const struct keyspace *keyspace)
{
	return cleaner_segments_coming(keyspace) + 1 <
	       keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
}

// Was each segment judged as often as it takes for heat to go, and nothing went? It may be
// otherwise after a while, and after some writes.
static bool evict_is_barren(const struct keyspace *keyspace)
{
	const struct evict_state *evict = &keyspace->evict;
	return evict->barren > keyspace->log.full_count * EVICT_PASSES &&
	       keyspace->log.next_seq - evict->barren_seq < EVICT_BARREN_VERSIONS &&
	       keyspace->seam->monotonic_ns() - evict->barren_ns < EVICT_BARREN_NS;
}

bool evict_may_help(const struct keyspace *keyspace)
{
	const struct evict_state *evict = &keyspace->evict;
	bool halted = evict->spills && (keyspace->judged == NULL || evict->halted);
	return evict->on && !halted && (!evict->volatile_only || keyspace->keys_with_expiry > 0) &&
	       !evict_is_barren(keyspace);
}

bool evict_is_possible(const struct keyspace *keyspace)
{
	return evict_may_help(keyspace) && !keyspace->batch.open && !evict_awaits_places(keyspace);
}

bool evict_is_wanted(const struct keyspace *keyspace)
{
	// What waits for the disk is a queue with a bound, and removals would join it.
	return evict_is_possible(keyspace) && !keyspace_waits_for_store(keyspace) &&
	       (evict_is_over(keyspace) || cleaner_is_short(keyspace));
}

static bool is_never_evicted(const char *never, const struct kvs_record_view *view)
{
	for (const char *at = never; *at != 0; at += strspn(at, " ")) {
		size_t bytes = strcspn(at, " ");
		if (bytes > 0 && bytes <= view->key_bytes && memcmp(at, view->key, bytes) == 0) {
			return true;
		}
		at += bytes;
	}
	return false;
}

bool evict_may_go(bool volatile_only, const char *never, const struct kvs_record_view *view)
{
	return (!volatile_only || view->expiry_ms != 0) && !is_never_evicted(never, view);
}

// splitmix64: no two segments in step with a loop.
static bool wins_lottery(struct evict_state *evict)
{
	uint64_t z = evict->random += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	return (z ^ (z >> 27)) % EVICT_LOTTERY == 0;
}

static bool is_spared(const struct evict_state *evict, const struct kvs_record_view *view)
{
	const struct keyspace_op *op = evict->spared;
	return op != NULL && op->key_bytes == view->key_bytes &&
	       memcmp(op->key, view->key, view->key_bytes) == 0;
}

bool evict_is_allowed(const struct keyspace *keyspace, const struct kvs_record_view *view)
{
	const struct evict_state *evict = &keyspace->evict;
	return evict_may_go(evict->volatile_only, evict->never, view) && !is_spared(evict, view);
}

enum keyspace_fate keyspace_judge(struct keyspace *keyspace, const struct kvs_record_view *view,
				  uint64_t offset)
{
	struct evict_state *evict = &keyspace->evict;
	if (is_spared(evict, view)) {
		evict->met_spared = true; // it may go when its command is over
		return KEYSPACE_KEEP;
	}
	if (!evict_is_allowed(keyspace, view)) {
		return KEYSPACE_KEEP;
	}
	if (evict->barren > keyspace->log.full_count) {
		return KEYSPACE_EVICT; // once round, and all of it was warm: something has to go
	}
	unsigned least = evict->probation && evict->main_was_hot ? 2 : 1;
	if (heat_of(&evict->heat, offset) >= least || (evict->probation && wins_lottery(evict))) {
		return KEYSPACE_KEEP;
	}
	return KEYSPACE_EVICT;
}

// Has the removal a record of its own in the log? Not where nobody follows it and the table is all
// there is: one record for those of a window is enough then, so that last_removal_seq has a version
// to name.
static bool needs_record(const struct keyspace *keyspace)
{
	return keyspace->persisted || keyspace->follower != NULL ||
	       keyspace->evict.removed_seq == 0;
}

// Is there room for the record of a removal?
static enum evict_result room_to_log(struct keyspace *keyspace, uint64_t record_bytes)
{
	if (!keyspace_has_versions(keyspace, 1)) {
		return EVICT_NO_ROOM;
	}
	int room = keyspace_room_now(keyspace, record_bytes, KEYSPACE_FOR_REMOVAL);
	if (room == KEYSPACE_OK) {
		return EVICT_DONE;
	}
	// Segments that wait for readers, and runs, come free whatever the cleaner does.
	bool coming = room == KEYSPACE_WAIT ||
		      cleaner_segments_coming(keyspace) > kvs_log_segments_free(&keyspace->log);
	return coming ? EVICT_WAIT : EVICT_NO_ROOM;
}

enum evict_result evict_record(struct keyspace *keyspace, const struct kvs_record_view *view,
			       uint64_t hash)
{
	struct evict_state *evict = &keyspace->evict;
	if (evict->spills) {
		return evict_spill(keyspace, view, hash);
	}
	struct keyspace_op op = {
		.kind = KEYSPACE_OP_DELETE,
		.purpose = KEYSPACE_FOR_REMOVAL,
		.record_flags = KVS_RECORD_EVICTED,
		.key = view->key,
		.key_bytes = view->key_bytes,
		.hash = hash,
		.seq = evict->removed_seq,
	};
	if (needs_record(keyspace)) {
		keyspace_op_measure(keyspace, &op);
		enum evict_result room = room_to_log(keyspace, op.record_bytes);
		if (room != EVICT_DONE) {
			return room;
		}
		keyspace_op_append(keyspace, &op, false);
		evict->removed_seq = op.seq;
	}
	evict->judged_bytes += view->record_bytes;
	evict->run_went = evict->run_went || (view->flags & KVS_RECORD_LARGE) != 0;
	keyspace_op_publish(keyspace, &op);
	SEAM_CRASH(evicted);
	if (evict->probation) {
		heat_ghost_add(&evict->heat, hash); // what left the main part had its time
	}
	keyspace_counter_add(keyspace, KVS_COUNTER_keys_evicted, 1);
	if (keyspace->ended) {
		keyspace->ended(keyspace->ended_context, KEYSPACE_END_EVICTED, view->key,
				view->key_bytes);
	}
	return EVICT_DONE;
}

void evict_window_over(struct keyspace *keyspace)
{
	if (keyspace->evict.removed_seq != 0) {
		keyspace->evict.removed_seq = 0;
		keyspace_publish_applied(keyspace);
	}
}

void evict_moved(struct keyspace *keyspace, uint64_t from, uint64_t to, uint32_t record_bytes)
{
	struct evict_state *evict = &keyspace->evict;
	if (!evict->on) {
		return;
	}
	unsigned count = heat_of(&evict->heat, from);
	if (evict->judging) {
		evict->judged_bytes += record_bytes;
		evict->kept_bytes += record_bytes;
		count -= count > 0;
	}
	heat_set(&evict->heat, to, count);
}

void evict_carried(struct keyspace *keyspace, uint64_t from, uint64_t to)
{
	struct heat *heat = &keyspace->evict.heat;
	if (keyspace->evict.on) {
		heat_set(heat, to, heat_of(heat, from));
	}
}

void evict_stayed(struct keyspace *keyspace, uint64_t offset, uint32_t record_bytes)
{
	struct evict_state *evict = &keyspace->evict;
	unsigned count = heat_of(&evict->heat, offset);
	evict->judged_bytes += record_bytes;
	evict->kept_bytes += record_bytes;
	heat_set(&evict->heat, offset, count - (count > 0));
}

void evict_victim_done(struct keyspace *keyspace, uint32_t segment)
{
	struct evict_state *evict = &keyspace->evict;
	bool in_place = evict->in_place;
	bool judging = evict->judging;
	evict->judging = false;
	evict->in_place = false;
	if (evict->hand.segment == segment) {
		evict->hand.order = 0; // all of it is behind
	}
	if (evict->on && !in_place) {
		heat_cool(&evict->heat, kvs_region_segment_offset(keyspace->region, segment),
			  keyspace->region->segment_bytes);
	}
	if (!evict->on || !judging) {
		return;
	}
	uint64_t judged = evict->judged_bytes;
	evict->live_bytes[evict->probation] -= judged < evict->live_bytes[evict->probation]
						       ? judged
						       : evict->live_bytes[evict->probation];
	evict->live_bytes[0] += evict->kept_bytes;
	// Stubs are kept whatever was read.
	uint64_t values = judged - evict->stub_bytes;
	uint64_t kept = evict->kept_bytes - evict->stub_bytes;
	bool little = kept > values / 100 * EVICT_LITTLE_PERCENT ||
		      (values == 0 && evict->stub_bytes > 0);
	evict->main_gave_little = !evict->probation && little;
	if (!evict->probation) {
		evict->main_was_hot = kept > values / 100 * EVICT_HOT_PERCENT;
	}
	if (in_place) {
		evict->open_empty = judged > 0 ? 0 : evict->open_empty + 1;
		evict->open_seq = keyspace->log.next_seq;
		if (judged == 0) {
			return;
		}
	}
	if (evict->met_spared && evict->kept_bytes == judged) {
		return; // who waits for room finds it may go, too
	}
	evict->barren = evict->kept_bytes == judged && judged > 0 ? evict->barren + 1 : 0;
	evict->barren_seq = keyspace->log.next_seq;
	evict->barren_ns = evict->barren > 0 ? keyspace->seam->monotonic_ns() : 0;
}

void evict_written(struct keyspace *keyspace, uint64_t hash, uint64_t offset, uint64_t before)
{
	struct heat *heat = &keyspace->evict.heat;
	if (before != 0) {
		heat_set(heat, offset, heat_of(heat, before) + 1); // who writes it uses it
	} else if (heat_ghost_has(heat, hash, keyspace->keys - keyspace->stubs)) {
		// Within as many as have their values in memory.
		heat_set(heat, offset, 1);
	}
}

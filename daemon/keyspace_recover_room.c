// SPDX-License-Identifier: MIT
//
// Room for what recovery loads. Two readings of the store at most. The first loads records as they
// come, and frees what newer ones, removals and FLUSHALLs leave behind when room is wanted. If that
// is not enough, what is in the way may be versions whose end stands further on in the store: then
// all of it is read for the newest version of each key, what is not current leaves the region, and
// the second reading loads only what is. From there on nothing that was accepted is refused: the
// reserves are dipped into, and if other places in the segments leave more room at their ends than
// those of the former life, the memory bound is exceeded until enough has been removed.
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"
#include "daemon/log.h"
#include "daemon/recover_facts.h"

// Is there something newer for the key of this version, further on in the store?
static bool is_outranked(const struct keyspace *keyspace, const struct kvs_hit *hit)
{
	return hit->view.seq < keyspace->flush_seq ||
	       (keyspace->recover_current_only &&
		recover_facts_removed(keyspace->recover_facts, hit->view.key, hit->view.key_bytes,
				      hit->view.seq));
}

struct recover_purge {
	struct keyspace *keyspace;
	uint64_t entries[KVS_BUCKET_ENTRIES * 8];
	unsigned count;
	bool more;
};

static void purge_visit(void *context, uint64_t entry)
{
	struct recover_purge *purge = context;
	struct kvs_hit hit;
	if (kvs_table_load(&purge->keyspace->region->map, entry, &hit) != KVS_FIND_HIT ||
	    !is_outranked(purge->keyspace, &hit)) {
		return;
	}
	if (purge->count == sizeof(purge->entries) / sizeof(purge->entries[0])) {
		purge->more = true;
		return;
	}
	purge->entries[purge->count++] = entry;
}

// Removes all that is outranked from the table.
static void recover_purge(struct keyspace *keyspace)
{
	uint64_t cursor = 0;
	for (;;) {
		struct recover_purge purge = { .keyspace = keyspace };
		uint64_t next = kvs_table_scan(&keyspace->region->map, cursor, purge_visit, &purge);
		for (unsigned i = 0; i < purge.count; i++) {
			keyspace_recover_remove(keyspace, purge.entries[i]);
		}
		if (purge.more) {
			continue; // the same position again, until nothing is left there
		}
		if (next == 0) {
			return;
		}
		cursor = next;
	}
}

void keyspace_recover_sweep(struct keyspace *keyspace)
{
	if (keyspace->flush_seq != keyspace->recover_swept_seq) {
		keyspace->recover_swept_seq = keyspace->flush_seq;
		recover_purge(keyspace);
	}
}

bool keyspace_recover_drain(struct keyspace *keyspace)
{
	size_t before = keyspace->limbo.count;
	if (before == 0 || !kvs_epoch_scan(keyspace->epochs, keyspace->seam->monotonic_ns())) {
		return false;
	}
	while (keyspace_drain_is_due(keyspace)) {
		keyspace_drain_limbo(keyspace);
	}
	return keyspace->limbo.count < before;
}

// One round of all that frees memory. False if it came to nothing. Each cleaned segment takes dead
// bytes away for good, so rounds end.
static bool recover_reclaim(struct keyspace *keyspace, uint64_t live_percent)
{
	keyspace_recover_sweep(keyspace);
	uint64_t bytes = UINT64_MAX;
	bool cleaned = cleaner_slice(keyspace, &bytes, UINT64_MAX, live_percent);
	return keyspace_recover_drain(keyspace) || cleaned;
}

void keyspace_recover_spill(struct keyspace *keyspace, uint64_t oldest_block)
{
	keyspace->recover_spills = true;
	keyspace->recover_judged = oldest_block - 1;
	keyspace->judged = &keyspace->recover_judged;
}

// The values of one segment leave memory: all are in the store, for there they come from. False if
// none did of any.
static bool recover_spill(struct keyspace *keyspace)
{
	const struct kvs_log *log = &keyspace->log;
	uint64_t stubs = keyspace->stubs;
	for (uint32_t i = 0; i < log->touched_count && keyspace->stubs == stubs; i++) {
		uint32_t index = keyspace->recover_spill_at++ % log->touched_count;
		const struct kvs_segment *segment = &log->segments[index];
		if (segment->state != KVS_SEGMENT_SURVIVOR || index == log->survivor.segment) {
			continue;
		}
		const unsigned char *start = keyspace->region->base;
		start += kvs_region_segment_offset(keyspace->region, index);
		struct kvs_record_view view;
		for (uint32_t at = 0; at < segment->used_bytes; at += view.record_bytes) {
			if (kvs_record_parse(start + at, segment->used_bytes - at, &view) != 0) {
				break;
			}
			uint64_t hash = keyspace_hash(keyspace, view.key, view.key_bytes);
			(void)evict_spill(keyspace, &view, hash); // those that cannot stay
		}
	}
	return keyspace->stubs != stubs;
}

bool keyspace_recover_room(struct keyspace *keyspace, uint32_t segments)
{
	struct kvs_log *log = &keyspace->log;
	// Two stay for the cleaner, or it could not make the room that is asked of it. What is all
	// current needs no cleaning.
	uint32_t wanted = segments;
	wanted += keyspace->recover_current_only ? 0 : KEYSPACE_RESERVE_CLEANER;
	while (kvs_log_segments_free(log) < wanted &&
	       (recover_reclaim(keyspace, KEYSPACE_CLEAN_PERCENT) ||
		(keyspace->recover_spills && recover_spill(keyspace)))) {
	}
	if (kvs_log_segments_free(log) < wanted && keyspace->recover_current_only) {
		keyspace_raise_bound(keyspace, wanted);
	}
	return kvs_log_segments_free(log) >= wanted;
}

static bool survivor_fits(const struct keyspace *keyspace, uint32_t record_bytes)
{
	const struct kvs_log_position *at = &keyspace->log.survivor;
	return at->segment != KVS_SEGMENT_NONE &&
	       at->offset + record_bytes <= keyspace->region->segment_bytes;
}

// A new segment is begun only if a record fits the end of none: so all segments but one are fuller
// than a segment less the largest record, three quarters of one.
void *keyspace_recover_append(struct keyspace *keyspace, uint32_t record_bytes, uint64_t seq,
			      uint64_t *offset)
{
	struct kvs_log *log = &keyspace->log;
	if (!survivor_fits(keyspace, record_bytes) &&
	    !kvs_log_reopen_survivor(log, record_bytes, keyspace->cleaner.victim) &&
	    !keyspace_recover_room(keyspace, 1) && !survivor_fits(keyspace, record_bytes)) {
		return NULL;
	}
	return kvs_log_append_survivor(log, record_bytes, seq, offset);
}

void keyspace_recover_thin(struct keyspace *keyspace)
{
	keyspace->recover_current_only = true;
	keyspace_counter_set(keyspace, KVS_COUNTER_recovered_records, 0); // they come again
	recover_purge(keyspace);
	kvs_log_close_survivor(&keyspace->log);
	while (recover_reclaim(keyspace, KEYSPACE_CLEAN_PERCENT_RESERVE)) {
	}
}

static void say_over_bound(struct keyspace *keyspace)
{
	if (keyspace_is_over_bound(keyspace)) {
		uint64_t bytes = kvs_log_memory_for(&keyspace->log, 0);
		log_warning("memory is full: the data takes %llu bytes and kvd needs %llu more to "
			    "work, --memory is %llu bytes: writes that need room are answered -OOM "
			    "until enough is removed or has expired, or kvd is started with more",
			    (unsigned long long)bytes,
			    (unsigned long long)(keyspace->region->memory_bytes - bytes),
			    (unsigned long long)keyspace->memory_bytes);
	}
}

void keyspace_recover_settle(struct keyspace *keyspace)
{
	uint32_t wanted = keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
	if (keyspace->recover_spills) {
		(void)keyspace_recover_room(keyspace, wanted); // else as below
		keyspace->recover_spills = false;
		keyspace->judged = NULL;
	}
	if (kvs_log_segments_free(&keyspace->log) < wanted) {
		keyspace_raise_bound(keyspace, wanted);
		while (recover_reclaim(keyspace, KEYSPACE_CLEAN_PERCENT_RESERVE)) {
		}
	}
	(void)kvs_log_trim(&keyspace->log, UINT32_MAX);
	say_over_bound(keyspace);
}

void keyspace_adopt_settle(struct keyspace *keyspace)
{
	uint32_t wanted = keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
	if (kvs_log_segments_free(&keyspace->log) < wanted) {
		keyspace_raise_bound(keyspace, wanted); // comes down with what is freed
	}
	(void)kvs_log_trim(&keyspace->log, UINT32_MAX);
	if (keyspace->log.retired_count == 0) {
		say_over_bound(keyspace); // else it will pass
	}
}

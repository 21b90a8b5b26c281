// SPDX-License-Identifier: MIT
//
// Making room. Under pressure the order is: what is free already, what comes out of limbo, a scan,
// revocation, cleaning; then the caller waits or is refused.
#include "daemon/keyspace_internal.h"

#include <errno.h>
#include <string.h>

#include "daemon/prepare.h"

#define ROOM_SCAN_INTERVAL_NS 1000000u // 1 kHz when memory is short
#define ROOM_UNPERSISTED_PERCENT 50u
// Of what came out of limbo so much is freed at a time: pages that the kernel takes back or that
// are overwritten, and pieces.
#define ROOM_DRAIN_BYTES (2u << 20)
#define ROOM_DRAIN_ITEMS 2048u
#define ROOM_CLEAR_BUCKETS_MAX 32768u // cleared in place in a fraction of a millisecond
#define ROOM_FLUSH_WAIT_NS 200000000u // then cleared in place, however large the table is

void keyspace_limbo_run(struct keyspace *keyspace, uint64_t offset)
{
	kvs_limbo_push(&keyspace->limbo, kvs_epoch_stamp(keyspace->epochs), KVS_LIMBO_RUN, offset,
		       kvs_large_run_bytes(&keyspace->large, offset));
}

uint64_t keyspace_held_bytes(const struct keyspace *keyspace, uint64_t epoch)
{
	return kvs_limbo_held_bytes(&keyspace->limbo, epoch);
}

// Nobody looks at the segment any more: its records go, if that is wanted. Large values need no
// such thing, their pages go back to the kernel. Returns how many bytes were overwritten.
static uint64_t free_segment(struct keyspace *keyspace, const struct kvs_limbo_item *item)
{
	uint32_t index = (uint32_t)item->a;
	if (keyspace_moments_hold(keyspace, index)) {
		// Soon: the present epoch is not over in this call.
		kvs_limbo_push(&keyspace->limbo, kvs_epoch_stamp(keyspace->epochs), item->kind,
			       item->a, item->b);
		return 0;
	}
	uint64_t zeroed = keyspace->zero_freed ? keyspace->log.segments[index].used_bytes : 0;
	memset(keyspace->region->base + kvs_region_segment_offset(keyspace->region, index), 0,
	       zeroed);
	kvs_log_free(&keyspace->log, index);
	return zeroed;
}

// Frees an item, or the part of it that `*budget` still allows. False if something of it is left.
static bool free_item(struct keyspace *keyspace, const struct kvs_limbo_item *item,
		      uint64_t *budget)
{
	uint64_t bytes = 0;
	bool gone = true;
	switch (item->kind) {
	case KVS_LIMBO_SEGMENT:
		bytes = free_segment(keyspace, item);
		break;
	case KVS_LIMBO_OVERFLOW:
		kvs_table_free_overflow(&keyspace->table, (unsigned)item->b, item->a);
		break;
	case KVS_LIMBO_RUN:
		bytes = kvs_large_run_bytes(&keyspace->large, item->a);
		gone = kvs_large_free_part(&keyspace->large, item->a,
					   kvs_large_bytes(keyspace->region, *budget));
		break;
	case KVS_LIMBO_TAIL:
		bytes = *budget;
		gone = kvs_table_free_tail_part(&keyspace->table, (unsigned)item->a, *budget);
		break;
	default:
		bytes = *budget;
		gone = kvs_table_free_side_part(&keyspace->table, (unsigned)item->a, *budget);
		break;
	}
	*budget = *budget > bytes ? *budget - bytes : 0;
	SEAM_CRASH(limbo_given_back);
	return gone;
}

bool keyspace_drain_is_due(const struct keyspace *keyspace)
{
	return kvs_limbo_peek(&keyspace->limbo, keyspace->epochs->oldest) != NULL;
}

void keyspace_drain_limbo(struct keyspace *keyspace)
{
	uint64_t budget = ROOM_DRAIN_BYTES;
	const struct kvs_limbo_item *next;
	for (unsigned i = 0; i < ROOM_DRAIN_ITEMS && budget > 0; i++) {
		next = kvs_limbo_peek(&keyspace->limbo, keyspace->epochs->oldest);
		if (next == NULL) {
			break;
		}
		struct kvs_limbo_item item = *next;
		if (free_item(keyspace, &item, &budget)) {
			(void)kvs_limbo_pop(&keyspace->limbo, keyspace->epochs->oldest, &item);
		}
	}
	(void)keyspace_is_over_bound(keyspace); // what came free brings a raised bound down
}

// What a write finds at most: the head segment is its room.
static uint64_t bound_needed(const struct keyspace *keyspace)
{
	return kvs_log_memory_for(&keyspace->log,
				  keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE) - 1);
}

void keyspace_raise_bound(struct keyspace *keyspace, uint32_t segments)
{
	uint64_t bytes = kvs_log_memory_for(&keyspace->log, segments);
	if (bytes > keyspace->region->memory_bytes) {
		keyspace->region->memory_bytes = bytes;
	}
}

bool keyspace_is_over_bound(struct keyspace *keyspace)
{
	struct kvs_region *region = keyspace->region;
	if (__builtin_expect(region->memory_bytes == keyspace->memory_bytes, 1)) {
		return false;
	}
	uint64_t needed = bound_needed(keyspace);
	if (needed < region->memory_bytes) {
		region->memory_bytes =
			needed > keyspace->memory_bytes ? needed : keyspace->memory_bytes;
	}
	return region->memory_bytes != keyspace->memory_bytes;
}

uint32_t keyspace_reserve(const struct keyspace *keyspace, enum keyspace_purpose purpose)
{
	uint32_t segments = KEYSPACE_RESERVE_CLEANER;
	if (purpose < KEYSPACE_FOR_WRITE && keyspace->log.survivor.segment != KVS_SEGMENT_NONE) {
		segments--; // the cleaner has it in use: its copies are what makes room here
	}
	if (purpose >= KEYSPACE_FOR_EXPIRY) {
		segments += KEYSPACE_RESERVE_REMOVALS;
	}
	if (purpose >= KEYSPACE_FOR_WRITE) {
		// Where any key may go, one does for a time to live that finds no room.
		bool keys_go = keyspace->evict.on && !keyspace->evict.volatile_only;
		uint32_t allowed = kvs_log_segments_allowed(&keyspace->log);
		segments += 1 + (keys_go ? 0 : allowed / KEYSPACE_RESERVE_EXPIRY_SHARE);
	}
	return segments;
}

// Vouches for the log's part. Segments are populated by a helper, a few ahead; whoever writes
// faster waits for it, for to do that here takes up to milliseconds of everybody's time. Not for
// ever: a busy machine may not let it run.
static int room_secure(struct keyspace *keyspace, uint64_t bytes, uint64_t largest,
		       uint32_t reserve)
{
	struct kvs_log *log = &keyspace->log;
	log->helped_most = keyspace->prepare && keyspace->pages_wait_ns > 0 ? PREPARE_AHEAD : 0;
	int result = kvs_log_secure(log, bytes, largest, reserve);
	if (result == -EAGAIN) {
		prepare_turn(keyspace);
		uint64_t now_ns = keyspace->seam->monotonic_ns();
		uint64_t since_ns = keyspace->pages_wanted_ns ? keyspace->pages_wanted_ns : now_ns;
		bool busy = log->preparing_count > 0 || keyspace->table.ahead.active;
		bool waits = busy && now_ns - since_ns < keyspace->pages_wait_ns;
		log->helped_most = waits ? PREPARE_AHEAD : 0;
		keyspace->pages_wanted_ns = since_ns;
		result = kvs_log_secure(log, bytes, largest, reserve);
	}
	if (result != -EAGAIN) {
		keyspace->pages_wanted_ns = 0;
	}
	log->helped_most = 0;
	return result == 0 ? KEYSPACE_OK : result == -EAGAIN ? KEYSPACE_WAIT : KEYSPACE_FULL;
}

struct room_wanted {
	uint64_t bytes;	  // of log
	uint64_t largest; // of its records
	uint64_t large_bytes;
	enum keyspace_purpose purpose;
};

// Is there room now? Only arithmetic, and populating what is about to be written: WAIT if that is
// under way.
static inline int room_now(struct keyspace *keyspace, const struct room_wanted *wanted)
{
	struct kvs_log *log = &keyspace->log;
	uint64_t bytes = wanted->bytes;
	uint64_t large_bytes = wanted->large_bytes;
	enum keyspace_purpose purpose = wanted->purpose;
	if (purpose == KEYSPACE_FOR_WRITE && keyspace_is_over_bound(keyspace)) {
		return KEYSPACE_FULL; // or each restart would let one more segment in
	}
	if (purpose == KEYSPACE_FOR_WRITE && __builtin_expect(keyspace->evict.removes, 0) &&
	    evict_comes_first(keyspace)) {
		return KEYSPACE_FULL;
	}
	if (large_bytes == 0 && bytes <= keyspace->region->segment_bytes - log->head.offset) {
		return KEYSPACE_OK; // nearly always: no segment is taken, so no reserve is touched
	}
	uint32_t reserve = keyspace_reserve(keyspace, purpose);
	uint32_t large_segments = (uint32_t)((large_bytes + keyspace->region->segment_bytes - 1) >>
					     keyspace->region->segment_shift);
	if (large_segments > 0 && kvs_log_segments_free(log) < large_segments + reserve) {
		return KEYSPACE_FULL;
	}
	return room_secure(keyspace, bytes, wanted->largest, reserve + large_segments);
}

int keyspace_room_now(struct keyspace *keyspace, uint64_t record_bytes,
		      enum keyspace_purpose purpose)
{
	const struct room_wanted wanted = { record_bytes, record_bytes, 0, purpose };
	return room_now(keyspace, &wanted);
}

static uint64_t unpersisted_bytes(const struct keyspace *keyspace)
{
	if (!keyspace->persisted) {
		return 0;
	}
	uint64_t segments = keyspace->log.rolls - keyspace->rolls_durable;
	return (segments << keyspace->region->segment_shift) + keyspace->unpersisted_large_bytes;
}

// The unpersisted part of the log is a queue with a bound: half of what records may take.
bool keyspace_queue_is_full(const struct keyspace *keyspace, uint64_t bytes)
{
	uint64_t allowed = (uint64_t)kvs_log_segments_allowed(&keyspace->log)
			   << keyspace->region->segment_shift;
	uint64_t bound = allowed * ROOM_UNPERSISTED_PERCENT / 100;
	uint64_t waiting = unpersisted_bytes(keyspace);
	return waiting > 0 && waiting + bytes > bound;
}

bool keyspace_waits_for_store(const struct keyspace *keyspace)
{
	return keyspace_queue_is_full(keyspace, keyspace->region->segment_bytes);
}

// Looks at some reader pages, and revokes who stands in the way for longer than `deadline_ns`.
static void room_scan(struct keyspace *keyspace, uint64_t now_ns, uint64_t deadline_ns)
{
	struct cleaner_state *cleaner = &keyspace->cleaner;
	if (!kvs_epoch_passing(keyspace->epochs)) {
		if (now_ns - cleaner->last_scan_ns < ROOM_SCAN_INTERVAL_NS) {
			return;
		}
		cleaner->last_scan_ns = now_ns;
	}
	const struct kvs_epoch_deadlines deadlines = {
		.stamp = kvs_limbo_newest_stamp(&keyspace->limbo),
		.deadline_ns = keyspace->block_on_stuck ? keyspace->revoke_ns : deadline_ns,
		.short_ns = keyspace->revoke_min_ns,
		.hold_only = keyspace->block_on_stuck,
	};
	// What is not looked at now is in the next turn, or at the next try.
	(void)kvs_epoch_pass(keyspace->epochs, now_ns, KEYSPACE_SCAN_PAGES, &deadlines);
}

// Takes a part of what came free; if there is nothing, looks for more first.
static void room_reclaim(struct keyspace *keyspace, uint64_t now_ns, uint64_t deadline_ns)
{
	if (keyspace->limbo.count > 0 && !keyspace_drain_is_due(keyspace)) {
		room_scan(keyspace, now_ns, deadline_ns);
	}
	if (keyspace_drain_is_due(keyspace)) {
		keyspace_drain_limbo(keyspace);
		(void)kvs_log_trim(&keyspace->log, kvs_log_part(&keyspace->log));
	}
}

// How long a reader may stand in the way of memory: not long once it is short, for so many bytes.
static uint64_t room_deadline_ns(const struct keyspace *keyspace, uint64_t large_bytes)
{
	uint64_t wanted = keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE) +
			  (large_bytes >> keyspace->region->segment_shift) + (large_bytes > 0);
	bool short_of_memory = kvs_log_segments_free(&keyspace->log) <= wanted;
	return short_of_memory ? keyspace->revoke_min_ns : keyspace->revoke_ns;
}

// How full the segments may be that are emptied for it.
static uint64_t clean_percent(enum keyspace_purpose purpose)
{
	return purpose == KEYSPACE_FOR_WRITE ? KEYSPACE_CLEAN_PERCENT
					     : KEYSPACE_CLEAN_PERCENT_RESERVE;
}

// One go of cleaning for a caller that found no room, ended early when there is.
static int room_clean(struct keyspace *keyspace, const struct room_wanted *wanted, uint64_t now_ns)
{
	uint64_t percent = clean_percent(wanted->purpose);
	uint64_t deadline_ns = room_deadline_ns(keyspace, wanted->large_bytes);
	uint64_t until_ns = now_ns + CLEANER_SLICE_NS;
	uint64_t bytes = UINT64_MAX;
	int room;
	do {
		room_reclaim(keyspace, now_ns, deadline_ns);
		room = room_now(keyspace, wanted);
		if (room != KEYSPACE_FULL || !cleaner_slice(keyspace, &bytes, until_ns, percent)) {
			break;
		}
		now_ns = keyspace->seam->monotonic_ns();
	} while (now_ns < until_ns);
	return room;
}

// What a request may come to have if it waits.
static uint64_t room_most(const struct keyspace *keyspace)
{
	const struct kvs_large *large = &keyspace->large;
	uint64_t leaving = large->leaving_bytes + large->orphaned_bytes +
			   keyspace_intakes_bytes(keyspace) + mover_bytes(keyspace);
	return ((uint64_t)kvs_log_segments_allowed(&keyspace->log)
		<< keyspace->region->segment_shift) +
	       (evict_may_help(keyspace) ? keyspace->region->large_bytes : leaving);
}

// Does cleaning, a reader, or a commit bring more?
static bool room_comes(struct keyspace *keyspace, const struct room_wanted *wanted)
{
	uint64_t percent = clean_percent(wanted->purpose);
	// A batch waits for turns in which keys may go.
	bool later = keyspace->batch.open && keyspace->keys > 0 && evict_may_help(keyspace);
	bool coming = later || evict_awaits_places(keyspace) || keyspace->limbo.count > 0 ||
		      keyspace->log.preparing_count > 0 || unpersisted_bytes(keyspace) > 0 ||
		      keyspace->pending.count > 0 ||
		      keyspace->large.orphaned_bytes > 0 || // who pins it does not for ever
		      keyspace_intakes_bytes(keyspace) > 0 || mover_bytes(keyspace) > 0 ||
		      cleaner_finds(keyspace, percent);
	return coming && wanted->bytes + wanted->large_bytes < room_most(keyspace);
}

// Room for a caller who found none: by one go of cleaning, or else later.
static int room_find(struct keyspace *keyspace, const struct room_wanted *wanted)
{
	uint64_t now_ns = keyspace->seam->monotonic_ns();
	(void)keyspace_follow_durable(keyspace);
	int room = room_clean(keyspace, wanted, now_ns);
	if (room == KEYSPACE_FULL) {
		(void)keyspace_follow_durable(keyspace); // runs of keys that went
		keyspace->cleaner.last_scan_ns = 0;	 // wanted now: the interval may wait
		room_reclaim(keyspace, now_ns, room_deadline_ns(keyspace, wanted->large_bytes));
		room = room_now(keyspace, wanted);
	}
	return room;
}

int keyspace_make_room(struct keyspace *keyspace, uint64_t bytes, uint64_t largest,
		       uint64_t large_bytes, enum keyspace_purpose purpose)
{
	const struct room_wanted wanted = { bytes, largest, large_bytes, purpose };
	int room = room_now(keyspace, &wanted);
	if (__builtin_expect(room != KEYSPACE_FULL, 1)) {
		return room;
	}
	// First of all: how much is wanted decides whether keys may go for it.
	uint32_t before = keyspace->cleaner.wanted_segments;
	uint32_t segments =
		(uint32_t)((bytes + large_bytes) >> keyspace->region->segment_shift) + 1;
	keyspace->cleaner.wanted_segments = segments > before ? segments : before;
	room = room_find(keyspace, &wanted);
	if (room == KEYSPACE_FULL && reseed_gives_way(keyspace, clean_percent(purpose))) {
		room = room_find(keyspace, &wanted);
	}
	if (room == KEYSPACE_FULL && room_comes(keyspace, &wanted)) {
		return KEYSPACE_WAIT; // the loop goes on cleaning meanwhile
	}
	keyspace->reseed.refused_ns = 0;
	keyspace->cleaner.wanted_segments = before;
	return room;
}

bool keyspace_room_is_back(struct keyspace *keyspace)
{
	struct cleaner_state *state = &keyspace->cleaner;
	uint32_t reserve = keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
	if (state->wanted_segments == 0 ||
	    kvs_log_segments_free(&keyspace->log) <= reserve + state->wanted_segments - 1) {
		return false;
	}
	state->wanted_segments = 0;
	keyspace->reseed.refused_ns = 0;
	return true;
}

int keyspace_flush_ready(struct keyspace *keyspace)
{
	struct kvs_table *table = &keyspace->table;
	if (keyspace->reseed.running) {
		// No key will collide in an empty table. It may have been given up just before.
		kvs_table_reseed_abandon(table);
		keyspace->reseed.running = false;
		keyspace->side_taken_ns = keyspace->seam->monotonic_ns();
		table->crowded = false;
	}
	if (table->other_side_ready && kvs_table_await_side(table) == -EAGAIN) {
		prepare_turn(keyspace);
		if (keyspace_table_waits(keyspace, keyspace_table_other_side(keyspace))) {
			return KEYSPACE_WAIT;
		}
	}
	if (table->other_side_ready || table->buckets <= ROOM_CLEAR_BUCKETS_MAX) {
		return KEYSPACE_OK;
	}
	uint64_t now_ns = keyspace->seam->monotonic_ns();
	keyspace->cleaner.last_scan_ns = 0; // the side is wanted now: the interval may wait
	room_reclaim(keyspace, now_ns, keyspace->revoke_min_ns);
	// Where readers are never revoked it has waited long enough some time.
	uint64_t waited_ns = now_ns - keyspace->side_taken_ns;
	bool enough = waited_ns >= ROOM_FLUSH_WAIT_NS + keyspace->revoke_min_ns;
	return table->other_side_ready || enough ? KEYSPACE_OK : KEYSPACE_WAIT;
}

void keyspace_push_limbo(struct keyspace *keyspace, uint64_t now_ns)
{
	room_reclaim(keyspace, now_ns, keyspace->revoke_min_ns);
}

void keyspace_want_side(struct keyspace *keyspace, uint64_t now_ns)
{
	room_reclaim(keyspace, now_ns, keyspace->revoke_ns);
}

int keyspace_admit(struct keyspace *keyspace, size_t bytes)
{
	uint64_t large_bytes = 0;
	uint64_t log_bytes = bytes + 2 * sizeof(struct kvs_record);
	if (keyspace_queue_is_full(keyspace, bytes)) {
		(void)keyspace_follow_durable(keyspace);
		if (keyspace_queue_is_full(keyspace, bytes)) {
			return KEYSPACE_WAIT;
		}
	}
	if (__builtin_expect(keyspace->log.head.offset >= keyspace->cleaner.edge, 0)) {
		cleaner_pay(keyspace);
	}
	uint64_t largest = log_bytes;
	uint64_t record_max = keyspace->region->segment_bytes / 4 + KVS_KEY_BYTES_MAX +
			      2 * sizeof(struct kvs_record);
	if (largest > record_max) {
		// Large values, or many small ones: space of either kind must be there. What was
		// received where it stands has it.
		const struct keyspace_slice *slice = keyspace->slice;
		uint64_t there = slice && slice->intake ? slice->intake->done : 0;
		large_bytes =
			bytes > there ? kvs_large_bytes(keyspace->region, bytes - there) : 0;
		largest = record_max;
		log_bytes = largest;
	}
	return keyspace_make_room(keyspace, log_bytes, largest, large_bytes, KEYSPACE_FOR_WRITE);
}

// SPDX-License-Identifier: MIT
//
// The cleaner: takes the emptiest segment, copies what is still current into a survivor segment
// (keeping seq and place), and retires the segment as a whole. What is current is decided by the
// table alone: a record is live if and only if its key's entry points at it.
#include "daemon/cleaner.h"

#include <string.h>

#include "daemon/expire.h"
#include "daemon/keyspace_internal.h"
#include "daemon/log.h"
#include "daemon/memory_return.h"
#include "daemon/prepare.h"

#define CLEANER_WINDOW 16u		   // records whose buckets are prefetched together
#define CLEANER_LOOK_BYTES (32u << 10)	   // copied between two looks at the clock
#define CLEANER_SCAN_INTERVAL_NS 10000000u // 100 Hz while something waits in limbo
#define CLEANER_SETTLE_NS 1000000u	   // something was done: look what that has made due
#define CLEANER_IDLE_NS 50000000u	   // no write for so long: clean at leisure
#define CLEANER_IDLE_LIVE_PERCENT 80u	   // what is emptier is worth it then
#define CLEANER_BUSY_LIVE_PERCENT 95u
#define CLEANER_HOLD_TIMES 12u	     // deadlines, for readers of an earlier life: and
#define CLEANER_HOLD_NS 60000000000u // at least so long, if nobody is short of memory

// Copies one live record and moves its entry. False if there is no survivor space.
static bool move_record(struct keyspace *keyspace, const struct kvs_record_view *view,
			uint64_t hash, uint64_t offset, uint64_t *slot)
{
	uint64_t to;
	void *at = kvs_log_append_survivor(&keyspace->log, view->record_bytes, view->seq, &to);
	if (at == NULL) {
		return false;
	}
	memcpy(at, view->record, view->record_bytes);
	uint64_t entry = kvs_load_relaxed(slot);
	kvs_table_replace(&keyspace->table, hash, slot,
			  (entry & ~KVS_ENTRY_LOCATION_MASK) | to / 8);
	SEAM_CRASH(cleaner_copied);
	kvs_log_live_sub(&keyspace->log, offset, view->record_bytes);
	kvs_log_live_add(&keyspace->log, to, view->record_bytes);
	keyspace->cleaner.victim_copied_bytes += view->record_bytes;
	expire_moved(keyspace, to, view->expiry_ms);
	keyspace_counter_add(keyspace, KVS_COUNTER_cleaner_copied_bytes, view->record_bytes);
	evict_moved(keyspace, offset, to, view->record_bytes);
	if (kvs_entry_kind(entry) == KVS_ENTRY_LARGE) {
		kvs_large_record_moved(&keyspace->large, kvs_record_run(view).offset, to);
	}
	return true;
}

// Judges a live record of an open segment, which stays if it does not go.
static bool settle_in_place(struct keyspace *keyspace, const struct kvs_record_view *view,
			    uint64_t hash, uint64_t offset, unsigned kind)
{
	if (kind != KVS_ENTRY_LARGE) {
		return true; // its going would bring nothing
	}
	enum evict_result result = EVICT_NO_ROOM;
	if (keyspace_judge(keyspace, view, offset) == KEYSPACE_EVICT) {
		result = evict_record(keyspace, view, hash);
	}
	if (result == EVICT_NO_ROOM) {
		evict_stayed(keyspace, offset, view->record_bytes);
	}
	return result != EVICT_WAIT;
}

// Does with a live record what is to be done: it moves, or goes where its segment was chosen for
// that. False if there is no room for a copy, or none yet for the record of a removal.
static bool settle_record(struct keyspace *keyspace, const struct kvs_record_view *view,
			  uint64_t hash, uint64_t offset, uint64_t *slot)
{
	unsigned kind = kvs_entry_kind(kvs_load_relaxed(slot));
	if (keyspace->evict.in_place) {
		return settle_in_place(keyspace, view, hash, offset, kind);
	}
	// Of a value that is in the store alone nothing goes, but where the key does.
	bool spills = keyspace->evict.spills;
	bool judged =
		keyspace->evict.judging && (kind == KVS_ENTRY_VALUE || kind == KVS_ENTRY_LARGE ||
					    (kind == KVS_ENTRY_STUB && !spills));
	if (judged && keyspace_judge(keyspace, view, offset) == KEYSPACE_EVICT) {
		enum evict_result result = evict_record(keyspace, view, hash);
		if (result != EVICT_NO_ROOM) {
			return result == EVICT_DONE; // what nobody reads is not copied meanwhile
		}
	}
	if (move_record(keyspace, view, hash, offset, slot)) {
		bool is_stub = keyspace->evict.judging && kind == KVS_ENTRY_STUB && spills;
		keyspace->evict.stub_bytes += is_stub ? view->record_bytes : 0;
		return true;
	}
	// However warm: what is read least has to make room for the rest.
	return judged && evict_is_allowed(keyspace, view) &&
	       evict_record(keyspace, view, hash) == EVICT_DONE;
}

struct cleaner_window {
	struct kvs_record_view view[CLEANER_WINDOW];
	uint64_t hash[CLEANER_WINDOW];
	uint32_t start[CLEANER_WINDOW];
	unsigned count;
};

// Parses the next records of the victim and prefetches their buckets. Returns the offset behind
// them.
static uint32_t window_fill(const struct keyspace *keyspace, uint32_t victim, uint32_t offset,
			    struct cleaner_window *window)
{
	uint32_t end = kvs_log_written_bytes(&keyspace->log, victim);
	const unsigned char *start = keyspace->region->base;
	start += kvs_region_segment_offset(keyspace->region, victim);
	window->count = 0;
	while (window->count < CLEANER_WINDOW && offset < end) {
		struct kvs_record_view *view = &window->view[window->count];
		if (kvs_record_parse(start + offset, end - offset, view) != 0) {
			return end; // own memory damaged: what lies beyond has no entries
		}
		uint64_t hash = keyspace_hash(keyspace, view->key, view->key_bytes);
		kvs_table_prefetch_bucket(&keyspace->region->map, hash);
		window->hash[window->count] = hash;
		window->start[window->count++] = offset;
		offset += view->record_bytes;
	}
	return offset;
}

static void victim_done(struct keyspace *keyspace)
{
	struct cleaner_state *state = &keyspace->cleaner;
	struct kvs_segment *segment = &keyspace->log.segments[state->victim];
	if (keyspace->evict.in_place) {
		evict_victim_done(keyspace, state->victim);
	} else if (segment->live_bytes != 0) {
		// Its count says live, its records say not: keep it out of the way instead of
		// cleaning it for ever.
		log_error("segment %u was cleaned and still counts %llu live bytes: it stays",
			  (unsigned)state->victim, (unsigned long long)segment->live_bytes);
		segment->live_bytes = UINT64_MAX / 2;
		keyspace->evict.judging = false;
	} else {
		kvs_log_retire(&keyspace->log, state->victim, &keyspace->limbo,
			       kvs_epoch_stamp(keyspace->epochs));
		evict_victim_done(keyspace, state->victim);
		keyspace_counter_add(keyspace, KVS_COUNTER_cleaner_segments, 1);
		keyspace_counter_add(keyspace, KVS_COUNTER_cleaner_freed_bytes,
				     keyspace->region->segment_bytes - state->victim_copied_bytes);
	}
	state->victim = KVS_SEGMENT_NONE;
}

// Cleans one window of the victim, or the part of it in which CLEANER_LOOK_BYTES are copied. False
// if survivor space ran out.
static bool clean_window(struct keyspace *keyspace, uint64_t *bytes)
{
	struct cleaner_state *state = &keyspace->cleaner;
	struct cleaner_window window;
	uint32_t next = window_fill(keyspace, state->victim, state->offset, &window);
	uint64_t base = kvs_region_segment_offset(keyspace->region, state->victim);
	uint64_t copied_before = state->victim_copied_bytes;
	bool room = true;
	bool enough = false;
	for (unsigned i = 0; i < window.count && !enough; i++) {
		uint64_t offset = base + window.start[i];
		if (state->victim_copied_bytes - copied_before >= CLEANER_LOOK_BYTES) {
			next = window.start[i];
			break;
		}
		uint64_t *slot = kvs_table_slot_of(&keyspace->table, window.hash[i], offset);
		if (slot != NULL &&
		    !settle_record(keyspace, &window.view[i], window.hash[i], offset, slot)) {
			room = false;
			next = window.start[i];
			break;
		}
		enough = evict_is_enough(keyspace);
		next = enough && i + 1 < window.count ? window.start[i + 1] : next;
	}
	evict_window_over(keyspace);
	uint64_t done = next - state->offset;
	*bytes = *bytes > done ? *bytes - done : 0;
	state->offset = next;
	if (enough) {
		evict_pause(keyspace);
	}
	return room;
}

// Cleans until one of the bounds is reached; false if survivor space ran out.
static bool clean_until(struct keyspace *keyspace, uint64_t *bytes, uint64_t until_ns)
{
	struct cleaner_state *state = &keyspace->cleaner;
	const struct kvs_segment *segment = &keyspace->log.segments[state->victim];
	do {
		if (segment->live_bytes == 0 ||
		    state->offset >= kvs_log_written_bytes(&keyspace->log, state->victim)) {
			victim_done(keyspace);
			return true;
		}
		if (!clean_window(keyspace, bytes)) {
			return false;
		}
	} while (state->victim != KVS_SEGMENT_NONE && *bytes > 0 &&
		 (until_ns == UINT64_MAX || keyspace->seam->monotonic_ns() < until_ns));
	return true;
}

bool cleaner_slice(struct keyspace *keyspace, uint64_t *bytes, uint64_t until_ns,
		   uint64_t live_share_max_percent)
{
	struct cleaner_state *state = &keyspace->cleaner;
	if (!cleaner_finds(keyspace, live_share_max_percent)) {
		return false;
	}
	if (until_ns == UINT64_MAX) {
		return clean_until(keyspace, bytes, until_ns); // at start: nobody waits
	}
	uint64_t begun_ns = keyspace->seam->monotonic_ns();
	bool room = clean_until(keyspace, bytes, until_ns);
	uint64_t took_ns = keyspace->seam->monotonic_ns() - begun_ns;
	state->slice_longest_ns =
		took_ns > state->slice_longest_ns ? took_ns : state->slice_longest_ns;
	keyspace_counter_add(keyspace, KVS_COUNTER_cleaner_slices, 1);
	return room;
}

bool cleaner_go(struct keyspace *keyspace, uint64_t live_percent)
{
	uint64_t bytes = UINT64_MAX;
	uint64_t until_ns = keyspace->seam->monotonic_ns() + CLEANER_SLICE_NS;
	return cleaner_slice(keyspace, &bytes, until_ns, live_percent);
}

// The next write would find no segment, or somebody waits for some. Returns when to come again.
static uint64_t urgent_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	uint64_t percent = keyspace->cleaner.wanted_segments > 0 ? KEYSPACE_CLEAN_PERCENT
								 : CLEANER_BUSY_LIVE_PERCENT;
	if (cleaner_go(keyspace, percent)) {
		return now_ns;
	}
	keyspace->cleaner.wanted_segments = 0; // cleaning brings no more
	return UINT64_MAX;
}

// When nobody writes, every segment that lost a fifth of its bytes is emptied, the open survivor
// segment included. What is left then is what is live, plus a fifth at most. Returns when to come
// again.
static uint64_t idle_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct cleaner_state *state = &keyspace->cleaner;
	if (state->idle_seq == state->seen_seq && state->idle_durable == keyspace->durable_seen) {
		return UINT64_MAX; // nothing died since the last look that found nothing
	}
	if (now_ns < state->last_write_ns + CLEANER_IDLE_NS) {
		return state->last_write_ns + CLEANER_IDLE_NS;
	}
	uint32_t survivor = keyspace->log.survivor.segment;
	if (survivor != KVS_SEGMENT_NONE &&
	    cleaner_is_dead_enough(&keyspace->log.segments[survivor], CLEANER_IDLE_LIVE_PERCENT)) {
		kvs_log_close_survivor(&keyspace->log);
	}
	if (cleaner_go(keyspace, CLEANER_IDLE_LIVE_PERCENT)) {
		return now_ns;
	}
	state->idle_seq = state->seen_seq;
	state->idle_durable = keyspace->durable_seen;
	return UINT64_MAX;
}

static void update_gauges(struct keyspace *keyspace)
{
	struct cleaner_state *state = &keyspace->cleaner;
	uint64_t appended = kvs_log_appended_bytes(&keyspace->log);
	keyspace_counter_add(keyspace, KVS_COUNTER_log_appended_bytes,
			     appended - state->counted_bytes);
	state->counted_bytes = appended;
	keyspace_counter_set(keyspace, KVS_COUNTER_cleaner_slice_longest_us,
			     state->slice_longest_ns / 1000);
	const struct kvs_log *log = &keyspace->log;
	const struct kvs_region *region = keyspace->region;
	const struct kvs_table *table = &keyspace->table;
	keyspace_counter_set(keyspace, KVS_COUNTER_keys, keyspace->keys);
	keyspace_counter_set(keyspace, KVS_COUNTER_keys_with_expiry, keyspace->keys_with_expiry);
	keyspace_counter_set(keyspace, KVS_COUNTER_cold_values, keyspace->stubs);
	keyspace_counter_set(keyspace, KVS_COUNTER_cold_bytes, keyspace->stubs_value_bytes);
	keyspace_counter_set(keyspace, KVS_COUNTER_memory_limit_bytes, keyspace->memory_bytes);
	keyspace_counter_set(keyspace, KVS_COUNTER_memory_table_bytes, region->table_bytes);
	keyspace_counter_set(keyspace, KVS_COUNTER_memory_large_bytes, region->large_bytes);
	keyspace_counter_set(keyspace, KVS_COUNTER_memory_orphaned_bytes,
			     keyspace->large.orphaned_bytes);
	keyspace_counter_set(keyspace, KVS_COUNTER_memory_live_bytes, keyspace->live_bytes);
	keyspace_counter_set(keyspace, KVS_COUNTER_memory_used_bytes,
			     keyspace_used_bytes(keyspace));
	keyspace_counter_set(keyspace, KVS_COUNTER_segments_free, kvs_log_segments_free(log));
	keyspace_counter_set(keyspace, KVS_COUNTER_segments_full, log->full_count);
	keyspace_counter_set(keyspace, KVS_COUNTER_segments_retired, log->retired_count);
	keyspace_counter_set(keyspace, KVS_COUNTER_table_buckets, table->buckets);
	keyspace_counter_set(keyspace, KVS_COUNTER_table_overflow_buckets,
			     table->overflow[table->side].used_count);
	keyspace_counter_set(keyspace, KVS_COUNTER_table_splits, table->splits);
	keyspace_counter_set(keyspace, KVS_COUNTER_table_merges, table->merges);
	keyspace_counter_set(keyspace, KVS_COUNTER_epoch_scans, keyspace->epochs->scans);
	keyspace_counter_set(keyspace, KVS_COUNTER_readers_revoked, keyspace->epochs->revocations);
	keyspace_counter_set(keyspace, KVS_COUNTER_limbo_lost, keyspace->limbo.lost);
	keyspace_counter_set(keyspace, KVS_COUNTER_pending_lost, keyspace->pending.lost);
}

// Readers of an earlier life that were not seen to attach anew. Where somebody waits for memory
// they are given up sooner (keyspace_room.c); here so that what they may hold does not stay for
// ever, nor more memory than this life is bounded by longer than it must.
static uint64_t hold_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	uint64_t deadline_ns = keyspace->revoke_ns * CLEANER_HOLD_TIMES;
	uint64_t again_ns = CLEANER_HOLD_NS / CLEANER_HOLD_TIMES;
	if (keyspace->region->memory_bytes > keyspace->memory_bytes) {
		again_ns = deadline_ns = keyspace->revoke_ns;
	} else if (deadline_ns < CLEANER_HOLD_NS) {
		deadline_ns = CLEANER_HOLD_NS;
	}
	const struct kvs_epoch_deadlines deadlines = {
		.stamp = kvs_limbo_newest_stamp(&keyspace->limbo),
		.deadline_ns = deadline_ns,
		.hold_only = true,
	};
	(void)kvs_epoch_pass(keyspace->epochs, now_ns, KEYSPACE_SCAN_PAGES, &deadlines);
	return kvs_epoch_passing(keyspace->epochs) ? now_ns : now_ns + again_ns;
}

// Grace periods at a gentle pace: what waits in limbo is freed although nobody is short of memory.
static uint64_t limbo_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct cleaner_state *state = &keyspace->cleaner;
	if (keyspace->limbo.count == 0) {
		return UINT64_MAX;
	}
	if (!keyspace_drain_is_due(keyspace)) {
		if (kvs_epoch_held(keyspace->epochs)) {
			return hold_turn(keyspace, now_ns);
		}
		bool passing = kvs_epoch_passing(keyspace->epochs);
		if (passing || now_ns - state->last_scan_ns >= CLEANER_SCAN_INTERVAL_NS) {
			state->last_scan_ns = passing ? state->last_scan_ns : now_ns;
			// If the barrier fails the next pass will tell.
			(void)kvs_epoch_pass(keyspace->epochs, now_ns, KEYSPACE_SCAN_PAGES, NULL);
		}
	}
	if (keyspace_drain_is_due(keyspace)) {
		keyspace_drain_limbo(keyspace);
	}
	if (keyspace_drain_is_due(keyspace) || kvs_epoch_passing(keyspace->epochs)) {
		return now_ns; // the rest in the next turn
	}
	return keyspace->limbo.count > 0 ? state->last_scan_ns + CLEANER_SCAN_INTERVAL_NS
					 : UINT64_MAX;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

// The table follows the number of keys down, too, when nothing else moves it.
static uint64_t table_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	uint64_t before = keyspace->table.buckets;
	keyspace_table_steps(keyspace, 64);
	return keyspace->table.buckets == before ? UINT64_MAX : now_ns;
}

// All that the writer has done so far and that may have made something due, as one number that only
// grows.
static uint64_t progress(const struct keyspace *keyspace)
{
	const struct kvs_limbo *limbo = &keyspace->limbo;
	const struct kvs_limbo *pending = &keyspace->pending;
	return keyspace->stirred + keyspace->log.next_seq + keyspace->log.died +
	       keyspace->large.changes + keyspace->durable_seen + 2 * limbo->head + limbo->count +
	       2 * pending->head + pending->count;
}

void cleaner_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct cleaner_state *state = &keyspace->cleaner;
	uint64_t next_ns = UINT64_MAX;
	state->turn_ns = now_ns;
	state->progress = progress(keyspace);
	if (keyspace->log.next_seq != state->seen_seq) {
		state->seen_seq = keyspace->log.next_seq;
		state->last_write_ns = now_ns;
	}
	bool behind = keyspace_follow_durable(keyspace);
	prepare_turn(keyspace);
	cleaner_pay(keyspace); // what was written without being asked to
	next_ns = cleaner_is_urgent(keyspace) ? urgent_turn(keyspace, now_ns) : UINT64_MAX;
	next_ns = next_ns == UINT64_MAX ? idle_turn(keyspace, now_ns) : next_ns;
	next_ns = earlier(next_ns, mover_turn(keyspace, now_ns));
	next_ns = earlier(next_ns, limbo_turn(keyspace, now_ns));
	next_ns = earlier(next_ns, expire_turn(keyspace, now_ns));
	next_ns = earlier(next_ns, table_turn(keyspace, now_ns));
	next_ns = earlier(next_ns, memory_return_turn(keyspace, now_ns));
	next_ns = earlier(next_ns, reseed_turn(keyspace, now_ns));
	next_ns = earlier(next_ns, keyspace_resize_turn(keyspace, now_ns));
	if (reclaim_turn(&keyspace->reclaim) || behind) {
		next_ns = now_ns;
	}
	state->next_ns = next_ns;
	update_gauges(keyspace);
}

uint64_t cleaner_next_ns(const struct keyspace *keyspace)
{
	const struct cleaner_state *state = &keyspace->cleaner;
	if (progress(keyspace) == state->progress) {
		return state->next_ns;
	}
	// What the turn said is out of date: of commands that were run behind it, or by what it did
	// itself behind the part that is to follow that up. Not at once: who writes without a pause
	// brings the next turn.
	return earlier(state->next_ns, state->turn_ns + CLEANER_SETTLE_NS);
}

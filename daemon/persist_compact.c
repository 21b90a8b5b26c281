// SPDX-License-Identifier: MIT
//
// Compaction, oldest block first, inside the transactions that append. What is still needed of the
// oldest block is appended anew and the block deleted, so the log's length follows the live bytes.
//
// Which records may be dropped. Let r (seq s) be a record met in the oldest block, T the commit's
// target (everything up to T is in the log when it commits), c the seq of the key's current version
// in the table, F the newest FLUSHALL.
//
//  1. s < F <= T: the FLUSHALL in the log outranks r wherever r stands. Drop.
//  2. s < F, F > T: F is not in the log yet. Keep.
//  3. c > s, c <= T: the newer version is in the log. Drop. c > T: keep. c == s: r is current.
//     Keep.
//  4. no entry: the key was removed and the removal was durable before its entry left the table, so
//     it stands in the log; drop a value. Drop a tombstone too, if it was written by this life of
//     kvd. The same if it came and went in one batch, which has no entry for it at any time: the
//     batch is in the log as a whole, its removal behind its values.
//  5. no certain answer from the table (it moved, the section was revoked): compaction rests until
//     the next commit. Keeping r would not do: see below.
//
// Why a removal may be dropped at all (4), although it is what keeps older versions of its key
// dead: when tombstone t is met in the oldest block, no older version of its key is left in the
// log. Suppose x, x < t, was appended after t by compaction. It was kept because the key's version
// then was some c > T (3), or because of a FLUSHALL F > T (2): either is in the log only behind x.
// As long as neither it nor a later one is durable, t is kept too, and follows x. When one is
// durable, it outranks x from behind, and is itself met after x, when x has been dropped. (Keeping
// x without such a reason, for lack of an answer, would put it behind t with nothing behind both:
// hence 5.) The argument fails over a crash: c may never become durable, and after recovery the key
// has no entry although x stands behind t. So tombstones of an earlier life (blocks below
// `boundary`) are kept once more: they move behind everything that the earlier life left, and by
// the time they are met again all of it has been judged, and x dropped, by a table that knows the
// key as removed. The same reasoning holds for FLUSH records: a record older than F is appended
// after F only while a newer FLUSHALL is not yet durable, which then stands behind both. An older
// FLUSH record is dropped when a newer one is durable; the newest when it was written by this life,
// for then nothing older than it is left behind it, and everything before it is gone.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/persist_internal.h"
#include "daemon/seam.h"

// How much is looked at in a commit: this share of what it appends, and of what is too much,
// bounded so that whoever waits for the commit does not wait for compaction.
#define BUDGET_PERCENT 250u
#define EXCESS_SHARE 8u
#define EXCESS_BYTES_MAX (UINT64_C(2) << 20)
#define IDLE_BYTES_MAX (UINT64_C(8) << 20)
#define SLACK_BYTES_MAX (UINT64_C(256) << 10) // looked at to fill a page
#define LOOKUP_TRIES 3u

// Bytes that the log may take.
static uint64_t allowed_bytes(const struct persist *persist)
{
	// Relaxed: a hint (partner: persist_set_live_bytes()).
	uint64_t live = kvs_load_relaxed(&persist->live_bytes);
	if (live == PERSIST_LIVE_UNKNOWN) {
		return UINT64_MAX;
	}
	// Relaxed: single values (partner: persist_tune()).
	const struct persist_options *options = &persist->options;
	uint64_t bytes = live / 100 * kvs_load_relaxed(&options->compact_ratio_percent);
	uint64_t floor_bytes = kvs_load_relaxed(&options->compact_floor_bytes);
	return bytes > floor_bytes ? bytes : floor_bytes;
}

static uint64_t log_bytes(const struct persist *persist)
{
	struct store_facts facts;
	store_facts(persist->options.store, &facts);
	return facts.log_bytes;
}

bool persist_compact_idle_wanted(struct persist *persist)
{
	if (persist->compact.broken || log_bytes(persist) <= allowed_bytes(persist) ||
	    kvs_load_acquire(&persist->moves_waiting) != 0) {
		return false;
	}
	struct store_facts facts;
	store_facts(persist->options.store, &facts);
	if (persist->compact.idle_stop == 0) {
		persist->compact.idle_stop = facts.next_block;
	}
	// One pass over what was there when it began: what is too much after that is not garbage.
	return facts.oldest_block < persist->compact.idle_stop;
}

void persist_compact_reset(struct persist *persist)
{
	persist->compact.number = 0;
	persist->compact.offset = 0;
}

// Rules 1 to 5 above.
static bool droppable(const struct persist *persist, const struct persist_candidate *candidate,
		      uint64_t flush_seq)
{
	uint64_t target_seq = persist->txn.target_seq;
	uint64_t seq = candidate->view.seq;
	bool earlier_life = persist->compact.block.number < persist->compact.boundary;
	if (seq < flush_seq) {
		return flush_seq <= target_seq;
	}
	if (candidate->view.flags & KVS_RECORD_FLUSH) {
		return seq == flush_seq && !earlier_life;
	}
	switch (candidate->current) {
	case PERSIST_CURRENT_SEQ:
		return candidate->current_seq > seq && candidate->current_seq <= target_seq;
	case PERSIST_CURRENT_ABSENT:
		return !(candidate->view.flags & KVS_RECORD_TOMBSTONE) || !earlier_life;
	default:
		return false; // not reached: see lookup_certain()
	}
}

static int damaged(struct persist *persist, const char *what)
{
	return store_refuse(persist->options.store, persist->compact.number, what);
}

void persist_announce(struct persist *persist, uint64_t number)
{
	kvs_store_release(&persist->judged, number); // partner: keyspace_spill()
	kvs_fence_full();			     // partner: keyspace_spill()
}

// Loads the oldest block if none is loaded. 1: there is one, 0: none that this transaction has not
// written itself, negative: enum store_error.
static int load_oldest(struct persist *persist)
{
	struct persist_compact *compact = &persist->compact;
	if (compact->number != 0) {
		return 1;
	}
	struct store_facts facts;
	store_facts(persist->options.store, &facts);
	if (facts.oldest_block >= persist->txn.first_block) {
		return 0;
	}
	size_t bytes;
	persist_announce(persist, facts.oldest_block);
	int result =
		store_read_block(persist->options.store, facts.oldest_block, compact->copy, &bytes);
	if (result != STORE_OK) {
		return result;
	}
	int fault = store_block_check(compact->copy, bytes, facts.oldest_block, &compact->block);
	compact->number = facts.oldest_block;
	compact->offset = 0;
	if (fault != STORE_BLOCK_GOOD) {
		return damaged(persist, store_block_fault_text(fault));
	}
	return 1;
}

static void note_move(struct persist *persist, const struct persist_candidate *candidate,
		      uint64_t place)
{
	persist->txn.compacted_rewritten_bytes += store_packed_bytes(&candidate->view);
	if (persist->options.collect_moves && candidate->current == PERSIST_CURRENT_SEQ &&
	    candidate->current_seq == candidate->view.seq &&
	    (candidate->is_stub || kvs_load_relaxed(&persist->follow_values) != 0)) {
		persist_moves_add(persist, &candidate->view, place);
	}
}

// Certain answers for all of `group`, within a few tries.
static bool lookup_certain(struct persist *persist, struct persist_candidate *group, unsigned count)
{
	for (unsigned tries = 0; tries < LOOKUP_TRIES; tries++) {
		bool certain = true;
		persist_lookup(persist, group, count);
		for (unsigned i = 0; i < count; i++) {
			certain = certain && group[i].current != PERSIST_CURRENT_UNKNOWN;
		}
		if (certain) {
			return true;
		}
	}
	return false;
}

// Judges `group` and appends what must stay. With `slack_only` it stops at the first record that
// would make the file grow; without certain answers at the first. Returns how many were done, or an
// enum store_error.
static int settle_group(struct persist *persist, struct persist_candidate *group, unsigned count,
			bool slack_only)
{
	struct store *store = persist->options.store;
	if (!lookup_certain(persist, group, count)) {
		return 0;
	}
	// After the lookups: a key that they found gone by a FLUSHALL is explained by this word
	// (acquire; partner: the keyspace stores it before the table's root).
	uint64_t flush_seq = kvs_load_acquire(&persist->marks->flush_seq);
	for (unsigned i = 0; i < count; i++) {
		if (droppable(persist, &group[i], flush_seq)) {
			continue;
		}
		if (slack_only && store_packed_bytes(&group[i].view) > store_slack(store)) {
			return (int)i;
		}
		uint64_t place;
		int result = store_append(store, &group[i].view, group[i].value, &place);
		if (result != STORE_OK) {
			return result;
		}
		note_move(persist, &group[i], place);
		SEAM_CRASH(block_compacted);
	}
	return (int)count;
}

static int finish_blocks(struct persist *persist, uint64_t count)
{
	persist_compact_reset(persist);
	persist->txn.compacted_blocks += count;
	return store_delete_oldest(persist->options.store, count);
}

// A group of records of a block that is not part of a span. Sets *stopped if it did not come to the
// end of the group.
static int compact_group(struct persist *persist, bool slack_only, bool *stopped)
{
	struct persist_compact *compact = &persist->compact;
	struct persist_candidate group[PERSIST_GROUP_RECORDS];
	unsigned count = 0;
	uint32_t offset = compact->offset;
	while (count < PERSIST_GROUP_RECORDS) {
		group[count].offset = offset;
		int step = store_block_next(&compact->block, &offset, &group[count].view,
					    &group[count].value);
		if (step < 0) {
			return damaged(persist, "a record in it is malformed");
		}
		if (step == 0) {
			break;
		}
		count++;
	}
	int done = settle_group(persist, group, count, slack_only);
	if (done < 0) {
		return done;
	}
	*stopped = (unsigned)done < count;
	uint32_t next = *stopped ? group[done].offset : offset;
	persist->txn.compacted_visited_bytes += next - compact->offset;
	compact->offset = next;
	return next == compact->block.payload_bytes ? finish_blocks(persist, 1) : STORE_OK;
}

// A record that is longer than a block, all its blocks at once.
static int compact_span(struct persist *persist, bool *done)
{
	struct persist_compact *compact = &persist->compact;
	struct persist_candidate candidate;
	uint64_t packed_bytes;
	uint64_t span_bytes = compact->block.span_bytes;
	if ((compact->block.flags & STORE_BLOCK_REST) ||
	    store_packed_parse(compact->block.payload, span_bytes, &candidate.view,
			       &candidate.value, &packed_bytes) != 0 ||
	    packed_bytes != span_bytes) {
		return damaged(persist, "the long record in it is malformed");
	}
	if (!lookup_certain(persist, &candidate, 1)) {
		*done = true;
		return STORE_OK;
	}
	uint64_t flush_seq = kvs_load_acquire(&persist->marks->flush_seq); // as in settle_group()
	if (!droppable(persist, &candidate, flush_seq)) {
		uint64_t place;
		int result = store_append_span(persist->options.store, compact->number, &place);
		if (result != STORE_OK) {
			return result;
		}
		note_move(persist, &candidate, place);
	}
	persist->txn.compacted_visited_bytes += span_bytes;
	return finish_blocks(persist,
			     (span_bytes + STORE_PAYLOAD_BYTES_MAX - 1) / STORE_PAYLOAD_BYTES_MAX);
}

// One step. Sets *done when there is nothing more to do in this transaction.
static int compact_step(struct persist *persist, bool slack_only, bool *done)
{
	int loaded = load_oldest(persist);
	if (loaded <= 0) {
		*done = true;
		return loaded;
	}
	if (persist->options.collect_moves && !persist_moves_reserve(persist)) {
		*done = true;
		return STORE_OK;
	}
	if (persist->compact.block.flags != 0) {
		*done = slack_only;
		return slack_only ? STORE_OK : compact_span(persist, done);
	}
	return compact_group(persist, slack_only, done);
}

int persist_compact(struct persist *persist, bool idle)
{
	uint64_t allowed = allowed_bytes(persist);
	uint64_t taken = log_bytes(persist);
	if (kvs_load_acquire(&persist->moves_waiting) != 0) {
		return STORE_OK;
	}
	uint64_t excess = taken > allowed ? taken - allowed : 0;
	uint64_t extra = excess / EXCESS_SHARE;
	if (extra > EXCESS_BYTES_MAX) {
		extra = EXCESS_BYTES_MAX;
	}
	uint64_t budget = idle ? IDLE_BYTES_MAX : persist->txn.bytes * BUDGET_PERCENT / 100 + extra;
	bool done = false;
	while (!done && persist->txn.compacted_visited_bytes < budget &&
	       log_bytes(persist) > allowed) {
		int result = compact_step(persist, false, &done);
		if (result != STORE_OK) {
			return result;
		}
	}
	// The last page of the open block is written anyway: what fits in it moves for nothing, so
	// that small commits do not leave half-empty pages behind.
	budget = persist->txn.compacted_visited_bytes + SLACK_BYTES_MAX;
	while (!done && taken > allowed / 8 * 7 && store_slack(persist->options.store) > 0 &&
	       persist->txn.compacted_visited_bytes < budget) {
		int result = compact_step(persist, true, &done);
		if (result != STORE_OK) {
			return result;
		}
	}
	if (idle && persist->txn.compacted_visited_bytes == 0) {
		persist->compact.idle_stop = 1; // it would not get further now either
	}
	return STORE_OK;
}

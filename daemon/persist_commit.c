// SPDX-License-Identifier: MIT
//
// One commit. Its target is the seq of the last record it takes, at a batch boundary; what it
// writes, together with what is in the store, is the state as of that seq. Under the lazy policy a
// record that is superseded by a version within the same target is left out: nobody could ever read
// it again.
#include <errno.h>
#include <string.h>

#include "daemon/persist_internal.h"
#include "daemon/region_walk.h"
#include "shm/writers.h"

uint64_t persist_log_bytes(const struct kvs_log *log, struct kvs_log_position from,
			   struct kvs_log_position to)
{
	uint64_t bytes = 0;
	while (from.segment != to.segment) {
		bytes += log->region->segment_bytes - from.offset;
		from.segment = log->segments[from.segment].next;
		from.offset = 0;
	}
	return bytes + to.offset - from.offset;
}

static void lookup_once(struct persist *persist, struct persist_candidate *candidates,
			unsigned count)
{
	const struct kvs_map *map = persist->options.map;
	for (unsigned i = 0; i < count; i++) {
		const struct kvs_record_view *view = &candidates[i].view;
		candidates[i].hash = kvs_map_hash(map, view->key, view->key_bytes);
		kvs_table_prefetch_bucket(map, candidates[i].hash);
	}
	for (unsigned i = 0; i < count; i++) {
		kvs_table_prefetch_record(map, candidates[i].hash);
	}
	for (unsigned i = 0; i < count; i++) {
		struct persist_candidate *candidate = &candidates[i];
		struct kvs_hit hit;
		switch (kvs_table_find(map, candidate->hash, candidate->view.key,
				       candidate->view.key_bytes, &hit)) {
		case KVS_FIND_HIT:
			candidate->current = PERSIST_CURRENT_SEQ;
			candidate->current_seq = hit.view.seq;
			candidate->is_stub = hit.kind == KVS_ENTRY_STUB;
			candidate->current_place = kvs_load_relaxed(
				&hit.view.record->place); // a hint; partner: keyspace_move()
			break;
		case KVS_FIND_ABSENT:
			candidate->current = PERSIST_CURRENT_ABSENT;
			break;
		default:
			candidate->current = PERSIST_CURRENT_UNKNOWN;
			break;
		}
	}
}

void persist_lookup(struct persist *persist, struct persist_candidate *candidates, unsigned count)
{
	struct kvs_slot *slot = persist->options.slot;
	bool good = kvs_epoch_enter(slot, persist->hot, persist->fenced);
	if (good) {
		lookup_once(persist, candidates, count);
		good = kvs_epoch_leave(slot, persist->hot);
	}
	for (unsigned i = 0; !good && i < count; i++) {
		// Revoked, so what was read may have been anything.
		candidates[i].current = PERSIST_CURRENT_UNKNOWN;
	}
}

int persist_append(struct persist *persist, const struct kvs_record_view *view)
{
	const void *value;
	uint64_t place;
	if (!region_large_value(persist->options.map, view, &value)) {
		return STORE_OK; // not a record that a reader could follow either
	}
	int result = store_append(persist->options.store, view, value, &place);
	if (result == STORE_OK) {
		// Relaxed: it counts only for seq <= durable_seq, whose release comes after the
		// commit (partner: whoever reads a place). Outside the record's crc; nobody else
		// writes it now. A renewal may come to nothing, and the old store turn out to have
		// the record at a place of its own: none, then.
		kvs_store_relaxed((uint64_t *)(uintptr_t)&view->record->place,
				  persist->txn.renews ? 0 : place);
		persist->txn.records++;
		persist->txn.bytes += store_packed_bytes(view);
	}
	return result;
}

static uint64_t commit_bytes_max(const struct persist *persist)
{
	uint64_t live = kvs_load_relaxed(&persist->live_bytes);
	uint64_t bytes = live == PERSIST_LIVE_UNKNOWN ? PERSIST_COMMIT_BYTES_MAX
						      : live / PERSIST_COMMIT_LIVE_SHARE;
	if (bytes < PERSIST_COMMIT_BYTES_MIN) {
		bytes = PERSIST_COMMIT_BYTES_MIN;
	}
	return bytes < PERSIST_COMMIT_BYTES_MAX ? bytes : PERSIST_COMMIT_BYTES_MAX;
}

// A walk that stopped short of its end stopped at something that is no record: what is behind it
// must not be called durable, and where the batch before it ends is not known either.
int persist_at_end(struct persist *persist, struct kvs_log_position at, struct kvs_log_position end)
{
	if (at.segment == end.segment && at.offset == end.offset) {
		return STORE_OK;
	}
	persist->txn.failure =
		"the log in memory is damaged: nothing after it can be persisted; save "
		"the data with kvctl dump and restart kvd";
	store_abort(persist->options.store);
	return STORE_DAMAGED;
}

// Takes records as they come, to `end` or to the first batch boundary beyond the bound.
static int pack_all(struct persist *persist, struct kvs_log_position end)
{
	struct persist_txn *txn = &persist->txn;
	uint64_t bytes_max = commit_bytes_max(persist);
	struct kvs_record_view view;
	while (kvs_log_follow(persist->options.log, &txn->position, end, &view)) {
		int result = persist_append(persist, &view);
		if (result != STORE_OK) {
			return result;
		}
		txn->target_seq = view.seq;
		if (txn->bytes >= bytes_max && !(view.flags & KVS_RECORD_MORE)) {
			return STORE_OK;
		}
	}
	return persist_at_end(persist, txn->position, end);
}

// How far a lazy commit goes: to `end`, or to the first batch boundary beyond so many bytes that,
// if as many can be left out as last time, the bound is met.
static int find_target(struct persist *persist, struct kvs_log_position end,
		       struct kvs_log_position *target, uint64_t *target_seq)
{
	uint64_t bytes_max = commit_bytes_max(persist) * 100 / (100 - persist->skipped_percent);
	struct kvs_log_position at = persist->txn.position;
	struct kvs_record_view view;
	uint64_t bytes = 0;
	while (bytes < bytes_max && kvs_log_follow(persist->options.log, &at, end, &view)) {
		bytes += store_packed_bytes(&view);
		*target_seq = view.seq;
		while ((view.flags & KVS_RECORD_MORE) &&
		       kvs_log_follow(persist->options.log, &at, end, &view)) {
			bytes += store_packed_bytes(&view);
			*target_seq = view.seq;
		}
	}
	*target = at;
	return bytes >= bytes_max && !(view.flags & KVS_RECORD_MORE)
		       ? STORE_OK
		       : persist_at_end(persist, at, end);
}

// Nobody can ever read this record of the commit again: a newer version, or a FLUSHALL, is in it
// too.
static bool superseded(const struct persist_candidate *candidate, uint64_t flush_seq,
		       uint64_t target_seq)
{
	uint64_t seq = candidate->view.seq;
	if (flush_seq > seq && flush_seq <= target_seq) {
		return true;
	}
	return !(candidate->view.flags & KVS_RECORD_FLUSH) &&
	       candidate->current == PERSIST_CURRENT_SEQ && candidate->current_seq > seq &&
	       candidate->current_seq <= target_seq;
}

static int pack_group(struct persist *persist, struct persist_candidate *group, unsigned count)
{
	struct persist_txn *txn = &persist->txn;
	persist_lookup(persist, group, count);
	// After the lookups: a key that they found gone by a FLUSHALL is explained by this word
	// (acquire; partner: the keyspace stores it before the table's root).
	uint64_t flush_seq = kvs_load_acquire(&persist->marks->flush_seq);
	for (unsigned i = 0; i < count; i++) {
		if (superseded(&group[i], flush_seq, txn->target_seq)) {
			txn->skipped_records++;
			txn->skipped_bytes += store_packed_bytes(&group[i].view);
			continue;
		}
		int result = persist_append(persist, &group[i].view);
		if (result != STORE_OK) {
			return result;
		}
	}
	return STORE_OK;
}

static int pack_current(struct persist *persist, struct kvs_log_position end)
{
	struct persist_txn *txn = &persist->txn;
	struct kvs_log_position target;
	struct persist_candidate group[PERSIST_GROUP_RECORDS];
	unsigned count;
	int found = find_target(persist, end, &target, &txn->target_seq);
	if (found != STORE_OK) {
		return found;
	}
	do {
		count = 0;
		while (count < PERSIST_GROUP_RECORDS &&
		       kvs_log_follow(persist->options.log, &txn->position, target,
				      &group[count].view)) {
			count++;
		}
		int result = pack_group(persist, group, count);
		if (result != STORE_OK) {
			return result;
		}
	} while (count == PERSIST_GROUP_RECORDS);
	uint64_t all = txn->bytes + txn->skipped_bytes;
	persist->skipped_percent = all > 0 ? (unsigned)(txn->skipped_bytes * 100 / all) : 0;
	if (persist->skipped_percent > 90) {
		persist->skipped_percent = 90; // bounds how far one commit looks ahead
	}
	return STORE_OK;
}

void persist_count_commit(struct persist *persist)
{
	const struct persist_txn *txn = &persist->txn;
	unsigned char *base = persist->options.region_base;
	struct store_facts facts;
	store_facts(persist->options.store, &facts);
	uint64_t live = kvs_load_relaxed(&persist->live_bytes);
	const struct {
		enum kvs_counter counter;
		uint64_t by;
	} counts[] = {
		{ KVS_COUNTER_commits, 1 },
		{ KVS_COUNTER_commit_records, txn->records },
		{ KVS_COUNTER_commit_bytes, txn->bytes },
		{ KVS_COUNTER_commit_skipped_records, txn->skipped_records },
		{ KVS_COUNTER_compaction_blocks, txn->compacted_blocks },
		{ KVS_COUNTER_compaction_rewritten_bytes, txn->compacted_rewritten_bytes },
	};
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		kvs_count(kvs_counter_word(base, counts[i].counter), counts[i].by);
	}
	kvs_store_relaxed(kvs_counter_word(base, KVS_COUNTER_store_bytes), facts.log_bytes);
	kvs_store_relaxed(kvs_counter_word(base, KVS_COUNTER_store_blocks),
			  facts.next_block - facts.oldest_block);
	kvs_store_relaxed(kvs_counter_word(base, KVS_COUNTER_store_live_bytes),
			  live == PERSIST_LIVE_UNKNOWN ? 0 : live);
	persist_count_waiting(persist);
}

void persist_count_waiting(const struct persist *persist)
{
	const struct kvs_log *log = persist->options.log;
	kvs_store_relaxed(
		kvs_counter_word(persist->options.region_base, KVS_COUNTER_unpersisted_bytes),
		persist_log_bytes(log, persist->position, kvs_log_published(log)));
}

// Fills a transaction. On failure it is gone.
static int fill(struct persist *persist, bool idle)
{
	struct persist_txn *txn = &persist->txn;
	int result = STORE_OK;
	if (!idle) {
		result = persist->options.policy == PERSIST_LAZY
				 ? pack_current(persist, persist->round_end)
				 : pack_all(persist, persist->round_end);
	}
	if (result == STORE_OK && !persist->compact.broken) {
		result = persist_compact(persist, idle);
		txn->compaction_failed = result == STORE_DAMAGED;
	}
	return result;
}

int persist_put_writers(struct persist *persist)
{
	const struct kvs_writers *table = kvs_writers_of(persist->options.region_base);
	// Acquire: the users (partner: keyspace_writer_index()). Whoever wrote what this
	// transaction holds is among them, for the log was looked at before.
	uint64_t count = kvs_load_acquire(&table->count);
	persist->txn.writers = persist->writers_stored;
	if (count == persist->writers_stored || count >= KVS_WRITERS_MAX) {
		return STORE_OK;
	}
	persist->txn.writers = (uint32_t)count;
	return store_put_writers(persist->options.store, table->uid, (uint32_t)count);
}

static int attempt(struct persist *persist, bool idle)
{
	struct store *store = persist->options.store;
	persist->txn = (struct persist_txn){
		.position = persist->position,
		.target_seq = persist->durable_seq,
	};
	persist_moves_forget(persist);
	int result = store_begin(store);
	if (result != STORE_OK) {
		return result;
	}
	struct store_facts facts;
	store_facts(store, &facts);
	persist->txn.first_block = facts.next_block;
	result = fill(persist, idle);
	result = result == STORE_OK ? persist_put_writers(persist) : result;
	if (result != STORE_OK) {
		return result;
	}
	SEAM_CRASH(commit_before);
	result = store_commit(store, persist->txn.target_seq);
	if (result == STORE_OK) {
		SEAM_CRASH(commit_after);
	}
	return result;
}

int persist_commit(struct persist *persist, bool idle)
{
	int result = attempt(persist, idle);
	if (result != STORE_OK && persist->txn.compaction_failed) {
		// An old block cannot be read. What is new can still be written, and memory has it
		// all: go on without compaction, and say so.
		persist->compact.broken = true;
		pthread_mutex_lock(&persist->mutex);
		strlcpy(persist->why_uncompacted, store_why(persist->options.store),
			sizeof(persist->why_uncompacted));
		pthread_mutex_unlock(&persist->mutex);
		persist_compact_reset(persist);
		result = attempt(persist, idle);
	}
	if (result != STORE_OK) {
		persist->places_untold =
			persist->places_untold || store_may_have_arrived(persist->options.store);
		persist_compact_reset(persist);
		return result;
	}
	if (persist->places_untold) {
		persist->places_untold = false;
		persist_places_look(persist);
	}
	persist->position = persist->txn.position;
	persist->durable_seq = persist->txn.target_seq;
	persist->writers_stored = persist->txn.writers;
	if (!idle) {
		persist->compact.idle_stop = 0;
	}
	persist_moves_publish(persist);
	persist_count_commit(persist);
	return STORE_OK;
}

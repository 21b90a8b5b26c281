// SPDX-License-Identifier: MIT
//
// The stub is looked up anew in each slice, since anything may have become of the key in between;
// and the room for the record is looked at again when the value is there. A kvd that is killed
// meanwhile leaves the stub, and a run that no record names, which the next life frees.
#include "daemon/keyspace_promote.h"

#include <string.h>

#include "daemon/keyspace_internal.h"
#include "shm/crc32c.h"

#define PROMOTE_CHUNK_BYTES (128u << 10) // copied between two looks at the clock
#define PROMOTE_FREE_SHARE 4u		 // of memory, for what stays

void keyspace_promote_drop(struct keyspace *keyspace, struct keyspace_promotion *promotion)
{
	if (promotion->run_offset != 0) {
		keyspace_unpin(keyspace, promotion->run_offset); // it is held in the same way
	}
	*promotion = (struct keyspace_promotion){ 0 };
}

// Is there so much more than writes need, without anything being freed for it? And a part of memory
// if the value `stays` there: else who reads would leave none to who writes, or have others' keys
// evicted for what is in the store.
static bool has_room(struct keyspace *keyspace, uint64_t record_bytes, uint64_t large_bytes,
		     bool stays)
{
	const struct kvs_log *log = &keyspace->log;
	uint64_t segment_bytes = keyspace->region->segment_bytes;
	uint64_t segments = (large_bytes + segment_bytes - 1) / segment_bytes;
	bool fits = log->survivor.segment != KVS_SEGMENT_NONE &&
		    log->survivor.offset + record_bytes <= segment_bytes;
	segments += fits ? 0 : 1;
	if (segments > 0 && stays) {
		segments += keyspace->memory_bytes / segment_bytes / PROMOTE_FREE_SHARE;
	}
	return segments == 0 || kvs_log_segments_free(log) >=
					keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE) + segments;
}

// Room for the record, and for as many bytes of a run as are not taken yet.
static bool make_room(struct keyspace *keyspace, const struct kvs_hit *hit, bool large,
		      uint64_t large_bytes)
{
	const struct kvs_record_view *view = &hit->view;
	uint64_t payload_bytes = large ? sizeof(struct kvs_run) : view->value_bytes;
	uint64_t bytes = kvs_record_bytes(view->key_bytes, payload_bytes, view->expiry_ms != 0);
	bool stays = !keyspace->evict.on || !evict_is_allowed(keyspace, view);
	if (has_room(keyspace, bytes, large_bytes, stays)) {
		return true;
	}
	// What is read makes room for itself, if others may go.
	bool wants = keyspace->evict.spills && keyspace->cleaner.wanted_segments == 0;
	keyspace->cleaner.wanted_segments += wants;
	return false;
}

// Copies the next bytes, or gives pages to some. False if the machine has none.
static bool copy_chunk(struct keyspace *keyspace, const struct keyspace_loaded *loaded,
		       struct keyspace_promotion *promotion)
{
	if (promotion->populated <= promotion->done) {
		return keyspace_run_populate(keyspace, promotion->run_offset, loaded->value_bytes,
					     &promotion->populated);
	}
	uint64_t bytes = loaded->value_bytes - promotion->done;
	uint64_t there = promotion->populated - promotion->done;
	bytes = bytes < there ? bytes : there;
	bytes = bytes < PROMOTE_CHUNK_BYTES ? bytes : PROMOTE_CHUNK_BYTES;
	unsigned char *to = keyspace->region->base + promotion->run_offset + promotion->done;
	memcpy(to, (const unsigned char *)loaded->value + promotion->done, bytes);
	promotion->crc = kvs_crc32c(promotion->crc, to, bytes);
	promotion->done += bytes;
	keyspace_counter_add(keyspace, KVS_COUNTER_large_copied_bytes, bytes);
	SEAM_CRASH(value_half_promoted);
	return true;
}

// The value in a run of its own. DONE, MORE or NO_ROOM.
static enum keyspace_cold_result fill_run(struct keyspace *keyspace,
					  const struct keyspace_loaded *loaded,
					  struct keyspace_promotion *promotion, uint64_t until_ns)
{
	if (promotion->run_offset == 0 &&
	    kvs_large_reserve(&keyspace->large, loaded->value_bytes, &promotion->run_offset) != 0) {
		promotion->run_offset = 0;
		return KEYSPACE_COLD_NO_ROOM; // nobody's values are moved for it
	}
	while (promotion->done < loaded->value_bytes) {
		if (!copy_chunk(keyspace, loaded, promotion)) {
			return KEYSPACE_COLD_NO_ROOM;
		}
		if (promotion->done < loaded->value_bytes && until_ns != UINT64_MAX &&
		    keyspace->seam->monotonic_ns() >= until_ns) {
			return KEYSPACE_COLD_MORE;
		}
	}
	return KEYSPACE_COLD_DONE;
}

// The record takes the stub's place.
static enum keyspace_cold_result put_back(struct keyspace *keyspace, const struct kvs_hit *hit,
					  uint64_t hash, const void *value,
					  struct keyspace_promotion *promotion)
{
	const struct kvs_record_view *view = &hit->view;
	bool large = promotion->run_offset != 0;
	const struct kvs_run run = { .offset = promotion->run_offset, .crc = promotion->crc };
	struct kvs_record_spec spec = {
		.key = view->key,
		.key_bytes = view->key_bytes,
		.payload = large ? (const void *)&run : value,
		.payload_bytes = large ? (uint32_t)sizeof(run) : view->value_bytes,
		.value_bytes = view->value_bytes,
		.seq = view->seq,
		.time_ms = kvs_record_time_ms(view->record),
		.expiry_ms = view->expiry_ms,
		.writer = kvs_record_writer(view->record),
		.flags = large ? KVS_RECORD_LARGE : 0,
	};
	uint64_t to;
	uint32_t bytes =
		(uint32_t)kvs_record_bytes(spec.key_bytes, spec.payload_bytes, spec.expiry_ms != 0);
	void *at = kvs_log_append_survivor(&keyspace->log, bytes, view->seq, &to);
	if (at == NULL) {
		return KEYSPACE_COLD_NO_ROOM;
	}
	(void)kvs_record_write(at, &spec);
	struct kvs_record *record = at;
	kvs_store_relaxed(&record->place, kvs_load_relaxed(&view->record->place));
	if (large) {
		kvs_large_settle(&keyspace->large, run.offset, to);
		promotion->run_offset = 0; // the record has it from here
	}
	kvs_table_replace(
		&keyspace->table, hash, hit->slot,
		kvs_entry_make(hash, large ? KVS_ENTRY_LARGE : KVS_ENTRY_VALUE, bytes, to));
	SEAM_CRASH(value_promoted);
	if (keyspace->evict.on) {
		evict_written(keyspace, hash, to, 0); // on trial, as what is new
	}
	keyspace_count_copy(keyspace, hit, to, bytes);
	keyspace->stubs--;
	keyspace->stubs_value_bytes -= view->value_bytes;
	keyspace_stub_leaves(keyspace, view);
	return KEYSPACE_COLD_DONE;
}

static enum keyspace_cold_result promote(struct keyspace *keyspace,
					 const struct keyspace_loaded *loaded,
					 struct keyspace_promotion *promotion, uint64_t until_ns)
{
	uint64_t hash;
	struct kvs_hit hit;
	if (!keyspace_find_stub(keyspace, loaded->key, loaded->key_bytes, loaded->seq, &hash,
				&hit) ||
	    hit.view.value_bytes != loaded->value_bytes) {
		return KEYSPACE_COLD_OTHER;
	}
	bool large = keyspace_is_large(keyspace, loaded->value_bytes);
	bool begun = promotion->run_offset != 0;
	uint64_t run_bytes =
		large ? kvs_large_bytes(keyspace->region, loaded->value_bytes) : UINT64_C(0);
	if (!begun && !make_room(keyspace, &hit, large, run_bytes)) {
		return KEYSPACE_COLD_NO_ROOM;
	}
	if (large) {
		enum keyspace_cold_result filled = fill_run(keyspace, loaded, promotion, until_ns);
		if (filled != KEYSPACE_COLD_DONE) {
			return filled;
		}
	}
	if (begun && !make_room(keyspace, &hit, large, 0)) {
		return KEYSPACE_COLD_NO_ROOM; // writes have come in between
	}
	return put_back(keyspace, &hit, hash, loaded->value, promotion);
}

enum keyspace_cold_result keyspace_promote(struct keyspace *keyspace,
					   const struct keyspace_loaded *loaded,
					   struct keyspace_promotion *promotion, uint64_t until_ns)
{
	enum keyspace_cold_result result = promote(keyspace, loaded, promotion, until_ns);
	if (result != KEYSPACE_COLD_MORE) {
		keyspace_promote_drop(keyspace, promotion);
	}
	return result;
}

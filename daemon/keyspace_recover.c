// SPDX-License-Identifier: MIT
//
// Filling the region from the store at start. Records arrive oldest block first but in no order of
// seq; the highest seq of a key wins, and a FLUSHALL removes whatever has a lower seq, whether it
// came before or comes later. Removals are remembered to the end of the scan as facts of 24 bytes
// outside the region (recover_facts), because there may be many more of them than keys. Everything
// loaded is durable already, so it goes into survivor segments and the head stays empty.
#include <string.h>

#include "daemon/expire.h"
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"
#include "daemon/prepare.h"
#include "daemon/recover_facts.h"
#include "shm/crc32c.h"

// More versions than one life can hand out without a commit: what waits for its commit is bounded
// by the memory, and no record is smaller than 40 bytes.
#define RECOVER_VERSION_GAP (UINT64_C(1) << 28)
#define RECOVER_LIMBO_MAX 512u // overflow buckets that splits left there, before they are freed

// The version found in the table gives way. No reader and no persister is there yet: its run is
// free at once.
static void recover_replace(struct keyspace *keyspace, const struct kvs_hit *hit)
{
	uint64_t run = keyspace_version_gone(keyspace, hit);
	if (run != 0) {
		kvs_large_free(&keyspace->large, run);
	}
}

// Writes the record at `at`: the same bytes, or for a large value a new record with a run of its
// own.
static bool recover_write(struct keyspace *keyspace, const struct kvs_record_view *view,
			  const void *large_value, void *at)
{
	if ((view->flags & KVS_RECORD_LARGE) == 0) {
		memcpy(at, view->record, view->record_bytes);
		return true;
	}
	uint64_t bytes = kvs_large_bytes(view->value_bytes);
	uint64_t free_bytes = (uint64_t)kvs_log_segments_free(&keyspace->log)
			      << keyspace->region->segment_shift;
	struct kvs_run run = { 0 };
	if (bytes > free_bytes ||
	    kvs_large_take(&keyspace->large, view->value_bytes, &run.offset) != 0) {
		return false;
	}
	memcpy(keyspace->region->base + run.offset, large_value, view->value_bytes);
	kvs_large_settle(&keyspace->large, run.offset);
	run.crc = kvs_record_run(view).crc;
	struct kvs_record_spec spec = {
		.key = view->key,
		.key_bytes = view->key_bytes,
		.payload = &run,
		.payload_bytes = sizeof(run),
		.value_bytes = view->value_bytes,
		.seq = view->seq,
		.time_ms = kvs_record_time_ms(view->record),
		.expiry_ms = view->expiry_ms,
		.writer = kvs_record_writer(view->record),
		.flags = view->flags,
	};
	(void)kvs_record_write(at, &spec);
	return true;
}

struct recover_flush {
	struct keyspace *keyspace;
	uint64_t seq;
	uint64_t entries[KVS_BUCKET_ENTRIES * 8];
	unsigned count;
	bool more;
};

static void recover_flush_visit(void *context, uint64_t entry)
{
	struct recover_flush *flush = context;
	struct kvs_hit hit;
	if (kvs_table_load(&flush->keyspace->region->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.view.seq >= flush->seq) {
		return;
	}
	if (flush->count == sizeof(flush->entries) / sizeof(flush->entries[0])) {
		flush->more = true;
		return;
	}
	flush->entries[flush->count++] = entry;
}

static void recover_remove_entry(struct keyspace *keyspace, uint64_t entry)
{
	struct kvs_hit hit;
	if (kvs_table_load(&keyspace->region->map, entry, &hit) != KVS_FIND_HIT) {
		return;
	}
	uint64_t hash = keyspace_hash(keyspace, hit.view.key, hit.view.key_bytes);
	uint64_t *slot = kvs_table_slot_of(&keyspace->table, hash, kvs_entry_offset(entry));
	if (slot != NULL) {
		recover_replace(keyspace, &hit);
		kvs_table_remove(&keyspace->table, hash, slot);
	}
}

// Removes what the newest FLUSHALL met so far outranks. Done when room is wanted and at the end,
// not at every FLUSH record: there may be many.
static void recover_sweep(struct keyspace *keyspace)
{
	uint64_t cursor = 0;
	if (keyspace->flush_seq == keyspace->recover_swept_seq) {
		return;
	}
	keyspace->recover_swept_seq = keyspace->flush_seq;
	for (;;) {
		struct recover_flush flush = { .keyspace = keyspace, .seq = keyspace->flush_seq };
		uint64_t next =
			kvs_table_scan(&keyspace->region->map, cursor, recover_flush_visit, &flush);
		for (unsigned i = 0; i < flush.count; i++) {
			recover_remove_entry(keyspace, flush.entries[i]);
		}
		if (flush.more) {
			continue; // the same position again, until nothing is left there
		}
		if (next == 0) {
			return;
		}
		cursor = next;
	}
}

// No reader is there yet: whatever waits in limbo can be freed at once. False if nothing was.
static bool recover_drain(struct keyspace *keyspace)
{
	size_t before = keyspace->limbo.count;
	if (before == 0 || !kvs_epoch_scan(keyspace->epochs, keyspace->seam->monotonic_ns())) {
		return false;
	}
	keyspace_drain_limbo(keyspace);
	return keyspace->limbo.count < before;
}

// Room for one survivor, made by cleaning what newer versions have superseded.
static void *recover_append(struct keyspace *keyspace, uint32_t record_bytes, uint64_t seq,
			    uint64_t *offset)
{
	for (unsigned tries = 0; tries < 64; tries++) {
		void *at = NULL;
		// Two segments stay for the cleaner, or it could not make the room that is asked of
		// it.
		if (keyspace->log.survivor.offset + record_bytes <=
			    keyspace->region->segment_bytes ||
		    kvs_log_segments_free(&keyspace->log) > KEYSPACE_RESERVE_CLEANER) {
			at = kvs_log_append_survivor(&keyspace->log, record_bytes, seq, offset);
		}
		if (at != NULL) {
			return at;
		}
		recover_sweep(keyspace);
		bool cleaned = cleaner_slice(keyspace, UINT64_MAX, KEYSPACE_CLEAN_PERCENT);
		if (!recover_drain(keyspace) && !cleaned) {
			return NULL;
		}
	}
	return NULL;
}

// A removal: what is older goes, and what is older and comes later will not come in.
static int recover_removal(struct keyspace *keyspace, const struct kvs_record_view *view)
{
	struct kvs_hit hit;
	uint64_t hash = keyspace_hash(keyspace, view->key, view->key_bytes);
	if (keyspace_find(keyspace, hash, view->key, view->key_bytes, &hit) == KVS_FIND_HIT) {
		if (hit.view.seq > view->seq) {
			return KEYSPACE_OK;
		}
		recover_remove_entry(keyspace, hit.entry);
	}
	if (keyspace->recover_facts == NULL) {
		keyspace->recover_facts = recover_facts_new(keyspace->region->map.hash_seed);
	}
	bool noted =
		keyspace->recover_facts != NULL &&
		recover_facts_note(keyspace->recover_facts, view->key, view->key_bytes, view->seq);
	return noted ? KEYSPACE_OK : KEYSPACE_FULL;
}

// Makes a value that wins its key's entry.
static int recover_value(struct keyspace *keyspace, const struct kvs_record_view *view,
			 const void *large_value, uint64_t place, uint64_t hash)
{
	bool large = (view->flags & KVS_RECORD_LARGE) != 0;
	uint64_t offset;
	void *at = recover_append(keyspace, view->record_bytes, view->seq, &offset);
	if (at == NULL || kvs_table_secure(&keyspace->table, 1) != 0 ||
	    !recover_write(keyspace, view, large_value, at)) {
		return KEYSPACE_FULL;
	}
	kvs_store_relaxed(&((struct kvs_record *)at)->place, place);
	// Looked up only now: cleaning may have moved the older version.
	struct kvs_hit hit;
	enum kvs_entry_kind kind = large ? KVS_ENTRY_LARGE : KVS_ENTRY_VALUE;
	uint64_t entry = kvs_entry_make(hash, kind, view->record_bytes, offset);
	if (keyspace_find(keyspace, hash, view->key, view->key_bytes, &hit) == KVS_FIND_HIT) {
		kvs_table_replace(hit.slot, entry);
		recover_replace(keyspace, &hit);
	} else {
		(void)kvs_table_insert(&keyspace->table, hash, entry);
	}
	kvs_log_live_add(&keyspace->log, offset, view->record_bytes);
	keyspace->live_bytes += view->record_bytes + (large ? view->value_bytes : 0);
	keyspace->keys++;
	if (view->expiry_ms != 0) {
		keyspace->keys_with_expiry++;
		expire_expect(keyspace, view->expiry_ms);
	}
	keyspace_table_steps(keyspace, 2);
	return KEYSPACE_OK;
}

int keyspace_recover_record(struct keyspace *keyspace, const struct kvs_record_view *view,
			    const void *large_value, uint64_t place)
{
	keyspace_counter_add(keyspace, KVS_COUNTER_recovered_records, 1);
	if (keyspace->limbo.count >= RECOVER_LIMBO_MAX) {
		(void)recover_drain(keyspace); // splits leave overflow buckets there
	}
	if ((view->flags & KVS_RECORD_FLUSH) != 0) {
		keyspace->flush_seq =
			view->seq > keyspace->flush_seq ? view->seq : keyspace->flush_seq;
		return KEYSPACE_OK;
	}
	if (view->seq < keyspace->flush_seq) {
		return KEYSPACE_OK;
	}
	if ((view->flags & KVS_RECORD_TOMBSTONE) != 0) {
		return recover_removal(keyspace, view);
	}
	if (keyspace->recover_facts != NULL &&
	    recover_facts_removed(keyspace->recover_facts, view->key, view->key_bytes, view->seq)) {
		return KEYSPACE_OK;
	}
	struct kvs_hit hit;
	uint64_t hash = keyspace_hash(keyspace, view->key, view->key_bytes);
	bool found =
		keyspace_find(keyspace, hash, view->key, view->key_bytes, &hit) == KVS_FIND_HIT;
	if (found && hit.view.seq >= view->seq) {
		if (hit.view.seq == view->seq) {
			// The same record, written anew by compaction: its later place is the one
			// that lasts.
			struct kvs_record *record = (struct kvs_record *)(uintptr_t)hit.view.record;
			kvs_store_relaxed(&record->place, place);
		}
		return KEYSPACE_OK;
	}
	return recover_value(keyspace, view, large_value, place, hash);
}

void keyspace_recover_finish(struct keyspace *keyspace, uint64_t last_seq, bool had_lives)
{
	recover_sweep(keyspace);
	recover_facts_free(keyspace->recover_facts);
	keyspace->recover_facts = NULL;
	struct kvs_watermarks *marks = keyspace_marks(keyspace);
	uint64_t gap = keyspace->region->memory_bytes / 64;
	gap = gap > RECOVER_VERSION_GAP ? gap : RECOVER_VERSION_GAP;
	keyspace->log.next_seq = had_lives ? last_seq + gap : last_seq + 1;
	keyspace->log.segments[keyspace->log.head.segment].first_seq = keyspace->log.next_seq;
	kvs_store_relaxed(&keyspace->region->directory[keyspace->log.head.segment].first_seq,
			  keyspace->log.next_seq);
	kvs_store_relaxed(&marks->flush_seq, keyspace->flush_seq);
	kvs_store_relaxed(&marks->last_removal_seq, last_seq);
	kvs_store_release(&marks->durable_seq, keyspace->log.next_seq - 1);
	keyspace->durable_seen = keyspace->log.next_seq - 1;
	keyspace_publish_applied(keyspace);
	if (kvs_epoch_scan(keyspace->epochs, keyspace->seam->monotonic_ns())) {
		keyspace_drain_limbo(keyspace);
	}
}

int keyspace_start_prepare(struct keyspace *keyspace)
{
	return prepare_start(&keyspace->prepare, keyspace->region);
}

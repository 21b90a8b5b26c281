// SPDX-License-Identifier: MIT
//
// Filling the region from the store at start. Records arrive oldest block first but in no order of
// seq; the highest seq of a key wins, and a FLUSHALL removes whatever has a lower seq, whether it
// came before or comes later. Removals are remembered to the end of the scan as facts of 24 bytes
// outside the region (recover_facts), because there may be many more of them than keys. Everything
// loaded is durable already, so it goes into survivor segments and the head stays empty. Where the
// room for it comes from: keyspace_recover_room.c. Whether a value is large follows from the
// segments of this life: the one that wrote it may have had others.
#include <errno.h>
#include <string.h>

#include "daemon/expire.h"
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"
#include "daemon/log.h"
#include "daemon/prepare.h"
#include "daemon/recover_facts.h"
#include "shm/crc32c.h"

// More versions than one life can hand out without a commit: what waits for its commit is bounded
// by the memory, and no record is smaller than 40 bytes.
#define RECOVER_VERSION_GAP (UINT64_C(1) << 28)
#define RECOVER_ENTRIES_MAX 16u // a bucket, on average: then the table grows in any case
#define RECOVER_LIMBO_MAX 512u	// overflow buckets that splits left there, before they are freed

// The version found in the table gives way. No reader and no persister is there yet: its run is
// free at once.
static void recover_replace(struct keyspace *keyspace, const struct kvs_hit *hit)
{
	uint64_t run = keyspace_version_gone(keyspace, hit);
	if (run != 0) {
		kvs_large_free(&keyspace->large, run);
	}
}

/// What a record of another life becomes in this one.
struct recover_form {
	const struct kvs_record_view *view; // as it was written
	const void *value;
	struct kvs_run run;
	uint32_t record_bytes;
	bool large;
	bool as_it_was; // the same bytes
};

static struct recover_form recover_form(const struct keyspace *keyspace,
					const struct kvs_record_view *view, const void *large_value)
{
	bool was_large = (view->flags & KVS_RECORD_LARGE) != 0;
	bool large = keyspace_is_large(keyspace, view->value_bytes);
	struct recover_form form = { .view = view,
				     .value = was_large ? large_value : view->payload,
				     .record_bytes = view->record_bytes,
				     .large = large,
				     .as_it_was = !large && !was_large };
	if (!form.as_it_was) {
		uint64_t payload_bytes = large ? sizeof(form.run) : view->value_bytes;
		form.record_bytes = (uint32_t)kvs_record_bytes(view->key_bytes, payload_bytes,
							       view->expiry_ms != 0);
	}
	return form;
}

void keyspace_lose(struct keyspace *keyspace, const struct kvs_record_view *view)
{
	keyspace_lose_unnamed(keyspace, 1);
	log_error("version %llu of '%.*s' is lost: its record is damaged",
		  (unsigned long long)view->seq, (int)view->key_bytes, (const char *)view->key);
}

void keyspace_lose_unnamed(struct keyspace *keyspace, uint64_t count)
{
	keyspace_counter_add(keyspace, KVS_COUNTER_recovered_lost, count);
}

// What gets another form gets another checksum: it must not cover what is not what was written.
static bool recover_is_whole(const struct recover_form *form)
{
	const struct kvs_record_view *view = form->view;
	bool keeps_value = (view->flags & KVS_RECORD_LARGE) == 0 || form->large;
	return form->as_it_was || (kvs_record_crc_ok(view) &&
				   (keeps_value || kvs_crc32c(0, form->value, view->value_bytes) ==
							   kvs_record_run(view).crc));
}

// A run with a large value. False if there is no room for it.
static bool recover_take_run(struct keyspace *keyspace, struct recover_form *form)
{
	const struct kvs_record_view *view = form->view;
	uint64_t segment_bytes = keyspace->region->segment_bytes;
	uint64_t bytes = kvs_large_bytes(keyspace->region, view->value_bytes) + segment_bytes - 1;
	uint32_t segments = (uint32_t)(bytes >> keyspace->region->segment_shift);
	if (!keyspace_recover_room(keyspace, segments)) {
		return false;
	}
	int taken = kvs_large_take(&keyspace->large, view->value_bytes, &form->run.offset);
	if (taken == -ENOSPC && mover_makes_place(keyspace, view->value_bytes)) {
		taken = kvs_large_take(&keyspace->large, view->value_bytes, &form->run.offset);
	}
	if (taken != 0) {
		return false;
	}
	(void)kvs_log_trim(&keyspace->log, UINT32_MAX);
	memcpy(keyspace->region->base + form->run.offset, form->value, view->value_bytes);
	form->run.crc = (view->flags & KVS_RECORD_LARGE) != 0
				? kvs_record_run(view).crc
				: kvs_crc32c(0, form->value, view->value_bytes);
	return true;
}

// Writes the record at `at`: the same bytes, or a new record that names its run or has its value.
static void recover_write(const struct recover_form *form, void *at)
{
	const struct kvs_record_view *view = form->view;
	if (form->as_it_was) {
		memcpy(at, view->record, view->record_bytes);
		return;
	}
	uint16_t flags = view->flags & (uint16_t) ~(KVS_RECORD_LARGE | KVS_RECORD_EXPIRY);
	struct kvs_record_spec spec = {
		.key = view->key,
		.key_bytes = view->key_bytes,
		.payload = form->large ? (const void *)&form->run : form->value,
		.payload_bytes = form->large ? (uint32_t)sizeof(form->run) : view->value_bytes,
		.value_bytes = view->value_bytes,
		.seq = view->seq,
		.time_ms = kvs_record_time_ms(view->record),
		.expiry_ms = view->expiry_ms,
		.writer = kvs_record_writer(view->record),
		.flags = form->large ? flags | KVS_RECORD_LARGE : flags,
	};
	(void)kvs_record_write(at, &spec);
}

void keyspace_recover_remove(struct keyspace *keyspace, uint64_t entry)
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

static bool recover_note(struct keyspace *keyspace, const struct kvs_record_view *view)
{
	if (keyspace->recover_facts == NULL) {
		keyspace->recover_facts = recover_facts_new(keyspace->lookup_seed);
	}
	return keyspace->recover_facts != NULL &&
	       recover_facts_note(keyspace->recover_facts, view->key, view->key_bytes, view->seq);
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
		keyspace_recover_remove(keyspace, hit.entry);
	}
	return recover_note(keyspace, view) ? KEYSPACE_OK : KEYSPACE_FULL;
}

// More than this memory can ever have accepted: what is left out is counted, for the message. A
// fifth more it may be, for changed times to live add up to 8 bytes to 40 while nothing else grows.
static bool recover_is_too_much(struct keyspace *keyspace, uint64_t bytes)
{
	uint64_t most = keyspace->memory_bytes + keyspace->memory_bytes / 4;
	if (!keyspace->recover_current_only || keyspace->recover_spills ||
	    keyspace->live_bytes + bytes <= most) {
		return false;
	}
	keyspace->recover_left_bytes += bytes;
	return true;
}

// The table follows the number of keys while there is memory; what must be loaded in any case must
// also be found.
static void recover_table_steps(struct keyspace *keyspace)
{
	const struct kvs_table *table = &keyspace->table;
	keyspace_table_steps(keyspace, 2);
	if (keyspace->recover_current_only &&
	    table->entries > table->buckets * RECOVER_ENTRIES_MAX) {
		(void)kvs_table_step(&keyspace->table);
		(void)kvs_table_step(&keyspace->table);
	}
}

// Appends the record, and before it the run of a large value. NULL if there is no room.
static void *recover_append(struct keyspace *keyspace, struct recover_form *form, uint64_t *offset)
{
	if (form->large && !recover_take_run(keyspace, form)) {
		return NULL;
	}
	void *at = keyspace_recover_append(keyspace, form->record_bytes, form->view->seq, offset);
	if (at == NULL) {
		if (form->large && kvs_large_drop(&keyspace->large, form->run.offset)) {
			kvs_large_free(&keyspace->large, form->run.offset);
		}
		return NULL;
	}
	recover_write(form, at);
	if (form->large) {
		kvs_large_settle(&keyspace->large, form->run.offset, *offset);
	}
	return at;
}

// Makes a value that wins its key's entry.
static int recover_value(struct keyspace *keyspace, const struct kvs_record_view *view,
			 const void *large_value, uint64_t place, uint64_t hash)
{
	struct recover_form form = recover_form(keyspace, view, large_value);
	uint64_t bytes = form.record_bytes + (form.large ? view->value_bytes : UINT64_C(0));
	uint64_t offset;
	if (recover_is_too_much(keyspace, bytes)) {
		return KEYSPACE_OK;
	}
	if (!recover_is_whole(&form)) {
		keyspace_lose(keyspace, view);
		return KEYSPACE_OK;
	}
	if (kvs_table_secure(&keyspace->table, 1) != 0) {
		return KEYSPACE_FULL;
	}
	void *at = recover_append(keyspace, &form, &offset);
	if (at == NULL) {
		return KEYSPACE_FULL;
	}
	kvs_store_relaxed(&((struct kvs_record *)at)->place, place);
	// Looked up only now: cleaning may have moved the older version.
	struct kvs_hit hit;
	enum kvs_entry_kind kind = form.large ? KVS_ENTRY_LARGE : KVS_ENTRY_VALUE;
	uint64_t entry = kvs_entry_make(hash, kind, form.record_bytes, offset);
	if (keyspace_find(keyspace, hash, view->key, view->key_bytes, &hit) == KVS_FIND_HIT) {
		kvs_table_replace(&keyspace->table, hash, hit.slot, entry);
		recover_replace(keyspace, &hit);
	} else {
		(void)kvs_table_insert(&keyspace->table, hash, entry);
	}
	kvs_log_live_add(&keyspace->log, offset, form.record_bytes);
	keyspace->live_bytes += bytes;
	keyspace->keys++;
	keyspace_owner_add(keyspace, kvs_record_writer(view->record), bytes);
	if (view->expiry_ms != 0) {
		keyspace->keys_with_expiry++;
		expire_lose(keyspace); // walks will find it, and all others
	}
	recover_table_steps(keyspace);
	return KEYSPACE_OK;
}

int keyspace_recover_record(struct keyspace *keyspace, const struct kvs_record_view *view,
			    const void *large_value, uint64_t place)
{
	keyspace_counter_add(keyspace, KVS_COUNTER_recovered_records, 1);
	if (keyspace->limbo.count >= RECOVER_LIMBO_MAX) {
		(void)keyspace_recover_drain(keyspace); // splits leave overflow buckets there
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

int keyspace_recover_index(struct keyspace *keyspace, const struct kvs_record_view *view)
{
	if ((view->flags & KVS_RECORD_FLUSH) != 0) {
		keyspace->flush_seq =
			view->seq > keyspace->flush_seq ? view->seq : keyspace->flush_seq;
		return KEYSPACE_OK;
	}
	return recover_note(keyspace, view) ? KEYSPACE_OK : KEYSPACE_FULL;
}

uint64_t keyspace_recover_left(const struct keyspace *keyspace)
{
	return keyspace->recover_left_bytes;
}

bool keyspace_recover_finish(struct keyspace *keyspace, uint64_t last_seq, bool unended)
{
	keyspace_recover_sweep(keyspace);
	recover_facts_free(keyspace->recover_facts);
	keyspace->recover_facts = NULL;
	struct kvs_watermarks *marks = keyspace_marks(keyspace);
	uint64_t gap = keyspace->region->memory_bytes / 64;
	gap = gap > RECOVER_VERSION_GAP ? gap : RECOVER_VERSION_GAP;
	uint64_t next_seq = unended ? last_seq + gap : last_seq + 1;
	keyspace->log.next_seq = next_seq < KVS_SEQ_MAX ? next_seq : KVS_SEQ_MAX + 1;
	keyspace->log.segments[keyspace->log.head.segment].first_seq = keyspace->log.next_seq;
	kvs_store_relaxed(&keyspace->region->directory[keyspace->log.head.segment].first_seq,
			  keyspace->log.next_seq);
	kvs_store_relaxed(&marks->flush_seq, keyspace->flush_seq);
	kvs_store_relaxed(&marks->last_removal_seq, last_seq);
	kvs_store_release(&marks->durable_seq, keyspace->log.next_seq - 1);
	keyspace->durable_seen = keyspace->log.next_seq - 1;
	keyspace_publish_applied(keyspace);
	(void)keyspace_recover_drain(keyspace);
	keyspace_recover_settle(keyspace);
	return keyspace_has_versions(keyspace, 1);
}

int keyspace_start_prepare(struct keyspace *keyspace)
{
	keyspace->zero_freed = keyspace->zero_wanted;
	// The first write need not wait for the helper. If the machine is full it meets that.
	(void)kvs_table_secure(&keyspace->table, 1);
	int result = prepare_start(&keyspace->prepare, keyspace->region);
	keyspace->table.ahead.helped = result == 0;
	return result;
}

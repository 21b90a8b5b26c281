// SPDX-License-Identifier: MIT
//
// The lock is held for one block at a time: whoever closes the store, or puts another in its place,
// waits for no more than that. A record longer than a block is read piece by piece, each in a
// snapshot of its own, which is as good as one for all, since blocks do not change.
#include "daemon/storage/store_read.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/storage/store_internal.h"
#include "shm/crc32c.h"

static_assert(STORE_READERS_MAX <= ENV_READERS_MAX, "each has a place there");

struct store_reader {
	struct store *store;
	unsigned index;
	struct store_block block; // what `copy` holds; number 0 = nothing
	char why[STORE_WHY_BYTES];
	_Alignas(8) unsigned char copy[STORE_BLOCK_BYTES_MAX];
};

// ---- the owner's side ----

int store_read_init(struct store *store)
{
	pthread_rwlockattr_t attributes;
	int rc = pthread_rwlockattr_init(&attributes);
	if (rc != 0) {
		return rc;
	}
	// Else readers that come one after the other could keep the owner out for ever.
	rc = pthread_rwlockattr_setkind_np(&attributes,
					   PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	if (rc == 0) {
		rc = pthread_rwlock_init(&store->read_lock, &attributes);
	}
	(void)pthread_rwlockattr_destroy(&attributes);
	return rc;
}

static void set_read_env(struct store *store, struct env *env)
{
	(void)pthread_rwlock_wrlock(&store->read_lock); // cannot fail: not held by this thread
	store->read_env = env;
	(void)pthread_rwlock_unlock(&store->read_lock);
}

void store_show(struct store *store)
{
	set_read_env(store, store->readers > 0 ? store->env : NULL);
}

void store_show_replaced(struct store *store)
{
	set_read_env(store, store->replaced_env);
}

void store_hide(struct store *store)
{
	set_read_env(store, NULL);
}

// ---- the reader's ----

int store_reader_open(struct store_reader **out, struct store *store, unsigned index)
{
	struct store_reader *reader = calloc(1, sizeof(*reader));
	*out = reader;
	if (reader == NULL) {
		return STORE_NO_MEMORY;
	}
	reader->store = store;
	reader->index = index;
	return STORE_OK;
}

void store_reader_close(struct store_reader *reader)
{
	free(reader);
}

const char *store_reader_why(const struct store_reader *reader)
{
	return reader->why;
}

static int refuse(struct store_reader *reader, uint64_t number, const char *what)
{
	(void)snprintf(reader->why, sizeof(reader->why), "block %llu of the store: %s",
		       (unsigned long long)number, what);
	reader->block.number = 0;
	return STORE_DAMAGED;
}

static int no_memory(struct store_reader *reader)
{
	(void)snprintf(reader->why, sizeof(reader->why), "no memory for a record of the store");
	return STORE_NO_MEMORY;
}

// STORE_OK, an answer or an error; *bytes gets the block's length.
static int fetch(struct store_reader *reader, uint64_t number, size_t *bytes)
{
	struct store *store = reader->store;
	struct env_value value = { .out = reader->copy, .out_bytes = sizeof(reader->copy) };
	(void)pthread_rwlock_rdlock(&store->read_lock); // cannot fail: few hold it
	struct env *env = store->read_env;
	int rc = env == NULL ? 0 : env_read_beside(env, reader->index, number, &value);
	(void)pthread_rwlock_unlock(&store->read_lock);
	if (env == NULL) {
		return STORE_READ_SHUT;
	}
	if (rc == MDB_NOTFOUND) {
		return STORE_READ_GONE;
	}
	if (rc != 0) {
		(void)snprintf(reader->why, sizeof(reader->why), "block %llu of the store: %s",
			       (unsigned long long)number, mdb_strerror(rc));
		return store_error_of(rc);
	}
	*bytes = value.bytes;
	return STORE_OK;
}

// Makes `block` that of this number. One that is there already is good, whatever became of it.
static int load(struct store_reader *reader, uint64_t number)
{
	size_t bytes = 0;
	if (number != 0 && reader->block.number == number) {
		return STORE_OK;
	}
	reader->block.number = 0;
	int result = fetch(reader, number, &bytes);
	if (result != STORE_OK) {
		return result;
	}
	int fault = bytes > sizeof(reader->copy)
			    ? STORE_BLOCK_SHORT
			    : store_block_check(reader->copy, bytes, number, &reader->block);
	return fault == STORE_BLOCK_GOOD ? STORE_OK
					 : refuse(reader, number, store_block_fault_text(fault));
}

// Puts a record that goes on in the next blocks together in *record.
static int gather(struct store_reader *reader, const struct store_wanted *wanted,
		  struct store_record *record, uint64_t *packed_bytes)
{
	const struct store_block *block = &reader->block;
	uint64_t number = block->number;
	uint32_t span_bytes = block->span_bytes;
	// Header, expiry, key, run, padding.
	if (span_bytes > sizeof(struct kvs_record) + 1024u + (uint64_t)wanted->value_bytes) {
		return refuse(reader, number, "the record in it is longer than was known");
	}
	record->bytes = malloc(span_bytes);
	if (record->bytes == NULL) {
		return no_memory(reader);
	}
	for (uint32_t done = 0;;) {
		if (block->span_bytes != span_bytes || block->first_seq != wanted->seq ||
		    block->payload_bytes > span_bytes - done ||
		    ((block->flags & STORE_BLOCK_REST) != 0) != (done > 0)) {
			return refuse(reader, number, "it does not fit the record it belongs to");
		}
		memcpy(record->bytes + done, block->payload, block->payload_bytes);
		done += block->payload_bytes;
		if (done == span_bytes) {
			break;
		}
		int result = load(reader, ++number);
		if (result != STORE_OK) {
			return result;
		}
	}
	*packed_bytes = span_bytes;
	return STORE_OK;
}

// Copies a record that stands in the block, at this offset of its payload, to *record.
static int pick(struct store_reader *reader, uint32_t offset, struct store_record *record,
		uint64_t *packed_bytes)
{
	const struct store_block *block = &reader->block;
	struct kvs_record_view view;
	const void *value;
	if (offset >= block->payload_bytes || offset % KVS_RECORD_ALIGN_BYTES != 0 ||
	    store_packed_parse(block->payload + offset, block->payload_bytes - offset, &view,
			       &value, packed_bytes) != 0) {
		return refuse(reader, block->number, "no record stands at this place");
	}
	record->bytes = malloc(*packed_bytes);
	if (record->bytes == NULL) {
		return no_memory(reader);
	}
	memcpy(record->bytes, block->payload + offset, *packed_bytes);
	return STORE_OK;
}

static bool is_wanted(const struct store_wanted *wanted, const struct kvs_record_view *view)
{
	return view->seq == wanted->seq && view->value_bytes == wanted->value_bytes &&
	       view->key_bytes == wanted->key_bytes &&
	       (view->flags & (KVS_RECORD_TOMBSTONE | KVS_RECORD_FLUSH)) == 0 &&
	       memcmp(view->key, wanted->key, wanted->key_bytes) == 0;
}

static int believe(struct store_reader *reader, const struct store_wanted *wanted,
		   struct store_record *record, uint64_t packed_bytes)
{
	uint64_t number = kvs_place_block(wanted->place);
	struct kvs_record_view *view = &record->view;
	uint64_t parsed_bytes;
	if (store_packed_parse(record->bytes, packed_bytes, view, &record->value, &parsed_bytes) !=
		    0 ||
	    parsed_bytes != packed_bytes || !is_wanted(wanted, view)) {
		return refuse(reader, number, "another record stands at this place");
	}
	bool is_large = record->value != NULL;
	if (!kvs_record_crc_ok(view) ||
	    (is_large &&
	     kvs_crc32c(0, record->value, view->value_bytes) != kvs_record_run(view).crc)) {
		return refuse(reader, number, "a record's checksum is wrong");
	}
	record->value = is_large ? record->value : view->payload;
	return STORE_OK;
}

int store_reader_read(struct store_reader *reader, const struct store_wanted *wanted,
		      struct store_record *record)
{
	uint64_t number = kvs_place_block(wanted->place);
	uint32_t header_bytes = sizeof(struct store_block_header);
	uint32_t offset = kvs_place_offset(wanted->place);
	uint64_t packed_bytes = 0;
	record->bytes = NULL;
	int result = load(reader, number);
	if (result == STORE_OK) {
		if (offset < header_bytes || (reader->block.flags & STORE_BLOCK_REST) ||
		    (reader->block.flags != 0 && offset != header_bytes)) {
			result = refuse(reader, number, "no record begins at this place");
		} else if (reader->block.flags != 0) {
			result = gather(reader, wanted, record, &packed_bytes);
		} else {
			result = pick(reader, offset - header_bytes, record, &packed_bytes);
		}
	}
	if (result == STORE_OK) {
		result = believe(reader, wanted, record, packed_bytes);
	}
	if (result != STORE_OK) {
		free(record->bytes);
		record->bytes = NULL;
	}
	return result;
}

// ---- looking for records ----

int store_reader_block(struct store_reader *reader, uint64_t number,
		       const struct store_block **block)
{
	*block = &reader->block;
	return load(reader, number);
}

static bool block_has(const struct store_block *block, struct store_wanted *wanted)
{
	struct kvs_record_view view;
	const void *value;
	uint32_t next = 0;
	if (block->flags != 0) {
		wanted->place = store_block_place(block->number, 0);
		return (block->flags & STORE_BLOCK_REST) == 0 && block->first_seq == wanted->seq;
	}
	for (;;) {
		uint32_t offset = next;
		if (store_block_next(block, &next, &view, &value) <= 0) {
			return false;
		}
		if (is_wanted(wanted, &view)) {
			wanted->place = store_block_place(block->number, offset);
			return true;
		}
	}
}

int store_reader_find(struct store_reader *reader, struct store_wanted *wanted)
{
	const struct store_facts *facts = &reader->store->replaced;
	for (uint64_t number = facts->next_block + STORE_UNKNOWN_BLOCKS;
	     number-- > facts->oldest_block;) {
		int result = load(reader, number);
		if (result == STORE_OK && block_has(&reader->block, wanted)) {
			return STORE_OK;
		}
		if (result < 0 && result != STORE_DAMAGED) {
			return result;
		}
		if (result == STORE_READ_SHUT) {
			return STORE_IO;
		}
	}
	return STORE_READ_GONE;
}

// SPDX-License-Identifier: MIT
//
// What is in a block: its checksum, each record's, each large value's. In a block whose checksum is
// wrong those records are named that are damaged themselves; the others are still good.
#include <stdlib.h>
#include <string.h>

#include "daemon/storage/verify_internal.h"
#include "shm/crc32c.h"
#include "shm/hash.h"

#define VERIFY_SPAN_BYTES_MAX (sizeof(struct kvs_record) + 1024u + (uint64_t)KVS_VALUE_BYTES_MAX)

static void say_key(const struct verify *verify, const void *key, size_t key_bytes)
{
	const unsigned char *bytes = key;
	for (size_t i = 0; i < key_bytes; i++) {
		(void)fprintf(verify->options->out, "%02x", bytes[i]);
	}
}

void verify_damage(struct verify *verify, uint64_t block, uint64_t seq, const void *key,
		   size_t key_bytes, const char *text)
{
	if (verify->naming || verify->damaged++ >= VERIFY_NAMED_MAX) {
		return;
	}
	(void)fprintf(verify->options->out, "damage %llu %llu ", (unsigned long long)block,
		      (unsigned long long)seq);
	if (key_bytes > 0) {
		say_key(verify, key, key_bytes);
	} else {
		(void)fputc('-', verify->options->out);
	}
	(void)fprintf(verify->options->out, " %s\n", text);
}

// A key that memory did not name when it was asked: whoever reads this looks again.
static void name_extra(const struct verify *verify, const struct verify_key *key,
		       const struct kvs_record_view *view)
{
	if (key->known == 0 && verify_key_lives(&verify->keys, key) &&
	    key->winner >> 1 == view->seq) {
		(void)fputs("extra ", verify->options->out);
		say_key(verify, view->key, view->key_bytes);
		(void)fprintf(verify->options->out, " %llu\n", (unsigned long long)view->seq);
	}
}

static void meet(struct verify *verify, const struct kvs_record_view *view)
{
	if (view->flags & KVS_RECORD_FLUSH) {
		if (view->seq > verify->keys.flush_seq) {
			verify->keys.flush_seq = view->seq;
		}
		return;
	}
	uint64_t hash = kvs_hash(verify->hash_seed, view->key, view->key_bytes);
	struct verify_key *key = verify_keys_at(&verify->keys, hash);
	if (key == NULL) {
		verify->no_memory = true;
	} else if (verify->naming) {
		name_extra(verify, key, view);
	} else {
		verify_key_meet(key, view->seq, (view->flags & KVS_RECORD_TOMBSTONE) == 0);
	}
}

// Returns whether the record can be believed.
static bool look_at_record(struct verify *verify, uint64_t block,
			   const struct kvs_record_view *view, const void *value)
{
	const char *what = NULL;
	if (!kvs_record_crc_ok(view)) {
		what = "a record's checksum is wrong";
	} else if (view->seq > verify->facts.durable_seq) {
		what = "a record has a version that was never committed";
	} else if ((view->flags & KVS_RECORD_LARGE) && !verify->naming &&
		   kvs_crc32c(0, value, view->value_bytes) != kvs_record_run(view).crc) {
		what = "a large value's checksum is wrong";
	}
	if (what != NULL) {
		verify_damage(verify, block, view->seq, view->key, view->key_bytes, what);
		return false;
	}
	verify->records += !verify->naming;
	meet(verify, view);
	return true;
}

// Returns how many records are damaged; -1: it does not even hang together.
static int look_at_records(struct verify *verify, const struct store_block *block)
{
	uint32_t offset = 0;
	uint32_t count = 0;
	int bad = 0;
	int step;
	struct kvs_record_view view;
	const void *value;
	while ((step = store_block_next(block, &offset, &view, &value)) == 1) {
		count++;
		bad += !look_at_record(verify, block->number, &view, value);
	}
	return step < 0 || count != block->count ? -1 : bad;
}

// A block whose checksum is wrong: which of its records are?
static void look_at_damaged(struct verify *verify, uint64_t number, const void *data, size_t bytes,
			    int fault)
{
	const struct store_block_header *header = data;
	struct store_block block = { .number = number };
	struct kvs_record_view view;
	if (fault == STORE_BLOCK_CRC && header->flags == STORE_BLOCK_GOES_ON &&
	    header->span_bytes > bytes && bytes == STORE_BLOCK_BYTES_MAX &&
	    kvs_record_parse(header + 1, header->span_bytes, &view) == 0) {
		// Key and version as they stand there: they may be what is damaged.
		verify_damage(verify, number, view.seq, view.key, view.key_bytes,
			      "the checksum of the block in which it begins is wrong");
		return;
	}
	if (fault != STORE_BLOCK_CRC || bytes < sizeof(*header) || header->flags != 0 ||
	    header->bytes > bytes || header->bytes < sizeof(*header)) {
		verify_damage(verify, number, 0, NULL, 0, store_block_fault_text(fault));
		return;
	}
	block.payload = (const unsigned char *)(header + 1);
	block.payload_bytes = header->bytes - (uint32_t)sizeof(*header);
	block.count = header->count;
	if (look_at_records(verify, &block) <= 0) {
		// What is damaged is between the records, or hides where the next begins.
		verify_damage(verify, number, 0, NULL, 0, store_block_fault_text(fault));
	}
}

void verify_span_drop(struct verify *verify, const char *why)
{
	struct kvs_record_view view;
	if (verify->span != NULL && why != NULL) {
		// Its first block, which is good, holds the key.
		bool named =
			verify->span_done >= sizeof(struct kvs_record) + 8 + KVS_KEY_BYTES_MAX &&
			kvs_record_parse(verify->span, verify->span_bytes, &view) == 0;
		verify_damage(verify, verify->span_block, named ? view.seq : 0,
			      named ? view.key : NULL, named ? view.key_bytes : 0, why);
	}
	free(verify->span);
	verify->span = NULL;
}

static void span_over(struct verify *verify)
{
	struct kvs_record_view view;
	const void *value;
	uint64_t packed_bytes;
	if (store_packed_parse(verify->span, verify->span_bytes, &view, &value, &packed_bytes) !=
		    0 ||
	    packed_bytes != verify->span_bytes) {
		verify_span_drop(verify, "a long record is malformed");
		return;
	}
	(void)look_at_record(verify, verify->span_block, &view, value);
	verify_span_drop(verify, NULL);
}

static void look_at_piece(struct verify *verify, const struct store_block *block)
{
	if ((block->flags & STORE_BLOCK_REST) == 0) {
		verify_span_drop(verify, "a long record has no end");
		if (block->span_bytes > VERIFY_SPAN_BYTES_MAX) {
			verify_damage(verify, block->number, 0, NULL, 0,
				      "a record in it is too long");
			return;
		}
		verify->span = malloc(block->span_bytes);
		if (verify->span == NULL) {
			verify->no_memory = true;
			return;
		}
		verify->span_bytes = block->span_bytes;
		verify->span_done = 0;
		verify->span_block = block->number;
	}
	if (verify->span == NULL) {
		return; // its start was damaged, and said
	}
	uint32_t left = verify->span_bytes - verify->span_done;
	bool ends = left == block->payload_bytes;
	if (block->span_bytes != verify->span_bytes || block->payload_bytes > left ||
	    ends == ((block->flags & STORE_BLOCK_GOES_ON) != 0)) {
		verify_span_drop(verify, "the blocks of a long record do not fit each other");
		return;
	}
	memcpy(verify->span + verify->span_done, block->payload, block->payload_bytes);
	verify->span_done += block->payload_bytes;
	if (ends) {
		span_over(verify);
	}
}

void verify_block(struct verify *verify, uint64_t number, const void *data, size_t bytes)
{
	struct store_block block;
	int fault = store_block_check(data, bytes, number, &block);
	if (fault != STORE_BLOCK_GOOD) {
		verify_span_drop(verify, "a long record goes on in a block that is damaged");
		look_at_damaged(verify, number, data, bytes, fault);
		return;
	}
	if (block.flags != 0) {
		look_at_piece(verify, &block);
		return;
	}
	verify_span_drop(verify, "a long record has no end");
	if (look_at_records(verify, &block) < 0) {
		verify_damage(verify, number, 0, NULL, 0, "a record in it is malformed");
	}
}

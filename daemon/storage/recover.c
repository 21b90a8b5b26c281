// SPDX-License-Identifier: MIT
//
// The walk. Blocks must follow each other without a gap and end where the state says; a record
// longer than a block is put together in a buffer of its own, of a size that was bounded before.
#include "daemon/storage/recover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/storage/store_internal.h"

#define PROGRESS_EVERY_BLOCKS 256u
#define SPAN_BYTES_MAX (sizeof(struct kvs_record) + 1024u + (uint64_t)KVS_VALUE_BYTES_MAX)

struct walk_state {
	struct store *store;
	const struct store_walk *walk;
	uint64_t next_block; // expected
	uint64_t done_bytes;
	unsigned char *span; // record being put together, NULL = none
	uint32_t span_bytes;
	uint32_t span_done;
	uint64_t span_place;
	uint64_t span_seq;
	_Alignas(8) unsigned char copy[STORE_BLOCK_BYTES_MAX]; // of the block
};

static int walk_damaged(struct walk_state *state, const char *what)
{
	return store_damaged(state->store, "block %llu: %s", (unsigned long long)state->next_block,
			     what);
}

static int walk_record(struct walk_state *state, const struct kvs_record_view *view,
		       const void *value, uint64_t place)
{
	if (view->seq > state->store->committed.durable_seq) {
		return walk_damaged(state, "it holds a version that was never committed");
	}
	if (state->walk->check_records && !kvs_record_crc_ok(view)) {
		return walk_damaged(state, "a record's checksum is wrong");
	}
	return state->walk->record(state->walk->context, view, value, place);
}

static int walk_plain(struct walk_state *state, const struct store_block *block)
{
	uint32_t offset = 0;
	uint32_t count = 0;
	for (;;) {
		struct kvs_record_view view;
		const void *value;
		uint32_t at = offset;
		int step = store_block_next(block, &offset, &view, &value);
		if (step < 0) {
			return walk_damaged(state, "a record in it is malformed");
		}
		if (step == 0) {
			break;
		}
		count++;
		int result = walk_record(state, &view, value, store_block_place(block->number, at));
		if (result != STORE_OK) {
			return result;
		}
	}
	return count == block->count ? STORE_OK : walk_damaged(state, "records are missing in it");
}

static int span_finish(struct walk_state *state)
{
	struct kvs_record_view view;
	const void *value;
	uint64_t packed_bytes;
	int result;
	if (store_packed_parse(state->span, state->span_bytes, &view, &value, &packed_bytes) != 0 ||
	    packed_bytes != state->span_bytes || view.seq != state->span_seq) {
		result = walk_damaged(state, "the long record that ends in it is malformed");
	} else {
		result = walk_record(state, &view, value, state->span_place);
	}
	free(state->span);
	state->span = NULL;
	return result;
}

static int walk_piece(struct walk_state *state, const struct store_block *block)
{
	if (!(block->flags & STORE_BLOCK_REST)) {
		if (block->span_bytes > SPAN_BYTES_MAX) {
			return walk_damaged(state, "a record in it is too long");
		}
		state->span = malloc(block->span_bytes);
		if (state->span == NULL) {
			return store_fail(state->store, "reading a long record", ENOMEM);
		}
		state->span_bytes = block->span_bytes;
		state->span_done = 0;
		state->span_place = store_block_place(block->number, 0);
		state->span_seq = block->first_seq;
	}
	bool ends = state->span_bytes - state->span_done == block->payload_bytes;
	if (block->span_bytes != state->span_bytes || block->first_seq != state->span_seq ||
	    block->payload_bytes > state->span_bytes - state->span_done ||
	    ends == ((block->flags & STORE_BLOCK_GOES_ON) != 0)) {
		return walk_damaged(state, "it does not fit the long record it belongs to");
	}
	memcpy(state->span + state->span_done, block->payload, block->payload_bytes);
	state->span_done += block->payload_bytes;
	return ends ? span_finish(state) : STORE_OK;
}

static int walk_block(struct walk_state *state, size_t bytes)
{
	struct store_block block;
	int fault = bytes > STORE_BLOCK_BYTES_MAX
			    ? STORE_BLOCK_SHORT
			    : store_block_check(state->copy, bytes, state->next_block, &block);
	if (fault != STORE_BLOCK_GOOD) {
		return walk_damaged(state, store_block_fault_text(fault));
	}
	bool rest = (block.flags & STORE_BLOCK_REST) != 0;
	if (rest != (state->span != NULL)) {
		return walk_damaged(state, "a long record is cut off before it");
	}
	int result = block.flags == 0 ? walk_plain(state, &block) : walk_piece(state, &block);
	state->done_bytes += store_block_file_bytes(bytes);
	if (state->walk->progress != NULL && state->next_block % PROGRESS_EVERY_BLOCKS == 0) {
		state->walk->progress(state->walk->context, state->done_bytes,
				      state->store->committed.log_bytes);
	}
	return result;
}

static int walk_blocks(struct walk_state *state)
{
	const struct store_facts *facts = &state->store->committed;
	struct env_value value = { .out = state->copy, .out_bytes = sizeof(state->copy) };
	uint64_t number = 0;
	int rc = env_walk(state->store->env, MDB_FIRST, &number, &value);
	while (rc == 0) {
		if (number != state->next_block || number >= facts->next_block) {
			return walk_damaged(state, "another one stands in its place");
		}
		int result = walk_block(state, value.bytes);
		if (result != STORE_OK) {
			return result;
		}
		state->next_block++;
		rc = env_walk(state->store->env, MDB_NEXT, &number, &value);
	}
	if (rc != MDB_NOTFOUND) {
		return store_fail(state->store, "reading the log", rc);
	}
	if (state->next_block != facts->next_block || state->span != NULL) {
		return walk_damaged(state, "it is missing");
	}
	if (state->done_bytes != facts->log_bytes) {
		return walk_damaged(state, "the blocks before it are not those that were written");
	}
	if (state->walk->progress != NULL) {
		state->walk->progress(state->walk->context, state->done_bytes, facts->log_bytes);
	}
	return STORE_OK;
}

int store_recover(struct store *store, const struct store_walk *walk)
{
	struct walk_state *state = calloc(1, sizeof(*state));
	if (state == NULL) {
		return store_fail(store, "reading the log", ENOMEM);
	}
	state->store = store;
	state->walk = walk;
	state->next_block = store->committed.oldest_block;

	int rc = env_begin(store->env, false);
	if (rc == 0) {
		rc = env_open_cursor(store->env);
	}
	int result = rc == 0 ? walk_blocks(state) : store_fail(store, "reading the log", rc);
	env_abort(store->env);
	free(state->span);
	free(state);
	return result;
}

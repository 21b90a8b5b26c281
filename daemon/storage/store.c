// SPDX-License-Identifier: MIT
//
// Transactions on the log: append at its end, delete at its start, commit. What a transaction has
// done so far is kept in `now` and becomes `committed` only when LMDB says so.
#include "daemon/storage/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/storage/room.h"
#include "daemon/storage/store_internal.h"

void store_facts(const struct store *store, struct store_facts *facts)
{
	*facts = store->now;
}

uint64_t store_file_bytes(const struct store *store)
{
	uint64_t bytes;
	return store->env != NULL && env_file_bytes(store->env, &bytes) == 0 ? bytes : 0;
}

void store_set_instance(struct store *store, uint64_t instance_id)
{
	store->committed.instance_id = instance_id;
	store->now.instance_id = instance_id;
}

const char *store_why(const struct store *store)
{
	return store->why;
}

void store_abort(struct store *store)
{
	if (store->env != NULL) {
		env_abort(store->env);
	}
	store->now = store->committed;
	store_builder_reset(&store->builder);
}

// A failure inside a transaction: LMDB's state in it is not to be used again.
static int txn_fail(struct store *store, const char *what, int rc)
{
	int result = store_fail(store, what, rc);
	store_abort(store);
	return result;
}

// After a failed sync the kernel holds the pages that did not arrive for clean, so a second sync
// would succeed and prove nothing. Opening anew and writing everything once more is what is sound:
// the meta page then names only what was synced, the retried commit writes all its pages again, and
// a commit that did arrive although it was reported as failed only leaves records that stand twice.
static int store_reattach(struct store *store)
{
	struct store_facts before = store->committed;
	store_detach(store);
	int error = store->is_cramped ? room_refused(store->dir) : 0;
	if (error != 0) {
		store_read_cramped(store);
		return store_fail(store, "waiting for room to open it again", error);
	}
	if (store->replaced_path == NULL) {
		store_replaced_drop(store); // a file must not be open twice when it is lost
	}
	int result = store_attach(store);
	if (result != STORE_OK && store->is_cramped) {
		store_read_cramped(store);
	}
	if (result == STORE_OK && store->committed.durable_seq < before.durable_seq) {
		store_detach(store); // made anew by opening it, or an older one put in its place
		store->committed = before;
		store->now = before;
		return store_gone(store, "what was durable is not in it any more",
				  "kvd writes it anew from memory");
	}
	if (result == STORE_OK) {
		store_set_instance(store, before.instance_id);
	}
	return result;
}

#define STORE_RENEWED "kvd writes it anew from memory; leave the data folder alone"

// A file that was removed or replaced under us can be written for ever, and nobody will ever find
// what is in it. One that was cut short has mapped pages with nothing behind them: LMDB's next look
// at one would cost the environment. LMDB itself never makes its file shorter.
static int still_whole(struct store *store)
{
	char path[4096];
	struct stat named;
	struct stat opened;
	int fd;
	int length = snprintf(path, sizeof(path), "%s/data.mdb", store->path);
	if (length < 0 || (size_t)length >= sizeof(path)) {
		return store_fail(store, "looking for its file", ENAMETOOLONG);
	}
	int rc = env_data_fd(store->env, &fd);
	if (rc != 0) {
		return store_fail(store, "looking for its file", rc);
	}
	if (stat(path, &named) != 0 || fstat(fd, &opened) != 0 || named.st_ino != opened.st_ino ||
	    named.st_dev != opened.st_dev) {
		int result = store_folder_check(store);
		return result != STORE_OK ? result
					  : store_gone(store, "its file was removed or replaced",
						       STORE_RENEWED);
	}
	if (opened.st_size < store->file_bytes) {
		return store_gone(store, "its file was cut short", STORE_RENEWED);
	}
	store->file_bytes = opened.st_size;
	return STORE_OK;
}

int store_begin(struct store *store)
{
	if (store->reopen || store->env == NULL) {
		int result = store_reattach(store);
		if (result != STORE_OK) {
			store->reopen = true;
			return result;
		}
	}
	int whole = still_whole(store);
	if (whole != STORE_OK) {
		return whole;
	}
	int rc = env_begin(store->env, true);
	if (rc == 0) {
		rc = env_open_cursor(store->env);
	}
	if (rc != 0) {
		return txn_fail(store, "beginning a transaction", rc);
	}
	store->now = store->committed;
	store_builder_reset(&store->builder);
	return STORE_OK;
}

static int put_block(struct store *store, uint32_t value_bytes)
{
	int rc = env_append(store->env, store->now.next_block, store->builder.bytes, value_bytes);
	if (rc != 0) {
		return txn_fail(store, "appending a block", rc);
	}
	store->now.next_block++;
	store->now.log_bytes += store_block_file_bytes(value_bytes);
	store_builder_reset(&store->builder);
	return STORE_OK;
}

static int flush_block(struct store *store)
{
	if (store->builder.count == 0) {
		return STORE_OK;
	}
	return put_block(store, store_builder_finish(&store->builder, store->now.next_block));
}

// The bytes [from, from + bytes) of a record as it is packed: record with its place zeroed, value,
// zeroes.
static void copy_packed(unsigned char *to, const struct kvs_record_view *view, const void *value,
			uint64_t from, uint64_t bytes)
{
	struct kvs_record header;
	memcpy(&header, view->record, offsetof(struct kvs_record, place));
	header.place = 0;
	const struct {
		const unsigned char *bytes;
		uint64_t length;
	} parts[] = {
		{ (const unsigned char *)&header, sizeof(header) },
		{ (const unsigned char *)(view->record + 1), view->record_bytes - sizeof(header) },
		{ value, view->flags & KVS_RECORD_LARGE ? view->value_bytes : 0 },
	};
	uint64_t start = 0;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]) && bytes > 0; i++) {
		uint64_t end = start + parts[i].length;
		if (from < end) {
			uint64_t here = end - from < bytes ? end - from : bytes;
			memcpy(to, parts[i].bytes + (from - start), here);
			to += here;
			from += here;
			bytes -= here;
		}
		start = end;
	}
	memset(to, 0, bytes);
}

static uint32_t piece_flags(uint64_t done, uint64_t piece_bytes, uint64_t span_bytes)
{
	uint32_t flags = done > 0 ? STORE_BLOCK_REST : 0;
	return done + piece_bytes < span_bytes ? flags | STORE_BLOCK_GOES_ON : flags;
}

static int append_long(struct store *store, const struct kvs_record_view *view, const void *value,
		       uint64_t span_bytes)
{
	for (uint64_t done = 0; done < span_bytes;) {
		uint64_t left = span_bytes - done;
		uint32_t piece = left < STORE_PAYLOAD_BYTES_MAX ? (uint32_t)left
								: (uint32_t)STORE_PAYLOAD_BYTES_MAX;
		unsigned char *bytes = store->builder.bytes;
		copy_packed(bytes + sizeof(struct store_block_header), view, value, done, piece);
		uint32_t value_bytes = store_builder_finish_piece(
			bytes, store->now.next_block, view->seq, piece,
			piece_flags(done, piece, span_bytes), (uint32_t)span_bytes);
		int result = put_block(store, value_bytes);
		if (result != STORE_OK) {
			return result;
		}
		done += piece;
	}
	return STORE_OK;
}

int store_append(struct store *store, const struct kvs_record_view *view, const void *value,
		 uint64_t *place)
{
	uint64_t packed_bytes = store_packed_bytes(view);
	if (packed_bytes > store_builder_room(&store->builder)) {
		int result = flush_block(store);
		if (result != STORE_OK) {
			return result;
		}
		if (packed_bytes > STORE_PAYLOAD_BYTES_MAX) {
			*place = store_block_place(store->now.next_block, 0);
			return append_long(store, view, value, packed_bytes);
		}
	}
	uint32_t offset = store_builder_add(&store->builder, view, value);
	*place = store_block_place(store->now.next_block, offset);
	return STORE_OK;
}

int store_refuse(struct store *store, uint64_t number, const char *what)
{
	int result = store_damaged(store, "block %llu: %s", (unsigned long long)number, what);
	store_abort(store);
	return result;
}

int store_append_span(struct store *store, uint64_t first_block, uint64_t *place)
{
	int result = flush_block(store);
	if (result != STORE_OK) {
		return result;
	}
	*place = store_block_place(store->now.next_block, 0);
	uint64_t done = 0;
	uint64_t span_bytes = 1;
	for (uint64_t number = first_block; done < span_bytes; number++) {
		size_t bytes;
		result = store_read_block(store, number, store->builder.bytes, &bytes);
		if (result != STORE_OK) {
			return result;
		}
		struct store_block piece;
		int fault = store_block_check(store->builder.bytes, bytes, number, &piece);
		if (fault != STORE_BLOCK_GOOD || piece.span_bytes == 0 ||
		    (done > 0 && piece.span_bytes != span_bytes)) {
			return store_refuse(store, number, store_block_fault_text(fault));
		}
		span_bytes = piece.span_bytes;
		uint32_t value_bytes = store_builder_finish_piece(
			store->builder.bytes, store->now.next_block, piece.first_seq,
			piece.payload_bytes, piece.flags, piece.span_bytes);
		result = put_block(store, value_bytes);
		if (result != STORE_OK) {
			return result;
		}
		done += piece.payload_bytes;
	}
	return STORE_OK;
}

uint32_t store_slack(const struct store *store)
{
	if (store->builder.count == 0 || store->builder.used <= STORE_INLINE_BYTES_MAX) {
		return 0;
	}
	return store_block_value_bytes(store->builder.used) - store->builder.used;
}

int store_read_block(struct store *store, uint64_t number, void *out, size_t *bytes)
{
	struct env_value value = { .out = out, .out_bytes = STORE_BLOCK_BYTES_MAX };
	int rc = env_read(store->env, ENV_LOG, &number, sizeof(number), &value);
	if (rc != 0) {
		return txn_fail(store, "reading a block", rc);
	}
	if (value.bytes > STORE_BLOCK_BYTES_MAX) {
		int result =
			store_damaged(store, "block %llu is too long", (unsigned long long)number);
		store_abort(store);
		return result;
	}
	*bytes = value.bytes;
	return STORE_OK;
}

int store_delete_oldest(struct store *store, uint64_t count)
{
	for (; count > 0; count--) {
		size_t value_bytes;
		int rc = env_delete(store->env, store->now.oldest_block, &value_bytes);
		if (rc != 0) {
			return txn_fail(store, "deleting a block", rc);
		}
		store->now.oldest_block++;
		store->now.log_bytes -= store_block_file_bytes(value_bytes);
	}
	return STORE_OK;
}

static int commit(struct store *store, uint64_t durable_seq, bool ends)
{
	int result = flush_block(store);
	if (result != STORE_OK) {
		return result;
	}
	// Never less than what is known to be there: a commit that was reported as failed may have
	// arrived, and the one that follows may be shorter.
	if (durable_seq > store->now.durable_seq) {
		store->now.durable_seq = durable_seq;
	}
	store->now.ended = ends;
	result = still_whole(store);
	if (result != STORE_OK) {
		store_abort(store);
		return result;
	}
	int rc = store_meta_write(store, &store->now);
	if (rc != 0) {
		return txn_fail(store, "writing its state", rc);
	}
	rc = env_commit(store->env);
	if (rc != 0) {
		return txn_fail(store, "committing", rc);
	}
	result = still_whole(store);
	if (result != STORE_OK) {
		store_abort(store);
		return result;
	}
	store->committed = store->now;
	store->room_error = 0;
	return STORE_OK;
}

bool store_may_have_arrived(const struct store *store)
{
	return store->is_cramped;
}

int store_commit(struct store *store, uint64_t durable_seq)
{
	return commit(store, durable_seq, false);
}

int store_commit_last(struct store *store, uint64_t durable_seq)
{
	return commit(store, durable_seq, true);
}

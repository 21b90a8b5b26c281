// SPDX-License-Identifier: MIT
//
// Who owns what: each record names its writer by an index, and for each index the bytes and keys
// that are current are counted. What is counted is what live_bytes counts, removals apart, so that
// both can be held against each other. A quota is asked for in front of a write that grows what its
// writer owns; removals, and what only changes a time to live or a name, are not held up.
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "shm/region.h"
#include "shm/writers.h"

static struct kvs_writers *owner_table(const struct keyspace *keyspace)
{
	return kvs_writers_of(keyspace->region->base);
}

/// Indices up to KVS_WRITERS_FORMER stand for nobody.
static void owner_begin_table(struct kvs_writers *table, bool former)
{
	uint64_t count = former ? KVS_WRITERS_FORMER : 0;
	memset(table, 0, sizeof(*table));
	for (uint64_t i = 0; i < count; i++) {
		table->uid[i] = KVS_WRITER_NOBODY;
	}
	kvs_store_relaxed(&table->count, count);
	memcpy(table->marker, KVS_WRITERS_MARKER, sizeof(table->marker));
}

bool keyspace_owner_open(struct keyspace *keyspace, bool adopted)
{
	struct kvs_writers *table = owner_table(keyspace);
	keyspace->owners = calloc(KVS_WRITERS_MAX, sizeof(*keyspace->owners));
	if (keyspace->owners == NULL ||
	    kvs_region_populate(keyspace->region, KVS_WRITERS_OFFSET, KVS_WRITERS_BYTES) != 0) {
		return false;
	}
	if (memcmp(table->marker, KVS_WRITERS_MARKER, sizeof(table->marker)) != 0 ||
	    table->count >= KVS_WRITERS_MAX) {
		owner_begin_table(table, adopted);
	}
	return true;
}

void keyspace_writers_load(struct keyspace *keyspace, const uint32_t *uids, uint32_t count)
{
	struct kvs_writers *table = owner_table(keyspace);
	owner_begin_table(table, uids == NULL);
	if (uids != NULL && count < KVS_WRITERS_MAX) {
		memcpy(table->uid, uids, count * sizeof(*uids));
		kvs_store_release(&table->count, count);
	}
}

void keyspace_writers_copy(struct keyspace *keyspace, const struct keyspace *from)
{
	const struct kvs_writers *table = owner_table(from);
	keyspace_writers_load(keyspace, table->uid, (uint32_t)kvs_load_relaxed(&table->count));
}

/// Index of a uid, 0 = none.
static uint16_t owner_find(const struct kvs_writers *table, uint32_t uid)
{
	uint64_t count = kvs_load_relaxed(&table->count); // own word
	for (uint64_t i = 0; i < count; i++) {
		if (table->uid[i] == uid) {
			return (uint16_t)(i + 1);
		}
	}
	return 0;
}

uint16_t keyspace_writer_index(struct keyspace *keyspace, uint32_t uid)
{
	struct kvs_writers *table = owner_table(keyspace);
	uint16_t index = owner_find(table, uid);
	uint64_t count = kvs_load_relaxed(&table->count);
	if (index != 0 || uid == KVS_WRITER_NOBODY) {
		return index;
	}
	if (count == KVS_WRITERS_MAX - 1) {
		log_warning("uid %u is beyond the %u users whose records kvd can tell apart: it "
			    "shares one quota-stored-bytes with all others beyond them",
			    (unsigned)uid, KVS_WRITERS_MAX - 1);
		return 0;
	}
	table->uid[count] = uid;
	// Release: the user (partner: the persister, which stores it before what it wrote).
	kvs_store_release(&table->count, count + 1);
	return (uint16_t)(count + 1);
}

bool keyspace_writer_uid(const struct keyspace *keyspace, uint16_t index, uint32_t *uid)
{
	const struct kvs_writers *table = owner_table(keyspace);
	if (index == 0 || index > kvs_load_relaxed(&table->count)) {
		return false;
	}
	*uid = table->uid[index - 1];
	return *uid != KVS_WRITER_NOBODY;
}

struct keyspace_owned keyspace_owned(const struct keyspace *keyspace, uint16_t index)
{
	return keyspace->owners[index & (KVS_WRITERS_MAX - 1)];
}

struct keyspace_written keyspace_written(const struct keyspace *keyspace)
{
	return keyspace->written;
}

void keyspace_owners_flush(struct keyspace *keyspace)
{
	// Index 0 too.
	uint64_t count = kvs_load_relaxed(&owner_table(keyspace)->count) + 1;
	memset(keyspace->owners, 0, count * sizeof(*keyspace->owners));
}

// ---- the quota ----

static uint64_t owner_op_bytes(const struct keyspace *keyspace, const struct keyspace_op *op)
{
	bool large = op->run_offset != 0 || keyspace_is_large(keyspace, op->value_bytes);
	return op->record_bytes + (large ? op->value_bytes : 0u);
}

/// Bytes of the version in the table that the writer of `op` owns and `op` takes the place of.
static uint64_t owner_replaces(struct keyspace *keyspace, const struct keyspace_op *op)
{
	struct kvs_hit hit;
	if (keyspace_find(keyspace, op->hash, op->key, op->key_bytes, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || kvs_record_writer(hit.view.record) != op->writer) {
		return 0;
	}
	return keyspace_stored_bytes(keyspace, &hit.view);
}

static bool owner_may_grow(const struct keyspace *keyspace, uint64_t adds, uint64_t takes)
{
	uint64_t most = keyspace->writer->quota_bytes;
	uint64_t has = keyspace->owners[keyspace->writer->index].bytes;
	return adds <= takes || has + adds - takes <= most;
}

int keyspace_owner_admit(struct keyspace *keyspace, struct keyspace_op *op)
{
	keyspace_op_measure(keyspace, op);
	bool may = owner_may_grow(keyspace, owner_op_bytes(keyspace, op),
				  owner_replaces(keyspace, op));
	return may ? KEYSPACE_OK : KEYSPACE_QUOTA;
}

int keyspace_owner_admit_batch(struct keyspace *keyspace)
{
	const struct keyspace_batch *batch = &keyspace->batch;
	uint16_t writer = keyspace->writer->index;
	bool flushed = batch->flushed != 0;
	bool grows = false;
	uint64_t adds = 0;
	uint64_t takes = flushed ? keyspace->owners[writer].bytes : 0;
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct keyspace_op *op = &batch->ops[i];
		if (op->superseded) {
			continue;
		}
		struct keyspace_op mine = *op;
		mine.writer = writer;
		takes += flushed ? 0 : owner_replaces(keyspace, &mine);
		if (op->kind == KEYSPACE_OP_SET && op->writer == writer) {
			adds += owner_op_bytes(keyspace, op);
			grows |= op->purpose == KEYSPACE_FOR_WRITE;
		}
	}
	return !grows || owner_may_grow(keyspace, adds, takes) ? KEYSPACE_OK : KEYSPACE_QUOTA;
}

// SPDX-License-Identifier: MIT
//
// Walks over keys, and the batch laid over the table; see keyspace_view.h. A batch is small beside
// the table and such commands are rare inside one, so its ops are simply walked.
#include "daemon/keyspace_view.h"

#include "daemon/keyspace_internal.h"

/// Is this op the batch's last word on its key?
static bool view_is_newest(const struct keyspace_op *op)
{
	return op->kind != KEYSPACE_OP_FLUSH && !op->superseded;
}

static bool view_is_plain(const struct keyspace *keyspace)
{
	return !keyspace->batch.open || keyspace->batch.count == 0;
}

struct scan_context {
	struct keyspace *keyspace;
	void (*visit)(void *context, const void *key, size_t key_bytes,
		      const struct keyspace_value *value);
	void *context;
};

static void scan_visit(void *context, uint64_t entry)
{
	struct scan_context *scan = context;
	struct kvs_hit hit;
	if (kvs_table_load(&scan->keyspace->region->map, entry, &hit) != KVS_FIND_HIT) {
		// Whose it is nobody knows; who counts what a walk should see can tell.
		keyspace_counter_add(scan->keyspace, KVS_COUNTER_damage_met, 1);
		return;
	}
	if (hit.kind == KVS_ENTRY_TOMBSTONE ||
	    keyspace_is_expired(scan->keyspace, hit.view.expiry_ms)) {
		return;
	}
	struct keyspace_value value;
	keyspace_value_from_hit(&hit, &value);
	scan->visit(scan->context, hit.view.key, hit.view.key_bytes, &value);
}

uint64_t keyspace_scan(struct keyspace *keyspace, uint64_t cursor,
		       void (*visit)(void *context, const void *key, size_t key_bytes,
				     const struct keyspace_value *value),
		       void *context)
{
	struct scan_context scan = { .keyspace = keyspace, .visit = visit, .context = context };
	return kvs_table_scan(&keyspace->region->map, cursor, scan_visit, &scan);
}

uint64_t keyspace_view_count(struct keyspace *keyspace)
{
	if (view_is_plain(keyspace)) {
		return keyspace_count(keyspace);
	}
	const struct keyspace_batch *batch = &keyspace->batch;
	uint64_t count = batch->flushed ? 0 : keyspace_count(keyspace);
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct keyspace_op *op = &batch->ops[i];
		if (!view_is_newest(op)) {
			continue;
		}
		struct kvs_hit hit;
		bool before = !batch->flushed &&
			      keyspace_find(keyspace, op->hash, op->key, op->key_bytes, &hit) ==
				      KVS_FIND_HIT &&
			      hit.kind != KVS_ENTRY_TOMBSTONE;
		count += (uint64_t)(op->kind == KEYSPACE_OP_SET) - (uint64_t)before;
	}
	return count;
}

struct view {
	struct keyspace *keyspace;
	void (*visit)(void *context, const void *key, size_t key_bytes,
		      const struct keyspace_value *value);
	void *context;
};

/// A key of the table that the batch left alone.
static void view_visit(void *context, const void *key, size_t key_bytes,
		       const struct keyspace_value *value)
{
	const struct view *view = context;
	uint64_t hash = keyspace_hash(view->keyspace, key, key_bytes);
	if (!keyspace_batch_find(view->keyspace, hash, key, key_bytes)) {
		view->visit(view->context, key, key_bytes, value);
	}
}

uint64_t keyspace_view_scan(struct keyspace *keyspace, uint64_t cursor,
			    void (*visit)(void *context, const void *key, size_t key_bytes,
					  const struct keyspace_value *value),
			    void *context)
{
	if (view_is_plain(keyspace)) {
		return keyspace_scan(keyspace, cursor, visit, context);
	}
	struct view view = { .keyspace = keyspace, .visit = visit, .context = context };
	cursor = keyspace_scan(keyspace, cursor, view_visit, &view);
	const struct keyspace_batch *batch = &keyspace->batch;
	for (uint32_t i = 0; cursor == 0 && i < batch->count; i++) {
		const struct keyspace_op *op = &batch->ops[i];
		struct keyspace_value value;
		if (view_is_newest(op) &&
		    keyspace_stat(keyspace, op->key, op->key_bytes, &value) == KEYSPACE_OK) {
			visit(context, op->key, op->key_bytes, &value);
		}
	}
	return cursor;
}

uint64_t keyspace_view_cursor(const struct keyspace *keyspace, uint64_t position)
{
	return kvs_table_cursor(&keyspace->region->map, position);
}

uint64_t keyspace_view_skip(const struct keyspace *keyspace, uint64_t cursor, uint64_t limit)
{
	return kvs_table_skip(&keyspace->region->map, cursor, limit);
}

void keyspace_scan_begins(struct keyspace *keyspace)
{
	keyspace->scans++;
}

void keyspace_scan_over(struct keyspace *keyspace)
{
	keyspace->scans--;
}

// SPDX-License-Identifier: MIT
//
// A new store from memory, after the old one failed. Let D be what is durable and P the place in
// the log behind it. The table is walked first: every version up to D that it names is written.
// Then the log from P to what is published by then, up to version T. Nothing of it counts before
// all of it does, so what is written in between need not be any one moment's state. It is T's:
//
//  - A key whose newest version up to T is above D has it in the log behind P, and it outranks
//    whatever the walk wrote of that key.
//  - One whose newest version is a value not above D has had it since before the walk began, hence
//    the walk, which sees whatever is there throughout, wrote it. Cleaning moves it and keeps its
//    version.
//  - One that was removed by D has no older version left in the table, hence none in the new store,
//    and needs no tombstone. The same for a FLUSHALL.
//
// Versions above D are not written by the walk: one of them might be beyond T, without the rest of
// its batch. The table may grow, shrink or be replaced meanwhile; a position of the walk counts
// only if the root stood still, and a section's records only if it was not revoked.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/persist_internal.h"
#include "daemon/remedy.h"

#define RENEW_COMMIT_BYTES PERSIST_COMMIT_BYTES_MAX
#define RENEW_SECTION_BYTES (UINT64_C(64) << 10) // written before a read section ends
#define RENEW_SECTION_POSITIONS 64u
#define RENEW_REVOCATIONS_MAX 1000u

enum { RENEW_REVOKED = 1 }; // beside enum store_error

struct renewal {
	struct persist *persist;
	uint64_t cursor;
	uint64_t bytes; // of the open transaction
	int result;
	bool done;	 // the cursor came round
	bool unreadable; // something in the table could not be, unless the section was revoked
};

static void visit(void *context, uint64_t entry)
{
	struct renewal *renewal = context;
	struct persist *persist = renewal->persist;
	struct kvs_hit hit;
	uint64_t place;
	if (renewal->result != STORE_OK || renewal->unreadable) {
		return;
	}
	if (kvs_table_load(persist->options.map, entry, &hit) != KVS_FIND_HIT) {
		renewal->unreadable = true;
		return;
	}
	if (hit.kind == KVS_ENTRY_TOMBSTONE || hit.view.seq > persist->durable_seq) {
		return;
	}
	if (hit.value == NULL) {
		renewal->unreadable = true; // its value stands in the old store alone
		return;
	}
	const void *value = hit.view.flags & KVS_RECORD_LARGE ? hit.value : NULL;
	renewal->result = store_append(persist->options.store, &hit.view, value, &place);
	renewal->bytes += store_packed_bytes(&hit.view);
}

// One position of the walk; again if the table moved meanwhile.
static void walk_position(struct renewal *renewal)
{
	const struct kvs_map *map = renewal->persist->options.map;
	const struct kvs_hot *hot = renewal->persist->hot;
	uint64_t before;
	uint64_t after;
	uint64_t next;
	do {
		before = kvs_load_acquire(&hot->table_root);
		next = kvs_table_scan(map, renewal->cursor, visit, renewal);
		kvs_fence_acquire(); // as a miss is confirmed (shm/table.h)
		after = kvs_load_acquire(&hot->table_root);
	} while (before != after && renewal->result == STORE_OK);
	renewal->cursor = next;
	renewal->done = next == 0;
}

// A read section's worth. Returns STORE_OK, RENEW_REVOKED, or an enum store_error.
static int walk_section(struct renewal *renewal)
{
	struct persist *persist = renewal->persist;
	uint64_t bytes_max = renewal->bytes + RENEW_SECTION_BYTES;
	if (!kvs_epoch_enter(persist->options.slot, persist->hot, persist->fenced)) {
		return RENEW_REVOKED;
	}
	for (unsigned i = 0; i < RENEW_SECTION_POSITIONS && renewal->result == STORE_OK &&
			     !renewal->unreadable && !renewal->done && renewal->bytes < bytes_max;
	     i++) {
		walk_position(renewal);
	}
	if (!kvs_epoch_leave(persist->options.slot, persist->hot)) {
		return renewal->result == STORE_OK ? RENEW_REVOKED : renewal->result;
	}
	if (renewal->result == STORE_OK && renewal->unreadable) {
		persist->txn.failure = "a record in memory cannot be read, so the store cannot be "
				       "written anew: save the data with kvctl dump and restart "
				       "kvd";
		store_abort(persist->options.store);
		return STORE_DAMAGED;
	}
	return renewal->result;
}

// A transaction's worth. As walk_section(); only if it is STORE_OK something is written.
static int walk_transaction(struct renewal *renewal)
{
	struct store *store = renewal->persist->options.store;
	int result = store_begin(store);
	renewal->bytes = 0;
	while (result == STORE_OK && !renewal->done && renewal->bytes < RENEW_COMMIT_BYTES) {
		result = walk_section(renewal);
	}
	if (result == STORE_OK) {
		return store_commit(store, 0);
	}
	if (result == RENEW_REVOKED) {
		store_abort(store);
	}
	return result;
}

static int walk_table(struct persist *persist)
{
	struct renewal renewal = { .persist = persist };
	unsigned revocations = 0;
	while (!renewal.done) {
		uint64_t cursor = renewal.cursor;
		int result = walk_transaction(&renewal);
		if (result == RENEW_REVOKED && revocations++ < RENEW_REVOCATIONS_MAX) {
			renewal = (struct renewal){ .persist = persist, .cursor = cursor };
		} else if (result == RENEW_REVOKED) {
			persist->txn.failure = "kvd's own reading of the table is revoked again "
					       "and again: give it more --memory";
			return STORE_SYSTEM;
		} else if (result != STORE_OK) {
			return result;
		}
		persist_refuse(persist, persist->durable_seq);
	}
	return STORE_OK;
}

// What is not durable, to `end`, in as many transactions as it takes; the last one says up to which
// version the store is whole.
static int append_rest(struct persist *persist, struct kvs_log_position end)
{
	struct persist_txn *txn = &persist->txn;
	struct store *store = persist->options.store;
	struct kvs_record_view view;
	for (;;) {
		uint64_t bytes = txn->bytes;
		bool more = true;
		int result = store_begin(store);
		while (result == STORE_OK && txn->bytes - bytes < RENEW_COMMIT_BYTES &&
		       (more = kvs_log_follow(persist->options.log, &txn->position, end, &view))) {
			result = persist_append(persist, &view);
			txn->target_seq = view.seq;
		}
		if (result == STORE_OK && !more) {
			result = persist_at_end(persist, txn->position, end);
		}
		if (result == STORE_OK) {
			result = store_commit(store, more ? 0 : txn->target_seq);
		}
		if (result != STORE_OK || !more) {
			return result;
		}
		persist_refuse(persist, persist->durable_seq);
	}
}

static int renew(struct persist *persist)
{
	struct store *store = persist->options.store;
	int result = store_renew_begin(store);
	if (result != STORE_OK) {
		return result;
	}
	result = walk_table(persist);
	if (result == STORE_OK) {
		persist->round_end = kvs_log_published(persist->options.log);
		persist->round_open = true;
		result = append_rest(persist, persist->round_end);
	}
	return result == STORE_OK ? store_renew_finish(store) : result;
}

int persist_renew(struct persist *persist)
{
	persist->txn = (struct persist_txn){
		.position = persist->position,
		.target_seq = persist->durable_seq,
	};
	persist_compact_reset(persist);
	int result = renew(persist);
	if (result != STORE_OK) {
		store_renew_abandon(persist->options.store);
		return result;
	}
	persist->position = persist->txn.position;
	persist->durable_seq = persist->txn.target_seq;
	persist->untrusted = false;
	persist->compact.broken = false;
	persist->compact.idle_stop = 0;
	kvs_store_relaxed(&persist->renewals, persist->renewals + 1); // a statistic
	persist_count_commit(persist);
	return STORE_OK;
}

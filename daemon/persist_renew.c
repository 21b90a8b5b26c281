// SPDX-License-Identifier: MIT
//
// A new store from memory, after the old one failed. Let D be what is durable and P the place in
// the log behind it. The table is walked first: every version up to D that it names is written.
// Then the log from P to what is published by then, up to version T. Nothing of it counts before
// all of it does, so what is written in between need not be any one moment's state. It is T's:
//
//  - A key whose newest version up to T is above D has it in the log behind P, and it outranks
//    whatever the walk wrote of that key.
//  - The walk may meet what the log does not have yet, for entries are published before the log
//    is. T is no less than the newest version that the walk left out and the newest removal, or a
//    key could be without both its old version and the new one.
//  - One whose newest version is a value not above D has had it since before the walk began, hence
//    the walk, which sees whatever is there throughout, wrote it. Cleaning moves it and keeps its
//    version.
//  - One that was removed by D has no older version left in the table, hence none in the new store,
//    and needs no tombstone. The same for a FLUSHALL.
//
// Versions above D are not written by the walk: one of them might be beyond T, without the rest of
// its batch. How the walk sees whatever is there throughout: daemon/region_walk.h.
//
// Values that are in the old store alone come from there, by their places. Their keys learn the new
// ones afterwards (persist_places.c). What cannot be read is named, and keeps its stub: whoever
// asks for it is told so, until it is written or removed.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/persist_internal.h"
#include "daemon/region_walk.h"
#include "daemon/storage/store_read.h"

#define RENEW_COMMIT_BYTES PERSIST_COMMIT_BYTES_MAX
#define RENEW_UNREADABLE                                                                         \
	"a record in memory cannot be read, so the store cannot be written anew: save the data " \
	"with kvctl dump and restart kvd"

// While the old store still takes commits, waiting for this one is better than an error.
static void refuse_if_untrusted(struct persist *persist)
{
	if (persist->untrusted) {
		persist_refuse(persist, persist->durable_seq);
	}
}

static int walk_table(struct persist *persist, struct table_copy *copy)
{
	*copy = (struct table_copy){
		.walk = {
			.map = persist->options.map,
			.slot = persist->options.slot,
			.hot = persist->hot,
			.fenced = persist->fenced,
		},
		.store = persist->options.store,
		.cold = persist->cold,
		.replaces = true,
		.upto_seq = persist->durable_seq,
	};
	while (!copy->walk.done) {
		int result = table_copy_some(copy);
		if (result != STORE_OK) {
			bool damaged = copy->unreadable != NULL && result == STORE_DAMAGED;
			persist->txn.failure = damaged ? RENEW_UNREADABLE : copy->unreadable;
			return result;
		}
		refuse_if_untrusted(persist);
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
		if (result == STORE_OK && !more) {
			persist->writers_stored = 0; // not in this store
			result = persist_put_writers(persist);
		}
		if (result == STORE_OK) {
			result = store_commit(store, more ? 0 : txn->target_seq);
		}
		if (result != STORE_OK || !more) {
			return result;
		}
		refuse_if_untrusted(persist);
	}
}

static void say_lost(const struct persist *persist, const struct table_copy *copy)
{
	kvs_count(kvs_counter_word(persist->options.region_base, KVS_COUNTER_cold_lost),
		  copy->lost);
	log_error("%llu values were in the old store alone and cannot be read there: %s%s; it is "
		  "left beside the new one, in store.failed-*",
		  (unsigned long long)copy->lost, copy->lost_names,
		  strlen(copy->lost_names) + 1 == sizeof(copy->lost_names) ? "..." : "");
}

static int renew(struct persist *persist)
{
	struct store *store = persist->options.store;
	int result = store_renew_begin(store);
	if (result != STORE_OK) {
		return result;
	}
	struct store_facts facts;
	store_facts(store, &facts);
	// Of values nobody is told the new place; nor do the old ones mean anything to the store
	// that comes, or are known again if this fails.
	persist_announce(persist, facts.oldest_block - 1);
	struct table_copy copy;
	enum table_copy_reach reach = TABLE_COPY_NOT_YET;
	result = walk_table(persist, &copy);
	while (result == STORE_OK && reach == TABLE_COPY_NOT_YET) {
		persist->round_end = kvs_log_published(persist->options.log);
		persist->round_open = true;
		result = append_rest(persist, persist->round_end);
		if (result == STORE_OK) {
			reach = table_copy_reach(&copy, persist->txn.target_seq);
		}
	}
	if (result == STORE_OK && reach == TABLE_COPY_NEVER) {
		persist->txn.failure = RENEW_UNREADABLE;
		result = STORE_DAMAGED;
	}
	if (result == STORE_OK && copy.lost > 0) {
		// Somebody may get more out of it.
		store_keep_failed(store);
	}
	result = result == STORE_OK ? store_renew_finish(store, STORE_REPLACED_GOES) : result;
	if (result == STORE_OK && copy.lost > 0) {
		say_lost(persist, &copy);
	}
	return result;
}

int persist_renew(struct persist *persist)
{
	persist->txn = (struct persist_txn){
		.position = persist->position,
		.target_seq = persist->durable_seq,
		.renews = true,
	};
	persist_compact_reset(persist);
	int result = renew(persist);
	if (result != STORE_OK) {
		store_renew_abandon(persist->options.store);
		return result;
	}
	persist->position = persist->txn.position;
	persist->durable_seq = persist->txn.target_seq;
	persist->writers_stored = persist->txn.writers;
	persist->untrusted = false;
	persist->compact.broken = false;
	persist->compact.idle_stop = 0;
	persist_moves_void(persist);
	persist_places_look(persist);
	kvs_store_relaxed(&persist->renewals, persist->renewals + 1); // a statistic
	persist_count_commit(persist);
	return STORE_OK;
}

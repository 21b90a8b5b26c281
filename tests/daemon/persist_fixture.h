// SPDX-License-Identifier: MIT
//
// One life of a kvd without its sockets: region, keyspace, store, and a persister with or without
// its thread. Ending a life without a commit is a crash: the store keeps what was committed.
#pragma once

#include "daemon/cleaner.h"
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"
#include "daemon/persist_internal.h"
#include "tests/daemon/store_fixture.h"

struct life_options {
	const char *dir;
	uint64_t memory_bytes;
	uint32_t segment_bytes;
	enum persist_policy policy;
	uint32_t lazy_ms;
	uint64_t lazy_bytes;
	uint32_t ratio_percent;
	uint64_t floor_bytes;
	bool threaded;
	bool collect_moves;
	bool spills;	// values leave memory for want of room, also as the store is read
	bool heeds_end; // of the life before: if that ended in order, no versions are left out
};

struct life {
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct kvs_reader_page *page;
	struct keyspace *keyspace;
	struct store *store;
	struct persist *persist;
	int wake_fd;
	bool threaded;
};

/// Begins a life: recovers what the store holds. Bails out if it cannot.
void life_begin(struct life *life, const struct life_options *options);

/// Ends it: with its thread by persist_stop(), else just so. Returns what persist_stop() said.
int life_end(struct life *life);

/// Without a thread: commits what was published when `position` was taken (kvs_log.published form),
/// in as many transactions as it takes, and publishes durable_seq. Returns an enum store_error.
int life_commit(struct life *life, uint64_t position);

/// One transaction of idle compaction, if wanted. Returns whether it was.
bool life_compact_idle(struct life *life);

uint64_t life_published(const struct life *life);
uint64_t life_counter(const struct life *life, enum kvs_counter counter);
uint64_t life_durable_seq(const struct life *life);

/// Waits (on the eventfd) until `seq` is durable or failed. Returns whether it is durable.
bool life_wait(struct life *life, uint64_t seq);

/// The current version of a key and its place in the store as its record says; 0 if it has none.
uint64_t life_lookup(const struct life *life, const char *key, size_t key_bytes, uint64_t *place);

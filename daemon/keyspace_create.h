// SPDX-License-Identifier: MIT
//
// Setting a keyspace up and taking it down: for main.c, recovery and tests. What commands use is in
// keyspace.h.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/record.h"

struct keyspace;
struct kvs_adopt;
struct kvs_epoch_domain;
struct kvs_log;
struct kvs_region;
struct seam;

struct keyspace_options {
	const struct seam *seam;
	struct kvs_region *region;	 // STARTING; must outlive the keyspace
	struct kvs_epoch_domain *epochs; // the same
	bool persisted;			 // a persister follows the log
	bool block_on_stuck;		 // never revoke
	uint64_t revoke_ms;
	uint64_t revoke_min_ms;
	size_t value_bytes_max;
	uint64_t reseed_interval_ms; // between two rebuilds of the table under another hash key
	uint64_t memory_return_ms;   // free pages go back after so long, 0 = never
	uint64_t lookup_seed;	     // of kvd's own tables of keys, told to nobody
	bool prefault;		     // all memory is taken from the system and kept
	bool zero_freed;	     // what records leave behind is overwritten before it is free
};

/// Builds the empty table and log in the region. NULL if memory is short.
struct keyspace *keyspace_create(const struct keyspace_options *options);

/// Takes over the region as `plan` found it: entries left over by what was under way are cleared,
/// whole batches behind `applied_seq` are applied, removals and large values that are not durable
/// are followed up again. Nothing is loaded and no version is skipped. Called instead of
/// keyspace_create() and the recovery below. NULL if memory is short; the region can be planned and
/// adopted again.
struct keyspace *keyspace_adopt(const struct keyspace_options *options, struct kvs_adopt *plan);

/// What lives before this one had and a start could not bring over: counted (recovered_lost), for
/// who saves the data. The first names a key, in the log too.
void keyspace_lose(struct keyspace *keyspace, const struct kvs_record_view *view);
void keyspace_lose_unnamed(struct keyspace *keyspace, uint64_t count);

/// Loads all that is current in `from`, a keyspace of another region that nobody uses any more,
/// into `to`, which is empty; keyspace_recover_finish() follows. What is damaged is lost and
/// counted. Returns KEYSPACE_OK, or KEYSPACE_FULL if the machine has no more memory to give;
/// keyspace_recover_left() tells what was too much for the memory bound.
int keyspace_read_out(struct keyspace *to, struct keyspace *from, uint64_t *damaged);

/// Where the log goes on that is not durable yet: as kvs_log.published, for the persister.
uint64_t keyspace_unpersisted_position(const struct keyspace *keyspace);
void keyspace_destroy(struct keyspace *keyspace);

/// Takes all of the memory from the system, if that was asked for. Call after loading, before
/// keyspace_start_prepare(). Returns 0, or -ENOMEM / -errno if there is not so much.
int keyspace_prefault(struct keyspace *keyspace);

/// Maps all pages that are in use, also those that a life before left: only what is mapped can be
/// locked. Returns 0 or -errno. Call as keyspace_prefault().
int keyspace_map_pages(struct keyspace *keyspace);

/// Loading is over. Starts the helper thread that populates segments ahead; without it they are
/// populated when needed. Returns 0 or -errno.
int keyspace_start_prepare(struct keyspace *keyspace);

/// While it is loaded values may leave memory for want of room: the store that is read has them,
/// from block `oldest_block` on. Over with keyspace_recover_finish().
void keyspace_recover_spill(struct keyspace *keyspace, uint64_t oldest_block);

/// Recovery: takes one record of the store, oldest block first; the highest seq of a key wins.
/// `large_value` is the value of a LARGE record, NULL otherwise. Returns KEYSPACE_OK, or
/// KEYSPACE_FULL when it does not fit. That ends the first reading: then all records go through
/// keyspace_recover_index(), keyspace_recover_thin() follows, and a second reading hands all of
/// them in again. In that one FULL means that the machine has no more memory to give.
int keyspace_recover_record(struct keyspace *keyspace, const struct kvs_record_view *view,
			    const void *large_value, uint64_t place);

/// Recovery, between two readings: notes that there is this version. OK; FULL if memory is short.
int keyspace_recover_index(struct keyspace *keyspace, const struct kvs_record_view *view);
/// Drops what is loaded and not current; from now on only what is current is loaded.
void keyspace_recover_thin(struct keyspace *keyspace);
/// Bytes that are current and were left out because they are more than the memory bound can ever
/// have accepted; 0 = none. Then recovery has failed.
uint64_t keyspace_recover_left(const struct keyspace *keyspace);

/// Ends recovery. `last_seq` is the highest seq in the store (0 = none). `unended`: a kvd that
/// served from this folder did not end in order, so versions go on with a gap that is larger than
/// what it can have handed out without a commit: none is ever handed out again, provided that the
/// caller makes keyspace_last_seq() durable in the store's meta before the first reply. False if
/// there are no versions left: then every write returns KEYSPACE_SPENT.
bool keyspace_recover_finish(struct keyspace *keyspace, uint64_t last_seq, bool unended);

/// Before records are loaded: whose their writer indices are. NULL = nobody knows any more.
void keyspace_writers_load(struct keyspace *keyspace, const uint32_t *uids, uint32_t count);
/// The same where they are read out of another region.
void keyspace_writers_copy(struct keyspace *keyspace, const struct keyspace *from);

/// The log, for the persister.
const struct kvs_log *keyspace_log(const struct keyspace *keyspace);

/// Bytes that the store must hold for what is current now.
uint64_t keyspace_live_bytes(const struct keyspace *keyspace);

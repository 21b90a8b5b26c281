// SPDX-License-Identifier: MIT
//
// The persister from inside, for persist*.c and nobody else. Three groups of fields: words that the
// loop's thread and the persister share (atomics, each with its partner), what the mutex guards,
// and what the persister's thread alone touches.
#pragma once

#include <pthread.h>

#include "daemon/persist.h"
#include "daemon/seam.h"
#include "daemon/storage/block.h"
#include "daemon/storage/store.h"
#include "shm/counters.h"
#include "shm/epoch.h"
#include "shm/log.h"
#include "shm/table.h"

#define PERSIST_GROUP_RECORDS 32u // looked up together, so that their cache misses overlap
#define PERSIST_WHY_BYTES 512u
#define PERSIST_NEVER UINT64_MAX
#define PERSIST_LIVE_UNKNOWN UINT64_MAX
#define PERSIST_BACKOFF_FIRST_NS UINT64_C(100000000) // after a commit that failed

// One transaction takes about this share of the live bytes, within bounds: LMDB cannot reuse what
// the last two transactions freed, so large ones make the file grow; small ones cost a sync each.
#define PERSIST_COMMIT_LIVE_SHARE 32u
#define PERSIST_COMMIT_BYTES_MIN (UINT64_C(1) << 20)
#define PERSIST_COMMIT_BYTES_MAX (UINT64_C(8) << 20)

/// Who may wake the sleeping persister: a sleeper sets it, whoever brings at least that wakes it.
enum persist_sleep {
	PERSIST_AWAKE = 0,
	PERSIST_SLEEP_BACKOFF = 1, // only stop
	PERSIST_SLEEP_LAZY = 2,	   // a request, or stop
	PERSIST_SLEEP_IDLE = 3,	   // anything
};

/// What is wrong.
enum persist_trouble {
	PERSIST_GOOD = 0,
	PERSIST_UNWRITABLE = 1,	 // the last commit failed
	PERSIST_UNCOMPACTED = 2, // commits succeed, compaction rests for good
	PERSIST_UNTRUSTED = 3,	 // the store failed: nothing is committed until another is written
};

/// What the table says about a key.
enum persist_current {
	PERSIST_CURRENT_UNKNOWN, // no answer this time: be careful
	PERSIST_CURRENT_ABSENT,
	PERSIST_CURRENT_SEQ,
};

/// A record to be judged.
struct persist_candidate {
	struct kvs_record_view view;
	const void *value;	      // of a LARGE record
	struct kvs_log_position next; // log position behind it; not for compaction
	uint64_t hash;
	uint64_t current_seq;
	enum persist_current current;
	bool is_stub;		// that is current
	uint64_t current_place; // as its key has it
	uint32_t offset;	// in its block's payload; compaction only
};

/// The transaction being filled.
struct persist_txn {
	struct kvs_log_position position; // behind the last record taken
	uint64_t target_seq;		  // everything up to it is durable by this commit
	uint64_t records;		  // written, moves of compaction not counted
	uint64_t bytes;
	uint64_t skipped_records;
	uint64_t skipped_bytes;
	uint64_t first_block; // blocks from here on are its own
	uint64_t compacted_blocks;
	uint64_t compacted_visited_bytes;
	uint64_t compacted_rewritten_bytes;
	uint32_t writers;	// of the table of users, stored with it
	bool compaction_failed; // the failure came from reading an old block
	bool renews;		// into a store that counts only when all of it does
	const char *failure;	// text of a failure that is not the store's
};

/// Where compaction stands. Blocks never change, so a copy stays good from one commit to the next.
struct persist_compact {
	unsigned char *copy;	  // of block `number`
	struct store_block block; // parsed from it
	uint64_t number;	  // 0 = none loaded
	uint32_t offset;	  // of the next record to judge
	uint64_t boundary;	  // blocks below it were written by an earlier life
	uint64_t idle_stop; // idle catching-up ends when this block is the oldest; 0 = not begun
	bool broken;	    // a damaged block was found: no more compaction
};

/// Moves one behind the other, each with its key.
struct persist_moves_list {
	unsigned char *bytes;
	size_t used;
	size_t capacity;
};

/// Moves of records: `fresh` of the open transaction, `ready` of committed ones, `taken` those that
/// the loop is going through.
struct persist_moves {
	struct persist_moves_list fresh; // the persister's
	struct persist_moves_list ready; // the most that may wait, and a transaction's more; mutex
	struct persist_moves_list taken; // the loop's
	size_t taken_done;
};

#define PERSIST_PLACES_RETRY_NS UINT64_C(1000000000)

struct persist {
	struct persist_options options;
	pthread_t thread;
	struct kvs_hot *hot;
	struct kvs_watermarks *marks;
	bool fenced;

	// Shared words.
	uint64_t requested_seq;	 // written by the loop, release
	uint64_t requests_count; // written by the loop, relaxed
	uint64_t live_bytes;	 // written by the loop, relaxed
	uint64_t stopping;	 // written by the loop, release
	uint64_t sleeping;	 // enum persist_sleep; see persist_sleep()
	uint64_t failed_seq;	 // written by the persister, release
	uint64_t degraded;	 // enum persist_trouble; written by the persister, release
	uint64_t distrusted;	 // set by persist_distrust(), taken back by the persister, release
	uint64_t renewals;	 // stores written anew; written by the persister, relaxed
	uint64_t moves_waiting;	 // compaction rests until moves are taken
	uint64_t judged;	 // persist_judged(); written by the persister
	uint64_t places_known;	 // of stubs; written by the persister, release
	uint64_t places_wanted; // of values, too; by the loop, release, taken back by the persister
	uint64_t places_enough; // for find_places; by the loop, relaxed
	uint64_t follow_values; // moves of values are told; by the loop, relaxed

	pthread_mutex_t mutex; // guards the next four
	pthread_cond_t wake;
	char why[PERSIST_WHY_BYTES];
	char why_uncompacted[PERSIST_WHY_BYTES];
	struct persist_moves moves;

	char why_told[PERSIST_WHY_BYTES]; // the loop's copy
	int result;			  // of the last commit; read after join

	// The persister's own.
	struct kvs_log_position position; // durable up to here
	struct kvs_log_position
		round_end; // what is being committed now, in one or more transactions
	bool round_open;
	uint64_t durable_seq;
	uint64_t requests_seen;	    // of requests_count, at the last commit
	uint64_t requests_gathered; // came between the last two commits
	uint64_t work_since_ns;	    // when unpersisted work was first seen, 0 = none
	uint64_t backoff_ns;	    // after failures
	uint64_t retry_at_ns;
	bool untrusted;	       // the store is to be written anew
	bool unbegun;	       // a commit is due, with or without records
	uint64_t repair_at_ns; // with compact.broken: not before, it is written anew for that
	uint64_t repair_backoff_ns;
	unsigned stop_failures;
	uint32_t writers_stored;  // users whose indices are in the store
	unsigned skipped_percent; // of the last lazy commit's bytes
	uint64_t places_next;	  // blocks below it are still to be looked at; 0 = none is
	bool places_values;	  // for values, too
	bool places_counted;	  // for find_places: the loop knows when that is enough
	bool places_before;	  // the last thing that was due
	bool places_untold;	  // a commit that failed may have arrived: its moves were not told
	uint64_t places_retry_ns;
	struct store_reader *cold; // of the store, beside its transactions; NULL = no moves
	struct persist_txn txn;
	struct persist_compact compact;
};

/// A persister without its thread, for persist_start() and for tests that drive each commit
/// themselves. NULL if memory is short.
struct persist *persist_new(const struct persist_options *options);
void persist_free(struct persist *persist);

/// Bytes of the log from `from` to `to`, whole segments in between.
uint64_t persist_log_bytes(const struct kvs_log *log, struct kvs_log_position from,
			   struct kvs_log_position to);

/// One commit: takes the log up to round_end (a bounded part of it), compacts in proportion,
/// commits. `idle`: nothing is new, only compaction. Returns STORE_OK or an enum store_error, in
/// which case nothing happened.
int persist_commit(struct persist *persist, bool idle);

/// Writes a new store from memory and puts it into the place of the one that failed: every record
/// that the table names, then all of the log that is not durable. Returns STORE_OK with everything
/// published until shortly before durable, or an enum store_error with the old store in its place.
/// Call with: `untrusted`, no transaction open.
int persist_renew(struct persist *persist);

/// Whoever waits is told that it is not durable: what is up to `seq`, and what was asked for.
void persist_refuse(struct persist *persist, uint64_t seq);

/// Stores with the open transaction whose the writer indices are, if some are new. Returns STORE_OK
/// or an enum store_error.
int persist_put_writers(struct persist *persist);

/// Appends a record of the log to the open transaction. Returns STORE_OK or an enum store_error.
int persist_append(struct persist *persist, const struct kvs_record_view *view);

/// A walk of the log that stopped at `at`: STORE_OK if that is `end`, else it is damaged, and the
/// transaction gone.
int persist_at_end(struct persist *persist, struct kvs_log_position at,
		   struct kvs_log_position end);

/// Wakes the persister if it sleeps at `level` or deeper. Any thread.
void persist_bring(struct persist *persist, enum persist_sleep level);

/// What persist_distrust() said becomes the persister's own word.
void persist_take_distrust(struct persist *persist);

/// Counts a commit that succeeded.
void persist_count_commit(struct persist *persist);

/// Brings the gauge of what waits for its commit up to date.
void persist_count_waiting(const struct persist *persist);

/// Looks `count` candidates up in the table, all in one read section. Fills current and
/// current_seq.
void persist_lookup(struct persist *persist, struct persist_candidate *candidates, unsigned count);

/// Would idle compaction be of use?
bool persist_compact_idle_wanted(struct persist *persist);

/// Compacts inside the open transaction, up to a budget that follows from what it appended. Returns
/// STORE_OK or an enum store_error (the transaction is gone then).
int persist_compact(struct persist *persist, bool idle);

/// What stands up to this block is about to be looked up: from now on no value that has its place
/// there becomes a stub unseen (persist_judged()).
void persist_announce(struct persist *persist, uint64_t number);

/// Forgets a half-compacted block: after a failure its number may mean another one.
void persist_compact_reset(struct persist *persist);

/// Makes room for the moves of a group of records. False if memory is short: then none must move.
bool persist_moves_reserve(struct persist *persist);
/// Remembers a move in the open transaction.
void persist_moves_add(struct persist *persist, const struct kvs_record_view *view, uint64_t place);
/// The transaction begins anew: its moves so far have not happened.
void persist_moves_forget(struct persist *persist);
void persist_moves_fini(struct persist *persist);
/// What is ready to be taken means nothing any more.
void persist_moves_void(struct persist *persist);

// ---- persist_places.c ----

/// All of the store is to be looked through for places that are not known.
void persist_places_look(struct persist *persist);
/// What persist_want_places() said is begun.
void persist_places_take_wish(struct persist *persist);
/// Is there something to be looked at, and can it be now?
bool persist_places_due(const struct persist *persist);
/// Some blocks' worth.
/// Call with: no transaction open.
void persist_places_step(struct persist *persist);

/// The transaction was committed: its moves can be taken.
void persist_moves_publish(struct persist *persist);

// SPDX-License-Identifier: MIT
//
// The keyspace from inside, for the files that make it up (keyspace*.c, cleaner.c, expire.c,
// prepare.c) and for nobody else.
#pragma once

#include <sys/queue.h>

#include "daemon/cleaner_parts.h"
#include "daemon/expire.h"
#include "daemon/keyspace.h"
#include "daemon/keyspace_evict.h"
#include "daemon/keyspace_intake.h"
#include "daemon/keyspace_reseed.h"
#include "daemon/memory_return.h"
#include "daemon/mover.h"
#include "daemon/reclaim.h"
#include "daemon/seam.h"
#include "shm/counters.h"
#include "shm/epoch_scan.h"
#include "shm/hash.h"
#include "shm/large.h"
#include "shm/limbo.h"
#include "shm/log.h"
#include "shm/table_write.h"

// Segments kept back: two so that the cleaner can always copy; one for removals, FLUSHALL and what
// else leaves less behind than it finds; and a 64th, at least one, for changed times to live.
// Those leave as much dead as they append: before it is used up, the average segment has so much
// dead that cleaning for them (KEYSPACE_CLEAN_PERCENT_RESERVE) finds a victim.
#define KEYSPACE_RESERVE_CLEANER 2u
#define KEYSPACE_RESERVE_REMOVALS 1u
#define KEYSPACE_RESERVE_EXPIRY_SHARE 64u
#define KEYSPACE_CLEAN_PERCENT 98u // fuller segments are not cleaned to make room for a write
#define KEYSPACE_CLEAN_PERCENT_RESERVE 99u // nor these for what may use a reserve

/// What a write is for decides how much of the memory it must leave to others. In rising order.
enum keyspace_purpose {
	KEYSPACE_FOR_REMOVAL, // DEL, expiry, FLUSHALL
	KEYSPACE_FOR_EXPIRY,  // EXPIRE, PERSIST, GETEX: the value stays
	KEYSPACE_FOR_WRITE,
};

enum keyspace_op_kind { KEYSPACE_OP_SET, KEYSPACE_OP_DELETE, KEYSPACE_OP_FLUSH };

struct keyspace_options;

/// One write on its way: described, then appended to the log, then published in the table.
struct keyspace_op {
	enum keyspace_op_kind kind;
	enum keyspace_purpose purpose;
	uint16_t record_flags; // EXPIRED, EVICTED
	uint16_t writer;       // index of the user that owns it then
	uint32_t key_bytes;
	const void *key;
	const void *value;		// NULL with run_offset: the value is in that run
	const struct kvs_piece *pieces; // the value instead, if it is in pieces_count of them
	uint32_t value_bytes;		// of all pieces
	uint32_t pieces_count;		// 0 = in one
	uint64_t hash;
	uint64_t expiry_ms;
	uint64_t run_offset; // large run, of which the op holds a reference; 0 = none
	uint32_t run_crc;
	uint32_t record_bytes;
	uint64_t seq;	       // given when appended
	uint64_t offset;       // where the record stands
	uint32_t overlay_next; // batch: next op of the same overlay bucket, index + 1
	bool superseded;       // batch: a later op of it has the last word on the key
	bool voided; // batch: that is its first FLUSHALL, and it was the last of its key before
	bool placed; // batch: its entry was published with the FLUSHALL before it
};

/// What has to wait until a seq, its stamp in keyspace.pending, is durable.
enum keyspace_pending_kind {
	KEYSPACE_PENDING_TOMBSTONE, // a = record offset, b = bytes: then its entry leaves the table
	KEYSPACE_PENDING_RUN,	    // a = run offset: then, unreferenced, it may go to limbo
	KEYSPACE_PENDING_LARGE,	    // a = bytes of large values: then no longer unpersisted
};

struct keyspace_batch {
	struct keyspace_op *ops;
	uint32_t count;
	uint32_t capacity;
	uint32_t *overlay;	      // hash table of op index + 1
	uint32_t overlay_size;	      // power of two
	struct keyspace_block *arena; // memory of keys and values
	uint64_t bytes;		      // of all records and large values
	uint64_t ended_bytes;	      // beside them, of the ends of keys that it has only read
	bool open;
	bool failed;	  // out of memory or too large: commit will say so
	uint32_t flushed; // index + 1 of the newest FLUSHALL, 0 = none: older keys are gone
	bool removes;	  // it, or a removal
	enum keyspace_purpose purpose; // the most demanding of its ops
};

struct keyspace {
	const struct seam *seam;
	struct kvs_region *region;
	struct kvs_epoch_domain *epochs;
	struct kvs_log log;
	struct kvs_table table;
	struct kvs_large large;
	struct kvs_limbo limbo;
	struct kvs_limbo pending; // enum keyspace_pending_kind
	struct keyspace_batch batch;
	struct cleaner_state cleaner;
	struct expire expire;
	struct evict_state evict;
	struct reseed_state reseed;
	struct memory_return memory_return;
	struct mover mover;
	struct prepare *prepare;  // helper thread, NULL = populate when needed
	uint64_t pages_wanted_ns; // a write has waited for it since then, 0 = none does
	uint64_t pages_wait_ns;	  // for no longer: then whoever waits populates them himself
	bool persisted; // false under the memory policy: everything applied counts as durable
	bool block_on_stuck;
	bool prefault;	  // all memory has pages and keeps them
	bool zero_wanted; // freed segments are overwritten once keys have been loaded
	bool zero_freed;
	uint64_t revoke_ns;
	uint64_t revoke_min_ns;
	size_t value_bytes_limit; // as configured
	size_t value_bytes_max;	  // that, but half of the memory at most
	uint64_t lookup_seed;	  // of tables that outlast a turn: the region's hash key may change
	uint64_t now_ms;
	keyspace_ended *ended; // NULL = nobody listens
	void *ended_context;
	struct keyspace_damage *damage; // NULL = nobody looks
	uint8_t looks; // enum keyspace_met: DAMAGE, once in this life, and COLD, until it is over:
		// writes look first
	keyspace_fetch *fetch; // NULL = nobody fetches values from the store
	void *fetch_context;
	const struct keyspace_writer *writer; // never NULL
	struct keyspace_owned *owners;	      // by index
	struct keyspace_written written;
	uint64_t keys;
	uint64_t keys_with_expiry;
	uint64_t stubs;		// of the keys, those whose value is in the store alone
	uint64_t stubs_value_bytes; // of them, which live_bytes counts
	uint64_t stubs_astray;	    // of them, those that name a block before first_block
	uint64_t first_block;	    // of the store, as this life found it
	const uint64_t *judged; // the persister's word (keyspace_cold.h), NULL = none
	uint64_t live_bytes; // of current records, large values included: what the store must hold
	uint64_t changes;
	uint64_t stirred; // counts commands, and whatever else may make something due
	uint64_t durable_seen;	// durable_seq up to which pending was worked off
	uint64_t rolls_durable; // head segments that are wholly durable
	uint32_t oldest_head;	// the first that is not
	uint64_t unpersisted_large_bytes;
	uint64_t pending_tombstone_bytes; // of removals: dead with the commit they wait for
	uint64_t intake_bytes; // of large values that are on their way in
	uint64_t flush_seq;
	uint64_t side_taken_ns; // since when the table's other side waits for its grace period
	uint64_t memory_bytes;	// the bound; the region's is higher if recovery needed more
	uint64_t memory_wanted_bytes;	    // what it comes down to
	uint64_t resize_look_ns;	    // when the next is found out anew
	uint64_t resize_moved_ns; // when it came down last, UINT64_MAX = that was told
	uint32_t resize_spare; // free segments beyond those that must be, when it is down
	uint64_t recover_swept_seq;	    // FLUSHALL whose victims recovery has removed
	uint64_t recover_left_bytes;	    // current, but more than this memory can have accepted
	const struct keyspace_slice *slice; // of who writes now, NULL = not sliced
	LIST_HEAD(, keyspace_stage) stages; // large values that are being copied
	LIST_HEAD(, keyspace_moment) moments; // that are open
	struct reclaim reclaim;		      // memory of its own that goes back bit by bit
	LIST_HEAD(, keyspace_guard) guards;   // that are open
	struct keyspace_follower *follower;   // NULL = none
	unsigned scans; // walks in several pieces: the table does not shrink meanwhile
	struct kvs_log_position adopted_position; // first record that is not durable
	bool adopted;				  // from the life before, instead of being loaded
	struct recover_facts *recover_facts;	  // removals met so far, only during recovery
	bool recover_spills;	   // values may leave memory for want of room: all are in the store
	uint32_t recover_spill_at; // the next segment for that
	uint64_t recover_judged;   // what `judged` names meanwhile
	bool recover_current_only; // second reading: the facts tell the newest version of each key
};

/// Hash of a key in this region, good for this turn: then its hash key may be another.
static inline uint64_t keyspace_hash(const struct keyspace *keyspace, const void *key,
				     size_t key_bytes)
{
	return kvs_map_hash_on(&keyspace->region->map, keyspace->table.side, key, key_bytes);
}

static inline struct kvs_watermarks *keyspace_marks(const struct keyspace *keyspace)
{
	return &keyspace->region->header->marks;
}

static inline void keyspace_counter_add(const struct keyspace *keyspace, enum kvs_counter counter,
					uint64_t by)
{
	kvs_count(kvs_counter_word(keyspace->region->base, counter), by);
}

static inline void keyspace_counter_set(const struct keyspace *keyspace, enum kvs_counter counter,
					uint64_t value)
{
	kvs_store_relaxed(kvs_counter_word(keyspace->region->base, counter), value);
}

/// A key's time has come, and that is now a fact: counts it and tells who listens.
static inline void keyspace_note_expired(struct keyspace *keyspace, const void *key,
					 size_t key_bytes)
{
	keyspace_counter_add(keyspace, KVS_COUNTER_keys_expired, 1);
	if (keyspace->ended) {
		keyspace->ended(keyspace->ended_context, KEYSPACE_END_EXPIRED, key, key_bytes);
	}
}

/// A version that is no removal becomes current, or is no longer: its owner is charged.
static inline void keyspace_owner_add(struct keyspace *keyspace, uint16_t writer, uint64_t bytes)
{
	struct keyspace_owned *owner = &keyspace->owners[writer];
	owner->bytes += bytes;
	owner->keys++;
}

static inline void keyspace_owner_sub(struct keyspace *keyspace, uint16_t writer, uint64_t bytes)
{
	struct keyspace_owned *owner = &keyspace->owners[writer];
	owner->bytes -= bytes;
	owner->keys--;
}

/// Has this time come?
static inline bool keyspace_is_expired(const struct keyspace *keyspace, uint64_t expiry_ms)
{
	return expiry_ms != 0 && expiry_ms <= keyspace->now_ms;
}

/// What was found, without a value if it is a stub.
static inline void keyspace_value_from_hit(const struct kvs_hit *hit, struct keyspace_value *value)
{
	value->value = hit->value;
	value->value_bytes = hit->view.value_bytes;
	value->seq = hit->view.seq;
	value->time_ms = kvs_record_time_ms(hit->view.record);
	value->expiry_ms = hit->view.expiry_ms;
}

/// Are so many versions left?
static inline bool keyspace_has_versions(const struct keyspace *keyspace, uint64_t count)
{
	return keyspace->log.next_seq + count - 1 <= KVS_SEQ_MAX;
}

/// How long somebody waits at most for the helper to populate what he needs, before he does it
/// himself: on a busy machine the helper's turn may be that far away.
#define KEYSPACE_PAGES_WAIT_NS UINT64_C(100000000)

// ---- keyspace_apply.c: one op, from description to publication ----

/// Finds the entry of a key, tombstones included. HIT or ABSENT; damage counts as absent and is
/// logged.
enum kvs_find_result keyspace_find(struct keyspace *keyspace, uint64_t hash, const void *key,
				   size_t key_bytes, struct kvs_hit *hit);
/// The value of what was found to be a stub, in *value. OK or COLD.
int keyspace_fetch_value(struct keyspace *keyspace, const struct kvs_record_view *stub,
			 struct keyspace_value *value);
/// The same where it cannot be had any more: whoever asked begins anew. Always COLD.
int keyspace_met_cold(struct keyspace *keyspace);
/// Does a value of this size live in the large range?
bool keyspace_is_large(const struct keyspace *keyspace, size_t value_bytes);
/// Bytes that a version counts for, wherever its value is.
static inline uint64_t keyspace_stored_bytes(const struct keyspace *keyspace,
					     const struct kvs_record_view *view)
{
	return kvs_record_stored_bytes(view, keyspace->region->segment_bytes / 4);
}
/// Copies the value of an op, in one piece or several, to `at`, which has op->value_bytes.
void keyspace_op_copy_value(const struct keyspace_op *op, unsigned char *at);
/// Takes and fills the large run of an op that needs one. OK, WAIT or FULL.
int keyspace_op_take_run(struct keyspace *keyspace, struct keyspace_op *op);
/// Drops the run reference of an op that will not be published.
void keyspace_op_drop(struct keyspace *keyspace, struct keyspace_op *op);
/// Sets op->record_bytes.
void keyspace_op_measure(struct keyspace *keyspace, struct keyspace_op *op);
/// Appends the record (space was secured) and publishes the op.
void keyspace_op_append(struct keyspace *keyspace, struct keyspace_op *op, bool more);
void keyspace_op_publish(struct keyspace *keyspace, struct keyspace_op *op);
/// Counts an op that a later one of its batch makes void: its record is in the log, no entry ever
/// names it. In the order of seq, as publishing is.
void keyspace_op_pass_over(struct keyspace *keyspace, struct keyspace_op *op);
/// The rest of publishing an op whose entry keyspace_publish_flush() has placed, in the order of
/// seq.
void keyspace_op_settle(struct keyspace *keyspace, struct keyspace_op *op);
/// Accounts that the version in `hit` is current no longer. Returns the large run that nothing
/// names any more, 0 = none: freeing it is the caller's.
uint64_t keyspace_version_gone(struct keyspace *keyspace, const struct kvs_hit *hit);
/// A removal with this seq is about to be published: last_removal_seq follows, upwards only.
void keyspace_note_removal(struct keyspace *keyspace, uint64_t seq);
/// Moves applied_seq and lets followers go on.
void keyspace_publish_applied(struct keyspace *keyspace);
/// Can the key's chain take the op? False only where keys collide, and only for a new one.
bool keyspace_finds_place(struct keyspace *keyspace, const struct keyspace_op *op);
/// Writes one op on its own: room, append, publish. OK, WAIT, FULL or CROWDED.
int keyspace_write_op(struct keyspace *keyspace, struct keyspace_op *op);
/// Logs that the time of a key has come, which is current. False if there is no room for that, or a
/// batch is open: then its end is one of the batch's removals, and is told when that is applied.
bool keyspace_expire_now(struct keyspace *keyspace, uint64_t hash, const void *key,
			 size_t key_bytes);

/// The entry that names the op's record, which is in the log.
static inline uint64_t keyspace_op_entry(const struct keyspace_op *op)
{
	enum kvs_entry_kind kind = op->run_offset != 0 ? KVS_ENTRY_LARGE : KVS_ENTRY_VALUE;
	return kvs_entry_make(op->hash, kind, op->record_bytes, op->offset);
}

// ---- keyspace_table.c ----

/// If a labelled point is armed: those within the table's moves count, too.
void keyspace_table_label(struct keyspace *keyspace);

/// Lets the table grow or shrink by up to `steps` buckets, unless that would cost memory that is
/// not there.
void keyspace_table_steps(struct keyspace *keyspace, unsigned steps);
/// The table was told to await memory, of some of these ranges (a bit for each): is that what its
/// caller should do? Not for ever: a busy machine may not let the helper run. False: populate it
/// now.
bool keyspace_table_waits(struct keyspace *keyspace, unsigned ranges);
/// Both ranges of the side that does not serve.
static inline unsigned keyspace_table_other_side(const struct keyspace *keyspace)
{
	unsigned other = keyspace->table.side ^ 1u;
	return 1u << (KVS_RANGE_TABLE_0 + other) | 1u << (KVS_RANGE_OVERFLOW_0 + other);
}
/// As kvs_table_secure(): OK, WAIT while the helper populates what is needed, or FULL.
int keyspace_table_secure(struct keyspace *keyspace, uint64_t count);

// ---- keyspace_flush.c ----

/// Publishes a FLUSHALL, and with it the entries of the keys that the `count` ops behind it in the
/// batch set: those are marked as placed, and are to be settled.
void keyspace_publish_flush(struct keyspace *keyspace, struct keyspace_op *flush, uint32_t count);

// ---- keyspace_owner.c ----

/// Prepares what is known of owners, and the table of users in the region, which one that was
/// taken over has already. False if memory is short.
bool keyspace_owner_open(struct keyspace *keyspace, bool adopted);
/// Nobody owns anything any more.
void keyspace_owners_flush(struct keyspace *keyspace);
/// May the writer, who has a quota, apply this op, which is no part of a batch? OK or QUOTA.
int keyspace_owner_admit(struct keyspace *keyspace, struct keyspace_op *op);
/// The same for the open batch.
int keyspace_owner_admit_batch(struct keyspace *keyspace);

// ---- keyspace_resize.c ----

/// Lowers the bound on memory a little if that is wanted and can be done. Returns when to come
/// again.
uint64_t keyspace_resize_turn(struct keyspace *keyspace, uint64_t now_ns);
/// How many segments are to be emptied for it, beside those that come free by themselves.
uint32_t keyspace_resize_wants(const struct keyspace *keyspace);

// ---- keyspace_stage.c ----

/// Copies a slice of the op's large value into a run of its own. OK: all of it is there and the op
/// names it, or it has to be copied in one go; AGAIN, WAIT or FULL.
int keyspace_stage_op(struct keyspace *keyspace, struct keyspace_op *op);
void keyspace_stage_fini(struct keyspace *keyspace);

// ---- keyspace_large.c ----

/// Makes the next pages of a run without, *populated bytes of which have some; as many as take a
/// fraction of a millisecond. False if the machine is full. Call with: not all of them are there.
bool keyspace_run_populate(struct keyspace *keyspace, uint64_t run_offset, uint64_t value_bytes,
			   uint64_t *populated);

// ---- keyspace_intake.c ----

/// Memory of large values that other clients are sending: of those some may be given up.
static inline uint64_t keyspace_intakes_bytes(const struct keyspace *keyspace)
{
	const struct keyspace_slice *slice = keyspace->slice;
	const struct keyspace_intake *own = slice != NULL ? slice->intake : NULL;
	return keyspace->intake_bytes - (own != NULL ? own->bytes : 0);
}

/// If the op's value is what was received, wholly and where it stands: the op names that run, and
/// holds it. False if not. Call with: keyspace->slice is set.
bool keyspace_intake_takes(struct keyspace *keyspace, struct keyspace_op *op);

// ---- keyspace_moment.c: what the writer tells those who read many keys, if there are any ----

/// `op` is about to be published; `hit` is the version before, NULL = none.
void keyspace_moments_see(struct keyspace *keyspace, const struct keyspace_op *op,
			  const struct kvs_hit *hit);
/// A FLUSHALL is about to be.
void keyspace_moments_flush(struct keyspace *keyspace);
/// All of a batch is published.
void keyspace_moments_batch_over(struct keyspace *keyspace);
/// Do they still need what stands in this segment?
bool keyspace_moments_hold(const struct keyspace *keyspace, uint32_t segment);

// ---- keyspace_follow.c ----

/// Works off some of what became durable since the last call, as far as a follower has passed it,
/// too. True if there is more.
bool keyspace_follow_durable(struct keyspace *keyspace);
/// Up to here nobody who follows the log needs anything any more.
uint64_t keyspace_passed_seq(const struct keyspace *keyspace);
/// The removal with this seq, whose record is in the log, leaves the table when it is durable.
void keyspace_await_tombstone(struct keyspace *keyspace, uint64_t seq, uint64_t offset,
			      uint32_t record_bytes);
/// Asks a follower to give up if it lets too much wait.
void keyspace_follower_look(struct keyspace *keyspace);

// ---- keyspace_guard.c ----

/// `op` is about to be published, and there are guards: breaks those that it concerns.
void keyspace_guards_see(struct keyspace *keyspace, const struct keyspace_op *op);

/// Reader pages that are looked at in one call: each may have 31 lines that its client has just
/// written, a microsecond or two.
#define KEYSPACE_SCAN_PAGES 32u

// ---- keyspace_room.c: making room ----

/// The run waits for the readers there may be, then it is freed.
void keyspace_limbo_run(struct keyspace *keyspace, uint64_t offset);
/// Frees some of what came out of limbo (a fraction of a millisecond).
void keyspace_drain_limbo(struct keyspace *keyspace);
/// Is there something that it would free?
bool keyspace_drain_is_due(const struct keyspace *keyspace);
/// Would `bytes` more be too many for the part of the log that waits for its commit?
bool keyspace_queue_is_full(const struct keyspace *keyspace, uint64_t bytes);
/// Segments that a write must leave free.
uint32_t keyspace_reserve(const struct keyspace *keyspace, enum keyspace_purpose purpose);
/// Is there room for one record without freeing anything? OK, WAIT or FULL.
int keyspace_room_now(struct keyspace *keyspace, uint64_t record_bytes,
		      enum keyspace_purpose purpose);
/// Tries to have `bytes` of log and `large_bytes` of large space; OK, WAIT or FULL.
int keyspace_make_room(struct keyspace *keyspace, uint64_t bytes, uint64_t largest,
		       uint64_t large_bytes, enum keyspace_purpose purpose);
/// Can a FLUSHALL be published in one short turn? WAIT while a grace period is in its way.
int keyspace_flush_ready(struct keyspace *keyspace);

/// What waits for readers is wanted back: who has been there for too long is revoked.
void keyspace_push_limbo(struct keyspace *keyspace, uint64_t now_ns);

/// The table's other side is wanted: whoever has been there for too long is revoked.
void keyspace_want_side(struct keyspace *keyspace, uint64_t now_ns);

/// Raises the region's memory bound so far that `segments` can be taken. Recovery alone does that.
void keyspace_raise_bound(struct keyspace *keyspace, uint32_t segments);
/// Is more in use than was configured? Lowers a raised bound again as far as what is free allows.
bool keyspace_is_over_bound(struct keyspace *keyspace);

// ---- keyspace_recover.c, keyspace_recover_room.c ----

/// Takes one version out of the table, with its run: nobody is there yet who could be reading it.
void keyspace_recover_remove(struct keyspace *keyspace, uint64_t entry);
/// Removes what the newest FLUSHALL met so far outranks. Done when room is wanted and at the end,
/// not at every FLUSH record: there may be many.
void keyspace_recover_sweep(struct keyspace *keyspace);
/// Frees what waits in limbo, for no reader is there yet. False if nothing was.
bool keyspace_recover_drain(struct keyspace *keyspace);
/// Makes room for so many segments, by all means that this reading has. False if it cannot.
bool keyspace_recover_room(struct keyspace *keyspace, uint32_t segments);
/// Room for one survivor, NULL if there is none.
void *keyspace_recover_append(struct keyspace *keyspace, uint32_t record_bytes, uint64_t seq,
			      uint64_t *offset);
/// Leaves kvd what it needs to work, and says so if that is more than was configured.
void keyspace_recover_settle(struct keyspace *keyspace);
/// The same for a region that was taken over: readers may be there, so nothing is freed.
void keyspace_adopt_settle(struct keyspace *keyspace);

// ---- keyspace_create.c, for keyspace_adopt.c ----

/// An object with its options and empty limbos, but neither table nor log; NULL if memory is short.
struct keyspace *keyspace_new(const struct keyspace_options *options);

// ---- keyspace_batch.c ----

/// Adds an op to the open batch, copying what it points at. Returns KEYSPACE_OK always; failure is
/// remembered for commit. *seq gets the version it will have.
int keyspace_batch_add(struct keyspace *keyspace, const struct keyspace_op *op, uint64_t *seq);
/// The batch's last op for a key, the newest FLUSHALL included, or NULL.
const struct keyspace_op *keyspace_batch_find(const struct keyspace *keyspace, uint64_t hash,
					      const void *key, size_t key_bytes);
void keyspace_batch_fini(struct keyspace *keyspace);
/// As keyspace_prefetch(), of what the open batch has for a key.
void keyspace_batch_prefetch(const struct keyspace *keyspace, uint64_t hash, int pass);

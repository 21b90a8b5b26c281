// SPDX-License-Identifier: MIT
//
// The single writer: every change of the shared table goes through these functions, on one thread.
// It turns "set this key" into: reserve log space, write an immutable record, publish one entry
// word, move applied_seq; and it owns what follows from that, the tombstones waiting to become
// durable, the large runs waiting to be freed, the counts of live bytes, and the decision that
// memory is full.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/limits.h"
#include "shm/record.h"

struct keyspace;
struct keyspace_intake;
struct kvs_map;

/// Answers besides 0. Positive: the caller handles them. Every write function returns one of these.
enum keyspace_result {
	KEYSPACE_OK = 0,
	KEYSPACE_ABSENT = 1,	// no such key
	KEYSPACE_WAIT = 2,	// no space this moment, but some is on its way: try again later
	KEYSPACE_FULL = 3,	// memory is full: -OOM
	KEYSPACE_TOO_LARGE = 4, // value, or batch, over its limit
	KEYSPACE_SPENT = 5,	// the 2^48 versions are used up
	KEYSPACE_AGAIN = 6,	// a large value is being copied: ask again with the same
	KEYSPACE_CROWDED = 7,	// too many keys collide with this one
	KEYSPACE_QUOTA = 8,	// its user would own more bytes than its quota
	KEYSPACE_DAMAGED = 9,	// what the key has cannot be read: nothing takes its place
	KEYSPACE_COLD = 10, // a value that this needs is in the store alone: ask again when it came
};

/// A value as the writer sees it. Pointers hold until the next call that writes, cleans or flushes.
struct keyspace_value {
	const void *value;
	size_t value_bytes;
	uint64_t seq;
	uint64_t time_ms;   // when written
	uint64_t expiry_ms; // wall clock ms since 1970, 0 = never
};

/// Current value of a key; inside a batch, what the batch made of it. An expired key is absent: kvd
/// decides with the precise clock and logs a tombstone, so it is never seen alive again.
/// Returns KEYSPACE_OK or KEYSPACE_ABSENT; or KEYSPACE_COLD, and then every write answers the same
/// until keyspace_cold_over(): what was read since is not true.
int keyspace_get(struct keyspace *keyspace, const void *key, size_t key_bytes,
		 struct keyspace_value *value);

/// All of it but the value, which nobody fetches: value->value is NULL if it is in the store alone.
/// Returns KEYSPACE_OK or KEYSPACE_ABSENT.
int keyspace_stat(struct keyspace *keyspace, const void *key, size_t key_bytes,
		  struct keyspace_value *value);

/// Gives the value of a stub, for as long as `fetcher` does not let go of it; NULL: it was noted
/// that he wants it. `fetcher` is that of the slice, NULL without one.
typedef const void *keyspace_fetch(void *context, void *fetcher,
				   const struct kvs_record_view *stub);
/// NULL, as at first: nobody can fetch.
void keyspace_set_fetch(struct keyspace *keyspace, keyspace_fetch *fetch, void *context);
/// Whoever met KEYSPACE_COLD knows, and has taken back what it did: writes are writes again.
void keyspace_cold_over(struct keyspace *keyspace);

/// Lets bytes of a large value, which `at` points into, stay where they are, whatever becomes of
/// their key; false if they stand elsewhere. keyspace_unpin() with *pin ends it, once.
bool keyspace_pin(struct keyspace *keyspace, const void *at, uint64_t *pin);
void keyspace_unpin(struct keyspace *keyspace, uint64_t pin);
/// Memory of the value that only pins keep: its key has another, or is gone. 0 if a key has it.
uint64_t keyspace_pin_orphaned_bytes(struct keyspace *keyspace, uint64_t pin);
/// The same of all pins.
uint64_t keyspace_orphaned_bytes(const struct keyspace *keyspace);

/// Who writes now, and until when: a large value is copied up to that time, then the write answers
/// KEYSPACE_AGAIN and goes on where it stopped when it is asked again with the same arguments.
/// What it copies from must not have changed then: the region, or memory of the owner.
struct keyspace_slice {
	uint64_t owner; // not 0
	const uint64_t *until_ns;
	char *const *memory; // its bytes stay while the write is under way
	const size_t *memory_bytes;
	const void *scratch; // so do these, NULL = none
	size_t scratch_bytes;
	const struct keyspace_intake *intake; // of a value of its own, NULL = it has none ever
	void *fetcher; // for keyspace_fetch
};
/// NULL = large values are copied in one go, as they are inside a batch.
void keyspace_set_slice(struct keyspace *keyspace, const struct keyspace_slice *slice);
/// The owner asks no more: what was copied so far is dropped.
void keyspace_stage_drop(struct keyspace *keyspace, uint64_t owner);

/// Stores key = value. `expiry_ms` 0 = no expiry (any former one is gone). `value` may point into
/// the region (a value from keyspace_get()). *seq (may be NULL) gets the new version. Returns OK,
/// WAIT, FULL, CROWDED or TOO_LARGE.
int keyspace_set(struct keyspace *keyspace, const void *key, size_t key_bytes, const void *value,
		 size_t value_bytes, uint64_t expiry_ms, uint64_t *seq);

#define KEYSPACE_PIECES_MAX 4u

/// As keyspace_set() for a value in up to KEYSPACE_PIECES_MAX pieces (APPEND, SETRANGE): no joined
/// copy is made first. A piece without data is so many zero bytes.
int keyspace_set_pieces(struct keyspace *keyspace, const void *key, size_t key_bytes,
			const struct kvs_piece *pieces, uint32_t count, uint64_t expiry_ms,
			uint64_t *seq);

/// Stores value and expiry of a key under another name; it then belongs in one batch with the
/// removal of the first, for a large value is shared, not copied (RENAME). Like a changed expiry it
/// has a reserve. Returns OK, ABSENT, WAIT or FULL.
int keyspace_rename_copy(struct keyspace *keyspace, const void *from, size_t from_bytes,
			 const void *to, size_t to_bytes);

/// Removes a key. Returns OK, ABSENT, WAIT or FULL (removals have a reserve, so FULL is rare).
int keyspace_delete(struct keyspace *keyspace, const void *key, size_t key_bytes);

/// Changes only the expiry (0 = none); the value keeps its bytes but gets a new version. It has a
/// reserve too. Returns OK, ABSENT, WAIT or FULL.
int keyspace_expire(struct keyspace *keyspace, const void *key, size_t key_bytes,
		    uint64_t expiry_ms);

/// Removes everything: one record and a root swap. Inside a batch it is collected like any write.
/// Returns OK, FULL, or WAIT: of two FLUSHALLs the second may have to wait for the grace period of
/// the first, in which readers may still be looking at the side of the table that it needs.
int keyspace_flush(struct keyspace *keyspace);

/// Batches: between begin and commit, writes are collected and reads see them; commit applies all
/// or nothing and returns OK, WAIT, FULL or TOO_LARGE (then nothing was applied and the batch is
/// gone); abort drops it. Batches do not nest. Versions reported inside a batch are final if it
/// commits.
void keyspace_batch_begin(struct keyspace *keyspace);
/// So many writes may come into it: only a hint.
void keyspace_batch_expect(struct keyspace *keyspace, uint32_t count);
int keyspace_batch_commit(struct keyspace *keyspace);
void keyspace_batch_abort(struct keyspace *keyspace);

/// Would a write of about `bytes` (keys and values together) find room? OK, WAIT or FULL; does what
/// it can to make room first (retire, revoke, clean), in bounded time. The dispatcher asks before
/// each command flagged `denyoom`, so that commands need not undo.
int keyspace_admit(struct keyspace *keyspace, size_t bytes);

/// Has room for which somebody waits come back since this was last asked?
bool keyspace_room_is_back(struct keyspace *keyspace);

/// Bytes that the table, the log's segments in use and large values take.
uint64_t keyspace_used_bytes(const struct keyspace *keyspace);
/// Must writes wait until some of what was written is durable?
bool keyspace_waits_for_store(const struct keyspace *keyspace);

/// Keys that exist now (expired ones that nobody touched yet count, as in Redis).
uint64_t keyspace_count(const struct keyspace *keyspace);
uint64_t keyspace_count_with_expiry(const struct keyspace *keyspace);

/// Reverse-binary scan: visits keys of one cursor position, returns the next cursor (0 = done).
/// Expired keys are skipped.
uint64_t keyspace_scan(struct keyspace *keyspace, uint64_t cursor,
		       void (*visit)(void *context, const void *key, size_t key_bytes,
				     const struct keyspace_value *value),
		       void *context);

/// Why a key ended by itself.
enum keyspace_end { KEYSPACE_END_EXPIRED, KEYSPACE_END_EVICTED };
typedef void keyspace_ended(void *context, enum keyspace_end why, const void *key,
			    size_t key_bytes);

/// `ended` is called for each key that ends by itself: when the removal of one whose time has come,
/// or that was evicted, is logged, or when a write takes the place of the former. It must not call
/// the keyspace. NULL = nobody.
void keyspace_listen(struct keyspace *keyspace, keyspace_ended *ended, void *context);

/// What is done when memory is full.
struct keyspace_eviction {
	bool on; // the keys that are read least go; else writes are refused
	bool spills; // their values do, and are in the store alone from then on
	bool volatile_only; // only keys with a time to live go
	const char *never;  // prefixes of keys that never go, with spaces between them; copied
};
/// From now on. False if memory is short: then nothing is evicted.
bool keyspace_set_eviction(struct keyspace *keyspace, const struct keyspace_eviction *how);
/// Is memory so full that it matters which keys are read?
bool keyspace_wants_heat(struct keyspace *keyspace);
/// Keys with these hashes, by the table's present hash key, were read. They may be anything.
void keyspace_warm(struct keyspace *keyspace, const uint64_t *hashes, size_t count);
/// The same for a read through the socket.
void keyspace_warm_key(struct keyspace *keyspace, const void *key, size_t key_bytes);

/// What a search may meet that is no answer.
enum keyspace_met {
	KEYSPACE_MET_DAMAGE = 1 << 0, // a key whose record cannot be read
	KEYSPACE_MET_COLD = 1 << 1,   // a value that has to be fetched: KEYSPACE_COLD
};

/// A key whose record cannot be read: whoever asks for it is answered that, not that it is absent.
/// Once one was met, each write looks first, and is refused where it would take such a one's place.
struct keyspace_damage {
	uint8_t met;	    // enum keyspace_met, set by what meets it, cleared by who looks
	uint32_t key_bytes; // of the key that was searched for
	unsigned char key[KVS_KEY_BYTES_MAX];
};
/// `damage` stays the caller's, for longer than the keyspace; NULL = nobody looks.
void keyspace_tell_damage(struct keyspace *keyspace, struct keyspace_damage *damage);

/// Between these the table does not shrink: a walk in several pieces then sees no key twice.
void keyspace_scan_begins(struct keyspace *keyspace);
void keyspace_scan_over(struct keyspace *keyspace);

/// Prefetches for a key about to be used: pass 0 the bucket, pass 1 the record.
void keyspace_prefetch(struct keyspace *keyspace, const void *key, size_t key_bytes, int pass);

/// A user that writes.
struct keyspace_writer {
	uint32_t uid;
	uint16_t index;	      // keyspace_writer_index(), stamped into records; 0 = none yet
	uint64_t quota_bytes; // of records that it may own, 0 = no bound
};
/// Who is writing now; the caller's, until another is set. NULL = nobody in particular.
void keyspace_set_writer(struct keyspace *keyspace, const struct keyspace_writer *writer);
/// The index of a uid, given to it for good if it has none yet; 0: all KVS_WRITERS_MAX - 1 are
/// given.
uint16_t keyspace_writer_index(struct keyspace *keyspace, uint32_t uid);
/// The other way round; false if nobody, or nobody who is known, has this index.
bool keyspace_writer_uid(const struct keyspace *keyspace, uint16_t index, uint32_t *uid);

/// What the current records of one index are: all of those beyond the last index at 0.
struct keyspace_owned {
	uint64_t bytes; // as live bytes are counted, large values included
	uint64_t keys;
};
struct keyspace_owned keyspace_owned(const struct keyspace *keyspace, uint16_t index);

/// What was written since the start, removals apart.
struct keyspace_written {
	uint64_t bytes;
	uint64_t keys;
};
struct keyspace_written keyspace_written(const struct keyspace *keyspace);

/// Are keys removed when their time comes? Otherwise only when somebody asks for them.
void keyspace_set_active_expire(struct keyspace *keyspace, bool on);
/// Will keyspace_clock_was_set() be called? Otherwise the keyspace looks each second whether wall
/// time was set, while keys have a time.
void keyspace_watch_clock(struct keyspace *keyspace, bool watched);
/// Wall time was set, or the machine slept.
void keyspace_clock_was_set(struct keyspace *keyspace);
/// While held, no keys are looked for whose time has come: what was found is still being told.
void keyspace_hold_expiry(struct keyspace *keyspace, bool hold);

/// When views are taken back from now on, as in keyspace_options.
void keyspace_set_revoke(struct keyspace *keyspace, uint64_t revoke_ms, uint64_t revoke_min_ms,
			 bool block_on_stuck);

/// Bytes of memory that readers whose section began in this epoch keep from being used again.
uint64_t keyspace_held_bytes(const struct keyspace *keyspace, uint64_t epoch);

/// The least time between two rebuilds of the table under another hash key.
void keyspace_set_reseed(struct keyspace *keyspace, uint64_t interval_ms);
/// How long free memory keeps its pages though nothing needs them, 0 = for ever.
void keyspace_set_memory_return(struct keyspace *keyspace, uint64_t after_ms);

/// How long a write may wait for memory: half of it at most for pages that are on their way.
void keyspace_set_write_wait(struct keyspace *keyspace, uint64_t wait_ms);

/// Bounds what the region may use by so many bytes, at most memory-max: at once if that is more
/// than now, else as fast as memory comes free; see keyspace_memory_least().
void keyspace_set_memory(struct keyspace *keyspace, uint64_t bytes);
/// The least bound that would leave room for what is stored now, packed as close as can be; or,
/// where values go, for the keys, as long as some of them are. See keyspace_stays.h.
uint64_t keyspace_memory_least(const struct keyspace *keyspace, bool values_go);

/// Highest version handed out; all of it is applied when no batch is open.
uint64_t keyspace_last_seq(const struct keyspace *keyspace);
/// Highest version that is durable (under the memory policy: applied).
uint64_t keyspace_durable_seq(const struct keyspace *keyspace);
/// Number of keyspace changes ever made by this process (INFO's rdb_changes…, dirty counting).
uint64_t keyspace_changes(const struct keyspace *keyspace);

/// Wall clock in ms since 1970 as of the last tick; the same for the whole command and the whole
/// batch, as in Redis.
uint64_t keyspace_now_ms(struct keyspace *keyspace);
/// Takes the clock anew: never within a command, once for a few small ones that came together.
/// Whatever these make due is reckoned by a turn of the cleaner that comes within a millisecond.
void keyspace_tick(struct keyspace *keyspace);

/// Largest value accepted now.
size_t keyspace_value_bytes_max(const struct keyspace *keyspace);

/// The writer's own view of the region, for ATTACH, statistics and the persister.
const struct kvs_map *keyspace_map(const struct keyspace *keyspace);

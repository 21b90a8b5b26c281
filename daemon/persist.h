// SPDX-License-Identifier: MIT
//
// The persister: one thread that follows the log, packs records into blocks, commits them to LMDB
// in groups, compacts the oldest blocks in the same transactions, and publishes durable_seq. To the
// rest of kvd it is a reader of the region like any other, with a slot of its own.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvs_log;
struct kvs_map;
struct kvs_slot;
struct seam;
struct store;
struct persist;

enum persist_policy {
	PERSIST_MEMORY, // nothing is written
	PERSIST_LAZY,	// a commit every lazy_ms or lazy_bytes
	PERSIST_GROUP,	// acknowledge after the commit, which may wait group_delay_us for company
	PERSIST_SYNC,	// as group without delay
};

struct persist_options {
	enum persist_policy policy;
	// These five may change while it runs, see persist_tune().
	uint64_t lazy_ms;		// default 1000
	uint64_t lazy_bytes;		// default 16 MiB
	uint64_t group_delay_us;	// default 0: a bound on waiting for company, see gather()
	uint64_t compact_ratio_percent; // default 200: log at most this share of live bytes
	uint64_t compact_floor_bytes;	// default 64 MiB: below it nothing is compacted
	const struct seam *seam;
	struct store *store; // owned by the persister thread from start to stop
	const struct kvs_log *log;
	const struct kvs_map *map; // for table lookups by compaction and coalescing
	struct kvs_slot *slot;	   // its read section, in a page that the epoch scan knows
	void *region_base;	   // header watermarks and counters
	uint64_t start_position;   // kvs_log.published form: from here on nothing is durable
	int wake_fd; // eventfd: written after each commit, so that the loop releases replies
	// persist_next_move() will be called; compaction waits for it. Then the store has readers.
	bool collect_moves;
	bool find_places;      // of stubs: some of their moves were not told
	const char *begin_why; // NULL, or why the store cannot be told yet that this life began
	const char *renew_why; // NULL, or why the store has failed: it is written anew first of all
};

/// A record that compaction wrote anew, and whose key has no more than its stub in memory: its
/// place in the store is another one now. By key, for the hash key may be another one, too.
struct persist_move {
	uint64_t seq;
	uint64_t place;
	const unsigned char *key; // until the next call
	size_t key_bytes;
};

/// Starts the thread. Returns 0 or -errno.
int persist_start(struct persist **out, const struct persist_options *options);

/// Someone waits for `seq` to be durable: commit soon. Cheap when a commit is already due.
/// Call with: a seq that is applied. Thread must: be the loop's. Orders: release of the request
/// word, partner: the persister's acquire before it reads the published position.
void persist_request(struct persist *persist, uint64_t seq);

/// Records were appended since the last call; the loop calls it once a turn that wrote. Wakes the
/// thread only if it sleeps for lack of work.
void persist_notice(struct persist *persist);

/// Takes the times, sizes and the ratio of `options`, from the next commit on.
/// Thread must: be the loop's. Orders: nothing, relaxed words (partner: the persister's loads).
void persist_tune(struct persist *persist, const struct persist_options *options);

enum persist_state {
	PERSIST_STATE_OK,
	PERSIST_STATE_DEGRADED, // the last commit failed for want of room, or nothing is compacted
	PERSIST_STATE_FAILED,	// the store is not trusted: it is being written anew from memory
};

/// How it stands with the store; *why gets a text for the log and INFO, static or owned by the
/// persister until the next call.
/// Call with: any time. Thread must: be the loop's. Orders: acquire, partner the persister's
/// release after it wrote the text.
enum persist_state persist_state(struct persist *persist, const char **why);
/// Its name, in small letters.
const char *persist_state_name(enum persist_state state);
/// The store turned out to be damaged while memory is whole: it is FAILED for this reason, and
/// written anew from memory at once. `why` is copied.
/// Call with: any time. Thread must: be the loop's. Orders: release, partner the persister's
/// acquire before it decides what is due.
void persist_distrust(struct persist *persist, const char *why);

/// How often a store was written anew.
uint64_t persist_renewals(const struct persist *persist);

/// The same: is it anything but OK?
bool persist_degraded(struct persist *persist, const char **why);
/// DEGRADED only in that nothing is compacted any more, for an old block cannot be read: commits go
/// on, and the file grows.
bool persist_uncompacted(const struct persist *persist);

/// seq up to which a failed commit's writes must be answered -IOERR (0 = none): every waiter with a
/// seq in (durable, failed] gets it once.
uint64_t persist_failed_seq(const struct persist *persist);

/// Live bytes now (records as they stand in the log, and the large values they name), told by the
/// keyspace at each turn; drives the compaction ratio. Until it was told once nothing is compacted.
/// Call with: any time. Thread must: be the loop's. Orders: nothing, a hint.
void persist_set_live_bytes(struct persist *persist, uint64_t live_bytes);

/// The next move that is durable by now, oldest first; false if there is none. Whoever keeps a
/// place (a stub) must apply it, if its seq is still current. None is ever lost: while so much
/// waits to be taken, compaction rests.
/// Call with: collect_moves set. Thread must: be the loop's. Orders: a mutex, once for many.
bool persist_next_move(struct persist *persist, struct persist_move *move);
#define PERSIST_MOVES_BYTES_MAX (UINT64_C(8) << 20)

/// Does each stub's place hold, but for moves that are yet to be taken? Else the store is being
/// looked through: what is not where its stub says is to be asked for again.
/// Call with: collect_moves set. Thread must: be the loop's. Orders: acquire, and a mutex.
bool persist_places_known(struct persist *persist);
/// Have the store looked through for the places of values, too: they are told as moves.
/// Thread must: be the loop's. Orders: release, partner persist_places_take_wish().
void persist_want_places(struct persist *persist);
/// All stubs of the life before know their places: what options.find_places began need not go on.
/// Thread must: be the loop's. Orders: nothing, a hint.
void persist_places_enough(struct persist *persist);
/// Are the moves of values to be told from now on, as those of stubs are?
/// Thread must: be the loop's. Orders: nothing, a hint.
void persist_follow_values(struct persist *persist, bool follow);

/// The store, for those who read it beside its owner; good for as long as the persister is.
struct store *persist_store(const struct persist *persist);

/// A word that says up to which block of the store a value's place means nothing for sure any more:
/// compaction judges what stands there, and tells no move of it. It only rises. Good for as long as
/// the persister is.
/// Orders: stored, then a full fence, then the persister looks up what stands in that block
/// (partner: keyspace_spill(), which stores the entry and then looks at the word).
const uint64_t *persist_judged(const struct persist *persist);

/// Commits everything published, ends the thread, frees. Returns STORE_OK; or an enum store_error
/// if the last commit failed or the store is not trusted, and `why` tells the reason and a remedy.
int persist_stop(struct persist *persist, char *why, size_t why_bytes);

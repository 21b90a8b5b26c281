// SPDX-License-Identifier: MIT
//
// The whole table, read in short sections by a thread of kvd that is not the writer: what a new
// store, a backup and a verification are made from. The table may grow, shrink or be replaced
// meanwhile; a position of the walk counts only if the root stood still, and a section only if it
// was not revoked. A key that is there throughout is seen at least once.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvs_hot;
struct kvs_map;
struct kvs_record_view;
struct kvs_slot;
struct store;
struct store_reader;

/// Must sections of this process fence? Registers it with the kernel so that they need not.
bool region_walk_must_fence(const struct kvs_map *map);

/// *value gets the bytes of a LARGE record's value, NULL for others. False if its run cannot be.
bool region_large_value(const struct kvs_map *map, const struct kvs_record_view *view,
			const void **value);

/// Keeps with the store's open transaction whose the writer indices of a region are, if it knows:
/// of all records that were seen before. Returns STORE_OK or an enum store_error; on failure the
/// transaction is gone.
int region_put_writers(void *region_base, struct store *store);

struct region_walk {
	const struct kvs_map *map;
	struct kvs_slot *slot; // the thread's own
	const struct kvs_hot *hot;
	bool fenced; // readers must fence
	/// Gets an entry word, inside the section; the same one again if the table moved.
	void (*entry)(void *context, uint64_t entry);
	/// Asked after each position: is the section to end?
	bool (*enough)(void *context);
	void *context;
	uint64_t cursor; // 0 to begin
	bool done;	 // it came round
};

/// A section's worth. False: it was revoked, what the callback got may have been anything, and the
/// walk stands where it stood.
/// Call with: no section open on the slot. Thread must: own the slot.
bool region_walk_section(struct region_walk *walk);

/// Copies records from the table into a store, a transaction at a time.
struct table_copy {
	struct region_walk walk; // map, slot, hot and fenced are the caller's to fill
	struct store *store;
	/// What values that are in a store alone are read with; NULL = such a key cannot be read.
	/// Its owner goes on compacting: what is gone is asked for again, at the place that the
	/// stub names by then.
	struct store_reader *cold;
	/// `store` is to replace the one that `cold` reads: what cannot be read there is left out.
	bool replaces;
	uint64_t lost;	      // so many
	char lost_names[512]; // the first of them
	uint64_t upto_seq;    // newer versions are left out: the log has them
	/// The newest version that was met and left out, or the newest removal when the walk was
	/// over. Entries are published before the log is: it has this one in a moment, if not yet.
	uint64_t left_seq;
	uint64_t records; // written
	uint64_t bytes;
	const char *unreadable; // set if what is in memory cannot be read: the reason
	// Its own.
	uint64_t txn_left_seq;
	uint64_t txn_records;
	uint64_t txn_lost;
	uint64_t txn_bytes;
	uint64_t section_bytes_max;
	int result;
	bool broken;
	bool moved; // a value stood elsewhere by then
	bool cold_failed;
	size_t lost_names_bytes; // of committed transactions
	unsigned moved_waits;
	unsigned revocations;
	unsigned waits;
};

/// The next transaction's worth, committed. Returns STORE_OK (look at copy->walk.done), or an enum
/// store_error; then nothing of it was written.
/// Call with: no transaction open. Thread must: own store and slot.
int table_copy_some(struct table_copy *copy);

enum table_copy_reach {
	TABLE_COPY_REACHED,
	TABLE_COPY_NOT_YET, // a batch is being published: follow the log once more
	TABLE_COPY_NEVER,   // a version that nobody ever published: memory is damaged
};

/// The log was followed to `seq`: is that as far as what the walk met? Waits a millisecond if not,
/// and gives up after ten thousand.
/// Call with: the walk done, no section open. Thread must: own the copy.
enum table_copy_reach table_copy_reach(struct table_copy *copy, uint64_t seq);

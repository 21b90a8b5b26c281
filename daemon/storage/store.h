// SPDX-License-Identifier: MIT
//
// The store: the log on disk. One LMDB environment in DIR/store with two databases, `log` (block
// number -> block) and `meta` (one record that says what is there). This folder is the only place
// that knows LMDB: its errors are translated here into our own, each with a text that names the
// thing and the remedy. Durability is never bought off: no NOSYNC, no NOMETASYNC, no WRITEMAP.
//
// One thread owns a store at a time. After any failure the open transaction is gone, what it held
// is forgotten, and the caller still has it all in memory: it begins anew.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/record.h"

struct datadir;
struct store;

/// Failures; negative, 0 is good.
enum store_error {
	STORE_OK = 0,
	STORE_NO_SPACE = -1, // the disk, a quota or a file size limit is full: may pass
	STORE_IO = -2, // the device failed: what was written is unknown, the store is opened anew
	STORE_MAP_FULL = -3, // beyond the address space set aside for it
	STORE_NO_MEMORY = -4,
	STORE_DAMAGED = -5,   // what stands there was not written like this
	STORE_VERSION = -6,   // of another version
	STORE_NO_ACCESS = -7, // permissions, or a read-only file system
	STORE_SYSTEM = -8,    // any other refusal of the system
	STORE_GONE = -9,      // the file, or the data folder, is not where it was
};

#define STORE_READERS_MAX 8u

struct store_options {
	const char *dir; // data folder; created, mode 0700, with `store` inside, unless read_only
	uint64_t instance_id; // of a new store; one that exists keeps its own
	bool read_only;	      // nothing is created or written
	const char *file;     // a store in this one file instead, as in a backup; read_only
	bool alone;	      // read_only, and nobody writes it: without LMDB's own lock file
	// What is in it can be written anew: its trees are looked at first, for no probe has read
	// it, and if it is damaged, or the device fails, it is there for store_renew_begin().
	bool renewable;
	struct datadir *folder; // that it is in, if it is to be made anew when it is removed
	unsigned readers; // threads that read beside the owner (store_read.h), STORE_READERS_MAX
};

/// What is in the store, as of the last commit (inside a transaction: with what it did so far).
struct store_facts {
	uint64_t instance_id;
	uint64_t durable_seq;  // everything up to it is in the store
	uint64_t oldest_block; // == next_block: no block
	uint64_t next_block;
	uint64_t log_bytes; // what the blocks take in the file
	bool ended;	    // the last commit was store_commit_last()
};

/// Opens or creates. On failure `why` gets one line that names the thing and the remedy. Returns an
/// enum store_error; on success the caller owns *out until store_close(). So he does, if it is
/// `renewable`, after STORE_DAMAGED and STORE_IO: store_why() tells, its facts are those of an
/// empty one, and nothing but store_renew_begin() may come next.
int store_open(struct store **out, const struct store_options *options, char *why,
	       size_t why_bytes);
void store_close(struct store *store);

void store_facts(const struct store *store, struct store_facts *facts);

/// Bytes of the file as it is now, free pages included.
uint64_t store_file_bytes(const struct store *store);

/// store_renew_finish() is to leave what it replaced, for whoever wants to know why it failed.
void store_keep_failed(struct store *store);

/// The instance that following commits belong to.
void store_set_instance(struct store *store, uint64_t instance_id);

/// What the last failure was, in one line with its remedy. Valid until the next call.
const char *store_why(const struct store *store);

/// Begins a transaction. After a device failure this opens the store anew first, so that its facts
/// may have changed: the commit that failed may or may not have arrived, and repeating it is
/// harmless, since a record that stands twice is one record. Returns an enum store_error.
int store_begin(struct store *store);

/// Appends a record; `value` points at the bytes of a LARGE record's run. *place gets where it will
/// stand. Returns an enum store_error; on failure the transaction is gone.
/// Call with: a view from memory or from store_block_next(). Thread must: own the store.
int store_append(struct store *store, const struct kvs_record_view *view, const void *value,
		 uint64_t *place);

/// Appends once more the record that begins block `first_block` and is longer than a block. *place
/// as in store_append(). Returns an enum store_error; on failure the transaction is gone.
int store_append_span(struct store *store, uint64_t first_block, uint64_t *place);

/// How many more bytes of records the last page of the open block can take without growing the
/// file: filling them costs nothing. 0 when nothing is open or it fits anyway.
uint32_t store_slack(const struct store *store);

/// Copies block `number` to `out` (STORE_BLOCK_BYTES_MAX bytes); *bytes is its length. Inside a
/// transaction. Returns an enum store_error; on failure the transaction is gone.
int store_read_block(struct store *store, uint64_t number, void *out, size_t *bytes);

/// What store_read_block() gave turned out to be damaged: writes store_why(), ends the transaction.
/// Returns STORE_DAMAGED.
int store_refuse(struct store *store, uint64_t number, const char *what);

/// Deletes the oldest `count` blocks. Returns an enum store_error; on failure the transaction is
/// gone.
int store_delete_oldest(struct store *store, uint64_t count);

/// Keeps whose the writer indices from 1 on are. Inside a transaction. Returns an enum store_error;
/// on failure the transaction is gone.
int store_put_writers(struct store *store, const uint32_t *uids, uint32_t count);
/// Reads that as of the last commit. Returns an enum store_error, or 1 if nobody ever wrote it.
/// Call with: no transaction open.
int store_read_writers(struct store *store, uint32_t uids[KVS_WRITERS_MAX], uint32_t *count);

/// Commits: when this returns 0, everything appended survives a crash of the machine and everything
/// up to `durable_seq`, or to what was in it already if that is more, is in the store. Returns an
/// enum store_error; on failure nothing happened, unless the device failed: see store_begin().
int store_commit(struct store *store, uint64_t durable_seq);

/// The same for the last commit of a life that ends in order: facts say so until the next commit.
int store_commit_last(struct store *store, uint64_t durable_seq);

/// After a failure for want of room: may the commit have arrived all the same? It is known when the
/// next one succeeds.
bool store_may_have_arrived(const struct store *store);

/// Forgets the open transaction, if any.
void store_abort(struct store *store);

/// No block gets a number below `next_block`: those were given by a store that is not here, or that
/// cannot be asked. Call with: an empty one, or one that is damaged, before store_renew_begin().
void store_skip_blocks(struct store *store, uint64_t next_block);

/// Begins another store beside this one, in DIR/store.new, empty: what is appended and committed
/// from now on stands there, and the old one is left as it is; those who read beside the owner go
/// on reading that, as far as it can be read. Block numbers go on behind its. Returns an enum
/// store_error; on failure nothing has changed but that a transaction that was open is gone.
/// Call with: no cursor into it. Thread must: own the store.
int store_renew_begin(struct store *store);

/// What becomes of the store that another one takes the place of.
enum store_replaced {
	// Is removed, or left as DIR/store.failed-SECONDS if it cannot be or is to be kept.
	STORE_REPLACED_GOES,
	STORE_REPLACED_STAYS, // is left as DIR/store.before-SECONDS
};

/// Makes it the store: syncs it, reads all of it back, puts it into the place of the old one. A
/// crash leaves the one or the other. Returns an enum store_error; on failure call
/// store_renew_abandon().
/// Call with: everything committed, no transaction open.
int store_renew_finish(struct store *store, enum store_replaced replaced);

/// Opens the old one once more for those who read it, since something about it failed. STORE_OK,
/// STORE_DAMAGED or STORE_GONE: nothing can be read there for good, or another enum store_error.
/// Call with: another one begun. Thread must: own the store.
int store_replaced_again(struct store *store);

/// Gives it up: the old one is the store again. Nothing if none was begun, or it is finished.
void store_renew_abandon(struct store *store);

/// Completes what a crash inside store_renew_finish() left half done. 0 or errno; EEXIST: what is
/// called store.ready is not what that left, and nothing has changed.
/// Call with: the data folder locked, before anything else looks into it.
int store_renew_complete(const char *dir);

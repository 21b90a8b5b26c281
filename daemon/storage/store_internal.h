// SPDX-License-Identifier: MIT
//
// What the files of this folder share about an open store. Included by them alone: it names LMDB.
#pragma once

#include <pthread.h>
#include <sys/types.h>

#include "daemon/storage/block.h"
#include "daemon/storage/env.h"
#include "daemon/storage/store.h"

#define STORE_META_MARKER "kvd-sto1" // eight bytes, version in the text
#define STORE_META_VERSION 1u
#define STORE_META_KEY "state"
#define STORE_WHY_BYTES 512u

// A commit that was reported as failed may have arrived, with so many blocks at most.
#define STORE_UNKNOWN_BLOCKS 4096u

enum store_meta_flag {
	STORE_META_ENDED = 1, // the last life ended in order
};

/// The one record of `meta`.
struct store_meta {
	char marker[8];	  // STORE_META_MARKER
	uint32_t version; // STORE_META_VERSION: of blocks and of this record
	uint32_t crc;	  // crc32c of bytes [16, sizeof)
	uint64_t instance_id;
	uint64_t durable_seq;
	uint64_t oldest_block;
	uint64_t next_block;
	uint64_t log_bytes;
	uint64_t flags; // enum store_meta_flag
};
static_assert(sizeof(struct store_meta) == 64, "fixed");

struct store {
	struct env *env;
	bool is_lost;	 // path: a page of it was not there, and its locks may be held for ever
	bool is_cramped; // that page was one of its lock file, for which there was no room
	int room_error;	 // of the last failure for want of room: what LMDB says after it; 0 = none
	bool read_only;
	bool alone;  // no lock file
	bool single; // path is the file itself
	bool keep_failed;
	bool renewable;	  // memory has what is in it
	bool reopen;	  // the device failed: nothing this environment believes may be trusted
	off_t file_bytes; // at the last look; it only grows
	struct store_facts committed;
	struct store_facts now;	      // with what the open transaction did
	struct store_builder builder; // the block being filled
	char *dir;
	char *path;	     // dir/store; while another is written beside it, that one
	char *replaced_path; // then dir/store; NULL otherwise
	bool replaced_is_lost;
	struct env *replaced_env;    // what readers read of the old one meanwhile; NULL = nothing
	bool replaced_alone;	     // opened for that
	struct store_facts replaced; // and what was in it
	struct datadir *folder;	     // the caller's; NULL = it is not made anew
	dev_t dir_device;	     // of the data folder, as it was opened
	ino_t dir_inode;
	// Who reads beside the owner (store_read.h) holds the lock while it looks into read_env;
	// the owner alone changes that, under the lock.
	pthread_rwlock_t read_lock;
	struct env *read_env; // NULL = nothing can be read now
	unsigned readers;
	char why[STORE_WHY_BYTES];
};

/// What an LMDB code or an errno means for us: an enum store_error.
int store_error_of(int rc);

/// Translates an LMDB or errno code `rc` of the operation `what`, and writes store->why.
int store_fail(struct store *store, const char *what, int rc);

/// As store_fail() for damage found by our own checks; printf form.
int store_damaged(struct store *store, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/// The store is not where it was: `what` happened, and what to do. Returns STORE_GONE.
int store_gone(struct store *store, const char *what, const char *remedy);

/// Syncs a folder's entries: one that is not synced may be gone after a crash, with all that was
/// made durable in it. 0 or errno.
int store_folder_sync(const char *path);

/// The data folder must be the one that this kvd has locked: in another, a second kvd may serve.
/// Returns STORE_OK or an enum store_error.
int store_folder_check(struct store *store);

/// That is this one from now on. Returns an enum store_error.
int store_folder_remember(struct store *store);

/// Opens the environment of store->path and reads its facts. Returns an enum store_error.
int store_attach(struct store *store);
/// Closes it, or leaves it where it is (daemon/storage/env.h).
void store_detach(struct store *store);
/// LMDB's trees in this store's folder, which it follows wherever they lead. STORE_OK, or
/// STORE_DAMAGED with store->why.
int store_trees_check(struct store *store, const char *folder);
/// Opens the environment of a folder, as large as it may be. 0, an LMDB code or an errno.
int store_open_env(struct env **env, struct env_options *options);

/// Prepares the lock. 0 or errno.
int store_read_init(struct store *store);
/// What is open is what others may read, or nothing is.
void store_show(struct store *store);
void store_show_replaced(struct store *store);
void store_hide(struct store *store);

// ---- store_replaced.c ----

/// The environment is closed, but for who reads beside the owner, if it can still be read: another
/// one is about to be written.
void store_replaced_keep(struct store *store);
/// That is over: what was kept is closed.
void store_replaced_drop(struct store *store);
/// While the store is cramped: it is opened for those who read it, if it is not.
void store_read_cramped(struct store *store);

/// Reads and checks the meta record, in the open transaction. Returns an enum store_error; 1 if
/// there is none.
int store_meta_read(struct store *store, struct store_facts *facts);
/// Writes it. Returns an LMDB code.
int store_meta_write(struct store *store, const struct store_facts *facts);

// SPDX-License-Identifier: MIT
//
// What a program does to a folder, call by call: the functions of libc by which kvd's storage and
// LMDB change files stand in front of the real ones in the test program, and note each change
// before it is made. From the notes crash_image builds whatever a crash could leave. Only what
// lies under the folder of recorder_begin() is noted.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRASH_NAME_BYTES 40
#define CRASH_INODES_MAX 256u
#define CRASH_NONE UINT32_MAX
#define CRASH_ROOT 0u // the folder of recorder_begin(), which is there in any case

enum crash_kind {
	CRASH_WRITE, // bytes of a file
	CRASH_SIZE,  // its length
	CRASH_SYNC,  // what was written to a file, or changed in a folder, before this is durable
	CRASH_LINK,  // a name, of a new file or folder
	CRASH_UNLINK,
	CRASH_RENAME,
	CRASH_MOVE,	// to another folder
	CRASH_EXCHANGE, // two names
};

/// What the program had promised, and what it had been asked for, when it made a call.
struct crash_promise {
	uint64_t durable_seq;
	uint64_t submitted_seq;
	unsigned backups;  // so many are complete
	unsigned restores; // so many are in place
	bool restoring;	   // the next one may be
	bool rare;	   // what it is doing it does seldom
};

struct crash_op {
	enum crash_kind kind;
	uint32_t inode; // the file, or the folder that the names are in; MOVE: that it comes to
	uint32_t child; // LINK, MOVE: what it names
	uint32_t from;	// MOVE: the folder that it leaves
	char name[CRASH_NAME_BYTES];
	char name_to[CRASH_NAME_BYTES]; // RENAME, MOVE, EXCHANGE
	uint64_t offset;		// SIZE: the length
	uint64_t bytes;
	unsigned char *data;
	bool through; // it returned when it was on the device (O_DSYNC)
	struct crash_promise promise;
};

/// What the device and the program are made to do wrong, to see that it is noticed.
struct recorder_faults {
	bool deaf_files;   // no sync of a file happens
	bool deaf_folders; // no sync of a folder happens
	bool deaf_through; // O_DSYNC is not heeded
	bool no_sync;	   // the environment is opened with MDB_NOSYNC
	bool no_exchange;  // not wrong: a file system that knows no flags of renameat2()
};

struct crash_record {
	struct crash_op *ops;
	size_t count;
	size_t capacity;
	uint32_t inodes;
	bool folder[CRASH_INODES_MAX];
	bool ignored[CRASH_INODES_MAX]; // a lock file: made anew by whoever opens it first
	struct crash_promise promise;	// now; the program's to set
};

/// Begins to note what happens under `root`, an empty folder, into an empty `record`.
void recorder_begin(struct crash_record *record, const char *root,
		    const struct recorder_faults *faults);
/// From now on, or no longer, the device keeps another byte than it was given: that is what is read
/// once a file that was synced leaves the page cache.
void recorder_spoil(bool spoil);
/// Ends it; the record stays.
void recorder_end(void);
/// Frees what a record holds.
void crash_record_free(struct crash_record *record);

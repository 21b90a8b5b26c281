// SPDX-License-Identifier: MIT
//
// Looking at all of a store without giving up at the first damage: every block, every record, every
// large value, and which version of each key counts. Recovery (recover.h) stops where it cannot
// trust what follows; this one goes on and says what is damaged, by block and by key. It runs in a
// process of its own, because LMDB may crash on a damaged file: `kvd --verify-store`, or a child of
// kvctl.
//
// What it says are lines (VERIFY_LINES), keys in hexadecimal; the reader of them has no need to
// know a store.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/// The option that main() must hand to store_verify_child() before it does anything else.
#define VERIFY_OPTION "--verify-store"

/// Lines of the report:
///   progress BYTES TOTAL             so much was read
///   damage BLOCK SEQ KEY TEXT        BLOCK 0: the file as a whole; SEQ 0 and KEY -: not known
///   missing HASH SEQ                 memory has this version, and the store neither it nor a newer
///   extra KEY SEQ                    the store has this value, and memory did not name the key
///   failed TEXT                      it could not be read at all; nothing else is said
///   done BLOCKS RECORDS BYTES KEYS DURABLE_SEQ
/// At most so many damaged places are named; all are counted by `damaged N` before `done`.
#define VERIFY_NAMED_MAX 200u

/// One key that memory has: what the store must have of it.
struct verify_expected {
	uint64_t hash;
	uint64_t seq; // | VERIFY_REQUIRED: durable, so it must be there; else it merely may be
};
#define VERIFY_REQUIRED (UINT64_C(1) << 63)

struct verify_options {
	const char *dir;     // data folder, or
	const char *file;    // one file, as in a backup
	uint64_t file_bytes; // of it that are the store's
	bool alone;	     // nobody writes it: raw pages are looked at, and no lock is taken
	FILE *expected;	     // a u64 hash seed, then struct verify_expected to the end; NULL = none
	FILE *out;
};

enum verify_code {
	VERIFY_GOOD = 0,
	VERIFY_DAMAGED = 1,
	VERIFY_FAILED = 2, // it could not be looked at
};

/// Reads it all, in snapshots of a few milliseconds so that a writer beside it can reuse its pages.
/// Returns an enum verify_code. Memory: about 50 bytes a key.
/// Call with: no environment open on that store in this process.
int store_verify(const struct verify_options *options);

/// The child's whole work: `kvd --verify-store DIR alone|beside|compare`; `compare` reads what is
/// expected from standard input. Returns the exit code, an enum verify_code.
int store_verify_child(const char *dir, const char *how);

/// Bounds the processor time of a process that reads a store of so many bytes, forbids it a core,
/// and makes it yield to everybody else.
void store_verify_limit(uint64_t file_bytes);

// SPDX-License-Identifier: MIT
//
// A verification from inside, for job_verify.c and job_memory.c: what was found, and the look at
// memory.
#pragma once

#include "daemon/job_internal.h"
#include "daemon/storage/verify.h"
#include "shm/hash.h"

#define VERIFICATION_NAMED_MAX 200u

struct verify_extra {
	char *key_hex; // owned
	uint64_t seq;
};

struct verification {
	struct job *job;
	struct job_child child;
	struct text found; // JSON objects, with commas between
	size_t named;	   // of them
	uint64_t keys;
	uint64_t memory_bytes;
	uint64_t large_values;
	uint64_t memory_damaged;
	uint64_t store_damaged;
	bool store_done; // the child has read it to its end, in this run
	uint64_t store_blocks;
	uint64_t store_records;
	uint64_t store_bytes;
	uint64_t store_keys;
	struct verify_expected *missing; // by the child, in this run
	size_t missing_count;
	struct verify_extra *extras; // the same
	size_t extras_count;
	struct verify_extra *before; // of the run before, that memory had not
	size_t before_count;
};

/// Names a damaged place, at most so many; counting it is the caller's.
void verification_find(struct verification *v, const char *where, uint64_t block, uint64_t seq,
		       const char *key_hex, const char *what);

/// A suspicion of one section.
struct memory_doubt {
	char key_hex[2 * KVS_KEY_BYTES_MAX + 1];
	uint64_t seq;
	const char *what;
	bool in_store; // it is the store that has not what memory has
};

#define MEMORY_DOUBTS_MAX 32u

/// A walk that checks what it sees. What a section gave counts when it was not revoked.
struct memory_look {
	struct region_walk walk;
	struct job *job;
	const struct verify_expected *missing; // look for these only, by hash; NULL = check all
	size_t missing_count;
	struct verify_expected *entries; // seen in this section
	size_t entries_count;
	size_t entries_capacity;
	uint64_t bytes; // of this section
	uint64_t large_values;
	struct memory_doubt *doubts; // MEMORY_DOUBTS_MAX
	size_t doubts_count;	     // of this section; more are counted
	bool unsure;		     // of one that another look may clear up
	bool no_memory;
};

/// False with job->error: memory is short.
bool memory_look_begin(struct memory_look *look, struct job *job);
/// A section, again if it was revoked; what it found is entered in `v`. False with job->error.
bool memory_look_section(struct memory_look *look, struct verification *v);
void memory_look_end(struct memory_look *look);

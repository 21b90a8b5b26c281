// SPDX-License-Identifier: MIT
//
// Running a forked child one instruction, or one store, at a time, so that a test can look, or act,
// between any two of them. Only the child's user-space order of instructions is explored this way;
// what the machine may reorder is explored by the models in tests/model.
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "tests/shm/fixture.h"

#define STEP_KEYS 18u

/// Can children be single-stepped here? Not under valgrind, sanitizers or a user-mode emulator. If
/// not, *why says so.
bool step_supported(const char **why);

/// Forks a child that runs `body` under this process's control; it stops at its first step_mark().
/// Bails out on failure.
pid_t step_start(void (*body)(void *context), void *context);

/// Zeroed memory that this process and its children share; never given back. Bails out on failure.
void *step_shared(size_t bytes);

/// Where the child is stopped. It ends with _exit(0) after `body`.
enum step_state {
	STEP_STOPPED,
	STEP_ENDED,
	STEP_CRASHED,
};

enum step_state step_one(pid_t child);	    // one instruction
enum step_state step_continue(pid_t child); // up to the next step_mark()
void step_kill(pid_t child);

#define STEP_PATH_MAX 4096u

/// The instructions that a child came past, one after the other.
struct step_path {
	uint64_t at[STEP_PATH_MAX]; // where it was after so many steps
	unsigned steps;
};

/// Steps the child while `goes_on` says so, and notes its path. Bails out if that is too long.
enum step_state step_follow(pid_t child, struct step_path *path, bool (*goes_on)(void *context),
			    void *context);

/// Brings a child that is where the path began to where it was after `steps` of them, as step_one()
/// would, without a stop at each, which is dear. If it takes another way this time it is stopped
/// wherever that led it, and *there is false. On other machines than x86-64 it is stepped.
enum step_state step_to(pid_t child, const struct step_path *path, unsigned steps, bool *there);

/// Memory of the child, in whole pages, that its parent looks at. The child says where it is.
struct step_watch {
	void *at;
	size_t bytes;
	uint64_t last; // step_store()'s own: the store that it stopped behind, 0 = none
};

/// Lets the child go on until the watched memory may have changed: by one more instruction that
/// stores there, one more repetition of a string store, or a system call, any at all. Stops at a
/// step_mark(), too. Between those the memory is read-only for the child, and everything else runs
/// at full speed; when this returns the memory is writable. On other machines than x86-64 this is
/// step_one().
enum step_state step_store(pid_t child, struct step_watch *watch);

/// In the child: stop here.
static inline void step_mark(void)
{
#if defined(__x86_64__)
	__asm__ volatile("int3" ::: "memory");
#else
	(void)raise(SIGTRAP);
#endif
}

/// Fills `keys` with keys that share bucket 0 of the smallest table; the even ones move when it is
/// split, the odd ones stay. Every key is NUL-terminated.
void step_colliding_keys(const struct kvs_table *table, char keys[STEP_KEYS][16]);

/// Splits or merges one bucket now, whatever the table's load is.
bool step_force_split(struct kvs_table *table);
bool step_force_merge(struct kvs_table *table);

/// Fills the log's head until it rolls on to another segment, so that the old one can be cleaned.
void step_roll(struct fixture *f);
/// Moves every record out of every full segment, lets memory be used again if the epochs allow, and
/// poisons what came free.
void step_clean(struct fixture *f);

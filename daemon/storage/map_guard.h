// SPDX-License-Identifier: MIT
//
// Touching a mapped file that may not be there. A page of it that the device cannot read, that was
// cut off, or that cannot be stored to (a hole of LMDB's lock file on a full btrfs) is no error of
// any call but a SIGBUS. Inside a guarded section, and for an address of the files that are
// guarded, it becomes an answer: the section is left by siglongjmp(). Everything else ends the
// process as before.
//
// Why it is safe to leave there: the thread was at an instruction that touches one of these maps,
// hence in LMDB's own code, in a memcpy() or memcmp() that it called, in pthread_mutex_lock() on a
// mutex in its lock file, or in ours. None of them holds a lock of libc's then: malloc() never
// touches a page that is not its own. What LMDB has in memory may be half done, and mutexes in the
// lock file held: so whoever owns the map calls LMDB with it no more (map_guard_abandon()).
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MAP_GUARD_FILES 2u

/// The files of one environment and where they are mapped. Zeroed: nothing is known yet, and any
/// page that is not there counts as theirs.
struct map_guard {
	struct map_guard_file {
		dev_t device;
		ino_t inode;
		uintptr_t start; // == end: not found
		uintptr_t end;
		bool is_kept; // by map_guard_abandon(), as memory of our own
	} files[MAP_GUARD_FILES];
};

struct map_guard_section {
	sigjmp_buf back;
	const struct map_guard *guard;
};

/// Takes SIGBUS, once for the process. Returns 0 or an errno.
int map_guard_install(void);

/// Threads that block signals must not block this one: the kernel ends a process for a SIGBUS that
/// is blocked.
void map_guard_unblock(sigset_t *set);

/// Looks where the file of `path` is mapped. `is_kept`: a mutex that is held may stand in it.
/// Call with: the file mapped under that name.
void map_guard_learn(struct map_guard *guard, unsigned index, const char *path, bool is_kept);

/// Begins a section:
///     if (sigsetjmp(*map_guard_enter(&section, guard), 0) != 0) { a page was not there }
/// Call with: nothing in the section that allocates and does not belong to who is given up by a
/// fault. Thread must: be in no section, and not block SIGBUS. Orders: nothing.
sigjmp_buf *map_guard_enter(struct map_guard_section *section, const struct map_guard *guard);
/// Ends it; a section that was left by a fault has ended.
void map_guard_leave(void);
/// The page that was not there is of files[] of this index; MAP_GUARD_FILES: nobody knows.
/// Call with: a section left by a fault. Thread must: be the one that left it. Orders: nothing.
unsigned map_guard_fault(void);

/// Nobody will touch these maps again. What is not kept is unmapped, what is kept becomes private
/// memory with the same content, for a mutex in it may be in the thread's list of robust ones; the
/// files are closed, so that a disk gets back what was removed.
void map_guard_abandon(struct map_guard *guard);

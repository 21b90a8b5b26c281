// SPDX-License-Identifier: MIT
//
// The one seam between kvd and the world: clocks, randomness and I/O go through a table of
// functions, so that a test can put a simulated clock, a failing disk or a short write underneath,
// and labelled crash points let a test kill kvd at an exact step. LMDB does its own I/O and is not
// behind it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct epoll_event;

struct seam {
	uint64_t (*monotonic_ns)(void);
	uint64_t (*thread_ns)(void); // processor time of the calling thread
	uint64_t (*wall_us)(void); // the same in microseconds since 1970
	uint64_t (*wall_ms)(void); // precise wall clock, ms since 1970
	void (*random_bytes)(void *out, size_t bytes);
	ssize_t (*read)(int fd, void *buffer, size_t bytes);
	ssize_t (*write)(int fd, const void *buffer, size_t bytes);
	ssize_t (*recvmsg)(int fd, struct msghdr *message, int flags);
	ssize_t (*sendmsg)(int fd, const struct msghdr *message, int flags);
	ssize_t (*writev)(int fd, const struct iovec *pieces, int count);
	int (*accept4)(int fd, struct sockaddr *address, socklen_t *length, int flags);
	int (*open)(const char *path, int flags, mode_t mode);
	int (*fsync)(int fd);
	int (*rename)(const char *from, const char *to);
	int (*unlink)(const char *path);
	int (*epoll_wait)(int fd, struct epoll_event *events, int count, int timeout_ms);
};

/// The real world.
extern const struct seam seam_system;

/// Labels of crash points, one table: X(name, what has just happened there).
#define SEAM_CRASH_POINTS(X)                                                                       \
	X(record_written, "a record is in the log, its entry not yet published")                  \
	X(entry_published, "the entry is published, applied_seq not yet moved")                   \
	X(reseed_step, "the table's other side is partly filled under another hash key")      \
	X(reseed_published, "it has just become the one that serves")                         \
	X(batch_half_published, "one entry of a batch is published, others not")                  \
	X(batch_published, "all entries of a batch are published, applied_seq not yet moved")     \
	X(value_arriving, "some bytes of a large value came, and no record names its run")        \
	X(reply_queued, "a write is applied, its reply not yet sent")                             \
	X(commit_before, "a transaction is filled, not yet committed")                            \
	X(commit_after, "a transaction is committed, durable_seq not yet published")              \
	X(durable_published, "durable_seq is published, waiting replies not yet sent")            \
	X(evicted, "an evicted key is gone, its segment not yet retired")                         \
	X(cleaner_copied, "a survivor is published, its old segment not yet retired")             \
	X(value_half_moved, "a part of a large value is copied to where it is moved")             \
	X(value_moved, "its record names that place, the old one has not been given back")        \
	X(stub_published, "a stub is in its value's place, which has not been given back")        \
	X(value_half_promoted, "a part of a large value is copied back, its stub still stands")   \
	X(value_promoted, "a value is back in its stub's place, its counts are not")              \
	X(memory_given_back, "a free segment has no pages any more")                              \
	X(limbo_given_back, "a part of what came out of limbo is free")                           \
	X(key_ended, "the removal of a key whose time has come is applied")                       \
	X(bound_lowered, "a bound that falls has come down by a part")                            \
	X(block_compacted, "a record of the oldest block is appended anew, in no commit yet")     \
	X(split_filled, "a split's new chain is filled, the root not yet published")              \
	X(split_published, "the root is published, moved entries not yet cleared")                \
	X(chain_filled, "a chain's last bucket is copied before it, the turn not yet published")  \
	X(chain_published, "that turn is published, the copied entries not yet cleared")          \
	X(merge_filled, "a merged bucket's entries are copied, the root not yet published")       \
	X(merge_published, "the smaller root is published, the copied entries not yet cleared")   \
	X(flush_published, "a FLUSHALL's root is published, applied_seq not yet moved")           \
	X(start_locked, "the data folder is this life's, nothing has been looked at yet")          \
	X(start_looked, "a kept region has been looked at, nothing has been changed")              \
	X(recovery_half, "half of the store has been read at start")                              \
	X(adoption_applied, "a kept region is taken over, its last writes not yet applied")       \
	X(adoption_redone, "its last writes are applied, kvd does not yet listen")                \
	X(region_kept, "the keeper has the region, its readers have not been told")               \
	X(adoption_begun, "its readers have been told, what is of no use is still kept")

enum seam_crash_point {
#define SEAM_X(name, help) SEAM_CRASH_##name,
	SEAM_CRASH_POINTS(SEAM_X)
#undef SEAM_X
	SEAM_CRASH_COUNT,
};

/// Arms one of the crash points from KVD_CRASH_AT=label[:n] (die at the n-th pass, default 1), or
/// KVD_HALT_AT (`halts`: stop there until SIGCONT). Returns -1 for an unknown label.
int seam_crash_arm(const char *text, bool halts);

/// Dies by SIGKILL here, or halts by SIGSTOP, if armed for this label.
void seam_crash_slow(enum seam_crash_point point);
extern int seam_crash_armed; // 0 unless a test armed one
#define SEAM_CRASH(label)                                                                          \
	do {                                                                                       \
		if (__builtin_expect(seam_crash_armed, 0)) {                                       \
			seam_crash_slow(SEAM_CRASH_##label);                                       \
		}                                                                                  \
	} while (0)

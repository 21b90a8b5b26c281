// SPDX-License-Identifier: MIT
//
// One kvd per data folder: an flock on DIR/kvd.lock, held as long as the process lives, whatever
// persistence it runs with; and one on the folder, for a file can be removed under its owner.
#pragma once

#include <stdbool.h>
#include <stddef.h>

/// How somebody waits for a lock that is about to be free.
struct dirlock_patience {
	/// It takes longer than a moment: `text` says for whom. Once at most. May be NULL.
	void (*tell)(void *context, const char *text);
	/// Is there no use in waiting any more? May be NULL.
	bool (*is_over)(void *context);
	void *context;
};

/// Creates DIR (mode 0700, one level) if it is missing and takes its lock. Waits up to half a
/// minute for an owner that is stopping, was asked to, or is being killed; `patience` may be NULL.
/// Returns the descriptor to keep open, or -1 with one line in `why` that names the thing and the
/// remedy; errno tells the kind (EWOULDBLOCK: another kvd has it; ECANCELED: is_over()).
int dirlock_take(const char *dir, const struct dirlock_patience *patience, char *why,
		 size_t why_bytes);

/// Locks the folder itself, too, as long as this descriptor of it is open, so that who comes is
/// refused although somebody removed the lock file. Call with: dirlock_take() done. 0, also where
/// folders cannot be locked; -1 with errno EWOULDBLOCK: somebody else has.
int dirlock_hold(int folder_fd);

/// The lock will be free soon: who comes may wait for it.
void dirlock_leaving(int fd);

/// The same for who only reads a folder on a file system that is mounted read-only: shared with
/// others who do, and nothing is created. A folder without a lock file is nobody's. Returns as
/// dirlock_take().
int dirlock_look(const char *dir, char *why, size_t why_bytes);

/// Lets go. The file stays: removing it would let two kvd hold two locks of one name.
void dirlock_release(int fd);

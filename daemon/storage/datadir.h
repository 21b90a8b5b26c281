// SPDX-License-Identifier: MIT
//
// The data folder of a kvd that serves: the one it has locked, and no other of its name. If it is
// removed under kvd, another is made in its place and locked, for memory still has everything. One
// that was only moved away may come back, and one that somebody put there may be somebody's: both
// are left alone.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct datadir;
struct dirlock_patience;

/// Takes it, as dirlock_take() does. Returns 0 and the caller's *out, or an errno with one line in
/// `why`.
int datadir_take(struct datadir **out, const char *path, const struct dirlock_patience *patience,
		 char *why, size_t why_bytes);

/// It will be free soon: who comes may wait for it. Any thread.
void datadir_leaving(struct datadir *folder);
/// Lets go; NULL is fine.
void datadir_release(struct datadir *folder);

/// Makes it anew where it was removed. 0: there is one, locked, of this name, whose own name lasts.
/// 1: it was not removed. -1: it cannot be; `why` tells what stands in the way.
/// Call with: the name not that of the folder any more. Thread must: own the store. Orders: the
/// count of datadir_remade() behind it, release.
int datadir_remake(struct datadir *folder, char *why, size_t why_bytes);

/// How often it was made anew.
/// Call with: anything. Thread must: any one. Orders: acquire; partner datadir_remake().
uint64_t datadir_remade(const struct datadir *folder);

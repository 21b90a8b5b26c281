// SPDX-License-Identifier: MIT
//
// How a restored store takes its place in a data folder, and how kvd sees that it did not: the last
// steps of kvctl restore, which lie with what the folder looks like.
#pragma once

#include <stddef.h>
#include <sys/types.h>

/// The folder in a data folder in which a store is being restored.
#define RESTORED_WORK_NAME "store.restore"

/// Puts the folder `work` in the place of `store`, which goes to `aside`; NULL: there is none. At
/// every moment one of both has the name, where the file system can exchange names; elsewhere there
/// is a moment without. 0 or errno.
int restored_publish(const char *work, const char *store, const char *aside);

/// Raises the count in DIR/kvd.gen and has it name nobody: a region that was kept belongs to other
/// data from now on. Makes the file, for this owner, if it is not there. 0 or errno.
int restored_raise_generation(const char *dir, uid_t uid, gid_t gid);

/// Was a restore cut off before anything was in place? Then 0 is not returned but -1, with what to
/// do in `why`: a kvd that started now would serve nothing, and call it all there is.
int restored_check(const char *dir, char *why, size_t why_bytes);

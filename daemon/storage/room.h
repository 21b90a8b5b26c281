// SPDX-License-Identifier: MIT
//
// Whether a disk is full, for failures that do not say so: a write that was short, or a page that
// could not be stored to. What a quota leaves is in no figure that can be asked for, so it is
// tried.
#pragma once

/// Are ROOM_BYTES refused to a new file in this folder? Nothing is kept of it. 0, or ENOSPC or
/// EDQUOT; 0 also where it cannot be tried.
int room_refused(const char *folder);

#define ROOM_BYTES (4u << 20) // with less, a commit may not come to its end

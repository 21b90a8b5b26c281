// SPDX-License-Identifier: MIT
//
// Does the mapped region serve still? The quick ways see by one word that its kvd is there; when it
// is not, this looks further. Nothing here is installed.
#pragma once

#include <stdbool.h>

#include "libclient/internal.h"

enum kvc_serving {
	KVC_SERVING_THIS,
	KVC_SERVING_OTHER,  // another region does, or none of this data
	KVC_SERVING_UNTOLD, // kvd.gen is cut short, removed, not readable, or closed under our feet
};

/// Takes over `fd`, kvd.gen. False if it is no file; then it stays the caller's.
bool kvc_serving_take(struct kvc_attachment *attachment, int fd);
/// Closes it, if it is still ours.
void kvc_serving_drop(struct kvc_attachment *attachment);
/// What kvd.gen says: three system calls, no waiting, no lock. Any thread that uses the attachment.
enum kvc_serving kvc_serving_told(const struct kvc_attachment *attachment);
/// The same of kvd's presence, kvd.gen, and whether anybody listens at the client's socket, in this
/// order. UNTOLD: somebody does, if only the former kvd, which is about to end.
enum kvc_serving kvc_serving_now(const kvc *client, const struct kvc_attachment *attachment);

/// Enters a section in the region of a kvd that is gone, or that never said that it is there, if
/// nobody has come after it: three system calls in place of a word, and no mutex. Otherwise nothing
/// is announced, as in kvc_reader_announce().
bool kvc_serving_enter(const kvc_reader *reader, uint64_t *word);

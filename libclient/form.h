// SPDX-License-Identifier: MIT
//
// Requests apart from how they travel: the bytes of each, how many replies it has, and what those
// replies mean. The functions that wait and the asynchronous ones share it, so that one request has
// one meaning.
#pragma once

#include "libclient/internal.h"

/// Operations collected for one transaction.
struct kvc_batch {
	struct kvc_frame frame; // MULTI and the operations
	size_t operations;
	uint64_t record_bytes; // what kvd will append, about
};

enum kvc_want {
	KVC_WANT_SET,
	KVC_WANT_REMOVED, // an integer, 0 = not found: DEL, PEXPIRE
	KVC_WANT_SUM,
	KVC_WANT_PERSIST, // two replies: PERSIST's and EXISTS's
	KVC_WANT_SYNC,
	KVC_WANT_VALUE,
	KVC_WANT_BATCH,
	KVC_WANT_REPLY, // whatever comes
};

/// One request under way.
struct kvc_form {
	enum kvc_want want;
	int refused;	     // what the first error reply among several means, KVC_OK = none yet
	size_t replies;	     // still to come
	size_t operations;   // BATCH
	int64_t there;	     // PERSIST: one of the two said 1
	const char *command; // its name, for texts
};

/// Each appends its request to `frame` and fills `form`. KVC_OK, INVALID, TOO_LARGE; a frame that
/// ran out of memory says so itself.
int kvc_form_set(struct kvc_form *form, struct kvc_frame *frame, const void *key, size_t key_bytes,
		 const void *value, size_t value_bytes, const struct kvc_set_options *options);
int kvc_form_delete(struct kvc_form *form, struct kvc_frame *frame, const void *key,
		    size_t key_bytes);
int kvc_form_increment(struct kvc_form *form, struct kvc_frame *frame, const void *key,
		       size_t key_bytes, int64_t delta);
int kvc_form_expire(struct kvc_form *form, struct kvc_frame *frame, const void *key,
		    size_t key_bytes, int64_t ttl_ms);
int kvc_form_get(struct kvc_form *form, struct kvc_frame *frame, const void *key, size_t key_bytes);
void kvc_form_sync(struct kvc_form *form, struct kvc_frame *frame);
int kvc_form_command(struct kvc_form *form, struct kvc_frame *frame, int argc,
		     const void *const *argv, const size_t *argv_bytes);
/// The frame refers to the batch's bytes, as to a long value. No replies: nothing to send.
int kvc_form_batch(struct kvc_form *form, struct kvc_frame *frame, const kvc_batch *batch);

/// Takes the next reply of the request. True if it was the last: result->status and the fields that
/// belong to it are set, texts are in conn->error_text.
bool kvc_form_take(struct kvc_form *form, struct kvc_conn *conn, const struct kvc_reply *reply,
		   struct kvc_result *result);

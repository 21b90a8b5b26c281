// SPDX-License-Identifier: MIT
//
// Parts of the output that are not copied: a large value goes from where it stands to the socket,
// piece by piece as the client reads, and is pinned until then; a large message from the parcel
// that all its receivers share. In stream positions such a part has no width: it is sent between
// the byte before its position and the byte at it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/parcel.h"
#include "daemon/session.h"

struct session_ref {
	uint64_t position; // stream position of the byte that is sent behind it
	const unsigned char *data;
	size_t bytes; // left to be sent; 0 = forgotten
	uint64_t pin; // of keyspace_pin(), if it is of a value
	size_t charged; // all of that, until its last byte is sent
	struct parcel *parcel;
	struct parcel_share *share; // of the session's uid in it
};

/// Appends `bytes` at `data` to the output without copying them, if they can be pinned; they are
/// charged like output. False if not: then nothing was done.
bool session_refs_add(struct session *session, const void *data, size_t bytes);

/// The same of `bytes` at `data` in a parcel, which is kept until then. False: memory is short.
bool session_refs_add_parcel(struct session *session, struct parcel *parcel, const void *data,
			     size_t bytes);

/// The next to be sent, NULL if there is none.
static inline struct session_ref *session_refs_next(struct session *session)
{
	const struct session_ref_queue *refs = &session->refs;
	return refs->first < refs->end ? &refs->items[refs->first] : NULL;
}

/// So much of the next was sent.
void session_refs_sent(struct session *session, size_t bytes);
/// Forgets what stands behind position `from` up to `to`: that part of the output is taken back.
void session_refs_forget(struct session *session, uint64_t from, uint64_t to);
/// What stands at or behind position `from` moves by `delta`.
void session_refs_shift(struct session *session, uint64_t from, int64_t delta);
/// Appends another queue, positions in which move by `delta`; its array is freed.
void session_refs_append(struct session *session, struct session_ref_queue *queue, int64_t delta);
/// Forgets all and frees.
void session_refs_free(struct session *session);

// SPDX-License-Identifier: MIT
//
// Parts of replies that are not copied: a large value goes from where it stands to the socket,
// piece by piece as the client reads, and is pinned until then. In stream positions such a part has
// no width: it is sent between the byte before its position and the byte at it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/session.h"

struct session_ref {
	uint64_t position; // stream position of the byte that is sent behind it
	const unsigned char *data;
	size_t bytes; // left to be sent; 0 = forgotten
	uint64_t pin; // of keyspace_pin()
};

/// Appends `bytes` at `data` to the output without copying them, if they can be pinned; they are
/// charged like output. False if not: then nothing was done.
bool session_refs_add(struct session *session, const void *data, size_t bytes);

/// The next to be sent, NULL if there is none.
static inline struct session_ref *session_refs_next(struct session *session)
{
	return session->refs_first < session->refs_end ? &session->refs[session->refs_first] : NULL;
}

/// So much of the next was sent.
void session_refs_sent(struct session *session, size_t bytes);
/// Forgets what stands behind position `from` up to `to`: that part of the output is taken back.
void session_refs_forget(struct session *session, uint64_t from, uint64_t to);
/// What stands at or behind position `from` moves by `delta`.
void session_refs_shift(struct session *session, uint64_t from, int64_t delta);
/// Forgets all and frees.
void session_refs_free(struct session *session);

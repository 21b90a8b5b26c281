// SPDX-License-Identifier: MIT
//
// The queue of parts that are sent from where they stand. A reply of 64 MiB costs its connection a
// few bytes of buffer and kvd no copy; what it pins counts against the client as if it were copied.
#include "daemon/session_refs.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace.h"
#include "daemon/session_parts.h"

/// Room for one more; false if memory is short.
static bool session_refs_room(struct session *session)
{
	if (session->refs_end < session->refs_capacity) {
		return true;
	}
	if (session->refs_first > 0) {
		size_t count = session->refs_end - session->refs_first;
		memmove(session->refs, session->refs + session->refs_first,
			count * sizeof(*session->refs));
		session->refs_first = 0;
		session->refs_end = count;
		return true;
	}
	size_t capacity = session->refs_capacity ? session->refs_capacity * 2 : 4;
	size_t more_bytes = (capacity - session->refs_capacity) * sizeof(*session->refs);
	if (!session_has_room(session, more_bytes)) {
		return false;
	}
	struct session_ref *refs = reallocarray(session->refs, capacity, sizeof(*refs));
	if (!refs) {
		return false;
	}
	session->refs = refs;
	session->refs_capacity = capacity;
	return session_charge(session, more_bytes);
}

bool session_refs_add(struct session *session, const void *data, size_t bytes)
{
	uint64_t pin;
	if (session->dead || !session_refs_room(session) ||
	    !keyspace_pin(session->kvd->keyspace, data, &pin)) {
		return false;
	}
	if (!session_output_fits(session, bytes) || !session_charge(session, bytes)) {
		keyspace_unpin(session->kvd->keyspace, pin);
		return true; // closed: there is no reply any more
	}
	session->refs[session->refs_end++] = (struct session_ref){
		.position = session->output_position + session->output_end,
		.data = data,
		.bytes = bytes,
		.pin = pin,
	};
	session->refs_bytes += bytes;
	return true;
}

static void session_refs_drop(struct session *session, struct session_ref *ref)
{
	if (ref->bytes > 0) {
		session->refs_bytes -= ref->bytes;
		session_uncharge(session, ref->bytes);
		ref->bytes = 0;
		keyspace_unpin(session->kvd->keyspace, ref->pin);
	}
}

/// Leaves out what was sent or forgotten, at both ends.
static void session_refs_trim(struct session *session)
{
	while (session->refs_first < session->refs_end &&
	       session->refs[session->refs_first].bytes == 0) {
		session->refs_first++;
	}
	while (session->refs_first < session->refs_end &&
	       session->refs[session->refs_end - 1].bytes == 0) {
		session->refs_end--;
	}
	if (session->refs_first == session->refs_end) {
		session->refs_first = session->refs_end = 0;
	}
}

void session_refs_sent(struct session *session, size_t bytes)
{
	struct session_ref *ref = &session->refs[session->refs_first];
	if (bytes == ref->bytes) {
		session_refs_drop(session, ref);
		session_refs_trim(session);
		return;
	}
	ref->data += bytes;
	ref->bytes -= bytes;
	session->refs_bytes -= bytes;
	session_uncharge(session, bytes);
}

void session_refs_forget(struct session *session, uint64_t from, uint64_t to)
{
	for (size_t i = session->refs_first; i < session->refs_end; i++) {
		struct session_ref *ref = &session->refs[i];
		if (ref->position > from && ref->position <= to) {
			session_refs_drop(session, ref);
		}
	}
	session_refs_trim(session);
}

void session_refs_shift(struct session *session, uint64_t from, int64_t delta)
{
	for (size_t i = session->refs_first; i < session->refs_end; i++) {
		struct session_ref *ref = &session->refs[i];
		if (ref->position >= from) {
			ref->position += (uint64_t)delta;
		}
	}
}

void session_refs_free(struct session *session)
{
	session_refs_forget(session, 0, UINT64_MAX);
	session_uncharge(session, session->refs_capacity * sizeof(*session->refs));
	free(session->refs);
	session->refs = NULL;
	session->refs_capacity = 0;
}

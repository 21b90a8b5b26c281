// SPDX-License-Identifier: MIT
//
// The queue of parts that are sent from where they stand. A reply of 64 MiB costs its connection a
// few bytes of buffer and kvd no copy; what it pins counts against the client as if it were copied,
// what it shares with others of its uid counts against that uid once.
#include "daemon/session_refs.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace.h"
#include "daemon/session_fetch.h"
#include "daemon/session_parts.h"

/// Room for one more; false if memory is short.
static bool session_refs_room(struct session *session)
{
	struct session_ref_queue *queue = &session->refs;
	if (queue->end < queue->capacity) {
		return true;
	}
	if (queue->first >= queue->capacity / 2 && queue->first > 0) {
		size_t count = queue->end - queue->first;
		memmove(queue->items, queue->items + queue->first, count * sizeof(*queue->items));
		queue->first = 0;
		queue->end = count;
		return true;
	}
	size_t capacity = queue->capacity ? queue->capacity * 2 : 4;
	size_t more_bytes = (capacity - queue->capacity) * sizeof(*queue->items);
	if (!session_has_room(session, more_bytes) || !session_charge(session, more_bytes)) {
		return false;
	}
	struct session_ref *items = reallocarray(queue->items, capacity, sizeof(*items));
	if (!items) {
		session_uncharge(session, more_bytes);
		return false;
	}
	queue->items = items;
	queue->capacity = capacity;
	return true;
}

static void session_refs_enter(struct session *session, const struct session_ref *ref)
{
	session->refs.items[session->refs.end] = *ref;
	session->refs.items[session->refs.end++].position =
		session->output_position + session->output_end;
	session->refs_bytes += ref->bytes;
}

bool session_refs_add(struct session *session, const void *data, size_t bytes)
{
	uint64_t pin;
	struct parcel *parcel = session->fetch != NULL ? session_fetch_parcel(session, data) : NULL;
	if (parcel != NULL) {
		return session_refs_add_parcel(session, parcel, data, bytes);
	}
	if (session->dead || session_pins_full(session, bytes) || !session_refs_room(session) ||
	    !keyspace_pin(session->kvd->keyspace, data, &pin)) {
		return false;
	}
	if (!session_output_fits(session, bytes) || !session_charge(session, bytes)) {
		keyspace_unpin(session->kvd->keyspace, pin);
		return true; // closed: there is no reply any more
	}
	session_refs_enter(session,
			   &(struct session_ref){
				   .data = data, .bytes = bytes, .pin = pin, .charged = bytes });
	if (session->pins_count++ == 0) {
		session_pins_begin(session);
	}
	return true;
}

bool session_refs_add_parcel(struct session *session, struct parcel *parcel, const void *data,
			     size_t bytes)
{
	if (session->dead || !session_refs_room(session)) {
		return false;
	}
	if (!session_output_fits(session, bytes) || !session_make_way(session, parcel->bytes)) {
		return true; // closed
	}
	struct parcel_share *share = parcel_hold(session->shared, parcel, session->owner);
	if (!share) {
		return false;
	}
	session->shared_bytes += bytes;
	session_refs_enter(
		session, &(struct session_ref){
				 .data = data, .bytes = bytes, .parcel = parcel, .share = share });
	return true;
}

static void session_refs_less(struct session *session, const struct session_ref *ref, size_t bytes)
{
	session->refs_bytes -= bytes;
	if (ref->parcel) {
		session->shared_bytes -= bytes;
	}
}

static void session_refs_unpin(struct session *session, const struct session_ref *ref)
{
	session_uncharge(session, ref->charged);
	keyspace_unpin(session->kvd->keyspace, ref->pin);
	if (--session->pins_count == 0) {
		session_pins_end(session);
	}
}

static void session_refs_drop(struct session *session, struct session_ref *ref)
{
	if (ref->bytes == 0) {
		return;
	}
	session_refs_less(session, ref, ref->bytes);
	ref->bytes = 0;
	if (ref->parcel) {
		parcel_let_go(session->shared, ref->parcel, ref->share);
	} else {
		session_refs_unpin(session, ref);
	}
}

/// Leaves out what was sent or forgotten, at both ends.
static void session_refs_trim(struct session *session)
{
	struct session_ref_queue *queue = &session->refs;
	while (queue->first < queue->end && queue->items[queue->first].bytes == 0) {
		queue->first++;
	}
	while (queue->first < queue->end && queue->items[queue->end - 1].bytes == 0) {
		queue->end--;
	}
	if (queue->first == queue->end) {
		queue->first = queue->end = 0;
	}
}

void session_refs_sent(struct session *session, size_t bytes)
{
	struct session_ref *ref = &session->refs.items[session->refs.first];
	if (bytes == ref->bytes) {
		session_refs_drop(session, ref);
		if (session->pins_count > 0) {
			session_pins_begin(session); // the next has begun to wait
		}
		session_refs_trim(session);
		return;
	}
	ref->data += bytes;
	ref->bytes -= bytes;
	session_refs_less(session, ref, bytes);
}

void session_refs_forget(struct session *session, uint64_t from, uint64_t to)
{
	for (size_t i = session->refs.first; i < session->refs.end; i++) {
		struct session_ref *ref = &session->refs.items[i];
		if (ref->position > from && ref->position <= to) {
			session_refs_drop(session, ref);
		}
	}
	session_refs_trim(session);
}

void session_refs_shift(struct session *session, uint64_t from, int64_t delta)
{
	for (size_t i = session->refs.first; i < session->refs.end; i++) {
		struct session_ref *ref = &session->refs.items[i];
		if (ref->position >= from) {
			ref->position += (uint64_t)delta;
		}
	}
}

void session_refs_append(struct session *session, struct session_ref_queue *queue, int64_t delta)
{
	for (size_t i = queue->first; i < queue->end; i++) {
		struct session_ref *ref = &queue->items[i];
		if (ref->bytes == 0) {
			continue; // forgotten
		}
		if (session_refs_room(session)) {
			ref->position += (uint64_t)delta;
			session->refs.items[session->refs.end++] = *ref;
		} else {
			session_refs_drop(session, ref);
			session_kill(session, "out of memory");
		}
	}
	session_uncharge(session, queue->capacity * sizeof(*queue->items));
	free(queue->items);
	*queue = (struct session_ref_queue){ 0 };
}

void session_refs_free(struct session *session)
{
	session_refs_forget(session, 0, UINT64_MAX);
	session_uncharge(session, session->refs.capacity * sizeof(*session->refs.items));
	free(session->refs.items);
	session->refs = (struct session_ref_queue){ 0 };
}

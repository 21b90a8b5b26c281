// SPDX-License-Identifier: MIT
//
// Descriptors on their way; see session_flight.h. SIOCOUTQ tells what a socket's other end has not
// read; nothing means that descriptors have been received too. Asking costs a system call, so that
// is done when somebody wants more than are left, for some of those who have been asked longest
// ago, and once a second. Of those whose connection is over epoll tells.
#include "daemon/session_flight.h"

#include <linux/sockios.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/files.h"
#include "daemon/session_parts.h"

#define FLIGHT_LOOKS 64u // at a time
#define FLIGHT_EVERY_NS UINT64_C(1000000000)

struct session_flight {
	TAILQ_ENTRY(session_flight) link;	// all, who was asked longest ago first
	TAILQ_ENTRY(session_flight) owner_link; // the same of its owner
	struct session_shared *shared;
	struct session_owner *owner;
	struct session *session;   // NULL: its connection is over
	struct loop_source source; // then its socket, still open
	unsigned count;
};

void session_flight_set_limit(struct session_shared *shared)
{
	struct files_shares shares = files_share(files_limit());
	shared->flight_max = shares.flight_max;
	shared->flight_kept = shares.flight_kept;
}

static void flight_count(struct session_shared *shared, struct session_owner *owner, unsigned more,
			 unsigned less)
{
	shared->flight_fds += more - (uint64_t)less;
	owner->flight_fds += more - (uint64_t)less;
	session_count_up(shared, KVS_COUNTER_descriptors_in_flight, more - (uint64_t)less);
}

static void flight_end(struct session_shared *shared, struct session_flight *flight)
{
	struct session_owner *owner = flight->owner;
	TAILQ_REMOVE(&shared->flights, flight, link);
	TAILQ_REMOVE(&owner->flights, flight, owner_link);
	flight_count(shared, owner, 0, flight->count);
	if (flight->session) {
		flight->session->flight = NULL;
	} else {
		if (flight->source.ready) {
			loop_remove(shared->kvd->loop, &flight->source);
		}
		close(flight->source.fd);
		session_owner_rest(shared, owner);
	}
	free(flight);
}

/// Is something that was sent to it not read? Where that cannot be told nothing is known to be.
static bool flight_is_unread(int fd)
{
	int bytes = 0;
	return ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0;
}

/// Ends it if all was received; else it is the last to be asked again.
static bool flight_look(struct session_shared *shared, struct session_flight *flight)
{
	const struct session *session = flight->session;
	if ((!session || session->fds_count == 0) &&
	    !flight_is_unread(session ? session->source.fd : flight->source.fd)) {
		flight_end(shared, flight);
		return true;
	}
	TAILQ_REMOVE(&shared->flights, flight, link);
	TAILQ_INSERT_TAIL(&shared->flights, flight, link);
	TAILQ_REMOVE(&flight->owner->flights, flight, owner_link);
	TAILQ_INSERT_TAIL(&flight->owner->flights, flight, owner_link);
	return false;
}

/// Its client has read something, or closed its end.
static void flight_moved(struct loop_source *source, uint32_t events)
{
	(void)events;
	struct session_flight *flight =
		(struct session_flight *)(void *)((char *)source -
						  offsetof(struct session_flight, source));
	(void)flight_look(flight->shared, flight);
}

/// Asks some of all, or of one owner.
static void flight_look_at_some(struct session_shared *shared, struct session_owner *owner)
{
	struct session_flight_list *list = owner ? &owner->flights : &shared->flights;
	for (unsigned i = 0; i < FLIGHT_LOOKS && !TAILQ_EMPTY(list); i++) {
		(void)flight_look(shared, TAILQ_FIRST(list));
	}
}

/// What one user has leaves as much for the others; some are kept for root and kvd's own user.
static bool flight_has_room(const struct session *session, unsigned count, bool *mine)
{
	const struct session_shared *shared = session->shared;
	bool bounded = session->uid != 0 && session->uid != geteuid();
	uint64_t max = shared->flight_max;
	uint64_t kept = bounded ? shared->flight_kept : 0;
	uint64_t used = shared->flight_fds + kept;
	uint64_t left = used < max ? max - used : 0;
	*mine = left >= count;
	return *mine && (!bounded || session->owner->flight_fds + count <= left);
}

bool session_flight_begin(struct session *session, unsigned count, bool *mine)
{
	struct session_shared *shared = session->shared;
	if (session->flight) {
		(void)flight_look(shared, session->flight);
	}
	if (!flight_has_room(session, count, mine)) {
		flight_look_at_some(shared, session->owner);
	}
	if (!flight_has_room(session, count, mine)) {
		flight_look_at_some(shared, NULL);
	}
	if (!flight_has_room(session, count, mine)) {
		return false;
	}
	struct session_flight *flight = session->flight;
	if (!flight) {
		flight = calloc(1, sizeof(*flight));
		if (!flight) {
			*mine = false;
			return false;
		}
		flight->shared = shared;
		flight->owner = session->owner;
		flight->session = session;
		session->flight = flight;
		if (TAILQ_EMPTY(&shared->flights)) {
			shared->flight_due_ns = loop_now_ns(shared->kvd->loop) + FLIGHT_EVERY_NS;
		}
		TAILQ_INSERT_TAIL(&shared->flights, flight, link);
		TAILQ_INSERT_TAIL(&session->owner->flights, flight, owner_link);
	}
	flight->count += count;
	flight_count(shared, session->owner, count, 0);
	return true;
}

void session_flight_cancel(struct session *session, unsigned count)
{
	struct session_flight *flight = session->flight;
	flight->count -= count;
	flight_count(session->shared, session->owner, 0, count);
	if (flight->count == 0) {
		flight_end(session->shared, flight);
	}
}

struct session_flight_counts session_flight_counts(const struct session *session)
{
	const struct session_shared *shared = session->shared;
	return (struct session_flight_counts){ .mine = session->owner->flight_fds,
					       .all = shared->flight_fds,
					       .max = shared->flight_max };
}

void session_flight_close(struct session *session)
{
	struct session_flight *flight = session->flight;
	if (!flight || flight_look(session->shared, flight)) {
		close(session->source.fd);
		return;
	}
	flight->session = NULL;
	session->flight = NULL;
	flight->source = (struct loop_source){ .fd = session->source.fd, .ready = flight_moved };
	(void)shutdown(flight->source.fd, SHUT_RDWR); // to the client that is what close() is
	// Should epoll refuse, it is asked with the others.
	if (loop_add(session->kvd->loop, &flight->source, SESSION_SENDS | SESSION_ONCE) != 0) {
		flight->source.ready = NULL;
	}
}

void session_flight_turn(struct session_shared *shared, uint64_t now_ns)
{
	if (now_ns >= session_flight_next_ns(shared)) {
		flight_look_at_some(shared, NULL);
		shared->flight_due_ns = now_ns + FLIGHT_EVERY_NS;
	}
}

uint64_t session_flight_next_ns(const struct session_shared *shared)
{
	return TAILQ_EMPTY(&shared->flights) ? UINT64_MAX : shared->flight_due_ns;
}

void session_flight_free(struct session_shared *shared)
{
	struct session_flight *flight;
	while ((flight = TAILQ_FIRST(&shared->flights)) != NULL) {
		flight_end(shared, flight);
	}
}

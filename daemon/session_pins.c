// SPDX-License-Identifier: MIT
//
// Memory that replies keep; see session_pins.h. A pin of a value that a key still has costs nothing
// and is of no concern, so pins are looked at only when some memory is kept by nothing else. Who
// makes old values by writing is not to blame, and cannot be told from others.
#include "daemon/session_pins.h"

#include "daemon/keyspace.h"
#include "daemon/refuse.h"
#include "daemon/session_parts.h"
#include "daemon/session_refs.h"

#define PINS_COPY_BYTES_MAX (1u << 20) // copied in a fraction of a millisecond
#define PINS_LOOKS 1024u	       // parts of replies looked at in one go
#define PINS_CLOSED_MAX 64u	       // connections, in one turn
#define PINS_WANTED_PART 64u // of the memory, what is given back at a time where it is wanted
#define PINS_GRACE_NS UINT64_C(200000000) // to read a reply although memory is wanted
#define PINS_EVERY_NS UINT64_C(20000000)  // for what was given back to come free

/// What only replies may keep: a quarter of the memory, or two values of the largest size.
static uint64_t pins_bound(const struct session_shared *shared)
{
	uint64_t memory = config_memory_bytes(&shared->kvd->config);
	uint64_t two = 2 * (uint64_t)keyspace_value_bytes_max(shared->kvd->keyspace);
	uint64_t bound = memory / 4 > two ? memory / 4 : two;
	return bound < memory / 2 ? bound : memory / 2;
}

bool session_pins_full(const struct session *session, size_t bytes)
{
	const struct session_shared *shared = session->shared;
	uint64_t kept = keyspace_orphaned_bytes(shared->kvd->keyspace);
	return bytes <= PINS_COPY_BYTES_MAX && kept > 0 && kept >= pins_bound(shared) / 2;
}

void session_pins_begin(struct session *session)
{
	if (!session->is_pinning) {
		session->is_pinning = true;
		TAILQ_INSERT_TAIL(&session->shared->pinning, session, pins_link);
	}
	session->pins_since_ns = loop_now_ns(session->kvd->loop);
}

void session_pins_end(struct session *session)
{
	if (session->is_pinning) {
		TAILQ_REMOVE(&session->shared->pinning, session, pins_link);
		session->is_pinning = false;
	}
}

void session_pins_wanted(struct session_shared *shared)
{
	shared->pins_wanted = true;
}

/// What a session keeps that nothing else does, of as many parts as may still be looked at.
static uint64_t pins_kept(const struct session *session, unsigned *looks)
{
	uint64_t kept = 0;
	for (size_t i = session->refs.first; i<session->refs.end && * looks> 0; i++) {
		const struct session_ref *ref = &session->refs.items[i];
		*looks -= 1;
		if (ref->bytes > 0 && !ref->parcel) {
			kept += keyspace_pin_orphaned_bytes(session->kvd->keyspace, ref->pin);
		}
	}
	return kept;
}

/// Who is closed next: of the user that keeps most, who has kept longest, since `until_ns` at the
/// latest. What is looked at in one go is bounded: the next look begins with others.
static struct session *pins_longest(struct session_shared *shared, uint64_t until_ns,
				    uint64_t *kept)
{
	struct session_owner *owner;
	LIST_FOREACH (owner, &shared->owners, link) {
		owner->pins_bytes = 0;
		owner->pins_longest = NULL;
	}
	struct session_owner *most = NULL;
	struct session *first = TAILQ_FIRST(&shared->pinning);
	struct session *session = first;
	for (unsigned looks = PINS_LOOKS; session && looks > 0;) {
		struct session *next = TAILQ_NEXT(session, pins_link);
		uint64_t bytes =
			session->pins_since_ns <= until_ns ? pins_kept(session, &looks) : 0;
		owner = session->owner;
		owner->pins_bytes += bytes;
		if (bytes > 0 && (!owner->pins_longest ||
				  session->pins_since_ns < owner->pins_longest->pins_since_ns)) {
			owner->pins_longest = session;
			owner->pins_longest_bytes = bytes;
		}
		if (bytes > 0 && (!most || owner->pins_bytes > most->pins_bytes)) {
			most = owner;
		}
		TAILQ_REMOVE(&shared->pinning, session, pins_link);
		TAILQ_INSERT_TAIL(&shared->pinning, session, pins_link);
		session = next == first ? NULL : next;
	}
	*kept = most ? most->pins_longest_bytes : 0;
	return most ? most->pins_longest : NULL;
}

static void pins_close(struct session *session, uint64_t now_ns, uint64_t kept, bool over)
{
	refuse(session, REFUSAL_PINS,
	       "replies that it has not read for %llu ms keep %llu bytes of memory that nobody "
	       "else "
	       "needs, and %s; it must read its replies sooner, or raise memory",
	       (unsigned long long)((now_ns - session->pins_since_ns) / 1000000),
	       (unsigned long long)kept,
	       over ? "all such replies keep too much" : "writes wait for it");
	session_kill(session, NULL);
}

void session_pins_turn(struct session_shared *shared, uint64_t now_ns)
{
	uint64_t kept = keyspace_orphaned_bytes(shared->kvd->keyspace);
	bool wanted = shared->pins_wanted || !TAILQ_EMPTY(&shared->parked);
	uint64_t bound = pins_bound(shared);
	shared->pins_wanted = false;
	if (__builtin_expect(kept == 0, 1) || (kept <= bound && !wanted)) {
		return;
	}
	bool due = wanted && now_ns >= shared->pins_due_ns;
	uint64_t enough = config_memory_bytes(&shared->kvd->config) / PINS_WANTED_PART;
	uint64_t given = 0;
	for (unsigned i = 0; i < PINS_CLOSED_MAX; i++) {
		bool over = keyspace_orphaned_bytes(shared->kvd->keyspace) > bound;
		if (!over && (!due || given > enough)) {
			break;
		}
		uint64_t grace_ns = over ? 0 : PINS_GRACE_NS;
		uint64_t bytes;
		struct session *session =
			pins_longest(shared, now_ns > grace_ns ? now_ns - grace_ns : 0, &bytes);
		if (!session) {
			break;
		}
		pins_close(session, now_ns, bytes, over);
		given += bytes;
		shared->pins_due_ns = now_ns + PINS_EVERY_NS;
	}
}

// SPDX-License-Identifier: MIT
//
// Sharing the loop's time; see session_share.h. Two levels of the same rule, each with two queues:
// users whose share is not used up and those who wait for a new one, and each user's connections
// that came with something to do and those that were cut. A user that takes more than its share,
// because a command cannot be cut, owes it: as long as others want the time it is passed over.
#include "daemon/session_share.h"

#include "daemon/session_parts.h"

void session_share_init(struct session_shared *shared)
{
	TAILQ_INIT(&shared->owners_new);
	TAILQ_INIT(&shared->owners_old);
}

void session_share_begin(struct session_shared *shared)
{
	shared->turn++;
	shared->turn_served = false;
}

bool session_share_waiting(const struct session_shared *shared)
{
	return shared->owners_ready > 0;
}

/// What one user gets at a time.
static int64_t share_ns(const struct session_shared *shared)
{
	uint64_t ns = SESSION_TURN_NS / (shared->owners_ready > 0 ? shared->owners_ready : 1);
	ns = ns < SESSION_SLICE_NS ? ns : SESSION_SLICE_NS;
	return (int64_t)(ns > SESSION_SHARE_LEAST_NS ? ns : SESSION_SHARE_LEAST_NS);
}

/// What one of its connections gets at a time.
static uint64_t share_slice_ns(const struct session_shared *shared,
			       const struct session_owner *owner)
{
	uint64_t ns = (uint64_t)share_ns(shared);
	if (owner->ready > 2 && ns > SESSION_SLICE_LEAST_NS) {
		return SESSION_SLICE_LEAST_NS;
	}
	return ns;
}

static void share_owner_out(struct session_shared *shared, struct session_owner *owner)
{
	TAILQ_REMOVE(owner->is_new ? &shared->owners_new : &shared->owners_old, owner, ready_link);
}

/// It waits for a new share, behind all others.
static void share_owner_back(struct session_shared *shared, struct session_owner *owner)
{
	share_owner_out(shared, owner);
	owner->is_new = false;
	TAILQ_INSERT_TAIL(&shared->owners_old, owner, ready_link);
}

static void share_owner_rest(struct session_shared *shared, struct session_owner *owner,
			     uint64_t now_ns)
{
	share_owner_out(shared, owner);
	shared->owners_new_ns += owner->is_new ? owner->new_ns : 0;
	owner->rests_since_ns = now_ns;
	shared->owners_ready--;
}

/// A user has something to do again. What it owed is forgiven as time has passed in which it wanted
/// none.
static void share_owner_in(struct session_shared *shared, struct session_owner *owner)
{
	uint64_t now_ns = loop_now_ns(shared->kvd->loop);
	uint64_t rested_ns = now_ns > owner->rests_since_ns ? now_ns - owner->rests_since_ns : 0;
	shared->owners_ready++;
	owner->is_new = true;
	owner->new_ns = 0;
	TAILQ_INSERT_TAIL(&shared->owners_new, owner, ready_link);
	if (owner->left_ns > 0 || rested_ns >= (uint64_t)-owner->left_ns) {
		owner->left_ns = share_ns(shared);
	} else {
		owner->left_ns += (int64_t)rested_ns;
	}
}

void session_share_add(struct session *session)
{
	struct session_owner *owner = session->owner;
	session->is_ready = true;
	session->is_cut = session->shared->served == session;
	TAILQ_INSERT_TAIL(session->is_cut ? &owner->sessions_cut : &owner->sessions_new, session,
			  ready_link);
	// One whose session is being served is among the ready ones already.
	if (owner->ready++ == 0 && session->shared->served_owner != owner) {
		share_owner_in(session->shared, owner);
	}
}

static void share_take_out(struct session *session)
{
	struct session_owner *owner = session->owner;
	TAILQ_REMOVE(session->is_cut ? &owner->sessions_cut : &owner->sessions_new, session,
		     ready_link);
	session->is_ready = false;
	owner->ready--;
}

void session_share_remove(struct session *session)
{
	share_take_out(session);
	if (session->owner->ready == 0) {
		share_owner_rest(session->shared, session->owner,
				 loop_now_ns(session->shared->kvd->loop));
	}
}

/// The user that comes next, NULL if nobody is ready.
static struct session_owner *share_owner_first(struct session_shared *shared)
{
	struct session_owner *new = TAILQ_FIRST(&shared->owners_new);
	struct session_owner *old = TAILQ_FIRST(&shared->owners_old);
	return new && (!old || shared->owners_new_ns < SESSION_SLICE_NS) ? new : old;
}

/// The connection that comes next, NULL if all have been served in this turn.
static struct session *share_session_first(const struct session_shared *shared,
					   const struct session_owner *owner)
{
	struct session *new = TAILQ_FIRST(&owner->sessions_new);
	struct session *cut = TAILQ_FIRST(&owner->sessions_cut);
	new = new &&new->served_turn == shared->turn ? NULL : new;
	cut = cut && cut->served_turn == shared->turn ? NULL : cut;
	return new && (!cut || owner->sessions_new_ns < SESSION_SLICE_NS) ? new : cut;
}

/// A user that owes is passed over: a share less, once a turn, for those who are served meanwhile.
/// True if nobody is served, because all owe: then that goes on until somebody is out of it.
static bool share_pay(const struct session_shared *shared, struct session_owner *owner)
{
	if (!shared->turn_served || owner->paid_turn != shared->turn) {
		owner->left_ns += share_ns(shared);
		owner->paid_turn = shared->turn;
	}
	return !shared->turn_served;
}

struct session *session_share_next(struct session_shared *shared, uint64_t *slice_ns)
{
	size_t passed = 0; // users in a row who are not served (again) in this turn
	while (passed < shared->owners_ready) {
		struct session_owner *owner = share_owner_first(shared);
		struct session *session = share_session_first(shared, owner);
		bool owes = owner->left_ns <= 0 && shared->owners_ready > 1;
		if (!session || owes) {
			passed++;
			if (session && share_pay(shared, owner)) {
				passed = 0;
			}
			shared->owners_new_ns = 0;
			share_owner_back(shared, owner);
			continue;
		}
		*slice_ns = share_slice_ns(shared, owner);
		share_take_out(session);
		session->served_turn = shared->turn;
		shared->turn_served = true;
		shared->served = session;
		shared->served_was_cut = session->is_cut;
		shared->served_owner = owner;
		return session;
	}
	return NULL;
}

void session_share_used(struct session *session, uint64_t used_ns, uint64_t now_ns)
{
	struct session_shared *shared = session->shared;
	struct session_owner *owner = session->owner;
	int64_t left_ns = (owner->left_ns > 0 ? owner->left_ns : 0) - (int64_t)used_ns;
	owner->left_ns = left_ns > -(int64_t)SESSION_DEBT_NS ? left_ns : -(int64_t)SESSION_DEBT_NS;
	owner->new_ns += used_ns;
	shared->owners_new_ns = owner->is_new ? shared->owners_new_ns : 0;
	// Those who came and went, not those who now wait with the others who were cut.
	if (shared->served_was_cut) {
		owner->sessions_new_ns = 0;
	} else if (!session->is_ready) {
		owner->sessions_new_ns += used_ns;
	}
	shared->served = NULL;
	shared->served_owner = NULL;
	if (owner->ready == 0) {
		share_owner_rest(shared, owner, now_ns);
	} else if (owner->left_ns <= 0) {
		owner->left_ns += share_ns(shared);
		share_owner_back(shared, owner);
	}
}

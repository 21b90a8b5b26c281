// SPDX-License-Identifier: MIT
//
// Rights and write rates of connections; see session_guard.h.
#include "daemon/session_guard.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/command.h"
#include "daemon/keyspace.h"
#include "daemon/log.h"
#include "daemon/refuse.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

#define GUARD_GROUPS 64u		      // most users are in fewer
#define GUARD_REST_LEAST_NS UINT64_C(4000000) // wake-ups are no more than so often for a user
#define GUARD_SAY_NS UINT64_C(60000000000)    // between two lines about the same user
#define GUARD_ERROR_BYTES 512u

// ---- rights ----

/// Other rates: what was saved and owed by the old ones is forgotten.
static void guard_set_rates(struct session_shared *shared)
{
	const struct config *config = &shared->kvd->config;
	struct session_owner *owner;
	if (shared->quota_write_bytes == config->quota_write_bytes &&
	    shared->quota_writes == config->quota_writes &&
	    shared->quota_burst_ms == config->quota_burst_ms) {
		return;
	}
	shared->quota_write_bytes = config->quota_write_bytes;
	shared->quota_writes = config->quota_writes;
	shared->quota_burst_ms = config->quota_burst_ms;
	LIST_FOREACH (owner, &shared->owners, link) {
		owner->write_bytes = owner->writes = (struct quota_bucket){ 0 };
		owner->throttled_until_ns = 0;
	}
}

bool session_guard_set_limits(struct session_shared *shared)
{
	const struct config *config = &shared->kvd->config;
	const char *const lists[ACCESS_RIGHTS] = {
#define X(right, option, field) config->field,
#include "daemon/access.tbl.h"
#undef X
	};
	char error[GUARD_ERROR_BYTES];
	unsigned wrong;
	guard_set_rates(shared);
	struct access *access = access_create(lists, &wrong, error, sizeof(error));
	struct session *session;
	TAILQ_FOREACH (session, &shared->all, link) {
		session->guarded = SESSION_GUARDED_ANEW;
	}
	if (!access) {
		log_error("%s: %s; who may do what stays as it was",
			  session_guard_option((enum access_right)(1u << wrong)), error);
		return false;
	}
	access_destroy(shared->access);
	shared->access = access;
	return true;
}

const char *session_guard_option(enum access_right right)
{
	static const char *const options[ACCESS_RIGHTS] = {
#define X(right, option, field) option,
#include "daemon/access.tbl.h"
#undef X
	};
	return options[__builtin_ctz(right)];
}

/// The supplementary groups of who connected, as the kernel knew them then. Returns how many;
/// *groups is `some`, or from malloc.
static size_t guard_groups(const struct session *session, uint32_t some[GUARD_GROUPS],
			   uint32_t **groups)
{
	int fd = session->source.fd;
	socklen_t bytes = GUARD_GROUPS * sizeof(*some);
	*groups = some;
	int result = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, some, &bytes);
	if (result != 0 && errno == ERANGE) {
		*groups = malloc(bytes); // it says how many there are, and they do not change
		result = *groups ? getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, *groups, &bytes) : -1;
	}
	if (result == 0) {
		return bytes / sizeof(**groups);
	}
	log_warning("cannot learn the groups of client %llu (pid %d, uid %u): %m; rules for "
		    "groups do not apply to it",
		    (unsigned long long)session->id, (int)session->pid, (unsigned)session->uid);
	return 0;
}

static uint32_t guard_rights(const struct session *session)
{
	const struct access *access = session->shared->access;
	uint32_t some[GUARD_GROUPS];
	uint32_t *groups = some;
	struct access_peer peer = { .uid = session->uid, .gid = session->gid };
	if (!access) {
		return ACCESS_ALL;
	}
	if (access_wants_groups(access)) {
		peer.groups_count = guard_groups(session, some, &groups);
		peer.groups = groups;
	}
	uint32_t rights = access_rights(access, &peer, geteuid());
	if (groups != some) {
		free(groups);
	}
	return rights;
}

bool session_guard_may(struct session *session, enum access_right right)
{
	if (session->guarded == SESSION_GUARDED_ANEW) {
		session_guard_look(session);
	}
	return (session->rights & right) != 0;
}

static bool guard_has_rate(const struct session *session)
{
	const struct config *config = &session->kvd->config;
	return (config->quota_writes > 0 || config->quota_write_bytes > 0) &&
	       !(session->rights & ACCESS_EXEMPT);
}

void session_guard_look(struct session *session)
{
	uint32_t guarded = 0;
	session->rights = guard_rights(session);
	session->writer.quota_bytes =
		session->rights & ACCESS_EXEMPT ? 0 : session->kvd->config.quota_stored_bytes;
	if (!(session->rights & ACCESS_ATTACH)) {
		guarded |= COMMAND_NEEDS_ATTACH;
	}
	if (!(session->rights & ACCESS_WRITE)) {
		guarded |= COMMAND_NEEDS_WRITE;
	}
	if (!(session->rights & ACCESS_ADMIN)) {
		guarded |= COMMAND_NEEDS_ADMIN;
	}
	if (session->writer.index == 0 || guard_has_rate(session)) {
		guarded |= COMMAND_WRITE;
	}
	// EXEC has no flags of what it runs.
	session->guarded = guarded ? guarded | COMMAND_NO_QUEUE : 0;
}

void session_guard_writer(struct session *session)
{
	if (session->writer.index == 0) {
		session->writer.index = keyspace_writer_index(session->kvd->keyspace, session->uid);
		if (session->writer.index != 0) {
			session->guarded = SESSION_GUARDED_ANEW; // one look less from now on
		}
	}
}

// ---- how fast ----

static uint64_t guard_burst_ns(const struct session_shared *shared)
{
	return shared->kvd->config.quota_burst_ms * UINT64_C(1000000);
}

bool session_guard_is_rested(const struct session_shared *shared, const struct session_owner *owner)
{
	uint64_t now_ns = loop_now_ns(shared->kvd->loop);
	uint64_t burst_ns = guard_burst_ns(shared);
	return quota_is_full(&owner->write_bytes, burst_ns, now_ns) &&
	       quota_is_full(&owner->writes, burst_ns, now_ns);
}

void session_guard_meter(struct session *session)
{
	session->is_metered = true;
	session->shared->metered_from = keyspace_written(session->kvd->keyspace);
}

bool session_guard_must_wait(struct session *session)
{
	struct session_owner *owner = session->owner;
	uint64_t now_ns = loop_now_ns(session->kvd->loop);
	if (!guard_has_rate(session)) {
		return false;
	}
	if (!quota_has(&owner->write_bytes, now_ns) || !quota_has(&owner->writes, now_ns) ||
	    (owner->is_throttled && !session->may_pass)) {
		return true;
	}
	session_guard_meter(session);
	return false;
}

void session_guard_charge(struct session *session)
{
	const struct config *config = &session->kvd->config;
	struct session_owner *owner = session->owner;
	struct keyspace_written before = session->shared->metered_from;
	struct keyspace_written now = keyspace_written(session->kvd->keyspace);
	uint64_t now_ns = loop_now_ns(session->kvd->loop);
	uint64_t burst_ns = guard_burst_ns(session->shared);
	session->is_metered = false;
	if (config->quota_write_bytes > 0) {
		quota_take(&owner->write_bytes, now.bytes - before.bytes, config->quota_write_bytes,
			   burst_ns, now_ns);
	}
	if (config->quota_writes > 0) {
		quota_take(&owner->writes, now.keys - before.keys, config->quota_writes, burst_ns,
			   now_ns);
	}
}

// ---- waiting ----

/// A line now and then: whoever waits all day is no news.
static void throttle_say(const struct session *session, uint64_t now_ns)
{
	struct session_owner *owner = session->owner;
	const struct config *config = &session->kvd->config;
	bool by_bytes = owner->write_bytes.paid_ns > owner->writes.paid_ns;
	if (owner->throttle_said_ns != 0 && now_ns - owner->throttle_said_ns < GUARD_SAY_NS) {
		session_count_up(session->shared, KVS_COUNTER_writes_throttled, 1);
		return;
	}
	owner->throttle_said_ns = now_ns;
	refuse(session, REFUSAL_RATE,
	       "its user writes more than %llu %s a second (%s); it waits, nothing is lost: write "
	       "less, or raise that, or name the user in quota-exempt",
	       (unsigned long long)(by_bytes ? config->quota_write_bytes : config->quota_writes),
	       by_bytes ? "bytes" : "keys", by_bytes ? "quota-write-bytes" : "quota-writes");
}

void session_throttle(struct session *session)
{
	struct session_shared *shared = session->shared;
	struct session_owner *owner = session->owner;
	uint64_t now_ns = loop_now_ns(shared->kvd->loop);
	uint64_t paid_ns = owner->write_bytes.paid_ns > owner->writes.paid_ns
				   ? owner->write_bytes.paid_ns
				   : owner->writes.paid_ns;
	if (session->is_throttled || session->dead) {
		return;
	}
	throttle_say(session, now_ns);
	if (!owner->is_throttled) {
		owner->is_throttled = true;
		owner->throttled_until_ns = 0;
		TAILQ_INSERT_TAIL(&shared->owners_throttled, owner, throttle_link);
	}
	if (paid_ns > now_ns) {
		uint64_t least_ns = now_ns + GUARD_REST_LEAST_NS;
		owner->throttled_until_ns = paid_ns > least_ns ? paid_ns : least_ns;
	}
	TAILQ_INSERT_TAIL(&owner->throttled, session, throttle_link);
	session->is_throttled = true;
}

static void throttle_out(struct session *session)
{
	struct session_owner *owner = session->owner;
	TAILQ_REMOVE(&owner->throttled, session, throttle_link);
	session->is_throttled = false;
	if (TAILQ_EMPTY(&owner->throttled)) {
		TAILQ_REMOVE(&session->shared->owners_throttled, owner, throttle_link);
		owner->is_throttled = false;
	}
}

void session_throttle_forget(struct session *session)
{
	if (session->is_throttled) {
		throttle_out(session);
	}
}

void session_throttle_turn(struct session_shared *shared, uint64_t now_ns)
{
	struct session_owner *owner = TAILQ_FIRST(&shared->owners_throttled);
	while (owner) {
		struct session_owner *next = TAILQ_NEXT(owner, throttle_link);
		struct session *session = TAILQ_FIRST(&owner->throttled);
		if (now_ns >= owner->throttled_until_ns && !session->dead) {
			session->may_pass = true;
			throttle_out(session);
			session_set_ready(session);
		}
		owner = next;
	}
}

uint64_t session_throttle_next_ns(const struct session_shared *shared)
{
	uint64_t next_ns = UINT64_MAX;
	const struct session_owner *owner;
	TAILQ_FOREACH (owner, &shared->owners_throttled, throttle_link) {
		next_ns = owner->throttled_until_ns < next_ns ? owner->throttled_until_ns : next_ns;
	}
	return next_ns;
}

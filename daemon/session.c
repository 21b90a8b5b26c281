// SPDX-License-Identifier: MIT
//
// The life of sessions, and the turn that serves them all: whoever has something to do
// waits for a share of the time (session_share.h), so that a client with a million pipelined
// commands delays the others by one share and no more.

#include "daemon/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/keyspace.h"
#include "daemon/log.h"
#include "daemon/pubsub.h"
#include "daemon/readers.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/session_fetch.h"
#include "daemon/session_intake.h"
#include "daemon/session_parts.h"
#include "daemon/session_push.h"
#include "daemon/session_refs.h"
#include "daemon/tracking.h"
#include "shm/map.h"

#define SESSION_PARKED_TRIES 8 // parked commands that may fail in one pass before it ends
#define SESSION_CLOCK_EVERY 8  // closed sessions between two looks at the clock

struct session_shared *session_shared_create(struct kvd *kvd, struct listener *listener)
{
	struct session_shared *shared = calloc(1, sizeof(*shared));
	if (!shared) {
		return NULL;
	}
	shared->kvd = kvd;
	shared->listener = listener;
	kvd->sessions = shared;
	shared->region_base = keyspace_map(kvd->keyspace)->base;
	TAILQ_INIT(&shared->all);
	session_share_init(shared);
	TAILQ_INIT(&shared->parked);
	TAILQ_INIT(&shared->held);
	TAILQ_INIT(&shared->fetched);
	TAILQ_INIT(&shared->resting);
	TAILQ_INIT(&shared->awaiting);
	TAILQ_INIT(&shared->dead);
	TAILQ_INIT(&shared->halves);
	TAILQ_INIT(&shared->pushed);
	TAILQ_INIT(&shared->soft);
	TAILQ_INIT(&shared->leaving);
	TAILQ_INIT(&shared->owners_throttled);
	TAILQ_INIT(&shared->flights);
	TAILQ_INIT(&shared->pinning);
	TAILQ_INIT(&shared->intakes);
	session_flight_set_limit(shared);
	LIST_INIT(&shared->owners);
	if (!session_set_limits(shared)) {
		free(shared);
		return NULL;
	}
	shared->noticed_seq = keyspace_last_seq(kvd->keyspace);
	return shared;
}

void session_set_ready(struct session *session)
{
	session->may_read = true;
	session_set_sending(session);
}

void session_set_sending(struct session *session)
{
	if (!session->is_ready && !session->dead) {
		session_share_add(session);
	}
}

void session_set_held(struct session *session, bool held)
{
	if (held && !session->is_held) {
		TAILQ_INSERT_TAIL(&session->shared->held, session, held_link);
	} else if (!held && session->is_held) {
		TAILQ_REMOVE(&session->shared->held, session, held_link);
	}
	session->is_held = held;
}

void session_set_parked(struct session *session, bool parked)
{
	if (parked && !session->is_parked) {
		TAILQ_INSERT_TAIL(&session->shared->parked, session, parked_link);
	} else if (!parked && session->is_parked) {
		TAILQ_REMOVE(&session->shared->parked, session, parked_link);
	}
	session->is_parked = parked;
}

static struct session *session_of_source(struct loop_source *source)
{
	return (struct session *)(void *)((char *)source - offsetof(struct session, source));
}

/// Is a command that changes nothing on its way?
static bool session_only_reads(const struct session *session)
{
	return session->task && (session->task->call.command->flags & COMMAND_READONLY);
}

static void session_socket_ready(struct loop_source *source, uint32_t events)
{
	struct session *session = session_of_source(source);
	if (session->dead) {
		return;
	}
	if (events & (EPOLLHUP | EPOLLERR)) {
		session->hung_up = true;
		bool waits = !session_may_run(session) && !session->is_throttled;
		if (waits || session->input_ended || session_only_reads(session)) {
			session_kill(session, NULL); // nothing to read, nobody to answer
			return;
		}
	}
	session->shut = session->shut || (events & EPOLLRDHUP);
	if (events & EPOLLOUT) {
		session_set_sending(session);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		session_set_ready(session);
	}
}

struct session *session_open(struct session_shared *shared, int fd)
{
	struct session *session = calloc(1, sizeof(*session));
	if (!session) {
		return NULL;
	}
	struct kvd *kvd = shared->kvd;
	struct ucred peer = { 0 };
	socklen_t length = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
		log_warning("cannot learn who connects: %m");
		free(session);
		return NULL;
	}
	session->owner = session_owner_join(shared, peer.uid);
	if (!session->owner) {
		free(session);
		return NULL;
	}
	session->id = ++shared->last_id;
	session->slice = (struct keyspace_slice){ .owner = session->id,
						  .until_ns = &session->until_ns,
						  .memory = &session->input,
						  .memory_bytes = &session->input_bytes,
						  .intake = &session->intake,
						  .fetcher = session };
	session->kvd = kvd;
	session->shared = shared;
	session->listener = shared->listener;
	session->uid = peer.uid;
	session->gid = peer.gid;
	session->pid = peer.pid;
	session->writer.uid = peer.uid;
	session->guarded = SESSION_GUARDED_ANEW;
	session->connected_ns = session->active_ns = loop_now_ns(kvd->loop);
	session->resp_version = 2;
	session->output_position = 1; // 0 means "nowhere"
	session->policy = (enum persist_policy)kvd->config.persist_policy;
	session->source = (struct loop_source){ .fd = fd, .ready = session_socket_ready };
	int error = loop_add(kvd->loop, &session->source, SESSION_READS | SESSION_ONCE);
	if (error != 0) {
		errno = -error;
		log_warning("epoll refuses a connection: %m; %s",
			    errno == ENOSPC ? "raise sysctl fs.epoll.max_user_watches"
					    : remedy_of_errno(errno));
		session_owner_leave(shared, session->owner);
		free(session);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&shared->all, session, link);
	lookup_add(&shared->by_id, &session->id_link, session->id);
	shared->count++;
	session_count_up(shared, KVS_COUNTER_clients_connected, 1);
	return session;
}

void session_kill(struct session *session, const char *why)
{
	if (session->dead) {
		return;
	}
	if (why) {
		log_info("client %llu (pid %d) is closed: %s", (unsigned long long)session->id,
			 (int)session->pid, why);
	}
	if (session->is_half) {
		TAILQ_REMOVE(&session->shared->halves, session, half_link);
		session->is_half = false;
	}
	session_refs_free(session);
	// What it holds comes back at the end of the turn: others need not make room for it again.
	session_uncharge_dead(session);
	session->dead = true;
	TAILQ_INSERT_TAIL(&session->shared->dead, session, dead_link);
}

static void session_close(struct session *session)
{
	struct session_shared *shared = session->shared;
	TAILQ_REMOVE(&shared->dead, session, dead_link);
	lookup_remove(&shared->by_id, &session->id_link);
	session_push_forget(session);
	if (session->pubsub) {
		pubsub_leave(session);
	}
	if (session->tracking) {
		tracking_leave(session);
	}
	if (session->has_tracked) {
		tracking_session_over(session);
	}
	if (session->is_ready) {
		session_share_remove(session);
	}
	session_set_parked(session, false);
	session_fetch_over(session);
	session_rest_forget(session);
	session_throttle_forget(session);
	if (session->task) {
		session_task_end(session);
	}
	session_hold_free(session);
	session_multi_reset(session);
	session_intake_end(session);
	session_io_free(session);
	session_request_free(shared, &session->partial);
	session_parked_forget(session);
	if (session->reader_client) {
		readers_session_closed(shared->kvd->readers, session);
	}
	loop_remove(shared->kvd->loop, &session->source);
	session_flight_close(session);
	keyspace_set_slice(shared->kvd->keyspace, NULL);
	keyspace_set_writer(shared->kvd->keyspace, NULL);
	shared->count--;
	session_count_up(shared, KVS_COUNTER_clients_connected, UINT64_MAX); // minus one
	session_owner_leave(shared, session->owner);
	session_walk_release(session);
}

/// Closes those that are dead, for one share of the time; all of them if `until_ns` is UINT64_MAX.
static void session_close_dead(struct session_shared *shared, uint64_t until_ns)
{
	struct session *session;
	for (unsigned closed = 1; (session = TAILQ_FIRST(&shared->dead)) != NULL; closed++) {
		bool looks = session->reader_client || closed % SESSION_CLOCK_EVERY == 0;
		session_close(session); // up to 32 pages are unmapped, a third of a millisecond
		if (looks && shared->kvd->seam->monotonic_ns() >= until_ns) {
			return;
		}
	}
}

static void session_settle_all(struct session_shared *shared, uint64_t durable, uint64_t failed,
			       const char *why)
{
	struct session *session = TAILQ_FIRST(&shared->held);
	while (session) {
		struct session *next = TAILQ_NEXT(session, held_link);
		session_settle(session, durable, failed, why);
		if (session->input_start < session->input_end && session_may_run(session)) {
			session_set_ready(session);
		}
		session = next;
	}
}

/// Releases replies if the watermarks have moved since the last look. True if durable_seq did.
static bool session_settle_turns(struct session_shared *shared)
{
	struct kvd *kvd = shared->kvd;
	// failed before durable: a commit that succeeds after a failed one is then never missed.
	uint64_t failed = kvd->persist ? persist_failed_seq(kvd->persist) : 0;
	uint64_t durable = keyspace_durable_seq(kvd->keyspace);
	bool moved = durable != shared->settled_durable_seq;
	if (!moved && failed == shared->settled_failed_seq) {
		return false;
	}
	const char *why = "the store cannot be written";
	if (failed > durable) {
		(void)persist_degraded(kvd->persist, &why);
	}
	session_settle_all(shared, durable, failed, why ? why : "the store cannot be written");
	if (moved) {
		kvd->durable_wall_ms = kvd->seam->wall_ms();
	}
	shared->settled_durable_seq = durable;
	shared->settled_failed_seq = failed;
	return moved;
}

static void session_retry_parked(struct session_shared *shared, uint64_t now_ns, bool at_once)
{
	if (TAILQ_EMPTY(&shared->parked) ||
	    (!at_once && now_ns - shared->parked_tried_ns < SESSION_PARK_RETRY_NS)) {
		return;
	}
	shared->parked_tried_ns = now_ns;
	const struct seam *seam = shared->kvd->seam;
	uint64_t until_ns = seam->monotonic_ns() + SESSION_SLICE_NS;
	int refused = 0;
	struct session *session = TAILQ_FIRST(&shared->parked);
	while (session && refused < SESSION_PARKED_TRIES) {
		struct session *next = TAILQ_NEXT(session, parked_link);
		if (!session->dead && !session_unpark(session, now_ns)) {
			refused++;
		}
		session = next;
		if (session && seam->monotonic_ns() >= until_ns) {
			shared->parked_tried_ns = 0; // the others in the next turn
			return;
		}
	}
}

/// Serves those who are ready, as session_share.h says; who is left comes in the next turn.
static void session_work_ready(struct session_shared *shared)
{
	if (!session_share_waiting(shared)) {
		return;
	}
	const struct seam *seam = shared->kvd->seam;
	uint64_t now_ns = seam->monotonic_ns();
	uint64_t turn_until_ns = now_ns + SESSION_TURN_NS;
	uint64_t slice_ns;
	struct session *session;
	session_share_begin(shared);
	while (now_ns < turn_until_ns &&
	       (session = session_share_next(shared, &slice_ns)) != NULL) {
		uint64_t start_ns = now_ns;
		if (!session->dead) {
			session_work(session, start_ns + slice_ns);
			now_ns = seam->monotonic_ns();
		}
		session_share_used(session, now_ns - start_ns, now_ns);
	}
}

/// A share of the time for what is on its way to many, and for forgetting subscriptions.
static void session_tell(struct session_shared *shared)
{
	struct kvd *kvd = shared->kvd;
	if (__builtin_expect(!courier_idle(&kvd->courier) || pubsub_busy(kvd), 0)) {
		uint64_t now_ns = kvd->seam->monotonic_ns();
		(void)courier_turn(kvd, now_ns + SESSION_SLICE_NS);
		pubsub_turn(kvd, now_ns + SESSION_SLICE_NS);
	}
}

void session_shared_turn(struct session_shared *shared, uint64_t now_ns)
{
	struct kvd *kvd = shared->kvd;
	bool moved = session_settle_turns(shared);
	session_rest_turn(shared, now_ns);
	session_throttle_turn(shared, now_ns);
	session_fetch_turn(shared, now_ns);
	session_retry_parked(shared, now_ns, moved || keyspace_room_is_back(kvd->keyspace));
	session_work_ready(shared);
	session_close_halves(shared, now_ns);
	session_close_idle(shared, now_ns);
	session_flight_turn(shared, now_ns);
	session_intake_turn(shared, now_ns);
	session_pins_turn(shared, now_ns);
	tracking_turn(kvd);
	session_tell(shared);
	session_push_turn(shared, now_ns);
	uint64_t last_seq = keyspace_last_seq(kvd->keyspace);
	if (kvd->persist && last_seq != shared->noticed_seq) {
		persist_notice(kvd->persist);
	}
	shared->noticed_seq = last_seq;
	if (kvd->persist && shared->request_seq > 0) {
		persist_request(kvd->persist, shared->request_seq);
	}
	shared->request_seq = 0;
	// A watermark that moved while replies were being held back was signalled before: look
	// again.
	if (!TAILQ_EMPTY(&shared->held)) {
		(void)session_settle_turns(shared);
	}
	if (!TAILQ_EMPTY(&shared->dead)) {
		session_close_dead(shared, kvd->seam->monotonic_ns() + SESSION_SLICE_NS);
	}
	(void)reclaim_turn(&shared->reclaim);
}

uint64_t session_shared_next_ns(const struct session_shared *shared)
{
	if (session_share_waiting(shared) || !TAILQ_EMPTY(&shared->dead) ||
	    tracking_busy(shared->kvd) || !courier_idle(&shared->kvd->courier) ||
	    !TAILQ_EMPTY(&shared->awaiting) || pubsub_busy(shared->kvd) || shared->reclaim.first) {
		return 0; // what is awaited may be over since it was looked for
	}
	uint64_t next_ns = session_halves_next_ns(shared);
	uint64_t fetch_ns = session_fetch_next_ns(shared);
	next_ns = fetch_ns < next_ns ? fetch_ns : next_ns;
	uint64_t push_ns = session_push_next_ns(shared);
	next_ns = push_ns < next_ns ? push_ns : next_ns;
	uint64_t rest_ns = session_rest_next_ns(shared);
	next_ns = rest_ns < next_ns ? rest_ns : next_ns;
	uint64_t throttle_ns = session_throttle_next_ns(shared);
	next_ns = throttle_ns < next_ns ? throttle_ns : next_ns;
	uint64_t flight_ns = session_flight_next_ns(shared);
	next_ns = flight_ns < next_ns ? flight_ns : next_ns;
	uint64_t idle_ns = session_idle_next_ns(shared);
	next_ns = idle_ns < next_ns ? idle_ns : next_ns;
	if (!TAILQ_EMPTY(&shared->parked)) {
		uint64_t retry_ns = shared->parked_tried_ns + SESSION_PARK_RETRY_NS;
		next_ns = retry_ns < next_ns ? retry_ns : next_ns;
	}
	return next_ns;
}

void session_shared_finish(struct session_shared *shared)
{
	uint64_t durable = keyspace_durable_seq(shared->kvd->keyspace);
	session_settle_all(shared, durable, UINT64_MAX, "kvd stopped before it was written");
	struct session *session;
	(void)courier_turn(shared->kvd, 0);
	session_rest_turn(shared, 0);
	TAILQ_FOREACH (session, &shared->all, link) {
		session->close_after_reply = true;
		if (session->is_ready) {
			session_share_remove(session); // it is not served any more
		}
		if (!session->dead) {
			session_send(session);
		}
	}
	session_close_dead(shared, UINT64_MAX);
}

void session_shared_destroy(struct session_shared *shared)
{
	if (!shared) {
		return;
	}
	struct session *session;
	shared->ending = true;
	TAILQ_FOREACH (session, &shared->all, link) {
		session_kill(session, NULL);
	}
	session_close_dead(shared, UINT64_MAX);
	session_flight_free(shared);
	session_owners_free(shared);
	courier_drop(shared->kvd);
	pubsub_turn(shared->kvd, 0);
	lookup_free(&shared->kvd->watched_absent);
	for (size_t i = 0; i < shared->spares_count; i++) {
		free(shared->spares[i]);
	}
	for (size_t i = 0; i < SESSION_WINDOW; i++) {
		resp_request_free(&shared->window[i]);
	}
	lookup_free(&shared->by_id);
	reclaim_finish(&shared->reclaim);
	access_destroy(shared->access);
	free(shared);
}

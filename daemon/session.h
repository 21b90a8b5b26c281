// SPDX-License-Identifier: MIT
//
// One connection: its input and output buffers, its place in the protocol, its transaction, and the
// replies it must not send yet. Commands see who is asking and leave replies through
// daemon/reply.h; the rules of reading, fairness and holding are in session.c, session_io.c and
// session_hold.c. Everything here belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "daemon/keyspace.h"
#include "daemon/keyspace_intake.h"
#include "daemon/lookup.h"
#include "daemon/loop.h"
#include "daemon/persist.h"
#include "daemon/session_watch.h"
#include "shm/limits.h"
#include "shm/resp.h"

struct cold_wait;
struct command;
struct kvd;
struct listener;
struct pubsub_client;
struct reader_client;
struct session_owner;
struct session_flight;
struct session_ref;
struct session_shared;
struct session_task;
struct tracking_client;

#define SESSION_FDS_MAX 3
#define SESSION_MULTI_REQUESTS_MAX (1u << 20) // queued by one MULTI
#define SESSION_HOLD_SPANS_MAX \
	65536u // held write replies of one session; then it is read no further

/// A command queued by MULTI: a copy, in one allocation with its argument array.
struct session_queued {
	const struct command *command;
	struct resp_arg *argv;
	uint32_t argc;
};

struct session_multi {
	struct session_queued *queued;
	uint32_t count;
	uint32_t capacity;
	size_t bytes;  // of all queued arguments; bounded as one request is
	uint64_t keys; // of all of them, a command without any counts as one
	bool active;   // between MULTI and EXEC or DISCARD
	bool dirty;    // a command was refused while queueing: EXEC answers EXECABORT
	bool full;     // as large as one request may be
};

/// The reply of one write, still in the output buffer: what a failed commit replaces.
struct session_span {
	uint64_t start; // stream position in the output
	uint64_t end;
	uint64_t seq; // version that must be durable before it is sent
};

/// Everything queued from `start` on waits until `seq` is durable. One a turn that wrote.
struct session_hold {
	uint64_t start;
	uint64_t seq;
};

/// Parts of the output that are sent from where they stand, see session_refs.h.
struct session_ref_queue {
	struct session_ref *items; // [first, end)
	size_t first, end, capacity;
};

struct session {
	// Who it is; commands read these.
	uint64_t id; // from 1, never reused by this process
	struct kvd *kvd;
	struct listener *listener;
	uint32_t uid; // of the process that connected, from the kernel
	uint32_t gid;
	int32_t pid;		       // 0 if it lives in a namespace that kvd cannot see
	struct keyspace_writer writer; // the same for the keyspace
	uint32_t rights;	       // enum access_right, as of the last look
	uint32_t guarded;	       // flags of commands that need a look, see session_guard.h
	uint64_t connected_ns;	       // monotonic: age = loop_now_ns() - connected_ns
	uint64_t active_ns;	       // last input: idle = loop_now_ns() - active_ns

	// What commands set.
	uint8_t resp_version;			      // 2 or 3 (HELLO)
	char name[KVS_CLIENT_NAME_BYTES_MAX + 1];     // CLIENT SETNAME; empty = none
	char lib_name[KVS_CLIENT_NAME_BYTES_MAX + 1]; // CLIENT SETINFO
	char lib_version[KVS_CLIENT_NAME_BYTES_MAX + 1];
	const struct command *last_command; // dispatch sets it
	uint64_t buffer_bytes;	 // input, output, queued commands and holds of this session
	uint64_t commands_count; // dispatch counts
	uint64_t errors_count;	 // error replies; reply_error() counts
	struct session_multi multi;
	struct session_watch watch;
	bool no_evict;		// CLIENT NO-EVICT, only shown
	bool close_after_reply; // QUIT, protocol errors: nothing more is read or run
	// set by the session for a command that was parked too long: answer -OOM, never PARK
	bool no_wait;
	enum persist_policy policy; // when writes are acknowledged; see session_set_policy()
	uint64_t last_write_seq;    // newest version this connection wrote, 0 = none yet (KVD.SYNC)
	struct reader_client
		*reader_client;	      // KVD.ATTACH: owned by daemon/readers.c, NULL = not attached
	struct pubsub_client *pubsub; // owned by daemon/pubsub.c, NULL = subscribed to nothing
	struct tracking_client *tracking; // owned by daemon/tracking.c, NULL = CLIENT TRACKING off
	bool has_tracked;		  // something may be remembered for it

	// Everything below is the session's own.
	struct loop_source source; // the socket
	struct session_shared *shared;
	TAILQ_ENTRY(session) link;	  // all sessions
	TAILQ_ENTRY(session) ready_link;  // of its owner, those with something to do
	TAILQ_ENTRY(session) parked_link; // those whose next command waits for memory
	TAILQ_ENTRY(session) held_link;	  // those with replies that wait for a commit
	TAILQ_ENTRY(session) fetch_link;  // those whose values have come, see session_fetch.h
	TAILQ_ENTRY(session) dead_link;
	TAILQ_ENTRY(session) half_link;	    // those in the middle of a request
	TAILQ_ENTRY(session) pushed_link;   // those to whom something was pushed in this turn
	TAILQ_ENTRY(session) rest_link;	    // those that rest for a while, see session_rest.h
	TAILQ_ENTRY(session) await_link;    // those that wait for the courier
	TAILQ_ENTRY(session) soft_link;	    // subscribers with much unread, by since when
	TAILQ_ENTRY(session) throttle_link; // of its owner, those that write too fast
	struct lookup_link id_link;
	TAILQ_ENTRY(session) pins_link; // those whose replies pin values, see session_pins.h
	struct session_owner *owner;	// all sessions of its uid
	bool is_ready, is_cut, is_parked, is_held, is_half, is_pushed, is_soft, is_leaving;
	bool is_pinning;
	bool is_fetching;  // nor before values have come from the store
	bool is_fetched;   // they have
	bool is_resting;   // nothing is read or run
	bool may_read;	   // there may be something to read
	bool shut;	   // the other side says nothing more: the end stands behind the input
	bool is_throttled; // nor before its user may write again
	bool may_pass;	   // it has waited for that and goes first
	bool is_metered;   // what the running command writes counts against a quota
	bool is_awaiting;  // nor before what its last command tells was told to all
	bool is_early;	   // what it is to be sent is sent all the same
	bool reply_off, reply_skip, reply_skip_next; // CLIENT REPLY
	bool reply_settles; // one of them is set: session_reply_settle() after the command
	bool input_ended;   // EOF was read: answer what came before, then close
	bool dead;	    // broken or over a limit: closed at the end of the turn
	bool output_full;   // the socket took no more: EPOLLOUT is armed
	bool hung_up;	    // the other side is gone altogether: nobody can read replies
	bool output_broken; // replies cannot be sent: dropped, but what came is still done
	bool closed;	    // nothing is left but its place in the list of all, for walks
	uint32_t walks;	    // that stand here
	uint64_t parked_since_ns;
	uint64_t rest_until_ns;	     // nor sent until then; 0 = it waits for the end of a pause
	struct keyspace_slice slice; // how the keyspace knows this session, and its share
	struct cold_wait *fetch;     // what its command needs from the store, NULL = nothing
	size_t fetch_bytes;	     // charged for it
	struct session_task *task;   // a command that goes on in the next turn, NULL = none
	uint64_t until_ns;	     // when this session's share of the turn is used up
	uint64_t served_turn;	     // the turn in which it was served last
	uint64_t half_ns;	     // when bytes of the half frame last came
	uint64_t soft_since_ns;	     // when a subscriber's unread output came over the soft bound
	uint64_t frame_start;	     // stream position at which a frame begins that was pushed
	uint64_t push_start;	     // where the frame begins that is being pushed
	uint64_t pushed_bytes;	     // pushed since nothing was left to send
	uint64_t await_number;	     // of the errand that it waits for
	uint64_t pins_since_ns; // when the first part of its replies that pins something came first

	char *input; // [input_start, input_end) is not consumed yet
	size_t input_start, input_end, input_bytes;
	size_t input_reserved; // it can grow so far where it is
	size_t input_wanted;   // a parser's hint: bytes the half frame needs in all
	struct resp_request_state parse;
	struct resp_request partial; // arguments of the half frame at input_start
	size_t partial_bytes;	     // charged for them
	uint32_t args_short;	     // of the request that runs: so many have the length of a key
	struct keyspace_intake intake; // of a value that is received where it will stand
	TAILQ_ENTRY(session) intake_link;
	size_t intake_charged;
	uint64_t intake_due_ns; // when it will have come too slowly
	bool intake_waits;	// the session is parked until there is room for it
	bool intake_declined;	// this request's is buffered
	struct resp_request parked; // one that waits and is not parsed again; else empty
	size_t parked_bytes;	     // charged for it

	char *output; // [output_sent, output_end) is to be sent
	size_t output_sent, output_end, output_bytes;
	uint64_t output_position; // stream position of output[0]

	struct session_ref_queue refs;
	uint64_t refs_bytes;   // of all that are not sent
	uint64_t shared_bytes; // of them, in parcels
	size_t pins_count;     // parts that pin a value

	struct session_span *spans; // queue [spans_first, spans_end)
	size_t spans_first, spans_end, spans_capacity;
	struct session_hold *holds;
	size_t holds_first, holds_end, holds_capacity;
	bool hold_open;		   // the last hold is this turn's: further writes join it
	uint64_t command_start;	   // stream position where the running command's reply begins
	uint64_t command_hold_seq; // asked by session_hold_until()
	uint64_t reply_end; // where it ends, if something was pushed behind it; 0 = at the end

	int fds[SESSION_FDS_MAX]; // to ride on the byte at fds_position
	unsigned fds_count;
	uint64_t fds_position;
	uint64_t fds_end;	       // end of the reply that carries them
	struct session_flight *flight; // descriptors on their way, see session_flight.h
};

/// The reply of the running command is not sent before `seq` is durable (KVD.SYNC, writes that ask
/// for a later acknowledgement); if the commit fails it becomes "-IOERR not durable: …". Everything
/// queued behind it waits too: replies stay in order. No effect if `seq` is durable already or 0.
void session_hold_until(struct session *session, uint64_t seq);

/// Sets when this connection's writes are acknowledged. Only a later acknowledgement than the
/// server's policy is possible: false, and nothing changed, for an earlier one and when kvd has no
/// store.
bool session_set_policy(struct session *session, enum persist_policy policy);

/// Queues a copy of a command for EXEC. False if it does not fit (memory, or the bound on a
/// request, which `full` tells): the transaction is then dirty.
bool session_multi_queue(struct session *session, const struct command *command,
			 const struct resp_arg *argv, uint32_t argc);
/// Leaves MULTI state and frees what was queued; no key is watched any more.
void session_multi_reset(struct session *session);

/// Gives up to SESSION_FDS_MAX descriptors (owned by the session from here) to be sent with the
/// first byte of the running command's reply, after all earlier output. Call it before the reply is
/// appended. False, and the descriptors stay the caller's, if others are still on their way.
bool session_send_fds(struct session *session, const int *fds, unsigned count);

/// A walk over all sessions that were there when it began, oldest first, that may rest between two
/// slices: a session that is closed meanwhile stays in the list, dead, until no walk stands on it.
/// All zero before it begins.
struct session_walk {
	struct session *at; // NULL before and behind all
	uint64_t last_id;   // where it ends, 0 = it has not begun
};
/// The next session that is alive; the walk stands there until the next call. NULL: it is over.
struct session *session_walk_next(const struct session_shared *shared, struct session_walk *walk);
/// Ends it wherever it is; nothing if it is over.
void session_walk_end(struct session_walk *walk);
/// A dead session is let go of by everybody else: frees it now, or when the last walk leaves it.
void session_walk_release(struct session *session);
/// By id, NULL if there is none.
struct session *session_find(const struct kvd *kvd, uint64_t id);

/// Bytes for CLIENT LIST: unparsed input, room left for input, unsent output.
size_t session_input_used(const struct session *session);
size_t session_input_free(const struct session *session);
size_t session_output_used(const struct session *session);

/// Marks for closing at the end of the turn, at once and without sending more. `why` is logged at
/// `info`, NULL = quietly.
void session_kill(struct session *session, const char *why);

// ---- output, for daemon/reply.c ----

/// Makes room for `bytes` more; false if the session is dead or would exceed its output limit (it
/// is then marked for closing).
bool session_output_grow(struct session *session, size_t bytes);

/// Would `bytes` more be within its output limit? If not the session is marked for closing.
bool session_output_fits(struct session *session, size_t bytes);

/// Where up to `bytes` can be written, NULL if they cannot; session_output_add() tells how many
/// were.
static inline char *session_output_room(struct session *session, size_t bytes)
{
	if (__builtin_expect(session->output_bytes - session->output_end < bytes, 0) &&
	    !session_output_grow(session, bytes)) {
		return NULL;
	}
	return session->output + session->output_end;
}

static inline void session_output_add(struct session *session, size_t bytes)
{
	session->output_end += bytes;
}

// ---- life, for daemon/listener.c and tests ----

/// What all sessions of a listener share: parse window, spare buffers, lists. NULL if memory is
/// short. kvd's config, loop and keyspace must exist.
struct session_shared *session_shared_create(struct kvd *kvd, struct listener *listener);
/// Closes every session and frees. NULL is fine.
void session_shared_destroy(struct session_shared *shared);

/// Takes over a connected socket. NULL if memory or epoll refuse; the socket then stays the
/// caller's.
struct session *session_open(struct session_shared *shared, int fd);
size_t session_count(const struct session_shared *shared);
/// Those of one user.
size_t session_uid_count(const struct session_shared *shared, uint32_t uid);
/// Are some of them only waiting to be closed?
bool session_closing(const struct session_shared *shared);
/// What all of them hold: input, output, queued commands.
uint64_t session_buffer_bytes(const struct session_shared *shared);
/// Derives the limits of requests and buffers, rights and quotas from kvd's configuration, at start
/// and anew. False: see session_guard_set_limits().
bool session_set_limits(struct session_shared *shared);

/// The work of a turn, for all sessions: releases held replies, retries parked commands, reads,
/// runs and answers those that are ready, each for its share of the time, tells the persister,
/// closes what is dead.
void session_shared_turn(struct session_shared *shared, uint64_t now_ns);
/// When session_shared_turn() must be called next without an event: 0 = at once, UINT64_MAX =
/// never.
uint64_t session_shared_next_ns(const struct session_shared *shared);

/// At stop, after the last commit: settles every held reply by what is durable now (the rest
/// becomes -IOERR), sends what the sockets take, reads nothing more.
void session_shared_finish(struct session_shared *shared);

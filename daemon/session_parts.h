// SPDX-License-Identifier: MIT
//
// What the files of a session share among themselves: session.c (life and turns), session_run.c
// (parsing and running), session_io.c (buffers and the socket), session_hold.c (replies that wait),
// session_limits.c (what clients may hold, and for how long).
#pragma once

#include <sys/epoll.h>

#include "daemon/kvd.h"
#include "daemon/quota.h"
#include "daemon/reclaim.h"
#include "daemon/session.h"
#include "daemon/session_flight.h"
#include "daemon/session_guard.h"
#include "daemon/session_pins.h"
#include "daemon/session_rest.h"
#include "daemon/session_share.h"
#include "daemon/session_task.h"
#include "shm/counters.h"

#define SESSION_BUFFER_BYTES \
	(32u << 10)	       // standard buffer; held only while there is something in it
#define SESSION_SPARES_MAX 64u // standard buffers kept when nobody uses them
#define SESSION_WINDOW \
	16u // requests parsed ahead of the one that runs, so that buckets are prefetched
// Of a long request so many arguments are parsed before others are looked after, and of many
// requests so many bytes before they are run: either takes a tenth of a millisecond.
#define SESSION_PARSE_ARGS 4096u
#define SESSION_PARSE_BYTES (32u << 10)
#define SESSION_ARGS_KEPT_MAX 1024u // arguments of a request whose array is kept
#define SESSION_PARK_RETRY_NS UINT64_C(1000000)
// What epoll is asked for: told once, as it comes, or as long as it is so.
#define SESSION_READS ((uint32_t)EPOLLIN | (uint32_t)EPOLLRDHUP)
#define SESSION_SENDS ((uint32_t)EPOLLOUT)
#define SESSION_ONCE ((uint32_t)EPOLLET)

TAILQ_HEAD(session_list, session);

/// All sessions of one uid, and what they hold together.
struct session_owner {
	LIST_ENTRY(session_owner) link;
	uint32_t uid;
	uint32_t sessions_count;
	uint64_t buffer_bytes;
	// Its share of the time, see session_share.h.
	TAILQ_ENTRY(session_owner) ready_link;
	struct session_list sessions_new; // that came with something to do
	struct session_list sessions_cut; // that were served and have more
	size_t ready;			  // of both
	bool is_new;			  // it waits in owners_new
	int64_t left_ns;		  // of its share; below 0 it owes so much
	uint64_t new_ns;		  // taken since it is new
	uint64_t sessions_new_ns; // taken by those who came and went since a cut one went on
	uint64_t paid_turn;	  // the turn in which it was passed over last
	uint64_t rests_since_ns;
	uint64_t kept_bytes;		    // of them, what no session is charged: it outlives them
	struct session_flight_list flights; // see session_flight.h
	uint64_t flight_fds;
	// What its replies keep, as of a look, see session_pins.h.
	uint64_t pins_bytes;
	struct session *pins_longest;
	uint64_t pins_longest_bytes;
	// How fast it writes, see session_guard.h.
	TAILQ_ENTRY(session_owner) throttle_link;
	struct session_list throttled; // in the order in which they go on
	struct quota_bucket write_bytes;
	struct quota_bucket writes;
	bool is_throttled; // some are
	uint64_t throttled_until_ns;
	uint64_t throttle_said_ns;
};
TAILQ_HEAD(session_owner_list, session_owner);

struct seam;

struct session_shared {
	struct kvd *kvd;
	struct listener *listener;
	void *region_base; // of the counters
	struct session_list all;
	struct session_list parked;
	struct session_list held;
	struct session_list fetched; // to be run again, see session_fetch.h
	struct session_list resting;
	struct session_list awaiting; // by the number of the errand
	struct session_list dead;
	struct session_list halves; // by the time of their last byte
	struct session_list pushed;
	struct session_list soft;
	struct session_list pinning; // replies to them pin values, see session_pins.h
	struct session_list intakes; // large values come to them, see session_intake.h
	uint64_t intake_bytes;	     // of all of those
	size_t intake_least;	     // shorter than that is no large value
	struct session_list leaving; // cut off, with a last word on its way
	struct lookup by_id;
	struct reclaim reclaim; // large buffers on their way back
	LIST_HEAD(, session_owner) owners;
	struct session_owner_list owners_new; // with something to do: their share is not used up
	struct session_owner_list owners_old; // they wait for the next
	struct session_owner_list owners_throttled;
	size_t owners_ready;	// of both
	uint64_t owners_new_ns; // taken by those who came and went since an old one was served
	uint64_t turn;
	bool turn_served;	// somebody in it
	struct session *served; // between session_share_next() and session_share_used()
	struct session_owner *served_owner;
	bool served_was_cut;
	size_t count;
	uint64_t last_id;
	struct resp_limits limits;
	struct resp_request window[SESSION_WINDOW];
	size_t window_ends[SESSION_WINDOW]; // where in the input each request ends
	char *spares[SESSION_SPARES_MAX];
	size_t spares_count;
	uint64_t buffer_bytes; // of all sessions but the dead: input, output, queued commands
	uint64_t buffer_bytes_max;
	uint64_t owner_bytes_max;	    // of the sessions of one uid
	struct session_flight_list flights; // descriptors on their way, see session_flight.h
	uint64_t flight_fds;
	uint64_t flight_max;
	uint64_t flight_kept; // of it, for root and kvd's own user
	uint64_t flight_due_ns;
	bool pins_wanted;	      // somebody was refused memory
	uint64_t pins_due_ns;	      // not before, another is closed to make room
	uint64_t noticed_seq;	      // what the persister was told of
	uint64_t request_seq;	      // what somebody began to wait for in this turn
	uint64_t settled_durable_seq; // watermarks for which held replies were last looked at
	uint64_t settled_failed_seq;
	uint64_t parked_tried_ns;
	uint64_t idle_due_ns;		      // when idle clients are looked for next
	bool ending;			      // all are being closed for good
	struct access *access;		      // who has which rights, NULL = everybody all of them
	struct keyspace_written metered_from; // before the command that is metered
	uint64_t quota_write_bytes, quota_writes, quota_burst_ms; // by which buckets were filled
};

static inline void session_count_up(struct session_shared *shared, enum kvs_counter counter,
				    uint64_t by)
{
	kvs_count(kvs_counter_word(shared->region_base, counter), by); // partner: none, statistics
}

// ---- session_io.c ----

enum session_read_result {
	SESSION_READ_MORE,    // the buffer was filled: there may be more
	SESSION_READ_SHORT,   // all there was
	SESSION_READ_NOTHING, // nothing there, or the end; see input_ended and dead
};

/// One read from the socket behind what is buffered, into a buffer that is large enough for
/// input_wanted.
enum session_read_result session_read(struct session *session);
/// One read of up to `bytes` to `at`; *came tells how many came.
enum session_read_result session_receive(struct session *session, void *at, size_t bytes,
					 size_t *came);
/// Gives back the input buffer, or the part of it that the rest does not need.
void session_input_trim(struct session *session);
/// Gives a buffer of `bytes` back that was taken for the session, NULL is fine.
void session_buffer_give(struct session *session, char *buffer, size_t bytes);
/// Sends what may be sent; arms EPOLLOUT if the socket is full.
void session_send(struct session *session);
/// Sets the epoll interest that fits the session's state.
void session_update_interest(struct session *session);
/// Frees both buffers and closes descriptors that were not sent.
void session_io_free(struct session *session);
/// Closes descriptors that are not to be sent.
void session_fds_close(struct session *session);
/// Puts another buffer under the unsent output (session_hold.c, replacing replies). Takes ownership
/// of `output`, which was charged.
void session_output_replace(struct session *session, char *output, size_t bytes, size_t end);

// ---- session_limits.c ----

/// The owner of a new session of `uid`, NULL if memory is short; it ends with its last session, or
/// when what it wrote is paid for.
struct session_owner *session_owner_join(struct session_shared *shared, uint32_t uid);
void session_owner_leave(struct session_shared *shared, struct session_owner *owner);
/// Something of it that outlived its sessions has ended: so does it, if that was the last.
void session_owner_rest(struct session_shared *shared, struct session_owner *owner);
/// At the end, when no session is left: those that had written too fast.
void session_owners_free(struct session_shared *shared);
/// Charges a uid for what does not end with one of its sessions; it lasts until it is given back.
void session_owner_charge(struct session_shared *shared, struct session_owner *owner, size_t bytes);
void session_owner_uncharge(struct session_shared *shared, struct session_owner *owner,
			    size_t bytes);
/// Sees to it that `bytes` can be charged to the session or its uid, as session_charge() does.
bool session_make_way(struct session *session, size_t bytes);
/// Charges `bytes` to the session, its uid and all sessions. Over a bound the largest holder there
/// is closed to make room; false if that is this session itself, which is then dead.
bool session_charge(struct session *session, size_t bytes);
void session_uncharge(struct session *session, size_t bytes);
/// Would session_charge() find room without closing anybody?
bool session_has_room(const struct session *session, size_t bytes);
/// A session is about to be marked dead: its uid and all sessions are no longer charged for it.
void session_uncharge_dead(struct session *session);
/// Frees a request's arguments, a large array bit by bit; it is empty afterwards.
void session_request_free(struct session_shared *shared, struct resp_request *request);
/// Argument arrays are kept for reuse, but not those of giant requests.
void session_trim_requests(struct session *session);
/// Charges what the half frame's argument array takes by now.
void session_charge_partial(struct session *session);
/// Notes whether a half frame waits for its next byte, from now on.
void session_watch_half(struct session *session);
/// Closes a session at once, with an error line if no other reply is on its way.
void session_turn_out(struct session *session, const char *text);
/// Sends a line to a client whose connection is about to be closed, if its socket takes it.
void session_say(const struct seam *seam, int fd, const char *text);
/// Closes those whose half frame has waited too long; the next time to look, UINT64_MAX = none.
void session_close_halves(struct session_shared *shared, uint64_t now_ns);
uint64_t session_halves_next_ns(const struct session_shared *shared);

// ---- session_idle.c ----

/// Closes those who say nothing for too long; the next time to look, UINT64_MAX = none.
void session_close_idle(struct session_shared *shared, uint64_t now_ns);
uint64_t session_idle_next_ns(const struct session_shared *shared);

// ---- session_run.c ----

/// Reads, parses and runs until nothing is left or it is `until_ns`; then sends.
void session_work(struct session *session, uint64_t until_ns);
/// Tries a command again that waited for memory or for values from the store. True if it was
/// answered, waits for something else, or the session is dead.
bool session_unpark(struct session *session, uint64_t now_ns);
/// Gives up what a parked session keeps of its command.
void session_parked_forget(struct session *session);
/// May this session read and run more now?
bool session_may_run(const struct session *session);

// ---- session_hold.c ----

/// The reply at stream positions [start, end) waits for `seq`.
void session_hold_add(struct session *session, uint64_t start, uint64_t end, uint64_t seq);
/// Releases what `durable` covers and what `failed` does, the latter as -IOERR with `why`.
void session_settle(struct session *session, uint64_t durable, uint64_t failed, const char *why);
/// Stream position up to which output may be sent.
uint64_t session_sendable(const struct session *session);
void session_hold_free(struct session *session);

// ---- session.c ----

/// There may be something to read or to run.
void session_set_ready(struct session *session);
/// There is something to send; nothing need be read for that.
void session_set_sending(struct session *session);
void session_set_held(struct session *session, bool held);
void session_set_parked(struct session *session, bool parked);

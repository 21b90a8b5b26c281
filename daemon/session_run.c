// SPDX-License-Identifier: MIT
//
// From bytes to commands: reads, parses a window of requests ahead so that the memory they will
// touch is on its way, runs them in order, and stops when the session's share of the turn is used
// up.

#include "daemon/command.h"
#include "daemon/keyspace.h"
#include "daemon/refuse.h"
#include "daemon/reply.h"
#include "daemon/seam.h"
#include "daemon/session_fetch.h"
#include "daemon/session_intake.h"
#include "daemon/session_parts.h"

#define SESSION_BIG_BYTES 16384u // a request or reply as large as that took time: look at the clock

bool session_may_run(const struct session *session)
{
	return !session->dead && !session->is_parked && !session->is_resting &&
	       !session->is_fetching && !session->is_awaiting && !session->is_throttled &&
	       !session->close_after_reply &&
	       session->spans_end - session->spans_first < SESSION_HOLD_SPANS_MAX;
}

static bool session_only_read(const struct session *session)
{
	return session->last_command && (session->last_command->flags & COMMAND_READONLY);
}

/// A command, or a slice of it, has run; `seq_before` was the newest version before. If it is over:
/// notes what its reply has to wait for.
static inline __attribute__((always_inline)) void
session_settle_command(struct session *session, enum command_outcome outcome, uint64_t seq_before)
{
	uint64_t seq = keyspace_last_seq(session->kvd->keyspace);
	uint64_t wrote_seq = seq != seq_before ? seq : 0;
	if (__builtin_expect(session->task != NULL, 0)) {
		struct session_task *task = session->task;
		task->seq = wrote_seq > 0 ? wrote_seq : task->seq;
		wrote_seq = task->seq;
		if (outcome != COMMAND_AGAIN) {
			session_task_end(session);
		}
	}
	if (__builtin_expect(session->is_metered, 0) && outcome != COMMAND_AGAIN) {
		session_guard_charge(session);
	}
	if (outcome != COMMAND_DONE) {
		return;
	}
	if (__builtin_expect(session->fetch != NULL, 0)) {
		session_fetch_over(session); // answered, if only by a refusal
	}
	if (__builtin_expect(session->reply_settles, 0)) {
		session_reply_settle(session);
	}
	uint64_t wait_seq = session->command_hold_seq;
	if (wrote_seq > 0) {
		session->last_write_seq = wrote_seq;
		// A read that found its key expired logged that, but promises nothing.
		if (session->policy >= PERSIST_GROUP && !session_only_read(session)) {
			wait_seq = wrote_seq;
		}
	}
	uint64_t end = session->output_position + session->output_end;
	if (__builtin_expect(session->reply_end > 0, 0)) {
		end = session->reply_end;
		session->reply_end = 0;
	}
	if (session->fds_count > 0 && session->fds_end == 0) {
		session->fds_end = end;
	}
	if (wait_seq > 0 && end > session->command_start) {
		session_hold_add(session, session->command_start, end, wait_seq);
	}
}

/// Runs one request whose bytes stay where they are.
static enum command_outcome session_dispatch(struct session *session,
					     const struct resp_request *request)
{
	uint64_t seq_before = keyspace_last_seq(session->kvd->keyspace);
	session->command_start = session->output_position + session->output_end;
	session->command_hold_seq = 0;
	session->reply_end = 0;
	session->args_short = request->args_short;
	enum command_outcome outcome =
		command_dispatch(session->kvd, session, request->argv, request->argc);
	session_settle_command(session, outcome, seq_before);
	return outcome;
}

static void session_protocol_error(struct session *session, const struct resp_request *request)
{
	reply_errorf(session, "ERR Protocol error: %s", request->error);
	refuse(session, REFUSAL_FRAME,
	       "protocol error: %s; what speaks there must speak RESP, see PROTOCOL.md",
	       request->error);
	session_count_up(session->shared, KVS_COUNTER_clients_dropped_protocol, 1);
	session->close_after_reply = true;
}

static void session_too_large(struct session *session, const struct resp_request *request)
{
	reply_errorf(session, "ERR %s", request->error);
	session->multi.dirty = session->multi.dirty || session->multi.active;
}

/// Forgets what was parsed ahead: it is parsed again, from input_start, when its turn comes.
static void session_unparse(struct session *session)
{
	session->parse = (struct resp_request_state){ 0 };
	session->input_wanted = 0;
}

static void session_swap(struct resp_request *a, struct resp_request *b)
{
	struct resp_request keep = *a;
	*a = *b;
	*b = keep;
}

/// Fills the window. Returns how many requests it holds; *ending tells why it stopped, *parsed
/// where in the input. A half frame's arguments are kept in session->partial, and those of a long
/// one that is parsed a share at a time.
static unsigned session_parse_window(struct session *session, enum resp_result *ending,
				     size_t *parsed)
{
	struct session_shared *shared = session->shared;
	struct resp_request *window = shared->window;
	size_t at = session->input_start;
	unsigned n = 0;
	*ending = RESP_COMPLETE;
	if (__builtin_expect(session->parked.argc > 0, 0)) {
		*parsed = shared->window_ends[0] = at + session->parked.consumed;
		resp_request_free(&window[0]);
		session_swap(&window[0], &session->parked);
		session_parked_forget(session);
		return 1;
	}
	if (session->parse.args_expected != 0) {
		session_swap(&window[0], &session->partial);
	}
	while (n < SESSION_WINDOW && at - session->input_start < SESSION_PARSE_BYTES) {
		*ending = resp_parse_request(&session->parse, session->input + at,
					     session->input_end - at, &shared->limits, &window[n]);
		if (*ending == RESP_COMPLETE) {
			at += window[n].consumed;
			shared->window_ends[n++] = at;
		} else if (*ending == RESP_EMPTY) {
			at += window[n].consumed;
		} else {
			break;
		}
	}
	session->input_wanted = 0;
	if (*ending == RESP_MORE || *ending == RESP_CUT) {
		at += window[n].consumed;
		session->input_wanted = window[n].wanted;
		if (session->parse.args_expected != 0) {
			session_swap(&window[n], &session->partial);
		}
	} else if (*ending != RESP_COMPLETE && *ending != RESP_EMPTY) {
		at += window[n].consumed;
	}
	*parsed = at;
	return n;
}

static void session_prefetch(struct session *session, unsigned n)
{
	const struct resp_request *window = session->shared->window;
	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < n; i++) {
			// Nearly every command's first key is its first argument; for the others
			// this is a wasted hint, cheaper than looking the command up twice.
			if (window[i].argc >= 2 &&
			    window[i].argv[1].bytes - 1 < KVS_KEY_BYTES_MAX) {
				keyspace_prefetch(session->kvd->keyspace, window[i].argv[1].data,
						  window[i].argv[1].bytes, pass);
			}
		}
	}
}

/// Its next command, which ends at `input_end`, is to be tried again. A long one keeps its
/// arguments until then, for to parse it takes turns, and so does one with a value that is not in
/// the input.
static void session_keep(struct session *session, struct resp_request *request, size_t input_end)
{
	if (request->argc > SESSION_ARGS_KEPT_MAX || session->intake.run_offset != 0) {
		size_t bytes = request->argv_capacity * sizeof(*request->argv);
		session->input_start = input_end - request->consumed; // behind empty lines
		session->parked = *request;
		*request = (struct resp_request){ 0 };
		session->parked_bytes = session_charge(session, bytes) ? bytes : 0;
	}
}

/// It waits for memory.
static void session_park(struct session *session)
{
	struct session_shared *shared = session->shared;
	session->parked_since_ns = loop_now_ns(session->kvd->loop);
	// What waits for its commit pins memory: under lazy, too, the commit is wanted now.
	shared->request_seq = keyspace_last_seq(session->kvd->keyspace);
	session_count_up(session->shared, KVS_COUNTER_writes_waited, 1);
	session_set_parked(session, true);
}

/// Runs the window's requests. False if it was left early: the rest is unparsed. One look at the
/// wall clock serves them all, as long as they are small: together they take microseconds.
static bool session_run_window(struct session *session, unsigned n, uint64_t until_ns)
{
	struct resp_request *window = session->shared->window;
	const size_t *ends = session->shared->window_ends;
	keyspace_tick(session->kvd->keyspace);
	for (unsigned i = 0; i < n; i++) {
		size_t output_before = session->output_end;
		enum command_outcome outcome = session_dispatch(session, &window[i]);
		if (__builtin_expect(outcome != COMMAND_DONE, 0)) {
			if (outcome == COMMAND_AGAIN) {
				session_task_keep(session, &window[i], ends[i]);
			} else {
				session_keep(session, &window[i], ends[i]);
			}
			if (outcome == COMMAND_PARK) {
				session_park(session);
			} else if (outcome == COMMAND_FETCH) {
				session_fetch_wait(session);
			} else if (outcome == COMMAND_POSTPONE) {
				session_postpone(session);
			} else if (outcome == COMMAND_THROTTLE) {
				session_throttle(session);
			}
			session_unparse(session);
			return false;
		}
		if (__builtin_expect(session->intake.run_offset != 0, 0)) {
			// It came with this one, the first: a COPY behind it is to have its own.
			session_intake_end(session);
		}
		size_t input_bytes = window[i].consumed;
		session->input_start = ends[i];
		if (__builtin_expect(session->dead || session->close_after_reply ||
					     session->is_resting || session->is_awaiting,
				     0)) {
			session_unparse(session);
			return false;
		}
		bool slow =
			input_bytes > SESSION_BIG_BYTES ||
			session->output_end - output_before > SESSION_BIG_BYTES ||
			(session->last_command && (session->last_command->flags & COMMAND_SLOW_OK));
		if (__builtin_expect(slow, 0) && i + 1 < n) {
			if (session->kvd->seam->monotonic_ns() >= until_ns) {
				session_unparse(session);
				return false;
			}
			keyspace_tick(session->kvd->keyspace);
		}
	}
	return true;
}

/// A value that was received where it stands came with the first request that ran just now, which
/// is over unless it was kept.
static void session_intake_settle(struct session *session)
{
	if (session->parked.argc == 0 && !session->task) {
		session_intake_end(session);
	}
}

/// One window. RESP_MORE: no whole request is left in the input.
static enum resp_result session_step(struct session *session, uint64_t until_ns)
{
	enum resp_result ending;
	size_t parsed;
	unsigned n = session_parse_window(session, &ending, &parsed);
	if (n > 1) {
		session_prefetch(session, n);
	}
	bool all = n == 0 || session_run_window(session, n, until_ns);
	if (n > 0) {
		session->intake_declined = false;
		if (__builtin_expect(session->intake.run_offset != 0, 0)) {
			session_intake_settle(session);
		}
	}
	if (!all) {
		return RESP_COMPLETE;
	}
	// Empty lines count into `parsed` only: nothing between the requests is left out.
	session->input_start = parsed;
	const struct resp_request *last = n < SESSION_WINDOW ? &session->shared->window[n] : NULL;
	if (ending == RESP_ERROR && last) {
		session_protocol_error(session, last);
	} else if (ending == RESP_TOO_LARGE && last) {
		session_too_large(session, last);
	}
	return ending;
}

/// End of what a session does in one turn: buffers, its hold, its replies.
static void session_settle_turn(struct session *session)
{
	if ((session->close_after_reply && !session->task) || session->dead) {
		session->input_start = session->input_end;
		session_unparse(session);
	}
	session_trim_requests(session);
	if (!session->task && session->parked.argc == 0) { // its request stands there
		session_input_trim(session);
	}
	session->hold_open = false;
	session->may_pass = false;
	if (session->last_write_seq > session->shared->noticed_seq) {
		SEAM_CRASH(reply_queued);
	}
	if (session->output_end > session->output_sent || session->input_ended ||
	    session->close_after_reply) {
		session_send(session);
	} else {
		session_update_interest(session);
	}
	session_watch_half(session);
}

/// The next slice of a command that has more to do. False if it still has.
static bool session_go_on(struct session *session)
{
	uint64_t seq_before = keyspace_last_seq(session->kvd->keyspace);
	size_t input_end = session->task->input_end;
	keyspace_tick(session->kvd->keyspace);
	if (session->is_metered) {
		session_guard_meter(session);
	}
	enum command_outcome outcome = command_continue(session);
	session_settle_command(session, outcome, seq_before);
	if (outcome == COMMAND_PARK) {
		session_park(session); // it begins anew when there is room
	} else if (outcome == COMMAND_FETCH) {
		session_fetch_wait(session); // or what it needs is there
	} else if (outcome == COMMAND_DONE) {
		session->input_start = input_end;
	}
	if (__builtin_expect(session->intake.run_offset != 0, 0) && outcome != COMMAND_AGAIN) {
		if (outcome == COMMAND_PARK || outcome == COMMAND_FETCH) {
			// What stores such a value does not copy it, so it takes no slices; if one
			// did, its request could not be parsed anew.
			session_kill(session, "its request is lost");
		}
		session_intake_end(session);
	}
	return outcome != COMMAND_AGAIN;
}

/// In the next turn, or when what its command waits for is over.
static void session_go_on_later(struct session *session)
{
	if (!session->is_resting) {
		session_set_ready(session);
	}
}

void session_work(struct session *session, uint64_t until_ns)
{
	const struct seam *seam = session->kvd->seam;
	bool drained = !session->may_read;
	session->may_read = false;
	session->until_ns = until_ns;
	keyspace_set_writer(session->kvd->keyspace, &session->writer);
	keyspace_set_slice(session->kvd->keyspace, &session->slice);
	if (__builtin_expect(session->task != NULL, 0) && !session_go_on(session)) {
		session_go_on_later(session);
		session_settle_turn(session);
		return;
	}
	while (session_may_run(session) && !session->task) {
		enum resp_result ending = RESP_MORE;
		if (session->input_start < session->input_end) {
			ending = session_step(session, until_ns);
		}
		if (ending == RESP_MORE) {
			if (drained || session->input_ended) {
				break;
			}
			drained = session_read(session) != SESSION_READ_MORE;
		}
		if (seam->monotonic_ns() >= until_ns && session_may_run(session)) {
			session_set_ready(session);
			break;
		}
	}
	if (session->task) {
		session_go_on_later(session);
	}
	session_settle_turn(session);
}

/// The request of a parked command, NULL if it is lost.
static struct resp_request *session_parked(struct session *session)
{
	if (session->parked.argc > 0) {
		return &session->parked;
	}
	struct resp_request *request = &session->shared->window[0];
	struct resp_request_state state = { 0 };
	enum resp_result result;
	do {
		result = resp_parse_request(&state, session->input + session->input_start,
					    session->input_end - session->input_start,
					    &session->shared->limits, request);
		if (result == RESP_EMPTY) { // empty lines may stand before it
			session->input_start += request->consumed;
		}
	} while (result == RESP_EMPTY || result == RESP_CUT);
	return result == RESP_COMPLETE ? request : NULL;
}

void session_parked_forget(struct session *session)
{
	session_request_free(session->shared, &session->parked);
	session_uncharge(session, session->parked_bytes);
	session->parked_bytes = 0;
}

bool session_unpark(struct session *session, uint64_t now_ns)
{
	if (session->intake_waits) {
		return session_intake_retry(session, now_ns);
	}
	uint64_t wait_ns = session->kvd->config.write_wait_ms * UINT64_C(1000000);
	session->no_wait = session->is_parked && now_ns - session->parked_since_ns >= wait_ns;
	struct resp_request *request = session_parked(session);
	session->until_ns = session->kvd->seam->monotonic_ns() + SESSION_SLICE_NS;
	keyspace_set_writer(session->kvd->keyspace, &session->writer);
	keyspace_set_slice(session->kvd->keyspace, &session->slice);
	if (!request) {
		session_kill(session, "its parked command is lost");
		return true;
	}
	keyspace_tick(session->kvd->keyspace);
	enum command_outcome outcome = session_dispatch(session, request);
	if (outcome == COMMAND_POSTPONE && session->is_parked) {
		return false; // it waits for the end of the pause, too
	}
	if (outcome == COMMAND_FETCH) {
		session->no_wait = false;
		session_set_parked(session, false);
		session_fetch_wait(session); // a long request is kept already
		return true;
	}
	if (outcome == COMMAND_THROTTLE || outcome == COMMAND_POSTPONE) {
		session->no_wait = false;
		session_set_parked(session, false);
		if (session->intake.run_offset == 0) {
			session_parked_forget(session);
		}
		if (outcome == COMMAND_POSTPONE) {
			session_postpone(session);
		} else {
			session_throttle(session); // its user has used up what it may write
		}
		return true;
	}
	if (outcome == COMMAND_PARK) {
		if (!session->is_parked) {
			session_park(session); // the values are there, memory is not
		}
		if (!session->no_wait) {
			return false;
		}
		reply_error(session, "OOM command not allowed when used memory > 'maxmemory'. It "
				     "has waited for write-wait");
		session_fetch_over(session);
	}
	session->no_wait = false;
	size_t input_end = session->input_start + request->consumed;
	if (outcome == COMMAND_AGAIN) {
		session_task_keep(session, request, input_end);
	} else {
		session->input_start = input_end;
		session_intake_end(session);
	}
	session_parked_forget(session);
	session_set_parked(session, false);
	session_set_ready(session);
	return true;
}

// SPDX-License-Identifier: MIT
//
// One turn of the handle: what has come is read and told, what was submitted is sent, what is over
// its deadline is given up. Each turn does a bounded piece of that; the eventfd brings the next.
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "libclient/async.h"
#include "libclient/watch.h"

#define DISPATCH_CALLS 256u // of callbacks in one turn
#define DISPATCH_FILLS 32u  // of input buffers in one turn, for each stream

// The deadline that comes first: requests have them in the order of the ring. KVC_NEVER: none.
static uint64_t dispatch_deadline_ns(kvc_async *async)
{
	const struct kvc_request *oldest = kvc_queue_oldest(async);
	return oldest ? oldest->deadline_ns : KVC_NEVER;
}

// As when a function that waits gives up: kvd is stuck, and what is behind the oldest waits for the
// same.
static void dispatch_overdue(kvc_async *async)
{
	struct kvc_conn *conn = &async->stream.client->conn;
	if (kvc_now_ns() < dispatch_deadline_ns(async)) {
		return;
	}
	if (kvc_stream_is_open(&async->stream)) {
		kvc_error_set(conn->error_text, "no reply before the deadline");
		kvc_error_place(async->stream.client, conn);
	}
	async->waits_to_try = false;
	kvc_queue_break(async, KVC_TIMEOUT, true, false);
}

// The connection ended by itself, or has to be ended.
static void dispatch_broken(kvc_async *async, int status)
{
	kvc *client = async->stream.client;
	bool proved = client->conn.proved;
	bool turned_away = status == KVC_UNREACHABLE;
	kvc_error_place(client, &client->conn);
	kvc_queue_break(async, status == KVC_UNKNOWN || turned_away ? KVC_OK : status, !turned_away,
			proved && status == KVC_UNKNOWN);
	if (!proved) {
		kvc_conn_back_off(client, &client->conn);
	}
}

// Replies that nobody asked for: kvd says why it hangs up, or it is no kvd.
static int dispatch_unasked(struct kvc_conn *conn, const struct kvc_reply *reply)
{
	if (reply->type == KVC_REPLY_ERROR) {
		kvc_error_set(conn->error_text, "%s", reply->text);
		return KVC_UNKNOWN;
	}
	kvc_error_set(conn->error_text, "a reply that nobody asked for");
	return KVC_PROTOCOL;
}

static void dispatch_receive(kvc_async *async, struct kvc_budget *budget)
{
	struct kvc_stream *stream = &async->stream;
	unsigned fills = budget->fills;
	async->more_input = false;
	stream->drained = false;
	while (!budget->stopped && kvc_stream_is_open(stream)) {
		const struct kvc_reply *reply;
		kvc_queue_tell(async, budget);
		if (budget->calls == 0) {
			async->more_input = !budget->stopped;
			return;
		}
		int status = kvc_stream_next(stream, false, &fills, &reply);
		if (status == KVC_TIMEOUT) {
			return;
		}
		// unreached: takes a peer that writes as fast as 32 buffers are read.
		if (status == KVC_BUSY) {
			async->more_input = true;
			return;
		}
		if (status == KVC_OK && !kvc_queue_reply(async, budget, reply)) {
			status = dispatch_unasked(&stream->client->conn, reply);
		}
		if (status != KVC_OK) {
			dispatch_broken(async, status);
		}
	}
}

// Connects if there is something to send. True: connected.
static bool dispatch_connect(kvc_async *async)
{
	struct kvc_stream *stream = &async->stream;
	struct kvc_conn *conn = &stream->client->conn;
	if (kvc_stream_is_open(stream) || kvc_stream_unsent(stream) == 0) {
		return kvc_stream_is_open(stream);
	}
	uint64_t now_ns = kvc_now_ns();
	if (async->waits_to_try && now_ns < conn->next_attempt_ns) {
		return false;
	}
	if (kvc_stream_connect(stream) == KVC_OK) {
		async->waits_to_try = false;
		return true;
	}
	// kvd's queue is full: it is there, only busy. Requests wait for it until their deadlines,
	// like the functions that wait.
	// unreached: the pause is not over before the attempt is.
	async->waits_to_try = errno == ETIMEDOUT && conn->next_attempt_ns > now_ns;
	if (!async->waits_to_try) {
		kvc_queue_break(async, KVC_OK, false, false);
	}
	return false;
}

static void dispatch_send(kvc_async *async)
{
	struct kvc_stream *stream = &async->stream;
	if (kvc_stream_unsent(stream) > 0 && kvc_stream_is_open(stream) &&
	    !kvc_io_is_ours(&stream->client->conn)) {
		kvc_error_set(stream->client->conn.error_text,
			      "somebody has closed the descriptor of the connection");
		dispatch_broken(async, KVC_UNKNOWN);
	}
	if (dispatch_connect(async) && kvc_stream_unsent(stream) > 0) {
		kvc_queue_send(async);
	}
	if (stream->send_broken) {
		async->more_input = true; // what kvd has said last, and its end
	}
}

static void dispatch_room(kvc_async *async, struct kvc_budget *budget)
{
	if (async->blocked && kvc_queue_has_room(async)) {
		async->blocked = false;
		if (async->writable) {
			async->writable(async, async->user);
			(void)kvc_async_called(async, budget);
		}
	}
}

static void dispatch_turn(kvc_async *async, struct kvc_budget *budget)
{
	dispatch_overdue(async);
	dispatch_receive(async, budget);
	if (!budget->stopped) {
		dispatch_send(async);
		kvc_queue_tell(async, budget); // what could not be sent
	}
	if (!budget->stopped) {
		kvc_watching_turn(async, budget);
	}
	if (!budget->stopped) {
		dispatch_room(async, budget);
	}
	// What completions have submitted goes out without another turn of the caller's loop.
	if (!budget->stopped && kvc_stream_is_open(&async->stream)) {
		dispatch_send(async);
	}
}

int kvc_async_dispatch(kvc_async *async)
{
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	if (async->inside) {
		return KVC_INVALID;
	}
	struct kvc_budget budget = { .calls = DISPATCH_CALLS,
				     .fills = DISPATCH_FILLS,
				     .generation = async->generation };
	async->inside = true;
	dispatch_turn(async, &budget);
	if (async->closing) {
		kvc_async_finish(async);
		return KVC_CANCELLED;
	}
	if (budget.stopped) {
		return KVC_OK; // a forked child: what it has is forgotten, or will be
	}
	async->inside = false;
	return kvc_async_leave(async, KVC_OK);
}

int kvc_async_flush(kvc_async *async)
{
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	if (!async->inside) { // else the dispatch ends with it
		dispatch_send(async);
	}
	return kvc_async_leave(async, KVC_OK);
}

int kvc_async_timeout_ms(kvc_async *async)
{
	if (kvc_async_enter(async) != KVC_OK) {
		return -1;
	}
	uint64_t due_ns = dispatch_deadline_ns(async);
	uint64_t watching_ns = kvc_watching_due_ns(async);
	uint64_t attempt_ns =
		async->waits_to_try ? async->stream.client->conn.next_attempt_ns : KVC_NEVER;
	due_ns = watching_ns < due_ns ? watching_ns : due_ns;
	due_ns = attempt_ns < due_ns ? attempt_ns : due_ns;
	(void)kvc_async_leave(async, KVC_OK);
	if (async->awake) {
		return 0;
	}
	if (due_ns == KVC_NEVER) {
		return -1;
	}
	uint64_t now_ns = kvc_now_ns();
	uint64_t left_ms = due_ns > now_ns ? (due_ns - now_ns + 999999) / 1000000 : 0;
	return left_ms > INT_MAX ? INT_MAX : (int)left_ms;
}

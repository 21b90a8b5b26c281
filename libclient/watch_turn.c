// SPDX-License-Identifier: MIT
//
// One turn of the watching half. The order is the promise: a loss is told before anything that
// comes after it, READY before the first change it covers, and a push is told to its end before the
// next reply is looked at, if need be over several turns.
#include <string.h>

#include "libclient/watch.h"

#define WATCH_FILLS 32u // of input buffers in one turn

static void turn_break(kvc_async *async)
{
	struct kvc_watching *watching = async->watching;
	memcpy(async->broke_text, watching->stream.client->conn.error_text,
	       sizeof(async->broke_text));
	kvc_stream_drop(&watching->stream);
	kvc_stream_clear(&watching->stream);
	kvc_watching_lose(watching);
}

// The connection ended by itself or, `refused`, says no.
static void turn_failed(kvc_async *async, bool refused)
{
	kvc *client = async->watching->stream.client;
	bool back_off = refused || !client->conn.proved;
	kvc_error_place(client, &client->conn);
	turn_break(async);
	if (refused) {
		// What it refuses now it will refuse in a moment: the longest pause at once.
		client->conn.pause_ns = (uint64_t)client->options.reconnect_max_ms * 1000000;
	}
	if (back_off) {
		kvc_conn_back_off(client, &client->conn);
	}
}

static void turn_connect(kvc_async *async)
{
	struct kvc_watching *watching = async->watching;
	kvc *client = watching->stream.client;
	if (client->conn.pause_ns != 0 && kvc_now_ns() < client->conn.next_attempt_ns) {
		return;
	}
	if (kvc_stream_connect(&watching->stream) != KVC_OK) {
		turn_break(async); // backing off already
	} else if (!kvc_watching_introduce(watching)) {
		kvc_error_set(client->conn.error_text, "out of memory for a request");
		turn_failed(async, true);
	}
}

// False: stopped.
static bool turn_call(kvc_watch *watch, struct kvc_budget *budget, enum kvc_watch_event event,
		      const struct kvc_reply *key)
{
	watch->watched(watch->async, watch->user, event, key ? key->text : NULL,
		       key ? key->text_bytes : 0);
	return kvc_async_called(watch->async, budget);
}

// Tells what has become of subscriptions. False: the budget is used up, or stopped.
static bool turn_tell_state(struct kvc_watching *watching, struct kvc_budget *budget)
{
	if (!watching->state_due) {
		return true;
	}
	for (kvc_watch *watch = watching->list; watch; watch = watch->next) {
		while (watch->watched && (watch->gap || (watch->on && !watch->told_ready))) {
			bool lost = watch->gap;
			if (budget->calls == 0) {
				return false;
			}
			watch->told_any = true;
			watch->told_ready = !lost;
			watch->gap = false;
			if (!turn_call(watch, budget, lost ? KVC_WATCH_LOST : KVC_WATCH_READY,
				       NULL)) {
				return false;
			}
		}
	}
	// What callbacks have opened stands at the front, and is told next time.
	watching->state_due = watching->opened_some;
	watching->opened_some = false;
	return true;
}

// Tells one changed key, or with NULL that all have changed, to whom it concerns. False: stopped.
static bool turn_tell_key(struct kvc_watching *watching, struct kvc_budget *budget,
			  const struct kvc_reply *key)
{
	for (kvc_watch *watch = watching->list; watch; watch = watch->next) {
		bool wanted = !key || (kvc_watch_covers(watch->key, watch->bytes, key->text,
							key->text_bytes) &&
				       (watch->prefix || watch->bytes == key->text_bytes));
		if (watch->watched && watch->told_ready && wanted &&
		    !turn_call(watch, budget, KVC_WATCH_CHANGED, key)) {
			return false;
		}
	}
	return true;
}

// Goes on telling the keys of the push at hand. False: the budget is used up, or stopped.
static bool turn_tell_push(struct kvc_watching *watching, struct kvc_budget *budget)
{
	while (watching->push && watching->push_at < watching->push->count) {
		if (budget->calls == 0) {
			return false;
		}
		const struct kvc_reply *key = &watching->push->element[watching->push_at++];
		if (key->text && !turn_tell_key(watching, budget, key)) {
			return false;
		}
	}
	watching->push = NULL;
	return true;
}

static void turn_pushed(struct kvc_watching *watching, struct kvc_budget *budget,
			const struct kvc_reply *push)
{
	const struct kvc_reply *element = push->element;
	if (push->count != 2 || !element[0].text || strcmp(element[0].text, "invalidate") != 0) {
		return; // nothing that was asked for
	}
	if (element[1].type == KVC_REPLY_NIL) {
		(void)turn_tell_key(watching, budget, NULL); // FLUSHALL
	} else if (element[1].type == KVC_REPLY_ARRAY) {
		watching->push = &element[1];
		watching->push_at = 0;
	}
}

// A reply to what was asked. False: kvd refuses, or is none.
static bool turn_answered(struct kvc_watching *watching, const struct kvc_reply *reply)
{
	kvc *client = watching->stream.client;
	if (reply->type == KVC_REPLY_ERROR || watching->answered == watching->asked) {
		kvc_error_set(client->conn.error_text, "it cannot be watched: %s",
			      reply->type == KVC_REPLY_ERROR ? reply->text
							     : "a reply that nobody asked for");
		return false;
	}
	watching->answered++;
	watching->deadline_ns = kvc_deadline_ns(client->options.request_timeout_ms);
	for (kvc_watch *watch = watching->list; watch; watch = watch->next) {
		watch->on = watch->on || watch->answer == watching->answered;
	}
	watching->state_due = true;
	return true;
}

static void turn_receive(kvc_async *async, struct kvc_budget *budget)
{
	struct kvc_watching *watching = async->watching;
	unsigned fills = WATCH_FILLS;
	watching->more_input = false;
	watching->stream.drained = false;
	for (;;) {
		const struct kvc_reply *reply;
		if (!turn_tell_push(watching, budget) || !turn_tell_state(watching, budget)) {
			if (!budget->stopped) {
				watching->more_input = true;
			}
			return;
		}
		if (!kvc_stream_is_open(&watching->stream)) {
			return;
		}
		int status = kvc_stream_next(&watching->stream, true, &fills, &reply);
		// unreached: takes a peer that writes as fast as 32 buffers are read.
		if (status == KVC_TIMEOUT || status == KVC_BUSY) {
			watching->more_input = status == KVC_BUSY;
			return;
		}
		bool good = status == KVC_OK;
		if (good && reply->type == KVC_REPLY_PUSH) {
			turn_pushed(watching, budget, reply);
		} else if (good) {
			good = turn_answered(watching, reply);
		}
		if (budget->stopped) {
			return;
		}
		if (!good) {
			turn_failed(async, status == KVC_OK);
		}
	}
}

void kvc_watching_turn(kvc_async *async, struct kvc_budget *budget)
{
	struct kvc_watching *watching = async->watching;
	if (!watching) {
		return;
	}
	struct kvc_stream *stream = &watching->stream;
	struct kvc_conn *conn = &stream->client->conn;
	bool overdue =
		watching->asked != watching->answered && kvc_now_ns() >= watching->deadline_ns;
	kvc_watching_sweep(watching);
	if (kvc_stream_is_open(stream) &&
	    (watching->count == 0 || overdue || watching->half_asked || !kvc_io_is_ours(conn))) {
		kvc_error_set(conn->error_text, "%s",
			      overdue		     ? "no reply before the deadline"
			      : watching->half_asked ? "out of memory for a request"
						     : "the connection is not ours any more");
		turn_failed(async, false);
	}
	if (watching->count > 0 && !kvc_stream_is_open(stream)) {
		turn_connect(async);
	}
	(void)kvc_stream_send(stream, kvc_stream_unsent(stream));
	turn_receive(async, budget);
}

bool kvc_watching_has_work(const kvc_async *async)
{
	const struct kvc_watching *watching = async->watching;
	if (!watching) {
		return false;
	}
	const struct kvc_stream *stream = &watching->stream;
	// unreached: a push at hand is input that is left.
	if (watching->more_input || watching->push || watching->state_due) {
		return true;
	}
	if (!kvc_stream_is_open(stream)) {
		return watching->count > 0 && stream->client->conn.pause_ns == 0;
	}
	return watching->count == 0 || (kvc_stream_unsent(stream) > 0 && !stream->wants_out);
}

uint64_t kvc_watching_due_ns(const kvc_async *async)
{
	const struct kvc_watching *watching = async->watching;
	if (!watching || watching->count == 0) {
		return KVC_NEVER;
	}
	if (!kvc_stream_is_open(&watching->stream)) {
		return watching->stream.client->conn.next_attempt_ns;
	}
	return watching->asked != watching->answered ? watching->deadline_ns : KVC_NEVER;
}

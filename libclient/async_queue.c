// SPDX-License-Identifier: MIT
//
// The ring of requests and the one promise it keeps: of every request that was accepted the
// completion is called exactly once. A request leaves the ring at its head, when no reply of it is
// awaited and its completion has been called; one that was cancelled stays behind without an owner
// until its reply has been taken. What became of each when a connection ends follows from how much
// of it was sent: kvd runs no half request. Cancelling costs the same however long the queue is:
// the bytes of what was not begun to be sent stay where they are as a gap, which is closed when
// what stands around it is sent.
#include <stdlib.h>
#include <string.h>

#include "libclient/async.h"

#define QUEUE_CAPACITY_MIN 16u
#define QUEUE_GAPS_WINDOW (256u << 10) // bytes among which gaps are closed for one sending
#define QUEUE_GAPS_REQUESTS 4096u      // and requests
#define QUEUE_GAPS_FREE 64u	       // bytes in gaps for each request that nobody minds
#define QUEUE_SENDS_MAX 16u	       // windows in one go

// Makes room for one more. False: out of memory.
static bool queue_reserve(kvc_async *async)
{
	uint64_t used = async->tail - async->head;
	if (used < async->capacity) {
		return true;
	}
	uint64_t capacity = async->capacity ? async->capacity * 2 : QUEUE_CAPACITY_MIN;
	struct kvc_request *ring = reallocarray(NULL, capacity, sizeof(*ring));
	if (!ring) {
		return false;
	}
	for (uint64_t id = async->head; id < async->tail; id++) {
		ring[id & (capacity - 1)] = *kvc_queue_at(async, id);
	}
	free(async->ring);
	async->ring = ring;
	async->capacity = capacity;
	return true;
}

static size_t queue_unsent(const kvc_async *async)
{
	return kvc_stream_unsent(&async->stream) - async->gaps;
}

static bool queue_is_full(const kvc_async *async, size_t bytes)
{
	size_t unsent = queue_unsent(async);
	return async->tail - async->head >= async->requests_max ||
	       (unsent > 0 &&
		bytes > async->bytes_max - (unsent < async->bytes_max ? unsent : async->bytes_max));
}

bool kvc_queue_has_room(const kvc_async *async)
{
	return async->tail - async->head <= async->requests_max / 2 &&
	       queue_unsent(async) <= async->bytes_max / 2;
}

// Closes the gaps among the next bytes to go: what stands before one moves up to what stands behind
// it. Looks at so many bytes (less than that are moved) and requests; returns how many bytes can be
// sent.
static size_t queue_close_gaps(kvc_async *async, size_t bytes_max, uint64_t requests_max)
{
	struct kvc_stream *stream = &async->stream;
	if (async->gaps == 0) {
		return kvc_stream_unsent(stream);
	}
	size_t span = 0;
	uint64_t end = async->unsent;
	for (; end < async->tail && span < bytes_max && end - async->unsent < requests_max; end++) {
		const struct kvc_request *request = kvc_queue_at(async, end);
		span += request->bytes_left + request->gap;
	}
	size_t from = stream->out_start + span, to = from;
	for (uint64_t id = end; id-- > async->unsent;) {
		struct kvc_request *request = kvc_queue_at(async, id);
		from -= request->bytes_left + request->gap;
		to -= request->bytes_left;
		async->gaps -= request->gap;
		request->gap = 0;
		if (from != to) {
			memmove(stream->out.data + to, stream->out.data + from,
				request->bytes_left);
		}
	}
	size_t ready = stream->out_start + span - to;
	stream->out_start = to;
	return ready;
}

int kvc_queue_submit(kvc_async *async, const struct kvc_form *form, kvc_done done, void *user,
		     uint64_t *id)
{
	const struct kvc_frame *frame = &async->stream.client->conn.frame;
	if (frame->buffer.failed) {
		return KVC_NO_MEMORY;
	}
	size_t bytes = kvc_frame_bytes(frame);
	if (queue_is_full(async, bytes)) {
		async->blocked = true;
		return KVC_BUSY;
	}
	if (async->gaps > queue_unsent(async) + (async->tail - async->unsent) * QUEUE_GAPS_FREE) {
		(void)queue_close_gaps(async, SIZE_MAX,
				       UINT64_MAX); // paid for by what was cancelled
	}
	if (!queue_reserve(async) || !kvc_stream_append(&async->stream, frame)) {
		return KVC_NO_MEMORY;
	}
	*kvc_queue_at(async, async->tail) = (struct kvc_request){
		.form = *form,
		.done = done,
		.user = user,
		.deadline_ns = kvc_deadline_ns(async->stream.client->options.request_timeout_ms),
		.bytes = bytes,
		.bytes_left = bytes,
		.settled = form->replies == 0,
	};
	if (id) {
		*id = async->tail;
	}
	async->unsent += async->unsent == async->tail && bytes == 0; // nothing of it to send
	async->tail++;
	async->untold++;
	return KVC_OK;
}

// `bytes` more were sent. Passes over what has nothing to be sent, too.
static void queue_sent(kvc_async *async, size_t bytes)
{
	struct kvc_stream *stream = &async->stream;
	for (; async->unsent < async->tail; async->unsent++) {
		struct kvc_request *request = kvc_queue_at(async, async->unsent);
		size_t part = bytes < request->bytes_left ? bytes : request->bytes_left;
		request->bytes_left -= part;
		bytes -= part;
		if (request->bytes_left > 0) {
			break;
		}
		stream->out_start += request->gap;
		async->gaps -= request->gap;
		request->gap = 0;
	}
	if (kvc_stream_unsent(stream) == 0) {
		kvc_stream_clear(stream);
	}
}

void kvc_queue_send(kvc_async *async)
{
	size_t ready, sent;
	unsigned left = QUEUE_SENDS_MAX;
	do {
		ready = queue_close_gaps(async, QUEUE_GAPS_WINDOW, QUEUE_GAPS_REQUESTS);
		sent = kvc_stream_send(&async->stream, ready);
		queue_sent(async, sent);
		// unreached: no socket takes 4 MiB that nobody reads.
	} while (sent == ready && queue_unsent(async) > 0 && --left > 0);
}

// Calls the completion of a request. Everything of the ring may be different afterwards.
static void queue_call(kvc_async *async, struct kvc_request *request, struct kvc_result *result)
{
	kvc_done done = request->done;
	request->told = true;
	async->untold--;
	if (done) {
		done(async, request->user, result);
	}
}

// Drops from the head what is over and told.
static void queue_shrink(kvc_async *async)
{
	while (async->head < async->tail) {
		const struct kvc_request *request = kvc_queue_at(async, async->head);
		if (!request->settled || !request->told) {
			break;
		}
		async->head++;
	}
}

// The result of a request that got none from kvd.
static struct kvc_result queue_result(const kvc_async *async, int status)
{
	bool broke = status == KVC_UNKNOWN || status == KVC_UNREACHABLE || status == KVC_TIMEOUT ||
		     status == KVC_PROTOCOL;
	const char *text = broke && *async->broke_text ? async->broke_text : kvc_strerror(status);
	return (struct kvc_result){ .status = status, .error_text = text };
}

static void queue_tell_cancelled(kvc_async *async, struct kvc_budget *budget)
{
	while (async->cancelled_first != 0 && budget->calls > 0) {
		struct kvc_request *request = kvc_queue_at(async, async->cancelled_first);
		struct kvc_result result = queue_result(async, KVC_CANCELLED);
		async->cancelled_first = request->cancelled_next;
		queue_call(async, request, &result);
		if (!kvc_async_called(async, budget)) {
			return;
		}
	}
}

void kvc_queue_tell(kvc_async *async, struct kvc_budget *budget)
{
	queue_tell_cancelled(async, budget);
	while (budget->calls > 0) {
		queue_shrink(async);
		if (async->head == async->tail) {
			return;
		}
		struct kvc_request *request = kvc_queue_at(async, async->head);
		if (!request->settled || request->cancelled) {
			return;
		}
		struct kvc_result result = queue_result(async, request->status);
		queue_call(async, request, &result);
		if (!kvc_async_called(async, budget)) {
			return;
		}
	}
}

// What a synced or unsynced reply means for the next KVD.SYNC; see kvc_sync().
static void queue_note_sync(struct kvc_conn *conn, enum kvc_want want, struct kvc_result *result)
{
	if (want == KVC_WANT_SYNC && conn->sync_lost) {
		conn->sync_lost = false;
		result->status = KVC_UNKNOWN;
		kvc_error_set(conn->error_text,
			      "the connection broke after writes and before a sync");
	} else if (want == KVC_WANT_SYNC) {
		conn->unsynced = conn->unsynced && result->status != KVC_OK;
	} else {
		conn->unsynced = conn->unsynced || want != KVC_WANT_VALUE;
	}
}

const struct kvc_request *kvc_queue_oldest(kvc_async *async)
{
	async->awaited = async->awaited > async->head ? async->awaited : async->head;
	while (async->awaited < async->tail && kvc_queue_at(async, async->awaited)->settled) {
		async->awaited++;
	}
	return async->awaited < async->tail ? kvc_queue_at(async, async->awaited) : NULL;
}

bool kvc_queue_reply(kvc_async *async, struct kvc_budget *budget, const struct kvc_reply *reply)
{
	struct kvc_conn *conn = &async->stream.client->conn;
	if (!kvc_queue_oldest(async) || async->awaited >= async->unsent) {
		return false;
	}
	struct kvc_request *request = kvc_queue_at(async, async->awaited);
	struct kvc_result result = { .status = KVC_OK };
	conn->error_text[0] = '\0';
	if (!kvc_form_take(&request->form, conn, reply, &result)) {
		return true;
	}
	queue_note_sync(conn, request->form.want, &result);
	request->settled = true;
	if (request->cancelled) {
		queue_shrink(async);
		return true; // its completion says, or has said, something else
	}
	result.error_text = *conn->error_text ? conn->error_text : kvc_strerror(result.status);
	queue_call(async, request, &result);
	if (kvc_async_called(async, budget)) {
		queue_shrink(async);
	}
	return true;
}

// Is anything on its way to kvd, or waiting for a reply?
static bool queue_is_under_way(const kvc_async *async)
{
	for (uint64_t id = async->head; id < async->tail; id++) {
		const struct kvc_request *request = kvc_queue_at(async, id);
		if (!request->settled && request->bytes_left < request->bytes) {
			return true;
		}
	}
	return false;
}

void kvc_queue_break(kvc_async *async, int first, bool whole, bool stale)
{
	bool keep = stale && !queue_is_under_way(async);
	bool sync_told = false;
	memcpy(async->broke_text, async->stream.client->conn.error_text, sizeof(async->broke_text));
	for (uint64_t id = async->head; id < async->tail && !keep; id++) {
		struct kvc_request *request = kvc_queue_at(async, id);
		if (request->settled) {
			continue;
		}
		bool maybe = whole && request->bytes_left == 0 &&
			     request->form.want != KVC_WANT_VALUE; // a read changes nothing
		request->settled = true;
		request->status = maybe ? KVC_UNKNOWN : KVC_UNREACHABLE;
		if (first != KVC_OK && request->bytes_left == 0) {
			request->status = first;
		}
		first = KVC_OK;
		sync_told = sync_told || (maybe && request->form.want == KVC_WANT_SYNC);
	}
	kvc_stream_drop(&async->stream);
	if (!keep) {
		kvc_stream_clear(&async->stream);
		async->gaps = 0;
		async->unsent = async->tail;
		async->more_input = false;
	}
	if (sync_told) {
		async->stream.client->conn.sync_lost = false;
	}
}

void kvc_queue_finish(kvc_async *async)
{
	for (uint64_t id = async->head; id < async->tail; id++) {
		struct kvc_request *request = kvc_queue_at(async, id);
		if (!request->told) {
			struct kvc_result result = queue_result(async, KVC_CANCELLED);
			queue_call(async, request, &result);
		}
	}
}

// Leaves a gap for the bytes of a request that was not begun to be sent.
static void queue_unsend(kvc_async *async, struct kvc_request *request)
{
	request->gap = request->bytes_left;
	async->gaps += request->gap;
	request->bytes_left = 0;
	request->settled = true;
	queue_sent(async, 0);
}

// Appends to those whose completion is to say that they were cancelled.
static void queue_mark_cancelled(kvc_async *async, uint64_t id)
{
	kvc_queue_at(async, id)->cancelled = true;
	if (async->cancelled_first == 0) {
		async->cancelled_first = id;
	} else {
		kvc_queue_at(async, async->cancelled_last)->cancelled_next = id;
	}
	async->cancelled_last = id;
}

int kvc_async_cancel(kvc_async *async, uint64_t id)
{
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	if (id < async->head || id >= async->tail) {
		return kvc_async_leave(async, KVC_NOT_FOUND);
	}
	struct kvc_request *request = kvc_queue_at(async, id);
	if (request->told || request->cancelled) {
		return kvc_async_leave(async, KVC_NOT_FOUND);
	}
	queue_mark_cancelled(async, id);
	if (request->settled) {
		// Over already, only not told yet: what became of it is known.
		return kvc_async_leave(async,
				       request->status == KVC_UNREACHABLE ? KVC_OK : KVC_UNKNOWN);
	}
	if (request->bytes_left == request->bytes) {
		queue_unsend(async, request);
		return kvc_async_leave(async, KVC_OK);
	}
	return kvc_async_leave(async, KVC_UNKNOWN);
}

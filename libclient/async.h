// SPDX-License-Identifier: MIT
//
// What the files of the asynchronous form share. One handle is two streams (requests, and, from the
// first watch on, what kvd pushes), a ring of requests, and a list of watches, all behind one epoll
// descriptor. Nothing here blocks, starts a thread or keeps a timer; callbacks run in
// kvc_async_dispatch() and kvc_async_close() only. Any callback may submit, cancel, watch, close,
// or fork: whoever has called one looks at kvc_async_called() before touching the handle again, and
// holds no pointer into the ring over the call.
#pragma once

#include "libclient/form.h"

/// A connection that never waits: bytes to go, and replies as far as they have come.
struct kvc_stream {
	kvc *client; // for its options, its connection, and to notice a fork
	int epoll_fd;
	bool wants_out;	       // the socket is full: polled for room
	bool send_broken;      // nothing can be sent; what kvd said before it left may be read
	bool drained;	       // the last receive left room: epoll tells of what comes later
	struct kvc_buffer out; // to be sent: out.data[out_start, out.bytes)
	size_t out_start;
};

/// One request, from submit until its last reply was taken.
struct kvc_request {
	struct kvc_form form;
	kvc_done done; // NULL = nobody wants to know
	void *user;
	uint64_t deadline_ns;
	size_t bytes;		 // of its frame
	size_t bytes_left;	 // to be handed to the socket
	size_t gap;		 // bytes of it in the stream that are not to be sent any more
	uint64_t cancelled_next; // id, 0 = none
	int status;		 // once settled
	bool settled;		 // no reply is awaited any more
	bool cancelled;
	bool told; // its completion has been called
};

/// What one dispatch may still do.
struct kvc_budget {
	unsigned calls;	     // of callbacks
	unsigned fills;	     // of input buffers
	uint64_t generation; // of the process that dispatches
	bool stopped;	     // closed, or this is a forked child: not another step
};

struct kvc_async {
	struct kvc_stream stream;
	int wake_fd; // an eventfd in the epoll set: there is work that no socket tells of
	bool awake;  // it is readable
	bool busy;   // a call is inside: a fork now copies it half-changed
	bool inside; // a dispatch is: callbacks may be running
	bool closing;
	uint64_t generation; // of the process that `stream` and the descriptors belong to
	uint32_t requests_max;
	size_t bytes_max;
	void (*writable)(kvc_async *async, void *user);
	void *user;
	bool blocked; // a submit was answered KVC_BUSY since the last notice

	struct kvc_request *ring; // of ids [head, tail), at id mod capacity
	uint64_t capacity;	  // power of two
	uint64_t head, tail;
	uint64_t unsent;  // the first id with bytes left
	uint64_t awaited; // no id before it awaits a reply
	size_t gaps;	  // bytes in the stream of requests that were cancelled
	uint64_t cancelled_first, cancelled_last; // ids, linked: cancelled and not told; 0 = none
	size_t untold;				  // requests whose completion is owed
	bool more_input;			  // replies may be waiting in the input buffer
	bool waits_to_try; // kvd's queue of connections is full: again at conn.next_attempt_ns
	char broke_text[KVC_ERROR_TEXT_BYTES]; // why the last connection was given up

	struct kvc_watching *watching; // NULL = nothing was ever watched
};

// async.c

/// Begins a call: INVALID while closing; in a forked child first forgets what is the parent's.
int kvc_async_enter(kvc_async *async);
int kvc_async_leave(kvc_async *async, int status); // sees to the wake word; returns `status`
/// A callback has returned. True: go on.
bool kvc_async_called(kvc_async *async, struct kvc_budget *budget);

/// Calls what is owed and frees everything.
void kvc_async_finish(kvc_async *async);

// async_stream.c

/// Connects at once or not: OK, UNREACHABLE (errno ETIMEDOUT: kvd's queue is full), SYSTEM.
int kvc_stream_connect(struct kvc_stream *stream);
static inline bool kvc_stream_is_open(const struct kvc_stream *stream)
{
	return stream->client->conn.fd >= 0;
}
/// Closes. What was to be sent stays.
void kvc_stream_drop(struct kvc_stream *stream);
/// Forgets what was to be sent.
void kvc_stream_clear(struct kvc_stream *stream);
/// Appends a frame. False: out of memory, and nothing was appended.
bool kvc_stream_append(struct kvc_stream *stream, const struct kvc_frame *frame);
size_t kvc_frame_bytes(const struct kvc_frame *frame);
static inline size_t kvc_stream_unsent(const struct kvc_stream *stream)
{
	return stream->out.bytes - stream->out_start;
}
/// Sends what the socket takes of the first `bytes`. Returns how many went.
size_t kvc_stream_send(struct kvc_stream *stream, size_t bytes);
/// The next whole reply, good until the next call. TIMEOUT: not there yet. BUSY: no fills are left.
/// UNREACHABLE: kvd turned the connection away. UNKNOWN, PROTOCOL, NO_MEMORY: it is over; the
/// caller drops it. Pushes are skipped unless they are wanted.
int kvc_stream_next(struct kvc_stream *stream, bool pushes, unsigned *fills,
		    const struct kvc_reply **reply);
/// In a forked child: the descriptors are the parent's. With `orphan` memory is left alone too.
void kvc_stream_forget(struct kvc_stream *stream, int epoll_fd, bool orphan);

// async_queue.c

static inline struct kvc_request *kvc_queue_at(const kvc_async *async, uint64_t id)
{
	return &async->ring[id & (async->capacity - 1)];
}
/// Appends conn.frame as a request. OK, BUSY, NO_MEMORY.
int kvc_queue_submit(kvc_async *async, const struct kvc_form *form, kvc_done done, void *user,
		     uint64_t *id);
/// Sends what the socket takes.
void kvc_queue_send(kvc_async *async);
/// The oldest request that awaits a reply, NULL if none does.
const struct kvc_request *kvc_queue_oldest(kvc_async *async);
/// A reply to the oldest request that awaits one. False: nobody awaits it.
bool kvc_queue_reply(kvc_async *async, struct kvc_budget *budget, const struct kvc_reply *reply);
/// The connection is over: settles every request that hangs on it, `first` is what became of the
/// oldest (KVC_OK: as of the others). With `whole` false kvd has taken none of them. Those that
/// were not begun to be sent stay if nothing else was under way and `stale` allows it.
void kvc_queue_break(kvc_async *async, int first, bool whole, bool stale);
/// Calls completions that are owed: of what was cancelled, in that order, and of what is settled,
/// in the order of submission.
void kvc_queue_tell(kvc_async *async, struct kvc_budget *budget);
/// All that are owed, as cancelled: the handle is being closed.
void kvc_queue_finish(kvc_async *async);
bool kvc_queue_has_room(const kvc_async *async); // enough for a notice

// SPDX-License-Identifier: MIT
//
// A connection for callers who never wait: what the socket takes is sent, what has come is read,
// the rest is the epoll descriptor's business. A descriptor leaves the epoll set before it is
// closed: were a forked child to hold a copy of the socket, the set would go on reporting it.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "libclient/async.h"

#define STREAM_SENDS_MAX 16u	     // in one go: a peer that reads as we write has no say
#define STREAM_KEEP_BYTES (1u << 20) // an empty buffer keeps at most this much memory

static bool stream_poll(struct kvc_stream *stream, int operation, bool out)
{
	struct epoll_event event = { .events = EPOLLIN | (out ? EPOLLOUT : 0) };
	return epoll_ctl(stream->epoll_fd, operation, stream->client->conn.fd, &event) == 0;
}

int kvc_stream_connect(struct kvc_stream *stream)
{
	struct kvc_conn *conn = &stream->client->conn;
	int status = kvc_conn_ensure(stream->client, conn, 0);
	stream->wants_out = stream->send_broken = false;
	if (status == KVC_OK && !stream_poll(stream, EPOLL_CTL_ADD, false)) {
		kvc_error_set(conn->error_text, "epoll_ctl: %s", strerror(errno));
		kvc_conn_drop(conn);
		kvc_conn_back_off(stream->client, conn);
		return KVC_SYSTEM;
	}
	return status;
}

void kvc_stream_drop(struct kvc_stream *stream)
{
	struct kvc_conn *conn = &stream->client->conn;
	if (kvc_io_is_ours(conn)) {
		(void)stream_poll(stream, EPOLL_CTL_DEL, false);
	}
	kvc_conn_drop(conn);
	conn->lost = 0;
	stream->wants_out = stream->send_broken = false;
}

void kvc_stream_clear(struct kvc_stream *stream)
{
	if (stream->out.capacity > STREAM_KEEP_BYTES) {
		kvc_buffer_free(&stream->out);
	}
	stream->out.bytes = stream->out_start = 0;
}

size_t kvc_frame_bytes(const struct kvc_frame *frame)
{
	return frame->buffer.bytes + (frame->long_data ? frame->long_bytes : 0);
}

bool kvc_stream_append(struct kvc_stream *stream, const struct kvc_frame *frame)
{
	struct kvc_buffer *out = &stream->out;
	size_t start = stream->out_start, left = out->bytes - start;
	if (start > 0 && start >= left) {
		// Moved at most as often as bytes are sent: the copy is never longer than the gap.
		memcpy(out->data, out->data + start, left);
		out->bytes = left;
		stream->out_start = 0;
	}
	size_t before = out->bytes;
	size_t first = frame->long_data ? frame->long_at : frame->buffer.bytes;
	kvc_buffer_append(out, frame->buffer.data, first);
	if (frame->long_data) {
		kvc_buffer_append(out, frame->long_data, frame->long_bytes);
		kvc_buffer_append(out, frame->buffer.data + first, frame->buffer.bytes - first);
	}
	if (out->failed) {
		out->bytes = before;
		out->failed = false;
		return false;
	}
	return true;
}

static void stream_want_out(struct kvc_stream *stream, bool out)
{
	// A set that cannot be changed any more can only mean that the socket is not ours any more:
	// the next receive tells.
	// unreached: as the comment says, between two calls.
	if (stream->wants_out != out && stream_poll(stream, EPOLL_CTL_MOD, out)) {
		stream->wants_out = out;
	}
}

size_t kvc_stream_send(struct kvc_stream *stream, size_t bytes)
{
	struct kvc_conn *conn = &stream->client->conn;
	size_t total = 0;
	bool full = false;
	// unreached: takes a peer that reads as fast as we write.
	for (unsigned i = 0; i < STREAM_SENDS_MAX && !full && !stream->send_broken && total < bytes;
	     i++) {
		ssize_t sent = send(conn->fd, stream->out.data + stream->out_start, bytes - total,
				    MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent >= 0) {
			stream->out_start += (size_t)sent;
			total += (size_t)sent;
		} else if (errno == EAGAIN) {
			full = true;
			// unreached: a call that does not wait is not interrupted.
		} else if (errno != EINTR) {
			kvc_error_set(conn->error_text, "send: %s", strerror(errno));
			stream->send_broken = true;
		}
	}
	if (kvc_stream_unsent(stream) == 0) {
		kvc_stream_clear(stream);
	}
	stream_want_out(stream, full);
	return total;
}

// Measures the reply at the front of the input. OK, TIMEOUT if it is not whole, PROTOCOL.
static int stream_measure(struct kvc_conn *conn, size_t *nodes)
{
	if (conn->in_end == conn->in_start) {
		return KVC_TIMEOUT;
	}
	switch (resp_measure_reply(&conn->measure, conn->in + conn->in_start,
				   conn->in_end - conn->in_start, KVS_VALUE_BYTES_MAX,
				   &conn->reply_bytes, nodes)) {
	case RESP_COMPLETE:
		return KVC_OK;
	case RESP_MORE:
		return KVC_TIMEOUT;
	default:
		kvc_error_set(conn->error_text, "not a RESP reply");
		return KVC_PROTOCOL;
	}
}

int kvc_stream_next(struct kvc_stream *stream, bool pushes, unsigned *fills,
		    const struct kvc_reply **reply)
{
	struct kvc_conn *conn = &stream->client->conn;
	for (;;) {
		size_t nodes = 0;
		conn->in_start += conn->reply_bytes;
		conn->reply_bytes = 0;
		int status = stream_measure(conn, &nodes);
		if (status == KVC_OK) {
			status = kvc_reply_build(conn, nodes, reply);
			if (status != KVC_OK) {
				return status;
			}
			if (kvc_conn_is_rejected(conn, *reply)) {
				return KVC_UNREACHABLE;
			}
			bool push = (*reply)->type == KVC_REPLY_PUSH;
			if ((push && !pushes) || (!push && conn->skip > 0)) {
				conn->skip -= push ? 0 : 1;
				continue; // asked for by nobody, or by the connection itself
			}
			conn->proved = true;
			conn->pause_ns = 0;
			return KVC_OK;
		}
		if (status != KVC_TIMEOUT) {
			return status;
		}
		if (stream->drained && !stream->send_broken) {
			return KVC_TIMEOUT;
		}
		// unreached: takes a peer that writes as fast as 32 buffers are read.
		if (*fills == 0) {
			return KVC_BUSY;
		}
		(*fills)--;
		status = kvc_io_fill(conn, 0);
		stream->drained = status == KVC_OK && conn->in_end < conn->in_capacity;
		// unreached: a Unix socket whose peer reads no more has ended.
		if (status == KVC_TIMEOUT && stream->send_broken) {
			return KVC_UNKNOWN; // nothing can be asked, nothing is being said
		}
		if (status != KVC_OK) {
			return status;
		}
	}
}

void kvc_stream_forget(struct kvc_stream *stream, int epoll_fd, bool orphan)
{
	kvc_client_after_fork(stream->client); // closes this process's copy of the socket
	stream->epoll_fd = epoll_fd;
	stream->wants_out = stream->send_broken = false;
	stream->client->conn.pause_ns = 0;
	if (orphan) {
		stream->out = (struct kvc_buffer){ .data = NULL };
	}
	kvc_stream_clear(stream);
}

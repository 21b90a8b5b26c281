// SPDX-License-Identifier: MIT
//
// One connection: opened when it is needed, replaced once when it turns out stale before anything
// was sent, given up with the exact result when it breaks later, and not tried again before its
// pause is over. What "was sent" means decides between UNREACHABLE (kvd never got a whole request:
// safe to repeat) and UNKNOWN.
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libclient/internal.h"

uint64_t kvc_now_ns(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now); // cannot fail with this clock
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

uint64_t kvc_deadline_ns(uint32_t timeout_ms)
{
	return kvc_now_ns() + (uint64_t)timeout_ms * 1000000;
}

void kvc_conn_init(struct kvc_conn *conn, bool takes_fds)
{
	*conn = (struct kvc_conn){ .fd = -1, .takes_fds = takes_fds };
	conn->random = kvc_now_ns() ^ (uint64_t)(uintptr_t)conn ^ (uint64_t)getpid() << 32;
}

void kvc_conn_drop(struct kvc_conn *conn)
{
	if (conn->fd >= 0 && kvc_io_is_ours(conn)) {
		close(conn->fd);
	}
	conn->fd = -1;
	for (unsigned i = 0; i < conn->fds_count; i++) {
		// unreached: attaching forgets its descriptors before the connection ends.
		if (conn->fds[i] >= 0) {
			close(conn->fds[i]);
		}
	}
	conn->fds_count = 0;
	conn->in_start = conn->in_end = 0;
	conn->reply_bytes = 0;
	conn->measure = (struct resp_reply_state){ 0 };
	conn->skip = 0;
	conn->lost += conn->sent;
	conn->sent = 0;
	conn->sync_lost = conn->sync_lost || conn->unsynced;
	conn->unsynced = false;
	conn->proved = false;
}

void kvc_conn_free(struct kvc_conn *conn)
{
	kvc_conn_drop(conn);
	free(conn->in);
	free(conn->nodes);
	kvc_buffer_free(&conn->frame.buffer);
	conn->in = NULL;
	conn->nodes = NULL;
}

void kvc_conn_back_off(const kvc *client, struct kvc_conn *conn)
{
	uint64_t min_ns = (uint64_t)client->options.reconnect_min_ms * 1000000;
	uint64_t max_ns = (uint64_t)client->options.reconnect_max_ms * 1000000;
	conn->pause_ns = conn->pause_ns == 0 ? min_ns : conn->pause_ns * 2;
	if (conn->pause_ns > max_ns) {
		conn->pause_ns = max_ns;
	}
	// Half fixed, half random: many clients of a kvd that died do not come back in step.
	conn->random = conn->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	uint64_t half = conn->pause_ns / 2; // of a millisecond at least
	conn->next_attempt_ns = kvc_now_ns() + half + (conn->random >> 33) % half;
}

// CLIENT SETNAME as the first request of a new connection; its reply is skipped.
static bool conn_introduce(const kvc *client, struct kvc_conn *conn)
{
	struct kvc_frame frame = { 0 };
	kvc_frame_args(&frame, 3);
	kvc_frame_text(&frame, "CLIENT");
	kvc_frame_text(&frame, "SETNAME");
	kvc_frame_text(&frame, client->name);
	struct iovec iov = { .iov_base = frame.buffer.data, .iov_len = frame.buffer.bytes };
	bool sent_any;
	bool sent = !frame.buffer.failed && kvc_io_send(conn, &iov, 1, 0, &sent_any) == KVC_OK;
	kvc_buffer_free(&frame.buffer);
	conn->skip = sent ? 1 : 0;
	return sent;
}

// The connection broke before kvd ever answered on it: what it may have said first becomes the text
// and the result, KVC_OK if it said nothing. Drops the connection.
static int conn_last_words(kvc *client, struct kvc_conn *conn)
{
	const struct kvc_reply *reply;
	int status = KVC_OK;
	conn->skip = 0; // an answer to SETNAME would be no error
	while (kvc_io_fill(conn, 0) == KVC_OK) {
	}
	if (conn->in_end > conn->in_start) {
		status = kvc_conn_reply(client, conn, 0, &reply);
	}
	if (conn->fd < 0) {
		// Turned away, or nonsense; of half a reply nothing follows.
		return status == KVC_UNKNOWN ? KVC_OK : status;
	}
	// unreached: what failed has no descriptor any more.
	if (status == KVC_OK && conn->in_end > conn->in_start && reply->type == KVC_REPLY_ERROR) {
		status = kvc_error_reply(conn, reply);
	} else {
		status = KVC_OK;
		kvc_error_place(client, conn);
	}
	kvc_conn_drop(conn);
	kvc_conn_back_off(client, conn);
	return status;
}

int kvc_conn_ensure(kvc *client, struct kvc_conn *conn, uint64_t deadline_ns)
{
	if (conn->fd >= 0) {
		if (kvc_io_is_ours(conn)) {
			return KVC_OK;
		}
		kvc_conn_drop(conn);
	}
	if (conn->pause_ns != 0 && kvc_now_ns() < conn->next_attempt_ns) {
		return KVC_UNREACHABLE; // error_text still has the reason of the last attempt
	}
	uint64_t connect_ns = kvc_deadline_ns(client->options.connect_timeout_ms);
	int status =
		kvc_io_connect(client, conn, deadline_ns < connect_ns ? deadline_ns : connect_ns);
	if (status != KVC_OK) {
		kvc_conn_back_off(client, conn);
	} else if (client->name && !conn_introduce(client, conn)) {
		(void)conn_last_words(client, conn); // for the text
		status = KVC_UNREACHABLE;
	} else if (conn == &client->conn) {
		kvc_attachment_doubt(client);
	}
	return status;
}

static int conn_send_once(struct kvc_conn *conn, uint64_t deadline_ns, bool *sent_any)
{
	const struct kvc_frame *frame = &conn->frame;
	struct iovec iov[3];
	int count = 0;
	size_t first = frame->long_data ? frame->long_at : frame->buffer.bytes;
	iov[count++] = (struct iovec){ .iov_base = frame->buffer.data, .iov_len = first };
	if (frame->long_data) {
		iov[count++] = (struct iovec){ .iov_base = (void *)(uintptr_t)frame->long_data,
					       .iov_len = frame->long_bytes };
		iov[count++] = (struct iovec){ .iov_base = frame->buffer.data + first,
					       .iov_len = frame->buffer.bytes - first };
	}
	return kvc_io_send(conn, iov, count, deadline_ns, sent_any);
}

int kvc_conn_send(kvc *client, struct kvc_conn *conn, uint64_t deadline_ns)
{
	if (conn->frame.buffer.failed) {
		kvc_error_set(conn->error_text, "out of memory for a request");
		return KVC_NO_MEMORY;
	}
	for (;;) {
		if (conn->takes_fds && !kvc_io_is_ours(conn)) {
			// only kvc_link_ensure() opens the link: it attaches
			return KVC_UNREACHABLE;
		}
		int status = kvc_conn_ensure(client, conn, deadline_ns);
		if (status != KVC_OK) {
			return status;
		}
		bool sent_any = false;
		status = conn_send_once(conn, deadline_ns, &sent_any);
		if (status == KVC_OK) {
			return KVC_OK;
		}
		bool proved = conn->proved;
		if (!proved && status == KVC_UNREACHABLE) {
			int words = conn_last_words(client, conn);
			return words != KVC_OK ? words : status;
		}
		kvc_error_place(client, conn);
		kvc_conn_drop(conn);
		if (!proved) {
			kvc_conn_back_off(client, conn);
		}
		// Stale: the peer closed while the connection was idle. Nothing left, so once more.
		bool stale = proved && !sent_any && conn->lost == 0 && status == KVC_UNREACHABLE;
		if (!stale || conn->takes_fds) {
			return status;
		}
	}
}

// Takes the next whole reply out of the input, receiving until the deadline.
static int conn_next_reply(struct kvc_conn *conn, uint64_t deadline_ns, size_t *nodes)
{
	for (;;) {
		enum resp_result result = RESP_MORE;
		if (conn->in_end > conn->in_start) {
			result = resp_measure_reply(&conn->measure, conn->in + conn->in_start,
						    conn->in_end - conn->in_start,
						    KVS_VALUE_BYTES_MAX, &conn->reply_bytes, nodes);
		}
		if (result == RESP_COMPLETE) {
			return KVC_OK;
		}
		if (result != RESP_MORE) {
			kvc_error_set(conn->error_text, "not a RESP reply");
			return KVC_PROTOCOL;
		}
		int status = kvc_io_fill(conn, deadline_ns);
		if (status != KVC_OK) {
			return status;
		}
	}
}

bool kvc_conn_is_rejected(struct kvc_conn *conn, const struct kvc_reply *reply)
{
	static const char many[] = "ERR max number of clients", memory[] = "ERR kvd is out of mem";
	if (conn->proved || reply->type != KVC_REPLY_ERROR ||
	    (strncmp(reply->text, many, sizeof(many) - 1) != 0 &&
	     strncmp(reply->text, memory, sizeof(memory) - 1) != 0)) {
		return false;
	}
	const char *remedy =
		reply->text[4] == 'm' ? "maxclients and limit of open files" : "memory";
	kvc_error_set(conn->error_text,
		      "it turned this connection away: %s. Close other clients, or raise its %s",
		      reply->text, remedy);
	return true;
}

int kvc_conn_reply(kvc *client, struct kvc_conn *conn, uint64_t deadline_ns,
		   const struct kvc_reply **reply)
{
	for (;;) {
		conn->in_start += conn->reply_bytes;
		conn->reply_bytes = 0;
		size_t nodes = 0;
		int status = conn_next_reply(conn, deadline_ns, &nodes);
		if (status == KVC_OK) {
			status = kvc_reply_build(conn, nodes, reply);
		}
		if (status == KVC_TIMEOUT && deadline_ns == 0) {
			return status;
		}
		if (status == KVC_OK && kvc_conn_is_rejected(conn, *reply)) {
			status = KVC_UNREACHABLE;
		}
		if (status != KVC_OK) {
			bool proved = conn->proved;
			kvc_error_place(client, conn);
			kvc_conn_drop(conn);
			if (!proved) {
				kvc_conn_back_off(client, conn);
			}
			return status;
		}
		if ((*reply)->type == KVC_REPLY_PUSH) {
			continue; // not an answer to anything that was asked
		}
		if (conn->skip > 0) {
			conn->skip--;
			continue;
		}
		conn->proved = true;
		conn->unsynced = true;
		conn->pause_ns = 0;
		return KVC_OK;
	}
}

int kvc_conn_request(kvc *client, struct kvc_conn *conn, const struct kvc_reply **reply)
{
	uint64_t deadline_ns = kvc_deadline_ns(client->options.request_timeout_ms);
	int status = kvc_conn_send(client, conn, deadline_ns);
	return status == KVC_OK ? kvc_conn_reply(client, conn, deadline_ns, reply) : status;
}

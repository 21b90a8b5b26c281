// SPDX-License-Identifier: MIT
//
// The system calls under a connection: connect, send, receive, each with a deadline on the
// monotonic clock and each ready to find that the descriptor is not ours any more.
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libclient/internal.h"

#define IO_READ_BYTES_MIN (16u << 10)
#define IO_KEEP_BYTES (1u << 20) // an empty input buffer keeps at most this much memory
#define IO_BACKLOG_PAUSE_MS 2

bool kvc_io_is_ours(const struct kvc_conn *conn)
{
	struct stat status;
	return conn->fd >= 0 && fstat(conn->fd, &status) == 0 && S_ISSOCK(status.st_mode) &&
	       // unreached: all sockets are of one device.
	       status.st_dev == conn->fd_device && status.st_ino == conn->fd_inode;
}

// Waits for `events`. OK, or TIMEOUT. An error of the socket counts as ready: the next call tells
// it.
static int io_wait(const struct kvc_conn *conn, short events, uint64_t deadline_ns)
{
	for (;;) {
		uint64_t now_ns = kvc_now_ns();
		if (deadline_ns <= now_ns) {
			return KVC_TIMEOUT;
		}
		uint64_t left_ms = (deadline_ns - now_ns + 999999) / 1000000;
		struct pollfd poll_fd = { .fd = conn->fd, .events = events };
		int ready = poll(&poll_fd, 1, left_ms > 60000 ? 60000 : (int)left_ms);
		if (ready > 0) {
			return KVC_OK;
		}
		// unreached: Linux has no EAGAIN here.
		if (ready < 0 && errno != EINTR && errno != EAGAIN) {
			return KVC_OK;
		}
	}
}

int kvc_io_connect(kvc *client, struct kvc_conn *conn, uint64_t deadline_ns)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, client->socket_path, strlen(client->socket_path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat status;
	// unreached: a socket that was made has a status.
	if (fd < 0 || fstat(fd, &status) != 0) {
		int error = errno;
		// unreached: as above.
		if (fd >= 0) {
			close(fd);
		}
		kvc_error_set(conn->error_text, "socket: %s", strerror(error));
		errno = error;
		return KVC_SYSTEM;
	}
	while (connect(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) != 0) {
		int error = errno;
		if (error == EINTR) {
			continue;
		}
		if (error == EAGAIN && kvc_now_ns() < deadline_ns) {
			// The listener's queue is full, and a Unix socket cannot be polled for room
			// in it.
			(void)poll(NULL, 0, IO_BACKLOG_PAUSE_MS);
			continue;
		}
		close(fd);
		kvc_error_connect(client, conn, error);
		errno = error == EAGAIN ? ETIMEDOUT : error;
		return KVC_UNREACHABLE; // also for lack of time: nothing was sent
	}
	conn->fd = fd;
	conn->fd_device = status.st_dev;
	conn->fd_inode = status.st_ino;
	return KVC_OK;
}

// Drops what was sent from the front of an iovec array.
static void io_advance(struct iovec **iov, int *count, size_t sent)
{
	while (*count > 0 && sent >= (*iov)->iov_len) {
		sent -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + sent;
		(*iov)->iov_len -= sent;
	}
}

int kvc_io_send(struct kvc_conn *conn, struct iovec *iov, int count, uint64_t deadline_ns,
		bool *sent_any)
{
	*sent_any = false;
	io_advance(&iov, &count, 0);
	while (count > 0) {
		struct msghdr message = { .msg_iov = iov, .msg_iovlen = (size_t)count };
		ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent >= 0) {
			// unreached: a stream takes a byte or says EAGAIN.
			*sent_any = *sent_any || sent > 0;
			io_advance(&iov, &count, (size_t)sent);
			continue;
		}
		if (errno == EINTR) {
			continue;
		}
		if (errno != EAGAIN) {
			kvc_error_set(conn->error_text, "send: %s", strerror(errno));
			return KVC_UNREACHABLE;
		}
		// The reply to an earlier part may be what kvd wants to be rid of first: take it
		// in.
		int status = io_wait(conn, POLLIN | POLLOUT, deadline_ns);
		if (status != KVC_OK) {
			kvc_error_set(conn->error_text,
				      "send: kvd took no more before the deadline");
			return status;
		}
		status = kvc_io_fill(conn, 0);
		if (status != KVC_OK && status != KVC_TIMEOUT) {
			return status == KVC_UNKNOWN ? KVC_UNREACHABLE : status;
		}
	}
	return KVC_OK;
}

// Makes room for at least IO_READ_BYTES_MIN more bytes of input.
static bool io_reserve(struct kvc_conn *conn)
{
	if (conn->in_start == conn->in_end) {
		conn->in_start = conn->in_end = 0;
		if (conn->in_capacity > IO_KEEP_BYTES) {
			free(conn->in);
			conn->in = NULL;
			conn->in_capacity = 0;
		}
	}
	if (conn->in_capacity - conn->in_end >= IO_READ_BYTES_MIN) {
		return true;
	}
	size_t bytes = conn->in_end - conn->in_start;
	if (conn->in_start > 0 && conn->in_start >= conn->in_capacity / 2) {
		memmove(conn->in, conn->in + conn->in_start, bytes);
		conn->in_start = 0;
		conn->in_end = bytes;
		if (conn->in_capacity - bytes >= IO_READ_BYTES_MIN) {
			return true;
		}
	}
	size_t capacity = conn->in_capacity * 2 + IO_READ_BYTES_MIN;
	char *in = realloc(conn->in, capacity);
	if (!in) {
		return false;
	}
	conn->in = in;
	conn->in_capacity = capacity;
	return true;
}

static void io_take_fds(struct kvc_conn *conn, struct msghdr *message)
{
	for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control;
	     control = CMSG_NXTHDR(message, control)) {
		// unreached: nothing else was asked for on this socket.
		if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) {
			continue;
		}
		size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(fd));
			if (conn->fds_count < KVC_FDS_MAX) {
				conn->fds[conn->fds_count++] = fd;
			} else {
				close(fd);
			}
		}
	}
}

int kvc_io_fill(struct kvc_conn *conn, uint64_t deadline_ns)
{
	if (!io_reserve(conn)) {
		kvc_error_set(conn->error_text, "out of memory for a reply");
		return KVC_NO_MEMORY;
	}
	for (;;) {
		struct iovec iov = { .iov_base = conn->in + conn->in_end,
				     .iov_len = conn->in_capacity - conn->in_end };
		union {
			char bytes[CMSG_SPACE(KVC_FDS_MAX * sizeof(int))];
			struct cmsghdr align;
		} control;
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
		if (conn->takes_fds) {
			message.msg_control = control.bytes;
			message.msg_controllen = sizeof(control.bytes);
		}
		ssize_t got = recvmsg(conn->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (got > 0) {
			conn->in_end += (size_t)got;
			if (conn->takes_fds) {
				io_take_fds(conn, &message);
			}
			return KVC_OK;
		}
		if (got == 0) {
			kvc_error_set(conn->error_text, "kvd closed the connection");
			return KVC_UNKNOWN;
		}
		if (errno == EINTR) {
			continue;
		}
		if (errno != EAGAIN) {
			kvc_error_set(conn->error_text, "receive: %s", strerror(errno));
			return KVC_UNKNOWN;
		}
		if (deadline_ns == 0) {
			return KVC_TIMEOUT; // nobody meant to wait: no text
		}
		if (io_wait(conn, POLLIN, deadline_ns) != KVC_OK) {
			kvc_error_set(conn->error_text, "no reply before the deadline");
			return KVC_TIMEOUT;
		}
	}
}

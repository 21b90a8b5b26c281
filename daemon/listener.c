// SPDX-License-Identifier: MIT
//
// Binding, accepting, refusing. A descriptor is kept in reserve: when the process has no other
// left, it is given up to accept the next connection and tell it so, instead of leaving it to
// hang in the queue while epoll reports it for ever.

#include "daemon/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"

#define LISTENER_ACCEPTS_A_TURN 64
#define LISTENER_BACKLOG 1024
#define LISTENER_PAUSE_NS UINT64_C(100000000)

struct listener {
	struct kvd *kvd;
	struct session_shared *sessions;
	struct loop_source source;
	struct loop_timer pause; // nothing can be accepted now: try again later
	int reserve_fd;
	dev_t device; // of the socket file, so that only our own is removed
	ino_t inode;
	char path[KVS_SOCKET_PATH_BYTES_MAX + 1];
};

static void listener_refuse(struct listener *listener, int fd, const char *text)
{
	struct iovec piece = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	ssize_t n = listener->kvd->seam->sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)n; // a courtesy
	close(fd);
	session_count_up(listener->sessions, KVS_COUNTER_connections_rejected, 1);
}

static void listener_pause_over(struct loop_timer *timer, uint64_t now_ns)
{
	(void)now_ns;
	struct listener *listener =
		(struct listener *)(void *)((char *)timer - offsetof(struct listener, pause));
	if (loop_modify(listener->kvd->loop, &listener->source, EPOLLIN) != 0) {
		log_error("epoll: cannot listen again: %m");
	}
}

/// Level-triggered epoll would report the waiting connection again and again.
static void listener_pause(struct listener *listener)
{
	struct loop *loop = listener->kvd->loop;
	if (loop_timer_set(loop, &listener->pause, loop_now_ns(loop) + LISTENER_PAUSE_NS) &&
	    loop_modify(loop, &listener->source, 0) != 0) {
		log_error("epoll: cannot pause: %m");
	}
}

/// The process (or the system) has no descriptor left.
static void listener_out_of_descriptors(struct listener *listener)
{
	log_error("no file descriptor left (%m): a connection is refused; raise the limit "
		  "(LimitNOFILE=, ulimit -n) or lower maxclients");
	if (listener->reserve_fd >= 0) {
		close(listener->reserve_fd);
		int fd = listener->kvd->seam->accept4(listener->source.fd, NULL, NULL,
						      SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			listener_refuse(listener, fd, "-ERR max number of clients reached\r\n");
		}
		listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			return;
		}
	} else {
		listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	listener_pause(listener);
}

static void listener_take(struct listener *listener, int fd)
{
	session_count_up(listener->sessions, KVS_COUNTER_connections_received, 1);
	if (session_count(listener->sessions) >= listener->kvd->config.clients_max) {
		log_warning(
			"%llu clients are connected, the limit (maxclients): one more is refused",
			(unsigned long long)listener->kvd->config.clients_max);
		listener_refuse(listener, fd, "-ERR max number of clients reached\r\n");
		return;
	}
	if (!session_open(listener->sessions, fd)) {
		listener_refuse(listener, fd, "-ERR kvd is out of memory\r\n");
	}
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	(void)events;
	struct listener *listener =
		(struct listener *)(void *)((char *)source - offsetof(struct listener, source));
	for (int i = 0; i < LISTENER_ACCEPTS_A_TURN; i++) {
		int fd = listener->kvd->seam->accept4(source->fd, NULL, NULL,
						      SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			listener_take(listener, fd);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno == EMFILE || errno == ENFILE) {
			listener_out_of_descriptors(listener);
			return;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			log_error("cannot accept a connection: %m");
			listener_pause(listener);
			return;
		}
	}
}

__attribute__((format(printf, 4, 5))) static int
listener_fail(int error, char *text, size_t text_bytes, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, text_bytes, format, args);
	va_end(args);
	return -error;
}

static int listener_set_path(struct listener *listener, char *text, size_t text_bytes)
{
	const struct config *config = &listener->kvd->config;
	bool given = config->socket_path && config->socket_path[0];
	int n = snprintf(listener->path, sizeof(listener->path), "%s%s",
			 given ? config->socket_path : config->dir, given ? "" : "/kvd.sock");
	if (n < 0 || (size_t)n >= sizeof(listener->path)) {
		return listener_fail(ENAMETOOLONG, text, text_bytes,
				     "the socket path has %d bytes, the limit is %u: choose a "
				     "shorter one with --socket",
				     n, KVS_SOCKET_PATH_BYTES_MAX);
	}
	return 0;
}

/// Somebody's socket file is in the way: removed if nobody answers at it.
static int listener_clear_path(struct listener *listener, const struct sockaddr_un *address,
			       char *text, size_t text_bytes)
{
	struct stat found;
	if (lstat(listener->path, &found) != 0) {
		return errno == ENOENT ? 0 : -errno;
	}
	if (!S_ISSOCK(found.st_mode)) {
		return listener_fail(EEXIST, text, text_bytes,
				     "%s exists and is not a socket: move it away or choose "
				     "another path with --socket",
				     listener->path);
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return -errno;
	}
	int connected = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	int error = errno;
	close(fd);
	if (connected == 0 || error != ECONNREFUSED) {
		return listener_fail(EADDRINUSE, text, text_bytes,
				     "another process answers at %s: stop it or choose another "
				     "path with --socket",
				     listener->path);
	}
	log_notice("removing the socket %s that a former kvd left behind", listener->path);
	return listener->kvd->seam->unlink(listener->path) == 0 || errno == ENOENT ? 0 : -errno;
}

static int listener_bind(struct listener *listener, int fd, char *text, size_t text_bytes)
{
	mode_t mode = (mode_t)listener->kvd->config.socket_mode;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, listener->path, strlen(listener->path));
	int error = listener_clear_path(listener, &address, text, text_bytes);
	if (error != 0) {
		return error;
	}
	// The file appears with at most this mode, then gets exactly it whatever the umask is.
	if (fchmod(fd, mode) != 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
	    chmod(listener->path, mode) != 0) {
		return -errno;
	}
	struct stat made;
	if (lstat(listener->path, &made) != 0) {
		return -errno;
	}
	listener->device = made.st_dev;
	listener->inode = made.st_ino;
	return listen(fd, LISTENER_BACKLOG) == 0 ? 0 : -errno;
}

static void listener_turn(void *context, uint64_t now_ns)
{
	struct listener *listener = context;
	session_shared_turn(listener->sessions, now_ns);
}

static uint64_t listener_next_ns(void *context)
{
	const struct listener *listener = context;
	return session_shared_next_ns(listener->sessions);
}

static int listener_start(struct listener *listener, char *text, size_t text_bytes)
{
	struct kvd *kvd = listener->kvd;
	listener->sessions = session_shared_create(kvd, listener);
	if (!listener->sessions) {
		return -ENOMEM;
	}
	int error = listener_set_path(listener, text, text_bytes);
	if (error != 0) {
		return error;
	}
	listener->source.ready = listener_ready;
	listener->pause.due = listener_pause_over;
	listener->source.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (listener->source.fd < 0 || listener->reserve_fd < 0) {
		return -errno;
	}
	error = listener_bind(listener, listener->source.fd, text, text_bytes);
	if (error != 0) {
		return error;
	}
	error = loop_add(kvd->loop, &listener->source, EPOLLIN);
	if (error != 0) {
		return error;
	}
	return loop_hook(kvd->loop, listener_turn, listener_next_ns, listener) ? 0 : -ENOSPC;
}

int listener_open(struct listener **out, struct kvd *kvd, char *error, size_t error_bytes)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	if (!listener) {
		return listener_fail(ENOMEM, error, error_bytes, "out of memory");
	}
	listener->kvd = kvd;
	listener->source.fd = -1;
	listener->reserve_fd = -1;
	error[0] = '\0';
	int result = listener_start(listener, error, error_bytes);
	if (result != 0) {
		if (error[0] == '\0') {
			const char *remedy = result == -ENOENT
						     ? ": create its folder or choose another path "
						       "with --socket"
						     : "";
			(void)listener_fail(-result, error, error_bytes,
					    "cannot listen at the socket %s: %s%s", listener->path,
					    strerrordesc_np(-result), remedy);
		}
		if (listener->source.fd >= 0) {
			close(listener->source.fd);
			listener->source.fd = -1;
		}
		listener_close(listener);
		return result;
	}
	*out = listener;
	return 0;
}

void listener_shut(struct listener *listener)
{
	if (listener->source.fd < 0) {
		return;
	}
	loop_timer_cancel(listener->kvd->loop, &listener->pause);
	loop_remove(listener->kvd->loop, &listener->source);
	close(listener->source.fd);
	listener->source.fd = -1;
	struct stat found;
	if (lstat(listener->path, &found) == 0 && found.st_dev == listener->device &&
	    found.st_ino == listener->inode && listener->kvd->seam->unlink(listener->path) != 0) {
		log_warning("cannot remove the socket %s: %m", listener->path);
	}
}

void listener_close(struct listener *listener)
{
	if (!listener) {
		return;
	}
	listener_shut(listener);
	if (listener->sessions) {
		session_shared_finish(listener->sessions);
	}
	session_shared_destroy(listener->sessions);
	if (listener->reserve_fd >= 0) {
		close(listener->reserve_fd);
	}
	free(listener);
}

struct session_shared *listener_sessions(const struct listener *listener)
{
	return listener->sessions;
}

const char *listener_path(const struct listener *listener)
{
	return listener->path;
}

// SPDX-License-Identifier: MIT
//
// What kvd's calls on sockets do here: as much as there is, as much as there is room for, and now
// and then an interruption.
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shm/newer_linux.h"
#include "tests/simulation/net.h"

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	(void)fd;
	(void)address;
	(void)length;
	(void)flags;
	if (sim_fault(50)) {
		errno = EINTR;
		return -1;
	}
	struct sim_conn *conn = sim_conn_accept();
	if (conn == NULL) {
		errno = EAGAIN;
		return -1;
	}
	conn->fd = sim_fd_new(FD_CONN);
	sim_fd_find(conn->fd)->conn = conn;
	sim_note("accept %d", conn->fd);
	return conn->fd;
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
	(void)flags;
	struct sim_conn *conn = sim_fd_find(fd)->conn;
	if (sim_fault(200)) {
		errno = EINTR;
		return -1;
	}
	if (conn->reset) {
		errno = ECONNRESET;
		return -1;
	}
	size_t count = conn->arrived.bytes;
	if (count == 0 && !conn->closed) {
		errno = EAGAIN;
		return -1;
	}
	struct iovec *piece = message->msg_iov;
	count = count < piece->iov_len ? count : piece->iov_len;
	if (count > 0) {
		memcpy(piece->iov_base, conn->arrived.data, count);
		sim_text_drop(&conn->arrived, count);
	}
	message->msg_flags = 0;
	sim_note("recv %d: %zu", fd, count);
	return (ssize_t)count;
}

static void conn_take_fds(struct sim_conn *conn, const struct msghdr *message)
{
	struct cmsghdr *head = message->msg_controllen > 0 ? CMSG_FIRSTHDR(message) : NULL;
	if (head == NULL || head->cmsg_type != SCM_RIGHTS) {
		return;
	}
	int fds[CONN_FDS_MAX];
	size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(head), count * sizeof(int));
	for (size_t i = 0; i < count && conn->fds_count < CONN_FDS_MAX; i++) {
		conn->fds[conn->fds_count++] = fcntl(fds[i], F_DUPFD_CLOEXEC, SIM_KEPT_FD);
	}
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
	(void)flags;
	struct sim_conn *conn = sim_fd_find(fd)->conn;
	if (sim_chance(sim.plan.yield_chance)) {
		sim_give_way(SIM_RUNS, NULL, 0);
	}
	if (conn->closed) {
		errno = EPIPE;
		return -1;
	}
	size_t room = conn->room > conn->back.bytes ? conn->room - conn->back.bytes : 0;
	if (room == 0 || sim_fault(200)) {
		errno = room == 0 ? EAGAIN : EINTR;
		return -1;
	}
	conn_take_fds(conn, message);
	size_t sent = 0;
	for (size_t i = 0; i < message->msg_iovlen && room > 0; i++) {
		size_t count = message->msg_iov[i].iov_len;
		count = count < room ? count : room;
		sim_text_add(&conn->back, message->msg_iov[i].iov_base, count);
		room -= count;
		sent += count;
	}
	sim_note("send %d: %zu", fd, sent);
	return (ssize_t)sent;
}

ssize_t __real_read(int fd, void *out, size_t bytes);
ssize_t __wrap_read(int fd, void *out, size_t bytes);
ssize_t __wrap_read(int fd, void *out, size_t bytes)
{
	struct sim_fd *entry = sim_fd_find(fd);
	if (entry == NULL || entry->kind == FD_DOOR) {
		return __real_read(fd, out, bytes);
	}
	if (entry->kind == FD_EVENT && entry->count > 0) {
		memcpy(out, &entry->count, sizeof(entry->count));
		entry->count = 0;
		return sizeof(entry->count);
	}
	if (entry->kind == FD_TIMER && entry->count > 0) {
		entry->count = 0;
		errno = ECANCELED;
		return -1;
	}
	if (entry->kind == FD_SIGNAL && sim.stop) {
		struct signalfd_siginfo info = { .ssi_signo = SIGTERM };
		memcpy(out, &info, sizeof(info));
		sim.stop = false;
		return sizeof(info);
	}
	errno = EAGAIN;
	return -1;
}

ssize_t __real_write(int fd, const void *bytes, size_t count);
ssize_t __wrap_write(int fd, const void *bytes, size_t count);
ssize_t __wrap_write(int fd, const void *bytes, size_t count)
{
	struct sim_fd *entry = sim_fd_find(fd);
	if (entry == NULL || entry->kind != FD_EVENT) {
		return __real_write(fd, bytes, count);
	}
	uint64_t more;
	memcpy(&more, bytes, sizeof(more));
	entry->count += more;
	entry->edge = true;
	return sizeof(more);
}

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *length);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *length);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
	const struct sim_fd *entry = sim_fd_find(fd);
	if (entry == NULL || entry->kind != FD_CONN) {
		return __real_getsockopt(fd, level, name, value, length);
	}
	struct sim_conn *conn = entry->conn;
	if (name == SO_PEERCRED) {
		struct ucred peer = { .pid = conn->pid, .uid = conn->uid, .gid = conn->uid };
		memcpy(value, &peer, sizeof(peer));
		return 0;
	}
	if (name == SO_PEERPIDFD && !*conn->dead) {
		int process = sim_fd_new(FD_PROCESS);
		sim_fd_find(process)->dead = conn->dead;
		memcpy(value, &process, sizeof(process));
		return 0;
	}
	errno = name == SO_PEERPIDFD ? ESRCH : ENOPROTOOPT;
	return -1;
}

int __real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	const struct sim_fd *entry = count == 1 ? sim_fd_find(fds[0].fd) : NULL;
	if (entry == NULL || entry->kind == FD_DOOR) {
		return __real_poll(fds, count, timeout_ms);
	}
	uint32_t level = sim_fd_level(entry);
	fds[0].revents = level & EPOLLIN ? POLLIN : 0;
	return fds[0].revents != 0;
}

/// What the client has not read.
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
	const struct sim_fd *entry = sim_fd_find(fd);
	if (request != SIOCOUTQ || entry == NULL || entry->kind != FD_CONN) {
		errno = ENOTTY;
		return -1;
	}
	va_list args;
	va_start(args, request);
	int *bytes = va_arg(args, int *);
	va_end(args);
	*bytes = entry->conn->closed ? 0 : (int)entry->conn->back.bytes;
	return 0;
}

int __wrap_shutdown(int fd, int how);
int __wrap_shutdown(int fd, int how)
{
	(void)how; // both ways
	sim_fd_find(fd)->conn->gone = true;
	return 0;
}

// SPDX-License-Identifier: MIT
//
// Sockets as queues of bytes, and epoll over them. What a client sends arrives in pieces, when the
// seed says so; what kvd sends it may read late; either end may go at any time. Descriptors of the
// simulated kind have numbers far above real ones; the others (files, memfds, the socket that
// listens) go to the kernel.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "tests/simulation/net.h"

#define FD_FIRST 100000
#define FDS_MAX 512

static struct sim_fd table[FDS_MAX];
static struct sim_conn *waiting; // first that was not accepted

struct sim_fd *sim_fd_find(int fd)
{
	if (fd >= FD_FIRST && fd < FD_FIRST + FDS_MAX) {
		return &table[fd - FD_FIRST];
	}
	for (int i = 0; fd >= 0 && i < FDS_MAX; i++) {
		if (table[i].kind == FD_DOOR && table[i].real == fd) {
			return &table[i];
		}
	}
	return NULL;
}

int sim_fd_new(enum sim_fd_kind kind)
{
	for (int i = 0; i < FDS_MAX; i++) {
		if (table[i].kind == FD_FREE) {
			table[i] = (struct sim_fd){ .kind = kind };
			return FD_FIRST + i;
		}
	}
	sim_fail("kvd has more descriptors open than it needs");
}

static void fd_edge(int fd)
{
	struct sim_fd *entry = sim_fd_find(fd);
	if (entry != NULL) {
		entry->edge = true;
	}
}

uint32_t sim_fd_level(const struct sim_fd *fd)
{
	const struct sim_conn *conn = fd->conn;
	uint32_t level = 0;
	switch (fd->kind) {
	case FD_EVENT:
	case FD_TIMER:
		return fd->count > 0 ? EPOLLIN : 0;
	case FD_SIGNAL:
		return sim.stop ? EPOLLIN : 0;
	case FD_PROCESS:
		return *fd->dead ? EPOLLIN : 0;
	case FD_DOOR:
		return waiting != NULL ? EPOLLIN : 0;
	case FD_CONN:
		level |= conn->arrived.bytes > 0 || conn->closed ? EPOLLIN : 0u;
		level |= conn->closed ? EPOLLRDHUP | EPOLLHUP : 0u;
		level |= conn->reset ? (uint32_t)EPOLLERR : 0u;
		level |= conn->closed || conn->back.bytes < conn->room ? EPOLLOUT : 0u;
		return level;
	default:
		return 0;
	}
}

static uint32_t fd_told(const struct sim_fd *fd)
{
	if (!fd->watched || ((fd->events & (uint32_t)EPOLLET) && !fd->edge)) {
		return 0;
	}
	return sim_fd_level(fd) & (fd->events | EPOLLHUP | EPOLLERR);
}

struct sim_conn *sim_conn_accept(void)
{
	struct sim_conn *conn = waiting;
	waiting = conn != NULL ? conn->next : NULL;
	return conn;
}

bool sim_net_ready(void)
{
	for (int i = 0; i < FDS_MAX; i++) {
		if (table[i].watched && fd_told(&table[i]) != 0) {
			return true;
		}
	}
	return false;
}

void sim_net_forget(void)
{
	for (int i = 0; i < FDS_MAX; i++) {
		if (table[i].kind == FD_CONN) {
			table[i].conn->gone = true;
		}
		table[i] = (struct sim_fd){ 0 };
	}
	for (; waiting != NULL; waiting = waiting->next) {
		waiting->gone = true;
	}
}

struct sim_client *sim_client_of_fd(int fd)
{
	const struct sim_fd *entry = sim_fd_find(fd);
	return entry != NULL && entry->kind == FD_CONN ? entry->conn->client : NULL;
}

// ---- the client's side ----

struct sim_conn *sim_connect(int pid, uint32_t uid, bool *dead)
{
	bool open = false;
	for (int i = 0; i < FDS_MAX; i++) {
		open = open || (table[i].kind == FD_DOOR && table[i].watched);
	}
	if (!open) {
		return NULL;
	}
	struct sim_conn *conn = sim_alloc(sizeof(*conn));
	*conn = (struct sim_conn){ .pid = pid, .uid = uid, .dead = dead, .fd = -1 };
	conn->room = sim_chance(2) ? 65536 : 64 + sim_below(4000);
	struct sim_conn **last = &waiting;
	while (*last != NULL) {
		last = &(*last)->next;
	}
	*last = conn;
	return conn;
}

void sim_conn_owner(struct sim_conn *conn, struct sim_client *client)
{
	conn->client = client;
}

void sim_conn_send(struct sim_conn *conn, const void *bytes, size_t count)
{
	if (!conn->gone && !conn->closed) {
		sim_text_add(&conn->wire, bytes, count);
	}
}

void sim_text_drop(struct sim_text *text, size_t count)
{
	memmove(text->data, text->data + count, text->bytes - count);
	text->bytes -= count;
}

bool sim_conn_deliver(struct sim_conn *conn, bool all)
{
	if (conn->wire.bytes == 0 || conn->gone) {
		return false;
	}
	size_t count = conn->wire.bytes;
	if (!all && !sim_chance(2)) {
		count = 1 + sim_below(count < 100 || sim_chance(3) ? count : 100);
	}
	sim_text_add(&conn->arrived, conn->wire.data, count);
	sim_text_drop(&conn->wire, count);
	fd_edge(conn->fd);
	return true;
}

long sim_conn_take(struct sim_conn *conn, char *out, size_t count)
{
	size_t there = conn->back.bytes;
	if (there == 0) {
		return conn->gone ? -1 : 0;
	}
	count = count < there ? count : there;
	memcpy(out, conn->back.data, count);
	sim_text_drop(&conn->back, count);
	fd_edge(conn->fd);
	return (long)count;
}

unsigned sim_conn_fds(struct sim_conn *conn, int *fds)
{
	unsigned count = conn->fds_count;
	memcpy(fds, conn->fds, count * sizeof(*fds));
	conn->fds_count = 0;
	return count;
}

void sim_conn_close(struct sim_conn *conn, bool reset)
{
	conn->closed = true;
	conn->reset = reset;
	fd_edge(conn->fd);
}

void sim_process_ended(void)
{
	for (int i = 0; i < FDS_MAX; i++) {
		table[i].edge = table[i].edge || table[i].kind == FD_PROCESS;
	}
}

// ---- what kvd calls ----

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
	struct sim_fd *entry = sim_fd_find(fd);
	if (entry == NULL) {
		return __real_close(fd);
	}
	if (entry->kind == FD_FREE) {
		sim_fail("kvd closes descriptor %d, which it does not have", fd);
	}
	if (entry->kind == FD_CONN) {
		entry->conn->gone = true;
		entry->conn->fd = -1;
	}
	bool is_real = entry->kind == FD_DOOR;
	*entry = (struct sim_fd){ 0 };
	return is_real ? __real_close(fd) : 0;
}

int __wrap_epoll_create1(int flags);
int __wrap_epoll_create1(int flags)
{
	(void)flags;
	return sim_fd_new(FD_EPOLL);
}

int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags)
{
	(void)flags;
	int fd = sim_fd_new(FD_EVENT);
	sim_fd_find(fd)->count = count;
	return fd;
}

int __wrap_signalfd(int fd, const sigset_t *set, int flags);
int __wrap_signalfd(int fd, const sigset_t *set, int flags)
{
	(void)fd;
	(void)set;
	(void)flags;
	return sim_fd_new(FD_SIGNAL);
}

int __wrap_timerfd_create(int clock, int flags);
int __wrap_timerfd_create(int clock, int flags)
{
	(void)clock;
	(void)flags;
	if (!sim.plan.tells_clock) {
		errno = ENOSYS;
		return -1;
	}
	return sim_fd_new(FD_TIMER);
}

int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *at,
			   struct itimerspec *before);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *at,
			   struct itimerspec *before)
{
	(void)at;
	(void)before;
	bool good = sim_fd_find(fd) != NULL && (flags & TFD_TIMER_CANCEL_ON_SET) != 0;
	errno = good ? errno : EINVAL;
	return good ? 0 : -1;
}

void sim_net_clock_set(void)
{
	for (int i = 0; i < FDS_MAX; i++) {
		table[i].count += table[i].kind == FD_TIMER;
	}
}

int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
	(void)epoll;
	struct sim_fd *entry = sim_fd_find(fd);
	if (entry == NULL &&
	    what == EPOLL_CTL_ADD) { // the only real one is the socket that listens
		entry = sim_fd_find(sim_fd_new(FD_DOOR));
		entry->real = fd;
	}
	if (entry == NULL || entry->kind == FD_FREE || entry->watched != (what != EPOLL_CTL_ADD)) {
		errno = entry == NULL || entry->kind == FD_FREE ? EBADF
			: what == EPOLL_CTL_ADD			? EEXIST
								: ENOENT;
		return -1;
	}
	entry->watched = what != EPOLL_CTL_DEL;
	if (entry->watched) {
		entry->events = event->events;
		entry->data = event->data;
		entry->edge = true;
	} else if (entry->kind == FD_DOOR) {
		*entry = (struct sim_fd){ 0 };
	}
	return 0;
}

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int room, int timeout_ms);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int room, int timeout_ms)
{
	(void)epoll;
	uint64_t until_ns =
		timeout_ms < 0 ? SIM_NEVER : sim.mono_ns + (uint64_t)timeout_ms * 1000000u;
	if (timeout_ms != 0 && sim_sleep_is_cut(until_ns)) {
		return 0;
	}
	if (timeout_ms != 0) {
		sim_give_way(SIM_EPOLL, NULL, until_ns);
	} else if (sim_chance(4)) {
		sim_give_way(SIM_RUNS, NULL, 0);
	}
	int count = 0;
	unsigned first = (unsigned)sim_below(FDS_MAX);
	for (unsigned i = 0; i < FDS_MAX && count < room; i++) {
		struct sim_fd *entry = &table[(first + i) % FDS_MAX];
		uint32_t told = entry->watched ? fd_told(entry) : 0;
		if (told != 0) {
			entry->edge = false;
			events[count].events = told;
			events[count++].data = entry->data;
		}
	}
	return count;
}

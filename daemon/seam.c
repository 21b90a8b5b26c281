// SPDX-License-Identifier: MIT
//
// The real world behind the seam, and the crash points, which die the hardest way there is: SIGKILL
// runs no handler, flushes no buffer and leaves the files exactly as they are.

#include "daemon/seam.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "shm/atomics.h"

static uint64_t seam_clock(clockid_t clock, uint64_t units_a_second)
{
	struct timespec now;
	if (clock_gettime(clock, &now) != 0) {
		abort(); // these clocks always exist on Linux
	}
	return (uint64_t)now.tv_sec * units_a_second +
	       (uint64_t)now.tv_nsec / (UINT64_C(1000000000) / units_a_second);
}

static uint64_t seam_monotonic_ns(void)
{
	return seam_clock(CLOCK_MONOTONIC, UINT64_C(1000000000));
}

static uint64_t seam_thread_ns(void)
{
	return seam_clock(CLOCK_THREAD_CPUTIME_ID, UINT64_C(1000000000));
}

static uint64_t seam_wall_us(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now); // cannot fail with this clock
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t seam_wall_ms(void)
{
	return seam_clock(CLOCK_REALTIME, 1000);
}

static void seam_random_bytes(void *out, size_t bytes)
{
	unsigned char *at = out;
	while (bytes > 0) {
		ssize_t n = getrandom(at, bytes, 0);
		if (n < 0 && errno != EINTR) {
			abort(); // never for a valid buffer once the kernel's pool is ready
		}
		if (n > 0) {
			at += n;
			bytes -= (size_t)n;
		}
	}
}

static int seam_open(const char *path, int flags, mode_t mode)
{
	return open(path, flags, mode);
}

static int seam_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	return accept4(fd, address, length, flags);
}

const struct seam seam_system = {
	.monotonic_ns = seam_monotonic_ns,
	.thread_ns = seam_thread_ns,
	.wall_us = seam_wall_us,
	.wall_ms = seam_wall_ms,
	.random_bytes = seam_random_bytes,
	.read = read,
	.write = write,
	.recvmsg = recvmsg,
	.sendmsg = sendmsg,
	.writev = writev,
	.accept4 = seam_accept4,
	.open = seam_open,
	.fsync = fsync,
	.rename = rename,
	.unlink = unlink,
	.epoll_wait = epoll_wait,
};

static const char *const seam_crash_names[SEAM_CRASH_COUNT] = {
#define SEAM_X(name, help) [SEAM_CRASH_##name] = #name,
	SEAM_CRASH_POINTS(SEAM_X)
#undef SEAM_X
};

int seam_crash_armed;
static enum seam_crash_point seam_crash_where;
static uint64_t seam_crash_passes; // left; partner: the same line in other threads
static bool seam_crash_halts;

int seam_crash_arm(const char *text, bool halts)
{
	size_t name_bytes = strcspn(text, ":");
	long passes = 1;
	if (text[name_bytes] == ':') {
		char *end = NULL;
		passes = strtol(text + name_bytes + 1, &end, 10);
		if (*end != '\0' || passes < 1) {
			return -1;
		}
	}
	for (int i = 0; i < SEAM_CRASH_COUNT; i++) {
		if (strlen(seam_crash_names[i]) == name_bytes &&
		    memcmp(seam_crash_names[i], text, name_bytes) == 0) {
			seam_crash_where = (enum seam_crash_point)i;
			seam_crash_passes = (uint64_t)passes;
			seam_crash_halts = halts;
			seam_crash_armed = 1;
			return 0;
		}
	}
	return -1;
}

void seam_crash_slow(enum seam_crash_point point)
{
	if (point != seam_crash_where) {
		return;
	}
	// partner: the same line in other threads
	if (kvs_count_down(&seam_crash_passes) == 0) {
		(void)kill(getpid(), seam_crash_halts ? SIGSTOP : SIGKILL);
		if (seam_crash_halts) {
			return;
		}
		for (;;) {
			(void)pause();
		}
	}
}

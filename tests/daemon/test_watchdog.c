// SPDX-License-Identifier: MIT
//
// The watchdog's pings: as often as the environment asks, for this process only, never after the
// end, and never waited for.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/seam.h"
#include "daemon/watchdog.h"
#include "tests/tap/tap.h"

#define MILLISECOND UINT64_C(1000000)

static uint64_t clock_ns = 1000;
static struct seam seam;
static struct loop *loop;
static int manager_fd;

static uint64_t fake_clock(void)
{
	return clock_ns;
}

static int fake_wait(int epoll_fd, struct epoll_event *events, int count, int timeout_ms)
{
	(void)timeout_ms;
	return epoll_wait(epoll_fd, events, count, 0);
}

/// A manager's socket, named in the environment.
static void manager_open(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char name[64];
	int n = snprintf(name, sizeof(name), "@kvd-test-watchdog-%d", (int)getpid());
	memcpy(address.sun_path, name, (size_t)n);
	address.sun_path[0] = '\0';
	manager_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n);
	if (bind(manager_fd, (const struct sockaddr *)&address, length) != 0 ||
	    setenv("NOTIFY_SOCKET", name, 1) != 0) {
		abort();
	}
}

/// Pings that came since the last look, -1 if something else did.
static int pings(void)
{
	char text[64];
	int count = 0;
	ssize_t n;
	while ((n = recv(manager_fd, text, sizeof(text) - 1, 0)) >= 0) {
		text[n] = '\0';
		if (strcmp(text, "WATCHDOG=1") != 0) {
			return -1;
		}
		count++;
	}
	return count;
}

/// Turns of a millisecond each.
static int pings_in(unsigned milliseconds)
{
	for (unsigned i = 0; i < milliseconds; i++) {
		clock_ns += MILLISECOND;
		if (loop_turn(loop, 0) != 0) {
			return -1;
		}
	}
	return pings();
}

static int pings_with(const char *period, const char *pid)
{
	struct watchdog watchdog = { 0 };
	if (setenv("WATCHDOG_USEC", period, 1) != 0 ||
	    (pid ? setenv("WATCHDOG_PID", pid, 1) : unsetenv("WATCHDOG_PID")) != 0) {
		return -1;
	}
	watchdog_start(&watchdog, loop);
	int count = pings_in(30);
	watchdog_stop(&watchdog);
	int late = pings_in(30);
	return late == 0 ? count : -1;
}

/// Nobody reads: the loop goes on, and pings again when somebody does.
static void full(void)
{
	struct watchdog watchdog = { 0 };
	(void)setenv("WATCHDOG_USEC", "3000", 1);
	(void)unsetenv("WATCHDOG_PID");
	watchdog_start(&watchdog, loop);
	for (unsigned i = 0; i < 5000; i++) {
		clock_ns += MILLISECOND;
		(void)loop_turn(loop, 0);
	}
	int count = pings();
	ok(count > 0 && count < 5000, "what a manager does not read is not waited for");
	ok_int(pings_in(3), 3, "and it is pinged when it does again");
	watchdog_stop(&watchdog);
}

/// Clients, say, have taken all descriptors.
static void no_descriptors(void)
{
	struct watchdog watchdog = { 0 };
	struct rlimit before;
	(void)setenv("WATCHDOG_USEC", "3000", 1);
	(void)unsetenv("WATCHDOG_PID");
	watchdog_start(&watchdog, loop);
	if (getrlimit(RLIMIT_NOFILE, &before) != 0) {
		abort();
	}
	struct rlimit none = { .rlim_cur = 0, .rlim_max = before.rlim_max };
	if (setrlimit(RLIMIT_NOFILE, &none) != 0) {
		abort();
	}
	int count = pings_in(3);
	if (setrlimit(RLIMIT_NOFILE, &before) != 0) {
		abort();
	}
	ok_int(count, 4, "G: it is pinged when no descriptor is left");
	watchdog_stop(&watchdog);
}

int main(void)
{
	char own[16];
	(void)snprintf(own, sizeof(own), "%d", (int)getpid());
	log_init(LOG_LEVEL_ERROR);
	seam = seam_system;
	seam.monotonic_ns = fake_clock;
	seam.epoll_wait = fake_wait;
	manager_open();
	if (loop_create(&loop, &seam) != 0) {
		abort();
	}
	ok_int(pings_with("30000", NULL), 4, "one at once, then three a period, none behind it");
	ok_int(pings_with("30000", own), 4, "the same with our process id");
	ok_int(pings_with("30000", "1"), 0, "another process is meant");
	ok_int(pings_with("30000", "1x"), 0, "a process id that is none");
	ok_int(pings_with("0", NULL), 0, "no period");
	ok_int(pings_with("-5", NULL), 0, "a period that is no number");
	ok_int(pings_with("30000x", NULL), 0, "nor this");
	ok_int(pings_with("99999999999999999999", NULL), 0, "nor this");
	full();
	no_descriptors();
	loop_destroy(loop);
	(void)close(manager_fd);
	return tap_done();
}

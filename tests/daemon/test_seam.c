// SPDX-License-Identifier: MIT
//
// The seam's real functions, the crash points, the log and the service manager's notifications: the
// daemon's ground floor.

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/seam.h"
#include "tests/tap/tap.h"

static void test_functions(void)
{
	uint64_t first = seam_system.monotonic_ns();
	ok(seam_system.monotonic_ns() >= first, "the monotonic clock does not go back");
	uint64_t wall_ms = seam_system.wall_ms();
	int64_t off = (int64_t)(wall_ms / 1000) - (int64_t)time(NULL);
	ok(off >= -60 && off <= 1, "the wall clock is in milliseconds since 1970");
	unsigned char random[2][32] = { { 0 } };
	seam_system.random_bytes(random[0], 32);
	seam_system.random_bytes(random[1], 32);
	ok(memcmp(random[0], random[1], 32) != 0, "random bytes differ");
}

/// How a child ends that passes `passes` times through a crash point.
static int crash_status(const char *at, int passes)
{
	pid_t child = fork();
	if (child == 0) {
		if (seam_crash_arm(at, false) != 0) {
			_exit(2);
		}
		for (int i = 0; i < passes; i++) {
			SEAM_CRASH(commit_before); // another label: must not count
			SEAM_CRASH(commit_after);
		}
		_exit(0);
	}
	int status = -1;
	(void)waitpid(child, &status, 0);
	return status;
}

static void test_crash_points(void)
{
	int status = crash_status("commit_after", 1);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
	   "an armed point kills at its first pass");
	ok_int(crash_status("commit_after:3", 2), 0, "or not before its third");
	status = crash_status("commit_after:3", 3);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "but then");
	ok(seam_crash_arm("no_such_point", false) == -1 &&
		   seam_crash_arm("commit_after:", false) == -1 &&
		   seam_crash_arm("commit_after:0", false) == -1 &&
		   seam_crash_arm("commit_after:2x", false) == -1 &&
		   seam_crash_arm("", false) == -1 && seam_crash_armed == 0,
	   "what is not a label with a number is refused");
}

static void log_storm(void)
{
	for (int i = 0; i < 1000; i++) {
		log_warning("storm %d\n\x1b[1mtext", i);
	}
	log_info("below the level");
	log_error("another place: %0999d", 7);
}

/// What log_storm() writes.
static size_t captured(char *out, size_t bytes)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0) {
		abort();
	}
	int keep = dup(STDERR_FILENO);
	(void)dup2(ends[1], STDERR_FILENO);
	log_storm();
	(void)dup2(keep, STDERR_FILENO);
	close(keep);
	close(ends[1]);
	size_t at = 0;
	ssize_t n;
	while ((n = read(ends[0], out + at, bytes - 1 - at)) > 0) {
		at += (size_t)n;
	}
	close(ends[0]);
	out[at] = '\0';
	return at;
}

static unsigned count_of(const char *text, const char *what)
{
	unsigned count = 0;
	for (const char *at = text; (at = strstr(at, what)) != NULL; at++) {
		count++;
	}
	return count;
}

static void test_log(void)
{
	static char text[64 << 10];
	setenv("JOURNAL_STREAM", "8:1", 1);
	log_init(LOG_LEVEL_NOTICE);
	(void)captured(text, sizeof(text));
	ok_u64(count_of(text, "<4>storm "), 10, "G: one place writes ten lines of a storm");
	ok(strstr(text, "<3>another place") != NULL, "another place is not silenced by it");
	ok(strstr(text, "below the level") == NULL, "lines below the level are not written");
	ok(strchr(text, '\x1b') == NULL && strstr(text, "??[1mtext\n") != NULL,
	   "control characters are replaced");
	ok_u64(count_of(text, "\n"), 11, "a line that is too long is cut, not broken");
	unsetenv("JOURNAL_STREAM");
	log_init(LOG_LEVEL_ERROR);
	(void)captured(text, sizeof(text));
	unsigned year = 0, month = 0;
	ok(sscanf(text, "%4u-%2u-", &year, &month) == 2 && year >= 2020 && month <= 12 &&
		   strstr(text, " error: another place") != NULL && count_of(text, "\n") == 1,
	   "without a journal lines carry time and level");
}

static void test_notify(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char name[64];
	int n = snprintf(name, sizeof(name), "@kvd-test-notify-%d", (int)getpid());
	memcpy(address.sun_path, name, (size_t)n);
	address.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n);
	if (bind(fd, (const struct sockaddr *)&address, length) != 0) {
		abort();
	}
	setenv("NOTIFY_SOCKET", name, 1);
	notify_ready();
	notify_status("loading %d %%\nX=1", 42);
	notify_stopping();
	char got[3][64] = { { 0 } };
	for (int i = 0; i < 3; i++) {
		(void)recv(fd, got[i], sizeof(got[i]) - 1, 0);
	}
	ok_str(got[0], "READY=1", "ready");
	ok_str(got[1], "STATUS=loading 42 %", "a status is one line");
	ok_str(got[2], "STOPPING=1", "stopping");
	unsetenv("NOTIFY_SOCKET");
	notify_ready();
	ok(recv(fd, got[0], sizeof(got[0]), 0) < 0, "without a service manager nothing is sent");
	close(fd);
}

int main(void)
{
	test_functions();
	test_crash_points();
	test_log();
	test_notify();
	return tap_done();
}

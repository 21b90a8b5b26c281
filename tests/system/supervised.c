// SPDX-License-Identifier: MIT
//
// What kvd --supervise runs, with a stand-in for kvd: the supervisor execs its own program, so this
// one is both. As the child it connects to the test's socket, tells what it was given, and does
// what it is told line by line; so the test knows at each moment where the child is. The
// supervisor's clock stands in a file, and its waits pass at once or never.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/seam.h"
#include "daemon/signals.h"
#include "daemon/supervise.h"

static uint64_t *clock_ns; // shared by the supervisor, the child and the test
static bool waits_pass;
static int control = -1;

static uint64_t test_monotonic_ns(void)
{
	return *clock_ns;
}

/// Waits for events only, for as long as it takes; or, where waits pass, not at all: the clock
/// jumps to their end.
static int test_epoll_wait(int fd, struct epoll_event *events, int count, int timeout_ms)
{
	if (timeout_ms <= 0) {
		return epoll_wait(fd, events, count, timeout_ms);
	}
	int ready = epoll_wait(fd, events, count, waits_pass ? 0 : -1);
	if (ready == 0) {
		(void)fprintf(stderr, "waited %d ms\n", timeout_ms);
		*clock_ns += (uint64_t)timeout_ms * 1000000;
	}
	return ready;
}

/// Looks at signals only when a child has ended: so that its last message comes after the others
/// were read, and before its end is.
static ssize_t late_read(int fd, void *buffer, size_t bytes)
{
	siginfo_t info;
	(void)fprintf(stderr, "signals are late\n");
	(void)waitid(P_ALL, 0, &info, WEXITED | WNOWAIT); // there may be no child yet
	return read(fd, buffer, bytes);
}

static int supervisor(const char *waits, char *const arguments[])
{
	struct seam seam = seam_system;
	seam.monotonic_ns = test_monotonic_ns;
	seam.epoll_wait = test_epoll_wait;
	seam.read = strcmp(waits, "late") == 0 ? late_read : read;
	waits_pass = strcmp(waits, "stay") != 0;
	log_init(LOG_LEVEL_DEBUG);
	return supervise_run(&seam, arguments);
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	char line[4096];
	va_list args;
	va_start(args, format);
	int bytes = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (send(control, line, (size_t)bytes, MSG_NOSIGNAL) != bytes) {
		_exit(98);
	}
}

static void on_signal(int number)
{
	char line[] = "signal 00\n";
	line[7] = (char)('0' + number / 10);
	line[8] = (char)('0' + number % 10);
	ssize_t sent = send(control, line, sizeof(line) - 1, MSG_NOSIGNAL);
	(void)sent;
}

/// What the kernel says of this process's signals.
static void say_signals(void)
{
	char line[256];
	FILE *status = fopen("/proc/self/status", "re");
	while (status != NULL && fgets(line, sizeof(line), status) != NULL) {
		if (strncmp(line, "SigBlk:", 7) == 0 || strncmp(line, "SigIgn:", 7) == 0) {
			say("%s", line);
		}
	}
	if (status != NULL) {
		(void)fclose(status);
	}
}

static void connect_to_test(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	static const int reported[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(control, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		_exit(97);
	}
	for (size_t i = 0; i < sizeof(reported) / sizeof(reported[0]); i++) {
		(void)sigaction(reported[i], &action, NULL);
	}
}

/// From here on signals that waited are told.
static void take_signals(void)
{
	sigset_t set;
	signals_taken(&set);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/// The first lines: who this is, and what it was given.
static void say_hello(struct fdstore *store, const bool open[16])
{
	char name[FDSTORE_NAME_BYTES_MAX + 1];
	char text[64];
	int fd;
	say("pid %d %d\n", (int)getpid(), (int)getppid());
	say("open");
	for (int i = 0; i < 16; i++) {
		say("%s", open[i] ? " 1" : " 0");
	}
	say("\n");
	say_signals();
	while ((fd = fdstore_take_any(store, name)) >= 0) {
		ssize_t bytes = pread(fd, text, sizeof(text) - 1, 0);
		text[bytes > 0 ? bytes : 0] = '\0';
		say("given %s %s\n", name, text);
		(void)close(fd);
	}
	say("offered %d\n", (int)fdstore_offered(store));
	say("hello\n");
}

/// A process whose parent ends at once, so that it becomes the supervisor's; it says so, and ends.
static void make_orphan(void)
{
	int go[2], said[2];
	char byte = 'x';
	if (pipe(go) != 0 || pipe(said) != 0) {
		_exit(96);
	}
	pid_t between = fork();
	if (between == 0) {
		if (fork() == 0) {
			if (read(go[0], &byte, 1) == 1) { // the one between is gone
				say("orphan %d %d\n", (int)getpid(), (int)getppid());
			}
			_exit(write(said[1], &byte, 1) != 1);
		}
		_exit(0);
	}
	(void)waitpid(between, NULL, 0);
	if (write(go[1], &byte, 1) != 1 || read(said[0], &byte, 1) != 1) {
		_exit(95);
	}
}

static void keep(struct fdstore *store, const char *name, const char *text)
{
	int fd = memfd_create("kept", MFD_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ||
	    !fdstore_keep(store, name, fd)) {
		_exit(94);
	}
	(void)close(fd);
}

static void obey(struct fdstore *store, char *line)
{
	char *word = strsep(&line, " ");
	char *first = strsep(&line, " ");
	unsigned long number = first != NULL ? strtoul(first, NULL, 10) : 0;
	if (strcmp(word, "keep") == 0) {
		keep(store, first, line);
	} else if (strcmp(word, "drop") == 0) {
		fdstore_drop(store, first);
	} else if (strcmp(word, "ready") == 0) {
		notify_ready();
	} else if (strcmp(word, "stopping") == 0) {
		notify_stopping();
	} else if (strcmp(word, "advance") == 0) {
		*clock_ns += number * 1000000;
	} else if (strcmp(word, "exit") == 0) {
		_exit((int)number);
	} else if (strcmp(word, "orphan") == 0) {
		make_orphan();
	}
	say("done\n");
}

static int child(const char *path)
{
	char line[256];
	bool open[16];
	for (int i = 0; i < 16; i++) {
		open[i] = fcntl(i, F_GETFD) >= 0;
	}
	log_init(LOG_LEVEL_DEBUG);
	struct fdstore *store = fdstore_create(&seam_system);
	connect_to_test(path);
	say_hello(store, open);
	take_signals();
	FILE *commands = fdopen(dup(control), "re");
	while (commands != NULL && fgets(line, sizeof(line), commands) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		obey(store, line);
	}
	return 93; // the test is gone
}

/// supervised [--supervise] CLOCK-FILE SOCKET pass|stay|late
int main(int argc, char **argv)
{
	bool supervises = argc == 5 && strcmp(argv[1], "--supervise") == 0;
	if (!supervises && argc != 4) {
		return EX_USAGE;
	}
	char **rest = supervises ? argv + 1 : argv;
	int fd = open(rest[1], O_RDWR | O_CLOEXEC);
	clock_ns = mmap(NULL, sizeof(*clock_ns), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || clock_ns == MAP_FAILED) {
		return 92;
	}
	(void)close(fd);
	if (!supervises) {
		return child(rest[2]);
	}
	argv[1] = argv[0];
	return supervisor(rest[3], argv + 1);
}

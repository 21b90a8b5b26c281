// SPDX-License-Identifier: MIT
//
// --supervise on a system that refuses: each call of the parent, and of its child between fork and
// exec, in turn, for the whole life of a child that ends in order. The parent ends as its child
// did, or with a code that says that the system refused; it never hangs. The child is this program.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/seam.h"
#include "daemon/supervise.h"
#include "shm/atomics.h"
#include "tests/tap/tap.h"

#define CALLS_MAX 200u

/// Shared by all processes of a run, so that one call is refused once.
static struct {
	uint64_t armed, calls, at, refused;
} * shared;

static bool refuse_now(int error)
{
	// Partners: the same words in the other processes of a run, which go one after the other.
	if (shared == NULL || kvs_load_relaxed(&shared->armed) == 0) {
		return false;
	}
	uint64_t number = kvs_load_relaxed(&shared->calls) + 1; // partner: the store below
	kvs_store_relaxed(&shared->calls, number);
	if (number != kvs_load_relaxed(&shared->at)) {
		return false;
	}
	kvs_store_relaxed(&shared->refused, 1); // for main()
	errno = error;
	return true;
}

#define REFUSE_INT(name, error, parameters, ...)                            \
	int __real_##name parameters;                                       \
	int __wrap_##name parameters;                                       \
	int __wrap_##name parameters                                        \
	{                                                                   \
		return refuse_now(error) ? -1 : __real_##name(__VA_ARGS__); \
	}

REFUSE_INT(socket, EMFILE, (int domain, int type, int protocol), domain, type, protocol)
REFUSE_INT(setsockopt, ENOMEM, (int fd, int level, int name, const void *value, socklen_t bytes),
	   fd, level, name, value, bytes)
REFUSE_INT(bind, ENOMEM, (int fd, const struct sockaddr *to, socklen_t bytes), fd, to, bytes)
REFUSE_INT(getsockname, ENOBUFS, (int fd, struct sockaddr *name, socklen_t *bytes), fd, name, bytes)
REFUSE_INT(epoll_create1, EMFILE, (int flags), flags)
REFUSE_INT(epoll_ctl, ENOMEM, (int set, int operation, int fd, struct epoll_event *event), set,
	   operation, fd, event)
REFUSE_INT(signalfd, EMFILE, (int fd, const sigset_t *set, int flags), fd, set, flags)
REFUSE_INT(sigaction, EINVAL,
	   (int number, const struct sigaction *action, struct sigaction *before), number, action,
	   before)
REFUSE_INT(sigprocmask, EINVAL, (int how, const sigset_t *set, sigset_t *before), how, set, before)
REFUSE_INT(setenv, ENOMEM, (const char *name, const char *value, int replace), name, value, replace)
REFUSE_INT(dup2, EBUSY, (int from, int to), from, to)
REFUSE_INT(fork, EAGAIN, (void), )
REFUSE_INT(execv, ENOMEM, (const char *path, char *const arguments[]), path, arguments)

void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes)
{
	return refuse_now(ENOMEM) ? NULL : __real_calloc(count, bytes);
}

// The whole life of a supervisor; its exit code, 99 if it did not end by itself.
static int life(const char *program, uint64_t at)
{
	memset(shared, 0, sizeof(*shared));
	shared->at = at;
	(void)fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		char *const arguments[] = { (char *)program, (char *)"child", NULL };
		(void)alarm(120);
		shared->armed = 1;
		int code = supervise_run(&seam_system, arguments);
		shared->armed = 0;
		_exit(code);
	}
	int status = 0;
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
									       : 99;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "child") == 0) {
		return 0;
	}
	(void)unsetenv("NOTIFY_SOCKET");
	log_init(LOG_LEVEL_ERROR);
	unsigned wrong = 0, again = 0;
	uint64_t at = 1;
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED) {
		return 1;
	}
	shared = page;
	ok_int(life(argv[0], 0), 0, "a child that ends in order");
	for (bool reached = true; reached && at < CALLS_MAX; at++) {
		int code = life(argv[0], at);
		reached = shared->refused != 0;
		bool good = code == 0 || (reached && (code == EX_OSERR || code == EX_CANTCREAT ||
						      code == EX_SOFTWARE));
		if (!good) {
			tap_diag("call %llu refused: exit code %d", (unsigned long long)at, code);
			wrong++;
		}
		again += code == 0;
	}
	ok(wrong == 0 && at > 10 && at < CALLS_MAX, "each of %llu calls",
	   (unsigned long long)at - 2);
	ok(again > 1, "%u of them were made good by another child", again);
	return tap_done();
}

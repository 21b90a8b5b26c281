// SPDX-License-Identifier: MIT
//
// A: the region's word says that its kvd is gone as soon as another one can serve, however it
// ended, and never while it lives.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/presence.h"
#include "shm/atomics.h"
#include "shm/layout.h"
#include "tests/tap/tap.h"

// What stands in shared memory, like the region.
struct shared {
	uint32_t before; // to be left alone
	uint32_t writer;
	uint32_t behind;
	uint32_t begun; // a child has done its part
};

static struct shared *shared;
static int refuse_lists; // set_robust_list() fails

long __real_syscall(long number, ...);
long __wrap_syscall(long number, const void *first, long second);
long __wrap_syscall(long number, const void *first, long second)
{
	if (number == SYS_set_robust_list && refuse_lists) {
		errno = ENOSYS;
		return -1;
	}
	return __real_syscall(number, first, second);
}

static uint32_t writer(void)
{
	return kvs_load_acquire_32(&shared->writer);
}

static struct presence *begin(void)
{
	struct presence *presence;
	int error = presence_start(&presence, &shared->writer);
	if (error != 0) {
		printf("Bail out! presence_start: %s\n", strerror(-error));
		exit(99);
	}
	return presence;
}

// In a child: present, and the parent knows it. Never returns.
static void live(int end_by)
{
	const struct rlimit no_core = { 0 };
	(void)setrlimit(RLIMIT_CORE, &no_core);
	(void)begin();
	kvs_store_release_32(&shared->begun, 1); // partner: wait_begun()
	if (end_by == SIGABRT) {
		abort();
	}
	if (end_by == 0) {
		_exit(0); // without a word
	}
	for (;;) {
		(void)pause();
	}
}

static void wait_begun(void)
{
	while (kvs_load_acquire_32(&shared->begun) == 0) {
		(void)sched_yield();
	}
	kvs_store_release_32(&shared->begun, 0);
}

static pid_t child_begun(int end_by)
{
	pid_t pid = fork();
	if (pid == 0) {
		live(end_by);
	}
	wait_begun();
	return pid;
}

static void reap(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
	}
}

static void test_ends(void)
{
	static const struct {
		const char *what;
		int signal;
	} rows[] = {
		{ "killed", SIGKILL },
		{ "told to go", SIGTERM },
		{ "aborted", SIGABRT },
		{ "ended", 0 },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		pid_t pid = child_begun(rows[i].signal);
		if (rows[i].signal == SIGKILL || rows[i].signal == SIGTERM) {
			ok(kvs_writer_is_there(writer()), "a kvd that lives is there");
			(void)kill(pid, rows[i].signal);
		}
		reap(pid);
		ok_u64(writer(), KVS_WRITER_DIED, "A: one that is %s is not", rows[i].what);
	}
	ok(shared->before == 1 && shared->behind == 2, "no other word is touched");
}

// The next kvd gets the lock, and then it matters what the word says.
static void test_lock(void)
{
	char path[4096];
	const char *temporary = getenv("TMPDIR");
	(void)snprintf(path, sizeof(path), "%s/kvd-presence-XXXXXX",
		       temporary != NULL ? temporary : "/tmp");
	int made = mkstemp(path);
	unsigned rounds = tap_rounds(100, 10), late = 0;
	for (unsigned i = 0; i < rounds; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			int lock = open(path, O_RDWR | O_CLOEXEC);
			if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) != 0) {
				_exit(1);
			}
			live(SIGKILL);
		}
		wait_begun();
		(void)kill(pid, SIGKILL);
		int lock = open(path, O_RDWR | O_CLOEXEC);
		if (lock < 0 || flock(lock, LOCK_EX) != 0) {
			late = UINT32_MAX;
			break;
		}
		late += writer() != KVS_WRITER_DIED;
		(void)close(lock);
		reap(pid);
	}
	ok_u64(late, 0, "A: who gets the lock of a dead kvd, %u times, finds it gone", rounds);
	(void)close(made);
	(void)unlink(path);
}

static void test_order(void)
{
	struct presence *presence = begin();
	uint32_t first = writer();
	ok(kvs_writer_is_there(first) && first != (uint32_t)getpid(), "a thread of its own");
	pid_t pid = fork();
	if (pid == 0) {
		_exit(0);
	}
	reap(pid);
	ok_u64(writer(), first, "a forked child has no part in it");
	presence_end(presence);
	ok_u64(writer(), 0, "a kvd that stops says so, and its thread's end says nothing else");
	presence_end(NULL);
	ok_u64(writer(), 0, "one that never began says nothing");
}

// A kvd that takes the region over, while the kernel may still be at the former one.
static void test_next(void)
{
	pid_t pid = child_begun(SIGKILL);
	uint32_t first = writer();
	struct presence *presence = begin();
	uint32_t second = writer();
	ok(second != first && kvs_writer_is_there(second), "the next one is there");
	(void)kill(pid, SIGKILL);
	reap(pid);
	ok_u64(writer(), second, "whenever the former ends");
	presence_end(presence);
}

static void test_refused(void)
{
	refuse_lists = 1;
	struct presence *presence = begin();
	ok_u64(writer(), 0, "no robust futexes: nobody says that he is there");
	presence_end(presence);
	ok_u64(writer(), 0, "nor later");
	refuse_lists = 0;
}

int main(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED) {
		printf("Bail out! mmap\n");
		return 99;
	}
	*shared = (struct shared){ .before = 1, .behind = 2 };
	test_refused();
	struct presence *presence = begin();
	bool has_lists = writer() != 0;
	presence_end(presence);
	if (!has_lists) {
		tap_skip("this kernel, or what stands for one, has no robust futexes");
		return tap_done();
	}
	test_ends();
	test_lock();
	test_order();
	test_next();
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// The lock of a data folder: one has it, who comes second is told whose it is, and waits for one
// that goes, but for no other.
#include "daemon/storage/dirlock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/daemon/store_fixture.h"

static void test_lock(const char *dir)
{
	char why[512];
	char path[FIXTURE_PATH_BYTES + 32];
	(void)snprintf(path, sizeof(path), "%s/data", dir);
	int fd = dirlock_take(path, NULL, why, sizeof(why));
	ok(fd >= 0, "a missing data folder is created and locked");
	struct stat facts;
	ok(stat(path, &facts) == 0 && (facts.st_mode & 0777) == 0700, "with mode 0700");
	ok_int(dirlock_take(path, NULL, why, sizeof(why)), -1, "a second lock is refused");
	char pid[32];
	(void)snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid());
	ok(strstr(why, path) && strstr(why, pid) && strstr(why, "another --dir"),
	   "naming folder, owner and remedy: %s", why);
	dirlock_release(fd);
	fd = dirlock_take(path, NULL, why, sizeof(why));
	ok(fd >= 0, "once it is released it can be taken");
	dirlock_release(fd);
	(void)snprintf(path, sizeof(path), "%s/no/such/data", dir);
	ok_int(dirlock_take(path, NULL, why, sizeof(why)), -1, "no parent folder");
	ok(strstr(why, path) && strstr(why, "--dir"), "is told: %s", why);
}

// Whoever made the link may not be allowed to write what it leads to, and kvd may.
static void test_lock_is_link(const char *dir)
{
	char why[512];
	char path[FIXTURE_PATH_BYTES + 32];
	struct stat facts;
	(void)snprintf(path, sizeof(path), "%s/other", dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ok(fd >= 0 && write(fd, "another's", 9) == 9, "another file");
	(void)close(fd);
	(void)snprintf(path, sizeof(path), "%s/linked", dir);
	ok(mkdir(path, 0700) == 0, "a data folder");
	(void)snprintf(path, sizeof(path), "%s/linked/kvd.lock", dir);
	ok(symlink("../other", path) == 0, "whose lock is a link to it");
	(void)snprintf(path, sizeof(path), "%s/linked", dir);
	ok_int(dirlock_take(path, NULL, why, sizeof(why)), -1, "is refused");
	ok(strstr(why, "kvd.lock") && strstr(why, "move away"), "is told: %s", why);
	ok_int(dirlock_look(path, why, sizeof(why)), -1, "so is looking at it");
	(void)snprintf(path, sizeof(path), "%s/other", dir);
	ok(stat(path, &facts) == 0 && facts.st_size == 9, "and the file is what it was");
}

enum leaving { STAYS, SAYS_SO, IS_ASKED };

// Another process that has the lock, and lets go of it when it is told to.
struct holder {
	pid_t pid;
	int to, from; // pipes
	unsigned told;
	bool is_over;
};

static void hold(const char *path, enum leaving leaving, int from, int to)
{
	char why[512];
	char byte = 'x';
	sigset_t set;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	int fd = dirlock_take(path, NULL, why, sizeof(why));
	if (fd >= 0 && leaving == SAYS_SO) {
		dirlock_leaving(fd);
	}
	bool good = fd >= 0 && (leaving != IS_ASKED || kill(getpid(), SIGTERM) == 0) &&
		    write(to, &byte, 1) == 1 && read(from, &byte, 1) == 1;
	_exit(good ? 0 : 1);
}

static void holder_start(struct holder *holder, const char *path, enum leaving leaving)
{
	int there[2], back[2];
	char byte;
	fflush(stdout);
	*holder = (struct holder){ .pid = -1 };
	if (pipe(there) != 0 || pipe(back) != 0 || (holder->pid = fork()) < 0) {
		printf("Bail out! no process\n");
		exit(99);
	}
	if (holder->pid == 0) {
		(void)close(there[1]);
		(void)close(back[0]);
		hold(path, leaving, there[0], back[1]);
	}
	holder->to = there[1];
	holder->from = back[0];
	(void)close(there[0]);
	(void)close(back[1]);
	ok(read(holder->from, &byte, 1) == 1, "another process has the lock");
}

static void holder_leave(void *context, const char *text)
{
	struct holder *holder = context;
	char pid[32];
	(void)snprintf(pid, sizeof(pid), "(pid %d)", (int)holder->pid);
	holder->told++;
	ok(strstr(text, pid) != NULL, "who waits is told for whom: %s", text);
	ok(write(holder->to, "x", 1) == 1, "now it goes");
}

static bool is_over(void *context)
{
	return ((const struct holder *)context)->is_over;
}

static void holder_end(struct holder *holder)
{
	int status;
	(void)close(holder->to);
	(void)close(holder->from);
	ok(waitpid(holder->pid, &status, 0) == holder->pid, "it is gone");
}

static void test_lock_waits(const char *dir)
{
	static const char *const names[] = {
		[SAYS_SO] = "one that stops", [IS_ASKED] = "one that was asked to stop"
	};
	char why[512];
	char path[FIXTURE_PATH_BYTES + 32];
	struct holder holder;
	const struct dirlock_patience patience = { .tell = holder_leave,
						   .is_over = is_over,
						   .context = &holder };
	(void)snprintf(path, sizeof(path), "%s/waits", dir);
	for (enum leaving leaving = SAYS_SO; leaving <= IS_ASKED; leaving++) {
		holder_start(&holder, path, leaving);
		int fd = dirlock_take(path, &patience, why, sizeof(why));
		ok(fd >= 0 && holder.told == 1, "%s is waited for", names[leaving]);
		dirlock_release(fd);
		holder_end(&holder);
	}
	holder_start(&holder, path, SAYS_SO);
	holder.is_over = true;
	ok(dirlock_take(path, &patience, why, sizeof(why)) == -1 && errno == ECANCELED,
	   "but not by somebody who is to stop himself: %s", why);
	holder_end(&holder);
	holder_start(&holder, path, STAYS);
	ok(dirlock_take(path, &patience, why, sizeof(why)) == -1 && errno == EWOULDBLOCK &&
		   holder.told == 0,
	   "one that stays is not waited for");
	holder_end(&holder);
}

int main(void)
{
	static void (*const tests[])(const char *dir) = { test_lock, test_lock_is_link,
							  test_lock_waits };
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		char dir[FIXTURE_PATH_BYTES];
		fixture_dir(dir);
		tests[i](dir);
		fixture_remove(dir);
	}
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// Descriptors in: what a manager announces, in order and in disorder. Descriptors out: what kvd
// says at the manager's socket, and what becomes of failures. Inherited descriptors have fixed
// numbers, from 3 on; whatever the test needs for itself stands far above.
#include "daemon/fdstore.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>

#include "daemon/log.h"
#include "daemon/seam.h"
#include "tests/daemon/notify_fixture.h"
#include "tests/tap/tap.h"

#define OWN_FIRST 600 // the test's own descriptors

/// Moves a descriptor to where nothing is inherited.
static int away(int fd)
{
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, OWN_FIRST);
	(void)close(fd);
	return moved;
}

/// Puts memfds that say "0", "1" … from 3 on, open across exec as a manager leaves them, and
/// announces them; NULL leaves a variable out.
static void announce(size_t open_count, const char *count, const char *names)
{
	char text[32];
	for (size_t i = 0; i < open_count; i++) {
		(void)snprintf(text, sizeof(text), "%zu", i);
		int fd = away(notify_fixture_file(text));
		(void)dup2(fd, 3 + (int)i);
		(void)close(fd);
	}
	(void)snprintf(text, sizeof(text), "%d", (int)getpid());
	(void)setenv("LISTEN_PID", text, 1);
	(void)setenv("LISTEN_FDS", count, 1);
	(void)unsetenv("LISTEN_FDNAMES");
	if (names != NULL) {
		(void)setenv("LISTEN_FDNAMES", names, 1);
	}
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void close_from_3(size_t count)
{
	for (size_t i = 0; i < count; i++) {
		(void)close(3 + (int)i);
	}
}

static void inherited(void)
{
	announce(4, "4", "region:page:region:extra");
	struct fdstore *store = fdstore_create(&seam_system);
	ok(getenv("LISTEN_PID") == NULL && getenv("LISTEN_FDS") == NULL &&
		   getenv("LISTEN_FDNAMES") == NULL,
	   "the environment tells no child");
	bool closed = true;
	for (int fd = 3; fd < 7; fd++) {
		closed = closed && fcntl(fd, F_GETFD) == FD_CLOEXEC;
	}
	ok(closed, "all are closed on exec");
	ok_int(fdstore_take(store, "nothing"), -1, "a name that was not announced");
	ok_int(fdstore_take(store, "regio"), -1, "a part of a name");
	int page = fdstore_take(store, "page");
	int region = fdstore_take(store, "region");
	ok(notify_fixture_is(page, "1") && notify_fixture_is(region, "0"), "each by its name");
	int second = fdstore_take(store, "region");
	ok(notify_fixture_is(second, "2"), "two of one name, one after the other");
	ok_int(fdstore_take(store, "region"), -1, "and no third");
	ok_int(fdstore_take(store, "page"), -1, "each is handed out once");
	fdstore_destroy(store);
	ok(is_open(page) && is_open(region) && is_open(second), "what was taken is the taker's");
	ok(!is_open(6), "what nobody took is closed at the end");
	close_from_3(4);
}

static void disorder(void)
{
	static const struct {
		const char *count, *names, *name;
		size_t open_count;
		const char *has; // what `name` has, NULL: there is none
		const char *what;
	} cases[] = {
		{ "2", NULL, "unknown", 2, "0", "no names" },
		{ "2", "a", "unknown", 2, "1", "a name too few" },
		{ "2", ":b", "unknown", 2, "0", "an empty name" },
		{ "2", ":b", "b", 2, "1", "and what stands behind it" },
		{ "1", "a:b", "b", 2, NULL, "a name too many" },
		{ "3", "a:b:c", "b", 1, NULL, "a number that is no descriptor" },
		{ "two", "a:b", "a", 2, NULL, "no number" },
		{ "2x", "a:b", "a", 2, NULL, "a number and more" },
		{ "-2", "a:b", "a", 2, NULL, "a negative one" },
		{ "", "a:b", "a", 2, NULL, "none" },
		{ "0", "a:b", "a", 2, NULL, "nought" },
		{ "99999999999999999999", "a:b", "b", 2, "1", "far too large a number" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		announce(cases[i].open_count, cases[i].count, cases[i].names);
		struct fdstore *store = fdstore_create(&seam_system);
		int fd = fdstore_take(store, cases[i].name);
		bool good = cases[i].has ? notify_fixture_is(fd, cases[i].has) : fd == -1;
		ok(good && getenv("LISTEN_FDS") == NULL, "announced: %s", cases[i].what);
		(void)close(fd);
		fdstore_destroy(store);
		close_from_3(2);
	}
	announce(2, "2", "a:b");
	(void)setenv("LISTEN_PID", "1", 1);
	struct fdstore *store = fdstore_create(&seam_system);
	ok(fdstore_take(store, "a") == -1 && fcntl(3, F_GETFD) == 0 && getenv("LISTEN_PID") == NULL,
	   "meant for another process: none is taken, none is changed");
	fdstore_destroy(store);
	ok(is_open(3) && is_open(4), "nor closed");
	close_from_3(2);
}

static void too_many(void)
{
	announce(FDSTORE_DESCRIPTORS_MAX + 3, "259", "a");
	struct fdstore *store = fdstore_create(&seam_system);
	int last = 2 + (int)FDSTORE_DESCRIPTORS_MAX;
	ok(is_open(last) && !is_open(last + 1) && !is_open(last + 3),
	   "what is beyond the bound is closed");
	char name[FDSTORE_NAME_BYTES_MAX + 1];
	int count = 0, fd;
	while ((fd = fdstore_take_any(store, name)) >= 0) {
		(void)close(fd);
		count += strcmp(name, count == 0 ? "a" : "unknown") == 0;
	}
	ok_int(count, FDSTORE_DESCRIPTORS_MAX, "the others come one after the other, with names");
	fdstore_destroy(store);
}

static void settled(const struct notify_fixture *manager)
{
	struct notify_message message;
	announce(4, "5", "old:region:region:old:kvd.socket");
	int sock = away(socket(AF_UNIX, SOCK_STREAM, 0));
	(void)dup2(sock, 7);
	(void)close(sock);
	struct fdstore *store = fdstore_create(&seam_system);
	int region = fdstore_take(store, "region");
	fdstore_settle(store);
	ok(!is_open(3) && !is_open(5) && !is_open(6), "what nobody wants is closed");
	ok(is_open(region), "what was taken is not");
	ok(is_open(7), "sockets stay");
	notify_fixture_read(manager, &message);
	ok_str(message.text, "FDSTOREREMOVE=1\nFDNAME=old", "the manager drops it too");
	notify_fixture_read(manager, &message);
	notify_fixture_read(manager, &message);
	ok_str(message.text, "", "but nothing of a name that somebody took");
	ok_int(fdstore_take(store, "kvd.socket"), 7, "and sockets can be had later");
	fdstore_destroy(store);
	(void)close(7);
	(void)close(region);
}

static void kept(const struct notify_fixture *manager)
{
	struct notify_message message;
	struct stat own, theirs;
	struct fdstore *store = fdstore_create(&seam_system);
	int fd = away(notify_fixture_file("kept"));
	ok(fdstore_offered(store), "a manager is there");
	ok(fdstore_keep(store, "region", fd), "a descriptor is handed to it");
	notify_fixture_read(manager, &message);
	ok_str(message.text, "FDSTORE=1\nFDPOLL=0\nFDNAME=region", "with its name");
	ok(fstat(fd, &own) == 0 && fstat(message.fd, &theirs) == 0 && own.st_ino == theirs.st_ino,
	   "and it is the same file");
	(void)close(message.fd);
	fdstore_drop(store, "region");
	notify_fixture_read(manager, &message);
	ok_str(message.text, "FDSTOREREMOVE=1\nFDNAME=region", "it is dropped by name");
	(void)setenv("FDSTORE", "0", 1);
	ok(!fdstore_offered(store) && !fdstore_keep(store, "region", fd),
	   "a manager that keeps nothing is not asked");
	(void)setenv("FDSTORE", "7", 1);
	ok(fdstore_offered(store), "one that keeps some is");
	(void)unsetenv("FDSTORE");
	notify_fixture_read(manager, &message);
	ok_str(message.text, "", "and was told nothing meanwhile");
	(void)close(fd);
	fdstore_destroy(store);
}

static void names(const struct notify_fixture *manager)
{
	static char longest[FDSTORE_NAME_BYTES_MAX + 2];
	memset(longest, 'n', sizeof(longest) - 1);
	const char *bad[] = { "", "a:b", "a\nREADY=1", "\x7f", "\xc3\xa4", longest };
	struct notify_message message;
	struct fdstore *store = fdstore_create(&seam_system);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ok(!fdstore_keep(store, bad[i], STDIN_FILENO), "bad name %zu is refused", i);
	}
	fdstore_drop(store, "a\nREADY=1");
	ok(!fdstore_keep(store, "good", -1), "so is what is no descriptor");
	ok(!fdstore_keep(store, "good", OWN_FIRST + 300), "or not open");
	notify_fixture_read(manager, &message);
	ok_str(message.text, "", "and nothing is sent");
	longest[FDSTORE_NAME_BYTES_MAX] = '\0';
	ok(fdstore_keep(store, longest, STDIN_FILENO), "the longest name is good");
	notify_fixture_read(manager, &message);
	ok_u64(strlen(message.text), strlen("FDSTORE=1\nFDPOLL=0\nFDNAME=") + 255, "and whole");
	(void)close(message.fd);
	fdstore_destroy(store);
}

static int fails_left;
static int fails_with;

static ssize_t failing_sendmsg(int fd, const struct msghdr *message, int flags)
{
	if (fails_left > 0) {
		fails_left--;
		errno = fails_with;
		return -1;
	}
	return sendmsg(fd, message, flags);
}

/// Lines of the log while `lines` counts: standard error goes to a file.
static int log_lines(int file)
{
	static char text[65536];
	ssize_t bytes = pread(file, text, sizeof(text), 0);
	int lines = 0;
	for (ssize_t i = 0; i < bytes; i++) {
		lines += text[i] == '\n';
	}
	return lines;
}

static void failures(const struct notify_fixture *manager)
{
	struct seam seam = seam_system;
	struct notify_message message;
	int error_fd = away(dup(STDERR_FILENO));
	int file = away(notify_fixture_file(""));
	(void)dup2(file, STDERR_FILENO);
	seam.sendmsg = failing_sendmsg;
	struct fdstore *store = fdstore_create(&seam);
	fails_left = 2;
	fails_with = EINTR;
	bool sent = fdstore_keep(store, "a", STDIN_FILENO);
	int quiet = log_lines(file);
	notify_fixture_read(manager, &message);
	bool came = strstr(message.text, "FDNAME=a") != NULL;
	(void)close(message.fd);
	fails_left = 3;
	fails_with = EAGAIN; // the manager does not read
	bool refused =
		!fdstore_keep(store, "b", STDIN_FILENO) && !fdstore_keep(store, "c", STDIN_FILENO);
	fdstore_drop(store, "b");
	int told = log_lines(file);
	bool again = fdstore_keep(store, "d", STDIN_FILENO);
	fdstore_destroy(store);
	(void)dup2(error_fd, STDERR_FILENO);
	ok(sent && came && quiet == 0, "an interrupted call is made again");
	ok(refused, "a manager that cannot be reached is no catastrophe");
	ok_int(told, 1, "and is told of once");
	ok(again, "afterwards it goes on");
	notify_fixture_read(manager, &message);
	(void)close(message.fd);
	(void)setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
	store = fdstore_create(&seam_system);
	ok(!fdstore_keep(store, "a", STDIN_FILENO), "a socket that is not there");
	static char longest[200];
	memset(longest, 'n', sizeof(longest) - 1);
	longest[0] = '/';
	(void)setenv("NOTIFY_SOCKET", longest, 1);
	ok(!fdstore_keep(store, "a", STDIN_FILENO), "a path that is too long for one");
	(void)setenv("NOTIFY_SOCKET", "relative", 1);
	ok(!fdstore_keep(store, "a", STDIN_FILENO), "what is no address");
	(void)unsetenv("NOTIFY_SOCKET");
	ok(!fdstore_offered(store) && !fdstore_keep(store, "a", STDIN_FILENO), "no manager at all");
	fdstore_drop(store, "a");
	fdstore_destroy(store);
	(void)close(file);
	(void)close(error_fd);
}

/// A process whose parent ends while it has a store: is anything sent? As an exit code.
static int orphaned_keep(const char *address, int parent_ends)
{
	pid_t parent = getppid();
	(void)setenv("NOTIFY_SOCKET", address, 1);
	struct fdstore *store = fdstore_create(&seam_system);
	bool before = fdstore_keep(store, "before", STDIN_FILENO);
	(void)close(parent_ends); // now it may
	while (getppid() == parent) {
		(void)sched_yield();
	}
	bool after = fdstore_keep(store, "after", STDIN_FILENO);
	fdstore_destroy(store);
	return (before ? 1 : 0) + (after ? 2 : 0);
}

static int orphaned(const char *address)
{
	int go[2], result[2];
	int code = -1;
	if (pipe(go) != 0 || pipe(result) != 0) {
		return -1;
	}
	pid_t parent = fork();
	if (parent == 0) {
		char byte;
		if (fork() == 0) {
			code = orphaned_keep(address, go[1]);
			_exit(write(result[1], &code, sizeof(code)) != sizeof(code));
		}
		(void)close(go[1]);
		_exit(read(go[0], &byte, 1) != 0); // until the child has begun
	}
	(void)close(go[1]);
	(void)close(result[1]);
	if (read(result[0], &code, sizeof(code)) != sizeof(code)) {
		code = -1;
	}
	(void)close(go[0]);
	(void)close(result[0]);
	(void)waitpid(parent, NULL, 0);
	return code;
}

static void strangers(const struct notify_fixture *manager)
{
	struct notify_message message;
	ok_int(orphaned(manager->address), 1,
	       "under an abstract name nothing is sent once the parent is another");
	notify_fixture_read(manager, &message);
	ok(strstr(message.text, "FDNAME=before") != NULL, "only before");
	(void)close(message.fd);
	notify_fixture_read(manager, &message);
	ok_str(message.text, "", "that is all");
}

int main(void)
{
	struct notify_fixture manager;
	log_init(LOG_LEVEL_NOTICE);
	inherited();
	disorder();
	too_many();
	notify_fixture_open(&manager);
	manager.fd = away(manager.fd);
	(void)setenv("NOTIFY_SOCKET", manager.address, 1);
	settled(&manager);
	kept(&manager);
	failures(&manager); // before the log has seen too much of them
	(void)setenv("NOTIFY_SOCKET", manager.address, 1);
	names(&manager);
	strangers(&manager);
	return tap_done();
}

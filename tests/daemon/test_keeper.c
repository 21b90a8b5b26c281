// SPDX-License-Identifier: MIT
//
// The keeper against the other end of its protocol, fdstore.h and notify.h in processes of their
// own, as in life; and against messages of strangers and of a child that has gone wrong.
#include "daemon/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/seam.h"
#include "tests/daemon/notify_fixture.h"
#include "tests/tap/tap.h"

/// Open descriptors of this process.
static size_t open_count(void)
{
	size_t count = 0;
	DIR *folder = opendir("/proc/self/fd");
	while (folder != NULL && readdir(folder) != NULL) {
		count++;
	}
	(void)closedir(folder);
	return count;
}

/// Starts `life` as the keeper's child.
static pid_t begin(struct keeper *keeper, int (*life)(struct fdstore *store))
{
	pid_t child = fork();
	if (child == 0) {
		if (keeper_hand_over(keeper) != 0) {
			_exit(98);
		}
		struct fdstore *store = fdstore_create(&seam_system);
		int code = life(store);
		fdstore_destroy(store);
		_exit(code);
	}
	keeper_listen_to(keeper, child);
	return child;
}

/// Runs `life` to its end, and listens then. What the keeper heard is added to *heard. Its exit
/// code; 99 if it did not end by itself.
static int live(struct keeper *keeper, int (*life)(struct fdstore *store), unsigned *heard)
{
	int status;
	pid_t child = begin(keeper, life);
	siginfo_t info;
	if (waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) != 0) {
		return 99;
	}
	unsigned said = keeper_hear(keeper);
	if (heard != NULL) {
		*heard |= said;
	}
	(void)waitpid(child, &status, 0);
	keeper_listen_to(keeper, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static int first_life(struct fdstore *store)
{
	int region = notify_fixture_file("region");
	int page = notify_fixture_file("page");
	const char *most = getenv("FDSTORE");
	if (fdstore_take(store, "region") >= 0 || most == NULL || strcmp(most, "64") != 0) {
		return 1;
	}
	bool good = fdstore_offered(store) && fdstore_keep(store, "region", region) &&
		    fdstore_keep(store, "page", page) && fdstore_keep(store, "region", region) &&
		    fdstore_keep(store, "zeta", page);
	fdstore_settle(store);
	notify_ready();
	return good ? 0 : 2;
}

static int second_life(struct fdstore *store)
{
	int region = fdstore_take(store, "region");
	int page = fdstore_take(store, "page");
	int zeta = fdstore_take(store, "zeta");
	if (!notify_fixture_is(region, "region") || !notify_fixture_is(page, "page") ||
	    !notify_fixture_is(zeta, "page")) {
		return 1;
	}
	if (fdstore_take(store, "region") >= 0 || getenv("LISTEN_FDS") != NULL) {
		return 2;
	}
	fdstore_drop(store, "zeta");
	(void)fdstore_keep(store, "region", region); // what was kept already
	(void)fdstore_keep(store, "region", notify_fixture_file("newer"));
	notify_stopping();
	return 0;
}

static int third_life(struct fdstore *store)
{
	int older = fdstore_take(store, "region");
	int page = fdstore_take(store, "page");
	int newer = fdstore_take(store, "region");
	bool good = notify_fixture_is(older, "region") && notify_fixture_is(page, "page") &&
		    notify_fixture_is(newer, "newer") && fdstore_take(store, "region") < 0 &&
		    fdstore_take(store, "zeta") < 0;
	fdstore_drop(store, "region");
	return good ? 0 : 1;
}

static int fourth_life(struct fdstore *store)
{
	fdstore_settle(store); // knows none
	return 0;
}

static int last_life(struct fdstore *store)
{
	char name[FDSTORE_NAME_BYTES_MAX + 1];
	return fdstore_take_any(store, name) >= 0;
}

static void lives(void)
{
	struct keeper *keeper;
	unsigned heard = 0;
	size_t before = open_count();
	ok_int(keeper_create(&keeper, &seam_system, NULL), 0, "a keeper begins");
	ok_int(live(keeper, first_life, &heard), 0, "the first life keeps three descriptors");
	ok_u64(heard, KEEPER_HEARD_READY, "and is ready");
	ok_u64(keeper_count(keeper), 3, "the same file twice under a name is kept once");
	heard = 0;
	ok_int(live(keeper, second_life, &heard), 0, "the second life finds them, unchanged");
	ok_u64(heard, KEEPER_HEARD_STOPPING, "and stops");
	ok_u64(keeper_count(keeper), 3, "it dropped one and added one");
	ok_int(live(keeper, third_life, NULL), 0, "the third finds the older one first");
	ok_u64(keeper_count(keeper), 1, "a name is dropped with all that has it");
	ok_int(live(keeper, fourth_life, NULL), 0, "a life that knows none of the names");
	ok_u64(keeper_count(keeper), 0, "has them dropped");
	ok_int(live(keeper, last_life, NULL), 0, "and the next gets nothing");
	keeper_destroy(keeper);
	ok_u64(open_count(), before, "nothing stays open");
}

static int many_life(struct fdstore *store)
{
	for (unsigned i = 0; i < KEEPER_DESCRIPTORS_MAX + 5; i++) {
		char name[32];
		(void)snprintf(name, sizeof(name), "n%u", i);
		int fd = notify_fixture_file(name);
		if (!fdstore_keep(store, name, fd)) {
			return 1;
		}
		(void)close(fd);
	}
	return 0;
}

/// Numbers and names in another order: the last one that is kept has the lowest number.
static int shuffling_life(struct fdstore *store)
{
	fdstore_drop(store, "n0");
	return fdstore_keep(store, "n0", notify_fixture_file("n0")) ? 0 : 1;
}

static int all_life(struct fdstore *store)
{
	for (unsigned i = 0; i < KEEPER_DESCRIPTORS_MAX; i++) {
		char name[32];
		(void)snprintf(name, sizeof(name), "n%u", i);
		if (!notify_fixture_is(fdstore_take(store, name), name)) {
			return 1;
		}
	}
	return fdstore_take(store, "n64") >= 0;
}

/// The queue of a datagram socket is short: with nobody to read it the child waits for ever.
static int live_heard(struct keeper *keeper, int (*life)(struct fdstore *store), unsigned *heard)
{
	int status;
	*heard = 0;
	pid_t child = begin(keeper, life);
	while (waitpid(child, &status, WNOHANG) == 0) {
		*heard |= keeper_hear(keeper);
	}
	*heard |= keeper_hear(keeper);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static void many(void)
{
	struct keeper *keeper;
	ok_int(keeper_create(&keeper, &seam_system, NULL), 0, "a keeper with little room");
	size_t before = open_count();
	unsigned heard;
	ok_int(live_heard(keeper, many_life, &heard), 0, "more descriptors than it keeps");
	ok_u64(keeper_count(keeper), KEEPER_DESCRIPTORS_MAX, "are refused");
	ok_u64(open_count(), before + KEEPER_DESCRIPTORS_MAX, "and closed");
	ok_int(live(keeper, all_life, NULL), 0, "those that it keeps come back, each by its name");
	ok_int(live(keeper, shuffling_life, NULL), 0, "one is put behind the others");
	ok_int(live(keeper, all_life, NULL), 0, "and still each comes by its name");
	keeper_destroy(keeper);
}

static int say(const char *text, size_t bytes)
{
	int fd = notify_fixture_file("x");
	int result = notify_send(&seam_system, text, bytes, fd);
	(void)close(fd);
	return result;
}

static int odd_life(struct fdstore *store)
{
	static char longest[6000];
	static const char *const odd[] = {
		"FDSTORE=1",		      // no name
		"FDSTORE=1\nFDNAME=",	      // an empty one
		"FDSTORE=1\nFDNAME=a:b",      // one that could not be given back
		"FDSTORE=1\nFDNAME=a\x01",    // neither
		"FDSTOREREMOVE=1",	      // all of them?
		"BARRIER=1",		      // to be closed when it was read
		"READY=0",		      // not
		"XREADY=1\nSTOPPING=10",      // neither
		"",			      // nothing
		"\n\n=\nFDNAME\nFDSTORE=2\n", // nothing of use
	};
	(void)store;
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		if (say(odd[i], strlen(odd[i])) != 0) {
			return 1;
		}
	}
	static const char nought[] = "READY=0\0\nREADY=1\nFDSTORE=1\nFDNAME=z";
	if (say(nought, sizeof(nought)) != 0) {
		return 2;
	}
	memset(longest, 'n', sizeof(longest) - 1);
	memcpy(longest, "FDSTORE=1\nFDNAME=", 17); // too long for a name
	if (say(longest, 17 + FDSTORE_NAME_BYTES_MAX + 1) != 0) {
		return 3;
	}
	memcpy(longest, "READY=1\nSTATUS=nn", 17); // too long for a message
	return say(longest, sizeof(longest)) != 0 ? 4 : 0;
}

/// Others know the socket's name, but cannot send to it: not even fill its queue, which is short.
static int flooded_life(struct fdstore *store)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *name = getenv("NOTIFY_SOCKET");
	socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(address.sun_path + 1, name + 1, strlen(name) - 1);
	for (unsigned i = 0; i < 50; i++) {
		if (sendto(fd, "READY=1", 7, MSG_DONTWAIT, (struct sockaddr *)&address, bytes) >=
			    0 ||
		    errno != EPERM) {
			return 1;
		}
	}
	(void)close(fd);
	return fdstore_keep(store, "region", notify_fixture_file("region")) ? 0 : 2;
}

static void flooded(void)
{
	struct keeper *keeper;
	unsigned heard = 0;
	ok_int(keeper_create(&keeper, &seam_system, NULL), 0, "a keeper whose name is known");
	ok_int(live(keeper, flooded_life, &heard), 0, "H: others cannot send to it");
	ok(heard == 0 && keeper_strangers(keeper) == 0, "nothing of theirs has come");
	ok_u64(keeper_count(keeper), 1, "H: and the child is heard, though nobody listened");
	keeper_destroy(keeper);
}

#define STRANGERS 50u // messages: more than the log has lines for

static int stranger_life(struct fdstore *store)
{
	(void)store;
	pid_t stranger = fork(); // the child's child is not the child
	if (stranger == 0) {
		static const char text[] = "READY=1\nFDSTORE=1\nFDNAME=s";
		bool good = true;
		for (unsigned i = 0; i < STRANGERS; i++) {
			good = good && say(text, sizeof(text) - 1) == 0;
		}
		_exit(!good);
	}
	int status;
	return waitpid(stranger, &status, 0) == stranger && status == 0 ? 0 : 1;
}

static void odd(void)
{
	struct keeper *keeper;
	unsigned heard = 0;
	ok_int(keeper_create(&keeper, &seam_system, NULL), 0, "a keeper among strangers");
	size_t before = open_count();
	ok_int(live_heard(keeper, stranger_life, &heard), 0, "a process that is not the child");
	ok(heard == 0 && keeper_count(keeper) == 0, "is not listened to");
	ok_u64(open_count(), before, "and what it sent is closed");
	ok_u64(keeper_strangers(keeper), STRANGERS, "and all of it is counted");
	ok_int(live_heard(keeper, odd_life, &heard), 0, "messages of a child that has gone wrong");
	ok(heard == 0 && keeper_count(keeper) == 0, "change nothing");
	ok_u64(open_count(), before, "and leave nothing open");
	ok_u64(keeper_strangers(keeper), STRANGERS, "nor is the child a stranger");
	keeper_destroy(keeper);
}

static int outward_life(struct fdstore *store)
{
	static const char text[] = "READY=1\nMAINPID=1\nSTATUS=fine\nWATCHDOG=1\nBUSERROR=x";
	(void)fdstore_keep(store, "region", notify_fixture_file("region"));
	(void)notify_send(&seam_system, text, sizeof(text) - 1, -1);
	fdstore_drop(store, "region");
	static const char quiet[] = "MAINPID=7";
	return notify_send(&seam_system, quiet, sizeof(quiet) - 1, -1);
}

static void outward(void)
{
	struct notify_fixture manager;
	struct notify_message message;
	struct keeper *keeper;
	notify_fixture_open(&manager);
	(void)setenv("NOTIFY_SOCKET", manager.address, 1);
	ok_int(keeper_create(&keeper, &seam_system, NULL), 0, "a keeper below a manager");
	ok_int(live(keeper, outward_life, NULL), 0, "a child that says this and that");
	notify_fixture_read(&manager, &message);
	ok_str(message.text, "FDSTORE=1\nFDPOLL=0\nFDNAME=region\n", "descriptors go on");
	ok(notify_fixture_is(message.fd, "region"), "themselves");
	(void)close(message.fd);
	notify_fixture_read(&manager, &message);
	ok_str(message.text, "READY=1\nSTATUS=fine\nWATCHDOG=1\n",
	       "state goes on, the main process does not");
	notify_fixture_read(&manager, &message);
	ok_str(message.text, "FDSTOREREMOVE=1\nFDNAME=region\n", "removals go on");
	notify_fixture_read(&manager, &message);
	ok_str(message.text, "", "and that is all");
	keeper_destroy(keeper);
	(void)close(manager.fd);
	(void)unsetenv("NOTIFY_SOCKET");
}

static int socket_life(struct fdstore *store)
{
	struct stat facts;
	int fd = fdstore_take(store, "kvd.socket");
	return fstat(fd, &facts) == 0 && S_ISSOCK(facts.st_mode) ? 0 : 1;
}

/// A supervisor that was itself given descriptors: in a process of its own, for their numbers.
static int inheriting(void)
{
	struct keeper *keeper;
	char pid[32];
	(void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (dup2(fd, 3) != 3 || setenv("LISTEN_PID", pid, 1) != 0 ||
	    setenv("LISTEN_FDS", "1", 1) != 0 || setenv("LISTEN_FDNAMES", "kvd.socket", 1) != 0) {
		return 90;
	}
	struct fdstore *inherited = fdstore_create(&seam_system);
	if (keeper_create(&keeper, &seam_system, inherited) != 0) {
		return 91;
	}
	fdstore_destroy(inherited);
	int code = live(keeper, socket_life, NULL);
	return code != 0 ? code
			 : live(keeper, socket_life, NULL) + 10 * (keeper_count(keeper) != 1);
}

static void inherited(void)
{
	int status = -1;
	pid_t process = fork();
	if (process == 0) {
		_exit(inheriting());
	}
	(void)waitpid(process, &status, 0);
	ok_int(status, 0, "a socket of a socket unit comes through to every life");
}

int main(void)
{
	log_init(LOG_LEVEL_ERROR);
	(void)unsetenv("NOTIFY_SOCKET");
	lives();
	many();
	odd();
	flooded();
	outward();
	inherited();
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// The door: socket files that are in the way, limits on clients and on descriptors, and that
// whoever is refused learns why while everybody else is served.

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/listener.h"
#include "shm/counters.h"
#include "shm/limits.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

static char folder[96];
static char path[128];
static char *also_path; // NULL = no second door

static int start(struct listener **listener, char *error, size_t error_bytes)
{
	stub_start(PERSIST_MEMORY);
	stub.kvd.config.socket_path = path;
	stub.kvd.config.socket_also_path = also_path;
	stub.kvd.config.dir = folder;
	stub.kvd.config.socket_mode = 0660;
	*listener = NULL;
	int result = listener_open(listener, &stub.kvd, error, error_bytes);
	stub.kvd.listener = *listener;
	return result;
}

static void stop(struct listener *listener)
{
	listener_close(listener);
	stub_stop();
}

static void turns(struct listener *listener)
{
	for (int i = 0; i < 20; i++) {
		(void)loop_turn(stub.kvd.loop, 0);
	}
	(void)listener;
}

static int dial_at(const char *at)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, at, strlen(at));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int dial(void)
{
	return dial_at(path);
}

static bool says(int fd, const char *text)
{
	char got[128] = "";
	ssize_t n = recv(fd, got, sizeof(got) - 1, 0);
	if (n < 0 || strcmp(got, text) != 0) {
		tap_diag("got '%s'", got);
		return false;
	}
	return true;
}

static bool served(struct listener *listener, int fd)
{
	return send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6 &&
	       (turns(listener), says(fd, "+PONG\r\n"));
}

static void test_socket_file(void)
{
	struct listener *listener;
	char error[256];
	mode_t before = umask(077);
	ok_int(start(&listener, error, sizeof(error)), 0, "it listens");
	umask(before);
	struct stat status;
	ok(stat(path, &status) == 0 && (status.st_mode & 07777) == 0660,
	   "the socket has the configured mode whatever the umask");
	int fd = dial();
	turns(listener);
	ok(served(listener, fd), "a client is served");
	struct session_walk walk = { 0 };
	const struct session *only = session_walk_next(stub.kvd.sessions, &walk);
	ok(only && only->pid == (int)getpid() && only->uid == geteuid(),
	   "the kernel tells who it is");
	ok(only && session_find(&stub.kvd, only->id) == only &&
		   session_find(&stub.kvd, 99) == NULL &&
		   session_walk_next(stub.kvd.sessions, &walk) == NULL,
	   "it is found by its id");
	struct listener *second = NULL;
	ok_int(listener_open(&second, &stub.kvd, error, sizeof(error)), -EADDRINUSE,
	       "a socket that answers is left alone");
	ok(strstr(error, path) && strstr(error, "--socket"), "the error names path and remedy: %s",
	   error);
	ok(dial() >= 0, "and the first goes on");
	stop(listener);
	ok(stat(path, &status) != 0 && errno == ENOENT, "at stop the socket file is removed");
	close(fd);
}

static void test_stale(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, path, strlen(path));
	int old = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(old, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		abort();
	}
	close(old);
	struct listener *listener;
	char error[256];
	ok_int(start(&listener, error, sizeof(error)), 0,
	       "a socket that nobody answers at is replaced");
	if (unlink(path) != 0) {
		abort();
	}
	int other = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	stop(listener);
	struct stat status;
	ok(stat(path, &status) == 0, "a file that took its place is not removed");
	close(other);
	ok_int(start(&listener, error, sizeof(error)), -EEXIST,
	       "a file that is no socket is left alone");
	ok(strstr(error, "not a socket"), "with a clear error: %s", error);
	stub_stop();
	(void)unlink(path);
}

static void test_bad_paths(void)
{
	struct listener *listener = NULL;
	char error[256];
	char long_path[200];
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	stub_start(PERSIST_MEMORY);
	stub.kvd.config.dir = folder;
	stub.kvd.config.socket_path = long_path;
	ok_int(listener_open(&listener, &stub.kvd, error, sizeof(error)), -ENAMETOOLONG,
	       "a path that is too long");
	ok(strstr(error, "199 bytes") && strstr(error, "107"), "with both numbers: %s", error);
	stub.kvd.config.socket_path = (char[]){ "/nonexistent-folder/kvd.sock" };
	ok_int(listener_open(&listener, &stub.kvd, error, sizeof(error)), -ENOENT,
	       "a missing folder");
	ok(strstr(error, "/nonexistent-folder/kvd.sock") && strstr(error, "create"),
	   "with the remedy: %s", error);
	stub_stop();
}

static void test_second_door(void)
{
	struct listener *listener;
	char error[256];
	char also[160], also_folder[140];
	(void)snprintf(also_folder, sizeof(also_folder), "%s/run", folder);
	(void)snprintf(also, sizeof(also), "%s/kvd.sock", also_folder);
	also_path = also;
	ok_int(start(&listener, error, sizeof(error)), 0, "it listens at two paths");
	int first = dial();
	int second = dial_at(also);
	turns(listener);
	ok(served(listener, first) && served(listener, second), "and serves at both");
	ok_str(listener_path_also(listener), also, "the second is known");
	close(first);
	close(second);
	stop(listener);
	struct stat status;
	ok(stat(path, &status) != 0 && stat(also, &status) != 0, "at stop both files are removed");
	int taken = open(also, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ok_int(start(&listener, error, sizeof(error)), 0, "a second path that is taken");
	ok(listener_path_also(listener) == NULL, "is left alone");
	first = dial();
	turns(listener);
	ok(served(listener, first), "and the first is served");
	close(first);
	stop(listener);
	close(taken);
	(void)unlink(also);
	(void)rmdir(also_folder);
	also_path = NULL;
}

static void test_clients_max(void)
{
	struct listener *listener;
	char error[256];
	if (start(&listener, error, sizeof(error)) != 0) {
		abort();
	}
	// kvd's own user has the places that are kept for it, too.
	stub.kvd.config.clients_max = 3;
	int kept[KVS_CLIENTS_RESERVED];
	for (unsigned i = 0; i < KVS_CLIENTS_RESERVED; i++) {
		kept[i] = dial();
	}
	int fds[4];
	for (int i = 0; i < 4; i++) {
		fds[i] = dial();
	}
	turns(listener);
	bool served_all = true;
	for (unsigned i = 0; i < KVS_CLIENTS_RESERVED; i++) {
		served_all = served(listener, kept[i]) && served_all;
	}
	ok(served_all, "G: places are kept for kvd's own user");
	ok(says(fds[3], "-ERR max number of clients reached\r\n"),
	   "G: one client too many is told so");
	char byte;
	ok_int(recv(fds[3], &byte, 1, 0), 0, "and closed");
	ok(served(listener, fds[0]) && served(listener, fds[2]), "the others are served");
	close(fds[0]);
	turns(listener);
	close(fds[3]);
	fds[3] = dial();
	turns(listener);
	ok(served(listener, fds[3]), "when one leaves, another finds its place");
	close(fds[1]);
	fds[1] = dial();
	turns(listener);
	ok(served(listener, fds[1]), "also when it comes in the moment in which the other leaves");
	ok_u64(stub_counter(KVS_COUNTER_connections_received), 6 + KVS_CLIENTS_RESERVED,
	       "received");
	ok_u64(stub_counter(KVS_COUNTER_connections_rejected), 1, "rejected");
	for (int i = 1; i < 4; i++) {
		close(fds[i]);
	}
	for (unsigned i = 0; i < KVS_CLIENTS_RESERVED; i++) {
		close(kept[i]);
	}
	stop(listener);
}

static void test_no_descriptors(void)
{
	struct listener *listener;
	char error[256];
	if (start(&listener, error, sizeof(error)) != 0) {
		abort();
	}
	int first = dial();
	turns(listener);
	int waiting[3];
	for (int i = 0; i < 3; i++) {
		waiting[i] = dial();
	}
	// No number above those in use: every accept fails from here on.
	struct rlimit before;
	int top = dup(first);
	close(top);
	if (getrlimit(RLIMIT_NOFILE, &before) != 0) {
		abort();
	}
	struct rlimit none = { .rlim_cur = (rlim_t)top, .rlim_max = before.rlim_max };
	if (setrlimit(RLIMIT_NOFILE, &none) != 0) {
		abort();
	}
	turns(listener);
	bool told = true;
	for (int i = 0; i < 3; i++) {
		told = says(waiting[i], "-ERR max number of clients reached\r\n") && told;
		close(waiting[i]);
	}
	if (getenv("KVD_TEST_EMULATED")) {
		tap_skip("G: without descriptors new clients are told: valgrind counts its own");
	} else {
		ok(told, "G: without descriptors new clients are told and closed, not left "
			 "hanging");
	}
	ok(served(listener, first), "G: those that are there are served");
	if (setrlimit(RLIMIT_NOFILE, &before) != 0) {
		abort();
	}
	int later = dial();
	stub.now_ns += 200000000;
	turns(listener);
	ok(served(listener, later), "G: afterwards clients are accepted again");
	close(first);
	close(later);
	stop(listener);
}

/// A connection of another user.
static int dial_as(uint32_t uid)
{
	if (seteuid(uid) != 0) {
		abort();
	}
	int fd = dial();
	if (seteuid(0) != 0) {
		abort();
	}
	return fd;
}

static void test_share_of_user(void)
{
	struct listener *listener;
	char error[256];
	if (geteuid() != 0) {
		tap_skip("G: a user's share of the connections: needs other users");
		return;
	}
	if (start(&listener, error, sizeof(error)) != 0 || chmod(folder, 0711) != 0 ||
	    chmod(path, 0666) != 0) {
		abort();
	}
	stub.kvd.config.clients_max = 6;
	stub.kvd.config.clients_share_percent = 50;
	int fds[9];
	for (int i = 0; i < 4; i++) {
		fds[i] = dial_as(64001);
	}
	turns(listener);
	ok(served(listener, fds[2]), "within a user's share of the connections");
	ok(says(fds[3], "-ERR max number of clients reached for this user "
			"(maxclients-uid-share)\r\n"),
	   "G: one beyond it is told so");
	fds[4] = dial_as(64002);
	turns(listener);
	ok(served(listener, fds[4]), "G: and another user finds a place");
	close(fds[3]);
	close(fds[0]);
	fds[3] = dial_as(64001);
	turns(listener);
	ok(served(listener, fds[3]), "when one of his leaves there is a place for him");
	fds[5] = dial();
	turns(listener);
	ok(served(listener, fds[5]), "kvd's own user has no share");
	fds[6] = dial();
	fds[7] = dial_as(64003);
	turns(listener);
	ok(served(listener, fds[6]) && says(fds[7], "-ERR max number of clients reached\r\n"),
	   "but the bound of all");
	fds[8] = dial();
	turns(listener);
	ok(served(listener, fds[8]), "G: beyond which root gets in, to see who they are");
	for (int i = 0; i < 9; i++) {
		close(fds[i]);
	}
	stop(listener);
}

int main(void)
{
	const char *base = getenv("TMPDIR");
	(void)snprintf(folder, sizeof(folder), "%.60s/kvd-listener-XXXXXX", base ? base : "/tmp");
	if (!mkdtemp(folder)) {
		return 1;
	}
	(void)snprintf(path, sizeof(path), "%s/kvd.sock", folder);
	test_socket_file();
	test_stale();
	test_bad_paths();
	test_second_door();
	test_clients_max();
	test_share_of_user();
	test_no_descriptors();
	(void)rmdir(folder);
	return tap_done();
}

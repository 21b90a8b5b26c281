// SPDX-License-Identifier: MIT
//
// Watching a server in earnest: kvd, or redis-server, whose documented protocol the watching half
// is written for. Argument: which of the two. What a second connection changes is told, whatever
// kind of change it is; after the server has died and come back the watch goes on by itself.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"

#define MANY 20000u	// more changes than a socket and a server keep for one client
#define PATIENCE 20000u // milliseconds, in all, for one thing to happen

/// The server, one of two kinds.
struct server {
	struct harness *kvd; // NULL: redis-server
	char dir[64];
	char path[100];
	pid_t pid;
};

__attribute__((noreturn)) static void bail(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(99);
}

static void redis_launch(struct server *server)
{
	server->pid = fork();
	if (server->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!freopen("/dev/null", "w", stdout) || chdir(server->dir) != 0) {
			_exit(126);
		}
		(void)execlp("redis-server", "redis-server", "--port", "0", "--save", "",
			     "--unixsocket", server->path, (char *)NULL);
		_exit(127);
	}
}

static void server_start(struct server *server, bool redis)
{
	const char *temporary = getenv("TMPDIR");
	if (!redis) {
		server->kvd = harness_start(NULL);
		(void)snprintf(server->path, sizeof(server->path), "%s",
			       harness_socket(server->kvd));
		return;
	}
	(void)snprintf(server->dir, sizeof(server->dir), "%s/kvc-redis-XXXXXX",
		       temporary ? temporary : "/tmp");
	if (!mkdtemp(server->dir)) {
		bail("mkdtemp");
	}
	(void)snprintf(server->path, sizeof(server->path), "%s/s", server->dir);
	redis_launch(server);
}

static void server_kill(struct server *server)
{
	if (server->kvd) {
		harness_kill(server->kvd);
		return;
	}
	(void)kill(server->pid, SIGKILL);
	(void)waitpid(server->pid, NULL, 0);
	(void)unlink(server->path);
}

static void server_again(struct server *server)
{
	if (server->kvd) {
		harness_restart(server->kvd);
	} else {
		redis_launch(server);
	}
}

static void server_end(struct server *server)
{
	server_kill(server);
	if (server->kvd) {
		harness_free(server->kvd);
	} else {
		(void)rmdir(server->dir);
	}
}

struct told {
	char text[1024];
	size_t bytes;
};

static void tell(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
		 size_t key_bytes)
{
	struct told *told = user;
	size_t left = sizeof(told->text) - told->bytes;
	const char *word = event == KVC_WATCH_READY ? "R" : event == KVC_WATCH_LOST ? "L" : "=";
	int added = snprintf(told->text + told->bytes, left, "%s%.*s%s", word, (int)key_bytes,
			     key ? (const char *)key : "",
			     event == KVC_WATCH_CHANGED && !key ? "*" : "");
	(void)async;
	told->bytes += (size_t)added < left ? (size_t)added : 0;
}

// Runs the handle's loop until `told` says so. False: something else, or nothing in time.
static bool until(kvc_async *async, struct told *told, const char *text)
{
	for (unsigned waited = 0; waited < PATIENCE && strcmp(told->text, text) != 0;) {
		int timeout_ms = kvc_async_timeout_ms(async);
		struct pollfd poll_fd = { .fd = kvc_async_fd(async), .events = POLLIN };
		timeout_ms = timeout_ms < 0 || timeout_ms > 50 ? 50 : timeout_ms;
		waited += poll(&poll_fd, 1, timeout_ms) == 0 ? (unsigned)timeout_ms : 0;
		(void)kvc_async_dispatch(async);
	}
	bool same = strcmp(told->text, text) == 0;
	if (!same) {
		tap_diag("told '%s', expected '%s'; %s", told->text, text,
			 kvc_async_error_text(async));
	}
	told->bytes = 0;
	told->text[0] = '\0';
	return same;
}

// A command over another handle, its reply waited for.
static void done(kvc_async *async, void *user, const struct kvc_result *result)
{
	(void)async;
	*(int *)user = result->status;
}

static void command(kvc_async *async, const char *a, const char *b, const char *c, const char *d)
{
	const void *argv[] = { a, b, c, d };
	size_t bytes[4];
	int argc = 0, status = 1;
	for (; argc < 4 && argv[argc]; argc++) {
		bytes[argc] = strlen(argv[argc]);
	}
	(void)kvc_async_command(async, argc, argv, bytes, done, &status, NULL);
	while (status == 1) {
		struct pollfd poll_fd = { .fd = kvc_async_fd(async), .events = POLLIN };
		(void)poll(&poll_fd, 1, kvc_async_timeout_ms(async));
		(void)kvc_async_dispatch(async);
	}
	if (status != KVC_OK) {
		tap_diag("%s: %s", a, kvc_strerror(status));
	}
}

static kvc_async *open_async(const struct server *server)
{
	kvc_async *async;
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = server->path,
				       .name = "watcher",
				       .flags = KVC_OPEN_NO_CONNECT };
	if (kvc_async_open(&async, &options, NULL) != KVC_OK) {
		bail("no handle");
	}
	return async;
}

static void test_changes(kvc_async *watcher, kvc_async *other, struct told *key,
			 struct told *prefix)
{
	command(other, "SET", "user:1", "a", NULL);
	ok(until(watcher, prefix, "=user:1"), "SET");
	ok(until(watcher, key, "=user:1"), "told to the watcher of the key");
	command(other, "SET", "user:2", "a", NULL);
	command(other, "SET", "elsewhere", "a", NULL);
	ok(until(watcher, prefix, "=user:2"), "another key of the prefix, but not elsewhere");
	ok(until(watcher, key, ""), "which the watcher of one key does not hear of");
	command(other, "DEL", "user:1", NULL, NULL);
	ok(until(watcher, key, "=user:1"), "DEL");
	ok(until(watcher, prefix, "=user:1"), "to both");
	command(other, "INCR", "user:3", NULL, NULL);
	ok(until(watcher, prefix, "=user:3"), "INCR");
	command(other, "PEXPIRE", "user:3", "1", NULL);
	ok(until(watcher, prefix, "=user:3=user:3"), "PEXPIRE, and the expiry itself");
	command(watcher, "SET", "user:4", "own", NULL);
	ok(until(watcher, prefix, "=user:4"), "a change by the same handle");
	command(other, "MULTI", NULL, NULL, NULL);
	command(other, "SET", "user:5", "a", NULL);
	command(other, "SET", "user:6", "a", NULL);
	command(other, "EXEC", NULL, NULL, NULL);
	ok(until(watcher, prefix, "=user:5=user:6"), "a transaction");
	command(other, "FLUSHALL", NULL, NULL, NULL);
	ok(until(watcher, prefix, "=*"), "FLUSHALL");
	ok(until(watcher, key, "=*"), "is told to all");
}

struct counts {
	unsigned changed, lost, ready;
};

static void count(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
		  size_t key_bytes)
{
	struct counts *counts = user;
	(void)async;
	(void)key;
	(void)key_bytes;
	counts->changed += event == KVC_WATCH_CHANGED;
	counts->lost += event == KVC_WATCH_LOST;
	counts->ready += event == KVC_WATCH_READY;
}

static void turn(kvc_async *async)
{
	struct pollfd poll_fd = { .fd = kvc_async_fd(async), .events = POLLIN };
	(void)poll(&poll_fd, 1, kvc_async_timeout_ms(async));
	(void)kvc_async_dispatch(async);
}

// A watcher that does not read: the server cuts it off, and it is told so when it reads again.
static void test_overflow(const struct server *server, kvc_async *other)
{
	struct counts counts = { .changed = 0 };
	kvc_watch *watch;
	kvc_async *slow = open_async(server);
	(void)kvc_watch_open(slow, "many:", 5, KVC_WATCH_PREFIX, count, &counts, &watch);
	while (counts.ready == 0) {
		turn(slow);
	}
	if (server->kvd) {
		command(other, "CONFIG", "SET", "client-output-max", "100000");
	} else {
		command(other, "CONFIG", "SET", "client-output-buffer-limit", "normal 100kb 0 0");
	}
	for (unsigned i = 0; i < MANY;) {
		char key[100];
		(void)snprintf(key, sizeof(key), "many:%090u", i);
		const void *argv[] = { "SET", key, "" };
		const size_t bytes[] = { 3, strlen(key), 0 };
		i += kvc_async_command(other, 3, argv, bytes, NULL, NULL, NULL) == KVC_OK;
		while (kvc_async_pending(other) > 100) {
			turn(other);
		}
	}
	while (kvc_async_pending(other) > 0) {
		turn(other);
	}
	while (counts.ready == 1) {
		turn(slow);
	}
	ok(counts.lost == 1 && counts.changed < MANY, "cut off after %u of %u changes: lost, ready",
	   counts.changed, MANY);
	(void)kvc_async_close(slow);
}

int main(int argc, char **argv)
{
	struct server server = { .pid = 0 };
	struct told key = { .bytes = 0 }, prefix = { .bytes = 0 }, all = { .bytes = 0 };
	kvc_watch *one, *two, *three;
	bool redis = argc > 1 && strcmp(argv[1], "redis") == 0;
	server_start(&server, redis);
	kvc_async *watcher = open_async(&server), *other = open_async(&server);
	(void)kvc_watch_open(watcher, "user:1", 6, 0, tell, &key, &one);
	(void)kvc_watch_open(watcher, "user:", 5, KVC_WATCH_PREFIX, tell, &prefix, &two);
	for (unsigned i = 0; i < 1000 && (key.bytes == 0 || key.text[key.bytes - 1] != 'R'); i++) {
		struct pollfd poll_fd = { .fd = kvc_async_fd(watcher), .events = POLLIN };
		(void)poll(&poll_fd, 1, kvc_async_timeout_ms(watcher));
		(void)kvc_async_dispatch(watcher);
	}
	// A redis-server that is still starting loses the first attempt.
	ok(strcmp(key.text, "R") == 0 || strcmp(key.text, "LR") == 0, "ready: %s", key.text);
	key.bytes = prefix.bytes = 0;
	key.text[0] = prefix.text[0] = '\0';
	test_changes(watcher, other, &key, &prefix);
	(void)kvc_watch_open(watcher, "", 0, KVC_WATCH_PREFIX, tell, &all, &three);
	ok(until(watcher, &all, "R"), "every key");
	ok(until(watcher, &key, "LR") && until(watcher, &prefix, "LR"),
	   "which began the subscription anew");
	command(other, "SET", "elsewhere", "a", NULL);
	ok(until(watcher, &all, "=elsewhere"), "any change is told");
	ok_int(kvc_watch_close(three), KVC_OK, "no more of that");
	test_overflow(&server, other);
	server_kill(&server);
	ok(until(watcher, &key, "L"), "the server dies: lost");
	server_again(&server);
	ok(until(watcher, &key, "R"), "it is back: ready");
	while (kvc_async_pending(other) == 0 && key.bytes == 0) {
		command(other, "SET", "user:1", "b", NULL);
		(void)kvc_async_dispatch(watcher);
	}
	ok(strncmp(key.text, "=user:1", 7) == 0, "and told again");
	(void)kvc_async_close(watcher);
	(void)kvc_async_close(other);
	server_end(&server);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// An asynchronous handle and fork(): the requests are the parent's, wherever the fork happens, and
// the child may go on with a connection of its own.
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "tests/lib/wipeonfork.h"
#include "tests/libclient/peer.h"
#include "tests/tap/tap.h"

static void set(kvc_async *async, kvc_done done, void *user)
{
	(void)kvc_async_set(async, "k", 1, "v", 1, NULL, done, user, NULL);
}

// What a child finds, and does, with the handle it inherited. Its exit code.
static int in_child(struct peer *peer, kvc_async *async, int parents_fd)
{
	struct peer_seen seen = { 0 };
	peer_calls = 0;
	peer_hang_up(peer); // its copy
	bool empty = kvc_async_pending(async) == 0;
	bool other = kvc_async_fd(async) != parents_fd && kvc_async_fd(async) >= 0;
	set(async, peer_see, &seen);
	peer_settle(peer, async);
	bool works = seen.calls == 1 && seen.status == KVC_OK && peer_calls == 1;
	bool closes = kvc_async_close(async) == KVC_OK && peer_calls == 1;
	return empty && other && works && closes ? 0 : 1;
}

static bool child_was_good(pid_t child)
{
	int status;
	return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

struct forker {
	struct peer *peer;
	int fd;
	pid_t child;
	unsigned calls;
};

static void fork_inside(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct forker *forker = user;
	(void)result;
	if (forker->calls++ == 0) {
		forker->child = fork();
		if (forker->child == 0) {
			_exit(in_child(forker->peer, async, forker->fd));
		}
	}
}

static void test_fork(struct peer *peer, kvc_async *async)
{
	struct peer_seen seen = { 0 };
	struct forker forker = { .peer = peer, .fd = kvc_async_fd(async) };
	set(async, peer_see, &seen);
	peer_settle(peer, async); // connected: a child must not take this connection for its own
	seen.calls = 0;
	set(async, peer_see, &seen);
	peer_turn(async);
	pid_t child = fork();
	if (child == 0) {
		_exit(in_child(peer, async, forker.fd));
	}
	ok(child_was_good(child), "a child has no requests, another descriptor, and can go on");
	peer_settle(peer, async);
	ok(seen.calls == 1 && seen.status == KVC_OK, "the parent's request is the parent's");
	set(async, fork_inside, &forker);
	set(async, fork_inside, &forker);
	peer_settle(peer, async);
	ok(child_was_good(forker.child), "the same from inside a completion");
	ok_u64(forker.calls, 2, "the parent goes on");
	child = fork();
	if (child == 0) {
		struct pollfd never = { .fd = -1 };
		(void)poll(&never, 1, 60000); // holds the parent's socket until it is ended
		_exit(0);
	}
	(void)shutdown(peer->fd, SHUT_RDWR); // the child holds a copy of this end too
	peer_hang_up(peer);
	peer_turn(async);
	ok(!peer_is_due(async), "a socket that a child still holds is not reported for ever");
	(void)kill(child, SIGKILL);
	(void)waitpid(child, NULL, 0);
	set(async, peer_see, &seen);
	peer_settle(peer, async);
	ok(seen.calls == 2 && seen.status == KVC_OK, "and the handle connects anew");
}

static void told(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
		 size_t key_bytes)
{
	char *events = user;
	size_t at = strlen(events);
	(void)async;
	(void)key;
	(void)key_bytes;
	events[at] = event == KVC_WATCH_READY ? 'R' : event == KVC_WATCH_LOST ? 'L' : '=';
}

// A watch goes on in the child, which is told what it has missed.
static void test_watch(struct peer *peer)
{
	char events[16] = "";
	kvc_watch *watch;
	kvc_async *async = peer_open(peer, NULL);
	peer_hang_up(peer);
	(void)kvc_watch_open(async, "k", 1, 0, told, events, &watch);
	peer_settle(peer, async);
	pid_t child = fork();
	if (child == 0) {
		peer_hang_up(peer); // its copy
		(void)kvc_async_dispatch(async);
		peer_settle(peer, async);
		(void)kvc_watch_close(watch);
		_exit(strcmp(events, "RLR") == 0 && kvc_async_close(async) == KVC_OK ? 0 : 1);
	}
	ok(child_was_good(child), "a watch is lost in the child, and ready again");
	peer_settle(peer, async);
	ok_str(events, "R", "the parent's goes on as if nothing had been");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

struct returner {
	pid_t child; // 0 in the child
	unsigned calls;
};

static void fork_and_return(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct returner *returner = user;
	(void)async;
	(void)result;
	if (returner->calls++ == 0) {
		returner->child = fork();
	}
}

static void fork_in_event(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
			  size_t key_bytes)
{
	struct returner *returner = user;
	(void)async;
	(void)key;
	(void)key_bytes;
	if (event == KVC_WATCH_CHANGED && returner->calls++ == 0) {
		returner->child = fork();
	}
}

// A child that was made in a callback returns from it: its dispatch ends, nothing is told twice.
static int after_return(struct peer *peer, kvc_async *async, const struct returner *returner)
{
	struct peer_seen seen = { 0 };
	unsigned calls = returner->calls;
	peer_hang_up(peer); // its copy
	if (kvc_async_pending(async) != 0 || returner->calls != calls) {
		return 1;
	}
	set(async, peer_see, &seen);
	peer_settle(peer, async);
	if (seen.calls != 1 || seen.status != KVC_OK || returner->calls != calls) {
		return 2;
	}
	return kvc_async_close(async) == KVC_OK ? 0 : 3;
}

// Dispatches until a callback has forked. In the child: ends it with what it finds.
static void dispatch_and_return(struct peer *peer, kvc_async *async, struct returner *returner,
				const char *what)
{
	int status = KVC_OK;
	for (unsigned i = 0; i < 20 && returner->calls == 0; i++) {
		status = kvc_async_dispatch(async);
		if (returner->calls == 0) {
			(void)peer_accept(peer);
			peer_read(peer, PEER_ALL);
			peer_write(peer, PEER_ALL);
		}
	}
	if (returner->calls > 0 && returner->child == 0) {
		_exit(status == KVC_OK ? after_return(peer, async, returner) : 9);
	}
	ok(returner->calls > 0 && child_was_good(returner->child),
	   "a child made in %s goes on with a handle of its own", what);
	peer_settle(peer, async);
}

static void test_return(struct peer *peer)
{
	struct returner answered = { .calls = 0 }, failed = answered, cancelled = answered,
			watched = answered;
	kvc_watch *watch;
	uint64_t id;
	kvc_async *async = peer_open(peer, NULL);
	peer_hang_up(peer);
	set(async, fork_and_return, &answered);
	set(async, fork_and_return, &answered);
	dispatch_and_return(peer, async, &answered, "the completion of an answer");
	ok_u64(answered.calls, 2, "and the parent with its own");
	(void)kvc_async_set(async, "k", 1, "v", 1, NULL, fork_and_return, &cancelled, &id);
	(void)kvc_async_cancel(async, id);
	dispatch_and_return(peer, async, &cancelled, "that of what was cancelled");
	(void)kvc_async_close(async);
	async = peer_open(peer, NULL);
	peer_hang_up(peer);
	(void)kvc_watch_open(async, "k", 1, 0, fork_in_event, &watched, &watch);
	peer_settle(peer, async);
	peer_say(peer, ">2\r\n+invalidate\r\n*1\r\n+k\r\n");
	peer_write(peer, PEER_ALL);
	int status = kvc_async_dispatch(async);
	if (watched.calls == 1 && watched.child == 0) {
		_exit(status == KVC_OK && kvc_watch_close(watch) == KVC_OK &&
				      kvc_async_close(async) == KVC_OK
			      ? 0
			      : 1);
	}
	ok(watched.calls == 1 && child_was_good(watched.child), "so does one made in a watch's");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
	peer_listen(peer, false);
	async = peer_open(peer, NULL);
	set(async, fork_and_return, &failed);
	set(async, fork_and_return, &failed);
	(void)kvc_async_dispatch(async);
	if (failed.child == 0) {
		_exit(kvc_async_pending(async) == 0 && failed.calls == 1 &&
				      kvc_async_close(async) == KVC_OK
			      ? 0
			      : 1);
	}
	ok(child_was_good(failed.child), "or that of a failure");
	ok_u64(failed.calls, 2, "and the parent with its own");
	(void)kvc_async_close(async);
	peer_listen(peer, true);
}

// A child that may have no more descriptors has no handle, and says so.
static int without_descriptors(kvc_async *async, kvc_watch *watch)
{
	struct rlimit before, none;
	uint64_t id;
	(void)getrlimit(RLIMIT_NOFILE, &before);
	none = before;
	none.rlim_cur = 0;
	if (setrlimit(RLIMIT_NOFILE, &none) != 0) {
		return 1;
	}
	if (kvc_async_set(async, "k", 1, "v", 1, NULL, NULL, NULL, &id) != KVC_SYSTEM ||
	    kvc_async_fd(async) != -1 || kvc_async_dispatch(async) != KVC_SYSTEM) {
		return 2;
	}
	if (kvc_watch_close(watch) != KVC_OK) {
		return 3;
	}
	bool closed = kvc_async_close(async) == KVC_OK;
	return setrlimit(RLIMIT_NOFILE, &before) == 0 && closed ? 0 : 4;
}

static void test_no_descriptors(struct peer *peer)
{
	char events[16] = "";
	kvc_watch *watch;
	kvc_async *async = peer_open(peer, NULL);
	peer_hang_up(peer);
	(void)kvc_watch_open(async, "k", 1, 0, told, events, &watch);
	peer_settle(peer, async);
	pid_t child = fork();
	if (child == 0) {
		_exit(without_descriptors(async, watch));
	}
	ok(child_was_good(child), "a child without descriptors is told so, and may close");
	(void)kvc_async_close(async);
	peer_hang_up(peer);
}

int main(void)
{
	static struct peer peer;
	if (!wipes_on_fork()) {
		printf("1..0 # SKIP %s\n", WIPES_ON_FORK_NOT);
		return 0;
	}
	peer_start(&peer);
	kvc_async *async = peer_open(&peer, NULL);
	test_fork(&peer, async);
	ok_int(kvc_async_close(async), KVC_OK, "close");
	test_watch(&peer);
	test_return(&peer);
	test_no_descriptors(&peer);
	peer_stop(&peer);
	return tap_done();
}

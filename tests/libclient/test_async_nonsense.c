// SPDX-License-Identifier: MIT
//
// An asynchronous handle whose peer makes no sense, whose descriptor is taken away, whose kvd has
// no room in its queue, under a clock of the test's own. Every completion is called once, what a
// watch may have missed is told, and callbacks may close whatever they like.
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libclient/async.h"
#include "libclient/watch.h"
#include "tests/libclient/peer.h"
#include "tests/tap/tap.h"

static uint64_t clock_ahead_ns;

uint64_t __real_kvc_now_ns(void);
uint64_t __wrap_kvc_now_ns(void);
uint64_t __wrap_kvc_deadline_ns(uint32_t timeout_ms);

uint64_t __wrap_kvc_now_ns(void)
{
	return __real_kvc_now_ns() + clock_ahead_ns;
}

uint64_t __wrap_kvc_deadline_ns(uint32_t timeout_ms)
{
	return __wrap_kvc_now_ns() + (uint64_t)timeout_ms * 1000000;
}

static kvc_async *connected(struct peer *peer)
{
	struct peer_seen seen = { 0 };
	peer_hang_up(peer);
	kvc_async *async = peer_open(peer, NULL);
	(void)peer_set(async, 0, 1, peer_see, &seen, NULL);
	peer_settle(peer, async);
	ok(seen.calls == 1 && seen.status == KVC_OK, "a handle that is connected");
	return async;
}

static void test_unasked(struct peer *peer)
{
	struct peer_seen seen = { 0 };
	kvc_async *async = connected(peer);
	peer_say(peer, ">2\r\n+message\r\n+x\r\n");
	peer_settle(peer, async);
	ok(kvc_stream_is_open(&async->stream), "a push is passed over");
	peer_say(peer, "-ERR closed: too greedy\r\n");
	peer_settle(peer, async);
	ok(!kvc_stream_is_open(&async->stream) &&
		   strstr(kvc_async_error_text(async), "too greedy") != NULL,
	   "an error that nobody asked for is why: %s", kvc_async_error_text(async));
	peer_hang_up(peer);
	(void)peer_set(async, 1, 1, peer_see, &seen, NULL);
	peer_settle(peer, async);
	ok(seen.calls == 1 && seen.status == KVC_OK, "and the handle connects anew");
	peer_say(peer, "+OK\r\n");
	(void)peer_set(async, 2, 1, peer_see, &seen, NULL);
	peer_write(peer, PEER_ALL); // before the request was sent
	peer_turn(async);
	ok(seen.calls == 2 && seen.status == KVC_UNREACHABLE &&
		   strstr(kvc_async_error_text(async), "nobody asked for") != NULL,
	   "an answer to what was not sent is none: %s", kvc_async_error_text(async));
	(void)kvc_async_close(async);
}

static void test_sync(struct peer *peer)
{
	struct peer_seen seen = { 0 };
	kvc_async *async = connected(peer);
	peer->error = "IOERR not durable: x";
	(void)kvc_async_sync(async, peer_see, &seen, NULL);
	peer_settle(peer, async);
	ok(seen.status == KVC_NOT_DURABLE && async->stream.client->conn.unsynced,
	   "E: a sync that failed leaves what it was for unsynced");
	peer->error = NULL;
	(void)kvc_async_sync(async, peer_see, &seen, NULL);
	peer_settle(peer, async);
	ok(seen.status == KVC_OK && !async->stream.client->conn.unsynced, "the next one does not");
	(void)kvc_async_close(async);
}

// The application closes descriptors that are not its own.
static void test_taken(struct peer *peer)
{
	struct peer_seen seen = { 0 };
	kvc_async *async = connected(peer);
	close(async->stream.client->conn.fd);
	(void)peer_set(async, 1, 1, peer_see, &seen, NULL);
	ok_int(kvc_async_flush(async), KVC_OK, "a connection that was taken away");
	ok(strstr(kvc_async_error_text(async), "somebody has closed the descriptor") != NULL, "%s",
	   kvc_async_error_text(async));
	peer_hang_up(peer);
	peer_settle(peer, async);
	ok(seen.calls == 1 && seen.status == KVC_OK, "the request goes out on another");
	(void)kvc_async_close(async);
}

static void test_overdue(struct peer *peer)
{
	struct peer_seen seen = { 0 };
	peer_hang_up(peer);
	kvc_async *async = peer_open(peer, NULL);
	(void)peer_set(async, 1, 1, peer_see, &seen, NULL);
	clock_ahead_ns += UINT64_C(61000000000);
	(void)kvc_async_dispatch(async);
	ok(seen.calls == 1 && seen.status == KVC_UNREACHABLE,
	   "what was never sent in time has not reached kvd");
	(void)kvc_async_close(async);
}

// kvd is there, only its queue of connections is full.
static void test_queue(struct peer *peer)
{
	struct peer_seen seen = { 0 };
	int queued[8];
	unsigned count = 0;
	struct sockaddr_storage address;
	socklen_t bytes = sizeof(address);
	peer_hang_up(peer);
	kvc_async *async = peer_open(peer, NULL);
	(void)listen(peer->listener, 0);
	(void)getsockname(peer->listener, (struct sockaddr *)&address, &bytes);
	do {
		queued[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	} while (connect(queued[count++], (struct sockaddr *)&address, bytes) == 0 && count < 8);
	(void)peer_set(async, 1, 1, peer_see, &seen, NULL);
	(void)kvc_async_dispatch(async);
	int wait_ms = kvc_async_timeout_ms(async);
	ok(seen.calls == 0 && wait_ms >= 0 && wait_ms <= 2, "it waits, and tries again in %d ms",
	   wait_ms);
	(void)kvc_async_dispatch(async);
	ok_u64(seen.calls, 0, "however often it is asked meanwhile");
	while (count > 0) {
		close(queued[--count]);
	}
	for (int fd; (fd = accept(peer->listener, NULL, NULL)) >= 0;) {
		close(fd);
	}
	while (!kvc_stream_is_open(&async->stream) && seen.calls == 0) {
		(void)poll(NULL, 0, kvc_async_timeout_ms(async));
		(void)kvc_async_dispatch(async);
	}
	peer_settle(peer, async);
	ok(seen.calls == 1 && seen.status == KVC_OK, "until there is room");
	(void)listen(peer->listener, 16);
	(void)kvc_async_close(async);
}

static void test_never(struct peer *peer)
{
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = peer->path,
				       .request_timeout_ms = UINT32_MAX,
				       .flags = KVC_OPEN_NO_CONNECT };
	const void *argv[] = { "ANY" };
	const size_t bytes[] = { 3 };
	struct peer_seen seen = { 0 };
	kvc_async *async;
	peer_hang_up(peer);
	ok_int(kvc_async_open(&async, &options, NULL), KVC_OK, "a handle that waits for weeks");
	(void)kvc_async_command(async, 1, argv, bytes, peer_see, &seen, NULL);
	peer_turn(async);
	ok_int(kvc_async_timeout_ms(async), INT_MAX, "a dispatch is due as late as can be said");
	peer->error = "ERR any";
	peer_settle(peer, async);
	peer->error = NULL;
	ok(seen.calls == 1 && seen.status == KVC_OK, "an error is an answer to a command");
	(void)kvc_async_close(async);
}

static void notice(kvc_async *async, void *user)
{
	(void)async;
	++*(unsigned *)user;
}

// Room that a flush makes is told of, too.
static void test_room(struct peer *peer)
{
	struct peer_seen seen = { 0 };
	unsigned notices = 0;
	struct kvc_async_options options = { .struct_bytes = sizeof(options),
					     .bytes_max = 1000,
					     .writable = notice,
					     .user = &notices };
	peer_hang_up(peer);
	kvc_async *async = peer_open(peer, &options);
	(void)peer_set(async, 1, 500, peer_see, &seen, NULL);
	ok_int(peer_set(async, 2, 800, peer_see, &seen, NULL), KVC_BUSY, "no room");
	ok_int(kvc_async_flush(async), KVC_OK, "a flush");
	ok(peer_is_due(async) && notices == 0, "makes some");
	(void)kvc_async_dispatch(async);
	ok_u64(notices, 1, "which is told");
	(void)kvc_async_close(async);
}

struct canceller {
	uint64_t id;
	int status;
	unsigned calls;
};

static void cancel_other(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct canceller *other = user;
	(void)result;
	other->calls++;
	other->status = kvc_async_cancel(async, other->id);
}

// Cancelled from the completion of another: what became of it is known already.
static void test_cancel(struct peer *peer)
{
	struct peer_seen seen = { 0 };
	struct canceller canceller = { 0 };
	peer_hang_up(peer);
	peer_listen(peer, false);
	kvc_async *async = peer_open(peer, NULL);
	(void)peer_set(async, 1, 1, cancel_other, &canceller, NULL);
	(void)peer_set(async, 2, 1, peer_see, &seen, &canceller.id);
	peer_turn(async);
	ok(canceller.calls == 1 && canceller.status == KVC_OK,
	   "a request that kvd has not got will never be applied");
	ok(seen.calls == 1 && seen.status == KVC_CANCELLED, "and is told once");
	peer_listen(peer, true);
	(void)kvc_async_close(async);
	// Behind one that is cancelled and not told yet, on a connection that ended meanwhile.
	async = connected(peer);
	uint64_t id;
	seen.calls = 0;
	(void)peer_set(async, 3, 1, peer_see, &seen, &id);
	ok_int(kvc_async_cancel(async, id), KVC_OK, "a request is cancelled");
	(void)peer_set(async, 4, 1, peer_see, &seen, NULL);
	peer_hang_up(peer);
	peer_settle(peer, async);
	ok(seen.calls == 2 && seen.status == KVC_OK && peer->ran[3] == 0 && peer->ran[4] == 1,
	   "the one behind it goes to the next connection");
	(void)kvc_async_close(async);
}

// ---- watches ------------------------------------------------------------------------------------

struct told {
	char text[256];
	enum kvc_watch_event close_at; // 0 = never; then the handle is closed
};

static void tell(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
		 size_t key_bytes)
{
	struct told *told = user;
	size_t at = strlen(told->text);
	(void)snprintf(told->text + at, sizeof(told->text) - at, "%c%.*s",
		       event == KVC_WATCH_READY	 ? 'R'
		       : event == KVC_WATCH_LOST ? 'L'
						 : '=',
		       (int)key_bytes, key ? (const char *)key : "");
	if (event == told->close_at) {
		(void)kvc_async_close(async);
	}
}

static kvc_async *watching(struct peer *peer, struct told *told, kvc_watch **watch)
{
	peer_hang_up(peer);
	kvc_async *async = peer_open(peer, NULL);
	told->text[0] = '\0';
	(void)kvc_watch_open(async, "k", 1, KVC_WATCH_PREFIX, tell, told, watch);
	peer_settle(peer, async);
	return async;
}

static void test_pushes(struct peer *peer)
{
	static const char *const pushes[] = {
		">1\r\n+invalidate\r\n",
		">2\r\n:5\r\n+x\r\n",
		">2\r\n_\r\n+x\r\n",
		">2\r\n+message\r\n+x\r\n",
		">2\r\n+invalidate\r\n+k1\r\n",
		">2\r\n+invalidate\r\n*2\r\n_\r\n*0\r\n",
	};
	struct told told = { .close_at = 0 };
	kvc_watch *watch;
	kvc_async *async = watching(peer, &told, &watch);
	for (size_t i = 0; i < sizeof(pushes) / sizeof(pushes[0]); i++) {
		peer_say(peer, "%s", pushes[i]);
		peer_settle(peer, async);
	}
	ok_str(told.text, "R", "pushes that name no key tell nobody");
	peer_say(peer, ">2\r\n+invalidate\r\n*1\r\n+k1\r\n");
	peer_settle(peer, async);
	ok_str(told.text, "R=k1", "and one that does is told");
	peer_say(peer, "+OK\r\n");
	peer_turn(async);
	peer_write(peer, PEER_ALL);
	peer_turn(async);
	ok(strncmp(told.text, "R=k1L", 5) == 0 &&
		   strstr(kvc_async_error_text(async), "nobody asked for") != NULL,
	   "an answer that nobody asked for is a loss: %s", kvc_async_error_text(async));
	(void)kvc_async_close(async);
}

static void test_watch_overdue(struct peer *peer)
{
	struct told told = { .close_at = 0 };
	kvc_watch *watch;
	kvc_async *async = watching(peer, &told, &watch);
	(void)kvc_watch_close(watch);
	(void)kvc_watch_open(async, "other", 5, 0, tell, &told, &watch);
	(void)kvc_async_dispatch(async);
	int left_ms = kvc_async_timeout_ms(async);
	ok(left_ms > 0 && left_ms <= 60000, "an answer is due in %d ms", left_ms);
	clock_ahead_ns += UINT64_C(61000000000);
	(void)kvc_async_dispatch(async);
	ok(strcmp(told.text, "RL") == 0 &&
		   strstr(kvc_async_error_text(async), "no reply before the deadline") != NULL,
	   "then the watch is lost: %s, %s", told.text, kvc_async_error_text(async));
	peer_hang_up(peer);
	clock_ahead_ns += UINT64_C(1000000000);
	peer_settle(peer, async);
	ok_str(told.text, "RLR", "and ready again");
	close(async->watching->stream.client->conn.fd);
	(void)kvc_async_dispatch(async);
	ok(strcmp(told.text, "RLRL") == 0 &&
		   strstr(kvc_async_error_text(async), "not ours any more") != NULL,
	   "a descriptor that was taken away is a loss: %s", kvc_async_error_text(async));
	(void)kvc_async_close(async);
}

// A callback may close the handle, whatever it was told.
static void test_watch_closes(struct peer *peer)
{
	static const struct {
		enum kvc_watch_event at;
		const char *push, *text;
	} rows[] = {
		{ KVC_WATCH_READY, NULL, "R" },
		{ KVC_WATCH_CHANGED, ">2\r\n+invalidate\r\n*2\r\n+k1\r\n+k2\r\n", "R=k1" },
		{ KVC_WATCH_CHANGED, ">2\r\n+invalidate\r\n_\r\n", "R=" },
		{ KVC_WATCH_LOST, "?", "RL" },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct told told = { .close_at = 0 };
		kvc_watch *watch;
		kvc_async *async;
		int status = KVC_OK;
		if (rows[i].push) {
			async = watching(peer, &told, &watch);
			peer_say(peer, "%s\r\n", rows[i].push);
			peer_write(peer, PEER_ALL);
		} else {
			peer_hang_up(peer);
			async = peer_open(peer, NULL);
			(void)kvc_watch_open(async, "k", 1, 0, tell, &told, &watch);
		}
		told.close_at = rows[i].at;
		for (unsigned turns = 0; turns < 20 && status == KVC_OK; turns++) {
			status = kvc_async_dispatch(async);
			if (status == KVC_OK) {
				(void)peer_accept(peer);
				peer_read(peer, PEER_ALL);
				peer_write(peer, PEER_ALL);
			}
		}
		ok_int(status, KVC_CANCELLED, "closed at %d", (int)rows[i].at);
		ok_str(told.text, rows[i].text, "and nothing is told any more");
	}
}

struct late {
	kvc_watch *watch;
	int status;
};

static void close_late(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct late *late = user;
	(void)async;
	(void)result;
	late->status = kvc_watch_close(late->watch);
}

// Prefixes that nobody wants any more are put up with, but not too many of them.
static void test_stale_prefixes(struct peer *peer)
{
	struct told told = { .close_at = 0 }, other = { .close_at = 0 };
	kvc_watch *watch[40], *first;
	struct late late = { .status = KVC_OK };
	kvc_async *async = watching(peer, &told, &first);
	for (unsigned i = 0; i < 40; i++) {
		char key[8];
		(void)snprintf(key, sizeof(key), "w%02u", i);
		(void)kvc_watch_open(async, key, 3, 0, tell, &other, &watch[i]);
	}
	peer_settle(peer, async);
	ok_str(told.text, "R", "more watches are no loss");
	for (unsigned i = 0; i < 40; i++) {
		(void)kvc_watch_close(watch[i]);
	}
	(void)kvc_watch_open(async, "new", 3, 0, tell, &other, &watch[0]);
	peer_settle(peer, async);
	ok_str(told.text, "RLR", "40 that are gone are: it is asked for anew");
	ok_u64(async->watching->prefixes.count, 2, "and only for what is wanted");
	late.watch = watch[0];
	(void)peer_set(async, 1, 1, close_late, &late, NULL);
	(void)kvc_async_close(async);
	ok_int(late.status, KVC_INVALID, "a watch is closed with its handle, not beside it");
}

int main(void)
{
	static struct peer peer;
	peer_start(&peer);
	test_unasked(&peer);
	test_sync(&peer);
	test_taken(&peer);
	test_queue(&peer);
	test_never(&peer);
	test_overdue(&peer);
	test_room(&peer);
	test_cancel(&peer);
	test_pushes(&peer);
	test_watch_overdue(&peer);
	test_watch_closes(&peer);
	test_stale_prefixes(&peer);
	peer_stop(&peer);
	return tap_done();
}

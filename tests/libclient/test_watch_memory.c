// SPDX-License-Identifier: MIT
//
// Watching while memory is refused, at every allocation in turn: whoever asked is told so or has
// his watch, and nobody else's is lost by it. Whatever is still open is asked for on the connection
// that there is in the end, is READY, and is told of the next change.
#include <poll.h>
#include <string.h>

#include "libclient/kvclient.h"
#include "tests/libclient/peer.h"
#include "tests/lib/refuse_memory.h"
#include "tests/tap/tap.h"

#define WATCHES_MAX 80u
#define ROUNDS_MAX 1000u // of both ends until all is well again

/// A watch and what it was told last.
struct watched {
	kvc_watch *watch; // NULL = none
	char key[512];
	enum kvc_watch_event last; // 0 = nothing yet
	unsigned changes;
};

/// What is open, and what is opened while memory is refused.
struct scene {
	const char *name;
	const char *begin; // of the keys that are watched before
	unsigned before, closed;
	const char *opened;
	size_t long_by; // bytes more of its key
};

static struct watched all[WATCHES_MAX + 1];

static void tell(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
		 size_t key_bytes)
{
	struct watched *watched = user;
	(void)async;
	(void)key;
	(void)key_bytes;
	watched->last = event == KVC_WATCH_CHANGED ? watched->last : event;
	watched->changes += event == KVC_WATCH_CHANGED;
}

static int open_watch(kvc_async *async, struct watched *watched)
{
	watched->last = 0;
	watched->changes = 0;
	return kvc_watch_open(async, watched->key, strlen(watched->key), KVC_WATCH_PREFIX, tell,
			      watched, &watched->watch);
}

// Is some prefix asked for that covers the key?
static bool is_asked(const struct peer *peer, const char *key)
{
	char word[514];
	for (size_t bytes = 1; bytes <= strlen(key); bytes++) {
		(void)snprintf(word, sizeof(word), " %.*s ", (int)bytes, key);
		if (strstr(peer->prefixes, word)) {
			return true;
		}
	}
	return false;
}

static bool all_ready(void)
{
	for (size_t i = 0; i <= WATCHES_MAX; i++) {
		if (all[i].watch && all[i].last != KVC_WATCH_READY) {
			return false;
		}
	}
	return true;
}

// Both ends, memory refused to the handle alone.
static void settle_refused(struct peer *peer, kvc_async *async)
{
	for (unsigned i = 0; i < 20; i++) {
		refuse.armed = true;
		(void)kvc_async_dispatch(async);
		refuse.armed = false;
		(void)peer_accept(peer);
		(void)peer_read(peer, PEER_ALL);
		(void)peer_write(peer, PEER_ALL);
	}
}

// Until all are ready, past the pauses between attempts to connect.
static bool recovers(struct peer *peer, kvc_async *async)
{
	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		struct pollfd poll_fd = { .fd = kvc_async_fd(async), .events = POLLIN };
		peer_settle(peer, async);
		int left_ms = kvc_async_timeout_ms(async);
		if (all_ready() || left_ms < 0) {
			return all_ready(); // or nothing will ever change that
		}
		(void)poll(&poll_fd, 1, left_ms);
		(void)kvc_async_dispatch(async);
	}
	return false;
}

// What is wrong with the watches in the end; NULL if nothing.
static const char *wrong_with(struct peer *peer, kvc_async *async)
{
	static char text[100];
	if (!recovers(peer, async)) {
		return "some watch is never ready again";
	}
	for (size_t i = 0; i <= WATCHES_MAX; i++) {
		const char *key = all[i].key;
		unsigned before = all[i].changes;
		if (!all[i].watch) {
			continue;
		}
		(void)snprintf(text, sizeof(text), "%.20s is not asked for", key);
		if (!is_asked(peer, key)) {
			return text;
		}
		peer_say(peer, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$%zu\r\n%s\r\n", strlen(key), key);
		peer_settle(peer, async);
		(void)snprintf(text, sizeof(text), "%.20s is told of %u changes", key,
			       all[i].changes - before);
		if (all[i].changes - before != 1) {
			return text;
		}
	}
	return NULL;
}

// Opens what was watched before.
static unsigned open_all(struct peer *peer, kvc_async *async, const struct scene *scene)
{
	unsigned wrong = 0;
	memset(all, 0, sizeof(all));
	for (unsigned i = 0; i < scene->before; i++) {
		(void)snprintf(all[i].key, sizeof(all[i].key), "%s%02u", scene->begin, i);
		wrong += open_watch(async, &all[i]) != KVC_OK;
		peer_settle(peer, async); // each is asked for by itself: no buffer has room for all
	}
	for (unsigned i = 0; i < scene->closed; i++) {
		(void)kvc_watch_close(all[i].watch);
		all[i].watch = NULL;
	}
	size_t bytes = strlen(scene->opened);
	memset(all[WATCHES_MAX].key, 'x', bytes + scene->long_by);
	memcpy(all[WATCHES_MAX].key, scene->opened, bytes);
	return wrong;
}

static unsigned look(struct peer *peer, kvc_async *async, const struct scene *scene, unsigned at,
		     const char *when)
{
	const char *what = wrong_with(peer, async);
	if (what) {
		tap_diag("%s, allocation %u refused%s: %s", scene->name, at, when, what);
	}
	return what != NULL;
}

// One run in which the `at`-th allocation is refused. Who is refused his watch asks again,
// `at_once` or when all is well. False: there are not so many allocations.
static bool run(struct peer *peer, const struct scene *scene, unsigned at, bool at_once,
		unsigned *wrong)
{
	kvc_async *async = peer_open(peer, NULL);
	struct watched *last = &all[WATCHES_MAX];
	*wrong += open_all(peer, async, scene);
	refuse_arm(at);
	int status = open_watch(async, last);
	bool refused = refuse.refused > 0;
	refuse.armed = false;
	*wrong += status != (refused ? KVC_NO_MEMORY : KVC_OK) || refused != !last->watch;
	if (refused && at_once) {
		*wrong += open_watch(async, last) != KVC_OK;
	}
	settle_refused(peer, async);
	bool reached = refuse.refused > 0;
	*wrong += look(peer, async, scene, at, "");
	if (!last->watch) {
		*wrong += open_watch(async, last) != KVC_OK;
		*wrong += look(peer, async, scene, at, ", asked again");
	}
	(void)kvc_async_close(async);
	peer_hang_up(peer);
	return reached;
}

// What is not sent yet fills the buffer to any byte, and then it may not grow.
static void test_full_buffer(struct peer *peer)
{
	unsigned wrong = 0;
	for (size_t bytes = 1; bytes <= 500; bytes++) {
		kvc_async *async = peer_open(peer, NULL);
		static const struct scene scene = { "a full buffer", "user:", 2, 0, "user:", 0 };
		struct watched *last = &all[WATCHES_MAX], *unsent = &all[WATCHES_MAX - 1];
		wrong += open_all(peer, async, &scene);
		memset(unsent->key, 'y', bytes);
		wrong += open_watch(async, unsent) != KVC_OK;
		refuse_arm(2); // the first is the watch itself
		int status = open_watch(async, last);
		wrong += status != (refuse.refused > 0 ? KVC_NO_MEMORY : KVC_OK);
		refuse.armed = false;
		wrong += look(peer, async, &scene, 2, "");
		(void)kvc_async_close(async);
		peer_hang_up(peer);
	}
	ok(wrong == 0, "a buffer that is full to any byte");
}

int main(void)
{
	static const struct scene scenes[] = {
		{ "the first", "", 0, 0, "k", 0 },
		{ "one of its own", "user:", 4, 0, "other", 500 },
		{ "one of its own, with room", "user:", 5, 0, "other", 500 },
		{ "one that is covered", "user:", 3, 0, "user:11", 0 },
		{ "one that takes in the others", "user:", 5, 0, "user:", 0 },
		{ "one that takes in a few of many", "u", 70, 0, "u1", 0 },
		{ "one that takes in a few of very many", "u", 80, 0, "u7", 0 },
		{ "one after many were closed", "u", 40, 39, "other", 500 },
		{ "one after all were closed", "u", 40, 40, "other", 500 },
	};
	static struct peer peer;
	unsigned all_refused = 0;
	peer_start(&peer);
	for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
		unsigned wrong = 0, at = 1;
		while (run(&peer, &scenes[i], at, false, &wrong)) {
			(void)run(&peer, &scenes[i], at++, true, &wrong);
		}
		ok(wrong == 0, "%s: each of %u allocations", scenes[i].name, at - 1);
		all_refused += at - 1;
	}
	ok(all_refused >= 20, "%u in all", all_refused);
	test_full_buffer(&peer);
	peer_stop(&peer);
	return tap_done();
}

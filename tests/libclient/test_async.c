// SPDX-License-Identifier: MIT
//
// The asynchronous form when all goes well: every request and its result, in order, one byte at a
// time too, in batches of thousands, from inside completions, and never with a thread.
#include <dirent.h>

#include "libclient/kvclient.h"
#include "tests/libclient/peer.h"
#include "tests/tap/tap.h"

#define MANY 3000u

static unsigned threads(void)
{
	unsigned count = 0;
	DIR *tasks = opendir("/proc/self/task");
	for (const struct dirent *task; tasks && (task = readdir(tasks)) != NULL;) {
		count += task->d_name[0] != '.';
	}
	if (tasks) {
		closedir(tasks);
	}
	return count;
}

/// What a completion was called with, copied.
struct seen {
	unsigned calls;
	struct kvc_result result;
	char value[64];
	char text[256];
};

static void see(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct seen *seen = user;
	(void)async;
	seen->calls++;
	seen->result = *result;
	(void)snprintf(seen->text, sizeof(seen->text), "%s", result->error_text);
	if (result->value) {
		(void)snprintf(seen->value, sizeof(seen->value), "%.*s", (int)result->value_bytes,
			       (const char *)result->value);
	}
	if (result->reply && result->reply->text) {
		(void)snprintf(seen->value, sizeof(seen->value), "%s", result->reply->text);
	}
}

static void test_results(struct peer *peer, kvc_async *async)
{
	struct seen seen[9] = { 0 };
	struct kvc_set_options options = { .struct_bytes = sizeof(options), .ttl_ms = 50 };
	const void *argv[] = { "ECHO", "hello" };
	const size_t bytes[] = { 4, 5 };
	kvc_batch *batch;
	int status = kvc_batch_new(&batch);
	status |= kvc_batch_increment(batch, "a", 1, 3) | kvc_batch_delete(batch, "b", 1);
	status |= kvc_async_set(async, "k", 1, "v", 1, &options, see, &seen[0], NULL);
	status |= kvc_async_delete(async, "k", 1, see, &seen[1], NULL);
	status |= kvc_async_increment(async, "k", 1, 5, see, &seen[2], NULL);
	status |= kvc_async_expire(async, "k", 1, 10, see, &seen[3], NULL);
	status |= kvc_async_expire(async, "k", 1, -1, see, &seen[4], NULL);
	status |= kvc_async_get(async, "k", 1, see, &seen[5], NULL);
	status |= kvc_async_sync(async, see, &seen[6], NULL);
	status |= kvc_async_commit(async, batch, see, &seen[7], NULL);
	status |= kvc_async_command(async, 2, argv, bytes, see, &seen[8], NULL);
	kvc_batch_free(batch); // was copied
	ok_int(status, KVC_OK, "one of each is accepted");
	ok_u64(kvc_async_pending(async), 9, "nobody is called by submitting");
	ok(peer_is_due(async), "the descriptor asks for a dispatch");
	ok_int(kvc_async_timeout_ms(async), 0, "so does the timeout");
	peer_settle(peer, async);
	bool once = true;
	for (unsigned i = 0; i < 9; i++) {
		once = once && seen[i].calls == 1 && seen[i].result.status == KVC_OK;
	}
	ok(once, "each is called once, KVC_OK");
	ok_u64(seen[0].result.version, 1, "set: version");
	ok_int(seen[2].result.integer, 1, "increment: sum");
	ok_str(seen[5].value, "value", "get: value");
	ok_u64(seen[5].result.meta.version, 7, "get: meta");
	ok_u64(seen[5].result.meta.flags, KVC_META_SOCKET, "get: by socket");
	ok_str(seen[8].value, "hello", "command: reply");
	ok_u64(kvc_async_pending(async), 0, "nothing is pending");
	ok(!peer_is_due(async), "the descriptor rests");
	ok_int(kvc_async_timeout_ms(async), -1, "and no dispatch is due");
}

static void test_refusals(struct peer *peer, kvc_async *async)
{
	struct seen seen = { 0 };
	struct kvc_set_options options = { .struct_bytes = sizeof(options), .flags = 3 };
	kvc_async *none;
	kvc_batch *batch;
	ok_int(kvc_async_open(NULL, NULL, NULL), KVC_INVALID, "open: nowhere");
	ok_int(kvc_async_set(NULL, "k", 1, "v", 1, NULL, NULL, NULL, NULL), KVC_INVALID,
	       "no handle");
	ok_int(kvc_async_set(async, "", 0, "v", 1, NULL, see, &seen, NULL), KVC_INVALID, "no key");
	ok_int(kvc_async_set(async, "k", 1, "v", 1, &options, see, &seen, NULL), KVC_INVALID,
	       "two conditions");
	ok_int(kvc_async_get(async, &seen, 512, see, &seen, NULL), KVC_TOO_LARGE, "a long key");
	ok_int(kvc_async_command(async, 0, NULL, NULL, see, &seen, NULL), KVC_INVALID,
	       "no command");
	ok_int(kvc_async_commit(async, NULL, see, &seen, NULL), KVC_INVALID, "no batch");
	ok_int(kvc_async_cancel(async, 0), KVC_NOT_FOUND, "no such request");
	ok(!peer_is_due(async) && seen.calls == 0, "nothing of that was accepted");
	(void)kvc_batch_new(&batch);
	ok_int(kvc_async_commit(async, batch, see, &seen, NULL), KVC_OK, "an empty batch");
	ok_u64(seen.calls, 0, "is not told at once");
	peer_settle(peer, async);
	ok(seen.calls == 1 && seen.result.status == KVC_OK, "but with the next dispatch");
	kvc_batch_free(batch);
	peer->error = "ERR value is not an integer or out of range";
	(void)kvc_async_increment(async, "k", 1, 1, see, &seen, NULL);
	peer_settle(peer, async);
	ok_int(seen.result.status, KVC_NOT_NUMBER, "an error reply: %s", seen.text);
	peer->error = NULL;
	struct kvc_options where = { .struct_bytes = sizeof(where),
				     .socket_path = "/nowhere/at/all",
				     .error_text = seen.text,
				     .error_text_bytes = sizeof(seen.text) };
	ok_int(kvc_async_open(&none, &where, NULL), KVC_UNREACHABLE, "open: %s", seen.text);
	ok(none == NULL, "no handle then");
}

/// Numbers in the order of their completions.
struct order {
	unsigned next;
	bool broken;
};

static struct order order;

static void in_order(kvc_async *async, void *user, const struct kvc_result *result)
{
	(void)async;
	order.broken = order.broken || (uintptr_t)user != order.next || result->status != KVC_OK;
	order.next++;
}

// Every tenth is an empty batch: nothing is sent for it, and it waits for its turn all the same.
static int submit(kvc_async *async, unsigned number, kvc_done done)
{
	if (number % 10 == 7) {
		kvc_batch *batch;
		int status = kvc_batch_new(&batch);
		status |= kvc_async_commit(async, batch, done, (void *)(uintptr_t)number, NULL);
		kvc_batch_free(batch);
		return status;
	}
	char key[16];
	int bytes = snprintf(key, sizeof(key), "#%u", number);
	void *user = (void *)(uintptr_t)number;
	switch (number % 3) {
	case 0:
		return kvc_async_set(async, key, (size_t)bytes, "value", 5, NULL, done, user, NULL);
	case 1:
		return kvc_async_increment(async, key, (size_t)bytes, 1, done, user, NULL);
	default:
		return kvc_async_expire(async, key, (size_t)bytes, -1, done, user, NULL);
	}
}

static void test_order(struct peer *peer, kvc_async *async)
{
	int status = KVC_OK;
	order = (struct order){ 0 };
	for (unsigned i = 0; i < MANY; i++) {
		status |= submit(async, i, in_order);
	}
	ok_int(status, KVC_OK, "%u requests are accepted", MANY);
	ok_int(kvc_async_flush(async), KVC_OK, "flush");
	ok_u64(order.next, 0, "flushing calls nobody");
	(void)peer_accept(peer);
	peer_read(peer, PEER_ALL);
	peer_write(peer, PEER_ALL);
	ok_int(kvc_async_dispatch(async), KVC_OK, "one dispatch");
	ok(order.next > 0 && order.next < MANY, "does a bounded piece: %u", order.next);
	ok(peer_is_due(async), "and asks for the next");
	peer_settle(peer, async);
	ok(order.next == MANY && !order.broken, "all, in the order of submission");
}

static void test_bytes(struct peer *peer, kvc_async *async)
{
	order = (struct order){ 0 };
	for (unsigned i = 0; i < 30; i++) {
		(void)submit(async, i, in_order);
	}
	for (unsigned rest = 0; rest < 2; rest++) {
		rest = kvc_async_pending(async) == 0 ? rest : 0;
		peer_turn(async);
		peer_read(peer, 1);
		peer_turn(async);
		peer_write(peer, 1);
	}
	ok(order.next == 30 && !order.broken, "one byte at a time, either way");
}

static void submit_more(kvc_async *async, void *user, const struct kvc_result *result)
{
	in_order(async, user, result);
	unsigned number = (unsigned)(uintptr_t)user;
	if (number + 10 < MANY) {
		order.broken = order.broken || submit(async, number + 10, submit_more) != KVC_OK;
	}
	order.broken = order.broken || kvc_async_dispatch(async) != KVC_INVALID;
	order.broken = order.broken || kvc_async_flush(async) != KVC_OK;
}

static void test_reentry(struct peer *peer, kvc_async *async)
{
	order = (struct order){ 0 };
	for (unsigned i = 0; i < 10; i++) {
		(void)submit(async, i, submit_more);
	}
	peer_settle(peer, async);
	ok(order.next == MANY && !order.broken,
	   "completions submit; to dispatch in one is refused");
}

static void test_large(struct peer *peer, kvc_async *async)
{
	struct seen seen = { 0 };
	size_t bytes = 8u << 20;
	char *value = calloc(1, bytes);
	size_t before = peer->got;
	(void)kvc_async_set(async, "large", 5, value, bytes, NULL, see, &seen, NULL);
	free(value); // was copied
	for (unsigned i = 0; i < 20000 && seen.calls == 0; i++) {
		peer_turn(async);
		peer_read(peer, 5000);
		peer_write(peer, PEER_ALL);
	}
	ok(seen.calls == 1 && seen.result.status == KVC_OK, "a value larger than any buffer");
	ok(peer->got - before > bytes, "in pieces as the socket takes them");
}

int main(void)
{
	static struct peer peer;
	uint64_t threads_before = threads(); // an emulator has some of its own
	peer_start(&peer);
	kvc_async *async = peer_open(&peer, NULL);
	int fd = kvc_async_fd(async);
	ok(fd >= 0, "there is a descriptor before there is a connection");
	test_results(&peer, async);
	test_refusals(&peer, async);
	test_order(&peer, async);
	test_bytes(&peer, async);
	test_reentry(&peer, async);
	test_large(&peer, async);
	peer_hang_up(&peer);
	peer_settle(&peer, async);
	test_order(&peer, async);
	ok_int(kvc_async_fd(async), fd, "the same descriptor on the next connection");
	ok_u64(peer.accepted, 2, "which was made once");
	ok_u64(threads(), threads_before, "no thread was started");
	ok_int(kvc_async_close(async), KVC_OK, "close");
	ok_int(kvc_async_close(NULL), KVC_OK, "close: nothing");
	peer_stop(&peer);
	return tap_done();
}

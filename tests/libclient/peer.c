// SPDX-License-Identifier: MIT
//
// The test's own end of a connection; see peer.h.
#include "tests/libclient/peer.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shm/limits.h"

#define PEER_TURNS_MAX 100000u // more dispatches in a row without rest are a defect

__attribute__((noreturn)) static void peer_bail(const char *what)
{
	printf("Bail out! peer: %s: %s\n", what, strerror(errno));
	exit(99);
}

static void peer_grow(char **data, size_t *capacity, size_t needed)
{
	if (needed > *capacity) {
		*capacity = needed * 2;
		*data = realloc(*data, *capacity);
		if (!*data) {
			peer_bail("realloc");
		}
	}
}

void peer_listen(struct peer *peer, bool on)
{
	if (peer->listener >= 0) {
		close(peer->listener);
		(void)unlink(peer->path);
		peer->listener = -1;
	}
	if (!on) {
		return;
	}
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", peer->path);
	peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (peer->listener < 0 ||
	    bind(peer->listener, (const struct sockaddr *)(const void *)&address,
		 sizeof(address)) != 0 ||
	    listen(peer->listener, 16) != 0) {
		peer_bail("listen");
	}
}

void peer_start(struct peer *peer)
{
	const char *temporary = getenv("TMPDIR");
	memset(peer, 0, sizeof(*peer));
	peer->listener = peer->fd = -1;
	(void)snprintf(peer->dir, sizeof(peer->dir), "%s/kvc-peer-XXXXXX",
		       temporary ? temporary : "/tmp");
	if (!mkdtemp(peer->dir)) {
		peer_bail("mkdtemp");
	}
	(void)snprintf(peer->path, sizeof(peer->path), "%s/s", peer->dir);
	peer_listen(peer, true);
}

void peer_stop(struct peer *peer)
{
	peer_hang_up(peer);
	peer_listen(peer, false);
	(void)rmdir(peer->dir);
	free(peer->in);
	free(peer->out);
	resp_request_free(&peer->request);
}

bool peer_accept(struct peer *peer)
{
	if (peer->fd >= 0 || peer->listener < 0) {
		return false;
	}
	peer->fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	peer->accepted += peer->fd >= 0;
	return peer->fd >= 0;
}

void peer_hang_up(struct peer *peer)
{
	if (peer->fd >= 0) {
		close(peer->fd);
	}
	peer->fd = -1;
	peer->in_bytes = peer->out_bytes = peer->out_start = 0;
	peer->state = (struct resp_request_state){ 0 };
	resp_request_free(&peer->request);
	peer->multi = false;
	peer->queued = 0;
	peer->prefixes[0] = '\0';
}

void peer_say(struct peer *peer, const char *format, ...)
{
	char text[1024];
	va_list args;
	va_start(args, format);
	int bytes = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	peer_grow(&peer->out, &peer->out_capacity, peer->out_bytes + (size_t)bytes);
	memcpy(peer->out + peer->out_bytes, text, (size_t)bytes);
	peer->out_bytes += (size_t)bytes;
}

static bool peer_is(const struct peer *peer, const char *word)
{
	const struct resp_arg *arg = &peer->request.argv[0];
	return arg->bytes == strlen(word) && memcmp(arg->data, word, arg->bytes) == 0;
}

// Remembers the request: its words, and #N if the second one says so.
static void peer_note(struct peer *peer)
{
	size_t at = 0;
	peer->runs++;
	for (uint32_t i = 0; i < peer->request.argc && at < sizeof(peer->last); i++) {
		const struct resp_arg *arg = &peer->request.argv[i];
		int added =
			snprintf(peer->last + at, sizeof(peer->last) - at, "%s%.*s", i ? " " : "",
				 (int)(arg->bytes < 80 ? arg->bytes : 80), arg->data);
		at += (size_t)added;
	}
	const struct resp_arg *key = &peer->request.argv[1];
	if (peer->request.argc > 1 && key->bytes > 1 && key->data[0] == '#') {
		char digits[16];
		(void)snprintf(digits, sizeof(digits), "%.*s", (int)key->bytes - 1, key->data + 1);
		unsigned long number = strtoul(digits, NULL, 10);
		if (number < PEER_RAN_MAX && peer->ran[number] < 255) {
			peer->ran[number]++;
		}
	}
}

// CLIENT TRACKING: which prefixes are asked for now.
static void peer_track(struct peer *peer)
{
	const struct resp_arg *arg = peer->request.argv;
	if (peer->request.argc == 3) {
		peer->prefixes[0] = '\0'; // OFF
	}
	for (uint32_t i = 5; i < peer->request.argc; i += 2) {
		size_t at = strlen(peer->prefixes);
		(void)snprintf(peer->prefixes + at, sizeof(peer->prefixes) - at, " %.*s ",
			       (int)arg[i].bytes, arg[i].data);
	}
}

static void peer_answer(struct peer *peer)
{
	const struct resp_request *r = &peer->request;
	if (peer_is(peer, "KVD.SET")) {
		peer_say(peer, ":%llu\r\n", (unsigned long long)++peer->seq);
	} else if (peer_is(peer, "INCRBY")) {
		peer_say(peer, ":%lld\r\n", (long long)++peer->sum);
	} else if (peer_is(peer, "KVD.GETV")) {
		peer_say(peer, "*4\r\n$5\r\nvalue\r\n:7\r\n:-1\r\n:1234\r\n");
	} else if (peer_is(peer, "DEL") || peer_is(peer, "PEXPIRE") || peer_is(peer, "EXISTS")) {
		peer_say(peer, ":1\r\n");
	} else if (peer_is(peer, "PERSIST")) {
		peer_say(peer, ":0\r\n");
	} else if (peer_is(peer, "ECHO") && r->argc == 2) {
		peer_say(peer, "$%zu\r\n%.*s\r\n", r->argv[1].bytes, (int)r->argv[1].bytes,
			 r->argv[1].data);
	} else if (peer_is(peer, "HELLO")) {
		peer_say(peer, "%%1\r\n$5\r\nproto\r\n:3\r\n");
	} else {
		if (peer_is(peer, "CLIENT") && r->argc > 2) {
			peer_track(peer);
		}
		peer_say(peer, "+OK\r\n"); // KVD.SYNC, CLIENT, and what the tests make up
	}
}

static void peer_run(struct peer *peer)
{
	if (peer->error) {
		peer_say(peer, "-%s\r\n", peer->error);
	} else if (peer_is(peer, "MULTI")) {
		peer->multi = true;
		peer->queued = 0;
		peer_say(peer, "+OK\r\n");
	} else if (peer_is(peer, "EXEC")) {
		peer->multi = false;
		peer_say(peer, "*%zu\r\n", peer->queued);
		for (size_t i = 0; i < peer->queued; i++) {
			peer_say(peer, ":1\r\n");
		}
		peer_note(peer);
	} else if (peer->multi) {
		peer->queued++;
		peer_say(peer, "+QUEUED\r\n");
	} else {
		peer_note(peer);
		peer_answer(peer);
	}
}

// Runs what is complete at the front of the input.
static void peer_parse(struct peer *peer)
{
	static const struct resp_limits limits = { .bulk_bytes_max = KVS_VALUE_BYTES_MAX,
						   .request_bytes_max = SIZE_MAX / 2,
						   .inline_bytes_max = KVS_INLINE_BYTES_MAX,
						   .args_max = KVS_COMMAND_ARGS_MAX };
	while (peer->in_bytes > 0) {
		enum resp_result result = resp_parse_request(&peer->state, peer->in, peer->in_bytes,
							     &limits, &peer->request);
		if (result == RESP_MORE) {
			return;
		}
		if (result != RESP_COMPLETE) {
			peer_bail("what came is no request");
		}
		peer_run(peer);
		peer->in_bytes -= peer->request.consumed;
		memmove(peer->in, peer->in + peer->request.consumed, peer->in_bytes);
	}
}

size_t peer_read(struct peer *peer, size_t bytes)
{
	size_t total = 0;
	while (peer->fd >= 0 && total < bytes) {
		const char *before = peer->in;
		size_t part = bytes - total < 65536 ? bytes - total : 65536;
		peer_grow(&peer->in, &peer->in_capacity, peer->in_bytes + part);
		resp_request_moved(&peer->state, &peer->request, before, peer->in);
		ssize_t got = recv(peer->fd, peer->in + peer->in_bytes, part, MSG_DONTWAIT);
		if (got == 0) {
			peer_hang_up(peer); // so that a connection behind it can be taken
		}
		if (got <= 0) {
			break;
		}
		peer->in_bytes += (size_t)got;
		total += (size_t)got;
		peer_parse(peer);
	}
	peer->got += total;
	return total;
}

size_t peer_owes(const struct peer *peer)
{
	return peer->out_bytes - peer->out_start;
}

size_t peer_write(struct peer *peer, size_t bytes)
{
	size_t part = peer_owes(peer) < bytes ? peer_owes(peer) : bytes;
	if (peer->fd < 0 || part == 0) {
		return 0;
	}
	ssize_t sent =
		send(peer->fd, peer->out + peer->out_start, part, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0) {
		return 0;
	}
	peer->out_start += (size_t)sent;
	if (peer_owes(peer) == 0) {
		peer->out_start = peer->out_bytes = 0;
	}
	return (size_t)sent;
}

kvc_async *peer_open(struct peer *peer, const struct kvc_async_options *async_options)
{
	kvc_async *async;
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = peer->path,
				       .request_timeout_ms = 60000,
				       .reconnect_min_ms = 1,
				       .reconnect_max_ms = 2,
				       .flags = KVC_OPEN_NO_CONNECT };
	if (kvc_async_open(&async, &options, async_options) != KVC_OK) {
		peer_bail("no handle");
	}
	return async;
}

bool peer_is_due(kvc_async *async)
{
	struct pollfd poll_fd = { .fd = kvc_async_fd(async), .events = POLLIN };
	return poll(&poll_fd, 1, 0) > 0;
}

unsigned peer_turn(kvc_async *async)
{
	unsigned turns = 0;
	while (peer_is_due(async) && kvc_async_dispatch(async) == KVC_OK) {
		if (++turns == PEER_TURNS_MAX) {
			errno = ELOOP;
			peer_bail("the descriptor never rests");
		}
	}
	return turns;
}

void peer_settle(struct peer *peer, kvc_async *async)
{
	for (bool moved = true; moved;) {
		moved = peer_turn(async) > 0;
		moved = peer_accept(peer) || moved; // perhaps one that is dead already
		moved = peer_read(peer, PEER_ALL) > 0 || moved;
		moved = peer_write(peer, PEER_ALL) > 0 || moved;
	}
}

unsigned peer_calls;

void peer_see(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct peer_seen *seen = user;
	(void)async;
	peer_calls++;
	seen->calls++;
	seen->status = result->status;
}

int peer_set(kvc_async *async, unsigned number, size_t bytes, kvc_done done, void *user,
	     uint64_t *id)
{
	static const char value[PEER_SET_BYTES];
	char key[16];
	int key_bytes = snprintf(key, sizeof(key), "#%u", number);
	return kvc_async_set(async, key, (size_t)key_bytes, value, bytes, NULL, done, user, id);
}

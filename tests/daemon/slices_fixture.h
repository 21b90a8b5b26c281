// SPDX-License-Identifier: MIT
//
// A kvd without listener or store whose clock says after every look that the time is over: each
// command that can be cut is cut wherever it looks. Sessions, commands and keyspace are real; the
// test runs the turns, and changes keys between any two of them.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/cleaner.h"
#include "daemon/commands.h"
#include "daemon/keyspace_create.h"
#include "daemon/loop.h"
#include "daemon/pubsub.h"
#include "daemon/session_task.h"
#include "daemon/tracking.h"
#include "shm/epoch_scan.h"
#include "shm/region.h"
#include "tests/tap/tap.h"

#define SLICES_MEMORY_BYTES (48u << 20)
#define SLICES_SEGMENT_BYTES (1u << 20) // values over a quarter of it are large
#define SLICES_VALUE_BYTES_MAX (4u << 20)
#define SLICES_TURNS_MAX 20000u

struct slices {
	struct kvd kvd;
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct session_shared *sessions;
	struct session *session;
	struct session *other; // whose commands run between two turns
	int fd, other_fd;
	char *reply; // what came since the last request
	size_t reply_bytes, reply_capacity;
	unsigned cuts; // turns after which the command was not over
};

static struct slices slices;
static bool slices_hurried; // false: time stands still, nothing is cut
static uint64_t slices_wall_now_ms = 1800000000000;

// There is no listener to ask: the linker leads those who do here.
struct session_shared *__wrap_listener_sessions(const struct listener *listener);
struct session_shared *__wrap_listener_sessions(const struct listener *listener)
{
	(void)listener;
	return slices.sessions;
}

static unsigned slices_hurry_after; // so many looks at the clock it is not hurried yet

static uint64_t slices_monotonic_ns(void)
{
	static uint64_t ns = 1000000000;
	if (slices_hurry_after > 0) {
		slices_hurry_after--;
		return ns;
	}
	return ns += slices_hurried ? 2000000 : 0;
}

static uint64_t slices_wall_ms(void)
{
	return slices_wall_now_ms;
}

static int slices_wait(int fd, struct epoll_event *events, int count, int timeout_ms)
{
	(void)timeout_ms;
	return epoll_wait(fd, events, count, 0); // never sleeps: time is the test's
}

static struct seam slices_seam;

static void slices_turn(void *context, uint64_t now_ns)
{
	session_shared_turn(context, now_ns);
}

static uint64_t slices_next(void *context)
{
	return session_shared_next_ns(context);
}

static inline struct session *slices_connect(int *fd)
{
	int pair[2] = { -1, -1 };
	ok_int(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0,
	       "sockets");
	*fd = pair[1];
	return session_open(slices.sessions, pair[0]);
}

static inline void slices_open(void)
{
	struct slices *s = &slices;
	memset(s, 0, sizeof(*s));
	slices_hurried = false;
	slices_seam = seam_system;
	slices_seam.monotonic_ns = slices_monotonic_ns;
	slices_seam.wall_ms = slices_wall_ms;
	slices_seam.epoll_wait = slices_wait;
	s->kvd.seam = &slices_seam;
	s->kvd.config.memory_bytes = SLICES_MEMORY_BYTES;
	s->kvd.config.output_bytes_max = 64u << 20;
	s->kvd.config.uid_share_percent = 100;
	s->kvd.config.buffers_bytes_max = 256u << 20;
	s->kvd.config.tracking_keys_max = 1000;
	struct kvs_region_options options = { .memory_bytes = SLICES_MEMORY_BYTES,
					      .memory_bytes_max = SLICES_MEMORY_BYTES,
					      .segment_bytes = SLICES_SEGMENT_BYTES,
					      .instance_id = 1,
					      .hash_key = { 1 },
					      .fenced = true };
	ok_int(kvs_region_create(&s->region, &options), KVS_REGION_OK, "region");
	kvs_epoch_init(&s->epochs, &s->region.header->hot, true);
	struct keyspace_options keyspace = { .seam = &slices_seam,
					     .region = &s->region,
					     .epochs = &s->epochs,
					     .revoke_ms = 5000,
					     .revoke_min_ms = 50,
					     .value_bytes_max = SLICES_VALUE_BYTES_MAX };
	s->kvd.keyspace = keyspace_create(&keyspace);
	(void)keyspace_recover_finish(s->kvd.keyspace, 0, false);
	kvs_region_go_alive(&s->region);
	ok_int(loop_create(&s->kvd.loop, &slices_seam), 0, "loop");
	s->kvd.stats = stats_create(&s->kvd);
	ok(events_create(&s->kvd) && pubsub_create(&s->kvd) && tracking_create(&s->kvd), "events");
	s->sessions = session_shared_create(&s->kvd, NULL);
	ok(loop_hook(s->kvd.loop, slices_turn, slices_next, s->sessions), "turns");
	s->session = slices_connect(&s->fd);
	s->other = slices_connect(&s->other_fd);
	ok(s->session && s->other && s->kvd.stats, "sessions and statistics");
}

static inline void slices_close(void)
{
	struct slices *s = &slices;
	session_shared_destroy(s->sessions);
	tracking_destroy(&s->kvd);
	pubsub_destroy(&s->kvd);
	events_destroy(&s->kvd);
	close(s->fd);
	close(s->other_fd);
	stats_destroy(s->kvd.stats);
	loop_destroy(s->kvd.loop);
	keyspace_destroy(s->kvd.keyspace);
	kvs_epoch_fini(&s->epochs);
	kvs_region_close(&s->region);
	free(s->reply);
}

static inline void slices_receive(void)
{
	struct slices *s = &slices;
	for (ssize_t got = 1; got > 0;) {
		if (s->reply_capacity - s->reply_bytes < 65536) {
			s->reply_capacity = s->reply_capacity * 2 + 65536;
			s->reply = realloc(s->reply, s->reply_capacity);
		}
		got = recv(s->fd, s->reply + s->reply_bytes, 65535, MSG_DONTWAIT);
		s->reply_bytes += got > 0 ? (size_t)got : 0;
	}
	s->reply[s->reply_bytes] = 0;
}

/// One turn, and as many as it takes until the request has come; true while it is not answered.
static inline bool slices_step(void)
{
	bool more = false;
	for (unsigned turns = 0; turns < SLICES_TURNS_MAX && !more; turns++) {
		(void)loop_turn(slices.kvd.loop, 0);
		slices_receive();
		more = slices.session->task != NULL;
		if (slices.reply_bytes > 0) {
			break;
		}
	}
	slices.cuts += more;
	return more;
}

/// Sends a request made of words with single spaces between, without running it.
static inline void slices_send(const char *line)
{
	size_t bytes = strlen(line) * 16 + 64;
	char *out = malloc(bytes);
	unsigned words = 1;
	for (const char *at = line; *at; at++) {
		words += *at == ' ';
	}
	size_t end = (size_t)snprintf(out, bytes, "*%u\r\n", words);
	for (const char *at = line;; at++) {
		size_t length = strcspn(at, " ");
		end += (size_t)snprintf(out + end, bytes - end, "$%zu\r\n%.*s\r\n", length,
					(int)length, at);
		at += length;
		if (!*at) {
			break;
		}
	}
	slices.reply_bytes = 0;
	slices.cuts = 0;
	for (size_t sent = 0; sent < end;) {
		ssize_t n = send(slices.fd, out + sent, end - sent, MSG_DONTWAIT);
		sent += n > 0 ? (size_t)n : 0;
		if (n <= 0) {
			(void)slices_step();
		}
	}
	free(out);
}

/// Turns until the command that was sent is over and answered; its reply, NULL if none comes.
static inline const char *slices_finish(void)
{
	for (unsigned turns = 0; turns < SLICES_TURNS_MAX; turns++) {
		if (!slices_step() && slices.reply_bytes > 0) {
			while (slices_step() || slices.session->output_end > 0) {
			}
			return slices.reply;
		}
	}
	return NULL;
}

/// A whole command, cut nowhere (`hurried` false) or everywhere.
static inline const char *slices_ask(bool hurried, const char *line)
{
	slices_hurried = hurried;
	slices_send(line);
	return slices_finish();
}

/// Runs a command of another connection, words with single spaces between, between two turns.
static inline void slices_interrupt(const char *line)
{
	struct resp_arg argv[16];
	uint32_t argc = 0;
	for (const char *at = line; *at && argc < 16;) {
		size_t bytes = strcspn(at, " ");
		argv[argc++] = (struct resp_arg){ at, bytes };
		at += bytes + (at[bytes] == ' ');
	}
	keyspace_set_slice(slices.kvd.keyspace, NULL);
	slices.other->until_ns = 0;
	if (command_dispatch(&slices.kvd, slices.other, argv, argc) != COMMAND_DONE) {
		ok(false, "%s is not done", line);
	}
	slices.other->output_end = slices.other->output_sent; // as if sent
}

/// Changes a key between two turns.
static inline void slices_set(const char *key, const void *value, size_t bytes)
{
	struct keyspace *keyspace = slices.kvd.keyspace;
	keyspace_set_slice(keyspace, NULL);
	int result = KEYSPACE_WAIT;
	for (unsigned tries = 0; tries < 100 && result == KEYSPACE_WAIT; tries++) {
		result = keyspace_set(keyspace, key, strlen(key), value, bytes, 0, NULL);
		if (result == KEYSPACE_WAIT) {
			cleaner_turn(keyspace, slices_monotonic_ns());
		}
	}
	if (result != KEYSPACE_OK) {
		ok_int(result, KEYSPACE_OK, "set");
	}
}

static inline bool slices_is(const char *key, const void *value, size_t bytes)
{
	struct keyspace_value got;
	return keyspace_get(slices.kvd.keyspace, key, strlen(key), &got) == KEYSPACE_OK &&
	       got.value_bytes == bytes && memcmp(got.value, value, bytes) == 0;
}

/// What may become of the key "key" between two turns.
enum slices_change {
	SLICES_NONE,
	SLICES_SET,
	SLICES_DEL,
	SLICES_FLUSH,
	SLICES_EXPIRE,
	SLICES_CHANGES,
};

/// `others` (3 MB) are what it is set to, and what takes the place of what was freed.
static inline void slices_change(enum slices_change change, const void *others, size_t bytes)
{
	struct keyspace *keyspace = slices.kvd.keyspace;
	keyspace_set_slice(keyspace, NULL);
	if (change == SLICES_SET) {
		slices_set("key", others, bytes);
	} else if (change == SLICES_DEL) {
		(void)keyspace_delete(keyspace, "key", 3);
	} else if (change == SLICES_FLUSH) {
		(void)keyspace_flush(keyspace);
	} else if (change == SLICES_EXPIRE) {
		(void)keyspace_expire(keyspace, "key", 3, slices_wall_now_ms + 5);
		slices_wall_now_ms += 10;
		keyspace_tick(keyspace);
	}
	// Pages of runs go at once; the log has to go round once.
	unsigned sets = bytes > SLICES_SEGMENT_BYTES / 4 ? 4 : tap_step(280, 40);
	for (unsigned i = 0; change != SLICES_NONE && i < sets; i++) {
		slices_set(i % 4 == 0 ? "run" : "log", others, i % 4 == 0 ? 500000 : 200000);
	}
}

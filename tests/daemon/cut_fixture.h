// SPDX-License-Identifier: MIT
//
// A database with one connection whose commands run whole or in slices, for the tests of commands
// that can be cut. The clock moves by one with every look, so that a slice is so many looks.
// listener_sessions() and listener_path() are wrapped: there is no listener.
#pragma once

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/commands.h"
#include "daemon/keyspace_create.h"
#include "daemon/listener.h"
#include "daemon/loop.h"
#include "daemon/pubsub.h"
#include "daemon/session_task.h"
#include "shm/epoch_scan.h"
#include "shm/region.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)
#define ARGS_MAX 4096u
#define LOOKS 4 // at the clock in one slice

static uint64_t now;

static inline uint64_t clock_ns(void)
{
	return ++now;
}

static struct session_shared *sessions;

struct session_shared *__wrap_listener_sessions(const struct listener *listener);
struct session_shared *__wrap_listener_sessions(const struct listener *listener)
{
	(void)listener;
	return sessions;
}

const char *__wrap_listener_path(const struct listener *listener);
const char *__wrap_listener_path(const struct listener *listener)
{
	(void)listener;
	return "/the/path";
}

struct rig {
	struct seam seam;
	struct kvd kvd;
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct session *session;
	int peer;
};

static inline struct session *rig_connect(int *peer)
{
	int pair[2] = { -1, -1 };
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
		return NULL;
	}
	*peer = pair[1];
	return session_open(sessions, pair[0]);
}

static inline void rig_open(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->seam = seam_system;
	rig->seam.monotonic_ns = clock_ns;
	rig->kvd.seam = &rig->seam;
	rig->kvd.config.memory_bytes = MEMORY_BYTES;
	rig->kvd.config.output_bytes_max = 64u << 20;
	rig->kvd.config.slowlog_us = 0;
	rig->kvd.config.slowlog_entries = 1000;
	struct kvs_region_options options = { .memory_bytes = MEMORY_BYTES,
					      .memory_bytes_max = MEMORY_BYTES,
					      .segment_bytes = 64u << 10,
					      .instance_id = 1,
					      .hash_key = { 1 },
					      .fenced = true };
	ok_int(kvs_region_create(&rig->region, &options), KVS_REGION_OK, "region");
	kvs_epoch_init(&rig->epochs, &rig->region.header->hot, true);
	struct keyspace_options keyspace = { .seam = &rig->seam,
					     .region = &rig->region,
					     .epochs = &rig->epochs,
					     .revoke_ms = 5000,
					     .revoke_min_ms = 50,
					     .value_bytes_max = 1u << 20 };
	rig->kvd.keyspace = keyspace_create(&keyspace);
	(void)keyspace_recover_finish(rig->kvd.keyspace, 0, false);
	kvs_region_go_alive(&rig->region);
	ok_int(loop_create(&rig->kvd.loop, &rig->seam), 0, "loop");
	rig->kvd.stats = stats_create(&rig->kvd);
	ok(pubsub_create(&rig->kvd), "names");
	sessions = session_shared_create(&rig->kvd, NULL);
	rig->session = rig_connect(&rig->peer);
	ok(rig->session && rig->kvd.stats, "session and statistics");
}

static inline void rig_close(struct rig *rig)
{
	session_shared_destroy(sessions);
	pubsub_turn(&rig->kvd, 0);
	pubsub_destroy(&rig->kvd);
	close(rig->peer);
	stats_destroy(rig->kvd.stats);
	loop_destroy(rig->kvd.loop);
	keyspace_destroy(rig->kvd.keyspace);
	kvs_epoch_fini(&rig->epochs);
	kvs_region_close(&rig->region);
}

/// Words with single spaces between; the last one `times` times.
struct request {
	struct resp_arg argv[ARGS_MAX];
	uint32_t argc;
};

static inline void request_make(struct request *request, const char *line, unsigned times)
{
	request->argc = 0;
	for (const char *at = line; *at;) {
		size_t bytes = strcspn(at, " ");
		request->argv[request->argc++] = (struct resp_arg){ at, bytes };
		at += bytes + (at[bytes] == ' ');
	}
	for (unsigned i = 1; i < times; i++) {
		request->argv[request->argc] = request->argv[request->argc - 1];
		request->argc++;
	}
}

/// Everything that was answered, which is as if it was sent then; the caller frees.
static inline char *taken(struct session *session)
{
	size_t bytes = session->output_end - session->output_sent;
	char *out = calloc(1, bytes + 1);
	if (out && bytes > 0) {
		memcpy(out, session->output + session->output_sent, bytes);
	}
	session->output_end = session->output_sent;
	return out;
}

/// Runs a request, in slices if `cut`; *slices = how many. It is given up after `most` of them.
static inline enum command_outcome run(struct rig *rig, const struct request *request, bool cut,
				       unsigned most, unsigned *slices)
{
	struct session *session = rig->session;
	session->until_ns = cut ? now + LOOKS : 0;
	enum command_outcome outcome =
		command_dispatch(&rig->kvd, session, request->argv, request->argc);
	for (*slices = 1; outcome == COMMAND_AGAIN && *slices < most; ++*slices) {
		session->until_ns = now + LOOKS;
		outcome = command_continue(session);
	}
	if (session->task && outcome != COMMAND_AGAIN) {
		session_task_end(session);
	}
	return outcome;
}

/// In slices it answers the same; `least` of them are needed.
static inline void same(struct rig *rig, const char *line, unsigned times, unsigned least)
{
	struct request request;
	unsigned slices;
	request_make(&request, line, times);
	for (unsigned version = 2; version <= 3; version++) {
		rig->session->resp_version = (uint8_t)version;
		bool done = run(rig, &request, false, 1, &slices) == COMMAND_DONE;
		char *whole = taken(rig->session);
		done = run(rig, &request, true, 1000000, &slices) == COMMAND_DONE && done;
		char *cut = taken(rig->session);
		bool equal = whole && cut && strcmp(whole, cut) == 0 && whole[0] != 0;
		if (!ok(done && equal && slices >= least, "G: RESP%u, in slices: %s, %u times",
			version, line, times)) {
			tap_diag("%u slices; '%.200s' and '%.200s'", slices, whole, cut);
		}
		free(whole);
		free(cut);
	}
	rig->session->resp_version = 2;
}

/// Runs something uncut on another connection, without its answer.
static inline void aside(struct rig *rig, const char *line)
{
	struct session *session = rig->session;
	struct request request;
	unsigned slices;
	int peer = -1;
	request_make(&request, line, 1);
	rig->session = rig_connect(&peer);
	(void)run(rig, &request, false, 1, &slices);
	free(taken(rig->session));
	session_kill(rig->session, NULL);
	rig->session = session;
	session_shared_turn(sessions, now);
	close(peer);
}

/// Goes on with what was begun, to its end; the answer is the caller's to free.
static inline char *finish(struct rig *rig)
{
	enum command_outcome outcome = COMMAND_AGAIN;
	for (unsigned i = 0; outcome == COMMAND_AGAIN && i < 100000; i++) {
		rig->session->until_ns = now + LOOKS;
		outcome = command_continue(rig->session);
	}
	session_task_end(rig->session);
	return taken(rig->session);
}

static inline unsigned count_of(const char *text, const char *piece)
{
	unsigned count = 0;
	for (const char *at = text; at && (at = strstr(at, piece)) != NULL; at++) {
		count++;
	}
	return count;
}

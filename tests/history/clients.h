// SPDX-License-Identifier: MIT
//
// The processes that make a history: each plays one role and writes what it asks, and what it is
// answered, into its own part of the shared file.
#pragma once

#include <stdbool.h>

#include "libclient/kvclient.h"
#include "tests/history/history.h"

enum actor_role {
	ACTOR_MAPPED, // reads through the mapping: copies, views, snapshots
	ACTOR_SOCKET, // reads through the socket, MGET among it
	ACTOR_WRITER,
	ACTOR_ASYNC, // writes without waiting
};

#define ACTOR_VALUE_BYTES_MAX 24000u

struct actor {
	struct history_file *file;
	uint32_t client; // its part of the file
	const char *socket_path;
	uint64_t random;
	uint64_t written;
	uint32_t groups;
	bool failed; // something, since this was last looked at
	kvc *kvc;
	kvc_reader *reader;
	uint64_t seen_version[HISTORY_KEYS];
	unsigned char value[ACTOR_VALUE_BYTES_MAX];
};

uint64_t actor_now_ns(void);
void actor_pause_us(unsigned us);

/// Begins an event of this actor; NULL when its part is full. Until it is ended it is open.
struct history_event *actor_begin(struct actor *actor, enum history_kind kind, unsigned key);
/// Takes back the last events if they certainly did nothing, and waits a moment then: kvd is away.
void actor_forget_failed(struct actor *actor);
void actor_end(struct history_event *event, enum history_result result);

/// Connects, however long it takes; exits the process when the run is over before that.
void actor_connect(struct actor *actor, uint32_t flags);

size_t actor_key(char name[24], unsigned key);

/// A value that no other write has, for actor->value; returns its bytes.
size_t actor_new_value(struct actor *actor, struct history_event *event);

/// What a write's status says of it.
enum history_result actor_write_result(int status);

/// Fills in what was read: value and version, or that it was torn.
void actor_take_value(struct history_event *event, const void *value, size_t bytes,
		      uint64_t version);

/// Play a role until the run is over.
void actor_read_mapped(struct actor *actor);
void actor_read_socket(struct actor *actor);
void actor_write(struct actor *actor);
void actor_write_async(struct actor *actor);

/// Waits while the gate is closed, telling that it does.
void actor_pass_gate(struct actor *actor);
int actor_is_over(const struct actor *actor);

/// One copying read, through whatever the reader has.
void actor_get(struct actor *actor, enum history_kind kind, unsigned key);

// SPDX-License-Identifier: MIT
//
// A kvd small enough to be told how to misbehave: a thread that answers on a socket in a temporary
// folder, passes descriptors of a real region, and can die, hang, lie, detach its clients or come
// back with a new region whenever a test says so. Its table and log are the real ones.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libclient/kvclient.h"
#include "shm/generation.h"
#include "tests/shm/fixture.h"

enum fake_attach {
	FAKE_ATTACH_OK,
	FAKE_ATTACH_NO_FDS,    // the reply, but no descriptors: as through a bridge
	FAKE_ATTACH_REFUSED,   // an error reply
	FAKE_ATTACH_UNKNOWN,   // a server that is no kvd
	FAKE_ATTACH_LAYOUT,    // another layout
	FAKE_ATTACH_UNSEALED,  // a page that anybody who has it may cut off
	FAKE_ATTACH_OVERTAKEN, // the next life has adopted the region before the reply was read
	FAKE_ATTACH_SILENT,    // no reply
	FAKE_ATTACH_SAYS,      // fake->says, with the descriptors
};

enum fake_request {
	FAKE_ANSWER,
	FAKE_SILENT,  // take it, never answer
	FAKE_HANG_UP, // take it, close without an answer
	FAKE_ERROR,   // answer with fake->error
	FAKE_GARBAGE, // answer with something that is not RESP
	FAKE_SAYS,    // answer with fake->says, byte by byte as it stands
};

#define FAKE_CONNECTIONS_MAX 64
#define FAKE_PAGES_MAX 1024

struct fake_connection;

struct fake {
	char dir[64];
	char socket_path[100];
	pthread_t thread;
	pthread_mutex_t mutex; // guards all below, region included
	int listener;	       // -1 = down
	int wake[2];	       // pipe that ends the thread's poll
	bool stopping;
	int gen_fd; // kvd.gen in `dir`
	char gen_path[100];
	struct kvs_generation said; // what it says
	uint32_t writer;	    // of the life that serves
	struct fixture fixture;
	struct fake_connection *connections[FAKE_CONNECTIONS_MAX];
	struct kvs_epoch_page *pages[FAKE_PAGES_MAX]; // given out
	size_t pages_count;
	enum fake_attach attach;
	enum fake_request request; // for anything but KVD.ATTACH and CLIENT
	const char *error;
	const char *says;
	int fds_instead[3]; // of what KVD.ATTACH passes: other files, where not 0
	unsigned fds_more;  // and so many more of the last; with FAKE_SAYS, too
	bool ringless;	   // pages as of a kvd that knows no rings: their file ends with them
	bool rings_unsaid; // or is longer for something else
	bool hang_up_at_accept;
	bool leave_at_accept; // and listen no more: a kvd that was killed before, and ends now
	const char *refusal; // said to a new connection, which is closed then
	uint64_t accepted;   // connections so far
	uint64_t attached;   // KVD.ATTACH answered
	uint64_t requests;   // commands seen, CLIENT and KVD.ATTACH not counted
	char name[64];	     // from CLIENT SETNAME
	char last[64];	     // first argument of the last command
};

void fake_start(struct fake *fake, uint64_t memory_bytes);
void fake_stop(struct fake *fake);

/// Writes kvd.gen: `generation`, and that it is `instance_id` that serves.
void fake_say_generation(struct fake *fake, uint64_t generation, uint64_t instance_id);

/// Down: no listener, all connections closed, the region stays as it is but for the writer's word
/// (kvd was killed).
void fake_kill(struct fake *fake);
/// Up again after fake_kill: with a new, empty region and the next generation, or, `adopt`, with
/// the same region and the next incarnation. Pages given out before are forgotten.
void fake_revive(struct fake *fake, bool adopt);

/// As a kvd that lost a connection of a living process: every page given out is marked DETACHED.
void fake_detach(struct fake *fake);

/// Writes into the region. `expiry_ms` 0 = never.
void fake_put(struct fake *fake, const char *key, const void *value, size_t value_bytes,
	      uint64_t expiry_ms);
void fake_put_text(struct fake *fake, const char *key, const char *value);
/// A record without a value in memory (STUB): `value` is what the socket will answer.
void fake_put_stub(struct fake *fake, const char *key, size_t value_bytes);
void fake_put_tombstone(struct fake *fake, const char *key);
/// Several keys with one value, as one batch: applied_seq moves once.
void fake_put_batch(struct fake *fake, const char *const *keys, size_t count, const void *value,
		    size_t value_bytes);

/// Sets a field under the mutex.
#define fake_set(fake, field, value)                  \
	do {                                          \
		pthread_mutex_lock(&(fake)->mutex);   \
		(fake)->field = (value);              \
		pthread_mutex_unlock(&(fake)->mutex); \
	} while (0)

uint64_t fake_get(struct fake *fake, const uint64_t *field);

/// Opens a client and a reader on the fake; bails out if that fails.
kvc *fake_client(struct fake *fake, kvc_reader **reader, uint32_t flags);

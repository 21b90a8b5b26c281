// SPDX-License-Identifier: MIT
//
// What the readers and writers of a soak share. Each key belongs to one writer, so whoever reads it
// knows what may be found there: nothing older than what was acknowledged before, nothing that was
// never sent, nothing whose time had come; and that it may be absent only if it was removed or has
// ended since, or may be evicted.
#pragma once

#include <stdio.h>

#include "libclient/kvclient.h"
#include "tests/tap/tap.h"
#include "tests/torture/value.h"

#define READERS 3u
#define KEEPERS 2u // write keys that stay
#define CACHERS 2u // write keys that may be evicted
#define ACTORS (READERS + KEEPERS + CACHERS)
#define KEPT_KEYS 8000u	  // are never evicted
#define ENDING_KEYS 4000u // nor these, but they have a time to live
#define CACHE_KEYS 40000u
#define KEYS (KEPT_KEYS + ENDING_KEYS + CACHE_KEYS)
#define EXPIRY_BYTES 8u // behind the value's head
#define VALUE_LEAST (VALUE_BYTES_MIN + EXPIRY_BYTES)
#define LARGE_BYTES_MAX 200000u
#define VIEWS 16u

enum mode { MODE_CHURN, MODE_GROW, MODE_SHRINK };

struct key_state { // written by the key's writer alone
	uint64_t sent;
	uint64_t acked;
	uint64_t removed;      // number of the last removal that was sent
	uint64_t ends_ms;      // the earliest end of all that the key may hold now, 0 = never
	uint64_t last_ends_ms; // of what was sent last
	uint64_t phase;	       // in which that was; a copy has 0 for one that is over or evicts
};

struct soak { // shared by all processes
	struct key_state key[KEYS];
	uint64_t reads, from_socket, revoked, unreachable, unjudged;
	uint64_t missed, broken, old, unsent, dead, failed;
	uint64_t writes, writes_open, writes_refused;
	uint64_t last_error;
	uint64_t mode, stop;
	uint64_t phase; // of how memory is kept: a new number each time, odd = no key is evicted
	uint64_t gate; // 0 = open, else a number of its own for each time that it was closed
	uint64_t parked[ACTORS]; // the number of the gate that each waits at
	char refusal[120];
};

struct sight {
	uint64_t key;
	struct key_state before;
	uint64_t before_ms;
	bool found, whole;
	uint64_t count, ends_ms;
};

struct reading {
	kvc_reader *reader;
	uint64_t random;
	struct sight sights[VIEWS];
	unsigned count;
	unsigned char copy[LARGE_BYTES_MAX];
};

extern struct soak *soak;

static inline uint64_t load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static inline void store(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static inline void add(uint64_t *word, uint64_t by)
{
	(void)__atomic_fetch_add(word, by, __ATOMIC_RELAXED);
}

uint64_t wall_ms(void);
size_t name_of(char name[24], uint64_t key);

static inline bool is_cached(uint64_t key)
{
	return key >= KEPT_KEYS + ENDING_KEYS;
}

/// Connects, however long it takes; ends the process when all is over before that.
kvc *open_client(uint32_t flags);
kvc_reader *open_reader(kvc *client);
/// Waits while the gate is closed, and says so.
void pass_gate(unsigned actor);

/// Reads a key and judges what was seen. True if it was found.
bool read_copy(struct reading *r, uint64_t key);
_Noreturn void reader_process(unsigned actor, uint64_t random);
_Noreturn void writer_process(unsigned actor, uint64_t random);

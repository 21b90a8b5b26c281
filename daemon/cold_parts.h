// SPDX-License-Identifier: MIT
//
// What the files behind cold.h share: cold.c (what is wanted and held), cold_load.c (what becomes
// of a reading), cold_read.c (the threads).
#pragma once

#include <assert.h>
#include <pthread.h>
#include <sys/queue.h>

#include "daemon/cold.h"
#include "daemon/keyspace_promote.h"
#include "daemon/lookup.h"
#include "daemon/storage/store_read.h"

#define COLD_WHY_BYTES 256u
#define COLD_AWAIT_NS UINT64_C(1000000) // between two tries of what has to wait

enum cold_state {
	COLD_LOADING, // it is in line for a thread, or one reads it
	COLD_AWAITED, // nothing stands at its place, or nothing can be read now: tried again
	COLD_LOADED,
	COLD_FAILED,
};

/// One version that is read, for all who want it.
struct cold_load {
	struct lookup_link link;      // by key and version
	TAILQ_ENTRY(cold_load) queue; // todo or done under the mutex, awaited, or returning
	LIST_HEAD(, cold_want) wants;
	enum cold_state state;
	bool in_line;	   // no thread has begun it; under the mutex
	bool is_returning; // a part of it is put back
	uint64_t asked_ns; // when it was wanted first
	uint64_t place;
	uint64_t seq;
	uint32_t value_bytes;
	uint32_t key_bytes;
	struct parcel *value; // the thread's, until it is done
	struct keyspace_promotion promotion;
	int result; // as of store_reader_read()
	char why[COLD_WHY_BYTES];
	unsigned char key[];
};
TAILQ_HEAD(cold_load_list, cold_load);

/// One version that one command wants.
struct cold_want {
	struct lookup_link link; // by wait, key and version
	LIST_ENTRY(cold_want) load_link;
	SLIST_ENTRY(cold_want) wait_link;
	struct cold_wait *wait;
	struct cold_load *load; // NULL = not held
	uint64_t place;
	uint64_t seq;
	uint32_t value_bytes;
	uint32_t key_bytes;
	unsigned char key[];
};

struct cold_wait {
	struct cold *cold;
	void *owner;
	uint64_t id;
	SLIST_HEAD(, cold_want) wants;
	size_t count;			// of them
	size_t bytes;			// memory of the list
	uint64_t values_bytes;		// of all that is wanted
	uint64_t unheld_bytes;		// of what it does not hold
	size_t fresh;			// wants that came since it last waited
	size_t missing;			// loads that it holds and that are not over
	uint64_t begun_ns;		// when it began to wait, 0 = it does not
	bool in_line;			// it waits for buffers
	bool is_late;			// read-wait is over
	bool is_short;			// no memory to note what it wants
	bool is_many;			// it wants more than COLD_WANTS_MAX
	const struct cold_load *failed; // of what it asked for since it last waited
	struct parcel *given;		// what it asked for last, if it was there
	uint32_t asked_bytes;		// what it asked for last
	uint32_t asked_key_bytes;
	unsigned char asked_key[KVS_KEY_BYTES_MAX];
	TAILQ_ENTRY(cold_wait) line_link;
	TAILQ_ENTRY(cold_wait) due_link; // of those that wait, by since when
};
TAILQ_HEAD(cold_wait_list, cold_wait);

static_assert(STORE_READER_LOADS + COLD_THREADS <= STORE_READERS_MAX, "each has a place");

struct cold_thread {
	struct cold *cold;
	struct store_reader *reader;
	pthread_t thread;
	bool is_started;
};

struct cold {
	struct kvd *kvd;
	cold_ready *ready;
	uint64_t seed; // of the tables
	uint64_t wait_ids;
	struct lookup loads;
	struct lookup wants;
	uint64_t bytes; // of values that are held or read
	uint64_t bytes_max;
	uint64_t said_ns; // when the log was last told of a value that cannot be read, 0 = never
	struct cold_load_list awaited;
	uint64_t awaited_ns;		 // when they are tried next
	struct cold_load_list returning; // loaded, and large: put back one after the other
	struct cold_wait_list line;	 // for buffers
	struct cold_wait_list waiting;	 // all that wait
	uint64_t waits;			 // of them
	bool is_behind;			 // more is done than was taken in this turn
	struct cold_thread threads[COLD_THREADS];
	pthread_mutex_t mutex; // guards what follows, and the loads in it
	pthread_cond_t wake;
	struct cold_load_list todo;
	struct cold_load_list done;
	bool stops;
};

uint64_t cold_hash(const struct cold *cold, const void *key, size_t key_bytes, uint64_t seq);

// ---- cold_load.c ----

/// The load of this version, NULL = none.
struct cold_load *cold_load_find(const struct cold *cold, uint64_t hash, const void *key,
				 size_t key_bytes, uint64_t seq);
/// A new one, which is read. NULL if memory is short.
struct cold_load *cold_load_begin(struct cold *cold, uint64_t hash, const struct cold_want *want);
/// Nobody holds it any more: it is freed, or will be.
void cold_load_unwanted(struct cold *cold, struct cold_load *load);
/// Takes what the threads have done, and what is due again, and puts values back. For a fraction of
/// a millisecond.
void cold_loads_turn(struct cold *cold, uint64_t now_ns);
/// Nothing is put back any more. Call with: no wait left.
void cold_loads_stop(struct cold *cold);

// ---- cold.c ----

/// A load is over: who waited for it alone is ready.
void cold_load_over(struct cold *cold, struct cold_load *load);

// ---- cold_read.c ----

/// Starts and ends the threads. 0 or -errno.
int cold_threads_start(struct cold *cold, struct store *store);
void cold_threads_stop(struct cold *cold);
/// Gives a load to them.
void cold_threads_give(struct cold *cold, struct cold_load *load);
/// Takes one back that none has begun; false: it comes when it is done.
bool cold_threads_take_back(struct cold *cold, struct cold_load *load);
/// The next that is done, NULL = none.
struct cold_load *cold_threads_next(struct cold *cold);

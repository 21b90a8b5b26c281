// SPDX-License-Identifier: MIT
//
// Between two slices anything may become of the value that is being read. It is found anew by its
// key each time, and is the same one if its size and the sum that its record has are; whatever else
// the key has now was written by this life, and moved or referred to by another version it is as
// whole as it was.
#include "daemon/keyspace_sums.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace_cold.h"
#include "daemon/keyspace_internal.h"
#include "daemon/log.h"
#include "shm/crc32c.h"

#define SLICE_BYTES (UINT64_C(256) << 10) // read between two turns: some 0.03 ms
#define SLICE_WALKS 64u			  // steps of the walk in a slice
#define INTERVAL_NS UINT64_C(1000000)
#define TRY_INTERVAL_NS UINT64_C(100000000)
#define TRIES_MAX 100u // of a damaged value whose place in the store has to be found

struct wanted {
	struct wanted *next;
	uint32_t key_bytes;
	unsigned char key[];
};

struct keyspace_sums {
	struct keyspace *keyspace;
	uint64_t cursor;
	unsigned side; // of the table: on another one the walk begins anew
	bool walked;
	bool no_memory;
	struct wanted *wanted; // large values met at one step of the walk
	uint64_t done_bytes;   // of the first of them
	uint32_t sum;	       // of those
	uint32_t expected;     // that its record had when it was begun
	uint64_t value_bytes;
	unsigned tries; // to leave a stub of it, for it is damaged
	uint64_t due_ns;
};

struct keyspace_sums *keyspace_sums_begin(struct keyspace *keyspace)
{
	bool has_any = keyspace->large.runs_count > 0;
	struct keyspace_sums *sums = has_any ? calloc(1, sizeof(*sums)) : NULL;
	if (sums != NULL) {
		sums->keyspace = keyspace;
		sums->side = keyspace->table.side;
		keyspace_scan_begins(keyspace);
	}
	return sums;
}

static void next_wanted(struct keyspace_sums *sums)
{
	struct wanted *first = sums->wanted;
	sums->wanted = first->next;
	sums->done_bytes = 0;
	sums->tries = 0;
	free(first);
}

void keyspace_sums_end(struct keyspace_sums *sums)
{
	if (sums == NULL) {
		return;
	}
	while (sums->wanted != NULL) {
		next_wanted(sums);
	}
	if (!sums->walked) {
		keyspace_scan_over(sums->keyspace);
	}
	free(sums);
}

static void visit(void *context, const void *key, size_t key_bytes,
		  const struct keyspace_value *value)
{
	struct keyspace_sums *sums = context;
	if (value->value == NULL || !keyspace_is_large(sums->keyspace, value->value_bytes)) {
		return;
	}
	struct wanted *wanted = malloc(sizeof(*wanted) + key_bytes);
	if (wanted == NULL) {
		sums->no_memory = true; // that step once more, later
		return;
	}
	memcpy(wanted->key, key, key_bytes);
	wanted->key_bytes = (uint32_t)key_bytes;
	wanted->next = sums->wanted;
	sums->wanted = wanted;
}

// One step of the walk. Values it has met twice are summed twice.
static void walk(struct keyspace_sums *sums)
{
	struct keyspace *keyspace = sums->keyspace;
	if (keyspace->table.side != sums->side) {
		sums->side = keyspace->table.side;
		sums->cursor = 0;
	}
	uint64_t next = keyspace_scan(keyspace, sums->cursor, visit, sums);
	if (sums->no_memory) {
		return;
	}
	sums->cursor = next;
	sums->walked = next == 0;
	if (sums->walked) {
		keyspace_scan_over(keyspace);
	}
}

// Is the first of the wanted keys' value still the large one that was begun, or the first time any?
static bool find(struct keyspace_sums *sums, struct kvs_hit *hit)
{
	const struct wanted *wanted = sums->wanted;
	uint64_t hash = keyspace_hash(sums->keyspace, wanted->key, wanted->key_bytes);
	if (keyspace_find(sums->keyspace, hash, wanted->key, wanted->key_bytes, hit) !=
		    KVS_FIND_HIT ||
	    hit->kind != KVS_ENTRY_LARGE) {
		return false;
	}
	uint32_t expected = kvs_record_run(&hit->view).crc;
	if (sums->done_bytes == 0) {
		sums->expected = expected;
		sums->value_bytes = hit->view.value_bytes;
		sums->sum = 0;
	}
	return expected == sums->expected && hit->view.value_bytes == sums->value_bytes;
}

// Its value is not what was written. The store's takes its place, as soon as it can be found.
static void replace(struct keyspace_sums *sums, uint64_t now_ns, bool *wants_places)
{
	const struct wanted *wanted = sums->wanted;
	const char *name = (const char *)wanted->key;
	int shown = wanted->key_bytes < 100 ? (int)wanted->key_bytes : 100;
	if (sums->tries++ == 0) {
		keyspace_counter_add(sums->keyspace, KVS_COUNTER_large_damaged, 1);
		log_error("the value of '%.*s' in the memory that was taken over is damaged: its "
			  "checksum is wrong",
			  shown, name);
	}
	enum keyspace_cold_result result =
		keyspace_spill(sums->keyspace, wanted->key, wanted->key_bytes);
	if (result == KEYSPACE_COLD_DONE) {
		log_warning("the value of '%.*s' is read from the store from now on", shown, name);
		next_wanted(sums);
	} else if (result == KEYSPACE_COLD_OTHER || sums->tries == TRIES_MAX) {
		log_error("no other value of '%.*s' could be found: write it anew, or remove it",
			  shown, name);
		next_wanted(sums);
	} else {
		*wants_places = result == KEYSPACE_COLD_UNPLACED;
		sums->due_ns = now_ns + TRY_INTERVAL_NS;
	}
}

// Goes on with the first of the wanted. Returns how many bytes were read.
static uint64_t sum(struct keyspace_sums *sums, uint64_t now_ns, bool *wants_places)
{
	struct kvs_hit hit;
	if (!find(sums, &hit)) {
		next_wanted(sums);
		return 0;
	}
	uint64_t rest = sums->value_bytes - sums->done_bytes;
	uint64_t part = rest < SLICE_BYTES ? rest : SLICE_BYTES;
	sums->sum = kvs_crc32c(sums->sum, (const char *)hit.value + sums->done_bytes, part);
	sums->done_bytes += part;
	if (sums->done_bytes < sums->value_bytes) {
		return part;
	}
	if (sums->sum == sums->expected) {
		next_wanted(sums);
	} else {
		replace(sums, now_ns, wants_places);
	}
	return part;
}

uint64_t keyspace_sums_turn(struct keyspace_sums *sums, uint64_t now_ns, bool *wants_places)
{
	*wants_places = false;
	if (now_ns < sums->due_ns) {
		return sums->due_ns;
	}
	sums->due_ns = now_ns + INTERVAL_NS;
	sums->no_memory = false;
	uint64_t bytes = 0;
	for (unsigned i = 0; i < SLICE_WALKS && bytes < SLICE_BYTES && !sums->no_memory; i++) {
		if (sums->wanted != NULL) {
			unsigned tries = sums->tries;
			bytes += sum(sums, now_ns, wants_places);
			if (sums->tries > tries) {
				break; // later once more
			}
		} else if (!sums->walked) {
			walk(sums);
		} else {
			return UINT64_MAX;
		}
	}
	return sums->due_ns;
}

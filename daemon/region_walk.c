// SPDX-License-Identifier: MIT
//
// Sections are kept short, so that nothing waits for them and none is revoked but by a stall; a
// transaction in which one was is begun anew.
#include "daemon/region_walk.h"

#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "daemon/storage/block.h"
#include "daemon/storage/store.h"
#include "daemon/storage/store_read.h"
#include "shm/epoch.h"
#include "shm/epoch_scan.h"
#include "shm/table.h"
#include "shm/writers.h"

#define WALK_SECTION_POSITIONS 64u
#define COPY_COMMIT_BYTES (UINT64_C(8) << 20)
#define COPY_SECTION_BYTES (UINT64_C(64) << 10) // written before a section ends
#define COPY_REVOCATIONS_MAX 1000u
#define COPY_WAIT_NS 1000000
#define COPY_WAITS_MAX 10000u
#define COPY_COLD_TRIES 3u

// Light read sections need this process registered with the kernel, once; else they fence.
bool region_walk_must_fence(const struct kvs_map *map)
{
	return map->readers_fence || !kvs_epoch_membarrier_works() ||
	       syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) != 0;
}

bool region_large_value(const struct kvs_map *map, const struct kvs_record_view *view,
			const void **value)
{
	*value = NULL;
	if (!(view->flags & KVS_RECORD_LARGE)) {
		return true;
	}
	const struct kvs_range_bounds *range = &map->ranges[KVS_RANGE_LARGE];
	struct kvs_run run = kvs_record_run(view);
	if (run.offset < range->offset || run.offset - range->offset > range->bytes_max ||
	    view->value_bytes > range->bytes_max - (run.offset - range->offset)) {
		return false;
	}
	*value = map->base + run.offset;
	return true;
}

int region_put_writers(void *region_base, struct store *store)
{
	const struct kvs_writers *table = kvs_writers_of(region_base);
	// Acquire: the users (partner: keyspace_writer_index()).
	uint64_t count = kvs_load_acquire(&table->count);
	bool known = memcmp(table->marker, KVS_WRITERS_MARKER, sizeof(table->marker)) == 0 &&
		     count < KVS_WRITERS_MAX;
	return known ? store_put_writers(store, table->uid, (uint32_t)count) : STORE_OK;
}

// One position; again if the table moved meanwhile.
static uint64_t walk_position(const struct region_walk *walk, uint64_t cursor)
{
	uint64_t before;
	uint64_t after;
	uint64_t next;
	do {
		before = kvs_load_acquire(&walk->hot->table_root);
		next = kvs_table_scan(walk->map, cursor, walk->entry, walk->context);
		kvs_fence_acquire(); // as a miss is confirmed (shm/table.h)
		after = kvs_load_acquire(&walk->hot->table_root);
	} while (before != after);
	return next;
}

bool region_walk_section(struct region_walk *walk)
{
	uint64_t cursor = walk->cursor;
	bool done = false;
	if (!kvs_epoch_enter(walk->slot, walk->hot, walk->fenced)) {
		return false;
	}
	for (unsigned i = 0; i < WALK_SECTION_POSITIONS && !done; i++) {
		cursor = walk_position(walk, cursor);
		done = cursor == 0;
		if (walk->enough(walk->context)) {
			break;
		}
	}
	if (!kvs_epoch_leave(walk->slot, walk->hot)) {
		return false;
	}
	walk->cursor = cursor;
	walk->done = done;
	return true;
}

// Names a value that cannot be read, of the open transaction.
static void note_lost(struct table_copy *copy, const struct kvs_record_view *view)
{
	copy->txn_lost++;
	size_t used = strlen(copy->lost_names);
	(void)snprintf(copy->lost_names + used, sizeof(copy->lost_names) - used,
		       "%s'%.*s' (version %llu: %s)", used > 0 ? ", " : "",
		       (int)strnlen((const char *)view->key, view->key_bytes),
		       (const char *)view->key, (unsigned long long)view->seq,
		       store_reader_why(copy->cold));
}

// Of the store that this one replaces: nobody appends there or moves anything any more, and what
// fails is opened anew. What is neither there nor anywhere else is damaged.
static int read_replaced(struct table_copy *copy, struct store_wanted *wanted,
			 struct store_record *record)
{
	int result = STORE_OK;
	for (unsigned tries = 0; tries < COPY_COLD_TRIES; tries++) {
		result = store_reader_read(copy->cold, wanted, record);
		if (result == STORE_READ_GONE) {
			result = store_reader_find(copy->cold, wanted);
			result = result == STORE_READ_GONE ? STORE_DAMAGED : result;
		} else if (result == STORE_OK || result == STORE_DAMAGED ||
			   result == STORE_NO_MEMORY) {
			return result;
		} else {
			result = store_replaced_again(copy->store);
			result = result == STORE_GONE ? STORE_DAMAGED : result;
		}
		if (result != STORE_OK) {
			return result;
		}
	}
	return STORE_DAMAGED; // opened anew, and it fails again: this one alone cannot be read
}

// A value that is in the store alone, from there.
static void copy_stub(struct table_copy *copy, const struct kvs_record_view *view)
{
	uint64_t place;
	struct store_record record;
	struct store_wanted wanted = {
		.place = kvs_load_relaxed(&view->record->place), // partner: keyspace_move()
		.seq = view->seq,
		.key = view->key,
		.key_bytes = view->key_bytes,
		.value_bytes = view->value_bytes,
	};
	int result = copy->replaces ? read_replaced(copy, &wanted, &record)
				    : store_reader_read(copy->cold, &wanted, &record);
	if (result == STORE_READ_GONE || result == STORE_READ_SHUT) {
		copy->moved = true;
		return;
	}
	if (result == STORE_DAMAGED && copy->replaces) {
		note_lost(copy, view);
		return;
	}
	if (result != STORE_OK) {
		copy->result = result;
		copy->cold_failed = true;
		return;
	}
	bool large = (record.view.flags & KVS_RECORD_LARGE) != 0;
	copy->result = store_append(copy->store, &record.view, large ? record.value : NULL, &place);
	copy->txn_bytes += store_packed_bytes(&record.view);
	copy->txn_records++;
	free(record.bytes);
}

static void copy_entry(void *context, uint64_t entry)
{
	struct table_copy *copy = context;
	struct kvs_hit hit;
	uint64_t place;
	if (copy->result != STORE_OK || copy->broken || copy->moved) {
		return;
	}
	if (kvs_table_load(copy->walk.map, entry, &hit) != KVS_FIND_HIT) {
		copy->broken = true;
		return;
	}
	if (hit.kind == KVS_ENTRY_TOMBSTONE || hit.view.seq > copy->upto_seq) {
		copy->txn_left_seq =
			hit.view.seq > copy->txn_left_seq ? hit.view.seq : copy->txn_left_seq;
		return;
	}
	if (hit.value == NULL && copy->cold != NULL) {
		copy_stub(copy, &hit.view);
		return;
	}
	if (hit.value == NULL) {
		copy->broken = true; // and its value stands where nobody looks
		return;
	}
	const void *value = hit.view.flags & KVS_RECORD_LARGE ? hit.value : NULL;
	copy->result = store_append(copy->store, &hit.view, value, &place);
	copy->txn_bytes += store_packed_bytes(&hit.view);
	copy->txn_records++;
}

static bool copy_enough(void *context)
{
	const struct table_copy *copy = context;
	return copy->result != STORE_OK || copy->broken || copy->moved ||
	       copy->txn_bytes >= copy->section_bytes_max;
}

enum { COPY_REVOKED = 1 }; // beside enum store_error

// The section did not end well. Returns COPY_REVOKED to begin the transaction anew.
static int copy_again(struct table_copy *copy, bool revoked)
{
	store_abort(copy->store);
	if (revoked) {
		return COPY_REVOKED;
	}
	if (!copy->moved) {
		copy->unreadable = "a record in memory cannot be read";
		return STORE_DAMAGED;
	}
	if (copy->moved_waits++ == COPY_WAITS_MAX) {
		copy->unreadable = "a value that is in the store alone cannot be found there now: "
				   "try again later";
		return STORE_SYSTEM;
	}
	(void)nanosleep(&(struct timespec){ .tv_nsec = COPY_WAIT_NS }, NULL);
	return COPY_REVOKED; // its stub is told the place meanwhile
}

// The transaction is gone unless this is STORE_OK.
static int copy_section(struct table_copy *copy)
{
	copy->section_bytes_max = copy->txn_bytes + COPY_SECTION_BYTES;
	bool good = region_walk_section(&copy->walk);
	if (copy->result != STORE_OK) {
		if (copy->cold_failed) {
			store_abort(copy->store);
			copy->unreadable = store_reader_why(copy->cold);
		}
		return copy->result;
	}
	if (good && !copy->broken && !copy->moved) {
		return STORE_OK;
	}
	return copy_again(copy, !good);
}

static int copy_transaction(struct table_copy *copy)
{
	copy->walk.entry = copy_entry;
	copy->walk.enough = copy_enough;
	copy->walk.context = copy;
	copy->txn_left_seq = 0;
	copy->txn_records = 0;
	copy->txn_lost = 0;
	copy->lost_names[copy->lost_names_bytes] = '\0';
	copy->moved = copy->cold_failed = false;
	copy->txn_bytes = 0;
	copy->result = STORE_OK;
	copy->broken = false;
	int result = store_begin(copy->store);
	while (result == STORE_OK && !copy->walk.done && copy->txn_bytes < COPY_COMMIT_BYTES) {
		result = copy_section(copy);
	}
	return result == STORE_OK ? store_commit(copy->store, 0) : result;
}

static void note_left(struct table_copy *copy)
{
	uint64_t seq = copy->txn_left_seq;
	if (copy->walk.done) {
		// Acquire: noted before an entry goes (partner: keyspace_note_removal()).
		const struct kvs_region_header *header = kvs_map_header(copy->walk.map);
		uint64_t removal_seq = kvs_load_acquire(&header->marks.last_removal_seq);
		seq = removal_seq > seq ? removal_seq : seq;
	}
	copy->left_seq = seq > copy->left_seq ? seq : copy->left_seq;
}

int table_copy_some(struct table_copy *copy)
{
	uint64_t cursor = copy->walk.cursor;
	for (;;) {
		int result = copy_transaction(copy);
		if (result == STORE_OK) {
			copy->records += copy->txn_records;
			copy->bytes += copy->txn_bytes;
			copy->lost += copy->txn_lost;
			copy->lost_names_bytes = strlen(copy->lost_names);
			note_left(copy);
		}
		if (result != COPY_REVOKED) {
			return result;
		}
		copy->walk.cursor = cursor;
		copy->walk.done = false;
		if (!copy->moved && copy->revocations++ == COPY_REVOCATIONS_MAX) {
			copy->unreadable = "kvd's own reading of the table is revoked again and "
					   "again: give it more --memory";
			return STORE_SYSTEM;
		}
	}
}

enum table_copy_reach table_copy_reach(struct table_copy *copy, uint64_t seq)
{
	if (seq >= copy->left_seq) {
		return TABLE_COPY_REACHED;
	}
	if (copy->waits++ == COPY_WAITS_MAX) {
		return TABLE_COPY_NEVER;
	}
	(void)nanosleep(&(struct timespec){ .tv_nsec = COPY_WAIT_NS }, NULL);
	return TABLE_COPY_NOT_YET;
}

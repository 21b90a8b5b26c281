// SPDX-License-Identifier: MIT
//
// The simulated store for those who read beside its owner, and for who loads all of it.
#include <stdlib.h>
#include <string.h>

#include "daemon/storage/block.h"
#include "daemon/storage/recover.h"
#include "daemon/storage/store.h"
#include "daemon/storage/store_read.h"
#include "tests/simulation/sim.h"

struct store_reader {
	struct store_block block;
	unsigned index;
	const char *why;
};

int store_reader_open(struct store_reader **out, struct store *store, unsigned index)
{
	if (store == NULL || index >= STORE_READERS_MAX) {
		sim_fail("reader %u of the store", index);
	}
	*out = sim_alloc(sizeof(**out));
	(*out)->why = "";
	(*out)->index = index;
	return STORE_OK;
}

void store_reader_close(struct store_reader *reader)
{
	(void)reader;
}

const char *store_reader_why(const struct store_reader *reader)
{
	return reader->why;
}

int store_reader_block(struct store_reader *reader, uint64_t number,
		       const struct store_block **block)
{
	const unsigned char *bytes;
	uint32_t count;
	if (sim_chance(2)) {
		bool slow = sim_chance(2);
		sim_give_way(slow ? SIM_SLEEP : SIM_RUNS, NULL, sim.mono_ns + sim_below(20000000));
	}
	if (!sim_disk_block(number, &bytes, &count)) {
		return STORE_READ_GONE;
	}
	int fault = store_block_check(bytes, count, number, &reader->block);
	if (fault != STORE_BLOCK_GOOD) {
		sim_fail("block %llu: %s", (unsigned long long)number,
			 store_block_fault_text(fault));
	}
	*block = &reader->block;
	return STORE_OK;
}

static bool is_wanted(const struct store_wanted *wanted, const struct kvs_record_view *view)
{
	return view->seq == wanted->seq && view->key_bytes == wanted->key_bytes &&
	       view->value_bytes == wanted->value_bytes &&
	       (view->flags & KVS_RECORD_TOMBSTONE) == 0 &&
	       memcmp(view->key, wanted->key, wanted->key_bytes) == 0;
}

bool sim_disk_stands_at(const struct kvs_record_view *stub, uint64_t place)
{
	const struct store_wanted wanted = { .seq = stub->seq,
					     .key = stub->key,
					     .key_bytes = stub->key_bytes,
					     .value_bytes = stub->value_bytes };
	const unsigned char *bytes;
	uint32_t count;
	struct store_block block;
	struct kvs_record_view view;
	const void *value;
	uint64_t packed_bytes;
	uint32_t offset = kvs_place_offset(place) - sizeof(struct store_block_header);
	uint64_t number = kvs_place_block(place);
	return sim_disk_block(number, &bytes, &count) &&
	       store_block_check(bytes, count, number, &block) == STORE_BLOCK_GOOD &&
	       offset < block.payload_bytes &&
	       store_packed_parse(block.payload + offset, block.payload_bytes - offset, &view,
				  &value, &packed_bytes) == 0 &&
	       is_wanted(&wanted, &view);
}

// Of values that somebody waits for, one is not had now and then: what stands at its place is told
// too late, nothing can be read at all, or not this.
static int read_fails(struct store_reader *reader, const struct store_wanted *wanted)
{
	static const int results[] = { STORE_READ_GONE, STORE_READ_SHUT, STORE_IO,
				       STORE_NO_MEMORY };
	static const char *const whys[] = { "", "", "the simulated sector is lost", "no memory" };
	if (reader->index < STORE_READER_LOADS || !sim_fault(sim.plan.read_chance)) {
		return STORE_OK;
	}
	unsigned how = (unsigned)sim_below(sizeof(results) / sizeof(results[0]));
	reader->why = whys[how];
	sim_note("version %llu cannot be read: %d", (unsigned long long)wanted->seq, results[how]);
	sim.unread++;
	sim_model_unread(wanted->key, wanted->key_bytes);
	return results[how];
}

int store_reader_read(struct store_reader *reader, const struct store_wanted *wanted,
		      struct store_record *record)
{
	const struct store_block *block;
	uint64_t number = kvs_place_block(wanted->place);
	uint32_t offset = kvs_place_offset(wanted->place) - sizeof(struct store_block_header);
	uint64_t packed_bytes;
	record->bytes = NULL;
	int result = read_fails(reader, wanted);
	if (result == STORE_OK) {
		result = store_reader_block(reader, number, &block);
	}
	if (result != STORE_OK) {
		return result;
	}
	if (offset >= block->payload_bytes ||
	    store_packed_parse(block->payload + offset, block->payload_bytes - offset,
			       &record->view, &record->value, &packed_bytes) != 0 ||
	    !is_wanted(wanted, &record->view)) {
		sim_fail("another record stands at a place in block %llu",
			 (unsigned long long)number);
	}
	record->bytes = malloc(packed_bytes);
	if (record->bytes == NULL) {
		return STORE_NO_MEMORY;
	}
	memcpy(record->bytes, block->payload + offset, packed_bytes);
	(void)store_packed_parse(record->bytes, packed_bytes, &record->view, &record->value,
				 &packed_bytes);
	record->value = record->value != NULL ? record->value : record->view.payload;
	return STORE_OK;
}

// What a commit moved that failed and arrived is found here, as in the store itself.
int store_reader_find(struct store_reader *reader, struct store_wanted *wanted)
{
	const struct store_block *block;
	struct kvs_record_view view;
	const void *value;
	for (uint64_t number = sim_disk_next_block(); number-- > 0;) {
		if (store_reader_block(reader, number, &block) != STORE_OK) {
			return STORE_READ_GONE;
		}
		uint32_t next = 0;
		uint32_t offset = 0;
		while (store_block_next(block, &next, &view, &value) > 0) {
			if (is_wanted(wanted, &view)) {
				wanted->place = store_block_place(number, offset);
				return STORE_OK;
			}
			offset = next;
		}
	}
	return STORE_READ_GONE;
}

void store_skip_blocks(struct store *store, uint64_t next_block)
{
	(void)store;
	sim_fail("a store that is damaged, before block %llu", (unsigned long long)next_block);
}

int store_replaced_again(struct store *store)
{
	(void)store;
	return STORE_OK; // what failed was a transaction
}

// ---- all of it ----

static void block_of(uint64_t number, struct store_block *block)
{
	const unsigned char *bytes;
	uint32_t count;
	if (!sim_disk_block(number, &bytes, &count) ||
	    store_block_check(bytes, count, number, block) != STORE_BLOCK_GOOD) {
		sim_fail("block %llu is damaged, or not there", (unsigned long long)number);
	}
}

const void *sim_disk_value(const struct kvs_record_view *view)
{
	for (uint64_t number = sim_disk_next_block(); number-- > sim_disk_oldest_block();) {
		struct store_block block;
		struct kvs_record_view found;
		const void *value;
		uint32_t offset = 0;
		block_of(number, &block);
		while (store_block_next(&block, &offset, &found, &value) == 1) {
			if (found.seq == view->seq && found.key_bytes == view->key_bytes &&
			    memcmp(found.key, view->key, view->key_bytes) == 0) {
				return value != NULL ? value : found.payload;
			}
		}
	}
	return NULL;
}

static int walk_block(const struct store_walk *walk, uint64_t number)
{
	struct store_block block;
	block_of(number, &block);
	uint32_t offset = 0;
	uint32_t at = 0;
	struct kvs_record_view view;
	const void *value;
	int found;
	while ((found = store_block_next(&block, &offset, &view, &value)) == 1) {
		int result =
			walk->record(walk->context, &view, value, store_block_place(number, at));
		if (result != 0) {
			return result;
		}
		at = offset;
	}
	if (found < 0) {
		sim_fail("a record in block %llu is damaged", (unsigned long long)number);
	}
	return 0;
}

int store_recover(struct store *store, const struct store_walk *walk)
{
	(void)store;
	uint64_t first = sim_disk_oldest_block();
	uint64_t count = sim_disk_next_block() - first;
	for (uint64_t i = 0; i < count; i++) {
		int result = walk_block(walk, first + i);
		if (result != 0) {
			return result;
		}
		if (walk->progress != NULL) {
			walk->progress(walk->context, i + 1, count);
		}
		sim_give_way(SIM_RUNS, NULL, 0);
	}
	return STORE_OK;
}

// SPDX-License-Identifier: MIT
//
// The store, behind the interface of daemon/storage: a list of blocks that a commit makes longer or
// shorter at once. What is not committed when kvd dies is lost; a commit under way may have arrived
// or not. It fails as disks do: no room (nothing happened, or nobody knows whether the commit
// arrived, and it is opened anew), or an error of the device (nobody knows, and kvd writes another
// store).
//
// Blocks are built and checked by kvd's own code. Records that need more than one block do not
// occur here: the seeds' largest values are smaller.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/storage/block.h"
#include "daemon/storage/probe.h"
#include "tests/simulation/sim.h"

struct block {
	const unsigned char *bytes;
	uint32_t count;
};

/// Whose the writer indices are.
struct writers {
	bool is_known;
	uint32_t count;
	uint32_t uids[KVS_WRITERS_MAX];
};

/// What is on the disk: survives kvd.
struct disk {
	bool exists;
	struct store_facts facts;
	struct block *blocks; // by number - facts.oldest_block
	struct writers writers;
	size_t room;
};

struct store {
	struct store_facts committed; // as this life knows it
	struct store_facts now;	      // with the open transaction
	bool is_open;		      // a transaction
	bool renews;		      // what is committed stands beside
	bool failed;		      // the device did, or its commit may have arrived
	bool cramped;		      // that is so for want of room
	struct block *added;	      // by the open transaction
	size_t added_count, added_room;
	struct store_builder builder;
	struct writers writers; // put by the open transaction
	const char *why;
};

static struct disk disk;
static struct disk beside; // DIR/store.new

static struct disk *disk_of(const struct store *store)
{
	return store->renews ? &beside : &disk;
}

uint64_t sim_disk_durable(void)
{
	return disk.exists ? disk.facts.durable_seq : 0;
}

// service_start() asks the file system whether there is a store.
static void disk_make_file(void)
{
	char path[128];
	(void)snprintf(path, sizeof(path), "%s/store", sim.dir);
	(void)mkdir(path, 0700);
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", sim.dir);
	FILE *file = fopen(path, "w");
	if (file == NULL || fputc('x', file) == EOF || fclose(file) != 0) {
		sim_fail("the simulated disk cannot be made");
	}
}

// Other threads run while the disk is busy, and kvd may die meanwhile.
static void disk_wait(void)
{
	if (sim_chance(3)) {
		sim_give_way(SIM_SLEEP, NULL, sim.mono_ns + sim_below(3000000));
	} else {
		sim_give_way(SIM_RUNS, NULL, 0);
	}
}

static int store_fails(struct store *store)
{
	if (!sim_fault(sim.plan.disk_chance)) {
		return STORE_OK;
	}
	store_abort(store);
	store->why = "the simulated disk fails";
	bool full = sim_chance(2);
	sim_note("the disk %s", full ? "is full" : "fails");
	store->failed = store->failed || !full;
	return full ? STORE_NO_SPACE : STORE_IO;
}

int store_open(struct store **out, const struct store_options *options, char *why, size_t why_bytes)
{
	(void)why;
	(void)why_bytes;
	if (!disk.exists) {
		disk = (struct disk){ .exists = true };
		disk.facts.instance_id = options->instance_id;
		disk.facts.oldest_block = disk.facts.next_block = 1;
		disk_make_file();
	}
	struct store *store = sim_alloc(sizeof(*store));
	store->committed = store->now = disk.facts;
	store->builder.bytes = aligned_alloc(64, (STORE_BLOCK_BYTES_MAX + 63) & ~63u);
	store->why = "";
	store_builder_reset(&store->builder);
	*out = store;
	return STORE_OK;
}

void store_close(struct store *store)
{
	(void)store;
}

void store_facts(const struct store *store, struct store_facts *facts)
{
	*facts = store->now;
}

uint64_t store_file_bytes(const struct store *store)
{
	return store->now.log_bytes;
}

void store_set_instance(struct store *store, uint64_t instance_id)
{
	store->committed.instance_id = instance_id;
	store->now.instance_id = instance_id;
}

const char *store_why(const struct store *store)
{
	return store->why;
}

void store_abort(struct store *store)
{
	store->is_open = false;
	store->now = store->committed;
	store->added_count = 0;
	store->writers.is_known = false;
	store_builder_reset(&store->builder);
}

int store_begin(struct store *store)
{
	if (store->is_open) {
		sim_fail("a transaction is begun inside another");
	}
	int result = store_fails(store);
	if (result != STORE_OK) {
		return result;
	}
	if (store->failed && !store->renews) { // opened anew: what arrived is there
		uint64_t instance_id = store->committed.instance_id;
		store->committed = disk.facts;
		store->committed.instance_id = instance_id;
		store->failed = false;
	}
	store_abort(store);
	store->is_open = true;
	return STORE_OK;
}

static void flush_block(struct store *store)
{
	if (store->builder.count == 0) {
		return;
	}
	uint32_t count = store_builder_finish(&store->builder, store->now.next_block);
	unsigned char *bytes = aligned_alloc(8, (count + 7) & ~7u);
	memcpy(bytes, store->builder.bytes, count);
	if (store->added_count == store->added_room) {
		store->added_room = store->added_room * 2 + 16;
		store->added = sim_grow(store->added, store->added_room * sizeof(*store->added));
	}
	store->added[store->added_count++] = (struct block){ bytes, count };
	store->now.next_block++;
	store->now.log_bytes += store_block_file_bytes(count);
	store_builder_reset(&store->builder);
}

int store_append(struct store *store, const struct kvs_record_view *view, const void *value,
		 uint64_t *place)
{
	if (!store->is_open) {
		sim_fail("a record is appended outside of a transaction");
	}
	if (sim_chance(64)) {
		disk_wait();
	}
	int result = sim_chance(8) ? store_fails(store) : STORE_OK;
	if (result != STORE_OK) {
		return result;
	}
	uint64_t packed_bytes = store_packed_bytes(view);
	if (packed_bytes > store_builder_room(&store->builder)) {
		flush_block(store);
	}
	if (packed_bytes > store_builder_room(&store->builder)) {
		sim_fail("a record of %llu bytes", (unsigned long long)packed_bytes);
	}
	uint32_t offset = store_builder_add(&store->builder, view, value);
	*place = store_block_place(store->now.next_block, offset);
	return STORE_OK;
}

int store_append_span(struct store *store, uint64_t first_block, uint64_t *place)
{
	(void)store;
	(void)place;
	sim_fail("block %llu goes on", (unsigned long long)first_block);
}

uint32_t store_slack(const struct store *store)
{
	if (store->builder.count == 0 || store->builder.used <= STORE_INLINE_BYTES_MAX) {
		return 0;
	}
	return store_block_value_bytes(store->builder.used) - store->builder.used;
}

int store_read_block(struct store *store, uint64_t number, void *out, size_t *bytes)
{
	int result = sim_chance(8) ? store_fails(store) : STORE_OK;
	if (result != STORE_OK) {
		return result;
	}
	const struct disk *from = disk_of(store);
	if (number < store->now.oldest_block || number >= from->facts.next_block) {
		sim_fail("block %llu is read, which is not there", (unsigned long long)number);
	}
	const struct block *block = &from->blocks[number - from->facts.oldest_block];
	memcpy(out, block->bytes, block->count);
	*bytes = block->count;
	return STORE_OK;
}

int store_refuse(struct store *store, uint64_t number, const char *what)
{
	(void)store;
	sim_fail("block %llu is refused: %s", (unsigned long long)number, what);
}

int store_delete_oldest(struct store *store, uint64_t count)
{
	const struct disk *from = disk_of(store);
	for (; count > 0; count--) {
		uint64_t index = store->now.oldest_block - from->facts.oldest_block;
		if (store->now.oldest_block >= from->facts.next_block) {
			sim_fail("more blocks are deleted than there are");
		}
		store->now.log_bytes -= store_block_file_bytes(from->blocks[index].count);
		store->now.oldest_block++;
	}
	return STORE_OK;
}

int store_put_writers(struct store *store, const uint32_t *uids, uint32_t count)
{
	if (!store->is_open || count > KVS_WRITERS_MAX) {
		sim_fail("%u writers are kept, or outside of a transaction", (unsigned)count);
	}
	store->writers.is_known = true;
	store->writers.count = count;
	memcpy(store->writers.uids, uids, count * sizeof(*uids));
	return STORE_OK;
}

int store_read_writers(struct store *store, uint32_t uids[KVS_WRITERS_MAX], uint32_t *count)
{
	(void)store;
	*count = disk.writers.count;
	memcpy(uids, disk.writers.uids, *count * sizeof(*uids));
	return disk.writers.is_known ? STORE_OK : 1;
}

static void disk_apply(struct store *store, bool last, uint64_t durable_seq)
{
	struct disk *to = disk_of(store);
	uint64_t gone = store->now.oldest_block - to->facts.oldest_block;
	uint64_t stay = to->facts.next_block - store->now.oldest_block;
	if (stay + store->added_count > to->room || to->blocks == NULL) {
		to->room = (stay + store->added_count) * 2 + 64;
		struct block *blocks = sim_alloc(to->room * sizeof(*blocks));
		if (stay > 0) {
			memcpy(blocks, to->blocks + gone, stay * sizeof(*blocks));
		}
		to->blocks = blocks;
	} else {
		memmove(to->blocks, to->blocks + gone, stay * sizeof(*to->blocks));
	}
	if (store->added_count > 0) {
		memcpy(to->blocks + stay, store->added, store->added_count * sizeof(*to->blocks));
	}
	store->now.durable_seq =
		durable_seq > store->now.durable_seq ? durable_seq : store->now.durable_seq;
	store->now.ended = last;
	to->facts = store->now;
	if (store->writers.is_known) {
		to->writers = store->writers;
	}
	sim_note("committed up to %llu, blocks %llu to %llu",
		 (unsigned long long)to->facts.durable_seq,
		 (unsigned long long)to->facts.oldest_block,
		 (unsigned long long)to->facts.next_block);
}

static int disk_commit(struct store *store, uint64_t durable_seq, bool last)
{
	if (!store->is_open) {
		sim_fail("a commit outside of a transaction");
	}
	flush_block(store);
	disk_wait();
	bool fails = sim_fault(sim.plan.disk_chance);
	bool full = fails && sim_chance(2);
	// With no room for a page of LMDB's lock file it is known as little as after an error.
	bool cramped = full && sim_chance(2);
	if (!fails || ((!full || cramped) && sim_chance(2))) {
		disk_apply(store, last, durable_seq);
		disk_wait();
	}
	if (full) {
		sim_note("the disk is full in a commit%s", cramped ? ", at its end" : "");
		store->failed = store->failed || cramped;
		store->cramped = cramped;
		store_abort(store);
		store->why = "the simulated disk is full";
		return STORE_NO_SPACE;
	}
	if (fails) {
		sim_note("the device fails in a commit");
		store->failed = true;
		store_abort(store);
		store->why = "the simulated device fails";
		return STORE_IO;
	}
	store->committed = store->now;
	store->cramped = false;
	store_abort(store);
	return STORE_OK;
}

bool store_may_have_arrived(const struct store *store)
{
	return store->cramped;
}

int store_commit(struct store *store, uint64_t durable_seq)
{
	return disk_commit(store, durable_seq, false);
}

int store_commit_last(struct store *store, uint64_t durable_seq)
{
	return disk_commit(store, durable_seq, true);
}

int store_renew_begin(struct store *store)
{
	store_abort(store);
	int result = store_fails(store);
	if (result != STORE_OK) {
		return result;
	}
	beside = (struct disk){ .exists = true, .facts = store->committed };
	beside.facts.oldest_block = beside.facts.next_block;
	beside.facts.log_bytes = 0;
	beside.facts.durable_seq = 0;
	store->renews = true;
	store->cramped = false;
	store->committed = store->now = beside.facts;
	return STORE_OK;
}

int store_renew_finish(struct store *store, enum store_replaced replaced)
{
	(void)replaced; // nobody looks for what is put aside
	if (store->is_open) {
		sim_fail("a renewal ends inside a transaction");
	}
	disk_wait();
	int result = store_fails(store);
	if (result != STORE_OK) {
		return result;
	}
	disk = beside;
	store->renews = false;
	store->failed = false;
	sim_note("the store was renewed up to %llu", (unsigned long long)disk.facts.durable_seq);
	disk_wait();
	return STORE_OK;
}

void store_renew_abandon(struct store *store)
{
	store->renews = false;
	store->committed = disk.facts;
	store_abort(store);
}

void store_keep_failed(struct store *store)
{
	(void)store; // there is one name only
}

int store_renew_complete(const char *dir)
{
	(void)dir;
	return 0;
}

bool sim_disk_block(uint64_t number, const unsigned char **bytes, uint32_t *count)
{
	if (number < disk.facts.oldest_block || number >= disk.facts.next_block) {
		return false;
	}
	const struct block *block = &disk.blocks[number - disk.facts.oldest_block];
	*bytes = block->bytes;
	*count = (uint32_t)block->count;
	return true;
}

uint64_t sim_disk_next_block(void)
{
	return disk.facts.next_block;
}

uint64_t sim_disk_oldest_block(void)
{
	return disk.facts.oldest_block;
}

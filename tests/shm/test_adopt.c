// SPDX-License-Identifier: MIT
//
// Taking over a region: what is found in a whole one, what is left over by moves that never ended,
// and every way in which a region cannot be what it says. That a kvd may be killed at any
// instruction is tests/daemon/step_adoption.c.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "shm/adopt.h"
#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define KEYS 600u

struct after {
	struct kvs_region region;
	struct kvs_adopt plan;
	int result; // of the plan
};

static void key_of(char key[16], unsigned i)
{
	(void)snprintf(key, 16, "key:%u", i);
}

// What a keyspace tells of what it did.
static void applied(struct fixture *f)
{
	f->region.header->marks.applied_seq = f->log.next_seq - 1;
	kvs_log_publish(&f->log);
}

static void fill(struct fixture *f)
{
	static const char value[200] = "value";
	char key[16];
	fixture_open(f, MEMORY, SEGMENT);
	f->step_after_write = true;
	for (unsigned i = 0; i < KEYS; i++) {
		key_of(key, i);
		(void)fixture_set(f, key, strlen(key), value, sizeof(value));
	}
	applied(f);
}

static struct kvs_region_options options_of(const struct fixture *f)
{
	return (struct kvs_region_options){ .memory_bytes = MEMORY,
					    .segment_bytes = SEGMENT,
					    .fenced = f->region.map.readers_fence };
}

// Another process's look at the region: a second mapping of the same file.
static void look(struct after *after, struct fixture *f)
{
	struct kvs_region_options options = options_of(f);
	memset(after, 0, sizeof(*after));
	ok_int(kvs_region_adopt(&after->region, dup(f->region.fd), &options), KVS_REGION_OK,
	       "it can be mapped");
	after->result = kvs_adopt_plan(&after->plan, &after->region, 0);
}

static void forget(struct after *after)
{
	kvs_adopt_fini(&after->plan);
	kvs_region_close(&after->region);
}

static void test_whole(void)
{
	struct fixture f;
	struct after after;
	fill(&f);
	look(&after, &f);
	ok_int(after.result, 0, "a whole region can be taken over");
	ok_u64(after.plan.keys, KEYS, "with all its keys");
	ok_u64(after.plan.last_seq, KEYS, "to the last version");
	ok_u64(after.plan.clears_count, 0, "and nothing is left over");
	ok(after.plan.unpersisted.segment == after.plan.heads[0] &&
		   after.plan.unpersisted.offset == 0,
	   "E: all of it is still to be made durable");
	ok(after.plan.heads_count > 1, "over %u segments", after.plan.heads_count);
	forget(&after);
	fixture_close(&f);
}

// Records that are written and were never published: a whole batch is applied, half a one is not.
static void append(struct fixture *f, unsigned i, uint16_t flags)
{
	char key[16];
	uint64_t offset;
	key_of(key, i);
	struct kvs_record_spec spec = { .key = key,
					.key_bytes = (uint32_t)strlen(key),
					.payload = "new",
					.payload_bytes = 3,
					.value_bytes = 3,
					.seq = f->log.next_seq,
					.flags = flags };
	uint32_t bytes = (uint32_t)kvs_record_bytes(spec.key_bytes, 3, 0);
	if (kvs_log_secure(&f->log, bytes, bytes, 0) != 0) {
		printf("Bail out! no room\n");
		exit(99);
	}
	(void)kvs_record_write(kvs_log_append(&f->log, bytes, &offset), &spec);
}

static void test_batches(void)
{
	struct fixture f;
	struct after after;
	fill(&f);
	append(&f, 1, KVS_RECORD_MORE);
	append(&f, 2, 0);
	append(&f, 3, KVS_RECORD_MORE);
	look(&after, &f);
	ok_int(after.result, 0, "records behind what was applied");
	ok_u64(after.plan.last_seq, KEYS + 2, "I: a whole batch is taken");
	ok_u64(after.plan.cut_records, 1, "I: half a batch is cut");
	ok(after.plan.unapplied.offset < after.plan.end.offset, "and there is something to apply");
	forget(&after);
	// Bytes behind the end may look like the record that is expected next.
	kvs_store_relaxed(&f.region.directory[f.log.head.segment].used_bytes,
			  f.log.head.offset - 40);
	look(&after, &f);
	ok_u64(after.plan.last_seq, KEYS + 2, "H: a record behind used_bytes is none");
	forget(&after);
	fixture_close(&f);
}

static void test_leftovers(void)
{
	struct fixture f;
	struct after after;
	struct kvs_hit hit;
	fill(&f);
	(void)fixture_find(&f.region.map, "key:7", 5, &hit);
	uint64_t hash = kvs_map_hash(&f.region.map, "key:7", 5);
	// A copy in its own chain, as a chain that is made shorter leaves, and one in another's.
	(void)kvs_table_insert(&f.table, hash, hit.entry);
	(void)kvs_table_insert(&f.table, hash + 1, hit.entry);
	look(&after, &f);
	ok_int(after.result, 0, "with entries that moves left");
	ok_u64(after.plan.clears_count, 2, "A: which are found");
	ok_u64(after.plan.damaged_count, 0, "and are no damage");
	ok_u64(after.plan.keys, KEYS, "nor counted");
	struct kvs_limbo limbo;
	struct kvs_log log;
	struct kvs_table table;
	struct kvs_large large;
	struct kvs_epoch_domain epochs;
	kvs_epoch_init(&epochs, &after.region.header->hot, true);
	(void)kvs_limbo_init(&limbo);
	struct kvs_adopt_parts parts = {
		.log = &log, .table = &table, .large = &large, .limbo = &limbo, .epochs = &epochs
	};
	uint64_t turns = kvs_root_turns(after.region.header->hot.table_root);
	ok_int(kvs_adopt_apply(&after.plan, &parts), 0, "the plan is carried out");
	ok(kvs_root_turns(after.region.header->hot.table_root) != turns,
	   "A: who searches meanwhile searches anew");
	ok_u64(table.entries, KEYS, "A: then every key has one entry");
	ok_u64(log.next_seq, KEYS + 1, "versions go on");
	ok_int(fixture_find(&after.region.map, "key:7", 5, &hit), KVS_FIND_HIT, "A: and is found");
	kvs_limbo_fini(&limbo);
	kvs_log_fini(&log);
	kvs_table_fini(&table);
	kvs_large_fini(&large);
	kvs_epoch_fini(&epochs);
	forget(&after);
	fixture_close(&f);
}

// One word of the region is not what it was: `why` names what is wrong.
static void refused(struct fixture *f, uint64_t *word, uint64_t value, const char *why)
{
	struct after after;
	uint64_t saved = *word;
	*word = value;
	look(&after, f);
	ok(after.result == -EUCLEAN && strstr(after.plan.why, why) != NULL, "H: refused: %s",
	   after.plan.why);
	forget(&after);
	*word = saved;
}

static void test_refusals(void)
{
	struct fixture f;
	struct after after;
	fill(&f);
	struct kvs_region_header *header = f.region.header;
	struct kvs_segment_entry *first = &f.region.directory[0];
	struct kvs_segment_entry *second = &f.region.directory[1];
	struct kvs_bucket *bucket =
		(void *)(f.region.base + f.region.map.ranges[KVS_RANGE_TABLE_0].offset);
	unsigned char *records = f.region.base + kvs_region_segment_offset(&f.region, 0);
	refused(&f, &header->ready[KVS_RANGE_LOG], 0, "said to be in use");
	refused(&f, &first->state, 9, "its state is none");
	refused(&f, &first->used_bytes, SEGMENT + 8, "more bytes are used");
	refused(&f, &header->segment_chain_head, 5000, "said to be the newest");
	refused(&f, &second->first_seq, first->first_seq, "the same version");
	refused(&f, &first->used_bytes, 480, "does not go on");
	refused(&f, (uint64_t *)(void *)(records + 40), 1, "not what was written");
	refused(&f, &header->marks.applied_seq, KEYS + 9, "ends before what was applied");
	refused(&f, &header->hot.table_root, 1, "no room for its buckets");
	refused(&f, &bucket->overflow, UINT64_C(1) << 40, "leads astray");
	bucket->entry[6] ^= 0x123456;
	look(&after, &f);
	ok(after.result == 0 && after.plan.damaged_count == 1,
	   "H: an entry that cannot be is damage");
	forget(&after);
	fixture_close(&f);
}

static void test_mapping(void)
{
	struct fixture f;
	struct kvs_region region;
	fill(&f);
	struct kvs_region_options options = options_of(&f);
	struct kvs_region_header *header = f.region.header;
	int fd = dup(f.region.fd);
	options.segment_bytes = 2 * SEGMENT;
	ok_int(kvs_region_adopt(&region, fd, &options), KVS_REGION_UNLIKE, "other segments");
	options.segment_bytes = SEGMENT;
	options.memory_bytes = UINT64_C(1) << 40;
	ok_int(kvs_region_adopt(&region, fd, &options), KVS_REGION_UNLIKE, "more memory");
	options.memory_bytes = MEMORY;
	header->lifecycle = KVS_REGION_STARTING;
	ok_int(kvs_region_adopt(&region, fd, &options), KVS_REGION_UNFILLED, "never filled");
	header->lifecycle = KVS_REGION_RETIRED;
	ok_int(kvs_region_adopt(&region, dup(fd), &options), KVS_REGION_OK, "one that was retired");
	kvs_region_close(&region);
	header->layout_version++;
	ok_int(kvs_region_adopt(&region, fd, &options), KVS_REGION_LAYOUT, "another layout");
	header->layout_version--;
	header->segments_count_max++;
	ok_int(kvs_region_adopt(&region, fd, &options), KVS_REGION_DAMAGED, "a false geometry");
	header->segments_count_max--;
	header->marker[0] = 'x';
	ok_int(kvs_region_adopt(&region, fd, &options), KVS_REGION_FOREIGN, "no region");
	header->marker[0] = 'k';
	ok(fcntl(fd, F_GETFD) >= 0, "the descriptor stays the caller's");
	close(fd);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	ok_int(kvs_region_adopt(&region, fd, &options), KVS_REGION_FOREIGN, "no memory file");
	close(fd);
	fixture_close(&f);
}

// The record of the key, where it stands in the fixture's own map.
static unsigned char *record_of(struct fixture *f, unsigned i)
{
	char key[16];
	struct kvs_hit hit;
	key_of(key, i);
	if (fixture_find(&f->region.map, key, strlen(key), &hit) != KVS_FIND_HIT) {
		printf("Bail out! %s is not there\n", key);
		exit(99);
	}
	return f->region.base + kvs_entry_offset(hit.entry);
}

enum spoil { SPOIL_VALUE, SPOIL_SEQ, SPOIL_LENGTH, SPOIL_ALL };

static void spoil(struct fixture *f, unsigned i, enum spoil how)
{
	unsigned char *at = record_of(f, i);
	static const uint32_t length = 150; // shorter, so that what follows it is no record
	switch (how) {
	case SPOIL_VALUE:
		at[100] ^= 1;
		break;
	case SPOIL_SEQ:
		memset(at + 8, 0, 8);
		break;
	case SPOIL_LENGTH:
		memcpy(at + 4, &length, sizeof(length));
		break;
	default:
		memset(at, 0xff, 200);
		break;
	}
}

static int apply(struct after *after)
{
	struct kvs_limbo limbo;
	struct kvs_log log;
	struct kvs_table table;
	struct kvs_large large;
	struct kvs_epoch_domain epochs;
	kvs_epoch_init(&epochs, &after->region.header->hot, true);
	(void)kvs_limbo_init(&limbo);
	struct kvs_adopt_parts parts = {
		.log = &log, .table = &table, .large = &large, .limbo = &limbo, .epochs = &epochs
	};
	int result = kvs_adopt_apply(&after->plan, &parts);
	kvs_limbo_fini(&limbo);
	kvs_log_fini(&log);
	kvs_table_fini(&table);
	kvs_large_fini(&large);
	kvs_epoch_fini(&epochs);
	return result;
}

static void plan_again(struct after *after, struct fixture *f, uint64_t durable_seq)
{
	look(after, f);
	kvs_adopt_fini(&after->plan);
	after->result = kvs_adopt_plan(&after->plan, &after->region, durable_seq);
}

// `count` of the newest keys from `first` on are spoilt, where everything applied is durable.
static void passed_over(unsigned first, unsigned count, enum spoil how, const char *name)
{
	struct fixture f;
	struct after after;
	fill(&f);
	for (unsigned i = 0; i < count; i++) {
		spoil(&f, first + i, how);
	}
	plan_again(&after, &f, UINT64_MAX);
	ok_int(after.result, 0, "F: %s: the region can be taken over", name);
	ok_u64(after.plan.keys, KEYS - count, "F: %s: with all other keys", name);
	ok_u64(after.plan.damaged_count, count, "F: %s: and these are known", name);
	ok_u64(after.plan.last_seq, KEYS, "versions go on behind the last");
	ok_int(apply(&after), 0, "it is");
	forget(&after);
	plan_again(&after, &f, UINT64_MAX);
	ok(after.result == 0 && after.plan.bad_count == 0 && after.plan.damaged_count == 0 &&
		   after.plan.keys == KEYS - count,
	   "F: %s: the next life finds nothing bad any more", name);
	forget(&after);
	fixture_close(&f);
}

// Where the store has not got them, the log counts as damaged; what stands behind is known.
static void test_bad_tail(void)
{
	struct fixture f;
	struct after after;
	fill(&f);
	spoil(&f, KEYS - 9, SPOIL_SEQ);
	plan_again(&after, &f, KEYS - 20);
	ok(after.result == -EUCLEAN && strstr(after.plan.why, "not what was written") != NULL,
	   "E: what is not durable and bad is not passed over: %s", after.plan.why);
	ok(after.plan.has_tail && after.plan.last_seq == KEYS && after.plan.bad_count == 1 &&
		   after.plan.bad[0].seq == KEYS - 8 && after.plan.bad[0].count == 1,
	   "E: but what follows it can be saved");
	forget(&after);
	plan_again(&after, &f, KEYS - 8);
	ok(after.result == 0 && after.plan.damaged_count == 1, "E: what is durable is passed over");
	forget(&after);
	fixture_close(&f);
}

// Bytes of a value that look like a record, as its supplier may have wished.
static void test_false_record(void)
{
	struct fixture f;
	struct after after;
	static unsigned char value[400];
	fill(&f);
	struct kvs_record_spec spec = { .key = "false",
					.key_bytes = 5,
					.payload = "x",
					.payload_bytes = 1,
					.value_bytes = 1,
					.seq = f.log.next_seq + 30 };
	(void)kvs_record_write(value + 1, &spec); // with head and key before it one can stand there
	(void)fixture_set(&f, "key:900", 7, value, sizeof(value));
	for (unsigned i = 901; i < 941; i++) {
		char key[16];
		key_of(key, i);
		(void)fixture_set(&f, key, 7, "after", 5);
	}
	applied(&f);
	memset(record_of(&f, 900) + 8, 0, 8);
	plan_again(&after, &f, UINT64_MAX);
	ok(after.result == 0 && after.plan.keys == KEYS + 40 && after.plan.bad_count == 1 &&
		   after.plan.bad[0].count == 1,
	   "H: what looks like a record and has a version that cannot stand there is none");
	forget(&after);
	fixture_close(&f);
}

// What a RENAME leaves that was cut between its two keys: both name the run, in either order.
static void test_renamed_run(void)
{
	struct fixture f;
	struct kvs_record_view view[2];
	uint64_t offset[2];
	fixture_open(&f, MEMORY, SEGMENT);
	struct kvs_run run = { .offset = f.region.map.ranges[KVS_RANGE_LARGE].offset };
	for (unsigned i = 0; i < 2; i++) {
		struct kvs_record_spec spec = { .key = i == 0 ? "from" : "to",
						.key_bytes = i == 0 ? 4 : 2,
						.payload = &run,
						.payload_bytes = sizeof(run),
						.value_bytes = SEGMENT,
						.seq = i + 1,
						.flags = KVS_RECORD_LARGE };
		uint32_t bytes = (uint32_t)kvs_record_bytes(spec.key_bytes, sizeof(run), 0);
		ok_int(kvs_log_secure(&f.log, bytes, bytes, 0), 0, "room");
		void *at = kvs_log_append(&f.log, bytes, &offset[i]);
		(void)kvs_record_write(at, &spec);
		ok_int(kvs_record_parse(at, bytes, &view[i]), 0, "a record of a large value");
	}
	for (unsigned first = 0; first < 2; first++) {
		struct kvs_adopt plan = { .region = &f.region };
		ok(kvs_adopt_note_run(&plan, &view[first], true) &&
			   kvs_adopt_note_run(&plan, &view[1 - first], true) &&
			   kvs_adopt_plan_large(&plan) == 0 && plan.runs_count == 1,
		   "one value");
		ok_u64(plan.runs[0].references, 2, "with two keys");
		ok_u64(plan.runs[0].record, offset[1],
		       "H: the newer one is where it is looked for");
		free(plan.runs);
	}
	fixture_close(&f);
}

int main(void)
{
	passed_over(KEYS - 20, 1, SPOIL_VALUE, "a value that is not what was written");
	passed_over(KEYS - 20, 1, SPOIL_SEQ, "a record without its version");
	passed_over(KEYS - 20, 1, SPOIL_LENGTH, "one without its length");
	passed_over(KEYS - 20, 3, SPOIL_ALL, "three in a row");
	passed_over(KEYS - 1, 1, SPOIL_ALL, "the last one");
	test_bad_tail();
	test_false_record();
	test_renamed_run();
	test_whole();
	test_batches();
	test_leftovers();
	test_refusals();
	test_mapping();
	return tap_done();
}

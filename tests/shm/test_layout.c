// SPDX-License-Identifier: MIT
//
// shm/layout.h against layout.golden, the list of sizes and offsets that clients in the field were
// built with. Whoever changes the layout on purpose raises KVS_LAYOUT_VERSION and puts the new
// list, which `test_layout --print` writes, into the tree; whoever changes it by accident meets
// this test.
#include "shm/layout.h"

#include <stddef.h>

#include "shm/hash.h"
#include "shm/record.h"
#include "tests/tap/tap.h"

struct fact {
	const char *name;
	uint64_t value;
};

#define SIZE(type)                                   \
	{                                            \
		"sizeof " #type, sizeof(struct type) \
	}
#define AT(type, field)                                        \
	{                                                      \
#type "." #field, offsetof(struct type, field) \
	}
#define VALUE(name)                     \
	{                               \
#name, (uint64_t)(name) \
	}

static const struct fact facts[] = {
	VALUE(KVS_LAYOUT_VERSION),
	SIZE(kvs_region_header),
	AT(kvs_region_header, marker),
	AT(kvs_region_header, layout_version),
	AT(kvs_region_header, fingerprint),
	AT(kvs_region_header, lifecycle),
	AT(kvs_region_header, flags),
	AT(kvs_region_header, instance_id),
	AT(kvs_region_header, region_bytes),
	AT(kvs_region_header, hash_kind),
	AT(kvs_region_header, hot),
	AT(kvs_region_header, marks),
	AT(kvs_region_header, ready),
	AT(kvs_region_header, ranges),
	AT(kvs_region_header, segment_bytes),
	AT(kvs_region_header, segments_count_max),
	AT(kvs_region_header, segment_directory_offset),
	AT(kvs_region_header, segment_chain_head),
	AT(kvs_region_header, adoptions),
	AT(kvs_region_header, overflow_fresh),
	AT(kvs_region_header, segment_survivor),
	AT(kvs_region_header, generation),
	AT(kvs_region_header, hash_sides),
	SIZE(kvs_hash_side),
	AT(kvs_hash_side, key),
	AT(kvs_hash_side, generation),
	VALUE(KVS_HASH_XXH3),
	VALUE(KVS_HASH_SIPHASH),
	SIZE(kvs_adoptions),
	AT(kvs_adoptions, hold_epoch),
	AT(kvs_adoptions, hold_since_ns),
	SIZE(kvs_hot),
	AT(kvs_hot, epoch_word),
	AT(kvs_hot, incarnation),
	AT(kvs_hot, oldest_valid),
	AT(kvs_hot, table_root),
	AT(kvs_hot, writer),
	SIZE(kvs_watermarks),
	AT(kvs_watermarks, applied_seq),
	AT(kvs_watermarks, durable_seq),
	AT(kvs_watermarks, last_removal_seq),
	AT(kvs_watermarks, flush_seq),
	AT(kvs_watermarks, notify),
	SIZE(kvs_range_bounds),
	SIZE(kvs_segment_entry),
	AT(kvs_segment_entry, state),
	AT(kvs_segment_entry, first_seq),
	AT(kvs_segment_entry, previous_head),
	AT(kvs_segment_entry, used_bytes),
	AT(kvs_segment_entry, retired_epoch),
	SIZE(kvs_bucket),
	AT(kvs_bucket, entry),
	AT(kvs_bucket, overflow),
	SIZE(kvs_reader_page),
	SIZE(kvs_page_header),
	AT(kvs_page_header, state),
	AT(kvs_page_header, readers_count),
	SIZE(kvs_slot),
	AT(kvs_slot, word),
	AT(kvs_slot, revoked_upto),
	AT(kvs_slot, hits),
	AT(kvs_slot, misses),
	AT(kvs_slot, thread_id),
	AT(kvs_slot, sample_count),
	AT(kvs_slot, samples),
	SIZE(kvs_record),
	AT(kvs_record, crc),
	AT(kvs_record, value_bytes),
	AT(kvs_record, seq_flags),
	AT(kvs_record, time_key),
	AT(kvs_record, place),
	SIZE(kvs_run),
	VALUE(KVS_RANGES_COUNT),
	VALUE(KVS_RANGE_TABLE_0),
	VALUE(KVS_RANGE_OVERFLOW_0),
	VALUE(KVS_RANGE_LOG),
	VALUE(KVS_RANGE_LARGE),
	VALUE(KVS_COUNTERS_OFFSET),
	VALUE(KVS_ENTRY_VALUE),
	VALUE(KVS_ENTRY_TOMBSTONE),
	VALUE(KVS_ENTRY_STUB),
	VALUE(KVS_ENTRY_LARGE),
	VALUE(KVS_ENTRY_LOCATION_BITS),
	VALUE(KVS_ROOT_BUCKETS_BITS),
	VALUE(KVS_ROOT_SIDE_SHIFT),
	VALUE(KVS_ROOT_TURNS_SHIFT),
	VALUE(KVS_EPOCH_SHIFT),
	VALUE(KVS_SEQ_BITS),
	VALUE(KVS_TIME_BITS),
	VALUE(KVS_TIME_ORIGIN_MS),
	VALUE(KVS_WRITER_BITS),
	VALUE(KVS_PLACE_OFFSET_BITS),
	VALUE(KVS_RECORD_MORE),
	VALUE(KVS_RECORD_EXPIRY),
	VALUE(KVS_RECORD_TOMBSTONE),
	VALUE(KVS_RECORD_STUB),
	VALUE(KVS_RECORD_LARGE),
	VALUE(KVS_RECORD_FLUSH),
};
#define FACTS (sizeof(facts) / sizeof(facts[0]))

static void test_golden(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[128], expected[128];
	unsigned count = 0;
	if (!ok(file != NULL, "layout.golden can be read")) {
		return;
	}
	while (fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '#') {
			continue;
		}
		if (count >= FACTS) {
			ok(false, "golden line without a fact: %s", line);
			continue;
		}
		(void)snprintf(expected, sizeof(expected), "%s %" PRIu64, facts[count].name,
			       facts[count].value);
		ok_str(expected, line, "%s", facts[count].name);
		count++;
	}
	fclose(file);
	ok_u64(count, FACTS, "every fact has its golden line");
}

static void test_words(uint64_t *random)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < 100000; i++) {
		uint64_t hash = tap_random(random);
		uint64_t offset = (tap_random(random) & KVS_ENTRY_LOCATION_MASK) * 8;
		uint64_t bytes = tap_random(random) % 10000;
		enum kvs_entry_kind kind = (enum kvs_entry_kind)(1 + tap_random(random) % 4);
		uint64_t entry = kvs_entry_make(hash, kind, bytes, offset);
		uint64_t lines = (bytes + 63) / 64;
		lines = lines > KVS_ENTRY_LINES_MAX ? KVS_ENTRY_LINES_MAX : lines;
		wrong += kvs_entry_offset(entry) != offset || kvs_entry_kind(entry) != kind ||
			 kvs_entry_lines(entry) != lines || !kvs_entry_tag_matches(entry, hash) ||
			 kvs_entry_tag_matches(entry, hash ^ UINT64_C(1) << 48);
	}
	ok_u64(wrong, 0, "entry words: tag, kind, lines and location come back");
	wrong = 0;
	for (unsigned i = 0; i < 100000; i++) {
		uint64_t buckets = tap_random(random) & KVS_ROOT_BUCKETS_MASK;
		uint64_t turns = tap_random(random) >> KVS_ROOT_TURNS_SHIFT;
		unsigned side = tap_random(random) & 1;
		uint64_t root = kvs_root_make(turns, side, buckets);
		wrong += kvs_root_buckets(root) != buckets || kvs_root_side(root) != side ||
			 kvs_root_turns(root) != turns;
	}
	ok_u64(wrong, 0, "root words: turns, side and buckets come back");
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--print") == 0) {
		printf("# Sizes and offsets of the mapped structures; see test_layout.c.\n");
		for (unsigned i = 0; i < FACTS; i++) {
			printf("%s %" PRIu64 "\n", facts[i].name, facts[i].value);
		}
		return 0;
	}
	uint64_t random = tap_seed(5);
	test_golden(argc == 2 ? argv[1] : "layout.golden");
	test_words(&random);
	ok(kvs_layout_fingerprint() == kvs_layout_fingerprint(), "the fingerprint is a constant");
	return tap_done();
}

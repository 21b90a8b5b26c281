// SPDX-License-Identifier: MIT
//
// Fuzz target for everything that walks a region: the input is a list of pokes into table, overflow
// buckets, log, large runs, root and hash keys, some of them well-formed records with their
// entries, so that damage is met deep inside. Afterwards a client's map of it is searched, scanned
// and loaded: every answer must lie within what is published, and whatever is beyond is
// inaccessible.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shm/epoch_scan.h"
#include "shm/hash.h"
#include "shm/region.h"
#include "shm/table_quick.h"
#include "shm/table_write.h"

#define SEGMENT_BYTES KVS_SEGMENT_BYTES_MIN
#define POKES_MAX 256u
#define POKE_BYTES 11u // kind 1, where 2, word 8
#define SCAN_STEPS 40u
#define LARGE_BYTES 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static struct kvs_region region;
static struct kvs_epoch_domain epochs;
static struct kvs_limbo limbo;
static struct kvs_table table;
static struct kvs_map map; // a client's

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

static void publish_some(enum kvs_range range, uint64_t bytes)
{
	require(kvs_region_populate(&region, region.map.ranges[range].offset, bytes) == 0);
	kvs_region_publish(&region, range, bytes);
}

static void open_region(void)
{
	const struct kvs_region_options options = { .memory_bytes = KVS_MEMORY_BYTES_MIN,
						    .memory_bytes_max = KVS_MEMORY_BYTES_MIN,
						    .segment_bytes = SEGMENT_BYTES };
	require(kvs_region_create(&region, &options) == KVS_REGION_OK);
	kvs_epoch_init(&epochs, &region.header->hot, true);
	require(kvs_limbo_init(&limbo));
	require(kvs_table_init(&table, &region, &epochs, &limbo) == 0);
	require(kvs_table_secure(&table, 1) == 0);
	publish_some(KVS_RANGE_LOG, SEGMENT_BYTES);
	publish_some(KVS_RANGE_LARGE, LARGE_BYTES);
	kvs_region_go_alive(&region);
	require(kvs_map_open(&map, region.fd_readonly) == KVS_MAP_OK);
}

struct poke {
	uint64_t *at;
	uint64_t before;
};

static struct poke undo[POKES_MAX * 8];
static unsigned undo_count;

static void put_word(uint64_t *at, uint64_t word)
{
	undo[undo_count++] = (struct poke){ .at = at, .before = *at };
	*at = word;
}

static uint64_t *word_of(enum kvs_range range, uint64_t index)
{
	uint64_t words = map.ready[range] / 8;
	uint64_t *start = (uint64_t *)(void *)(region.base + region.map.ranges[range].offset);
	return start + index % words;
}

// The key that `number` stands for, one of eight.
static void key_of(unsigned number, char key[2])
{
	key[0] = (char)('a' + number % 8);
	key[1] = '\0';
}

// A record of a key at a place of the log, perhaps with odd flags and lengths, and an entry that
// names it.
static void put_record(uint16_t where, uint64_t word)
{
	unsigned char bytes[128];
	char key[2];
	key_of((unsigned)word, key);
	struct kvs_run run = { .offset = region.map.ranges[KVS_RANGE_LARGE].offset + (word >> 48),
			       .crc = 0 };
	uint16_t flags = (uint16_t)(word >> 8) & 0x3ff;
	struct kvs_record_spec spec = { .key = key,
					.key_bytes = 1,
					.payload = &run,
					.payload_bytes = sizeof(run),
					.value_bytes = (uint32_t)(word >> 20) & 0x3ffff,
					.seq = 1 + (word >> 32 & 0xff),
					.expiry_ms = word >> 60,
					.flags = flags };
	uint32_t length = kvs_record_write(bytes, &spec);
	uint64_t first = where % (SEGMENT_BYTES / 8);
	for (uint32_t i = 0; i < length / 8 && first + i < SEGMENT_BYTES / 8; i++) {
		uint64_t part;
		memcpy(&part, bytes + (size_t)i * 8, 8);
		put_word(word_of(KVS_RANGE_LOG, first + i), part);
	}
	uint64_t hash = kvs_map_hash(&map, key, 1);
	uint64_t bucket = kvs_bucket_index(hash, table.buckets);
	uint64_t offset = region.map.ranges[KVS_RANGE_LOG].offset + first * 8;
	put_word(word_of(KVS_RANGE_TABLE_0, bucket * 8 + (word >> 16) % 7),
		 kvs_entry_make(hash, (enum kvs_entry_kind)(word >> 18 & 7), length, offset));
}

// A link or an entry in the chain of one of the keys.
static void put_in_chain(uint16_t where, uint64_t word)
{
	char key[2];
	key_of(where, key);
	uint64_t hash = kvs_map_hash(&map, key, 1);
	uint64_t bucket = kvs_bucket_index(hash, table.buckets);
	uint64_t tagged = (hash & ~((UINT64_C(1) << 48) - 1)) | (word & ((UINT64_C(1) << 48) - 1));
	put_word(word_of(KVS_RANGE_TABLE_0, bucket * 8 + (where >> 3) % 8),
		 (where >> 3) % 8 == 7 ? word % 2048 : tagged);
}

static void poke(const uint8_t *data)
{
	uint16_t where;
	uint64_t word;
	memcpy(&where, data + 1, sizeof(where));
	memcpy(&word, data + 3, sizeof(word));
	switch (data[0] % 6) {
	case 0:
		put_in_chain(where, word);
		break;
	case 1:
		put_word(word_of(KVS_RANGE_OVERFLOW_0, where), word);
		break;
	case 2:
		put_word(word_of(KVS_RANGE_LOG, where), word);
		break;
	case 3:
		if (where % 4 == 3) { // of each side: its hash key and generation
			put_word(&region.header->hash_sides[where >> 2 & 1].key[where >> 3 & 1],
				 word);
			break;
		}
		put_word(&region.header->hot.table_root, word);
		break;
	default:
		put_record(where, word);
		break;
	}
}

static void check_bounds(const struct kvs_hit *hit)
{
	const unsigned char *log = map.base + map.ranges[KVS_RANGE_LOG].offset;
	const unsigned char *end = log + map.ready[KVS_RANGE_LOG];
	const unsigned char *record = (const unsigned char *)hit->view.record;
	require(record >= log && hit->view.record_bytes <= (size_t)(end - record));
	require(hit->view.key >= record && hit->view.key + hit->view.key_bytes <= end);
	require(hit->view.payload + hit->view.payload_bytes <= end);
	(void)kvs_record_crc_ok(&hit->view);
	if (hit->value != NULL && hit->view.value_bytes > 0) {
		static volatile unsigned char sink;
		sink = hit->value[0];
		sink = hit->value[hit->view.value_bytes - 1];
		(void)sink;
	}
}

// The quick way believes no more than the thorough one.
static void check_quick(const char *key, uint64_t hash)
{
	struct kvs_quick_aim aim;
	struct kvs_quick quick;
	kvs_quick_aim_clear(&aim);
	const struct kvs_hot *hot = &kvs_map_header(&map)->hot;
	bool found = kvs_table_quick(hot, &aim, hash, key, 1, false, &quick);
	if (!found && kvs_quick_aim(&map, &aim)) {
		found = kvs_table_quick(hot, &aim, hash, key, 1, false, &quick);
	}
	if (found) {
		const unsigned char *log = map.base + map.ranges[KVS_RANGE_LOG].offset;
		const unsigned char *end = log + map.ready[KVS_RANGE_LOG];
		require(quick.value > log && quick.value_bytes <= (size_t)(end - quick.value));
		require(quick.value[-1] == (unsigned char)key[0]);
	}
}

static void visit(void *context, uint64_t entry)
{
	struct kvs_hit hit;
	(void)context;
	if (kvs_table_load(&map, entry, &hit) == KVS_FIND_HIT) {
		check_bounds(&hit);
	}
}

static void walk(void)
{
	for (unsigned i = 0; i < 8; i++) {
		char key[2];
		struct kvs_hit hit;
		key_of(i, key);
		uint64_t hash = kvs_map_hash(&map, key, 1);
		kvs_table_prefetch_bucket(&map, hash);
		kvs_table_prefetch_record(&map, hash);
		if (kvs_table_find(&map, hash, key, 1, &hit) == KVS_FIND_HIT) {
			require(hit.view.key_bytes == 1 &&
				hit.view.key[0] == (unsigned char)key[0]);
			check_bounds(&hit);
		}
		check_quick(key, hash);
	}
	uint64_t cursor = 0;
	for (unsigned i = 0; i < SCAN_STEPS; i++) {
		cursor = kvs_table_scan(&map, cursor, visit, NULL);
		if (cursor == 0) {
			break;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (map.base == NULL) {
		open_region();
	}
	undo_count = 0;
	for (unsigned i = 0;
	     i < POKES_MAX && bytes >= POKE_BYTES && undo_count + 24 < POKES_MAX * 8; i++) {
		poke(data);
		data += POKE_BYTES;
		bytes -= POKE_BYTES;
	}
	walk();
	while (undo_count > 0) {
		undo_count--;
		*undo[undo_count].at = undo[undo_count].before;
	}
	return 0;
}

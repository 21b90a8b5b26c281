// SPDX-License-Identifier: MIT
//
// Recovery where memory is short (E, G): what one life had room for, the next one loads, in
// whatever order it stands in the store and however badly it packs; versions that end further on
// in the store are in nobody's way. Beyond the bound, what grows is refused, what shrinks is not,
// and one restart after the other lets nothing more in. What cannot have been accepted is refused.
// Whether a value is large is decided anew, whatever it was in the life that wrote it.
#include "shm/crc32c.h"
#include "tests/daemon/keyspace_fixture.h"

#define SEGMENT FIXTURE_SEGMENT_BYTES
#define SEGMENTS 32u
#define MEMORY ((uint64_t)SEGMENTS * SEGMENT)
#define LARGE_BYTES (100u << 10) // two segments
#define VALUE_BYTES_MAX (4u * SEGMENT)
#define SCRIPT_MAX 8192u

enum kind { VALUE, REMOVAL, FLUSH };

// The store: its records in the order in which they stand there.
struct script {
	struct {
		enum kind kind;
		unsigned key;
		uint32_t value_bytes;
		uint64_t expiry_ms;
		uint32_t segment_bytes; // of the life that wrote it, 0 = this one's
	} records[SCRIPT_MAX];
	unsigned count;
};

static void add(struct script *script, enum kind kind, unsigned key, uint32_t value_bytes)
{
	if (script->count < SCRIPT_MAX) {
		script->records[script->count].kind = kind;
		script->records[script->count].key = key;
		script->records[script->count].expiry_ms = 0;
		script->records[script->count].segment_bytes = 0;
		script->records[script->count++].value_bytes = value_bytes;
	}
}

// The value of a record of exactly so many bytes.
static uint32_t value_for(uint32_t record_bytes)
{
	return record_bytes - (uint32_t)kvs_record_bytes(8, 0, 0);
}

// Hands in record `index`; its seq is its place in the script.
static int hand_in(struct keyspace *keyspace, const struct script *script, unsigned index,
		   bool as_index)
{
	static _Alignas(8) unsigned char bytes[VALUE_BYTES_MAX + SEGMENT];
	static unsigned char value[VALUE_BYTES_MAX];
	uint32_t value_bytes = script->records[index].value_bytes;
	uint32_t segment_bytes = script->records[index].segment_bytes;
	bool large = value_bytes > (segment_bytes > 0 ? segment_bytes : SEGMENT) / 4;
	char key[16];
	memset(value, (int)index, value_bytes);
	struct kvs_run run = { .offset = 0, .crc = kvs_crc32c(0, value, value_bytes) };
	struct kvs_record_spec spec = {
		.key = key,
		.payload = large ? (const void *)&run : value,
		.payload_bytes = large ? (uint32_t)sizeof(run) : value_bytes,
		.value_bytes = value_bytes,
		.seq = index + 1,
		.time_ms = fixture_wall_ms,
		.expiry_ms = script->records[index].expiry_ms,
		.flags = large ? KVS_RECORD_LARGE : 0,
	};
	(void)snprintf(key, sizeof(key), "%08u", script->records[index].key);
	spec.key_bytes = script->records[index].kind == FLUSH ? 0 : 8;
	if (script->records[index].kind != VALUE) {
		spec.flags |= script->records[index].kind == FLUSH ? KVS_RECORD_FLUSH
								   : KVS_RECORD_TOMBSTONE;
	}
	struct kvs_record_view view;
	uint32_t length = kvs_record_write(bytes, &spec);
	if (kvs_record_parse(bytes, length, &view) != 0) {
		return -1;
	}
	return as_index ? keyspace_recover_index(keyspace, &view)
			: keyspace_recover_record(keyspace, &view, large ? value : NULL, 0);
}

static int read_all(struct keyspace *keyspace, const struct script *script, bool as_index)
{
	int result = KEYSPACE_OK;
	for (unsigned i = 0; i < script->count && result == KEYSPACE_OK; i++) {
		result = hand_in(keyspace, script, i, as_index);
	}
	return result;
}

// As daemon/service_recover.c does. Returns how many readings it took.
static unsigned recover(struct fixture *f, const struct script *script)
{
	fixture_begin(f, true, 21, MEMORY, false);
	unsigned readings = 1;
	int result = read_all(f->keyspace, script, false);
	if (result == KEYSPACE_FULL) {
		readings = 2;
		ok_int(read_all(f->keyspace, script, true), KEYSPACE_OK, "index");
		keyspace_recover_thin(f->keyspace);
		result = read_all(f->keyspace, script, false);
	}
	ok_int(result, KEYSPACE_OK, "read (%u times)", readings);
	return readings;
}

static bool is_there(struct fixture *f, unsigned index, size_t value_bytes)
{
	char key[16];
	struct keyspace_value value;
	(void)snprintf(key, sizeof(key), "%08u", index);
	return keyspace_get(f->keyspace, key, 8, &value) == KEYSPACE_OK &&
	       value.value_bytes == value_bytes;
}

static int set_one(struct fixture *f, unsigned index, size_t value_bytes)
{
	static unsigned char value[SEGMENT];
	char key[16];
	int result = KEYSPACE_WAIT;
	(void)snprintf(key, sizeof(key), "%08u", index);
	for (unsigned i = 0; i < 50 && result == KEYSPACE_WAIT; i++) {
		result = keyspace_set(f->keyspace, key, 8, value, value_bytes, 0, NULL);
		fixture_durable(f);
	}
	return result;
}

// Every current value of the script is there, and nothing else.
static void check_current(struct fixture *f, const struct script *script, unsigned keys)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < script->count; i++) {
		bool current = script->records[i].kind == VALUE;
		for (unsigned j = i + 1; j < script->count && current; j++) {
			current = script->records[j].kind != FLUSH &&
				  script->records[j].key != script->records[i].key;
		}
		wrong += current &&
			 !is_there(f, script->records[i].key, script->records[i].value_bytes);
	}
	ok_u64(wrong, 0, "E: every key has its newest value");
	ok_u64(keyspace_count(f->keyspace), keys, "E: and there are no others");
	ok(f->region.large_bytes + ((uint64_t)f->keyspace->log.full_count << 16) < MEMORY,
	   "G: within the bound");
}

static void test_large(void)
{
	static struct script script;
	struct fixture f;
	script.count = 0;
	for (unsigned i = 0; i < 12; i++) {
		add(&script, VALUE, i, LARGE_BYTES);
	}
	add(&script, FLUSH, 0, 0);
	for (unsigned i = 12; i < 24; i++) {
		add(&script, VALUE, i, LARGE_BYTES);
	}
	ok_u64(recover(&f, &script), 1, "large values behind FLUSHALL");
	fixture_serve(&f, script.count);
	check_current(&f, &script, 12);
	fixture_close(&f);

	script.count = 0;
	for (unsigned i = 0; i < 3000; i++) {
		add(&script, VALUE, i % 1400, 900);
	}
	for (unsigned i = 0; i < 3; i++) {
		add(&script, VALUE, 5000 + i, LARGE_BYTES);
	}
	ok_u64(recover(&f, &script), 1, "large values behind small ones that were overwritten");
	fixture_serve(&f, script.count);
	check_current(&f, &script, 1403);
	fixture_close(&f);
}

// 24 segments of keys that end at the store's end, another 24 between.
static void test_ends_later(void)
{
	static struct script script;
	struct fixture f;
	script.count = 0;
	for (unsigned i = 0; i < 1500; i++) {
		add(&script, VALUE, i, 900);
	}
	for (unsigned i = 0; i < 10; i++) {
		add(&script, VALUE, 9000 + i, LARGE_BYTES);
	}
	for (unsigned i = 0; i < 1500; i++) {
		add(&script, i % 2 ? VALUE : REMOVAL, i, 1);
	}
	ok_u64(recover(&f, &script), 2, "what is in the way ends further on");
	ok_u64(keyspace_recover_left(f.keyspace), 0, "all of it is loaded");
	fixture_serve(&f, script.count);
	ok(keyspace_last_seq(f.keyspace) > script.count + MEMORY / sizeof(struct kvs_record),
	   "A: no version is handed out again that the life before may have");
	check_current(&f, &script, 760);
	ok(!keyspace_is_over_bound(f.keyspace), "G: nothing was exceeded");
	ok_int(set_one(&f, 1, 900), KEYSPACE_OK, "writing goes on");
	fixture_close(&f);
}

// Full segments of four records of a fifth and one that just fits behind them, in an order in which
// four of five large ones find no such companion.
static void pack_badly(struct script *script, unsigned segments, uint64_t expiry_ms)
{
	uint32_t more = SEGMENT / 5 / 8 * 8 + 64;
	uint32_t less = SEGMENT - 4 * more;
	script->count = 0;
	for (unsigned i = 0; i < segments; i++) {
		add(script, VALUE, i, value_for(less));
	}
	for (unsigned i = 0; i < 4 * segments; i++) {
		add(script, VALUE, 1000 + i, value_for(more));
	}
	for (unsigned i = 0; i < script->count; i++) {
		script->records[i].expiry_ms = expiry_ms;
		script->records[i].value_bytes -= expiry_ms != 0 ? 8u : 0u;
	}
}

static void test_bad_packing(void)
{
	static struct script script;
	struct fixture f;
	const unsigned segments = SEGMENTS - 6;
	pack_badly(&script, segments, 0);
	ok_u64(recover(&f, &script), 2, "G: what filled %u segments needs more", segments);
	ok_u64(keyspace_recover_left(f.keyspace), 0, "E: and is loaded all the same");
	fixture_serve(&f, script.count);
	ok_u64(keyspace_count(f.keyspace), 5u * segments, "E: all keys");
	ok(keyspace_is_over_bound(f.keyspace), "the bound is exceeded");
	ok(f.region.memory_bytes < MEMORY + MEMORY / 3, "by less than a third");
	ok_int(set_one(&f, 77777, 1), KEYSPACE_FULL, "a new key is refused, however small");
	ok_int(set_one(&f, 0, 1), KEYSPACE_FULL, "as is a new value of an old one");
	ok_int(keyspace_expire(f.keyspace, "00001001", 8, fixture_wall_ms + 100000), KEYSPACE_OK,
	       "a changed time to live is not");
	keyspace_batch_begin(f.keyspace);
	(void)keyspace_rename_copy(f.keyspace, "00001002", 8, "a much longer name", 18);
	(void)keyspace_delete(f.keyspace, "00001002", 8);
	ok(keyspace_batch_commit(f.keyspace) != KEYSPACE_OK, "a longer name is");
	unsigned removed = 0;
	while (keyspace_is_over_bound(f.keyspace) && removed < 4 * segments) {
		char key[16];
		(void)snprintf(key, sizeof(key), "%08u", 1000 + removed++);
		int result = keyspace_delete(f.keyspace, key, 8);
		if (result != KEYSPACE_OK) {
			break;
		}
		fixture_durable(&f);
		fixture_durable(&f);
	}
	ok(!keyspace_is_over_bound(f.keyspace), "removals bring it back (%u of %u)", removed,
	   4 * segments);
	ok_u64(f.region.memory_bytes, MEMORY, "to what was configured");
	ok_int(set_one(&f, 77777, 1), KEYSPACE_OK, "then writing goes on");
	fixture_close(&f);
}

static void test_too_much(void)
{
	static struct script script;
	struct fixture f;
	pack_badly(&script, SEGMENTS + SEGMENTS / 2, 0);
	(void)recover(&f, &script);
	uint64_t left = keyspace_recover_left(f.keyspace);
	ok(left > 0, "G: half as much again as the memory bound is refused");
	ok_u64(keyspace_live_bytes(f.keyspace) + left, (uint64_t)(SEGMENTS * 3 / 2) * SEGMENT,
	       "and it is known how much there is");
	fixture_close(&f);
	pack_badly(&script, SEGMENTS + SEGMENTS / 5, 0);
	(void)recover(&f, &script);
	ok_u64(keyspace_recover_left(f.keyspace), 0,
	       "G: a fifth more, as EXPIRE may have added, "
	       "is loaded, however it packs");
	fixture_serve(&f, script.count);
	ok_u64(keyspace_count(f.keyspace), script.count, "E: all keys");
	fixture_close(&f);
}

// A record that may stand in one segment of this life, and is what was written.
static bool is_sound(struct fixture *f, unsigned index, uint32_t value_bytes)
{
	char key[16];
	struct kvs_hit hit;
	(void)snprintf(key, sizeof(key), "%08u", index);
	uint64_t hash = keyspace_hash(f->keyspace, key, 8);
	if (keyspace_find(f->keyspace, hash, key, 8, &hit) != KVS_FIND_HIT) {
		return false;
	}
	bool large = value_bytes > SEGMENT / 4;
	const unsigned char *value = hit.value;
	bool same = hit.view.value_bytes == value_bytes && hit.view.seq == index + 1 &&
		    hit.view.expiry_ms == (index % 2 ? fixture_wall_ms + 1000000 : 0) &&
		    kvs_record_time_ms(hit.view.record) == fixture_wall_ms;
	for (uint32_t i = 0; i < value_bytes && same; i++) {
		same = value[i] == (unsigned char)index;
	}
	return same && kvs_record_crc_ok(&hit.view) &&
	       large == ((hit.view.flags & KVS_RECORD_LARGE) != 0) &&
	       large == (hit.kind == KVS_ENTRY_LARGE) &&
	       (!large || kvs_record_run(&hit.view).crc == kvs_crc32c(0, value, value_bytes));
}

// Everything is counted as if this life had written it, or removing it would leave something.
static void check_counts(struct fixture *f, unsigned keys)
{
	for (unsigned i = 0; i < keys; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "%08u", i);
		(void)keyspace_delete(f->keyspace, key, 8);
		fixture_durable(f);
	}
	for (unsigned i = 0; i < 20; i++) {
		fixture_durable(f);
	}
	ok_u64(keyspace_count(f->keyspace), 0, "G: all of them can be removed");
	ok_u64(keyspace_live_bytes(f->keyspace), 0, "G: which leaves no live bytes");
	ok_u64(f->keyspace->owners[0].bytes, 0, "G: nor any that somebody owns");
	ok_u64(f->region.large_bytes, 0, "G: nor large values");
}

static void test_other_segments(uint32_t segment_bytes, const char *name)
{
	static struct script script;
	static const uint32_t sizes[] = { 0,
					  1,
					  SEGMENT / 16,
					  SEGMENT / 16 + 1,
					  SEGMENT / 4 - 1,
					  SEGMENT / 4,
					  SEGMENT / 4 + 1,
					  SEGMENT - 64,
					  SEGMENT - 40,
					  SEGMENT,
					  SEGMENT + 1,
					  2 * SEGMENT + 4097,
					  VALUE_BYTES_MAX };
	const unsigned count = sizeof(sizes) / sizeof(sizes[0]);
	struct fixture f;
	unsigned wrong = 0;
	script.count = 0;
	for (unsigned i = 0; i < 2 * count; i++) {
		add(&script, VALUE, i, sizes[i % count]);
		script.records[i].segment_bytes = segment_bytes;
		script.records[i].expiry_ms = i % 2 ? fixture_wall_ms + 1000000 : 0;
	}
	ok_u64(recover(&f, &script), 1, "%s", name);
	fixture_serve(&f, script.count);
	for (unsigned i = 0; i < script.count; i++) {
		wrong += !is_sound(&f, i, script.records[i].value_bytes);
	}
	ok_u64(wrong, 0, "E: %s: every value is whole, and where this life looks for it", name);
	check_counts(&f, script.count);
	fixture_close(&f);
}

// A large value, and its record, with their checksums.
static bool is_whole(struct fixture *f, unsigned number, uint32_t value_bytes)
{
	char key[16];
	struct kvs_hit hit;
	(void)snprintf(key, sizeof(key), "%08u", number);
	uint64_t hash = keyspace_hash(f->keyspace, key, 8);
	return keyspace_find(f->keyspace, hash, key, 8, &hit) == KVS_FIND_HIT &&
	       hit.view.value_bytes == value_bytes && kvs_record_crc_ok(&hit.view) &&
	       kvs_record_run(&hit.view).crc == kvs_crc32c(0, hit.value, value_bytes);
}

// Values that came before and stay lie so that no gap of their range is as long as the last one.
static void test_scattered(void)
{
	static struct script script;
	struct fixture f;
	const uint32_t small = 20000;
	const unsigned each = 12; // so many small ones are longer than the last
	unsigned runs = 2 * MEMORY / (5 * KVS_PAGE_BYTES), wrong = 0;
	script.count = 0;
	for (unsigned i = 0; i < runs + 40; i++) {
		if (i < runs) {
			add(&script, VALUE, i, small);
		}
		if (i >= 40 && (i - 40) % each != 0 && i - 39 != runs) {
			add(&script, VALUE, i - 40, 10);
		}
	}
	add(&script, VALUE, runs, VALUE_BYTES_MAX);
	ok_u64(recover(&f, &script), 1, "E: where values lie scattered all are loaded");
	fixture_serve(&f, script.count);
	for (unsigned i = 0; i < runs; i += each) {
		wrong += !is_whole(&f, i, small);
	}
	ok(is_whole(&f, runs, VALUE_BYTES_MAX), "E: the longest is there");
	ok_u64(wrong, 0, "E: and so are those that were in its way");
	ok(*kvs_counter_word(f.region.base, KVS_COUNTER_large_moved) > 0, "which were moved");
	check_counts(&f, script.count);
	fixture_close(&f);
}

int main(void)
{
	test_scattered();
	test_other_segments(SEGMENT, "records of a life with the same segments");
	test_other_segments(16 * SEGMENT, "records of a life with larger segments");
	test_other_segments(SEGMENT / 4, "records of a life with smaller segments");
	test_large();
	test_ends_later();
	test_bad_packing();
	test_too_much();
	return tap_done();
}

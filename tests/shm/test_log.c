// SPDX-License-Identifier: MIT
//
// shm/log.c: appending and following. The follower sees every published record once, in seq order,
// across segments, and nothing that was not published; a batch is vouched for as a whole or not at
// all.
#include "shm/log.h"

#include <errno.h>

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN

static bool append(struct kvs_log *log, uint32_t value_bytes, uint16_t flags)
{
	static unsigned char value[SEGMENT];
	uint64_t bytes = kvs_record_bytes(8, value_bytes, 0), offset;
	if (kvs_log_secure(log, bytes, bytes, 0) != 0) {
		return false;
	}
	struct kvs_record_spec spec = { .key = "12345678",
					.key_bytes = 8,
					.payload = value,
					.payload_bytes = value_bytes,
					.value_bytes = value_bytes,
					.seq = log->next_seq,
					.flags = flags };
	void *at = kvs_log_append(log, (uint32_t)bytes, &offset);
	return at != NULL && kvs_record_write(at, &spec) == bytes;
}

static void test_follow(struct fixture *f, uint64_t *random)
{
	struct kvs_log *log = &f->log;
	struct kvs_log_position at = kvs_log_published(log);
	struct kvs_record_view view;
	ok(!kvs_log_follow(log, &at, kvs_log_published(log), &view),
	   "nothing published, nothing to follow");
	uint64_t expected = log->next_seq, wrong = 0;
	for (unsigned round = 0; round < 300; round++) {
		unsigned batch = 1 + (unsigned)(tap_random(random) % 20);
		for (unsigned i = 0; i < batch; i++) {
			uint32_t bytes =
				(uint32_t)(tap_random(random) % (round % 50 == 7 ? 15000 : 300));
			wrong += !append(log, bytes, i + 1 < batch ? KVS_RECORD_MORE : 0);
		}
		struct kvs_log_position before = kvs_log_published(log);
		wrong += kvs_log_follow(log, &at, before, &view);
		kvs_log_publish(log);
		if (round % 3 == 0) {
			struct kvs_log_position end = kvs_log_published(log);
			while (kvs_log_follow(log, &at, end, &view)) {
				wrong += view.seq != expected++ || !kvs_record_crc_ok(&view);
			}
		} else {
			struct kvs_log_position end = kvs_log_published(log);
			while (kvs_log_follow(log, &at, end, &view)) {
				wrong += view.seq != expected++;
			}
		}
	}
	ok_u64(wrong, 0, "the follower sees every published record once, in order, and no other");
	ok_u64(expected, log->next_seq, "to the last one");
	ok(log->touched_count > 5, "across %u segments", log->touched_count);
}

static void test_batches(struct fixture *f)
{
	struct kvs_log *log = &f->log;
	uint32_t free_before = kvs_log_segments_free(log);
	uint64_t record = kvs_record_bytes(8, 1000, 0);
	uint64_t too_much = ((uint64_t)free_before + 2) * SEGMENT;
	ok_int(kvs_log_secure(log, too_much, record, 0), -ENOSPC,
	       "I: a batch that does not fit is refused");
	ok_u64(kvs_log_segments_free(log), free_before, "I: and has taken nothing");
	ok_int(kvs_log_secure(log, (uint64_t)2 * SEGMENT, record, free_before), -ENOSPC,
	       "the reserve is kept");
	ok_int(kvs_log_secure(log, SEGMENT + 8, SEGMENT + 8, 0), -ENOSPC,
	       "a record that no segment takes is refused");
	uint64_t batch = (uint64_t)3 * SEGMENT;
	ok_int(kvs_log_secure(log, batch, record, 0), 0, "one of three segments is vouched for");
	unsigned failed = 0;
	for (uint64_t done = 0; done + record <= batch; done += record) {
		uint64_t offset;
		failed += kvs_log_append(log, (uint32_t)record, &offset) == NULL;
		memset(f->region.base + offset, 0, 8);
	}
	ok_u64(failed, 0, "I: and then every append succeeds");
}

static void test_full(void)
{
	struct fixture f;
	fixture_open(&f, KVS_MEMORY_BYTES_MIN, SEGMENT);
	unsigned count = 0;
	while (append(&f.log, 5000, 0)) {
		count++;
	}
	kvs_log_publish(&f.log);
	ok(count > 100, "G: a full log refuses after %u records", count);
	ok_u64(kvs_log_segments_free(&f.log), 0, "no segment is free");
	ok(!append(&f.log, 5000, 0), "and goes on refusing");
	struct kvs_log_position at = { 0 };
	struct kvs_record_view view;
	unsigned followed = 0;
	while (kvs_log_follow(&f.log, &at, kvs_log_published(&f.log), &view)) {
		followed++;
	}
	ok_u64(followed, count, "what is in it can be followed");
	fixture_close(&f);
}

static bool copy(struct kvs_log *log, uint32_t bytes, uint32_t *segment)
{
	uint64_t offset = 0;
	bool good = kvs_log_append_survivor(log, bytes, 1, &offset) != NULL;
	*segment = kvs_log_segment_of(log, offset);
	return good;
}

// What is to fill up ends of survivor segments finds the one in which it fits best.
static void test_survivors(struct fixture *f)
{
	struct kvs_log *log = &f->log;
	const uint32_t rooms[] = { 4096, 1024, 2048 };
	uint32_t segment[3], at = 0;
	unsigned wrong = 0;
	for (unsigned i = 0; i < 3; i++) {
		kvs_log_close_survivor(log);
		wrong += !copy(log, SEGMENT - rooms[i], &segment[i]);
	}
	ok(wrong == 0 && segment[0] != segment[1] && segment[1] != segment[2], "three survivors");
	ok(!kvs_log_reopen_survivor(log, 4104, KVS_SEGMENT_NONE), "none has room for more");
	struct kvs_log_position before = log->survivor;
	ok(!copy(log, SEGMENT + 8, &at) && log->survivor.segment == before.segment &&
		   log->survivor.offset == before.offset,
	   "a record that no segment takes is refused");
	ok(log->survivor.segment == segment[2], "and none was opened");
	ok(kvs_log_reopen_survivor(log, 1024, KVS_SEGMENT_NONE) && copy(log, 1024, &at) &&
		   at == segment[1],
	   "the fullest that has room, filled up");
	ok(kvs_log_reopen_survivor(log, 1024, segment[2]) && copy(log, 1024, &at) &&
		   at == segment[0],
	   "not the one that is excepted");
	ok(kvs_log_reopen_survivor(log, 2048, KVS_SEGMENT_NONE) && copy(log, 2048, &at) &&
		   at == segment[2],
	   "the next");
	uint64_t bound = f->region.memory_bytes;
	f->region.memory_bytes = kvs_log_memory_for(log, 7);
	ok_u64(kvs_log_segments_free(log), 7, "G: the bound under which so many are free");
	f->region.memory_bytes--;
	ok_u64(kvs_log_segments_free(log), 6, "G: and not a byte less");
	f->region.memory_bytes = bound;
}

int main(void)
{
	uint64_t random = tap_seed(13);
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	test_follow(&f, &random);
	test_batches(&f);
	test_survivors(&f);
	fixture_close(&f);
	test_full();
	return tap_done();
}

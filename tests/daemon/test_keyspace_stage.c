// SPDX-License-Identifier: MIT
//
// Large values that are copied in slices: the fixture's clock says after every step that the time
// is over, so that every cut is taken; between two slices the key may change, be removed or
// flushed, the source may be cleaned away, or nobody may ask again.
#include <stdlib.h>
#include <sys/stat.h>

#include "shm/crc32c.h"
#include "tests/daemon/keyspace_fixture.h"

#define BIG_BYTES 1000003u
#define KEY "key", 3

static struct fixture f;
static const uint64_t past_ns; // the time is always over
static char *memory;
static size_t memory_bytes;
static const struct keyspace_slice mine = {
	.owner = 1, .until_ns = &past_ns, .memory = &memory, .memory_bytes = &memory_bytes
};
static const struct keyspace_slice other = {
	.owner = 2, .until_ns = &past_ns, .memory = &memory, .memory_bytes = &memory_bytes
};

static void start(bool persisted)
{
	fixture_open(&f, persisted, 5);
	memory_bytes = BIG_BYTES;
	memory = malloc(memory_bytes);
	for (size_t i = 0; i < memory_bytes; i++) {
		memory[i] = (char)(i * 11 + (i >> 10));
	}
	keyspace_set_slice(f.keyspace, &mine);
}

static void stop(void)
{
	keyspace_stage_drop(f.keyspace, 1);
	keyspace_stage_drop(f.keyspace, 2);
	for (int i = 0; i < 20; i++) {
		(void)keyspace_delete(f.keyspace, KEY);
		fixture_durable(&f);
	}
	ok_u64(f.region.large_bytes, 0, "G: no large memory is left over");
	fixture_close(&f);
	free(memory);
}

static bool is_there(const char *key, const void *value, size_t bytes)
{
	struct keyspace_value got;
	return keyspace_get(f.keyspace, key, 3, &got) == KEYSPACE_OK && got.value_bytes == bytes &&
	       memcmp(got.value, value, bytes) == 0;
}

static int set_slice(void)
{
	return keyspace_set(f.keyspace, KEY, memory, BIG_BYTES, 0, NULL);
}

static void test_set(void)
{
	start(true);
	struct keyspace_value none;
	unsigned slices = 1;
	uint64_t before = keyspace_last_seq(f.keyspace);
	int result = set_slice();
	while (result == KEYSPACE_AGAIN && slices < 1000) {
		if (keyspace_get(f.keyspace, KEY, &none) == KEYSPACE_OK) {
			break;
		}
		slices++;
		result = set_slice();
	}
	ok(result == KEYSPACE_OK && slices >= 8, "G: a value is copied in %u slices", slices);
	ok_u64(keyspace_last_seq(f.keyspace), before + 1, "A: and is there at once, as one write");
	ok(is_there("key", memory, BIG_BYTES), "byte by byte");
	struct kvs_hit hit;
	uint64_t hash = keyspace_hash(f.keyspace, KEY);
	ok(keyspace_find(f.keyspace, hash, KEY, &hit) == KVS_FIND_HIT &&
		   kvs_record_run(&hit.view).crc == kvs_crc32c(0, hit.value, hit.view.value_bytes),
	   "E: with the right checksum");
	stop();
}

static void test_two(void)
{
	start(true);
	char *second = malloc(BIG_BYTES);
	memset(second, 's', BIG_BYTES);
	int results[2] = { KEYSPACE_AGAIN, KEYSPACE_AGAIN };
	unsigned turns = 0;
	while ((results[0] == KEYSPACE_AGAIN || results[1] == KEYSPACE_AGAIN) && turns++ < 1000) {
		keyspace_set_slice(f.keyspace, &mine);
		if (results[0] == KEYSPACE_AGAIN) {
			results[0] = set_slice();
		}
		keyspace_set_slice(f.keyspace, &other);
		char *keep = memory;
		memory = second;
		if (results[1] == KEYSPACE_AGAIN) {
			results[1] = keyspace_set(f.keyspace, "two", 3, second, BIG_BYTES, 0, NULL);
		}
		memory = keep;
	}
	ok(turns < 100 && is_there("key", memory, BIG_BYTES) && is_there("two", second, BIG_BYTES),
	   "two connections copy by turns");
	(void)keyspace_delete(f.keyspace, "two", 3);
	free(second);
	stop();
}

static void test_given_up(void)
{
	for (unsigned at = 0; at < 9; at++) {
		start(at % 2 == 0);
		for (unsigned i = 0; i <= at; i++) {
			(void)set_slice();
		}
		keyspace_stage_drop(f.keyspace, 1);
		stop();
	}
}

/// One slice of an APPEND: what is there, and one more piece behind it.
static int append_slice(size_t bytes)
{
	struct keyspace_value head;
	if (keyspace_get(f.keyspace, KEY, &head) != KEYSPACE_OK) {
		return KEYSPACE_ABSENT;
	}
	const struct kvs_piece pieces[] = { { head.value, head.value_bytes }, { memory, bytes } };
	return keyspace_set_pieces(f.keyspace, KEY, pieces, 2, 0, NULL);
}

static void test_append(size_t old_bytes, const char *what)
{
	char *old = calloc(1, old_bytes);
	char *joined = malloc(old_bytes + 400000);
	for (int change = 0; change < 5; change++) {
		start(true);
		memset(old, 'o', old_bytes);
		keyspace_set_slice(f.keyspace, NULL);
		ok_int(keyspace_set(f.keyspace, KEY, old, old_bytes, 0, NULL), KEYSPACE_OK, "old");
		fixture_durable(&f);
		keyspace_set_slice(f.keyspace, &mine);
		int result = append_slice(400000);
		ok_int(result, KEYSPACE_AGAIN, "one slice of an append");
		keyspace_set_slice(f.keyspace, NULL);
		if (change == 1) {
			memset(old, 'n', old_bytes);
			(void)keyspace_set(f.keyspace, KEY, old, old_bytes, 0, NULL);
		} else if (change == 2) {
			(void)keyspace_delete(f.keyspace, KEY);
		} else if (change == 3) {
			(void)keyspace_flush(f.keyspace);
		} else if (change == 4) {
			for (int i = 0; i < 5000; i++) { // the log goes round: records move
				(void)keyspace_set(f.keyspace, "abc", 3, memory, 5000, 0, NULL);
				fixture_durable(&f);
			}
		}
		fixture_durable(&f);
		keyspace_set_slice(f.keyspace, &mine);
		for (int i = 0; i < 100 && result == KEYSPACE_AGAIN; i++) {
			result = append_slice(400000);
		}
		bool gone = change == 2 || change == 3;
		memcpy(joined, old, old_bytes);
		memcpy(joined + old_bytes, memory, 400000);
		ok(gone ? result == KEYSPACE_ABSENT
			: result == KEYSPACE_OK && is_there("key", joined, old_bytes + 400000),
		   "A: appending to %s, which change %d comes between", what, change);
		(void)keyspace_delete(f.keyspace, "abc", 3);
		stop();
	}
	free(old);
	free(joined);
}

/// Slices that an append to a large value takes, when its time to live changes before each.
static unsigned append_slices(bool expires, char *old, size_t old_bytes)
{
	unsigned slices = 1;
	keyspace_set_slice(f.keyspace, NULL);
	ok_int(keyspace_set(f.keyspace, KEY, old, old_bytes, 0, NULL), KEYSPACE_OK, "old");
	fixture_durable(&f);
	keyspace_set_slice(f.keyspace, &mine);
	while (append_slice(400000) == KEYSPACE_AGAIN && slices < 1000) {
		slices++;
		if (expires) {
			(void)keyspace_expire(f.keyspace, KEY, fixture_wall_ms + 1000 * slices);
		}
	}
	return slices;
}

static void test_expire(void)
{
	size_t old_bytes = 500000;
	char *joined = calloc(1, old_bytes + 400000);
	start(false);
	memset(joined, 'o', old_bytes);
	memcpy(joined + old_bytes, memory, 400000);
	unsigned slices = append_slices(false, joined, old_bytes);
	ok_u64(append_slices(true, joined, old_bytes), slices,
	       "G: a changed time to live does not begin an append anew");
	ok(is_there("key", joined, old_bytes + 400000), "A: what is appended is right");
	free(joined);
	stop();
}

static void test_not_stable(void)
{
	start(true);
	char *temporary = malloc(BIG_BYTES);
	memset(temporary, 't', BIG_BYTES);
	ok_int(keyspace_set(f.keyspace, KEY, temporary, BIG_BYTES, 0, NULL), KEYSPACE_OK,
	       "what nobody vouches for is copied in one go");
	keyspace_set_slice(f.keyspace, NULL);
	ok_int(set_slice(), KEYSPACE_OK, "so is what nobody asks to slice");
	keyspace_set_slice(f.keyspace, &mine);
	keyspace_batch_begin(f.keyspace);
	ok_int(set_slice(), KEYSPACE_OK, "and what is in a batch");
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK, "which is committed");
	free(temporary);
	stop();
}

// Memory is filled until the append has to make room itself: the segment that it copies from is
// cleaned for that, and free before a byte is copied. Poisoned, so that this would be seen.
static void test_makes_room(void)
{
	static const uint64_t ever_ns = UINT64_MAX;
	static const struct keyspace_slice whole = {
		.owner = 1, .until_ns = &ever_ns, .memory = &memory, .memory_bytes = &memory_bytes
	};
	const size_t old_bytes = 15000;
	const size_t more_bytes = 20000;
	char *joined = malloc(old_bytes + more_bytes);
	unsigned wrong = 0, moved = 0, trials = 0;
	for (uint32_t left = 9; left > 2; left--) {
		start(false);
		f.region.poison = true;
		keyspace_set_slice(f.keyspace, NULL);
		memset(joined, 'o', old_bytes);
		memcpy(joined + old_bytes, memory, more_bytes);
		(void)keyspace_set(f.keyspace, KEY, joined, old_bytes, 0, NULL);
		// Little of the first segments is live, all of the others.
		for (int i = 0; i < 4000 && kvs_log_segments_free(&f.keyspace->log) > left; i++) {
			char name[16];
			(void)snprintf(name, sizeof(name), "%07d", i < 40 && i % 4 != 0 ? 0 : i);
			(void)keyspace_set(f.keyspace, name, 7, memory, old_bytes, 0, NULL);
		}
		keyspace_set_slice(f.keyspace, &whole);
		int result = KEYSPACE_WAIT;
		for (int i = 0; i < 100 && result != KEYSPACE_OK; i++) {
			result = append_slice(more_bytes);
			moved += result == KEYSPACE_AGAIN;
			if (result == KEYSPACE_WAIT) {
				cleaner_turn(f.keyspace, fixture_monotonic_ns());
			}
		}
		wrong += result == KEYSPACE_OK && !is_there("key", joined, old_bytes + more_bytes);
		trials++;
		(void)keyspace_flush(f.keyspace);
		stop();
	}
	ok_u64(wrong, 0, "B: of %u appends that make room for themselves none copies what is freed",
	       trials);
	ok(moved > 0, "%u began anew, for what they copy had moved", moved);
	free(joined);
}

static uint64_t file_bytes(void)
{
	struct stat status;
	return fstat(f.region.fd, &status) == 0 ? (uint64_t)status.st_blocks * 512 : 0;
}

// Where there are no huge pages small ones are made by the share, too.
static void test_pages_in_shares(void)
{
	start(false);
	uint64_t before = file_bytes();
	uint64_t most = 0;
	unsigned slices = 1;
	for (; set_slice() == KEYSPACE_AGAIN && slices < 100; slices++) {
		uint64_t now = file_bytes();
		most = now - before > most ? now - before : most;
		before = now;
	}
	ok(most > 0 && most <= 256u << 10, "D: pages for %" PRIu64 " bytes in a slice", most);
	ok(is_there("key", memory, BIG_BYTES), "A: in %u slices", slices);
	stop();
}

int main(void)
{
	test_pages_in_shares();
	test_set();
	test_two();
	test_given_up();
	test_append(500000, "a large value");
	test_append(9000, "a value in the log");
	test_makes_room();
	test_expire();
	test_not_stable();
	return tap_done();
}

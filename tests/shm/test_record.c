// SPDX-License-Identifier: MIT
//
// shm/record.c: what is written is parsed back; a record cut off anywhere is refused; a flipped bit
// is refused by the parser or by the crc; no bytes whatever make the parser look beyond its limit.
#include "shm/record.h"

#include <sys/mman.h>

#include "shm/limits.h"
#include "tests/tap/tap.h"

#define BUFFER_BYTES 8192u

static unsigned char *buffer; // ends at an inaccessible page

static void open_buffer(void)
{
	unsigned char *start = mmap(NULL, BUFFER_BYTES + KVS_PAGE_BYTES, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (start == MAP_FAILED || mprotect(start + BUFFER_BYTES, KVS_PAGE_BYTES, PROT_NONE) != 0) {
		printf("Bail out! no guard page\n");
		exit(99);
	}
	buffer = start;
}

// Where something of `bytes` (a multiple of 8) stands so that it ends at the guard page.
static unsigned char *at_end(uint64_t bytes)
{
	return buffer + BUFFER_BYTES - bytes;
}

static uint32_t payload_bytes_of(uint16_t flags, uint32_t value_bytes)
{
	if (flags & KVS_RECORD_LARGE) {
		return sizeof(struct kvs_run);
	}
	return flags & KVS_RECORD_STUB ? 0 : value_bytes;
}

struct sample {
	unsigned char key[KVS_KEY_BYTES_MAX];
	unsigned char value[2048];
	struct kvs_record_spec spec;
};

static void sample_fill(struct sample *s, uint64_t *random)
{
	static const uint16_t shapes[] = { 0, KVS_RECORD_MORE, KVS_RECORD_TOMBSTONE,
					   KVS_RECORD_STUB, KVS_RECORD_LARGE };
	uint16_t flags = shapes[tap_random(random) % 5];
	for (unsigned i = 0; i < sizeof(s->key); i++) {
		s->key[i] = (unsigned char)tap_random(random);
	}
	for (unsigned i = 0; i < sizeof(s->value); i++) {
		s->value[i] = (unsigned char)tap_random(random);
	}
	uint32_t value_bytes = (uint32_t)(tap_random(random) % sizeof(s->value));
	if (flags & KVS_RECORD_TOMBSTONE) {
		value_bytes = 0;
	}
	s->spec = (struct kvs_record_spec){
		.key = s->key,
		.payload = s->value,
		.seq = 1 + tap_random(random) % KVS_SEQ_MAX,
		.time_ms = KVS_TIME_ORIGIN_MS + (tap_random(random) >> (64 - KVS_TIME_BITS)),
		.expiry_ms = tap_random(random) % 2 ? tap_random(random) : 0,
		.key_bytes = 1 + (uint32_t)(tap_random(random) % KVS_KEY_BYTES_MAX),
		.value_bytes = value_bytes,
		.payload_bytes = payload_bytes_of(flags, value_bytes),
		.flags = flags,
		.writer = (uint16_t)(tap_random(random) % KVS_WRITERS_MAX),
	};
}

static bool same(const struct kvs_record_view *view, const struct kvs_record_spec *spec)
{
	uint16_t flags = spec->flags | (spec->expiry_ms ? KVS_RECORD_EXPIRY : 0);
	return view->seq == spec->seq && view->flags == flags &&
	       view->expiry_ms == spec->expiry_ms && view->key_bytes == spec->key_bytes &&
	       view->value_bytes == spec->value_bytes &&
	       view->payload_bytes == spec->payload_bytes &&
	       memcmp(view->key, spec->key, spec->key_bytes) == 0 &&
	       memcmp(view->payload, spec->payload, spec->payload_bytes) == 0 &&
	       kvs_record_time_ms(view->record) == spec->time_ms &&
	       kvs_record_writer(view->record) == spec->writer;
}

static void test_round_trip(uint64_t *random)
{
	static struct sample s;
	unsigned bad_length = 0, bad_parse = 0, bad_content = 0, bad_crc = 0, bad_padding = 0;
	for (unsigned round = 0; round < 2000; round++) {
		sample_fill(&s, random);
		uint64_t bytes = kvs_record_bytes(s.spec.key_bytes, s.spec.payload_bytes,
						  s.spec.expiry_ms != 0);
		unsigned char *at = at_end(bytes);
		memset(at, 0xa5, bytes);
		bad_length += kvs_record_write(at, &s.spec) != bytes || bytes % 8 != 0;
		struct kvs_record_view view;
		if (kvs_record_parse(at, bytes, &view) != 0) {
			bad_parse++;
			continue;
		}
		bad_content += !same(&view, &s.spec) || view.record_bytes != bytes;
		bad_crc += !kvs_record_crc_ok(&view);
		for (const unsigned char *pad = view.payload + view.payload_bytes; pad < at + bytes;
		     pad++) {
			bad_padding += *pad != 0;
		}
	}
	ok_u64(bad_length, 0, "lengths are as announced, multiples of 8");
	ok_u64(bad_parse, 0, "what was written parses");
	ok_u64(bad_content, 0, "every field comes back");
	ok_u64(bad_crc, 0, "the crc is right");
	ok_u64(bad_padding, 0, "padding is zero: old bytes do not leak");
}

// The stub of any value, and of a stub: the same version, and it counts for what the value did.
static void test_stub(uint64_t *random)
{
	static struct sample s;
	static _Alignas(8) unsigned char value[4096];
	static _Alignas(8) unsigned char stub[1024];
	unsigned bad = 0;
	for (unsigned round = 0; round < 2000; round++) {
		struct kvs_record_view view;
		struct kvs_record_view left;
		sample_fill(&s, random);
		if (s.spec.flags & KVS_RECORD_TOMBSTONE) {
			continue;
		}
		// A value is large if it has more than `most`, as it is where values are written.
		bool large = (s.spec.flags & KVS_RECORD_LARGE) != 0 && s.spec.value_bytes > 0;
		uint64_t most = s.spec.value_bytes;
		most = large ? tap_random(random) % most : most;
		(void)kvs_record_write(value, &s.spec);
		bad += kvs_record_parse(value, sizeof(value), &view) != 0;
		uint32_t bytes = kvs_record_stub_bytes(view.key_bytes, view.expiry_ms != 0);
		bad += kvs_record_write_stub(stub, &view, 77) != bytes;
		s.spec.flags = KVS_RECORD_STUB;
		s.spec.payload_bytes = 0;
		bad += kvs_record_parse(stub, bytes, &left) != 0 || !same(&left, &s.spec) ||
		       !kvs_record_crc_ok(&left) || left.record->place != 77;
		bool inline_value = (view.flags & (KVS_RECORD_STUB | KVS_RECORD_LARGE)) == 0;
		bad += (inline_value || large) &&
		       kvs_record_stored_bytes(&left, most) != kvs_record_stored_bytes(&view, most);
	}
	ok_u64(bad, 0, "a stub is its value's version, and counts for as much");
}

static void test_truncation(uint64_t *random)
{
	static struct sample s;
	unsigned accepted = 0, rounds = 0;
	const unsigned wanted = tap_rounds(100, 20);
	while (rounds < wanted) {
		sample_fill(&s, random);
		if (s.spec.key_bytes + s.spec.payload_bytes > 600) {
			continue;
		}
		rounds++;
		uint64_t bytes = kvs_record_write(buffer, &s.spec);
		for (uint64_t limit = 0; limit < bytes; limit++) {
			// Only the first `limit` bytes exist, up to alignment.
			uint64_t kept = (limit + 7) & ~UINT64_C(7);
			unsigned char *at = at_end(kept);
			memmove(at, buffer, limit);
			struct kvs_record_view view;
			accepted += kvs_record_parse(at, limit, &view) == 0;
			kvs_record_write(buffer, &s.spec);
		}
	}
	ok_u64(accepted, 0,
	       "a record cut off at any byte is refused, and nothing beyond it is read");
}

static void test_flipped_bits(uint64_t *random)
{
	static struct sample s;
	unsigned unnoticed = 0, place_noticed = 0;
	const unsigned rounds = tap_rounds(40, 8);
	for (unsigned round = 0; round < rounds; round++) {
		sample_fill(&s, random);
		uint64_t bytes = kvs_record_bytes(s.spec.key_bytes, s.spec.payload_bytes,
						  s.spec.expiry_ms != 0);
		unsigned char *at = at_end(bytes);
		kvs_record_write(at, &s.spec);
		uint64_t body = sizeof(struct kvs_record) + (s.spec.expiry_ms ? 8 : 0) +
				s.spec.key_bytes + s.spec.payload_bytes;
		for (uint64_t bit = 0; bit < body * 8; bit++) {
			at[bit / 8] ^= (unsigned char)(1u << bit % 8);
			struct kvs_record_view view;
			bool good =
				kvs_record_parse(at, bytes, &view) == 0 && kvs_record_crc_ok(&view);
			bool in_place = bit / 8 >= offsetof(struct kvs_record, place) &&
					bit / 8 < sizeof(struct kvs_record);
			unnoticed += good && !in_place;
			place_noticed += !good && in_place;
			at[bit / 8] ^= (unsigned char)(1u << bit % 8);
		}
	}
	ok_u64(unnoticed, 0, "every flipped bit is noticed");
	ok_u64(place_noticed, 0, "except in the place, which kvd updates outside the crc");
}

static void test_any_bytes(uint64_t *random)
{
	unsigned outside = 0;
	const unsigned rounds = tap_rounds(200000, 20000);
	for (unsigned round = 0; round < rounds; round++) {
		uint64_t bytes = (tap_random(random) % 64) * 8;
		unsigned char *at = at_end(bytes);
		for (uint64_t i = 0; i < bytes; i += 8) {
			uint64_t word = tap_random(random);
			if (i == 8 && tap_random(random) % 2) {
				word &= UINT64_C(0x00ffffffffffffff); // known flags: further in
			} else if (i == 0) {
				word &= tap_random(random) % 2 ? UINT64_C(0x1ffffffff) : UINT64_MAX;
			} else if (i == 16 && tap_random(random) % 2) {
				word &= ~(UINT64_C(0xf00) << KVS_TIME_BITS);
			}
			memcpy(at + i, &word, 8);
		}
		struct kvs_record_view view;
		if (kvs_record_parse(at, bytes, &view) == 0) {
			const unsigned char *end = at + bytes;
			outside += view.record_bytes > bytes || view.key + view.key_bytes > end ||
				   view.payload + view.payload_bytes > end;
			(void)kvs_record_crc_ok(&view);
			(void)kvs_record_run(&view);
		}
	}
	ok_u64(outside, 0, "whatever the bytes, nothing reaches beyond the limit");
}

static void test_limits(void)
{
	struct kvs_record_view view;
	unsigned char key[KVS_KEY_BYTES_MAX] = { 1 };
	struct kvs_record_spec spec = { .key = key,
					.key_bytes = KVS_KEY_BYTES_MAX,
					.seq = KVS_SEQ_MAX };
	uint32_t bytes = kvs_record_write(buffer, &spec);
	ok(kvs_record_parse(buffer, bytes, &view) == 0,
	   "the longest key and the last seq are accepted");
	struct kvs_record *record = (struct kvs_record *)(void *)buffer;
	record->time_key += UINT64_C(1) << KVS_TIME_BITS;
	ok(kvs_record_parse(buffer, BUFFER_BYTES, &view) != 0, "a key of one byte more is refused");
	kvs_record_write(buffer, &spec);
	record->seq_flags &= ~KVS_SEQ_MAX;
	ok(kvs_record_parse(buffer, BUFFER_BYTES, &view) != 0,
	   "seq 0 (unwritten memory) is refused");
	memset(buffer, 0, 64);
	ok(kvs_record_parse(buffer, 64, &view) != 0, "zeroes are no record");
	kvs_record_write(buffer, &spec);
	record->seq_flags |= (uint64_t)KVS_RECORD_PREVIOUS << KVS_SEQ_BITS;
	ok(kvs_record_parse(buffer, BUFFER_BYTES, &view) != 0, "unknown flags are refused");
	kvs_record_write(buffer, &spec);
	record->value_bytes = UINT32_MAX;
	ok(kvs_record_parse(buffer, UINT64_MAX, &view) != 0,
	   "a value over the absolute limit is refused");
}

int main(void)
{
	uint64_t random = tap_seed(4);
	open_buffer();
	test_round_trip(&random);
	test_stub(&random);
	test_truncation(&random);
	test_flipped_bits(&random);
	test_any_bytes(&random);
	test_limits();
	return tap_done();
}

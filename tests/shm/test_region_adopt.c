// SPDX-License-Identifier: MIT
//
// Mapping a kept region: in place where it is laid out for what is asked, otherwise to be read out,
// from today's layout or a former one, without a byte of the file changing.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/adopt.h"
#include "shm/layouts.h"
#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define KEYS 300u
#define FORMER_VERSION 77u
#define FORMER_FINGERPRINT 0x0ddba11u

static void fill(struct fixture *f)
{
	char key[16];
	fixture_open(f, MEMORY, SEGMENT);
	f->step_after_write = true;
	for (unsigned i = 0; i < KEYS; i++) {
		int bytes = snprintf(key, sizeof(key), "key:%u", i);
		(void)fixture_set(f, key, (size_t)bytes, "value", 5);
	}
	f->region.header->marks.applied_seq = f->log.next_seq - 1;
	kvs_log_publish(&f->log);
}

static int adopt(const struct fixture *f, const struct kvs_region_options *options)
{
	struct kvs_region region;
	int fd = dup(f->region.fd);
	int result = kvs_region_adopt(&region, fd, options);
	if (result == KVS_REGION_OK) {
		kvs_region_close(&region);
	} else {
		(void)close(fd);
	}
	return result;
}

static void test_geometry(void)
{
	struct fixture f;
	fill(&f);
	struct kvs_region_options options = { .memory_bytes = MEMORY,
					      .memory_bytes_max = MEMORY,
					      .segment_bytes = SEGMENT,
					      .fenced = f.region.map.readers_fence };
	ok_int(adopt(&f, &options), KVS_REGION_OK, "F: what asks for the same goes on in place");
	options.memory_bytes = MEMORY / 2;
	options.memory_bytes_max = MEMORY / 2;
	ok_int(adopt(&f, &options), KVS_REGION_OK, "so does what asks for less");
	options.memory_bytes = MEMORY + MEMORY / 4;
	ok_int(adopt(&f, &options), KVS_REGION_OK, "and for more memory than there were offsets");
	options.memory_bytes_max = UINT64_C(64) << 20;
	ok_int(adopt(&f, &options), KVS_REGION_UNLIKE, "but not for larger ranges");
	options.memory_bytes_max = MEMORY;
	options.segment_bytes = SEGMENT * 2;
	ok_int(adopt(&f, &options), KVS_REGION_UNLIKE, "nor for other segments");
	options.segment_bytes = SEGMENT;
	f.region.header->flags &= ~(uint64_t)KVS_HEADER_READERS_FENCE;
	options.fenced = true;
	options.memory_bytes = MEMORY;
	ok_int(adopt(&f, &options), KVS_REGION_UNFENCED, "nor for readers that fence");
	f.region.header->flags |= 1u << 20;
	ok_int(adopt(&f, &options), KVS_REGION_LAYOUT, "a flag of another build is another layout");
	fixture_close(&f);
}

// Reads it out with these layouts; all of it is to be there and nothing of it to change.
static void read_out(struct fixture *f, const struct kvs_layout *layouts, const char *name)
{
	struct kvs_region region;
	struct kvs_adopt plan;
	struct kvs_region_header before = *f->region.header;
	ok_int(kvs_region_read_out(&region, f->region.fd, layouts), KVS_REGION_OK,
	       "%s can be mapped", name);
	ok_int(kvs_adopt_plan(&plan, &region, 0), 0, "%s: it verifies", name);
	ok_u64(plan.keys, KEYS, "F: %s: with all its keys", name);
	ok_u64(fixture_keys(&region.map, KEYS), KEYS, "F: %s: and their values", name);
	memset(region.base, 0xee, sizeof(before));
	memset(region.base + kvs_region_segment_offset(&region, 0), 0xee, KVS_PAGE_BYTES);
	ok(kvs_region_punch(&region, kvs_region_segment_offset(&region, 0), KVS_PAGE_BYTES) != 0,
	   "B: %s: no page of it can be given back", name);
	ok(memcmp(&before, f->region.header, sizeof(before)) == 0, "B: %s: its header is as it was",
	   name);
	kvs_adopt_fini(&plan);
	kvs_region_close(&region);
}

static void test_today(void)
{
	struct fixture f;
	fill(&f);
	read_out(&f, kvs_layouts_former(), "today's layout");
	ok_u64(fixture_keys(&f.region.map, KEYS), KEYS, "B: its readers read on");
	fixture_close(&f);
}

// A layout that might have been: the seed and the newest segment stand elsewhere, and epochs had
// no kept adoptions.
static void make_former(struct kvs_region_header *header)
{
	header->layout_version = FORMER_VERSION;
	header->fingerprint = FORMER_FINGERPRINT;
	header->reserved_identity = header->hash_sides[0].key[0];
	header->hash_sides[0].key[0] = ~header->reserved_identity;
	header->reserved_geometry = header->segment_chain_head + 1;
	header->segment_chain_head = UINT64_MAX;
}

static bool lift(unsigned char *base, uint64_t bytes)
{
	struct kvs_region_header *header = (void *)base;
	header->hash_sides[0].key[0] = header->reserved_identity;
	header->segment_chain_head = header->reserved_geometry - 1;
	header->reserved_identity = header->reserved_geometry = 0;
	return bytes == header->region_bytes;
}

static bool lift_not(unsigned char *base, uint64_t bytes)
{
	(void)base;
	(void)bytes;
	return false;
}

static void test_former(void)
{
	static const struct kvs_layout known[] = {
		{ .version = FORMER_VERSION, .fingerprint = 1, .lift = lift_not },
		{ .version = FORMER_VERSION, .fingerprint = FORMER_FINGERPRINT, .lift = lift },
		{ .version = 0 },
	};
	static const struct kvs_layout refusing[] = {
		{ .version = FORMER_VERSION, .fingerprint = FORMER_FINGERPRINT, .lift = lift_not },
		{ .version = 0 },
	};
	struct kvs_region_options options = { .memory_bytes = MEMORY, .segment_bytes = SEGMENT };
	struct kvs_region region;
	struct fixture f;
	fill(&f);
	make_former(f.region.header);
	ok_int(adopt(&f, &options), KVS_REGION_LAYOUT, "F: a former layout is not taken over");
	ok_int(kvs_region_read_out(&region, f.region.fd, kvs_layouts_former()), KVS_REGION_LAYOUT,
	       "nor read out where it is not known");
	ok_int(kvs_region_read_out(&region, f.region.fd, refusing), KVS_REGION_LAYOUT,
	       "nor where it holds what today's cannot say");
	read_out(&f, known, "a former layout that is known");
	memset(f.region.header->marker, 'x', sizeof(f.region.header->marker));
	ok_int(kvs_region_read_out(&region, f.region.fd, known), KVS_REGION_FOREIGN,
	       "H: what is no region is not looked at further");
	fixture_close(&f);
}

// As builds before hash keys left it.
static void test_version_1(void)
{
	struct fixture f;
	fill(&f);
	struct kvs_region_header *header = f.region.header;
	uint64_t seed = header->hash_sides[0].key[0];
	header->layout_version = 1;
	header->fingerprint = 0xb107d19eu;
	memcpy((unsigned char *)header + 48, &seed, sizeof(seed));
	memset(header->hash_sides, 0, sizeof(header->hash_sides));
	read_out(&f, kvs_layouts_former(), "version 1");
	fixture_close(&f);
}

static void test_no_region(void)
{
	struct kvs_region region;
	int ends[2];
	if (pipe(ends) != 0) {
		printf("Bail out! no pipe\n");
		exit(99);
	}
	ok_int(kvs_region_read_out(&region, ends[0], kvs_layouts_former()), KVS_REGION_FOREIGN,
	       "H: a pipe is no region");
	(void)close(ends[0]);
	(void)close(ends[1]);
}

int main(void)
{
	test_geometry();
	test_today();
	test_former();
	test_version_1();
	test_no_region();
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// Records of the log that are not what was written. A record tells how long it is, so behind one
// that is not whole the next has to be looked for: versions follow each other without a gap, which
// tells it from bytes of a value that look like one. What stands between is given up, and nothing
// else.
#include <stdlib.h>

#include "shm/adopt.h"

static int by_offset(const void *a, const void *b)
{
	const struct kvs_adopt_bad *bad_a = a;
	const struct kvs_adopt_bad *bad_b = b;
	return (bad_a->offset > bad_b->offset) - (bad_a->offset < bad_b->offset);
}

bool kvs_adopt_next_whole(const struct kvs_adopt *plan, uint32_t segment, uint32_t after,
			  uint64_t seq, struct kvs_log_position *next, uint64_t *next_seq)
{
	const struct kvs_region *region = plan->region;
	const unsigned char *start = region->base + kvs_region_segment_offset(region, segment);
	uint32_t used = plan->segments[segment].used_bytes;
	*next = (struct kvs_log_position){ .segment = segment, .offset = used };
	for (uint32_t at = after + KVS_RECORD_ALIGN_BYTES; at < used;
	     at += KVS_RECORD_ALIGN_BYTES) {
		struct kvs_record_view view;
		if (kvs_record_parse(start + at, used - at, &view) == 0 && view.seq > seq &&
		    view.seq <= plan->applied_seq + 1 &&
		    view.seq - seq <= (at - after) / sizeof(struct kvs_record) &&
		    kvs_record_crc_ok(&view)) {
			next->offset = at;
			*next_seq = view.seq;
			return true;
		}
	}
	return false;
}

int kvs_adopt_note_bad(struct kvs_adopt *plan, struct kvs_log_position from,
		       struct kvs_log_position to, uint64_t seq, uint64_t count)
{
	if (!kvs_adopt_grow(&plan->bad, plan->bad_count, &plan->bad_capacity,
			    sizeof(*plan->bad))) {
		return -1;
	}
	uint64_t start = kvs_region_segment_offset(plan->region, from.segment);
	plan->bad[plan->bad_count++] = (struct kvs_adopt_bad){
		.offset = start + from.offset,
		.end = start + to.offset,
		.seq = seq,
		.count = count,
	};
	return 0;
}

void kvs_adopt_sort_bad(struct kvs_adopt *plan)
{
	if (plan->bad_count > 0) {
		qsort(plan->bad, plan->bad_count, sizeof(*plan->bad), by_offset);
	}
}

const struct kvs_adopt_bad *kvs_adopt_bad_at(const struct kvs_adopt *plan, uint64_t offset)
{
	size_t low = 0;
	size_t high = plan->bad_count;
	while (low < high) { // the first that ends behind it
		size_t middle = low + (high - low) / 2;
		if (plan->bad[middle].end <= offset) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low < plan->bad_count && plan->bad[low].offset <= offset ? &plan->bad[low] : NULL;
}

// One record of nobody, as long as it takes.
static void fill(unsigned char *at, uint64_t bytes, uint64_t seq)
{
	uint32_t value_bytes = (uint32_t)(bytes - sizeof(struct kvs_record));
	const struct kvs_piece zeroes = { .bytes = value_bytes };
	const struct kvs_record_spec spec = {
		.pieces = &zeroes,
		.pieces_count = 1,
		.payload_bytes = value_bytes,
		.value_bytes = value_bytes,
		.seq = seq,
	};
	(void)kvs_record_write(at, &spec);
}

void kvs_adopt_fill_bad(const struct kvs_adopt *plan)
{
	for (size_t i = 0; i < plan->bad_count; i++) {
		const struct kvs_adopt_bad *bad = &plan->bad[i];
		uint64_t at = bad->offset;
		uint64_t count = bad->count;
		if (count == 0 || count > (bad->end - at) / sizeof(struct kvs_record)) {
			continue; // the segment stays as it is, and cannot be cleaned
		}
		for (uint64_t n = 0; n < count; n++) {
			uint64_t bytes = n + 1 < count ? sizeof(struct kvs_record) : bad->end - at;
			fill(plan->region->base + at, bytes, bad->seq + n);
			at += bytes;
		}
	}
}

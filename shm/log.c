// SPDX-License-Identifier: MIT
//
// Appending and following. A batch is vouched for as a whole before its first byte is written, so
// that nothing can fail half-way; a follower crosses segments by links that are written before the
// position that lets it go there.
#include "shm/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/segments.h"

int kvs_log_init(struct kvs_log *log, struct kvs_region *region)
{
	memset(log, 0, sizeof(*log));
	log->region = region;
	log->next_seq = 1;
	log->survivor.segment = KVS_SEGMENT_NONE;
	log->segments = calloc(region->segments_count_max, sizeof(*log->segments));
	log->free_list = calloc(region->segments_count_max, sizeof(*log->free_list));
	if (log->segments == NULL || log->free_list == NULL) {
		kvs_log_fini(log);
		return -ENOMEM;
	}
	// Lowest indexes on top, so that the mapped part of the range grows from its start.
	for (uint32_t i = region->segments_count_max; i-- > 0;) {
		log->free_list[log->free_list_count++] = i;
	}
	uint32_t first = kvs_segments_take(log, KVS_SEGMENT_HEAD);
	if (first == KVS_SEGMENT_NONE) {
		kvs_log_fini(log);
		return -ENOMEM;
	}
	log->head = (struct kvs_log_position){ .segment = first, .offset = 0 };
	kvs_store_relaxed(&region->header->segment_chain_head, first);
	kvs_log_publish(log);
	return 0;
}

void kvs_log_fini(struct kvs_log *log)
{
	free(log->segments);
	free(log->free_list);
	memset(log, 0, sizeof(*log));
}

int kvs_log_secure(struct kvs_log *log, uint64_t bytes, uint64_t largest, uint32_t reserve)
{
	uint64_t segment_bytes = log->region->segment_bytes;
	uint64_t room = segment_bytes - log->head.offset;
	if (largest > segment_bytes) {
		return -ENOSPC; // no segment takes it
	}
	if (bytes <= room) {
		return 0;
	}
	// Each segment may lose up to one record less a byte at its end.
	uint64_t usable = segment_bytes - (largest - 1);
	uint64_t needed = (bytes + usable - 1) / usable;
	if (needed + reserve > kvs_log_segments_free(log) || needed > log->free_list_count) {
		return -ENOSPC;
	}
	return kvs_segments_prepare(log, (uint32_t)needed);
}

static void log_roll(struct kvs_log *log)
{
	uint32_t old = log->head.segment;
	uint32_t next = kvs_segments_take(log, KVS_SEGMENT_HEAD);
	assert(next != KVS_SEGMENT_NONE); // kvs_log_secure() made it ready
	struct kvs_segment_entry *entry = &log->region->directory[next];
	kvs_store_relaxed(&entry->previous_head, (uint64_t)old + 1);
	kvs_store_relaxed(&log->region->directory[old].used_bytes, log->head.offset);
	log->segments[old].used_bytes = log->head.offset;
	log->segments[old].next = next;
	log->rolls++;
	log->tails_bytes += log->region->segment_bytes - log->head.offset;
	log->head = (struct kvs_log_position){ .segment = next, .offset = 0 };
	kvs_store_release(&log->region->header->segment_chain_head, next);
}

void *kvs_log_append(struct kvs_log *log, uint32_t record_bytes, uint64_t *offset)
{
	assert(record_bytes <= log->region->segment_bytes); // kvs_log_secure() refused it
	if (log->head.offset + record_bytes > log->region->segment_bytes) {
		log_roll(log);
	}
	*offset = kvs_region_segment_offset(log->region, log->head.segment) + log->head.offset;
	log->head.offset += record_bytes;
	log->segments[log->head.segment].last_seq = log->next_seq++;
	struct kvs_record *record = (struct kvs_record *)(void *)(log->region->base + *offset);
	// Who adopts the region walks so far and no further: bytes behind it may be anything, also
	// what looks like a record. A seq of 0 is no record until this one is written.
	kvs_store_relaxed(&record->seq_flags, 0);
	// Release: after it (partner: kvs_adopt_plan()).
	kvs_store_release(&log->region->directory[log->head.segment].used_bytes, log->head.offset);
	return record;
}

void kvs_log_publish(struct kvs_log *log)
{
	uint64_t word = (uint64_t)log->head.segment << 32 | log->head.offset;
	// Release: records, links and used_bytes before it (partner: kvs_log_published()).
	kvs_store_release(&log->published, word);
}

void *kvs_log_append_survivor(struct kvs_log *log, uint32_t record_bytes, uint64_t seq,
			      uint64_t *offset)
{
	struct kvs_log_position *at = &log->survivor;
	if (record_bytes > log->region->segment_bytes) {
		return NULL; // the next segment is another's
	}
	if (at->segment == KVS_SEGMENT_NONE ||
	    at->offset + record_bytes > log->region->segment_bytes) {
		uint32_t next = KVS_SEGMENT_NONE;
		if (kvs_log_segments_free(log) > 0) {
			next = kvs_segments_take(log, KVS_SEGMENT_SURVIVOR);
		}
		if (next == KVS_SEGMENT_NONE) {
			return NULL;
		}
		at->segment = next;
		at->offset = 0;
		kvs_store_relaxed(&log->region->header->segment_survivor, (uint64_t)next + 1);
	}
	struct kvs_segment *segment = &log->segments[at->segment];
	*offset = kvs_region_segment_offset(log->region, at->segment) + at->offset;
	at->offset += record_bytes;
	segment->used_bytes = at->offset;
	if (seq > segment->last_seq) {
		segment->last_seq = seq;
	}
	kvs_store_relaxed(&log->region->directory[at->segment].used_bytes, at->offset);
	return log->region->base + *offset;
}

void kvs_log_live_add(struct kvs_log *log, uint64_t offset, uint32_t record_bytes)
{
	log->segments[kvs_log_segment_of(log, offset)].live_bytes += record_bytes;
}

void kvs_log_live_sub(struct kvs_log *log, uint64_t offset, uint32_t record_bytes)
{
	log->segments[kvs_log_segment_of(log, offset)].live_bytes -= record_bytes;
	log->died++;
}

bool kvs_log_follow(const struct kvs_log *log, struct kvs_log_position *at,
		    struct kvs_log_position end, struct kvs_record_view *view)
{
	for (;;) {
		uint32_t limit = end.offset;
		if (at->segment != end.segment) {
			limit = log->segments[at->segment].used_bytes;
		}
		if (at->offset < limit) {
			const unsigned char *bytes = log->region->base;
			bytes += kvs_region_segment_offset(log->region, at->segment) + at->offset;
			if (kvs_record_parse(bytes, limit - at->offset, view) != 0) {
				return false;
			}
			at->offset += view->record_bytes;
			return true;
		}
		if (at->segment == end.segment) {
			return false;
		}
		at->segment = log->segments[at->segment].next;
		at->offset = 0;
	}
}

// SPDX-License-Identifier: MIT
//
// Segments as units of memory: which are free, which have pages, which wait for their grace period.
// Populated free segments are used before untouched ones, so that memory is reused while it is warm
// and the file grows only when it must.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/segments.h"

// What takes memory and is no segment; the first page is the header.
static uint64_t fixed_bytes(const struct kvs_region *region)
{
	return region->table_bytes + region->large_bytes + region->directory_bytes +
	       region->page_bytes;
}

uint32_t kvs_log_segments_allowed(const struct kvs_log *log)
{
	const struct kvs_region *region = log->region;
	uint64_t taken = fixed_bytes(region);
	if (taken >= region->memory_bytes) {
		return 0;
	}
	uint64_t allowed = (region->memory_bytes - taken) >> region->segment_shift;
	return allowed < region->segments_count_max ? (uint32_t)allowed
						    : region->segments_count_max;
}

uint32_t kvs_log_segments_free(const struct kvs_log *log)
{
	uint32_t allowed = kvs_log_segments_allowed(log);
	uint32_t taken = log->full_count + log->retired_count;
	return allowed > taken ? allowed - taken : 0;
}

uint64_t kvs_log_memory_for(const struct kvs_log *log, uint32_t count)
{
	const struct kvs_region *region = log->region;
	uint64_t segments = (uint64_t)log->full_count + log->retired_count + count;
	return fixed_bytes(region) + (segments << region->segment_shift);
}

bool kvs_log_reopen_survivor(struct kvs_log *log, uint32_t record_bytes, uint32_t except)
{
	uint32_t best = KVS_SEGMENT_NONE;
	uint32_t best_used = 0;
	for (uint32_t i = 0; i < log->touched_count; i++) {
		const struct kvs_segment *segment = &log->segments[i];
		if (segment->state == KVS_SEGMENT_SURVIVOR && i != except &&
		    segment->used_bytes >= best_used &&
		    log->region->segment_bytes - segment->used_bytes >= record_bytes) {
			best = i;
			best_used = segment->used_bytes;
		}
	}
	if (best == KVS_SEGMENT_NONE) {
		return false;
	}
	log->survivor = (struct kvs_log_position){ .segment = best, .offset = best_used };
	return true;
}

// Moves the first prepared segment of the list to the top; false if there is none.
static bool segments_prepared_to_top(struct kvs_log *log)
{
	for (uint32_t i = log->free_list_count; i-- > 0;) {
		uint32_t segment = log->free_list[i];
		if (log->segments[segment].prepared) {
			log->free_list[i] = log->free_list[log->free_list_count - 1];
			log->free_list[log->free_list_count - 1] = segment;
			return true;
		}
	}
	return false;
}

// Makes sure that the directory has the segment's entry. The lowest indexes are used first.
static int segments_directory(struct kvs_region *region, uint32_t segment)
{
	uint64_t bytes = (segment + UINT64_C(1)) * sizeof(struct kvs_segment_entry);
	uint64_t wanted = (bytes + region->page_bytes - 1) & ~(uint64_t)(region->page_bytes - 1);
	uint64_t have = region->directory_bytes;
	if (wanted <= have) {
		return 0;
	}
	uint64_t offset = region->header->segment_directory_offset;
	int result = kvs_region_populate(region, offset + have, wanted - have);
	if (result == 0) {
		region->directory_bytes = wanted;
	}
	return result;
}

static int segments_populate(struct kvs_log *log, uint32_t segment)
{
	struct kvs_region *region = log->region;
	int result = segments_directory(region, segment);
	if (result == 0) {
		result = kvs_region_populate(region, kvs_region_segment_offset(region, segment),
					     region->segment_bytes);
	}
	if (result == 0) {
		log->segments[segment].prepared = true;
		log->prepared_count++;
	}
	return result;
}

// Raises the bound that clients may map to, when a segment is used for the first time.
static void segments_touch(struct kvs_log *log, uint32_t segment)
{
	if (segment >= log->touched_count) {
		log->touched_count = segment + 1;
		kvs_region_publish(log->region, KVS_RANGE_LOG,
				   (uint64_t)log->touched_count << log->region->segment_shift);
	}
}

uint32_t kvs_segments_take(struct kvs_log *log, enum kvs_segment_state state)
{
	if (log->free_list_count == 0) {
		return KVS_SEGMENT_NONE;
	}
	if (!segments_prepared_to_top(log) &&
	    segments_populate(log, log->free_list[log->free_list_count - 1]) != 0) {
		return KVS_SEGMENT_NONE;
	}
	if (segments_directory(log->region, log->free_list[log->free_list_count - 1]) != 0) {
		return KVS_SEGMENT_NONE;
	}
	uint32_t index = log->free_list[--log->free_list_count];
	struct kvs_segment *segment = &log->segments[index];
	segment->state = (uint8_t)state;
	segment->first_seq = log->next_seq;
	log->order = log->order < log->next_seq ? log->next_seq : log->order + 1;
	segment->order = log->order;
	segment->last_seq = 0;
	segment->live_bytes = 0;
	segment->used_bytes = 0;
	segment->next = KVS_SEGMENT_NONE;
	log->full_count++;

	struct kvs_segment_entry *entry = &log->region->directory[index];
	kvs_store_relaxed(&entry->first_seq, segment->first_seq);
	kvs_store_relaxed(&entry->used_bytes, 0);
	kvs_store_relaxed(&entry->previous_head, 0);
	// Release: adoption sees the fields that go with the state.
	kvs_store_release(&entry->state, (uint64_t)state);
	segments_touch(log, index);
	return index;
}

int kvs_log_prefault(struct kvs_log *log)
{
	uint32_t count = kvs_log_segments_free(log);
	return kvs_segments_prepare(log,
				    count < log->free_list_count ? count : log->free_list_count);
}

int kvs_segments_prepare(struct kvs_log *log, uint32_t count)
{
	uint32_t prepared = 0;
	for (uint32_t i = 0; i < log->free_list_count && prepared < count; i++) {
		prepared += log->segments[log->free_list[i]].prepared;
	}
	for (uint32_t i = log->free_list_count; i-- > 0 && prepared < count;) {
		if (log->segments[log->free_list[i]].prepared) {
			continue;
		}
		if (count <= log->helped_most) {
			return -EAGAIN;
		}
		int result = segments_populate(log, log->free_list[i]);
		if (result != 0) {
			return result;
		}
		prepared++;
	}
	if (prepared < count && count <= log->helped_most) {
		return -EAGAIN; // the last ones may be with the helper
	}
	return prepared >= count ? 0 : -ENOSPC;
}

bool kvs_log_cleanable(const struct kvs_log *log, uint32_t index, uint64_t durable_seq)
{
	const struct kvs_segment *segment = &log->segments[index];
	if (segment->state == KVS_SEGMENT_SURVIVOR) {
		return index != log->survivor.segment;
	}
	// Not by the first of the next one: that may have been emptied, and be another by now.
	return segment->state == KVS_SEGMENT_HEAD && segment->next != KVS_SEGMENT_NONE &&
	       segment->last_seq < durable_seq;
}

void kvs_log_retire(struct kvs_log *log, uint32_t index, struct kvs_limbo *limbo, uint64_t stamp)
{
	log->segments[index].state = KVS_SEGMENT_RETIRED;
	kvs_store_relaxed(&log->region->directory[index].retired_epoch, stamp);
	// Release: adoption sees the stamp that goes with the state.
	kvs_store_release(&log->region->directory[index].state, KVS_SEGMENT_RETIRED);
	log->full_count--;
	log->retired_count++;
	kvs_limbo_push(limbo, stamp, KVS_LIMBO_SEGMENT, index, log->region->segment_bytes);
}

void kvs_log_free(struct kvs_log *log, uint32_t index)
{
	kvs_region_poison(log->region, kvs_region_segment_offset(log->region, index),
			  log->region->segment_bytes);
	log->segments[index].state = KVS_SEGMENT_FREE;
	kvs_store_release(&log->region->directory[index].state, KVS_SEGMENT_FREE);
	log->retired_count--;
	log->free_list[log->free_list_count++] = index;
}

uint32_t kvs_log_give_back(struct kvs_log *log, uint32_t count)
{
	uint32_t given = 0;
	// From where the last one was: those below it have no pages, unless they came since.
	for (uint32_t i = 0; i < log->free_list_count && given < count; i++) {
		log->given_at = log->given_at < log->free_list_count ? log->given_at : 0;
		uint32_t index = log->free_list[log->given_at++];
		struct kvs_segment *segment = &log->segments[index];
		if (!segment->prepared) {
			continue;
		}
		uint64_t offset = kvs_region_segment_offset(log->region, index);
		if (kvs_region_punch(log->region, offset, log->region->segment_bytes) != 0) {
			break; // it stays populated and usable
		}
		segment->prepared = false;
		log->prepared_count--;
		given++;
	}
	return given;
}

uint32_t kvs_log_trim(struct kvs_log *log, uint32_t count)
{
	uint32_t allowed = kvs_log_segments_allowed(log);
	uint32_t over = log->prepared_count > allowed ? log->prepared_count - allowed : 0;
	return over > 0 ? kvs_log_give_back(log, over < count ? over : count) : 0;
}

uint32_t kvs_log_prepare_begin(struct kvs_log *log, uint32_t ahead)
{
	uint32_t prepared = 0;
	uint32_t candidate = KVS_SEGMENT_NONE;
	if (log->prepared_count >= kvs_log_segments_allowed(log)) {
		return KVS_SEGMENT_NONE;
	}
	for (uint32_t i = log->free_list_count; i-- > 0 && prepared < ahead;) {
		if (log->segments[log->free_list[i]].prepared) {
			prepared++;
		} else if (candidate == KVS_SEGMENT_NONE) {
			candidate = i;
		}
	}
	if (prepared >= ahead || candidate == KVS_SEGMENT_NONE) {
		return KVS_SEGMENT_NONE;
	}
	uint32_t index = log->free_list[candidate];
	if (segments_directory(log->region, index) != 0) {
		return KVS_SEGMENT_NONE; // the machine is full
	}
	memmove(&log->free_list[candidate], &log->free_list[candidate + 1],
		(log->free_list_count - candidate - 1) * sizeof(*log->free_list));
	log->free_list_count--;
	log->segments[index].preparing = true;
	log->preparing_count++;
	return index;
}

void kvs_log_prepare_end(struct kvs_log *log, uint32_t index, bool populated)
{
	struct kvs_segment *segment = &log->segments[index];
	segment->preparing = false;
	log->preparing_count--;
	segment->prepared = populated;
	log->prepared_count += populated;
	log->free_list[log->free_list_count++] = index;
}

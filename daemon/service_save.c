// SPDX-License-Identifier: MIT
//
// The log is followed from where the store ends to where the region does; what is bad there is
// passed over, version by version.
#include "daemon/service_save.h"

#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/region_walk.h"
#include "daemon/storage/store.h"
#include "shm/adopt.h"
#include "shm/crc32c.h"
#include "shm/log.h"
#include "shm/record.h"
#include "shm/region.h"

#define SAVE_COMMIT_BYTES (UINT64_C(8) << 20) // of records, in one transaction

// The value of a LARGE record, NULL for others. False if its run cannot be, or is damaged.
static bool tail_value(const struct kvs_region *region, const struct kvs_record_view *view,
		       const void **value)
{
	const struct kvs_range_bounds *range = &region->map.ranges[KVS_RANGE_LARGE];
	*value = NULL;
	if ((view->flags & KVS_RECORD_LARGE) == 0) {
		return true;
	}
	uint64_t at = kvs_record_run(view).offset - range->offset; // huge if below
	if (at > range->bytes_max || view->value_bytes > range->bytes_max - at) {
		return false;
	}
	*value = region->base + range->offset + at;
	return kvs_crc32c(0, *value, view->value_bytes) == kvs_record_run(view).crc;
}

// Moves `at` behind what is bad where it stands, and from the end of a segment to the next.
static void step_over_bad(const struct kvs_adopt *plan, struct kvs_log_position *at, uint64_t *lost)
{
	while (at->segment != plan->end.segment || at->offset < plan->end.offset) {
		const struct kvs_segment *segment = &plan->segments[at->segment];
		uint64_t start = kvs_region_segment_offset(plan->region, at->segment);
		if (at->offset >= segment->used_bytes) {
			*at = (struct kvs_log_position){ .segment = segment->next, .offset = 0 };
			continue;
		}
		const struct kvs_adopt_bad *bad = kvs_adopt_bad_at(plan, start + at->offset);
		if (bad == NULL) {
			return;
		}
		*lost += bad->count;
		log_error("versions %llu to %llu are lost: their records are damaged",
			  (unsigned long long)bad->seq,
			  (unsigned long long)(bad->seq + bad->count - 1));
		at->offset = (uint32_t)(bad->end - start);
	}
}

// Appends what the log has above durable_seq. A large value that is not what was written is left
// out: its key has what it had before. Returns STORE_OK or an enum store_error.
static int save_tail(const struct kvs_adopt *plan, struct store *store, uint64_t *records,
		     uint64_t *lost)
{
	struct kvs_region *region = plan->region;
	struct kvs_log log = { .region = region, .segments = plan->segments };
	struct kvs_log_position at = plan->unpersisted;
	struct kvs_record_view view;
	uint64_t bytes = 0;
	int result = store_begin(store);
	result = result == STORE_OK ? region_put_writers(region->base, store) : result;
	step_over_bad(plan, &at, lost);
	while (result == STORE_OK && kvs_log_follow(&log, &at, plan->end, &view)) {
		const void *value;
		uint64_t place;
		if (tail_value(region, &view, &value)) {
			result = store_append(store, &view, value, &place);
			(*records)++;
			bytes += view.record_bytes + (value != NULL ? view.value_bytes : 0u);
		} else {
			(*lost)++;
			log_error("version %llu of '%.*s' is lost: its large value is damaged",
				  (unsigned long long)view.seq, (int)view.key_bytes,
				  (const char *)view.key);
		}
		bool whole = (view.flags & KVS_RECORD_MORE) == 0;
		if (result == STORE_OK && whole && bytes >= SAVE_COMMIT_BYTES) {
			bytes = 0;
			result = store_commit(store, view.seq);
			result = result == STORE_OK ? store_begin(store) : result;
		}
		step_over_bad(plan, &at, lost);
	}
	return result == STORE_OK ? store_commit(store, plan->last_seq) : result;
}

int service_save(const struct kvd *kvd, const struct kvs_adopt *plan, struct store *store,
		 uint64_t *lost)
{
	uint64_t records = 0;
	if (store == NULL || plan->last_seq <= plan->durable_seq) {
		return STORE_OK;
	}
	int result = save_tail(plan, store, &records, lost);
	if (result == STORE_OK) {
		LOG_AT(LOG_LEVEL_NOTICE,
		       "%llu records that only the region had are in %s/store now",
		       (unsigned long long)records, kvd->config.dir);
	} else {
		store_abort(store);
	}
	return result;
}

void service_salvage(const struct kvd *kvd, const struct kvs_adopt *plan, struct store *store,
		     uint64_t *lost)
{
	int result = service_save(kvd, plan, store, lost);
	if (result != STORE_OK) {
		*lost += plan->last_seq - plan->durable_seq;
		log_error("of versions %llu to %llu, which only the region had, some are lost: %s",
			  (unsigned long long)plan->durable_seq + 1,
			  (unsigned long long)plan->last_seq, store_why(store));
	}
}

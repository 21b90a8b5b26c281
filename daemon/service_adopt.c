// SPDX-License-Identifier: MIT
//
// A kept region is taken over if its log and table hold what they promise and the store is not
// behind what it told clients is durable. If something does not hold, the store serves: it gets the
// records that only the kept region has, when those can be read, and then everything is loaded from
// it as after any start.
#include "daemon/service_adopt.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/fdstore.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/persist.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/service_region.h"
#include "daemon/storage/store.h"
#include "shm/adopt.h"
#include "shm/crc32c.h"
#include "shm/epoch_scan.h"
#include "shm/region.h"

#define ADOPT_COMMIT_BYTES (UINT64_C(8) << 20) // of records, in one transaction

static const char *refusal(int error)
{
	switch (error) {
	case KVS_REGION_FOREIGN:
		return "it is not a region of kvd";
	case KVS_REGION_LAYOUT:
		return "it is of another layout, made by another version of kvd";
	case KVS_REGION_DAMAGED:
		return "its header contradicts itself";
	case KVS_REGION_UNFILLED:
		return "it was never filled: the life before ended while it started";
	case KVS_REGION_UNLIKE:
		return "it is laid out for another --segment or a smaller --memory-max";
	case KVS_REGION_UNFENCED:
		return "its readers rely on membarrier, which is refused to this process";
	default:
		return "it cannot be mapped";
	}
}

static bool is_persisted(const struct kvd *kvd)
{
	return kvd->config.persist_policy != PERSIST_MEMORY;
}

static void say_refused(const struct kvd *kvd, const char *why)
{
	log_warning("the region of the life before is not taken over: %s; %s", why,
		    is_persisted(kvd) ? "the store is read instead"
				      : "kvd begins empty (memory policy)");
}

bool service_adopt_open(struct kvd *kvd, struct kvs_region *region, bool *alike)
{
	const struct config *config = &kvd->config;
	struct kvs_region_options options = {
		.memory_bytes = config->memory_bytes,
		.segment_bytes = (uint32_t)config->segment_bytes,
		.fenced = !kvs_epoch_membarrier_works(),
		.huge_pages = true,
		.poison = service_region_poisons(),
	};
	int fd;
	while ((fd = fdstore_take(kvd->fdstore, SERVICE_REGION_NAME)) >= 0) {
		options.any_geometry = false;
		int result = kvs_region_adopt(region, fd, &options);
		*alike = result == KVS_REGION_OK;
		if (result == KVS_REGION_UNLIKE) {
			options.any_geometry = true;
			result = kvs_region_adopt(region, fd, &options);
		}
		if (result == KVS_REGION_OK) {
			kvd->instance_id = region->header->instance_id;
			return true;
		}
		say_refused(kvd, refusal(result));
		close(fd);
	}
	return false;
}

// Is what the region calls durable in this store?
static const char *store_refusal(const struct kvs_region *region, struct store *store)
{
	struct store_facts facts;
	store_facts(store, &facts);
	if (facts.instance_id != region->header->instance_id) {
		return "the store is another one's";
	}
	if (facts.durable_seq < kvs_load_acquire(&region->header->marks.durable_seq)) {
		return "the store is older than what the region calls durable";
	}
	return NULL;
}

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

// Appends what the log has above durable_seq. Returns STORE_OK or an enum store_error.
static int save_tail(const struct kvs_adopt *plan, struct store *store, uint64_t *records)
{
	struct kvs_region *region = plan->region;
	struct kvs_log log = { .region = region, .segments = plan->segments };
	struct kvs_log_position at = plan->unpersisted;
	struct kvs_record_view view;
	uint64_t bytes = 0;
	int result = store_begin(store);
	while (result == STORE_OK && kvs_log_follow(&log, &at, plan->end, &view)) {
		const void *value;
		uint64_t place;
		if (!tail_value(region, &view, &value)) {
			store_abort(store); // its batch cannot be whole; what was committed was
			return STORE_DAMAGED;
		}
		result = store_append(store, &view, value, &place);
		(*records)++;
		bytes += view.record_bytes + (value != NULL ? view.value_bytes : 0u);
		bool whole = (view.flags & KVS_RECORD_MORE) == 0;
		if (result == STORE_OK && whole && bytes >= ADOPT_COMMIT_BYTES) {
			bytes = 0;
			result = store_commit(store, view.seq);
			result = result == STORE_OK ? store_begin(store) : result;
		}
	}
	return result == STORE_OK ? store_commit(store, plan->last_seq) : result;
}

// What is only in the region goes into the store, before the region is given up.
static void salvage(const struct kvd *kvd, const struct kvs_adopt *plan, struct store *store)
{
	if (store == NULL || plan->last_seq <= plan->durable_seq) {
		return;
	}
	uint64_t records = 0;
	int result = save_tail(plan, store, &records);
	if (result == STORE_OK) {
		LOG_AT(LOG_LEVEL_NOTICE,
		       "%llu records that only the region had are in %s/store now",
		       (unsigned long long)records, kvd->config.dir);
		return;
	}
	store_abort(store);
	log_error("of versions %llu to %llu, which only the region had, some are lost: %s",
		  (unsigned long long)plan->durable_seq + 1, (unsigned long long)plan->last_seq,
		  result == STORE_DAMAGED ? "they are damaged" : store_why(store));
}

bool service_adopt_look(struct kvd *kvd, struct kvs_region *region, struct store *store, bool alike,
			uint64_t generation, struct kvs_adopt *plan)
{
	uint64_t durable_seq = UINT64_MAX;
	memset(plan, 0, sizeof(*plan));
	if (region->header->generation != generation) {
		say_refused(kvd, "kvd has served from this folder with another one since");
		return false;
	}
	if (store != NULL) {
		const char *why = store_refusal(region, store);
		if (why != NULL) {
			say_refused(kvd, why);
			return false;
		}
		struct store_facts facts;
		store_facts(store, &facts);
		durable_seq = facts.durable_seq;
	}
	int result = kvs_adopt_plan(plan, region, durable_seq);
	if (result == -ENOMEM) {
		say_refused(kvd, remedy_of_errno(ENOMEM));
		return false;
	}
	if (result != 0) {
		say_refused(kvd, plan->why);
	} else if (!alike) {
		say_refused(kvd, refusal(KVS_REGION_UNLIKE));
		result = -EUCLEAN;
	} else if (plan->damaged_count > 0 && store != NULL) {
		log_error("%llu entries of the table are damaged",
			  (unsigned long long)plan->damaged_count);
		say_refused(kvd, "it is damaged");
		result = -EUCLEAN;
	} else if (plan->damaged_count > 0) {
		log_error("%llu keys are lost: their entries in the table are damaged",
			  (unsigned long long)plan->damaged_count);
	}
	if (result != 0 && plan->has_tail) {
		salvage(kvd, plan, store);
	}
	return result == 0;
}

void service_adopt_keep(struct kvd *kvd, const struct kvs_region *region, bool is_new)
{
	if (fdstore_offered(kvd->fdstore)) {
		if (is_new) {
			fdstore_drop(kvd->fdstore, SERVICE_REGION_NAME);
		}
		(void)fdstore_keep(kvd->fdstore, SERVICE_REGION_NAME, region->fd);
	}
}

// SPDX-License-Identifier: MIT
//
// A kept region is taken over if its log and table hold what they promise and the store is not
// behind what it told clients is durable; if it is laid out in another way than this life wants,
// or must serve readers of another kind, it is read out into a new one. If something does not hold,
// the store serves: it gets the records that only the kept region has, when those can be read, and
// then everything is loaded from it as after any start. A failure that may pass ends the start and
// changes nothing: the keeper has the region still.
#include "daemon/service_adopt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/fdstore.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/service_persist.h"
#include "daemon/service_region.h"
#include "daemon/service_save.h"
#include "daemon/storage/store.h"
#include "shm/adopt.h"
#include "shm/epoch_scan.h"
#include "shm/generation.h"
#include "shm/layouts.h"
#include "shm/region.h"
#include "shm/table.h"

#define ADOPT_SPARE_SHARE 4u // of the memory, for reserves and for what packing leaves unused

// Two, so that a region and the one that takes its place can be kept side by side: a kvd that is
// killed between two steps leaves the next one whichever of them kvd.gen names.
static const char *const adopt_names[] = { "kvd-region", "kvd-region-2" };
#define ADOPT_NAMES (sizeof(adopt_names) / sizeof(adopt_names[0]))

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
		return "it is made for another --segment or --hash, a smaller --memory-max, or of "
		       "other pages";
	case KVS_REGION_UNFENCED:
		return "its readers rely on membarrier, which is refused to this process";
	default:
		return "it cannot be mapped";
	}
}

static void say_refused(const struct kvd *kvd, const char *why)
{
	log_warning("the region of the life before is not taken over: %s; %s", why,
		    service_persist_is_on(kvd) ? "the store is read instead"
					       : "kvd begins empty (memory policy)");
}

// As kvs_region_adopt(); what cannot be taken over and can be read is mapped to be read out.
static int open_kept(const struct kvd *kvd, struct kvs_region *region, int fd,
		     struct service_adoption *adoption)
{
	const struct config *config = &kvd->config;
	const struct kvs_region_options options = {
		.memory_bytes = config->memory_bytes,
		.memory_bytes_max = config->memory_max_bytes,
		.segment_bytes = (uint32_t)config->segment_bytes,
		.hash_kind = (enum kvs_hash_kind)config->hash_kind,
		.fenced = !kvs_epoch_membarrier_works(),
		.pages = service_region_pages(config),
		.pagemap_fd = kvd->pagemap_fd,
		.poison = service_region_poisons(),
	};
	int result = kvs_region_adopt(region, fd, &options);
	adoption->way = SERVICE_ADOPT_IN_PLACE;
	if (result == KVS_REGION_UNLIKE || result == KVS_REGION_UNFENCED ||
	    result == KVS_REGION_LAYOUT) {
		adoption->way = SERVICE_ADOPT_READ_OUT;
		adoption->why = refusal(result);
		result = kvs_region_read_out(region, fd, kvs_layouts_former());
		if (result == KVS_REGION_OK) {
			close(fd); // it has one of its own
		}
	}
	return result;
}

// Is it the last that served from this folder?
static bool is_latest(const struct kvs_region *region, const struct kvs_generation *said)
{
	if (said->generation == 0 && region->header->generation != 0) {
		LOG_AT(LOG_LEVEL_NOTICE,
		       "kvd.gen does not tell that anything has served from this folder (it is "
		       "new, was removed or cut short): the data of the region that is kept is "
		       "served on from here");
		return true;
	}
	const struct kvs_region_header *header = region->header;
	return kvs_generation_names(said, header->generation, header->instance_id);
}

// Folders count by themselves, so two of them may well have come to the same number.
static const char *is_not_latest(const struct kvs_region *region, const struct kvs_generation *said)
{
	return region->header->generation != said->generation
		       ? "kvd has served from this folder with another one since"
		       : "kvd.gen names another one: this one has served from another folder";
}

static int not_mapped(int result, int error, char *why, size_t why_bytes)
{
	bool no_proc = result == KVS_REGION_NO_PROC;
	(void)snprintf(why, why_bytes,
		       "the region of the life before cannot be mapped: %s; %s; it stays kept, and "
		       "kvd can be started again",
		       no_proc ? "/proc is not mounted" : strerror(error),
		       no_proc ? "mount -t proc proc /proc" : remedy_of_errno(error));
	return EX_OSERR;
}

// May this one be used? It is closed otherwise. Returns 0, or an exit code with `why` filled.
static int try_kept(struct kvd *kvd, struct kvs_region *region, int fd,
		    const struct kvs_generation *said, struct service_adoption *adoption, char *why,
		    size_t why_bytes)
{
	int result = open_kept(kvd, region, fd, adoption);
	if (result != KVS_REGION_OK) {
		int error = errno;
		close(fd);
		adoption->way = SERVICE_ADOPT_NOTHING;
		if (result == KVS_REGION_SYSTEM || result == KVS_REGION_NO_PROC) {
			return not_mapped(result, error, why, why_bytes);
		}
		say_refused(kvd, refusal(result));
	} else if (!is_latest(region, said)) {
		say_refused(kvd, is_not_latest(region, said));
		kvs_region_close(region);
		adoption->way = SERVICE_ADOPT_NOTHING;
	}
	return 0;
}

int service_adopt_open(struct kvd *kvd, struct kvs_region *region,
		       const struct kvs_generation *said, struct service_adoption *adoption,
		       char *why, size_t why_bytes)
{
	int code = 0;
	adoption->way = SERVICE_ADOPT_NOTHING;
	// All are taken, also those behind the one that is of use: their names are this file's.
	for (size_t i = 0; i < ADOPT_NAMES; i++) {
		int fd;
		while ((fd = fdstore_take(kvd->fdstore, adopt_names[i])) >= 0) {
			adoption->was_given = true;
			if (code != 0 || adoption->way != SERVICE_ADOPT_NOTHING) {
				close(fd);
				continue;
			}
			code = try_kept(kvd, region, fd, said, adoption, why, why_bytes);
			if (adoption->way != SERVICE_ADOPT_NOTHING) {
				adoption->name = adopt_names[i];
				kvd->instance_id = region->header->instance_id;
			}
		}
	}
	return code;
}

// What the store is to this region. NULL, or why the store serves instead of it.
static const char *compare_store(const struct kvs_region *region, struct store *store,
				 struct service_adoption *adoption)
{
	struct store_facts facts;
	store_facts(store, &facts);
	bool is_storeless = (region->header->flags & KVS_HEADER_STORELESS) != 0;
	if (adoption->store_is_damaged) {
		// It cannot be asked. But this region was the last that served from this folder:
		// all that was ever acknowledged of the store is in it, too.
		adoption->fill_store = is_storeless || adoption->way == SERVICE_ADOPT_READ_OUT;
		adoption->leave_store = is_storeless;
		return NULL;
	}
	bool is_own = facts.instance_id == region->header->instance_id;
	bool is_behind = facts.durable_seq < kvs_load_acquire(&region->header->marks.durable_seq);
	bool is_empty = facts.durable_seq == 0 && facts.next_block == facts.oldest_block;
	if (is_storeless) {
		adoption->fill_store = true;
		adoption->leave_store = !is_own && !is_empty;
		return NULL;
	}
	if (is_empty && (!is_own || is_behind)) {
		adoption->fill_store = true; // in a folder of its own, or it was removed
		return NULL;
	}
	if (!is_own) {
		return "the store is another one's";
	}
	return is_behind ? "the store is older than what the region calls durable" : NULL;
}

// Keys whose entries are cleared, because what they name is not what was written.
static void say_lost(const struct kvs_adopt *plan)
{
	for (size_t i = 0; i < plan->clears_count; i++) {
		struct kvs_hit hit;
		if (plan->clears[i].damaged &&
		    kvs_table_load(&plan->region->map, plan->clears[i].entry, &hit) ==
			    KVS_FIND_HIT &&
		    kvs_entry_tag_matches(
			    plan->clears[i].entry,
			    kvs_map_hash(&plan->region->map, hit.view.key, hit.view.key_bytes))) {
			log_error("version %llu of '%.*s' is lost: its record is damaged",
				  (unsigned long long)hit.view.seq, (int)hit.view.key_bytes,
				  (const char *)hit.view.key);
		}
	}
}

// Does the plan stand? Otherwise the log says why.
static bool verifies(const struct kvd *kvd, const struct kvs_adopt *plan, int result,
		     bool has_store)
{
	if (result != 0) {
		say_refused(kvd, plan->why);
		return false;
	}
	if (plan->damaged_count > 0 && has_store) {
		log_error("%llu entries of the table are damaged",
			  (unsigned long long)plan->damaged_count);
		say_refused(kvd, "it is damaged");
		return false;
	}
	if (plan->damaged_count > 0) {
		say_lost(plan);
		log_error("%llu keys are lost: their records, or their entries in the table, are "
			  "damaged; all others are taken over",
			  (unsigned long long)plan->damaged_count);
	}
	return true;
}

// Values that are in the store alone. It serves them as before where this life goes on in place;
// a new region is loaded from it as after any start, since it has everything then. Where there is
// another store, or none, nothing of it can be had here.
static int look_at_stubs(const struct kvd *kvd, const struct kvs_adopt *plan, struct store *store,
			 struct service_adoption *adoption, char *why, size_t why_bytes)
{
	unsigned long long stubs = plan->stubs;
	if (store == NULL) {
		(void)snprintf(why, why_bytes,
			       "%llu values of the life before are in %s/store alone, which "
			       "--persist memory does not read: start with another policy; the "
			       "region stays kept",
			       stubs, kvd->config.dir);
		return EX_OSERR; // not one that a keeper takes for lasting
	}
	if (adoption->store_is_damaged || adoption->fill_store) {
		// Their numbers are not used again: a place means one record, or nothing.
		store_skip_blocks(store, plan->last_block + 1);
	}
	if (adoption->fill_store) {
		log_error("%llu values of the life before were in a store alone that is not in %s "
			  "any more: they are lost, and their keys are answered with an error, "
			  "unless kvd is stopped before anything is written and that store is "
			  "brought back",
			  stubs, kvd->config.dir);
	}
	if (adoption->way != SERVICE_ADOPT_READ_OUT || adoption->store_is_damaged ||
	    adoption->fill_store) {
		return 0;
	}
	if (service_save(kvd, plan, store, &adoption->lost) != STORE_OK) {
		(void)snprintf(why, why_bytes, "%s", store_why(store));
		return EX_OSERR; // as below
	}
	LOG_AT(LOG_LEVEL_NOTICE,
	       "the region of the life before is not read out: %s, and %llu values are in the "
	       "store alone; the store, which has everything, is read instead",
	       adoption->why, stubs);
	adoption->way = SERVICE_ADOPT_NOTHING;
	return 0;
}

// More than the new region holds: from the store, which has everything by now, comes what fits.
static void leave_too_much(const struct kvd *kvd, const struct kvs_adopt *plan,
			   struct service_adoption *adoption)
{
	uint64_t memory_bytes = config_memory_bytes(&kvd->config);
	if (kvd->config.when_full != CONFIG_WHEN_FULL_REJECT &&
	    plan->live_bytes > memory_bytes - memory_bytes / ADOPT_SPARE_SHARE) {
		LOG_AT(LOG_LEVEL_NOTICE,
		       "the region of the life before is not read out: %s, and its %llu bytes are "
		       "more than memory has room for; the store is read instead",
		       adoption->why, (unsigned long long)plan->live_bytes);
		adoption->way = SERVICE_ADOPT_NOTHING;
	}
}

int service_adopt_look(struct kvd *kvd, struct kvs_region *region, struct store *store,
		       struct service_adoption *adoption, struct kvs_adopt *plan, char *why,
		       size_t why_bytes)
{
	uint64_t durable_seq = UINT64_MAX;
	uint64_t first_block = 0;
	uint64_t next_block = UINT64_MAX;
	const char *refused = store != NULL ? compare_store(region, store, adoption) : NULL;
	bool is_damaged = adoption->store_is_damaged;
	bool has_store = store != NULL && !adoption->fill_store && !is_damaged;
	memset(plan, 0, sizeof(*plan));
	if (refused != NULL) {
		say_refused(kvd, refused);
		adoption->way = SERVICE_ADOPT_NOTHING;
		return 0;
	}
	if (has_store) {
		struct store_facts facts;
		store_facts(store, &facts);
		durable_seq = facts.durable_seq;
		first_block = facts.oldest_block;
		next_block = facts.next_block;
	} else if (is_damaged && !adoption->fill_store) {
		durable_seq = kvs_load_acquire(&region->header->marks.durable_seq);
	}
	int result = kvs_adopt_plan_beside(plan, region, durable_seq, first_block, next_block);
	if (result == -ENOMEM) {
		(void)snprintf(why, why_bytes,
			       "out of memory while looking at the region of the life before; %s; "
			       "it stays kept, and kvd can be started again",
			       remedy_of_errno(ENOMEM));
		return EX_OSERR;
	}
	if (!verifies(kvd, plan, result, has_store || is_damaged)) {
		adoption->way = SERVICE_ADOPT_NOTHING;
		if (plan->has_tail && !is_damaged) {
			service_salvage(kvd, plan, store, &adoption->lost);
		}
		return 0;
	}
	adoption->lost += plan->damaged_count;
	if (plan->stubs > 0) {
		int code = look_at_stubs(kvd, plan, store, adoption, why, why_bytes);
		if (code != 0 || adoption->way == SERVICE_ADOPT_NOTHING) {
			return code;
		}
	}
	if (is_damaged) {
		log_error("%s; the region of the life before has all that was in it",
			  store_why(store));
	}
	if (adoption->way == SERVICE_ADOPT_READ_OUT && has_store) {
		if (service_save(kvd, plan, store, &adoption->lost) != STORE_OK) {
			(void)snprintf(why, why_bytes, "%s", store_why(store));
			return EX_OSERR; // not one that a keeper takes for lasting: it has the data
		}
		leave_too_much(kvd, plan, adoption);
	}
	return 0;
}

void service_adopt_keep(struct kvd *kvd, const struct kvs_region *region,
			const struct service_adoption *adoption)
{
	const char *name = adopt_names[0];
	if (!fdstore_offered(kvd->fdstore)) {
		return;
	}
	if (adoption->way == SERVICE_ADOPT_IN_PLACE) {
		name = adoption->name;
	} else {
		name = adoption->name == adopt_names[0] ? adopt_names[1] : adopt_names[0];
		fdstore_drop(kvd->fdstore, name); // what is of no use, if anything
	}
	(void)fdstore_keep(kvd->fdstore, name, region->fd);
}

void service_adopt_kept(struct kvd *kvd, const struct service_adoption *adoption)
{
	bool first = adoption->name == adopt_names[0];
	if (fdstore_offered(kvd->fdstore)) {
		bool drop_first = first != (adoption->way == SERVICE_ADOPT_IN_PLACE);
		fdstore_drop(kvd->fdstore, adopt_names[drop_first ? 0 : 1]);
	}
}

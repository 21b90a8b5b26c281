// SPDX-License-Identifier: MIT
//
// What a life costs: one commit when it begins, which also takes back the word that the last one
// ended in order, and one when it ends, which gives it. A kvd that is killed has given none: then
// the next cannot know which versions were handed out, and leaves a gap; or it goes on in the same
// region, which tells, and has nothing to begin.
#include "daemon/service_persist.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/cold.h"
#include "daemon/generation.h"
#include "daemon/keyspace.h"
#include "daemon/keyspace_cold.h"
#include "daemon/keyspace_create.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/notify.h"
#include "daemon/persist.h"
#include "daemon/readers.h"
#include "daemon/remedy.h"
#include "daemon/service_adopt.h"
#include "daemon/service_recover.h"
#include "daemon/session_fetch.h"
#include "daemon/storage/store.h"
#include "shm/log.h"
#include "shm/region.h"

bool service_persist_is_on(const struct kvd *kvd)
{
	return kvd->config.persist_policy != PERSIST_MEMORY;
}

// A life that ends without a commit must not be repeated by the next.
static int begin_life(const struct kvd *kvd, struct store *store)
{
	store_set_instance(store, kvd->instance_id);
	int result = store_begin(store);
	if (result == STORE_OK) {
		result = store_commit(store, keyspace_durable_seq(kvd->keyspace));
	}
	return result;
}

// Where the store has no room for that word, kvd.gen keeps it until it has: a version beyond the
// store's last, which tells the next life that the end in the store is not that of the last one.
// Its page is there, so a full disk takes it.
static bool note_life(const struct kvd *kvd, struct generation *generation)
{
	char text[256];
	int error = generation_keep_version(generation, keyspace_last_seq(kvd->keyspace) + 1);
	if (error != 0) {
		log_error("%s/kvd.gen: %s", kvd->config.dir,
			  strerror_r(-error, text, sizeof(text)));
	}
	return error == 0;
}

// Does the store say that this life goes on? All that begin_life() would write is there then.
static bool is_of_life(const struct kvd *kvd, const struct store *store)
{
	struct store_facts facts;
	store_facts(store, &facts);
	return facts.instance_id == kvd->instance_id && !facts.ended;
}

int service_persist_start(struct kvd *kvd, struct store *store, struct kvs_region *region,
			  struct generation *generation, const struct service_adoption *adoption,
			  char *why, size_t why_bytes)
{
	const struct config *config = &kvd->config;
	bool goes_on = adoption->way == SERVICE_ADOPT_IN_PLACE;
	bool renew = adoption->store_is_damaged && !adoption->fill_store;
	bool is_begun = renew || (goes_on && is_of_life(kvd, store));
	int begun = is_begun ? STORE_OK : begin_life(kvd, store);
	bool may_wait = goes_on && begun == STORE_NO_SPACE; // the region has everything
	if (begun != STORE_OK && !(may_wait && note_life(kvd, generation))) {
		(void)snprintf(why, why_bytes, "%s", store_why(store));
		return service_store_exit_code(begun);
	}
	if (config->keep_failed_store == 1) {
		store_keep_failed(store);
	}
	const struct kvs_log *log = keyspace_log(kvd->keyspace);
	struct persist_options options = {
		.policy = (enum persist_policy)config->persist_policy,
		.lazy_ms = config->lazy_ms,
		.lazy_bytes = config->lazy_bytes,
		.group_delay_us = config->group_delay_us,
		.compact_ratio_percent = config->compact_ratio_percent,
		.compact_floor_bytes = config->compact_floor_bytes,
		.seam = kvd->seam,
		.store = store,
		.log = log,
		.map = keyspace_map(kvd->keyspace),
		.slot = readers_own_slot(kvd->readers),
		.region_base = region->base,
		.start_position = keyspace_unpersisted_position(kvd->keyspace),
		.wake_fd = loop_wake_fd(kvd->loop),
		.collect_moves = true,
		.find_places = keyspace_stubs_astray(kvd->keyspace) > 0,
		.begin_why = begun != STORE_OK ? store_why(store) : NULL,
		.renew_why = renew ? store_why(store) : NULL,
	};
	int error = persist_start(&kvd->persist, &options);
	if (error != 0) {
		(void)snprintf(why, why_bytes, "cannot start the persister: %s; %s",
			       strerror(-error), remedy_of_errno(-error));
		return EX_OSERR;
	}
	error = cold_start(&kvd->cold, kvd, store, session_fetch_ready);
	if (error != 0) {
		(void)snprintf(why, why_bytes, "cannot start the threads that read values: %s; %s",
			       strerror(-error), remedy_of_errno(-error));
		(void)service_persist_stop(kvd, store);
		return EX_OSERR;
	}
	keyspace_set_fetch(kvd->keyspace, session_fetch_value, kvd);
	keyspace_set_judged(kvd->keyspace, persist_judged(kvd->persist));
	// The interval that the policy leaves has passed in the life before.
	persist_request(kvd->persist, keyspace_last_seq(kvd->keyspace));
	return 0;
}

// What is not on the disk when kvd ends.
static int say_lost(const struct kvd *kvd, int result, const char *why)
{
	unsigned long long durable_seq = keyspace_durable_seq(kvd->keyspace);
	if (result == STORE_GONE) {
		log_error(
			"the last commit failed: %s; what kvd served is not in its store any more",
			why);
	} else {
		log_error("the last commit failed: %s; writes since version %llu are lost", why,
			  durable_seq);
	}
	return EX_IOERR;
}

// Without this word the next life only leaves a gap: a failure is no more than a line in the log.
static void end_life(const struct kvd *kvd, struct store *store)
{
	int result = store_begin(store);
	if (result == STORE_OK) {
		result = store_commit_last(store, keyspace_last_seq(kvd->keyspace));
	}
	if (result != STORE_OK) {
		LOG_AT(LOG_LEVEL_NOTICE,
		       "all is durable, but not that kvd ended in order: %s; the next start leaves "
		       "a gap in the versions",
		       store_why(store));
	}
}

int service_persist_stop(struct kvd *kvd, struct store *store)
{
	if (kvd->persist == NULL) {
		return 0;
	}
	char why[512];
	keyspace_set_judged(kvd->keyspace, NULL);
	int result = persist_stop(kvd->persist, why, sizeof(why));
	kvd->persist = NULL;
	bool is_durable = keyspace_durable_seq(kvd->keyspace) == keyspace_last_seq(kvd->keyspace);
	if (result == STORE_NO_SPACE && is_durable) {
		log_notice("the store has no room for a word of this life, and needs none: all is "
			   "durable (%s)",
			   why);
		return 0;
	}
	if (result != STORE_OK) {
		return say_lost(kvd, result, why);
	}
	if (is_durable) {
		end_life(kvd, store);
	}
	return 0;
}

void service_persist_watch(struct kvd *kvd, enum service_persist_said *said)
{
	const char *why = NULL;
	enum service_persist_said now = SERVICE_STORE_GOOD;
	enum persist_state state = persist_state(kvd->persist, &why);
	if (state == PERSIST_STATE_FAILED) {
		now = SERVICE_STORE_FAILED;
	} else if (state == PERSIST_STATE_DEGRADED) {
		now = persist_uncompacted(kvd->persist) ? SERVICE_STORE_GROWS
							: SERVICE_STORE_UNWRITABLE;
	}
	if (now == *said) {
		return;
	}
	enum service_persist_said before = *said;
	*said = now;
	if (now == SERVICE_STORE_UNWRITABLE) {
		log_error("DEGRADED: %s/store cannot be written: %s; writes stay visible, none is "
			  "durable until this passes; kvd tries again by itself",
			  kvd->config.dir, why ? why : "unknown");
		notify_status("degraded: the store cannot be written");
		return;
	}
	if (now == SERVICE_STORE_FAILED) {
		log_error("FAILED: %s/store is not trusted any more: %s; writes stay visible, none "
			  "is durable until kvd has written the store anew from memory, which it "
			  "tries by itself",
			  kvd->config.dir, why ? why : "unknown");
		notify_status("failed: the store is to be written anew");
		return;
	}
	if (before == SERVICE_STORE_FAILED ||
	    (before == SERVICE_STORE_GROWS && now == SERVICE_STORE_GOOD)) {
		log_notice("the store in %s was written anew from memory, and read back: all is "
			   "durable up to version %llu",
			   kvd->config.dir,
			   (unsigned long long)keyspace_durable_seq(kvd->keyspace));
		notify_status("serving");
	}
	if (before == SERVICE_STORE_UNWRITABLE) {
		log_notice("the store in %s can be written again: everything is durable up to now",
			   kvd->config.dir);
		notify_status("serving");
	}
	if (now == SERVICE_STORE_GROWS) {
		log_error("DEGRADED: %s/store is not compacted any more: %s; what is written is "
			  "durable, and the file grows; kvd cannot start with this store, so it "
			  "writes it anew from memory, which it tries by itself",
			  kvd->config.dir, why ? why : "unknown");
		notify_status("degraded: the store is damaged and grows");
	}
}

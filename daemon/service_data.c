// SPDX-License-Identifier: MIT
//
// Where the data of a life comes from: the region of the life before, taken over or read out, or
// the store. And the step by which this life's region becomes the one that serves.
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/keyspace.h"
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_sums.h"
#include "daemon/log.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/service_parts.h"
#include "daemon/service_read_out.h"
#include "daemon/service_recover.h"
#include "daemon/service_region.h"
#include "daemon/storage/store.h"

static int create_region(struct service *service)
{
	return service_region_create(&service->kvd, &service->region, service->why,
				     sizeof(service->why));
}

static void open_epochs(struct service *service)
{
	struct kvs_region_header *header = service->region.header;
	kvs_epoch_init(&service->epochs, &header->hot,
		       (header->flags & KVS_HEADER_READERS_FENCE) != 0);
}

int service_start_region(struct service *service)
{
	int code = service_adopt_open(&service->kvd, &service->region, &service->generation.now,
				      &service->adoption, service->why, sizeof(service->why));
	if (code == 0 && service->adoption.way == SERVICE_ADOPT_NOTHING) {
		code = create_region(service);
	}
	if (code == 0) {
		open_epochs(service);
	}
	return code;
}

void service_stop_region(struct service *service)
{
	kvs_epoch_fini(&service->epochs);
	kvs_region_close(&service->region);
	kvs_region_close(&service->kept);
}

static int open_store(struct service *service, bool is_known)
{
	return service_store_open(&service->kvd, &service->store, is_known, &service->store_is_new,
				  &service->adoption.store_is_damaged, service->why,
				  sizeof(service->why));
}

// What a kvd had open that left its region is as good as it was then, if it is this folder's.
int service_start_store(struct service *service)
{
	bool is_known = service->adoption.way != SERVICE_ADOPT_NOTHING &&
			service->region.header->generation == service_generation(service);
	return service_is_persisted(service) ? open_store(service, is_known) : 0;
}

void service_stop_store(struct service *service)
{
	store_close(service->store);
	service->store = NULL;
}

// The kept region goes, a new one comes, and the store will be read: so it is looked at first.
static int replace_region(struct service *service)
{
	service_stop_region(service);
	int code = create_region(service);
	if (code == 0) {
		open_epochs(service);
	}
	if (code == 0 && service->store != NULL) {
		service_stop_store(service);
		code = open_store(service, false);
	}
	return code;
}

// The kept region is read out into a new one (start_load()).
static int accompany_region(struct service *service)
{
	kvs_epoch_fini(&service->epochs);
	service->kept = service->region;
	service->plan.region = &service->kept;
	int code = create_region(service);
	if (code == 0) {
		open_epochs(service);
	}
	return code;
}

// Decides what becomes of the kept region, if there is one.
static int settle_region(struct service *service)
{
	struct service_adoption *adoption = &service->adoption;
	if (adoption->way == SERVICE_ADOPT_NOTHING) {
		return 0;
	}
	int code = service_adopt_look(&service->kvd, &service->region, service->store, adoption,
				      &service->plan, service->why, sizeof(service->why));
	SEAM_CRASH(start_looked);
	if (code == 0 && adoption->way == SERVICE_ADOPT_NOTHING) {
		kvs_adopt_fini(&service->plan);
		code = replace_region(service);
	} else if (code == 0 && adoption->way == SERVICE_ADOPT_READ_OUT) {
		code = accompany_region(service);
	}
	return code;
}

int service_start_keyspace(struct service *service)
{
	const struct config *config = &service->kvd.config;
	int code = settle_region(service);
	if (code != 0) {
		kvs_adopt_fini(&service->plan);
		return code;
	}
	service->region.memory_bytes = config_memory_bytes(config); // maxmemory, if there is one
	struct keyspace_options options = {
		.seam = service->kvd.seam,
		.region = &service->region,
		.epochs = &service->epochs,
		.persisted = service_is_persisted(service),
		.block_on_stuck = config->on_stuck == 1,
		.revoke_ms = config->revoke_ms,
		.revoke_min_ms = config->revoke_min_ms,
		.value_bytes_max = config->value_bytes_max,
		.reseed_interval_ms = config->reseed_ms,
		.memory_return_ms = config->memory_return_ms,
		.lookup_seed = service->kvd.lookup_seed,
		.prefault = config_prefaults(config),
		.zero_freed = config->zero_freed == 1,
	};
	if (service->adoption.way == SERVICE_ADOPT_IN_PLACE) {
		kvs_epoch_hold(&service->epochs, &service->region.header->adoptions);
		service->kvd.keyspace = keyspace_adopt(&options, &service->plan);
	} else {
		service->kvd.keyspace = keyspace_create(&options);
	}
	if (service->kvd.keyspace == NULL) {
		kvs_adopt_fini(&service->plan);
		(void)snprintf(service->why, sizeof(service->why),
			       "out of memory while building the table: this machine cannot give "
			       "kvd the first pages of --memory %llu",
			       (unsigned long long)config->memory_bytes);
		return EX_OSERR;
	}
	keyspace_tell_damage(service->kvd.keyspace, &service->kvd.damage);
	keyspace_lose_unnamed(service->kvd.keyspace, service->adoption.lost);
	return 0;
}

void service_stop_keyspace(struct service *service)
{
	keyspace_sums_end(service->sums);
	keyspace_destroy(service->kvd.keyspace);
	kvs_adopt_fini(&service->plan);
}

static void say_taken_over(const struct kvd *kvd)
{
	uint64_t last_seq = keyspace_last_seq(kvd->keyspace);
	LOG_AT(LOG_LEVEL_NOTICE,
	       "took over %llu keys of the life before in %llu ms, %llu versions are not durable "
	       "yet",
	       (unsigned long long)keyspace_count(kvd->keyspace),
	       (unsigned long long)(kvd->seam->monotonic_ns() - kvd->started_ns) / 1000000,
	       (unsigned long long)(last_seq - keyspace_durable_seq(kvd->keyspace)));
}

// From the kept region; the store follows if it is not where the region was.
static int load_kept(struct service *service)
{
	struct kvd *kvd = &service->kvd;
	const struct service_adoption *adoption = &service->adoption;
	int code = 0;
	if (adoption->way == SERVICE_ADOPT_IN_PLACE) {
		say_taken_over(kvd);
	} else {
		code = service_read_out(kvd, &service->kept, &service->plan, adoption->why,
					service->why, sizeof(service->why));
		kvs_region_close(&service->kept);
	}
	kvs_adopt_fini(&service->plan);
	if (code == 0 && adoption->fill_store) {
		code = service_fill_store(kvd, service->store, adoption->leave_store, service->why,
					  sizeof(service->why));
	}
	return code;
}

static int load_store(struct service *service)
{
	struct kvd *kvd = &service->kvd;
	uint64_t lives = service_generation(service);
	if (service->store_is_new && lives > 0) {
		log_warning("%s has been served %llu times before, and %s/store is new or empty: "
			    "if data is missing, stop kvd and bring the store back from a backup",
			    kvd->config.dir, (unsigned long long)lives, kvd->config.dir);
	}
	// With a kept region, even one of no use, kvd stops as it always does: in order, so that
	// whoever kept it knows that all is done.
	bool heeds_stop = !service->adoption.was_given;
	return service_recover(kvd, service->store, !service->store_is_new,
			       service->generation.now.version, heeds_stop, service->why,
			       sizeof(service->why));
}

int service_start_load(struct service *service)
{
	struct kvd *kvd = &service->kvd;
	if (service->adoption.way != SERVICE_ADOPT_NOTHING) {
		return load_kept(service);
	}
	if (service_is_persisted(service)) {
		return load_store(service);
	}
	// No store tells which versions earlier lives handed out.
	uint64_t last_seq = service->generation.now.version;
	(void)keyspace_recover_finish(kvd->keyspace, last_seq, service_generation(service) != 0);
	// Before the first reply: this life may end before the first turn does.
	generation_note_version(&service->generation, keyspace_last_seq(kvd->keyspace));
	if (service_store_exists(kvd->config.dir)) {
		log_warning("%s/store holds data that --persist memory neither reads nor updates: "
			    "a later start with another policy will serve it again",
			    kvd->config.dir);
	}
	return 0;
}

int service_begin(struct service *service)
{
	// Readers of an older region, or life, learn of this one before anybody can get a reply,
	// and not before their calls find a socket to queue at.
	bool is_in_place = service->adoption.way == SERVICE_ADOPT_IN_PLACE;
	bool is_next = !is_in_place || service_generation(service) == 0;
	struct kvs_region_header *header = service->region.header;
	uint64_t flags = header->flags & ~(uint64_t)KVS_HEADER_STORELESS;
	flags |= service_is_persisted(service) ? 0 : KVS_HEADER_STORELESS;
	kvs_store_relaxed(&header->flags, flags); // readers look at another of them
	header->generation = service_generation(service) + is_next;
	kvs_region_go_alive(&service->region);
	service_adopt_keep(&service->kvd, &service->region, &service->adoption);
	SEAM_CRASH(region_kept);
	if (is_in_place) {
		kvs_epoch_adopt(&service->epochs, service->kvd.seam->monotonic_ns());
	}
	int error = generation_serve(&service->generation, header->instance_id, is_next);
	if (error != 0) {
		(void)snprintf(service->why, sizeof(service->why),
			       "cannot write %s/kvd.gen: %s; %s", service->kvd.config.dir,
			       strerror(-error), remedy_of_errno(-error));
		return remedy_exit_code(-error);
	}
	SEAM_CRASH(adoption_begun);
	service_adopt_kept(&service->kvd, &service->adoption);
	service->sums = is_in_place ? keyspace_sums_begin(service->kvd.keyspace) : NULL;
	return 0;
}

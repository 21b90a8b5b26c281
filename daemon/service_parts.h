// SPDX-License-Identifier: MIT
//
// The object behind service.h, for the files that start and stop its parts: service.c has them in
// their order, service_data.c those that the data of a life comes from.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/clock_watch.h"
#include "daemon/folder_watch.h"
#include "daemon/generation.h"
#include "daemon/kvd.h"
#include "daemon/presence.h"
#include "daemon/service_adopt.h"
#include "daemon/service_persist.h"
#include "daemon/watchdog.h"
#include "shm/adopt.h"
#include "shm/atomics.h"
#include "shm/epoch_scan.h"
#include "shm/region.h"

struct keyspace_sums;

struct service {
	struct kvd kvd;
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct generation generation;
	struct presence *presence; // in the region that serves
	struct store *store;
	struct kvs_adopt plan;
	struct service_adoption adoption; // of the region of the life before
	struct kvs_region kept;		  // it, while it is read out into the new one
	struct folder_watch folder_watch;
	uint64_t remade_seen; // of the data folder
	char remake_why[512]; // why it could not be, as logged last
	int stop_code;
	bool store_is_new;		// nothing was there to recover from
	enum service_persist_said said; // of the store, in the log
	struct watchdog watchdog;
	struct clock_watch clock_watch;
	bool moves_wait;	 // to be told, in the next turn
	struct keyspace_sums *sums; // of a region that was taken over; NULL = none, or all are good
	uint64_t sums_next_ns;
	uint64_t noticed_seq;	 // last seq the persister was told of
	char why[1024];		 // of a step that failed
};

static inline bool service_is_persisted(const struct service *service)
{
	return service_persist_is_on(&service->kvd);
}

/// What kvd.gen says now.
static inline uint64_t service_generation(const struct service *service)
{
	return service->generation.now.generation;
}

// Steps of starting and stopping, as in service.c.
int service_start_region(struct service *service);
void service_stop_region(struct service *service);
int service_start_store(struct service *service);
void service_stop_store(struct service *service);
int service_start_keyspace(struct service *service);
void service_stop_keyspace(struct service *service);
int service_start_load(struct service *service);
int service_start_memory(struct service *service);

/// Makes the region the one that serves: for the keeper, and for readers of an older one, or of an
/// earlier life. Call with: all loaded, a socket to queue at, the store's life begun. Returns 0, or
/// an exit code with service->why filled.
int service_begin(struct service *service);

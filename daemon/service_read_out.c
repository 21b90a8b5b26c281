// SPDX-License-Identifier: MIT
//
// From a kept region into a new one: the old one is taken over in a private copy, by the same plan
// and with the same end as if it went on serving, and then each of its keys is loaded as from a
// store. And from memory into the store, when that has nothing of it: as a whole, in place of what
// stood there, so that a start that is cut short leaves what was.
#include "daemon/service_read_out.h"

#include <errno.h>
#include <stdio.h>
#include <sysexits.h>

#include "daemon/keyspace.h"
#include "daemon/keyspace_create.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/region_walk.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/service_persist.h"
#include "daemon/storage/store.h"
#include "shm/adopt.h"
#include "shm/epoch_scan.h"
#include "shm/region.h"
#include "shm/table.h"

#define FILL_COMMIT_BYTES (UINT64_C(64) << 20) // of records, in one transaction

// The old keyspace, in the private copy; NULL if memory is short.
static struct keyspace *adopt_private(const struct kvd *kvd, struct kvs_region *from,
				      struct kvs_epoch_domain *epochs, struct kvs_adopt *plan)
{
	const struct keyspace_options options = {
		.seam = kvd->seam,
		.region = from,
		.epochs = epochs,
		.persisted = service_persist_is_on(kvd),
		.revoke_ms = kvd->config.revoke_ms,
		.revoke_min_ms = kvd->config.revoke_min_ms,
		.value_bytes_max = kvd->config.value_bytes_max,
		.reseed_interval_ms = kvd->config.reseed_ms,
		.lookup_seed = kvd->lookup_seed,
	};
	kvs_epoch_init(epochs, &from->header->hot, true);
	return keyspace_adopt(&options, plan);
}

static int say_no_room(const struct kvd *kvd, char *why, size_t why_bytes)
{
	const struct config *config = &kvd->config;
	uint64_t left_bytes = keyspace_recover_left(kvd->keyspace);
	uint64_t bytes = keyspace_live_bytes(kvd->keyspace) + left_bytes;
	if (left_bytes == 0) {
		(void)snprintf(why, why_bytes,
			       "out of memory after %llu keys of the life before: this machine "
			       "cannot give kvd what the data takes twice, while readers still "
			       "have the old region; %s",
			       (unsigned long long)keyspace_count(kvd->keyspace),
			       remedy_of_errno(ENOMEM));
	} else {
		(void)snprintf(why, why_bytes,
			       "the data of the life before does not fit --memory %llu bytes: it "
			       "is %llu bytes; start with --memory %lluMiB or more",
			       (unsigned long long)config_memory_bytes(config),
			       (unsigned long long)bytes,
			       (unsigned long long)((bytes + bytes / 4) >> 20) + 1);
	}
	return EX_OSERR;
}

int service_read_out(struct kvd *kvd, struct kvs_region *from, struct kvs_adopt *plan,
		     const char *because, char *why, size_t why_bytes)
{
	uint64_t began_ns = kvd->seam->monotonic_ns();
	struct kvs_epoch_domain epochs;
	struct keyspace *old = adopt_private(kvd, from, &epochs, plan);
	int result = KEYSPACE_FULL;
	uint64_t damaged = 0;
	if (old != NULL) {
		keyspace_writers_copy(kvd->keyspace, old);
		result = keyspace_read_out(kvd->keyspace, old, &damaged);
		keyspace_destroy(old);
	}
	kvs_epoch_fini(&epochs);
	if (result != KEYSPACE_OK || keyspace_recover_left(kvd->keyspace) > 0) {
		return say_no_room(kvd, why, why_bytes);
	}
	if (damaged > 0) {
		log_error("%llu keys are lost: their records are damaged",
			  (unsigned long long)damaged);
	}
	(void)keyspace_recover_finish(kvd->keyspace, plan->last_seq, false);
	LOG_AT(LOG_LEVEL_NOTICE,
	       "read %llu keys out of the region of the life before in %llu ms: %s",
	       (unsigned long long)keyspace_count(kvd->keyspace),
	       (unsigned long long)(kvd->seam->monotonic_ns() - began_ns) / 1000000, because);
	return 0;
}

struct filling {
	const struct kvs_map *map;
	struct store *store;
	uint64_t records;
	uint64_t bytes; // of the open transaction
	int result;
};

static void fill_visit(void *context, uint64_t entry)
{
	struct filling *filling = context;
	struct kvs_hit hit;
	uint64_t place;
	if (filling->result != STORE_OK ||
	    kvs_table_load(filling->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || hit.value == NULL) {
		return;
	}
	bool large = (hit.view.flags & KVS_RECORD_LARGE) != 0;
	filling->result = store_append(filling->store, &hit.view, large ? hit.value : NULL, &place);
	filling->bytes += hit.view.record_bytes + (large ? hit.view.value_bytes : UINT64_C(0));
	filling->records++;
}

static int fill(struct filling *filling, uint64_t last_seq)
{
	struct store *store = filling->store;
	uint64_t cursor = 0;
	int result = store_begin(store);
	result = result == STORE_OK ? region_put_writers(filling->map->base, store) : result;
	do {
		cursor = kvs_table_scan(filling->map, cursor, fill_visit, filling);
		result = result == STORE_OK ? filling->result : result;
		if (result == STORE_OK && filling->bytes >= FILL_COMMIT_BYTES) {
			filling->bytes = 0;
			result = store_commit(store, 0); // whole only with the last
			result = result == STORE_OK ? store_begin(store) : result;
		}
	} while (result == STORE_OK && cursor != 0);
	return result == STORE_OK ? store_commit(store, last_seq) : result;
}

int service_fill_store(struct kvd *kvd, struct store *store, bool leave, char *why,
		       size_t why_bytes)
{
	uint64_t began_ns = kvd->seam->monotonic_ns();
	struct filling filling = { .map = keyspace_map(kvd->keyspace), .store = store };
	int result = store_renew_begin(store);
	if (result == STORE_OK) {
		result = fill(&filling, keyspace_last_seq(kvd->keyspace));
	}
	if (result == STORE_OK) {
		result = store_renew_finish(store,
					    leave ? STORE_REPLACED_STAYS : STORE_REPLACED_GOES);
	}
	if (result != STORE_OK) {
		(void)snprintf(why, why_bytes, "%s", store_why(store));
		store_renew_abandon(store);
		return EX_OSERR;
	}
	LOG_AT(LOG_LEVEL_NOTICE, "wrote %llu keys, which only memory had, to %s/store in %llu ms%s",
	       (unsigned long long)filling.records, kvd->config.dir,
	       (unsigned long long)(kvd->seam->monotonic_ns() - began_ns) / 1000000,
	       leave ? "; what stood there is beside it, in store.before-*" : "");
	return 0;
}

// SPDX-License-Identifier: MIT
//
// A keyspace comes, on an empty region or on one that others fill or take over, and goes.
#include "daemon/keyspace_create.h"

#include <stdlib.h>

#include "daemon/keyspace.h"
#include "daemon/keyspace_internal.h"
#include "daemon/prepare.h"
#include "daemon/recover_facts.h"

struct keyspace *keyspace_new(const struct keyspace_options *options)
{
	struct keyspace *keyspace = calloc(1, sizeof(*keyspace));
	if (keyspace == NULL) {
		return NULL;
	}
	keyspace->seam = options->seam;
	keyspace->region = options->region;
	keyspace->epochs = options->epochs;
	keyspace->persisted = options->persisted;
	keyspace->block_on_stuck = options->block_on_stuck;
	keyspace->zero_wanted = options->zero_freed;
	keyspace->revoke_ns = options->revoke_ms * UINT64_C(1000000);
	keyspace->revoke_min_ns = options->revoke_min_ms * UINT64_C(1000000);
	keyspace->value_bytes_limit = options->value_bytes_max;
	keyspace->value_bytes_max = options->value_bytes_max;
	keyspace->lookup_seed = options->lookup_seed;
	keyspace_set_reseed(keyspace, options->reseed_interval_ms);
	keyspace->pages_wait_ns = KEYSPACE_PAGES_WAIT_NS;
	keyspace->prefault = options->prefault;
	keyspace_set_memory_return(keyspace, options->memory_return_ms);
	keyspace->memory_bytes = options->region->memory_bytes;
	keyspace->memory_wanted_bytes = keyspace->memory_bytes;
	keyspace->cleaner.victim = KVS_SEGMENT_NONE;
	keyspace->cleaner.next_ns = UINT64_MAX;
	keyspace->expire.wheel.pool.reclaim = &keyspace->reclaim;
	keyspace_set_writer(keyspace, NULL);
	if (!kvs_limbo_init(&keyspace->limbo) || !kvs_limbo_init(&keyspace->pending)) {
		keyspace_destroy(keyspace);
		return NULL;
	}
	keyspace_tick(keyspace);
	return keyspace;
}

struct keyspace *keyspace_create(const struct keyspace_options *options)
{
	struct keyspace *keyspace = keyspace_new(options);
	if (keyspace == NULL) {
		return NULL;
	}
	if (kvs_table_init(&keyspace->table, options->region, options->epochs, &keyspace->limbo) !=
		    0 ||
	    kvs_log_init(&keyspace->log, options->region) != 0 ||
	    kvs_large_init(&keyspace->large, options->region) != 0 ||
	    !keyspace_owner_open(keyspace, false)) {
		keyspace_destroy(keyspace);
		return NULL;
	}
	keyspace->oldest_head = keyspace->log.head.segment;
	keyspace_table_label(keyspace);
	return keyspace;
}

void keyspace_destroy(struct keyspace *keyspace)
{
	if (keyspace == NULL) {
		return;
	}
	prepare_stop(keyspace->prepare);
	keyspace_batch_fini(keyspace);
	keyspace_stage_fini(keyspace);
	recover_facts_free(keyspace->recover_facts);
	wheel_fini(&keyspace->expire.wheel);
	reclaim_finish(&keyspace->reclaim);
	evict_fini(&keyspace->evict);
	free(keyspace->owners);
	kvs_large_fini(&keyspace->large);
	kvs_log_fini(&keyspace->log);
	kvs_table_fini(&keyspace->table);
	kvs_limbo_fini(&keyspace->pending);
	kvs_limbo_fini(&keyspace->limbo);
	free(keyspace);
}

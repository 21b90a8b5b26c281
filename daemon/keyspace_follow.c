// SPDX-License-Identifier: MIT
//
// What a follower holds back is what the persister would: tombstones, runs and segments wait for
// the smaller of durable_seq and the version that it has passed.
#include "daemon/keyspace_follow.h"

#include "daemon/keyspace_internal.h"

#define FOLLOW_SHARE 4u // of what records may take: half of what the persister may let wait

uint64_t keyspace_passed_seq(const struct keyspace *keyspace)
{
	uint64_t durable = keyspace_durable_seq(keyspace);
	if (keyspace->follower == NULL) {
		return durable;
	}
	// Acquire: what it read is read (partner: the follower's release).
	uint64_t passed = kvs_load_acquire(&keyspace->follower->passed_seq);
	return passed < durable ? passed : durable;
}

bool keyspace_follow(struct keyspace *keyspace, struct keyspace_follower *follower,
		     struct kvs_log_position *from, uint64_t *seq)
{
	if (keyspace->follower != NULL) {
		return false;
	}
	*from = kvs_log_published(&keyspace->log);
	*seq = keyspace_last_seq(keyspace);
	kvs_store_relaxed(&follower->passed_seq, *seq); // its thread does not run yet
	kvs_store_relaxed(&follower->give_up, 0);
	keyspace->follower = follower;
	return true;
}

void keyspace_unfollow(struct keyspace *keyspace)
{
	keyspace->follower = NULL;
	keyspace_follow_durable(keyspace);
}

void keyspace_follower_look(struct keyspace *keyspace)
{
	struct keyspace_follower *follower = keyspace->follower;
	if (follower == NULL) {
		return;
	}
	unsigned shift = keyspace->region->segment_shift;
	uint64_t segments = keyspace->log.rolls - keyspace->rolls_durable;
	uint64_t waiting = (segments << shift) + keyspace->unpersisted_large_bytes;
	uint64_t allowed = (uint64_t)kvs_log_segments_allowed(&keyspace->log) << shift;
	// Else it is the persister that is slow.
	bool its_fault = kvs_load_acquire(&follower->passed_seq) < keyspace_durable_seq(keyspace);
	if (its_fault && waiting > allowed / FOLLOW_SHARE) {
		// Relaxed: a word that stands for itself (partner: the follower, now and then).
		kvs_store_relaxed(&follower->give_up, 1);
	}
}

// SPDX-License-Identifier: MIT
//
// What follows from durability. Nothing that the persister has yet to read is reused: tombstones
// keep their entry, large runs their pages and segments their records until durable_seq has passed
// them. What a follower holds back is what the persister would: the smaller of durable_seq and the
// version that it has passed counts.
#include "daemon/keyspace_follow.h"

#include "daemon/keyspace_internal.h"

// Of what became durable so much is worked off at a time: that long, looked at every few items, but
// a share of all that wait in any case.
#define FOLLOW_NS 200000u
#define FOLLOW_ITEMS 64u
#define FOLLOW_TURNS 1024u // a million removals: a thousand in one go
#define FOLLOW_AHEAD 4u

// A removal is durable: its entry may leave the table, and its record is dead.
static void tombstone_durable(struct keyspace *keyspace, uint64_t seq, uint64_t offset)
{
	const struct kvs_map *map = &keyspace->region->map;
	uint64_t start = offset - map->ranges[KVS_RANGE_LOG].offset;
	uint64_t limit = map->segment_bytes - (start & (map->segment_bytes - 1));
	struct kvs_record_view view;
	// It is where it was: no segment is cleaned before all of it is durable.
	if (kvs_record_parse(keyspace->region->base + offset, limit, &view) != 0 ||
	    view.seq != seq) {
		return;
	}
	uint64_t hash = keyspace_hash(keyspace, view.key, view.key_bytes);
	uint64_t *slot = kvs_table_slot_of(&keyspace->table, hash, offset);
	if (slot == NULL || kvs_entry_kind(kvs_load_relaxed(slot)) != KVS_ENTRY_TOMBSTONE) {
		return; // a newer version took its place
	}
	kvs_log_live_sub(&keyspace->log, offset, view.record_bytes);
	keyspace->live_bytes -= view.record_bytes;
	kvs_table_remove(&keyspace->table, hash, slot);
}

void keyspace_await_tombstone(struct keyspace *keyspace, uint64_t seq, uint64_t offset,
			      uint32_t record_bytes)
{
	uint64_t lost = keyspace->pending.lost;
	kvs_limbo_push(&keyspace->pending, seq, KEYSPACE_PENDING_TOMBSTONE, offset, record_bytes);
	keyspace->pending_tombstone_bytes += keyspace->pending.lost == lost ? record_bytes : 0;
}

// The record of a tombstone that comes soon: it was written a commit ago, and many others since.
static void pending_prefetch(const struct keyspace *keyspace)
{
	const struct kvs_limbo *pending = &keyspace->pending;
	if (pending->count > FOLLOW_AHEAD) {
		const struct kvs_limbo_item *item = kvs_limbo_at(pending, FOLLOW_AHEAD);
		if (item->kind == KEYSPACE_PENDING_TOMBSTONE) {
			__builtin_prefetch(keyspace->region->base + item->a);
			__builtin_prefetch(keyspace->region->base + item->a +
					   sizeof(struct kvs_record));
		}
	}
}

// A slice of it: one commit may make hundreds of thousands of removals durable. But a share of all
// that wait in any case, or whoever removes keys faster would be followed ever later. Returns the
// seq up to which nothing is left.
static uint64_t pending_work_off(struct keyspace *keyspace, uint64_t durable_seq)
{
	struct kvs_limbo_item item;
	uint64_t start_ns = keyspace->seam->monotonic_ns();
	size_t share = keyspace->pending.count / FOLLOW_TURNS;
	for (size_t done = 1; kvs_limbo_pop(&keyspace->pending, durable_seq + 1, &item); done++) {
		pending_prefetch(keyspace);
		switch (item.kind) {
		case KEYSPACE_PENDING_TOMBSTONE:
			keyspace->pending_tombstone_bytes -= item.b;
			tombstone_durable(keyspace, item.stamp, item.a);
			break;
		case KEYSPACE_PENDING_RUN:
			keyspace_limbo_run(keyspace, item.a);
			break;
		default:
			keyspace->unpersisted_large_bytes -= item.a;
			break;
		}
		if (done % FOLLOW_ITEMS == 0 && done >= share &&
		    keyspace->seam->monotonic_ns() - start_ns >= FOLLOW_NS) {
			break;
		}
	}
	const struct kvs_limbo_item *next = kvs_limbo_peek(&keyspace->pending, durable_seq + 1);
	return next != NULL ? next->stamp - 1 : durable_seq;
}

bool keyspace_follow_durable(struct keyspace *keyspace)
{
	uint64_t durable_seq = keyspace_passed_seq(keyspace);
	if (durable_seq == keyspace->durable_seen && keyspace->persisted &&
	    kvs_limbo_peek(&keyspace->pending, durable_seq + 1) == NULL) {
		keyspace_follower_look(keyspace);
		return false;
	}
	uint64_t seen = pending_work_off(keyspace, durable_seq);
	// What is left keeps its segments as they are: its records must stay where they stand.
	keyspace->durable_seen = seen > keyspace->durable_seen ? seen : keyspace->durable_seen;
	const struct kvs_segment *segments = keyspace->log.segments;
	for (;;) {
		uint32_t next = segments[keyspace->oldest_head].next;
		if (next == KVS_SEGMENT_NONE || segments[next].first_seq > keyspace->durable_seen) {
			break;
		}
		keyspace->oldest_head = next;
		keyspace->rolls_durable++;
	}
	keyspace_follower_look(keyspace);
	return seen < durable_seq;
}

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
	(void)keyspace_follow_durable(keyspace);
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

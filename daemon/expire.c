// SPDX-License-Identifier: MIT
//
// The wheel's items against the table. A chunk of them is taken at a time: their records and then
// their buckets are prefetched together, for each of them is two cache misses away. An item is the
// key's own if and only if the table's entry points exactly at its place: what stands there may
// have become the middle of another record, or nothing at all, and pages that are not there are
// never touched. Among those an item whose time is not the record's is one that was left behind
// when the place was used before; the record has its own.
#include "daemon/expire.h"

#include <string.h>

#include "daemon/expire_parts.h"
#include "daemon/keyspace_internal.h"

#define EXPIRE_SORT_NS 80000u	  // of a slice
#define EXPIRE_DUE_NS 140000u	  // of a slice, while there is something to be looked through
#define EXPIRE_GAP_NS 600000u	  // between two slices
#define EXPIRE_LATE_MS 1000u	  // then there is none
#define EXPIRE_ITEMS_SPARE 16384u // so many may be out of date in any case
#define EXPIRE_CLOCK_ITEMS 8u	  // removals between two looks at the clock

struct expire_look {
	struct kvs_record_view view;
	uint64_t hash;
	uint64_t offset;
	uint64_t item;
	bool there; // something that reads as a record is
};

// Does a record stand at the item's place? Only of segments in use, as far as they are written.
static const unsigned char *place_of(const struct keyspace *keyspace, uint64_t item,
				     uint64_t *offset, uint64_t *limit)
{
	const struct kvs_log *log = &keyspace->log;
	*offset = wheel_item_place(item) * 8;
	uint64_t start = log->region->map.ranges[KVS_RANGE_LOG].offset;
	if (*offset < start ||
	    (*offset - start) >> log->region->segment_shift >= log->touched_count) {
		return NULL;
	}
	uint32_t index = kvs_log_segment_of(log, *offset);
	const struct kvs_segment *segment = &log->segments[index];
	if (segment->state != KVS_SEGMENT_HEAD && segment->state != KVS_SEGMENT_SURVIVOR) {
		return NULL;
	}
	uint64_t used = index == log->head.segment ? log->head.offset : segment->used_bytes;
	uint64_t within = *offset - kvs_region_segment_offset(log->region, index);
	if (within >= used) {
		return NULL;
	}
	*limit = used - within;
	return log->region->base + *offset;
}

// Reads what stands at the places of a chunk, and asks for the buckets.
static void read_chunk(const struct keyspace *keyspace, const struct wheel_chunk *chunk,
		       struct expire_look look[WHEEL_CHUNK_ITEMS])
{
	uint64_t offset, limit;
	for (uint32_t i = 0; i < chunk->count; i++) {
		const unsigned char *at = place_of(keyspace, chunk->items[i], &offset, &limit);
		if (at != NULL) {
			__builtin_prefetch(at);
			__builtin_prefetch(at + sizeof(struct kvs_record));
		}
	}
	for (uint32_t i = 0; i < chunk->count; i++) {
		const unsigned char *at = place_of(keyspace, chunk->items[i], &offset, &limit);
		look[i].item = chunk->items[i];
		look[i].offset = offset;
		look[i].there = at != NULL && kvs_record_parse(at, limit, &look[i].view) == 0 &&
				wheel_item_agrees(look[i].item, look[i].view.expiry_ms) &&
				look[i].view.expiry_ms != 0 &&
				look[i].view.key_bytes <= KVS_KEY_BYTES_MAX;
		if (look[i].there) {
			look[i].hash =
				keyspace_hash(keyspace, look[i].view.key, look[i].view.key_bytes);
			kvs_table_prefetch_bucket(&keyspace->region->map, look[i].hash);
		}
	}
}

// Is the item its key's own? Asked right before it counts: whatever was done since read_chunk() may
// have moved the record, and then what was read may be gone.
static bool is_current(const struct keyspace *keyspace, const struct expire_look *look)
{
	if (!look->there) {
		return false;
	}
	uint64_t *slot = kvs_table_slot_of(&keyspace->table, look->hash, look->offset);
	return slot != NULL && kvs_entry_kind(kvs_load_relaxed(slot)) != KVS_ENTRY_TOMBSTONE;
}

static void put_anew(struct keyspace *keyspace, const struct expire_look *look)
{
	if (!wheel_put(&keyspace->expire.wheel, look->offset / 8, look->view.expiry_ms,
		       keyspace->now_ms)) {
		expire_lose(keyspace);
	}
}

// Logs that the key's time has come. False if that is not possible now.
static bool remove_key(struct keyspace *keyspace, const struct expire_look *look)
{
	// Aside: making room for the removal may move the record.
	unsigned char key[KVS_KEY_BYTES_MAX];
	memcpy(key, look->view.key, look->view.key_bytes);
	return keyspace_expire_now(keyspace, look->hash, key, look->view.key_bytes);
}

// Works off one chunk of what is due. False if the slice is over.
static bool due_chunk(struct keyspace *keyspace, uint64_t until_ns)
{
	struct wheel *wheel = &keyspace->expire.wheel;
	struct wheel_chunk *chunk = wheel_take(wheel, WHEEL_DUE);
	struct expire_look look[WHEEL_CHUNK_ITEMS];
	bool over = chunk == NULL;
	if (chunk == NULL) {
		return false;
	}
	read_chunk(keyspace, chunk, look);
	uint32_t i = 0;
	for (; i < chunk->count && !over; i++) {
		if (is_current(keyspace, &look[i])) {
			if (look[i].view.expiry_ms > keyspace->now_ms) {
				put_anew(keyspace, &look[i]);
			} else if (!remove_key(keyspace, &look[i])) {
				keyspace->expire.blocked = true;
				break;
			}
		}
		over = (i + 1) % EXPIRE_CLOCK_ITEMS == 0 &&
		       keyspace->seam->monotonic_ns() >= until_ns;
	}
	wheel_put_back(wheel, WHEEL_DUE, chunk, i);
	return !over && !keyspace->expire.blocked && keyspace->seam->monotonic_ns() < until_ns;
}

// Looks through one chunk: drops what is out of date, and puts the rest where it belongs.
static bool look_chunk(struct keyspace *keyspace, uint64_t until_ns)
{
	struct wheel *wheel = &keyspace->expire.wheel;
	struct wheel_chunk *chunk = wheel_take(wheel, WHEEL_LOOK);
	struct expire_look look[WHEEL_CHUNK_ITEMS];
	if (chunk == NULL) {
		return false;
	}
	read_chunk(keyspace, chunk, look);
	for (uint32_t i = 0; i < chunk->count; i++) {
		if (is_current(keyspace, &look[i])) {
			put_anew(keyspace, &look[i]);
		}
	}
	wheel_drop(wheel, chunk);
	return keyspace->seam->monotonic_ns() < until_ns;
}

static bool sort_chunk(struct keyspace *keyspace, uint64_t until_ns)
{
	if (!wheel_has(&keyspace->expire.wheel, WHEEL_SORT)) {
		return false;
	}
	if (!wheel_sort(&keyspace->expire.wheel, keyspace->now_ms)) {
		expire_lose(keyspace);
	}
	return keyspace->seam->monotonic_ns() < until_ns;
}

static uint64_t items_allowed(const struct keyspace *keyspace, uint64_t times)
{
	return times * keyspace->keys_with_expiry + EXPIRE_ITEMS_SPARE;
}

// Begins a sweep, or goes on with it, if too many items are out of date.
static void sweep_turn(struct keyspace *keyspace)
{
	struct expire *expire = &keyspace->expire;
	uint64_t items = expire->wheel.items;
	expire->swept_items = items < expire->swept_items ? items : expire->swept_items;
	uint64_t allowed = items_allowed(keyspace, 2);
	uint64_t swept = expire->swept_items + EXPIRE_ITEMS_SPARE / 2;
	expire->items_bound = allowed > swept ? allowed : swept;
	if (!expire->sweeping) {
		expire->sweeping = items > expire->items_bound;
	}
	// While nothing is removed what is due waits there, and is moved with its records.
	bool still = expire->off || expire->held;
	if (expire->sweeping && !wheel_has(&expire->wheel, WHEEL_LOOK) &&
	    !wheel_sweep(&expire->wheel, still)) {
		expire->sweeping = false;
		expire->swept_items = items;
	}
}

static void wheel_work(struct keyspace *keyspace, uint64_t now_ns)
{
	struct expire *expire = &keyspace->expire;
	expire->blocked = false;
	wheel_advance(&expire->wheel, keyspace->now_ms);
	while (sort_chunk(keyspace, now_ns + EXPIRE_SORT_NS)) {
	}
	bool looks = wheel_has(&expire->wheel, WHEEL_LOOK) || expire->sweeping;
	while (due_chunk(keyspace, now_ns + (looks ? EXPIRE_DUE_NS : EXPIRE_SLICE_NS))) {
	}
	do {
		sweep_turn(keyspace);
	} while (look_chunk(keyspace, now_ns + EXPIRE_SLICE_NS));
}

uint64_t expire_wait_ns(const struct keyspace *keyspace, uint64_t time_ms)
{
	uint64_t most_ns = keyspace->expire.clock_watched ? EXPIRE_WATCHED_NS : EXPIRE_CLOCK_NS;
	uint64_t wait_ms = time_ms > keyspace->now_ms ? time_ms - keyspace->now_ms : 0;
	return wait_ms < most_ns / 1000000 ? wait_ms * 1000000 : most_ns;
}

// When the wheel wants its next slice.
static uint64_t wheel_due_ns(struct keyspace *keyspace, uint64_t now_ns)
{
	struct expire *expire = &keyspace->expire;
	uint64_t next_ms = wheel_next_ms(&expire->wheel);
	uint64_t slot_ms = UINT64_C(1) << WHEEL_SLOT_SHIFT;
	// What ends in the slot that is waited for anyway wants nothing.
	expire->soonest_ms = next_ms > slot_ms ? next_ms - slot_ms : 0;
	if (expire->blocked) {
		return now_ns + EXPIRE_RETRY_NS;
	}
	if (next_ms > 0 && !expire->sweeping) {
		return now_ns + expire_wait_ns(keyspace, next_ms);
	}
	bool late = wheel_lag_ms(&expire->wheel, keyspace->now_ms) > EXPIRE_LATE_MS ||
		    expire->wheel.items > items_allowed(keyspace, 3);
	return late ? now_ns : now_ns + EXPIRE_GAP_NS;
}

// Nothing may be removed for now. Keys are written all the same, and what that leaves out of date
// is dropped.
static uint64_t still_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct expire *expire = &keyspace->expire;
	uint64_t due_ns = expire->off ? UINT64_MAX : now_ns + EXPIRE_RETRY_NS;
	if (expire->partial && !expire->filling) {
		return due_ns;
	}
	do {
		sweep_turn(keyspace);
	} while (look_chunk(keyspace, now_ns + EXPIRE_SLICE_NS));
	if (!expire->sweeping && !wheel_has(&expire->wheel, WHEEL_LOOK)) {
		return due_ns;
	}
	return expire->wheel.items > items_allowed(keyspace, 3) ? now_ns : now_ns + EXPIRE_GAP_NS;
}

static uint64_t turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct expire *expire = &keyspace->expire;
	if (keyspace->keys_with_expiry == 0) {
		expire_forget(keyspace);
		return UINT64_MAX;
	}
	if (now_ns < expire->due_ns) {
		return expire->due_ns;
	}
	keyspace->now_ms = keyspace->seam->wall_ms(); // no command's
	if (expire->off || expire->held) {
		expire->due_ns = still_turn(keyspace, now_ns);
		return expire->due_ns;
	}
	if (!expire->partial || expire->filling) {
		wheel_work(keyspace, now_ns);
	}
	uint64_t walk_ns = expire->partial ? expire_walk_turn(keyspace, now_ns) : UINT64_MAX;
	uint64_t wheel_ns = UINT64_MAX;
	if (!expire->partial || expire->filling) {
		wheel_ns = wheel_due_ns(keyspace, now_ns);
	} else {
		expire->soonest_ms = expire->cursor == 0 ? expire->walk_soonest_ms : 0;
	}
	expire->due_ns = walk_ns < wheel_ns ? walk_ns : wheel_ns;
	return expire->due_ns;
}

uint64_t expire_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	uint64_t due_ns = turn(keyspace, now_ns);
	const struct wheel *wheel = &keyspace->expire.wheel;
	uint64_t keys = keyspace->keys_with_expiry;
	keyspace_counter_set(keyspace, KVS_COUNTER_expiry_items, wheel->items);
	keyspace_counter_set(keyspace, KVS_COUNTER_expiry_items_stale,
			     wheel->items > keys ? wheel->items - keys : 0);
	keyspace_counter_set(keyspace, KVS_COUNTER_expiry_items_sorted, wheel->sorted);
	keyspace_counter_set(keyspace, KVS_COUNTER_expiry_lag_ms,
			     wheel_lag_ms(wheel, keyspace->now_ms));
	keyspace_counter_set(keyspace, KVS_COUNTER_memory_expiry_bytes,
			     wheel_pool_bytes(&wheel->pool));
	return due_ns;
}

void expire_add(struct keyspace *keyspace, uint64_t offset, uint64_t expiry_ms)
{
	struct expire *expire = &keyspace->expire;
	if (expiry_ms < expire->soonest_ms) {
		expire->soonest_ms = expiry_ms;
		expire->due_ns = 0; // the turn that wrote it looks when that is
	}
	if (__builtin_expect(expire->partial && !expire->filling, 0)) {
		if (expiry_ms < expire->walk_soonest_ms) {
			expire->walk_soonest_ms = expiry_ms;
		}
		if (expiry_ms < expire->walk_seen_ms) {
			expire->walk_seen_ms = expiry_ms;
		}
		return;
	}
	if (__builtin_expect(!wheel_put(&expire->wheel, offset / 8, expiry_ms, keyspace->now_ms),
			     0)) {
		expire_lose(keyspace);
	}
	if (__builtin_expect(expire->wheel.items > expire->items_bound, 0) && !expire->sweeping) {
		expire->due_ns = 0;
	}
}

void expire_lose(struct keyspace *keyspace)
{
	struct expire *expire = &keyspace->expire;
	// What the wheel holds is let go of by the turn that begins or ends a walk: its chunks may
	// be in use.
	if (expire->filling) {
		// What was put there is known to nobody else: another walk comes at once, and this
		// one is to come round.
		expire->filling = false;
		expire->refused = true;
		expire->walk_seen_ms = 0;
	} else if (!expire->partial) {
		expire->partial = true;
		expire->cursor = 0;
		expire->refill_due_ns = 0;
		expire->walk_soonest_ms = 0;
		expire->due_ns = 0;
	}
}

void expire_forget(struct keyspace *keyspace)
{
	struct expire *expire = &keyspace->expire;
	if (expire->wheel.items > 0) {
		wheel_clear(&expire->wheel, &keyspace->reclaim);
	}
	expire->soonest_ms = UINT64_MAX;
	expire->partial = false;
	expire->filling = false;
	expire->sweeping = false;
	expire->swept_items = 0;
	expire->cursor = 0;
}

void keyspace_set_active_expire(struct keyspace *keyspace, bool on)
{
	keyspace->expire.off = !on;
	keyspace->expire.due_ns = 0;
}

void keyspace_watch_clock(struct keyspace *keyspace, bool watched)
{
	keyspace->expire.clock_watched = watched;
	keyspace->expire.due_ns = 0;
}

void keyspace_clock_was_set(struct keyspace *keyspace)
{
	keyspace->expire.due_ns = 0;
}

void keyspace_hold_expiry(struct keyspace *keyspace, bool hold)
{
	keyspace->expire.held = hold;
}

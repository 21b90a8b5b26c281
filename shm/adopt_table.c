// SPDX-License-Identifier: MIT
//
// The table as its dead writer left it. Every chain is walked, every entry's record looked at. A
// move that was under way (split, merge, a chain made shorter) leaves entries where they do not
// belong any more, or twice; they are noted and cleared later. An entry that cannot be is noted as
// damage: its key comes from the store, if there is one. Buckets are looked at in order, records
// are not, so they are fetched ahead.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/adopt.h"
#include "shm/extents.h"
#include "shm/table.h"
#include "shm/table_internal.h"

#define ADOPT_AHEAD_BUCKETS 8u			    // whose records are fetched
#define ADOPT_CHAIN_MAX (KVS_CHAIN_BUCKETS_MAX + 2) // a batch may have passed the bound of a write

struct look {
	struct kvs_adopt *plan;
	const struct kvs_bucket *primary;
	const struct kvs_bucket *overflow;
	uint64_t overflow_count; // buckets that have pages
	uint64_t overflow_fresh; // buckets that were ever used
	uint64_t buckets;
	uint64_t index;	    // of the chain that is looked at
	struct kvs_hit hit; // of the entry
	uint64_t hash;
};

static int table_damaged(struct kvs_adopt *plan, const char *what, uint64_t value)
{
	(void)snprintf(plan->why, sizeof(plan->why), "the table: %s (%llu)", what,
		       (unsigned long long)value);
	return -EUCLEAN;
}

static bool note_clear(struct look *look, const uint64_t *slot, bool damaged)
{
	struct kvs_adopt *plan = look->plan;
	if (!kvs_adopt_grow(&plan->clears, plan->clears_count, &plan->clears_capacity,
			    sizeof(*plan->clears))) {
		return false;
	}
	plan->clears[plan->clears_count++] = (struct kvs_adopt_clear){
		.slot_offset = (uint64_t)((const unsigned char *)slot - plan->region->base),
		.entry = kvs_load_relaxed(slot),
		.damaged = damaged,
	};
	plan->damaged_count += damaged;
	return true;
}

static bool note_tombstone(struct look *look)
{
	struct kvs_adopt *plan = look->plan;
	if (!kvs_adopt_grow(&plan->tombstones, plan->tombstones_count, &plan->tombstones_capacity,
			    sizeof(*plan->tombstones))) {
		return false;
	}
	plan->tombstones[plan->tombstones_count++] = (struct kvs_adopt_tombstone){
		.seq = look->hit.view.seq,
		.offset = kvs_entry_offset(look->hit.entry),
	};
	return true;
}

// What a stub stands for is in the store, and nothing else in its record says where.
static bool stub_is_sound(const struct kvs_adopt *plan, const struct kvs_hit *hit)
{
	bool is_stub = (hit->view.flags & KVS_RECORD_STUB) != 0;
	if (!is_stub || hit->kind != KVS_ENTRY_STUB) {
		return !is_stub && hit->kind != KVS_ENTRY_STUB;
	}
	return (hit->view.flags & KVS_RECORD_LARGE) == 0 && hit->view.seq <= plan->durable_seq &&
	       kvs_load_relaxed(&hit->view.record->place) != 0;
}

// Is the entry one that a writer can have made? Fills hit and hash.
static bool entry_is_sound(struct look *look, uint64_t entry)
{
	const struct kvs_adopt *plan = look->plan;
	const struct kvs_map *map = &plan->region->map;
	struct kvs_hit *hit = &look->hit;
	if (kvs_adopt_bad_at(plan, kvs_entry_offset(entry)) != NULL ||
	    kvs_entry_kind(entry) < KVS_ENTRY_VALUE || kvs_entry_kind(entry) > KVS_ENTRY_LARGE ||
	    kvs_table_load(map, entry, hit) != KVS_FIND_HIT || hit->view.key_bytes == 0) {
		return false;
	}
	uint64_t at = kvs_entry_offset(entry) - map->ranges[KVS_RANGE_LOG].offset;
	uint64_t index = at >> plan->region->segment_shift;
	if (index >= plan->touched_count) {
		return false;
	}
	const struct kvs_segment *segment = &plan->segments[index];
	uint64_t offset = at & (plan->region->segment_bytes - 1);
	bool in_use = segment->state == KVS_SEGMENT_HEAD || segment->state == KVS_SEGMENT_SURVIVOR;
	if (!in_use || offset + hit->view.record_bytes > segment->used_bytes ||
	    ((hit->view.flags & KVS_RECORD_LARGE) != 0) != (hit->kind == KVS_ENTRY_LARGE) ||
	    ((hit->view.flags & KVS_RECORD_TOMBSTONE) != 0) != (hit->kind == KVS_ENTRY_TOMBSTONE) ||
	    !stub_is_sound(plan, hit)) {
		return false;
	}
	look->hash = kvs_map_hash(map, hit->view.key, hit->view.key_bytes);
	return kvs_entry_tag_matches(entry, look->hash);
}

static void note_place(struct kvs_adopt *plan, const struct kvs_hit *hit)
{
	uint64_t block = kvs_place_block(kvs_load_relaxed(&hit->view.record->place));
	plan->last_block = block > plan->last_block ? block : plan->last_block;
	if (hit->kind != KVS_ENTRY_STUB) {
		plan->values_beyond +=
			block >= plan->next_block && hit->view.seq <= plan->durable_seq;
		return;
	}
	plan->stubs_value_bytes += hit->view.value_bytes;
	plan->stubs++;
	plan->stubs_astray += block < plan->first_block;
}

static bool count_entry(struct look *look)
{
	struct kvs_adopt *plan = look->plan;
	const struct kvs_record_view *view = &look->hit.view;
	uint64_t at =
		kvs_entry_offset(look->hit.entry) - plan->region->map.ranges[KVS_RANGE_LOG].offset;
	struct kvs_segment *segment = &plan->segments[at >> plan->region->segment_shift];
	segment->live_bytes += view->record_bytes;
	segment->last_seq = view->seq > segment->last_seq ? view->seq : segment->last_seq;
	uint64_t stored_bytes = kvs_record_stored_bytes(view, plan->region->segment_bytes / 4);
	plan->live_bytes += stored_bytes;
	plan->entries++;
	if (look->hit.kind == KVS_ENTRY_TOMBSTONE) {
		return note_tombstone(look);
	}
	plan->keys++;
	plan->keys_with_expiry += view->expiry_ms != 0;
	struct kvs_adopt_owner *owner = &plan->owners[kvs_record_writer(view->record)];
	owner->keys++;
	owner->bytes += stored_bytes;
	note_place(plan, &look->hit);
	return (view->flags & KVS_RECORD_LARGE) == 0 || kvs_adopt_note_run(plan, view, true);
}

// The slot of an earlier entry of this chain for the same key, or NULL.
static const uint64_t *earlier_twin(const struct look *look, const uint64_t *slots[],
				    unsigned count)
{
	const struct kvs_map *map = &look->plan->region->map;
	for (unsigned i = 0; i < count; i++) {
		struct kvs_hit hit;
		uint64_t entry = kvs_load_relaxed(slots[i]);
		if (kvs_entry_tag_matches(entry, look->hash) &&
		    kvs_table_load(map, entry, &hit) == KVS_FIND_HIT &&
		    hit.view.key_bytes == look->hit.view.key_bytes &&
		    memcmp(hit.view.key, look->hit.view.key, hit.view.key_bytes) == 0) {
			return slots[i];
		}
	}
	return NULL;
}

// One bucket of a chain. `seen` are the slots of the chain's entries so far that stay.
static int look_at_bucket(struct look *look, const struct kvs_bucket *bucket,
			  const uint64_t *seen[], unsigned *seen_count)
{
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		const uint64_t *slot = &bucket->entry[i];
		uint64_t entry = kvs_load_relaxed(slot);
		if (entry == 0) {
			continue;
		}
		bool sound = entry_is_sound(look, entry);
		bool here = sound && kvs_bucket_index(look->hash, look->buckets) == look->index;
		// The first is what readers find: a copy behind it is what a move left.
		if (!here || earlier_twin(look, seen, *seen_count) != NULL) {
			if (!note_clear(look, slot, !sound)) {
				return -ENOMEM;
			}
			continue;
		}
		if (!count_entry(look)) {
			return -ENOMEM;
		}
		seen[(*seen_count)++] = slot;
	}
	return 0;
}

static int look_at_chain(struct look *look, const uint64_t *seen[])
{
	struct kvs_adopt *plan = look->plan;
	const struct kvs_bucket *bucket = &look->primary[look->index];
	unsigned seen_count = 0;
	for (unsigned steps = 0; steps < ADOPT_CHAIN_MAX; steps++) {
		int result = look_at_bucket(look, bucket, seen, &seen_count);
		uint64_t link = kvs_load_relaxed(&bucket->overflow);
		if (result != 0 || link == 0) {
			return result;
		}
		uint64_t bit = UINT64_C(1) << ((link - 1) % 64);
		if (link > look->overflow_fresh || link > look->overflow_count ||
		    (plan->linked[(link - 1) / 64] & bit) != 0) {
			return table_damaged(plan, "a chain leads astray from bucket", look->index);
		}
		plan->linked[(link - 1) / 64] |= bit;
		plan->linked_count++;
		bucket = &look->overflow[link - 1];
	}
	return table_damaged(plan, "a chain has no end at bucket", look->index);
}

static void fetch_ahead(const struct look *look, uint64_t index)
{
	if (index >= look->buckets) {
		return;
	}
	const struct kvs_map *map = &look->plan->region->map;
	const struct kvs_bucket *bucket = &look->primary[index];
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		uint64_t entry = kvs_load_relaxed(&bucket->entry[i]);
		if (entry != 0) { // an address that is not mapped is no fault for a prefetch
			__builtin_prefetch(map->base + kvs_entry_offset(entry));
		}
	}
	uint64_t link = kvs_load_relaxed(&bucket->overflow);
	if (link != 0 && link <= look->overflow_count) {
		__builtin_prefetch(&look->overflow[link - 1]);
	}
}

static int look_at_all(struct look *look)
{
	const uint64_t **seen = calloc((size_t)ADOPT_CHAIN_MAX * KVS_BUCKET_ENTRIES, sizeof(*seen));
	int result = seen != NULL ? 0 : -ENOMEM;
	for (uint64_t i = 0; i < look->buckets && result == 0; i++) {
		fetch_ahead(look, i + ADOPT_AHEAD_BUCKETS);
		look->index = i;
		result = look_at_chain(look, seen);
	}
	free(seen);
	return result;
}

// Which of the table's ranges have pages, and how far.
static void look_at_pages(struct kvs_adopt *plan, uint64_t root)
{
	const struct kvs_region *region = plan->region;
	const struct kvs_region_header *header = region->header;
	unsigned side = kvs_root_side(root);
	bool has_huge = region->page_bytes != KVS_PAGE_BYTES;
	struct kvs_extents walk;
	kvs_extents_begin(&walk, region);
	for (unsigned range = KVS_RANGE_TABLE_0; range <= KVS_RANGE_OVERFLOW_1; range++) {
		const struct kvs_range_bounds *bounds = &region->map.ranges[range];
		uint64_t chunk = kvs_table_chunk_bytes(region, range);
		uint64_t ready = kvs_load_acquire(&header->ready[range]);
		uint64_t most = has_huge && ready < bounds->bytes_max ? ready : bounds->bytes_max;
		uint64_t bytes = kvs_extents_reach(&walk, bounds->offset, most);
		uint64_t used = 0; // is there, though a huge page that is all zero would not show
		if (has_huge && range == KVS_RANGE_TABLE_0 + side) {
			used = kvs_root_buckets(root);
		} else if (has_huge && range == KVS_RANGE_OVERFLOW_0 + side) {
			used = kvs_load_relaxed(&header->overflow_fresh[side]);
		}
		used = used <= most / sizeof(struct kvs_bucket)
			       ? used * sizeof(struct kvs_bucket) + chunk - 1
			       : 0;
		plan->populated[range] = (bytes > used ? bytes : used) / chunk * chunk;
	}
}

int kvs_adopt_plan_table(struct kvs_adopt *plan)
{
	const struct kvs_region *region = plan->region;
	uint64_t root = kvs_load_acquire(&region->header->hot.table_root);
	unsigned side = kvs_root_side(root);
	look_at_pages(plan, root);
	struct look look = {
		.plan = plan,
		.buckets = kvs_root_buckets(root),
		.overflow_count =
			plan->populated[KVS_RANGE_OVERFLOW_0 + side] / sizeof(struct kvs_bucket),
		.primary = (const void *)(region->base +
					  region->map.ranges[KVS_RANGE_TABLE_0 + side].offset),
		.overflow = (const void *)(region->base +
					   region->map.ranges[KVS_RANGE_OVERFLOW_0 + side].offset),
	};
	look.overflow_fresh = kvs_load_relaxed(&region->header->overflow_fresh[side]);
	uint64_t most = plan->populated[KVS_RANGE_TABLE_0 + side] / sizeof(struct kvs_bucket);
	uint64_t least =
		kvs_table_chunk_bytes(region, KVS_RANGE_TABLE_0) / sizeof(struct kvs_bucket);
	if (look.buckets < least || look.buckets > most) {
		return table_damaged(plan, "it has no room for its buckets", look.buckets);
	}
	plan->linked = calloc(look.overflow_count / 64 + 1, sizeof(*plan->linked));
	plan->owners = calloc(KVS_WRITERS_MAX, sizeof(*plan->owners));
	return plan->linked != NULL && plan->owners != NULL ? look_at_all(&look) : -ENOMEM;
}

// SPDX-License-Identifier: MIT
//
// What keyspace and cleaner do, without their policies.
#include "tests/shm/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void bail(const char *what)
{
	printf("Bail out! fixture: %s\n", what);
	exit(99);
}

void fixture_open(struct fixture *f, uint64_t memory_bytes, uint32_t segment_bytes)
{
	memset(f, 0, sizeof(*f));
	const struct kvs_region_options options = {
		.memory_bytes = memory_bytes,
		.memory_bytes_max = memory_bytes,
		.segment_bytes = segment_bytes,
		.instance_id = 7,
		.hash_key = { 11 },
		.fenced = !kvs_epoch_membarrier_works(),
	};
	if (kvs_region_create(&f->region, &options) != KVS_REGION_OK) {
		bail("no region");
	}
	kvs_epoch_init(&f->epochs, &f->region.header->hot, options.fenced);
	if (!kvs_limbo_init(&f->limbo) ||
	    kvs_table_init(&f->table, &f->region, &f->epochs, &f->limbo) != 0 ||
	    kvs_log_init(&f->log, &f->region) != 0 || kvs_large_init(&f->large, &f->region) != 0) {
		bail("no table, log or large range");
	}
	f->page = mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		       0);
	if (f->page == MAP_FAILED) {
		bail("no reader page");
	}
	f->epoch_page = kvs_epoch_add(&f->epochs, f->page, f);
	if (f->epoch_page == NULL) {
		bail("no page in the domain");
	}
	kvs_region_go_alive(&f->region);
}

void fixture_close(struct fixture *f)
{
	kvs_epoch_remove(&f->epochs, f->epoch_page);
	munmap(f->page, KVS_PAGE_BYTES);
	kvs_large_fini(&f->large);
	kvs_log_fini(&f->log);
	kvs_table_fini(&f->table);
	kvs_limbo_fini(&f->limbo);
	kvs_epoch_fini(&f->epochs);
	kvs_region_close(&f->region);
}

static uint32_t record_bytes_at(const struct fixture *f, uint64_t offset)
{
	struct kvs_record_view view;
	if (kvs_record_parse(f->region.base + offset, f->region.segment_bytes, &view) != 0) {
		bail("a record that was written does not parse");
	}
	return view.record_bytes;
}

uint64_t fixture_set(struct fixture *f, const void *key, size_t key_bytes, const void *value,
		     size_t value_bytes)
{
	uint64_t bytes = kvs_record_bytes(key_bytes, value_bytes, 0);
	uint64_t hash = kvs_map_hash(&f->region.map, key, key_bytes);
	if (kvs_table_secure(&f->table, 1) != 0 || kvs_log_secure(&f->log, bytes, bytes, 0) != 0) {
		return 0;
	}
	struct kvs_record_spec spec = {
		.key = key,
		.key_bytes = (uint32_t)key_bytes,
		.payload = value,
		.value_bytes = (uint32_t)value_bytes,
		.payload_bytes = (uint32_t)value_bytes,
		.seq = f->log.next_seq,
		.time_ms = KVS_TIME_ORIGIN_MS + f->log.next_seq,
	};
	uint64_t offset;
	void *at = kvs_log_append(&f->log, (uint32_t)bytes, &offset);
	uint32_t written = kvs_record_write(at, &spec);
	uint64_t entry = kvs_entry_make(hash, KVS_ENTRY_VALUE, written, offset);
	struct kvs_hit hit;
	kvs_log_live_add(&f->log, offset, written);
	if (kvs_table_find(&f->region.map, hash, key, key_bytes, &hit) == KVS_FIND_HIT) {
		kvs_log_live_sub(&f->log, kvs_entry_offset(hit.entry), hit.view.record_bytes);
		kvs_table_replace(&f->table, hash, hit.slot, entry);
	} else if (!kvs_table_insert(&f->table, hash, entry)) {
		return 0;
	}
	kvs_log_publish(&f->log);
	kvs_store_release(&f->region.header->marks.applied_seq, spec.seq);
	if (f->step_after_write) {
		(void)kvs_table_step(&f->table);
	}
	return spec.seq;
}

bool fixture_remove(struct fixture *f, const void *key, size_t key_bytes)
{
	uint64_t hash = kvs_map_hash(&f->region.map, key, key_bytes);
	struct kvs_hit hit;
	if (kvs_table_find(&f->region.map, hash, key, key_bytes, &hit) != KVS_FIND_HIT) {
		return false;
	}
	kvs_log_live_sub(&f->log, kvs_entry_offset(hit.entry), hit.view.record_bytes);
	kvs_table_remove(&f->table, hash, hit.slot);
	if (f->step_after_write) {
		(void)kvs_table_step(&f->table);
	}
	return true;
}

enum kvs_find_result fixture_find(const struct kvs_map *map, const void *key, size_t key_bytes,
				  struct kvs_hit *hit)
{
	return kvs_table_find(map, kvs_map_hash(map, key, key_bytes), key, key_bytes, hit);
}

static void free_item(struct fixture *f, const struct kvs_limbo_item *item)
{
	switch ((enum kvs_limbo_kind)item->kind) {
	case KVS_LIMBO_SEGMENT:
		kvs_log_free(&f->log, (uint32_t)item->a);
		break;
	case KVS_LIMBO_OVERFLOW:
		kvs_table_free_overflow(&f->table, (unsigned)item->b, item->a);
		break;
	case KVS_LIMBO_RUN:
		kvs_large_free(&f->large, item->a);
		break;
	case KVS_LIMBO_SIDE:
		kvs_table_free_side(&f->table, (unsigned)item->a);
		break;
	case KVS_LIMBO_TAIL:
		(void)kvs_table_free_tail_part(&f->table, (unsigned)item->a, UINT64_MAX);
		break;
	}
}

unsigned fixture_keys(const struct kvs_map *map, unsigned keys)
{
	unsigned found = 0;
	for (unsigned i = 0; i < keys; i++) {
		char key[16];
		struct kvs_hit hit;
		int n = snprintf(key, sizeof(key), "key:%u", i);
		found += fixture_find(map, key, (size_t)n, &hit) == KVS_FIND_HIT &&
			 kvs_record_crc_ok(&hit.view);
	}
	return found;
}

size_t fixture_reclaim(struct fixture *f)
{
	size_t count = 0;
	struct kvs_limbo_item item;
	if (!kvs_epoch_scan(&f->epochs, ++f->now_ns)) {
		return 0;
	}
	for (; kvs_limbo_pop(&f->limbo, f->epochs.oldest, &item); count++) {
		free_item(f, &item);
	}
	return count;
}

void fixture_adopt(struct fixture_successor *after, struct fixture *f)
{
	struct kvs_region_options options = { .memory_bytes = f->region.memory_bytes,
					      .segment_bytes = f->region.segment_bytes,
					      .fenced = f->region.map.readers_fence };
	struct fixture *g = &after->f;
	memset(after, 0, sizeof(*after));
	f->region.header->marks.applied_seq = f->log.next_seq - 1;
	kvs_log_publish(&f->log);
	if (kvs_region_adopt(&g->region, dup(f->region.fd), &options) != KVS_REGION_OK) {
		bail("a region that cannot be mapped again");
	}
	if (kvs_adopt_plan(&after->plan, &g->region, 0) != 0) {
		bail(after->plan.why);
	}
	struct kvs_adopt_parts parts = { &g->log, &g->table, &g->large, &g->limbo, &f->epochs };
	if (!kvs_limbo_init(&g->limbo) || kvs_adopt_apply(&after->plan, &parts) != 0) {
		bail("a plan that cannot be applied");
	}
}

size_t fixture_adopt_reclaim(struct fixture_successor *after)
{
	size_t count = 0;
	struct kvs_limbo_item item;
	for (; kvs_limbo_pop(&after->f.limbo, UINT64_MAX, &item); count++) {
		free_item(&after->f, &item);
	}
	return count;
}

void fixture_adopt_close(struct fixture_successor *after)
{
	struct fixture *g = &after->f;
	kvs_limbo_fini(&g->limbo);
	kvs_large_fini(&g->large);
	kvs_log_fini(&g->log);
	kvs_table_fini(&g->table);
	kvs_adopt_fini(&after->plan);
	kvs_region_close(&g->region);
}

bool fixture_clean(struct fixture *f, uint32_t segment)
{
	uint64_t start = kvs_region_segment_offset(&f->region, segment);
	uint64_t used = f->log.segments[segment].used_bytes;
	for (uint64_t at = 0; at < used;) {
		uint64_t offset = start + at;
		struct kvs_record_view view;
		if (kvs_record_parse(f->region.base + offset, used - at, &view) != 0) {
			bail("the cleaner met something that is no record");
		}
		at += view.record_bytes;
		uint64_t hash = kvs_map_hash(&f->region.map, view.key, view.key_bytes);
		uint64_t *slot = kvs_table_slot_of(&f->table, hash, offset);
		if (slot == NULL) {
			continue;
		}
		uint64_t copy_offset;
		void *copy =
			kvs_log_append_survivor(&f->log, view.record_bytes, view.seq, &copy_offset);
		if (copy == NULL) {
			return false;
		}
		memcpy(copy, view.record, view.record_bytes);
		kvs_log_live_add(&f->log, copy_offset, view.record_bytes);
		kvs_log_live_sub(&f->log, offset, record_bytes_at(f, offset));
		kvs_table_replace(
			&f->table, hash, slot,
			kvs_entry_make(hash, KVS_ENTRY_VALUE, view.record_bytes, copy_offset));
	}
	kvs_log_retire(&f->log, segment, &f->limbo, kvs_epoch_stamp(&f->epochs));
	return true;
}

void fixture_map_reader(struct fixture *f, struct kvs_map *map)
{
	if (kvs_map_open(map, f->region.fd_readonly) != KVS_MAP_OK) {
		bail("a reader cannot map the region");
	}
}

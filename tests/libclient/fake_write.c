// SPDX-License-Identifier: MIT
//
// Writing into the fake kvd's region: every kind of record, and batches.
#include <string.h>

#include "tests/libclient/fake_internal.h"

// What fixture_set() does, for any kind of record; applied_seq is the caller's.
static uint64_t fake_write(struct fixture *f, const char *key, struct kvs_record_spec *spec,
			   enum kvs_entry_kind kind)
{
	spec->key = key;
	spec->key_bytes = (uint32_t)strlen(key);
	spec->seq = f->log.next_seq;
	spec->time_ms = KVS_TIME_ORIGIN_MS + spec->seq;
	uint64_t bytes =
		kvs_record_bytes(spec->key_bytes, spec->payload_bytes, spec->expiry_ms != 0);
	uint64_t hash = kvs_map_hash(&f->region.map, key, spec->key_bytes);
	if (kvs_table_secure(&f->table, 1) != 0 || kvs_log_secure(&f->log, bytes, bytes, 0) != 0) {
		fake_bail("no room in the log");
	}
	uint64_t offset;
	void *at = kvs_log_append(&f->log, (uint32_t)bytes, &offset);
	uint32_t written = kvs_record_write(at, spec);
	uint64_t entry = kvs_entry_make(hash, kind, written, offset);
	struct kvs_hit hit;
	if (kvs_table_find(&f->region.map, hash, key, spec->key_bytes, &hit) == KVS_FIND_HIT) {
		kvs_table_replace(&f->table, hash, hit.slot, entry);
	} else if (!kvs_table_insert(&f->table, hash, entry)) {
		fake_bail("no room in the table");
	}
	kvs_log_publish(&f->log);
	return spec->seq;
}

static void fake_put_spec(struct fake *fake, const char *key, struct kvs_record_spec spec,
			  enum kvs_entry_kind kind)
{
	pthread_mutex_lock(&fake->mutex);
	struct kvs_watermarks *marks = &fake->fixture.region.header->marks;
	if (kind == KVS_ENTRY_TOMBSTONE) {
		kvs_store_release(&marks->last_removal_seq, fake->fixture.log.next_seq);
	}
	uint64_t seq = fake_write(&fake->fixture, key, &spec, kind);
	kvs_store_release(&marks->applied_seq, seq);
	pthread_mutex_unlock(&fake->mutex);
}

void fake_put(struct fake *fake, const char *key, const void *value, size_t value_bytes,
	      uint64_t expiry_ms)
{
	struct kvs_record_spec spec = { .payload = value,
					.payload_bytes = (uint32_t)value_bytes,
					.value_bytes = (uint32_t)value_bytes,
					.expiry_ms = expiry_ms };
	fake_put_spec(fake, key, spec, KVS_ENTRY_VALUE);
}

void fake_put_text(struct fake *fake, const char *key, const char *value)
{
	fake_put(fake, key, value, strlen(value), 0);
}

void fake_put_stub(struct fake *fake, const char *key, size_t value_bytes)
{
	struct kvs_record_spec spec = { .value_bytes = (uint32_t)value_bytes,
					.flags = KVS_RECORD_STUB };
	fake_put_spec(fake, key, spec, KVS_ENTRY_STUB);
}

void fake_put_tombstone(struct fake *fake, const char *key)
{
	struct kvs_record_spec spec = { .flags = KVS_RECORD_TOMBSTONE };
	fake_put_spec(fake, key, spec, KVS_ENTRY_TOMBSTONE);
}

void fake_put_batch(struct fake *fake, const char *const *keys, size_t count, const void *value,
		    size_t value_bytes)
{
	pthread_mutex_lock(&fake->mutex);
	uint64_t seq = 0;
	for (size_t i = 0; i < count; i++) {
		struct kvs_record_spec spec = {
			.payload = value,
			.payload_bytes = (uint32_t)value_bytes,
			.value_bytes = (uint32_t)value_bytes,
			.flags = i + 1 < count ? KVS_RECORD_MORE : 0,
		};
		seq = fake_write(&fake->fixture, keys[i], &spec, KVS_ENTRY_VALUE);
	}
	kvs_store_release(&fake->fixture.region.header->marks.applied_seq, seq);
	pthread_mutex_unlock(&fake->mutex);
}

// SPDX-License-Identifier: MIT
//
// The copying get. kvc_get() is the one path that is counted in nanoseconds: hash, begin, find,
// copy, end, all of it loads of lines that stay in cache and stores to the reader's own slot.
// Whatever is not that, from a first attach to a value that is only on disk, is kvc_get_into(), out
// of line.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libclient/internal.h"

#define GET_CLOCK_MARGIN_MS 10 // the coarse clock lags behind by less
#define GET_SHORT_BYTES 128u   // of a value that is copied in line
#define GET_MORE_MAX 64u       // tries of one get while kvd publishes memory under it

static uint64_t get_clock_ms(clockid_t clock)
{
	struct timespec now;
	(void)clock_gettime(clock, &now); // cannot fail with these clocks
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t kvc_wall_ms(void)
{
	return get_clock_ms(CLOCK_REALTIME);
}

bool kvc_expired(uint64_t expiry_ms, uint64_t now_ms)
{
	if (now_ms != 0) {
		return now_ms >= expiry_ms;
	}
	uint64_t coarse_ms = get_clock_ms(CLOCK_REALTIME_COARSE);
	if (coarse_ms >= expiry_ms) {
		return true;
	}
	return expiry_ms - coarse_ms <= GET_CLOCK_MARGIN_MS && kvc_wall_ms() >= expiry_ms;
}

int64_t kvc_ttl_ms(uint64_t expiry_ms)
{
	uint64_t now_ms = get_clock_ms(CLOCK_REALTIME_COARSE);
	return expiry_ms > now_ms ? (int64_t)(expiry_ms - now_ms) : 0;
}

int kvc_sink_fill(struct kvc_sink *sink, const void *value, size_t bytes)
{
	if (sink->allocate) {
		char *copy = malloc(bytes + 1);
		if (!copy) {
			return KVC_NO_MEMORY;
		}
		copy[bytes] = '\0';
		sink->buffer = copy;
		sink->buffer_bytes = bytes;
	}
	size_t copied = bytes < sink->buffer_bytes ? bytes : sink->buffer_bytes;
	if (copied > 0) {
		memcpy(sink->buffer, value, copied);
	}
	return copied == bytes ? KVC_OK : KVC_TRUNCATED;
}

void kvc_sink_drop(struct kvc_sink *sink)
{
	if (sink->allocate) {
		free(sink->buffer);
		sink->buffer = NULL;
	}
}

enum kvc_looked kvc_look(kvc_reader *reader, uint64_t hash, const void *key, size_t key_bytes,
			 uint64_t now_ms, struct kvs_hit *hit)
{
	if (kvc_unlikely(reader->map->hash_kind != KVS_HASH_XXH3)) {
		hash = kvs_map_hash(reader->map, key, key_bytes); // what the quick ways do not know
	}
	// unreached: these are all.
	switch (kvs_table_find(reader->map, hash, key, key_bytes, hit)) {
	case KVS_FIND_HIT:
		if (kvc_unlikely(kvs_load_relaxed(&reader->hot->table_root) != reader->aim.root ||
				 (hit->entry & KVS_ENTRY_LOCATION_MASK) - reader->aim.log_offset >
					 reader->aim.log_last)) {
			(void)kvs_quick_aim(reader->map, &reader->aim); // or else it is slower
		}
		if (hit->kind == KVS_ENTRY_TOMBSTONE ||
		    (hit->view.expiry_ms != 0 && kvc_expired(hit->view.expiry_ms, now_ms))) {
			return KVC_LOOKED_ABSENT;
		}
		return hit->value ? KVC_LOOKED_VALUE : KVC_LOOKED_SOCKET;
	case KVS_FIND_ABSENT:
		if (kvc_unlikely(kvs_load_relaxed(&reader->hot->table_root) != reader->aim.root)) {
			(void)kvs_quick_aim(reader->map, &reader->aim); // the hash key may be new
		}
		return KVC_LOOKED_ABSENT;
	case KVS_FIND_UNMAPPED:
		return KVC_LOOKED_UNMAPPED;
	case KVS_FIND_MOVING:
		return KVC_LOOKED_SOCKET;
	case KVS_FIND_DAMAGED:
		break;
	}
	return KVC_LOOKED_DAMAGED;
}

// The socket answers where the mapping could not; damage is told only if it cannot either.
static int get_by_socket(kvc_reader *reader, const void *key, size_t key_bytes,
			 struct kvc_sink *sink, bool damaged)
{
	int status = kvc_socket_get(reader, key, key_bytes, sink);
	if (damaged && status != KVC_DAMAGED) { // kvd's own words name the key
		kvc_error_set(reader->error_text, "%s", kvc_strerror(KVC_DAMAGED));
	}
	return damaged && status < 0 ? KVC_DAMAGED : status;
}

// One look inside the open section, into the sink. *looked says what else there is to do.
static int get_look(kvc_reader *reader, const void *key, size_t key_bytes, struct kvc_sink *sink,
		    enum kvc_looked *looked)
{
	struct kvs_hit hit;
	uint64_t hash = kvc_reader_hash(reader, key, key_bytes);
	*looked = kvc_look(reader, hash, key, key_bytes, 0, &hit);
	if (*looked != KVC_LOOKED_VALUE) {
		return KVC_NOT_FOUND;
	}
	int status = kvc_sink_fill(sink, hit.value, hit.view.value_bytes);
	if (sink->meta) {
		kvc_meta_fill(&hit, sink->meta);
	}
	return status;
}

// A get inside a section that the caller has open: what it sees is what its views see.
static int get_nested(kvc_reader *reader, const void *key, size_t key_bytes, struct kvc_sink *sink)
{
	for (unsigned i = 0; i < GET_MORE_MAX; i++) {
		if (reader->section_lost || kvc_reader_is_foreign(reader)) {
			return KVC_REVOKED;
		}
		if (!kvc_reader_section_mapped(reader)) {
			break;
		}
		enum kvc_looked looked;
		int status = get_look(reader, key, key_bytes, sink, &looked);
		if (!kvs_epoch_still_good(reader->slot, reader->hot)) {
			kvc_sink_drop(sink);
			return KVC_REVOKED;
		}
		if (looked == KVC_LOOKED_VALUE || looked == KVC_LOOKED_ABSENT) {
			return status;
		}
		if (looked != KVC_LOOKED_UNMAPPED || !kvc_reader_extend(reader)) {
			return get_by_socket(reader, key, key_bytes, sink,
					     looked == KVC_LOOKED_DAMAGED);
		}
	}
	return kvc_socket_get(reader, key, key_bytes, sink);
}

int kvc_get_into(kvc_reader *reader, const void *key, size_t key_bytes, struct kvc_sink *sink)
{
	if (kvc_reader_depth(reader) != 0) {
		return get_nested(reader, key, key_bytes, sink);
	}
	bool damaged = false;
	unsigned revoked = 0;
	for (unsigned i = 0; i < GET_MORE_MAX; i++) {
		if (!kvc_reader_enter(reader) && !kvc_reader_enter_slow(reader)) {
			break;
		}
		enum kvc_looked looked;
		int status = get_look(reader, key, key_bytes, sink, &looked);
		if (!kvc_reader_leave(reader)) {
			kvc_sink_drop(sink);
			if (++revoked == KVC_ATTEMPTS_MAX) {
				break;
			}
			continue;
		}
		if (looked == KVC_LOOKED_VALUE) {
			(void)kvc_reader_hit(reader, key, key_bytes);
			return status;
		}
		if (looked == KVC_LOOKED_ABSENT) {
			kvs_count(&reader->slot->misses, 1);
			return status;
		}
		damaged = looked == KVC_LOOKED_DAMAGED;
		if (looked != KVC_LOOKED_UNMAPPED || !kvc_reader_extend(reader)) {
			break;
		}
	}
	return get_by_socket(reader, key, key_bytes, sink, damaged);
}

static __attribute__((noinline, cold)) int get_detour(kvc_reader *reader, const void *key,
						      size_t key_bytes, void *buffer,
						      size_t buffer_bytes, struct kvc_meta *meta)
{
	struct kvc_sink sink = { .buffer = buffer, .buffer_bytes = buffer_bytes, .meta = meta };
	int status = !reader || (!buffer && buffer_bytes > 0) ? KVC_INVALID
							      : kvc_key_check(key, key_bytes);
	return status == KVC_OK ? kvc_get_into(reader, key, key_bytes, &sink) : status;
}

// The rest of kvc_get() inside its section, where the quick way had no answer.
static __attribute__((noinline)) int get_thorough(kvc_reader *reader, uint64_t hash,
						  const void *key, size_t key_bytes, void *buffer,
						  size_t buffer_bytes, struct kvc_meta *meta)
{
	struct kvc_sink sink = { .buffer = buffer, .buffer_bytes = buffer_bytes, .meta = meta };
	struct kvs_hit hit;
	enum kvc_looked looked = kvc_look(reader, hash, key, key_bytes, 0, &hit);
	int status = KVC_NOT_FOUND;
	if (looked == KVC_LOOKED_VALUE) {
		status = kvc_sink_fill(&sink, hit.value, hit.view.value_bytes);
		if (sink.meta) {
			kvc_meta_fill(&hit, sink.meta);
		}
	}
	if (kvc_unlikely(!kvc_reader_leave(reader) || looked > KVC_LOOKED_ABSENT)) {
		return get_detour(reader, key, key_bytes, buffer, buffer_bytes, meta);
	}
	if (looked == KVC_LOOKED_VALUE) {
		(void)kvc_reader_hit(reader, key, key_bytes);
	} else {
		kvs_count(&reader->slot->misses, 1);
	}
	return status;
}

struct get_piece {
	unsigned char bytes[16];
};

// memcpy() for 16 to GET_SHORT_BYTES bytes, without the call: pieces from both ends that overlap in
// the middle, so that there is no loop.
static inline __attribute__((always_inline)) void get_copy_short(void *to, const void *from,
								 size_t bytes)
{
	struct get_piece *out = to, *out_end = (struct get_piece *)((char *)to + bytes);
	const struct get_piece *in = from;
	const struct get_piece *in_end = (const struct get_piece *)((const char *)from + bytes);
	if (bytes > 64) {
		out[2] = in[2];
		out[3] = in[3];
		out_end[-4] = in_end[-4];
		out_end[-3] = in_end[-3];
	}
	if (bytes > 32) {
		out[1] = in[1];
		out_end[-2] = in_end[-2];
	}
	out[0] = in[0];
	out_end[-1] = in_end[-1];
}

static int get_any(kvc_reader *reader, const void *key, size_t key_bytes, void *buffer,
		   size_t buffer_bytes, struct kvc_meta *meta);

// The usual get. `brief` is a constant: see kvs_table_quick().
static inline __attribute__((always_inline)) int get_quick(kvc_reader *reader, const void *key,
							   size_t key_bytes, void *buffer,
							   size_t buffer_bytes,
							   struct kvc_meta *meta, bool brief)
{
	uint64_t hash = brief ? kvs_hash_short(&reader->aim.flips, key, key_bytes)
			      : kvc_reader_hash(reader, key, key_bytes);
	uint64_t word, generation;
	if (kvc_unlikely(brief ? !kvc_reader_enter_quick(reader, &word, &generation)
			       : !kvc_reader_enter_word(reader, &word))) {
		return brief ? get_any(reader, key, key_bytes, buffer, buffer_bytes, meta)
			     : get_detour(reader, key, key_bytes, buffer, buffer_bytes, meta);
	}
	struct kvs_quick quick;
	if (kvc_unlikely(!kvs_table_quick(reader->hot, &reader->aim, hash, key, key_bytes, brief,
					  &quick) ||
			 (quick.expiry_ms != 0 && kvc_expired(quick.expiry_ms, 0)))) {
		return get_thorough(reader, hash, key, key_bytes, buffer, buffer_bytes, meta);
	}
	size_t bytes = quick.value_bytes;
	if (kvc_likely(bytes - 16 <= GET_SHORT_BYTES - 16) && kvc_likely(bytes <= buffer_bytes)) {
		get_copy_short(buffer, quick.value, bytes);
	} else if (brief) {
		return get_thorough(reader, hash, key, key_bytes, buffer, buffer_bytes, meta);
	} else if (bytes > 0 && buffer_bytes > 0) {
		memcpy(buffer, quick.value, bytes < buffer_bytes ? bytes : buffer_bytes);
	}
	if (meta) {
		kvc_meta_quick(&quick, meta);
	}
	// The copy is good only if the section was: checked after the last byte was read, never
	// before.
	if (kvc_unlikely(!kvs_epoch_leave_last(reader->slot, reader->hot, word))) {
		return get_detour(reader, key, key_bytes, buffer, buffer_bytes, meta);
	}
	(void)kvc_reader_hit(reader, key, key_bytes);
	return brief || bytes <= buffer_bytes ? KVC_OK : KVC_TRUNCATED;
}

static __attribute__((noinline)) int get_any(kvc_reader *reader, const void *key, size_t key_bytes,
					     void *buffer, size_t buffer_bytes,
					     struct kvc_meta *meta)
{
	return get_quick(reader, key, key_bytes, buffer, buffer_bytes, meta, false);
}

// Of its own, because what `meta` needs takes registers that the other way does without.
static __attribute__((noinline)) int get_short_meta(kvc_reader *reader, const void *key,
						    size_t key_bytes, void *buffer,
						    size_t buffer_bytes, struct kvc_meta *meta)
{
	return get_quick(reader, key, key_bytes, buffer, buffer_bytes, meta, true);
}

KVC_HOT int kvc_get(kvc_reader *reader, const void *key, size_t key_bytes, void *buffer,
		    size_t buffer_bytes, struct kvc_meta *meta)
{
	if (kvc_unlikely(!reader || !key || (!buffer && buffer_bytes > 0))) {
		return get_detour(reader, key, key_bytes, buffer, buffer_bytes, meta);
	}
	if (kvc_likely(kvs_quick_is_short(key_bytes))) {
		return kvc_likely(!meta)
			       ? get_quick(reader, key, key_bytes, buffer, buffer_bytes, NULL, true)
			       : get_short_meta(reader, key, key_bytes, buffer, buffer_bytes, meta);
	}
	if (key_bytes - 1 >= KVS_KEY_BYTES_MAX) {
		return get_detour(reader, key, key_bytes, buffer, buffer_bytes, meta);
	}
	return get_any(reader, key, key_bytes, buffer, buffer_bytes, meta);
}

int kvc_get_alloc(kvc_reader *reader, const void *key, size_t key_bytes, void **value,
		  struct kvc_meta *meta)
{
	struct kvc_sink sink = { .allocate = true, .meta = meta };
	if (!reader || !value) {
		return KVC_INVALID;
	}
	*value = NULL;
	int status = kvc_key_check(key, key_bytes);
	if (status == KVC_OK) {
		status = kvc_get_into(reader, key, key_bytes, &sink);
	}
	if (status == KVC_OK) {
		*value = sink.buffer;
	}
	return status;
}

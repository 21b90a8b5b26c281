// SPDX-License-Identifier: MIT
//
// Many keys at once. Cache misses of a group overlap: first all buckets are asked for, then all
// records, then they are read. A snapshot reads everything in one section and accepts it only if
// nothing it saw, and no removal, is newer than the moment it began.
#include <sched.h>
#include <string.h>

#include "libclient/internal.h"

#define MANY_GROUP 16u // as many misses as a core has under way

/// One multi-get.
struct many {
	kvc_reader *reader;
	struct kvc_item *items;
	size_t count;
	bool nested;	  // inside a section of the caller
	bool unmapped;	  // kvd has published more than is mapped here
	bool socket;	  // items with status BUSY wait for the socket
	bool newer;	  // snapshot: saw something newer than `seq_max`
	uint64_t seq_max; // snapshot: applied_seq at its beginning
	uint64_t now_ms;  // snapshot: one time for all; else 0
};

// The usual item, without the search's detours. False: it is not a usual one.
static bool many_item_quick(struct many *many, struct kvc_item *item, uint64_t hash)
{
	struct kvs_quick quick;
	kvc_reader *reader = many->reader;
	if (!kvs_table_quick(reader->hot, &reader->aim, hash, item->key, item->key_bytes, false,
			     &quick) ||
	    (quick.expiry_ms != 0 && kvc_expired(quick.expiry_ms, many->now_ms))) {
		return false;
	}
	size_t bytes = quick.value_bytes;
	size_t copied = bytes < item->buffer_bytes ? bytes : item->buffer_bytes;
	if (copied > 0) {
		memcpy(item->buffer, quick.value, copied);
	}
	item->status = copied == bytes ? KVC_OK : KVC_TRUNCATED;
	kvc_meta_quick(&quick, &item->meta);
	many->newer = many->newer || quick.seq > many->seq_max;
	(void)kvc_reader_hit(reader, item->key, item->key_bytes);
	return true;
}

static void many_item(struct many *many, struct kvc_item *item, uint64_t hash)
{
	struct kvs_hit hit;
	kvc_reader *reader = many->reader;
	if (many_item_quick(many, item, hash)) {
		return;
	}
	enum kvc_looked looked =
		kvc_look(reader, hash, item->key, item->key_bytes, many->now_ms, &hit);
	if (looked == KVC_LOOKED_VALUE) {
		struct kvc_sink sink = { .buffer = item->buffer,
					 .buffer_bytes = item->buffer_bytes };
		item->status = kvc_sink_fill(&sink, hit.value, hit.view.value_bytes);
		kvc_meta_fill(&hit, &item->meta);
		many->newer = many->newer || hit.view.seq > many->seq_max;
		(void)kvc_reader_hit(reader, item->key, item->key_bytes);
	} else if (looked == KVC_LOOKED_ABSENT) {
		item->status = KVC_NOT_FOUND;
		kvs_count(&reader->slot->misses, 1);
	} else {
		item->status = KVC_BUSY;
		many->unmapped = many->unmapped || looked == KVC_LOOKED_UNMAPPED;
		many->socket = true;
	}
}

// OK, or what is wrong with an item, however it is read.
static int many_item_check(const struct kvc_item *item)
{
	if (!item->buffer && item->buffer_bytes > 0) {
		return KVC_INVALID;
	}
	return kvc_key_check(item->key, item->key_bytes);
}

// Looks up one group inside the open section.
static void many_group(struct many *many, struct kvc_item *items, size_t count)
{
	const kvc_reader *reader = many->reader;
	uint64_t hash[MANY_GROUP];
	for (size_t i = 0; i < count; i++) {
		items[i].status = many_item_check(&items[i]);
		if (items[i].status == KVC_OK) {
			hash[i] = kvc_reader_hash(reader, items[i].key, items[i].key_bytes);
			kvs_table_prefetch_bucket(reader->map, hash[i]);
		}
	}
	for (size_t i = 0; i < count; i++) {
		if (items[i].status == KVC_OK) {
			kvs_table_prefetch_record(reader->map, hash[i]);
		}
	}
	for (size_t i = 0; i < count; i++) {
		if (items[i].status == KVC_OK) {
			many_item(many, &items[i], hash[i]);
		}
	}
}

static bool many_begin(struct many *many)
{
	kvc_reader *reader = many->reader;
	if (many->nested) {
		return kvc_reader_section_mapped(reader);
	}
	return kvc_reader_enter(reader) || kvc_reader_enter_slow(reader);
}

static bool many_end(struct many *many)
{
	kvc_reader *reader = many->reader;
	return many->nested ? kvs_epoch_still_good(reader->slot, reader->hot)
			    : kvc_reader_leave(reader);
}

// Everything not looked up goes to the socket.
static int many_by_socket(struct many *many, size_t first, bool atomic)
{
	for (size_t i = first; i < many->count; i++) {
		struct kvc_item *item = &many->items[i];
		int status = many_item_check(item);
		item->status = status == KVC_OK ? KVC_BUSY : status;
	}
	return kvc_socket_get_many(many->reader, many->items, many->count, atomic);
}

// One group with its retries. OK, REVOKED (nested only), or UNREACHABLE: there is no mapping to
// read.
static int many_group_settled(struct many *many, size_t first, size_t count)
{
	struct kvc_item *items = many->items + first;
	for (unsigned i = 0; i < KVC_ATTEMPTS_MAX; i++) {
		if (!many_begin(many)) {
			return KVC_UNREACHABLE;
		}
		many->unmapped = false;
		many_group(many, items, count);
		bool good = many_end(many);
		if (!good && many->nested) {
			return KVC_REVOKED;
		}
		if (good && (!many->unmapped || !kvc_reader_extend(many->reader))) {
			return KVC_OK;
		}
	}
	for (size_t i = 0; i < count; i++) {
		int status = many_item_check(&items[i]);
		items[i].status = status == KVC_OK ? KVC_BUSY : status;
	}
	many->socket = true;
	return KVC_OK;
}

static int many_plain(struct many *many)
{
	many->seq_max = UINT64_MAX;
	for (size_t first = 0; first < many->count; first += MANY_GROUP) {
		size_t left = many->count - first;
		int status = many_group_settled(many, first, left < MANY_GROUP ? left : MANY_GROUP);
		if (status == KVC_UNREACHABLE) {
			return many_by_socket(many, first, false);
		}
		if (status != KVC_OK) {
			return status;
		}
	}
	return many->socket ? kvc_socket_get_many(many->reader, many->items, many->count, false)
			    : KVC_OK;
}

// Reads all items in the open section. True if what was read is of one moment.
static bool many_read_snapshot(struct many *many)
{
	const struct kvs_watermarks *marks = &kvs_map_header(many->reader->map)->marks;
	many->newer = many->unmapped = many->socket = false;
	many->now_ms = kvc_wall_ms(); // one clock for all: a batch with one expiry goes as one
	// Acquire: all up to it is published (partner: the writer's release after publishing a
	// batch).
	many->seq_max = kvs_load_acquire(&marks->applied_seq);
	for (size_t first = 0; first < many->count; first += MANY_GROUP) {
		size_t left = many->count - first;
		many_group(many, many->items + first, left < MANY_GROUP ? left : MANY_GROUP);
		if (many->newer) {
			return false;
		}
	}
	// After all reads: a removal stores this word before its effect can be seen.
	kvs_fence_acquire();
	return kvs_load_relaxed(&marks->last_removal_seq) <= many->seq_max;
}

static int many_snapshot(struct many *many)
{
	for (unsigned i = 0; i < KVS_SNAPSHOT_RETRIES_MAX; i++) {
		if (!many_begin(many)) {
			return many_by_socket(many, 0, true);
		}
		bool same_moment = many_read_snapshot(many);
		bool good = many_end(many);
		if (!good && many->nested) {
			return KVC_REVOKED;
		}
		if (many->unmapped) {
			if (!kvc_reader_extend(many->reader)) {
				return many_by_socket(many, 0, true);
			}
		} else if (good && same_moment) {
			// A value that is only on disk has to be of the same moment too: all by
			// socket then.
			return many->socket ? many_by_socket(many, 0, true) : KVC_OK;
		} else if (i >= KVS_SNAPSHOT_RETRIES_MAX / 4) {
			// the writer may need this very processor to finish a batch
			(void)sched_yield();
		}
	}
	return KVC_BUSY;
}

int kvc_get_many(kvc_reader *reader, struct kvc_item *items, size_t count, uint32_t flags)
{
	if (!reader || (!items && count > 0) || (flags & ~(uint32_t)KVC_GET_SNAPSHOT)) {
		return KVC_INVALID;
	}
	struct many many = { .reader = reader, .items = items, .count = count };
	for (size_t i = 0; i < count; i++) {
		items[i].status = KVC_INVALID;
		memset(&items[i].meta, 0, sizeof(items[i].meta));
	}
	if (count == 0) {
		return KVC_OK;
	}
	many.nested = kvc_reader_depth(reader) != 0;
	if (many.nested && (reader->section_lost || kvc_reader_is_foreign(reader))) {
		return KVC_REVOKED;
	}
	return flags & KVC_GET_SNAPSHOT ? many_snapshot(&many) : many_plain(&many);
}

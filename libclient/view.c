// SPDX-License-Identifier: MIT
//
// Sections and zero-copy views. A section is in the mapping or, where there is none, a bracket
// around copies that came by socket; the caller sees no difference but KVC_META_SOCKET. What is
// open and how stands in the reader's phase while it is the usual, one section in the mapping, and
// in `depth` and `section_mapped` when it is not: a section in a section, or with copies to free.
#include <stdlib.h>
#include <string.h>

#include "libclient/internal.h"

#define VIEW_MORE_MAX 64u // tries of one view while kvd publishes memory under it

void kvc_blobs_free(kvc_reader *reader)
{
	while (reader->blobs) {
		struct kvc_blob *next = reader->blobs->next;
		free(reader->blobs);
		reader->blobs = next;
	}
}

// The section was opened before a fork and this is the child: there is nothing of it here.
static bool view_section_lost(kvc_reader *reader)
{
	if (kvc_unlikely(kvc_reader_is_foreign(reader))) {
		reader->section_lost = true;
	}
	return reader->section_lost;
}

// From the phase to the words that say the same: the quick ways of this section are over.
static void section_settle(kvc_reader *reader)
{
	if (kvc_reader_is_open(reader)) {
		reader->section_mapped = true;
		kvs_store_relaxed(&reader->depth, 1);
		kvs_store_relaxed(&reader->phase, KVC_PHASE_NEVER);
	}
}

// And back, where nothing is in the way.
static void section_resume(kvc_reader *reader)
{
	if (kvs_load_relaxed(&reader->depth) == 1 && reader->section_mapped && !reader->blobs &&
	    !reader->section_lost && !reader->fenced) {
		kvs_store_relaxed(&reader->phase, reader->generation | KVC_PHASE_OPEN);
		kvs_store_relaxed(&reader->depth, 0);
	}
}

// A section within a section, or one that the quick way refused.
static __attribute__((noinline)) int begin_slow(kvc_reader *reader)
{
	if (!reader) {
		return KVC_INVALID;
	}
	section_settle(reader);
	uint64_t depth = kvs_load_relaxed(&reader->depth);
	if (depth == KVS_NESTING_MASK) {
		return KVC_INVALID;
	}
	if (depth == 0) {
		reader->section_mapped = kvc_reader_enter(reader) || kvc_reader_enter_slow(reader);
		kvs_store_relaxed(&reader->phase, KVC_PHASE_NEVER);
	}
	kvs_store_relaxed(&reader->depth, depth + 1);
	section_resume(reader);
	return KVC_OK;
}

KVC_HOT int kvc_begin(kvc_reader *reader)
{
	uint64_t word, generation;
	if (kvc_unlikely(!reader) ||
	    kvc_unlikely(!kvc_reader_enter_quick(reader, &word, &generation))) {
		return begin_slow(reader);
	}
	kvs_store_relaxed(&reader->phase, generation | KVC_PHASE_OPEN);
	return KVC_OK;
}

static __attribute__((noinline)) int end_slow(kvc_reader *reader)
{
	if (kvc_reader_depth(reader) == 0) {
		return KVC_INVALID;
	}
	section_settle(reader);
	uint64_t depth = kvs_load_relaxed(&reader->depth);
	bool lost = view_section_lost(reader);
	kvs_store_relaxed(&reader->depth, depth - 1);
	if (depth > 1) {
		section_resume(reader);
		return lost ? KVC_REVOKED : KVC_OK;
	}
	kvc_blobs_free(reader);
	reader->section_lost = false;
	if (lost) {
		return KVC_REVOKED; // and no store: the slot is the parent's
	}
	if (!reader->section_mapped) {
		return KVC_OK;
	}
	bool good = kvc_reader_leave(reader);
	kvs_store_relaxed(&reader->phase, kvc_reader_phase_outside(reader));
	return good ? KVC_OK : KVC_REVOKED;
}

KVC_HOT int kvc_end(kvc_reader *reader)
{
	if (kvc_unlikely(!reader)) {
		return KVC_INVALID;
	}
	uint64_t open = kvs_load_relaxed(&reader->sentinel[KVC_SENTINEL_OPEN]);
	if (kvc_unlikely(open != kvs_load_relaxed(&reader->phase))) {
		return end_slow(reader);
	}
	kvs_store_relaxed(&reader->phase, open ^ KVC_PHASE_OPEN);
	struct kvs_slot *slot = reader->slot;
	bool good = kvs_epoch_leave_last(slot, reader->hot, kvs_load_relaxed(&slot->word));
	return kvc_likely(good) ? KVC_OK : KVC_REVOKED;
}

// A copy from the socket that lives as long as the section.
static int view_by_socket(kvc_reader *reader, const void *key, size_t key_bytes,
			  struct kvc_view *view)
{
	struct kvc_sink sink = { .allocate = true, .meta = &view->meta };
	int status = kvc_socket_get(reader, key, key_bytes, &sink);
	if (status != KVC_OK) {
		return status;
	}
	struct kvc_blob *blob = malloc(sizeof(*blob) + sink.buffer_bytes + 1);
	if (!blob) {
		kvc_sink_drop(&sink);
		return KVC_NO_MEMORY;
	}
	memcpy(blob->bytes, sink.buffer, sink.buffer_bytes + 1);
	kvc_sink_drop(&sink);
	section_settle(reader); // its end frees this
	blob->next = reader->blobs;
	reader->blobs = blob;
	view->value = blob->bytes;
	view->value_bytes = view->meta.value_bytes;
	return KVC_OK;
}

static int view_by_mapping(kvc_reader *reader, const void *key, size_t key_bytes,
			   struct kvc_view *view, bool *by_socket)
{
	uint64_t hash = kvc_reader_hash(reader, key, key_bytes);
	enum kvc_looked looked = KVC_LOOKED_UNMAPPED;
	struct kvs_hit hit;
	for (unsigned i = 0; i < VIEW_MORE_MAX && looked == KVC_LOOKED_UNMAPPED; i++) {
		looked = kvc_look(reader, hash, key, key_bytes, 0, &hit);
		if (looked == KVC_LOOKED_VALUE) {
			view->value = hit.value;
			view->value_bytes = hit.view.value_bytes;
			kvc_meta_fill(&hit, &view->meta);
			return kvc_reader_hit(reader, key, key_bytes);
		}
		// A revoked section may have looked into anything: no conclusion from it.
		if (!kvs_epoch_still_good(reader->slot, reader->hot)) {
			return KVC_REVOKED;
		}
		if (looked == KVC_LOOKED_ABSENT) {
			kvs_count(&reader->slot->misses, 1);
			return KVC_NOT_FOUND;
		}
		if (looked == KVC_LOOKED_UNMAPPED && !kvc_reader_extend(reader)) {
			break;
		}
	}
	*by_socket = true;
	return looked == KVC_LOOKED_DAMAGED ? KVC_DAMAGED : KVC_OK;
}

// The usual view: a value that does not expire. `brief` is a constant: see kvs_table_quick().
// False: not a usual one, or not there.
static inline __attribute__((always_inline)) bool view_quick(const kvc_reader *reader,
							     const void *key, size_t key_bytes,
							     struct kvc_view *view, bool brief)
{
	struct kvs_quick quick;
	uint64_t hash = brief ? kvs_hash_short(&reader->aim.flips, key, key_bytes)
			      : kvc_reader_hash(reader, key, key_bytes);
	if (kvc_unlikely(!kvs_table_quick(reader->hot, &reader->aim, hash, key, key_bytes, brief,
					  &quick)) ||
	    kvc_unlikely(quick.expiry_ms != 0 && kvc_expired(quick.expiry_ms, 0))) {
		return false;
	}
	view->value = quick.value;
	view->value_bytes = quick.value_bytes;
	kvc_meta_quick(&quick, &view->meta);
	return true;
}

static __attribute__((noinline, cold)) int view_detour(kvc_reader *reader, const void *key,
						       size_t key_bytes, struct kvc_view *view)
{
	if (!reader || !view || kvc_reader_depth(reader) == 0) {
		return KVC_INVALID;
	}
	*view = (struct kvc_view){ .value = NULL };
	int status = kvc_key_check(key, key_bytes);
	if (status != KVC_OK) {
		return status;
	}
	if (view_section_lost(reader)) {
		return KVC_REVOKED;
	}
	bool by_socket = !kvc_reader_section_mapped(reader);
	if (!by_socket) {
		// In an open section the quick way was gone already.
		if (!kvc_reader_is_open(reader) &&
		    view_quick(reader, key, key_bytes, view, false)) {
			return kvc_reader_hit(reader, key, key_bytes);
		}
		status = view_by_mapping(reader, key, key_bytes, view, &by_socket);
	}
	if (!by_socket) {
		return status;
	}
	int answer = view_by_socket(reader, key, key_bytes, view);
	return status == KVC_DAMAGED && answer < 0 ? KVC_DAMAGED : answer;
}

// A key of any length in an open section.
static __attribute__((noinline)) int view_any(kvc_reader *reader, const void *key, size_t key_bytes,
					      struct kvc_view *view)
{
	if (kvc_unlikely(key_bytes - 1 >= KVS_KEY_BYTES_MAX ||
			 !view_quick(reader, key, key_bytes, view, false))) {
		return view_detour(reader, key, key_bytes, view);
	}
	return kvc_reader_hit(reader, key, key_bytes);
}

KVC_HOT int kvc_view(kvc_reader *reader, const void *key, size_t key_bytes, struct kvc_view *view)
{
	if (kvc_unlikely(!reader) || kvc_unlikely(!view) || kvc_unlikely(!key) ||
	    kvc_unlikely(kvs_load_relaxed(&reader->sentinel[KVC_SENTINEL_OPEN]) !=
			 kvs_load_relaxed(&reader->phase))) {
		return view_detour(reader, key, key_bytes, view);
	}
	if (kvc_unlikely(!kvs_quick_is_short(key_bytes))) {
		return view_any(reader, key, key_bytes, view);
	}
	if (kvc_unlikely(!view_quick(reader, key, key_bytes, view, true))) {
		return view_detour(reader, key, key_bytes, view);
	}
	return kvc_reader_hit(reader, key, key_bytes);
}

int kvc_watermarks(kvc_reader *reader, uint64_t *applied, uint64_t *durable)
{
	if (!reader || !applied || !durable) {
		return KVC_INVALID;
	}
	bool nested = kvc_reader_depth(reader) != 0;
	if (nested && view_section_lost(reader)) {
		return KVC_REVOKED;
	}
	bool mapped = nested ? kvc_reader_section_mapped(reader)
			     : kvc_reader_enter(reader) || kvc_reader_enter_slow(reader);
	if (!mapped) {
		return kvc_socket_watermarks(reader, applied, durable);
	}
	const struct kvs_watermarks *marks = &kvs_map_header(reader->map)->marks;
	// Durable first, so that it is never above applied. Acquire: partners are the persister's
	// store after its commit and the writer's after publishing.
	*durable = kvs_load_acquire(&marks->durable_seq);
	*applied = kvs_load_acquire(&marks->applied_seq);
	if (!nested) {
		(void)kvc_reader_leave(
			reader); // two words of the header: nothing that can be reused
	}
	return KVC_OK;
}

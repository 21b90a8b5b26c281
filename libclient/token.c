// SPDX-License-Identifier: MIT
//
// Tokens: what a reader saw, remembered as the word in the table that led to it, so that "is it
// still so?" is a look at that word instead of a search. KVC_OK may be said only if the record that
// the token stands for is the key's present one; the other answer may be said at any time.
//
// Why an equal word is proof. A token remembers the place of the entry, the entry word W, the root
// (side and turns), an epoch e that was announced before W was loaded, and the record's seq. When
// the check loads W from that place again, then
//
// 1. the place belongs to the table of now. The side of the root is the token's, and between two
//    switches of the side (a FLUSHALL, a change of the hash key) stands a grace period, which
//    raises the epoch and empties the other side; `turns` tells the switch itself. (Bucket counts
//    are no matter: what a split or a merge moves is cleared at its old place before the next
//    write, so that an old place holds no old entry once any later write is acknowledged.)
// 2. whatever record W names is some key's present one: every other entry has been replaced or
//    cleared, in place, by one store each.
// 3. W names the record that it named. Its memory could have been given to another only after W was
//    unlinked, with a stamp s >= e, and then an epoch above s was published before the reuse. The
//    word is loaded with acquire, the epoch after it: if that is still e, there was no reuse. If
//    not, the record's own seq, which no write ever gets again, is compared; the open section keeps
//    its memory in place meanwhile, and if kvd took it back the section's end says so.
//
// Another region, or another life of the same, has other identities, which are compared first.
#include <assert.h>
#include <string.h>

#include "libclient/internal.h"
#include "libclient/serving.h"

/// What the opaque words are.
struct token {
	uint64_t instance_id, incarnation; // of the region, and kvd's life
	uint64_t reserved;
	uint64_t offset; // of the entry, from the start of the region
	uint64_t range;	 // that it lies in
	uint64_t entry;	 // 0 = a token that stands for nothing
	uint64_t root;
	uint64_t epoch;
	uint64_t seq;
	uint64_t expiry_ms; // 0 = never
};
static_assert(sizeof(struct token) == sizeof(struct kvc_token), "the public size");

// Fills the token if `key` is still at `seq`. In an open section in the mapping.
static void token_fill(const kvc_reader *reader, const void *key, size_t key_bytes, uint64_t seq,
		       struct token *token)
{
	const struct kvs_map *map = reader->map;
	struct kvs_hit hit;
	// Acquire: as in kvs_table_find(), which loads it again; the two must agree with it.
	uint64_t root = kvs_load_acquire(&reader->hot->table_root);
	uint64_t hash = kvc_reader_hash(reader, key, key_bytes);
	if (kvs_table_find(map, hash, key, key_bytes, &hit) != KVS_FIND_HIT ||
	    // unreached: the key has moved to the store since it was viewed.
	    hit.view.seq != seq || !hit.value ||
	    kvs_load_acquire(&reader->hot->table_root) != root) {
		return;
	}
	uint64_t offset = (uint64_t)((const unsigned char *)hit.slot - map->base);
	for (unsigned range = KVS_RANGE_TABLE_0; range <= KVS_RANGE_OVERFLOW_1; range++) {
		if (offset - map->ranges[range].offset < map->ranges[range].bytes_max) {
			*token = (struct token){
				.instance_id = map->instance_id,
				.incarnation = reader->incarnation,
				.offset = offset,
				.range = range,
				.entry = hit.entry,
				.root = root,
				.epoch = kvs_load_relaxed(&reader->slot->word) >> KVS_EPOCH_SHIFT,
				.seq = seq,
				.expiry_ms = hit.view.expiry_ms,
			};
		}
	}
}

int kvc_view_token(kvc_reader *reader, const void *key, size_t key_bytes, struct kvc_view *view,
		   struct kvc_token *token)
{
	struct token found = { .entry = 0 };
	if (!token) {
		return KVC_INVALID;
	}
	int status = kvc_view(reader, key, key_bytes, view);
	if (status == KVC_OK && !(view->meta.flags & KVC_META_SOCKET)) {
		token_fill(reader, key, key_bytes, view->meta.version, &found);
	}
	memcpy(token, &found, sizeof(found));
	return status;
}

int kvc_get_token(kvc_reader *reader, const void *key, size_t key_bytes, void *buffer,
		  size_t buffer_bytes, struct kvc_meta *meta, struct kvc_token *token)
{
	if (!token || (!buffer && buffer_bytes > 0)) {
		return KVC_INVALID;
	}
	for (unsigned i = 0; i < KVC_ATTEMPTS_MAX; i++) {
		struct kvc_view view;
		struct kvc_sink sink = { .buffer = buffer, .buffer_bytes = buffer_bytes };
		int status = kvc_begin(reader);
		if (status != KVC_OK) {
			return status;
		}
		status = kvc_view_token(reader, key, key_bytes, &view, token);
		if (status == KVC_OK) {
			status = kvc_sink_fill(&sink, view.value, view.value_bytes);
			if (meta) {
				*meta = view.meta;
			}
		}
		// unreached: a section whose view was revoked ends so.
		if (kvc_end(reader) == KVC_OK && status != KVC_REVOKED) {
			return status;
		}
	}
	memset(token, 0, sizeof(*token));
	return kvc_get(reader, key, key_bytes, buffer, buffer_bytes, meta);
}

// Step 3 where the epoch has moved on: the record says itself which it is.
static __attribute__((noinline)) bool token_is_same_record(const kvc_reader *reader,
							   const struct token *token)
{
	struct kvs_hit hit;
	// unreached: the record goes between two loads.
	return kvs_table_load(reader->map, token->entry, &hit) == KVS_FIND_HIT &&
	       hit.view.seq == token->seq;
}

// The proof above, in its order. In an open section in the mapping.
static inline __attribute__((always_inline)) bool token_is_current(const kvc_reader *reader,
								   const struct token *token)
{
	const struct kvs_map *map = reader->map;
	const struct kvs_hot *hot = reader->hot;
	// Acquire: the buckets that the root counts are filled (partner: the writer's root store).
	uint64_t root = kvs_load_acquire(&hot->table_root);
	if (token->instance_id != map->instance_id || token->incarnation != reader->incarnation ||
	    token->range > KVS_RANGE_OVERFLOW_1 ||
	    (root ^ token->root) >> KVS_ROOT_SIDE_SHIFT != 0) {
		return false;
	}
	// Another client in this process may have mapped less. Acquire: partner kvs_map_extend().
	uint64_t start = token->offset - map->ranges[token->range].offset;
	if (start >= kvs_load_acquire(&map->ready[token->range])) {
		return false;
	}
	const unsigned char *at = map->base + token->offset;
	// Acquire: partner is the writer's publishing store; the epoch below is loaded after it.
	if (kvs_load_acquire((const uint64_t *)(const void *)at) != token->entry) {
		return false;
	}
	return kvs_load_relaxed(&hot->epoch_word) >> KVS_EPOCH_SHIFT == token->epoch ||
	       token_is_same_record(reader, token);
}

// In a section of the caller's, or where something about the attachment has changed.
static __attribute__((noinline)) int check_slow(kvc_reader *reader, struct token *token)
{
	if (kvc_reader_depth(reader) == 0 || !kvc_reader_section_mapped(reader) ||
	    reader->section_lost || kvc_reader_is_foreign(reader)) {
		return KVC_CHANGED; // a get sees to it
	}
	if (!token_is_current(reader, token) || !kvs_epoch_still_good(reader->slot, reader->hot)) {
		return KVC_CHANGED;
	}
	return KVC_OK; // the section's epoch may be older than the token's: that stays
}

KVC_HOT int kvc_check(kvc_reader *reader, struct kvc_token *opaque)
{
	struct token *token = (struct token *)(void *)opaque;
	if (kvc_unlikely(!reader || !token || token->entry == 0)) {
		return reader && token ? KVC_CHANGED : KVC_INVALID;
	}
	if (kvc_unlikely(token->expiry_ms != 0 && kvc_expired(token->expiry_ms, 0))) {
		return KVC_CHANGED;
	}
	uint64_t word;
	if (kvc_unlikely(!kvc_reader_enter_word(reader, &word)) &&
	    !kvc_serving_enter(reader, &word)) {
		return check_slow(reader, token);
	}
	bool current = token_is_current(reader, token);
	bool good = kvs_epoch_leave_last(reader->slot, reader->hot, word);
	if (kvc_unlikely(!current || !good)) {
		return KVC_CHANGED;
	}
	token->epoch = word >> KVS_EPOCH_SHIFT; // announced before the entry was loaded
	return KVC_OK;
}

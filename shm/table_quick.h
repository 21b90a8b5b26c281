// SPDX-License-Identifier: MIT
//
// The usual case of kvs_table_find(), inline: the key's entry stands in its first bucket and names
// a plain record whose value is in it. What costs there is not work but the length of the
// instruction stream between two cache misses, because a processor overlaps the misses of
// successive gets only as far as it can look ahead, and a branch whose outcome hangs on the
// bucket's bytes. Hence no loop that ends at the match, and everything that follows from the root
// word alone is worked out once for each root. Everything else (overflow, stubs, large values, two
// entries with one tag, a miss, damage) is "no answer", and kvs_table_find() decides.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__) && defined(__x86_64__) && !defined(KVS_SANITIZED)
#include <emmintrin.h>
#define KVS_QUICK_SSE2 1
#endif

#include "shm/hash.h"
#include "shm/map.h"
#include "shm/record.h"
#include "shm/table.h"

/// What one reader has worked out from the root word it saw last, every bound checked. Private to
/// the thread that reads.
struct kvs_quick_aim {
	uint64_t root; // 0 = nothing worked out: the rest leads to an empty bucket
	const struct kvs_bucket *bucket; // the first of its side
	uint64_t last;			 // index of the last one
	uint64_t mask;			 // of the hash's bits that choose a bucket
	uint64_t unsplit; // to take off an index that is not there yet: its bucket has not split
	// In the units of an entry's location, 8 bytes:
	uint64_t log_offset;
	uint64_t log_last; // from log_offset: a header that begins here is the last one mapped
	const unsigned char *log;	  // where the log begins here
	const unsigned char *log_last_at; // that last header
	// What keys are hashed with under this root:
	struct kvs_hash_flips flips;
	uint64_t hash_seed;
};

struct kvs_quick {
	const unsigned char *value;
	uint64_t seq;
	uint64_t time_key;  // the record's word
	uint64_t expiry_ms; // wall clock, 0 = never
	uint32_t value_bytes;
};

/// Forgets: before the first use, with another map, and when more has been mapped.
void kvs_quick_aim_clear(struct kvs_quick_aim *aim);

/// Works out `aim` for the present root. False, and nothing worked out, if this process has not
/// mapped what the root names, or if keys are not hashed by XXH3.
/// Call with: an open map. Thread must: be inside a read section and own `aim`. Orders: the root is
/// load-acquired (partner: the writer's root store), the bounds too (partner: kvs_map_extend()).
bool kvs_quick_aim(const struct kvs_map *map, struct kvs_quick_aim *aim);

/// The lengths of keys that are hashed and compared without a call or a loop.
static inline bool kvs_quick_is_short(size_t key_bytes)
{
	return key_bytes - 9 < 8; // 9..16
}

// Two words each, which may overlap: for 8..16 bytes.
static inline bool kvs_quick_words_equal(const unsigned char *at, const unsigned char *key,
					 size_t key_bytes)
{
	uint64_t a, b, c, d;
	memcpy(&a, at, 8);
	memcpy(&b, key, 8);
	memcpy(&c, at + key_bytes - 8, 8);
	memcpy(&d, key + key_bytes - 8, 8);
	return a == b && c == d;
}

// The entry word of `bucket` that has the tag of `hash`, the first of them; any other word if none
// has. Which one to look at is a hint: the word is loaded again, whole, and checked by the caller.
static inline __attribute__((always_inline)) uint64_t
kvs_quick_entry(const struct kvs_bucket *bucket, uint64_t hash)
{
#ifdef KVS_QUICK_SSE2
	const __m128 *pair = (const __m128 *)(const void *)bucket;
	// The high half of each word, whose own high half is the tag.
	__m128i low = _mm_castps_si128(_mm_shuffle_ps(pair[0], pair[1], 0xdd));
	__m128i high = _mm_castps_si128(_mm_shuffle_ps(pair[2], pair[3], 0xdd));
	__m128i tag = _mm_shuffle_epi32(_mm_cvtsi64_si128((long long)hash), 0x55);
	// Two bits a word, of which the second is the tag's. The last word is the link; its bit,
	// set here, stands for "none".
	uint64_t bits = (uint32_t)_mm_movemask_epi8(
		_mm_packs_epi16(_mm_cmpeq_epi16(low, tag), _mm_cmpeq_epi16(high, tag)));
	size_t at = (size_t)__builtin_ctzll((bits & 0xaaaau) | 0x8000u);
	const char *word = (const char *)bucket + at * 4 - 4;
	// Acquire: the record behind it is complete (partner: the writer's publishing store).
	return kvs_load_acquire((const uint64_t *)(const void *)word);
#else
	const uint64_t *word = (const uint64_t *)(const void *)bucket;
	unsigned place = KVS_BUCKET_ENTRIES; // the link stands for "none"
#pragma GCC unroll 8
	for (unsigned i = KVS_BUCKET_ENTRIES; i-- > 0;) {
		place = kvs_entry_tag_matches(kvs_load_relaxed(&word[i]), hash) ? i : place;
	}
	// Acquire: as above.
	return kvs_load_acquire(&word[place]);
#endif
}

/// Finds `key` if that is easy. False says nothing about whether it is there. With `brief`, a
/// constant, the key must be a short one (kvs_quick_is_short()) and only a value without expiry is
/// an answer; then nothing is called, so that a function around it needs no registers saved.
/// Call with: hash by the seed of `aim`, key_bytes at least 1, `aim` of this map. Thread must: as
/// kvs_table_find(), and own `aim`. Orders: the entry word is load-acquired, pairing with the
/// writer's release store.
static inline __attribute__((always_inline)) bool
kvs_table_quick(const struct kvs_hot *hot, const struct kvs_quick_aim *aim, uint64_t hash,
		const void *key, size_t key_bytes, bool brief, struct kvs_quick *out)
{
	// Acquire: the buckets it counts are filled (partner: the writer's root store).
	if (__builtin_expect(kvs_load_acquire(&hot->table_root) != aim->root, 0)) {
		return false;
	}
	uint64_t index = hash & aim->mask;
	// No branch: which side a hash falls on cannot be predicted.
	index -= aim->unsplit & -(uint64_t)(aim->last < index);
	uint64_t entry = kvs_quick_entry(&aim->bucket[index], hash);
	// What lies below the log wraps to huge: an empty entry, and a link. Neither tag nor kind
	// is looked at again: the record says itself whose it is and that it is a plain value.
	uint64_t start = (entry & KVS_ENTRY_LOCATION_MASK) - aim->log_offset;
	if (__builtin_expect(start > aim->log_last, 0)) {
		return false;
	}
	const unsigned char *at = aim->log + start * 8;
	// Where the value ends is in the header; its line need not wait for that.
	__builtin_prefetch(at + KVS_CACHE_LINE_BYTES);
	const struct kvs_record *record = (const struct kvs_record *)(const void *)at;
	// Relaxed, not for order but so that each word is loaded exactly once.
	uint64_t seq_flags = kvs_load_relaxed(&record->seq_flags);
	uint64_t time_key = kvs_load_relaxed(&record->time_key);
	uint32_t value_bytes = kvs_load_relaxed_32(&record->value_bytes);
	const unsigned char *body = at + sizeof(*record);
	out->expiry_ms = 0;
	// Any flag but MORE, which is the lowest.
	static_assert(KVS_RECORD_MORE == 1, "the lowest flag");
	if (__builtin_expect(seq_flags >= UINT64_C(2) << KVS_SEQ_BITS, 0)) {
		uint64_t special = seq_flags >> KVS_SEQ_BITS & ~(uint64_t)KVS_RECORD_MORE;
		if (brief || special != KVS_RECORD_EXPIRY || at + 8 > aim->log_last_at) {
			return false;
		}
		out->expiry_ms = kvs_load_relaxed((const uint64_t *)(const void *)body);
		body += 8;
	}
	// The bound is what is mapped, not the segment's end: bytes that lie have no other say.
	// The 8 are there whether or not the record has an expiry.
	if (__builtin_expect((time_key >> KVS_TIME_BITS & 0xfffu) != key_bytes, 0) ||
	    __builtin_expect(at + value_bytes > aim->log_last_at - key_bytes - 8, 0)) {
		return false;
	}
	if (__builtin_expect(!(brief ? kvs_quick_words_equal(body, key, key_bytes)
				     : memcmp(body, key, key_bytes) == 0),
			     0)) {
		return false;
	}
	out->value = body + key_bytes;
	out->seq = seq_flags & KVS_SEQ_MAX;
	out->time_key = time_key;
	out->value_bytes = value_bytes;
	return true;
}

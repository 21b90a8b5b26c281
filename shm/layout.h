// SPDX-License-Identifier: MIT
//
// The mapped structures: what kvd writes into the region and what every client reads from it, and
// the reader page, which goes the other way. Fixed-width fields only; every offset names its base;
// sizes and offsets are asserted below each struct and folded into a fingerprint, so that binaries
// built from different layouts refuse each other at attach. Words that change while others read
// them are touched through shm/atomics.h only. The byte tables are in shm/LAYOUT.md.
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/limits.h"

#define KVS_REGION_MARKER "kvd-reg1" // eight bytes, version in the text
#define KVS_PAGE_MARKER "kvd-pag1"
#define KVS_LAYOUT_VERSION 2u

/// Lifecycle of a region. A reader attaches only to ALIVE.
enum kvs_lifecycle {
	KVS_REGION_STARTING = 0, // being filled; no client has its descriptor yet
	KVS_REGION_ALIVE = 1,
	KVS_REGION_RETIRED = 2, // kvd shut down cleanly: contents frozen for ever
};

#define KVS_ADOPTIONS_KEPT 8u // a reader that slept through more of them attaches anew first

/// Header flags, fixed before the first attach of a life.
enum kvs_header_flags {
	KVS_HEADER_READERS_FENCE = 1, // kvd cannot issue membarrier: readers must use a full fence
	KVS_HEADER_STORELESS = 2, // kvd alone looks: it was written without a store to follow
};

/// How keys are hashed, fixed at creation. Who does not know a region's kind cannot read it.
enum kvs_hash_kind {
	KVS_HASH_XXH3 = 0,
	KVS_HASH_SIPHASH = 1, // SipHash-1-3: for keys from suppliers that nobody trusts
	KVS_HASH_KINDS_COUNT,
};

/// What keys are hashed with on one side of the table. Written only while no reader can be there.
struct kvs_hash_side {
	uint64_t key[2];     // XXH3 takes the first as its seed
	uint64_t generation; // how often the key was changed: 16 bits, 0 = never
	uint64_t reserved;
};

/// The parts of the region that grow. Offsets are fixed at creation; `ready` bounds only rise.
/// The table has two sides so that FLUSHALL is one root store; each side has its overflow buckets.
enum kvs_range {
	KVS_RANGE_TABLE_0,
	KVS_RANGE_TABLE_1,
	KVS_RANGE_OVERFLOW_0,
	KVS_RANGE_OVERFLOW_1,
	KVS_RANGE_LOG,
	KVS_RANGE_LARGE,
	KVS_RANGES_COUNT,
};

/// What every get loads, alone on its line. kvd writes it to publish an epoch, a table root or an
/// adoption, or that it comes or goes, nothing else: so it stays shared in every reader's cache.
struct kvs_hot {
	uint64_t epoch_word; // epoch << 16 | 1, stored unchanged into a slot
	uint64_t incarnation; // raised when a restarted kvd adopts the region
	uint64_t oldest_valid; // epoch; a view begun in an earlier one is not valid any more
	uint64_t table_root; // see KVS_ROOT_*: buckets, side, turns
	uint32_t writer; // a robust futex: is the kvd there that writes here? kvs_writer_is_there()
	uint32_t reserved_word;
	uint64_t reserved[3];
};
static_assert(sizeof(struct kvs_hot) == 64, "one line");

#define KVS_WRITER_DIED 0x40000000u // the kernel's word for the end of the thread that owned it
#define KVS_WRITER_NEVER UINT32_MAX // what stands in no region

/// While a kvd writes the region and no other region can serve from its folder, `writer` is the
/// number of a thread of it. When that thread ends, however it ends, the kernel puts
/// KVS_WRITER_DIED there; a kvd that stops in order puts 0, and so did all that did not know the
/// word. Then kvd.gen tells which region serves.
static inline bool kvs_writer_is_there(uint32_t writer)
{
	return writer - 1 < KVS_WRITER_DIED - 1;
}

/// Changes with every write; off the hot line on purpose.
struct kvs_watermarks {
	uint64_t applied_seq; // every record up to it is published
	uint64_t durable_seq; // every record up to it survives a crash of the machine
	// newest tombstone or FLUSHALL; stored before its effect is published
	uint64_t last_removal_seq;
	uint64_t flush_seq; // newest FLUSHALL
	uint32_t notify; // bumped after each commit; a futex word, a hint only
	uint32_t reserved_word;
	uint64_t reserved[3];
};
static_assert(sizeof(struct kvs_watermarks) == 64, "one line");

/// A range of the region: [offset, offset + bytes_max) from the start of the region, of which
/// clients may map [offset, offset + ready).
struct kvs_range_bounds {
	uint64_t offset;
	uint64_t bytes_max;
};

/// What a kvd that adopts the region leaves word of, for its readers and for the next that does.
struct kvs_adoptions {
	uint64_t epoch[KVS_ADOPTIONS_KEPT]; // incarnation i began with epoch[i % KEPT]
	uint64_t hold_epoch; // above oldest_valid: sections begun before it may be open, unseen
	uint64_t hold_since_ns; // since when, by the machine's monotonic clock
};

struct kvs_region_header {
	char marker[8]; // KVS_REGION_MARKER; that all is complete `lifecycle` tells
	uint32_t layout_version;
	uint32_t fingerprint; // kvs_layout_fingerprint()
	uint64_t lifecycle; // enum kvs_lifecycle
	uint64_t flags; // enum kvs_header_flags
	uint64_t instance_id; // random, the same in the store's meta
	uint64_t region_bytes; // size of the memfd
	uint64_t hash_kind;    // enum kvs_hash_kind
	uint64_t reserved_identity;

	struct kvs_hot hot; // offset 64
	struct kvs_watermarks marks; // offset 128

	uint64_t ready[KVS_RANGES_COUNT]; // published bytes of each range, release; only rise
	uint64_t reserved_ready[2]; // offset 192..255

	struct kvs_range_bounds ranges[KVS_RANGES_COUNT]; // fixed at creation; offset 256
	uint32_t segment_bytes; // power of two
	uint32_t segments_count_max;
	uint64_t segment_directory_offset; // from the start of the region
	uint64_t segment_chain_head; // index of the current head segment, for adoption
	uint64_t reserved_geometry;

	struct kvs_adoptions adoptions; // offset 384
	uint64_t overflow_fresh[2]; // of each side: overflow buckets from here on were never used
	uint64_t segment_survivor; // index + 1 of the survivor segment last begun, 0 = none
	uint64_t generation; // value of kvd.gen while this region serves
	uint64_t reserved_serving[2];

	struct kvs_hash_side hash_sides[2]; // offset 512
	uint64_t reserved_tail[56];
};
static_assert(offsetof(struct kvs_region_header, hot) == 64, "the hot line is line 1");
static_assert(offsetof(struct kvs_region_header, marks) == 128, "watermarks are line 2");
static_assert(offsetof(struct kvs_region_header, ready) == 192, "bounds are line 3");
static_assert(offsetof(struct kvs_region_header, ranges) == 256, "geometry from line 4");
static_assert(offsetof(struct kvs_region_header, adoptions) == 384, "adoption from line 6");
static_assert(offsetof(struct kvs_region_header, hash_sides) == 512, "keys are line 8");
static_assert(sizeof(struct kvs_region_header) == 1024, "counters start at 1024");

#define KVS_COUNTERS_OFFSET 1024u // from the start of the region: one u64 a row of counters.tbl.h
#define KVS_COUNTERS_MAX 256u
static_assert(KVS_COUNTERS_OFFSET + KVS_COUNTERS_MAX * 8 <= KVS_PAGE_BYTES, "one page");

/// State of a segment, for adoption and for `kvctl memory`. Clients never look at it.
enum kvs_segment_state {
	KVS_SEGMENT_FREE = 0,
	KVS_SEGMENT_HEAD = 1, // written in seq order by the writer, now or earlier
	KVS_SEGMENT_SURVIVOR = 2, // written by the cleaner; records keep their seq
	KVS_SEGMENT_RETIRED = 3, // emptied, waiting for its grace period
};

/// One entry of the segment directory, one line each.
struct kvs_segment_entry {
	uint64_t state; // enum kvs_segment_state
	uint64_t first_seq; // of a HEAD segment: seq of its first record
	uint64_t previous_head; // of a HEAD segment: index + 1 of the one before it, 0 = none
	uint64_t used_bytes; // records end here; raised before the last of them is written
	uint64_t retired_epoch; // of a RETIRED segment: its stamp
	uint64_t reserved[3];
};
static_assert(sizeof(struct kvs_segment_entry) == 64, "one line");

/// A bucket of the table: seven entries and the link to an overflow bucket of the same side.
struct kvs_bucket {
	uint64_t entry[KVS_BUCKET_ENTRIES]; // see KVS_ENTRY_*; 0 = empty
	uint64_t overflow; // index + 1 into the overflow range, 0 = end of chain
};
static_assert(sizeof(struct kvs_bucket) == 64, "one line");

// Root word: turns << 35 | side << 34 | buckets. `turns` counts changes of direction (grow,
// shrink), of side, and moves of entries within a chain; within one turn the bucket count moves one
// way only, so equal turns and an equal bucket index mean that nothing moved in between.
#define KVS_ROOT_BUCKETS_BITS 34
#define KVS_ROOT_BUCKETS_MASK ((UINT64_C(1) << KVS_ROOT_BUCKETS_BITS) - 1)
#define KVS_ROOT_SIDE_SHIFT KVS_ROOT_BUCKETS_BITS
#define KVS_ROOT_TURNS_SHIFT (KVS_ROOT_BUCKETS_BITS + 1)

static inline uint64_t kvs_root_buckets(uint64_t root)
{
	return root & KVS_ROOT_BUCKETS_MASK;
}

static inline unsigned kvs_root_side(uint64_t root)
{
	return (unsigned)(root >> KVS_ROOT_SIDE_SHIFT) & 1u;
}

static inline uint64_t kvs_root_turns(uint64_t root)
{
	return root >> KVS_ROOT_TURNS_SHIFT;
}

/// `turns` wraps after 2^29: no reader stays inside one get for so many.
static inline uint64_t kvs_root_make(uint64_t turns, unsigned side, uint64_t buckets)
{
	return turns << KVS_ROOT_TURNS_SHIFT | (uint64_t)side << KVS_ROOT_SIDE_SHIFT | buckets;
}

// Entry word: tag 16 | kind 3 | lines 5 | location 40. The tag is the hash's top 16 bits; `lines`
// is the record's size in cache lines, capped, a hint for prefetching; the location is the record's
// offset from the start of the region in units of 8 bytes.
enum kvs_entry_kind {
	KVS_ENTRY_VALUE = 1,
	KVS_ENTRY_TOMBSTONE = 2, // a miss for readers; stays until its removal is durable
	KVS_ENTRY_STUB = 3, // value only in the store
	KVS_ENTRY_LARGE = 4, // value in the large range
};

#define KVS_ENTRY_LOCATION_BITS 40
#define KVS_ENTRY_LOCATION_MASK ((UINT64_C(1) << KVS_ENTRY_LOCATION_BITS) - 1)
#define KVS_ENTRY_LINES_MAX 31u

static inline uint64_t kvs_entry_make(uint64_t hash, enum kvs_entry_kind kind,
				      uint64_t record_bytes, uint64_t offset)
{
	uint64_t lines = (record_bytes + 63) / 64;
	if (lines > KVS_ENTRY_LINES_MAX) {
		lines = KVS_ENTRY_LINES_MAX;
	}
	return (hash >> 48) << 48 | (uint64_t)kind << 45 | lines << 40 | offset / 8;
}

static inline uint64_t kvs_entry_offset(uint64_t entry)
{
	return (entry & KVS_ENTRY_LOCATION_MASK) * 8;
}

static inline unsigned kvs_entry_kind(uint64_t entry)
{
	return (unsigned)(entry >> 45) & 7u;
}

static inline unsigned kvs_entry_lines(uint64_t entry)
{
	return (unsigned)(entry >> 40) & 31u;
}

/// True if the entry's tag is that of `hash`.
static inline int kvs_entry_tag_matches(uint64_t entry, uint64_t hash)
{
	return (entry ^ hash) >> 48 == 0;
}

/// State of a reader page, written by kvd.
enum kvs_page_state {
	KVS_PAGE_ATTACHED = 0,
	KVS_PAGE_DETACHED = 1, // the connection is gone: finish what is open, then attach again
};

/// First two lines of a reader page. kvd writes it; the client only reads.
struct kvs_page_header {
	char marker[8]; // KVS_PAGE_MARKER
	uint64_t state; // enum kvs_page_state
	uint64_t readers_count; // slots that kvd scans
	uint64_t sample_every; // one hit in about so many is sampled; 0 = KVS_SAMPLE_EVERY
	uint64_t rings; // 1: struct kvs_sample_ring of each slot stands behind the page; else none
	uint64_t reserved[11];
};
static_assert(sizeof(struct kvs_page_header) == 128, "as large as a slot");

/// One reader: two lines that only its owner stores to, except `revoked_upto`.
struct kvs_slot {
	uint64_t word; // epoch << 16 | nesting; nesting 0 = no view open
	uint64_t revoked_upto; // epoch; kvd took memory back from views begun up to it
	uint64_t hits; // statistics: owner counts, kvd sums
	uint64_t misses;
	uint64_t thread_id; // for diagnostics only, never trusted
	uint64_t reserved[3];
	uint64_t sample_count; // second line: how many hashes were left in the ring
	uint64_t samples[7]; // the ring where the page has no others; nobody reads it
};
static_assert(sizeof(struct kvs_slot) == 128, "two lines, never shared with another reader");
static_assert(sizeof(struct kvs_page_header) + KVS_READERS_PER_PAGE * sizeof(struct kvs_slot) ==
		      KVS_PAGE_BYTES,
	      "a reader page is one page");

#define KVS_SAMPLE_EVERY 64u // one hit in about so many leaves its hash in the ring, at least
#define KVS_RING_SAMPLES 128u

/// What a reader hit lately, lossy: sample i stands at i % KVS_RING_SAMPLES. Memory that only who
/// reads takes.
struct kvs_sample_ring {
	uint64_t hash[KVS_RING_SAMPLES];
};
static_assert(sizeof(struct kvs_sample_ring) == 1024, "four rings a page");

struct kvs_reader_page {
	struct kvs_page_header header;
	struct kvs_slot slot[KVS_READERS_PER_PAGE];
};
static_assert(sizeof(struct kvs_reader_page) == KVS_PAGE_BYTES, "one page");

/// The file of a reader page: the page, then a ring for each of its slots, then nothing up to the
/// next page.
#define KVS_PAGE_FILE_BYTES                                                                        \
	((KVS_PAGE_BYTES + KVS_READERS_PER_PAGE * sizeof(struct kvs_sample_ring) +                 \
	  KVS_PAGE_BYTES - 1) /                                                                    \
	 KVS_PAGE_BYTES * KVS_PAGE_BYTES)

/// The ring of the slot with this index. Call it only for a page whose header says that it has
/// rings, and whose file was mapped whole.
static inline struct kvs_sample_ring *kvs_page_ring(struct kvs_reader_page *page, unsigned index)
{
	return (struct kvs_sample_ring *)(void *)(page + 1) + index;
}

#define KVS_EPOCH_SHIFT 16
#define KVS_NESTING_MASK UINT64_C(0xffff)

/// Folds the sizes and offsets that matter into one word. Two builds with different layouts get
/// different words and refuse each other.
static inline uint32_t kvs_layout_fingerprint(void)
{
	const uint32_t parts[] = {
		KVS_LAYOUT_VERSION,
		sizeof(struct kvs_region_header),
		offsetof(struct kvs_region_header, hot),
		offsetof(struct kvs_region_header, marks),
		offsetof(struct kvs_region_header, ready),
		offsetof(struct kvs_region_header, ranges),
		offsetof(struct kvs_region_header, segment_bytes),
		offsetof(struct kvs_region_header, adoptions),
		offsetof(struct kvs_region_header, hash_sides),
		sizeof(struct kvs_segment_entry),
		sizeof(struct kvs_bucket),
		sizeof(struct kvs_reader_page),
		sizeof(struct kvs_slot),
		offsetof(struct kvs_slot, revoked_upto),
		KVS_ENTRY_LOCATION_BITS,
		KVS_ROOT_BUCKETS_BITS,
		KVS_RECORD_ALIGN_BYTES,
		KVS_RANGES_COUNT,
		__BYTE_ORDER__,
	};
	uint32_t word = 2166136261u;
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		word = (word ^ parts[i]) * 16777619u;
	}
	return word;
}

// SPDX-License-Identifier: MIT
//
// Finding things by hash: channels, patterns, cached keys, sessions. Links are embedded in what
// is found, so entering never fails for lack of memory; the table grows by one bucket at a time,
// so no entry ever waits for the others to be moved (a table that doubles stops everybody for
// milliseconds at a million entries). Comparing keys is the caller's. Everything belongs to the
// loop's thread.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct lookup_link {
	struct lookup_link *next;
	uint64_t hash;
};

/// All zero is an empty table: one bucket, which is part of it.
struct lookup {
	struct lookup_link *zero;
	struct lookup_link ***chunks; // the other buckets, some hundred in each
	size_t chunks_capacity;
	size_t grown; // number of buckets besides the first
	size_t mask;  // of hash bits that choose a bucket: 2^n - 1, at least `grown`
	size_t count;
};

void lookup_add(struct lookup *table, struct lookup_link *link, uint64_t hash);
/// `link` must be in the table.
void lookup_remove(struct lookup *table, struct lookup_link *link);

/// The first entry with exactly this hash, and the next after `link`; NULL = none.
struct lookup_link *lookup_first(const struct lookup *table, uint64_t hash);
struct lookup_link *lookup_more(const struct lookup_link *link);

/// For going through a table bucket by bucket, 0..lookup_buckets()-1; link->next is the next in it.
/// Entries that come meanwhile only move to buckets that come later.
size_t lookup_buckets(const struct lookup *table);
struct lookup_link *lookup_chain(const struct lookup *table, size_t bucket);

/// Some entry, chosen by a random number; NULL if the table is empty.
struct lookup_link *lookup_any(struct lookup *table, uint64_t random);

/// Takes out some entry; NULL if there is none. Begin with *cursor 0 and add nothing between calls:
/// emptying a table costs as much as it has buckets.
struct lookup_link *lookup_take(struct lookup *table, size_t *cursor);

/// Frees the buckets; what was in them is the caller's.
void lookup_free(struct lookup *table);

// SPDX-License-Identifier: MIT
//
// Memory of the table ahead of its need, and given back behind it. A huge page may take the kernel
// milliseconds, so a helper thread populates what comes next: it is told a piece of a range, knows
// nothing else, and touches no word of the table. The writer alone moves the bounds, before and
// afterwards, so nothing is published before its pages are there. A piece counts as taken from the
// moment it is given out: the memory bound holds at any time.
//
// A table that shrank has pages behind its last bucket. A reader with an older root may still be
// there, so they wait in limbo, and go back in parts; what the table grew into meanwhile stays.
#include <errno.h>
#include <string.h>

#include "shm/table_internal.h"

// Of a chunk so much is left when the next is populated: at a million new keys a second the helper
// has ten milliseconds or more. Growth may come later, unnoticed; who needs an overflow bucket
// waits.
#define AHEAD_SHARE 8u
#define AHEAD_SHARE_OVERFLOW 2u
#define AHEAD_CHUNKS_MAX 4u	     // of one piece
#define AHEAD_OVERFLOW_BUCKETS 1024u // of the side that is being filled, for one slice of it
#define TAIL_SPARE_CHUNKS 1u // left to a table that shrank, or each turn of the tide would cost one

static uint64_t ahead_round(const struct kvs_table *table, unsigned range, uint64_t bytes)
{
	uint64_t chunk = kvs_table_chunk_bytes(table->region, range);
	return (bytes + chunk - 1) / chunk * chunk;
}

int kvs_table_await(struct kvs_table *table, unsigned range, uint64_t bytes)
{
	struct kvs_table_ahead *ahead = &table->ahead;
	if (bytes <= table->populated[range]) {
		return 0;
	}
	uint64_t target = ahead_round(table, range, bytes);
	if (!ahead->helped || ahead->refused[range] ||
	    target > table->region->map.ranges[range].bytes_max) {
		ahead->refused[range] = false;
		return kvs_table_populate(table, range, bytes);
	}
	if (target > ahead->wanted[range]) {
		ahead->wanted[range] = target;
	}
	return -EAGAIN;
}

int kvs_table_await_growth(struct kvs_table *table)
{
	return kvs_table_await(table, KVS_RANGE_TABLE_0 + table->side,
			       (table->buckets + 1) * sizeof(struct kvs_bucket));
}

int kvs_table_await_side(struct kvs_table *table)
{
	unsigned other = table->side ^ 1u;
	if (!table->ahead.helped) {
		return 0; // one after the other, as they are needed
	}
	int primary = kvs_table_await(table, KVS_RANGE_TABLE_0 + other, 1);
	int overflow = kvs_table_await(table, KVS_RANGE_OVERFLOW_0 + other, 1);
	return primary != 0 ? primary : overflow;
}

uint64_t kvs_table_reseed_next_bytes(const struct kvs_table *table)
{
	unsigned range = KVS_RANGE_OVERFLOW_0 + (table->side ^ 1u);
	if (!table->reseed.active) {
		return 0;
	}
	uint64_t chunk = kvs_table_chunk_bytes(table->region, range);
	uint64_t have = table->populated[range];
	uint64_t fresh = table->overflow[table->side ^ 1u].fresh + AHEAD_OVERFLOW_BUCKETS;
	bool more = fresh * sizeof(struct kvs_bucket) > have &&
		    have + chunk <= table->region->map.ranges[range].bytes_max;
	return kvs_table_reseed_bytes(table) + (more ? chunk : 0);
}

int kvs_table_await_reseed(struct kvs_table *table)
{
	unsigned other = table->side ^ 1u;
	if (!table->reseed.active) {
		return 0;
	}
	uint64_t next = kvs_table_reseed_bytes(table);
	int primary = 0;
	if (next > 0) {
		unsigned range = KVS_RANGE_TABLE_0 + other;
		primary = kvs_table_await(table, range, table->populated[range] + next);
	}
	uint64_t fresh = table->overflow[other].fresh + AHEAD_OVERFLOW_BUCKETS;
	int overflow = kvs_table_await(table, KVS_RANGE_OVERFLOW_0 + other,
				       fresh * sizeof(struct kvs_bucket));
	return primary != 0 ? primary : overflow;
}

// Will the serving side soon want another chunk of this range?
static bool ahead_is_near(const struct kvs_table *table, unsigned range)
{
	uint64_t chunk = kvs_table_chunk_bytes(table->region, range) / sizeof(struct kvs_bucket);
	uint64_t have = table->populated[range] / sizeof(struct kvs_bucket);
	if (range == KVS_RANGE_TABLE_0 + table->side) {
		uint64_t near = have - (have < chunk ? have : chunk) / AHEAD_SHARE;
		return table->entries * 16 > near * KVS_TABLE_LOAD_GROW_X16;
	}
	const struct kvs_overflow *overflow = &table->overflow[table->side];
	return range == KVS_RANGE_OVERFLOW_0 + table->side && overflow->fresh > 0 &&
	       overflow->freed_count + have < overflow->fresh + chunk / AHEAD_SHARE_OVERFLOW;
}

bool kvs_table_ahead_next(const struct kvs_table *table, unsigned passed,
			  struct kvs_table_piece *piece)
{
	const struct kvs_table_ahead *ahead = &table->ahead;
	const struct kvs_region *region = table->region;
	if (!ahead->helped || ahead->active) {
		return false;
	}
	for (unsigned i = 0; i < 2 * KVS_TABLE_RANGES; i++) {
		unsigned range = i % KVS_TABLE_RANGES; // what is waited for comes first
		bool awaited = i < KVS_TABLE_RANGES;
		uint64_t chunk = kvs_table_chunk_bytes(region, range);
		uint64_t have = table->populated[range];
		uint64_t until = awaited ? ahead->wanted[range] : have;
		if (!awaited && !ahead->refused[range] && ahead_is_near(table, range)) {
			until = have + chunk;
		}
		if (until > have + AHEAD_CHUNKS_MAX * chunk) {
			until = have + AHEAD_CHUNKS_MAX * chunk;
		}
		if ((passed >> i & 1u) == 0 && until > have &&
		    until <= region->map.ranges[range].bytes_max) {
			*piece = (struct kvs_table_piece){
				.range = range,
				.offset = region->map.ranges[range].offset + have,
				.bytes = until - have,
				.place = i,
				.awaited = awaited,
			};
			return true;
		}
	}
	return false;
}

void kvs_table_ahead_begin(struct kvs_table *table, const struct kvs_table_piece *piece)
{
	table->ahead.active = true;
	table->ahead.stale = false;
	table->ahead.piece = *piece;
	table->region->table_bytes += piece->bytes;
}

void kvs_table_ahead_end(struct kvs_table *table, bool populated)
{
	struct kvs_table_ahead *ahead = &table->ahead;
	struct kvs_region *region = table->region;
	unsigned range = ahead->piece.range;
	uint64_t offset = region->map.ranges[range].offset;
	uint64_t from = ahead->piece.offset - offset;
	uint64_t until = from + ahead->piece.bytes;
	uint64_t have = table->populated[range]; // more than `from`: somebody could not wait
	ahead->active = false;
	ahead->refused[range] = !populated;
	ahead->since_ns[range] = 0;	     // who wants more of it waits anew
	region->table_bytes -= until - from; // what of it is used is counted below
	if (populated && !ahead->stale && have < until) {
		region->table_bytes += until - have;
		table->populated[range] = until;
		kvs_region_publish(region, (enum kvs_range)range, until);
	} else if (have < until) {
		uint64_t at = have > from ? have : from;
		// Nobody counts these pages. If they stay they are zero, and in nobody's way.
		(void)kvs_region_punch(region, offset + at, until - at);
	}
	if (!populated || table->populated[range] >= ahead->wanted[range]) {
		kvs_table_wanted_no_more(table, range);
	}
}

bool kvs_table_shorten(struct kvs_table *table, unsigned range, uint64_t bytes)
{
	struct kvs_region *region = table->region;
	uint64_t have = table->populated[range];
	uint64_t offset = region->map.ranges[range].offset;
	kvs_region_poison(region, offset + have - bytes, bytes);
	if (kvs_region_punch(region, offset + have - bytes, bytes) != 0) {
		return false;
	}
	table->populated[range] = have - bytes;
	kvs_table_wanted_no_more(table, range); // who still wants it asks again
	region->table_bytes -= bytes;
	if (table->ahead.active && table->ahead.piece.range == range) {
		table->ahead.stale = true;
	}
	return true;
}

void kvs_table_tail_look(struct kvs_table *table)
{
	unsigned range = KVS_RANGE_TABLE_0 + table->side;
	uint64_t keep = ahead_round(table, range, table->buckets * sizeof(struct kvs_bucket)) +
			TAIL_SPARE_CHUNKS * kvs_table_chunk_bytes(table->region, range);
	if (table->tail_from == KVS_TABLE_TAIL_NONE && table->populated[range] > keep) {
		table->tail_from = keep;
		kvs_limbo_push(table->limbo, kvs_epoch_stamp(table->epochs), KVS_LIMBO_TAIL,
			       table->side, table->populated[range] - keep);
	}
}

bool kvs_table_free_tail_part(struct kvs_table *table, unsigned side, uint64_t bytes_max)
{
	unsigned range = KVS_RANGE_TABLE_0 + side;
	uint64_t chunk = kvs_table_chunk_bytes(table->region, range);
	uint64_t most = bytes_max > chunk ? bytes_max - bytes_max % chunk : chunk;
	// A side that serves no more waits in limbo behind this, as a whole.
	if (side == table->side && table->populated[range] > table->tail_from) {
		uint64_t bytes = table->populated[range] - table->tail_from;
		bytes = bytes < most ? bytes : most;
		if (kvs_table_shorten(table, range, bytes)) {
			if (table->populated[range] > table->tail_from) {
				return false;
			}
		} else { // they stay, and are as empty as a bucket that was never used
			memset(table->region->base + table->region->map.ranges[range].offset +
				       table->populated[range] - bytes,
			       0, bytes);
		}
	}
	table->tail_from = KVS_TABLE_TAIL_NONE;
	kvs_table_tail_look(table); // it may have shrunk further meanwhile
	return true;
}

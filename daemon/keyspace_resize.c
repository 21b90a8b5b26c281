// SPDX-License-Identifier: MIT
//
// The bound on memory, changed while kvd serves. Nobody maps anything anew: offsets are laid out
// for memory-max, and the bound is arithmetic. It rises at once. It falls as memory comes free:
// what is free beyond what writers need is taken off it, some segments a turn, and the cleaner
// empties others meanwhile. So whoever writes never waits for a bound that falls: it leaves them
// more than the reserves, but no more than they will have when it is down.
#include "daemon/keyspace_internal.h"

#include "daemon/keyspace_memory.h"
#include "daemon/log.h"

#define RESIZE_STEP_BYTES (8u << 20) // taken off in one turn: their pages go back with it
#define RESIZE_POLL_NS 10000000u     // nothing is to be emptied: until readers leave, keys go
#define RESIZE_TOLD_NS UINT64_C(1000000000) // it stands for so long: that is told
#define RESIZE_SEGMENTS_LEFT 2u // that writers keep beyond the reserves, and a share of all
#define RESIZE_SEGMENTS_SHARE 16u
#define RESIZE_LIVE_PERCENT 95u	     // as full as segments can be packed
#define RESIZE_STUBS_LOOKED_AT 4096u // for what they have on average,
#define RESIZE_STUBS_PERCENT 103u    // and somewhat more
#define RESIZE_SEGMENTS_OPEN 2u	     // the head and the survivor segment, which are not packed

// With fewer free segments a write may find none.
static uint32_t resize_lowest(const struct keyspace *keyspace)
{
	return keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE) + 1;
}

void keyspace_set_memory(struct keyspace *keyspace, uint64_t bytes)
{
	struct kvs_region *region = keyspace->region;
	if (bytes != keyspace->memory_wanted_bytes) {
		keyspace->resize_moved_ns = 0;
	}
	keyspace->memory_wanted_bytes = bytes;
	// The old and the new while one is overwritten.
	keyspace->value_bytes_max = keyspace->value_bytes_limit < bytes / 2
					    ? keyspace->value_bytes_limit
					    : (size_t)(bytes / 2);
	if (bytes > keyspace->memory_bytes) {
		keyspace->memory_bytes = bytes;
		region->memory_bytes = bytes > region->memory_bytes ? bytes : region->memory_bytes;
		evict_memory_rose(keyspace);
	}
	keyspace->resize_look_ns = 0;
	keyspace->cleaner.next_ns = 0; // the next turn begins to lower it
}

// What lives in segments, and what those that are full have left at their ends.
struct resize_live {
	uint64_t bytes;
	uint64_t tails_bytes;
	uint64_t closed;
};

static struct resize_live resize_live(const struct kvs_log *log)
{
	struct resize_live live = { 0 };
	uint64_t segment_bytes = log->region->segment_bytes;
	for (uint32_t i = 0; i < log->touched_count; i++) {
		const struct kvs_segment *segment = &log->segments[i];
		// One that was put out of the way counts more than it can hold.
		live.bytes +=
			segment->live_bytes < segment_bytes ? segment->live_bytes : segment_bytes;
		if ((segment->state == KVS_SEGMENT_HEAD ||
		     segment->state == KVS_SEGMENT_SURVIVOR) &&
		    i != log->head.segment && i != log->survivor.segment) {
			live.tails_bytes += segment_bytes - segment->used_bytes;
			live.closed++;
		}
	}
	return live;
}

// Of a segment that is packed so much holds records: its end is too short for the next. As it was
// where they stand, unless the short ones that filled it are gone: then by what they have on
// average.
static uint64_t resize_usable(const struct keyspace *keyspace, const struct resize_live *live)
{
	uint64_t segment_bytes = keyspace->region->segment_bytes;
	uint64_t tail = live->closed > 0 ? live->tails_bytes / live->closed : 0;
	uint64_t record = keyspace->keys > 0 ? live->bytes / keyspace->keys : 0;
	tail = record > tail ? record : tail;
	return segment_bytes - (tail < segment_bytes / 2 ? tail : segment_bytes / 2);
}

struct resize_stubs {
	uint64_t bytes;
	uint64_t count;
	const struct kvs_map *map;
};

static void stubs_visit(void *context, uint64_t entry)
{
	struct resize_stubs *stubs = context;
	struct kvs_hit hit;
	if (kvs_table_load(stubs->map, entry, &hit) != KVS_FIND_HIT) {
		return;
	}
	const struct kvs_record_view *view = &hit.view;
	uint32_t stub = kvs_record_stub_bytes(view->key_bytes, view->expiry_ms != 0);
	bool goes = stub < view->record_bytes || hit.kind == KVS_ENTRY_LARGE;
	stubs->bytes += goes ? stub : view->record_bytes;
	stubs->count++;
}

// What stays of all records where values go, by some of them: keys stand in the order of their
// hashes, so the first are as good as any.
static uint64_t resize_stubs_bytes(const struct keyspace *keyspace)
{
	struct resize_stubs stubs = { .map = &keyspace->region->map };
	uint64_t cursor = 0;
	do {
		cursor = kvs_table_scan(stubs.map, cursor, stubs_visit, &stubs);
	} while (cursor != 0 && stubs.count < RESIZE_STUBS_LOOKED_AT);
	if (cursor == 0 || stubs.count == 0) {
		return stubs.bytes;
	}
	double mean = (double)stubs.bytes / (double)stubs.count;
	return (uint64_t)(mean * (double)keyspace->table.entries) / 100 * RESIZE_STUBS_PERCENT;
}

uint64_t keyspace_memory_least(const struct keyspace *keyspace, bool values_go)
{
	const struct kvs_log *log = &keyspace->log;
	struct resize_live live = resize_live(log);
	if (values_go) {
		uint64_t bytes = resize_stubs_bytes(keyspace);
		live.bytes = bytes < live.bytes ? bytes : live.bytes;
		live.tails_bytes = 0; // those are the values'
	}
	uint64_t packed_bytes = resize_usable(keyspace, &live) * RESIZE_LIVE_PERCENT / 100;
	uint64_t segments =
		live.bytes / packed_bytes + RESIZE_SEGMENTS_OPEN + resize_lowest(keyspace);
	uint64_t taken = (uint64_t)log->full_count + log->retired_count;
	return kvs_log_memory_for(log, 0) - (taken << log->region->segment_shift) +
	       (segments << log->region->segment_shift);
}

// Free segments that a bound which falls leaves to writers.
static uint32_t resize_low(const struct keyspace *keyspace)
{
	uint32_t low = keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE) + RESIZE_SEGMENTS_LEFT +
		       kvs_log_segments_allowed(&keyspace->log) / RESIZE_SEGMENTS_SHARE;
	uint32_t most = resize_lowest(keyspace);
	most = keyspace->resize_spare < UINT32_MAX - most ? most + keyspace->resize_spare : low;
	return low < most ? low : most;
}

// How much more is free than must be when the bound is down and all is packed: to insist on more
// before would keep it from coming down. Where keys have to go first that is not known.
static void resize_look(struct keyspace *keyspace, uint64_t now_ns)
{
	uint64_t least_bytes = keyspace_memory_least(keyspace, keyspace->evict.spills);
	uint64_t wanted_bytes = keyspace->memory_wanted_bytes;
	uint64_t spare = wanted_bytes < least_bytes
				 ? UINT32_MAX
				 : (wanted_bytes - least_bytes) >> keyspace->region->segment_shift;
	keyspace->resize_spare = spare < UINT32_MAX ? (uint32_t)spare : UINT32_MAX;
	keyspace->resize_look_ns = now_ns + RESIZE_POLL_NS; // all segments are looked at for it
}

uint32_t keyspace_resize_wants(const struct keyspace *keyspace)
{
	if (keyspace->memory_bytes <= keyspace->memory_wanted_bytes) {
		return 0;
	}
	uint64_t over_bytes = keyspace->memory_bytes - keyspace->memory_wanted_bytes;
	uint64_t wanted =
		(over_bytes >> keyspace->region->segment_shift) + 1 + resize_low(keyspace);
	// What waits for readers or for a commit is not free yet, and emptying more would not hurry
	// them.
	uint64_t coming = cleaner_segments_coming(keyspace) +
			  (keyspace->pending_tombstone_bytes >> keyspace->region->segment_shift);
	return wanted > coming ? (uint32_t)(wanted - coming) : 0;
}

// Takes off what is free beyond what writers need. False: there was nothing of the kind.
static bool resize_lower(struct keyspace *keyspace)
{
	struct kvs_region *region = keyspace->region;
	uint64_t over_bytes = keyspace->memory_bytes - keyspace->memory_wanted_bytes;
	if (region->memory_bytes != keyspace->memory_bytes) {
		// Raised for what was accepted once, and writes are refused until it has come down.
		keyspace->memory_bytes = keyspace->memory_wanted_bytes;
		(void)keyspace_is_over_bound(keyspace);
		return true;
	}
	// What is less than a segment, too: nobody can use it.
	uint64_t needed_bytes = kvs_log_memory_for(&keyspace->log, resize_low(keyspace));
	uint64_t step_bytes =
		region->memory_bytes > needed_bytes ? region->memory_bytes - needed_bytes : 0;
	uint64_t most_bytes = region->segment_bytes > RESIZE_STEP_BYTES ? region->segment_bytes
									: RESIZE_STEP_BYTES;
	step_bytes = step_bytes < most_bytes ? step_bytes : most_bytes;
	step_bytes = step_bytes < over_bytes ? step_bytes : over_bytes;
	keyspace->memory_bytes -= step_bytes;
	region->memory_bytes = keyspace->memory_bytes;
	SEAM_CRASH(bound_lowered);
	(void)kvs_log_trim(&keyspace->log, kvs_log_part(&keyspace->log));
	return step_bytes > 0;
}

static const struct {
	const char *name, *text;
} resize_bounds[] = {
	[KEYSPACE_BOUND_HOLDS] = { "nothing", "nothing" },
	[KEYSPACE_BOUND_CLEANING] = { "cleaning", "segments are being emptied for it" },
	[KEYSPACE_BOUND_READERS] = { "readers",
				     "what came free waits for readers to end their views" },
	[KEYSPACE_BOUND_STORE] = { "store", "what was written waits for the store" },
	[KEYSPACE_BOUND_STORED] = { "stored", "what has to stay in memory has become more since "
					      "it was set" },
};

const char *keyspace_bound_name(enum keyspace_bound bound)
{
	return resize_bounds[bound].name;
}

const char *keyspace_bound_text(enum keyspace_bound bound)
{
	return resize_bounds[bound].text;
}

enum keyspace_bound keyspace_bound(struct keyspace *keyspace)
{
	if (keyspace->memory_bytes <= keyspace->memory_wanted_bytes) {
		return KEYSPACE_BOUND_HOLDS;
	}
	bool more = keyspace_resize_wants(keyspace) > 0; // than comes free by itself
	if (more && (evict_is_wanted(keyspace) || cleaner_finds(keyspace, RESIZE_LIVE_PERCENT))) {
		return KEYSPACE_BOUND_CLEANING;
	}
	if (keyspace->log.retired_count > 0 || keyspace->large.leaving_bytes > 0 ||
	    keyspace->large.orphaned_bytes > 0) {
		return KEYSPACE_BOUND_READERS;
	}
	if (keyspace->persisted && keyspace_durable_seq(keyspace) < keyspace_last_seq(keyspace)) {
		return KEYSPACE_BOUND_STORE;
	}
	return more ? KEYSPACE_BOUND_STORED : KEYSPACE_BOUND_CLEANING;
}

// It was accepted, since what is in its way should go; who set it wants to know if it does not.
static void resize_tell(struct keyspace *keyspace, uint64_t now_ns, bool moved)
{
	if (moved || keyspace->resize_moved_ns == 0) {
		keyspace->resize_moved_ns = now_ns;
	} else if (now_ns - keyspace->resize_moved_ns >= RESIZE_TOLD_NS &&
		   keyspace->resize_moved_ns != UINT64_MAX) {
		keyspace->resize_moved_ns = UINT64_MAX; // once
		log_warning("memory is to be bounded by %llu bytes, and is not yet, but by %llu: "
			    "%s",
			    (unsigned long long)keyspace->memory_wanted_bytes,
			    (unsigned long long)keyspace->memory_bytes,
			    keyspace_bound_text(keyspace_bound(keyspace)));
	}
}

uint64_t keyspace_resize_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	if (__builtin_expect(keyspace->memory_bytes <= keyspace->memory_wanted_bytes, 1)) {
		return UINT64_MAX;
	}
	if (now_ns >= keyspace->resize_look_ns) {
		resize_look(keyspace, now_ns);
	}
	bool lowered = resize_lower(keyspace);
	keyspace->stirred += lowered; // memory may be short now
	if (keyspace->memory_bytes <= keyspace->memory_wanted_bytes) {
		log_notice("memory is bounded by %llu bytes now",
			   (unsigned long long)keyspace->memory_bytes);
		return UINT64_MAX;
	}
	resize_tell(keyspace, now_ns, lowered);
	if (lowered ||
	    (keyspace_resize_wants(keyspace) > 0 && cleaner_go(keyspace, RESIZE_LIVE_PERCENT))) {
		return now_ns;
	}
	return now_ns + RESIZE_POLL_NS;
}

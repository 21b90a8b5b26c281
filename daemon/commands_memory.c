// SPDX-License-Identifier: MIT
//
// KVD.MEMORY: where the region's memory is, how much of it holds nothing live, and what stands in
// the way of more.
#include "daemon/commands.h"

#include <inttypes.h>

#include "daemon/keyspace_memory.h"
#include "daemon/text.h"

#define MEMORY_BYTES_MAX 4096u

static const char *const memory_shortages[] = {
	[KEYSPACE_SHORT_OF_NOTHING] = "nothing",
	[KEYSPACE_SHORT_READERS] = "readers: memory that came free waits for them",
	[KEYSPACE_SHORT_STORE] = "the store: too much waits for its commit",
	[KEYSPACE_SHORT_CLEANING] = "cleaning: segments with dead records are being emptied",
	[KEYSPACE_SHORT_MEMORY] = "memory: nearly all of it is live",
};

static const char *const memory_pages_names[] = {
	[CONFIG_PAGES_SMALL] = "small",
	[CONFIG_PAGES_TRANSPARENT] = "transparent",
	[CONFIG_PAGES_HUGETLB] = "hugetlb",
};

static void memory_segments(struct text *text, const struct keyspace_memory *memory)
{
	text_printf(text,
		    "\"segments\":{\"bytes\":%" PRIu64 ",\"allowed\":%u,\"reserved\":%u,"
		    "\"free_populated\":%u,\"free_unpopulated\":%u,\"preparing\":%u,"
		    "\"open\":%u,\"written\":%u,\"copied\":%u,\"retired\":%u},",
		    memory->segment_bytes, memory->allowed, memory->reserved,
		    memory->free_populated, memory->free_unpopulated, memory->preparing,
		    memory->open, memory->written, memory->copied, memory->retired);
	text_printf(text,
		    "\"records\":{\"live_bytes\":%" PRIu64 ",\"dead_bytes\":%" PRIu64
		    ",\"tails_bytes\":%" PRIu64 ",\"fragmentation_percent\":%.2f},",
		    memory->live_bytes, memory->dead_bytes, memory->tails_bytes,
		    keyspace_fragmentation(memory));
}

// All that was written, for each 100 bytes that clients wrote.
static double memory_amplification_percent(const struct stats *stats)
{
	double by_clients = (double)stats_get(stats, KVS_COUNTER_log_appended_bytes) +
			    (double)stats_get(stats, KVS_COUNTER_large_copied_bytes) +
			    (double)stats_get(stats, KVS_COUNTER_large_received_bytes);
	double again = (double)stats_get(stats, KVS_COUNTER_cleaner_copied_bytes) +
		       (double)stats_get(stats, KVS_COUNTER_large_moved_bytes);
	return by_clients > 0 ? 100.0 * (by_clients + again) / by_clients : 100.0;
}

void commands_memory_kvd(struct call *call)
{
	const struct kvd *kvd = call->kvd;
	struct keyspace_memory memory;
	struct text text;
	keyspace_memory(kvd->keyspace, &memory);
	text_init(&text, MEMORY_BYTES_MAX);
	text_printf(&text, "{\"bound_bytes\":%" PRIu64 ",\"used_bytes\":%" PRIu64 ",",
		    memory.bound_bytes, memory.used_bytes);
	memory_segments(&text, &memory);
	text_printf(&text,
		    "\"table\":{\"bytes\":%" PRIu64 ",\"overflow_bytes\":%" PRIu64
		    "},\"large\":{\"bytes\":%" PRIu64 ",\"orphaned_bytes\":%" PRIu64 "},",
		    memory.table_bytes, memory.overflow_bytes, memory.large_bytes,
		    memory.orphaned_bytes);
	text_printf(&text,
		    "\"cold\":{\"values\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"waits\":%" PRIu64
		    ",\"loading_bytes\":%" PRIu64 "},",
		    memory.cold_values, memory.cold_bytes,
		    stats_get(kvd->stats, KVS_COUNTER_cold_waits),
		    stats_get(kvd->stats, KVS_COUNTER_cold_loading_bytes));
	text_printf(&text,
		    "\"pages\":{\"kind\":\"%s\",\"bytes\":%" PRIu64
		    ",\"prefault\":%s,\"locked\":%s},",
		    memory_pages_names[kvd->config.huge_pages % 3], memory.page_bytes,
		    config_prefaults(&kvd->config) ? "true" : "false",
		    kvd->config.mlock == 1 ? "true" : "false");
	text_printf(&text,
		    "\"waiting\":{\"items\":%" PRIu64 ",\"bytes\":%" PRIu64
		    ",\"unpersisted_bytes\":%" PRIu64 "},",
		    memory.limbo_items, memory.limbo_bytes, memory.unpersisted_bytes);
	text_printf(&text,
		    "\"file\":{\"bytes\":%" PRIu64 ",\"expected_bytes\":%" PRIu64
		    ",\"exact\":%s},\"resident_bytes\":%" PRIu64 ",\"own_bytes\":%" PRIu64 ",",
		    memory.file_bytes, memory.expected_bytes, memory.exact ? "true" : "false",
		    stats_resident_bytes(kvd), stats_own_bytes(kvd));
	text_printf(&text, "\"write_amplification_percent\":%.0f,\"in_the_way\":\"%s\",",
		    memory_amplification_percent(kvd->stats), memory_shortages[memory.shortage]);
	text_printf(&text, "\"wanted_bytes\":%" PRIu64 ",\"bound_waits_for\":\"%s\"}",
		    memory.wanted_bytes, keyspace_bound_text(memory.bound));
	reply_bulk(call->session, text.data ? text.data : "{}", text.data ? text.bytes : 2);
	text_fini(&text);
}

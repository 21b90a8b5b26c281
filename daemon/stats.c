// SPDX-License-Identifier: MIT
//
// Numbers for INFO and KVD.STATS; see stats.h.
#include "daemon/stats.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/commands.h"
#include "daemon/loop.h"
#include "daemon/persist.h"
#include "daemon/readers.h"
#include "daemon/seam.h"
#include "daemon/session.h"
#include "daemon/text.h"
#include "shm/map.h"

#define STATS_USERS_LISTED_MAX 256u
#define STATS_CLIENTS_LISTED_MAX 256u // attached processes that KVD.STATS describes one by one

struct stats *stats_create(struct kvd *kvd)
{
	struct stats *stats = calloc(1, sizeof(*stats));
	if (!stats) {
		return NULL;
	}
	const struct kvs_map *map = keyspace_map(kvd->keyspace);
	stats->counters = kvs_counter_word(map->base, (enum kvs_counter)0);
	stats->samples_taken = 1; // the one of the start, all zero but its time
	stats->samples[0].time_ms = kvd->seam->wall_ms();
	slowlog_init(&stats->slowlog);
	kvd->stats = stats;
	stats_settle_timing(kvd);
	return stats;
}

static void stats_forget_times(struct stats *stats)
{
	for (size_t i = 0; i < STATS_COMMANDS_MAX; i++) {
		free(stats->commands[i].histogram);
	}
	memset(stats->commands, 0, sizeof(stats->commands));
}

void stats_destroy(struct stats *stats)
{
	if (!stats) {
		return;
	}
	stats_forget_times(stats);
	slowlog_trim(&stats->slowlog, 0, UINT64_MAX);
	for (unsigned i = 0; i < LATENCY_EVENTS; i++) {
		(void)latency_reset(&stats->latency, (enum latency_event)i);
	}
	free(stats);
}

void stats_settle_timing(struct kvd *kvd)
{
	const struct config *config = &kvd->config;
	bool all = (config->slowlog_us >= 0 && config->slowlog_us < STATS_TIMED_ALL_US) ||
		   config->latency_ms > 0;
	kvd->stats->timing_mask = all ? 0 : STATS_TIMED_EVERY - 1;
	slowlog_trim(&kvd->stats->slowlog, config->slowlog_entries, SLOWLOG_TRIM_MAX);
}

void stats_took(struct call *call, uint64_t ns)
{
	const struct config *config = &call->kvd->config;
	struct stats *stats = call->kvd->stats;
	struct stats_command *numbers = &stats->commands[commands_index(call->command)];
	uint64_t micros = ns / 1000;
	uint32_t flags = call->command->flags;
	numbers->timed_calls++;
	numbers->timed_ns += ns;
	if (config->latency_tracking && !numbers->histogram) {
		numbers->histogram = calloc(1, sizeof(*numbers->histogram));
	}
	if (config->latency_tracking && numbers->histogram) {
		latency_histogram_add(numbers->histogram, ns);
	}
	if (config->slowlog_us >= 0 && micros >= (uint64_t)config->slowlog_us &&
	    config->slowlog_entries > 0 && !(flags & COMMAND_SKIP_SLOWLOG)) {
		slowlog_add(&stats->slowlog, call->session, call->argv, call->argc, micros,
			    call->kvd->seam->wall_ms() / 1000, config->slowlog_entries);
	}
	if (config->latency_ms > 0 && micros / 1000 >= config->latency_ms) {
		latency_add(&stats->latency,
			    flags & COMMAND_FAST ? LATENCY_FAST_COMMAND : LATENCY_COMMAND,
			    micros / 1000, call->kvd->seam->wall_ms() / 1000);
	}
}

void stats_sample_slow(struct stats *stats, uint64_t now_ms)
{
	struct stats_sample *sample = &stats->samples[stats->samples_taken % STATS_RATE_SAMPLES];
	*sample = (struct stats_sample){
		.time_ms = now_ms,
		.commands = stats_get(stats, KVS_COUNTER_commands_processed),
		.input_bytes = stats_get(stats, KVS_COUNTER_input_bytes),
		.output_bytes = stats_get(stats, KVS_COUNTER_output_bytes),
	};
	stats->samples_taken++;
}

struct stats_rates stats_rates(const struct stats *stats, uint64_t now_ms)
{
	// The oldest sample of the window; after a pause none is in it, and the rate is that since
	// the last.
	const uint64_t window_ms = STATS_RATE_SAMPLES * STATS_RATE_SAMPLE_MS;
	uint64_t kept = stats->samples_taken < STATS_RATE_SAMPLES ? stats->samples_taken
								  : STATS_RATE_SAMPLES;
	uint64_t index = stats->samples_taken - kept;
	while (index + 1 < stats->samples_taken &&
	       now_ms - stats->samples[index % STATS_RATE_SAMPLES].time_ms > window_ms) {
		index++;
	}
	const struct stats_sample *from = &stats->samples[index % STATS_RATE_SAMPLES];
	uint64_t elapsed_ms = now_ms > from->time_ms ? now_ms - from->time_ms : 1;
	double seconds =
		(double)(elapsed_ms < STATS_RATE_SAMPLE_MS ? STATS_RATE_SAMPLE_MS : elapsed_ms) /
		1000.0;
	uint64_t commands = stats_get(stats, KVS_COUNTER_commands_processed) - from->commands;
	uint64_t input = stats_get(stats, KVS_COUNTER_input_bytes) - from->input_bytes;
	uint64_t output = stats_get(stats, KVS_COUNTER_output_bytes) - from->output_bytes;
	return (struct stats_rates){
		.commands = (uint64_t)((double)commands / seconds),
		.input_kib = (double)input / 1024.0 / seconds,
		.output_kib = (double)output / 1024.0 / seconds,
	};
}

void stats_reset(struct stats *stats)
{
	for (size_t i = 0; i < KVS_COUNTERS_COUNT; i++) {
		stats->base[i] =
			kvs_counter_infos[i].is_gauge ? 0 : stats_get(stats, (enum kvs_counter)i);
	}
	stats_forget_times(stats);
	memset(stats->errors, 0, sizeof(stats->errors));
	stats->errors_count = 0;
}

void stats_count_error(struct stats *stats, const char *text)
{
	size_t bytes = strcspn(text, " ");
	unsigned i = 0;
	while (i < stats->errors_count && (strlen(stats->errors[i].code) != bytes ||
					   strncmp(stats->errors[i].code, text, bytes) != 0)) {
		i++;
	}
	if (i == STATS_ERRORS_MAX || bytes >= STATS_ERROR_CODE_BYTES) {
		return;
	}
	if (i == stats->errors_count) {
		memcpy(stats->errors[i].code, text, bytes);
		stats->errors_count++;
	}
	stats->errors[i].count++;
}

void stats_turn(const struct kvd *kvd)
{
	struct loop_longest longest = loop_longest(kvd->loop);
	uint64_t *counters = kvd->stats->counters;
	// partner: none, statistics
	kvs_store_relaxed(counters + KVS_COUNTER_turn_longest_us, longest.thread_ns / 1000);
	kvs_store_relaxed(counters + KVS_COUNTER_turn_longest_wall_us, longest.wall_ns / 1000);
}

// Pages that the process maps, and those of them that are of files or shared memory.
static bool stats_pages(const struct kvd *kvd, uint64_t *resident, uint64_t *shared)
{
	char line[128];
	int fd = kvd->seam->open("/proc/self/statm", O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0) {
		return false;
	}
	ssize_t bytes = kvd->seam->read(fd, line, sizeof(line) - 1);
	(void)close(fd);
	if (bytes <= 0) {
		return false;
	}
	line[bytes] = 0;
	char *at = strchr(line, ' ');
	*resident = at ? strtoull(at, &at, 10) : 0;
	*shared = at ? strtoull(at, NULL, 10) : 0;
	return true;
}

uint64_t stats_resident_bytes(const struct kvd *kvd)
{
	uint64_t resident, shared;
	bool known = stats_pages(kvd, &resident, &shared);
	return known ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

uint64_t stats_own_bytes(const struct kvd *kvd)
{
	uint64_t resident, shared;
	bool known = stats_pages(kvd, &resident, &shared) && resident > shared;
	return known ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static void stats_json_commands(const struct kvd *kvd, struct text *text)
{
	size_t count;
	const struct command *table = command_table(&count);
	const char *comma = "";
	text_printf(text, ",\"commands\":{");
	for (size_t i = 0; i < count; i++) {
		const struct stats_command *numbers = &kvd->stats->commands[i];
		if (!numbers->calls && !numbers->rejected) {
			continue;
		}
		text_printf(text, "%s\"%s\":{\"calls\":%" PRIu64 ",\"failed\":%" PRIu64, comma,
			    table[i].name, numbers->calls, numbers->failed);
		text_printf(text, ",\"rejected\":%" PRIu64 ",\"usec_per_call\":%.3f}",
			    numbers->rejected, stats_usec_per_call(numbers));
		comma = ",";
	}
	text_printf(text, "}");
}

static void stats_json_clients(const struct kvd *kvd, struct text *text)
{
	struct readers_info info;
	text_printf(text, ",\"clients\":[");
	for (size_t n = 0;
	     kvd->readers && n < STATS_CLIENTS_LISTED_MAX && readers_info(kvd->readers, n, &info);
	     n++) {
		text_printf(text, "%s{\"session\":%" PRIu64 ",\"pid\":%d,\"uid\":%u,\"pages\":%u",
			    n ? "," : "", info.session_id, info.pid, info.uid, info.pages);
		text_printf(text, ",\"hits\":%" PRIu64 ",\"misses\":%" PRIu64, info.hits,
			    info.misses);
		text_printf(text, ",\"revoked\":%" PRIu64 ",\"inside\":%s}", info.revoked,
			    info.inside ? "true" : "false");
	}
	text_printf(text, "]");
}

/// Users that own something, with what else they have.
static void stats_json_users(const struct kvd *kvd, struct text *text)
{
	unsigned listed = 0;
	text_printf(text, ",\"users\":[");
	for (uint16_t i = 1; i < KVS_WRITERS_MAX && listed < STATS_USERS_LISTED_MAX; i++) {
		uint32_t uid;
		struct keyspace_owned owned = keyspace_owned(kvd->keyspace, i);
		if (owned.keys == 0 || !keyspace_writer_uid(kvd->keyspace, i, &uid)) {
			continue;
		}
		text_printf(text, "%s{\"uid\":%u,\"stored_bytes\":%" PRIu64 ",\"keys\":%" PRIu64,
			    listed++ ? "," : "", uid, owned.bytes, owned.keys);
		text_printf(text, ",\"connections\":%zu,\"pages\":%u}",
			    kvd->sessions ? session_uid_count(kvd->sessions, uid) : 0,
			    kvd->readers ? readers_pages(kvd->readers, uid) : 0);
	}
	text_printf(text, "]");
}

void stats_json(const struct kvd *kvd, struct text *text)
{
	static const char *const policies[] = { "memory", "lazy", "group", "sync" };
	const char *why = NULL;
	enum persist_state state =
		kvd->persist ? persist_state(kvd->persist, &why) : PERSIST_STATE_OK;
	uint64_t now_ms = kvd->seam->wall_ms();
	struct stats_rates rates = stats_rates(kvd->stats, now_ms);
	text_printf(text, "{\"version\":\"%s\",\"pid\":%d,\"uptime_ms\":%" PRIu64, KVD_VERSION,
		    (int)getpid(), (kvd->seam->monotonic_ns() - kvd->started_ns) / 1000000u);
	text_printf(text, ",\"policy\":\"%s\",\"state\":\"%s\"",
		    policies[kvd->config.persist_policy & 3], persist_state_name(state));
	text_printf(text, ",\"store_renewals\":%" PRIu64,
		    kvd->persist ? persist_renewals(kvd->persist) : 0);
	if (state != PERSIST_STATE_OK && why) {
		text_printf(text, ",\"why\":");
		text_json_string(text, why);
	}
	text_printf(text, ",\"applied_seq\":%" PRIu64 ",\"durable_seq\":%" PRIu64,
		    keyspace_last_seq(kvd->keyspace), keyspace_durable_seq(kvd->keyspace));
	text_printf(text, ",\"instance_id\":\"%016" PRIx64 "\",\"run_id\":\"%s\"", kvd->instance_id,
		    kvd->run_id);
	text_printf(text, ",\"commands_per_second\":%" PRIu64 ",\"resident_bytes\":%" PRIu64,
		    rates.commands, stats_resident_bytes(kvd));
	text_printf(text, ",\"counters\":{");
	for (size_t i = 0; i < KVS_COUNTERS_COUNT; i++) {
		text_printf(text, "%s\"%s\":%" PRIu64, i ? "," : "", kvs_counter_infos[i].name,
			    stats_get(kvd->stats, (enum kvs_counter)i));
	}
	text_printf(text, "}");
	stats_json_commands(kvd, text);
	stats_json_clients(kvd, text);
	stats_json_users(kvd, text);
	text_printf(text, "}");
}

// SPDX-License-Identifier: MIT
//
// INFO commandstats, errorstats, latencystats: what exporters collect about commands.
#include "daemon/commands.h"
#include "daemon/commands_info.h"

#include <inttypes.h>
#include <stdlib.h>

#include "daemon/text.h"

/// Of forks, replication, eviction, defragmentation, scripts, threads.
static const struct info_never {
	const char *section;
	const char *fields; // with spaces between
} info_nevers[] = {
	{ "clients", "client_recent_max_input_buffer client_recent_max_output_buffer" },
	{ "memory", "used_memory_vm_eval used_memory_scripts_eval used_memory_vm_functions "
		    "used_memory_vm_total used_memory_functions lazyfreed_objects" },
	{ "persistence",
	  "current_cow_peak current_cow_size current_cow_size_age current_fork_perc "
	  "current_save_keys_processed current_save_keys_total rdb_last_cow_size aof_rewrites "
	  "aof_rewrites_consecutive_failures aof_last_cow_size module_fork_in_progress "
	  "module_fork_last_cow_size" },
	{ "stats",
	  "total_net_repl_input_bytes total_net_repl_output_bytes instantaneous_input_repl_kbps "
	  "instantaneous_output_repl_kbps expired_stale_perc expired_time_cap_reached_count "
	  "evicted_clients total_eviction_exceeded_time current_eviction_exceeded_time "
	  "active_defrag_hits active_defrag_misses active_defrag_key_hits "
	  "active_defrag_key_misses total_active_defrag_time current_active_defrag_time "
	  "dump_payload_sanitizations io_threaded_reads_processed io_threaded_writes_processed" },
};

void commands_info_never(struct text *text, const char *section)
{
	for (size_t i = 0; i < sizeof(info_nevers) / sizeof(info_nevers[0]); i++) {
		const char *at =
			strcmp(section, info_nevers[i].section) == 0 ? info_nevers[i].fields : "";
		while (*at) {
			size_t bytes = strcspn(at, " ");
			text_printf(text, "%.*s:0\r\n", (int)bytes, at);
			at += bytes + strspn(at + bytes, " ");
		}
	}
}

void commands_info_commandstats(const struct kvd *kvd, struct text *text, size_t command)
{
	size_t count;
	const struct stats_command *numbers = &kvd->stats->commands[command];
	if (!numbers->calls && !numbers->rejected) {
		return;
	}
	double each = stats_usec_per_call(numbers);
	text_printf(text, "cmdstat_%s:calls=%" PRIu64 ",usec=%.0f,usec_per_call=%.2f,",
		    command_table(&count)[command].name, numbers->calls,
		    each * (double)numbers->calls, each);
	text_printf(text, "rejected_calls=%" PRIu64 ",failed_calls=%" PRIu64 "\r\n",
		    numbers->rejected, numbers->failed);
}

void commands_info_errorstats(const struct kvd *kvd, struct text *text)
{
	for (unsigned i = 0; i < kvd->stats->errors_count; i++) {
		const struct stats_error *error = &kvd->stats->errors[i];
		text_printf(text, "errorstat_%s:count=%" PRIu64 "\r\n", error->code, error->count);
	}
}

static void info_percentiles(const struct kvd *kvd, struct text *text, const char *name,
			     const struct latency_histogram *histogram)
{
	const char *at = kvd->config.latency_percentiles;
	const char *comma = "";
	text_printf(text, "latency_percentiles_usec_%s:", name);
	for (;;) {
		char *end;
		double percent = strtod(at, &end);
		if (end == at) {
			break;
		}
		double micros = (double)latency_percentile(histogram, percent) / 1000.0;
		text_printf(text, "%sp%g=%.3f", comma, percent, micros);
		comma = ",";
		at = end;
	}
	text_printf(text, "\r\n");
}

void commands_info_latencystats(const struct kvd *kvd, struct text *text, size_t command)
{
	size_t count;
	const struct latency_histogram *histogram = kvd->stats->commands[command].histogram;
	if (histogram && kvd->config.latency_percentiles) {
		info_percentiles(kvd, text, command_table(&count)[command].name, histogram);
	}
}

// SPDX-License-Identifier: MIT
//
// INFO commandstats, errorstats, latencystats: what exporters collect about commands.
#include "daemon/commands.h"
#include "daemon/commands_info.h"

#include <inttypes.h>
#include <stdlib.h>

#include "daemon/text.h"

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

// SPDX-License-Identifier: MIT
//
// Series are rings that are allocated when an event happens for the first time. A histogram's step
// is found from the position of the highest bit and the three bits below it.
#include "daemon/latency.h"

#include <stdlib.h>

const char *latency_event_name(enum latency_event event)
{
	static const char *const names[LATENCY_EVENTS] = {
		[LATENCY_COMMAND] = "command",
		[LATENCY_FAST_COMMAND] = "fast-command",
		[LATENCY_COLD_LOAD] = "cold-load",
	};
	return names[event];
}

void latency_add(struct latency *latency, enum latency_event event, uint64_t ms, uint64_t time_s)
{
	if (!latency->series[event]) {
		latency->series[event] = calloc(1, sizeof(*latency->series[event]));
	}
	struct latency_series *series = latency->series[event];
	if (!series) {
		return;
	}
	series->max_ms = ms > series->max_ms ? ms : series->max_ms;
	struct latency_sample *last =
		&series->samples[(series->next + LATENCY_SAMPLES - 1) % LATENCY_SAMPLES];
	if (last->time_s == time_s) {
		last->ms = ms > last->ms ? ms : last->ms;
		return;
	}
	series->samples[series->next] = (struct latency_sample){ .time_s = time_s, .ms = ms };
	series->next = (series->next + 1) % LATENCY_SAMPLES;
}

bool latency_reset(struct latency *latency, enum latency_event event)
{
	bool was = latency->series[event] != NULL;
	free(latency->series[event]);
	latency->series[event] = NULL;
	return was;
}

static unsigned latency_step(uint64_t ns)
{
	const unsigned steps = 1u << LATENCY_OCTAVE_BITS;
	if (ns < steps) {
		return (unsigned)ns;
	}
	unsigned highest = 63u - (unsigned)__builtin_clzll(ns);
	unsigned octave = highest - LATENCY_OCTAVE_BITS + 1;
	unsigned step = (octave << LATENCY_OCTAVE_BITS) +
			(unsigned)((ns >> (highest - LATENCY_OCTAVE_BITS)) & (steps - 1));
	return step < LATENCY_STEPS ? step : LATENCY_STEPS - 1;
}

void latency_histogram_add(struct latency_histogram *histogram, uint64_t ns)
{
	uint32_t *count = &histogram->counts[latency_step(ns)];
	if (*count < UINT32_MAX) {
		(*count)++;
		histogram->total++;
	}
}

uint64_t latency_step_end(unsigned step)
{
	unsigned octave = step >> LATENCY_OCTAVE_BITS;
	uint64_t within = step & ((1u << LATENCY_OCTAVE_BITS) - 1);
	if (octave == 0) {
		return within + 1;
	}
	return ((UINT64_C(1) << LATENCY_OCTAVE_BITS) + within + 1) << (octave - 1);
}

uint64_t latency_percentile(const struct latency_histogram *histogram, double percent)
{
	uint64_t wanted = (uint64_t)((double)histogram->total * percent / 100.0 + 0.5);
	uint64_t seen = 0;
	unsigned step = 0;
	wanted = wanted > 0 ? wanted : 1;
	while (step < LATENCY_STEPS - 1 && seen + histogram->counts[step] < wanted) {
		seen += histogram->counts[step++];
	}
	return latency_step_end(step) - 1;
}

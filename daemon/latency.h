// SPDX-License-Identifier: MIT
//
// How long things took. Spikes over a threshold, kept as a series an event (LATENCY), and a
// histogram for each command (LATENCY HISTOGRAM, INFO latencystats). Everything belongs to the
// loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LATENCY_SAMPLES 160u // of one event that are kept, at most one a second

enum latency_event {
	LATENCY_COMMAND,
	LATENCY_FAST_COMMAND,
	LATENCY_COLD_LOAD, // from when a value was wanted first until it had come from the store
	LATENCY_EVENTS,
};

struct latency_sample {
	uint64_t time_s; // wall clock, 0 = none
	uint64_t ms;
};

struct latency_series {
	struct latency_sample samples[LATENCY_SAMPLES];
	unsigned next;	 // where the next sample goes
	uint64_t max_ms; // of all there ever were
};

struct latency {
	struct latency_series *series[LATENCY_EVENTS]; // NULL = nothing happened
};

/// As Redis calls it, if that has it.
const char *latency_event_name(enum latency_event event);

/// Notes a spike; of those in one second the longest counts. Without memory nothing is noted.
void latency_add(struct latency *latency, enum latency_event event, uint64_t ms, uint64_t time_s);

/// The `i`-th sample, oldest first; time_s is 0 for those that were not used yet.
static inline struct latency_sample latency_sample(const struct latency_series *series, unsigned i)
{
	return series->samples[(series->next + i) % LATENCY_SAMPLES];
}

/// Forgets an event. False if there was nothing to forget.
bool latency_reset(struct latency *latency, enum latency_event event);

// ---- histograms ----

#define LATENCY_OCTAVE_BITS 3u // eight steps from one power of two to the next
#define LATENCY_OCTAVES 33u    // up to half a minute; longer counts as that
#define LATENCY_STEPS (LATENCY_OCTAVES << LATENCY_OCTAVE_BITS)

/// Counts of durations, in steps of at most an eighth of their size.
struct latency_histogram {
	uint64_t total;
	uint32_t counts[LATENCY_STEPS];
};

void latency_histogram_add(struct latency_histogram *histogram, uint64_t ns);
/// Least duration in ns that is longer than what falls into this step.
uint64_t latency_step_end(unsigned step);
/// Duration in ns below which `percent` of all lie.
uint64_t latency_percentile(const struct latency_histogram *histogram, double percent);

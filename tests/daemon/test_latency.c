// SPDX-License-Identifier: MIT
//
// Times: what a series keeps of the spikes of one second and of many, and that a histogram is never
// more than an eighth off.
#include "daemon/latency.h"

#include "tests/tap/tap.h"

static void test_series(void)
{
	struct latency latency = { 0 };
	ok(!latency_reset(&latency, LATENCY_COMMAND), "nothing to forget");
	latency_add(&latency, LATENCY_COMMAND, 5, 100);
	latency_add(&latency, LATENCY_COMMAND, 9, 100);
	latency_add(&latency, LATENCY_COMMAND, 7, 100);
	const struct latency_series *series = latency.series[LATENCY_COMMAND];
	struct latency_sample last = latency_sample(series, LATENCY_SAMPLES - 1);
	ok(last.time_s == 100 && last.ms == 9, "the longest of a second counts");
	ok(latency_sample(series, LATENCY_SAMPLES - 2).time_s == 0, "once");
	for (uint64_t s = 101; s < 101 + LATENCY_SAMPLES; s++) {
		latency_add(&latency, LATENCY_COMMAND, s, s);
	}
	ok_u64(latency_sample(series, 0).time_s, 101, "G: the oldest is forgotten");
	ok_u64(latency_sample(series, LATENCY_SAMPLES - 1).ms, 100 + LATENCY_SAMPLES,
	       "the newest is there");
	ok_u64(series->max_ms, 100 + LATENCY_SAMPLES, "and the longest of all");
	ok(!latency.series[LATENCY_FAST_COMMAND], "events are apart");
	ok(latency_reset(&latency, LATENCY_COMMAND) && !latency.series[LATENCY_COMMAND],
	   "what is reset is gone");
}

static void test_steps(void)
{
	struct latency_histogram histogram = { 0 };
	unsigned wrong = 0;
	for (unsigned step = 0; step + 1 < LATENCY_STEPS; step++) {
		uint64_t end = latency_step_end(step);
		uint64_t before = histogram.counts[step];
		uint64_t behind = histogram.counts[step + 1];
		latency_histogram_add(&histogram, end - 1);
		latency_histogram_add(&histogram, end);
		if (histogram.counts[step] != before + 1 ||
		    histogram.counts[step + 1] != behind + 1) {
			tap_diag("step %u ends at %llu", step, (unsigned long long)end);
			wrong++;
		}
	}
	ok_u64(wrong, 0, "each step ends where it says, without gap or overlap");
	latency_histogram_add(&histogram, UINT64_MAX);
	ok(histogram.counts[LATENCY_STEPS - 1] > 0,
	   "G: what is longer than all falls into the last");
	ok_u64(histogram.total, 2 * (LATENCY_STEPS - 1) + 1, "all are counted");
}

static void test_percentiles(void)
{
	struct latency_histogram histogram = { 0 };
	unsigned wrong = 0;
	for (uint64_t ns = 1; ns <= 100000; ns++) {
		latency_histogram_add(&histogram, ns);
	}
	static const double percents[] = { 1, 10, 50, 90, 99, 99.9, 100 };
	for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
		double exact = percents[i] * 1000;
		double got = (double)latency_percentile(&histogram, percents[i]);
		if (got < exact * 0.999 || got > exact * 1.13) {
			tap_diag("%g %%: %g, exactly %g", percents[i], got, exact);
			wrong++;
		}
	}
	ok_u64(wrong, 0, "percentiles are at most an eighth above");
	struct latency_histogram one = { 0 };
	latency_histogram_add(&one, 1000);
	ok(latency_percentile(&one, 0) == latency_percentile(&one, 100),
	   "of one value all are alike");
}

int main(void)
{
	test_series();
	test_steps();
	test_percentiles();
	return tap_done();
}

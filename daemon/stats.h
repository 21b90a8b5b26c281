// SPDX-License-Identifier: MIT
//
// What INFO and KVD.STATS tell: the counters in the region's first page, which any process may
// read, and what only kvd knows: calls and sampled times of each command, and operations a second.
// Nothing here runs on a timer; an idle kvd stays asleep. Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/command.h"
#include "daemon/latency.h"
#include "daemon/slowlog.h"
#include "shm/atomics.h"
#include "shm/counters.h"

struct kvd;
struct text;

#define STATS_COMMANDS_MAX 256u
#define STATS_RATE_SAMPLES 16u	  // as Redis: the average of the last 16 samples …
#define STATS_RATE_SAMPLE_MS 100u // … taken this far apart while commands run
#define STATS_TIMED_EVERY 64u	  // one call in so many is timed, a power of two …
#define STATS_LONG_ARGS 64u	  // … or it has more arguments …
#define STATS_TIMED_ALL_US 10000  // … unless SLOWLOG asks for commands shorter than this

/// One command's numbers.
struct stats_command {
	uint64_t calls;
	uint64_t failed;      // answered with an error while running
	uint64_t rejected;    // not run: arity, key, queueing, memory
	uint64_t timed_calls; // of `calls`, those that were timed
	uint64_t timed_ns;
	struct latency_histogram *histogram; // of the timed ones, NULL without any
};

/// Average of the timed calls, microseconds; 0 without one.
static inline double stats_usec_per_call(const struct stats_command *numbers)
{
	return numbers->timed_calls
		       ? (double)numbers->timed_ns / (double)numbers->timed_calls / 1000.0
		       : 0.0;
}

#define STATS_ERRORS_MAX 32u // codes that are told apart
#define STATS_ERROR_CODE_BYTES 24u

/// How often an error began with this code.
struct stats_error {
	char code[STATS_ERROR_CODE_BYTES];
	uint64_t count;
};

/// A moment's totals, for rates.
struct stats_sample {
	uint64_t time_ms;
	uint64_t commands;
	uint64_t input_bytes;
	uint64_t output_bytes;
};

struct stats {
	uint64_t *counters; // words in the region's first page; kvd is their only writer
	uint64_t base[KVS_COUNTERS_COUNT]; // values at CONFIG RESETSTAT, for INFO
	struct stats_command commands[STATS_COMMANDS_MAX];
	struct stats_error errors[STATS_ERRORS_MAX];
	unsigned errors_count;
	struct stats_sample samples[STATS_RATE_SAMPLES];
	uint64_t samples_taken;
	uint64_t timing_clock; // counts calls: every STATS_TIMED_EVERY-th is timed
	uint64_t timing_mask;  // 0 = all of them are
	struct slowlog slowlog;
	struct latency latency;
	uint64_t memory_peak_bytes; // as INFO saw it
};

/// Creates the statistics over the counters of kvd->keyspace's region. NULL if memory is short.
struct stats *stats_create(struct kvd *kvd);
/// NULL is fine.
void stats_destroy(struct stats *stats);

/// Adds to a counter. kvd's loop is the only writer of these words; partner: relaxed loads
/// anywhere.
static inline void stats_add(struct stats *stats, enum kvs_counter counter, uint64_t by)
{
	kvs_count(stats->counters + counter, by);
}

/// Sets a gauge, likewise.
static inline void stats_set(struct stats *stats, enum kvs_counter counter, uint64_t value)
{
	kvs_store_relaxed(stats->counters + counter, value);
}

/// A counter's value; other threads of kvd may write it, hence relaxed (partner: their
/// kvs_count()).
static inline uint64_t stats_get(const struct stats *stats, enum kvs_counter counter)
{
	return kvs_load_relaxed(stats->counters + counter);
}

/// The same since CONFIG RESETSTAT, for counters.
static inline uint64_t stats_since_reset(const struct stats *stats, enum kvs_counter counter)
{
	return stats_get(stats, counter) - stats->base[counter];
}

/// Counts an error reply by the code that its text begins with.
void stats_count_error(struct stats *stats, const char *text);

/// How exactly commands are timed follows from the options of SLOWLOG and LATENCY: call it when one
/// of them was changed.
void stats_settle_timing(struct kvd *kvd);

/// Is this call to be timed? One in many is, the first of each command, and whatever may be long.
static inline bool stats_timed(struct stats *stats, const struct stats_command *numbers,
			       const struct call *call)
{
	return (++stats->timing_clock & stats->timing_mask) == 0 || !numbers->timed_calls ||
	       call->argc > STATS_LONG_ARGS ||
	       (call->command->flags & (COMMAND_SLOW_OK | COMMAND_ADMIN));
}

/// A call that was timed took so long: counts it, and keeps it for SLOWLOG and LATENCY if it was
/// long.
void stats_took(struct call *call, uint64_t ns);

/// Takes a sample for the rates if the last is old enough; the dispatcher calls it with the clock
/// that it has anyway.
void stats_sample_slow(struct stats *stats, uint64_t now_ms);
static inline void stats_sample(struct stats *stats, uint64_t now_ms)
{
	const struct stats_sample *last =
		&stats->samples[(stats->samples_taken - 1) % STATS_RATE_SAMPLES];
	if (now_ms - last->time_ms >= STATS_RATE_SAMPLE_MS) {
		stats_sample_slow(stats, now_ms);
	}
}

/// Averages over the samples: a second's commands, and bytes in and out.
struct stats_rates {
	uint64_t commands;
	double input_kib;
	double output_kib;
};
struct stats_rates stats_rates(const struct stats *stats, uint64_t now_ms);

/// CONFIG RESETSTAT: INFO's counts and the commands' numbers start from zero; the region's words
/// and KVD.STATS go on.
void stats_reset(struct stats *stats);

/// Tells in the counters which turn of the loop was the longest; once a turn.
void stats_turn(const struct kvd *kvd);

/// The whole of KVD.STATS as one JSON object, appended to `text`. Fields are only ever added:
/// version, pid, uptime_ms, policy, state, applied_seq, durable_seq, instance_id, run_id,
/// counters {name: value}, commands {name: {calls, failed, rejected, usec_per_call}},
/// clients [{session, pid, uid, pages, hits, misses, revoked, inside}],
/// users [{uid, stored_bytes, keys, connections, pages}] of those who own something.
void stats_json(const struct kvd *kvd, struct text *text);

/// Resident memory of this process in bytes, 0 if /proc does not tell.
uint64_t stats_resident_bytes(const struct kvd *kvd);
/// Of it what is neither shared memory nor of a file: its own.
uint64_t stats_own_bytes(const struct kvd *kvd);

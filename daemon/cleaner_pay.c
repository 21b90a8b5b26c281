// SPDX-License-Identifier: MIT
//
// While segments are few, who writes cleans, in proportion: for each byte appended so many bytes of
// segments that as many come free, twice as many where the last segments are used up, less where
// the shortage has just begun. So memory never runs out between two writes, nobody waits for a
// whole segment to be cleaned, and no more is cleaned than is needed: segments that are left alone
// go on losing bytes, and cost less later.
#include "daemon/keyspace_internal.h"

#define PAY_BYTES (16u << 10) // of segments, looked at for one payment
#define PAY_SEGMENTS_AHEAD 2u // free ones beyond the reserves, and a share of all
#define PAY_SEGMENTS_SHARE 64u
#define PAY_SEGMENTS_SHARE_JUDGED 256u // the same where keys go
#define PAY_RATE_MAX 64u	       // bytes looked at for one that is appended
#define PAY_RATE_UNIT 16u	       // rates are counted in its parts
#define PAY_APPENDED_MIN 1024u	       // between two payments
#define PAY_APPENDED_MAX (64u << 10)

uint32_t cleaner_segments_coming(const struct keyspace *keyspace)
{
	uint64_t runs = keyspace->large.leaving_bytes >> keyspace->region->segment_shift;
	return kvs_log_segments_free(&keyspace->log) + keyspace->log.retired_count + (uint32_t)runs;
}

bool cleaner_is_urgent(const struct keyspace *keyspace)
{
	return cleaner_segments_coming(keyspace) <=
	       keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE) + keyspace->cleaner.wanted_segments;
}

// How many segments are missing, of how many that are to be there; false if none is.
static bool pay_is_due(const struct keyspace *keyspace, uint32_t *missing, uint32_t *span)
{
	// Of what is judged half goes, so that less has to be there beforehand.
	uint32_t share = keyspace->evict.on ? PAY_SEGMENTS_SHARE_JUDGED : PAY_SEGMENTS_SHARE;
	*span = PAY_SEGMENTS_AHEAD + kvs_log_segments_allowed(&keyspace->log) / share;
	uint32_t low =
		keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE) + *span + reseed_wants(keyspace);
	uint32_t coming = cleaner_segments_coming(keyspace);
	*missing = low - coming;
	return coming < low;
}

bool cleaner_is_short(const struct keyspace *keyspace)
{
	uint32_t missing, span;
	return pay_is_due(keyspace, &missing, &span) || cleaner_is_urgent(keyspace);
}

// Bytes to look at for each that was appended, in parts of PAY_RATE_UNIT.
static uint64_t pay_rate(const struct keyspace *keyspace, uint32_t missing, uint32_t span)
{
	const struct cleaner_state *state = &keyspace->cleaner;
	uint64_t dead = state->victim_dead_bytes > 0 ? state->victim_dead_bytes : 1;
	uint64_t rate = 2 * PAY_RATE_UNIT * missing * state->victim_used_bytes / (span * dead);
	return rate < PAY_RATE_MAX * PAY_RATE_UNIT ? rate + 1 : PAY_RATE_MAX * PAY_RATE_UNIT;
}

// The next payment is due after so many bytes more, which never end in another segment: there each
// turn looks.
static void pay_after(struct keyspace *keyspace, uint64_t bytes)
{
	bytes = bytes > PAY_APPENDED_MIN ? bytes : PAY_APPENDED_MIN;
	bytes = bytes < PAY_APPENDED_MAX ? bytes : PAY_APPENDED_MAX;
	keyspace->cleaner.edge = keyspace->log.head.offset + (uint32_t)bytes;
}

void cleaner_pay(struct keyspace *keyspace)
{
	struct cleaner_state *state = &keyspace->cleaner;
	uint64_t appended = kvs_log_appended_bytes(&keyspace->log);
	uint32_t missing, span;
	if (!pay_is_due(keyspace, &missing, &span) ||
	    !cleaner_finds(keyspace, KEYSPACE_CLEAN_PERCENT)) {
		state->paid_bytes = appended;
		state->edge = keyspace->region->segment_bytes;
		return;
	}
	uint64_t rate = pay_rate(keyspace, missing, span);
	uint64_t owed = (appended - state->paid_bytes) * rate / PAY_RATE_UNIT;
	if (owed < PAY_BYTES) {
		pay_after(keyspace, (PAY_BYTES - owed) * PAY_RATE_UNIT / rate);
		return;
	}
	uint64_t most = 2 * (uint64_t)keyspace->region->segment_bytes;
	owed = owed < most ? owed : most; // after a large batch: not all of it by whoever comes
	// From now: what came before in this turn is not its.
	uint64_t until_ns = keyspace->seam->monotonic_ns() + CLEANER_SLICE_NS;
	bool more = true;
	while (more && owed > 0 && keyspace->seam->monotonic_ns() < until_ns) {
		more = cleaner_slice(keyspace, &owed, until_ns, KEYSPACE_CLEAN_PERCENT);
	}
	state->paid_bytes = appended - (more ? owed * PAY_RATE_UNIT / rate : 0);
	pay_after(keyspace, PAY_BYTES * PAY_RATE_UNIT / rate);
}

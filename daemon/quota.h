// SPDX-License-Identifier: MIT
//
// A token bucket, kept as one time: up to when what was used is paid for. Whoever has paid up to
// now may go on; whoever rests saves up to a burst. Nothing is refused by it, only later.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct quota_bucket {
	uint64_t paid_ns; // monotonic; all zero is a full bucket
};

/// Takes `units` out of a bucket that `rate` units a second flow into, not 0, and that holds as
/// many as flow in `burst_ns`.
void quota_take(struct quota_bucket *bucket, uint64_t units, uint64_t rate, uint64_t burst_ns,
		uint64_t now_ns);

/// Is there anything in it?
static inline bool quota_has(const struct quota_bucket *bucket, uint64_t now_ns)
{
	return bucket->paid_ns <= now_ns;
}

/// Is it full again? Then nothing need be remembered of it.
static inline bool quota_is_full(const struct quota_bucket *bucket, uint64_t burst_ns,
				 uint64_t now_ns)
{
	return bucket->paid_ns <= (now_ns > burst_ns ? now_ns - burst_ns : 0);
}

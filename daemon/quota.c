// SPDX-License-Identifier: MIT
//
// The token bucket; see quota.h.
#include "daemon/quota.h"

#define QUOTA_COST_NS_MAX 1e18 // thirty years: no sum of two overflows

void quota_take(struct quota_bucket *bucket, uint64_t units, uint64_t rate, uint64_t burst_ns,
		uint64_t now_ns)
{
	uint64_t earliest_ns = now_ns > burst_ns ? now_ns - burst_ns : 0;
	uint64_t paid_ns = bucket->paid_ns > earliest_ns ? bucket->paid_ns : earliest_ns;
	double cost_ns = (double)units * 1e9 / (double)rate;
	cost_ns = cost_ns < QUOTA_COST_NS_MAX ? cost_ns : QUOTA_COST_NS_MAX;
	paid_ns = paid_ns < (uint64_t)QUOTA_COST_NS_MAX ? paid_ns : (uint64_t)QUOTA_COST_NS_MAX;
	bucket->paid_ns = paid_ns + (uint64_t)cost_ns;
}

// SPDX-License-Identifier: MIT
//
// The token bucket: over any time no more goes through than the rate and one burst allow, and not
// less either, whatever is taken at once.
#include "daemon/quota.h"

#include "tests/tap/tap.h"

#define SECOND_NS UINT64_C(1000000000)

static void test_burst(void)
{
	struct quota_bucket bucket = { 0 };
	uint64_t now_ns = 5 * SECOND_NS;
	unsigned taken = 0;
	while (quota_has(&bucket, now_ns) && taken < 1000) {
		quota_take(&bucket, 1, 100, SECOND_NS, now_ns);
		taken++;
	}
	ok(taken == 101, "a full bucket gives a burst, and the one that empties it: %u", taken);
	ok(!quota_has(&bucket, now_ns + SECOND_NS / 200), "then nothing for a while");
	ok(quota_has(&bucket, now_ns + SECOND_NS / 100), "then one more");
	ok(!quota_is_full(&bucket, SECOND_NS, now_ns + SECOND_NS / 2), "it fills");
	ok(quota_is_full(&bucket, SECOND_NS, now_ns + 2 * SECOND_NS), "it is full");
	quota_take(&bucket, 100, 100, SECOND_NS, now_ns + 100 * SECOND_NS);
	ok(quota_has(&bucket, now_ns + 100 * SECOND_NS), "it holds no more than a burst …");
	quota_take(&bucket, 1, 100, SECOND_NS, now_ns + 100 * SECOND_NS);
	ok(!quota_has(&bucket, now_ns + 100 * SECOND_NS), "… however long it filled");
}

static void test_large(void)
{
	struct quota_bucket bucket = { 0 };
	uint64_t now_ns = 10 * SECOND_NS;
	quota_take(&bucket, 1000, 100, SECOND_NS, now_ns);
	ok(!quota_has(&bucket, now_ns + 8 * SECOND_NS) &&
		   quota_has(&bucket, now_ns + 9 * SECOND_NS),
	   "what is more than a burst is paid for in full");
	quota_take(&bucket, UINT64_MAX, 1, SECOND_NS, now_ns);
	quota_take(&bucket, UINT64_MAX, 1, SECOND_NS, now_ns);
	ok(!quota_has(&bucket, now_ns + 1000000 * SECOND_NS), "G: no sum overflows");
	bucket = (struct quota_bucket){ 0 };
	quota_take(&bucket, 0, 1, SECOND_NS, 0);
	ok(quota_has(&bucket, 0), "nothing costs nothing, at the beginning of time too");
}

static void test_rates(void)
{
	uint64_t random = tap_seed(1);
	for (unsigned round = 0; round < 20; round++) {
		struct quota_bucket bucket = { 0 };
		uint64_t rate = 1 + tap_random(&random) % 1000000;
		uint64_t burst_ns = (1 + tap_random(&random) % 2000) * 1000000;
		uint64_t largest = 1 + tap_random(&random) % (rate / 10 + 1);
		uint64_t now_ns = 100 * SECOND_NS;
		uint64_t end_ns = now_ns + 20 * SECOND_NS;
		uint64_t taken = 0;
		while (now_ns < end_ns) {
			while (quota_has(&bucket, now_ns)) {
				uint64_t units = 1 + tap_random(&random) % largest;
				quota_take(&bucket, units, rate, burst_ns, now_ns);
				taken += units;
			}
			now_ns += 1 + tap_random(&random) % 5000000;
		}
		double least = (double)rate * 19.9;
		double most = (double)rate * (20.1 + (double)burst_ns / 1e9) + (double)largest + 1;
		ok((double)taken >= least && (double)taken <= most,
		   "rate %llu, burst %llu ms: %llu in 20 s", (unsigned long long)rate,
		   (unsigned long long)burst_ns / 1000000, (unsigned long long)taken);
	}
}

int main(void)
{
	test_burst();
	test_large();
	test_rates();
	return tap_done();
}

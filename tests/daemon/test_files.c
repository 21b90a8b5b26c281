// SPDX-License-Identifier: MIT
//
// Shares of the descriptors: together they are never more than there are, from the number on that
// kvd needs at all, and each is enough for one client however few there are.
#include "daemon/files.h"

#include "shm/limits.h"
#include "tests/tap/tap.h"

#define OF_KVD 20u // what it has open when it serves, and some

static void test_sums(void)
{
	bool fits = true;
	bool enough = true;
	uint64_t limit = 0;
	for (; limit <= 200000 && fits && enough; limit++) {
		struct files_shares shares = files_share(limit);
		uint64_t all = OF_KVD + shares.clients_max + KVS_CLIENTS_RESERVED +
			       files_attached_max(&shares, shares.clients_max) + shares.flight_max;
		fits = all <= limit || limit < 64;
		enough = shares.clients_max > 0 &&
			 files_attached_max(&shares, shares.clients_max) > 0 &&
			 shares.flight_max - shares.flight_kept >= 3;
	}
	ok(fits, "G: all shares together fit the limit: %llu", (unsigned long long)limit - 1);
	ok(enough, "G: each is enough for one: %llu", (unsigned long long)limit - 1);
}

static void test_common(void)
{
	struct files_shares shares = files_share(65536);
	ok(shares.clients_max >= 10000, "the unit's limit is enough for the default of maxclients");
	ok_u64(shares.flight_max, 4096, "what may be on its way has a bound of its own");
	ok(files_attached_max(&shares, 10000) == files_attached_max(&shares, 20000) + 10000,
	   "fewer connections leave more processes to be watched");
	ok_u64(files_attached_max(&shares, 1000000), 1 + KVS_CLIENTS_RESERVED, "or hardly one");
	shares = files_share(1024);
	ok(shares.clients_max >= 300, "the kernel's default is enough for %llu clients",
	   (unsigned long long)shares.clients_max);
	shares = files_share(UINT64_MAX);
	ok(shares.clients_max > 1000000 && shares.flight_max == 4096, "no limit is no limit");
}

int main(void)
{
	test_sums();
	test_common();
	return tap_done();
}

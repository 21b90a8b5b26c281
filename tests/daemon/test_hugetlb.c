// SPDX-License-Identifier: MIT
//
// How many huge pages can be had, as files of the kernel tell it.
#include "daemon/hugetlb.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tap/tap.h"

static int forget(const char *path, const struct stat *found, int type, struct FTW *place)
{
	(void)found;
	(void)type;
	(void)place;
	return remove(path);
}

static void put(const char *root, const char *name, const char *text)
{
	char full[256];
	int n = snprintf(full, sizeof(full), "%s/sys/kernel/mm/hugepages/hugepages-2048kB/%s", root,
			 name);
	for (char *slash = strchr(full + 5, '/'); n > 0 && slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(full, 0700);
		*slash = '/';
	}
	FILE *file = fopen(full, "we");
	if (!file || fputs(text, file) < 0 || fclose(file) != 0) {
		abort();
	}
}

/// Numbers as nr, free, resv, surplus and nr_overcommit; NULL: there is no such file.
static struct hugetlb_pool pool_of(const char *const text[5])
{
	static const char *const names[] = { "nr_hugepages", "free_hugepages", "resv_hugepages",
					     "surplus_hugepages", "nr_overcommit_hugepages" };
	char root[] = "/tmp/kvd-test-pool-XXXXXX";
	if (!mkdtemp(root)) {
		abort();
	}
	for (size_t i = 0; i < 5; i++) {
		if (text[i]) {
			put(root, names[i], text[i]);
		}
	}
	struct hugetlb_pool pool = hugetlb_pool_find(root);
	(void)nftw(root, forget, 8, FTW_DEPTH | FTW_PHYS);
	return pool;
}

#define POOL(...) pool_of((const char *const[5]){ __VA_ARGS__ })

int main(void)
{
	struct hugetlb_pool pool = POOL("100\n", "60\n", "20\n", "0\n", "0\n");
	ok(pool.known && pool.total == 100 && pool.available == 40,
	   "free ones that nobody was promised");
	pool = POOL("100\n", "60\n", "70\n", "0\n", "0\n");
	ok(pool.known && pool.available == 0, "more promised than there are");
	pool = POOL("12\n", "0\n", "0\n", "12\n", "50\n");
	ok(pool.available == 38, "those that would be made on demand");
	pool = POOL("12\n", "2\n", "0\n", "12\n", "5\n");
	ok(pool.available == 2, "of which there are more than there should be");
	pool = POOL("12\n", "2\n", "0\n", NULL, NULL);
	ok(pool.known && pool.available == 2, "a kernel without them");
	pool = POOL(NULL, NULL, NULL, NULL, NULL);
	ok(!pool.known && pool.available == 0, "a kernel without a pool");
	pool = POOL("many\n", "60\n", "0\n", "0\n", "0\n");
	ok(!pool.known, "nonsense is none");
	ok_u64(hugetlb_pages_for(1), 1 + HUGETLB_SPARE_PAGES, "a page for the first byte");
	ok_u64(hugetlb_pages_for(64u << 20), 32 + HUGETLB_SPARE_PAGES, "32 for 64 MiB");
	return tap_done();
}

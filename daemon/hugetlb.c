// SPDX-License-Identifier: MIT
//
// In sysfs and not below /proc/sys, which a service may not see (ProcSubset=pid).
#include "daemon/hugetlb.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/limits.h"

#define HUGETLB_FOLDER "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static bool pool_number(const char *root, const char *name, uint64_t *number)
{
	char path[PATH_MAX];
	char line[64];
	int length = snprintf(path, sizeof(path), "%s%s%s", root, HUGETLB_FOLDER, name);
	FILE *file = length > 0 && (size_t)length < sizeof(path) ? fopen(path, "re") : NULL;
	bool good = file && fgets(line, sizeof(line), file) && *line >= '0' && *line <= '9';
	if (good) {
		errno = 0;
		*number = strtoull(line, NULL, 10);
		good = errno == 0 && *number < UINT64_MAX / 4;
	}
	if (file) {
		(void)fclose(file);
	}
	return good;
}

struct hugetlb_pool hugetlb_pool_find(const char *root)
{
	struct hugetlb_pool pool = { 0 };
	uint64_t free = 0, promised = 0, surplus = 0, surplus_max = 0;
	pool.known = pool_number(root, "nr_hugepages", &pool.total) &&
		     pool_number(root, "free_hugepages", &free) &&
		     pool_number(root, "resv_hugepages", &promised);
	if (pool.known && pool_number(root, "surplus_hugepages", &surplus) &&
	    pool_number(root, "nr_overcommit_hugepages", &surplus_max)) {
		pool.available = surplus_max > surplus ? surplus_max - surplus : 0;
	}
	pool.available += free > promised ? free - promised : 0;
	return pool;
}

uint64_t hugetlb_pages_for(uint64_t memory_bytes)
{
	return (memory_bytes + KVS_HUGE_PAGE_BYTES - 1) / KVS_HUGE_PAGE_BYTES + HUGETLB_SPARE_PAGES;
}

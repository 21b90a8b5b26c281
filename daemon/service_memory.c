// SPDX-License-Identifier: MIT
//
// What is asked of the system's memory at the start: that all of it be there, and that it stay out
// of swap. Either is granted before anybody is served, or the start fails, and a region that was
// kept stays so.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "daemon/config_text.h"
#include "daemon/hugetlb.h"
#include "daemon/keyspace_create.h"
#include "daemon/log.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/service_parts.h"

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 0x01
#endif

static void say_not_locked(struct service *service, int error)
{
	struct rlimit limit = { 0 };
	char spans[32], allowed[32] = "unknown";
	config_text_print_size(service->region.bytes, spans, sizeof(spans));
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
		config_text_print_size(limit.rlim_cur, allowed, sizeof(allowed));
	}
	(void)snprintf(
		service->why, sizeof(service->why),
		"mlock: %s; this process may lock %s, and the region's addresses span %s, of "
		"which pages count as they come: LimitMEMLOCK=infinity in the unit (ulimit -l "
		"unlimited), a lower memory-max, or no mlock",
		strerror(error), allowed, spans);
}

// Pages as they come. All that there are now is mapped first, for only that can be locked.
static bool lock_region(struct service *service)
{
	const struct kvs_region *region = &service->region;
	if (service->kvd.config.mlock != 1 || region->page_bytes != KVS_PAGE_BYTES) {
		return true; // of the system's pool nothing is ever swapped
	}
	if (mlock2(region->base, region->bytes, MLOCK_ONFAULT) != 0) {
		say_not_locked(service, errno);
		return false;
	}
	int result = keyspace_map_pages(service->kvd.keyspace);
	if (result != 0) {
		say_not_locked(service, -result);
	}
	return result == 0;
}

static void say_too_little(struct service *service, int error)
{
	const struct config *config = &service->kvd.config;
	char memory[32];
	struct hugetlb_pool pool = hugetlb_pool_find("");
	config_text_print_size(config_memory_bytes(config), memory, sizeof(memory));
	if (config->huge_pages == CONFIG_PAGES_HUGETLB) {
		(void)snprintf(service->why, sizeof(service->why),
			       "huge-pages = hugetlb: the pool has not all of the pages for %s of "
			       "memory, %llu can be had: write a larger number than %llu to "
			       "/proc/sys/vm/nr_hugepages, or lower memory",
			       memory, (unsigned long long)pool.available,
			       (unsigned long long)pool.total);
	} else {
		(void)snprintf(service->why, sizeof(service->why),
			       "prefault: the machine does not have all of the %s of memory: %s; "
			       "lower memory, or leave prefault",
			       memory, strerror(error));
	}
}

int service_start_memory(struct service *service)
{
	struct kvd *kvd = &service->kvd;
	uint64_t since_ns = kvd->seam->monotonic_ns();
	if (!lock_region(service)) {
		return EX_OSERR;
	}
	int result = keyspace_prefault(kvd->keyspace);
	if (result != 0) {
		say_too_little(service, -result);
		return EX_OSERR;
	}
	if (config_prefaults(&kvd->config)) {
		uint64_t took_ns = kvd->seam->monotonic_ns() - since_ns;
		LOG_AT(LOG_LEVEL_NOTICE, "all of the memory is there, after %llu ms",
		       (unsigned long long)took_ns / 1000000);
	}
	return 0;
}

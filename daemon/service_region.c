// SPDX-License-Identifier: MIT
//
// What keeps a region from being made is a setting or a limit of the process: each has its own text
// and remedy.
#include "daemon/service_region.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/config_text.h"
#include "daemon/hugetlb.h"
#include "daemon/kvd.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "shm/epoch_scan.h"
#include "shm/region.h"

static void region_failure(const struct config *config, int error, int system_error, char *why,
			   size_t why_bytes)
{
	switch (error) {
	case KVS_REGION_TOO_SMALL:
		(void)snprintf(
			why, why_bytes,
			"--memory %llu bytes is too small for segments of %llu bytes: give it at "
			"least 8 segments, or a smaller --segment",
			(unsigned long long)config->memory_bytes,
			(unsigned long long)config->segment_bytes);
		break;
	case KVS_REGION_TOO_LARGE:
		(void)snprintf(why, why_bytes,
			       "--memory-max %llu bytes does not fit the region's 8 TiB of offsets",
			       (unsigned long long)config->memory_max_bytes);
		break;
	case KVS_REGION_NO_PROC:
		(void)snprintf(why, why_bytes,
			       "/proc is not mounted: kvd needs it to give clients read-only "
			       "descriptors (mount -t proc proc /proc)");
		break;
	default:
		(void)snprintf(why, why_bytes, "cannot create the region: %s; %s%s",
			       strerror(system_error), remedy_of_errno(system_error),
			       system_error == ENOMEM ? "; it spans 4.5 times --memory-max: a "
							"smaller one needs less"
						      : "");
		break;
	}
}

static bool service_is_set(const char *name)
{
	const char *value = getenv(name);
	return value != NULL && strcmp(value, "1") == 0;
}

// Tests run kvd as it would run on a kernel that refuses membarrier.
static bool service_forces_fences(void)
{
	return service_is_set("KVD_FENCED");
}

bool service_region_poisons(void)
{
	return service_is_set("KVD_POISON");
}

enum kvs_region_pages service_region_pages(const struct config *config)
{
	static const enum kvs_region_pages pages[] = {
		[CONFIG_PAGES_SMALL] = KVS_PAGES_SMALL,
		[CONFIG_PAGES_TRANSPARENT] = KVS_PAGES_TRANSPARENT,
		[CONFIG_PAGES_HUGETLB] = KVS_PAGES_HUGETLB,
	};
	return pages[config->huge_pages % 3];
}

// Are there as many huge pages as the region will have? It would not fail to be made without.
static bool region_has_pool(const struct config *config, char *why, size_t why_bytes)
{
	if (config->huge_pages != CONFIG_PAGES_HUGETLB) {
		return true;
	}
	char memory[32];
	struct hugetlb_pool pool = hugetlb_pool_find("");
	uint64_t wanted = hugetlb_pages_for(config_memory_bytes(config));
	config_text_print_size(config_memory_bytes(config), memory, sizeof(memory));
	if (!pool.known) {
		(void)snprintf(why, why_bytes,
			       "huge-pages = hugetlb: this kernel shows no huge pages of 2MiB in "
			       "/sys/kernel/mm/hugepages: choose huge-pages = transparent");
	} else if (pool.available < wanted) {
		(void)snprintf(
			why, why_bytes,
			"huge-pages = hugetlb: %llu huge pages of 2MiB are wanted, for %s of "
			"memory "
			"and %u to spare, and %llu can be had: write %llu to "
			"/proc/sys/vm/nr_hugepages (sysctl vm.nr_hugepages), or choose huge-pages "
			"= transparent",
			(unsigned long long)wanted, memory, HUGETLB_SPARE_PAGES,
			(unsigned long long)pool.available,
			(unsigned long long)(pool.total + wanted - pool.available));
	}
	return pool.known && pool.available >= wanted;
}

int service_region_create(struct kvd *kvd, struct kvs_region *region, char *why, size_t why_bytes)
{
	const struct config *config = &kvd->config;
	struct kvs_region_options options = {
		.memory_bytes = config->memory_bytes,
		.memory_bytes_max = config->memory_max_bytes,
		.segment_bytes = (uint32_t)config->segment_bytes,
		.fenced = service_forces_fences() || !kvs_epoch_membarrier_works(),
		.pages = service_region_pages(config),
		.hash_kind = (enum kvs_hash_kind)config->hash_kind,
		.poison = service_region_poisons(),
	};
	kvd->seam->random_bytes(&options.instance_id, sizeof(options.instance_id));
	kvd->seam->random_bytes(options.hash_key, sizeof(options.hash_key));
	kvd->instance_id = options.instance_id;
	if (!region_has_pool(config, why, why_bytes)) {
		return EX_OSERR;
	}
	int error = kvs_region_create(region, &options);
	if (error != KVS_REGION_OK) {
		region_failure(config, error, errno, why, why_bytes);
		return error == KVS_REGION_SYSTEM ? EX_OSERR : EX_CONFIG;
	}
	return 0;
}

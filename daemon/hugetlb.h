// SPDX-License-Identifier: MIT
//
// The system's pool of huge pages, for huge-pages = hugetlb: how many of 2 MiB can be had, and how
// many a region takes. Whoever maps more than there is would be ended by a signal in the middle of
// a write, so that is found out at the start.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Beyond the memory itself: the pages of what comes before what it replaces goes, and of readers
// who look on at memory that was taken back from them (a hole that is looked at gets a page).
#define HUGETLB_SPARE_PAGES 8u

struct hugetlb_pool {
	bool known;	    // the kernel has such pages
	uint64_t total;	    // vm.nr_hugepages
	uint64_t available; // free, not promised to others, and those it would make on demand
};

/// Looks below `root` ("" for the system's) in sys/kernel/mm/hugepages/hugepages-2048kB.
struct hugetlb_pool hugetlb_pool_find(const char *root);

/// How many pages a region bounded by `memory_bytes` wants.
uint64_t hugetlb_pages_for(uint64_t memory_bytes);

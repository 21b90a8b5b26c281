// SPDX-License-Identifier: MIT
//
// Files of huge pages are of a kind of their own (hugetlbfs), whose block is the page. In others
// huge pages are made of small ones, and those come and go one by one.
#include "shm/page_size.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include "shm/limits.h"

uint32_t kvs_page_size(int fd)
{
	struct statfs status;
	if (fstatfs(fd, &status) != 0 || (uint64_t)status.f_type != HUGETLBFS_MAGIC ||
	    status.f_bsize < (long)KVS_PAGE_BYTES || status.f_bsize > (1 << 30)) {
		return KVS_PAGE_BYTES;
	}
	return (uint32_t)status.f_bsize;
}

// SPDX-License-Identifier: MIT
//
// A private map is populated for reading: a page that is there is the file's, in place of a hole
// comes one that is this process's own, or none if the pool has no more.
#include "shm/page_there.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include "shm/limits.h"
#include "shm/newer_linux.h"

// Bits of an entry of pagemap.
#define PAGE_IS_PRESENT (UINT64_C(1) << 63)
#define PAGE_IS_OF_FILE (UINT64_C(1) << 61)

int kvs_page_is_there(int fd, int pagemap_fd, uint64_t offset, uint32_t page_bytes)
{
	uint64_t entry = 0;
	int there = -1;
	void *place = pagemap_fd > 0 ? mmap(NULL, page_bytes, PROT_READ,
					    MAP_PRIVATE | MAP_NORESERVE, fd, (off_t)offset)
				     : MAP_FAILED;
	if (place == MAP_FAILED) {
		return -1;
	}
	if (madvise(place, page_bytes, MADV_POPULATE_READ) == 0) {
		off_t at = (off_t)((uintptr_t)place / KVS_PAGE_BYTES * sizeof(entry));
		bool known = pread(pagemap_fd, &entry, sizeof(entry), at) == sizeof(entry) &&
			     (entry & PAGE_IS_PRESENT) != 0;
		there = known ? (entry & PAGE_IS_OF_FILE) != 0 : -1;
	} else if (errno == EFAULT) {
		there = 0; // what would have been its own is not to be had
	} else if (errno == EHWPOISON) {
		there = 1;
	}
	(void)munmap(place, page_bytes);
	return there;
}

// SPDX-License-Identifier: MIT
//
// The file is never truncated or replaced while it may be mapped: clients of the previous kvd look
// at this very inode.
#include "daemon/generation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/atomics.h"
#include "shm/limits.h"

int generation_open(struct generation *generation, const char *dir, char *why, size_t why_bytes)
{
	char path[4096];
	generation->word = NULL;
	if (snprintf(path, sizeof(path), "%s/kvd.gen", dir) >= (int)sizeof(path)) {
		(void)snprintf(why, why_bytes, "the path of the data folder is too long: %s", dir);
		return -1;
	}
	generation->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	// Pages are taken now: a store into a hole on a full disk would be a SIGBUS.
	if (generation->fd < 0 || ftruncate(generation->fd, KVS_PAGE_BYTES) != 0 ||
	    posix_fallocate(generation->fd, 0, KVS_PAGE_BYTES) != 0) {
		(void)snprintf(why, why_bytes,
			       "cannot write %s: %s; check permissions and free space", path,
			       strerror(errno));
		generation_close(generation);
		return -1;
	}
	void *page =
		mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, generation->fd, 0);
	if (page == MAP_FAILED) {
		(void)snprintf(why, why_bytes, "cannot map %s: %s", path, strerror(errno));
		generation_close(generation);
		return -1;
	}
	generation->word = page;
	return 0;
}

void generation_advance(struct generation *generation)
{
	// Release: the new region is complete (partner: the client's acquire at begin).
	kvs_store_release(generation->word, kvs_load_relaxed(generation->word) + 1);
}

void generation_close(struct generation *generation)
{
	if (generation->word != NULL) {
		(void)munmap(generation->word, KVS_PAGE_BYTES);
	}
	if (generation->fd >= 0) {
		close(generation->fd);
	}
	generation->fd = -1;
	generation->word = NULL;
}

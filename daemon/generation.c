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

#include "daemon/remedy.h"
#include "shm/atomics.h"
#include "shm/limits.h"

int generation_open(struct generation *generation, const char *dir, char *why, size_t why_bytes)
{
	char path[4096];
	generation->word = NULL;
	if (snprintf(path, sizeof(path), "%s/kvd.gen", dir) >= (int)sizeof(path)) {
		(void)snprintf(why, why_bytes, "the path of the data folder is too long: %s", dir);
		return -ENAMETOOLONG;
	}
	generation->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int error = 0;
	if (generation->fd < 0 || ftruncate(generation->fd, KVS_PAGE_BYTES) != 0) {
		error = errno;
	} else {
		// Pages are taken now: a store into a hole on a full disk would be a SIGBUS.
		error = posix_fallocate(generation->fd, 0, KVS_PAGE_BYTES);
	}
	if (error != 0) {
		(void)snprintf(why, why_bytes, "cannot write %s: %s; %s", path, strerror(error),
			       remedy_of_errno(error));
		generation_close(generation);
		return -error;
	}
	void *page =
		mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, generation->fd, 0);
	if (page == MAP_FAILED) {
		error = errno;
		(void)snprintf(why, why_bytes, "cannot map %s: %s; %s", path, strerror(error),
			       remedy_of_errno(error));
		generation_close(generation);
		return -error;
	}
	generation->word = page;
	return 0;
}

void generation_advance(struct generation *generation)
{
	// Release: the new region is complete (partner: the client's acquire at begin).
	kvs_store_release(generation->word, kvs_load_relaxed(generation->word) + 1);
}

void generation_note_version(struct generation *generation, uint64_t seq)
{
	if (kvs_load_relaxed(&generation->word[1]) < seq) {
		kvs_store_relaxed(&generation->word[1], seq); // nobody else looks at it
	}
}

int generation_keep_version(struct generation *generation, uint64_t seq)
{
	generation_note_version(generation, seq);
	return fsync(generation->fd) == 0 ? 0 : -errno;
}

uint64_t generation_version(const struct generation *generation)
{
	return kvs_load_relaxed(&generation->word[1]);
}

int generation_renew(struct generation *generation, const char *dir, char *why, size_t why_bytes)
{
	struct generation fresh;
	int result = generation_open(&fresh, dir, why, why_bytes);
	if (result != 0) {
		return result;
	}
	uint64_t *old =
		mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, generation->fd, 0);
	uint64_t word = kvs_load_relaxed(generation->word);
	kvs_store_relaxed(&fresh.word[1], generation_version(generation)); // as noted
	kvs_store_release(fresh.word, word);				   // as advanced
	if (dup3(fresh.fd, generation->fd, O_CLOEXEC) < 0 ||
	    mremap(fresh.word, KVS_PAGE_BYTES, KVS_PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
		   generation->word) == MAP_FAILED) {
		result = -errno;
		(void)snprintf(why, why_bytes, "cannot map %s/kvd.gen: %s", dir, strerror(errno));
	} else {
		fresh.word = NULL;
	}
	generation_close(&fresh);
	if (old != MAP_FAILED) {
		if (result == 0) {
			kvs_store_release(old, word + 1); // partner: the client's acquire at begin
		}
		(void)munmap(old, KVS_PAGE_BYTES);
	}
	return result;
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

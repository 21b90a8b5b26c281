// SPDX-License-Identifier: MIT
//
// Where another process stands: the reader page of a child, looked at from outside while it is
// stopped, says whether it is inside a section, of which epoch, and what kvd has revoked of it. A
// test that kills readers counts only those that this proves to have been inside.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/layout.h"

#define SLOT_MAPS_BYTES 16384u
#define SLOT_PAGES_MAX 8u

/// What the pages of a process say: the oldest open section, if any.
struct slot_sight {
	unsigned pages; // that could be looked at
	unsigned open;	// sections
	uint64_t epoch; // of the oldest of them
	bool revoked;	// all that are open
};

/// Stops a child and waits until it stands still; false if it has ended.
static inline bool slot_stop(pid_t pid)
{
	int status = 0;
	if (kill(pid, SIGSTOP) != 0) {
		return false;
	}
	while (waitpid(pid, &status, WUNTRACED) < 0) {
		if (errno != EINTR) {
			return false;
		}
	}
	return WIFSTOPPED(status);
}

static inline void slot_look_at(struct slot_sight *sight, const struct kvs_reader_page *page)
{
	sight->pages++;
	for (unsigned i = 0; i < KVS_READERS_PER_PAGE; i++) {
		uint64_t word = page->slot[i].word;
		uint64_t epoch = word >> KVS_EPOCH_SHIFT;
		if ((word & KVS_NESTING_MASK) == 0) {
			continue;
		}
		sight->revoked =
			(sight->open == 0 || sight->revoked) && page->slot[i].revoked_upto >= epoch;
		sight->epoch = sight->open == 0 || epoch < sight->epoch ? epoch : sight->epoch;
		sight->open++;
	}
}

/// Looks at a child that stands still. Nothing is found in one that has not attached.
static inline struct slot_sight slot_look(pid_t pid)
{
	struct slot_sight sight = { 0 };
	char path[32], text[SLOT_MAPS_BYTES];
	size_t have = 0;
	ssize_t got;
	(void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && have < sizeof(text) - 1 &&
	       (got = read(fd, text + have, sizeof(text) - 1 - have)) > 0) {
		have += (size_t)got;
	}
	if (fd >= 0) {
		(void)close(fd);
	}
	text[have] = '\0';
	for (char *line = text; line != NULL && sight.pages < SLOT_PAGES_MAX;) {
		char *end = strchr(line, '\n');
		if (end != NULL) {
			*end++ = '\0';
		}
		if (strstr(line, "memfd:kvd-page") != NULL) {
			struct kvs_reader_page page;
			struct iovec here = { .iov_base = &page, .iov_len = sizeof(page) };
			uintptr_t at = (uintptr_t)strtoull(line, NULL, 16);
			struct iovec there = { .iov_len = sizeof(page) };
			memcpy(&there.iov_base, &at, sizeof(at));
			if (process_vm_readv(pid, &here, 1, &there, 1, 0) ==
			    (ssize_t)sizeof(page)) {
				slot_look_at(&sight, &page);
			}
		}
		line = end;
	}
	return sight;
}

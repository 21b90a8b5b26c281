// SPDX-License-Identifier: MIT
//
// Does this kernel give a child zeroed pages where that was asked for? The client library learns of
// a fork by it, so without it nothing about forks can be tested.
#pragma once

#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/limits.h"

#define WIPES_ON_FORK_NOT "this kernel does not wipe pages on fork"

// qemu user emulation accepts MADV_WIPEONFORK and does not do it: nothing can be tested there.
static inline bool wipes_on_fork(void)
{
	char *page = mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	if (page == MAP_FAILED || madvise(page, KVS_PAGE_BYTES, MADV_WIPEONFORK) != 0) {
		return false;
	}
	*page = 1;
	pid_t child = fork();
	if (child == 0) {
		_exit(*page);
	}
	int status = 0;
	(void)waitpid(child, &status, 0);
	(void)munmap(page, KVS_PAGE_BYTES);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

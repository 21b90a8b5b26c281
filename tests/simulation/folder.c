// SPDX-License-Identifier: MIT
//
// The data folder of a simulated machine: nobody else is there, and nobody removes it.
#include <stdint.h>
#include <unistd.h>

#include "daemon/folder_watch.h"
#include "daemon/storage/datadir.h"
#include "daemon/storage/probe.h"
#include "daemon/storage/store.h"

struct datadir {
	int fd;
};

int datadir_take(struct datadir **out, const char *path, const struct dirlock_patience *patience,
		 char *why, size_t why_bytes)
{
	static struct datadir folder;
	(void)path;
	(void)patience;
	(void)why;
	(void)why_bytes;
	folder.fd = dup(STDERR_FILENO);
	*out = &folder;
	return 0;
}

uint64_t datadir_remade(const struct datadir *folder)
{
	(void)folder;
	return 0;
}

int datadir_remake(struct datadir *folder, char *why, size_t why_bytes)
{
	(void)folder;
	(void)why;
	(void)why_bytes;
	return 1;
}

void folder_watch_start(struct folder_watch *watch, struct loop *loop, const char *path,
			bool (*gone)(void *context), void (*lost)(void *context), void *context)
{
	(void)watch;
	(void)loop;
	(void)path;
	(void)gone;
	(void)lost;
	(void)context;
}

void folder_watch_stop(struct folder_watch *watch)
{
	(void)watch;
}

void datadir_leaving(struct datadir *folder)
{
	(void)folder;
}

void datadir_release(struct datadir *folder)
{
	(void)close(folder->fd);
}

// The real one runs the program that it is in once more, for a look at the store: this one.
int store_probe(const char *dir, char *why, size_t why_bytes)
{
	(void)dir;
	(void)why;
	(void)why_bytes;
	return STORE_OK;
}

// SPDX-License-Identifier: MIT
//
// A made-up tree of what the kernel tells in files (/proc, /sys), for tests of those who read it.
#pragma once

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[256]; // of the tree

static int kernel_files_forget(const char *path, const struct stat *found, int type,
			       struct FTW *place)
{
	(void)found;
	(void)type;
	(void)place;
	return remove(path);
}

/// Writes a file of the tree, with the folders above it.
static void put(const char *path, const char *text)
{
	char full[512];
	(void)snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *slash = strchr(full + strlen(root) + 1, '/'); slash;
	     slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(full, 0700);
		*slash = '/';
	}
	FILE *file = fopen(full, "we");
	if (!file || fputs(text, file) < 0 || fclose(file) != 0) {
		abort();
	}
}

/// Begins an empty tree.
static void kernel_files_begin(void)
{
	const char *base = getenv("TMPDIR");
	(void)snprintf(root, sizeof(root), "%.200s/kvd-test-XXXXXX", base ? base : "/tmp");
	if (!mkdtemp(root)) {
		abort();
	}
}

static void kernel_files_end(void)
{
	(void)nftw(root, kernel_files_forget, 8, FTW_DEPTH | FTW_PHYS);
}

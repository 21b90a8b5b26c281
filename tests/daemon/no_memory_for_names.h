// SPDX-License-Identifier: MIT
//
// A machine that is short of memory when a user's name is looked up. For programs that are linked
// with --wrap=getpwnam_r, each of one file.
#pragma once

#include <errno.h>
#include <pwd.h>
#include <stdbool.h>
#include <stddef.h>

static bool short_of_memory;

int __real_getpwnam_r(const char *name, struct passwd *user, char *buffer, size_t bytes,
		      struct passwd **found);
int __wrap_getpwnam_r(const char *name, struct passwd *user, char *buffer, size_t bytes,
		      struct passwd **found);
int __wrap_getpwnam_r(const char *name, struct passwd *user, char *buffer, size_t bytes,
		      struct passwd **found)
{
	if (short_of_memory) {
		*found = NULL;
		return ENOMEM;
	}
	return __real_getpwnam_r(name, user, buffer, bytes, found);
}

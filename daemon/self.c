// SPDX-License-Identifier: MIT
//
// The name of the file and not the link itself: under a debugger or valgrind that would run the
// tool instead, and a process takes its short name from what was run, so that it would be "exe".
// If the file is gone (a package was upgraded), the link still leads to it.
#include "daemon/self.h"

#include <sys/types.h>
#include <unistd.h>

const char *self_program(char *path, size_t path_bytes)
{
	ssize_t length = readlink(SELF_PROGRAM_LINK, path, path_bytes);
	if (length > 0 && (size_t)length < path_bytes) {
		path[length] = '\0';
		if (access(path, X_OK) == 0) {
			return path;
		}
	}
	return SELF_PROGRAM_LINK;
}

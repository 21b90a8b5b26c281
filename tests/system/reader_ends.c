// SPDX-License-Identifier: MIT
//
// Preloaded into kvd: the child that is to read the store for a verification takes what it is told
// of memory, and ends with the exit code that the environment names before it has read any of the
// store.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((constructor)) static void end_early(int argc, char **argv)
{
	const char *code = getenv("KVD_TEST_READER_ENDS");
	char told[4096];
	if (code != NULL && argc > 1 && strcmp(argv[1], "--verify-store") == 0) {
		while (read(STDIN_FILENO, told, sizeof(told)) > 0) {
		}
		_exit((int)strtol(code, NULL, 10));
	}
}

// SPDX-License-Identifier: MIT
//
// Preloaded into kvd: the child that is to read the store, for a verification or before kvd opens
// it, takes what it is told, and ends with the exit code that the environment names before it has
// read any of the store.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((constructor)) static void end_early(int argc, char **argv)
{
	const char *code = getenv("KVD_TEST_READER_ENDS");
	char told[4096];
	const char *probe_code = getenv("KVD_TEST_PROBE_ENDS");
	if (probe_code != NULL && argc > 1 && strcmp(argv[1], "--probe-store") == 0) {
		_exit((int)strtol(probe_code, NULL, 10));
	}
	if (code != NULL && argc > 1 && strcmp(argv[1], "--verify-store") == 0) {
		while (read(STDIN_FILENO, told, sizeof(told)) > 0) {
		}
		_exit((int)strtol(code, NULL, 10));
	}
}

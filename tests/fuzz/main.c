// SPDX-License-Identifier: MIT
//
// Replays a corpus: every file of the folders (or the files) named on the command line goes once
// through the target, so that seeds and former finds are tests also where libFuzzer is not
// linked. A target that dislikes what it sees aborts, and the missing plan fails the test.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tap/tap.h"

#define INPUT_BYTES_MAX (16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/// One file through the target, in memory of exactly its size, so that sanitizers see an overrun.
static void replay_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) != 0 || status.st_size > INPUT_BYTES_MAX) {
		ok(false, "%s: cannot be read: %s", path, strerror(errno));
		return;
	}
	size_t bytes = (size_t)status.st_size;
	uint8_t *data = malloc(bytes > 0 ? bytes : 1);
	size_t got = 0;
	ssize_t n = 0;
	while (data && got < bytes && (n = read(fd, data + got, bytes - got)) > 0) {
		got += (size_t)n;
	}
	close(fd);
	if (!data || got < bytes) {
		ok(false, "%s: cannot be read", path);
	} else {
		tap_diag("%s", path); // says which one, should it end here
		(void)LLVMFuzzerTestOneInput(data, bytes);
	}
	free(data);
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static size_t replay_folder(const char *path)
{
	struct dirent **entries;
	int count = scandir(path, &entries, is_visible, alphasort);
	for (int i = 0; i < count; i++) {
		char file[4096];
		(void)snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
		replay_file(file);
		free(entries[i]);
	}
	if (count >= 0) {
		free(entries);
	}
	return count > 0 ? (size_t)count : 0;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct stat status;
		size_t count = 1;
		if (stat(argv[i], &status) == 0 && S_ISDIR(status.st_mode)) {
			count = replay_folder(argv[i]);
		} else {
			replay_file(argv[i]);
		}
		ok(count > 0, "%zu inputs of %s", count, argv[i]);
	}
	if (argc < 2) {
		ok(false, "usage: %s CORPUS-FOLDER|FILE…", argv[0]);
	}
	return tap_done();
}

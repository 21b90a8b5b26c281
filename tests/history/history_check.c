// SPDX-License-Identifier: MIT
//
// Checks a history that history_clients left in a file: prints what it found, one line, and exits
// with 1 if kvd cannot have kept its word, 2 if the file cannot be read.
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/history/check.h"

static const struct history_file *map_file(const char *path)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) != 0 ||
	    status.st_size != (off_t)sizeof(struct history_file)) {
		return NULL;
	}
	void *map = mmap(NULL, sizeof(struct history_file), PROT_READ, MAP_PRIVATE, fd, 0);
	(void)close(fd);
	return map == MAP_FAILED ? NULL : map;
}

static size_t collect(const struct history_file *file, struct history_event *events)
{
	size_t count = 0;
	for (uint32_t i = 0; i < HISTORY_CLIENTS_MAX; i++) {
		for (uint32_t j = 0; j < file->events_count[i] && j < HISTORY_EVENTS_MAX; j++) {
			struct history_event event = file->events[i][j];
			// A client may have been killed between two stores.
			if (event.kind != 0 && event.key < HISTORY_KEYS && event.begin_ns != 0) {
				events[count++] = event;
			}
		}
	}
	return count;
}

int main(int argc, char **argv)
{
	const struct history_file *file = argc == 2 ? map_file(argv[1]) : NULL;
	struct history_event *events =
		calloc(HISTORY_CLIENTS_MAX * HISTORY_EVENTS_MAX, sizeof(*events));
	struct history_verdict verdict;
	if (file == NULL || file->marker != HISTORY_MARKER || events == NULL) {
		(void)fprintf(stderr, "usage: history_check FILE\n");
		return 2;
	}
	size_t count = collect(file, events);
	if (!history_check(events, count, (enum history_policy)file->policy, &verdict)) {
		(void)fprintf(stderr, "no memory\n");
		return 2;
	}
	printf("operations %" PRIu64 " steps %" PRIu64 " anomalies %u %s\n", verdict.operations,
	       verdict.steps, verdict.anomalies, verdict.first);
	free(events);
	return verdict.anomalies != 0;
}

// SPDX-License-Identifier: MIT
//
// Finding lines in the buffer, and keeping the buffer no larger than the longest thing wanted.
#include "tools/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOURCE_CAPACITY_BYTES_MIN ((size_t)1 << 20)

bool source_init_fd(struct source *source, int fd)
{
	*source = (struct source){ .fd = fd, .line = 1 };
	source->buffer = malloc(SOURCE_CAPACITY_BYTES_MIN);
	source->capacity_bytes = SOURCE_CAPACITY_BYTES_MIN;
	return source->buffer != NULL;
}

bool source_init_memory(struct source *source, const void *data, size_t bytes)
{
	*source = (struct source){ .fd = -1, .at_end = true, .line = 1 };
	source->buffer = malloc(bytes + 1);
	if (!source->buffer) {
		return false;
	}
	if (bytes > 0) {
		memcpy(source->buffer, data, bytes);
	}
	source->capacity_bytes = bytes + 1;
	source->end = bytes;
	return true;
}

void source_free(struct source *source)
{
	free(source->buffer);
	*source = (struct source){ .fd = -1, .at_end = true };
}

// Makes room behind the unread bytes: first by moving them down, then by doubling.
static bool source_room(struct source *source)
{
	if (source->end + 1 < source->capacity_bytes) {
		return true;
	}
	if (source->begin > 0) {
		memmove(source->buffer, source_bytes(source), source->end - source->begin);
		source->end -= source->begin;
		source->begin = 0;
	}
	// A move that wins little would be repeated for every small read of a long line.
	if (source->end < source->capacity_bytes / 2) {
		return true;
	}
	char *grown = realloc(source->buffer, source->capacity_bytes * 2);
	if (!grown) {
		source->error = ENOMEM;
		return false;
	}
	source->buffer = grown;
	source->capacity_bytes *= 2;
	return true;
}

static bool source_fill(struct source *source)
{
	if (!source_room(source)) {
		return false;
	}
	ssize_t got;
	do {
		got = read(source->fd, source->buffer + source->end,
			   source->capacity_bytes - source->end - 1);
	} while (got < 0 && errno == EINTR);
	if (got < 0) {
		source->error = errno;
		return false;
	}
	source->at_end = got == 0;
	source->end += (size_t)got;
	return true;
}

enum source_result source_line(struct source *source, size_t offset, size_t line_bytes_max,
			       size_t *line_bytes)
{
	size_t searched = 0;
	for (;;) {
		size_t have = source->end - source->begin - offset;
		const char *line = source_bytes(source) + offset;
		const char *newline =
			have > searched ? memchr(line + searched, '\n', have - searched) : NULL;
		if (newline) {
			*line_bytes = (size_t)(newline - line) + 1;
			return *line_bytes > line_bytes_max ? SOURCE_LONG : SOURCE_LINE;
		}
		if (have > line_bytes_max) {
			return SOURCE_LONG;
		}
		if (source->at_end) {
			*line_bytes = have;
			return have > 0 ? SOURCE_LINE : SOURCE_END;
		}
		searched = have;
		if (!source_fill(source)) {
			return SOURCE_FAILED;
		}
	}
}

void source_consume(struct source *source, size_t bytes, uint64_t lines)
{
	source->begin += bytes;
	source->consumed_bytes += bytes;
	source->line += lines;
	if (source->begin == source->end) {
		source->begin = 0;
		source->end = 0;
	}
}

enum source_result source_skip_line(struct source *source)
{
	for (;;) {
		size_t have = source->end - source->begin;
		const char *newline = have > 0 ? memchr(source_bytes(source), '\n', have) : NULL;
		if (newline) {
			source_consume(source, (size_t)(newline - source_bytes(source)) + 1, 1);
			return SOURCE_LINE;
		}
		source_consume(source, have, 0);
		if (source->at_end) {
			return SOURCE_LINE;
		}
		if (!source_fill(source)) {
			return SOURCE_FAILED;
		}
	}
}

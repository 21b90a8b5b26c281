// SPDX-License-Identifier: MIT
//
// Input in lines, from a descriptor or from memory, with one growing buffer: a parser sees several
// lines in one piece (a record) without copying, and a line nobody should send costs at most its
// limit.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source {
	int fd;	      // -1: everything is in the buffer already
	bool at_end;  // no more bytes will come
	int error;    // errno of the failed read or malloc
	char *buffer; // owned; one spare byte is always behind `end`
	size_t capacity_bytes;
	size_t begin; // unread bytes are buffer[begin, end)
	size_t end;
	uint64_t consumed_bytes; // before `begin`, since the start of the input
	uint64_t line;		 // number of the line at `begin`, from 1
};

enum source_result {
	SOURCE_LINE,   // a line is there
	SOURCE_END,    // no byte follows
	SOURCE_LONG,   // the line is longer than the limit
	SOURCE_FAILED, // source->error has the errno
};

/// Reads from `fd`, which stays the caller's. False if there is no memory.
bool source_init_fd(struct source *source, int fd);
/// Reads a copy of `bytes` bytes at `data`. False if there is no memory.
bool source_init_memory(struct source *source, const void *data, size_t bytes);
void source_free(struct source *source);

/// Finds the line that begins `offset` bytes behind source->begin, reading as needed. *line_bytes
/// is its length with its newline; only the last line of the input may lack one. The buffer may
/// move: earlier pointers into it are void. A line of more than `line_bytes_max` bytes is
/// SOURCE_LONG.
enum source_result source_line(struct source *source, size_t offset, size_t line_bytes_max,
			       size_t *line_bytes);

/// Drops `bytes` bytes that hold `lines` lines.
void source_consume(struct source *source, size_t bytes, uint64_t lines);

/// Drops everything up to and with the next newline, however far it is, in bounded memory.
/// SOURCE_LINE, or SOURCE_FAILED.
enum source_result source_skip_line(struct source *source);

/// Start of the unread bytes.
static inline char *source_bytes(const struct source *source)
{
	return source->buffer + source->begin;
}

// SPDX-License-Identifier: MIT
//
// What kvctl prints: columns aligned on a terminal and TAB-separated in a pipe, bytes made safe for
// lines, files that appear whole or not at all.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/// Writes bytes so that they stay inside one field of one line and cannot steer a terminal:
/// backslash doubled, TAB, CR, LF as \t \r \n, other control bytes and what is not UTF-8 as \xNN.
void output_escaped(FILE *out, const void *data, size_t bytes);

/// Rows of up to twelve columns. On a terminal they are kept until output_table_end() and aligned;
/// in a pipe each is written at once.
#define OUTPUT_COLUMNS_MAX 12u
struct output_table {
	FILE *out;
	bool aligned;
	size_t columns;
	size_t width[OUTPUT_COLUMNS_MAX];
	char **cell; // rows * columns, owned
	size_t cells;
	size_t capacity_cells;
};

void output_table_begin(struct output_table *table, FILE *out, bool aligned, size_t columns);
/// One row of `columns` strings, escaped as above; false if there is no memory.
bool output_table_row(struct output_table *table, const char *const *cell);
/// Writes what was kept and frees it.
void output_table_end(struct output_table *table);

/// Columns a string takes on a terminal: its characters (double-width ones count as one).
size_t output_columns(const char *text);

/// A file that is being written beside its final name.
struct output_file {
	FILE *stream;
	char *path;	      // owned; NULL: standard output
	char *temporary_path; // owned
};

/// Opens `path` for writing through a temporary file in its folder; "-" or NULL is standard output.
/// False with errno set if that is not possible.
bool output_file_open(struct output_file *file, const char *path);
/// Flushes; for a named file also syncs and renames. False with errno set if not everything could
/// be written; the temporary file is gone then.
bool output_file_commit(struct output_file *file);
/// Removes the temporary file, leaves an older file as it was.
void output_file_abort(struct output_file *file);

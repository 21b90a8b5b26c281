// SPDX-License-Identifier: MIT
//
// Escaping, tables in memory until their widths are known, temporary files.
#include "tools/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/utf8.h"

#define OUTPUT_BUFFER_BYTES ((size_t)1 << 20)

static void output_escape(FILE *out, unsigned char c)
{
	switch (c) {
	case '\\':
		fputs("\\\\", out);
		break;
	case '\t':
		fputs("\\t", out);
		break;
	case '\n':
		fputs("\\n", out);
		break;
	case '\r':
		fputs("\\r", out);
		break;
	default:
		fprintf(out, "\\x%02x", c);
	}
}

// C1 control characters are two bytes of UTF-8, and terminals obey them too.
static bool output_is_control(const char *text, size_t character_bytes)
{
	unsigned char c = (unsigned char)text[0];
	return c < 0x20 || c == 0x7f || c == '\\' ||
	       (character_bytes == 2 && c == 0xc2 && (unsigned char)text[1] < 0xa0);
}

void output_escaped(FILE *out, const void *data, size_t bytes)
{
	const char *text = data;
	size_t at = 0;
	while (at < bytes) {
		size_t character_bytes = utf8_character(text + at, bytes - at);
		if (character_bytes > 0 && !output_is_control(text + at, character_bytes)) {
			fwrite(text + at, 1, character_bytes, out);
			at += character_bytes;
			continue;
		}
		size_t end = at + (character_bytes > 0 ? character_bytes : 1);
		for (; at < end; at++) {
			output_escape(out, (unsigned char)text[at]);
		}
	}
}

size_t output_columns(const char *text)
{
	size_t columns = 0;
	for (; *text; text++) {
		columns += ((unsigned char)*text & 0xc0) != 0x80;
	}
	return columns;
}

void output_table_begin(struct output_table *table, FILE *out, bool aligned, size_t columns)
{
	*table = (struct output_table){ .out = out, .aligned = aligned, .columns = columns };
}

static bool output_table_keep(struct output_table *table, const char *text)
{
	if (table->cells == table->capacity_cells) {
		size_t capacity_cells = table->capacity_cells ? table->capacity_cells * 2 : 256;
		char **cell = realloc(table->cell, capacity_cells * sizeof *cell);
		if (!cell) {
			return false;
		}
		table->cell = cell;
		table->capacity_cells = capacity_cells;
	}
	char *copy = NULL;
	size_t copy_bytes;
	FILE *memory = open_memstream(&copy, &copy_bytes);
	if (!memory) {
		return false;
	}
	output_escaped(memory, text, strlen(text));
	if (fclose(memory) != 0) {
		free(copy);
		return false;
	}
	size_t column = table->cells % table->columns;
	size_t width = output_columns(copy);
	table->width[column] = width > table->width[column] ? width : table->width[column];
	table->cell[table->cells++] = copy;
	return true;
}

bool output_table_row(struct output_table *table, const char *const *cell)
{
	for (size_t column = 0; column < table->columns; column++) {
		if (!table->aligned) {
			output_escaped(table->out, cell[column], strlen(cell[column]));
			putc(column + 1 < table->columns ? '\t' : '\n', table->out);
		} else if (!output_table_keep(table, cell[column])) {
			return false;
		}
	}
	return true;
}

void output_table_end(struct output_table *table)
{
	for (size_t i = 0; i < table->cells; i++) {
		size_t column = i % table->columns;
		bool last = column + 1 == table->columns;
		size_t pad = table->width[column] - output_columns(table->cell[i]);
		fprintf(table->out, "%s%*s", table->cell[i], last ? 0 : (int)pad + 2, "");
		if (last) {
			putc('\n', table->out);
		}
		free(table->cell[i]);
	}
	free(table->cell);
	table->cell = NULL;
	table->cells = 0;
}

static void output_file_free(struct output_file *file)
{
	free(file->path);
	free(file->temporary_path);
	*file = (struct output_file){ 0 };
}

bool output_file_open(struct output_file *file, const char *path)
{
	*file = (struct output_file){ .stream = stdout };
	if (!path || strcmp(path, "-") == 0) {
		return setvbuf(stdout, NULL, _IOFBF, OUTPUT_BUFFER_BYTES) == 0;
	}
	struct stat status;
	if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
		// A device or a pipe is written to, not replaced.
		file->stream = fopen(path, "w");
		return file->stream != NULL;
	}
	file->stream = NULL;
	file->path = strdup(path);
	if (!file->path || asprintf(&file->temporary_path, "%s.XXXXXX", path) < 0) {
		file->temporary_path = NULL;
		output_file_free(file);
		errno = ENOMEM;
		return false;
	}
	int fd = mkostemp(file->temporary_path, O_CLOEXEC);
	mode_t mask = umask(0);
	(void)umask(mask);
	if (fd >= 0 && fchmod(fd, 0666 & ~mask) == 0) {
		file->stream = fdopen(fd, "w");
	}
	if (!file->stream || setvbuf(file->stream, NULL, _IOFBF, OUTPUT_BUFFER_BYTES) != 0) {
		int error = errno;
		if (fd >= 0) {
			(void)unlink(file->temporary_path);
			(void)close(fd);
		}
		output_file_free(file);
		errno = error;
		return false;
	}
	return true;
}

void output_file_abort(struct output_file *file)
{
	if (file->temporary_path) {
		(void)unlink(file->temporary_path);
	}
	if (file->stream && file->stream != stdout) {
		(void)fclose(file->stream);
	}
	output_file_free(file);
}

bool output_file_commit(struct output_file *file)
{
	bool good = fflush(file->stream) == 0 && !ferror(file->stream);
	if (file->temporary_path) {
		good = good && fsync(fileno(file->stream)) == 0 &&
		       rename(file->temporary_path, file->path) == 0;
	}
	int error = errno;
	if (good) {
		free(file->temporary_path);
		file->temporary_path = NULL;
	}
	output_file_abort(file);
	errno = error;
	return good;
}

// SPDX-License-Identifier: MIT
//
// See the header. A hole between what was written is zeroes, as file systems give them.
#include "tests/crash/crash_image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/daemon/store_fixture.h"

static void bail(const char *what, const char *path)
{
	printf("Bail out! crash_image: %s %s\n", what, path);
	exit(1);
}

// ---- names --------------------------------------------------------------------------------------

static uint32_t index_of(const struct crash_names *names, uint32_t folder, const char *name)
{
	for (uint32_t i = 0; i < names->count; i++) {
		if (names->entries[i].folder == folder &&
		    strcmp(names->entries[i].name, name) == 0) {
			return i;
		}
	}
	return CRASH_NONE;
}

uint32_t crash_names_find(const struct crash_names *names, uint32_t folder, const char *name)
{
	uint32_t index = index_of(names, folder, name);
	return index == CRASH_NONE ? CRASH_NONE : names->entries[index].inode;
}

uint32_t crash_names_above(const struct crash_names *names, uint32_t folder)
{
	for (uint32_t i = 0; i < names->count; i++) {
		if (names->entries[i].inode == folder) {
			return names->entries[i].folder;
		}
	}
	return CRASH_ROOT;
}

static void drop(struct crash_names *names, uint32_t index)
{
	if (index != CRASH_NONE) {
		names->entries[index] = names->entries[--names->count];
	}
}

static void put_name(struct crash_names *names, uint32_t folder, const char *name, uint32_t inode)
{
	if (names->count == CRASH_NAMES_MAX) {
		bail("too many names:", name);
	}
	names->entries[names->count].folder = folder;
	names->entries[names->count].inode = inode;
	memcpy(names->entries[names->count++].name, name, CRASH_NAME_BYTES);
}

void crash_names_apply(struct crash_names *names, const struct crash_op *op)
{
	uint32_t from = index_of(names, op->inode, op->name);
	uint32_t to = index_of(names, op->inode, op->name_to);
	switch (op->kind) {
	case CRASH_LINK:
		drop(names, from);
		put_name(names, op->inode, op->name, op->child);
		break;
	case CRASH_MOVE:
		drop(names, to);
		drop(names, index_of(names, op->from, op->name));
		put_name(names, op->inode, op->name_to, op->child);
		break;
	case CRASH_UNLINK:
		drop(names, from);
		break;
	case CRASH_RENAME:
		if (from != CRASH_NONE) {
			memcpy(names->entries[from].name, op->name_to, CRASH_NAME_BYTES);
			drop(names, to);
		}
		break;
	case CRASH_EXCHANGE:
		if (from != CRASH_NONE && to != CRASH_NONE) {
			uint32_t inode = names->entries[from].inode;
			names->entries[from].inode = names->entries[to].inode;
			names->entries[to].inode = inode;
		}
		break;
	default:
		break;
	}
}

// ---- files --------------------------------------------------------------------------------------

static void reserve(struct crash_file *file, uint64_t bytes)
{
	if (bytes > file->capacity) {
		file->capacity = bytes + bytes / 2;
		file->bytes = realloc(file->bytes, file->capacity);
		if (file->bytes == NULL) {
			bail("out of", "memory");
		}
	}
}

static void resize(struct crash_file *file, uint64_t bytes)
{
	reserve(file, bytes);
	if (bytes > file->size) {
		memset(file->bytes + file->size, 0, bytes - file->size);
	}
	file->size = bytes;
}

static void put(struct crash_file *file, const struct crash_op *op, uint64_t from, uint64_t end)
{
	memcpy(file->bytes + op->offset + from, op->data + from, end - from);
}

void crash_image_apply(struct crash_image *image, const struct crash_op *op)
{
	struct crash_file *file = &image->files[op->inode];
	if (op->kind == CRASH_WRITE) {
		if (op->offset + op->bytes > file->size) {
			resize(file, op->offset + op->bytes);
		}
		put(file, op, 0, op->bytes);
	} else if (op->kind == CRASH_SIZE) {
		resize(file, op->offset);
	} else {
		crash_names_apply(&image->names, op);
	}
}

void crash_image_tear(struct crash_image *image, const struct crash_op *op, uint64_t sector,
		      uint64_t *random)
{
	struct crash_file *file = &image->files[op->inode];
	if (op->offset + op->bytes > file->size) {
		resize(file, op->offset + op->bytes);
	}
	for (uint64_t at = 0; at < op->bytes;) {
		uint64_t end = (op->offset + at) / sector * sector + sector - op->offset;
		end = end < op->bytes ? end : op->bytes;
		if (tap_random(random) % 2 == 0) {
			put(file, op, at, end);
		}
		at = end;
	}
}

void crash_image_copy(struct crash_image *to, const struct crash_image *from)
{
	to->names = from->names;
	for (uint32_t i = 0; i < CRASH_INODES_MAX; i++) {
		const struct crash_file *file = &from->files[i];
		to->files[i].size = 0;
		if (file->size > 0) {
			reserve(&to->files[i], file->size);
			memcpy(to->files[i].bytes, file->bytes, file->size);
			to->files[i].size = file->size;
		}
	}
}

// ---- laid out -----------------------------------------------------------------------------------

static void lay_file(const struct crash_file *file, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t done = 0;
	while (fd >= 0 && done < file->size) {
		ssize_t wrote = pwrite(fd, file->bytes + done, file->size - done, (off_t)done);
		if (wrote <= 0) {
			bail("cannot write", path);
		}
		done += (uint64_t)wrote;
	}
	if (fd < 0 || close(fd) != 0) {
		bail("cannot make", path);
	}
}

static void lay_folder(const struct crash_image *image, const struct crash_record *record,
		       uint32_t folder, const char *path)
{
	char below[FIXTURE_PATH_BYTES];
	if (mkdir(path, 0700) != 0) {
		bail("cannot make", path);
	}
	for (uint32_t i = 0; i < image->names.count; i++) {
		uint32_t inode = image->names.entries[i].inode;
		if (image->names.entries[i].folder != folder) {
			continue;
		}
		int length =
			snprintf(below, sizeof(below), "%s/%s", path, image->names.entries[i].name);
		if (length < 0 || (size_t)length >= sizeof(below)) {
			bail("a path is too long:", path);
		}
		if (record->folder[inode]) {
			lay_folder(image, record, inode, below);
		} else {
			lay_file(&image->files[inode], below);
		}
	}
}

void crash_image_lay(const struct crash_image *image, const struct crash_record *record,
		     const char *root)
{
	if (access(root, F_OK) == 0) {
		fixture_remove(root);
	}
	lay_folder(image, record, CRASH_ROOT, root);
}

void crash_image_free(struct crash_image *image)
{
	for (uint32_t i = 0; i < CRASH_INODES_MAX; i++) {
		free(image->files[i].bytes);
	}
	memset(image, 0, sizeof(*image));
}

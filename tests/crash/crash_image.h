// SPDX-License-Identifier: MIT
//
// What is on a device: files, folders and their names, made from recorded calls. A call is applied
// as a whole, in part, or not at all; then the image is laid out as a folder that kvd can be
// started on.
#pragma once

#include "tests/crash/recorder.h"

#define CRASH_NAMES_MAX 64u

/// Names, each in a folder.
struct crash_names {
	struct {
		uint32_t folder;
		uint32_t inode;
		char name[CRASH_NAME_BYTES];
	} entries[CRASH_NAMES_MAX];
	uint32_t count;
};

/// CRASH_NONE if there is no such name.
uint32_t crash_names_find(const struct crash_names *names, uint32_t folder, const char *name);
/// The folder that this folder is in.
uint32_t crash_names_above(const struct crash_names *names, uint32_t folder);
/// Applies a change of names; one whose names are not there changes nothing. A move is one step,
/// and brings what it names whatever became of its old name.
void crash_names_apply(struct crash_names *names, const struct crash_op *op);

struct crash_file {
	unsigned char *bytes;
	uint64_t size;
	uint64_t capacity;
};

struct crash_image {
	struct crash_names names;
	struct crash_file files[CRASH_INODES_MAX];
};

/// Applies a call as a whole.
void crash_image_apply(struct crash_image *image, const struct crash_op *op);

/// Applies a write in pieces that a device writes at once, of `sector` bytes: each arrives or does
/// not, as `*random` says. The file has its full length afterwards.
void crash_image_tear(struct crash_image *image, const struct crash_op *op, uint64_t sector,
		      uint64_t *random);

/// Makes `to` the same as `from`; it keeps its memory.
void crash_image_copy(struct crash_image *to, const struct crash_image *from);

/// Makes the folder `root` look like the image, whatever was in it. Bails out if it cannot.
void crash_image_lay(const struct crash_image *image, const struct crash_record *record,
		     const char *root);

void crash_image_free(struct crash_image *image);

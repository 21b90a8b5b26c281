// SPDX-License-Identifier: MIT
//
// Copying a large file so that it is there whole or not at all: synced, read back from the device
// with its checksum, and only then given its name.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// Why a copy failed, and where.
struct filecopy_error {
	int error;	  // errno; 0 with `damaged`
	const char *what; // static: "read", "write", …
	bool damaged;	  // what was read back is not what was written
};

/// Copies the first `bytes` bytes of `from` to `to`, which is empty, syncs, drops it from the page
/// cache and reads it back. `crc`: crc32c of these bytes. `told` hears how many bytes were copied
/// and read back, of twice `bytes`, and stops it by returning false (errno ECANCELED).
bool filecopy(int from, int to, uint64_t bytes, uint32_t crc,
	      bool (*told)(void *context, uint64_t done), void *context,
	      struct filecopy_error *error);

/// A file on its way to its name.
struct filecopy_target {
	int fd;
	char *temporary; // its name; NULL: it has none, and goes with whoever made it
};

/// Makes it where `path` will stand: without a name where the file system can do that, else under
/// one beside it. Mode 0600. Returns 0 or errno.
int filecopy_target_open(struct filecopy_target *target, const char *path);
/// Gives it its name, in the place of what has it. Returns 0 or errno.
int filecopy_target_name(struct filecopy_target *target, const char *path);
/// Closes it; what has not got its name is gone. Returns 0 or errno.
int filecopy_target_close(struct filecopy_target *target);

/// Syncs the folder that `path` stands in. 0 or errno.
int filecopy_sync_folder(const char *path);

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

/// Syncs the folder that `path` stands in. 0 or errno.
int filecopy_sync_folder(const char *path);

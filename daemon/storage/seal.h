// SPDX-License-Identifier: MIT
//
// A backup: one file, the bytes of a store's data.mdb, sealed. The seal is one page behind them
// that says how many they are, their checksum, and what is in them; it is written last, when they
// have been synced and read back, so that a file without one, or cut short, is no backup. Restoring
// one is copying the bytes before the seal.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEAL_BYTES 4096u
#define SEAL_VERSION_BYTES 24u

struct seal_facts {
	uint64_t data_bytes; // before the seal
	uint32_t data_crc;   // crc32c of them
	uint64_t instance_id;
	uint64_t durable_seq; // the moment: everything up to this version, nothing newer
	uint64_t keys;
	uint64_t records;
	uint64_t created_ms;		      // since 1970
	char kvd_version[SEAL_VERSION_BYTES]; // that wrote it
};

/// Reads `bytes` bytes of `fd` from its start and returns their checksum in *crc. `told` (may be
/// NULL) hears now and then how many were read, and stops it by returning false. 0 or errno
/// (ECANCELED; EIO also when the file ends before).
int seal_sum(int fd, uint64_t bytes, uint32_t *crc, bool (*told)(void *context, uint64_t done),
	     void *context);

/// Appends the seal to `fd`, whose length is facts->data_bytes, and syncs it. 0 or errno.
int seal_write(int fd, const struct seal_facts *facts);

/// Reads the seal at the end of `fd`. Returns 0, or -1 with `why` filled: what is wrong with it as
/// a backup. The checksum of the data is not looked at.
int seal_read(int fd, struct seal_facts *facts, char *why, size_t why_bytes);

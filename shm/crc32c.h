// SPDX-License-Identifier: MIT
//
// CRC-32C (Castagnoli), the checksum of records, runs and store blocks. Own code because Debian has
// no small C library for it: the processor's instruction where there is one, tables elsewhere, and
// a test that holds both to the same answers.
#pragma once

#include <stddef.h>
#include <stdint.h>

/// Continues `crc` (0 to start) over `bytes` bytes at `data`.
uint32_t kvs_crc32c(uint32_t crc, const void *data, size_t bytes);

/// The portable path, for the test that compares the two and for processors without the
/// instruction.
uint32_t kvs_crc32c_portable(uint32_t crc, const void *data, size_t bytes);

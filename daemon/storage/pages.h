// SPDX-License-Identifier: MIT
//
// A look at the raw pages of an LMDB file, without LMDB: does every tree hang together, is no page
// used twice, is nothing that is in use listed as free? LMDB asks none of this and follows whatever
// a damaged page says; a file that passes here it can read and write safely.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Checks the newest snapshot in a file's bytes (8-aligned). Returns 0 if it hangs
/// together or is none whose format is known here (LMDB refuses those itself), 1 if nothing was
/// ever committed to it (kvd was killed while creating it), -1 with `why` filled. `trees_only`: the
/// runs of pages, which hold blocks, are counted and not read; a block has a checksum of its own.
int store_pages_check_image(const void *file, uint64_t file_bytes, bool trees_only, char *why,
			    size_t why_bytes);

/// The same for the file behind `fd`.
int store_pages_check(int fd, uint64_t file_bytes, bool trees_only, char *why, size_t why_bytes);

/// Does the file begin as LMDB's do?
bool store_pages_known(int fd);

/// Is this what a crash may leave of a file that LMDB was creating: no more than the two meta
/// pages, each of them as LMDB makes it, or nothing but zeroes? Nothing was ever committed to it
/// then.
bool store_pages_unborn(int fd, uint64_t file_bytes);

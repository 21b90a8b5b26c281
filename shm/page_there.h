// SPDX-License-Identifier: MIT
//
// Whether a file of huge pages of the system's pool has a page somewhere. SEEK_DATA does not tell
// it of such files, nor does mincore(), and what the page holds is no answer: a value of zeroes is
// one, and somebody may be looking at it.
#pragma once

#include <stdint.h>

/// `pagemap_fd` is this process's /proc/self/pagemap, `offset` a multiple of `page_bytes`. The file
/// gets no page by being asked. 1 or 0; -1: it cannot be found out (no /proc, a kernel before
/// 5.14, no memory).
int kvs_page_is_there(int fd, int pagemap_fd, uint64_t offset, uint32_t page_bytes);

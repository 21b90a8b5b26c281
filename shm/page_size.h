// SPDX-License-Identifier: MIT
//
// In which pieces the memory of a file comes and goes: the kernel says it of the descriptor, so
// that nothing in the file need be believed for it.
#pragma once

#include <stdint.h>

/// Bytes of a page of the memfd `fd`: KVS_PAGE_BYTES, or for one of huge pages of the system's pool
/// theirs, which may be any power of two.
uint32_t kvs_page_size(int fd);

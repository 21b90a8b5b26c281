// SPDX-License-Identifier: MIT
//
// Where this program's file is, for those that run it again.
#pragma once

#include <stddef.h>

#define SELF_PROGRAM_LINK "/proc/self/exe"

/// A path to give to exec: the file's own name, written to `path`, or SELF_PROGRAM_LINK if it has
/// none any more. Never NULL. Any thread.
const char *self_program(char *path, size_t path_bytes);

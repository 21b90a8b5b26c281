// SPDX-License-Identifier: MIT
//
// Settings of the process itself.
#pragma once

#include <stddef.h>

struct config;

/// Makes them, once, before anything is opened; lowers `maxclients` to what the process has
/// descriptors for. Returns 0, or an exit code with `why` filled.
int service_process(struct config *config, char *why, size_t why_bytes);

// SPDX-License-Identifier: MIT
//
// Writing options back into the file they came from: what was set while kvd ran takes the place of
// what stands there, everything else, comments too, stays as it is.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/config_option.h"

struct seam;

/// Rewrites config->config_path with the options of which `changed` is true. A reader of the file,
/// or a crash, finds the old file or the new one. False: `error` tells why, and the file is as it
/// was. It waits for the disk.
bool config_rewrite(const struct seam *seam, const struct config *config,
		    const bool changed[CONFIG_OPTIONS_MAX], char *error, size_t error_bytes);

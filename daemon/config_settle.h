// SPDX-License-Identifier: MIT
//
// What must hold between options, and the values that follow from others.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/config.h"

/// Derives what is still at "0 = choose" and checks the rest against it. `memory_chosen`: somebody
/// set `memory`, so a value-max that does not fit it is an error instead of being lowered. False
/// with one line in `error`.
bool config_settle(struct config *config, bool memory_chosen, char *error, size_t error_bytes);

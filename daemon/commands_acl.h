// SPDX-License-Identifier: MIT
//
// The categories that Redis's access lists put commands in, as COMMAND INFO and ACL CAT tell them.
#pragma once

#include <stddef.h>

struct command;

#define COMMANDS_CATEGORIES_MAX 8

/// Redis's categories of a command, "@read" and so on, which follow from its group and flags.
/// Returns their number.
size_t commands_categories(const struct command *command, const char *out[COMMANDS_CATEGORIES_MAX]);

// SPDX-License-Identifier: MIT
//
// What a person can do about an error of the system, in half a sentence. One table for everything
// kvd opens, so that each message ends with a remedy that fits the error and not the occasion.
#pragma once

#include <stdbool.h>

/// For errno value `error`; never NULL, static. Any thread.
const char *remedy_of_errno(int error);

/// The exit code of a start that failed because something could not be created or opened:
/// permissions, a full disk and limits of the process have their own.
int remedy_exit_code(int error);

/// Does what a start ended with stay wrong until somebody changes something?
bool remedy_is_lasting(int exit_code);

// SPDX-License-Identifier: MIT
//
// What a person can do about an error of the system, in half a sentence. One table for everything
// kvd opens, so that each message ends with a remedy that fits the error and not the occasion.
#pragma once

/// For errno value `error`; never NULL, static. Any thread.
const char *remedy_of_errno(int error);

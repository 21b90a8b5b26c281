// SPDX-License-Identifier: MIT
//
// What EXEC asks about watched keys.
#pragma once

#include <stdbool.h>

struct call;

/// Has one of the connection's watched keys another version than when it was watched?
bool commands_watch_changed(const struct call *call);

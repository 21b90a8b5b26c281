// SPDX-License-Identifier: MIT
//
// Read into every file of a build that counts branches (./check --coverage), before all else: a
// child that leaves by _exit() writes what it has counted, which the runtime does at exit() alone.
#pragma once

#include <unistd.h>

void __gcov_dump(void);

#define _exit(status) (__gcov_dump(), (_exit)(status))

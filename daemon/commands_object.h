// SPDX-License-Identifier: MIT
//
// How Redis would keep a value.
#pragma once

struct keyspace_value;

/// "int", "embstr" or "raw", by what the value is. Redis says raw, too, of short values that were
/// appended to; kvd does not know how a value came about.
const char *commands_object_encoding_name(const struct keyspace_value *value);

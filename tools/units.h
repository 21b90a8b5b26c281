// SPDX-License-Identifier: MIT
//
// Durations and sizes as people write and read them: "30s" in, "47.8 MB" out.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Reads "500ms", "30s", "5m", "2h", "7d" (whole or decimal, one unit) as milliseconds. A number
/// without a unit takes `unit_ms`; 0 there means the unit is required. False if it is not a
/// duration or does not fit.
bool units_duration_parse(const char *text, int64_t unit_ms, int64_t *duration_ms);

/// "29.5 s", "3 min", "2.4 h" into `out`; about three digits.
void units_duration(char *out, size_t out_bytes, double seconds);

/// "812 B", "47.8 MB" (decimal units) into `out`.
void units_size(char *out, size_t out_bytes, double bytes);

/// "812", "63.7k", "1.2M" into `out`.
void units_count(char *out, size_t out_bytes, double count);

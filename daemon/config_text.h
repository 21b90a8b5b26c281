// SPDX-License-Identifier: MIT
//
// Values of options as people write them: sizes and durations with units, octal modes, names out of
// a list, and the nearest name for a misspelt one. Pure text, no option table.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// "4096", "64k", "256MiB", "1 GB": bytes. K, KB and KiB all mean 1024, any case. False if it is
/// none.
bool config_text_size(const char *text, uint64_t *bytes);
/// "250", "250ms", "2s", "5m", "1h": milliseconds.
bool config_text_duration(const char *text, uint64_t *ms);
/// Decimal digits only.
bool config_text_number(const char *text, uint64_t *number);
/// Octal digits, with or without a leading 0, up to 0777.
bool config_text_mode(const char *text, uint64_t *mode);
/// Index of `text` in "a|b|c".
bool config_text_choice(const char *text, const char *choices, uint64_t *index);

/// The other direction: the largest unit that divides (256MiB, 5s), and the name of choice `index`.
void config_text_print_size(uint64_t bytes, char *out, size_t out_bytes);
void config_text_print_duration(uint64_t ms, char *out, size_t out_bytes);
void config_text_print_choice(const char *choices, uint64_t index, char *out, size_t out_bytes);

/// How many single-character edits lead from one name to the other; names beyond 63 characters
/// count as far away.
size_t config_text_distance(const char *a, const char *b);

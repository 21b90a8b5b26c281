// SPDX-License-Identifier: MIT
//
// The names that Redis clients, benchmarks, exporters and test suites know for options that kvd
// does not have (config_names.tbl.h): answered with what is true of kvd, and set only if that is
// no lie. Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct config_change;
struct kvd;

size_t config_names_count(void);
const char *config_names_name(size_t index);
/// Is it told only when asked for by its whole name?
bool config_names_hidden(size_t index);
/// Index of a name in any case; config_names_count() if there is none.
size_t config_names_find(const char *name, size_t name_bytes);
/// The value as CONFIG GET tells it.
void config_names_value(const struct kvd *kvd, size_t index, char *out, size_t out_bytes);

/// Can it be set at all while the server runs? False: `error` has Redis's words.
bool config_names_settable(size_t index, char *error, size_t error_bytes);
/// Would this value be accepted? False: `error` tells why not. Nothing is changed.
bool config_names_check(const struct kvd *kvd, size_t index, const char *text, char *error,
			size_t error_bytes);
/// Does it stand for options of kvd's own? Then config_names_change() checks and sets them.
bool config_names_is_others(size_t index);
/// Puts what client-output-buffer-limit says into `change`. False: `error` tells why not.
bool config_names_change(struct config_change *change, const char *text, char *error,
			 size_t error_bytes);
/// Keeps a value that was checked, to tell it back. Without memory the old one stays.
void config_names_put(struct kvd *kvd, size_t index, const char *text);

/// Frees what was kept.
void config_names_fini(struct kvd *kvd);

// SPDX-License-Identifier: MIT
//
// Options: one table (config.tbl.h) of name, type, default, bounds and help, from which come the
// command line, --help, CONFIG GET and the manual. Sizes take units (256MiB, 1g), durations too (250ms).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/limits.h"

struct config {
#define CONFIG_STRING(field, name, dflt, dynamic, help) char *field;
#define CONFIG_SIZE(field, name, dflt, min, max, dynamic, help) uint64_t field;
#define CONFIG_DURATION_MS(field, name, dflt, min, max, dynamic, help) uint64_t field;
#define CONFIG_NUMBER(field, name, dflt, min, max, dynamic, help) uint64_t field;
#define CONFIG_CHOICE(field, name, choices, dflt, dynamic, help) unsigned field;
#define CONFIG_FLAG(field, name, dflt, dynamic, help) bool field;
#include "daemon/config.tbl.h"
};

/// What a command line asked for besides options.
enum config_action { CONFIG_RUN, CONFIG_HELP, CONFIG_VERSION, CONFIG_USAGE_ERROR };

/// Fills `config` with defaults and then argv. On CONFIG_USAGE_ERROR `error` has one line that names the
/// option and the remedy. config_fini frees the strings.
enum config_action config_parse(struct config *config, int argc, char **argv, char *error,
				size_t error_bytes);
void config_fini(struct config *config);

/// Prints --help to stdout, from the table.
void config_help(void);

/// Value of option `index` (0..config_count()-1) as text, with its name, for CONFIG GET.
size_t config_count(void);
const char *config_name(size_t index);
void config_value(const struct config *config, size_t index, char *out, size_t out_bytes);

// SPDX-License-Identifier: MIT
//
// Options: one table (config.tbl.h) of name, type, default, bounds and help, from which come the
// command line, the configuration file, --help and CONFIG GET. Sizes take units (256MiB, 1g; powers
// of 1024 throughout), durations too (250ms).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/limits.h"

#define CONFIG_OPTIONS_MAX 96u	  // rows that there may be
#define CONFIG_LINE_BYTES_MAX 198 // of the file, without its end: libinih reads no longer ones

struct config {
#define CONFIG_STRING(field, name, dflt, dynamic, help) char *field;
#define CONFIG_SIZE(field, name, dflt, min, max, dynamic, help) uint64_t field;
#define CONFIG_DURATION_MS(field, name, dflt, min, max, dynamic, help) uint64_t field;
#define CONFIG_NUMBER(field, name, dflt, min, max, dynamic, help) uint64_t field;
#define CONFIG_INTEGER(field, name, dflt, min, max, dynamic, help) int64_t field;
#define CONFIG_CHOICE(field, name, choices, dflt, dynamic, help) unsigned field;
#define CONFIG_FLAG(field, name, help) unsigned field;
#define CONFIG_MODE(field, name, dflt, dynamic, help) uint64_t field;
#include "daemon/config.tbl.h"
	bool value_max_given;	 // else it follows the memory
	unsigned when_full_kept; // what when-full was last where no key may go
};

/// Values of huge-pages.
enum config_huge_pages { CONFIG_PAGES_SMALL, CONFIG_PAGES_TRANSPARENT, CONFIG_PAGES_HUGETLB };

/// Values of when-full, and of maxmemory-policy.
enum config_when_full {
	CONFIG_WHEN_FULL_REJECT,
	CONFIG_WHEN_FULL_EVICT,
	CONFIG_WHEN_FULL_SPILL,
};
#define CONFIG_POLICY_ALLKEYS 4u // the first of them, behind the volatile ones
#define CONFIG_POLICY_NONE 7u

/// What a command line asked for besides options.
enum config_action {
	CONFIG_RUN,
	CONFIG_HELP,
	CONFIG_VERSION,
	CONFIG_USAGE_ERROR,
	CONFIG_NO_MEMORY, // of this process: the options may be right
};

/// Fills `config`: defaults, over them the file of --config, over them argv; then derives what was
/// left at "0 = choose" (socket_path, memory_max_bytes, value_bytes_max, segment_bytes), so that
/// the rest of kvd reads final values. On CONFIG_USAGE_ERROR `error` has one line that names the
/// option (or FILE:LINE) and the remedy; so it has on CONFIG_NO_MEMORY. config_fini frees the
/// strings, after every result.
enum config_action config_parse(struct config *config, int argc, char **argv, char *error,
				size_t error_bytes);
void config_fini(struct config *config);

/// Takes option `name`, a flag, out of a command line that config_parse() has accepted. Returns the
/// new argc; argv[argc] is NULL.
int config_arguments_without(int argc, char **argv, const char *name);

/// What is done when memory is full where no key may go, unless `reject` was asked for.
static inline unsigned config_when_full_default(const struct config *config)
{
	bool has_store = config->persist_policy != 0;
	return has_store ? CONFIG_WHEN_FULL_SPILL : CONFIG_WHEN_FULL_REJECT;
}

/// Longest request that is accepted, framing included, for values of up to `value_bytes_max`.
static inline size_t config_request_bytes_max(size_t value_bytes_max, uint64_t memory_bytes)
{
	size_t batch_bytes =
		memory_bytes < KVS_BATCH_BYTES_MAX ? (size_t)memory_bytes : KVS_BATCH_BYTES_MAX;
	size_t framing_bytes = 1u << 20;
	return (value_bytes_max > batch_bytes ? value_bytes_max : batch_bytes) + framing_bytes;
}

#define CONFIG_SEGMENTS_MIN 16u // heads, reserves and room to clean

/// The least that the region can be bounded by.
static inline uint64_t config_memory_least(const struct config *config)
{
	uint64_t bytes = config->segment_bytes * CONFIG_SEGMENTS_MIN;
	return bytes > KVS_MEMORY_BYTES_MIN ? bytes : KVS_MEMORY_BYTES_MIN;
}

/// Is maxmemory less than that? Then it frees nothing: commands that need memory are refused while
/// more is in use. Before it is settled it is not.
static inline bool config_is_bounded(const struct config *config)
{
	return config->maxmemory_bytes - 1 < config_memory_least(config) - 1;
}

/// The bound on the region: `maxmemory`, `memory` unless it was set.
static inline uint64_t config_memory_bytes(const struct config *config)
{
	return config->maxmemory_bytes >= config_memory_least(config) ? config->maxmemory_bytes
								      : config->memory_bytes;
}

/// Is all memory taken at the start? Pages of the system's pool are of no use to anybody else.
static inline bool config_prefaults(const struct config *config)
{
	return config->prefault == 1 || config->huge_pages == CONFIG_PAGES_HUGETLB;
}

/// Least bound on buffers with which one such request can be served: as it comes, its copy in a
/// transaction, its reply.
static inline uint64_t config_buffers_bytes_min(size_t request_bytes_max)
{
	return (uint64_t)request_bytes_max * 3;
}

/// Prints --help to stdout, from the table.
void config_help(void);

/// Value of option `index` (0..config_count()-1) as text, with its name, for CONFIG GET: sizes in
/// bytes, durations in ms, choices by name.
size_t config_count(void);
const char *config_name(size_t index);
void config_value(const struct config *config, size_t index, char *out, size_t out_bytes);

// SPDX-License-Identifier: MIT
//
// Lines on standard error: with a syslog level prefix under systemd, with a time otherwise. Each
// call site is rate limited, so that a storm of one error cannot fill a disk; what was left out is
// counted. Keys and values never go into the log. Any thread.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_INFO,
	LOG_LEVEL_NOTICE,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_ERROR
};

/// One place in the code that logs.
struct log_site {
	uint64_t window_start_ns;
	uint64_t window_count;
	uint64_t suppressed;
};

/// Least level that is written; looks at $JOURNAL_STREAM once. Call before threads start.
void log_init(enum log_level least);
/// Another least level, at any time.
void log_set_least(enum log_level least);
enum log_level log_least(void);

/// Use the macros. One line, no newline at the end; control characters are replaced.
void log_write(struct log_site *site, enum log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define LOG_AT(level, ...)                                     \
	do {                                                   \
		static struct log_site log_site_here;          \
		log_write(&log_site_here, level, __VA_ARGS__); \
	} while (0)

#define log_debug(...) LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_notice(...) LOG_AT(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_warning(...) LOG_AT(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)

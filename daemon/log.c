// SPDX-License-Identifier: MIT
//
// One write(2) a line, so that lines of several threads do not mix and nothing is lost in a buffer
// when kvd is killed. The rate limit is a budget per call site and window; it counts with relaxed
// atomics, a line more or less does not matter.

#include "daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/seam.h"
#include "shm/atomics.h"

#define LOG_LINE_BYTES_MAX 1024
#define LOG_WINDOW_NS UINT64_C(5000000000)
#define LOG_LINES_A_WINDOW 10u // per call site

static uint32_t log_least_level = LOG_LEVEL_NOTICE; // enum log_level
static bool log_journal;

static const struct {
	const char *name;
	const char *syslog;
} log_levels[] = {
	[LOG_LEVEL_DEBUG] = { "debug", "<7>" },	  [LOG_LEVEL_INFO] = { "info", "<6>" },
	[LOG_LEVEL_NOTICE] = { "notice", "<5>" }, [LOG_LEVEL_WARNING] = { "warning", "<4>" },
	[LOG_LEVEL_ERROR] = { "error", "<3>" },
};

void log_set_least(enum log_level least)
{
	// Release where relaxed would do: partner: log_least(), a value that stands for itself.
	kvs_store_release_32(&log_least_level, (uint32_t)least);
}

void log_init(enum log_level least)
{
	log_set_least(least);
	log_journal = getenv("JOURNAL_STREAM") != NULL;
}

enum log_level log_least(void)
{
	// Relaxed: a single value (partner: log_set_least()).
	return (enum log_level)kvs_load_relaxed_32(&log_least_level);
}

/// May this site write now? *suppressed tells how many lines it lost since it last could.
static bool log_allow(struct log_site *site, uint64_t *suppressed)
{
	// Relaxed throughout: partners are the same lines run by other threads; only counts travel.
	uint64_t now = seam_system.monotonic_ns();
	uint64_t start = kvs_load_relaxed(&site->window_start_ns);
	if (start == 0 || now - start >= LOG_WINDOW_NS) {
		kvs_store_relaxed(&site->window_start_ns, now);
		kvs_store_relaxed(&site->window_count, 0);
	}
	if (kvs_load_relaxed(&site->window_count) >= LOG_LINES_A_WINDOW) {
		kvs_count(&site->suppressed, 1);
		return false;
	}
	kvs_count(&site->window_count, 1);
	*suppressed = kvs_load_relaxed(&site->suppressed);
	kvs_store_relaxed(&site->suppressed, 0);
	return true;
}

static size_t log_head(char *line, size_t bytes, enum log_level level)
{
	if (log_journal) {
		return (size_t)snprintf(line, bytes, "%s", log_levels[level].syslog);
	}
	uint64_t wall_ms = seam_system.wall_ms();
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm local;
	if (!localtime_r(&seconds, &local)) {
		return (size_t)snprintf(line, bytes, "%s: ", log_levels[level].name);
	}
	size_t at = strftime(line, bytes, "%Y-%m-%d %H:%M:%S", &local);
	return at + (size_t)snprintf(line + at, bytes - at,
				     ".%03u %s: ", (unsigned)(wall_ms % 1000),
				     log_levels[level].name);
}

void log_write(struct log_site *site, enum log_level level, const char *format, ...)
{
	uint64_t suppressed = 0;
	if (level < log_least() || !log_allow(site, &suppressed)) {
		return;
	}
	char line[LOG_LINE_BYTES_MAX];
	size_t bytes = log_head(line, sizeof(line), level);
	size_t text = bytes;
	va_list args;
	va_start(args, format);
	int n = vsnprintf(line + bytes, sizeof(line) - bytes, format, args);
	va_end(args);
	bytes += n > 0 ? (size_t)n : 0;
	if (suppressed > 0 && bytes < sizeof(line)) {
		n = snprintf(line + bytes, sizeof(line) - bytes, " (%llu like it left out)",
			     (unsigned long long)suppressed);
		bytes += n > 0 ? (size_t)n : 0;
	}
	bytes = bytes < sizeof(line) - 1 ? bytes : sizeof(line) - 1;
	for (size_t i = text; i < bytes; i++) {
		if ((unsigned char)line[i] < ' ' || line[i] == 127) {
			line[i] = '?';
		}
	}
	line[bytes++] = '\n';
	// Nowhere to report that the log cannot be written.
	ssize_t written = write(STDERR_FILENO, line, bytes);
	(void)written;
}

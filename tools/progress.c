// SPDX-License-Identifier: MIT
//
// Reads the clock and the width of the terminal; the text itself is a pure function.
#include "tools/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tools/units.h"

#define PROGRESS_PERIOD_NS UINT64_C(100000000)
#define PROGRESS_BAR_COLUMNS_MAX 40u
#define PROGRESS_TEXT_COLUMNS 64u // what stands beside the bar at its widest
#define PROGRESS_LINE_BYTES 200u

static uint64_t progress_now_ns(void)
{
	struct timespec now;
	if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
		return 0;
	}
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void progress_start(struct progress *progress, bool wanted, uint64_t total_bytes)
{
	uint64_t now_ns = progress_now_ns();
	*progress = (struct progress){ .on = wanted && isatty(STDERR_FILENO) == 1,
				       .total_bytes = total_bytes,
				       .start_ns = now_ns,
				       .next_ns = now_ns + PROGRESS_PERIOD_NS };
}

static unsigned progress_columns(void)
{
	struct winsize size;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
		return 80;
	}
	return size.ws_col;
}

void progress_update(struct progress *progress, uint64_t bytes, uint64_t records)
{
	if (!progress->on) {
		return;
	}
	uint64_t now_ns = progress_now_ns();
	if (now_ns < progress->next_ns) {
		return;
	}
	progress->next_ns = now_ns + PROGRESS_PERIOD_NS;
	progress->drawn = true;
	char line[PROGRESS_LINE_BYTES];
	progress_format(line, sizeof line, progress_columns(), progress->total_bytes, bytes,
			records, (double)(now_ns - progress->start_ns) / 1e9);
	fprintf(stderr, "\r%s\033[K", line);
	fflush(stderr);
}

double progress_stop(struct progress *progress)
{
	if (progress->drawn) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
		progress->drawn = false;
	}
	return (double)(progress_now_ns() - progress->start_ns) / 1e9;
}

static unsigned progress_bar(char *out, unsigned columns, double share)
{
	if (columns < PROGRESS_TEXT_COLUMNS + 10) {
		return 0;
	}
	unsigned width = columns - PROGRESS_TEXT_COLUMNS;
	width = width > PROGRESS_BAR_COLUMNS_MAX ? PROGRESS_BAR_COLUMNS_MAX : width;
	unsigned inner = width - 3;
	unsigned filled = (unsigned)(share * inner);
	out[0] = '[';
	memset(out + 1, '#', filled);
	memset(out + 1 + filled, '.', inner - filled);
	memcpy(out + 1 + inner, "] ", 2);
	return width;
}

void progress_format(char *out, size_t out_bytes, unsigned columns, uint64_t total_bytes,
		     uint64_t bytes, uint64_t records, double seconds)
{
	char size[16], count[16], rate[16], left[16];
	char bar[PROGRESS_BAR_COLUMNS_MAX + 1] = "";
	double rate_bytes = seconds > 0 ? (double)bytes / seconds : 0;
	units_size(size, sizeof size, (double)bytes);
	units_count(count, sizeof count, (double)records);
	units_size(rate, sizeof rate, rate_bytes);
	if (total_bytes == 0) {
		snprintf(out, out_bytes, "%s  %s records  %s/s", size, count, rate);
	} else {
		double share = bytes >= total_bytes ? 1 : (double)bytes / (double)total_bytes;
		bar[progress_bar(bar, columns, share)] = '\0';
		if (rate_bytes > 0) {
			double rest_bytes = (double)total_bytes * (1 - share);
			units_duration(left, sizeof left, rest_bytes / rate_bytes);
		} else {
			snprintf(left, sizeof left, "?");
		}
		snprintf(out, out_bytes, "%3.0f%% %s%s  %s records  %s/s  %s left", share * 100,
			 bar, size, count, rate, left);
	}
	if (strlen(out) >= columns) {
		out[columns > 0 ? columns - 1 : 0] = '\0';
	}
}

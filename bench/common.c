// SPDX-License-Identifier: MIT
//
// Clock, keys, medians and tables for all benchmarks: common.h says why they are one.
#include "bench/common.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

void bench_die(const char *format, ...)
{
	va_list args;
	(void)fflush(stdout);
	(void)fprintf(stderr, "kvbench: ");
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fprintf(stderr, "\n");
	exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	if (clock_gettime(clock, &now) != 0) {
		bench_die("clock_gettime: %s", strerror(errno));
	}
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t bench_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t bench_thread_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

double bench_process_cpu_ms(pid_t pid)
{
	clockid_t clock;
	struct timespec used;
	int error = clock_getcpuclockid(pid, &clock);
	if (error != 0 || clock_gettime(clock, &used) != 0) {
		bench_die("processor time of kvd: %s", strerror(error ? error : errno));
	}
	return (double)used.tv_sec * 1e3 + (double)used.tv_nsec / 1e6;
}

// ---- processors ---------------------------------------------------------------------------------

// Those the program was started with; read before the first pin changes them.
static const cpu_set_t *cpus_allowed(void)
{
	static cpu_set_t allowed;
	static bool known;
	if (!known && sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
		bench_die("sched_getaffinity: %s", strerror(errno));
	}
	known = true;
	return &allowed;
}

void bench_pin(unsigned index)
{
	const cpu_set_t *allowed = cpus_allowed();
	cpu_set_t one;
	unsigned skip = index % (unsigned)CPU_COUNT(allowed);
	int cpu = 0;
	while (!CPU_ISSET(cpu, allowed) || skip-- > 0) {
		cpu++;
	}
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one) != 0) {
		bench_die("cannot run on processor %d: %s", cpu, strerror(errno));
	}
}

void bench_unpin(void)
{
	const cpu_set_t *allowed = cpus_allowed();
	if (sched_setaffinity(0, sizeof(*allowed), allowed) != 0) {
		bench_die("sched_setaffinity: %s", strerror(errno));
	}
}

// ---- keys and values ----------------------------------------------------------------------------

void bench_key(char *key, uint64_t index)
{
	memcpy(key, "key:", 4);
	for (unsigned at = BENCH_KEY_BYTES; at-- > 4; index /= 10) {
		key[at] = (char)('0' + index % 10);
	}
}

static unsigned char value_end(uint64_t index, unsigned which)
{
	uint64_t state = index * 2 + which;
	return (unsigned char)bench_random(&state);
}

void bench_value(char *value, uint64_t index)
{
	memset(value, 'v', BENCH_VALUE_BYTES);
	value[0] = (char)value_end(index, 0);
	value[BENCH_VALUE_BYTES - 1] = (char)value_end(index, 1);
}

uint64_t bench_value_sum(uint64_t index)
{
	return (uint64_t)value_end(index, 0) + value_end(index, 1);
}

// ---- results ------------------------------------------------------------------------------------

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

void bench_add(struct bench_rows *rows, const char *id, const char *label, const char *unit,
	       double *samples, size_t count)
{
	if (rows->count == BENCH_ROWS_MAX || count == 0) {
		bench_die("%s: no room or no samples", id);
	}
	struct bench_row *row = &rows->row[rows->count++];
	qsort(samples, count, sizeof(samples[0]), compare_doubles);
	*row = (struct bench_row){
		.unit = unit,
		.median = count % 2 ? samples[count / 2]
				    : (samples[count / 2 - 1] + samples[count / 2]) / 2,
		.min = samples[0],
		.max = samples[count - 1],
		.samples = (unsigned)count,
	};
	(void)snprintf(row->id, sizeof(row->id), "%s", id);
	(void)snprintf(row->label, sizeof(row->label), "%s", label);
}

void bench_add_one(struct bench_rows *rows, const char *id, const char *label, const char *unit,
		   double value)
{
	bench_add(rows, id, label, unit, &value, 1);
}

double bench_median(const struct bench_rows *rows, const char *id)
{
	for (size_t i = 0; i < rows->count; i++) {
		if (strcmp(rows->row[i].id, id) == 0) {
			return rows->row[i].median;
		}
	}
	bench_die("no result called %s", id);
}

// First line of a file, or the rest of its first line that begins with `prefix`.
static const char *file_line(char *out, size_t out_bytes, const char *path, const char *prefix)
{
	FILE *file = fopen(path, "r");
	size_t prefix_bytes = strlen(prefix);
	(void)snprintf(out, out_bytes, "unknown");
	char line[256];
	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, prefix, prefix_bytes) == 0) {
			line[strcspn(line, "\n")] = '\0';
			const char *text = line + prefix_bytes;
			(void)snprintf(out, out_bytes, "%s", text + strspn(text, " \t:"));
			break;
		}
	}
	if (file) {
		(void)fclose(file);
	}
	return out;
}

static void print_machine(bool json)
{
	struct utsname name;
	char cpu[128], pages[64], shmem[64], load[64];
	if (uname(&name) != 0) {
		bench_die("uname: %s", strerror(errno));
	}
	file_line(cpu, sizeof(cpu), "/proc/cpuinfo", "model name");
	file_line(pages, sizeof(pages), "/sys/kernel/mm/transparent_hugepage/enabled", "");
	file_line(shmem, sizeof(shmem), "/sys/kernel/mm/transparent_hugepage/shmem_enabled", "");
	file_line(load, sizeof(load), "/proc/loadavg", "");
	printf(json ? "\"machine\":{\"cpu\":\"%s\",\"cpus\":%ld,\"kernel\":\"%s\",\"huge_pages\":"
		      "\"%s\","
		      "\"huge_pages_shmem\":\"%s\",\"load\":\"%s\"},"
		    : "%s, %ld processors, Linux %s\nhuge pages: %s; shmem: %s; load: %s\n\n",
	       cpu, sysconf(_SC_NPROCESSORS_ONLN), name.release, pages, shmem, load);
}

static void print_row(const struct bench_row *row)
{
	int digits = row->median >= 1000 || row->median == (double)(int64_t)row->median ? 0 : 2;
	printf("%-52s %14.*f %-10s", row->label, digits, row->median, row->unit);
	if (row->samples > 1) {
		printf(" (%.*f-%.*f, %u runs)", digits, row->min, digits, row->max, row->samples);
	}
	printf("\n");
}

void bench_print(const char *title, const struct bench_rows *rows, bool json)
{
	if (json) {
		printf("{\"benchmark\":\"%s\",", title);
		print_machine(json);
		printf("\"results\":{");
		for (size_t i = 0; i < rows->count; i++) {
			const struct bench_row *row = &rows->row[i];
			printf("%s\"%s\":{\"median\":%.9g,\"min\":%.9g,\"max\":%.9g,\"runs\":%u,"
			       "\"unit\":\"%s\"}",
			       i ? "," : "", row->id, row->median, row->min, row->max, row->samples,
			       row->unit);
		}
		printf("}}\n");
		return;
	}
	printf("%s\n", title);
	print_machine(json);
	for (size_t i = 0; i < rows->count; i++) {
		print_row(&rows->row[i]);
	}
}

uint64_t bench_number(const char *name, const char *text, uint64_t least, uint64_t most)
{
	char *end;
	errno = 0;
	uint64_t number = strtoull(text, &end, 10);
	uint64_t scale = *end == 'k'   ? 1000u
			 : *end == 'M' ? 1000000u
			 : *end == 'G' ? 1000000000u
				       : 1;
	end += scale > 1;
	if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || number > most / scale ||
	    number * scale < least) {
		bench_die("%s %s: expected a number from %" PRIu64 " to %" PRIu64
			  " (k, M, G may follow)",
			  name, text, least, most);
	}
	return number * scale;
}

void bench_send(int fd, const char *data, size_t bytes)
{
	while (bytes > 0) {
		ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL);
		if (sent < 0 && errno != EINTR) {
			bench_die("send: %s", strerror(errno));
		}
		if (sent > 0) {
			data += sent;
			bytes -= (size_t)sent;
		}
	}
}

bool bench_options(int argc, char **argv, const struct bench_option *options, size_t count,
		   bool *json, const char *usage)
{
	struct option known[BENCH_OPTIONS_MAX + 2] = { { "json", no_argument, NULL, 'j' } };
	int letter, index = 0;
	if (count > BENCH_OPTIONS_MAX) {
		bench_die("more than %u options", BENCH_OPTIONS_MAX);
	}
	for (size_t i = 0; i < count; i++) {
		known[i + 1] = (struct option){ options[i].name + 2, required_argument, NULL, 'n' };
	}
	while ((letter = getopt_long(argc, argv, "", known, &index)) != -1) {
		if (letter == 'n') {
			const struct bench_option *option = &options[index - 1];
			*option->value =
				bench_number(option->name, optarg, option->least, option->most);
		} else if (letter == 'j') {
			*json = true;
		} else {
			optind = argc + 1;
			break;
		}
	}
	if (optind != argc) {
		(void)fprintf(stderr, "%s", usage);
	}
	return optind == argc;
}

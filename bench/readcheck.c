// SPDX-License-Identifier: MIT
//
// A second process that checks what another one loaded: it parses the reference file by itself,
// reads every key through the mapping and compares every byte, then measures the same reads through
// the mapping and through the socket, side by side.
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/reference.h"
#include "libclient/kvclient.h"
#include "tools/units.h"

#define READCHECK_PIPELINE 100u
#define READCHECK_COMPLAINTS_MAX 10u
#define READCHECK_CLOCK_EVERY 1024u // reads between two looks at the clock
#define READCHECK_SEED_DEFAULT UINT64_C(1)

struct readcheck {
	const char *socket_path;
	double seconds; // of each measurement
	bool json;
	struct reference reference;
	const struct record *record; // those of the reference
	size_t records;
	size_t buffer_bytes; // the largest value and one byte more
	char *buffer;
};

/// One line of the result.
struct measurement {
	const char *name;
	const char *id; // in JSON
	double reads_per_s;
	bool good;
};

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "readcheck: %s: %s\n", what, why);
	return 2;
}

static double now_s(void)
{
	struct timespec now;
	if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
		return 0;
	}
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// ---- every value, byte for byte -----------------------------------------------------------------

/// What the check found.
struct findings {
	uint64_t missing;
	uint64_t different;
	uint64_t failed;
	uint64_t by_socket; // answered by the socket although the mapping was asked
};

static void complain(struct findings *findings, const struct record *record, const char *what)
{
	uint64_t before = findings->missing + findings->different + findings->failed;
	if (before < READCHECK_COMPLAINTS_MAX) {
		fprintf(stderr, "readcheck: %.*s: %s\n", (int)record->key_bytes, record->key, what);
	}
}

static void check_one(struct readcheck *check, kvc_reader *reader, const struct record *record,
		      struct findings *findings)
{
	struct kvc_meta meta = { 0 };
	int status = kvc_get(reader, record->key, record->key_bytes, check->buffer,
			     check->buffer_bytes, &meta);
	findings->by_socket += (status == KVC_OK && (meta.flags & KVC_META_SOCKET)) ? 1 : 0;
	if (status == KVC_NOT_FOUND) {
		complain(findings, record, "is missing");
		findings->missing++;
	} else if (status == KVC_TRUNCATED ||
		   (status == KVC_OK &&
		    (meta.value_bytes != record->value_bytes ||
		     memcmp(check->buffer, record->value, record->value_bytes) != 0))) {
		complain(findings, record, "has another value than the reference");
		findings->different++;
	} else if (status != KVC_OK) {
		complain(findings, record, kvc_strerror(status));
		findings->failed++;
	}
}

// ---- measurements -------------------------------------------------------------------------------

// Copying reads; the same function for the mapping and the socket.
static void measure_copy(struct readcheck *check, kvc_reader *reader, struct measurement *out)
{
	struct kvc_meta meta;
	uint64_t reads = 0, bad = 0;
	size_t at = 0;
	double start = now_s(), end = start;
	while (end - start < check->seconds) {
		for (unsigned i = 0; i < READCHECK_CLOCK_EVERY; i++) {
			const struct record *record = &check->record[at];
			at = at + 1 == check->records ? 0 : at + 1;
			bad += kvc_get(reader, record->key, record->key_bytes, check->buffer,
				       check->buffer_bytes, &meta) != KVC_OK;
		}
		reads += READCHECK_CLOCK_EVERY;
		end = now_s();
	}
	out->reads_per_s = (double)reads / (end - start);
	out->good = bad == 0;
}

// Zero-copy: one section a read, the value's first byte is touched.
static void measure_view(struct readcheck *check, kvc_reader *reader, struct measurement *out)
{
	struct kvc_view view;
	uint64_t reads = 0, bad = 0;
	size_t at = 0;
	double start = now_s(), end = start;
	while (end - start < check->seconds) {
		for (unsigned i = 0; i < READCHECK_CLOCK_EVERY; i++) {
			const struct record *record = &check->record[at];
			at = at + 1 == check->records ? 0 : at + 1;
			if (kvc_begin(reader) != KVC_OK) {
				bad++;
				continue;
			}
			int status = kvc_view(reader, record->key, record->key_bytes, &view);
			bool same = status == KVC_OK && view.value_bytes == record->value_bytes &&
				    (view.value_bytes == 0 ||
				     *(const char *)view.value == record->first);
			bad += kvc_end(reader) != KVC_OK || !same;
		}
		reads += READCHECK_CLOCK_EVERY;
		end = now_s();
	}
	out->reads_per_s = (double)reads / (end - start);
	out->good = bad == 0;
}

// One window of GETs and their replies. False on anything but values of the right length.
static bool pipeline_window(struct readcheck *check, kvc *client, size_t from)
{
	const struct kvc_reply *reply;
	bool good = true;
	for (size_t i = 0; i < READCHECK_PIPELINE; i++) {
		const struct record *record = &check->record[(from + i) % check->records];
		good = kvc_pipeline_append(client, 2, (const void *const[]){ "GET", record->key },
					   (const size_t[]){ 3, record->key_bytes }) == KVC_OK &&
		       good;
	}
	for (size_t i = 0; good && i < READCHECK_PIPELINE; i++) {
		const struct record *record = &check->record[(from + i) % check->records];
		good = kvc_pipeline_reply(client, &reply) == KVC_OK &&
		       reply->type == KVC_REPLY_STRING && reply->text_bytes == record->value_bytes;
	}
	return good;
}

static void measure_pipeline(struct readcheck *check, kvc *client, struct measurement *out)
{
	uint64_t reads = 0;
	double start = now_s(), end = start;
	out->good = true;
	while (end - start < check->seconds && out->good) {
		out->good = pipeline_window(check, client, (size_t)(reads % check->records));
		reads += READCHECK_PIPELINE;
		end = now_s();
	}
	out->reads_per_s = (double)reads / (end - start);
}

// ---- the program --------------------------------------------------------------------------------

static void print_text(const struct readcheck *check, const struct findings *findings,
		       const struct measurement *rows, size_t count)
{
	char size[16];
	units_size(size, sizeof size, (double)check->reference.value_bytes);
	printf("%zu values (%s) read through the mapping: %" PRIu64 " missing, %" PRIu64
	       " different, %" PRIu64 " failed\n",
	       check->records, size, findings->missing, findings->different, findings->failed);
	for (size_t i = 0; i < count; i++) {
		char rate[16], each[16];
		units_count(rate, sizeof rate, rows[i].reads_per_s);
		units_duration(each, sizeof each, 1 / rows[i].reads_per_s);
		if (rows[i].reads_per_s < 1e6) {
			printf("  %-28s %9s reads/s  %9s a read\n", rows[i].name, rate, each);
		} else {
			printf("  %-28s %9s reads/s  %6.0f ns a read\n", rows[i].name, rate,
			       1e9 / rows[i].reads_per_s);
		}
	}
}

static void print_json(const struct readcheck *check, const struct findings *findings,
		       const struct measurement *rows, size_t count)
{
	printf("{\"records\":%zu,\"value_bytes\":%" PRIu64 ",\"missing\":%" PRIu64
	       ",\"different\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"reads_per_s\":{",
	       check->records, check->reference.value_bytes, findings->missing, findings->different,
	       findings->failed);
	for (size_t i = 0; i < count; i++) {
		printf("%s\"%s\":%.0f", i ? "," : "", rows[i].id, rows[i].reads_per_s);
	}
	printf("}}\n");
}

static int path_open(const struct readcheck *check, uint32_t flags, kvc **client,
		     kvc_reader **reader)
{
	struct kvc_options options;
	kvc_options_init(&options);
	options.socket_path = check->socket_path;
	options.name = "readcheck";
	options.flags = flags;
	int status = kvc_open(client, &options);
	if (status == KVC_OK) {
		status = kvc_reader_open(*client, reader);
	}
	if (status != KVC_OK) {
		(void)fail(check->socket_path ? check->socket_path : "kvd", kvc_strerror(status));
		return 3;
	}
	return 0;
}

// A connection with a reader: what both ways of reading need.
struct path {
	kvc *client;
	kvc_reader *reader;
};

static int measure_all(struct readcheck *check, const struct path *mapping,
		       const struct path *socket, struct measurement *rows, size_t count)
{
	int code = 0;
	measure_copy(check, mapping->reader, &rows[0]);
	measure_view(check, mapping->reader, &rows[1]);
	measure_copy(check, socket->reader, &rows[2]);
	measure_pipeline(check, socket->client, &rows[3]);
	for (size_t i = 0; i < count; i++) {
		if (!rows[i].good) {
			(void)fail(rows[i].name, "some reads failed");
			code = 1;
		}
	}
	return code;
}

// The values first; figures of wrong values would mean nothing.
static int run_open(struct readcheck *check, const struct path *mapping, const struct path *socket)
{
	struct findings findings = { 0 };
	struct measurement rows[] = { { .name = "mapping, copied", .id = "mapping_copied" },
				      { .name = "mapping, in place", .id = "mapping_in_place" },
				      { .name = "socket, one at a time", .id = "socket_single" },
				      { .name = "socket, pipelines of 100",
					.id = "socket_pipelined" } };
	size_t count = 0;
	int code = 0;
	for (size_t i = 0; i < check->records; i++) {
		check_one(check, mapping->reader, &check->record[i], &findings);
	}
	if (findings.missing + findings.different + findings.failed > 0) {
		code = 1;
	} else if (findings.by_socket > 0) {
		(void)fail("the mapping", "some of its reads were answered by the socket");
		code = 1;
	} else if (check->seconds > 0) {
		count = sizeof rows / sizeof rows[0];
		code = measure_all(check, mapping, socket, rows, count);
	}
	(check->json ? print_json : print_text)(check, &findings, rows, count);
	return code;
}

static int run(struct readcheck *check)
{
	struct path mapping = { 0 }, socket = { 0 };
	int code = path_open(check, 0, &mapping.client, &mapping.reader);
	if (code == 0) {
		code = path_open(check, KVC_OPEN_SOCKET_ONLY, &socket.client, &socket.reader);
	}
	if (code == 0 && !kvc_is_mapped(mapping.client)) {
		(void)fail("the mapping", "kvd passed none to this process");
		code = 3;
	}
	if (code == 0) {
		code = run_open(check, &mapping, &socket);
	}
	if (kvc_close(mapping.client) != KVC_OK || kvc_close(socket.client) != KVC_OK) {
		code = code ? code : fail("kvc_close", "views are open");
	}
	return code;
}

static int usage(void)
{
	fprintf(stderr,
		"usage: readcheck [--socket PATH] [--format deb822 --key FIELD | --format jsonl]\n"
		"                 [--seconds S] [--seed N] [--json] REFERENCE_FILE\n"
		"Reads every key of REFERENCE_FILE through kvd's mapping, compares each value\n"
		"byte for byte (exit status 1 if one differs), then measures reads for S (1.5) "
		"seconds\n"
		"a path; 0 leaves that out.\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = { { "socket", required_argument, NULL, 's' },
						      { "format", required_argument, NULL, 'f' },
						      { "key", required_argument, NULL, 'k' },
						      { "seconds", required_argument, NULL, 'S' },
						      { "seed", required_argument, NULL, 'r' },
						      { "json", no_argument, NULL, 'j' },
						      { 0 } };
	struct readcheck check = { .seconds = 1.5 };
	const char *format = "jsonl", *field = NULL;
	uint64_t seed = READCHECK_SEED_DEFAULT;
	char error[200];
	int letter;
	while ((letter = getopt_long(argc, argv, "s:f:k:j", long_options, NULL)) != -1) {
		switch (letter) {
		case 's':
			check.socket_path = optarg;
			break;
		case 'f':
			format = optarg;
			break;
		case 'k':
			field = optarg;
			break;
		case 'S':
			check.seconds = strtod(optarg, NULL);
			break;
		case 'r':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'j':
			check.json = true;
			break;
		default:
			return usage();
		}
	}
	bool deb822 = strcmp(format, "deb822") == 0;
	if (optind + 1 != argc || deb822 != (field != NULL) ||
	    (!deb822 && strcmp(format, "jsonl") != 0)) {
		return usage();
	}
	if (!reference_read(&check.reference, argv[optind], field, seed, error, sizeof error)) {
		return fail(argv[optind], error);
	}
	check.record = check.reference.record;
	check.records = check.reference.records;
	check.buffer_bytes = check.reference.value_bytes_max + 1;
	check.buffer = malloc(check.buffer_bytes);
	int code = check.buffer ? run(&check) : fail(argv[optind], "out of memory");
	free(check.buffer);
	reference_free(&check.reference);
	return code;
}

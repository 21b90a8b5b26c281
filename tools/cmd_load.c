// SPDX-License-Identifier: MIT
//
// kvctl load: records from a file into kvd, pipelined with a bounded number of requests under way.
// What is wrong with a record is said with its line; the rest goes on unless --strict.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/deb822.h"
#include "tools/jsonl.h"
#include "tools/kvctl.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/source.h"
#include "tools/units.h"

#define LOAD_WINDOW_COMMANDS 2048u
#define LOAD_WINDOW_BYTES ((size_t)8 << 20)
#define LOAD_ERRORS_SHOWN 10u

struct load_request {
	uint64_t line;
	size_t bytes;
};

struct load {
	struct kvctl *kvctl;
	const char *name; // of the input, for messages
	bool is_deb822;
	bool strict;
	bool stopped; // no more input is taken
	struct source source;
	struct jsonl jsonl;
	struct deb822 deb822;
	struct progress progress;
	struct load_request request[LOAD_WINDOW_COMMANDS]; // under way: a ring
	uint64_t sent;
	uint64_t answered;
	size_t window_bytes; // of the requests under way
	uint64_t records;    // stored
	uint64_t bytes;	     // their keys and values
	uint64_t errors;     // records not stored
};

static void load_error(struct load *load, uint64_t line, const char *text, size_t text_bytes)
{
	load->errors++;
	load->stopped = load->stopped || load->strict;
	if (load->errors > LOAD_ERRORS_SHOWN) {
		return;
	}
	(void)progress_stop(&load->progress);
	fprintf(stderr, "kvctl: %s:%" PRIu64 ": ", load->name, line);
	output_escaped(stderr, text, text_bytes);
	putc('\n', stderr);
	if (load->errors == LOAD_ERRORS_SHOWN && !load->strict) {
		fprintf(stderr, "kvctl: further errors are only counted\n");
	}
}

static bool load_starts(const struct kvc_reply *reply, const char *word)
{
	size_t bytes = strlen(word);
	return reply->text_bytes >= bytes && memcmp(reply->text, word, bytes) == 0;
}

static int load_fatal(struct load *load, int status, uint64_t line)
{
	char what[200];
	(void)progress_stop(&load->progress);
	snprintf(what, sizeof what, "%.120s:%" PRIu64 ": stopped after %" PRIu64 " records",
		 load->name, line, load->records);
	return kvctl_fail(load->kvctl, status, what);
}

// Takes one reply. Anything but KVCTL_OK ends the load at once.
static int load_reply(struct load *load)
{
	struct load_request *request = &load->request[load->answered % LOAD_WINDOW_COMMANDS];
	const struct kvc_reply *reply;
	int status = kvc_pipeline_reply(load->kvctl->client, &reply);
	if (status != KVC_OK) {
		return load_fatal(load, status, request->line);
	}
	load->answered++;
	load->window_bytes -= request->bytes;
	if (reply->type == KVC_REPLY_STATUS) {
		load->records++;
		load->bytes += request->bytes;
		return KVCTL_OK;
	}
	if (reply->type != KVC_REPLY_ERROR) {
		return load_fatal(load, KVC_PROTOCOL, request->line);
	}
	load_error(load, request->line, reply->text, reply->text_bytes);
	// These would meet every record that follows as well, and each would be waited for.
	const char *remedy =
		load_starts(reply, "OOM ")
			? "kvd's memory is full: give it more (--memory) or remove keys"
		: load_starts(reply, "IOERR ") ? "kvd cannot write its store: its log says why"
					       : NULL;
	if (remedy) {
		return kvctl_error(KVCTL_NO,
				   "%s:%" PRIu64 ": stopped after %" PRIu64 " records: %s",
				   load->name, request->line, load->records, remedy);
	}
	return KVCTL_OK;
}

// Takes replies until at most `keep` requests are under way.
static int load_drain(struct load *load, uint64_t keep)
{
	int code = KVCTL_OK;
	while (code == KVCTL_OK && load->sent - load->answered > keep) {
		code = load_reply(load);
	}
	return code;
}

static int load_send(struct load *load, const struct item *item)
{
	char ttl[24];
	size_t bytes = item->key_bytes + item->value_bytes;
	int code = KVCTL_OK;
	// Half of what is under way at a time, so that kvd never runs dry.
	while (code == KVCTL_OK && load->sent > load->answered &&
	       (load->sent - load->answered == LOAD_WINDOW_COMMANDS ||
		load->window_bytes + bytes > LOAD_WINDOW_BYTES)) {
		code = load_drain(load, (load->sent - load->answered) / 2);
	}
	if (code != KVCTL_OK || load->stopped) {
		return code;
	}
	int ttl_bytes = snprintf(ttl, sizeof ttl, "%" PRId64, item->ttl_ms);
	const void *argv[] = { "SET", item->key, item->value, "PX", ttl };
	size_t argv_bytes[] = { 3, item->key_bytes, item->value_bytes, 2, (size_t)ttl_bytes };
	int argc = item->ttl_ms >= 0 ? 5 : 3;
	int status = kvc_pipeline_append(load->kvctl->client, argc, argv, argv_bytes);
	if (status == KVC_TOO_LARGE) {
		const char *text = kvc_strerror(status);
		load_error(load, item->line, text, strlen(text));
		return KVCTL_OK;
	}
	if (status != KVC_OK) {
		return load_fatal(load, status, item->line);
	}
	load->request[load->sent % LOAD_WINDOW_COMMANDS] =
		(struct load_request){ .line = item->line, .bytes = bytes };
	load->sent++;
	load->window_bytes += bytes;
	return KVCTL_OK;
}

static int load_all(struct load *load)
{
	struct item item = { 0 };
	int code = KVCTL_OK;
	while (code == KVCTL_OK && !load->stopped) {
		enum item_result result = load->is_deb822 ? deb822_next(&load->deb822, &item)
							  : jsonl_next(&load->jsonl, &item);
		if (result == ITEM_END) {
			break;
		}
		if (result == ITEM_FAILED) {
			(void)progress_stop(&load->progress);
			code = kvctl_error(KVCTL_USAGE, "%s:%" PRIu64 ": %s", load->name, item.line,
					   item.error);
		} else if (result == ITEM_BAD) {
			load_error(load, item.line, item.error, strlen(item.error));
		} else {
			code = load_send(load, &item);
		}
		progress_update(&load->progress, load->source.consumed_bytes, load->sent);
	}
	if (code == KVCTL_OK) {
		code = load_drain(load, 0);
	}
	return code;
}

static void load_summary(const struct load *load, double seconds)
{
	double rate = seconds > 0 ? 1 / seconds : 0;
	if (load->kvctl->json) {
		printf("{\"records\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"errors\":%" PRIu64
		       ",\"seconds\":%.3f}\n",
		       load->records, load->bytes, load->errors, seconds);
	} else if (!load->kvctl->quiet) {
		char size[16], count[16], speed[16];
		units_size(size, sizeof size, (double)load->bytes);
		units_count(count, sizeof count, (double)load->records * rate);
		units_size(speed, sizeof speed, (double)load->bytes * rate);
		printf("loaded %" PRIu64 " records, %s, in %.2f s (%s records/s, %s/s)",
		       load->records, size, seconds, count, speed);
		if (load->errors > 0) {
			printf("; %" PRIu64 " not loaded", load->errors);
		}
		putchar('\n');
	}
}

static int load_format(struct load *load)
{
	const char *format = load->kvctl->options.value[OPTION_format];
	const char *field = load->kvctl->options.value[OPTION_key];
	load->is_deb822 = format && strcmp(format, "deb822") == 0;
	if (format && !load->is_deb822 && strcmp(format, "jsonl") != 0) {
		return kvctl_error(KVCTL_USAGE, "--format '%s': it can be jsonl or deb822", format);
	}
	if (load->is_deb822 && (!field || !*field || strchr(field, ':'))) {
		return kvctl_error(KVCTL_USAGE,
				   "--format deb822 needs --key FIELD, the field that becomes the "
				   "key (as Package)");
	}
	if (!load->is_deb822 && field) {
		return kvctl_error(KVCTL_USAGE, "--key goes with --format deb822 only");
	}
	jsonl_init(&load->jsonl, &load->source);
	deb822_init(&load->deb822, &load->source, field ? field : "");
	return KVCTL_OK;
}

static int load_from(struct load *load, int fd)
{
	struct stat status;
	uint64_t total_bytes = 0;
	int code = load_format(load);
	if (code == KVCTL_OK) {
		code = kvctl_connect(load->kvctl);
	}
	if (code != KVCTL_OK) {
		return code;
	}
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
		total_bytes = (uint64_t)status.st_size;
	}
	if (!source_init_fd(&load->source, fd)) {
		return kvctl_error(KVCTL_NO, "out of memory");
	}
	double start = kvctl_seconds();
	load->kvctl->writes = true;
	progress_start(&load->progress, !load->kvctl->quiet, total_bytes);
	code = load_all(load);
	(void)progress_stop(&load->progress);
	load_summary(load, kvctl_seconds() - start);
	jsonl_free(&load->jsonl);
	source_free(&load->source);
	return code == KVCTL_OK && load->errors > 0 ? KVCTL_NO : code;
}

int cmd_load(struct kvctl *kvctl)
{
	static struct load load; // its ring is too much for a stack
	const char *path = kvctl->options.argument[0];
	bool standard = !path || strcmp(path, "-") == 0;
	load = (struct load){ .kvctl = kvctl,
			      .name = standard ? "standard input" : path,
			      .strict = kvctl->options.value[OPTION_strict] != NULL };
	if (!path && isatty(STDIN_FILENO)) {
		return kvctl_error(
			KVCTL_USAGE,
			"load reads a file or standard input: name a FILE, or - to type");
	}
	int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return kvctl_error(KVCTL_USAGE, "cannot open %s: %s", path, strerror(errno));
	}
	int code = load_from(&load, fd);
	if (!standard) {
		(void)close(fd);
	}
	return code;
}

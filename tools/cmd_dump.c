// SPDX-License-Identifier: MIT
//
// kvctl dump: every key and value as JSON lines that load takes back. Keys come from SCAN, values
// from the mapping where there is one, else by pipelined KVD.GETV; a key that goes away between the
// two is left out. Each value is whole, but the dump is not one moment of the whole cache. What
// cannot be read is left out too, and said: who saves data from a damaged memory wants the rest.
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/jsonl.h"
#include "tools/kvctl.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/scan.h"
#include "tools/units.h"

#define DUMP_WINDOW_COMMANDS 32u // replies under way may each be as large as a value

struct dump {
	struct kvctl *kvctl;
	const char *name; // of the file, for messages
	struct scan scan;
	struct output_file file;
	struct progress progress;
	char *value; // for reads through the mapping
	size_t capacity_bytes;
	uint64_t records;
	uint64_t bytes;
	uint64_t unreadable; // keys that were named and whose memory is damaged
	int error;	     // errno of the first write that failed
};

static volatile sig_atomic_t dump_interrupted;

static void dump_on_signal(int number)
{
	dump_interrupted = number;
}

static void dump_record(struct dump *dump, const void *key, size_t key_bytes, const void *value,
			size_t value_bytes, int64_t ttl_ms)
{
	// A time to live that rounds to nothing is still one.
	jsonl_write(dump->file.stream, key, key_bytes, value, value_bytes,
		    ttl_ms == 0 ? 1 : ttl_ms);
	if (dump->error == 0 && ferror(dump->file.stream)) {
		dump->error = errno;
	}
	dump->records++;
	dump->bytes += key_bytes + value_bytes;
}

static int dump_unreadable(struct dump *dump, const char *key, size_t key_bytes)
{
	dump->unreadable++;
	(void)kvctl_error(KVCTL_CORRUPT, "%s: its memory is damaged: it is left out",
			  kvctl_show(key, key_bytes));
	return KVCTL_OK;
}

// One value through the mapping, into the buffer, which grows as needed.
static int dump_read(struct dump *dump, const char *key, size_t key_bytes)
{
	struct kvc_meta meta = { 0 };
	for (;;) {
		int status = kvc_get(dump->kvctl->reader, key, key_bytes, dump->value,
				     dump->capacity_bytes, &meta);
		if (status == KVC_OK) {
			dump_record(dump, key, key_bytes, dump->value, meta.value_bytes,
				    meta.ttl_ms);
		}
		if (status == KVC_OK || status == KVC_NOT_FOUND) {
			return KVCTL_OK;
		}
		if (status == KVC_DAMAGED) {
			return dump_unreadable(dump, key, key_bytes);
		}
		if (status != KVC_TRUNCATED) {
			return kvctl_fail_read(dump->kvctl, status, kvctl_show(key, key_bytes));
		}
		size_t capacity_bytes = (size_t)meta.value_bytes + 1024;
		char *grown = realloc(dump->value, capacity_bytes);
		if (!grown) {
			return kvctl_error(KVCTL_NO, "out of memory");
		}
		dump->value = grown;
		dump->capacity_bytes = capacity_bytes;
	}
}

static int dump_step_mapped(struct dump *dump)
{
	int code = KVCTL_OK;
	for (size_t i = 0; code == KVCTL_OK && i < dump->scan.keys; i++) {
		size_t key_bytes;
		const char *key = scan_key(&dump->scan, i, &key_bytes);
		code = dump_read(dump, key, key_bytes);
	}
	return code;
}

// One reply of KVD.GETV: value, version, time to live, time; or null.
static int dump_reply(struct dump *dump, const char *key, size_t key_bytes)
{
	const struct kvc_reply *reply;
	int status = kvc_pipeline_reply(dump->kvctl->client, &reply);
	if (status != KVC_OK) {
		return kvctl_fail(dump->kvctl, status, kvctl_show(key, key_bytes));
	}
	if (reply->type == KVC_REPLY_NIL) {
		return KVCTL_OK;
	}
	if (reply->type == KVC_REPLY_ERROR && strncmp(reply->text, "DAMAGED ", 8) == 0) {
		return dump_unreadable(dump, key, key_bytes);
	}
	if (reply->type == KVC_REPLY_ERROR) {
		return kvctl_error(KVCTL_NO, "%s: %s", kvctl_show(key, key_bytes), reply->text);
	}
	if (reply->type != KVC_REPLY_ARRAY || reply->count < 3 ||
	    reply->element[0].type != KVC_REPLY_STRING ||
	    reply->element[2].type != KVC_REPLY_INTEGER) {
		return kvctl_error(KVCTL_UNREACHABLE, "KVD.GETV: the reply is not one of kvd");
	}
	dump_record(dump, key, key_bytes, reply->element[0].text, reply->element[0].text_bytes,
		    reply->element[2].integer);
	return KVCTL_OK;
}

static int dump_step_socket(struct dump *dump)
{
	size_t sent = 0, answered = 0, key_bytes;
	while (answered < dump->scan.keys) {
		while (sent < dump->scan.keys && sent - answered < DUMP_WINDOW_COMMANDS) {
			const char *key = scan_key(&dump->scan, sent++, &key_bytes);
			int status = kvc_pipeline_append(dump->kvctl->client, 2,
							 (const void *const[]){ "KVD.GETV", key },
							 (const size_t[]){ 8, key_bytes });
			if (status != KVC_OK) {
				return kvctl_fail(dump->kvctl, status, "KVD.GETV");
			}
		}
		const char *key = scan_key(&dump->scan, answered++, &key_bytes);
		int code = dump_reply(dump, key, key_bytes);
		if (code != KVCTL_OK) {
			return code;
		}
	}
	return KVCTL_OK;
}

static int dump_all(struct dump *dump)
{
	int code = KVCTL_OK;
	while (code == KVCTL_OK && scan_next(dump->kvctl, &dump->scan, &code)) {
		code = kvc_is_mapped(dump->kvctl->client) ? dump_step_mapped(dump)
							  : dump_step_socket(dump);
		if (code == KVCTL_OK && dump_interrupted) {
			code = kvctl_error(KVCTL_NO, "interrupted");
		}
		if (code == KVCTL_OK && dump->error != 0) {
			code = kvctl_error(KVCTL_USAGE, "cannot write %s: %s", dump->name,
					   strerror(dump->error));
		}
		progress_update(&dump->progress, dump->bytes, dump->records);
	}
	return code;
}

// What kvd counted that no dump can have: entries whose record nobody can read, so far, and what a
// start could not bring over.
struct dump_missing {
	double met;
	double lost;
};

static int dump_ask(struct kvctl *kvctl, struct dump_missing *missing)
{
	const struct kvc_reply *reply;
	int code = kvctl_command(kvctl, &reply, 1, (const char *const[]){ "KVD.STATS" });
	if (code != KVCTL_OK) {
		return code;
	}
	cJSON *root = reply->type == KVC_REPLY_STRING
			      ? cJSON_ParseWithLength(reply->text, reply->text_bytes)
			      : NULL;
	const cJSON *counters = cJSON_GetObjectItemCaseSensitive(root, "counters");
	const cJSON *met = cJSON_GetObjectItemCaseSensitive(counters, "damage_met");
	const cJSON *lost = cJSON_GetObjectItemCaseSensitive(counters, "recovered_lost");
	missing->met = cJSON_IsNumber(met) ? met->valuedouble : 0; // an older kvd counts neither
	missing->lost = cJSON_IsNumber(lost) ? lost->valuedouble : 0;
	cJSON_Delete(root);
	return KVCTL_OK;
}

// Says whether the dump, which is written, lacks anything.
static int dump_judge(const struct dump *dump, const struct dump_missing *before,
		      const struct dump_missing *after)
{
	int code = KVCTL_OK;
	if (dump->unreadable > 0 || after->met > before->met) {
		code = kvctl_error(
			KVCTL_CORRUPT,
			"the dump is not complete: kvd's memory is damaged, kvctl verify "
			"tells where; what is durable comes back with a restart of kvd");
	}
	if (after->lost > 0) {
		code = kvctl_error(KVCTL_CORRUPT,
				   "the dump has all that kvd has, but %.0f keys or versions could "
				   "not be read at a start of kvd: its log names them",
				   after->lost);
	}
	return code;
}

static void dump_summary(const struct dump *dump, bool named, double seconds)
{
	char size[16];
	units_size(size, sizeof size, (double)dump->bytes);
	if (dump->kvctl->json && named) {
		printf("{\"records\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.3f}\n",
		       dump->records, dump->bytes, seconds);
	} else {
		(void)kvctl_remark(dump->kvctl, 0, "dumped %" PRIu64 " records, %s, in %.2f s",
				   dump->records, size, seconds);
	}
}

static int dump_to(struct dump *dump, const char *path)
{
	bool named = path && strcmp(path, "-") != 0;
	dump->name = named ? path : "to standard output";
	if (!output_file_open(&dump->file, path)) {
		return kvctl_error(KVCTL_USAGE, "cannot write %s: %s", dump->name, strerror(errno));
	}
	scan_begin(&dump->scan, dump->kvctl->options.value[OPTION_match]);
	progress_start(&dump->progress, !dump->kvctl->quiet && !(dump->kvctl->terminal && !named),
		       0);
	struct dump_missing before, after;
	int code = dump_ask(dump->kvctl, &before);
	code = code == KVCTL_OK ? dump_all(dump) : code;
	code = code == KVCTL_OK ? dump_ask(dump->kvctl, &after) : code;
	double seconds = progress_stop(&dump->progress);
	scan_end(&dump->scan);
	free(dump->value);
	if (code != KVCTL_OK) {
		output_file_abort(&dump->file);
		return code;
	}
	if (!output_file_commit(&dump->file)) {
		return kvctl_error(KVCTL_USAGE, "cannot write %s: %s", dump->name, strerror(errno));
	}
	dump_summary(dump, named, seconds);
	return dump_judge(dump, &before, &after);
}

int cmd_dump(struct kvctl *kvctl)
{
	struct dump dump = { .kvctl = kvctl };
	struct sigaction action = { .sa_handler = dump_on_signal, .sa_flags = SA_RESETHAND };
	enum kvctl_via via;
	int code = kvctl_reader(kvctl, &via);
	if (code != KVCTL_OK) {
		return code;
	}
	// A first signal lets the temporary file be removed; a second one ends kvctl at once.
	if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0) {
		return kvctl_error(KVCTL_NO, "cannot handle signals: %s", strerror(errno));
	}
	return dump_to(&dump, kvctl->options.argument[0]);
}

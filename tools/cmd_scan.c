// SPDX-License-Identifier: MIT
//
// kvctl scan, and the walk over all keys that dump shares with it.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/limits.h"
#include "tools/jsonl.h"
#include "tools/kvctl.h"
#include "tools/output.h"
#include "tools/scan.h"

#define SCAN_STEP_KEYS "1000"	    // COUNT: keys a step asks for
#define SCAN_STEP_KEYS_MAX 4000000u // more in one reply is not kvd

void scan_begin(struct scan *scan, const char *pattern)
{
	*scan = (struct scan){ .pattern = pattern, .cursor = "0" };
}

void scan_end(struct scan *scan)
{
	free(scan->bytes);
	free(scan->end);
	*scan = (struct scan){ .done = true };
}

static bool scan_grow(void **memory, size_t *capacity, size_t wanted, size_t element_bytes)
{
	if (wanted <= *capacity) {
		return true;
	}
	size_t grown = wanted * 2;
	void *moved = realloc(*memory, grown * element_bytes);
	if (!moved) {
		return false;
	}
	*memory = moved;
	*capacity = grown;
	return true;
}

static bool scan_is_reply(const struct kvc_reply *reply)
{
	if (reply->type != KVC_REPLY_ARRAY || reply->count != 2) {
		return false;
	}
	const struct kvc_reply *cursor = &reply->element[0], *list = &reply->element[1];
	if (cursor->type != KVC_REPLY_STRING ||
	    cursor->text_bytes >= sizeof((struct scan *)0)->cursor ||
	    list->type != KVC_REPLY_ARRAY || list->count > SCAN_STEP_KEYS_MAX) {
		return false;
	}
	for (size_t i = 0; i < list->count; i++) {
		if (list->element[i].type != KVC_REPLY_STRING ||
		    list->element[i].text_bytes > KVS_KEY_BYTES_MAX) {
			return false;
		}
	}
	return true;
}

static int scan_copy(struct scan *scan, const struct kvc_reply *reply)
{
	if (!scan_is_reply(reply)) {
		return kvctl_error(KVCTL_UNREACHABLE, "SCAN: the reply is not one of kvd");
	}
	const struct kvc_reply *list = &reply->element[1];
	size_t used = 0;
	scan->keys = 0;
	if (!scan_grow((void **)&scan->end, &scan->capacity_keys, list->count, sizeof *scan->end)) {
		return kvctl_error(KVCTL_NO, "out of memory");
	}
	for (size_t i = 0; i < list->count; i++) {
		const struct kvc_reply *key = &list->element[i];
		if (!scan_grow((void **)&scan->bytes, &scan->capacity_bytes, used + key->text_bytes,
			       1)) {
			return kvctl_error(KVCTL_NO, "out of memory");
		}
		memcpy(scan->bytes + used, key->text, key->text_bytes);
		used += key->text_bytes;
		scan->end[scan->keys++] = used;
	}
	memcpy(scan->cursor, reply->element[0].text, reply->element[0].text_bytes);
	scan->cursor[reply->element[0].text_bytes] = '\0';
	scan->done = strcmp(scan->cursor, "0") == 0;
	return KVCTL_OK;
}

bool scan_next(struct kvctl *kvctl, struct scan *scan, int *code)
{
	*code = KVCTL_OK;
	if (scan->done) {
		return false;
	}
	const struct kvc_reply *reply;
	const char *argv[] = {
		"SCAN", scan->cursor, "COUNT", SCAN_STEP_KEYS, "MATCH", scan->pattern
	};
	*code = kvctl_command(kvctl, &reply, scan->pattern ? 6 : 4, argv);
	if (*code == KVCTL_OK) {
		*code = scan_copy(scan, reply);
	}
	return *code == KVCTL_OK;
}

static void scan_print(const struct kvctl *kvctl, const struct scan *scan)
{
	for (size_t i = 0; i < scan->keys; i++) {
		size_t key_bytes;
		const char *key = scan_key(scan, i, &key_bytes);
		if (kvctl->json) {
			putchar('{');
			jsonl_write_member(stdout, "key", key, key_bytes);
			puts("}");
		} else {
			output_escaped(stdout, key, key_bytes);
			putchar('\n');
		}
	}
}

// Without a pattern kvd knows the number.
static int scan_size(struct kvctl *kvctl, uint64_t *count)
{
	const struct kvc_reply *reply;
	int code = kvctl_command(kvctl, &reply, 1, (const char *const[]){ "DBSIZE" });
	if (code == KVCTL_OK && reply->type != KVC_REPLY_INTEGER) {
		code = kvctl_error(KVCTL_UNREACHABLE, "DBSIZE: the reply is not one of kvd");
	}
	*count = code == KVCTL_OK ? (uint64_t)reply->integer : 0;
	return code;
}

int cmd_scan(struct kvctl *kvctl)
{
	struct scan scan;
	uint64_t count = 0;
	bool counting = kvctl->options.value[OPTION_count] != NULL;
	const char *pattern = kvctl->options.argument[0];
	int code = kvctl_connect(kvctl);
	if (code != KVCTL_OK) {
		return code;
	}
	if (counting && !pattern) {
		code = scan_size(kvctl, &count);
	} else {
		scan_begin(&scan, pattern);
		// What nobody reads is not asked for. The failed write is said at the end.
		while (!ferror(stdout) && scan_next(kvctl, &scan, &code)) {
			count += scan.keys;
			if (!counting) {
				scan_print(kvctl, &scan);
			}
		}
		scan_end(&scan);
	}
	if (code == KVCTL_OK && counting) {
		printf(kvctl->json ? "{\"count\":%" PRIu64 "}\n" : "%" PRIu64 "\n", count);
	}
	return code;
}

// SPDX-License-Identifier: MIT
//
// kvctl's verbs for single values: get, mget, set, del, incr, ttl, expire.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/limits.h"
#include "tools/jsonl.h"
#include "tools/kvctl.h"
#include "tools/output.h"
#include "tools/units.h"

// ---- reading ------------------------------------------------------------------------------------

static void cmd_value_json(const void *key, size_t key_bytes, int status, const void *value,
			   const struct kvc_meta *meta)
{
	printf("{");
	jsonl_write_member(stdout, "key", key, key_bytes);
	printf(",\"found\":%s", status == KVC_OK ? "true" : "false");
	if (status == KVC_OK) {
		printf(",");
		jsonl_write_member(stdout, "value", value, meta->value_bytes);
		printf(",\"version\":%" PRIu64, meta->version);
		if (meta->ttl_ms >= 0) {
			printf(",\"ttl_ms\":%" PRId64, meta->ttl_ms);
		}
		printf(",\"via\":\"%s\"", meta->flags & KVC_META_SOCKET ? "socket" : "shm");
	}
	printf("}");
}

// One key into malloc memory; not found is KVCTL_NO and said as a remark.
static int cmd_value_fetch(struct kvctl *kvctl, enum kvctl_via via, const char *key, int *status,
			   void **value, struct kvc_meta *meta)
{
	size_t key_bytes;
	int code = kvctl_key(key, &key_bytes);
	if (code != KVCTL_OK) {
		return code;
	}
	*status = kvc_get_alloc(kvctl->reader, key, key_bytes, value, meta);
	if (*status == KVC_NOT_FOUND) {
		return kvctl_remark(kvctl, KVCTL_NO, "there is no key '%s'",
				    kvctl_show(key, key_bytes));
	}
	if (*status != KVC_OK) {
		return kvctl_fail_read(kvctl, *status, kvctl_show(key, key_bytes));
	}
	if (via == KVCTL_VIA_SHM && (meta->flags & KVC_META_SOCKET)) {
		free(*value);
		*value = NULL;
		*status = KVC_UNREACHABLE;
		return kvctl_error(KVCTL_UNREACHABLE,
				   "--via shm: '%s' is not in the mapping; --via socket has it",
				   kvctl_show(key, key_bytes));
	}
	return KVCTL_OK;
}

static int cmd_value_write(const struct kvctl *kvctl, const void *value, size_t value_bytes)
{
	const char *path = kvctl->options.value[OPTION_output];
	struct output_file file;
	if (!output_file_open(&file, path)) {
		return kvctl_error(KVCTL_USAGE, "cannot write %s: %s", path, strerror(errno));
	}
	size_t written = fwrite(value, 1, value_bytes, file.stream);
	bool standard = file.stream == stdout;
	const char *last = (const char *)value + value_bytes - 1;
	if (standard && kvctl->terminal && value_bytes > 0 && *last != '\n') {
		putchar('\n');
	}
	if (!output_file_commit(&file) || written != value_bytes) {
		return kvctl_error(KVCTL_USAGE, "cannot write %s: %s",
				   standard ? "to standard output" : path, strerror(errno));
	}
	return KVCTL_OK;
}

int cmd_value_get(struct kvctl *kvctl)
{
	enum kvctl_via via;
	const char *key = kvctl->options.argument[0];
	void *value = NULL;
	struct kvc_meta meta = { 0 };
	int status = KVC_UNREACHABLE; // nothing is known of the key
	int code = kvctl_reader(kvctl, &via);
	if (code == KVCTL_OK) {
		code = cmd_value_fetch(kvctl, via, key, &status, &value, &meta);
	}
	if (kvctl->json && code <= KVCTL_NO && status >= KVC_OK) {
		cmd_value_json(key, strlen(key), status, value, &meta);
		putchar('\n');
	} else if (code == KVCTL_OK) {
		code = cmd_value_write(kvctl, value, meta.value_bytes);
	}
	free(value);
	return code;
}

int cmd_value_mget(struct kvctl *kvctl)
{
	enum kvctl_via via;
	int code = kvctl_reader(kvctl, &via);
	int worst = code;
	if (code != KVCTL_OK) {
		return code;
	}
	for (int i = 0; code <= KVCTL_NO && i < kvctl->options.arguments; i++) {
		const char *key = kvctl->options.argument[i];
		void *value = NULL;
		struct kvc_meta meta = { 0 };
		int status = KVC_UNREACHABLE;
		code = cmd_value_fetch(kvctl, via, key, &status, &value, &meta);
		worst = code > worst ? code : worst;
		if (kvctl->json && code <= KVCTL_NO && status >= KVC_OK) {
			cmd_value_json(key, strlen(key), status, value, &meta);
			putchar('\n');
		} else if (code == KVCTL_OK) {
			output_escaped(stdout, key, strlen(key));
			putchar('\t');
			output_escaped(stdout, value, meta.value_bytes);
			putchar('\n');
		}
		free(value);
	}
	return worst;
}

int cmd_value_ttl(struct kvctl *kvctl)
{
	enum kvctl_via via;
	const char *key = kvctl->options.argument[0];
	size_t key_bytes;
	struct kvc_meta meta = { 0 };
	int code = kvctl_key(key, &key_bytes);
	if (code == KVCTL_OK) {
		code = kvctl_reader(kvctl, &via);
	}
	if (code != KVCTL_OK) {
		return code;
	}
	int status = kvc_get(kvctl->reader, key, key_bytes, NULL, 0, &meta);
	if (status == KVC_NOT_FOUND) {
		return kvctl_remark(kvctl, KVCTL_NO, "there is no key '%s'",
				    kvctl_show(key, key_bytes));
	}
	if (status != KVC_OK && status != KVC_TRUNCATED) {
		return kvctl_fail_read(kvctl, status, kvctl_show(key, key_bytes));
	}
	if (kvctl->json) {
		printf("{");
		jsonl_write_member(stdout, "key", key, key_bytes);
		printf(",\"ttl_ms\":%" PRId64 "}\n", meta.ttl_ms);
	} else if (!kvctl->terminal) {
		printf("%" PRId64 "\n", meta.ttl_ms);
	} else if (meta.ttl_ms < 0) {
		puts("no expiry");
	} else {
		char text[32];
		units_duration(text, sizeof text, (double)meta.ttl_ms / 1e3);
		puts(text);
	}
	return KVCTL_OK;
}

// ---- writing ------------------------------------------------------------------------------------

// All of a descriptor, up to the largest value, into malloc memory.
static int cmd_value_slurp(int fd, const char *name, char **value, size_t *value_bytes)
{
	size_t capacity_bytes = 64 << 10, bytes = 0;
	char *data = malloc(capacity_bytes);
	ssize_t got = 1;
	while (data && got > 0 && bytes <= KVS_VALUE_BYTES_MAX) {
		if (bytes == capacity_bytes) {
			char *grown = realloc(data, capacity_bytes *= 2);
			if (!grown) {
				free(data);
				data = NULL;
				break;
			}
			data = grown;
		}
		got = read(fd, data + bytes, capacity_bytes - bytes);
		if (got < 0 && errno == EINTR) {
			got = 1;
			continue;
		}
		bytes += got > 0 ? (size_t)got : 0;
	}
	*value = data;
	*value_bytes = bytes;
	if (!data) {
		return kvctl_error(KVCTL_USAGE, "%s: out of memory", name);
	}
	if (got < 0) {
		return kvctl_error(KVCTL_USAGE, "cannot read %s: %s", name, strerror(errno));
	}
	if (bytes > KVS_VALUE_BYTES_MAX) {
		return kvctl_error(KVCTL_USAGE, "%s has more than %u bytes, the largest value",
				   name, KVS_VALUE_BYTES_MAX);
	}
	return KVCTL_OK;
}

// The value from where the command line says it is. *owned is to be freed.
static int cmd_value_source(const struct kvctl *kvctl, const char **value, size_t *value_bytes,
			    char **owned)
{
	const char *path = kvctl->options.value[OPTION_file];
	const char *argument = kvctl->options.arguments > 1 ? kvctl->options.argument[1] : NULL;
	int code = KVCTL_OK;
	if ((path == NULL) == (argument == NULL)) {
		return kvctl_error(KVCTL_USAGE,
				   "set takes the value from one place: an argument, - (standard "
				   "input), or --file FILE");
	}
	if (argument && strcmp(argument, "-") != 0) {
		*value = argument;
		*value_bytes = strlen(argument);
		return KVCTL_OK;
	}
	if (argument || strcmp(path, "-") == 0) {
		code = cmd_value_slurp(STDIN_FILENO, "standard input", owned, value_bytes);
	} else {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			return kvctl_error(KVCTL_USAGE, "cannot open %s: %s", path,
					   strerror(errno));
		}
		code = cmd_value_slurp(fd, path, owned, value_bytes);
		(void)close(fd);
	}
	*value = *owned;
	return code;
}

static int cmd_value_conditions(const struct kvctl *kvctl, struct kvc_set_options *set)
{
	const char *const *given = kvctl->options.value;
	const char *version = given[OPTION_if_version];
	*set = (struct kvc_set_options){ .struct_bytes = sizeof *set };
	set->flags |= given[OPTION_if_absent] ? KVC_SET_IF_ABSENT : 0;
	set->flags |= given[OPTION_if_present] ? KVC_SET_IF_PRESENT : 0;
	set->flags |= version ? KVC_SET_IF_VERSION : 0;
	if (set->flags & (set->flags - 1)) {
		return kvctl_error(
			KVCTL_USAGE,
			"of --if-absent, --if-present and --if-version only one can hold");
	}
	if (version) {
		char *end;
		errno = 0;
		set->version = strtoull(version, &end, 10);
		if (*version < '0' || *version > '9' || *end || errno) {
			return kvctl_error(KVCTL_USAGE, "--if-version '%s' is no whole number",
					   version);
		}
	}
	if (given[OPTION_ttl] && given[OPTION_keep_ttl]) {
		return kvctl_error(KVCTL_USAGE, "--ttl and --keep-ttl exclude each other");
	}
	set->flags |= given[OPTION_keep_ttl] ? KVC_SET_KEEP_TTL : 0;
	if (given[OPTION_ttl] &&
	    (!units_duration_parse(given[OPTION_ttl], 0, &set->ttl_ms) || set->ttl_ms < 1)) {
		return kvctl_error(KVCTL_USAGE,
				   "--ttl '%s' is no time to live: write 500ms, 30s, 5m, 2h or 7d",
				   given[OPTION_ttl]);
	}
	return KVCTL_OK;
}

static int cmd_value_store(struct kvctl *kvctl, const char *key, size_t key_bytes,
			   const char *value, size_t value_bytes, const struct kvc_set_options *set)
{
	uint64_t version = 0;
	int code = kvctl_connect(kvctl);
	if (code != KVCTL_OK) {
		return code;
	}
	kvctl->writes = true;
	int status = kvc_set(kvctl->client, key, key_bytes, value, value_bytes, set, &version);
	if (status != KVC_OK && status != KVC_NOT_APPLIED) {
		return kvctl_fail(kvctl, status, kvctl_show(key, key_bytes));
	}
	if (kvctl->json) {
		printf("{");
		jsonl_write_member(stdout, "key", key, key_bytes);
		printf(",\"applied\":%s", status == KVC_OK ? "true" : "false");
		if (status == KVC_OK) {
			printf(",\"version\":%" PRIu64, version);
		}
		puts("}");
	}
	if (status == KVC_NOT_APPLIED) {
		return kvctl_remark(kvctl, KVCTL_NO, "'%s' was not set: %s",
				    kvctl_show(key, key_bytes),
				    set->flags & KVC_SET_IF_ABSENT    ? "it exists"
				    : set->flags & KVC_SET_IF_PRESENT ? "it does not exist"
								      : "it has another version");
	}
	return KVCTL_OK;
}

int cmd_value_set(struct kvctl *kvctl)
{
	const char *key = kvctl->options.argument[0];
	size_t key_bytes, value_bytes = 0;
	const char *value = NULL;
	char *owned = NULL;
	struct kvc_set_options set;
	int code = kvctl_key(key, &key_bytes);
	if (code == KVCTL_OK) {
		code = cmd_value_conditions(kvctl, &set);
	}
	if (code == KVCTL_OK) {
		code = cmd_value_source(kvctl, &value, &value_bytes, &owned);
	}
	if (code == KVCTL_OK) {
		code = cmd_value_store(kvctl, key, key_bytes, value, value_bytes, &set);
	}
	free(owned);
	return code;
}

int cmd_value_del(struct kvctl *kvctl)
{
	int deleted = 0, absent = 0;
	int code = kvctl_connect(kvctl);
	if (code != KVCTL_OK) {
		return code;
	}
	for (int i = 0; code == KVCTL_OK && i < kvctl->options.arguments; i++) {
		const char *key = kvctl->options.argument[i];
		size_t key_bytes;
		code = kvctl_key(key, &key_bytes);
		if (code != KVCTL_OK) {
			break;
		}
		kvctl->writes = true;
		int status = kvc_delete(kvctl->client, key, key_bytes);
		if (status == KVC_NOT_FOUND) {
			absent++;
			kvctl_remark(kvctl, 0, "there is no key '%s'", kvctl_show(key, key_bytes));
		} else if (status != KVC_OK) {
			code = kvctl_fail(kvctl, status, kvctl_show(key, key_bytes));
		} else {
			deleted++;
		}
	}
	if (kvctl->json) {
		printf("{\"deleted\":%d,\"absent\":%d}\n", deleted, absent);
	}
	return code == KVCTL_OK && absent > 0 ? KVCTL_NO : code;
}

int cmd_value_incr(struct kvctl *kvctl)
{
	const char *key = kvctl->options.argument[0];
	const char *by = kvctl->options.arguments > 1 ? kvctl->options.argument[1] : "1";
	size_t key_bytes;
	int64_t result = 0;
	char *end;
	int code = kvctl_key(key, &key_bytes);
	if (code != KVCTL_OK) {
		return code;
	}
	errno = 0;
	int64_t delta = strtoll(by, &end, 10);
	if (end == by || *end || errno) {
		return kvctl_error(KVCTL_USAGE, "'%s' is no integer of 64 bits", by);
	}
	code = kvctl_connect(kvctl);
	if (code != KVCTL_OK) {
		return code;
	}
	kvctl->writes = true;
	int status = kvc_increment(kvctl->client, key, key_bytes, delta, &result);
	if (status != KVC_OK) {
		return kvctl_fail(kvctl, status, kvctl_show(key, key_bytes));
	}
	if (kvctl->json) {
		printf("{");
		jsonl_write_member(stdout, "key", key, key_bytes);
		printf(",\"value\":%" PRId64 "}\n", result);
	} else {
		printf("%" PRId64 "\n", result);
	}
	return KVCTL_OK;
}

int cmd_value_expire(struct kvctl *kvctl)
{
	const char *key = kvctl->options.argument[0];
	const char *duration = kvctl->options.argument[1];
	size_t key_bytes;
	int64_t ttl_ms = -1;
	int code = kvctl_key(key, &key_bytes);
	if (code != KVCTL_OK) {
		return code;
	}
	if (strcmp(duration, "none") != 0 && !units_duration_parse(duration, 0, &ttl_ms)) {
		return kvctl_error(KVCTL_USAGE,
				   "'%s' is no duration: write 500ms, 30s, 5m, 2h, 7d or none",
				   duration);
	}
	code = kvctl_connect(kvctl);
	if (code != KVCTL_OK) {
		return code;
	}
	kvctl->writes = true;
	int status = kvc_expire(kvctl->client, key, key_bytes, ttl_ms);
	if (status != KVC_OK && status != KVC_NOT_FOUND) {
		return kvctl_fail(kvctl, status, kvctl_show(key, key_bytes));
	}
	if (kvctl->json) {
		printf("{");
		jsonl_write_member(stdout, "key", key, key_bytes);
		printf(",\"applied\":%s}\n", status == KVC_OK ? "true" : "false");
	}
	return status == KVC_OK ? KVCTL_OK
				: kvctl_remark(kvctl, KVCTL_NO, "there is no key '%s'",
					       kvctl_show(key, key_bytes));
}

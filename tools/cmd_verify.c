// SPDX-License-Identifier: MIT
//
// kvctl verify: is everything that is stored as it was written? Through a running kvd, which
// compares memory with its store; or of a data folder or a backup that nobody uses. Damage is
// exit status 5, and named by block, key and version.
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/limits.h"
#include "tools/job.h"
#include "tools/kvctl.h"
#include "tools/offline.h"
#include "tools/units.h"

// A key from hexadecimal, as messages show it.
static const char *verify_key(const char *hex)
{
	char key[KVS_KEY_BYTES_MAX];
	size_t bytes = 0;
	unsigned value;
	for (; hex[0] && hex[1] && bytes < sizeof key && sscanf(hex, "%2x", &value) == 1;
	     hex += 2) {
		key[bytes++] = (char)value;
	}
	return kvctl_show(key, bytes);
}

static void verify_print_damage(const cJSON *one)
{
	const char *where = cJSON_GetStringValue(cJSON_GetObjectItem(one, "where"));
	const char *key = cJSON_GetStringValue(cJSON_GetObjectItem(one, "key_hex"));
	const char *what = cJSON_GetStringValue(cJSON_GetObjectItem(one, "what"));
	double block = job_number(one, "block");
	double version = job_number(one, "version");
	printf("damage: %s", where ? where : "?");
	if (block > 0) {
		printf(": block %.0f", block);
	}
	if (key) {
		printf(": key '%s'", verify_key(key));
	}
	if (version > 0) {
		printf(": version %.0f", version);
	}
	printf(": %s\n", what ? what : "?");
}

static void verify_print_text(const struct kvctl *kvctl, const cJSON *result)
{
	char size[16];
	const cJSON *one;
	const char *store = cJSON_GetStringValue(cJSON_GetObjectItem(result, "store"));
	if (cJSON_GetObjectItem(result, "keys") && !kvctl->quiet) {
		units_size(size, sizeof size, job_number(result, "bytes"));
		printf("memory: %.0f keys, %s, %.0f large values\n", job_number(result, "keys"),
		       size, job_number(result, "large_values"));
	}
	if (store && strcmp(store, "checked") == 0 && !kvctl->quiet) {
		units_size(size, sizeof size, job_number(result, "store_bytes"));
		printf("store: %.0f blocks, %.0f records, %s, %.0f keys\n",
		       job_number(result, "store_blocks"), job_number(result, "store_records"),
		       size, job_number(result, "store_keys"));
	} else if (store && strcmp(store, "failed") == 0) {
		puts("store: FAILED, kvd is writing it anew: not looked at");
	} else if (store && strcmp(store, "none") == 0 && !kvctl->quiet) {
		puts("store: none (--persist memory)");
	}
	cJSON_ArrayForEach(one, cJSON_GetObjectItem(result, "damage"))
	{
		verify_print_damage(one);
	}
	double damaged = job_number(result, "damaged");
	int named = cJSON_GetArraySize(cJSON_GetObjectItem(result, "damage"));
	if (damaged > named) {
		printf("damage: %.0f more that are not named\n", damaged - named);
	}
	const char *remedy = cJSON_GetStringValue(cJSON_GetObjectItem(result, "remedy"));
	if (remedy) {
		printf("remedy: %s\n", remedy);
	}
	if (damaged == 0 && !kvctl->quiet) {
		printf("no damage found, in %.2f s\n", job_number(result, "seconds"));
	}
}

static int verify_no_memory(void)
{
	return kvctl_error(KVCTL_NO, "out of memory: what was found cannot be told");
}

static int verify_print(const struct kvctl *kvctl, const cJSON *result)
{
	const char *store = cJSON_GetStringValue(cJSON_GetObjectItem(result, "store"));
	if (kvctl->json) {
		char *text = cJSON_PrintUnformatted(result);
		if (!text) {
			return verify_no_memory();
		}
		puts(text);
		cJSON_free(text);
	} else {
		verify_print_text(kvctl, result);
	}
	bool bad = job_number(result, "damaged") > 0 || (store && strcmp(store, "failed") == 0);
	return bad ? KVCTL_CORRUPT : KVCTL_OK;
}

static int verify_dir(struct kvctl *kvctl, const char *dir, cJSON **result)
{
	char path[4096];
	struct stat data;
	int lock;
	(void)snprintf(path, sizeof path, "%s/store/data.mdb", dir);
	if (stat(path, &data) != 0) { // before a lock file is made where none belongs
		return kvctl_error(KVCTL_USAGE, "%s: %s; is %s a data folder of kvd?", path,
				   strerror(errno), dir);
	}
	int code = offline_lock(dir, true, &lock);
	if (code != KVCTL_OK) {
		return code;
	}
	code = offline_verify(kvctl, dir, NULL, (uint64_t)data.st_size, result);
	(void)close(lock);
	return code;
}

static int verify_backup(struct kvctl *kvctl, const char *path, cJSON **result)
{
	struct seal_facts facts;
	int fd;
	int code = offline_backup_open(kvctl, path, &fd, &facts);
	if (code != KVCTL_OK) {
		return code;
	}
	(void)close(fd);
	code = offline_verify(kvctl, NULL, path, facts.data_bytes, result);
	if (code == KVCTL_OK &&
	    (job_number(*result, "store_keys") != (double)facts.keys ||
	     job_number(*result, "durable_version") != (double)facts.durable_seq)) {
		cJSON_Delete(*result);
		*result = NULL;
		code = kvctl_error(KVCTL_CORRUPT, "%s: it does not hold what its seal says", path);
	}
	return code;
}

int cmd_verify(struct kvctl *kvctl)
{
	const char *path = kvctl->options.argument[0];
	struct stat facts;
	cJSON *result = NULL;
	int code;
	if (!path) {
		code = job_run(kvctl, "KVD.VERIFY", NULL, &result);
	} else if (stat(path, &facts) != 0) {
		code = kvctl_error(KVCTL_USAGE, "%s: %s", path, strerror(errno));
	} else if (!job_watch_signals()) {
		code = KVCTL_NO;
	} else if (S_ISDIR(facts.st_mode)) {
		code = verify_dir(kvctl, path, &result);
	} else {
		code = verify_backup(kvctl, path, &result);
	}
	bool damaged = result && path && job_number(result, "damaged") > 0;
	if (damaged && !cJSON_AddStringToObject(result, "remedy",
						"restore a backup that verifies (kvctl restore)")) {
		code = verify_no_memory();
	} else if (result) {
		code = verify_print(kvctl, result);
	}
	cJSON_Delete(result);
	return code;
}

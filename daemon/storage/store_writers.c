// SPDX-License-Identifier: MIT
//
// Whose the writer indices of records are (shm/writers.h), kept in `meta` beside the state: written
// with the commit of the first record that has a new one, so that no record is there without.
#include "daemon/storage/store.h"

#include <string.h>

#include "daemon/storage/store_internal.h"
#include "shm/crc32c.h"

#define WRITERS_KEY "writers"

/// The value: a head, then the users by index.
struct writers_head {
	uint32_t crc; // crc32c of bytes [4, end)
	uint32_t count;
};
static_assert(sizeof(struct writers_head) == 8, "fixed");

struct writers {
	struct writers_head head;
	uint32_t uids[KVS_WRITERS_MAX];
};

int store_put_writers(struct store *store, const uint32_t *uids, uint32_t count)
{
	struct writers writers = { .head.count = count };
	if (count > KVS_WRITERS_MAX) {
		return store_refuse(store, 0, "more writers than there can be");
	}
	memcpy(writers.uids, uids, count * sizeof(*uids));
	size_t bytes = sizeof(writers.head) + count * sizeof(*uids);
	writers.head.crc = kvs_crc32c(0, (const unsigned char *)&writers + 4, bytes - 4);
	int rc = env_write(store->env, ENV_META, WRITERS_KEY, strlen(WRITERS_KEY), &writers, bytes);
	if (rc != 0) {
		int result = store_fail(store, "writing who its writers are", rc);
		store_abort(store);
		return result;
	}
	return STORE_OK;
}

int store_read_writers(struct store *store, uint32_t uids[KVS_WRITERS_MAX], uint32_t *count)
{
	struct writers writers = { 0 };
	struct env_value value = { .out = &writers, .out_bytes = sizeof(writers) };
	*count = 0;
	int rc = env_begin(store->env, false);
	if (rc == 0) {
		rc = env_read(store->env, ENV_META, WRITERS_KEY, strlen(WRITERS_KEY), &value);
		env_abort(store->env);
	}
	uint32_t found = writers.head.count;
	int result = STORE_OK;
	if (rc != 0 && rc != MDB_NOTFOUND) {
		result = store_fail(store, "reading who its writers are", rc);
	} else if (rc == 0 && (found > KVS_WRITERS_MAX ||
			       value.bytes != sizeof(writers.head) + found * sizeof(*uids) ||
			       kvs_crc32c(0, (const unsigned char *)&writers + 4,
					  value.bytes - 4) != writers.head.crc)) {
		result = store_damaged(store, "who its writers are contradicts itself");
	} else if (rc == 0) {
		*count = found;
		memcpy(uids, writers.uids, found * sizeof(*uids));
	}
	return result == STORE_OK && rc == MDB_NOTFOUND ? 1 : result;
}

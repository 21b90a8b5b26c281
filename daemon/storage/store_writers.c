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
	MDB_val key = { .mv_size = strlen(WRITERS_KEY), .mv_data = (void *)WRITERS_KEY };
	MDB_val value = { .mv_size = bytes, .mv_data = &writers };
	int rc = mdb_put(store->txn, store->meta, &key, &value, 0);
	if (rc != 0) {
		int result = store_fail(store, "writing who its writers are", rc);
		store_abort(store);
		return result;
	}
	return STORE_OK;
}

int store_read_writers(struct store *store, uint32_t uids[KVS_WRITERS_MAX], uint32_t *count)
{
	MDB_txn *txn;
	MDB_val key = { .mv_size = strlen(WRITERS_KEY), .mv_data = (void *)WRITERS_KEY };
	MDB_val value;
	struct writers_head head = { 0 };
	*count = 0;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);
	if (rc != 0) {
		return store_fail(store, "reading who its writers are", rc);
	}
	rc = mdb_get(txn, store->meta, &key, &value);
	const unsigned char *bytes = value.mv_data;
	if (rc == 0 && value.mv_size >= sizeof(head)) {
		memcpy(&head, bytes, sizeof(head));
	}
	int result = STORE_OK;
	if (rc != 0 && rc != MDB_NOTFOUND) {
		result = store_fail(store, "reading who its writers are", rc);
	} else if (rc == 0 && (head.count > KVS_WRITERS_MAX ||
			       value.mv_size != sizeof(head) + head.count * sizeof(*uids) ||
			       kvs_crc32c(0, bytes + 4, value.mv_size - 4) != head.crc)) {
		result = store_damaged(store, "who its writers are contradicts itself");
	} else if (rc == 0) {
		*count = head.count;
		memcpy(uids, bytes + sizeof(head), head.count * sizeof(*uids));
	}
	mdb_txn_abort(txn);
	return result == STORE_OK && rc == MDB_NOTFOUND ? 1 : result;
}

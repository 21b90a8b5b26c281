// SPDX-License-Identifier: MIT
//
// Reading the store at start, with a line now and then that says how far it is. A signal that asks
// kvd to stop is heeded between records, unless a region was kept: nothing has been changed yet.
#include "daemon/service_recover.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "daemon/keyspace.h"
#include "daemon/keyspace_cold.h"
#include "daemon/keyspace_create.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/signals.h"
#include "daemon/storage/probe.h"
#include "daemon/storage/recover.h"
#include "daemon/storage/store.h"

#define RECOVER_LOOK_EVERY 4096u // records between two looks for a signal
#define RECOVER_PROGRESS_NS UINT64_C(1000000000)

enum { RECOVER_NO_ROOM = 1, RECOVER_STOPPED = 2 }; // answers of the record callback

/// What a reading of the store is for (daemon/keyspace_recover_room.c): mostly the first is all.
enum recover_reading { RECOVER_LOAD, RECOVER_INDEX, RECOVER_LOAD_CURRENT };

struct recovery {
	struct kvd *kvd;
	enum recover_reading reading;
	uint64_t highest_seq;
	uint64_t records;
	uint64_t said_ns;
	bool half_seen;
	bool heeds_stop;
	bool stop; // and one waits
};

static void recover_look_for_signals(struct recovery *recovery)
{
	recovery->stop = recovery->heeds_stop && signals_stop_waits();
}

static int recover_record(void *context, const struct kvs_record_view *view, const void *value,
			  uint64_t place)
{
	struct recovery *recovery = context;
	recovery->records++;
	if (view->seq > recovery->highest_seq) {
		recovery->highest_seq = view->seq;
	}
	if (recovery->records % RECOVER_LOOK_EVERY == 0) {
		recover_look_for_signals(recovery);
	}
	if (recovery->stop) {
		return RECOVER_STOPPED;
	}
	struct keyspace *keyspace = recovery->kvd->keyspace;
	int result = recovery->reading == RECOVER_INDEX
			     ? keyspace_recover_index(keyspace, view)
			     : keyspace_recover_record(keyspace, view, value, place);
	return result == KEYSPACE_OK ? 0 : RECOVER_NO_ROOM;
}

static void recover_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	struct recovery *recovery = context;
	recover_look_for_signals(recovery);
	if (!recovery->half_seen && done_bytes * 2 >= total_bytes) {
		recovery->half_seen = true;
		SEAM_CRASH(recovery_half);
	}
	uint64_t now_ns = recovery->kvd->seam->monotonic_ns();
	if (now_ns - recovery->said_ns < RECOVER_PROGRESS_NS) {
		return;
	}
	recovery->said_ns = now_ns;
	unsigned percent = total_bytes ? (unsigned)(done_bytes * 100 / total_bytes) : 100;
	LOG_AT(LOG_LEVEL_NOTICE, "reading the store: %u %%, %llu of %llu MiB, %llu keys", percent,
	       (unsigned long long)(done_bytes >> 20), (unsigned long long)(total_bytes >> 20),
	       (unsigned long long)keyspace_count(recovery->kvd->keyspace));
	notify_status("reading the store: %u %%", percent);
}

int service_store_exit_code(int error)
{
	switch (error) {
	case STORE_DAMAGED:
	case STORE_VERSION:
		return EX_DATAERR;
	case STORE_NO_ACCESS:
		return EX_NOPERM;
	case STORE_NO_SPACE:
	case STORE_IO:
		return EX_IOERR;
	default:
		return EX_OSERR;
	}
}

static int recover_result(const struct recovery *recovery, struct store *store, int result,
			  char *why, size_t why_bytes)
{
	switch (result) {
	case STORE_OK:
		return 0;
	case RECOVER_STOPPED:
		(void)snprintf(why, why_bytes, "stopped by a signal while reading the store");
		return EX_TEMPFAIL;
	case RECOVER_NO_ROOM:
		(void)snprintf(why, why_bytes,
			       "out of memory after %llu records of %s/store: this machine cannot "
			       "give kvd what the data takes; %s",
			       (unsigned long long)recovery->records, recovery->kvd->config.dir,
			       remedy_of_errno(ENOMEM));
		return EX_OSERR;
	default:
		(void)snprintf(why, why_bytes, "%s", store_why(store));
		return service_store_exit_code(result);
	}
}

static int recover_read(struct recovery *recovery, struct store *store,
			enum recover_reading reading)
{
	struct store_walk walk = {
		.record = recover_record,
		.progress = recover_progress,
		.context = recovery,
	};
	recovery->reading = reading;
	recovery->records = 0;
	return store_recover(store, &walk);
}

// Fills the keyspace. Returns 0 or an exit code with `why` filled.
static int recover_load(struct recovery *recovery, struct store *store, char *why, size_t why_bytes)
{
	struct keyspace *keyspace = recovery->kvd->keyspace;
	int result = recover_read(recovery, store, RECOVER_LOAD);
	if (result == RECOVER_NO_ROOM) {
		LOG_AT(LOG_LEVEL_NOTICE,
		       "memory is full after %llu records: the store is read again, for what is "
		       "current only",
		       (unsigned long long)recovery->records);
		result = recover_read(recovery, store, RECOVER_INDEX);
		if (result == STORE_OK) {
			keyspace_recover_thin(keyspace);
			result = recover_read(recovery, store, RECOVER_LOAD_CURRENT);
		}
	}
	int code = recover_result(recovery, store, result, why, why_bytes);
	uint64_t left_bytes = keyspace_recover_left(keyspace);
	if (code == 0 && left_bytes > 0) {
		uint64_t bytes = keyspace_live_bytes(keyspace) + left_bytes;
		(void)snprintf(why, why_bytes,
			       "the data in %s/store does not fit --memory %llu bytes: it is %llu "
			       "bytes; start with --memory %lluMiB or more, or with --when-full "
			       "spill, which leaves in the store what finds no room",
			       recovery->kvd->config.dir,
			       (unsigned long long)config_memory_bytes(&recovery->kvd->config),
			       (unsigned long long)bytes,
			       (unsigned long long)((bytes + bytes / 4) >> 20) + 1);
		code = EX_CONFIG;
	}
	return code;
}

bool service_store_exists(const char *dir)
{
	char path[4096];
	int length = snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	struct stat status;
	return length > 0 && length < (int)sizeof(path) && stat(path, &status) == 0 &&
	       status.st_size > 0;
}

int service_store_open(struct kvd *kvd, struct store **store, bool is_known, bool *is_new,
		       bool *is_damaged, char *why, size_t why_bytes)
{
	const char *dir = kvd->config.dir;
	int error = store_renew_complete(dir);
	if (error == EEXIST) {
		(void)snprintf(why, why_bytes,
			       "%s/store.ready is not a store that kvd has written: move it away",
			       dir);
		return EX_CANTCREAT;
	}
	if (error != 0) {
		(void)snprintf(why, why_bytes,
			       "%s/store.ready cannot take the place of %s/store: %s; %s", dir, dir,
			       strerror(error), remedy_of_errno(error));
		return EX_IOERR;
	}
	*is_new = !service_store_exists(dir);
	int probed = is_known ? STORE_OK : store_probe(kvd->config.dir, why, why_bytes);
	if (probed != STORE_OK) {
		return service_store_exit_code(probed);
	}
	struct store_options options = {
		.dir = kvd->config.dir,
		.instance_id = kvd->instance_id,
		.renewable = is_known,
		.folder = kvd->folder,
		.readers = STORE_READERS_MAX,
	};
	int opened = store_open(store, &options, why, why_bytes);
	*is_damaged = opened != STORE_OK && *store != NULL;
	return opened == STORE_OK || *is_damaged ? 0 : service_store_exit_code(opened);
}

/// Whose records are they? Where nobody knows any more they are loaded all the same.
static void recover_writers(struct kvd *kvd, struct store *store)
{
	uint32_t uids[KVS_WRITERS_MAX];
	uint32_t count;
	struct store_facts facts;
	store_facts(store, &facts);
	int result = store_read_writers(store, uids, &count);
	if (result < 0) {
		log_error("%s; what is stored counts against nobody's quota-stored-bytes",
			  store_why(store));
	}
	bool is_empty = result > 0 && facts.oldest_block == facts.next_block;
	keyspace_writers_load(kvd->keyspace, result == STORE_OK || is_empty ? uids : NULL, count);
}

static void say_stubs(const struct kvd *kvd)
{
	unsigned long long stubs = keyspace_count_stubs(kvd->keyspace);
	if (stubs == 0) {
		return;
	}
	bool spills = kvd->config.when_full == CONFIG_WHEN_FULL_SPILL;
	log_notice("the data is more than the memory (%llu bytes) holds: %llu of %llu values are "
		   "in the store alone, %s",
		   (unsigned long long)config_memory_bytes(&kvd->config), stubs,
		   (unsigned long long)keyspace_count(kvd->keyspace),
		   spills ? "and come from there when somebody asks for them"
			  : "until their keys are evicted or somebody asks for them");
}

int service_recover(struct kvd *kvd, struct store *store, bool had_lives, uint64_t noted_seq,
		    bool heeds_stop, char *why, size_t why_bytes)
{
	uint64_t began_ns = kvd->seam->monotonic_ns();
	struct recovery recovery = { .kvd = kvd, .said_ns = began_ns, .heeds_stop = heeds_stop };
	recover_writers(kvd, store);
	struct store_facts facts;
	store_facts(store, &facts);
	if (kvd->config.when_full != CONFIG_WHEN_FULL_REJECT) {
		// Where keys go they do as soon as kvd serves, and can log it.
		keyspace_recover_spill(kvd->keyspace, facts.oldest_block);
	}
	int code = recover_load(&recovery, store, why, why_bytes);
	if (code != 0) {
		return code;
	}
	uint64_t last_seq = facts.durable_seq;
	if (recovery.highest_seq > last_seq) {
		last_seq = recovery.highest_seq;
	}
	bool unended = had_lives && (!facts.ended || noted_seq > last_seq);
	bool left = keyspace_recover_finish(kvd->keyspace, last_seq, unended);
	if (!left) {
		log_error("the versions of %s/store are used up: it is served, and every write is "
			  "refused; save the data with kvctl dump, and load it into a kvd with "
			  "another --dir",
			  kvd->config.dir);
	}
	if (recovery.records > 0) {
		uint64_t took_ms = (kvd->seam->monotonic_ns() - began_ns) / 1000000;
		LOG_AT(LOG_LEVEL_NOTICE, "read %llu records, %llu keys, from %s/store in %llu ms",
		       (unsigned long long)recovery.records,
		       (unsigned long long)keyspace_count(kvd->keyspace), kvd->config.dir,
		       (unsigned long long)took_ms);
	}
	say_stubs(kvd);
	return 0;
}

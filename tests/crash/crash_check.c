// SPDX-License-Identifier: MIT
//
// See the header. The store is read twice: by a walk that judges each record by the rules of
// daemon/storage/recover.h alone, and by kvd's keyspace; both must come to the same.
#include "tests/crash/crash_check.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/storage/pages.h"
#include "daemon/storage/restored.h"
#include "tests/crash/crash_copies.h"

#define WRITES_AFTER 25u

static char said[1024];

/// What a data folder is to hold.
struct wanted {
	const struct script_history *history;
	uint64_t durable_seq;
	uint64_t submitted_seq;
	uint64_t random;
};

__attribute__((format(printf, 1, 2))) static const char *say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)vsnprintf(said, sizeof(said), format, args);
	va_end(args);
	return said;
}

/// What a store holds, by its records.
struct held {
	struct {
		uint64_t seq;
		bool removed;
		uint32_t bytes;
		uint32_t crc; // of the value
	} keys[SCRIPT_KEYS];
	uint64_t flush_seq;
	unsigned strange; // records that nobody wrote
};

static int look(void *context, const struct kvs_record_view *view, const void *value,
		uint64_t place)
{
	struct held *held = context;
	char key[32] = "";
	(void)place;
	if (view->flags & KVS_RECORD_FLUSH) {
		held->flush_seq = view->seq > held->flush_seq ? view->seq : held->flush_seq;
		return 0;
	}
	memcpy(key, view->key, view->key_bytes < 31 ? view->key_bytes : 31);
	unsigned long number =
		strncmp(key, "key:", 4) == 0 ? strtoul(key + 4, NULL, 10) : ULONG_MAX;
	if (number >= SCRIPT_KEYS) {
		held->strange++;
	} else if (view->seq >= held->keys[number].seq) {
		const void *bytes = view->flags & KVS_RECORD_LARGE ? value : view->payload;
		held->keys[number].seq = view->seq;
		held->keys[number].removed = (view->flags & KVS_RECORD_TOMBSTONE) != 0;
		held->keys[number].bytes = view->value_bytes;
		held->keys[number].crc =
			held->keys[number].removed ? 0 : kvs_crc32c(0, bytes, view->value_bytes);
	}
	return 0;
}

const char *crash_check_store(struct store *store, const struct script_history *history)
{
	static unsigned char bytes[SCRIPT_LARGE_BYTES];
	struct held held = { 0 };
	struct store_walk walk = { .record = look, .context = &held, .check_records = true };
	struct store_facts facts;
	store_facts(store, &facts);
	if (store_recover(store, &walk) != STORE_OK) {
		return say("it cannot be read: %s", store_why(store));
	}
	if (held.strange > 0) {
		return "it holds records that nobody wrote";
	}
	for (unsigned key = 0; key < SCRIPT_KEYS; key++) {
		const struct script_version *version = script_at(history, key, facts.durable_seq);
		bool there = held.keys[key].seq > held.flush_seq && !held.keys[key].removed;
		if (there != (version != NULL)) {
			return say("key %u %s as of version %llu", key,
				   there ? "came back" : "is lost",
				   (unsigned long long)facts.durable_seq);
		}
		if (!there) {
			continue;
		}
		script_value(bytes, key, version);
		if (held.keys[key].bytes != version->bytes ||
		    held.keys[key].crc != kvs_crc32c(0, bytes, version->bytes)) {
			return say("key %u has another value as of version %llu", key,
				   (unsigned long long)facts.durable_seq);
		}
	}
	return NULL;
}

// Is what kvd made of it the state as of a version?
static const char *judge_life(const struct life *life, const struct script_history *history,
			      uint64_t seq)
{
	static unsigned char bytes[SCRIPT_LARGE_BYTES];
	for (unsigned key = 0; key < SCRIPT_KEYS; key++) {
		char name[32];
		struct keyspace_value value;
		const struct script_version *version = script_at(history, key, seq);
		size_t name_bytes = script_key(name, key);
		bool there = keyspace_get(life->keyspace, name, name_bytes, &value) == KEYSPACE_OK;
		if (there != (version != NULL)) {
			return say("kvd %s key %u", there ? "brings back" : "loses", key);
		}
		if (!there) {
			continue;
		}
		script_value(bytes, key, version);
		if (value.value_bytes != version->bytes ||
		    memcmp(value.value, bytes, version->bytes) != 0) {
			return say("kvd has another value of key %u", key);
		}
	}
	return NULL;
}

// What kvd's probe looks at before LMDB does; without its process.
static const char *judge_pages(const char *dir)
{
	char path[FIXTURE_PATH_BYTES + 32];
	char why[256] = "";
	struct stat facts;
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return NULL;
	}
	int result = 0;
	if (fstat(fd, &facts) == 0 && facts.st_size > 0) {
		result = store_pages_check(fd, (uint64_t)facts.st_size, false, why, sizeof(why));
	}
	(void)close(fd);
	return result < 0 ? say("its pages do not hang together: %s", why) : NULL;
}

// Opens the store and judges what it holds.
static const char *judge_folder(const char *dir, const struct wanted *wanted,
				uint64_t *recovered_seq)
{
	char why[512];
	struct store *store;
	struct store_options options = { .dir = dir, .instance_id = 77 };
	const char *wrong = judge_pages(dir);
	if (wrong != NULL) {
		return wrong;
	}
	if (store_open(&store, &options, why, sizeof(why)) != STORE_OK) {
		return say("it cannot be opened: %s", why);
	}
	struct store_facts facts;
	store_facts(store, &facts);
	*recovered_seq = facts.durable_seq;
	if (facts.durable_seq < wanted->durable_seq) {
		wrong = say("it is as of version %llu, and %llu was promised",
			    (unsigned long long)facts.durable_seq,
			    (unsigned long long)wanted->durable_seq);
	} else if (facts.durable_seq > wanted->submitted_seq) {
		wrong = say("it is as of version %llu, and %llu was the last",
			    (unsigned long long)facts.durable_seq,
			    (unsigned long long)wanted->submitted_seq);
	} else if (script_splits_batch(wanted->history, facts.durable_seq)) {
		wrong = "it ends within a batch";
	} else {
		wrong = crash_check_store(store, wanted->history);
	}
	store_close(store);
	return wrong;
}

// A life goes on with it: writes, commits, compaction; then another one reads it.
static const char *go_on(const char *dir, const struct wanted *wanted, uint64_t recovered_seq)
{
	static struct script script;
	struct script_history history = script.history; // its memory is used again
	script = (struct script){ .random = wanted->random, .history = history };
	script_history_copy(&script.history, wanted->history);
	script_history_cut(&script.history, recovered_seq);
	script.stamp = UINT64_C(1) << 32;
	script.options = (struct life_options){
		.dir = dir,
		.memory_bytes = 4u << 20,
		.segment_bytes = 64u << 10,
		.policy = PERSIST_GROUP,
		.ratio_percent = 101,
	};
	bool good = script_begin(&script);
	const char *wrong = judge_life(&script.life, &script.history, recovered_seq);
	if (wrong == NULL && keyspace_last_seq(script.life.keyspace) < wanted->submitted_seq) {
		wrong = say("versions up to %llu were handed out, and it goes on at %llu",
			    (unsigned long long)wanted->submitted_seq,
			    (unsigned long long)keyspace_last_seq(script.life.keyspace));
	}
	for (unsigned i = 0; wrong == NULL && good && i < 2; i++) {
		script_write(&script, WRITES_AFTER);
		good = script_commit(&script, life_published(&script.life));
		while (good && life_compact_idle(&script.life)) {
		}
	}
	uint64_t last_seq = keyspace_last_seq(script.life.keyspace);
	if (wrong == NULL && !good) {
		wrong = "it cannot be written on";
	}
	if (wrong == NULL) {
		wrong = judge_life(&script.life, &script.history, last_seq);
	}
	(void)life_end(&script.life);
	if (wrong != NULL) {
		return wrong;
	}
	struct wanted then = {
		.history = &script.history,
		.durable_seq = last_seq,
		.submitted_seq = last_seq,
	};
	return judge_folder(dir, &then, &recovered_seq);
}

// ---- which data folder it is --------------------------------------------------------------------

// Begins as kvd does.
static const char *judge_begin(const char *dir, const struct wanted *wanted, bool restored,
			       uint64_t *recovered_seq)
{
	char path[FIXTURE_PATH_BYTES + 32];
	char why[512];
	struct stat facts;
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	if (restored && stat(path, &facts) != 0) {
		return "what is restored is not there";
	}
	int rc = store_renew_complete(dir);
	if (rc != 0) {
		return say("a renewal cannot be completed: %s", strerror(rc));
	}
	if (restored_check(dir, why, sizeof(why)) != 0) {
		return say("kvd does not start: %s", why);
	}
	return judge_folder(dir, wanted, recovered_seq);
}

static void folder_of(const struct crash_expected *expected, const char *root, unsigned era,
		      char dir[FIXTURE_PATH_BYTES])
{
	(void)snprintf(dir, FIXTURE_PATH_BYTES, "%.400s/%s", root,
		       expected->script->eras[era].folder);
}

static struct wanted wanted_of(const struct crash_expected *expected, unsigned era)
{
	const struct script *script = expected->script;
	struct wanted wanted = {
		.history = era < script->restores ? &script->eras[era].history : &script->history,
		.durable_seq = expected->promise.durable_seq,
		.submitted_seq = expected->promise.submitted_seq,
		.random = expected->random,
	};
	if (era > expected->promise.restores) {
		wanted.durable_seq = wanted.submitted_seq = script->eras[era].backup->seq;
	}
	return wanted;
}

// The restore may be over, or not begun; or, without exchange, the old store has gone aside and
// kvd says what is to be done: it is, and then the restore is over.
static const char *judge_restoring(const char *root, const struct crash_expected *expected,
				   unsigned *era, uint64_t *recovered_seq)
{
	char dir[FIXTURE_PATH_BYTES];
	char why[512];
	unsigned next = expected->promise.restores + 1;
	struct wanted restored = wanted_of(expected, next);
	struct wanted before = wanted_of(expected, next - 1);
	folder_of(expected, root, next, dir);
	*era = next;
	if (expected->no_exchange && restored_check(dir, why, sizeof(why)) != 0 &&
	    !script_restore_again(expected->script, next - 1, root)) {
		return "a restore that was cut off cannot be done again";
	}
	if (judge_begin(dir, &restored, true, recovered_seq) == NULL) {
		return NULL;
	}
	*era = next - 1;
	folder_of(expected, root, *era, dir);
	return judge_begin(dir, &before, false, recovered_seq);
}

static const char *judge_backups(const char *root, const struct crash_expected *expected)
{
	char path[FIXTURE_PATH_BYTES + SCRIPT_BACKUP_PATH_BYTES + 1];
	for (unsigned i = 0; i < expected->script->backups_count; i++) {
		const struct script_backup *backup = &expected->script->backups[i];
		(void)snprintf(path, sizeof(path), "%s/%s", root, backup->path);
		if (i < expected->promise.backups || access(path, F_OK) == 0) {
			const char *wrong = script_backup_check(backup, root);
			if (wrong != NULL) {
				return say("%s: %s", backup->path, wrong);
			}
		}
	}
	return NULL;
}

const char *crash_check(const char *root, const struct crash_expected *expected,
			uint64_t *recovered_seq)
{
	char dir[FIXTURE_PATH_BYTES];
	unsigned era = expected->promise.restores;
	struct wanted wanted = wanted_of(expected, era);
	folder_of(expected, root, era, dir);
	const char *wrong = judge_backups(root, expected);
	if (wrong == NULL && expected->promise.restoring) {
		wrong = judge_restoring(root, expected, &era, recovered_seq);
		folder_of(expected, root, era, dir);
		wanted = wanted_of(expected, era);
	} else if (wrong == NULL) {
		wrong = judge_begin(dir, &wanted, false, recovered_seq);
	}
	return wrong != NULL ? wrong : go_on(dir, &wanted, *recovered_seq);
}

// SPDX-License-Identifier: MIT
//
// See the header. The store is read twice: by a walk that judges each record by the rules of
// daemon/storage/recover.h alone, and by kvd's keyspace; both must come to the same.
#include "tests/crash/crash_check.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/storage/pages.h"

#define WRITES_AFTER 25u

static char said[1024];

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

// Are the records of the store the state as of its version?
static const char *judge_store(struct store *store, const struct script_history *history)
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
static const char *judge_folder(const char *dir, const struct crash_expected *expected,
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
	if (facts.durable_seq < expected->durable_seq) {
		wrong = say("it is as of version %llu, and %llu was promised",
			    (unsigned long long)facts.durable_seq,
			    (unsigned long long)expected->durable_seq);
	} else if (facts.durable_seq > expected->submitted_seq) {
		wrong = say("it is as of version %llu, and %llu was the last",
			    (unsigned long long)facts.durable_seq,
			    (unsigned long long)expected->submitted_seq);
	} else if (script_splits_batch(expected->history, facts.durable_seq)) {
		wrong = "it ends within a batch";
	} else {
		wrong = judge_store(store, expected->history);
	}
	store_close(store);
	return wrong;
}

// A life goes on with it: writes, commits, compaction; then another one reads it.
static const char *go_on(const char *dir, const struct crash_expected *expected,
			 uint64_t recovered_seq)
{
	static struct script script;
	struct script_history history = script.history; // its memory is used again
	script = (struct script){ .random = expected->random, .history = history };
	script_history_copy(&script.history, expected->history);
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
	if (wrong == NULL && keyspace_last_seq(script.life.keyspace) < expected->submitted_seq) {
		wrong = say("versions up to %llu were handed out, and it goes on at %llu",
			    (unsigned long long)expected->submitted_seq,
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
	struct crash_expected then = {
		.history = &script.history,
		.durable_seq = last_seq,
		.submitted_seq = last_seq,
	};
	return judge_folder(dir, &then, &recovered_seq);
}

const char *crash_check(const char *dir, const struct crash_expected *expected,
			uint64_t *recovered_seq)
{
	int rc = store_renew_complete(dir);
	if (rc != 0) {
		return say("a renewal cannot be completed: %s", strerror(rc));
	}
	const char *wrong = judge_folder(dir, expected, recovered_seq);
	return wrong != NULL ? wrong : go_on(dir, expected, *recovered_seq);
}

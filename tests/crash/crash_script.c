// SPDX-License-Identifier: MIT
//
// See the header. Commits often cover less than what was written, so that compaction meets keys
// whose current version is not durable, and compaction is asked for early and often: the store is
// small, so that a crash state costs milliseconds.
#include "tests/crash/crash_script.h"

#include <sys/stat.h>

#include "tests/crash/crash_copies.h"

#define LIVES 4u
#define ROUNDS 7u

static struct script *wrong; // whose variants are in force now; NULL = none

// ---- what was asked for -------------------------------------------------------------------------

static void add(struct script_versions *versions, uint64_t seq, uint64_t stamp, uint32_t bytes)
{
	if (versions->count == versions->capacity) {
		versions->capacity = versions->capacity * 2 + 16;
		versions->all = realloc(versions->all, versions->capacity * sizeof(*versions->all));
		if (versions->all == NULL) {
			printf("Bail out! out of memory\n");
			exit(1);
		}
	}
	versions->all[versions->count++] =
		(struct script_version){ .seq = seq, .stamp = stamp, .bytes = bytes };
}

static const struct script_version *last_at(const struct script_versions *versions, uint64_t seq)
{
	for (size_t i = versions->count; i > 0; i--) {
		if (versions->all[i - 1].seq <= seq) {
			return &versions->all[i - 1];
		}
	}
	return NULL;
}

const struct script_version *script_at(const struct script_history *history, unsigned key,
				       uint64_t seq)
{
	const struct script_version *version = last_at(&history->keys[key], seq);
	const struct script_version *flush = last_at(&history->flushes, seq);
	if (version == NULL || version->stamp == 0 ||
	    (flush != NULL && flush->seq > version->seq)) {
		return NULL;
	}
	return version;
}

bool script_splits_batch(const struct script_history *history, uint64_t seq)
{
	for (size_t i = 0; i < history->batches.count; i++) {
		const struct script_version *batch = &history->batches.all[i];
		if (seq >= batch->stamp && seq < batch->seq) {
			return true;
		}
	}
	return false;
}

static void cut(struct script_versions *versions, uint64_t seq)
{
	while (versions->count > 0 && versions->all[versions->count - 1].seq > seq) {
		versions->count--;
	}
}

void script_history_cut(struct script_history *history, uint64_t seq)
{
	for (unsigned key = 0; key < SCRIPT_KEYS; key++) {
		cut(&history->keys[key], seq);
	}
	cut(&history->flushes, seq);
	cut(&history->batches, seq);
}

static void copy(struct script_versions *to, const struct script_versions *from)
{
	to->count = 0;
	for (size_t i = 0; i < from->count; i++) {
		add(to, from->all[i].seq, from->all[i].stamp, from->all[i].bytes);
	}
}

void script_history_copy(struct script_history *to, const struct script_history *from)
{
	for (unsigned key = 0; key < SCRIPT_KEYS; key++) {
		copy(&to->keys[key], &from->keys[key]);
	}
	copy(&to->flushes, &from->flushes);
	copy(&to->batches, &from->batches);
}

static void history_free(struct script_history *history)
{
	for (unsigned key = 0; key < SCRIPT_KEYS; key++) {
		free(history->keys[key].all);
	}
	free(history->flushes.all);
	free(history->batches.all);
	*history = (struct script_history){ 0 };
}

void script_free(struct script *script)
{
	history_free(&script->history);
	for (unsigned i = 0; i < SCRIPT_ERAS_MAX; i++) {
		history_free(&script->eras[i].history);
	}
	for (unsigned i = 0; i < SCRIPT_BACKUPS_MAX; i++) {
		history_free(&script->backups[i].history);
	}
}

size_t script_key(char key[32], unsigned number)
{
	return (size_t)snprintf(key, 32, "key:%u", number);
}

void script_value(unsigned char *to, unsigned key, const struct script_version *version)
{
	fixture_fill(to, version->bytes, key, version->stamp);
}

// ---- writes -------------------------------------------------------------------------------------

uint64_t script_pick(struct script *script, uint64_t below)
{
	return tap_random(&script->random) % below;
}

// Applies an answer: FULL and WAIT leave everything as it was.
static bool applied(struct script *script, int result)
{
	script->waits += result == KEYSPACE_WAIT || result == KEYSPACE_FULL;
	return result == KEYSPACE_OK;
}

static uint32_t pick_bytes(struct script *script)
{
	uint64_t kind = script_pick(script, 100);
	if (kind == 0) {
		return (uint32_t)script_pick(script, SCRIPT_LARGE_BYTES); // in two blocks, perhaps
	}
	return (uint32_t)script_pick(script, kind < 6 ? 4000 : 200);
}

/// A write that was done and whose version is not known yet.
struct done {
	unsigned key;
	uint64_t stamp;
	uint32_t bytes;
};

static bool write_one(struct script *script, struct done *done)
{
	static unsigned char value[SCRIPT_LARGE_BYTES];
	char key[32];
	// A few keys are written all the time, most now and then.
	unsigned number =
		(unsigned)script_pick(script, script_pick(script, 3) == 0 ? 6 : SCRIPT_KEYS);
	size_t key_bytes = script_key(key, number);
	struct keyspace *keyspace = script->life.keyspace;
	*done = (struct done){ .key = number };
	if (script_pick(script, 3) == 0) {
		return applied(script, keyspace_delete(keyspace, key, key_bytes));
	}
	done->bytes = pick_bytes(script);
	done->stamp = ++script->stamp;
	fixture_fill(value, done->bytes, number, done->stamp);
	return applied(script, keyspace_set(keyspace, key, key_bytes, value, done->bytes, 0, NULL));
}

static void write_batch(struct script *script)
{
	struct done done[12];
	size_t count = 0;
	struct keyspace *keyspace = script->life.keyspace;
	uint64_t first_seq = keyspace_last_seq(keyspace) + 1;
	keyspace_batch_begin(keyspace);
	for (uint64_t i = script_pick(script, 10) + 2; i > 0; i--) {
		count += write_one(script, &done[count]);
	}
	if (!applied(script, keyspace_batch_commit(keyspace))) {
		return;
	}
	uint64_t last_seq = keyspace_last_seq(keyspace);
	for (size_t i = 0; i < count; i++) {
		add(&script->history.keys[done[i].key], last_seq, done[i].stamp, done[i].bytes);
	}
	if (last_seq > first_seq) {
		add(&script->history.batches, last_seq, first_seq, 0);
	}
}

void script_write(struct script *script, unsigned writes)
{
	struct keyspace *keyspace = script->life.keyspace;
	for (; writes > 0; writes--) {
		struct done done;
		uint64_t kind = script_pick(script, 200);
		keyspace_tick(keyspace);
		if (kind == 0) {
			if (applied(script, keyspace_flush(keyspace))) {
				add(&script->history.flushes, keyspace_last_seq(keyspace), 0, 0);
			}
		} else if (kind < 16) {
			write_batch(script);
		} else if (write_one(script, &done)) {
			add(&script->history.keys[done.key], keyspace_last_seq(keyspace),
			    done.stamp, done.bytes);
		}
		if (script->record != NULL) {
			script->record->promise.submitted_seq = keyspace_last_seq(keyspace);
		}
	}
}

// ---- what is wrong, when it is ------------------------------------------------------------------

// Compaction looks into the table, and is told that what it finds there is durable.
int __real_kvs_table_find(const struct kvs_map *map, uint64_t hash, const void *key,
			  size_t key_bytes, struct kvs_hit *hit);
int __wrap_kvs_table_find(const struct kvs_map *map, uint64_t hash, const void *key,
			  size_t key_bytes, struct kvs_hit *hit);

int __wrap_kvs_table_find(const struct kvs_map *map, uint64_t hash, const void *key,
			  size_t key_bytes, struct kvs_hit *hit)
{
	int found = __real_kvs_table_find(map, hash, key, key_bytes, hit);
	if (found == KVS_FIND_HIT && wrong != NULL && wrong->faults.trusts_memory &&
	    hit->view.seq > wrong->life.persist->txn.target_seq) {
		hit->view.seq = wrong->life.persist->txn.target_seq;
	}
	return found;
}

int __real_store_delete_oldest(struct store *store, uint64_t count);
int __wrap_store_delete_oldest(struct store *store, uint64_t count);

int __wrap_store_delete_oldest(struct store *store, uint64_t count)
{
	struct store_facts facts;
	store_facts(store, &facts);
	if (wrong != NULL && wrong->faults.deletes_too_much &&
	    facts.oldest_block + count < wrong->life.persist->txn.first_block) {
		count++;
	}
	return __real_store_delete_oldest(store, count);
}

// ---- lives --------------------------------------------------------------------------------------

static bool refused(struct script *script, const char *what)
{
	tap_diag("%s: %s", what, store_why(script->life.store));
	return false;
}

static void promise(struct script *script, uint64_t seq)
{
	if (script->record != NULL && seq > script->record->promise.durable_seq) {
		script->record->promise.durable_seq = seq;
	}
}

bool script_commit(struct script *script, uint64_t position)
{
	uint64_t blocks = life_counter(&script->life, KVS_COUNTER_compaction_blocks);
	wrong = script;
	int result = life_commit(&script->life, position);
	wrong = NULL;
	script->commits++;
	script->compacted +=
		(unsigned)(life_counter(&script->life, KVS_COUNTER_compaction_blocks) - blocks);
	if (result != STORE_OK) {
		return refused(script, "a commit");
	}
	promise(script, script->life.persist->durable_seq);
	return true;
}

// Some writes, of which the commit at their end covers a random part.
static bool one_round(struct script *script)
{
	unsigned writes = (unsigned)script_pick(script, 30) + 1;
	unsigned covered =
		script_pick(script, 2) == 0 ? writes : (unsigned)script_pick(script, writes) + 1;
	script_write(script, covered);
	uint64_t position = life_published(&script->life);
	uint64_t seq = keyspace_last_seq(script->life.keyspace);
	script_write(script, writes - covered);
	if (script->faults.acknowledged_early) {
		promise(script, seq);
	}
	if (!script_commit(script, position)) {
		return false;
	}
	cleaner_turn(script->life.keyspace, seam_system.monotonic_ns());
	wrong = script;
	for (uint64_t i = script_pick(script, 3); i > 0 && life_compact_idle(&script->life); i--) {
	}
	wrong = NULL;
	return true;
}

void script_rare(const struct script *script, bool rare)
{
	if (script->record != NULL) {
		script->record->promise.rare = rare;
	}
}

static bool renew(struct script *script)
{
	struct persist *persist = script->life.persist;
	persist->untrusted = true;
	script_rare(script, true);
	if (persist_renew(persist) != STORE_OK) {
		return refused(script, "writing the store anew");
	}
	script_rare(script, false);
	kvs_store_release(&script->life.region.header->marks.durable_seq, persist->durable_seq);
	promise(script, persist->durable_seq);
	script->renewals++;
	return true;
}

// As kvd does it: everything is committed, then the word that this life ended in order.
static bool end_in_order(struct script *script)
{
	struct store *store = script->life.store;
	if (!script_commit(script, life_published(&script->life))) {
		return false;
	}
	if (store_begin(store) != STORE_OK ||
	    store_commit_last(store, keyspace_last_seq(script->life.keyspace)) != STORE_OK) {
		return refused(script, "the last commit");
	}
	return true;
}

bool script_begin(struct script *script)
{
	script->options.heeds_end = true;
	life_begin(&script->life, &script->options);
	struct store *store = script->life.store;
	if (script->record != NULL) {
		script->record->promise.submitted_seq = keyspace_last_seq(script->life.keyspace);
	}
	if (!script->faults.word_kept &&
	    (store_begin(store) != STORE_OK ||
	     store_commit(store, keyspace_durable_seq(script->life.keyspace)) != STORE_OK)) {
		return refused(script, "the first commit");
	}
	return true;
}

static bool one_life(struct script *script, unsigned number)
{
	script->options.policy = number % 3 == 0   ? PERSIST_LAZY
				 : number % 3 == 1 ? PERSIST_GROUP
						   : PERSIST_SYNC;
	script->options.ratio_percent = (uint32_t)(105 + script_pick(script, 150));
	script->options.floor_bytes = script_pick(script, 3) == 0 ? 0 : script_pick(script, 40000);
	bool good = script_begin(script);
	uint64_t renew_at = script_pick(script, 2) == 0 ? script_pick(script, ROUNDS) : ROUNDS;
	uint64_t backup_at = script_pick(script, 2) == 0 ? script_pick(script, ROUNDS) : ROUNDS;
	for (uint64_t i = 0; good && i < ROUNDS; i++) {
		good = (i != renew_at || renew(script)) &&
		       (i != backup_at || script_backup(script)) && one_round(script);
	}
	if (good && script_pick(script, 2) == 0) {
		good = end_in_order(script);
	}
	uint64_t durable_seq = script->life.persist->durable_seq;
	(void)life_end(&script->life);
	script_history_cut(&script->history, durable_seq);
	return good && (script_pick(script, 2) > 0 || script_restore(script));
}

void script_prepare(struct script *script, const char *root)
{
	script->root = root;
	(void)snprintf(script->eras[0].folder, SCRIPT_FOLDER_BYTES, "data");
	(void)snprintf(script->dir, sizeof(script->dir), "%s/data", root);
	script->options = (struct life_options){
		.dir = script->dir,
		.memory_bytes = 4u << 20,
		.segment_bytes = 64u << 10,
		.lazy_ms = 1,
		.lazy_bytes = 1u << 20,
	};
}

bool script_run(struct script *script, const char *root)
{
	script_prepare(script, root);
	for (unsigned number = 0; number < LIVES; number++) {
		if (!one_life(script, number)) {
			return false;
		}
	}
	return true;
}

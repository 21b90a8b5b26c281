// SPDX-License-Identifier: MIT
//
// A verification while kvd serves. Memory is read by this thread in short sections: every entry,
// its record and its value with their checksums, and whether a search finds the key. The store is
// read by a child, which is told beforehand which version of each key is durable, and says what it
// misses and what it has that it was not told of.
//
// Keys change meanwhile, so neither is a verdict. A version that is missed is damage if memory
// still has that very version when it is looked at again: it was durable before the child began,
// and what is current and durable is in the store throughout. A value that memory does not have may
// be one whose removal came later: it is damage if a second child, started after memory was seen
// without it, still finds it, unremoved; for a key leaves the table only when its removal is
// durable, and compaction drops a removal only when nothing older is left. FLUSHALL alone empties
// the table at once: what is older than one that was not durable when this began is no damage.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/job_verify.h"
#include "daemon/persist.h"
#include "daemon/seam.h"
#include "daemon/storage/verify.h"
#include "shm/atomics.h"
#include "shm/epoch.h"
#include "shm/table.h"

#define SECTION_BYTES (UINT64_C(1) << 20) // checked before a section ends
#define RUNS_MAX 4u
#define LINES_MAX 100000u // of one kind that are remembered

static uint64_t renewals(const struct job *job)
{
	return job->persist != NULL ? persist_renewals(job->persist) : 0;
}

// ---- memory ----

static bool send_expected(struct verification *v, const struct memory_look *look)
{
	size_t bytes = look->entries_count * sizeof(*look->entries);
	return v->child.pid == 0 || job_child_send(&v->child, look->entries, bytes);
}

static bool read_memory(struct verification *v)
{
	struct job *job = v->job;
	struct memory_look look;
	bool good = memory_look_begin(&look, job);
	while (good && !look.walk.done) {
		good = !job_must_stop(job) && memory_look_section(&look, v) &&
		       (send_expected(v, &look) ||
			job_fail(job, "the reader of the store ended before its time"));
		job_progress(job, v->memory_bytes);
	}
	memory_look_end(&look);
	return good;
}

// ---- what the child says ----

static bool unhex(const char *hex, unsigned char *key, size_t *key_bytes)
{
	size_t bytes = 0;
	unsigned value;
	for (; hex[0] != '\0' && hex[1] != '\0' && bytes < KVS_KEY_BYTES_MAX; hex += 2) {
		if (sscanf(hex, "%2x", &value) != 1) {
			return false;
		}
		key[bytes++] = (unsigned char)value;
	}
	*key_bytes = bytes;
	return hex[0] == '\0' && bytes > 0;
}

static void take_damage(struct verification *v, char *rest)
{
	char *block = strsep(&rest, " ");
	char *seq = strsep(&rest, " ");
	char *key = strsep(&rest, " ");
	if (key != NULL && rest != NULL) {
		verification_find(v, "store", strtoull(block, NULL, 10), strtoull(seq, NULL, 10),
				  strcmp(key, "-") != 0 ? key : "", rest);
	}
}

static void take_missing(struct verification *v, char *rest)
{
	unsigned long long hash;
	unsigned long long seq;
	struct verify_expected *grown;
	if (sscanf(rest, "%llu %llu", &hash, &seq) != 2 || v->missing_count >= LINES_MAX) {
		return;
	}
	grown = realloc(v->missing, (v->missing_count + 1) * sizeof(*grown));
	if (grown != NULL) {
		v->missing = grown;
		v->missing[v->missing_count++] = (struct verify_expected){ hash, seq };
	}
}

static void take_extra(struct verification *v, char *rest)
{
	char *hex = strsep(&rest, " ");
	if (rest == NULL || v->extras_count >= LINES_MAX) {
		return;
	}
	struct verify_extra *grown = realloc(v->extras, (v->extras_count + 1) * sizeof(*grown));
	char *copy = strdup(hex);
	if (grown != NULL) {
		v->extras = grown;
	}
	if (grown == NULL || copy == NULL) {
		free(copy);
		return;
	}
	v->extras[v->extras_count++] =
		(struct verify_extra){ .key_hex = copy, .seq = strtoull(rest, NULL, 10) };
}

static void take_line(void *context, char *line)
{
	struct verification *v = context;
	char *word = strsep(&line, " ");
	unsigned long long n[5];
	if (line == NULL) {
		return;
	}
	if (strcmp(word, "damage") == 0) {
		take_damage(v, line);
	} else if (strcmp(word, "missing") == 0) {
		take_missing(v, line);
	} else if (strcmp(word, "extra") == 0) {
		take_extra(v, line);
	} else if (strcmp(word, "failed") == 0) {
		(void)job_fail(v->job, "the store cannot be read: %s", line);
	} else if (strcmp(word, "damaged") == 0) {
		v->store_damaged = strtoull(line, NULL, 10);
	} else if (strcmp(word, "done") == 0 && sscanf(line, "%llu %llu %llu %llu %llu", &n[0],
						       &n[1], &n[2], &n[3], &n[4]) == 5) {
		v->store_done = true;
		v->store_blocks = n[0];
		v->store_records = n[1];
		v->store_bytes = n[2];
		v->store_keys = n[3];
	}
}

// ---- one against the other ----

static int by_hash(const void *a, const void *b)
{
	const struct verify_expected *x = a;
	const struct verify_expected *y = b;
	return x->hash < y->hash ? -1 : x->hash > y->hash;
}

// Of what the child missed: what memory still has.
static bool confirm_missing(struct verification *v)
{
	struct job *job = v->job;
	struct memory_look look;
	if (v->missing_count == 0) {
		return true;
	}
	qsort(v->missing, v->missing_count, sizeof(*v->missing), by_hash);
	bool good = memory_look_begin(&look, job);
	look.missing = v->missing;
	look.missing_count = v->missing_count;
	while (good && !look.walk.done) {
		good = !job_must_stop(job) && memory_look_section(&look, v);
	}
	memory_look_end(&look);
	return good;
}

// Was it removed by a FLUSHALL that the child may not have met?
static bool is_flushed(const struct job *job, uint64_t seq)
{
	const struct kvs_watermarks *marks = &kvs_map_header(job->walk.map)->marks;
	// Acquire: stored before the root without the key (partner: keyspace_publish_flush()).
	uint64_t flush_seq = kvs_load_acquire(&marks->flush_seq);
	return seq < flush_seq && flush_seq > job->durable_seq;
}

// Does memory have this key with this version, or a newer one, or its removal?
static bool memory_has(const struct job *job, const struct verify_extra *extra)
{
	unsigned char key[KVS_KEY_BYTES_MAX];
	size_t key_bytes;
	if (!unhex(extra->key_hex, key, &key_bytes)) {
		return true;
	}
	for (;;) {
		struct kvs_hit hit;
		if (!kvs_epoch_enter(job->walk.slot, job->walk.hot, job->walk.fenced)) {
			continue;
		}
		uint64_t hash = kvs_map_hash(job->walk.map, key, key_bytes);
		enum kvs_find_result found =
			kvs_table_find(job->walk.map, hash, key, key_bytes, &hit);
		bool has = found == KVS_FIND_HIT && hit.view.seq >= extra->seq;
		bool good = kvs_epoch_leave(job->walk.slot, job->walk.hot);
		if (good && (found == KVS_FIND_HIT || found == KVS_FIND_ABSENT)) {
			return has || is_flushed(job, extra->seq);
		}
		if (found == KVS_FIND_DAMAGED) {
			return true; // said already, by the walk
		}
	}
}

static bool was_seen(const struct verification *v, const struct verify_extra *extra)
{
	for (size_t i = 0; i < v->before_count; i++) {
		if (v->before[i].seq == extra->seq &&
		    strcmp(v->before[i].key_hex, extra->key_hex) == 0) {
			return true;
		}
	}
	return false;
}

static void extras_free(struct verify_extra *extras, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(extras[i].key_hex);
	}
	free(extras);
}

// Of what the child was not told of: what memory has not. What a second child finds, too, is
// damage. True if another run is needed.
static bool look_at_extras(struct verification *v, bool last)
{
	size_t kept = 0;
	for (size_t i = 0; i < v->extras_count; i++) {
		struct verify_extra *extra = &v->extras[i];
		if (memory_has(v->job, extra)) {
			free(extra->key_hex);
			continue;
		}
		if (was_seen(v, extra)) {
			verification_find(v, "store", 0, extra->seq, extra->key_hex,
					  "the store has a value that memory has not");
			v->store_damaged++;
		}
		v->extras[kept++] = *extra;
	}
	bool again = !last && kept > 0 && v->before == NULL;
	extras_free(v->before, v->before_count);
	v->before = v->extras;
	v->before_count = kept;
	v->extras = NULL;
	v->extras_count = 0;
	return again;
}

// ---- a run: memory, then the store ----

static void run_reset(struct verification *v)
{
	text_fini(&v->found);
	text_init(&v->found, JOB_RESULT_BYTES_MAX / 2);
	free(v->missing);
	extras_free(v->extras, v->extras_count);
	v->missing = NULL;
	v->extras = NULL;
	v->missing_count = v->extras_count = v->named = 0;
	v->keys = v->memory_bytes = v->large_values = v->memory_damaged = v->store_damaged = 0;
	v->store_done = false;
}

static bool run_store(struct verification *v)
{
	struct job *job = v->job;
	job_phase(job, JOB_READING_STORE, 0);
	int code = job_child_finish(&v->child);
	if (code == JOB_CHILD_CRASHED && !job_must_stop(job)) {
		// It died of what it read: that is the answer.
		verification_find(v, "store", 0, 0, "", job->error);
		job->error[0] = '\0';
		v->store_damaged++;
		return true;
	}
	if (code < 0 || code == VERIFY_FAILED || !v->store_done) {
		return job_fail(job, "what reads the store ended with exit code %d before it had",
				code);
	}
	job_phase(job, JOB_LOOKING_AGAIN, 0);
	return confirm_missing(v);
}

static bool run(struct verification *v)
{
	struct job *job = v->job;
	uint64_t total_bytes = kvs_load_relaxed(&job->total_bytes);
	run_reset(v);
	v->child = (struct job_child){ .job = job, .line = take_line, .context = v };
	bool store = job->store == JOB_STORE_GOOD;
	if (store && (!job_child_begin(&v->child, job->dir, "compare") ||
		      !job_child_send(&v->child, &job->hash_seed, sizeof(job->hash_seed)))) {
		return job_fail(job, "the reader of the store could not be started");
	}
	job_phase(job, JOB_READING_MEMORY, total_bytes);
	bool good = read_memory(v) && (!store || run_store(v));
	if (store && !good) {
		job_child_kill(&v->child);
	}
	return good;
}

static const char *remedy(const struct verification *v)
{
	bool has_store = v->job->store == JOB_STORE_GOOD;
	if (v->memory_damaged > 0 && has_store && v->store_damaged == 0) {
		return "the store is whole: stop kvd and start it, so that all is read from there";
	}
	if (v->memory_damaged > 0) {
		return "save the rest with kvctl dump, and restore a backup, or write anew what is "
		       "named";
	}
	if (v->store_damaged > 0) {
		return "memory is whole: kvd writes the store anew from it, at once; kvctl health "
		       "tells when that is done";
	}
	return NULL;
}

static void tell(struct verification *v)
{
	static const char *const stores[] = {
		[JOB_STORE_NONE] = "none",
		[JOB_STORE_GOOD] = "checked",
		[JOB_STORE_FAILED] = "failed",
	};
	struct job *job = v->job;
	double seconds = (double)(job->seam->monotonic_ns() - job->begun_ns) / 1e9;
	text_printf(&job->result,
		    "\"keys\":%llu,\"bytes\":%llu,\"large_values\":%llu,\"store\":\"%s\","
		    "\"store_blocks\":%llu,\"store_records\":%llu,\"store_bytes\":%llu,"
		    "\"store_keys\":%llu,\"seconds\":%.3f,\"damaged\":%llu,\"damage\":[",
		    (unsigned long long)v->keys, (unsigned long long)v->memory_bytes,
		    (unsigned long long)v->large_values, stores[job->store],
		    (unsigned long long)v->store_blocks, (unsigned long long)v->store_records,
		    (unsigned long long)v->store_bytes, (unsigned long long)v->store_keys, seconds,
		    (unsigned long long)(v->memory_damaged + v->store_damaged));
	if (v->found.bytes > 0) {
		text_add(&job->result, v->found.data, v->found.bytes);
	}
	text_printf(&job->result, "]");
	job->memory_damaged = v->memory_damaged;
	job->store_damaged = v->store_damaged;
	job->remedy = remedy(v);
	if (job->remedy != NULL) {
		text_printf(&job->result, ",\"remedy\":\"%s\"", job->remedy);
	}
}

bool job_verify(struct job *job)
{
	struct verification v = { .job = job };
	bool good = false;
	for (unsigned i = 0; i < RUNS_MAX; i++) {
		uint64_t before = renewals(job);
		good = run(&v);
		if (renewals(job) != before && !job_must_stop(job)) {
			job->error[0] = '\0'; // another store took its place meanwhile
			continue;
		}
		if (!good || !look_at_extras(&v, i + 1 == RUNS_MAX)) {
			break;
		}
	}
	if (good) {
		tell(&v);
	}
	run_reset(&v);
	extras_free(v.before, v.before_count);
	text_fini(&v.found);
	return good;
}

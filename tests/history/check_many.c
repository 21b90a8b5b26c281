// SPDX-License-Identifier: MIT
//
// What concerns several keys: the order of versions in time, snapshots, what a crash left; and the
// search for an order of each key, life by life.
#include <stdlib.h>
#include <string.h>

#include "tests/history/check_internal.h"

static int by_end(const void *a, const void *b)
{
	const struct check_write *x = a, *y = b;
	return x->end_ns < y->end_ns ? -1 : x->end_ns > y->end_ns;
}

static int by_begin(const void *a, const void *b)
{
	const struct check_write *x = a, *y = b;
	return x->begin_ns < y->begin_ns ? -1 : x->begin_ns > y->begin_ns;
}

bool check_version_order(struct check *c)
{
	size_t count = c->by_version_count, ended = 0;
	uint64_t highest = 0;
	struct check_write *begun = calloc(count + 1, 2 * sizeof(*begun));
	if (begun == NULL) {
		return false;
	}
	struct check_write *end = begun + count;
	if (count > 0) {
		memcpy(begun, c->by_version, count * sizeof(*begun));
		memcpy(end, c->by_version, count * sizeof(*begun));
	}
	qsort(begun, count, sizeof(*begun), by_begin);
	qsort(end, count, sizeof(*end), by_end);
	for (size_t i = 0; i < count; i++) {
		for (; ended < count && end[ended].end_ns < begun[i].begin_ns; ended++) {
			highest = end[ended].version > highest ? end[ended].version : highest;
		}
		if (begun[i].version < highest) {
			history_found(c->verdict, HISTORY_VERSION_ORDER,
				      "key %u got version %llu after %llu had been told",
				      begun[i].key, (unsigned long long)begun[i].version,
				      (unsigned long long)highest);
		}
	}
	free(begun);
	return true;
}

// ---- snapshots ----

// Of a value that is there; counters are not followed.
static uint64_t commit_of(const struct check *c, uint16_t key, uint64_t value)
{
	const struct check_write *write =
		check_is_counter(key) || value == 0 ? NULL : check_find(c, key, value);
	return write != NULL ? write->commit : 0;
}

static void check_family(struct check *c, const struct history_event *const *items, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		const struct history_event *a = items[i - 1], *b = items[i];
		bool alike = a->key >= HISTORY_FAMILY_FIRST && b->key >= HISTORY_FAMILY_FIRST &&
			     (a->key - HISTORY_FAMILY_FIRST) / HISTORY_FAMILY_KEYS ==
				     (b->key - HISTORY_FAMILY_FIRST) / HISTORY_FAMILY_KEYS;
		if (alike && a->value != b->value) {
			history_found(c->verdict, HISTORY_BATCH_TORN,
				      "client %u saw %llx of key %u and %llx of key %u at once",
				      a->client, (unsigned long long)a->value, a->key,
				      (unsigned long long)b->value, b->key);
		}
	}
}

static void check_moment(struct check *c, const struct history_event *const *items, size_t count)
{
	uint64_t seen = 0;
	for (size_t i = 0; i < count; i++) {
		if (check_in_crash(c, items[i]) || items[i]->result > HISTORY_ABSENT ||
		    items[i]->result == HISTORY_OPEN) {
			return;
		}
		uint64_t commit = commit_of(c, items[i]->key, items[i]->value);
		seen = commit > seen ? commit : seen;
	}
	check_family(c, items, count);
	for (size_t i = 0; i < count; i++) {
		const struct history_event *e = items[i];
		uint64_t commit = commit_of(c, e->key, e->value);
		if (check_is_counter(e->key) ||
		    (commit == 0 && (e->value != 0 || c->deleted[e->key]))) {
			continue; // not known since when
		}
		const struct check_write *next =
			check_next(c, e->key, check_life(c, e->begin_ns), commit);
		if (next != NULL && next->commit <= seen) {
			history_found(c->verdict, HISTORY_SNAPSHOT_TORN,
				      "client %u saw %llu of key %u, not %llu, beside %llu",
				      e->client, (unsigned long long)commit, e->key,
				      (unsigned long long)next->commit, (unsigned long long)seen);
		}
	}
}

static int by_group(const void *a, const void *b)
{
	const struct history_event *x = *(const struct history_event *const *)a;
	const struct history_event *y = *(const struct history_event *const *)b;
	if (x->client != y->client) {
		return x->client < y->client ? -1 : 1;
	}
	if (x->group != y->group) {
		return x->group < y->group ? -1 : 1;
	}
	return (int)x->key - (int)y->key;
}

bool check_snapshots(struct check *c)
{
	const struct history_event **item = calloc(c->count + 1, sizeof(*item));
	size_t count = 0;
	if (item == NULL) {
		return false;
	}
	for (size_t i = 0; i < c->count; i++) {
		if (c->events[i].kind == HISTORY_SNAPSHOT) {
			item[count++] = &c->events[i];
		}
	}
	qsort(item, count, sizeof(*item), by_group);
	for (size_t first = 0, i = 1; i <= count; i++) {
		if (i == count || item[i]->client != item[first]->client ||
		    item[i]->group != item[first]->group) {
			check_moment(c, item + first, i - first);
			first = i;
		}
	}
	free(item);
	return true;
}

// ---- crashes ----

// The highest version that had to survive the end of this life, and a time by which writes that
// had ended then had to.
static uint64_t promised(struct check *c, uint32_t life, uint64_t *since_ns)
{
	uint64_t version = 0, begin_ns = 0;
	memset(c->disclaimed_ns, 0, sizeof(c->disclaimed_ns));
	for (size_t i = 0; i < c->count; i++) {
		const struct history_event *sync = &c->events[i];
		if (sync->kind == HISTORY_SYNC && sync->result != HISTORY_OK) {
			c->disclaimed_ns[sync->client] = sync->end_ns; // it vouches for nothing
		}
		if (sync->kind != HISTORY_SYNC || sync->result != HISTORY_OK ||
		    c->policy != HISTORY_LAZY || check_life(c, sync->begin_ns) != life) {
			continue;
		}
		for (size_t j = 0; j < c->by_version_count; j++) {
			const struct check_write *w = &c->by_version[j];
			if (w->client == sync->client && w->acknowledged && w->life == life &&
			    w->end_ns <= sync->begin_ns && w->version > version &&
			    w->begin_ns >= c->disclaimed_ns[w->client]) {
				version = w->version;
				begin_ns = w->begin_ns;
			}
		}
	}
	for (size_t j = 0; j < c->by_version_count && c->policy >= HISTORY_GROUP; j++) {
		const struct check_write *w = &c->by_version[j];
		bool counts = w->acknowledged && w->life == life;
		version = counts && w->version > version ? w->version : version;
	}
	*since_ns = c->policy >= HISTORY_GROUP ? c->crash[life].begin_ns : begin_ns;
	return version;
}

// What is left is what one moment had, not before what was promised.
static void check_crash_cut(struct check *c, uint32_t life, uint64_t promise)
{
	const struct check_crash *crash = &c->crash[life];
	uint64_t cut = promise;
	for (uint16_t key = 0; key < HISTORY_KEYS; key++) {
		const struct check_write *w = check_is_counter(key) || crash->key[key].value == 0
						      ? NULL
						      : check_find(c, key, crash->key[key].value);
		if (w != NULL && w->life == life && w->commit > cut) {
			cut = w->commit;
		}
	}
	for (uint16_t key = 0; key < HISTORY_KEYS; key++) {
		uint64_t commit = commit_of(c, key, crash->key[key].value);
		if (!crash->key[key].told || check_is_counter(key) ||
		    (commit == 0 && (crash->key[key].value != 0 || c->deleted[key]))) {
			continue;
		}
		const struct check_write *next = check_next(c, key, life, commit);
		if (next != NULL && next->commit <= cut) {
			history_found(c->verdict,
				      next->commit <= promise ? HISTORY_LOST : HISTORY_NOT_PREFIX,
				      "crash %u left %llu of key %u, not %llu; %llu was promised, "
				      "%llu is there",
				      life, (unsigned long long)commit, key,
				      (unsigned long long)next->commit, (unsigned long long)promise,
				      (unsigned long long)cut);
		}
	}
}

bool check_crashes(struct check *c)
{
	for (uint32_t life = 0; life < c->crashes; life++) {
		for (uint16_t key = HISTORY_FAMILY_FIRST + 1; key < HISTORY_KEYS; key++) {
			if ((key - HISTORY_FAMILY_FIRST) % HISTORY_FAMILY_KEYS != 0 &&
			    c->crash[life].key[key].value != c->crash[life].key[key - 1].value) {
				history_found(c->verdict, HISTORY_BATCH_TORN,
					      "crash %u left part of a batch at key %u", life, key);
			}
		}
		uint64_t since_ns;
		if (c->policy != HISTORY_MEMORY) {
			check_crash_cut(c, life, promised(c, life, &since_ns));
		}
	}
	return true;
}

// ---- each key ----

// Reads around a crash belong to the life before it, unless they may have seen what came after.
static bool read_counts(const struct check *c, const struct history_event *e)
{
	if (e->result != HISTORY_OK && e->result != HISTORY_ABSENT) {
		return false;
	}
	if (!check_in_crash(c, e)) {
		return true;
	}
	const struct check_crash *crash = &c->crash[check_life(c, e->begin_ns)];
	return e->end_ns <= crash->end_ns && e->value != crash->key[e->key].value;
}

// What it was told may have come from a write that was visible and not yet durable.
static bool only_looks(const struct history_event *e)
{
	return check_is_read(e) || e->result == HISTORY_NOT_APPLIED ||
	       (e->kind == HISTORY_DELETE && e->result == HISTORY_ABSENT);
}

static size_t take_key(const struct check *c, uint16_t key, uint32_t life, bool reads,
		       struct history_operation *out)
{
	size_t count = 0;
	for (size_t i = 0; i < c->count; i++) {
		const struct history_event *e = &c->events[i];
		bool read = check_is_read(e);
		if (e->key != key || e->kind >= HISTORY_SYNC || e->result == HISTORY_FAILED ||
		    e->result == HISTORY_BROKEN || check_life(c, e->begin_ns) != life ||
		    (read && !read_counts(c, e)) || (!reads && only_looks(e))) {
			continue;
		}
		out[count++] = (struct history_operation){
			.begin_ns = e->begin_ns,
			.end_ns = e->result == HISTORY_OPEN ? UINT64_MAX : e->end_ns,
			.value = e->value,
			.version = e->value != 0 ? check_version(c, e) : 0,
			.expected = e->expected,
			.kind = read ? HISTORY_READ : e->kind,
			.result = e->result,
		};
	}
	return count;
}

static void judge_key(struct check *c, uint16_t key, uint32_t life, int found,
		      enum history_anomaly anomaly)
{
	if (found != 1) {
		history_found(c->verdict, found < 0 ? HISTORY_UNDECIDED : anomaly,
			      "key %u in life %u", key, life);
	}
}

// After a crash the key is as it was at some moment not before what was promised.
static void check_left(struct check *c, uint16_t key, uint32_t life, uint64_t value,
		       uint64_t version, struct history_operation *operations)
{
	uint64_t since_ns;
	size_t count = take_key(c, key, life, false, operations);
	(void)promised(c, life, &since_ns);
	size_t at = count;
	for (; at > 0 && operations[at - 1].begin_ns > since_ns; at--) {
		operations[at] = operations[at - 1];
	}
	uint64_t left = c->crash[life].key[key].value;
	operations[at] = (struct history_operation){
		.begin_ns = since_ns,
		.end_ns = UINT64_MAX - 1,
		.value = left,
		.version = left != 0 ? c->crash[life].key[key].version : 0,
		.kind = HISTORY_READ,
		.result = left != 0 ? HISTORY_OK : HISTORY_ABSENT,
	};
	judge_key(c, key, life,
		  history_key_linear(operations, count + 1, value, version, &c->verdict->steps),
		  HISTORY_LOST);
}

bool check_keys(struct check *c)
{
	struct history_operation *operations = calloc(c->count + 2, sizeof(*operations));
	if (operations == NULL) {
		return false;
	}
	for (uint16_t key = 0; key < HISTORY_KEYS; key++) {
		uint64_t value = 0, version = 0;
		for (uint32_t life = 0; life <= c->crashes; life++) {
			size_t count = take_key(c, key, life, true, operations);
			judge_key(c, key, life,
				  history_key_linear(operations, count, value, version,
						     &c->verdict->steps),
				  HISTORY_NOT_LINEAR);
			if (life == c->crashes || !c->crash[life].key[key].told) {
				break; // nothing is known of what follows
			}
			if (c->policy != HISTORY_MEMORY) {
				check_left(c, key, life, value, version, operations);
			}
			value = c->crash[life].key[key].value;
			version = c->crash[life].key[key].version;
		}
	}
	free(operations);
	return true;
}

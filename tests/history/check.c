// SPDX-License-Identifier: MIT
//
// The writes of a history by what they wrote and by their versions, and what follows from those at
// once: no version is used twice, and they rise with time.
#include "tests/history/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/history/check_internal.h"

const char *history_anomaly_name(enum history_anomaly anomaly)
{
	static const char *const name[HISTORY_ANOMALIES_COUNT] = {
		[HISTORY_FINE] = "fine",
		[HISTORY_TORN] = "a value that nobody wrote",
		[HISTORY_VERSION_REUSED] = "a version used twice",
		[HISTORY_VERSION_ORDER] = "versions against time",
		[HISTORY_WENT_BACK] = "a reader went back",
		[HISTORY_NOT_LINEAR] = "no order explains a key",
		[HISTORY_SNAPSHOT_TORN] = "a snapshot of no moment",
		[HISTORY_BATCH_TORN] = "part of a batch",
		[HISTORY_LOST] = "lost by a crash",
		[HISTORY_NOT_PREFIX] = "later writes without earlier ones",
		[HISTORY_UNDECIDED] = "not decided",
	};
	return name[anomaly];
}

void history_found(struct history_verdict *verdict, enum history_anomaly anomaly, const char *text,
		   ...)
{
	verdict->found[anomaly]++;
	if (verdict->anomalies++ == 0) {
		int length = snprintf(verdict->first, sizeof(verdict->first),
				      "%s: ", history_anomaly_name(anomaly));
		va_list arguments;
		va_start(arguments, text);
		(void)vsnprintf(verdict->first + length, sizeof(verdict->first) - (size_t)length,
				text, arguments);
		va_end(arguments);
	}
}

static int compare(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static int by_begin(const void *a, const void *b)
{
	return compare(((const struct history_event *)a)->begin_ns,
		       ((const struct history_event *)b)->begin_ns);
}

static int by_value(const void *a, const void *b)
{
	const struct check_write *x = a, *y = b;
	int order = compare(x->key, y->key);
	return order != 0 ? order : compare(x->value, y->value);
}

static int by_commit(const void *a, const void *b)
{
	const struct check_write *x = a, *y = b;
	int order = compare(x->key, y->key);
	order = order != 0 ? order : compare(x->life, y->life);
	return order != 0 ? order : compare(x->commit, y->commit);
}

struct check_write *check_find(const struct check *c, uint16_t key, uint64_t value)
{
	struct check_write wanted = { .key = key, .value = value };
	return c->writes_count == 0
		       ? NULL
		       : bsearch(&wanted, c->writes, c->writes_count, sizeof(wanted), by_value);
}

const struct check_write *check_next(const struct check *c, uint16_t key, uint32_t life,
				     uint64_t commit)
{
	struct check_write wanted = { .key = key, .life = life, .commit = commit + 1 };
	size_t low = 0, high = c->by_version_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (by_commit(&c->by_version[middle], &wanted) < 0) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	const struct check_write *at = &c->by_version[low];
	return low < c->by_version_count && at->key == key && at->life == life ? at : NULL;
}

uint64_t check_version(const struct check *c, const struct history_event *e)
{
	if (e->version != 0 || check_is_counter(e->key)) {
		return e->version;
	}
	const struct check_write *write = check_find(c, e->key, e->value);
	return write != NULL ? write->version : 0;
}

static void take_crashes(struct check *c)
{
	for (size_t i = 0; i < c->count; i++) {
		const struct history_event *e = &c->events[i];
		if (e->kind == HISTORY_CRASH && c->crashes < CHECK_CRASHES_MAX) {
			c->crash[c->crashes].begin_ns = e->begin_ns;
			c->crash[c->crashes++].end_ns = e->end_ns;
		} else if (e->kind == HISTORY_RECOVERED && e->group < CHECK_CRASHES_MAX) {
			c->crash[e->group].key[e->key].value = e->value;
			c->crash[e->group].key[e->key].version = e->version;
			c->crash[e->group].key[e->key].told = true;
		}
	}
}

static bool writes_a_value(const struct history_event *e)
{
	bool sets =
		e->kind == HISTORY_SET || e->kind == HISTORY_SWAP || e->kind == HISTORY_BATCH_SET;
	return sets && (e->result == HISTORY_OK || e->result == HISTORY_OPEN);
}

static bool take_writes(struct check *c)
{
	c->writes = calloc(c->count + 1, sizeof(*c->writes));
	c->by_version = calloc(c->count + 1, sizeof(*c->by_version));
	if (c->writes == NULL || c->by_version == NULL) {
		return false;
	}
	for (size_t i = 0; i < c->count; i++) {
		const struct history_event *e = &c->events[i];
		c->deleted[e->key] = c->deleted[e->key] || e->kind == HISTORY_DELETE ||
				     e->kind == HISTORY_BATCH_DELETE;
		if (writes_a_value(e)) {
			c->writes[c->writes_count++] = (struct check_write){
				.value = e->value,
				.version = e->version,
				.begin_ns = e->begin_ns,
				.end_ns = e->result == HISTORY_OK ? e->end_ns : UINT64_MAX,
				.life = check_life(c, e->begin_ns),
				.client = e->client,
				.key = e->key,
				.acknowledged = e->result == HISTORY_OK,
			};
		}
	}
	qsort(c->writes, c->writes_count, sizeof(*c->writes), by_value);
	return true;
}

// A read tells the version of what it read.
static void learn(struct check *c, const struct history_event *e)
{
	struct check_write *write = check_find(c, e->key, e->value);
	if (write == NULL) {
		history_found(c->verdict, HISTORY_TORN,
			      "client %u read %llx, version %llu, of key %u", e->client,
			      (unsigned long long)e->value, (unsigned long long)e->version, e->key);
	} else if (write->version == 0) {
		write->version = e->version;
	} else if (e->version != 0 && write->version != e->version) {
		history_found(c->verdict, HISTORY_VERSION_REUSED,
			      "value %llx of key %u has the versions %llu and %llu",
			      (unsigned long long)e->value, e->key,
			      (unsigned long long)write->version, (unsigned long long)e->version);
	}
}

static void take_reads(struct check *c)
{
	for (size_t i = 0; i < c->count; i++) {
		const struct history_event *e = &c->events[i];
		if (e->result == HISTORY_BROKEN) {
			history_found(c->verdict, HISTORY_TORN, "client %u, key %u, version %llu",
				      e->client, e->key, (unsigned long long)e->version);
		} else if ((check_is_read(e) || e->kind == HISTORY_RECOVERED) &&
			   e->result == HISTORY_OK && !check_is_counter(e->key)) {
			learn(c, e);
		}
	}
}

static void take_commits(struct check *c)
{
	for (size_t i = 0; i < c->writes_count; i++) {
		struct check_write *write = &c->writes[i];
		write->commit = write->version;
		for (unsigned j = 0; write->key >= HISTORY_FAMILY_FIRST && j < HISTORY_FAMILY_KEYS;
		     j++) {
			unsigned family = (write->key - HISTORY_FAMILY_FIRST) / HISTORY_FAMILY_KEYS;
			uint16_t key =
				(uint16_t)(HISTORY_FAMILY_FIRST + family * HISTORY_FAMILY_KEYS + j);
			const struct check_write *other = check_find(c, key, write->value);
			if (other != NULL && other->version > write->commit) {
				write->commit = other->version;
			}
		}
	}
	for (size_t i = 0; i < c->writes_count; i++) {
		if (c->writes[i].version != 0) {
			c->by_version[c->by_version_count++] = c->writes[i];
		}
	}
	qsort(c->by_version, c->by_version_count, sizeof(*c->by_version), by_commit);
}

static int by_event_version(const void *a, const void *b)
{
	return compare((*(const struct history_event *const *)a)->version,
		       (*(const struct history_event *const *)b)->version);
}

// Whoever was told of a version was told the same of it.
static bool check_versions_once(struct check *c)
{
	const struct history_event **told = calloc(c->count + 1, sizeof(*told));
	size_t count = 0;
	if (told == NULL) {
		return false;
	}
	for (size_t i = 0; i < c->count; i++) {
		if (c->events[i].version != 0 && c->events[i].result == HISTORY_OK) {
			told[count++] = &c->events[i];
		}
	}
	qsort(told, count, sizeof(*told), by_event_version);
	for (size_t i = 1; i < count; i++) {
		const struct history_event *a = told[i - 1], *b = told[i];
		if (a->version == b->version && (a->key != b->key || a->value != b->value)) {
			history_found(c->verdict, HISTORY_VERSION_REUSED,
				      "version %llu is key %u's %llx and key %u's %llx",
				      (unsigned long long)a->version, a->key,
				      (unsigned long long)a->value, b->key,
				      (unsigned long long)b->value);
		}
	}
	free(told);
	return true;
}

// What one client saw of each key never grows older, until a crash.
static void check_monotonic(struct check *c, uint32_t client)
{
	struct {
		uint64_t version, end_ns;
		uint32_t life;
	} last[HISTORY_KEYS];
	memset(last, 0, sizeof(last));
	for (size_t i = 0; i < c->count; i++) {
		const struct history_event *e = &c->events[i];
		if (e->client != client || !check_is_read(e) || e->result != HISTORY_OK ||
		    check_in_crash(c, e)) {
			continue;
		}
		uint64_t version = check_version(c, e);
		uint32_t life = check_life(c, e->begin_ns);
		if (version < last[e->key].version && last[e->key].life == life &&
		    last[e->key].end_ns <= e->begin_ns && version != 0) {
			history_found(c->verdict, HISTORY_WENT_BACK,
				      "client %u saw version %llu of key %u, then %llu", client,
				      (unsigned long long)last[e->key].version, e->key,
				      (unsigned long long)version);
		}
		if (version != 0) {
			last[e->key].version = version;
			last[e->key].end_ns = e->end_ns;
			last[e->key].life = life;
		}
	}
}

bool history_check(struct history_event *events, size_t count, enum history_policy policy,
		   struct history_verdict *verdict)
{
	memset(verdict, 0, sizeof(*verdict));
	struct check *c = calloc(1, sizeof(*c));
	if (c == NULL) {
		return false;
	}
	c->events = events;
	c->count = count;
	c->policy = policy;
	c->verdict = verdict;
	verdict->operations = count;
	qsort(events, count, sizeof(*events), by_begin);
	take_crashes(c);
	bool good = take_writes(c);
	if (good) {
		take_reads(c);
		take_commits(c);
		for (uint32_t client = 0; client < HISTORY_CLIENTS_MAX; client++) {
			check_monotonic(c, client);
		}
	}
	good = good && check_versions_once(c) && check_version_order(c) && check_snapshots(c) &&
	       check_crashes(c) && check_keys(c);
	free(c->writes);
	free(c->by_version);
	free(c);
	return good;
}

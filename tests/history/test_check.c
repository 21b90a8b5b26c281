// SPDX-License-Identifier: MIT
//
// The checker itself: histories that are wrong by construction, each in one way, and the same
// without that are right. A checker that finds nothing is worth nothing.
#include <stdlib.h>
#include <string.h>

#include "tests/history/check.h"
#include "tests/tap/tap.h"

#define EVENTS_MAX 64u
#define FAMILY HISTORY_FAMILY_FIRST
#define COUNTER HISTORY_COUNTER_FIRST

struct story {
	struct history_event event[EVENTS_MAX];
	size_t count;
};

// An event of `client`: kind, key, from, to, value, version.
static struct history_event *tell(struct story *s, unsigned client, enum history_kind kind,
				  unsigned key, uint64_t from, uint64_t to, uint64_t value,
				  uint64_t version)
{
	struct history_event *e = &s->event[s->count++];
	*e = (struct history_event){ .begin_ns = from,
				     .end_ns = to,
				     .value = value,
				     .version = version,
				     .client = client,
				     .key = (uint16_t)key,
				     .kind = (uint8_t)kind,
				     .result = HISTORY_OK };
	bool looks = kind == HISTORY_READ || kind == HISTORY_SNAPSHOT || kind == HISTORY_RECOVERED;
	if (looks && value == 0) {
		e->result = HISTORY_ABSENT;
	}
	return e;
}

static void open_write(struct history_event *e)
{
	e->result = HISTORY_OPEN;
	e->end_ns = 0;
	e->version = 0;
}

// A snapshot's items have its group.
static void snap(struct story *s, unsigned client, unsigned key, uint64_t from, uint64_t value,
		 uint64_t version)
{
	tell(s, client, HISTORY_SNAPSHOT, key, from, from + 1, value, version)->group =
		(uint32_t)from;
}

static void batch(struct story *s, unsigned client, unsigned family, uint64_t from, uint64_t value)
{
	for (unsigned i = 0; i < HISTORY_FAMILY_KEYS; i++) {
		tell(s, client, value ? HISTORY_BATCH_SET : HISTORY_BATCH_DELETE,
		     FAMILY + family * HISTORY_FAMILY_KEYS + i, from, from + 5, value, 0)
			->group = (uint32_t)from;
	}
}

// A crash without the region, after which `key` is `value` and all others are absent.
static void crash(struct story *s, uint32_t number, uint64_t from, uint64_t to, unsigned key,
		  uint64_t value, uint64_t version)
{
	for (unsigned i = 0; i < HISTORY_KEYS; i++) {
		struct history_event *e = &s->event[s->count];
		if (i == key || (number == 0 && i < 3)) {
			tell(s, 0, HISTORY_RECOVERED, i, to - 2, to - 1, i == key ? value : 0,
			     i == key ? version : 0);
			e->group = number;
		}
	}
	tell(s, 0, HISTORY_CRASH, 0, from, to, 0, 0)->group = number;
}

static void expect(struct story *s, enum history_policy policy, enum history_anomaly anomaly,
		   const char *name)
{
	struct history_verdict v;
	if (!history_check(s->event, s->count, policy, &v)) {
		ok(false, "memory for %s", name);
	} else if (anomaly == HISTORY_FINE) {
		ok(v.anomalies == 0, "right: %s (%s)", name, v.first);
	} else {
		ok(v.found[anomaly] > 0, "wrong: %s is found (%s)", name, v.first);
	}
	s->count = 0;
}

static void versions(struct story *s)
{
	for (int wrong = 0; wrong < 2; wrong++) {
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 2, HISTORY_SET, 1, 3, 4, 12, wrong ? 5 : 6);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_VERSION_REUSED : HISTORY_FINE,
		       "a version used twice");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 2, HISTORY_READ, 0, 3, 4, 11, wrong ? 6 : 5);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_VERSION_REUSED : HISTORY_FINE,
		       "one write with two versions");
		tell(s, 1, HISTORY_SET, 0, 1, wrong ? 2 : 4, 11, 5);
		tell(s, 2, HISTORY_SET, 1, 3, 4, 12, 4);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_VERSION_ORDER : HISTORY_FINE,
		       "a later write with a lower version");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 2, HISTORY_READ, 0, 3, 4, wrong ? 99 : 11, 5);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_TORN : HISTORY_FINE,
		       "a value that nobody wrote");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 2, HISTORY_READ, 0, 3, 4, 11, 5)->result =
			wrong ? HISTORY_BROKEN : HISTORY_OK;
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_TORN : HISTORY_FINE, "a torn value");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 1, HISTORY_SET, 0, 3, 20, 12, 6);
		tell(s, 2, HISTORY_READ, 0, 4, 5, wrong ? 12 : 11, 0);
		tell(s, 2, HISTORY_READ, 0, 6, 7, wrong ? 11 : 12, 0);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_WENT_BACK : HISTORY_FINE,
		       "a reader that goes back");
	}
}

static void linear(struct story *s)
{
	for (int wrong = 0; wrong < 2; wrong++) {
		enum history_anomaly anomaly = wrong ? HISTORY_NOT_LINEAR : HISTORY_FINE;
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 1, HISTORY_SET, 0, 3, 4, 12, 6);
		tell(s, 2, HISTORY_READ, 0, wrong ? 5 : 3, 6, 11, 5);
		expect(s, HISTORY_MEMORY, anomaly, "a read of what was overwritten");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 2, HISTORY_READ, 0, wrong ? 3 : 1, 6, 0, 0);
		expect(s, HISTORY_MEMORY, anomaly, "a key that is missed");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 1, HISTORY_DELETE, 0, 3, 4, 0, 0);
		tell(s, 2, HISTORY_READ, 0, wrong ? 5 : 2, 6, 11, 5);
		expect(s, HISTORY_MEMORY, anomaly, "a key that comes back");
		tell(s, 1, HISTORY_SET, 0, 4, 6, 11, 5);
		tell(s, 2, HISTORY_READ, 0, 1, wrong ? 3 : 5, 11, 5);
		expect(s, HISTORY_MEMORY, anomaly, "a value before it was written");
		tell(s, 1, HISTORY_INCREMENT, COUNTER, 1, 2, 1, 0);
		tell(s, 2, HISTORY_INCREMENT, COUNTER, 3, 4, wrong ? 1 : 2, 0);
		expect(s, HISTORY_MEMORY, anomaly, "an increment that is lost");
		tell(s, 1, HISTORY_INCREMENT, COUNTER, 1, 2, 1, 0);
		open_write(tell(s, 3, HISTORY_INCREMENT, COUNTER, 2, 0, 0, 0));
		tell(s, 2, HISTORY_INCREMENT, COUNTER, 3, 4, wrong ? 4 : 3, 0);
		expect(s, HISTORY_MEMORY, anomaly, "an open increment applied twice");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 2, HISTORY_SET, 0, 3, 4, 12, 6);
		tell(s, 1, HISTORY_SWAP, 0, 5, 6, 13, 7)->expected = wrong ? 5 : 6;
		expect(s, HISTORY_MEMORY, anomaly, "a swap against its condition");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 1, HISTORY_SWAP, 0, 5, 6, 13, 0)->expected = wrong ? 5 : 4;
		s->event[1].result = HISTORY_NOT_APPLIED;
		expect(s, HISTORY_MEMORY, anomaly, "a swap refused though it fits");
		open_write(tell(s, 1, HISTORY_SET, 0, 1, 0, 11, 0));
		tell(s, 2, HISTORY_READ, 0, 3, 4, 11, 5);
		tell(s, 3, HISTORY_READ, 0, 5, 6, wrong ? 0 : 11, wrong ? 0 : 5);
		expect(s, HISTORY_MEMORY, anomaly, "an open write seen and gone");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5)->result =
			wrong ? HISTORY_FAILED : HISTORY_OPEN;
		tell(s, 2, HISTORY_DELETE, 0, 3, 4, 0, 0);
		expect(s, HISTORY_MEMORY, anomaly, "a removal of what was never there");
	}
}

static void many(struct story *s)
{
	for (int wrong = 0; wrong < 2; wrong++) {
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 1, HISTORY_SET, 0, 3, 30, 12, 6);
		tell(s, 1, HISTORY_SET, 1, 4, 30, 13, 7);
		snap(s, 2, 0, 10, wrong ? 11 : 12, 0);
		snap(s, 2, 1, 10, 13, 7);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_SNAPSHOT_TORN : HISTORY_FINE,
		       "a snapshot of no moment");
		tell(s, 1, HISTORY_SET, 0, 3, 30, 12, 6);
		tell(s, 1, HISTORY_SET, 1, 4, 30, 13, 7);
		snap(s, 2, 0, 10, wrong ? 0 : 12, 0);
		snap(s, 2, 1, 10, 13, 7);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_SNAPSHOT_TORN : HISTORY_FINE,
		       "a snapshot that misses a key");
		batch(s, 1, 0, 1, 21);
		batch(s, 1, 0, 10, 22);
		snap(s, 2, FAMILY, 12, 22, 0);
		snap(s, 2, FAMILY + 1, 12, wrong ? 21 : 22, 0);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_BATCH_TORN : HISTORY_FINE,
		       "half a batch");
		batch(s, 1, 0, 1, 21);
		batch(s, 1, 0, 10, 0);
		snap(s, 2, FAMILY, 12, 0, 0);
		snap(s, 2, FAMILY + 1, 12, wrong ? 21 : 0, 0);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_BATCH_TORN : HISTORY_FINE,
		       "half a batch of removals");
	}
}

static void crashes(struct story *s)
{
	for (int wrong = 0; wrong < 2; wrong++) {
		enum history_anomaly lost = wrong ? HISTORY_LOST : HISTORY_FINE;
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 1, HISTORY_SET, 0, 3, 4, 12, 6);
		crash(s, 0, 10, 20, 0, wrong ? 11 : 12, wrong ? 5 : 6);
		expect(s, HISTORY_GROUP, lost, "an acknowledged write lost under group");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 1, HISTORY_SYNC, 0, 3, 4, 0, 0);
		tell(s, 1, HISTORY_SET, 0, 5, 6, 12, 6);
		crash(s, 0, 10, 20, 0, wrong ? 0 : 11, wrong ? 0 : 5);
		expect(s, HISTORY_LAZY, lost, "what a sync vouched for");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 1, HISTORY_DELETE, 0, 3, 4, 0, 0);
		crash(s, 0, 10, 20, 0, wrong ? 11 : 0, wrong ? 5 : 0);
		expect(s, HISTORY_GROUP, lost, "an acknowledged removal lost under group");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		tell(s, 1, HISTORY_SET, 1, 3, 4, 12, 6);
		crash(s, 0, 10, 20, 1, wrong ? 12 : 0, wrong ? 6 : 0);
		expect(s, HISTORY_LAZY, wrong ? HISTORY_NOT_PREFIX : HISTORY_FINE,
		       "a later write without an earlier one");
		batch(s, 1, 0, 1, 21);
		crash(s, 0, 10, 20, wrong ? FAMILY : 0, wrong ? 21 : 0, 0);
		expect(s, HISTORY_LAZY, wrong ? HISTORY_BATCH_TORN : HISTORY_FINE,
		       "half a batch after a crash");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		crash(s, 0, 10, 20, 0, 0, 0);
		tell(s, 1, HISTORY_SET, 0, 21, 22, 12, wrong ? 5 : 6);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_VERSION_REUSED : HISTORY_FINE,
		       "a version of an earlier life");
		tell(s, 1, HISTORY_SET, 0, 1, 2, 11, 5);
		crash(s, 0, 10, 20, 0, 0, 0);
		tell(s, 2, HISTORY_READ, 0, wrong ? 21 : 15, wrong ? 22 : 16, 11, 5);
		expect(s, HISTORY_MEMORY, wrong ? HISTORY_NOT_LINEAR : HISTORY_FINE,
		       "the old region read after the new one served");
	}
}

int main(void)
{
	struct story *story = calloc(1, sizeof(*story));
	if (story == NULL) {
		printf("Bail out! no memory\n");
		return 99;
	}
	versions(story);
	linear(story);
	many(story);
	crashes(story);
	free(story);
	return tap_done();
}

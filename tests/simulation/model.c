// SPDX-License-Identifier: MIT
//
// What the keys must be: a map with a history. Each change remembers what it replaced and the
// versions it took, so that after a crash the map goes back to exactly what the disk promised. What
// time does by itself cannot be predicted, only judged: a key whose time has come may be gone or
// not, and kvd's table tells which.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace.h"
#include "daemon/kvd.h"
#include "daemon/persist.h"
#include "shm/table.h"
#include "tests/simulation/model.h"
#include "tests/simulation/sim.h"

#define FILLER "filler:"

/// A key as it was before a change.
struct past {
	unsigned index;
	struct sim_key key;
	uint64_t before, seq; // versions of the command: above the one, up to the other
};

/// What a reader saw in the middle of a command that was not there before.
struct sight {
	unsigned index;
	const struct sim_value *value;
};

static struct sim_key keys[SIM_KEYS_MAX + SIM_FILLERS]; // fillers stand behind the plan's keys
static struct past *history;
static size_t history_count, history_room;
static size_t history_open; // from here on the versions are not known yet
static uint64_t changes;
static uint64_t last_seq;
static struct sight sights[64];
static unsigned sights_count;
static unsigned leaving;	     // index + 1 of the key that is being evicted, 0 = none
static uint64_t commands_begun;	     // or tried again
static struct sim_client cut_client; // as it was when its command began
static struct {
	struct sim_client *client; // NULL = none
	const struct sim_request *request;
	uint64_t now_ms;
	uint64_t before;
} pending;

void sim_model_begin(void)
{
	for (unsigned i = 0; i < SIM_KEYS_MAX; i++) {
		static const char *const heads[] = { "k", "user:0000", "a-longer-key-" };
		(void)snprintf(keys[i].name, sizeof(keys[i].name), "%s%u", heads[sim_below(3)], i);
		keys[i].name_bytes = strlen(keys[i].name);
	}
	for (unsigned i = 0; i < sim.plan.fillers; i++) {
		struct sim_key *key = &keys[sim.plan.keys + i];
		(void)snprintf(key->name, sizeof(key->name), FILLER "%u", i);
		key->name_bytes = strlen(key->name);
	}
}

unsigned sim_model_keys(void)
{
	return sim.plan.keys + sim.plan.fillers;
}

const struct sim_key *sim_model_key(unsigned index)
{
	return &keys[index];
}

unsigned sim_model_find(const char *name, size_t bytes)
{
	if (bytes > strlen(FILLER) && memcmp(name, FILLER, strlen(FILLER)) == 0) {
		return sim.plan.keys + (unsigned)strtoul(name + strlen(FILLER), NULL, 10);
	}
	for (unsigned i = 0; i < sim.plan.keys; i++) {
		if (keys[i].name_bytes == bytes && memcmp(keys[i].name, name, bytes) == 0) {
			return i;
		}
	}
	sim_fail("an unknown key");
}

void sim_model_change(unsigned index, const struct sim_value *value, uint64_t expire_ms)
{
	if (history_count == history_room) {
		history_room = history_room * 2 + 256;
		history = sim_grow(history, history_room * sizeof(*history));
	}
	history[history_count++] = (struct past){ .index = index, .key = keys[index] };
	keys[index].value = value;
	keys[index].expire_ms = value != NULL ? expire_ms : 0;
	keys[index].change = ++changes;
}

void sim_model_commit(uint64_t before, uint64_t seq)
{
	for (; history_open < history_count; history_open++) {
		history[history_open].before = before;
		history[history_open].seq = seq;
	}
	last_seq = seq > last_seq ? seq : last_seq;
}

uint64_t sim_model_last_seq(void)
{
	return last_seq;
}

uint64_t sim_model_changes(void)
{
	return changes;
}

// ---- what kvd has ----

/// Fills `hit`; false if the key is not there, or removed.
static bool table_look(unsigned index, struct kvs_hit *hit)
{
	const struct kvs_map *map = keyspace_map(sim.kvd->keyspace);
	const struct sim_key *key = &keys[index];
	uint64_t hash = kvs_map_hash(map, key->name, key->name_bytes);
	switch (kvs_table_find(map, hash, key->name, key->name_bytes, hit)) {
	case KVS_FIND_HIT:
		return hit->kind != KVS_ENTRY_TOMBSTONE;
	case KVS_FIND_ABSENT:
		return false;
	default:
		sim_fail("key %s cannot be looked up", key->name);
	}
}

static bool time_has_come(const struct sim_key *key)
{
	return key->value != NULL && key->expire_ms != 0 && key->expire_ms <= sim.wall_max_ms;
}

void sim_model_resolve(void)
{
	struct kvs_hit hit;
	for (unsigned i = 0; i < sim.plan.keys; i++) {
		if (time_has_come(&keys[i]) && !table_look(i, &hit)) {
			sim_model_change(i, NULL, 0);
		}
	}
	uint64_t seq = keyspace_last_seq(sim.kvd->keyspace);
	sim_model_commit(seq, seq);
}

/// The value behind what was found; where it is in the store alone, the store must have it.
static const void *value_behind(unsigned index, const struct kvs_hit *hit)
{
	const void *value = hit->value;
	if (hit->kind == KVS_ENTRY_STUB) {
		value = sim_disk_value(&hit->view);
	}
	if (value == NULL) {
		sim_fail("version %llu of %s is not in memory, nor on the disk",
			 (unsigned long long)hit->view.seq, keys[index].name);
	}
	return value;
}

/// Why what kvd has of a key is not what `key` says; NULL if it is.
static const char *key_differs(unsigned index, const struct sim_key *key)
{
	struct kvs_hit hit;
	bool found = table_look(index, &hit);
	if (!found) {
		bool may = key->value == NULL || time_has_come(key) || leaving == index + 1;
		return may ? NULL : "is lost";
	}
	if (key->value == NULL) {
		return "is back";
	}
	if (hit.view.expiry_ms != key->expire_ms) {
		return "has another time to live";
	}
	if (hit.view.value_bytes != key->value->bytes ||
	    memcmp(value_behind(index, &hit), key->value->data, key->value->bytes) != 0) {
		return "has another value";
	}
	return NULL;
}

/// The same for all keys; *index is the first.
static const char *state_differs(const struct sim_key *state, unsigned *index)
{
	uint64_t count = 0;
	struct kvs_hit hit;
	for (*index = 0; *index < sim_model_keys(); (*index)++) {
		const char *why = key_differs(*index, &state[*index]);
		if (why != NULL) {
			return why;
		}
		count += table_look(*index, &hit);
	}
	*index = 0;
	return count == keyspace_count(sim.kvd->keyspace) ? NULL : "and others: the count is wrong";
}

void sim_model_compare(const char *when)
{
	unsigned index;
	sim_model_resolve();
	const char *why = state_differs(keys, &index);
	if (why != NULL) {
		sim_fail("%s: key %s %s", when, keys[index].name, why);
	}
}

const char *sim_model_misplaced(void)
{
	struct kvs_hit hit;
	for (unsigned i = 0; i < sim.plan.keys; i++) {
		if (table_look(i, &hit) && hit.kind == KVS_ENTRY_STUB &&
		    !sim_disk_stands_at(&hit.view, kvs_load_relaxed(&hit.view.record->place))) {
			return keys[i].name;
		}
	}
	return NULL;
}

void sim_model_believe(void)
{
	struct kvs_hit hit;
	for (unsigned i = 0; i < sim_model_keys(); i++) {
		if (key_differs(i, &keys[i]) == NULL) {
			continue;
		}
		struct sim_value *value = NULL;
		bool found = table_look(i, &hit);
		if (found) {
			value = sim_alloc(sizeof(*value) + hit.view.value_bytes + 1);
			value->bytes = hit.view.value_bytes;
			memcpy(value->data, value_behind(i, &hit), hit.view.value_bytes);
		}
		sim_model_change(i, value, found ? hit.view.expiry_ms : 0);
	}
}

// ---- what goes by itself ----

unsigned sim_model_evicting(const void *name, size_t bytes)
{
	unsigned index = sim_model_find(name, bytes);
	if (keys[index].value == NULL) {
		sim_fail("%s is evicted, and is not there", keys[index].name);
	}
	leaving = index + 1;
	return index;
}

void sim_model_evicted(unsigned index, bool gone, uint64_t seq)
{
	leaving = 0;
	if (gone) {
		sim_note("%s is evicted", keys[index].name);
		keys[index].evicted_in = pending.client != NULL ? commands_begun : 0;
		keys[index].evicted = keys[index].value;
		keys[index].evicted_expire_ms = keys[index].expire_ms;
		sim_model_change(index, NULL, 0);
		sim_model_commit(seq - 1, seq);
	}
}

const struct sim_value *sim_model_went(unsigned index, uint64_t *expire_ms)
{
	const struct sim_key *key = &keys[index];
	if (pending.client == NULL || key->evicted_in != commands_begun) {
		return NULL;
	}
	*expire_ms = key->evicted_expire_ms;
	return key->evicted;
}

// kvd died in the middle of it: the key may be there or not.
static void left_or_not(uint64_t seq)
{
	struct kvs_hit hit;
	if (leaving != 0 && keys[leaving - 1].value != NULL && !table_look(leaving - 1, &hit)) {
		sim_model_change(leaving - 1, NULL, 0);
		sim_model_commit(seq, seq);
	}
	leaving = 0;
}

void sim_model_promoted(const void *name, size_t bytes, const void *value, size_t value_bytes)
{
	const struct sim_key *key = &keys[sim_model_find(name, bytes)];
	if (key->value == NULL || key->value->bytes != value_bytes ||
	    memcmp(key->value->data, value, value_bytes) != 0) {
		sim_fail("a value is put back that %s has not got", key->name);
	}
}

void sim_model_unread(const void *name, size_t bytes)
{
	keys[sim_model_find(name, bytes)].unread = true;
}

bool sim_model_is_unread(const char *reply, size_t bytes)
{
	static const char damaged[] = "-DAMAGED the value of '";
	static const char late[] = "-TRYAGAIN the value of '";
	static const char no_memory[] = "-OOM no memory to read values from the store";
	if (reply == NULL) {
		return false;
	}
	if (bytes > sizeof(late) && memcmp(reply, late, sizeof(late) - 1) == 0) {
		return sim.faults > 0 || sim.stalled; // some of that makes a read-wait
	}
	if (sim.faults == 0) {
		return false;
	}
	if (bytes > sizeof(damaged) && memcmp(reply, damaged, sizeof(damaged) - 1) == 0) {
		const char *name = reply + sizeof(damaged) - 1;
		const char *end = memchr(name, '\'', bytes - sizeof(damaged));
		if (end == NULL || !keys[sim_model_find(name, (size_t)(end - name))].unread) {
			sim_fail("a value cannot be read that was never tried: %.*s", (int)bytes,
				 reply);
		}
		return true;
	}
	return bytes > sizeof(no_memory) && memcmp(reply, no_memory, sizeof(no_memory) - 1) == 0;
}

// ---- commands under way ----

void sim_model_pending(const struct sim_client *client, const struct sim_request *request,
		       uint64_t now_ms)
{
	commands_begun++;
	cut_client = *client;
	cut_client.head = NULL;
	pending.client = &cut_client;
	pending.request = request;
	pending.now_ms = now_ms;
	pending.before = keyspace_last_seq(sim.kvd->keyspace);
	sights_count = 0;
}

static bool same_value(const struct sim_value *a, const struct sim_value *b)
{
	return a == b || (a != NULL && b != NULL && a->bytes == b->bytes &&
			  memcmp(a->data, b->data, a->bytes) == 0);
}

/// Is it what the command made of the key at last? On the way there nobody sees anything: what a
/// transaction replaces itself is never published.
static bool was_written(const struct sight *sight)
{
	return same_value(sight->value, keys[sight->index].value);
}

static void sights_check(const char *when)
{
	for (unsigned i = 0; i < sights_count; i++) {
		if (!was_written(&sights[i])) {
			sim_fail("%s a reader saw what never was written to %s", when,
				 keys[sights[i].index].name);
		}
	}
	sights_count = 0;
}

void sim_model_settled(void)
{
	pending.client = NULL;
	sights_check("during a command");
}

void sim_model_saw(unsigned index, const void *value, size_t bytes, uint64_t seq)
{
	const struct sim_key *key = &keys[index];
	if (seq > last_seq + 64 && pending.client == NULL) {
		sim_fail("a reader saw version %llu of %s, the last is %llu",
			 (unsigned long long)seq, key->name, (unsigned long long)last_seq);
	}
	if (value == NULL ? key->value == NULL || time_has_come(key) || leaving == index + 1
			  : key->value != NULL && key->value->bytes == bytes &&
				    memcmp(key->value->data, value, bytes) == 0) {
		return;
	}
	if (pending.client == NULL) {
		sim_fail("a reader saw %zu bytes of %s where there are %zu", value ? bytes : 0,
			 key->name, key->value != NULL ? key->value->bytes : 0);
	}
	struct sim_value *copy = NULL;
	if (value != NULL) {
		copy = sim_alloc(sizeof(*copy) + bytes);
		copy->bytes = bytes;
		memcpy(copy->data, value, bytes);
	}
	if (sights_count < sizeof(sights) / sizeof(sights[0])) {
		sights[sights_count++] = (struct sight){ index, copy };
	}
}

void sim_model_saw_stub(unsigned index, size_t bytes)
{
	const struct sim_key *key = &keys[index];
	if (pending.client == NULL && (key->value == NULL || key->value->bytes != bytes)) {
		sim_fail("a reader saw that %s has %zu bytes in the store", key->name, bytes);
	}
}

// ---- after a crash ----

// Everything above `seq` never was. A command that is only partly below it is not there at all.
static void roll_back(uint64_t seq)
{
	while (history_count > 0 && history[history_count - 1].seq > seq) {
		const struct past *past = &history[--history_count];
		uint64_t change = ++changes;
		keys[past->index] = past->key;
		keys[past->index].change = change;
	}
	history_open = history_count;
}

/// Can what kvd has be the effect of the command that the crash cut?
static bool pending_explains(void)
{
	struct sim_text ignored = { 0 };
	unsigned index;
	if (pending.client == NULL) {
		return false;
	}
	sim_model_run(pending.client, pending.request, pending.now_ms, &ignored);
	sim_model_commit(pending.before, keyspace_last_seq(sim.kvd->keyspace));
	if (state_differs(keys, &index) == NULL) {
		sim_note("the command that was cut was done");
		return true;
	}
	return false;
}

static void forget_all(void)
{
	for (unsigned i = 0; i < sim_model_keys(); i++) {
		if (keys[i].value != NULL) {
			sim_model_change(i, NULL, 0);
		}
	}
	sim_model_commit(0, 0); // nothing of it can come back
}

void sim_model_recovered(bool adopted, bool orderly)
{
	uint64_t seq = keyspace_last_seq(sim.kvd->keyspace);
	bool memory = sim.plan.policy == PERSIST_MEMORY;
	uint64_t durable_seq = sim_disk_durable();
	sim.instance = sim.kvd->instance_id;
	unsigned index = 0;
	bool seen = sights_count > 0;
	if (seq < last_seq && !(memory && !adopted)) {
		sim_fail("version %llu was handed out, kvd begins at %llu",
			 (unsigned long long)last_seq, (unsigned long long)seq);
	}
	if (adopted && seen) {
		seen = true; // then only the command's effect will do
	} else if (adopted || (orderly && !memory)) {
		seen = false;
	} else if (memory) {
		forget_all();
		pending.client = NULL;
	} else {
		roll_back(durable_seq);
		if (pending.client != NULL && durable_seq <= pending.before) {
			pending.client = NULL;
		}
	}
	left_or_not(adopted ? seq : durable_seq);
	const char *why = seen && adopted ? "was seen" : state_differs(keys, &index);
	if (why != NULL && !pending_explains()) {
		sim_fail("after %s, with %llu durable: key %s %s", adopted ? "adoption" : "loading",
			 (unsigned long long)durable_seq, keys[index].name, why);
	}
	if (adopted) {
		sights_check("before a crash");
	}
	sights_count = 0;
	pending.client = NULL;
	if (memory && !adopted) {
		last_seq = 0;
	}
	last_seq = seq > last_seq ? seq : last_seq;
	sim_model_resolve();
}

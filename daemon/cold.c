// SPDX-License-Identifier: MIT
//
// What is wanted, and who holds what. A wait gets the loads of all that it wants, or stands in line
// and holds none: somebody who held some and waited for others could wait for somebody who does the
// same. The first in line goes on as soon as buffers have room for it, or nobody holds any.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cold_parts.h"
#include "daemon/kvd.h"
#include "daemon/loop.h"
#include "daemon/parcel.h"
#include "daemon/seam.h"
#include "daemon/stats.h"
#include "shm/hash.h"

#define COLD_WANTS_MAX 16384u	 // of one wait
#define COLD_FRESH_MAX 1024u	 // the others when these have come
#define COLD_MEMORY_SHARE 8u	 // of the memory may stand in buffers
#define COLD_ERROR_KEY_BYTES 128 // of a key that an error names
#define COLD_LINE_TURN 64u	 // waits that go on in one turn

uint64_t cold_hash(const struct cold *cold, const void *key, size_t key_bytes, uint64_t seq)
{
	return kvs_hash(cold->seed ^ seq * UINT64_C(0x9e3779b97f4a7c15), key, key_bytes);
}

int cold_start(struct cold **out, struct kvd *kvd, struct store *store, cold_ready *ready)
{
	struct cold *cold = calloc(1, sizeof(*cold));
	*out = cold;
	if (cold == NULL) {
		return -ENOMEM;
	}
	cold->kvd = kvd;
	cold->ready = ready;
	kvd->seam->random_bytes(&cold->seed, sizeof(cold->seed));
	TAILQ_INIT(&cold->awaited);
	TAILQ_INIT(&cold->returning);
	TAILQ_INIT(&cold->line);
	TAILQ_INIT(&cold->waiting);
	TAILQ_INIT(&cold->todo);
	TAILQ_INIT(&cold->done);
	int error = cold_threads_start(cold, store);
	if (error != 0) {
		cold_stop(cold);
		*out = NULL;
	}
	return error;
}

void cold_stop(struct cold *cold)
{
	if (cold == NULL) {
		return;
	}
	cold_threads_stop(cold);
	cold_loads_stop(cold);
	struct cold_load *load;
	while ((load = TAILQ_FIRST(&cold->todo)) != NULL) {
		TAILQ_REMOVE(&cold->todo, load, queue);
		free(load);
	}
	while ((load = TAILQ_FIRST(&cold->done)) != NULL) {
		TAILQ_REMOVE(&cold->done, load, queue);
		free(load->value); // nobody else has seen it
		free(load);
	}
	lookup_free(&cold->loads);
	lookup_free(&cold->wants);
	free(cold);
}

// ---- waits ----

// Room for the largest value at least, and for that of somebody else beside it. Either may change
// while kvd runs.
static void set_bound(struct cold *cold)
{
	uint64_t bytes = cold->kvd->config.memory_bytes / COLD_MEMORY_SHARE;
	uint64_t least = 2 * (uint64_t)keyspace_value_bytes_max(cold->kvd->keyspace);
	cold->bytes_max = bytes > least ? bytes : least;
}

struct cold_wait *cold_wait_create(struct cold *cold, void *owner)
{
	struct cold_wait *wait = calloc(1, sizeof(*wait));
	set_bound(cold);
	if (wait != NULL) {
		wait->cold = cold;
		wait->owner = owner;
		wait->id = ++cold->wait_ids;
		wait->bytes = sizeof(*wait);
		SLIST_INIT(&wait->wants);
	}
	return wait;
}

static void wait_over(struct cold_wait *wait)
{
	struct cold *cold = wait->cold;
	if (wait->in_line) {
		TAILQ_REMOVE(&cold->line, wait, line_link);
		wait->in_line = false;
	}
	if (wait->begun_ns != 0) {
		TAILQ_REMOVE(&cold->waiting, wait, due_link);
		cold->waits--;
		wait->begun_ns = 0;
	}
}

static void want_release(struct cold *cold, struct cold_want *want)
{
	struct cold_load *load = want->load;
	if (load == NULL) {
		return;
	}
	want->load = NULL;
	want->wait->unheld_bytes += want->value_bytes;
	LIST_REMOVE(want, load_link);
	want->wait->missing -= load->state == COLD_LOADING || load->state == COLD_AWAITED;
	if (LIST_EMPTY(&load->wants)) {
		cold_load_unwanted(cold, load);
	}
}

static void want_hold(struct cold_want *want, struct cold_load *load)
{
	want->load = load;
	want->wait->unheld_bytes -= want->value_bytes;
	LIST_INSERT_HEAD(&load->wants, want, load_link);
	want->wait->missing += load->state == COLD_LOADING || load->state == COLD_AWAITED;
}

void cold_wait_drop(struct cold_wait *wait)
{
	if (wait == NULL) {
		return;
	}
	struct cold *cold = wait->cold;
	struct cold_want *want;
	wait_over(wait);
	while ((want = SLIST_FIRST(&wait->wants)) != NULL) {
		SLIST_REMOVE_HEAD(&wait->wants, wait_link);
		want_release(cold, want);
		lookup_remove(&cold->wants, &want->link);
		free(want);
	}
	free(wait);
}

size_t cold_wait_bytes(const struct cold_wait *wait)
{
	return wait->bytes;
}

static struct cold_want *want_of_link(struct lookup_link *link)
{
	return (struct cold_want *)(void *)((char *)link - offsetof(struct cold_want, link));
}

static struct cold_want *want_find(const struct cold_wait *wait, uint64_t hash,
				   const struct kvs_record_view *stub)
{
	struct lookup_link *link = lookup_first(&wait->cold->wants, hash ^ wait->id);
	for (; link != NULL; link = lookup_more(link)) {
		struct cold_want *want = want_of_link(link);
		if (want->wait == wait && want->seq == stub->seq &&
		    want->key_bytes == stub->key_bytes &&
		    memcmp(want->key, stub->key, stub->key_bytes) == 0) {
			return want;
		}
	}
	return NULL;
}

static struct cold_want *want_add(struct cold_wait *wait, uint64_t hash,
				  const struct kvs_record_view *stub)
{
	struct cold *cold = wait->cold;
	size_t bytes = sizeof(struct cold_want) + stub->key_bytes;
	struct cold_want *want = calloc(1, bytes);
	if (want == NULL) {
		wait->is_short = true;
		return NULL;
	}
	want->wait = wait;
	want->place = kvs_load_relaxed(&stub->record->place); // this thread's
	want->seq = stub->seq;
	want->value_bytes = stub->value_bytes;
	want->key_bytes = stub->key_bytes;
	memcpy(want->key, stub->key, stub->key_bytes);
	SLIST_INSERT_HEAD(&wait->wants, want, wait_link);
	lookup_add(&cold->wants, &want->link, hash ^ wait->id);
	wait->count++;
	wait->fresh++;
	wait->bytes += bytes;
	wait->values_bytes += want->value_bytes;
	wait->unheld_bytes += want->value_bytes;
	return want;
}

const void *cold_wait_value(struct cold_wait *wait, const struct kvs_record_view *stub)
{
	struct cold *cold = wait->cold;
	uint64_t hash = cold_hash(cold, stub->key, stub->key_bytes, stub->seq);
	struct cold_want *want = want_find(wait, hash, stub);
	wait->asked_bytes = stub->value_bytes;
	wait->asked_key_bytes = stub->key_bytes;
	memcpy(wait->asked_key, stub->key, stub->key_bytes);
	if (want == NULL && wait->count == COLD_WANTS_MAX) {
		wait->is_many = true;
	} else if (want == NULL && wait->fresh < COLD_FRESH_MAX) {
		stats_add(cold->kvd->stats, KVS_COUNTER_cold_gets, 1);
		want = want_add(wait, hash, stub);
	}
	if (want == NULL) {
		return NULL;
	}
	struct cold_load *load = want->load;
	if (load == NULL) {
		load = cold_load_find(cold, hash, stub->key, stub->key_bytes, stub->seq);
		if (load == NULL || load->state != COLD_LOADED) {
			return NULL; // held with all others, when it is its turn
		}
		stats_add(cold->kvd->stats, KVS_COUNTER_cold_loads_shared, 1);
		want_hold(want, load);
	}
	if (load->state == COLD_FAILED) {
		wait->failed = load; // whatever else is asked for, and is there
	}
	wait->given = load->state == COLD_LOADED ? load->value : NULL;
	return wait->given != NULL ? wait->given->data : NULL;
}

struct parcel *cold_wait_parcel(const struct cold_wait *wait, const void *at)
{
	struct parcel *value = wait->given;
	return value != NULL && (uintptr_t)at - (uintptr_t)value->data < value->bytes ? value
										      : NULL;
}

bool cold_wait_failed(const struct cold_wait *wait, char *text, size_t bytes)
{
	const struct cold *cold = wait->cold;
	const struct cold_load *failed = wait->failed;
	size_t key_bytes_all = failed != NULL ? failed->key_bytes : wait->asked_key_bytes;
	int key_bytes =
		key_bytes_all < COLD_ERROR_KEY_BYTES ? (int)key_bytes_all : COLD_ERROR_KEY_BYTES;
	const char *key = (const char *)(failed != NULL ? failed->key : wait->asked_key);
	if (wait->is_short || (failed != NULL && failed->result == STORE_NO_MEMORY)) {
		(void)snprintf(text, bytes, "OOM no memory to read values from the store");
		return true;
	}
	if (failed != NULL) {
		(void)snprintf(text, bytes,
			       "DAMAGED the value of '%.*s' is in the store alone and cannot be "
			       "read: %s; kvctl verify tells more, a backup may have it",
			       key_bytes, key, failed->why);
		return true;
	}
	if (wait->is_late) {
		(void)snprintf(
			text, bytes,
			"TRYAGAIN the value of '%.*s' is in the store alone and did not come "
			"within read-wait: the disk is slow, or INFO persistence tells why "
			"the store cannot be read",
			key_bytes, key);
		return true;
	}
	if (wait->is_many) {
		(void)snprintf(
			text, bytes,
			"ERR more than %u values that this needs are in the store alone: ask "
			"for fewer keys at once",
			COLD_WANTS_MAX);
		return true;
	}
	if (wait->values_bytes > cold->bytes_max && wait->count > 1) {
		(void)snprintf(text, bytes,
			       "ERR the values that this needs from the store have %llu bytes, at "
			       "most %llu may be under way: ask for fewer keys at once",
			       (unsigned long long)wait->values_bytes,
			       (unsigned long long)cold->bytes_max);
		return true;
	}
	return false;
}

// ---- admission ----

static bool wait_fits(const struct cold_wait *wait)
{
	const struct cold *cold = wait->cold;
	return cold->loads.count == 0 || cold->bytes + wait->unheld_bytes <= cold->bytes_max;
}

// Holds all that it wants.
static void wait_admit(struct cold_wait *wait)
{
	struct cold *cold = wait->cold;
	struct cold_want *want;
	SLIST_FOREACH(want, &wait->wants, wait_link)
	{
		if (want->load != NULL) {
			continue;
		}
		uint64_t hash = cold_hash(cold, want->key, want->key_bytes, want->seq);
		struct cold_load *load =
			cold_load_find(cold, hash, want->key, want->key_bytes, want->seq);
		if (load != NULL) {
			stats_add(cold->kvd->stats, KVS_COUNTER_cold_loads_shared, 1);
		} else {
			load = cold_load_begin(cold, hash, want);
		}
		if (load == NULL) {
			wait->is_short = true;
			break;
		}
		want_hold(want, load);
	}
}

static void wait_is_ready(struct cold_wait *wait)
{
	wait_over(wait);
	wait->cold->ready(wait->owner);
}

void cold_wait_begin(struct cold_wait *wait)
{
	struct cold *cold = wait->cold;
	struct cold_want *want;
	wait->fresh = 0;
	wait->failed = NULL; // what is run again asks again
	wait->begun_ns = loop_now_ns(cold->kvd->loop);
	TAILQ_INSERT_TAIL(&cold->waiting, wait, due_link);
	cold->waits++;
	if (TAILQ_EMPTY(&cold->line) && wait_fits(wait)) {
		wait_admit(wait);
		if (wait->missing == 0 || wait->is_short) {
			wait_is_ready(wait);
		}
		return;
	}
	wait->given = NULL;
	SLIST_FOREACH(want, &wait->wants, wait_link)
	{
		want_release(cold, want);
	}
	TAILQ_INSERT_TAIL(&cold->line, wait, line_link);
	wait->in_line = true;
}

void cold_load_over(struct cold *cold, struct cold_load *load)
{
	struct cold_want *want = LIST_FIRST(&load->wants);
	(void)cold;
	while (want != NULL) {
		struct cold_want *next = LIST_NEXT(want, load_link);
		struct cold_wait *wait = want->wait;
		if (--wait->missing == 0 && wait->begun_ns != 0) {
			wait_is_ready(wait);
		}
		want = next;
	}
}

static void line_turn(struct cold *cold)
{
	struct cold_wait *wait;
	for (unsigned i = 0; i < COLD_LINE_TURN; i++) {
		wait = TAILQ_FIRST(&cold->line);
		if (wait == NULL || !wait_fits(wait)) {
			return;
		}
		TAILQ_REMOVE(&cold->line, wait, line_link);
		wait->in_line = false;
		wait_admit(wait);
		if (wait->missing == 0 || wait->is_short) {
			wait_is_ready(wait);
		}
	}
}

static uint64_t wait_due_ns(const struct cold_wait *wait)
{
	return wait->begun_ns + wait->cold->kvd->config.read_wait_ms * UINT64_C(1000000);
}

void cold_turn(struct cold *cold, uint64_t now_ns)
{
	cold_loads_turn(cold, now_ns);
	line_turn(cold);
	struct cold_wait *wait;
	while ((wait = TAILQ_FIRST(&cold->waiting)) != NULL && now_ns >= wait_due_ns(wait)) {
		wait->is_late = true;
		wait_is_ready(wait);
	}
	stats_set(cold->kvd->stats, KVS_COUNTER_cold_waits, cold->waits);
	stats_set(cold->kvd->stats, KVS_COUNTER_cold_loading_bytes, cold->bytes);
}

uint64_t cold_next_ns(const struct cold *cold)
{
	const struct cold_wait *first = TAILQ_FIRST(&cold->waiting);
	const struct cold_wait *in_line = TAILQ_FIRST(&cold->line);
	if (cold->is_behind || !TAILQ_EMPTY(&cold->returning) ||
	    (in_line != NULL && wait_fits(in_line))) {
		return 0;
	}
	uint64_t next_ns = first != NULL ? wait_due_ns(first) : UINT64_MAX;
	if (!TAILQ_EMPTY(&cold->awaited) && cold->awaited_ns < next_ns) {
		next_ns = cold->awaited_ns;
	}
	return next_ns;
}

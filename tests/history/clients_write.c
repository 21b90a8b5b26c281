// SPDX-License-Identifier: MIT
//
// Clients that write, waiting for each answer or not: SET, DEL, INCR, compare-and-set, batches, and
// a SYNC now and then, which is a promise.
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/history/clients.h"
#include "tests/tap/tap.h"
#include "tests/torture/value.h"

#define ASYNC_PENDING_MAX 16u
#define DECOYS 8u // for each key of a batch

enum history_result actor_write_result(int status)
{
	switch (status) {
	case KVC_OK:
		return HISTORY_OK;
	case KVC_NOT_FOUND:
		return HISTORY_ABSENT;
	case KVC_NOT_APPLIED:
		return HISTORY_NOT_APPLIED;
	case KVC_UNREACHABLE:
	case KVC_NO_MEMORY:
	case KVC_TOO_LARGE:
	case KVC_REFUSED:
	case KVC_BUSY:
	case KVC_INVALID:
		return HISTORY_FAILED;
	default:
		return HISTORY_OPEN;
	}
}

static void end_write(struct history_event *event, int status, uint64_t version)
{
	event->version = status == KVC_OK ? version : 0;
	actor_end(event, actor_write_result(status));
}

size_t actor_new_value(struct actor *actor, struct history_event *event)
{
	uint64_t dice = tap_random(&actor->random);
	size_t bytes = VALUE_BYTES_MIN + dice % 400;
	if (dice % 60 == 7) {
		bytes = ACTOR_VALUE_BYTES_MAX - (dice >> 16) % 4000; // in the large range
	}
	event->value = (uint64_t)actor->client << 32 | ++actor->written;
	value_fill(actor->value, bytes, event->key, event->value);
	return bytes;
}

static void write_set(struct actor *actor, unsigned key, bool swap)
{
	struct kvc_set_options options = { .struct_bytes = sizeof(options) };
	struct history_event *event = actor_begin(actor, swap ? HISTORY_SWAP : HISTORY_SET, key);
	if (event == NULL) {
		return;
	}
	char name[24];
	uint64_t version = 0;
	size_t bytes = actor_new_value(actor, event);
	event->expected = actor->seen_version[key];
	options.version = event->expected;
	options.flags = KVC_SET_IF_VERSION;
	event->begin_ns = actor_now_ns();
	int status = kvc_set(actor->kvc, name, actor_key(name, key), actor->value, bytes,
			     swap ? &options : NULL, &version);
	end_write(event, status, version);
	actor->seen_version[key] = status == KVC_OK ? version : 0;
}

static void write_delete(struct actor *actor, unsigned key)
{
	char name[24];
	struct history_event *event = actor_begin(actor, HISTORY_DELETE, key);
	if (event != NULL) {
		end_write(event, kvc_delete(actor->kvc, name, actor_key(name, key)), 0);
	}
}

static void write_increment(struct actor *actor, unsigned key)
{
	char name[24];
	int64_t result = 0;
	struct history_event *event = actor_begin(actor, HISTORY_INCREMENT, key);
	if (event != NULL) {
		int status = kvc_increment(actor->kvc, name, actor_key(name, key), 1, &result);
		event->value = (uint64_t)result;
		end_write(event, status, 0);
	}
}

// Something that the same batch replaces. No event tells of it, so whoever sees it, a value that
// was never written or a key gone between two of its values, sees what nothing explains.
static int add_decoy(struct actor *actor, kvc_batch *batch, unsigned key)
{
	char name[24];
	size_t name_bytes = actor_key(name, key);
	uint64_t dice = tap_random(&actor->random);
	if (dice % 3 == 0) {
		return kvc_batch_delete(batch, name, name_bytes);
	}
	if (dice % 3 == 1) {
		return KVC_OK;
	}
	value_fill(actor->value, VALUE_BYTES_MIN, key,
		   (uint64_t)actor->client << 32 | ++actor->written);
	return kvc_batch_set(batch, name, name_bytes, actor->value, VALUE_BYTES_MIN, 0);
}

// For every key of the family, and again: what would be seen of it is there for a while.
static bool add_decoys(struct actor *actor, kvc_batch *batch, unsigned family)
{
	bool good = true;
	for (unsigned i = 0; i < DECOYS * HISTORY_FAMILY_KEYS && good; i++) {
		unsigned key = HISTORY_FAMILY_FIRST + family * HISTORY_FAMILY_KEYS;
		good = add_decoy(actor, batch, key + i % HISTORY_FAMILY_KEYS) == KVC_OK;
	}
	return good;
}

// All keys of a family get one value, or go.
static bool fill_batch(struct actor *actor, kvc_batch *batch, bool removal,
		       struct history_event **event)
{
	unsigned family = (unsigned)(tap_random(&actor->random) % HISTORY_FAMILIES);
	uint64_t value = (uint64_t)actor->client << 32 | ++actor->written;
	actor->groups++;
	if (tap_random(&actor->random) % 2 == 0 && !add_decoys(actor, batch, family)) {
		return false;
	}
	for (unsigned i = 0; i < HISTORY_FAMILY_KEYS; i++) {
		char name[24];
		unsigned key = HISTORY_FAMILY_FIRST + family * HISTORY_FAMILY_KEYS + i;
		event[i] =
			actor_begin(actor, removal ? HISTORY_BATCH_DELETE : HISTORY_BATCH_SET, key);
		if (event[i] == NULL) {
			return false;
		}
		size_t name_bytes = actor_key(name, key);
		size_t bytes = VALUE_BYTES_MIN + tap_random(&actor->random) % 300;
		event[i]->group = actor->groups;
		event[i]->value = removal ? 0 : value;
		value_fill(actor->value, bytes, key, value);
		int status =
			removal ? kvc_batch_delete(batch, name, name_bytes)
				: kvc_batch_set(batch, name, name_bytes, actor->value, bytes, 0);
		if (status != KVC_OK) {
			return false;
		}
	}
	return true;
}

static void write_batch(struct actor *actor, bool removal)
{
	struct history_event *event[HISTORY_FAMILY_KEYS];
	kvc_batch *batch;
	if (kvc_batch_new(&batch) != KVC_OK) {
		return;
	}
	if (fill_batch(actor, batch, removal, event)) {
		int status = kvc_batch_commit(actor->kvc, batch);
		for (unsigned i = 0; i < HISTORY_FAMILY_KEYS; i++) {
			end_write(event[i], status, 0);
		}
	}
	kvc_batch_free(batch);
}

static void write_one(struct actor *actor)
{
	uint64_t dice = tap_random(&actor->random);
	unsigned key = (unsigned)(dice >> 16) % HISTORY_REGISTERS;
	unsigned what = (unsigned)(dice % 100);
	if (what < 30) {
		write_set(actor, key, false);
	} else if (what < 40) {
		write_delete(actor, key);
	} else if (what < 55) {
		write_increment(actor,
				HISTORY_COUNTER_FIRST + (unsigned)(dice >> 16) % HISTORY_COUNTERS);
	} else if (what < 70) {
		if (dice >> 60 != 0) {
			actor_get(actor, HISTORY_READ, key);
		}
		write_set(actor, key, true);
	} else if (what < 88) {
		write_batch(actor, what < 73);
	} else if (what < 98) {
		actor_get(actor, HISTORY_READ, key);
	} else {
		struct history_event *event = actor_begin(actor, HISTORY_SYNC, 0);
		if (event != NULL) {
			end_write(event, kvc_sync(actor->kvc), 0);
		}
	}
}

void actor_write(struct actor *actor)
{
	actor_connect(actor, KVC_OPEN_SOCKET_ONLY);
	while (!actor_is_over(actor)) {
		actor_pass_gate(actor);
		write_one(actor);
		actor_forget_failed(actor);
	}
}

// ---- without waiting ----

static struct actor *asyncs_actor; // one in a process

static void set_done(kvc_async *async, void *user, const struct kvc_result *result)
{
	(void)async;
	struct history_event *event = user;
	struct actor *actor = asyncs_actor;
	actor->failed = actor->failed || result->status == KVC_UNREACHABLE;
	if (event->kind == HISTORY_INCREMENT) {
		event->value = (uint64_t)result->integer;
	}
	end_write(event, result->status, result->version);
	if (result->status == KVC_CANCELLED) {
		event->result = event->expected != 0 ? HISTORY_FAILED : HISTORY_OPEN;
	}
}

static void async_submit(struct actor *actor, kvc_async *async)
{
	char name[24];
	uint64_t dice = tap_random(&actor->random), id = 0;
	unsigned kind =
		dice % 4 == 0 ? HISTORY_INCREMENT : (dice % 4 == 1 ? HISTORY_DELETE : HISTORY_SET);
	unsigned key = (unsigned)(dice >> 16) % HISTORY_REGISTERS;
	if (kind == HISTORY_INCREMENT) {
		key = HISTORY_COUNTER_FIRST + key % HISTORY_COUNTERS;
	}
	struct history_event *event = actor_begin(actor, kind, key);
	if (event == NULL) {
		return;
	}
	int status;
	size_t name_bytes = actor_key(name, key);
	if (kind == HISTORY_SET) {
		size_t bytes = actor_new_value(actor, event);
		status = kvc_async_set(async, name, name_bytes, actor->value, bytes, NULL, set_done,
				       event, &id);
	} else if (kind == HISTORY_DELETE) {
		status = kvc_async_delete(async, name, name_bytes, set_done, event, &id);
	} else {
		status = kvc_async_increment(async, name, name_bytes, 1, set_done, event, &id);
	}
	if (status != KVC_OK) {
		actor_end(event, HISTORY_FAILED);
	} else if (dice >> 59 == 1) {
		// What is cancelled before it was sent was never applied.
		bool never = kvc_async_cancel(async, id) == KVC_OK;
		event->expected = never;
	}
}

void actor_write_async(struct actor *actor)
{
	struct kvc_options options;
	kvc_async *async;
	asyncs_actor = actor;
	kvc_options_init(&options);
	options.socket_path = actor->socket_path;
	options.flags = KVC_OPEN_NO_CONNECT;
	options.reconnect_min_ms = 1;
	options.reconnect_max_ms = 5;
	if (kvc_async_open(&async, &options, NULL) != KVC_OK) {
		_exit(1);
	}
	while (!actor_is_over(actor)) {
		bool shut = __atomic_load_n(&actor->file->gate, __ATOMIC_SEQ_CST) != 0;
		size_t pending = kvc_async_pending(async);
		if (shut && pending == 0) {
			actor_pass_gate(actor);
		}
		while (!shut && pending++ < ASYNC_PENDING_MAX) {
			async_submit(actor, async);
		}
		if (actor->failed) {
			actor_pause_us(1000); // kvd is away
		}
		actor->failed = false;
		struct pollfd ready = { .fd = kvc_async_fd(async), .events = POLLIN };
		int timeout_ms = kvc_async_timeout_ms(async);
		(void)kvc_async_flush(async);
		(void)poll(&ready, 1, timeout_ms < 0 || timeout_ms > 2 ? 2 : timeout_ms);
		if (kvc_async_dispatch(async) != KVC_OK) {
			_exit(1);
		}
	}
	(void)kvc_async_close(async);
}

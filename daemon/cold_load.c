// SPDX-License-Identifier: MIT
//
// What becomes of a reading. Where compaction has taken the record elsewhere its stub is told so,
// and then it is read there. Where the store cannot be read, or the move was not told yet, it is
// tried again until read-wait is over. What was read is put back by the writer if the key still has
// this stub and there is room; whoever waits for it has it either way, and at once: of a large
// value a slice a turn is put back, and its buffer stays until then.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cold_parts.h"
#include "daemon/kvd.h"
#include "daemon/latency.h"
#include "daemon/log.h"
#include "daemon/parcel.h"
#include "daemon/seam.h"
#include "daemon/stats.h"

#define NS_PER_MS UINT64_C(1000000)
#define COLD_TURN_NS UINT64_C(100000)	 // of one turn
#define COLD_SAY_NS UINT64_C(1000000000) // between two lines of the log

static struct cold_load *load_of_link(struct lookup_link *link)
{
	return (struct cold_load *)(void *)((char *)link - offsetof(struct cold_load, link));
}

struct cold_load *cold_load_find(const struct cold *cold, uint64_t hash, const void *key,
				 size_t key_bytes, uint64_t seq)
{
	struct lookup_link *link = lookup_first(&cold->loads, hash);
	for (; link != NULL; link = lookup_more(link)) {
		struct cold_load *load = load_of_link(link);
		if (load->seq == seq && load->key_bytes == key_bytes &&
		    memcmp(load->key, key, key_bytes) == 0) {
			return load;
		}
	}
	return NULL;
}

struct cold_load *cold_load_begin(struct cold *cold, uint64_t hash, const struct cold_want *want)
{
	struct cold_load *load = calloc(1, sizeof(*load) + want->key_bytes);
	if (load == NULL) {
		return NULL;
	}
	load->place = want->place;
	load->seq = want->seq;
	load->value_bytes = want->value_bytes;
	load->key_bytes = want->key_bytes;
	load->asked_ns = cold->kvd->seam->monotonic_ns();
	memcpy(load->key, want->key, want->key_bytes);
	LIST_INIT(&load->wants);
	lookup_add(&cold->loads, &load->link, hash);
	cold->bytes += load->value_bytes;
	// Compaction may have moved it since the place was noted.
	(void)keyspace_stub_place(cold->kvd->keyspace, load->key, load->key_bytes, load->seq,
				  &load->place);
	stats_add(cold->kvd->stats, KVS_COUNTER_cold_loads, 1);
	cold_threads_give(cold, load);
	return load;
}

static void load_free(struct cold *cold, struct cold_load *load)
{
	lookup_remove(&cold->loads, &load->link);
	cold->bytes -= load->value_bytes;
	parcel_release(cold->kvd->sessions, load->value);
	free(load);
}

void cold_load_unwanted(struct cold *cold, struct cold_load *load)
{
	if (load->is_returning ||
	    (load->state == COLD_LOADING && !cold_threads_take_back(cold, load))) {
		return; // it is not over: whoever wants it meanwhile may have it
	}
	if (load->state == COLD_AWAITED) {
		TAILQ_REMOVE(&cold->awaited, load, queue);
	}
	load_free(cold, load);
}

// Whatever came of it, somebody waited so long.
static void note_time(const struct cold *cold, const struct cold_load *load)
{
	const struct kvd *kvd = cold->kvd;
	uint64_t ms = (kvd->seam->monotonic_ns() - load->asked_ns) / NS_PER_MS;
	if (kvd->config.latency_ms > 0 && ms >= kvd->config.latency_ms) {
		latency_add(&kvd->stats->latency, LATENCY_COLD_LOAD, ms,
			    kvd->seam->wall_ms() / 1000);
	}
}

static void load_failed(struct cold *cold, struct cold_load *load)
{
	load->state = COLD_FAILED;
	note_time(cold, load);
	stats_add(cold->kvd->stats, KVS_COUNTER_cold_load_errors, 1);
	uint64_t now_ns = cold->kvd->seam->monotonic_ns();
	if (cold->said_ns == 0 || now_ns - cold->said_ns >= COLD_SAY_NS) {
		cold->said_ns = now_ns;
		log_error("the value of '%.*s' is in the store alone and cannot be read: %s",
			  (int)load->key_bytes, (const char *)load->key, load->why);
	}
	cold_load_over(cold, load);
}

// A slice of putting it back. False: there is more of it.
static bool load_put_back(struct cold *cold, struct cold_load *load, uint64_t until_ns)
{
	const struct keyspace_loaded loaded = {
		.key = load->key,
		.key_bytes = load->key_bytes,
		.seq = load->seq,
		.value = load->value->data,
		.value_bytes = load->value_bytes,
	};
	switch (keyspace_promote(cold->kvd->keyspace, &loaded, &load->promotion, until_ns)) {
	case KEYSPACE_COLD_MORE:
		return false;
	case KEYSPACE_COLD_DONE:
		stats_add(cold->kvd->stats, KVS_COUNTER_cold_promotions, 1);
		return true;
	case KEYSPACE_COLD_NO_ROOM:
		stats_add(cold->kvd->stats, KVS_COUNTER_cold_promotions_declined, 1);
		return true;
	default:
		stats_add(cold->kvd->stats, KVS_COUNTER_cold_promotions_void, 1);
		return true;
	}
}

// Nothing stood at its place, or nothing could be read. It is read anew where its stub says, at
// once if that is elsewhere or `now`.
static void load_again(struct cold *cold, struct cold_load *load, bool now)
{
	uint64_t place;
	if (!keyspace_stub_place(cold->kvd->keyspace, load->key, load->key_bytes, load->seq,
				 &place)) {
		// The key has another version, or none: whoever asked looks again.
		load->state = COLD_FAILED;
		(void)snprintf(load->why, sizeof(load->why), "it was replaced meanwhile");
		cold_load_over(cold, load);
	} else if (now || place != load->place) {
		load->place = place;
		load->state = COLD_LOADING;
		cold_threads_give(cold, load);
	} else {
		load->state = COLD_AWAITED;
		TAILQ_INSERT_TAIL(&cold->awaited, load, queue);
	}
}

static void load_done(struct cold *cold, struct cold_load *load, uint64_t until_ns)
{
	if (LIST_EMPTY(&load->wants)) {
		load_free(cold, load);
		return;
	}
	if (load->result == STORE_READ_GONE || load->result == STORE_READ_SHUT) {
		load_again(cold, load, false);
	} else if (load->result != STORE_OK) {
		load_failed(cold, load);
	} else {
		load->state = COLD_LOADED;
		note_time(cold, load);
		if (!load_put_back(cold, load, until_ns)) {
			load->is_returning = true;
			TAILQ_INSERT_TAIL(&cold->returning, load, queue);
		}
		cold_load_over(cold, load);
	}
}

// Puts large values back, one after the other.
static void return_loads(struct cold *cold, uint64_t until_ns)
{
	struct cold_load *load;
	while ((load = TAILQ_FIRST(&cold->returning)) != NULL &&
	       load_put_back(cold, load, until_ns)) {
		TAILQ_REMOVE(&cold->returning, load, queue);
		load->is_returning = false;
		if (LIST_EMPTY(&load->wants)) {
			cold_load_unwanted(cold, load);
		}
		if (cold->kvd->seam->monotonic_ns() >= until_ns) {
			return;
		}
	}
}

void cold_loads_stop(struct cold *cold)
{
	struct cold_load *load;
	while ((load = TAILQ_FIRST(&cold->returning)) != NULL) {
		TAILQ_REMOVE(&cold->returning, load, queue);
		keyspace_promote_drop(cold->kvd->keyspace, &load->promotion);
		free(load->value); // all who had it are gone
		free(load);
	}
}

void cold_loads_turn(struct cold *cold, uint64_t now_ns)
{
	uint64_t until_ns = cold->kvd->seam->monotonic_ns() + COLD_TURN_NS;
	struct cold_load *load;
	cold->is_behind = false;
	while ((load = cold_threads_next(cold)) != NULL) {
		load_done(cold, load, until_ns);
		if (cold->kvd->seam->monotonic_ns() >= until_ns) {
			cold->is_behind = true;
			break;
		}
	}
	return_loads(cold, until_ns); // a part, however late it is
	if (!TAILQ_EMPTY(&cold->awaited) && now_ns >= cold->awaited_ns) {
		struct cold_load_list awaited = TAILQ_HEAD_INITIALIZER(awaited);
		TAILQ_CONCAT(&awaited, &cold->awaited, queue);
		cold->awaited_ns = now_ns + COLD_AWAIT_NS;
		while ((load = TAILQ_FIRST(&awaited)) != NULL) {
			TAILQ_REMOVE(&awaited, load, queue);
			load_again(cold, load, true);
		}
	}
}

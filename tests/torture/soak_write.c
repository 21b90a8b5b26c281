// SPDX-License-Identifier: MIT
//
// The writers of a soak: what they are about to do stands in the key's state before it is sent.
#include <time.h>
#include <unistd.h>

#include "tests/torture/soak_clients.h"

#define PIPELINE 64u

struct writing {
	kvc *client;
	uint64_t random;
	uint64_t key[PIPELINE], count[PIPELINE];
	unsigned outstanding;
	uint64_t next; // key, while growing or shrinking
	unsigned char value[LARGE_BYTES_MAX];
};

static void acknowledged(uint64_t key, uint64_t count)
{
	struct key_state *state = &soak->key[key];
	store(&state->acked, count);
	if (count == state->sent) {
		store(&state->ends_ms, state->last_ends_ms); // nothing else can be there now
	}
	add(&soak->writes, 1);
}

static bool is_served(kvc *client)
{
	const void *argv[] = { "PING" };
	const size_t argv_bytes[] = { 4 };
	const struct kvc_reply *reply;
	return kvc_pipeline_append(client, 1, argv, argv_bytes) == KVC_OK &&
	       kvc_pipeline_reply(client, &reply) == KVC_OK;
}

static void take_replies(struct writing *w)
{
	bool lost = false;
	for (unsigned i = 0; i < w->outstanding; i++) {
		const struct kvc_reply *reply;
		int status = kvc_pipeline_reply(w->client, &reply);
		if (status == KVC_OK && reply->type != KVC_REPLY_ERROR) {
			acknowledged(w->key[i], w->count[i]);
		} else if (status == KVC_OK) {
			add(&soak->writes_refused, 1);
			(void)snprintf(soak->refusal, sizeof(soak->refusal), "%s", reply->text);
		} else {
			add(&soak->writes_open, 1); // it may have been applied or not
			lost = true;
		}
	}
	w->outstanding = 0;
	while (lost && load(&soak->stop) == 0) { // kvd is away
		(void)usleep(2000);
		lost = !is_served(w->client);
	}
}

static void send_write(struct writing *w, uint64_t key, int argc, const void *const *argv,
		       const size_t *argv_bytes)
{
	if (kvc_pipeline_append(w->client, argc, argv, argv_bytes) != KVC_OK) {
		add(&soak->writes_open, 1);
		(void)usleep(5000);
		return;
	}
	w->key[w->outstanding] = key;
	w->count[w->outstanding++] = soak->key[key].sent;
	if (w->outstanding == PIPELINE) {
		take_replies(w);
	}
}

static void write_value(struct writing *w, uint64_t key, size_t bytes, uint64_t life_ms)
{
	struct key_state *state = &soak->key[key];
	uint64_t count = state->sent + 1;
	uint64_t ends_ms = life_ms > 0 ? wall_ms() + life_ms : 0;
	char name[24], end[24];
	struct value_head head;
	value_fill(w->value, bytes, key, count);
	memcpy(w->value + VALUE_BYTES_MIN, &ends_ms, EXPIRY_BYTES);
	memcpy(&head, w->value, sizeof(head));
	head.crc = value_crc(w->value, bytes);
	memcpy(w->value, &head, sizeof(head));
	const void *argv[] = { "SET", name, w->value, "PXAT", end };
	size_t argv_bytes[] = { 3, name_of(name, key), bytes, 4, 0 };
	argv_bytes[4] = (size_t)snprintf(end, sizeof(end), "%llu", (unsigned long long)ends_ms);
	if (ends_ms != 0 && (state->ends_ms == 0 || ends_ms < state->ends_ms)) {
		store(&state->ends_ms, ends_ms);
	}
	state->last_ends_ms = ends_ms;
	store(&state->sent, count);
	store(&state->phase, load(&soak->phase)); // acknowledged later: who sees that sees this
	send_write(w, key, ends_ms != 0 ? 5 : 3, argv, argv_bytes);
}

static void remove_key(struct writing *w, uint64_t key)
{
	struct key_state *state = &soak->key[key];
	char name[24];
	const void *argv[] = { "DEL", name };
	size_t argv_bytes[] = { 3, name_of(name, key) };
	state->last_ends_ms = 0;
	store(&state->removed, state->sent + 1);
	store(&state->sent, state->sent + 1);
	send_write(w, key, 2, argv, argv_bytes);
}

static void keep_step(struct writing *w, unsigned number)
{
	uint64_t dice = tap_random(&w->random);
	uint64_t key = (dice >> 32) % ((KEPT_KEYS + ENDING_KEYS) / KEEPERS) * KEEPERS + number;
	size_t bytes = VALUE_LEAST + (dice >> 8) % 400;
	if (dice % 12 == 0) {
		remove_key(w, key);
	} else if (key >= KEPT_KEYS) {
		write_value(w, key, bytes, 20 + (dice >> 16) % ((dice & 64) != 0 ? 300 : 20000));
	} else {
		write_value(w, key, dice % 500 == 1 ? 40000 : bytes, 0);
	}
}

static void cache_step(struct writing *w, unsigned number)
{
	uint64_t dice = tap_random(&w->random);
	uint64_t mode = load(&soak->mode);
	uint64_t within = (dice >> 32) % (CACHE_KEYS / CACHERS);
	if (mode != MODE_CHURN) {
		within = w->next++ % (CACHE_KEYS / CACHERS);
	}
	uint64_t key = KEPT_KEYS + ENDING_KEYS + within * CACHERS + number;
	if (mode == MODE_SHRINK || (mode == MODE_CHURN && dice % 16 == 0)) {
		remove_key(w, key);
	} else if (mode == MODE_GROW) {
		write_value(w, key, VALUE_LEAST + (dice >> 8) % 32, 0);
	} else if (dice % 200 == 1) {
		write_value(w, key, 20000 + (dice >> 8) % (LARGE_BYTES_MAX - 20000), 0);
	} else {
		size_t bytes = VALUE_LEAST + (dice >> 8) % ((dice & 4096) != 0 ? 6000 : 200);
		write_value(w, key, bytes, dice % 10 == 2 ? 50 + (dice >> 20) % 5000 : 0);
	}
}

void writer_process(unsigned actor, uint64_t random)
{
	static struct writing w;
	unsigned number = actor - READERS;
	w.client = open_client(KVC_OPEN_SOCKET_ONLY);
	w.random = random;
	while (load(&soak->stop) == 0) {
		if (load(&soak->gate) != 0) {
			take_replies(&w);
			pass_gate(actor);
		}
		if (number < KEEPERS) {
			keep_step(&w, number);
		} else {
			cache_step(&w, number - KEEPERS);
		}
	}
	take_replies(&w);
	_exit(0);
}

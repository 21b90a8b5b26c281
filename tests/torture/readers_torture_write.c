// SPDX-License-Identifier: MIT
//
// The writer of readers_torture: overwrites values in many sizes, removes some keys, and lets
// others come and go in waves so that the table follows them.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "tests/tap/tap.h"
#include "tests/torture/readers_torture.h"
#include "tests/torture/value.h"

#define COMING_AND_GOING 30000u
#define PIPELINE 64u
#define KEY_BYTES_AT_REST 200u

struct writing {
	kvc *client;
	struct tally *tally;
	uint64_t random;
	uint64_t counts[TORTURE_KEYS];
	unsigned outstanding;
	unsigned char value[TORTURE_VALUE_BYTES_MAX];
};

static void take_replies(struct writing *w)
{
	for (; w->outstanding > 0; w->outstanding--) {
		const struct kvc_reply *reply;
		int status = kvc_pipeline_reply(w->client, &reply);
		bool good = status == KVC_OK && reply->type != KVC_REPLY_ERROR;
		tally_add(&w->tally->writes_failed, !good);
		if (!good && w->tally->writes_failed < 3) {
			tap_diag("write: %s",
				 status == KVC_OK ? reply->text : kvc_strerror(status));
		}
		tally_add(&w->tally->writes, good);
	}
}

static void send_command(struct writing *w, const char *verb, const char *key, size_t key_bytes,
			 const void *value, size_t value_bytes)
{
	const void *argv[] = { verb, key, value };
	size_t bytes[] = { strlen(verb), key_bytes, value_bytes };
	int status = kvc_pipeline_append(w->client, value == NULL ? 2 : 3, argv, bytes);
	if (status != KVC_OK) {
		tally_add(&w->tally->writes_failed, 1);
	} else if (++w->outstanding == PIPELINE) {
		take_replies(w);
	}
}

static void write_one(struct writing *w, uint64_t key)
{
	char name[24];
	size_t name_bytes = value_key(name, key);
	uint64_t dice = tap_random(&w->random);
	if (key % TORTURE_REMOVABLE_EVERY == 0 && dice % 4 == 0) {
		send_command(w, "DEL", name, name_bytes, NULL, 0);
		return;
	}
	size_t bytes = VALUE_BYTES_MIN + (dice >> 8) % 300;
	if (dice % 500 == 1) {
		bytes = 17000 +
			(dice >> 8) % (TORTURE_VALUE_BYTES_MAX - 17000); // in the large range
	}
	value_fill(w->value, bytes, key, ++w->counts[key]);
	send_command(w, "SET", name, name_bytes, w->value, bytes);
}

// Other keys come and go in waves, and the table follows them.
static void write_wave(struct writing *w, uint64_t *wave, uint64_t step)
{
	char name[24];
	uint64_t number = *wave % COMING_AND_GOING;
	bool coming = *wave / COMING_AND_GOING % 2 == 0;
	size_t name_bytes = value_key(name, 1000000 + number);
	send_command(w, coming ? "SET" : "DEL", name, name_bytes, coming ? "x" : NULL, 1);
	*wave += step;
}

// Leaves the same keys with values of the same size, whatever was written before.
static void write_rest(struct writing *w)
{
	char name[24];
	for (uint64_t number = 0; number < COMING_AND_GOING; number++) {
		size_t name_bytes = value_key(name, 1000000 + number);
		send_command(w, "DEL", name, name_bytes, NULL, 0);
	}
	for (uint64_t key = 0; key < TORTURE_KEYS; key++) {
		value_fill(w->value, KEY_BYTES_AT_REST, key, ++w->counts[key]);
		size_t name_bytes = value_key(name, key);
		send_command(w, "SET", name, name_bytes, w->value, KEY_BYTES_AT_REST);
	}
	take_replies(w);
}

void readers_torture_write(const char *socket_path, struct tally *tally, uint64_t seed,
			   bool load_only)
{
	static struct writing w;
	struct kvc_options options;
	uint64_t wave = 0;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.flags = KVC_OPEN_SOCKET_ONLY;
	options.request_timeout_ms = 30000;
	w.tally = tally;
	w.random = seed;
	if (kvc_open(&w.client, &options) != KVC_OK) {
		_exit(1);
	}
	while (load_only && wave < COMING_AND_GOING) {
		write_wave(&w, &wave, 1); // the table was as large as it will be
	}
	write_rest(&w);
	while (!load_only && __atomic_load_n(&tally->stop, __ATOMIC_RELAXED) == 0) {
		for (unsigned i = 0; i < PIPELINE; i++) {
			write_one(&w, tap_random(&w.random) % TORTURE_KEYS);
			write_wave(&w, &wave, 1);
		}
	}
	if (!load_only) {
		write_rest(&w);
	}
	(void)kvc_close(w.client);
	_exit(0);
}

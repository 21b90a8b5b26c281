// SPDX-License-Identifier: MIT
//
// What clients send: commands of all families that change or read keys, with keys from a small set
// so that they meet, and values of all sizes. Watchers send what the model does not follow.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/simulation/sim.h"

#define LARGE_BYTES_MIN 16500u
#define LARGE_BYTES_MAX 30000u
#define TRANSACTION_MAX 8u
#define FILLERS_AT_ONCE 500u // a part of SIM_FILLERS

void sim_text_add(struct sim_text *text, const void *bytes, size_t count)
{
	if (text->bytes + count > text->room) {
		text->room = (text->bytes + count) * 2 + 64;
		text->data = sim_grow(text->data, text->room);
	}
	if (count > 0) {
		memcpy(text->data + text->bytes, bytes, count);
	}
	text->bytes += count;
}

void sim_text_print(struct sim_text *text, const char *format, ...)
{
	char line[256];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	sim_text_add(text, line, (size_t)length);
}

const struct sim_value *sim_value_make(void)
{
	static uint64_t made;
	size_t bytes = sim_below(sim.plan.value_bytes + 1);
	if (sim_below(100) < sim.plan.large_percent) {
		bytes = LARGE_BYTES_MIN + sim_below(LARGE_BYTES_MAX - LARGE_BYTES_MIN);
	}
	struct sim_value *value = sim_alloc(sizeof(*value) + bytes + 1);
	value->bytes = bytes;
	char head[24];
	int length = snprintf(head, sizeof(head), "%llu:", (unsigned long long)++made);
	for (size_t i = 0; i < bytes; i++) {
		value->data[i] =
			(unsigned char)(i < (size_t)length ? head[i]
							   : (char)('a' + (i + made) % 26));
	}
	return value;
}

static void add(struct sim_request *request, const char *data, size_t bytes)
{
	if (request->argc == request->room) {
		request->room = request->room * 2 + 12;
		request->argv = sim_grow(request->argv, request->room * sizeof(*request->argv));
	}
	request->argv[request->argc++] = (struct sim_arg){ data, bytes };
}

static void add_text(struct sim_request *request, const char *text)
{
	add(request, text, strlen(text));
}

static void add_number(struct sim_request *request, long long number)
{
	char *text = sim_alloc(24);
	(void)snprintf(text, 24, "%lld", number);
	add_text(request, text);
}

static void add_key(struct sim_request *request)
{
	const struct sim_key *key = sim_model_key((unsigned)sim_below(sim.plan.keys));
	add(request, key->name, key->name_bytes);
}

static void add_value(struct sim_request *request)
{
	if (sim_chance(6)) {
		add_number(request, (long long)sim_below(1000));
		return;
	}
	const struct sim_value *value = sim_value_make();
	add(request, (const char *)value->data, value->bytes);
}

static void add_time(struct sim_request *request)
{
	add_number(request, 1 + (long long)sim_below(sim.plan.expire_ms));
}

static void make_set(struct sim_request *request)
{
	add_text(request, "SET");
	add_key(request);
	add_value(request);
	switch (sim_below(8)) {
	case 0:
		add_text(request, "NX");
		break;
	case 1:
		add_text(request, "XX");
		break;
	case 2:
		add_text(request, "PX");
		add_time(request);
		break;
	case 3:
		add_text(request, "KEEPTTL");
		break;
	case 4:
		add_text(request, "GET");
		break;
	default:
		break;
	}
}

static void make_keys_upto(struct sim_request *request, const char *name, bool values,
			   unsigned most)
{
	add_text(request, name);
	for (uint64_t i = 1 + sim_below(most); i > 0; i--) {
		add_key(request);
		if (values) {
			add_value(request);
		}
	}
}

static void make_keys(struct sim_request *request, const char *name, bool values)
{
	make_keys_upto(request, name, values, 4);
}

static void make_keyed(struct sim_request *request, const char *name)
{
	add_text(request, name);
	add_key(request);
}

static void make_read(struct sim_request *request)
{
	static const char *const names[] = { "GET", "STRLEN", "PTTL", "GET", "TYPE" };
	switch (sim_below(10)) {
	case 0:
		make_keys(request, "MGET", false);
		break;
	case 1:
		make_keys(request, "EXISTS", false);
		break;
	case 2:
		add_text(request, "DBSIZE");
		break;
	case 3:
		make_keyed(request, "GETRANGE");
		add_number(request, (long long)sim_below(40) - 20);
		add_number(request, (long long)sim_below(40) - 20);
		break;
	default:
		make_keyed(request, names[sim_below(5)]);
		break;
	}
}

static void make_change(struct sim_request *request)
{
	static const char *const counters[] = { "INCR", "DECR" };
	switch (sim_below(12)) {
	case 0:
		make_keyed(request, counters[sim_below(2)]);
		break;
	case 1:
		make_keyed(request, "INCRBY");
		add_number(request, (long long)sim_below(200) - 100);
		break;
	case 2:
		make_keyed(request, "APPEND");
		add_value(request); // a small one may become large by it
		break;
	case 3:
		make_keyed(request, "SETRANGE");
		add_number(request, (long long)sim_below(sim_chance(3) ? LARGE_BYTES_MAX : 50));
		add_text(request, "patch");
		break;
	case 4:
		make_keyed(request, "GETDEL");
		break;
	case 5:
		make_keyed(request, "GETSET");
		add_value(request);
		break;
	case 6:
		make_keyed(request, "PERSIST");
		break;
	case 7:
		make_keyed(request, "SETNX");
		add_value(request);
		break;
	case 8:
		make_keyed(request, "COPY");
		add_key(request);
		add_text(request, "REPLACE");
		break;
	case 9:
		make_keyed(request, "RENAMENX");
		add_key(request);
		break;
	case 10:
		make_keyed(request, "RENAME");
		add_key(request);
		break;
	default:
		make_keyed(request, "PEXPIRE");
		add_time(request);
		break;
	}
}

static void make_plain(struct sim_request *request)
{
	uint64_t dice = sim_below(100);
	if (dice < 30) {
		make_set(request);
	} else if (dice < 40) {
		make_keys(request, "DEL", false);
	} else if (dice < 48) {
		make_keys(request, sim_chance(4) ? "MSETNX" : "MSET", true);
	} else if (dice < 70) {
		make_change(request);
	} else if (sim_chance(60)) {
		add_text(request, "FLUSHALL");
	} else {
		make_read(request);
	}
}

// A client that is inside MULTI ends it sooner or later.
void sim_request_make(struct sim_client *client, struct sim_request *request)
{
	static unsigned left[SIM_CLIENTS_MAX]; // of what is yet to be queued, + 1
	unsigned *inside = &left[client->index];
	request->argc = 0;
	if (client->sent == 0) {
		*inside = 0;
		if (sim_chance(2)) {
			add_text(request, "HELLO");
			add_text(request, "3");
			return;
		}
	}
	if (*inside == 1) {
		*inside = 0;
		add_text(request, sim_chance(8) ? "DISCARD" : "EXEC");
	} else if (*inside > 1) {
		(*inside)--;
		make_plain(request);
	} else if (sim_chance(12)) {
		*inside = 2 + (unsigned)sim_below(TRANSACTION_MAX);
		add_text(request, "MULTI");
	} else if (sim_chance(25)) {
		// Where keys go so many that some do.
		make_keys_upto(request, "WATCH", false, sim.plan.when_full == SIM_EVICTS ? 32 : 4);
	} else if (sim_chance(100)) {
		add_text(request, "UNWATCH");
	} else if (sim_chance(60) && sim.plan.policy != 0) {
		add_text(request, "KVD.SYNC");
	} else {
		make_plain(request);
	}
}

// All fillers in turn are set, and then removed, so that the table grows and shrinks.
void sim_request_filler(struct sim_request *request)
{
	static unsigned next;
	bool sets = next / sim.plan.fillers % 2 == 0;
	request->argc = 0;
	add_text(request, sets ? "MSET" : "DEL");
	for (unsigned i = 0; i < FILLERS_AT_ONCE; i++, next++) {
		const struct sim_key *key = sim_model_key(sim.plan.keys + next % sim.plan.fillers);
		add(request, key->name, key->name_bytes);
		if (sets) {
			add_text(request, "filled");
		}
	}
}

void sim_request_watcher(struct sim_client *client, struct sim_request *request)
{
	request->argc = 0;
	if (client->sent == 0) {
		add_text(request, "HELLO");
		add_text(request, "3");
		return;
	}
	switch (sim_below(10)) {
	case 0:
		add_text(request, "SUBSCRIBE");
		add_text(request, "news");
		break;
	case 1:
		add_text(request, "PUBLISH");
		add_text(request, "news");
		add_value(request);
		break;
	case 2:
		add_text(request, "CLIENT");
		add_text(request, "TRACKING");
		add_text(request, sim_chance(4) ? "OFF" : "ON");
		break;
	case 3:
		add_text(request, "KEYS");
		add_text(request, "*");
		break;
	case 4:
		add_text(request, "SCAN");
		add_text(request, "0");
		break;
	case 5:
		add_text(request, "UNSUBSCRIBE");
		break;
	case 6:
		add_text(request, "KVD.WATERMARKS");
		break;
	case 7:
		add_text(request, "RANDOMKEY");
		break;
	default:
		make_read(request);
		break;
	}
}

bool sim_text_matches(const char *expected, size_t expected_bytes, const char *got,
		      size_t got_bytes)
{
	size_t at = 0;
	for (size_t i = 0; i < expected_bytes; i++, at++) {
		if (expected_bytes - i >= 4 && memcmp(expected + i, "-ERR", 4) == 0) {
			const char *end = at < got_bytes && got[at] == '-'
						  ? memchr(got + at, '\n', got_bytes - at)
						  : NULL;
			if (end == NULL) {
				return false;
			}
			at = (size_t)(end - got);
			i += 3;
		} else if (at >= got_bytes || got[at] != expected[i]) {
			return false;
		}
	}
	return at == got_bytes;
}

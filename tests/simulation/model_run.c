// SPDX-License-Identifier: MIT
//
// Commands as the model understands them: short, obvious, and written without a look at kvd's. The
// reply is byte for byte what a client must get; of errors only the code counts.
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tests/simulation/model.h"

static const struct sim_value *value_of(const void *data, size_t bytes)
{
	struct sim_value *value = sim_alloc(sizeof(*value) + bytes + 1);
	value->bytes = bytes;
	if (bytes > 0) {
		memcpy(value->data, data, bytes);
	}
	return value;
}

unsigned sim_run_key(const struct sim_run_of *run, unsigned argument)
{
	const struct sim_arg *arg = &run->request->argv[argument];
	return sim_model_find(arg->data, arg->bytes);
}

bool sim_run_visible(const struct sim_run_of *run, unsigned index)
{
	const struct sim_key *key = sim_model_key(index);
	return key->value != NULL && (key->expire_ms == 0 || key->expire_ms > run->now_ms);
}

/// NULL = absent.
static const struct sim_value *get(const struct sim_run_of *run, unsigned index)
{
	return sim_run_visible(run, index) ? sim_model_key(index)->value : NULL;
}

static uint64_t expiry(const struct sim_run_of *run, unsigned index)
{
	return sim_run_visible(run, index) ? sim_model_key(index)->expire_ms : 0;
}

static long long number_at(const struct sim_run_of *run, unsigned argument)
{
	return strtoll(run->request->argv[argument].data, NULL, 10);
}

static bool option_at(const struct sim_run_of *run, unsigned argument, const char *word)
{
	const struct sim_arg *arg = &run->request->argv[argument];
	return argument < run->request->argc && arg->bytes == strlen(word) &&
	       memcmp(arg->data, word, arg->bytes) == 0;
}

static void say_integer(const struct sim_run_of *run, long long number)
{
	sim_text_print(run->reply, ":%lld\r\n", number);
}

static void say_null(const struct sim_run_of *run)
{
	sim_text_print(run->reply, run->client->resp == 3 ? "_\r\n" : "$-1\r\n");
}

static void say_ok(const struct sim_run_of *run)
{
	sim_text_print(run->reply, "+OK\r\n");
}

static void say_value(const struct sim_run_of *run, const struct sim_value *value)
{
	if (value == NULL) {
		say_null(run);
		return;
	}
	sim_text_print(run->reply, "$%zu\r\n", value->bytes);
	sim_text_add(run->reply, value->data, value->bytes);
	sim_text_print(run->reply, "\r\n");
}

static const struct sim_value *argument_value(const struct sim_run_of *run, unsigned argument)
{
	return value_of(run->request->argv[argument].data, run->request->argv[argument].bytes);
}

static void run_set(const struct sim_run_of *run)
{
	unsigned key = sim_run_key(run, 1);
	const struct sim_value *old = get(run, key);
	uint64_t expire_ms = option_at(run, 3, "KEEPTTL") ? expiry(run, key) : 0;
	if (option_at(run, 3, "PX")) {
		expire_ms = run->now_ms + (uint64_t)number_at(run, 4);
	}
	bool skip = option_at(run, 3, old != NULL ? "NX" : "XX");
	if (option_at(run, 3, "GET")) {
		say_value(run, old);
	} else if (skip) {
		say_null(run);
	} else {
		say_ok(run);
	}
	if (!skip) {
		sim_model_change(key, argument_value(run, 2), expire_ms);
	}
}

static void run_get(const struct sim_run_of *run)
{
	say_value(run, get(run, sim_run_key(run, 1)));
}

static void run_strlen(const struct sim_run_of *run)
{
	const struct sim_value *value = get(run, sim_run_key(run, 1));
	say_integer(run, value != NULL ? (long long)value->bytes : 0);
}

static void run_type(const struct sim_run_of *run)
{
	sim_text_print(run->reply, get(run, sim_run_key(run, 1)) ? "+string\r\n" : "+none\r\n");
}

static void run_pttl(const struct sim_run_of *run)
{
	unsigned key = sim_run_key(run, 1);
	uint64_t expire_ms = expiry(run, key);
	say_integer(run, get(run, key) == NULL ? -2
			 : expire_ms == 0      ? -1
					       : (long long)(expire_ms - run->now_ms));
}

static void run_mget(const struct sim_run_of *run)
{
	sim_text_print(run->reply, "*%u\r\n", run->request->argc - 1);
	for (unsigned i = 1; i < run->request->argc; i++) {
		say_value(run, get(run, sim_run_key(run, i)));
	}
}

static void run_exists(const struct sim_run_of *run)
{
	long long count = 0;
	for (unsigned i = 1; i < run->request->argc; i++) {
		count += get(run, sim_run_key(run, i)) != NULL;
	}
	say_integer(run, count);
}

static void run_dbsize(const struct sim_run_of *run)
{
	long long count = 0; // expired ones count until they are removed
	for (unsigned i = 0; i < sim_model_keys(); i++) {
		count += sim_model_key(i)->value != NULL;
	}
	say_integer(run, count);
}

static void run_getrange(const struct sim_run_of *run)
{
	const struct sim_value *value = get(run, sim_run_key(run, 1));
	long long bytes = value != NULL ? (long long)value->bytes : 0;
	long long first = number_at(run, 2);
	long long last = number_at(run, 3);
	bool crossed = first < 0 && last < 0 && first > last;
	first = first < 0 ? first + bytes : first;
	last = last < 0 ? last + bytes : last;
	first = first < 0 ? 0 : first;
	last = last < 0 ? 0 : last;
	last = last >= bytes ? bytes - 1 : last;
	bool none = crossed || bytes == 0 || first > last;
	say_value(run, none ? value_of("", 0)
			    : value_of(value->data + first, (size_t)(last - first + 1)));
}

static void run_del(const struct sim_run_of *run)
{
	long long count = 0;
	for (unsigned i = 1; i < run->request->argc; i++) {
		unsigned key = sim_run_key(run, i);
		if (get(run, key) != NULL) {
			sim_model_change(key, NULL, 0);
			count++;
		}
	}
	say_integer(run, count);
}

static void set_pairs(const struct sim_run_of *run)
{
	for (unsigned i = 1; i + 1 < run->request->argc; i += 2) {
		sim_model_change(sim_run_key(run, i), argument_value(run, i + 1), 0);
	}
}

static void run_mset(const struct sim_run_of *run)
{
	set_pairs(run);
	say_ok(run);
}

static void run_msetnx(const struct sim_run_of *run)
{
	for (unsigned i = 1; i + 1 < run->request->argc; i += 2) {
		if (get(run, sim_run_key(run, i)) != NULL) {
			say_integer(run, 0);
			return;
		}
	}
	set_pairs(run);
	say_integer(run, 1);
}

/// False: it is none that kvd would count with.
static bool parse_number(const struct sim_value *value, long long *number)
{
	char text[32];
	if (value == NULL) {
		*number = 0;
		return true;
	}
	if (value->bytes == 0 || value->bytes >= 20) {
		return false;
	}
	memcpy(text, value->data, value->bytes);
	text[value->bytes] = '\0';
	char again[32];
	*number = strtoll(text, NULL, 10);
	(void)snprintf(again, sizeof(again), "%lld", *number);
	return strlen(text) == value->bytes && strcmp(text, again) == 0;
}

static void count_by(const struct sim_run_of *run, long long by)
{
	unsigned key = sim_run_key(run, 1);
	long long number;
	if (!parse_number(get(run, key), &number) || __builtin_add_overflow(number, by, &number)) {
		sim_text_print(run->reply, "-ERR");
		return;
	}
	char text[32];
	(void)snprintf(text, sizeof(text), "%lld", number);
	sim_model_change(key, value_of(text, strlen(text)), expiry(run, key));
	say_integer(run, number);
}

static void run_incr(const struct sim_run_of *run)
{
	count_by(run, 1);
}

static void run_decr(const struct sim_run_of *run)
{
	count_by(run, -1);
}

static void run_incrby(const struct sim_run_of *run)
{
	count_by(run, number_at(run, 2));
}

/// What stands in the value from `offset` on is replaced.
static void patch(const struct sim_run_of *run, size_t offset, const struct sim_arg *part)
{
	unsigned key = sim_run_key(run, 1);
	const struct sim_value *old = get(run, key);
	size_t before = old != NULL ? old->bytes : 0;
	size_t bytes = offset + part->bytes > before ? offset + part->bytes : before;
	if (bytes > 31000) {
		sim_text_print(run->reply, "-ERR");
		return;
	}
	struct sim_value *value = sim_alloc(sizeof(*value) + bytes + 1);
	value->bytes = bytes;
	if (before > 0) {
		memcpy(value->data, old->data, before);
	}
	memcpy(value->data + offset, part->data, part->bytes);
	sim_model_change(key, value, expiry(run, key));
	say_integer(run, (long long)bytes);
}

static void run_append(const struct sim_run_of *run)
{
	const struct sim_value *old = get(run, sim_run_key(run, 1));
	patch(run, old != NULL ? old->bytes : 0, &run->request->argv[2]);
}

static void run_setrange(const struct sim_run_of *run)
{
	patch(run, (size_t)number_at(run, 2), &run->request->argv[3]);
}

static void run_getdel(const struct sim_run_of *run)
{
	unsigned key = sim_run_key(run, 1);
	const struct sim_value *value = get(run, key);
	say_value(run, value);
	if (value != NULL) {
		sim_model_change(key, NULL, 0);
	}
}

static void run_getset(const struct sim_run_of *run)
{
	unsigned key = sim_run_key(run, 1);
	say_value(run, get(run, key));
	sim_model_change(key, argument_value(run, 2), 0);
}

static void run_setnx(const struct sim_run_of *run)
{
	unsigned key = sim_run_key(run, 1);
	bool applies = get(run, key) == NULL;
	if (applies) {
		sim_model_change(key, argument_value(run, 2), 0);
	}
	say_integer(run, applies);
}

static void run_persist(const struct sim_run_of *run)
{
	unsigned key = sim_run_key(run, 1);
	bool applies = get(run, key) != NULL && expiry(run, key) != 0;
	if (applies) {
		sim_model_change(key, get(run, key), 0);
	}
	say_integer(run, applies);
}

static void run_pexpire(const struct sim_run_of *run)
{
	unsigned key = sim_run_key(run, 1);
	const struct sim_value *value = get(run, key);
	if (value != NULL) {
		sim_model_change(key, value, run->now_ms + (uint64_t)number_at(run, 2));
	}
	say_integer(run, value != NULL);
}

static void run_copy(const struct sim_run_of *run)
{
	unsigned from = sim_run_key(run, 1);
	unsigned to = sim_run_key(run, 2);
	const struct sim_value *value = get(run, from);
	uint64_t expire_ms = expiry(run, from);
	const char *head = run->client->head;
	if (from == to) {
		sim_text_print(run->reply, "-ERR");
		return;
	}
	if (value == NULL && head != NULL && memcmp(head, ":1", 2) == 0) {
		// It may have gone for the copy's room: behind it, then.
		value = sim_model_went(from, &expire_ms);
	}
	if (value != NULL) {
		sim_model_change(to, value, expire_ms);
	}
	say_integer(run, value != NULL);
}

static void move_key(const struct sim_run_of *run, unsigned from, unsigned to)
{
	const struct sim_value *value = get(run, from);
	uint64_t expire_ms = expiry(run, from);
	if (from != to) {
		sim_model_change(to, value, expire_ms);
		sim_model_change(from, NULL, 0);
	} else {
		run->client->watch_unsure = true; // whether that changes the key is not said
	}
}

static void run_rename(const struct sim_run_of *run)
{
	unsigned from = sim_run_key(run, 1);
	if (get(run, from) == NULL) {
		sim_text_print(run->reply, "-ERR");
		return;
	}
	move_key(run, from, sim_run_key(run, 2));
	say_ok(run);
}

static void run_renamenx(const struct sim_run_of *run)
{
	unsigned from = sim_run_key(run, 1);
	unsigned to = sim_run_key(run, 2);
	if (get(run, from) == NULL) {
		sim_text_print(run->reply, "-ERR");
		return;
	}
	bool applies = get(run, to) == NULL;
	if (applies) {
		move_key(run, from, to);
	}
	say_integer(run, applies);
}

static unsigned flushes;

unsigned sim_model_flushes(void)
{
	return flushes;
}

static void run_flushall(const struct sim_run_of *run)
{
	flushes++;
	for (unsigned i = 0; i < sim_model_keys(); i++) {
		if (sim_model_key(i)->value != NULL) {
			sim_model_change(i, NULL, 0);
		}
	}
	say_ok(run);
}

static const struct {
	const char *name;
	void (*run)(const struct sim_run_of *run);
} commands[] = {
	{ "SET", run_set },	      { "GET", run_get },
	{ "STRLEN", run_strlen },     { "TYPE", run_type },
	{ "PTTL", run_pttl },	      { "MGET", run_mget },
	{ "EXISTS", run_exists },     { "DBSIZE", run_dbsize },
	{ "GETRANGE", run_getrange }, { "DEL", run_del },
	{ "MSET", run_mset },	      { "MSETNX", run_msetnx },
	{ "INCR", run_incr },	      { "DECR", run_decr },
	{ "INCRBY", run_incrby },     { "APPEND", run_append },
	{ "GETDEL", run_getdel },     { "SETRANGE", run_setrange },
	{ "GETSET", run_getset },     { "SETNX", run_setnx },
	{ "PERSIST", run_persist },   { "PEXPIRE", run_pexpire },
	{ "COPY", run_copy },	      { "RENAME", run_rename },
	{ "RENAMENX", run_renamenx }, { "WATCH", sim_run_watch },
	{ "FLUSHALL", run_flushall }, { "UNWATCH", sim_run_unwatch },
	{ "MULTI", sim_run_multi },   { "DISCARD", sim_run_discard },
	{ "EXEC", sim_run_exec },
};

void sim_model_run(struct sim_client *client, const struct sim_request *request, uint64_t now_ms,
		   struct sim_text *reply)
{
	struct sim_run_of run = { client, request, now_ms, reply };
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (option_at(&run, 0, commands[i].name)) {
			commands[i].run(&run);
			return;
		}
	}
}

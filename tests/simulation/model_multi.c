// SPDX-License-Identifier: MIT
//
// Transactions as the model understands them: what is queued runs at once, unless a watched key is
// another one than when it was watched.
#include <stdlib.h>
#include <string.h>

#include "tests/simulation/model.h"

void sim_run_watch(const struct sim_run_of *run)
{
	for (unsigned i = 1; i < run->request->argc; i++) {
		unsigned key = sim_run_key(run, i);
		struct sim_watch *watch = &run->client->watch[key];
		if (!watch->is_set) {
			*watch =
				(struct sim_watch){ true, sim_run_visible(run, key),
						    sim_model_key(key)->change, sim_model_changes(),
						    run->client->refused_before };
		}
	}
	sim_text_print(run->reply, "+OK\r\n");
}

static void forget_watches(struct sim_client *client)
{
	memset(client->watch, 0, sizeof(client->watch));
	client->watch_unsure = false;
}

void sim_run_unwatch(const struct sim_run_of *run)
{
	forget_watches(run->client);
	sim_text_print(run->reply, "+OK\r\n");
}

void sim_run_multi(const struct sim_run_of *run)
{
	run->client->multi = true;
	run->client->queued_count = 0;
	sim_text_print(run->reply, "+OK\r\n");
}

void sim_model_leave_multi(struct sim_client *client)
{
	client->multi = false;
	client->queued_count = 0;
	forget_watches(client);
}

void sim_run_discard(const struct sim_run_of *run)
{
	sim_model_leave_multi(run->client);
	sim_text_print(run->reply, "+OK\r\n");
}

/// Was a watched key changed? 1, 0, or -1: kvd may think so or not.
static int watch_changed(const struct sim_run_of *run)
{
	const struct sim_client *client = run->client;
	int result = client->watch_unsure ? -1 : 0;
	for (unsigned i = 0; i < sim.plan.keys; i++) {
		const struct sim_watch *watch = &client->watch[i];
		if (!watch->is_set) {
			continue;
		}
		bool visible = sim_run_visible(run, i);
		bool same = sim_model_key(i)->change == watch->change;
		if (visible != watch->was_visible || (visible && !same)) {
			return 1;
		}
		// That it came and went, or was flushed where it was not, kvd may count; so it
		// does all that it may not have been told of for want of memory.
		if (!visible &&
		    (sim_model_changes() != watch->since || sim.refused != watch->refused)) {
			result = -1;
		}
	}
	return result;
}

/// kvd's reply to the next command of the transaction, NULL if it is not at hand.
static const char *next_reply(const char **at, size_t *left)
{
	size_t bytes = *at != NULL ? sim_frame_bytes(*at, *left) : 0;
	const char *reply = bytes > 0 ? *at : NULL;
	*at = bytes > 0 ? *at + bytes : NULL;
	*left -= bytes;
	return reply;
}

/// Is it a count of keys that can be right? One that only reads removes on its way what it finds
/// expired, so between its first and its last command any of those may have gone.
static bool is_count(const struct sim_run_of *run, const struct sim_request *request,
		     const char *reply)
{
	if (reply == NULL || reply[0] != ':' || request->argv[0].bytes != strlen("DBSIZE") ||
	    memcmp(request->argv[0].data, "DBSIZE", request->argv[0].bytes) != 0) {
		return false;
	}
	long long count = strtoll(reply + 1, NULL, 10);
	long long least = 0;
	long long most = 0;
	for (unsigned i = 0; i < sim_model_keys(); i++) {
		least += sim_run_visible(run, i);
		most += sim_model_key(i)->value != NULL;
	}
	return count >= least && count <= most;
}

/// Memory was refused: to the command, or before to who read its value from the store.
static bool is_refused(const struct sim_client *client, const char *reply)
{
	static const char text[] = "-OOM no memory to read values from the store";
	return (client->unsure && reply[0] == '-') ||
	       (sim.refused > 0 && strncmp(reply, text, sizeof(text) - 1) == 0);
}

void sim_run_exec(const struct sim_run_of *run)
{
	struct sim_client *client = run->client;
	int changed = watch_changed(run);
	bool null = client->head != NULL && (client->head[0] == '_' || client->head[1] == '-');
	unsigned count = client->queued_count;
	client->multi = false;
	if (changed == 1 || (changed < 0 && null)) {
		sim_text_print(run->reply, client->resp == 3 ? "_\r\n" : "*-1\r\n");
	} else {
		sim_text_print(run->reply, "*%u\r\n", count);
		const char *at = client->head;
		size_t left = client->head_bytes;
		size_t line = run->reply->bytes; // the same as kvd's
		at = at != NULL && left > line ? at + line : NULL;
		left -= at != NULL ? line : 0;
		for (unsigned i = 0; i < count; i++) {
			const struct sim_request *request = &client->requests[client->queued[i]];
			const char *reply = next_reply(&at, &left);
			if (reply != NULL && (is_refused(client, reply) ||
					      sim_model_is_unread(reply, (size_t)(at - reply)))) {
				sim_text_print(run->reply, "-ERR");
			} else if (is_count(run, request, reply)) {
				sim_text_print(run->reply, ":%lld\r\n",
					       strtoll(reply + 1, NULL, 10));
			} else {
				sim_model_run(client, request, run->now_ms, run->reply);
			}
		}
	}
	sim_model_leave_multi(client);
}

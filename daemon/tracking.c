// SPDX-License-Identifier: MIT
//
// Tracking clients, and how they are told: by a push over RESP3, or, where another connection takes
// their messages, as a message of the channel __redis__:invalidate over RESP2.
#include "daemon/tracking.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/reply.h"
#include "daemon/seam.h"
#include "daemon/session_push.h"
#include "daemon/tracking_parts.h"

#define TRACKING_LET_GO_TURN 256u // keys let go of in one turn when their bound was lowered

bool tracking_create(struct kvd *kvd)
{
	struct tracking *tracking = calloc(1, sizeof(*tracking));
	kvd->tracking = tracking;
	if (!tracking) {
		return false;
	}
	kvd->seam->random_bytes(&tracking->seed, sizeof(tracking->seed));
	kvd->seam->random_bytes(&tracking->random, sizeof(tracking->random));
	TAILQ_INIT(&tracking->clients);
	STAILQ_INIT(&tracking->doomed);
	TAILQ_INIT(&tracking->changed_prefixes);
	return true;
}

void tracking_destroy(struct kvd *kvd)
{
	if (kvd->tracking) {
		tracking_keys_fini(kvd->tracking);
		lookup_free(&kvd->tracking->prefixes);
		free(kvd->tracking);
		kvd->tracking = NULL;
	}
}

bool tracking_start(struct session *session, unsigned flags, uint64_t redirect)
{
	struct tracking *tracking = session->kvd->tracking;
	struct tracking_client *client = session->tracking;
	if (!client) {
		client = calloc(1, sizeof(*client));
		if (!client) {
			return false;
		}
		client->session = session;
		TAILQ_INSERT_TAIL(&tracking->clients, client, link);
		tracking->clients_count++;
		session->tracking = client;
	}
	client->flags = flags | TRACKING_ON | (client->flags & TRACKING_CACHING);
	client->redirect = redirect;
	return true;
}

void tracking_leave(struct session *session)
{
	struct tracking_client *client = session->tracking;
	struct tracking *tracking = session->kvd->tracking;
	if (!client) {
		return;
	}
	tracking_bcast_leave(session->kvd, client);
	TAILQ_REMOVE(&tracking->clients, client, link);
	tracking->clients_count--;
	session->tracking = NULL;
	free(client);
	if (tracking->clients_count == 0) {
		tracking_keys_drop(tracking);
	}
}

unsigned tracking_flags(const struct session *session)
{
	return session->tracking ? session->tracking->flags : 0;
}

void tracking_set_caching(struct session *session, bool caching)
{
	unsigned flags = session->tracking->flags;
	session->tracking->flags =
		caching ? flags | TRACKING_CACHING : flags & ~(unsigned)TRACKING_CACHING;
}

int64_t tracking_redirect(const struct session *session)
{
	return session->tracking ? (int64_t)session->tracking->redirect : -1;
}

/// The value of an invalidation.
static void tracking_value(struct session *to, const char *value, size_t bytes)
{
	if (value) {
		reply_raw(to, value, bytes);
	} else {
		reply_null(to);
	}
}

static void tracking_say_broken(struct tracking_client *client)
{
	struct session *session = client->session;
	client->flags |= TRACKING_BROKEN;
	if (session->resp_version >= 3 && session_push_possible(session)) {
		session_push_begin(session, 2);
		reply_text(session, "tracking-redir-broken");
		reply_integer(session, (int64_t)client->redirect);
		session_push_end(session);
	}
}

void tracking_send(struct tracking_client *client, const char *value, size_t bytes)
{
	struct session *to = client->session;
	if (client->redirect) {
		to = session_find(to->kvd, client->redirect);
		if (!to) {
			tracking_say_broken(client);
			return;
		}
	}
	if (!session_push_possible(to)) {
		return;
	}
	if (to->resp_version >= 3) {
		session_push_begin(to, 2);
		reply_text(to, "invalidate");
	} else if (client->redirect && to->pubsub) {
		session_push_begin(to, 3);
		reply_text(to, "message");
		reply_text(to, "__redis__:invalidate");
	} else {
		return; // RESP2 knows no other way
	}
	tracking_value(to, value, bytes);
	session_push_end(to);
}

void tracking_changed(struct kvd *kvd, const char *key, size_t key_bytes, struct session *origin)
{
	if (key) {
		tracking_bcast_changed(kvd, key, key_bytes, origin);
		tracking_key_changed(kvd, key, key_bytes, origin);
		return;
	}
	struct tracking_client *client;
	TAILQ_FOREACH (client, &kvd->tracking->clients, link) {
		tracking_send(client, NULL, 0);
	}
	tracking_keys_drop(kvd->tracking);
}

void tracking_turn(struct kvd *kvd)
{
	if (kvd->tracking) {
		tracking_bcast_send(kvd);
		tracking_keys_let_go(kvd, TRACKING_LET_GO_TURN); // the bound was lowered
		tracking_keys_free_some(kvd->tracking);
	}
}

bool tracking_busy(const struct kvd *kvd)
{
	return kvd->tracking &&
	       (!STAILQ_EMPTY(&kvd->tracking->doomed) ||
		!TAILQ_EMPTY(&kvd->tracking->changed_prefixes) || tracking_keys_are_many(kvd));
}

size_t tracking_clients_count(const struct kvd *kvd)
{
	return kvd->tracking ? kvd->tracking->clients_count : 0;
}

size_t tracking_keys_count(const struct kvd *kvd)
{
	return kvd->tracking ? kvd->tracking->keys.count : 0;
}

uint64_t tracking_items_count(const struct kvd *kvd)
{
	return kvd->tracking ? kvd->tracking->items : 0;
}

size_t tracking_all_prefixes_count(const struct kvd *kvd)
{
	return kvd->tracking ? kvd->tracking->prefixes.count : 0;
}

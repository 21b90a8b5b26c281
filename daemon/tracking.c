// SPDX-License-Identifier: MIT
//
// Tracking clients, and how they are told: by a push over RESP3, or, where another connection takes
// their messages, as a message of the channel __redis__:invalidate over RESP2.
#include "daemon/tracking.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/parcel.h"
#include "daemon/reply.h"
#include "daemon/seam.h"
#include "daemon/session_push.h"
#include "daemon/tracking_parts.h"

#define TRACKING_CLOCK_EVERY 16u  // clients told between two looks at the clock
#define TRACKING_LET_GO_TURN 256u // keys let go of in one turn when their bound was lowered

/// Everything has changed.
struct tracking_flush {
	struct errand errand;
	bool begun;
};

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
		tracking_keys_fini(kvd);
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
		session->has_tracked = true;
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
	if (tracking->flush_next == client) {
		tracking->flush_next = TAILQ_NEXT(client, link);
	}
	TAILQ_REMOVE(&tracking->clients, client, link);
	tracking->clients_count--;
	session->tracking = NULL;
	free(client);
	if (tracking->clients_count == 0) {
		tracking_keys_drop(session->kvd);
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

/// Who gets a client's messages, NULL if nobody can be told now; what the message begins with is
/// *head.
static struct session *tracking_receiver(struct tracking_client *client, const char **head)
{
	struct session *to = client->session;
	if (client->redirect) {
		to = session_find(to->kvd, client->redirect);
		if (!to) {
			tracking_say_broken(client);
			return NULL;
		}
	}
	if (!session_push_possible(to)) {
		return NULL;
	}
	*head = "*2\r\n$10\r\ninvalidate\r\n";
	if (to->resp_version < 3) {
		*head = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";
	}
	// RESP2 knows no other way than a message to another connection.
	return to->resp_version >= 3 || (client->redirect && to->pubsub) ? to : NULL;
}

void tracking_send(struct tracking_client *client, const char *value, size_t bytes)
{
	const char *head;
	struct session *to = tracking_receiver(client, &head);
	if (!to) {
		return;
	}
	if (to->resp_version >= 3) {
		session_push_begin(to, 2);
		reply_text(to, "invalidate");
	} else {
		session_push_begin(to, 3);
		reply_text(to, "message");
		reply_text(to, "__redis__:invalidate");
	}
	tracking_value(to, value, bytes);
	session_push_end(to);
}

void tracking_send_parcel(struct tracking_client *client, struct parcel *value)
{
	const char *head;
	struct session *to = tracking_receiver(client, &head);
	if (to) {
		session_push_parcel(to, head, strlen(head), value);
	}
}

/// Tells every client that all keys have changed.
static bool tracking_flush_go(struct kvd *kvd, struct errand *errand, uint64_t until_ns)
{
	struct tracking *tracking = kvd->tracking;
	struct tracking_flush *flush = (struct tracking_flush *)(void *)errand;
	if (!flush->begun) {
		flush->begun = true;
		tracking->flush_next = TAILQ_FIRST(&tracking->clients);
	}
	for (unsigned told = 1; tracking->flush_next; told++) {
		struct tracking_client *client = tracking->flush_next;
		tracking->flush_next = TAILQ_NEXT(client, link);
		tracking_send(client, NULL, 0);
		if (told % TRACKING_CLOCK_EVERY == 0 && until_ns != 0 &&
		    kvd->seam->monotonic_ns() >= until_ns) {
			return false;
		}
	}
	return true;
}

static void tracking_flush_end(struct kvd *kvd, struct errand *errand)
{
	kvd->tracking->flush_next = NULL;
	free(errand);
}

static void tracking_flushed(struct kvd *kvd)
{
	tracking_keys_drop(kvd);
	struct tracking_flush *flush = calloc(1, sizeof(*flush));
	if (flush) {
		flush->errand.go = tracking_flush_go;
		flush->errand.end = tracking_flush_end;
		courier_add(&kvd->courier, &flush->errand);
		return;
	}
	struct tracking_client *client;
	TAILQ_FOREACH (client, &kvd->tracking->clients, link) {
		tracking_send(client, NULL, 0);
	}
}

void tracking_changed(struct kvd *kvd, const char *key, size_t key_bytes, uint64_t origin_id)
{
	if (key) {
		tracking_bcast_changed(kvd, key, key_bytes, origin_id);
		tracking_key_changed(kvd, key, key_bytes, origin_id);
	} else {
		tracking_flushed(kvd);
	}
}

void tracking_turn(struct kvd *kvd)
{
	if (kvd->tracking) {
		tracking_bcast_send(kvd);
		tracking_keys_let_go(kvd, TRACKING_LET_GO_TURN); // the bound was lowered
		(void)tracking_keys_sweep_some(kvd);
		tracking_keys_free_some(kvd);
	}
}

bool tracking_busy(const struct kvd *kvd)
{
	return kvd->tracking &&
	       (!STAILQ_EMPTY(&kvd->tracking->doomed) || kvd->tracking->sweeps ||
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

// SPDX-License-Identifier: MIT
//
// Reads through the socket: for clients that got no mapping, and for what the mapping cannot answer
// (values that are only on disk, a table that moves too fast, damage). They use the link, never the
// caller's own connection, whose state (MULTI, a pipeline) is none of a reader's business.
#include <string.h>

#include "libclient/form.h"

#define SOCKET_WINDOW 256u // requests of a multi-get under way at once
#define SOCKET_ATTEMPTS 2u // a read may be repeated when its connection breaks

static int socket_error(kvc_reader *reader, int status)
{
	if (status < 0) {
		const char *text = reader->client->link.error_text;
		kvc_error_set(reader->error_text, "%s", *text ? text : kvc_strerror(status));
	}
	return status == KVC_UNKNOWN ? KVC_UNREACHABLE : status; // a read changes nothing
}

static void socket_frame_word(struct kvc_frame *frame, const char *word)
{
	kvc_frame_args(frame, 1);
	kvc_frame_text(frame, word);
}

// Takes the one reply of a KVD.GETV into the sink.
static int socket_take(struct kvc_conn *link, const struct kvc_reply *reply, struct kvc_sink *sink)
{
	struct kvc_form form = { .want = KVC_WANT_VALUE, .command = "KVD.GETV", .replies = 1 };
	struct kvc_result result = { .status = KVC_OK };
	(void)kvc_form_take(&form, link, reply, &result);
	if (result.status != KVC_OK) {
		return result.status;
	}
	if (sink->meta) {
		*sink->meta = result.meta;
	}
	return kvc_sink_fill(sink, result.value, result.value_bytes);
}

// True if the link can take requests, attached or not; else *status says why not. Attaching uses
// the link's frame, so this comes before a request is built.
static bool socket_ready(kvc *client, int *status)
{
	*status = kvc_link_ensure(client, true);
	// unreached: after waiting for the reply to it, KVD.ATTACH is over or the link is gone.
	if (client->link.fd >= 0 && !client->attach_sent) {
		return true;
	}
	// unreached: as above.
	*status = *status == KVC_OK ? KVC_UNREACHABLE : *status;
	return false;
}

static int socket_send(kvc *client, uint64_t *deadline_ns)
{
	*deadline_ns = kvc_deadline_ns(client->options.request_timeout_ms);
	return kvc_conn_send(client, &client->link, *deadline_ns);
}

static bool socket_broke(int status)
{
	return status == KVC_UNREACHABLE || status == KVC_UNKNOWN;
}

// One request, its reply, and a second try if the connection breaks.
static int socket_request(kvc *client, const struct kvc_reply **reply, const char *word,
			  const void *key, size_t key_bytes)
{
	struct kvc_form form; // the keys were checked by the callers
	int status = KVC_UNREACHABLE;
	for (unsigned i = 0; i < SOCKET_ATTEMPTS && socket_broke(status); i++) {
		uint64_t deadline_ns = 0;
		if (!socket_ready(client, &status)) {
			break;
		}
		kvc_frame_begin(&client->link.frame);
		if (word) {
			socket_frame_word(&client->link.frame, word);
		} else {
			(void)kvc_form_get(&form, &client->link.frame, key, key_bytes);
		}
		status = socket_send(client, &deadline_ns);
		if (status == KVC_OK) {
			status = kvc_conn_reply(client, &client->link, deadline_ns, reply);
		}
	}
	return status;
}

int kvc_socket_get(kvc_reader *reader, const void *key, size_t key_bytes, struct kvc_sink *sink)
{
	kvc *client = reader->client;
	kvc_client_lock(client);
	const struct kvc_reply *reply;
	int status = socket_request(client, &reply, NULL, key, key_bytes);
	if (status == KVC_OK) {
		status = socket_take(&client->link, reply, sink);
	}
	status = socket_error(reader, status);
	kvc_client_unlock(client);
	return status;
}

int kvc_socket_watermarks(kvc_reader *reader, uint64_t *applied, uint64_t *durable)
{
	kvc *client = reader->client;
	kvc_client_lock(client);
	const struct kvc_reply *reply;
	int status = socket_request(client, &reply, "KVD.WATERMARKS", NULL, 0);
	if (status == KVC_OK && reply->type == KVC_REPLY_ERROR) {
		status = kvc_error_reply(&client->link, reply);
	} else if (status == KVC_OK && (reply->type != KVC_REPLY_ARRAY || reply->count < 2)) {
		kvc_error_set(client->link.error_text, "KVD.WATERMARKS: unexpected reply");
		status = KVC_PROTOCOL;
	}
	if (status == KVC_OK) {
		*applied = (uint64_t)reply->element[0].integer;
		*durable = (uint64_t)reply->element[1].integer;
	}
	status = socket_error(reader, status);
	kvc_client_unlock(client);
	return status;
}

static void socket_take_item(struct kvc_conn *link, const struct kvc_reply *reply,
			     struct kvc_item *item)
{
	struct kvc_sink sink = { .buffer = item->buffer,
				 .buffer_bytes = item->buffer_bytes,
				 .meta = &item->meta };
	item->status = socket_take(link, reply, &sink);
}

// Items [first, end) whose status is BUSY, in one send.
static int socket_window(kvc *client, struct kvc_item *items, size_t first, size_t end)
{
	struct kvc_conn *link = &client->link;
	uint64_t deadline_ns = 0;
	struct kvc_form form;
	kvc_frame_begin(&link->frame);
	for (size_t i = first; i < end; i++) {
		if (items[i].status == KVC_BUSY) {
			(void)kvc_form_get(&form, &link->frame, items[i].key,
					   items[i].key_bytes);
		}
	}
	int status = socket_send(client, &deadline_ns);
	for (size_t i = first; i < end && status == KVC_OK; i++) {
		const struct kvc_reply *reply;
		if (items[i].status != KVC_BUSY) {
			continue;
		}
		status = kvc_conn_reply(client, link, deadline_ns, &reply);
		if (status == KVC_OK) {
			socket_take_item(link, reply, &items[i]);
		}
	}
	return status;
}

// All BUSY items between MULTI and EXEC: kvd runs them with nothing in between.
static int socket_atomic(kvc *client, struct kvc_item *items, size_t count)
{
	struct kvc_conn *link = &client->link;
	uint64_t deadline_ns = 0;
	struct kvc_form form;
	size_t asked = 0;
	kvc_frame_begin(&link->frame);
	socket_frame_word(&link->frame, "MULTI");
	for (size_t i = 0; i < count; i++) {
		if (items[i].status == KVC_BUSY) {
			(void)kvc_form_get(&form, &link->frame, items[i].key,
					   items[i].key_bytes);
			asked++;
		}
	}
	socket_frame_word(&link->frame, "EXEC");
	int status = socket_send(client, &deadline_ns);
	const struct kvc_reply *reply = NULL;
	for (size_t i = 0; i < asked + 2 && status == KVC_OK; i++) {
		status = kvc_conn_reply(client, link, deadline_ns, &reply);
	}
	if (status != KVC_OK) {
		return status;
	}
	if (reply->type == KVC_REPLY_ERROR) {
		return kvc_error_reply(link, reply);
	}
	if (reply->type != KVC_REPLY_ARRAY || reply->count != asked) {
		kvc_error_set(link->error_text, "EXEC: unexpected reply");
		return KVC_PROTOCOL;
	}
	for (size_t i = 0, taken = 0; i < count; i++) {
		if (items[i].status == KVC_BUSY) {
			socket_take_item(link, &reply->element[taken++], &items[i]);
		}
	}
	return KVC_OK;
}

int kvc_socket_get_many(kvc_reader *reader, struct kvc_item *items, size_t count, bool atomic)
{
	kvc *client = reader->client;
	int status = KVC_UNREACHABLE;
	kvc_client_lock(client);
	for (unsigned attempt = 0; attempt < SOCKET_ATTEMPTS && socket_broke(status); attempt++) {
		if (!socket_ready(client, &status)) {
			break;
		}
		status = atomic ? socket_atomic(client, items, count) : KVC_OK;
		for (size_t first = 0; !atomic && first < count && status == KVC_OK;
		     first += SOCKET_WINDOW) {
			size_t end = count - first < SOCKET_WINDOW ? count : first + SOCKET_WINDOW;
			status = socket_window(client, items, first, end);
		}
	}
	status = socket_error(reader, status);
	kvc_client_unlock(client);
	for (size_t i = 0; i < count && status != KVC_OK; i++) {
		if (items[i].status == KVC_BUSY) {
			items[i].status = status;
		}
	}
	return status;
}

// SPDX-License-Identifier: MIT
//
// Writes: one request each on the caller's own connection, and the exact meaning of its reply.
#include <string.h>

#include "libclient/internal.h"

int kvc_conn_enter(kvc *client, bool pipeline)
{
	if (!client) {
		return KVC_INVALID;
	}
	kvc_client_after_fork(client);
	struct kvc_conn *conn = &client->conn;
	if (!pipeline && conn->sent + conn->queued + conn->lost > 0) {
		kvc_error_set(conn->error_text, "take the replies of the pipeline first");
		return KVC_INVALID;
	}
	conn->busy = true;
	conn->in_start += conn->reply_bytes; // the caller's hold on the last reply ends here
	conn->reply_bytes = 0;
	if (!pipeline) {
		kvc_frame_begin(&conn->frame);
	}
	return KVC_OK;
}

int kvc_conn_leave(kvc *client, int status)
{
	client->conn.busy = false;
	return status;
}

// Sends the frame and waits. Error replies become their status.
static int request_run(kvc *client, const struct kvc_reply **reply)
{
	int status = kvc_conn_request(client, &client->conn, reply);
	if (status == KVC_OK && (*reply)->type == KVC_REPLY_ERROR) {
		status = kvc_error_reply(&client->conn, *reply);
	}
	return status;
}

static int request_unexpected(kvc *client, const char *command)
{
	kvc_error_set(client->conn.error_text, "%s: unexpected reply", command);
	return KVC_PROTOCOL;
}

// Begins `command key`, with `more` arguments to come.
static int request_begin(kvc *client, const char *command, const void *key, size_t key_bytes,
			 size_t more)
{
	int status = kvc_key_check(key, key_bytes);
	if (status == KVC_OK) {
		status = kvc_conn_enter(client, false);
	}
	if (status == KVC_OK) {
		struct kvc_frame *frame = &client->conn.frame;
		kvc_frame_args(frame, 2 + more);
		kvc_frame_text(frame, command);
		kvc_frame_arg(frame, key, key_bytes);
	}
	return status;
}

// A request whose reply is an integer.
static int request_integer(kvc *client, const char *command, int64_t *result)
{
	const struct kvc_reply *reply;
	int status = request_run(client, &reply);
	if (status == KVC_OK && reply->type != KVC_REPLY_INTEGER) {
		status = request_unexpected(client, command);
	}
	if (status == KVC_OK) {
		*result = reply->integer;
	}
	return kvc_conn_leave(client, status);
}

static int request_check_set(const struct kvc_set_options *options, const void *value,
			     size_t value_bytes)
{
	const uint32_t conditions = KVC_SET_IF_ABSENT | KVC_SET_IF_PRESENT | KVC_SET_IF_VERSION;
	uint32_t asked = options->flags & conditions;
	if ((options->flags & ~(conditions | KVC_SET_KEEP_TTL)) || (asked & (asked - 1)) ||
	    options->ttl_ms < 0 || (options->ttl_ms > 0 && (options->flags & KVC_SET_KEEP_TTL)) ||
	    options->version > INT64_MAX || (!value && value_bytes > 0)) {
		return KVC_INVALID;
	}
	return value_bytes <= KVS_VALUE_BYTES_MAX ? KVC_OK : KVC_TOO_LARGE;
}

static void request_set_conditions(struct kvc_frame *frame, const struct kvc_set_options *options)
{
	bool absent = (options->flags & KVC_SET_IF_VERSION) && options->version == 0;
	if (absent || (options->flags & KVC_SET_IF_ABSENT)) {
		kvc_frame_text(frame, "NX");
	} else if (options->flags & KVC_SET_IF_PRESENT) {
		kvc_frame_text(frame, "XX");
	} else if (options->flags & KVC_SET_IF_VERSION) {
		kvc_frame_text(frame, "IFVERSION");
		kvc_frame_int(frame, (int64_t)options->version);
	}
	if (options->ttl_ms > 0) {
		kvc_frame_text(frame, "PX");
		kvc_frame_int(frame, options->ttl_ms);
	}
	if (options->flags & KVC_SET_KEEP_TTL) {
		kvc_frame_text(frame, "KEEPTTL");
	}
}

int kvc_set(kvc *client, const void *key, size_t key_bytes, const void *value, size_t value_bytes,
	    const struct kvc_set_options *given, uint64_t *version)
{
	struct kvc_set_options options;
	if (!kvc_set_options_copy(&options, given)) {
		return KVC_INVALID;
	}
	int status = request_check_set(&options, value, value_bytes);
	if (status != KVC_OK) {
		return status;
	}
	bool if_version = (options.flags & KVC_SET_IF_VERSION) && options.version != 0;
	bool other = !if_version && (options.flags & (KVC_SET_IF_ABSENT | KVC_SET_IF_PRESENT |
						      KVC_SET_IF_VERSION)) != 0;
	size_t more = 1 + (if_version ? 2 : 0) + (other ? 1 : 0) + (options.ttl_ms > 0 ? 2 : 0) +
		      (options.flags & KVC_SET_KEEP_TTL ? 1 : 0);
	status = request_begin(client, "KVD.SET", key, key_bytes, more);
	if (status != KVC_OK) {
		return status;
	}
	kvc_frame_value(&client->conn.frame, value, value_bytes);
	request_set_conditions(&client->conn.frame, &options);
	const struct kvc_reply *reply;
	status = request_run(client, &reply);
	if (status == KVC_OK && reply->type == KVC_REPLY_NIL) {
		status = KVC_NOT_APPLIED;
	} else if (status == KVC_OK && reply->type != KVC_REPLY_INTEGER) {
		status = request_unexpected(client, "KVD.SET");
	} else if (status == KVC_OK && version) {
		*version = (uint64_t)reply->integer;
	}
	return kvc_conn_leave(client, status);
}

int kvc_delete(kvc *client, const void *key, size_t key_bytes)
{
	int64_t removed;
	int status = request_begin(client, "DEL", key, key_bytes, 0);
	if (status == KVC_OK) {
		status = request_integer(client, "DEL", &removed);
	}
	return status == KVC_OK && removed == 0 ? KVC_NOT_FOUND : status;
}

int kvc_increment(kvc *client, const void *key, size_t key_bytes, int64_t delta, int64_t *result)
{
	int64_t sum;
	int status = request_begin(client, "INCRBY", key, key_bytes, 1);
	if (status == KVC_OK) {
		kvc_frame_int(&client->conn.frame, delta);
		status = request_integer(client, "INCRBY", &sum);
	}
	if (status == KVC_OK && result) {
		*result = sum;
	}
	return status;
}

// PERSIST answers 0 both for a key without an expiry and for none at all: EXISTS tells them apart.
static int request_persist(kvc *client, const void *key, size_t key_bytes)
{
	struct kvc_conn *conn = &client->conn;
	int status = request_begin(client, "PERSIST", key, key_bytes, 0);
	if (status != KVC_OK) {
		return status;
	}
	kvc_frame_args(&conn->frame, 2);
	kvc_frame_text(&conn->frame, "EXISTS");
	kvc_frame_arg(&conn->frame, key, key_bytes);
	uint64_t deadline_ns = kvc_deadline_ns(client->options.request_timeout_ms);
	status = kvc_conn_send(client, conn, deadline_ns);
	int64_t there = 0;
	int refused = KVC_OK;
	for (int i = 0; i < 2 && status == KVC_OK; i++) {
		const struct kvc_reply *reply;
		status = kvc_conn_reply(client, conn, deadline_ns, &reply);
		if (status == KVC_OK && reply->type == KVC_REPLY_ERROR && refused == KVC_OK) {
			refused = kvc_error_reply(conn, reply);
		} else if (status == KVC_OK) {
			there |= reply->integer;
		}
	}
	if (status == KVC_OK) {
		status = refused != KVC_OK ? refused : there ? KVC_OK : KVC_NOT_FOUND;
	}
	return kvc_conn_leave(client, status);
}

int kvc_expire(kvc *client, const void *key, size_t key_bytes, int64_t ttl_ms)
{
	int64_t applied;
	if (ttl_ms < 0) {
		return request_persist(client, key, key_bytes);
	}
	int status = request_begin(client, "PEXPIRE", key, key_bytes, 1);
	if (status == KVC_OK) {
		kvc_frame_int(&client->conn.frame, ttl_ms);
		status = request_integer(client, "PEXPIRE", &applied);
	}
	return status == KVC_OK && applied == 0 ? KVC_NOT_FOUND : status;
}

int kvc_sync(kvc *client)
{
	int status = kvc_conn_enter(client, false);
	if (status != KVC_OK) {
		return status;
	}
	struct kvc_conn *conn = &client->conn;
	const struct kvc_reply *reply;
	bool unsynced = conn->unsynced || conn->sync_lost;
	if (!unsynced) {
		return kvc_conn_leave(client, KVC_OK); // nothing was written since the last time
	}
	kvc_frame_args(&conn->frame, 1);
	kvc_frame_text(&conn->frame, "KVD.SYNC");
	status = request_run(client, &reply);
	if (conn->sync_lost) {
		// What was written on an earlier connection may have died with an earlier kvd.
		conn->sync_lost = false;
		kvc_error_set(conn->error_text,
			      "the connection broke after writes and before a sync");
		status = KVC_UNKNOWN;
	}
	if (status == KVC_OK) {
		conn->unsynced = false;
	}
	return kvc_conn_leave(client, status);
}

// SPDX-License-Identifier: MIT
//
// Writes: one request each on the caller's own connection, and waiting for its replies.
#include "libclient/form.h"

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

// Sends the frame, waits for the replies of its request, and ends the call.
static int request_run(kvc *client, struct kvc_form *form, int status, struct kvc_result *result)
{
	struct kvc_conn *conn = &client->conn;
	uint64_t deadline_ns = kvc_deadline_ns(client->options.request_timeout_ms);
	*result = (struct kvc_result){ .status = status };
	if (status == KVC_OK && form->replies > 0) {
		result->status = kvc_conn_send(client, conn, deadline_ns);
	}
	while (result->status == KVC_OK && form->replies > 0) {
		const struct kvc_reply *reply;
		result->status = kvc_conn_reply(client, conn, deadline_ns, &reply);
		if (result->status == KVC_OK) {
			(void)kvc_form_take(form, conn, reply, result);
		}
	}
	return kvc_conn_leave(client, result->status);
}

int kvc_set(kvc *client, const void *key, size_t key_bytes, const void *value, size_t value_bytes,
	    const struct kvc_set_options *options, uint64_t *version)
{
	struct kvc_form form;
	struct kvc_result result;
	int status = kvc_conn_enter(client, false);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_set(&form, &client->conn.frame, key, key_bytes, value, value_bytes,
			      options);
	status = request_run(client, &form, status, &result);
	if (status == KVC_OK && version) {
		*version = result.version;
	}
	return status;
}

int kvc_delete(kvc *client, const void *key, size_t key_bytes)
{
	struct kvc_form form;
	struct kvc_result result;
	int status = kvc_conn_enter(client, false);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_delete(&form, &client->conn.frame, key, key_bytes);
	return request_run(client, &form, status, &result);
}

int kvc_increment(kvc *client, const void *key, size_t key_bytes, int64_t delta, int64_t *sum)
{
	struct kvc_form form;
	struct kvc_result result;
	int status = kvc_conn_enter(client, false);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_increment(&form, &client->conn.frame, key, key_bytes, delta);
	status = request_run(client, &form, status, &result);
	if (status == KVC_OK && sum) {
		*sum = result.integer;
	}
	return status;
}

int kvc_expire(kvc *client, const void *key, size_t key_bytes, int64_t ttl_ms)
{
	struct kvc_form form;
	struct kvc_result result;
	int status = kvc_conn_enter(client, false);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_expire(&form, &client->conn.frame, key, key_bytes, ttl_ms);
	return request_run(client, &form, status, &result);
}

int kvc_sync(kvc *client)
{
	struct kvc_form form;
	struct kvc_result result;
	int status = kvc_conn_enter(client, false);
	if (status != KVC_OK) {
		return status;
	}
	struct kvc_conn *conn = &client->conn;
	if (!conn->unsynced && !conn->sync_lost) {
		return kvc_conn_leave(client, KVC_OK); // nothing was written since the last time
	}
	kvc_form_sync(&form, &conn->frame);
	status = request_run(client, &form, KVC_OK, &result);
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
	return status;
}

int kvc_batch_commit(kvc *client, kvc_batch *batch)
{
	struct kvc_form form;
	struct kvc_result result;
	if (!batch) {
		return KVC_INVALID;
	}
	int status = kvc_conn_enter(client, false);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_batch(&form, &client->conn.frame, batch);
	return request_run(client, &form, status, &result);
}

// SPDX-License-Identifier: MIT
//
// Any command, alone or in a pipeline. A pipeline remembers how many replies are owed, so that when
// its connection breaks each of them is still accounted for: UNKNOWN for what was sent, UNREACHABLE
// for what was not.
#include "libclient/form.h"

int kvc_command(kvc *client, int argc, const void *const *argv, const size_t *argv_bytes,
		const struct kvc_reply **reply)
{
	struct kvc_form form;
	int status = reply ? kvc_conn_enter(client, false) : KVC_INVALID;
	if (status != KVC_OK) {
		return status;
	}
	*reply = NULL;
	status = kvc_form_command(&form, &client->conn.frame, argc, argv, argv_bytes);
	if (status == KVC_OK) {
		status = kvc_conn_request(client, &client->conn, reply);
	}
	if (status == KVC_OK && (*reply)->type == KVC_REPLY_ERROR) {
		kvc_error_set(client->conn.error_text, "%s", (*reply)->text);
	}
	return kvc_conn_leave(client, status);
}

// Sends what is queued. If it breaks, what had begun to leave counts as sent and lost.
static int command_flush(kvc *client, uint64_t deadline_ns)
{
	struct kvc_conn *conn = &client->conn;
	if (conn->queued == 0) {
		return KVC_OK;
	}
	int status = kvc_conn_send(client, conn, deadline_ns);
	if (status == KVC_OK) {
		conn->sent += conn->queued;
		conn->queued = 0;
		kvc_frame_begin(&conn->frame);
	}
	return status;
}

// The rest of a frame that could not be sent is never sent: half of it may be gone already.
static void command_give_up(struct kvc_conn *conn)
{
	conn->lost += conn->queued;
	conn->queued = 0;
	kvc_frame_begin(&conn->frame);
}

int kvc_pipeline_append(kvc *client, int argc, const void *const *argv, const size_t *argv_bytes)
{
	struct kvc_form form;
	int status = kvc_conn_enter(client, true);
	if (status != KVC_OK) {
		return status;
	}
	struct kvc_conn *conn = &client->conn;
	if (conn->queued == 0) {
		kvc_frame_begin(&conn->frame);
	}
	size_t before = conn->frame.buffer.bytes;
	status = kvc_form_command(&form, &conn->frame, argc, argv, argv_bytes);
	if (status == KVC_OK && conn->frame.buffer.failed) {
		status = KVC_NO_MEMORY;
	}
	if (status != KVC_OK) {
		conn->frame.buffer.bytes = before; // the ones before it stay good
		conn->frame.buffer.failed = false;
		return kvc_conn_leave(client, status);
	}
	conn->queued++;
	if (conn->frame.buffer.bytes >= KVC_PIPELINE_BYTES && conn->lost == 0) {
		uint64_t deadline_ns = kvc_deadline_ns(client->options.request_timeout_ms);
		// The command is in: how its sending went is told with its reply.
		if (command_flush(client, deadline_ns) != KVC_OK) {
			command_give_up(conn);
		}
	}
	return kvc_conn_leave(client, KVC_OK);
}

int kvc_pipeline_reply(kvc *client, const struct kvc_reply **reply)
{
	int status = reply ? kvc_conn_enter(client, true) : KVC_INVALID;
	if (status != KVC_OK) {
		return status;
	}
	struct kvc_conn *conn = &client->conn;
	*reply = NULL;
	uint64_t deadline_ns = kvc_deadline_ns(client->options.request_timeout_ms);
	if (conn->lost > 0) {
		conn->lost--;
		kvc_error_set(conn->error_text,
			      "the connection broke while the pipeline was under way");
		return kvc_conn_leave(client, KVC_UNKNOWN);
	}
	if (conn->sent == 0 && conn->queued == 0) {
		kvc_error_set(conn->error_text, "no reply is owed");
		return kvc_conn_leave(client, KVC_INVALID);
	}
	status = command_flush(client, deadline_ns);
	if (status == KVC_OK) {
		status = kvc_conn_reply(client, conn, deadline_ns, reply);
		if (status == KVC_OK) {
			conn->sent--;
			// unreached: with a failed reply all that was sent is lost.
		} else if (conn->lost > 0) {
			conn->lost--;
		}
		return kvc_conn_leave(client, status);
	}
	command_give_up(conn);
	conn->lost--;
	return kvc_conn_leave(client, status);
}

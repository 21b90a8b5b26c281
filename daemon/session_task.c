// SPDX-License-Identifier: MIT
//
// Keeping a command between two turns. Its call is copied with the request's arguments, whose bytes
// stay in the input buffer because nobody reads or moves it meanwhile.
#include "daemon/session_task.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace.h"
#include "daemon/session_parts.h"
#include "daemon/session_refs.h"

bool session_task_begin(struct session *session, const struct call *call)
{
	struct session_task *task = calloc(1, sizeof(*task));
	if (!task) {
		if (call->state_free) {
			call->state_free(call->state);
		}
		session_kill(session, "out of memory");
		return false;
	}
	task->call = *call;
	session->task = task;
	return true;
}

void session_task_keep(struct session *session, struct resp_request *request, size_t input_end)
{
	struct session_task *task = session->task;
	task->request = *request;
	*request = (struct resp_request){ 0 };
	task->input_end = input_end;
	size_t bytes = sizeof(*task) + task->request.text_capacity +
		       task->request.argv_capacity * sizeof(*task->request.argv);
	task->request_bytes = session_charge(session, bytes) ? bytes : 0;
}

static void session_task_swap(struct session *session)
{
	struct session_task *task = session->task;
	char *output = session->output;
	size_t sent = session->output_sent;
	size_t end = session->output_end;
	size_t bytes = session->output_bytes;
	uint64_t position = session->output_position;
	struct session_ref_queue refs = session->refs;
	session->output = task->aside.output;
	session->output_sent = task->aside.output_sent;
	session->output_end = task->aside.output_end;
	session->output_bytes = task->aside.output_bytes;
	session->output_position = task->aside.output_position;
	session->refs = task->aside.refs;
	task->aside.output = output;
	task->aside.output_sent = sent;
	task->aside.output_end = end;
	task->aside.output_bytes = bytes;
	task->aside.output_position = position;
	task->aside.refs = refs;
	task->swapped = !task->swapped;
}

void session_task_aside(struct session *session)
{
	if (session->task && !session->task->swapped) {
		session_task_swap(session);
	}
}

void session_task_back(struct session *session)
{
	if (session->task && session->task->swapped) {
		session_task_swap(session);
	}
}

void session_task_end(struct session *session)
{
	session_task_back(session);
	struct session_task *task = session->task;
	session->task = NULL;
	if (task->call.state_free) {
		task->call.state_free(task->call.state);
	}
	keyspace_stage_drop(session->kvd->keyspace, session->id);
	session_request_free(session->shared, &task->request);
	session_uncharge(session, task->request_bytes);
	uint64_t end = session->output_position + session->output_end;
	if (task->aside.output_end > 0 && !session->dead) {
		char *out = session_output_room(session, task->aside.output_end);
		if (out) {
			memcpy(out, task->aside.output, task->aside.output_end);
			session_output_add(session, task->aside.output_end);
			session->reply_end = session->reply_end ? session->reply_end : end;
		}
	}
	session_refs_append(session, &task->aside.refs, (int64_t)end);
	session_buffer_give(session, task->aside.output, task->aside.output_bytes);
	free(task);
}

void *session_task_alloc(struct session *session, size_t bytes)
{
	if (!session_charge(session, bytes)) {
		return NULL;
	}
	void *memory = calloc(1, bytes);
	if (!memory) {
		session_uncharge(session, bytes);
	}
	return memory;
}

bool session_task_charge(struct session *session, size_t bytes)
{
	return session_charge(session, bytes);
}

void session_task_uncharge(struct session *session, size_t bytes)
{
	session_uncharge(session, bytes);
}

void session_task_free(struct session *session, void *memory, size_t bytes)
{
	if (memory) {
		session_uncharge(session, bytes);
		reclaim_free(&session->shared->reclaim, memory, bytes);
	}
}

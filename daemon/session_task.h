// SPDX-License-Identifier: MIT
//
// A command that takes longer than its connection's share of a turn: it stops, others are served,
// and it goes on in the next turn where it stopped. Until it is over its connection is read no
// further, its request stays where it is, nothing of its reply is sent, and what others push to the
// connection waits behind the reply.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/command.h"
#include "daemon/session.h"
#include "shm/resp.h"

struct session_task {
	struct call call;
	struct resp_request request; // argv of the call; its bytes stand in the session's input
	size_t request_bytes;	     // charged for the arguments
	size_t input_end;	     // where the request ends in the input
	uint64_t seq;		     // the newest version it wrote, 0 = none
	bool swapped;		     // `aside` is the output just now
	struct {
		char *output;
		size_t output_sent, output_end, output_bytes;
		uint64_t output_position;
		struct session_ref_queue refs;
	} aside; // pushed meanwhile
};

/// The command of `call` is to go on in the next turn. False if memory is short: then the session
/// is dead.
bool session_task_begin(struct session *session, const struct call *call);
/// Keeps its request too, which ends at `input_end` of the input; `request` is empty afterwards.
void session_task_keep(struct session *session, struct resp_request *request, size_t input_end);
/// It is over, or given up: frees what it holds; what was pushed meanwhile follows its reply.
void session_task_end(struct session *session);

/// Between these, output goes to what waits behind the reply of the task, if there is one.
void session_task_aside(struct session *session);
void session_task_back(struct session *session);

/// `bytes` zero bytes that a command keeps between its slices, charged to its connection. NULL if
/// there is no room; if the connection was closed for what it holds it is dead then.
void *session_task_alloc(struct session *session, size_t bytes);
/// Charges for memory of its own that a command keeps; false: as above.
bool session_task_charge(struct session *session, size_t bytes);
void session_task_uncharge(struct session *session, size_t bytes);
/// Gives them back, a large piece bit by bit. NULL is fine.
void session_task_free(struct session *session, void *memory, size_t bytes);

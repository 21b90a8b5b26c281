// SPDX-License-Identifier: MIT
//
// The input keeps the request's beginning while its value is received elsewhere, so the parser
// finds a half request in it until the value is whole; then it is told where that stands.
#include "daemon/session_intake.h"

#include <string.h>

#include "daemon/command.h"
#include "daemon/refuse.h"
#include "daemon/session_parts.h"

#define INTAKE_COPY_BYTES_MAX (256u << 10) // of the value that were buffered before it began
#define INTAKE_READ_BYTES_MAX (256u << 10) // as much as is read at a time into the input
#define INTAKE_LOOKS 64u		   // values looked at in one turn
// What comes slower than a byte in this time for longer than the grace hardly comes. Who has been
// quiet for long owes no more than that.
#define INTAKE_BYTE_NS UINT64_C(1000)
#define INTAKE_GRACE_NS UINT64_C(200000000)
#define INTAKE_CREDIT_NS UINT64_C(1000000000) // that a fast beginning brings at most

/// What all values on their way may take: a quarter of the memory, or two of the largest.
static uint64_t intake_bound(const struct session_shared *shared)
{
	uint64_t memory = config_memory_bytes(&shared->kvd->config);
	uint64_t two = 2 * (uint64_t)keyspace_value_bytes_max(shared->kvd->keyspace);
	uint64_t bound = memory / 4 > two ? memory / 4 : two;
	return bound < memory / 2 ? bound : memory / 2;
}

/// How much of the argument that is awaited stands in the input.
static size_t intake_buffered(const struct session *session)
{
	return session->input_end - session->input_start - session->parse.offset;
}

/// Is that one which its command stores as it is, and are there only some of its bytes?
static bool intake_fits(struct session *session)
{
	const struct resp_request_state *parse = &session->parse;
	if (!parse->bulk_known || parse->dropping || parse->elsewhere || parse->args_done < 2 ||
	    session->multi.active || intake_buffered(session) >= parse->bulk_bytes ||
	    intake_buffered(session) > INTAKE_COPY_BYTES_MAX ||
	    !keyspace_intake_is_large(session->kvd->keyspace, parse->bulk_bytes)) {
		return false;
	}
	const struct resp_arg *name = session->partial.argv;
	const struct command *command = command_find(name->data, name->bytes);
	if (!command || !(command->flags & COMMAND_TAKES_VALUE) ||
	    !session_guard_may(session, ACCESS_WRITE)) {
		return false;
	}
	uint32_t least = (uint32_t)(command->arity < 0 ? -command->arity : command->arity);
	return command->key_step == 2 ? parse->args_done % 2 == 0 : parse->args_done == least - 1;
}

/// Some bytes of the value are in their place.
static void intake_came(struct session *session, size_t bytes)
{
	uint64_t now_ns = loop_now_ns(session->kvd->loop);
	uint64_t least_ns = now_ns > INTAKE_GRACE_NS ? now_ns - INTAKE_GRACE_NS : 0;
	uint64_t due_ns = session->intake_due_ns > least_ns ? session->intake_due_ns : least_ns;
	due_ns += bytes * INTAKE_BYTE_NS;
	uint64_t most_ns = now_ns + INTAKE_CREDIT_NS;
	session->intake_due_ns = due_ns < most_ns ? due_ns : most_ns;
	keyspace_intake_came(session->kvd->keyspace, &session->intake, bytes);
	if (keyspace_intake_is_whole(&session->intake)) {
		const unsigned char *value =
			keyspace_intake_value(session->kvd->keyspace, &session->intake);
		resp_request_elsewhere(&session->parse, (const char *)value);
	}
}

/// Where the next bytes belong. NULL: the machine is full, and the session dead.
static unsigned char *intake_room(struct session *session, size_t *bytes)
{
	unsigned char *at = keyspace_intake_room(session->kvd->keyspace, &session->intake, bytes);
	if (!at) {
		refuse(session, REFUSAL_MEMORY,
		       "the system has no memory for a value of %llu bytes; lower memory",
		       (unsigned long long)session->intake.bytes);
		session_turn_out(session, "-OOM the system has no memory for this value\r\n");
	}
	return at;
}

/// What came of the value with the request's beginning goes to where it belongs.
static void intake_move(struct session *session)
{
	size_t left = intake_buffered(session);
	const char *from = session->input + session->input_end - left;
	session->input_end -= left;
	while (left > 0) {
		size_t bytes;
		unsigned char *to = intake_room(session, &bytes);
		if (!to) {
			return;
		}
		bytes = bytes < left ? bytes : left;
		memcpy(to, from, bytes);
		session_count_up(session->shared, KVS_COUNTER_large_copied_bytes, bytes);
		intake_came(session, bytes);
		from += bytes;
		left -= bytes;
	}
}

/// Takes the run. OK, WAIT or FULL; what is over a bound is FULL.
static int intake_take(struct session *session)
{
	struct session_shared *shared = session->shared;
	size_t bytes = session->parse.bulk_bytes;
	if (shared->intake_bytes + bytes > intake_bound(shared) ||
	    !session_has_room(session, bytes)) {
		return KEYSPACE_FULL;
	}
	int result = keyspace_intake_begin(session->kvd->keyspace, &session->intake, bytes);
	if (result != KEYSPACE_OK) {
		return result;
	}
	shared->intake_bytes += bytes;
	TAILQ_INSERT_TAIL(&shared->intakes, session, intake_link);
	session->intake_due_ns = loop_now_ns(session->kvd->loop) + INTAKE_GRACE_NS;
	session->intake_charged = session_charge(session, bytes) ? bytes : 0;
	if (!session->dead) {
		intake_move(session);
	}
	return KEYSPACE_OK;
}

bool session_intake_begin(struct session *session)
{
	if (session->intake.run_offset != 0) {
		return !keyspace_intake_is_whole(&session->intake);
	}
	if (session->intake_declined || !intake_fits(session)) {
		return false;
	}
	int result = intake_take(session);
	if (result == KEYSPACE_WAIT) {
		session->intake_waits = true;
		session->parked_since_ns = loop_now_ns(session->kvd->loop);
		session->shared->request_seq = keyspace_last_seq(session->kvd->keyspace);
		session_count_up(session->shared, KVS_COUNTER_writes_waited, 1);
		session_set_parked(session, true);
		return true;
	}
	session->intake_declined = result != KEYSPACE_OK;
	return result == KEYSPACE_OK;
}

bool session_intake_retry(struct session *session, uint64_t now_ns)
{
	uint64_t wait_ns = session->kvd->config.write_wait_ms * UINT64_C(1000000);
	int result = intake_take(session);
	if (result == KEYSPACE_WAIT && now_ns - session->parked_since_ns < wait_ns) {
		return false;
	}
	session->intake_declined = result != KEYSPACE_OK;
	session->intake_waits = false;
	session_set_parked(session, false);
	session_set_ready(session);
	return true;
}

enum session_read_result session_intake_read(struct session *session)
{
	if (session->is_parked || session->dead) {
		return SESSION_READ_NOTHING;
	}
	size_t bytes;
	unsigned char *at = intake_room(session, &bytes);
	if (!at) {
		return SESSION_READ_NOTHING;
	}
	size_t came;
	enum session_read_result result = session_receive(
		session, at, bytes < INTAKE_READ_BYTES_MAX ? bytes : INTAKE_READ_BYTES_MAX, &came);
	if (came > 0) {
		session_count_up(session->shared, KVS_COUNTER_large_received_bytes, came);
		intake_came(session, came);
	}
	return result;
}

void session_intake_end(struct session *session)
{
	if (session->intake.run_offset != 0) {
		session->shared->intake_bytes -= session->intake.bytes;
		TAILQ_REMOVE(&session->shared->intakes, session, intake_link);
		session_uncharge(session, session->intake_charged);
		session->intake_charged = 0;
		keyspace_intake_end(session->kvd->keyspace, &session->intake);
	}
}

/// Does its value hardly come? One that only waits for its turn, or for memory, is here.
static bool intake_stalls(const struct session *session, uint64_t now_ns)
{
	return !session->dead && session_may_run(session) && !session->task && !session->is_ready &&
	       now_ns >= session->intake_due_ns;
}

void session_intake_turn(struct session_shared *shared, uint64_t now_ns)
{
	if (__builtin_expect(TAILQ_EMPTY(&shared->intakes), 1) ||
	    (!shared->pins_wanted && TAILQ_EMPTY(&shared->parked))) {
		return;
	}
	struct session *first = TAILQ_FIRST(&shared->intakes);
	struct session *session = first;
	for (unsigned i = 0; session && i < INTAKE_LOOKS; i++) {
		struct session *next = TAILQ_NEXT(session, intake_link);
		TAILQ_REMOVE(&shared->intakes, session, intake_link);
		TAILQ_INSERT_TAIL(&shared->intakes, session, intake_link);
		if (intake_stalls(session, now_ns)) {
			refuse(session, REFUSAL_INTAKE,
			       "of a value of %llu bytes %llu came, the rest hardly does, and "
			       "writes wait for its memory; it must send faster, or raise memory",
			       (unsigned long long)session->intake.bytes,
			       (unsigned long long)session->intake.done);
			session_turn_out(session, "-OOM closed: the rest of a large value does "
						  "not come, and its memory is wanted\r\n");
		}
		session = next == first ? NULL : next;
	}
}

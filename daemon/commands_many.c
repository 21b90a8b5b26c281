// SPDX-License-Identifier: MIT
//
// MGET, EXISTS and TOUCH: reads of many keys, as they are at one moment, however many turns they
// take. Up to a thousand keys are read until the share of the turn is used up; only what is left
// then needs a moment, which is the present one. More are entered into one beforehand, for that
// takes turns itself.
#include "daemon/commands.h"

#include <stdlib.h>

#include "daemon/keyspace_moment.h"
#include "daemon/session_push.h"
#include "daemon/tracking.h"

#define MANY_AT_ONCE 1024u   // keys
#define MANY_CLOCK 16u	     // keys between two looks at the clock
#define MANY_KEY_BYTES 1024u // of a value that take as long as another key

/// A read that goes on in the next turn.
struct many {
	struct session *session;
	struct keyspace_moment *moment;
	uint32_t next; // key to be read, from 0
	int64_t found;
	size_t charged;
	bool is_entered;
	bool is_open;
};

static void many_free(void *state)
{
	struct many *many = state;
	keyspace_moment_close(many->moment);
	session_give(many->session, many->charged);
	free(many);
}

/// Takes back what was answered.
static void many_rewind(struct call *call)
{
	commands_reply_rewind(call->session, call->mark);
	events_rewind(call->kvd, call->events_mark);
}

static void many_fail(struct call *call, const char *text)
{
	many_rewind(call);
	commands_error(call, text);
}

/// Lets the call go on in later turns. NULL: the error was answered.
static struct many *many_begin(struct call *call, bool values)
{
	uint64_t seed;
	struct many *many = calloc(1, sizeof(*many));
	if (many) {
		call->kvd->seam->random_bytes(&seed, sizeof(seed));
		many->moment = keyspace_moment_create(call->kvd->keyspace, call->argv + 1,
						      call->argc - 1, values, seed);
	}
	if (!many || !many->moment) {
		free(many);
		many_fail(call, COMMANDS_TEXT_OOM);
		return NULL;
	}
	many->session = call->session;
	call->state = many;
	call->state_free = many_free;
	call->tracks = true;
	return many;
}

/// Charges the session for what the read takes by now.
static bool many_charge(struct many *many)
{
	size_t bytes = sizeof(*many) + keyspace_moment_bytes(many->moment);
	if (bytes > many->charged) {
		if (!session_take(many->session, bytes - many->charged)) {
			return false;
		}
		many->charged = bytes;
	}
	return true;
}

/// Can keys be read? False: in another turn, or the error was answered.
static bool many_ready(struct call *call, struct many *many)
{
	if (!many_charge(many)) {
		many_fail(call, "ERR no room to read so many keys (client-buffers-max, "
				"client-uid-share)");
		return false;
	}
	while (!many->is_entered) {
		many->is_entered = keyspace_moment_enter(many->moment);
		if (commands_slice_over(call)) {
			call->again = true;
			return false;
		}
	}
	if (!many->is_open && !keyspace_moment_open(many->moment)) {
		call->again = true; // others have to finish theirs
		return false;
	}
	many->is_open = true;
	if (keyspace_moment_begins_anew(many->moment)) {
		many_rewind(call);
		many->next = 0;
		many->found = 0;
	}
	while (!keyspace_moment_settle(many->moment)) {
		if (commands_slice_over(call)) {
			call->again = true;
			return false;
		}
	}
	if (keyspace_moment_is_lost(many->moment)) {
		many_fail(call, COMMANDS_TEXT_OOM);
		return false;
	}
	if (keyspace_moment_is_torn(many->moment)) {
		return false;
	}
	return true;
}

/// The share of the turn is used up: the rest is read later, as of now.
static void many_cut(struct call *call, bool values, const struct many *now)
{
	struct many *many = many_begin(call, values);
	call->again = many != NULL;
	if (!many) {
		return;
	}
	while (!many->is_entered) {
		many->is_entered = keyspace_moment_enter(many->moment);
	}
	many->is_open = keyspace_moment_open(many->moment);
	many->found = now->found;
	many->next = now->next;
	keyspace_moment_skip(many->moment, now->next);
	if (!many->is_open) { // from the beginning, when it can be
		many_rewind(call);
		many_free(many);
		call->state_free = NULL;
		call->again = many_begin(call, values) != NULL;
		return;
	}
	for (uint32_t i = 1; i <= now->next && tracking_wants_reads(call->session); i++) {
		commands_track(call, i);
	}
}

static bool many_next(struct call *call, struct many *many, bool values,
		      struct keyspace_value *value)
{
	uint32_t i = ++many->next;
	if (!many->moment) {
		commands_look_ahead(call, i, 1);
		return values ? commands_lookup(call, i, value) : commands_look(call, i, value);
	}
	bool changed;
	int result = keyspace_moment_next(many->moment, value, &changed);
	bool found = result == KEYSPACE_OK;
	if (__builtin_expect(result == KEYSPACE_COLD, 0)) {
		return false;
	}
	commands_looked_up(call, i, found);
	if (__builtin_expect(!tracking_wants_reads(call->session), 1)) {
		return found;
	}
	if (changed) { // what it gets is old already: it hears of that behind the reply
		tracking_tell(call->session, call->argv[i].data, call->argv[i].bytes);
	} else {
		commands_track(call, i);
	}
	return found;
}

/// All of them, or those of a slice. `values` is what MGET wants, the others count.
static void many_read(struct call *call, bool values)
{
	struct many here = { 0 };
	struct many *many = call->state;
	uint32_t count = call->argc - 1;
	if (!many) {
		bool at_once = call->until_ns == 0 || count <= MANY_AT_ONCE;
		many = at_once ? &here : many_begin(call, values);
	}
	if (!many || (many->moment && !many_ready(call, many))) {
		return;
	}
	if (many->next == 0 && values) {
		reply_array(call->session, count);
	}
	size_t work = 0;
	while (many->next < count && !call->session->dead) {
		struct keyspace_value value;
		bool found = many_next(call, many, values, &value);
		work++;
		if (found && values) {
			reply_bulk(call->session, value.value, value.value_bytes);
			work += value.value_bytes / MANY_KEY_BYTES;
		} else if (values) {
			reply_null(call->session);
		}
		many->found += found;
		if (work < MANY_CLOCK || many->next == count) {
			continue;
		}
		work = 0;
		if (commands_slice_over(call)) {
			call->again = true;
			if (many == &here) {
				many_cut(call, values, &here);
			}
			return;
		}
	}
	if (!values) {
		reply_integer(call->session, many->found);
	}
}

void commands_many_mget(struct call *call)
{
	many_read(call, true);
}

void commands_many_exists(struct call *call)
{
	many_read(call, false);
}

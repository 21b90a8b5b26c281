// SPDX-License-Identifier: MIT
//
// BITOP: values combined bit by bit into another. Shorter ones, and keys that are absent, count as
// if zeroes followed. Many keys and long values are gone through in slices, first for the length of
// the result, then to combine them one behind the other. It is one write, made from what its keys
// are when it is done: where one of them changed meanwhile it begins anew.
#include <stdlib.h>

#include "daemon/commands.h"
#include "daemon/commands_slice.h"
#include "daemon/keyspace_guard.h"
#include "daemon/session_task.h"

#define BITOP_FIRST_SOURCE 3u
#define BITOP_KEY_BYTES 2048u // finding a key twice takes as long as combining so many bytes
// Where keys change all the time, so much is done in one go (some 50 ms), but no more.
#define BITOP_WHOLE_BYTES (256u << 20)

enum bitop { BITOP_AND, BITOP_OR, BITOP_XOR, BITOP_NOT };
enum bitop_phase { BITOP_LOOK, BITOP_COMBINE, BITOP_CLEAR, BITOP_STORE };

/// How far a call has come.
struct bitop_state {
	struct session *session;
	enum bitop op;
	enum bitop_phase phase;
	uint32_t source;  // argument that is the next
	uint32_t counted; // those before it were counted as hits and misses
	size_t at;	  // bytes of it that are done
	size_t length;	  // of the result
	size_t live;	  // behind so many bytes the result has only zeroes so far
	uint64_t ends_ms; // when the first of the keys ends
	uint64_t all;	  // bytes that are gone through, keys too
	uint64_t looked;  // the same since the last look at the clock
	unsigned char *to;
	size_t to_bytes;
	struct keyspace_guard guard;
	uint64_t *places;
	size_t places_bytes;
	unsigned restarts;
};

static bool bitop_parse(struct call *call, enum bitop *op)
{
	static const char *const names[] = { "and", "or", "xor", "not" };
	unsigned i = 0;
	while (i < 4 && !commands_arg_is(&call->argv[1], names[i])) {
		i++;
	}
	if (i == 4) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return false;
	}
	*op = (enum bitop)i;
	if (*op == BITOP_NOT && call->argc != 4) {
		commands_error(call, "ERR BITOP NOT must be called with a single source key.");
		return false;
	}
	return true;
}

typedef uint64_t bitop_wide __attribute__((vector_size(32)));

#define BITOP_APPLY(op, a, b) \
	((op) == BITOP_AND ? (a) & (b) : (op) == BITOP_OR ? (a) | (b) : (a) ^ (b))

/// Each operation gets a loop of its own, since `op` is known where it is called.
static inline __attribute__((always_inline)) void
bitop_each(enum bitop op, unsigned char *to, const unsigned char *from, size_t bytes)
{
	size_t i = 0;
	for (; bytes - i >= sizeof(bitop_wide); i += sizeof(bitop_wide)) {
		bitop_wide a;
		bitop_wide b;
		memcpy(&a, to + i, sizeof(a));
		memcpy(&b, from + i, sizeof(b));
		a = BITOP_APPLY(op, a, b);
		memcpy(to + i, &a, sizeof(a));
	}
	for (; i < bytes; i++) {
		to[i] = (unsigned char)BITOP_APPLY(op, to[i], from[i]);
	}
}

static void bitop_invert(unsigned char *to, const unsigned char *from, size_t bytes)
{
	memset(to, 0xff, bytes);
	bitop_each(BITOP_XOR, to, from, bytes);
}

/// Bytes of a source into the result where there are some, or where there were only zeroes.
static void bitop_bytes(const struct bitop_state *state, const unsigned char *from, size_t bytes)
{
	unsigned char *to = state->to + state->at;
	if (state->op == BITOP_NOT) {
		bitop_invert(to, from, bytes);
	} else if (state->at >= state->live) {
		memcpy(to, from, bytes);
	} else if (state->op == BITOP_AND) {
		bitop_each(BITOP_AND, to, from, bytes);
	} else if (state->op == BITOP_OR) {
		bitop_each(BITOP_OR, to, from, bytes);
	} else {
		bitop_each(BITOP_XOR, to, from, bytes);
	}
}

/// So much was done: is the slice over? Then the call returns at once.
static bool bitop_cut(struct call *call, struct bitop_state *state, uint64_t bytes)
{
	state->looked += bytes;
	if (state->looked >= COMMANDS_SLICE_BYTES) {
		state->looked = 0;
		call->again = commands_slice_over(call);
	}
	return call->again;
}

static void bitop_begin(struct bitop_state *state)
{
	state->phase = BITOP_LOOK;
	state->source = BITOP_FIRST_SOURCE;
	state->length = 0;
	state->all = 0;
	state->ends_ms = UINT64_MAX;
}

/// The length of the result. False: it goes on in the next slice.
static bool bitop_look(struct call *call, struct bitop_state *state)
{
	while (state->source < call->argc) {
		const struct resp_arg *key = &call->argv[state->source];
		struct keyspace_value value;
		bool counts = state->source >= state->counted;
		if (state->guard.open) {
			keyspace_guard_add(call->kvd->keyspace, &state->guard, key->data,
					   key->bytes);
		}
		if (counts ? commands_lookup(call, state->source, &value)
			   : commands_peek(call, state->source, &value)) {
			uint64_t ends_ms = value.expiry_ms ? value.expiry_ms : UINT64_MAX;
			state->length = value.value_bytes > state->length ? value.value_bytes
									  : state->length;
			state->ends_ms = ends_ms < state->ends_ms ? ends_ms : state->ends_ms;
			state->all += value.value_bytes;
		}
		state->all += BITOP_KEY_BYTES;
		state->source++;
		state->counted = counts ? state->source : state->counted;
		if (bitop_cut(call, state, BITOP_KEY_BYTES) && state->source < call->argc) {
			return false;
		}
		call->again = false;
	}
	state->phase = BITOP_COMBINE;
	state->source = BITOP_FIRST_SOURCE;
	state->at = 0;
	state->live = 0;
	return true;
}

/// The next source into the result. False: it goes on in the next slice.
static bool bitop_source(struct call *call, struct bitop_state *state)
{
	struct keyspace_value value;
	// Found anew in each slice: while it does not change it is the same, wherever it stands.
	if (!commands_peek(call, state->source, &value)) {
		value = (struct keyspace_value){ 0 };
	}
	bool narrows = state->op == BITOP_AND && state->source > BITOP_FIRST_SOURCE;
	size_t end = value.value_bytes < state->length ? value.value_bytes : state->length;
	end = narrows && state->live < end ? state->live : end;
	while (state->at < end) {
		size_t edge = state->at < state->live && state->live < end ? state->live : end;
		size_t bytes = edge - state->at;
		bytes = bytes < COMMANDS_SLICE_BYTES ? bytes : COMMANDS_SLICE_BYTES;
		bitop_bytes(state, (const unsigned char *)value.value + state->at, bytes);
		state->at += bytes;
		if (bitop_cut(call, state, bytes) && state->at < end) {
			return false;
		}
	}
	state->live = narrows || end > state->live ? end : state->live;
	state->at = 0;
	state->source++;
	return !bitop_cut(call, state, BITOP_KEY_BYTES);
}

/// All sources into the result, and zeroes behind them. False: it goes on in the next slice, or an
/// error was answered.
static bool bitop_combine(struct call *call, struct bitop_state *state)
{
	if (state->to_bytes != state->length) {
		session_task_free(state->session, state->to, state->to_bytes);
		state->to = session_task_alloc(state->session, state->length);
		state->to_bytes = state->to ? state->length : 0;
	}
	if (!state->to) {
		commands_error(call, COMMANDS_TEXT_OOM);
		return false;
	}
	while (state->phase == BITOP_COMBINE && state->source < call->argc) {
		if (!bitop_source(call, state)) {
			return false;
		}
	}
	state->phase = BITOP_CLEAR;
	while (state->live < state->length) {
		size_t bytes = state->length - state->live;
		bytes = bytes < COMMANDS_SLICE_BYTES ? bytes : COMMANDS_SLICE_BYTES;
		memset(state->to + state->live, 0, bytes);
		state->live += bytes;
		if (bitop_cut(call, state, bytes)) {
			return false;
		}
	}
	state->phase = BITOP_STORE;
	return true;
}

static void bitop_store(struct call *call, struct bitop_state *state)
{
	const struct resp_arg *key = &call->argv[2];
	struct keyspace *keyspace = call->kvd->keyspace;
	if (state->length == 0) {
		int result = keyspace_delete(keyspace, key->data, key->bytes);
		if (commands_wrote(call, result, 0)) {
			if (result == KEYSPACE_OK) {
				commands_event(call, 2, EVENT_GENERIC, "del");
			}
			reply_integer(call->session, 0);
		}
		return;
	}
	if (call->until_ns != 0 && state->length > COMMANDS_SLICE_BYTES) {
		call->events_mark = events_mark(call->kvd); // of a copy that is not complete yet
	}
	commands_event_new(call, 2);
	commands_slice_write_begin(call, state->to, state->length);
	int result =
		keyspace_set(keyspace, key->data, key->bytes, state->to, state->length, 0, NULL);
	commands_slice_write_end(call);
	if (commands_wrote(call, result, state->length)) {
		commands_event_set(call, 2, false);
		reply_integer(call->session, (int64_t)state->length);
	}
	call->again = call->refused == KEYSPACE_AGAIN;
}

/// Nothing that was made of the sources so far counts, not even what is staged of the result: it
/// would go on from there with other bytes.
static void bitop_begin_anew(struct call *call, struct bitop_state *state)
{
	keyspace_stage_drop(call->kvd->keyspace, call->session->id);
	bitop_begin(state);
}

/// Before a further slice: begins anew if that has to be. False: it has to wait for its turn.
static bool bitop_resume(struct call *call, struct bitop_state *state)
{
	struct keyspace *keyspace = call->kvd->keyspace;
	if (!state->guard.open) {
		uint32_t count = (uint32_t)(state->places_bytes / sizeof(*state->places));
		call->again = !keyspace_guard_open(keyspace, &state->guard, state->places, count);
		bitop_begin_anew(call, state); // what was seen without it does not count
	} else if (state->guard.broken || keyspace_now_ms(keyspace) >= state->ends_ms) {
		state->guard.broken = false;
		state->restarts++;
		bitop_begin_anew(call, state);
	}
	if (state->restarts >= COMMANDS_SLICE_RESTARTS_MAX) {
		call->until_ns = 0;
	}
	return !call->again;
}

/// The keys change all the time, and there is too much to be done in one go?
static bool bitop_is_hopeless(struct call *call, const struct bitop_state *state, uint64_t bytes)
{
	if (state->restarts < COMMANDS_SLICE_RESTARTS_MAX || bytes <= BITOP_WHOLE_BYTES) {
		return false;
	}
	commands_errorf(call, "TRYAGAIN the keys changed %u times while they were combined",
			state->restarts);
	return true;
}

/// The next slice, or all of it.
static void bitop_go(struct call *call, struct bitop_state *state)
{
	if (state->phase == BITOP_LOOK) {
		uint64_t keys = (uint64_t)call->argc * BITOP_KEY_BYTES;
		if (bitop_is_hopeless(call, state, keys) || !bitop_look(call, state) ||
		    bitop_is_hopeless(call, state, state->all)) {
			return;
		}
	}
	if (state->length == 0 || state->phase == BITOP_STORE || bitop_combine(call, state)) {
		bitop_store(call, state);
	}
}

static void bitop_release(struct bitop_state *state)
{
	keyspace_guard_close(&state->guard);
	session_task_free(state->session, state->to, state->to_bytes);
	session_task_free(state->session, state->places, state->places_bytes);
}

static void bitop_free(void *state)
{
	bitop_release(state);
	free(state);
}

/// Keeps what was done until the next slice, and watches over the keys that were looked at. False
/// if memory is short.
static bool bitop_keep(struct call *call, const struct bitop_state *state)
{
	struct keyspace *keyspace = call->kvd->keyspace;
	if (call->state) {
		return true;
	}
	uint32_t count = 8;
	while (count < 2 * (call->argc - BITOP_FIRST_SOURCE)) {
		count *= 2;
	}
	struct bitop_state *kept = malloc(sizeof(*kept));
	uint64_t *places = session_task_alloc(call->session, count * sizeof(*places));
	if (!kept || !places) {
		session_task_free(call->session, places, count * sizeof(*places));
		free(kept);
		return false;
	}
	*kept = *state;
	kept->places = places;
	kept->places_bytes = count * sizeof(*places);
	uint32_t end = state->phase == BITOP_LOOK ? state->source : call->argc;
	if (keyspace_guard_open(keyspace, &kept->guard, places, count)) {
		for (uint32_t i = BITOP_FIRST_SOURCE; i < end; i++) {
			keyspace_guard_add(keyspace, &kept->guard, call->argv[i].data,
					   call->argv[i].bytes);
		}
	}
	call->state = kept;
	call->state_free = bitop_free;
	return true;
}

void commands_bitop_bitop(struct call *call)
{
	struct bitop_state fresh = { .session = call->session };
	struct bitop_state *state = call->state;
	if (!state) {
		state = &fresh;
		if (!bitop_parse(call, &state->op)) {
			return;
		}
		bitop_begin(state);
	} else if (!bitop_resume(call, state)) {
		return;
	}
	bitop_go(call, state);
	bool kept = call->again && bitop_keep(call, state);
	if (call->again && !kept) {
		commands_slice_fail(call);
	}
	if (!kept && state == &fresh) {
		bitop_release(state);
	}
}

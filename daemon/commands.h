// SPDX-License-Identifier: MIT
//
// What the command families share: the functions that the table names, argument parsing with
// Redis's error texts, lookups that count hits and misses, and one way to deal with a write that
// was refused. Everything belongs to the loop's thread.
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "daemon/command.h"
#include "daemon/events.h"
#include "daemon/keyspace.h"
#include "daemon/kvd.h"
#include "daemon/reply.h"
#include "daemon/seam.h"
#include "daemon/session.h"
#include "daemon/stats.h"

/// Rows of the table, in its order: the index of a command, and its slot in the statistics.
enum commands_row {
#define X(id, name, run, arity, flags, right, first, last, step, group, since, syntax, summary) \
	COMMANDS_ROW_##id,
#include "daemon/commands.tbl.h"
#undef X
	COMMANDS_ROWS_COUNT,
};
static_assert(COMMANDS_ROWS_COUNT <= STATS_COMMANDS_MAX, "every command has its statistics");

#define COMMANDS_TEXT_SYNTAX "ERR syntax error"
#define COMMANDS_TEXT_NOT_INTEGER "ERR value is not an integer or out of range"
#define COMMANDS_TEXT_OOM "OOM command not allowed when used memory > 'maxmemory'."

#define COMMANDS_NAME_BYTES_MAX 31u
#define COMMANDS_PATTERN_BYTES_MAX 4096u // of KEYS, SCAN MATCH, CONFIG GET, COMMAND LIST

/// Answers with an error, text as for reply_error(), and remembers that the command failed.
void commands_error(struct call *call, const char *text);
void commands_errorf(struct call *call, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/// The same for a subcommand that Redis checks by hand: it does not exist with such arguments.
void commands_error_subcommand(struct call *call);

/// True if the argument is this word (given in lower case), in any case.
bool commands_arg_is(const struct resp_arg *arg, const char *word);

/// An integer as Redis reads it. False: the error was answered, with `text` or, if NULL, Redis's
/// usual.
bool commands_arg_int(struct call *call, const struct resp_arg *arg, int64_t *number,
		      const char *text);

/// An expiry relative to now or absolute, in seconds or ms, as SET and GETEX take them. False: the
/// error was answered.
bool commands_arg_expiry(struct call *call, const struct resp_arg *arg, bool seconds, bool relative,
			 uint64_t *expiry_ms);

/// May so many keys be changed by one request that is never cut? False: the error was answered.
bool commands_keys_fit(struct call *call, uint64_t keys);

/// A glob pattern of acceptable length; false: the error was answered.
bool commands_arg_pattern(struct call *call, const struct resp_arg *arg);

/// A channel's name of acceptable length; false: the error was answered.
bool commands_arg_channel(struct call *call, const struct resp_arg *arg);

/// Text of an argument for an error message: at most 128 bytes, up to its first NUL, in `out`.
#define COMMANDS_EXCERPT_BYTES 129u
const char *commands_excerpt(const struct resp_arg *arg, char out[COMMANDS_EXCERPT_BYTES]);

/// Tells whoever listens that `name` (a literal) happened to the key in an argument. Call it after
/// the write was accepted; one event of each class that Redis has for it. It goes out when the
/// command, or the whole EXEC, is over, and is forgotten if that is taken back. With nobody
/// listening this is one branch.
static inline void commands_event(struct call *call, uint32_t key_index, enum event_class class,
				  const char *name)
{
	if (__builtin_expect(call->kvd->events_wanted & class, 0)) {
		const struct resp_arg *key = &call->argv[key_index];
		events_add(call->kvd, class, name, key->data, key->bytes);
	}
}

/// keyspace_stat() of an argument without counting: for who needs no value.
static inline bool commands_stat(struct call *call, uint32_t index, struct keyspace_value *value)
{
	const struct resp_arg *key = &call->argv[index];
	return keyspace_stat(call->kvd->keyspace, key->data, key->bytes, value) == KEYSPACE_OK;
}

/// keyspace_get() of an argument without counting. False, too, if the value is in the store alone:
/// then nothing of what the command does counts, and it is run again.
static inline bool commands_peek(struct call *call, uint32_t index, struct keyspace_value *value)
{
	const struct resp_arg *key = &call->argv[index];
	return keyspace_get(call->kvd->keyspace, key->data, key->bytes, value) == KEYSPACE_OK;
}

/// Tells that a key comes into being ("new") if it is absent now: call it before the write.
static inline void commands_event_new(struct call *call, uint32_t key_index)
{
	struct keyspace_value old;
	if (__builtin_expect(call->kvd->events_wanted & EVENT_NEW, 0) &&
	    !commands_stat(call, key_index, &old)) {
		commands_event(call, key_index, EVENT_NEW, "new");
	}
}

/// A reader has looked for the key in an argument: counts a hit or a miss.
static inline void commands_looked_up(struct call *call, uint32_t index, bool found)
{
	stats_add(call->kvd->stats, found ? KVS_COUNTER_socket_hits : KVS_COUNTER_socket_misses, 1);
	if (found) {
		const struct resp_arg *key = &call->argv[index];
		keyspace_warm_key(call->kvd->keyspace, key->data, key->bytes);
	} else {
		commands_event(call, index, EVENT_MISS, "keymiss");
	}
}

/// keyspace_get() of an argument on behalf of a reader.
static inline bool commands_lookup(struct call *call, uint32_t index, struct keyspace_value *value)
{
	const struct resp_arg *key = &call->argv[index];
	int result = keyspace_get(call->kvd->keyspace, key->data, key->bytes, value);
	if (__builtin_expect(result != KEYSPACE_COLD, 1)) { // else it counts when it is run again
		commands_looked_up(call, index, result == KEYSPACE_OK);
	}
	return result == KEYSPACE_OK;
}

/// The same for who needs no value.
static inline bool commands_look(struct call *call, uint32_t index, struct keyspace_value *value)
{
	bool found = commands_stat(call, index, value);
	commands_looked_up(call, index, found);
	return found;
}

#define COMMANDS_AHEAD 16u // keys whose memory is asked for together

/// Before the key at `index` of a command with keys from the first argument on, every `step`-th:
/// asks for the memory of the next ones, once for COMMANDS_AHEAD of them.
static inline void commands_look_ahead(struct call *call, uint32_t index, uint32_t step)
{
	if ((index - 1) / step % COMMANDS_AHEAD != 0 || index + step >= call->argc) {
		return;
	}
	uint64_t end = (uint64_t)index + COMMANDS_AHEAD * step;
	end = end < call->argc ? end : call->argc;
	for (int pass = 0; pass < 2; pass++) {
		for (uint64_t i = index; i < end; i += step) {
			keyspace_prefetch(call->kvd->keyspace, call->argv[i].data,
					  call->argv[i].bytes, pass);
		}
	}
}

/// Tells that a key was set, and, if its end was given with it, that too.
static inline void commands_event_set(struct call *call, uint32_t key_index, bool expires)
{
	commands_event(call, key_index, EVENT_STRING, "set");
	if (expires) {
		commands_event(call, key_index, EVENT_GENERIC, "expire");
	}
}

/// Deals with the answer of a keyspace write. True: it was applied (or found nothing to do). False:
/// the command must return at once; whatever it answered so far is taken back, and either the value
/// exceeds its limit and the error was answered, or call->refused is set and the dispatcher (or
/// EXEC) decides.
bool commands_wrote(struct call *call, int result, size_t value_bytes);

/// keyspace_set() of two arguments with commands_wrote(); tells that the key is new, if it is.
bool commands_store(struct call *call, uint32_t key_index, uint32_t value_index, uint64_t expiry_ms,
		    uint64_t *seq);

/// May a value have `bytes` bytes from `start` on? False: Redis's error was answered.
bool commands_length_fits(struct call *call, uint64_t start, uint64_t bytes);

/// Writes `bytes` bytes over a value from byte `start` on, behind zeroes if it is shorter, keeping
/// its expiry; `old` is the value there is now, empty if the key is absent. With commands_wrote();
/// tells that the key is new, if it is.
bool commands_overwrite(struct call *call, uint32_t key_index, const struct keyspace_value *old,
			uint64_t start, const void *data, size_t bytes);

/// A range as clients give it, negative numbers counting from the end, as the first and the last of
/// `length` places; false if it is empty.
bool commands_range_settle(int64_t start, int64_t end, int64_t length, int64_t *first,
			   int64_t *last);

/// Begins and commits a batch of the command's own, unless EXEC has one open already.
void commands_batch_begin(struct call *call);
bool commands_batch_commit(struct call *call);
/// Drops it after commands_wrote() answered false.
void commands_batch_abort(struct call *call);

/// Memory that a command might add, for keyspace_admit().
size_t commands_write_bytes(const struct resp_arg *argv, uint32_t argc);

/// Has a command that may be cut used up its connection's share of the turn? It then sets
/// call->again and returns.
static inline bool commands_slice_over(const struct call *call)
{
	return call->until_ns != 0 && call->kvd->seam->monotonic_ns() >= call->until_ns;
}

/// The same for a loop: true if the command must return now, to be called again, or because nobody
/// can be answered any more.
static inline bool commands_cut(struct call *call)
{
	call->again = !call->session->dead && commands_slice_over(call);
	return call->again || call->session->dead;
}

/// Answers with text that the command keeps, as reply_verbatim() does, in slices: from byte *done
/// on, 0 at first. False: call->again is set, or nobody can be answered.
bool commands_reply_text(struct call *call, const char *text, size_t bytes, size_t *done);

/// What a command that is cut keeps from slice to slice: `bytes` of memory, zero at first, the same
/// at every call; freed when the command is over, after `end`, if that is not NULL, let go of what
/// it refers to. NULL if memory is short: the error was answered.
void *commands_state(struct call *call, size_t bytes, void (*end)(void *state));

/// How far a walk over arguments, rows, … came: enough for most commands.
struct commands_walk {
	uint64_t at;
	uint64_t count;
	unsigned phase;
};
struct commands_walk *commands_walk(struct call *call);

/// Answers with an argument, a large one in slices: the command returns at once and, if call->again
/// is set, calls it again.
void commands_reply_arg(struct call *call, const struct resp_arg *arg);

/// The session, which wants that (tracking_wants_reads()), has read the key in an argument: behind
/// changes that are still to be told, in its place among them.
void commands_track(struct call *call, uint32_t index);

/// The right that a command's user needs: "attach", "write", "administer", or that only for what is
/// another user's; NULL = none.
const char *commands_right(const struct command *command);

/// May the session's user run this, and now? Asked if `guarded` has one of the command's flags.
/// False: *outcome is what becomes of it; DONE = the error was answered.
bool commands_guard(struct call *call, enum command_outcome *outcome);

/// Has the user the right to administer? For commands that need it only sometimes: False: the error
/// was answered, `what` (a command's name, in capitals) in it.
bool commands_may_administer(struct call *call, const char *what);

/// Refuses a request before it ran: inside MULTI the transaction is spoilt.
void commands_reject(struct call *call, const char *text);

/// Nobody knows it; `container` is set when only its first word is known.
void commands_reject_unknown(struct call *call, const struct command *container);
/// A command found no room (or its batch none in the limit), or needs values from the store: it is
/// to wait, or it is answered that waiting is useless or over.
enum command_outcome commands_no_room(struct call *call, int result);
/// A write would have let its user own more than its quota: answers that.
void commands_reject_stored(struct call *call);
/// There is no memory for it: which bound was reached or what holds the memory, and what to change.
void commands_reject_memory(struct call *call);
/// A write brought a key with which too many collide: answers that.
void commands_reject_crowded(struct call *call);
/// A write would have taken the place of what cannot be read: answers that.
void commands_reject_damaged(struct call *call);
/// A command that was run, or a slice of it, met a key that cannot be read: that is its answer, and
/// it is over.
void commands_met_damage(struct call *call);
/// The same of a value that is in the store alone: it is to be run again, or that is its answer.
void commands_met_cold(struct call *call);
/// Whatever it met that is no answer.
void commands_met(struct call *call);

/// Runs one command that passed all checks and counts it.
void commands_run(struct call *call);

/// The index of a command.
static inline size_t commands_index(const struct command *command)
{
	size_t count;
	return (size_t)(command - command_table(&count));
}

/// The subcommands of a container: rows from `first` on, *count of them.
const struct command *commands_subcommands(const struct command *container, size_t *count);

/// Current length of the session's output as a stream position, and back to it: what was answered
/// since is dropped. Only for replies that the running command made.
static inline uint64_t commands_reply_mark(const struct session *session)
{
	return session->output_position + session->output_end;
}
void commands_reply_rewind(struct session *session, uint64_t mark);

/// The command or subcommand that a request names, NULL if there is none.
const struct command *commands_of_request(const struct resp_arg *argv, uint32_t argc);

/// CLIENT SETNAME and HELLO SETNAME; false: the error was answered.
bool commands_client_name(struct call *call, const struct resp_arg *name);

// The functions of the table.
#define X(id, name, run, arity, flags, right, first, last, step, group, since, syntax, summary) \
	void run(struct call *call);
#include "daemon/commands.tbl.h"
#undef X

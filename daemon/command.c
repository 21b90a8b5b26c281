// SPDX-License-Identifier: MIT
//
// From a request to a reply: finding the command, the checks that all commands share, queueing
// under MULTI, and waiting for memory. The order of the checks and their texts are Redis 7.0's.
#include "daemon/command.h"

#include <stdio.h>
#include <string.h>

#include "daemon/commands.h"
#include "daemon/seam.h"
#include "daemon/session_pins.h"
#include "daemon/session_rest.h"
#include "daemon/session_task.h"
#include "daemon/tracking.h"

static const struct command command_rows[] = {
#define X(id, name, run, arity, flags, right, first, last, step, group, since, syntax, summary) \
	{ name, run, arity, (flags) | (right), first, last, step, group, since, syntax, summary },
#include "daemon/commands.tbl.h"
#undef X
};

const struct command *command_table(size_t *count)
{
	*count = COMMANDS_ROWS_COUNT;
	return command_rows;
}

/// Lower-case C string of `bytes` bytes at `data` in `out`; false if no command can be called that.
static bool command_fold(const char *data, size_t bytes, char out[COMMANDS_NAME_BYTES_MAX + 1])
{
	if (bytes > COMMANDS_NAME_BYTES_MAX) {
		return false;
	}
	for (size_t i = 0; i < bytes; i++) {
		char byte = data[i];
		if (!byte) {
			return false;
		}
		out[i] = byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
	}
	out[bytes] = 0;
	return true;
}

static const struct command *command_search(const char *name)
{
	size_t low = 0;
	size_t high = COMMANDS_ROWS_COUNT;
	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = strcmp(name, command_rows[middle].name);
		if (order == 0) {
			return &command_rows[middle];
		}
		if (order < 0) {
			high = middle;
		} else {
			low = middle + 1;
		}
	}
	return NULL;
}

const struct command *command_find(const char *name, size_t bytes)
{
	char folded[COMMANDS_NAME_BYTES_MAX + 1];
	if (bytes == 3) { // most requests: no search
		char a = (char)(name[0] | 0x20);
		bool et = (name[1] | 0x20) == 'e' && (name[2] | 0x20) == 't';
		if (et && a == 'g') {
			return &command_rows[COMMANDS_ROW_get];
		}
		if (et && a == 's') {
			return &command_rows[COMMANDS_ROW_set];
		}
	}
	return command_fold(name, bytes, folded) ? command_search(folded) : NULL;
}

const struct command *commands_subcommands(const struct command *container, size_t *count)
{
	size_t bytes = strlen(container->name);
	const struct command *first = container + 1;
	const struct command *end = command_rows + COMMANDS_ROWS_COUNT;
	const struct command *row = first;
	while (row < end && strncmp(row->name, container->name, bytes) == 0 &&
	       row->name[bytes] == '|') {
		row++;
	}
	*count = (container->flags & COMMAND_CONTAINER) ? (size_t)(row - first) : 0;
	return first;
}

/// The command or subcommand that a request names. *container is set when only the first word is
/// known.
static const struct command *command_of_request(const struct resp_arg *argv, uint32_t argc,
						const struct command **container)
{
	const struct command *command = command_find(argv[0].data, argv[0].bytes);
	*container = NULL;
	if (!command) {
		return NULL;
	}
	if (__builtin_expect(command->flags & COMMAND_CONTAINER, 0) && argc > 1) {
		char sub[COMMANDS_NAME_BYTES_MAX + 1];
		char full[2 * COMMANDS_NAME_BYTES_MAX + 2];
		*container = command;
		if (!command_fold(argv[1].data, argv[1].bytes, sub)) {
			return NULL;
		}
		(void)snprintf(full, sizeof(full), "%s|%s", command->name, sub);
		return command_search(full);
	}
	// "client|id" is how the table and COMMAND INFO call it, not how it is sent.
	bool may_be_sub = argv[0].bytes >= sizeof("client|id") - 1;
	return may_be_sub && memchr(argv[0].data, '|', argv[0].bytes) ? NULL : command;
}

const struct command *commands_of_request(const struct resp_arg *argv, uint32_t argc)
{
	const struct command *container;
	return command_of_request(argv, argc, &container);
}

void commands_reject(struct call *call, const char *text)
{
	struct session *session = call->session;
	if (call->command) {
		call->kvd->stats->commands[commands_index(call->command)].rejected++;
	}
	if (call->command == &command_rows[COMMANDS_ROW_exec]) {
		const char *bare = strncmp(text, "ERR ", 4) == 0 ? text + 4 : text;
		session_multi_reset(session);
		commands_errorf(call, "EXECABORT Transaction discarded because of: %s", bare);
	} else {
		session->multi.dirty = session->multi.dirty || session->multi.active;
		commands_error(call, text);
	}
	stats_add(call->kvd->stats, KVS_COUNTER_commands_failed, 1);
}

static bool command_arity_fits(const struct command *command, uint32_t argc)
{
	return command->arity >= 0 ? argc == (uint32_t)command->arity
				   : argc >= (uint32_t)-command->arity;
}

/// Keys are 1..KVS_KEY_BYTES_MAX bytes; answers and returns false for the first that is not.
static bool command_keys_fit(struct call *call)
{
	const struct command *command = call->command;
	if (!command->first_key || (command->key_step == 2 && call->argc % 2 == 0)) {
		return true; // none, or half a pair: then the command complains
	}
	uint32_t last = command->last_key < 0 ? call->argc - 1 : (uint32_t)command->last_key;
	uint32_t first = (uint32_t)command->first_key;
	uint32_t step = (uint32_t)command->key_step;
	uint32_t known = call->session->args_short; // looked at while they were parsed
	if (__builtin_expect(known > first, 0)) {
		first += (known - first) / step * step;
	}
	for (uint32_t i = first; i <= last; i += step) {
		size_t bytes = call->argv[i].bytes;
		if (__builtin_expect(bytes - 1 < KVS_KEY_BYTES_MAX, 1)) {
			continue;
		}
		char text[128];
		if (bytes == 0) {
			(void)snprintf(text, sizeof(text),
				       "ERR an empty key is not allowed in kvd: keys have 1..%u "
				       "bytes",
				       KVS_KEY_BYTES_MAX);
		} else {
			(void)snprintf(text, sizeof(text),
				       "ERR key is too long: %zu bytes, the limit is %u", bytes,
				       KVS_KEY_BYTES_MAX);
		}
		commands_reject(call, text);
		return false;
	}
	return true;
}

/// Keys that a command names, but one at least.
static uint64_t command_keys_count(const struct call *call)
{
	const struct command *command = call->command;
	if (!command->first_key) {
		return 1;
	}
	int last = command->last_key < 0 ? (int)call->argc - 1 : command->last_key;
	return (uint64_t)((last - command->first_key) / command->key_step + 1);
}

static void command_queue(struct call *call)
{
	struct session *session = call->session;
	uint64_t keys = session->multi.keys + command_keys_count(call);
	if (!session->multi.dirty && !commands_keys_fit(call, keys)) {
		session->multi.dirty = true;
		return;
	}
	session->multi.keys = keys;
	if (!session->multi.dirty &&
	    !session_multi_queue(session, call->command, call->argv, call->argc)) {
		commands_reject(call, session->multi.full
					      ? "ERR the transaction is too large: more commands "
						"or bytes are queued than one request may have"
					      : "ERR no room to queue another command "
						"(client-buffers-max, client-uid-share)");
		return;
	}
	reply_status(session, "QUEUED");
}

/// Is a command that can be cut over? What it kept between its slices is freed then.
static bool command_is_over(struct call *call)
{
	if (call->again) {
		return false;
	}
	call->state_free(call->state);
	call->state_free = NULL;
	call->state = NULL;
	return true;
}

void commands_track(struct call *call, uint32_t index)
{
	const struct resp_arg *key = &call->argv[index];
	if (call->kvd->events_pending) {
		events_add(call->kvd, EVENT_READ, NULL, key->data, key->bytes);
	} else if (!tracking_remember(call->session, key->data, key->bytes)) {
		events_add(call->kvd, EVENT_UNKEPT, NULL, key->data, key->bytes);
	}
}

/// Remembers what a tracking client has read.
static void command_track(struct call *call)
{
	const struct command *command = call->command;
	if (command->first_key == 0 || call->tracks || !tracking_wants_reads(call->session)) {
		return;
	}
	uint32_t last = command->last_key < 0 ? call->argc - 1 : (uint32_t)command->last_key;
	for (uint32_t i = (uint32_t)command->first_key; i <= last;
	     i += (uint32_t)command->key_step) {
		commands_track(call, i);
	}
}

void commands_run(struct call *call)
{
	struct stats *stats = call->kvd->stats;
	struct stats_command *numbers = &stats->commands[commands_index(call->command)];
	bool timed = stats_timed(stats, numbers, call);
	uint64_t start_ns = timed ? call->kvd->seam->monotonic_ns() : 0;
	call->kvd->damage.met = 0; // by others, such as the cleaner
	call->command->run(call);
	if (__builtin_expect(call->kvd->damage.met, 0)) {
		commands_met(call);
	}
	bool goes_on = __builtin_expect(call->state_free != NULL, 0) && !command_is_over(call);
	// What is read in slices is as of the first: a change that comes between is told.
	if (__builtin_expect(call->session->tracking != NULL, 0) &&
	    call->command->flags & COMMAND_READONLY && !call->session->task) {
		command_track(call);
	}
	if (__builtin_expect(goes_on, 0)) {
		call->slept_ns += timed ? call->kvd->seam->monotonic_ns() - start_ns : 0;
		return;
	}
	if (call->refused) {
		return;
	}
	if (timed) {
		stats_took(call, call->kvd->seam->monotonic_ns() - start_ns + call->slept_ns);
	}
	numbers->calls++;
	stats_add(stats, KVS_COUNTER_commands_processed, 1);
	if (__builtin_expect(call->failed, 0)) {
		numbers->failed++;
		stats_add(stats, KVS_COUNTER_commands_failed, 1);
	}
}

/// Checks that come before running; false: answered.
static bool command_acceptable(struct call *call, const struct command *container)
{
	if (!call->command) {
		commands_reject_unknown(call, container);
		return false;
	}
	if (!command_arity_fits(call->command, call->argc)) {
		char text[96];
		(void)snprintf(text, sizeof(text), "ERR wrong number of arguments for '%s' command",
			       call->command->name);
		commands_reject(call, text);
		return false;
	}
	if (call->session->multi.active && call->command->flags & COMMAND_NO_MULTI) {
		commands_reject(call, "ERR Command not allowed inside a transaction");
		return false;
	}
	if (__builtin_expect(call->session->pubsub != NULL, 0) && call->session->resp_version < 3 &&
	    !(call->command->flags & COMMAND_SUBSCRIBER)) {
		char text[192];
		(void)snprintf(text, sizeof(text),
			       "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / "
			       "PING / QUIT / RESET are allowed in this context",
			       call->command->name);
		commands_reject(call, text);
		return false;
	}
	return command_keys_fit(call);
}

/// Does it need memory while more is in use than `maxmemory` allows? Asked before it is queued,
/// too, and for all that EXEC would run.
static bool command_is_over_bound(const struct call *call)
{
	const struct session_multi *multi = &call->session->multi;
	uint32_t flags = call->command->flags;
	if (call->command == &command_rows[COMMANDS_ROW_exec]) {
		for (uint32_t i = 0; i < multi->count; i++) {
			flags |= multi->queued[i].command->flags;
		}
	}
	return (flags & COMMAND_DENYOOM) &&
	       keyspace_used_bytes(call->kvd->keyspace) > call->kvd->config.maxmemory_bytes;
}

/// Runs a command that passed all checks, or a slice of it.
static inline __attribute__((always_inline)) enum command_outcome command_go(struct call *call)
{
	struct session *session = call->session;
	enum command_outcome outcome = COMMAND_DONE;
	commands_run(call);
	if (__builtin_expect(call->again || call->refused == KEYSPACE_AGAIN, 0)) {
		bool kept = session->task || session_task_begin(session, call);
		outcome = kept ? COMMAND_AGAIN : COMMAND_DONE;
	} else if (__builtin_expect(call->refused, 0)) {
		outcome = commands_no_room(call, call->refused);
	} else {
		session->commands_count++;
	}
	if (__builtin_expect(call->kvd->events_pending, 0)) {
		events_tell(call->kvd, session);
	}
	if (__builtin_expect(session->tracking != NULL, 0)) {
		if (outcome == COMMAND_AGAIN) {
			tracking_slice_over(call->kvd);
		} else {
			tracking_command_over(call);
		}
	}
	return outcome;
}

enum command_outcome command_dispatch(struct kvd *kvd, struct session *session,
				      const struct resp_arg *argv, uint32_t argc)
{
	const struct command *container;
	struct call call = {
		.kvd = kvd,
		.session = session,
		.command = command_of_request(argv, argc, &container),
		.argv = argv,
		.argc = argc,
		.mark = commands_reply_mark(session),
		.until_ns = session->until_ns,
	};
	session->last_command = call.command;
	if (!command_acceptable(&call, container)) {
		session->commands_count++;
		return COMMAND_DONE;
	}
	if (__builtin_expect(config_is_bounded(&kvd->config), 0) && command_is_over_bound(&call)) {
		session->commands_count++;
		session_pins_wanted(kvd->sessions);
		commands_reject_memory(&call);
		return COMMAND_DONE;
	}
	uint32_t flags = call.command->flags;
	enum command_outcome outcome;
	if (__builtin_expect(flags & session->guarded, 0) && !commands_guard(&call, &outcome)) {
		return outcome;
	}
	if (__builtin_expect(kvd->paused_until_ns != 0, 0) &&
	    session_paused(session, call.command)) {
		return COMMAND_POSTPONE;
	}
	if (session->multi.active && !(flags & COMMAND_NO_QUEUE)) {
		session->commands_count++;
		command_queue(&call);
		return COMMAND_DONE;
	}
	if (flags & COMMAND_DENYOOM) {
		int room = keyspace_admit(kvd->keyspace, commands_write_bytes(argv, argc));
		if (__builtin_expect(room != KEYSPACE_OK, 0)) {
			return commands_no_room(&call, room);
		}
	}
	stats_sample(kvd->stats, keyspace_now_ms(kvd->keyspace));
	return command_go(&call);
}

enum command_outcome command_continue(struct session *session)
{
	struct call *call = &session->task->call;
	call->again = false;
	call->refused = 0;
	call->until_ns = session->until_ns;
	return command_go(call);
}

// SPDX-License-Identifier: MIT
//
// Shared by the command families; see commands.h.
#include "daemon/commands.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/glob.h"
#include "daemon/pubsub.h"
#include "daemon/session_refs.h"
#include "daemon/session_task.h"

void commands_error(struct call *call, const char *text)
{
	call->failed = true;
	stats_count_error(call->kvd->stats, text);
	reply_error(call->session, text);
}

void commands_errorf(struct call *call, const char *format, ...)
{
	char text[1024];
	va_list args;
	va_start(args, format);
	int bytes = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	commands_error(call, bytes < 0 ? "ERR internal formatting error" : text);
}

void commands_error_subcommand(struct call *call)
{
	char name[COMMANDS_EXCERPT_BYTES];
	char container[32] = "";
	const char *full = call->command->name;
	for (size_t i = 0; full[i] && full[i] != '|' && i < sizeof(container) - 1; i++) {
		container[i] = full[i] >= 'a' ? (char)(full[i] - 'a' + 'A') : full[i];
	}
	commands_errorf(call,
			"ERR unknown subcommand or wrong number of arguments for '%s'. "
			"Try %s HELP.",
			commands_excerpt(&call->argv[1], name), container);
}

static char commands_fold(char byte)
{
	return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

bool commands_arg_is(const struct resp_arg *arg, const char *word)
{
	size_t i = 0;
	for (; i < arg->bytes && word[i]; i++) {
		if (commands_fold(arg->data[i]) != word[i]) {
			return false;
		}
	}
	return i == arg->bytes && !word[i];
}

bool commands_arg_int(struct call *call, const struct resp_arg *arg, int64_t *number,
		      const char *text)
{
	if (resp_parse_int(arg->data, arg->bytes, number)) {
		return true;
	}
	commands_error(call, text ? text : COMMANDS_TEXT_NOT_INTEGER);
	return false;
}

bool commands_arg_expiry(struct call *call, const struct resp_arg *arg, bool seconds, bool relative,
			 uint64_t *expiry_ms)
{
	int64_t time;
	if (!commands_arg_int(call, arg, &time, NULL)) {
		return false;
	}
	int64_t now_ms = relative ? (int64_t)keyspace_now_ms(call->kvd->keyspace) : 0;
	if (time <= 0 || (seconds && time > INT64_MAX / 1000) ||
	    __builtin_add_overflow(seconds ? time * 1000 : time, now_ms, &time)) {
		commands_errorf(call, "ERR invalid expire time in '%s' command",
				call->command->name);
		return false;
	}
	*expiry_ms = (uint64_t)time;
	return true;
}

bool commands_arg_channel(struct call *call, const struct resp_arg *arg)
{
	if (arg->bytes <= PUBSUB_CHANNEL_BYTES_MAX) {
		return true;
	}
	commands_errorf(call, "ERR channel name is too long: %zu bytes, the limit is %u",
			arg->bytes, PUBSUB_CHANNEL_BYTES_MAX);
	return false;
}

bool commands_keys_fit(struct call *call, uint64_t keys)
{
	uint64_t most = call->kvd->config.atomic_keys_max;
	if (most == 0 || keys <= most) {
		return true;
	}
	commands_errorf(call,
			"ERR too many keys in one atomic request: %llu, the limit is %llu "
			"(atomic-keys-max)",
			(unsigned long long)keys, (unsigned long long)most);
	return false;
}

bool commands_arg_pattern(struct call *call, const struct resp_arg *arg)
{
	if (arg->bytes <= COMMANDS_PATTERN_BYTES_MAX) {
		return true;
	}
	commands_errorf(call, "ERR pattern is too long: %zu bytes, the limit is %u", arg->bytes,
			COMMANDS_PATTERN_BYTES_MAX);
	return false;
}

const char *commands_excerpt(const struct resp_arg *arg, char out[COMMANDS_EXCERPT_BYTES])
{
	size_t bytes =
		arg->bytes < COMMANDS_EXCERPT_BYTES - 1 ? arg->bytes : COMMANDS_EXCERPT_BYTES - 1;
	memcpy(out, arg->data, bytes);
	out[bytes] = 0;
	return out;
}

void commands_reply_rewind(struct session *session, uint64_t mark)
{
	// A session over its output limit has dropped what it had: nothing is left to take back.
	if (mark >= session->output_position &&
	    mark - session->output_position <= session->output_end) {
		session->output_end = mark - session->output_position;
		session_refs_forget(session, mark, UINT64_MAX);
	}
}

bool commands_wrote(struct call *call, int result, size_t value_bytes)
{
	if (__builtin_expect(result == KEYSPACE_OK || result == KEYSPACE_ABSENT, 1)) {
		return true;
	}
	commands_reply_rewind(call->session, call->mark);
	events_rewind(call->kvd, call->events_mark);
	size_t limit = keyspace_value_bytes_max(call->kvd->keyspace);
	if (result == KEYSPACE_TOO_LARGE && value_bytes > limit) {
		commands_errorf(call, "ERR value is too large: %zu bytes, the limit is %zu",
				value_bytes, limit);
		return false;
	}
	call->refused = result;
	return false;
}

bool commands_store(struct call *call, uint32_t key_index, uint32_t value_index, uint64_t expiry_ms,
		    uint64_t *seq)
{
	const struct resp_arg *key = &call->argv[key_index];
	const struct resp_arg *value = &call->argv[value_index];
	commands_event_new(call, key_index);
	int result = keyspace_set(call->kvd->keyspace, key->data, key->bytes, value->data,
				  value->bytes, expiry_ms, seq);
	return commands_wrote(call, result, value->bytes);
}

void commands_batch_begin(struct call *call)
{
	if (!call->in_exec) {
		keyspace_batch_begin(call->kvd->keyspace);
	}
}

bool commands_batch_commit(struct call *call)
{
	return call->in_exec || commands_wrote(call, keyspace_batch_commit(call->kvd->keyspace), 0);
}

void commands_batch_abort(struct call *call)
{
	if (!call->in_exec) {
		keyspace_batch_abort(call->kvd->keyspace);
	}
}

size_t commands_write_bytes(const struct resp_arg *argv, uint32_t argc)
{
	size_t bytes = 0;
	for (uint32_t i = 1; i < argc; i++) {
		bytes += argv[i].bytes;
	}
	return bytes;
}

#define COMMANDS_COPY_BYTES (128u << 10) // between two looks at the clock

/// Stands before what commands_state() returns.
struct commands_kept {
	struct session *session;
	size_t bytes;
	void (*end)(void *state);
	max_align_t state[];
};

static void commands_state_free(void *state)
{
	struct commands_kept *kept =
		(void *)((char *)state - offsetof(struct commands_kept, state));
	if (kept->end) {
		kept->end(state);
	}
	session_task_free(kept->session, kept, kept->bytes);
}

void *commands_state(struct call *call, size_t bytes, void (*end)(void *state))
{
	if (!call->state) {
		size_t all = sizeof(struct commands_kept) + bytes;
		struct commands_kept *kept = session_task_alloc(call->session, all);
		if (!kept) {
			commands_error(call, COMMANDS_TEXT_OOM);
			return NULL;
		}
		*kept = (struct commands_kept){ call->session, all, end };
		call->state = kept->state;
		call->state_free = commands_state_free;
	}
	return call->state;
}

struct commands_walk *commands_walk(struct call *call)
{
	return commands_state(call, sizeof(struct commands_walk), NULL);
}

bool commands_reply_text(struct call *call, const char *text, size_t bytes, size_t *done)
{
	struct session *session = call->session;
	if (*done == 0) {
		if (bytes <= COMMANDS_COPY_BYTES || call->until_ns == 0) {
			reply_verbatim(session, text, bytes);
			return true;
		}
		reply_verbatim_head(session, bytes);
	}
	while (*done < bytes) {
		size_t piece = bytes - *done;
		piece = piece < COMMANDS_COPY_BYTES ? piece : COMMANDS_COPY_BYTES;
		reply_raw(session, text + *done, piece);
		*done += piece;
		if (*done < bytes && commands_cut(call)) {
			return false;
		}
	}
	reply_raw(session, "\r\n", 2);
	return true;
}

void commands_reply_arg(struct call *call, const struct resp_arg *arg)
{
	struct session *session = call->session;
	size_t *done = call->state;
	if (!done) {
		done = call->until_ns && arg->bytes > COMMANDS_COPY_BYTES ? calloc(1, sizeof(*done))
									  : NULL;
		if (!done) {
			reply_bulk(session, arg->data, arg->bytes);
			return;
		}
		call->state = done;
		call->state_free = free;
		reply_bulk_head(session, arg->bytes);
	}
	while (*done < arg->bytes && !session->dead) {
		size_t bytes = arg->bytes - *done;
		bytes = bytes < COMMANDS_COPY_BYTES ? bytes : COMMANDS_COPY_BYTES;
		reply_raw(session, arg->data + *done, bytes);
		*done += bytes;
		if (*done < arg->bytes && commands_slice_over(call)) {
			call->again = !session->dead;
			return;
		}
	}
	reply_raw(session, "\r\n", 2);
}

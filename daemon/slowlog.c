// SPDX-License-Identifier: MIT
//
// Entries are one allocation each: the entry, its arguments, their bytes. Lengths and texts of what
// is cut off are those of Redis, which tools print as they come.
#include "daemon/slowlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/kvd.h"
#include "daemon/listener.h"
#include "daemon/session.h"

#define SLOWLOG_MORE_BYTES 48u // "... (N more bytes)"
#define SLOWLOG_REDACTED "(redacted)"

void slowlog_init(struct slowlog *slowlog)
{
	*slowlog = (struct slowlog){ 0 };
	TAILQ_INIT(&slowlog->entries);
}

static bool slowlog_is(const struct resp_arg *arg, const char *word)
{
	return arg->bytes == strlen(word) && strncasecmp(arg->data, word, arg->bytes) == 0;
}

/// Is argument `i` something that nobody should read later?
static bool slowlog_is_secret(const struct resp_arg *argv, uint32_t i)
{
	if (slowlog_is(&argv[0], "auth")) {
		return i > 0;
	}
	if (slowlog_is(&argv[0], "hello")) {
		return (i > 1 && slowlog_is(&argv[i - 1], "auth")) ||
		       (i > 2 && slowlog_is(&argv[i - 2], "auth"));
	}
	return slowlog_is(&argv[0], "config") && i > 2 && i % 2 == 1 &&
	       (slowlog_is(&argv[i - 1], "requirepass") || slowlog_is(&argv[i - 1], "masterauth") ||
		slowlog_is(&argv[i - 1], "masteruser"));
}

/// Argument `i` as it is kept: `bytes` of `data`, and the text behind them.
struct slowlog_piece {
	const char *data;
	size_t bytes;
	char more[SLOWLOG_MORE_BYTES];
};

static void slowlog_piece(const struct resp_arg *argv, uint32_t argc, uint32_t i,
			  struct slowlog_piece *piece)
{
	*piece = (struct slowlog_piece){ .data = argv[i].data, .bytes = argv[i].bytes };
	if (argc > SLOWLOG_ARGS_MAX && i == SLOWLOG_ARGS_MAX - 1) {
		piece->bytes = 0;
		(void)snprintf(piece->more, sizeof(piece->more), "... (%u more arguments)",
			       argc - SLOWLOG_ARGS_MAX + 1);
	} else if (slowlog_is_secret(argv, i)) {
		piece->data = SLOWLOG_REDACTED;
		piece->bytes = sizeof(SLOWLOG_REDACTED) - 1;
	} else if (argv[i].bytes > SLOWLOG_ARG_BYTES_MAX) {
		piece->bytes = SLOWLOG_ARG_BYTES_MAX;
		(void)snprintf(piece->more, sizeof(piece->more), "... (%zu more bytes)",
			       argv[i].bytes - SLOWLOG_ARG_BYTES_MAX);
	}
}

static char *slowlog_copy(char *at, const char *data, size_t bytes)
{
	memcpy(at, data, bytes);
	return at + bytes;
}

void slowlog_add(struct slowlog *slowlog, const struct session *session,
		 const struct resp_arg *argv, uint32_t argc, uint64_t micros, uint64_t time_s,
		 uint64_t count_max)
{
	struct slowlog_piece pieces[SLOWLOG_ARGS_MAX];
	uint32_t kept = argc < SLOWLOG_ARGS_MAX ? argc : SLOWLOG_ARGS_MAX;
	const struct listener *listener = session->kvd->listener;
	char peer[KVS_SOCKET_PATH_BYTES_MAX + 8];
	(void)snprintf(peer, sizeof(peer), "%s:0", listener ? listener_path(listener) : "");
	size_t name_bytes = strlen(session->name) + 1;
	size_t bytes = sizeof(struct slowlog_entry) + kept * sizeof(struct resp_arg) +
		       strlen(peer) + 1 + name_bytes;
	for (uint32_t i = 0; i < kept; i++) {
		slowlog_piece(argv, argc, i, &pieces[i]);
		bytes += pieces[i].bytes + strlen(pieces[i].more);
	}
	struct slowlog_entry *entry = malloc(bytes);
	if (!entry) {
		return;
	}
	*entry = (struct slowlog_entry){
		.id = slowlog->next_id++,
		.time_s = time_s,
		.micros = micros,
		.argc = kept,
		.argv = (struct resp_arg *)(void *)(entry + 1),
	};
	char *at = (char *)(entry->argv + kept);
	entry->peer = at;
	at = slowlog_copy(at, peer, strlen(peer) + 1);
	entry->name = at;
	at = slowlog_copy(at, session->name, name_bytes);
	for (uint32_t i = 0; i < kept; i++) {
		const char *start = at;
		at = slowlog_copy(at, pieces[i].data, pieces[i].bytes);
		at = slowlog_copy(at, pieces[i].more, strlen(pieces[i].more));
		entry->argv[i] = (struct resp_arg){ start, (size_t)(at - start) };
	}
	TAILQ_INSERT_HEAD(&slowlog->entries, entry, link);
	slowlog->count++;
	slowlog_trim(slowlog, count_max, SLOWLOG_TRIM_MAX);
}

void slowlog_trim(struct slowlog *slowlog, uint64_t count, uint64_t at_most)
{
	for (; slowlog->count > count && at_most > 0; at_most--) {
		struct slowlog_entry *oldest = TAILQ_LAST(&slowlog->entries, slowlog_entries);
		TAILQ_REMOVE(&slowlog->entries, oldest, link);
		slowlog->count--;
		free(oldest);
	}
}

// SPDX-License-Identifier: MIT
//
// SLOWLOG: the newest commands that took long.
#include "daemon/commands.h"

#define SLOWLOG_GET_DEFAULT 10

static void slowlog_reply_entry(struct session *session, const struct slowlog_entry *entry)
{
	reply_array(session, 6);
	reply_integer(session, (int64_t)entry->id);
	reply_integer(session, (int64_t)entry->time_s);
	reply_integer(session, (int64_t)entry->micros);
	reply_array(session, entry->argc);
	for (uint32_t i = 0; i < entry->argc; i++) {
		reply_bulk(session, entry->argv[i].data, entry->argv[i].bytes);
	}
	reply_text(session, entry->peer);
	reply_text(session, entry->name);
}

void commands_slowlog_get(struct call *call)
{
	static const char *const out_of_range = "ERR count should be greater than or equal to -1";
	const struct slowlog *slowlog = &call->kvd->stats->slowlog;
	int64_t wanted = SLOWLOG_GET_DEFAULT;
	if (call->argc > 3) {
		commands_error_subcommand(call);
		return;
	}
	if (call->argc == 3 && !commands_arg_int(call, &call->argv[2], &wanted, out_of_range)) {
		return;
	}
	if (wanted < -1) {
		commands_error(call, out_of_range);
		return;
	}
	uint64_t count = slowlog->count;
	count = wanted >= 0 && (uint64_t)wanted < count ? (uint64_t)wanted : count;
	reply_array(call->session, count);
	const struct slowlog_entry *entry = TAILQ_FIRST(&slowlog->entries);
	for (; count > 0; count--, entry = TAILQ_NEXT(entry, link)) {
		slowlog_reply_entry(call->session, entry);
	}
}

void commands_slowlog_len(struct call *call)
{
	reply_integer(call->session, (int64_t)call->kvd->stats->slowlog.count);
}

void commands_slowlog_reset(struct call *call)
{
	slowlog_trim(&call->kvd->stats->slowlog, 0);
	reply_ok(call->session);
}

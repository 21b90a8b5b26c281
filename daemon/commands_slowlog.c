// SPDX-License-Identifier: MIT
//
// SLOWLOG: the newest commands that took long.
#include "daemon/commands.h"

#define SLOWLOG_GET_DEFAULT 10
#define SLOWLOG_EVERY 32u // entries that go between two looks at the clock

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

/// How many entries are asked for. False: answered.
static bool slowlog_wanted(struct call *call, uint64_t *count)
{
	static const char *const out_of_range = "ERR count should be greater than or equal to -1";
	int64_t wanted = SLOWLOG_GET_DEFAULT;
	if (call->argc > 3) {
		commands_error_subcommand(call);
		return false;
	}
	if (call->argc == 3 && !commands_arg_int(call, &call->argv[2], &wanted, out_of_range)) {
		return false;
	}
	if (wanted < -1) {
		commands_error(call, out_of_range);
		return false;
	}
	*count = wanted < 0 ? UINT64_MAX : (uint64_t)wanted;
	return true;
}

/// Where a walk over the entries goes on. Only the oldest ever go: if there are some that are as
/// old, the next one is still there.
struct slowlog_walk {
	const struct slowlog_entry *next;
	uint64_t next_id;
	uint64_t mark;
	uint64_t told;
	bool begun;
};

static const struct slowlog_entry *slowlog_next(const struct slowlog *slowlog,
						const struct slowlog_walk *walk)
{
	const struct slowlog_entry *oldest = TAILQ_LAST(&slowlog->entries, slowlog_entries);
	bool there = walk->next && oldest && oldest->id <= walk->next_id;
	return there ? walk->next : NULL;
}

void commands_slowlog_get(struct call *call)
{
	const struct slowlog *slowlog = &call->kvd->stats->slowlog;
	uint64_t wanted;
	struct slowlog_walk *walk =
		slowlog_wanted(call, &wanted) ? commands_state(call, sizeof(*walk), NULL) : NULL;
	if (!walk) {
		return;
	}
	if (!walk->begun) {
		walk->begun = true;
		walk->next = TAILQ_FIRST(&slowlog->entries);
		walk->next_id = walk->next ? walk->next->id : 0;
		walk->mark = reply_deferred_begin(call->session);
	}
	const struct slowlog_entry *entry = slowlog_next(slowlog, walk);
	while (entry && walk->told < wanted) {
		slowlog_reply_entry(call->session, entry);
		walk->told++;
		entry = TAILQ_NEXT(entry, link);
		walk->next = entry;
		walk->next_id = entry ? entry->id : 0;
		if (commands_cut(call)) {
			return;
		}
	}
	reply_deferred_end(call->session, walk->mark, walk->told);
}

void commands_slowlog_len(struct call *call)
{
	reply_integer(call->session, (int64_t)call->kvd->stats->slowlog.count);
}

void commands_slowlog_reset(struct call *call)
{
	struct slowlog *slowlog = &call->kvd->stats->slowlog;
	struct commands_walk *walk = commands_walk(call);
	if (!walk) {
		return;
	}
	if (walk->phase == 0) {
		walk->phase = 1;
		walk->at = slowlog->next_id; // what is noted meanwhile stays
	}
	for (;;) {
		const struct slowlog_entry *oldest = TAILQ_LAST(&slowlog->entries, slowlog_entries);
		if (!oldest || oldest->id >= walk->at) {
			break;
		}
		bool look = oldest->id % SLOWLOG_EVERY == 0;
		slowlog_trim(slowlog, slowlog->count - 1, 1);
		if (look && commands_cut(call)) {
			return;
		}
	}
	reply_ok(call->session);
}

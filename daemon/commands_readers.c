// SPDX-License-Identifier: MIT
//
// KVD.READERS: who reads the region and who keeps memory from being used again, for administrators
// that look for the one that holds it up; and KICK, for when they have found him.
#include "daemon/commands.h"

#include <stdlib.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/readers.h"
#include "daemon/session_guard.h"

#define READERS_TOLD_MAX 512u // processes of one reply, those that hold back the most
#define READERS_EVERY 16u     // of them between two looks at the clock
#define READERS_FIELDS 12u

/// What is told, as of one moment, and how far the reply came.
struct readers_listing {
	struct readers_info *infos; // NULL = not begun
	size_t count;
	size_t at;
	struct readers_grace grace;
};

static void readers_listing_end(void *state)
{
	struct readers_listing *listing = state;
	free(listing->infos);
}

static void readers_number(struct session *session, const char *name, uint64_t value)
{
	reply_text(session, name);
	reply_integer(session, value > INT64_MAX ? INT64_MAX : (int64_t)value);
}

/// The fields that have to do with memory: what a section of that epoch holds back.
static void readers_reply_hold(struct call *call, const struct readers_grace *grace,
			       uint64_t age_ns, uint64_t epoch)
{
	uint64_t bytes = epoch > 0 ? keyspace_held_bytes(call->kvd->keyspace, epoch) : 0;
	uint64_t behind = epoch > 0 && epoch < grace->epoch ? grace->epoch - epoch : 0;
	readers_number(call->session, "age_us", age_ns / 1000);
	readers_number(call->session, "epochs_behind", behind);
	readers_number(call->session, "held_bytes", bytes);
}

static void readers_reply_one(struct call *call, const struct readers_grace *grace,
			      const struct readers_info *info)
{
	struct session *session = call->session;
	const char *state = info->id == 0 ? "kvd" : info->session_id ? "attached" : "detached";
	reply_map(session, READERS_FIELDS);
	readers_number(session, "id", info->id);
	reply_text(session, "pid");
	reply_integer(session, info->pid);
	readers_number(session, "uid", info->uid);
	reply_text(session, "name");
	reply_text(session, info->name);
	reply_text(session, "state");
	reply_text(session, state);
	readers_number(session, "pages", info->pages);
	readers_number(session, "open", info->open);
	readers_reply_hold(call, grace, info->age_ns, info->oldest_epoch);
	readers_number(session, "revoked", info->revoked);
	readers_number(session, "short_deadline", info->short_deadline);
}

/// Readers that attached to an earlier kvd, which had this region: their pages went with it.
static void readers_reply_earlier(struct call *call, const struct readers_grace *grace)
{
	struct session *session = call->session;
	reply_map(session, READERS_FIELDS);
	readers_number(session, "id", 0);
	reply_text(session, "pid");
	reply_integer(session, -1);
	reply_text(session, "uid");
	reply_integer(session, -1);
	reply_text(session, "name");
	reply_text(session, "");
	reply_text(session, "state");
	reply_text(session, "earlier");
	readers_number(session, "pages", 0);
	readers_number(session, "open", 0);
	readers_reply_hold(call, grace, grace->held_ns, grace->held_epoch);
	readers_number(session, "revoked", 0);
	readers_number(session, "short_deadline", 0);
}

static bool readers_listing_begin(struct call *call, struct readers_listing *listing)
{
	struct readers *readers = call->kvd->readers;
	uint64_t now_ns = call->kvd->seam->monotonic_ns();
	while (!readers_look(readers, now_ns)) {
		if (commands_cut(call)) {
			return false;
		}
	}
	listing->grace = readers_grace(readers, now_ns);
	listing->count = readers_list(readers, now_ns, READERS_TOLD_MAX, &listing->infos);
	if (!listing->infos) {
		commands_error(call, "ERR out of memory");
		return false;
	}
	const struct readers_grace *grace = &listing->grace;
	reply_map(call->session, 5);
	readers_number(call->session, "epoch", grace->epoch);
	readers_number(call->session, "oldest", grace->oldest);
	readers_number(call->session, "waiting_bytes", keyspace_held_bytes(call->kvd->keyspace, 0));
	readers_number(call->session, "attached", readers_count(readers));
	reply_text(call->session, "readers");
	reply_array(call->session, listing->count + grace->held);
	if (grace->held) {
		readers_reply_earlier(call, grace);
	}
	return true;
}

static void readers_tell(struct call *call)
{
	struct readers_listing *listing =
		commands_state(call, sizeof(*listing), readers_listing_end);
	if (!listing || (!listing->infos && !readers_listing_begin(call, listing))) {
		return;
	}
	while (listing->at < listing->count) {
		readers_reply_one(call, &listing->grace, &listing->infos[listing->at++]);
		if (listing->at % READERS_EVERY == 0 && commands_cut(call)) {
			return;
		}
	}
}

/// KVD.READERS KICK ID id|PID pid
static void readers_kick_one(struct call *call)
{
	struct readers_kicked kicked = { 0 };
	const struct session *by = call->session;
	int64_t number;
	bool by_id = call->argc == 4 && commands_arg_is(&call->argv[2], "id");
	bool by_pid = call->argc == 4 && commands_arg_is(&call->argv[2], "pid");
	if (!by_id && !by_pid) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	if (!commands_arg_int(call, &call->argv[3], &number, NULL)) {
		return;
	}
	if ((by_id && number == 0) || (by_pid && number == getpid())) {
		commands_error(call, "ERR KVD.READERS KICK: that is kvd itself, whose own sections "
				     "are short and are not taken back");
		return;
	}
	if (number <= 0 || (by_pid && number > INT32_MAX)) {
		commands_error(call, COMMANDS_TEXT_NOT_INTEGER);
		return;
	}
	kicked.id = by_id ? (uint64_t)number : 0;
	kicked.pid = by_pid ? (int32_t)number : 0;
	kicked.uid = by->uid;
	kicked.any_user = session_guard_may(call->session, ACCESS_ADMIN);
	if (!readers_kick(call->kvd->readers, &kicked, call->kvd->seam->monotonic_ns())) {
		commands_error(call, "ERR KVD.READERS KICK: the kernel refuses the barrier, or "
				     "memory is short: not done");
		return;
	}
	if (kicked.attachments > 0) {
		log_notice("%s %lld was kicked by client %llu (pid %d, uid %u): %zu attachments "
			   "ended, %zu open sections taken back",
			   by_id ? "reader" : "process", (long long)number,
			   (unsigned long long)by->id, (int)by->pid, (unsigned)by->uid,
			   kicked.attachments, kicked.revoked);
	}
	if (kicked.attachments == 0 && kicked.others > 0 &&
	    !commands_may_administer(call, "KVD.READERS KICK of another user's reader")) {
		return;
	}
	reply_array(call->session, 2);
	reply_integer(call->session, (int64_t)kicked.attachments);
	reply_integer(call->session, (int64_t)kicked.revoked);
}

void commands_readers_readers(struct call *call)
{
	if (!call->kvd->readers) {
		commands_error(call, "ERR KVD.READERS: nobody can attach to this kvd");
	} else if (call->argc == 1) {
		readers_tell(call);
	} else if (commands_arg_is(&call->argv[1], "kick")) {
		readers_kick_one(call);
	} else {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
	}
}

// SPDX-License-Identifier: MIT
//
// CLIENT as far as it changes something: who is closed, who waits, who is answered; and RESET.
#include "daemon/commands.h"

#include <stdio.h>

#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/pubsub.h"
#include "daemon/session_guard.h"
#include "daemon/session_rest.h"
#include "daemon/tracking.h"

// ---- KILL ----

#define KILL_OPTIONS_EVERY 32u // words between two looks at the clock

enum kill_type { KILL_ANY, KILL_NORMAL, KILL_PUBSUB, KILL_NOBODY };

/// Whom CLIENT KILL means: all that is given must hold.
struct kill_filter {
	const struct resp_arg *addr; // NULL = not given, as the next
	const struct resp_arg *laddr;
	uint64_t id; // 0 = not given
	enum kill_type type;
	bool skip_me;
};

static bool kill_option_type(struct call *call, const struct resp_arg *arg,
			     struct kill_filter *filter)
{
	static const struct {
		const char *name;
		enum kill_type type;
	} types[] = { { "normal", KILL_NORMAL },
		      { "pubsub", KILL_PUBSUB },
		      { "master", KILL_NOBODY },
		      { "slave", KILL_NOBODY },
		      { "replica", KILL_NOBODY } };
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (commands_arg_is(arg, types[i].name)) {
			filter->type = types[i].type;
			return true;
		}
	}
	char name[COMMANDS_EXCERPT_BYTES];
	commands_errorf(call, "ERR Unknown client type '%s'", commands_excerpt(arg, name));
	return false;
}

/// One pair of the new form. False: answered.
static bool kill_option(struct call *call, const struct resp_arg *word,
			const struct resp_arg *value, struct kill_filter *filter)
{
	static const char *const bad_id = "ERR client-id should be greater than 0";
	char name[COMMANDS_EXCERPT_BYTES];
	int64_t id;
	if (commands_arg_is(word, "id")) {
		if (!commands_arg_int(call, value, &id, bad_id)) {
			return false;
		}
		if (id < 1) {
			commands_error(call, bad_id);
			return false;
		}
		filter->id = (uint64_t)id;
		return true;
	}
	if (commands_arg_is(word, "type")) {
		return kill_option_type(call, value, filter);
	}
	if (commands_arg_is(word, "addr")) {
		filter->addr = value;
		return true;
	}
	if (commands_arg_is(word, "laddr")) {
		filter->laddr = value;
		return true;
	}
	if (commands_arg_is(word, "user")) {
		if (value->bytes == 7 && memcmp(value->data, "default", 7) == 0) {
			return true; // who else
		}
		commands_errorf(call, "ERR No such user '%s'", commands_excerpt(value, name));
		return false;
	}
	if (commands_arg_is(word, "skipme") &&
	    (commands_arg_is(value, "yes") || commands_arg_is(value, "no"))) {
		filter->skip_me = commands_arg_is(value, "yes");
		return true;
	}
	commands_error(call, COMMANDS_TEXT_SYNTAX);
	return false;
}

static bool kill_matches(const struct session *session, const struct kill_filter *filter)
{
	char address[KVS_SOCKET_PATH_BYTES_MAX + 8];
	int bytes = snprintf(address, sizeof(address), "%s:0", listener_path(session->listener));
	const struct resp_arg *wanted[] = { filter->addr, filter->laddr };
	for (size_t i = 0; i < 2; i++) {
		if (wanted[i] && (wanted[i]->bytes != (size_t)bytes ||
				  memcmp(wanted[i]->data, address, (size_t)bytes) != 0)) {
			return false;
		}
	}
	bool typed = filter->type == KILL_ANY ||
		     (filter->type == KILL_NORMAL && !session->pubsub) ||
		     (filter->type == KILL_PUBSUB && session->pubsub);
	return typed && (filter->id == 0 || session->id == filter->id);
}

/// Filters are read, then connections closed, both in slices.
struct kill_work {
	struct kill_filter filter;
	struct session_walk walk;
	uint32_t arg; // next of the new form's, 0 = nothing was done yet
	int64_t killed;
	uint64_t others; // of other users, which are not this one's to close
	bool me;
};

static void kill_end(void *state)
{
	struct kill_work *work = state;
	session_walk_end(&work->walk);
}

/// Reads the pairs of the new form. False: cut, or answered.
static bool kill_options(struct call *call, struct kill_work *work)
{
	for (; work->arg < call->argc; work->arg += 2) {
		uint32_t i = work->arg;
		if (i % KILL_OPTIONS_EVERY == 0 && commands_cut(call)) {
			return false;
		}
		if (i + 1 == call->argc) {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
		if (!kill_option(call, &call->argv[i], &call->argv[i + 1], &work->filter)) {
			return false;
		}
	}
	return true;
}

/// Closes whom the filter means. False: cut.
static bool kill_sessions(struct call *call, struct kill_work *work)
{
	for (;;) {
		if (commands_cut(call)) {
			return false;
		}
		struct session *session = session_walk_next(call->session->shared, &work->walk);
		if (!session) {
			return true;
		}
		bool self = session == call->session;
		bool same_user = session->uid == call->session->uid;
		if (!kill_matches(session, &work->filter) || (self && work->filter.skip_me)) {
			continue;
		}
		if (!same_user && !session_guard_may(call->session, ACCESS_ADMIN)) {
			work->others++;
			continue;
		}
		work->killed++;
		if (self) {
			work->me = true; // when it has its answer
		} else {
			session_kill(session, "CLIENT KILL");
		}
	}
}

void commands_client_kill(struct call *call)
{
	struct kill_work *work = commands_state(call, sizeof(*work), kill_end);
	bool old_form = call->argc == 3;
	if (!work) {
		return;
	}
	if (work->arg == 0) {
		work->arg = old_form ? 3 : 2;
		work->filter.skip_me = !old_form;
		work->filter.addr = old_form ? &call->argv[2] : NULL;
	}
	if (!kill_options(call, work) || !kill_sessions(call, work)) {
		return;
	}
	if (work->killed == 0 && work->others > 0 &&
	    !commands_may_administer(call, "CLIENT KILL of another user's connections")) {
		return;
	}
	if (!old_form) {
		reply_integer(call->session, work->killed);
	} else if (work->killed > 0) {
		reply_ok(call->session);
	} else {
		commands_error(call, "ERR No such client");
	}
	call->session->close_after_reply = call->session->close_after_reply || work->me;
}

// ---- PAUSE ----

void commands_client_pause(struct call *call)
{
	int64_t wait_ms;
	bool all = call->argc == 3 || commands_arg_is(&call->argv[3], "all");
	if (call->argc > 4) {
		commands_error_subcommand(call);
		return;
	}
	if (!all && !commands_arg_is(&call->argv[3], "write")) {
		commands_error(call, "ERR CLIENT PAUSE mode must be WRITE or ALL");
		return;
	}
	if (!commands_arg_int(call, &call->argv[2], &wait_ms,
			      "ERR timeout is not an integer or out of range")) {
		return;
	}
	if (wait_ms < 0) {
		commands_error(call, "ERR timeout is negative");
		return;
	}
	uint64_t now_ns = call->kvd->seam->monotonic_ns();
	uint64_t most_ms = (UINT64_MAX - 1 - now_ns) / 1000000;
	uint64_t ms = (uint64_t)wait_ms < most_ms ? (uint64_t)wait_ms : most_ms;
	log_notice("%s wait for %llu ms: CLIENT PAUSE by client %llu (pid %d, uid %u)",
		   all ? "all commands" : "writes", (unsigned long long)ms,
		   (unsigned long long)call->session->id, (int)call->session->pid,
		   (unsigned)call->session->uid);
	session_pause(call->kvd, now_ns + ms * 1000000, all);
	reply_ok(call->session);
}

void commands_client_unpause(struct call *call)
{
	session_unpause(call->kvd);
	reply_ok(call->session);
}

void commands_client_unblock(struct call *call)
{
	int64_t id;
	if (call->argc > 4) {
		commands_error_subcommand(call);
		return;
	}
	if (call->argc == 4 && !commands_arg_is(&call->argv[3], "timeout") &&
	    !commands_arg_is(&call->argv[3], "error")) {
		commands_error(call, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
		return;
	}
	if (commands_arg_int(call, &call->argv[2], &id, NULL)) {
		reply_integer(call->session, 0); // no command of kvd blocks
	}
}

// ---- what a connection wants for itself ----

void commands_client_reply(struct call *call)
{
	const struct resp_arg *mode = &call->argv[2];
	bool on = commands_arg_is(mode, "on");
	if (on) {
		session_set_reply_mode(call->session, SESSION_REPLY_ON);
	} else if (commands_arg_is(mode, "off")) {
		session_set_reply_mode(call->session, SESSION_REPLY_OFF);
	} else if (commands_arg_is(mode, "skip")) {
		session_set_reply_mode(call->session, SESSION_REPLY_SKIP);
	} else {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	if (on || call->in_exec) {
		reply_ok(call->session); // EXEC's array has its place for it
	}
}

void commands_client_no_evict(struct call *call)
{
	const struct resp_arg *word = &call->argv[2];
	if (!commands_arg_is(word, "on") && !commands_arg_is(word, "off")) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	call->session->no_evict = commands_arg_is(word, "on");
	reply_ok(call->session);
}

void commands_connection_reset(struct call *call)
{
	struct session *session = call->session;
	tracking_leave(session);
	pubsub_leave(session);
	session_multi_reset(session);
	if (!session->reply_skip) { // that is for the answer to this command
		session_set_reply_mode(session, SESSION_REPLY_ON);
	}
	session->resp_version = 2;
	session->name[0] = 0;
	session->no_evict = false;
	session->policy = (enum persist_policy)call->kvd->config.persist_policy;
	reply_status(session, "RESET");
}

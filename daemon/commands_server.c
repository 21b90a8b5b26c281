// SPDX-License-Identifier: MIT
//
// What clients ask every server: its role, when it last saved. kvd is alone, has one database, and
// saves by committing.
#include "daemon/commands.h"

#include "daemon/persist.h"

// ---- saving ----

void commands_server_lastsave(struct call *call)
{
	reply_integer(call->session, (int64_t)(call->kvd->durable_wall_ms / 1000));
}

/// Is there anything to save to? False: answered.
static bool server_persists(struct call *call)
{
	if (!call->kvd->persist) {
		commands_error(call, "ERR this kvd keeps nothing on disk (--persist memory)");
		return false;
	}
	return true;
}

void commands_server_save(struct call *call)
{
	if (server_persists(call)) {
		session_hold_until(call->session, keyspace_last_seq(call->kvd->keyspace));
		reply_ok(call->session);
	}
}

void commands_server_bgsave(struct call *call)
{
	struct kvd *kvd = call->kvd;
	if (call->argc > 2 || (call->argc == 2 && !commands_arg_is(&call->argv[1], "schedule"))) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	if (!server_persists(call)) {
		return;
	}
	uint64_t last = keyspace_last_seq(kvd->keyspace);
	if (keyspace_durable_seq(kvd->keyspace) >= last) {
		kvd->durable_wall_ms = kvd->seam->wall_ms(); // all there is, as of now
	} else {
		persist_request(kvd->persist, last);
	}
	reply_status(call->session,
		     call->in_exec ? "Background saving scheduled" : "Background saving started");
}

void commands_server_bgrewriteaof(struct call *call)
{
	commands_error(call, "ERR kvd has no append only file: its store is compacted all the "
			     "time");
}

// ---- alone ----

void commands_server_role(struct call *call)
{
	reply_array(call->session, 3);
	reply_text(call->session, "master");
	reply_integer(call->session, 0);
	reply_array(call->session, 0);
}

void commands_server_wait(struct call *call)
{
	int64_t replicas;
	int64_t timeout_ms;
	if (!commands_arg_int(call, &call->argv[1], &replicas, NULL) ||
	    !commands_arg_int(call, &call->argv[2], &timeout_ms,
			      "ERR timeout is not an integer or out of range")) {
		return;
	}
	if (timeout_ms < 0) {
		commands_error(call, "ERR timeout is negative");
		return;
	}
	reply_integer(call->session, 0); // there are none, and waiting brings none
}

// ---- one database ----

/// A database's number, as far as it is one. False: answered with `text`.
static bool server_arg_database(struct call *call, uint32_t index, int64_t *database,
				const char *text)
{
	if (!commands_arg_int(call, &call->argv[index], database, text)) {
		return false;
	}
	if (*database < INT32_MIN || *database > INT32_MAX) {
		commands_error(call, text ? text
					  : "ERR value is out of range, value must between "
					    "-2147483648 and 2147483647");
		return false;
	}
	return true;
}

void commands_server_swapdb(struct call *call)
{
	int64_t a;
	int64_t b;
	if (!server_arg_database(call, 1, &a, "ERR invalid first DB index") ||
	    !server_arg_database(call, 2, &b, "ERR invalid second DB index")) {
		return;
	}
	if (a != 0 || b != 0) {
		commands_error(call, "ERR DB index is out of range");
		return;
	}
	reply_ok(call->session);
}

void commands_server_move(struct call *call)
{
	int64_t database;
	if (!server_arg_database(call, 2, &database, NULL)) {
		return;
	}
	commands_error(call, database == 0 ? "ERR source and destination objects are the same"
					   : "ERR DB index is out of range");
}

void commands_server_lolwut(struct call *call)
{
	static const char art[] = "   o----o\n"
				  "  /|   /|     writers append,\n"
				  " o----o |     readers look\n"
				  " | o--|-o\n"
				  " |/   |/      kvd ver. " KVD_VERSION "\n"
				  " o----o\n";
	reply_verbatim(call->session, art, sizeof(art) - 1);
}

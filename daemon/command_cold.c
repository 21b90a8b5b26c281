// SPDX-License-Identifier: MIT
//
// Values that are in the store alone. A command that meets one is not answered: what it did is
// taken back, which is its reply and what it told, for writes were refused from then on, and it is
// run again when the values are there. Of an EXEC that is all of it. Where a value cannot be had,
// for want of memory too, the command that met it is answered with the error; inside an EXEC it
// alone, as with any that fails while it runs: the others go on, as in Redis, and as beside a
// damaged key.
#include "daemon/commands.h"
#include "daemon/session_fetch.h"

#define COLD_TEXT_BYTES 768

void commands_met_cold(struct call *call)
{
	struct session *session = call->session;
	char text[COLD_TEXT_BYTES];
	keyspace_cold_over(call->kvd->keyspace);
	call->again = false;
	call->failed = false;
	if (call->mark < session->output_position) {
		session_kill(session, "part of its reply is sent, and a value is to be fetched");
		return;
	}
	commands_reply_rewind(session, call->mark);
	events_rewind(call->kvd, call->events_mark);
	call->refused = 0;
	if (session_fetch_failed(session, text, sizeof(text))) {
		bool is_exec = commands_index(call->command) == COMMANDS_ROW_exec;
		(is_exec ? commands_reject : commands_error)(call, text);
		return;
	}
	call->refused = KEYSPACE_COLD;
}

void commands_met(struct call *call)
{
	// First, for the command is run again whatever else it met.
	if ((call->kvd->damage.met & KEYSPACE_MET_COLD) != 0) {
		commands_met_cold(call);
	}
	if ((call->kvd->damage.met & KEYSPACE_MET_DAMAGE) != 0) {
		commands_met_damage(call);
	}
}

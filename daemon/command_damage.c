// SPDX-License-Identifier: MIT
//
// Keys that cannot be read. What nobody can read is not absent: who names such a key is told so,
// whatever the command made of it, and finds out at once, not when the data is missed.
#include <stdio.h>

#include "daemon/commands.h"
#include "daemon/session.h"

#define DAMAGE_KEY_BYTES 128 // of one that an error names
#define DAMAGE_TEXT_BYTES (DAMAGE_KEY_BYTES + 192)

static const char *damage_text(const struct call *call, char text[DAMAGE_TEXT_BYTES])
{
	const struct keyspace_damage *damage = &call->kvd->damage;
	int bytes =
		damage->key_bytes < DAMAGE_KEY_BYTES ? (int)damage->key_bytes : DAMAGE_KEY_BYTES;
	(void)snprintf(text, DAMAGE_TEXT_BYTES,
		       "DAMAGED the record of '%.*s' in memory cannot be read: kvctl verify tells "
		       "more; what is durable comes back with a restart of kvd",
		       bytes, (const char *)damage->key);
	return text;
}

void commands_reject_damaged(struct call *call)
{
	char text[DAMAGE_TEXT_BYTES];
	commands_reject(call, damage_text(call, text));
}

void commands_met_damage(struct call *call)
{
	char text[DAMAGE_TEXT_BYTES];
	call->kvd->damage.met = 0;
	call->again = false; // what it would still find changes nothing
	if (call->refused) {
		return;
	}
	if (call->mark < call->session->output_position) {
		session_kill(call->session, "part of its reply is sent, and a key cannot be read");
		return;
	}
	commands_reply_rewind(call->session, call->mark);
	commands_error(call, damage_text(call, text));
}

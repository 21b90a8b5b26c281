// SPDX-License-Identifier: MIT
//
// Before a command that not everybody may run, or not as fast as he likes: rights and write quotas
// of its user. Asked only where something is restricted; see session_guard.h.
#include "daemon/commands.h"

#include <stdio.h>

#include "daemon/keyspace.h"
#include "daemon/keyspace_cold.h"
#include "daemon/refuse.h"
#include "daemon/session_guard.h"

#define GUARD_TEXT_BYTES 320u
#define GUARD_MUCH_PART 64u // of the memory is worth telling who holds it

struct guard_right {
	uint32_t flag;
	enum access_right right;
	enum refusal refusal;
	const char *verb;
	const char *besides; // what works without it
};

static const struct guard_right guard_rights[] = {
	{ COMMAND_NEEDS_ATTACH, ACCESS_ATTACH, REFUSAL_ATTACH_RIGHT, "attach",
	  "; reads through the socket work" },
	{ COMMAND_NEEDS_WRITE, ACCESS_WRITE, REFUSAL_RIGHT, "write", "" },
	{ COMMAND_NEEDS_ADMIN, ACCESS_ADMIN, REFUSAL_RIGHT, "administer", "" },
};
#define GUARD_RIGHTS (sizeof(guard_rights) / sizeof(guard_rights[0]))

const char *commands_right(const struct command *command)
{
	for (size_t i = 0; i < GUARD_RIGHTS; i++) {
		if (command->flags & guard_rights[i].flag) {
			return guard_rights[i].verb;
		}
	}
	return command->flags & COMMAND_NEEDS_ADMIN_OTHERS
		       ? "administer, for what is another user's"
		       : NULL;
}

/// Flags of the command, or of all that EXEC would run. *removes: it writes, but only removes.
static uint32_t guard_flags(const struct call *call, bool *removes)
{
	const struct session_multi *multi = &call->session->multi;
	uint32_t flags = call->command->flags;
	bool grows = (flags & COMMAND_WRITE) && !(flags & COMMAND_REMOVES);
	bool exec = commands_index(call->command) == COMMANDS_ROW_exec;
	for (uint32_t i = 0; exec && i < multi->count; i++) {
		uint32_t queued = multi->queued[i].command->flags;
		flags |= queued;
		grows |= (queued & COMMAND_WRITE) && !(queued & COMMAND_REMOVES);
	}
	*removes = !grows;
	return flags;
}

/// The right that is missing, NULL = none.
static const struct guard_right *guard_missing(const struct session *session, uint32_t flags)
{
	for (size_t i = 0; i < GUARD_RIGHTS; i++) {
		if ((flags & guard_rights[i].flag) && !(session->rights & guard_rights[i].right)) {
			return &guard_rights[i];
		}
	}
	return NULL;
}

bool commands_may_administer(struct call *call, const char *what)
{
	struct session *session = call->session;
	if (session_guard_may(session, ACCESS_ADMIN)) {
		return true;
	}
	refuse(session, REFUSAL_RIGHT,
	       "%s needs the right to administer: add user:%u to allow-admin", what,
	       (unsigned)session->uid);
	commands_errorf(call,
			"NOPERM %s needs the right to administer, which uid %u has not: add "
			"user:%u to allow-admin, or ask root",
			what, (unsigned)session->uid, (unsigned)session->uid);
	return false;
}

static void guard_refuse(struct call *call, const struct guard_right *missing)
{
	char text[GUARD_TEXT_BYTES];
	const struct session *session = call->session;
	const char *option = session_guard_option(missing->right);
	refuse(session, missing->refusal, "'%s' needs the right to %s: add user:%u to %s",
	       call->command->name, missing->verb, (unsigned)session->uid, option);
	(void)snprintf(text, sizeof(text),
		       "NOPERM this user has no permissions to run the '%s' command: it needs the "
		       "right to %s, which uid %u has not; add user:%u to %s, or ask root%s",
		       call->command->name, missing->verb, (unsigned)session->uid,
		       (unsigned)session->uid, option, missing->besides);
	commands_reject(call, text);
}

void commands_reject_stored(struct call *call)
{
	char text[GUARD_TEXT_BYTES];
	const struct session *session = call->session;
	struct keyspace_owned owned = keyspace_owned(call->kvd->keyspace, session->writer.index);
	(void)snprintf(text, sizeof(text),
		       "uid %u owns %llu bytes of records and may own %llu (quota-stored-bytes): "
		       "remove keys, or raise that, or name the user in quota-exempt",
		       (unsigned)session->uid, (unsigned long long)owned.bytes,
		       (unsigned long long)session->writer.quota_bytes);
	refuse(session, REFUSAL_STORED, "%s", text);
	char line[GUARD_TEXT_BYTES + 32];
	(void)snprintf(line, sizeof(line), "OOM command not allowed: %s", text);
	commands_reject(call, line);
}

/// Why there is no memory, and the remedy.
static void guard_memory_text(struct kvd *kvd, char *text, size_t text_bytes)
{
	const struct config *config = &kvd->config;
	const struct keyspace *keyspace = kvd->keyspace;
	uint64_t used = keyspace_used_bytes(keyspace);
	uint64_t readers = keyspace_held_bytes(keyspace, 0);
	uint64_t replies = keyspace_orphaned_bytes(keyspace);
	uint64_t much = config_memory_bytes(config) / GUARD_MUCH_PART;
	if (config_is_bounded(config) && used > config->maxmemory_bytes) {
		(void)snprintf(text, text_bytes,
			       "%llu bytes are in use, maxmemory is %llu: raise it (CONFIG SET "
			       "maxmemory), or remove keys",
			       (unsigned long long)used,
			       (unsigned long long)config->maxmemory_bytes);
	} else if (keyspace_waits_for_store(keyspace)) {
		(void)snprintf(text, text_bytes,
			       "what was written waits for the store: its disk is slow, full or "
			       "broken (kvctl health), or write-wait too short");
	} else if (readers > much) {
		(void)snprintf(
			text, text_bytes,
			"%llu bytes wait for readers to end their views: kvctl readers names "
			"them, or lower revoke, or raise write-wait",
			(unsigned long long)readers);
	} else if (replies > much) {
		(void)snprintf(text, text_bytes,
			       "%llu bytes are kept by replies that clients do not read (kvctl "
			       "clients), or raise memory",
			       (unsigned long long)replies);
	} else if (config->when_full == CONFIG_WHEN_FULL_SPILL) {
		(void)snprintf(text, text_bytes,
			       "all %llu bytes are in use, though %llu of %llu values are in the "
			       "store alone: for what has to stay, remove keys, or %s",
			       (unsigned long long)config_memory_bytes(config),
			       (unsigned long long)keyspace_count_stubs(keyspace),
			       (unsigned long long)keyspace_count(keyspace),
			       config_memory_bytes(config) < config->memory_max_bytes
				       ? "raise maxmemory (CONFIG SET maxmemory)"
				       : "start kvd with more memory");
	} else {
		(void)snprintf(text, text_bytes,
			       "all %llu bytes are in use: remove keys, let them expire, or %s",
			       (unsigned long long)config_memory_bytes(config),
			       config_memory_bytes(config) < config->memory_max_bytes
				       ? "raise maxmemory (CONFIG SET maxmemory)"
				       : "start kvd with more memory");
	}
}

void commands_reject_memory(struct call *call)
{
	char text[GUARD_TEXT_BYTES];
	char line[GUARD_TEXT_BYTES + sizeof(COMMANDS_TEXT_OOM) + 2];
	guard_memory_text(call->kvd, text, sizeof(text));
	refuse(call->session, REFUSAL_MEMORY, "%s", text);
	(void)snprintf(line, sizeof(line), "%s %s", COMMANDS_TEXT_OOM, text);
	commands_reject(call, line);
}

void commands_reject_crowded(struct call *call)
{
	char text[GUARD_TEXT_BYTES];
	const struct session *session = call->session;
	refuse(session, REFUSAL_CROWDED,
	       "too many keys collide with its new key; keys that are not trusted want hash = "
	       "siphash");
	(void)snprintf(
		text, sizeof(text),
		"ERR too many keys collide with a new key of uid %u: it is refused until the "
		"table is rebuilt, at most once in reseed-interval (%llu ms)",
		(unsigned)session->uid, (unsigned long long)call->kvd->config.reseed_ms);
	commands_reject(call, text);
}

bool commands_guard(struct call *call, enum command_outcome *outcome)
{
	bool removes;
	struct session *session = call->session;
	if (session->guarded == SESSION_GUARDED_ANEW) {
		session_guard_look(session);
	}
	uint32_t flags = guard_flags(call, &removes);
	const struct guard_right *missing = guard_missing(session, flags);
	if (missing) {
		*outcome = COMMAND_DONE;
		session->commands_count++;
		guard_refuse(call, missing);
		return false;
	}
	bool queues = session->multi.active && !(call->command->flags & COMMAND_NO_QUEUE);
	if ((flags & COMMAND_WRITE) && !queues) {
		session_guard_writer(session);
		*outcome = COMMAND_THROTTLE;
		return removes || !session_guard_must_wait(session);
	}
	return true;
}

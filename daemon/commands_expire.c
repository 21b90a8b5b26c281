// SPDX-License-Identifier: MIT
//
// Times to live. A time that has passed removes the key at once, as DEL would.
#include "daemon/commands.h"

enum expire_flags {
	EXPIRE_NX = 1 << 0,
	EXPIRE_XX = 1 << 1,
	EXPIRE_GT = 1 << 2,
	EXPIRE_LT = 1 << 3,
};

static bool expire_parse(struct call *call, unsigned *flags)
{
	static const char *const words[] = { "nx", "xx", "gt", "lt" };
	for (uint32_t i = 3; i < call->argc; i++) {
		unsigned k = 0;
		while (k < 4 && !commands_arg_is(&call->argv[i], words[k])) {
			k++;
		}
		if (k == 4) {
			char option[COMMANDS_EXCERPT_BYTES];
			commands_errorf(call, "ERR Unsupported option %s",
					commands_excerpt(&call->argv[i], option));
			return false;
		}
		*flags |= 1u << k;
	}
	if (*flags & EXPIRE_NX && *flags & (EXPIRE_XX | EXPIRE_GT | EXPIRE_LT)) {
		commands_error(call, "ERR NX and XX, GT or LT options at the same time are not "
				     "compatible");
		return false;
	}
	if (*flags & EXPIRE_GT && *flags & EXPIRE_LT) {
		commands_error(call, "ERR GT and LT options at the same time are not compatible");
		return false;
	}
	return true;
}

/// Does the condition hold for a key that ends at `current_ms` (0 = never) and shall end at
/// `when_ms`?
static bool expire_applies(unsigned flags, uint64_t current_ms, int64_t when_ms)
{
	int64_t current = (int64_t)current_ms;
	if (flags & EXPIRE_NX && current) {
		return false;
	}
	if (flags & EXPIRE_XX && !current) {
		return false;
	}
	if (flags & EXPIRE_GT && (!current || when_ms <= current)) {
		return false; // no expiry counts as infinitely late
	}
	return !(flags & EXPIRE_LT && current && when_ms >= current);
}

/// The argument as an absolute time in ms; it may lie in the past or before 1970.
static bool expire_when(struct call *call, bool seconds, bool relative, int64_t *when_ms)
{
	int64_t when;
	if (!commands_arg_int(call, &call->argv[2], &when, NULL)) {
		return false;
	}
	int64_t now_ms = relative ? (int64_t)keyspace_now_ms(call->kvd->keyspace) : 0;
	if ((seconds && __builtin_mul_overflow(when, 1000, &when)) || when > INT64_MAX - now_ms) {
		commands_errorf(call, "ERR invalid expire time in '%s' command",
				call->command->name);
		return false;
	}
	*when_ms = when + now_ms;
	return true;
}

static void expire_set(struct call *call, bool seconds, bool relative)
{
	struct keyspace *keyspace = call->kvd->keyspace;
	const struct resp_arg *key = &call->argv[1];
	unsigned flags = 0;
	int64_t when_ms;
	struct keyspace_value value;
	if (!expire_parse(call, &flags) || !expire_when(call, seconds, relative, &when_ms)) {
		return;
	}
	if (!commands_stat(call, 1, &value) || !expire_applies(flags, value.expiry_ms, when_ms)) {
		reply_integer(call->session, 0);
		return;
	}
	bool over = when_ms <= (int64_t)keyspace_now_ms(keyspace);
	int result = over ? keyspace_delete(keyspace, key->data, key->bytes)
			  : keyspace_expire(keyspace, key->data, key->bytes, (uint64_t)when_ms);
	if (commands_wrote(call, result, 0)) {
		commands_event(call, 1, EVENT_GENERIC, over ? "del" : "expire");
		reply_integer(call->session, 1);
	}
}

void commands_expire_expire(struct call *call)
{
	expire_set(call, true, true);
}

void commands_expire_pexpire(struct call *call)
{
	expire_set(call, false, true);
}

void commands_expire_expireat(struct call *call)
{
	expire_set(call, true, false);
}

void commands_expire_pexpireat(struct call *call)
{
	expire_set(call, false, false);
}

void commands_expire_persist(struct call *call)
{
	const struct resp_arg *key = &call->argv[1];
	struct keyspace_value value;
	if (!commands_stat(call, 1, &value) || !value.expiry_ms) {
		reply_integer(call->session, 0);
		return;
	}
	if (commands_wrote(call, keyspace_expire(call->kvd->keyspace, key->data, key->bytes, 0),
			   0)) {
		commands_event(call, 1, EVENT_GENERIC, "persist");
		reply_integer(call->session, 1);
	}
}

/// When the key ends, from now or from 1970.
static void expire_reply(struct call *call, bool seconds, bool relative)
{
	struct keyspace_value value;
	if (!commands_look(call, 1, &value)) {
		reply_integer(call->session, -2);
	} else if (!value.expiry_ms) {
		reply_integer(call->session, -1);
	} else {
		int64_t now_ms = relative ? (int64_t)keyspace_now_ms(call->kvd->keyspace) : 0;
		int64_t time_ms = (int64_t)value.expiry_ms - now_ms;
		time_ms = time_ms < 0 ? 0 : time_ms;
		reply_integer(call->session, seconds ? (time_ms + 500) / 1000 : time_ms);
	}
}

void commands_expire_ttl(struct call *call)
{
	expire_reply(call, true, true);
}

void commands_expire_pttl(struct call *call)
{
	expire_reply(call, false, true);
}

void commands_expire_expiretime(struct call *call)
{
	expire_reply(call, true, false);
}

void commands_expire_pexpiretime(struct call *call)
{
	expire_reply(call, false, false);
}

// SPDX-License-Identifier: MIT
//
// kvd's own verbs: attaching to the region, versions and compare-and-set, durability.
#include "daemon/commands.h"

#include "daemon/persist.h"
#include "daemon/readers.h"
#include "daemon/text.h"

#define KVD_STATS_BYTES_MAX (1u << 20)

void commands_kvd_attach(struct call *call)
{
	bool page_only = call->argc == 2 && commands_arg_is(&call->argv[1], "page");
	if (call->argc > 2 || (call->argc == 2 && !page_only)) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	readers_attach(call->kvd, call->session, page_only);
}

/// What KVD.SET and KVD.CAS were told.
struct kvd_write {
	bool if_absent;
	bool if_present;
	bool if_version;
	bool keep_ttl;
	bool has_expiry;
	int64_t version;
	uint64_t expiry_ms;
};

static bool kvd_arg_version(struct call *call, const struct resp_arg *arg, int64_t *version)
{
	if (resp_parse_int(arg->data, arg->bytes, version) && *version >= 0) {
		return true;
	}
	commands_error(call, "ERR version is not a number, or negative");
	return false;
}

/// One option at argv[*i], which moves over its value. False: answered.
static bool kvd_option(struct call *call, uint32_t *i, struct kvd_write *write)
{
	const struct resp_arg *word = &call->argv[*i];
	bool more = *i + 1 < call->argc;
	bool condition = write->if_absent || write->if_present || write->if_version;
	if (commands_arg_is(word, "px") && more && !write->keep_ttl && !write->has_expiry) {
		write->has_expiry = true;
		return commands_arg_expiry(call, &call->argv[++*i], false, true, &write->expiry_ms);
	}
	if (call->command->run == commands_kvd_set) {
		if (commands_arg_is(word, "nx") && !condition) {
			return write->if_absent = true;
		}
		if (commands_arg_is(word, "xx") && !condition) {
			return write->if_present = true;
		}
		if (commands_arg_is(word, "ifversion") && !condition && more) {
			write->if_version = true;
			return kvd_arg_version(call, &call->argv[++*i], &write->version);
		}
		if (commands_arg_is(word, "keepttl") && !write->has_expiry) {
			return write->keep_ttl = true;
		}
	}
	commands_error(call, COMMANDS_TEXT_SYNTAX);
	return false;
}

static void kvd_write(struct call *call, struct kvd_write *write, uint32_t first_option,
		      uint32_t value_index)
{
	for (uint32_t i = first_option; i < call->argc; i++) {
		if (!kvd_option(call, &i, write)) {
			return;
		}
	}
	struct keyspace_value old = { 0 };
	bool found = false;
	if (write->if_absent || write->if_present || write->if_version || write->keep_ttl) {
		found = commands_stat(call, 1, &old);
	}
	bool applies = !(write->if_absent && found) && !(write->if_present && !found) &&
		       !(write->if_version && (found ? old.seq : 0) != (uint64_t)write->version);
	if (!applies) {
		reply_null(call->session);
		return;
	}
	uint64_t seq = 0;
	uint64_t expiry_ms = write->keep_ttl && found ? old.expiry_ms : write->expiry_ms;
	if (commands_store(call, 1, value_index, expiry_ms, &seq)) {
		commands_event_set(call, 1, write->has_expiry);
		reply_integer(call->session, (int64_t)seq);
	}
}

void commands_kvd_set(struct call *call)
{
	struct kvd_write write = { 0 };
	kvd_write(call, &write, 3, 2);
}

void commands_kvd_cas(struct call *call)
{
	struct kvd_write write = { .if_version = true };
	if (kvd_arg_version(call, &call->argv[2], &write.version)) {
		kvd_write(call, &write, 4, 3);
	}
}

void commands_kvd_getv(struct call *call)
{
	struct keyspace_value value;
	if (!commands_lookup(call, 1, &value)) {
		reply_null(call->session);
		return;
	}
	int64_t left_ms = -1;
	if (value.expiry_ms) {
		left_ms = (int64_t)(value.expiry_ms - keyspace_now_ms(call->kvd->keyspace));
		left_ms = left_ms < 0 ? 0 : left_ms;
	}
	reply_array(call->session, 4);
	reply_bulk(call->session, value.value, value.value_bytes);
	reply_integer(call->session, (int64_t)value.seq);
	reply_integer(call->session, left_ms);
	reply_integer(call->session, (int64_t)value.time_ms);
}

void commands_kvd_sync(struct call *call)
{
	uint64_t seq = call->session->last_write_seq;
	const char *why = NULL;
	if (call->kvd->persist && seq > keyspace_durable_seq(call->kvd->keyspace) &&
	    seq <= persist_failed_seq(call->kvd->persist) &&
	    persist_degraded(call->kvd->persist, &why)) {
		// The commit that covers it has failed already: no need to wait for the next.
		commands_errorf(call, "IOERR not durable: %s",
				why ? why : "the store cannot be written");
		return;
	}
	session_hold_until(call->session, seq);
	reply_ok(call->session);
}

void commands_kvd_policy(struct call *call)
{
	static const char *const names[] = { "memory", "lazy", "group", "sync" };
	struct session *session = call->session;
	if (call->argc == 1) {
		reply_text(session, names[session->policy & 3]);
		return;
	}
	unsigned wanted = 0;
	while (wanted < 4 && !commands_arg_is(&call->argv[1], names[wanted])) {
		wanted++;
	}
	if (call->argc > 2 || wanted == 4) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	unsigned server = call->kvd->config.persist_policy & 3;
	if (session_set_policy(session, (enum persist_policy)wanted)) {
		reply_ok(session);
	} else if (server == PERSIST_MEMORY) {
		commands_errorf(call,
				"ERR this kvd keeps nothing on disk (--persist memory): it cannot "
				"honour '%s'",
				names[wanted]);
	} else {
		commands_errorf(call,
				"ERR this kvd runs with --persist %s: a connection may ask for a "
				"later acknowledgement, not for '%s'",
				names[server], names[wanted]);
	}
}

void commands_kvd_stats(struct call *call)
{
	struct text text;
	text_init(&text, KVD_STATS_BYTES_MAX);
	stats_json(call->kvd, &text);
	reply_bulk(call->session, text.data ? text.data : "{}", text.data ? text.bytes : 2);
	text_fini(&text);
}

void commands_kvd_watermarks(struct call *call)
{
	reply_array(call->session, 2);
	reply_integer(call->session, (int64_t)keyspace_last_seq(call->kvd->keyspace));
	reply_integer(call->session, (int64_t)keyspace_durable_seq(call->kvd->keyspace));
}

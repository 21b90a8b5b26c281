// SPDX-License-Identifier: MIT
//
// CLIENT: who is connected, in the lines that Redis's tools take apart.
#include "daemon/commands.h"

#include "daemon/listener.h"
#include "daemon/pubsub.h"
#include "daemon/text.h"
#include "daemon/tracking.h"

#define CLIENT_LIST_BYTES_MAX (16u << 20)

void commands_client_id(struct call *call)
{
	reply_integer(call->session, (int64_t)call->session->id);
}

void commands_client_getname(struct call *call)
{
	if (call->session->name[0]) {
		reply_text(call->session, call->session->name);
	} else {
		reply_null(call->session);
	}
}

/// Copies a name of printable characters without spaces, which would break CLIENT LIST's lines.
/// False: answered with an error about `what`.
static bool client_copy_name(struct call *call, const struct resp_arg *arg, const char *what,
			     char out[KVS_CLIENT_NAME_BYTES_MAX + 1])
{
	for (size_t i = 0; i < arg->bytes; i++) {
		if (arg->data[i] < '!' || arg->data[i] > '~') {
			commands_errorf(call,
					"ERR %s cannot contain spaces, newlines or special "
					"characters.",
					what);
			return false;
		}
	}
	if (arg->bytes > KVS_CLIENT_NAME_BYTES_MAX) {
		commands_errorf(call, "ERR %s are limited to %u bytes", what,
				KVS_CLIENT_NAME_BYTES_MAX);
		return false;
	}
	memcpy(out, arg->data, arg->bytes);
	out[arg->bytes] = 0;
	return true;
}

bool commands_client_name(struct call *call, const struct resp_arg *name)
{
	return client_copy_name(call, name, "Client names", call->session->name);
}

void commands_client_setname(struct call *call)
{
	if (commands_client_name(call, &call->argv[2])) {
		reply_ok(call->session);
	}
}

void commands_client_setinfo(struct call *call)
{
	struct session *session = call->session;
	const struct resp_arg *option = &call->argv[2];
	bool done = false;
	if (commands_arg_is(option, "lib-name")) {
		done = client_copy_name(call, &call->argv[3], "lib-name", session->lib_name);
	} else if (commands_arg_is(option, "lib-ver")) {
		done = client_copy_name(call, &call->argv[3], "lib-ver", session->lib_version);
	} else {
		char text[COMMANDS_EXCERPT_BYTES];
		commands_errorf(call, "ERR Unrecognized option '%s'",
				commands_excerpt(option, text));
	}
	if (done) {
		reply_ok(session);
	}
}

/// The letters of Redis for what a connection is in the middle of. Its U, for a Unix socket, would
/// stand at every one of them and hide N, for nothing special.
static void client_flags(const struct session *session, char flags[8])
{
	size_t n = 0;
	size_t subscriptions = pubsub_count(session, PUBSUB_CHANNEL) +
			       pubsub_count(session, PUBSUB_PATTERN) +
			       pubsub_count(session, PUBSUB_SHARD);
	if (subscriptions > 0) {
		flags[n++] = 'P';
	}
	if (session->multi.active) {
		flags[n++] = 'x';
	}
	unsigned tracking = tracking_flags(session);
	if (tracking & TRACKING_ON) {
		flags[n++] = 't';
	}
	if (tracking & TRACKING_BROKEN) {
		flags[n++] = 'R';
	}
	if (tracking & TRACKING_BCAST) {
		flags[n++] = 'B';
	}
	if (n == 0) {
		flags[n++] = 'N';
	}
	flags[n] = 0;
}

static void client_describe(struct text *text, const struct kvd *kvd, const struct session *session)
{
	uint64_t now_ns = kvd->seam->monotonic_ns();
	const char *path = listener_path(kvd->listener);
	size_t output = session_output_used(session);
	char flags[8];
	client_flags(session, flags);
	text_printf(text, "id=%llu addr=%s:0 laddr=%s:0 fd=%d name=%s age=%llu idle=%llu flags=%s ",
		    (unsigned long long)session->id, path, path, session->source.fd, session->name,
		    (unsigned long long)((now_ns - session->connected_ns) / 1000000000u),
		    (unsigned long long)((now_ns - session->active_ns) / 1000000000u), flags);
	text_printf(text, "db=0 sub=%zu psub=%zu ssub=%zu ", pubsub_count(session, PUBSUB_CHANNEL),
		    pubsub_count(session, PUBSUB_PATTERN), pubsub_count(session, PUBSUB_SHARD));
	text_printf(text, "multi=%lld qbuf=%zu qbuf-free=%zu ",
		    session->multi.active ? (long long)session->multi.count : -1,
		    session_input_used(session), session_input_free(session));
	text_printf(text, "argv-mem=0 multi-mem=%zu rbs=%zu rbp=%zu obl=%zu oll=0 omem=%zu ",
		    session->multi.bytes, session->output_bytes, session->output_bytes, output,
		    output > session->output_bytes ? output : 0);
	text_printf(text, "tot-mem=%zu events=%s cmd=%s user=default redir=%lld resp=%u ",
		    sizeof(*session) + session->input_bytes + session->output_bytes +
			    session->multi.bytes,
		    session->output_full ? "rw" : "r",
		    session->last_command ? session->last_command->name : "NULL",
		    (long long)tracking_redirect(session), session->resp_version);
	text_printf(text, "lib-name=%s lib-ver=%s pid=%d uid=%u attached=%d\n", session->lib_name,
		    session->lib_version, session->pid, session->uid,
		    session->reader_client != NULL);
}

void commands_client_info(struct call *call)
{
	struct text text;
	text_init(&text, CLIENT_LIST_BYTES_MAX);
	client_describe(&text, call->kvd, call->session);
	reply_verbatim(call->session, text.data ? text.data : "", text.bytes);
	text_fini(&text);
}

/// CLIENT LIST ID …: false if an id is not a number (answered).
static bool client_list_ids(struct call *call, struct text *text)
{
	for (uint32_t i = 3; i < call->argc; i++) {
		int64_t id;
		if (!commands_arg_int(call, &call->argv[i], &id, "ERR Invalid client ID")) {
			return false;
		}
		const struct session *session = session_find(call->kvd, (uint64_t)id);
		if (session) {
			client_describe(text, call->kvd, session);
		}
	}
	return true;
}

/// CLIENT LIST TYPE …: false if there is no such type (answered). Clients here are normal or
/// subscribers.
static bool client_list_type(struct call *call, bool *normal, bool *pubsub)
{
	static const char *const types[] = { "normal", "slave", "replica", "pubsub", "master" };
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (commands_arg_is(&call->argv[3], types[i])) {
			*normal = i == 0;
			*pubsub = i == 3;
			return true;
		}
	}
	char type[COMMANDS_EXCERPT_BYTES];
	commands_errorf(call, "ERR Unknown client type '%s'",
			commands_excerpt(&call->argv[3], type));
	return false;
}

void commands_client_list(struct call *call)
{
	struct text text;
	bool normal = true;
	bool pubsub = true;
	bool good = true;
	text_init(&text, CLIENT_LIST_BYTES_MAX);
	if (call->argc == 4 && commands_arg_is(&call->argv[2], "type")) {
		good = client_list_type(call, &normal, &pubsub);
	} else if (call->argc > 3 && commands_arg_is(&call->argv[2], "id")) {
		normal = pubsub = false;
		good = client_list_ids(call, &text);
	} else if (call->argc != 2) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		good = false;
	}
	for (const struct session *at = session_first(call->kvd); good && at;
	     at = session_next(at)) {
		if (at->pubsub ? pubsub : normal) {
			client_describe(&text, call->kvd, at);
		}
	}
	if (good) {
		reply_verbatim(call->session, text.data ? text.data : "", text.bytes);
	}
	text_fini(&text);
}

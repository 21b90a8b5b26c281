// SPDX-License-Identifier: MIT
//
// CLIENT: who is connected, in the lines that Redis's tools take apart.
#include "daemon/commands.h"

#include "daemon/listener.h"
#include "daemon/pubsub.h"
#include "daemon/session_task.h"
#include "daemon/text.h"
#include "daemon/tracking.h"

#define CLIENT_LINE_BYTES_MAX (64u << 10)
#define CLIENT_LINES_EVERY 4u // ids between two looks at the clock

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
	text_init(&text, CLIENT_LINE_BYTES_MAX);
	client_describe(&text, call->kvd, call->session);
	reply_verbatim(call->session, text.data ? text.data : "", text.bytes);
	text_fini(&text);
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

/// The lines, collected in slices and answered when their length is known.
struct client_listing {
	struct session *asker;
	struct session_walk walk;
	struct text text;
	size_t charged; // for the text
	size_t sent;
	uint32_t arg; // next id
	bool normal, pubsub, ids;
	bool begun, complete;
};

static void client_listing_end(void *state)
{
	struct client_listing *listing = state;
	session_walk_end(&listing->walk);
	session_task_free(listing->asker, listing->text.data, listing->charged);
}

/// What the call asks for. False: answered.
static bool client_listing_begin(struct call *call, struct client_listing *listing)
{
	listing->begun = true;
	listing->asker = call->session;
	listing->normal = listing->pubsub = true;
	text_init(&listing->text, call->kvd->config.output_bytes_max);
	if (call->argc == 4 && commands_arg_is(&call->argv[2], "type")) {
		return client_list_type(call, &listing->normal, &listing->pubsub);
	}
	if (call->argc > 3 && commands_arg_is(&call->argv[2], "id")) {
		listing->ids = true;
		listing->arg = 3;
		return true;
	}
	if (call->argc != 2) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return false;
	}
	return true;
}

/// A line more. False: there is no room for it, the session is dead.
static bool client_listing_add(struct call *call, struct client_listing *listing,
			       const struct session *session)
{
	client_describe(&listing->text, call->kvd, session);
	size_t more = listing->text.capacity - listing->charged;
	if (more > 0 && session_task_charge(call->session, more)) {
		listing->charged += more;
		more = 0;
	}
	return more == 0;
}

/// CLIENT LIST ID …: false if it is cut, or an id is not a number (answered).
static bool client_listing_ids(struct call *call, struct client_listing *listing)
{
	for (; listing->arg < call->argc; listing->arg++) {
		int64_t id;
		if (listing->arg % CLIENT_LINES_EVERY == 0 && commands_cut(call)) {
			return false;
		}
		if (!commands_arg_int(call, &call->argv[listing->arg], &id,
				      "ERR Invalid client ID")) {
			return false;
		}
		const struct session *session = session_find(call->kvd, (uint64_t)id);
		if (session && !client_listing_add(call, listing, session)) {
			return false;
		}
	}
	return true;
}

/// All of the right type. False: cut.
static bool client_listing_all(struct call *call, struct client_listing *listing)
{
	for (;;) {
		if (commands_cut(call)) {
			return false;
		}
		const struct session *session =
			session_walk_next(call->session->shared, &listing->walk);
		if (!session) {
			return true;
		}
		if ((session->pubsub ? listing->pubsub : listing->normal) &&
		    !client_listing_add(call, listing, session)) {
			return false;
		}
	}
}

void commands_client_list(struct call *call)
{
	struct client_listing *listing = commands_state(call, sizeof(*listing), client_listing_end);
	if (!listing || (!listing->begun && !client_listing_begin(call, listing))) {
		return;
	}
	if (!listing->complete) {
		listing->complete = listing->ids ? client_listing_ids(call, listing)
						 : client_listing_all(call, listing);
		if (!listing->complete) {
			return;
		}
	}
	if (listing->text.truncated) {
		commands_error(call, "ERR the list is longer than client-output-max allows");
		return;
	}
	const char *text = listing->text.data ? listing->text.data : "";
	(void)commands_reply_text(call, text, listing->text.bytes, &listing->sent);
}

// SPDX-License-Identifier: MIT
//
// Clients: they send without waiting, read when they like, and may be cut off at any byte. What
// each reply must be is known when kvd runs the command: the functions that run one are wrapped, so
// the model sees commands in kvd's own order and at kvd's own time, and says what the client must
// get; whether it gets that, in that order, and not before it is durable, is looked at here.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/command.h"
#include "daemon/keyspace.h"
#include "daemon/kvd.h"
#include "daemon/persist.h"
#include "daemon/session.h"
#include "daemon/session_task.h"
#include "tests/simulation/sim.h"

#define HANG_NS UINT64_C(600000000000)

static struct sim_client *clients[SIM_CLIENTS_MAX]; // of their connections
static unsigned clients_count;
static unsigned commands_sent;

unsigned sim_commands_sent(void)
{
	return commands_sent;
}

void sim_clients_begin(void)
{
	clients_count = sim.plan.clients + sim.plan.watchers;
	for (unsigned i = 0; i < clients_count; i++) {
		clients[i] = sim_alloc(sizeof(*clients[i]));
		clients[i]->index = i;
		clients[i]->is_watcher = i >= sim.plan.clients;
		clients[i]->is_filler = i == 0 && sim.plan.fillers > 0;
		clients[i]->pid = 1000 + (int)i;
		clients[i]->uid = 100 + (uint32_t)sim_below(3);
	}
}

// What kvd has of its requests it may still run, so they stay as they are; the next connection is
// another client's.
static void client_reset(struct sim_client *client)
{
	struct sim_client *next = sim_alloc(sizeof(*next));
	next->index = client->index;
	next->is_watcher = client->is_watcher;
	next->is_filler = client->is_filler;
	next->pid = client->pid;
	next->uid = client->uid;
	clients[client->index] = next;
	sim_conn_close(client->conn, sim_chance(2));
}

// ---- what a request must be answered with ----

static void expect(struct sim_client *client, struct sim_expect what)
{
	if (client->expected == client->expects_room) {
		unsigned room = client->expects_room * 2 + 64;
		struct sim_expect *expects = sim_alloc(room * sizeof(*expects));
		if (client->expected > 0) {
			memcpy(expects, client->expects, client->expected * sizeof(*expects));
		}
		client->expects = expects;
		client->expects_room = room;
	}
	client->expects[client->expected++] = what;
}

static bool text_is(const char *text, size_t bytes, const char *word)
{
	return bytes >= strlen(word) && memcmp(text, word, strlen(word)) == 0;
}

static bool request_is(const struct sim_request *request, const char *name)
{
	return request->argv[0].bytes == strlen(name) &&
	       memcmp(request->argv[0].data, name, request->argv[0].bytes) == 0;
}

// The first bytes of the reply that stands in the output.
static const char *reply_head(const struct session *session, size_t *bytes)
{
	uint64_t at = session->command_start - session->output_position;
	*bytes = 0;
	if (session->dead || session->output == NULL || session->command_start == 0 ||
	    at >= session->output_end) {
		return NULL;
	}
	*bytes = session->output_end - (size_t)at;
	return session->output + at;
}

static bool is_refusal(const char *head, size_t bytes)
{
	return head != NULL &&
	       (text_is(head, bytes, "-OOM") || text_is(head, bytes, "-EXECABORT") ||
		text_is(head, bytes, "-ERR batch") ||
		text_is(head, bytes, "-ERR the values that this needs"));
}

static void queue(struct sim_client *client, unsigned number)
{
	static const char queued[] = "+QUEUED\r\n";
	client->queued[client->queued_count++] = number;
	expect(client, (struct sim_expect){ .bytes = queued, .count = sizeof(queued) - 1 });
}

// Memory was refused, and the command with it: it did nothing, in a transaction or out of it.
static bool is_refused_memory(const struct sim_client *client, const char *head)
{
	return client->unsure && head != NULL && head[0] == '-';
}

static bool is_modelled(const struct sim_request *request)
{
	return !request_is(request, "HELLO") && !request_is(request, "KVD.SYNC");
}

// Reads that were cut may be as of now, if there was a FLUSHALL since.
static void flushed(void)
{
	static unsigned seen;
	bool is_new = sim_model_flushes() != seen;
	seen = sim_model_flushes();
	for (unsigned i = 0; i < clients_count && is_new; i++) {
		struct sim_client *client = clients[i];
		if (client->has_early && !client->has_flushed) {
			client->flushed = (struct sim_text){ 0 };
			sim_model_run(client, &client->requests[client->dispatched],
				      keyspace_now_ms(sim.kvd->keyspace), &client->flushed);
			client->has_flushed = true;
		}
	}
}

// A command is over.
static void dispatched(struct sim_client *client, struct session *session, uint64_t before)
{
	unsigned number = client->dispatched++;
	const struct sim_request *request = &client->requests[number];
	size_t bytes;
	const char *head = reply_head(session, &bytes);
	uint64_t seq = keyspace_last_seq(sim.kvd->keyspace);
	struct sim_text reply = { 0 };
	client->unsure = sim.refused != client->refused_before;
	sim_note("client %u did %.*s %.*s, version %llu", client->index,
		 (int)request->argv[0].bytes, request->argv[0].data,
		 request->argc > 1 && request->argv[1].bytes < 24 ? (int)request->argv[1].bytes : 0,
		 request->argc > 1 ? request->argv[1].data : "", (unsigned long long)seq);
	if (client->is_watcher || !is_modelled(request)) {
		client->resp = request_is(request, "HELLO") ? 3 : client->resp;
		expect(client, (struct sim_expect){ .bytes = NULL });
	} else if (client->unsure && session->dead) {
		// Its connection is what it was refused; nothing is told of what it did.
		if (seq != before) {
			sim_model_believe();
		}
	} else if (client->multi && is_refused_memory(client, head) &&
		   !request_is(request, "EXEC")) {
		expect(client, (struct sim_expect){ .is_error = true });
	} else if (client->multi && !request_is(request, "EXEC") &&
		   !request_is(request, "DISCARD")) {
		queue(client, number);
	} else if (is_refusal(head, bytes) || is_refused_memory(client, head) ||
		   sim_model_is_unread(head, bytes)) {
		if (request_is(request, "EXEC")) {
			sim_model_leave_multi(client);
		}
		client->watch_unsure = client->watch_unsure || request_is(request, "WATCH");
		expect(client, (struct sim_expect){ .is_error = true });
	} else {
		client->head = bytes >= 3 ? head : NULL;
		client->head_bytes = bytes;
		if (client->has_early) {
			reply = client->early;
		} else {
			sim_model_run(client, request, keyspace_now_ms(sim.kvd->keyspace), &reply);
		}
		client->head = NULL;
		bool waits = seq != before && session->policy >= PERSIST_GROUP &&
			     !(session->last_command->flags & COMMAND_READONLY);
		struct sim_expect what = { .bytes = reply.data,
					   .count = reply.bytes,
					   .seq = waits ? seq : 0 };
		if (client->has_flushed) {
			what.other = client->flushed;
		}
		expect(client, what);
	}
	client->has_early = client->has_flushed = false;
	sim_model_commit(before, seq);
	flushed();
}

static void request_is_as_sent(const struct sim_client *client, const struct resp_arg *argv,
			       uint32_t argc)
{
	if (client->dispatched >= client->sent) {
		sim_fail("client %u sent %u requests, and kvd runs another", client->index,
			 client->sent);
	}
	const struct sim_request *request = &client->requests[client->dispatched];
	bool same = request->argc == argc;
	for (uint32_t i = 0; i < argc && same; i++) {
		same = request->argv[i].bytes == argv[i].bytes &&
		       (argv[i].bytes == 0 ||
			memcmp(request->argv[i].data, argv[i].data, argv[i].bytes) == 0);
	}
	if (!same) {
		sim_fail("request %u of client %u is not what it sent", client->dispatched,
			 client->index);
	}
}

static void command_begins(const struct sim_client *client)
{
	sim_model_resolve();
	sim_model_pending(client, &client->requests[client->dispatched],
			  keyspace_now_ms(sim.kvd->keyspace));
}

static void command_ends(struct sim_client *client, struct session *session,
			 enum command_outcome outcome, uint64_t before)
{
	if (outcome == COMMAND_DONE) {
		dispatched(client, session, before);
	} else if (outcome == COMMAND_AGAIN && !client->is_watcher && !client->has_early &&
		   session->last_command->flags & COMMAND_READONLY) {
		client->early = (struct sim_text){ 0 };
		sim_model_run(client, &client->requests[client->dispatched],
			      keyspace_now_ms(sim.kvd->keyspace), &client->early);
		client->has_early = true;
	}
	sim_model_settled();
}

enum command_outcome __real_command_dispatch(struct kvd *kvd, struct session *session,
					     const struct resp_arg *argv, uint32_t argc);
enum command_outcome __wrap_command_dispatch(struct kvd *kvd, struct session *session,
					     const struct resp_arg *argv, uint32_t argc);
enum command_outcome __wrap_command_dispatch(struct kvd *kvd, struct session *session,
					     const struct resp_arg *argv, uint32_t argc)
{
	struct sim_client *client = sim_client_of_fd(session->source.fd);
	if (client == NULL) { // a reader's, or one that has gone
		return __real_command_dispatch(kvd, session, argv, argc);
	}
	request_is_as_sent(client, argv, argc);
	client->refused_before = sim.refused;
	command_begins(client);
	uint64_t before = keyspace_last_seq(kvd->keyspace);
	enum command_outcome outcome = __real_command_dispatch(kvd, session, argv, argc);
	command_ends(client, session, outcome, before);
	return outcome;
}

enum command_outcome __real_command_continue(struct session *session);
enum command_outcome __wrap_command_continue(struct session *session);
enum command_outcome __wrap_command_continue(struct session *session)
{
	struct sim_client *client = sim_client_of_fd(session->source.fd);
	if (client == NULL) {
		return __real_command_continue(session);
	}
	command_begins(client);
	uint64_t before = keyspace_last_seq(session->kvd->keyspace);
	enum command_outcome outcome = __real_command_continue(session);
	command_ends(client, session, outcome, before);
	return outcome;
}

// ---- what it is answered with ----

size_t sim_frame_bytes(const char *at, size_t bytes)
{
	const char *end = bytes > 0 ? memchr(at, '\n', bytes) : NULL;
	if (end == NULL) {
		return 0;
	}
	size_t head = (size_t)(end - at) + 1;
	// Of a line that is empty the number would be sought behind it.
	long long count = at[1] != '\r' ? strtoll(at + 1, NULL, 10) : 0;
	switch (at[0]) {
	case '+':
	case '-':
	case ':':
	case '_':
	case ',':
	case '#':
		return head;
	case '$':
	case '=':
		count = count < 0 ? 0 : count + 2;
		return head + (size_t)count <= bytes ? head + (size_t)count : 0;
	case '*':
	case '~':
	case '>':
	case '%':
		count = at[0] == '%' ? count * 2 : count;
		for (; count > 0; count--) {
			size_t more = sim_frame_bytes(at + head, bytes - head);
			if (more == 0) {
				return 0;
			}
			head += more;
		}
		return head;
	default:
		sim_fail("a reply begins with %02x", (unsigned char)at[0]);
	}
}

static void answered(struct sim_client *client, const char *frame, size_t bytes)
{
	if (client->is_watcher || frame[0] == '>') {
		return;
	}
	if (sim.refused > 0 && frame[0] == '-' && memmem(frame, bytes, "of memory", 9) != NULL &&
	    (client->answered == client->expected || !client->expects[client->answered].is_error)) {
		sim_note("client %u is told that there is no memory", client->index);
		return; // and hung up on
	}
	if (bytes > 12 && memcmp(frame, "-OOM closed:", 12) == 0) {
		sim_note("client %u is told that its value comes too slowly", client->index);
		return; // the same
	}
	if (client->answered == client->expected) {
		sim_fail("client %u got an answer to nothing: %.*s", client->index,
			 (int)(bytes < 60 ? bytes : 60), frame);
	}
	const struct sim_expect *due = &client->expects[client->answered];
	const struct sim_request *request = &client->requests[client->answered];
	client->answered++;
	client->asked_ns = sim.mono_ns;
	if (text_is(frame, bytes, "-IOERR") && sim.faults > 0) {
		return;
	}
	bool other = due->other.bytes > 0 &&
		     sim_text_matches(due->other.data, due->other.bytes, frame, bytes);
	if (due->is_error ? frame[0] != '-'
			  : due->bytes != NULL && !other &&
				    !sim_text_matches(due->bytes, due->count, frame, bytes)) {
		sim_fail("client %u asked %.*s %.*s and got %.*s instead of %.*s", client->index,
			 (int)request->argv[0].bytes, request->argv[0].data,
			 (int)request->argv[request->argc > 1].bytes,
			 request->argv[request->argc > 1].data, (int)(bytes < 80 ? bytes : 80),
			 frame, (int)(due->count < 80 ? due->count : 80),
			 due->bytes != NULL ? due->bytes : "an error");
	}
	if (due->seq > sim_disk_durable()) {
		sim_fail("client %u is told of version %llu, durable is %llu", client->index,
			 (unsigned long long)due->seq, (unsigned long long)sim_disk_durable());
	}
}

static bool client_read(struct sim_client *client)
{
	char bytes[4096];
	long count = sim_conn_take(client->conn, bytes, 1 + sim_below(sizeof(bytes)));
	if (count < 0) {
		client_reset(client);
		return true;
	}
	sim_text_add(&client->in, bytes, (size_t)count);
	size_t at = 0; // of the next frame
	size_t frame;
	while ((frame = sim_frame_bytes(client->in.data + at, client->in.bytes - at)) > 0) {
		answered(client, client->in.data + at, frame);
		at += frame;
	}
	if (at > 0) {
		memmove(client->in.data, client->in.data + at, client->in.bytes - at);
		client->in.bytes -= at;
	}
	return count > 0;
}

// ---- what it does ----

static void client_send(struct sim_client *client)
{
	if (client->sent == client->room) {
		unsigned room = client->room * 2 + 64;
		struct sim_request *requests = sim_alloc(room * sizeof(*requests));
		if (client->sent > 0) {
			memcpy(requests, client->requests, client->sent * sizeof(*requests));
		}
		client->requests = requests;
		client->room = room;
	}
	struct sim_request *request = &client->requests[client->sent];
	if (client->is_watcher) {
		sim_request_watcher(client, request);
	} else if (client->is_filler) {
		sim_request_filler(request);
		commands_sent++;
	} else {
		sim_request_make(client, request);
		commands_sent++;
	}
	if (client->sent == client->answered) {
		client->asked_ns = sim.mono_ns;
	}
	client->sent++;
	struct sim_text frame = { 0 };
	sim_text_print(&frame, "*%u\r\n", request->argc);
	for (unsigned i = 0; i < request->argc; i++) {
		sim_text_print(&frame, "$%zu\r\n", request->argv[i].bytes);
		sim_text_add(&frame, request->argv[i].data, request->argv[i].bytes);
		sim_text_print(&frame, "\r\n");
	}
	sim_conn_send(client->conn, frame.data, frame.bytes);
	free(frame.data);
}

static bool client_connect(struct sim_client *client)
{
	if (!sim.up || (sim.quiet && client->sent == 0)) {
		return false;
	}
	client->resp = 2;
	client->conn = sim_connect(client->pid, client->uid, &client->dead);
	if (client->conn == NULL) {
		return false;
	}
	sim_conn_owner(client->conn, client);
	sim_note("client %u connects", client->index);
	return true;
}

bool sim_client_step(void)
{
	struct sim_client *client = clients[sim_below(clients_count)];
	if (client->conn == NULL) {
		return sim_chance(3) && client_connect(client);
	}
	if (!sim.quiet && sim_chance(sim.plan.cut_chance)) {
		sim_note("client %u goes", client->index);
		client_reset(client);
		return true;
	}
	unsigned asked =
		client->sent - (client->is_watcher ? client->dispatched : client->answered);
	if (!sim.quiet && asked < sim.plan.depth && sim_chance(2)) {
		client_send(client);
		return true;
	}
	if (sim_chance(2) && sim_conn_deliver(client->conn, false)) {
		return true;
	}
	return client_read(client);
}

bool sim_clients_done(void)
{
	for (unsigned i = 0; i < clients_count; i++) {
		const struct sim_client *client = clients[i];
		if (client->conn != NULL && !client->is_watcher &&
		    client->answered < client->sent) {
			if (sim.mono_ns - client->asked_ns > HANG_NS) {
				sim_clients_hung();
			}
			return false;
		}
	}
	return true;
}

void sim_clients_hung(void)
{
	for (unsigned i = 0; i < clients_count; i++) {
		const struct sim_client *client = clients[i];
		if (client->conn != NULL && client->answered < client->sent &&
		    !client->is_watcher) {
			sim_fail("client %u sent %u requests, %u were run, %u answered: %.*s hangs",
				 i, client->sent, client->dispatched, client->answered,
				 (int)client->requests[client->answered].argv[0].bytes,
				 client->requests[client->answered].argv[0].data);
		}
	}
}

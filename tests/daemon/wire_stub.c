// SPDX-License-Identifier: MIT
//
// The world under sessions in their tests; see wire_stub.h.
#include "tests/daemon/wire_stub.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/command.h"
#include "daemon/keyspace.h"
#include "daemon/log.h"
#include "daemon/parcel.h"
#include "daemon/readers.h"
#include "daemon/reply.h"
#include "daemon/seam.h"
#include "daemon/session_task.h"
#include "shm/counters.h"
#include "shm/map.h"
#include "tests/tap/tap.h"

struct stub stub;
unsigned char stub_large[STUB_LARGE_BYTES];
static struct seam stub_seam;
static struct kvs_map stub_map;
static _Alignas(8) unsigned char stub_region[KVS_PAGE_BYTES];

uint64_t keyspace_last_seq(const struct keyspace *keyspace)
{
	(void)keyspace;
	return stub.last_seq;
}

uint64_t keyspace_durable_seq(const struct keyspace *keyspace)
{
	(void)keyspace;
	return stub.kvd.config.persist_policy == PERSIST_MEMORY ? stub.last_seq : stub.durable_seq;
}

void keyspace_prefetch(struct keyspace *keyspace, const void *key, size_t key_bytes, int pass)
{
	(void)keyspace, (void)key, (void)key_bytes, (void)pass;
}

void keyspace_set_writer(struct keyspace *keyspace, const struct keyspace_writer *writer)
{
	(void)keyspace, (void)writer;
}

uint16_t keyspace_writer_index(struct keyspace *keyspace, uint32_t uid)
{
	(void)keyspace;
	return (uint16_t)(uid % 100 + 1);
}

struct keyspace_written keyspace_written(const struct keyspace *keyspace)
{
	(void)keyspace;
	return stub.written;
}

void keyspace_set_slice(struct keyspace *keyspace, const struct keyspace_slice *slice)
{
	(void)keyspace, (void)slice;
}

void keyspace_stage_drop(struct keyspace *keyspace, uint64_t owner)
{
	(void)keyspace, (void)owner;
}

void keyspace_tick(struct keyspace *keyspace)
{
	(void)keyspace;
	stub.ticks++;
}

bool keyspace_pin(struct keyspace *keyspace, const void *at, uint64_t *pin)
{
	(void)keyspace;
	const unsigned char *byte = at;
	bool good = byte >= stub_large && byte < stub_large + STUB_LARGE_BYTES;
	stub.pins += good;
	*pin = 77;
	return good;
}

void keyspace_unpin(struct keyspace *keyspace, uint64_t pin)
{
	(void)keyspace;
	stub.pins -= pin == 77;
}

uint64_t keyspace_pin_orphaned_bytes(struct keyspace *keyspace, uint64_t pin)
{
	(void)keyspace;
	return pin == 77 ? stub.orphaned : 0;
}

uint64_t keyspace_orphaned_bytes(const struct keyspace *keyspace)
{
	(void)keyspace;
	return stub.pins * stub.orphaned;
}

bool keyspace_room_is_back(struct keyspace *keyspace)
{
	(void)keyspace;
	return stub.room_is_back;
}

size_t keyspace_value_bytes_max(const struct keyspace *keyspace)
{
	(void)keyspace;
	return 1 << 20;
}

const struct kvs_map *keyspace_map(const struct keyspace *keyspace)
{
	(void)keyspace;
	return &stub_map;
}

void persist_notice(struct persist *persist)
{
	(void)persist;
	stub.notices++;
}

void persist_request(struct persist *persist, uint64_t seq)
{
	(void)persist;
	stub.requested_seq = seq;
}

uint64_t persist_failed_seq(const struct persist *persist)
{
	(void)persist;
	return stub.failed_seq;
}

bool persist_degraded(struct persist *persist, const char **why)
{
	(void)persist;
	*why = "disk full";
	return true;
}

static bool stub_is(const struct resp_arg *arg, const char *name)
{
	return arg->bytes == strlen(name) && memcmp(arg->data, name, arg->bytes) == 0;
}

static void stub_big(struct session *session, const struct resp_arg *arg)
{
	int64_t bytes = 0;
	resp_parse_int(arg->data, arg->bytes, &bytes);
	char *body = calloc(1, (size_t)bytes + 1);
	memset(body, 'b', (size_t)bytes);
	reply_bulk(session, body, (size_t)bytes);
	free(body);
}

static void stub_refer(struct session *session, const struct resp_arg *arg)
{
	int64_t bytes = 0;
	resp_parse_int(arg->data, arg->bytes, &bytes);
	reply_bulk(session, stub_large, (size_t)bytes);
}

static void stub_fds(struct session *session)
{
	int fds[3];
	for (int i = 0; i < 3; i++) {
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	if (session_send_fds(session, fds, 3)) {
		reply_status(session, "FDS");
		return;
	}
	for (int i = 0; i < 3; i++) {
		close(fds[i]);
	}
	reply_error(session, "ERR busy");
}

static enum command_outcome stub_park(struct session *session)
{
	if (!stub.memory_short) {
		stub.last_seq++;
		reply_ok(session);
		return COMMAND_DONE;
	}
	stub.parks++;
	if (!session->no_wait) {
		return COMMAND_PARK;
	}
	reply_error(session, "OOM no room");
	return COMMAND_DONE;
}

static void stub_state_free(void *state)
{
	free(state);
	stub.states--;
}

static const struct command stub_slow = { .name = "slow", .flags = COMMAND_SLOW_OK };
static const struct command stub_cut = { .name = "cut", .flags = COMMAND_READONLY };
static const struct command stub_wcut = { .name = "wcut", .flags = COMMAND_WRITE };

/// One slice of CUT or WCUT: the next integer.
static enum command_outcome stub_cut_slice(struct call *call)
{
	int64_t *done = call->state;
	int64_t all = 0;
	resp_parse_int(call->argv[1].data, call->argv[1].bytes, &all);
	bool writes = call->command == &stub_wcut;
	if (writes && *done == all / 2 && stub.memory_short && !call->session->no_wait) {
		uint64_t mark = call->mark - call->session->output_position;
		call->session->output_end = (size_t)mark;
		stub.parks++;
		return COMMAND_PARK;
	}
	if (*done == 0) {
		reply_array(call->session, (size_t)all);
	}
	reply_integer(call->session, ++*done);
	stub.last_seq += writes;
	if (*done < all && !call->session->dead) {
		stub.cuts++;
		return COMMAND_AGAIN;
	}
	stub.commands++;
	return COMMAND_DONE;
}

enum command_outcome command_continue(struct session *session)
{
	return stub_cut_slice(&session->task->call);
}

static enum command_outcome stub_cut_begin(struct kvd *kvd, struct session *session,
					   const struct resp_arg *argv, uint32_t argc)
{
	struct call call = {
		.kvd = kvd,
		.session = session,
		.command = stub_is(argv, "CUT") ? &stub_cut : &stub_wcut,
		.argv = argv,
		.argc = argc,
		.mark = session->output_position + session->output_end,
		.state = calloc(1, sizeof(int64_t)),
		.state_free = stub_state_free,
	};
	stub.states++;
	session->last_command = call.command;
	enum command_outcome outcome = stub_cut_slice(&call);
	if (outcome != COMMAND_AGAIN || !session_task_begin(session, &call)) {
		stub_state_free(call.state);
	}
	return outcome;
}

enum command_outcome command_dispatch(struct kvd *kvd, struct session *session,
				      const struct resp_arg *argv, uint32_t argc)
{
	if (stub_is(argv, "PARK") && stub_park(session) == COMMAND_PARK) {
		return COMMAND_PARK;
	}
	if ((stub_is(argv, "CUT") || stub_is(argv, "WCUT")) && argc == 2) {
		return stub_cut_begin(kvd, session, argv, argc);
	}
	session->last_command = NULL;
	stub.commands++;
	if (stub_is(argv, "PING")) {
		reply_status(session, "PONG");
	} else if (stub_is(argv, "ECHO") && argc == 2) {
		reply_bulk(session, argv[1].data, argv[1].bytes);
	} else if ((stub_is(argv, "SET") && argc == 3) || (stub_is(argv, "MSET") && argc == 5)) {
		return stub_set(session, argv, argc);
	} else if (stub_is(argv, "COLD") || stub_is(argv, "WCOLD")) {
		return stub_cold(session, argv, argc);
	} else if (stub_is(argv, "BIG") && argc == 2) {
		stub_big(session, &argv[1]);
	} else if (stub_is(argv, "REF") && argc == 2) {
		stub_refer(session, &argv[1]);
	} else if (stub_is(argv, "WREF") && argc == 2) {
		stub.last_seq++;
		stub_refer(session, &argv[1]);
	} else if (stub_is(argv, "SLOW")) {
		stub.now_ns += 100000;
		session->last_command = &stub_slow;
		reply_status(session, "SLOW");
	} else if (stub_is(argv, "LONG")) {
		stub.now_ns += 20000000;
		session->last_command = &stub_slow;
		reply_status(session, "LONG");
	} else if (stub_is(argv, "SYNC")) {
		session_hold_until(session, session->last_write_seq);
		reply_status(session, "SYNCED");
	} else if (stub_is(argv, "FDS")) {
		stub_fds(session);
	} else if (stub_is(argv, "ATTACH")) {
		readers_attach(kvd, session, argc == 2);
	} else if (stub_is(argv, "QUIT")) {
		reply_ok(session);
		session->close_after_reply = true;
	} else if (!stub_is(argv, "PARK")) {
		reply_errorf(session, "ERR unknown command '%.*s'", (int)argv[0].bytes,
			     argv[0].data);
	}
	return COMMAND_DONE;
}

static uint64_t stub_monotonic_ns(void)
{
	return stub.now_ns += stub.step_ns;
}

static int stub_epoll_wait(int fd, struct epoll_event *events, int count, int timeout_ms)
{
	stub.epoll_calls++;
	stub.epoll_timeout_ms = timeout_ms;
	return epoll_wait(fd, events, count, 0); // never sleeps: time is the test's
}

static void stub_turn(void *context, uint64_t now_ns)
{
	session_shared_turn(context, now_ns);
}

static uint64_t stub_next_ns(void *context)
{
	return session_shared_next_ns(context);
}

void stub_start(enum persist_policy policy)
{
	log_init(getenv("KVD_TEST_VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	memset(&stub, 0, sizeof(stub));
	memset(stub_region, 0, sizeof(stub_region));
	stub.now_ns = 1000000000;
	for (size_t i = stub_large[1] ? STUB_LARGE_BYTES : 0; i < STUB_LARGE_BYTES; i++) {
		stub_large[i] = (unsigned char)(i * 7 + (i >> 9)); // once: 3 MB are dear
	}
	stub_seam = seam_system;
	stub_seam.monotonic_ns = stub_monotonic_ns;
	stub_seam.epoll_wait = stub_epoll_wait;
	stub_map.base = stub_region;
	stub.kvd.seam = &stub_seam;
	stub.kvd.config.persist_policy = policy;
	stub.kvd.config.output_bytes_max = 64 << 20;
	stub.kvd.config.memory_bytes = 256 << 20;
	stub.kvd.config.buffers_bytes_max = 1 << 30;
	stub.kvd.config.uid_share_percent = 50;
	stub.kvd.config.write_wait_ms = 1000;
	stub.kvd.config.clients_max = 100;
	stub.kvd.config.clients_share_percent = 100;
	// Any address: the stub's persister does not look at it.
	stub.kvd.persist = policy == PERSIST_MEMORY ? NULL : (struct persist *)(void *)&stub;
	if (loop_create(&stub.kvd.loop, &stub_seam) != 0) {
		abort();
	}
	stub.sessions = session_shared_create(&stub.kvd, NULL);
	if (!stub.sessions || !loop_hook(stub.kvd.loop, stub_turn, stub_next_ns, stub.sessions)) {
		abort();
	}
}

void stub_stop(void)
{
	session_shared_destroy(stub.sessions);
	loop_destroy(stub.kvd.loop);
}

int stub_connect(struct session **session)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
		abort();
	}
	struct session *made = session_open(stub.sessions, pair[0]);
	if (!made) {
		abort();
	}
	if (session) {
		*session = made;
	}
	return pair[1];
}

void stub_turns(void)
{
	for (int i = 0; i < 100000; i++) {
		uint64_t before = stub.commands + stub.cuts;
		uint64_t bytes = stub_counter(KVS_COUNTER_input_bytes) +
				 stub_counter(KVS_COUNTER_output_bytes);
		size_t sessions = session_count(stub.sessions);
		if (loop_turn(stub.kvd.loop, 0) != 0) {
			abort();
		}
		bool moved = stub.commands + stub.cuts != before ||
			     session_count(stub.sessions) != sessions ||
			     bytes != stub_counter(KVS_COUNTER_input_bytes) +
					      stub_counter(KVS_COUNTER_output_bytes);
		if (!moved && session_shared_next_ns(stub.sessions) != 0) {
			return;
		}
	}
	abort();
}

void stub_send(int fd, const void *data, size_t bytes)
{
	const char *at = data;
	while (bytes > 0) {
		ssize_t n = send(fd, at, bytes, MSG_NOSIGNAL);
		if (n > 0) {
			at += n;
			bytes -= (size_t)n;
		} else if (errno != EAGAIN) {
			return;
		} else if (loop_turn(stub.kvd.loop, 0) != 0) {
			abort();
		}
	}
}

void stub_send_text(int fd, const char *text)
{
	stub_send(fd, text, strlen(text));
}

size_t stub_receive(int fd, char *out, size_t bytes, bool *ended)
{
	size_t got = 0;
	*ended = false;
	stub_turns();
	while (got < bytes) {
		size_t part = bytes - got < 65536 ? bytes - got : 65536; // valgrind looks at it all
		ssize_t n = recv(fd, out + got, part, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			*ended = true;
			break;
		}
		if (n < 0) {
			unsigned long before = stub_counter(KVS_COUNTER_output_bytes);
			stub_turns();
			if (stub_counter(KVS_COUNTER_output_bytes) == before) {
				break;
			}
			continue;
		}
		got += (size_t)n;
	}
	return got;
}

bool stub_expect(int fd, const char *text)
{
	static char got[1 << 20];
	bool ended;
	size_t bytes = stub_receive(fd, got, sizeof(got) - 1, &ended);
	got[bytes] = '\0';
	if (bytes == strlen(text) && memcmp(got, text, bytes) == 0) {
		return true;
	}
	tap_diag("got '%.200s' (%zu bytes), expected '%.200s'", got, bytes, text);
	return false;
}

bool stub_ended(int fd)
{
	char byte;
	bool ended;
	return stub_receive(fd, &byte, 1, &ended) == 0 && ended;
}

uint64_t stub_counter(int counter)
{
	return *kvs_counter_word(stub_region, (enum kvs_counter)counter);
}

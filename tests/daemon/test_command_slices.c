// SPDX-License-Identifier: MIT
//
// Commands with thousands of names, patterns, filters or lines: cut anywhere they answer what they
// answer in one piece, and whoever leaves in the middle leaves nothing behind. The clock moves by
// one with every look, so that a slice is so many looks.
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/commands.h"
#include "daemon/keyspace_create.h"
#include "daemon/listener.h"
#include "daemon/loop.h"
#include "daemon/session_task.h"
#include "shm/epoch_scan.h"
#include "shm/region.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)
#define ARGS_MAX 4096u
#define LOOKS 4 // at the clock in one slice

static uint64_t now;

static uint64_t clock_ns(void)
{
	return ++now;
}

static struct session_shared *sessions;

struct session_shared *__wrap_listener_sessions(const struct listener *listener);
struct session_shared *__wrap_listener_sessions(const struct listener *listener)
{
	(void)listener;
	return sessions;
}

const char *__wrap_listener_path(const struct listener *listener);
const char *__wrap_listener_path(const struct listener *listener)
{
	(void)listener;
	return "/the/path";
}

struct rig {
	struct seam seam;
	struct kvd kvd;
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct session *session;
	int peer;
};

static struct session *rig_connect(int *peer)
{
	int pair[2] = { -1, -1 };
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
		return NULL;
	}
	*peer = pair[1];
	return session_open(sessions, pair[0]);
}

static void rig_open(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->seam = seam_system;
	rig->seam.monotonic_ns = clock_ns;
	rig->kvd.seam = &rig->seam;
	rig->kvd.config.memory_bytes = MEMORY_BYTES;
	rig->kvd.config.output_bytes_max = 64u << 20;
	rig->kvd.config.slowlog_us = 0;
	rig->kvd.config.slowlog_entries = 1000;
	struct kvs_region_options options = { .memory_bytes = MEMORY_BYTES,
					      .memory_bytes_max = MEMORY_BYTES,
					      .segment_bytes = 64u << 10,
					      .instance_id = 1,
					      .hash_seed = 1,
					      .fenced = true };
	ok_int(kvs_region_create(&rig->region, &options), KVS_REGION_OK, "region");
	kvs_epoch_init(&rig->epochs, &rig->region.header->hot, true);
	struct keyspace_options keyspace = { .seam = &rig->seam,
					     .region = &rig->region,
					     .epochs = &rig->epochs,
					     .revoke_ms = 5000,
					     .revoke_min_ms = 50,
					     .value_bytes_max = 1u << 20 };
	rig->kvd.keyspace = keyspace_create(&keyspace);
	(void)keyspace_recover_finish(rig->kvd.keyspace, 0, false);
	kvs_region_go_alive(&rig->region);
	ok_int(loop_create(&rig->kvd.loop, &rig->seam), 0, "loop");
	rig->kvd.stats = stats_create(&rig->kvd);
	sessions = session_shared_create(&rig->kvd, NULL);
	rig->session = rig_connect(&rig->peer);
	ok(rig->session && rig->kvd.stats, "session and statistics");
}

static void rig_close(struct rig *rig)
{
	session_shared_destroy(sessions);
	close(rig->peer);
	stats_destroy(rig->kvd.stats);
	loop_destroy(rig->kvd.loop);
	keyspace_destroy(rig->kvd.keyspace);
	kvs_epoch_fini(&rig->epochs);
	kvs_region_close(&rig->region);
}

/// Words with single spaces between; the last one `times` times.
struct request {
	struct resp_arg argv[ARGS_MAX];
	uint32_t argc;
};

static void request_make(struct request *request, const char *line, unsigned times)
{
	request->argc = 0;
	for (const char *at = line; *at;) {
		size_t bytes = strcspn(at, " ");
		request->argv[request->argc++] = (struct resp_arg){ at, bytes };
		at += bytes + (at[bytes] == ' ');
	}
	for (unsigned i = 1; i < times; i++) {
		request->argv[request->argc] = request->argv[request->argc - 1];
		request->argc++;
	}
}

/// Everything that was answered, which is as if it was sent then; the caller frees.
static char *taken(struct session *session)
{
	size_t bytes = session->output_end - session->output_sent;
	char *out = calloc(1, bytes + 1);
	if (out && bytes > 0) {
		memcpy(out, session->output + session->output_sent, bytes);
	}
	session->output_end = session->output_sent;
	return out;
}

/// Runs a request, in slices if `cut`; *slices = how many. It is given up after `most` of them.
static enum command_outcome run(struct rig *rig, const struct request *request, bool cut,
				unsigned most, unsigned *slices)
{
	struct session *session = rig->session;
	session->until_ns = cut ? now + LOOKS : 0;
	enum command_outcome outcome =
		command_dispatch(&rig->kvd, session, request->argv, request->argc);
	for (*slices = 1; outcome == COMMAND_AGAIN && *slices < most; ++*slices) {
		session->until_ns = now + LOOKS;
		outcome = command_continue(session);
	}
	if (session->task && outcome != COMMAND_AGAIN) {
		session_task_end(session);
	}
	return outcome;
}

/// In slices it answers the same; `least` of them are needed.
static void same(struct rig *rig, const char *line, unsigned times, unsigned least)
{
	struct request request;
	unsigned slices;
	request_make(&request, line, times);
	for (unsigned version = 2; version <= 3; version++) {
		rig->session->resp_version = (uint8_t)version;
		bool done = run(rig, &request, false, 1, &slices) == COMMAND_DONE;
		char *whole = taken(rig->session);
		done = run(rig, &request, true, 1000000, &slices) == COMMAND_DONE && done;
		char *cut = taken(rig->session);
		bool equal = whole && cut && strcmp(whole, cut) == 0 && whole[0] != 0;
		if (!ok(done && equal && slices >= least, "G: RESP%u, in slices: %s, %u times",
			version, line, times)) {
			tap_diag("%u slices; '%.200s' and '%.200s'", slices, whole, cut);
		}
		free(whole);
		free(cut);
	}
	rig->session->resp_version = 2;
}

static void test_same(void)
{
	struct rig rig;
	rig_open(&rig);
	same(&rig, "COMMAND", 1, 20);
	same(&rig, "COMMAND INFO", 1, 20);
	same(&rig, "COMMAND INFO client", 500, 100);
	same(&rig, "COMMAND INFO set no get nothing", 500, 100);
	same(&rig, "COMMAND DOCS", 1, 20);
	same(&rig, "COMMAND DOCS nothing get", 500, 100);
	same(&rig, "COMMAND LIST", 1, 20);
	same(&rig, "COMMAND LIST FILTERBY PATTERN *a*e*", 1, 20);
	same(&rig, "ACL CAT read", 1, 20);
	same(&rig, "COMMAND GETKEYS MGET a b", 3000, 10);
	same(&rig, "COMMAND GETKEYSANDFLAGS MGET a b", 3000, 10);
	same(&rig, "COMMAND GETKEYSANDFLAGS MSET a b", 3000, 10);
	same(&rig, "COMMAND GETKEYSANDFLAGS COPY a b x", 3000, 1);
	same(&rig, "COMMAND GETKEYSANDFLAGS BITFIELD a GET u8", 3000, 10);
	same(&rig, "COMMAND GETKEYSANDFLAGS SET a b EX", 3000, 10);
	same(&rig, "CONFIG GET *", 1, 1);
	same(&rig, "CONFIG GET *a*b*", 1000, 100);
	same(&rig, "CONFIG GET hz HZ max* nothing", 1000, 100);
	same(&rig, "LATENCY RESET nothing", 1000, 10);
	same(&rig, "INFO nothing", 1000, 10);
	same(&rig, "CLIENT KILL ID 1 ID 2 ID 3 USER nobody", 1, 1);
	same(&rig, "CLIENT KILL ID 77 SKIPME yes SKIPME no ID x", 1, 1);
	rig_close(&rig);
}

/// Runs something uncut on another connection, without its answer.
static void aside(struct rig *rig, const char *line)
{
	struct session *session = rig->session;
	struct request request;
	unsigned slices;
	int peer;
	request_make(&request, line, 1);
	rig->session = rig_connect(&peer);
	(void)run(rig, &request, false, 1, &slices);
	free(taken(rig->session));
	session_kill(rig->session, NULL);
	rig->session = session;
	session_shared_turn(sessions, now);
	close(peer);
}

/// Goes on with what was begun, to its end; the answer is the caller's to free.
static char *finish(struct rig *rig)
{
	enum command_outcome outcome = COMMAND_AGAIN;
	for (unsigned i = 0; outcome == COMMAND_AGAIN && i < 100000; i++) {
		rig->session->until_ns = now + LOOKS;
		outcome = command_continue(rig->session);
	}
	session_task_end(rig->session);
	return taken(rig->session);
}

static unsigned count_of(const char *text, const char *piece)
{
	unsigned count = 0;
	for (const char *at = text; at && (at = strstr(at, piece)) != NULL; at++) {
		count++;
	}
	return count;
}

static void test_info(void)
{
	struct rig rig;
	struct request request;
	unsigned slices;
	rig_open(&rig);
	aside(&rig, "PING");
	aside(&rig, "INFO");
	request_make(&request, "INFO commandstats errorstats keyspace", 1000);
	bool done = run(&rig, &request, true, 1000, &slices) == COMMAND_DONE;
	char *answer = taken(rig.session);
	ok(done && slices > 20 && count_of(answer, "cmdstat_ping:calls=1,") == 1 &&
		   count_of(answer, "cmdstat_") == 2 && count_of(answer, "# ") == 3,
	   "G: INFO in %u slices", slices);
	free(answer);
	rig_close(&rig);
}

#define MANY 60

static void test_client_list(void)
{
	struct rig rig;
	struct session *many[MANY];
	int peers[MANY];
	struct request request;
	unsigned slices;
	rig_open(&rig);
	for (int i = 0; i < MANY; i++) {
		many[i] = rig_connect(&peers[i]);
		(void)snprintf(many[i]->name, sizeof(many[i]->name), "number-%d-", i);
	}
	same(&rig, "CLIENT LIST TYPE pubsub", 1, 2);
	same(&rig, "CLIENT LIST ID 2 3 99 5", 1000, 10);
	same(&rig, "CLIENT LIST ID 2 3 99 x", 1, 1);
	request_make(&request, "CLIENT LIST", 1);
	ok_int(run(&rig, &request, true, 8, &slices), COMMAND_AGAIN, "CLIENT LIST is under way");
	for (int i = 10; i < 50; i++) { // where it stands, before and behind
		session_kill(many[i], NULL);
		session_shared_turn(sessions, now);
	}
	int late = -1;
	struct session *newest = rig_connect(&late);
	(void)snprintf(newest->name, sizeof(newest->name), "newest");
	char *list = finish(&rig);
	bool good = true;
	for (int i = 0; i < MANY; i++) {
		char name[40];
		(void)snprintf(name, sizeof(name), "name=number-%d- ", i);
		unsigned times = count_of(list, name);
		good = good && (i >= 10 && i < 50 ? times <= 1 : times == 1);
	}
	ok(good, "who is there all the time is listed once, who goes meanwhile at most once");
	ok_u64(count_of(list, "newest"), 0, "who came meanwhile is not waited for");
	ok_u64(session_count(sessions), MANY - 40 + 2, "those that went are gone");
	free(list);
	ok_int(run(&rig, &request, true, 3, &slices), COMMAND_AGAIN, "CLIENT LIST once more");
	session_kill(rig.session, NULL);
	session_shared_turn(sessions, now);
	unsigned left = 0;
	const struct session *at;
	struct session_walk walk = { 0 };
	while ((at = session_walk_next(sessions, &walk)) != NULL) {
		left += at->walks == 1;
	}
	ok_u64(left, session_count(sessions), "who asked and left stands nowhere any more");
	close(late);
	for (int i = 0; i < MANY; i++) {
		close(peers[i]);
	}
	rig_close(&rig);
}

static void test_client_kill(void)
{
	struct rig rig;
	int peers[MANY];
	struct request request;
	unsigned slices;
	rig_open(&rig);
	for (int i = 0; i < MANY; i++) {
		(void)rig_connect(&peers[i]);
	}
	request_make(&request, "CLIENT KILL TYPE normal SKIPME yes", 1);
	bool done = run(&rig, &request, true, 1000, &slices) == COMMAND_DONE;
	char *answer = taken(rig.session);
	ok(done && slices >= MANY / LOOKS && strcmp(answer, ":60\r\n") == 0,
	   "G: CLIENT KILL of %d in %u slices", MANY, slices);
	free(answer);
	session_shared_turn(sessions, now);
	ok_u64(session_count(sessions), 1, "all the others are closed");
	for (int i = 0; i < MANY; i++) {
		close(peers[i]);
	}
	rig_close(&rig);
}

static void test_slowlog(void)
{
	struct rig rig;
	struct request request;
	unsigned slices;
	rig_open(&rig);
	stats_settle_timing(&rig.kvd);
	for (int i = 0; i < 100; i++) {
		aside(&rig, "PING x");
	}
	ok_u64(rig.kvd.stats->slowlog.count, 100, "a hundred are noted");
	request_make(&request, "SLOWLOG GET -1", 1);
	rig.kvd.config.slowlog_us = -1; // nothing more
	bool done = run(&rig, &request, true, 1000, &slices) == COMMAND_DONE;
	char *answer = taken(rig.session);
	ok(done && slices >= 20 && strncmp(answer, "*100\r\n", 6) == 0 &&
		   count_of(answer, "PING") == 100,
	   "G: SLOWLOG GET in %u slices", slices);
	free(answer);
	(void)run(&rig, &request, true, 5, &slices);
	aside(&rig, "SLOWLOG RESET");
	answer = finish(&rig);
	unsigned told = count_of(answer, "PING");
	char head[16];
	(void)snprintf(head, sizeof(head), "*%u\r\n", told);
	ok(told > 0 && told < 100 && strstr(answer, head), "RESET in the middle ends it in order");
	free(answer);
	rig.kvd.config.slowlog_us = 0;
	for (int i = 0; i < 100; i++) {
		aside(&rig, "PING x");
	}
	rig.kvd.config.slowlog_us = -1;
	(void)run(&rig, &request, true, 5, &slices);
	slowlog_trim(&rig.kvd.stats->slowlog, 90, UINT64_MAX);
	answer = finish(&rig);
	ok(strstr(answer, "*90\r\n") && count_of(answer, "PING") == 90, "entries may go behind it");
	free(answer);
	request_make(&request, "SLOWLOG RESET", 1);
	done = run(&rig, &request, true, 1000, &slices) == COMMAND_DONE;
	free(taken(rig.session));
	ok(done && rig.kvd.stats->slowlog.count == 0, "G: SLOWLOG RESET in %u slices", slices);
	rig_close(&rig);
}

static void test_histogram(void)
{
	struct rig rig;
	struct request request;
	unsigned slices;
	rig_open(&rig);
	rig.kvd.config.latency_tracking = true;
	rig.kvd.config.slowlog_us = -1;
	aside(&rig, "PING");
	aside(&rig, "ECHO x");
	request_make(&request, "LATENCY HISTOGRAM ping nothing get echo", 200);
	(void)run(&rig, &request, true, 1, &slices); // known: who was timed now
	aside(&rig, "GET x");
	stats_reset(rig.kvd.stats);
	char *answer = finish(&rig);
	ok(strncmp(answer, "*402\r\n", 6) == 0 && count_of(answer, "$4\r\necho") == 200 &&
		   count_of(answer, "$3\r\nget") == 0 && count_of(answer, "histogram_usec") == 201,
	   "G: LATENCY HISTOGRAM tells as many as it said, whatever happens meanwhile");
	free(answer);
	rig_close(&rig);
}

int main(void)
{
	test_same();
	test_info();
	test_client_list();
	test_client_kill();
	test_slowlog();
	test_histogram();
	return tap_done();
}

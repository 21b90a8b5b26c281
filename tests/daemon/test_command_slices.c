// SPDX-License-Identifier: MIT
//
// Commands with thousands of names, patterns, filters or lines: cut anywhere they answer what they
// answer in one piece, and whoever leaves in the middle leaves nothing behind.
#include <stdlib.h>
#include <unistd.h>

#include "daemon/commands.h"
#include "daemon/keyspace_internal.h"
#include "daemon/pubsub_parts.h"
#include "shm/epoch.h"
#include "tests/daemon/cut_fixture.h"
#include "tests/tap/tap.h"

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

// ---- DEL of very many keys ----

#define DEL_KEYS 4000u

static char del_names[DEL_KEYS][204];
static int del_width = 1; // of a name, at least

// A command with all keys as its arguments, or with each of them alone.
static void request_keys(struct request *request, const char *command, unsigned keys)
{
	request_make(request, command, 1);
	for (unsigned i = 0; i < keys; i++) {
		int n = snprintf(del_names[i], sizeof(del_names[i]), "%0*u", del_width, i);
		request->argv[request->argc++] = (struct resp_arg){ del_names[i], (size_t)n };
	}
}

static unsigned set_keys(struct rig *rig, unsigned keys, size_t value_bytes)
{
	static const char value[4096];
	unsigned set = 0;
	for (unsigned i = 0; i < keys; i++) {
		int n = snprintf(del_names[i], sizeof(del_names[i]), "%0*u", del_width, i);
		set += keyspace_set(rig->kvd.keyspace, del_names[i], (size_t)n, value, value_bytes,
				    0, NULL) == KEYSPACE_OK;
	}
	return set;
}

static void test_del(void)
{
	struct rig rig;
	struct request request;
	unsigned slices;
	rig_open(&rig);
	ok_u64(set_keys(&rig, DEL_KEYS, 10), DEL_KEYS, "%u keys", DEL_KEYS);
	request_keys(&request, "DEL", 500);
	ok_int(run(&rig, &request, true, 1, &slices), COMMAND_DONE, "I: a DEL of 500 is not cut");
	free(taken(rig.session));
	request_keys(&request, "UNLINK", DEL_KEYS);
	ok_int(run(&rig, &request, true, 2, &slices), COMMAND_AGAIN, "G: one of %u is", DEL_KEYS);
	uint64_t left = keyspace_count(rig.kvd.keyspace);
	ok(left > 1000 && left < 3500, "some keys are gone");
	aside(&rig, "SET 3999 again");
	aside(&rig, "SET 501 again");
	char *answer = finish(&rig);
	ok(strcmp(answer, ":3500\r\n") == 0, "it tells how many it removed, at the end");
	ok_u64(keyspace_count(rig.kvd.keyspace), 1,
	       "what is written where it has been stays, what is written before it comes goes");
	free(answer);
	rig.kvd.config.atomic_keys_max = 3;
	request_keys(&request, "DEL", 9);
	ok_int(run(&rig, &request, false, 1, &slices), COMMAND_DONE, "a DEL needs not be atomic");
	free(taken(rig.session));
	rig_close(&rig);
}

// Where memory is full removals have one segment to begin with; what they remove makes room.
static void test_del_when_full(void)
{
	struct rig rig;
	struct request request;
	unsigned slices;
	del_width = 200;
	now += 1000000000; // the machine has run for a while
	rig_open(&rig);
	rig.kvd.config.write_wait_ms = 1000;
	unsigned set = set_keys(&rig, DEL_KEYS, 2500);
	ok(set < DEL_KEYS && set > 2000, "memory is full with %u keys", set);
	uint64_t last = keyspace_last_seq(rig.kvd.keyspace);
	request_keys(&request, "DEL", DEL_KEYS);
	enum command_outcome outcome = run(&rig, &request, true, 100000, &slices);
	char *answer = taken(rig.session);
	char expected[32];
	(void)snprintf(expected, sizeof(expected), ":%u\r\n", set);
	ok(outcome == COMMAND_DONE && strcmp(answer, expected) == 0,
	   "G: a DEL of more keys than the reserve holds goes through, in %u slices", slices);
	ok_u64(keyspace_count(rig.kvd.keyspace), 0, "all of them are gone");
	ok_u64(keyspace_last_seq(rig.kvd.keyspace) - last, set, "each once");
	del_width = 1;
	free(answer);
	rig_close(&rig);
}

// A part finds no room, and waits for some; or it waits in vain.
static void test_del_waits(void)
{
	struct rig rig;
	struct request request;
	static struct kvs_reader_page page;
	unsigned slices;
	int owner = 0;
	del_width = 200;
	rig_open(&rig);
	rig.kvd.config.write_wait_ms = 1000;
	rig.kvd.keyspace->block_on_stuck = true; // nobody revokes him
	struct kvs_epoch_page *entry = kvs_epoch_add(&rig.epochs, &page, &owner);
	unsigned set = set_keys(&rig, DEL_KEYS, 2500);
	(void)kvs_epoch_enter(&page.slot[0], &rig.region.header->hot, true);
	request_keys(&request, "DEL", DEL_KEYS);
	ok_int(run(&rig, &request, true, 1000, &slices), COMMAND_AGAIN,
	       "G: a DEL waits where a reader holds what it would use");
	uint64_t left = keyspace_count(rig.kvd.keyspace);
	ok(rig.session->is_resting && left > 0 && left < set, "having removed %u keys",
	   set - (unsigned)left);
	now += UINT64_C(2000000000);
	rig.session->until_ns = now + LOOKS;
	ok_int(command_continue(rig.session), COMMAND_DONE, "not for ever");
	session_task_end(rig.session);
	char *answer = taken(rig.session);
	ok(strncmp(answer, "-OOM", 4) == 0, "then it is refused");
	free(answer);
	ok_u64(keyspace_count(rig.kvd.keyspace), left, "what is gone stays gone");
	(void)kvs_epoch_leave(&page.slot[0], &rig.region.header->hot);
	ok_int(run(&rig, &request, true, 100000, &slices), COMMAND_DONE, "the next takes the rest");
	free(taken(rig.session));
	ok_u64(keyspace_count(rig.kvd.keyspace), 0, "all of it");
	del_width = 1;
	kvs_epoch_remove(&rig.epochs, entry);
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

static void subscribe(struct session *session, int number, bool ends)
{
	char name[40];
	(void)snprintf(name, sizeof(name), "number-%d-", number);
	if (ends) {
		pubsub_unsubscribe(session, PUBSUB_CHANNEL, name, strlen(name));
	} else {
		(void)pubsub_subscribe(session, PUBSUB_CHANNEL, name, strlen(name));
	}
}

/// How many places there are, with and without subscribers.
static size_t places(const struct rig *rig)
{
	size_t count = 0;
	const struct pubsub_topic *topic;
	TAILQ_FOREACH (topic, &rig->kvd.pubsub->topics[PUBSUB_CHANNEL], order) {
		count++;
	}
	return count;
}

static void test_channels(void)
{
	struct rig rig;
	int peer;
	struct request request;
	unsigned slices;
	rig_open(&rig);
	rig.kvd.config.buffers_bytes_max = 64u << 20;
	session_set_limits(sessions);
	struct session *other = rig_connect(&peer);
	for (int i = 0; i < MANY; i++) {
		subscribe(other, i, false);
	}
	same(&rig, "PUBSUB CHANNELS", 1, MANY / LOOKS);
	same(&rig, "PUBSUB CHANNELS *1*", 1, MANY / LOOKS);
	same(&rig, "PUBSUB CHANNELS nothing", 1, MANY / LOOKS);
	same(&rig, "PUBSUB SHARDCHANNELS", 1, 1);
	same(&rig, "PUBSUB CHANNELS a b c", 1, 1);
	same(&rig, "PUBSUB NUMSUB", 1, 1);
	same(&rig, "PUBSUB NUMSUB nothing number-3-", 1000, 10);
	same(&rig, "PUBSUB SHARDNUMSUB nothing number-3-", 1000, 10);
	request_make(&request, "PUBSUB CHANNELS", 1);
	ok_int(run(&rig, &request, true, 5, &slices), COMMAND_AGAIN, "CHANNELS is under way");
	for (int i = 10; i < 50; i++) { // where it stands, before and behind
		subscribe(other, i, true);
	}
	subscribe(other, MANY, false);
	subscribe(other, 19, false); // again, where it stood: another one
	char *list = finish(&rig);
	bool good = true;
	for (int i = 0; i < MANY; i++) {
		char name[40];
		(void)snprintf(name, sizeof(name), "\nnumber-%d-\r", i);
		unsigned times = count_of(list, name);
		good = good && (i >= 10 && i < 50 ? times <= 1 : times == 1);
	}
	ok(good, "G: a channel that is there all the time is told once, others at most once");
	ok_u64(count_of(list, "number-60-"), 0, "one that came meanwhile is not");
	free(list);
	ok_u64(places(&rig), 22, "those that went are gone");
	ok_int(run(&rig, &request, true, 3, &slices), COMMAND_AGAIN, "CHANNELS once more");
	session_kill(other, NULL);
	session_shared_turn(sessions, now);
	pubsub_turn(&rig.kvd, 0);
	ok_u64(places(&rig), 1, "where it stands a place is kept");
	session_kill(rig.session, NULL);
	session_shared_turn(sessions, now);
	ok_u64(places(&rig), 0, "who asked and left stands nowhere any more");
	close(peer);
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
	rig.kvd.config.slowlog_us = 0;
	for (int i = 0; i < 100; i++) { // where the others stood in memory
		aside(&rig, "ECHO x");
	}
	rig.kvd.config.slowlog_us = -1;
	answer = finish(&rig);
	ok_u64(count_of(answer, "ECHO"), 0, "what was noted behind a RESET is not told");
	aside(&rig, "SLOWLOG RESET");
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
	test_del();
	test_del_when_full();
	test_del_waits();
	test_client_list();
	test_client_kill();
	test_channels();
	test_slowlog();
	test_histogram();
	return tap_done();
}

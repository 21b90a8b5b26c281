// SPDX-License-Identifier: MIT
//
// A: whoever is told that a key has changed finds the change. Sessions, commands and keyspace are
// real; the linker puts a wrapper where a message to a tracking client begins, which looks into the
// region then, as another process would, and once more when the command is over.
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/commands.h"
#include "daemon/courier.h"
#include "daemon/events.h"
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"
#include "daemon/loop.h"
#include "daemon/pubsub.h"
#include "daemon/session_push.h"
#include "daemon/tracking.h"
#include "shm/crc32c.h"
#include "shm/epoch_scan.h"
#include "shm/region.h"
#include "shm/table.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)
#define SEGMENT_BYTES (64u << 10)
#define SEEN_MAX 16u

static struct kvd kvd;
static struct kvs_region region;
static struct kvs_epoch_domain epochs;
static struct session_shared *sessions;
static struct session *session;

/// What a reader finds.
struct seen {
	uint64_t applied_seq;
	uint64_t keys[3]; // of each: 0 = absent, else from its value and its end
};

static struct seen seen[SEEN_MAX]; // when messages began
static unsigned seen_count;

static struct seen look(void)
{
	static const char *const names[] = { "a", "b", "c" };
	struct seen now = {
		.applied_seq = kvs_load_acquire(&region.header->marks.applied_seq),
	};
	for (unsigned i = 0; i < 3; i++) {
		struct kvs_hit hit;
		uint64_t hash = keyspace_hash(kvd.keyspace, names[i], 1);
		if (kvs_table_find(&region.map, hash, names[i], 1, &hit) == KVS_FIND_HIT &&
		    hit.kind != KVS_ENTRY_TOMBSTONE) {
			uint32_t crc = kvs_crc32c(0, hit.view.payload, hit.view.value_bytes);
			now.keys[i] = (UINT64_C(1) << 63) + crc * UINT64_C(3) + hit.view.expiry_ms;
		}
	}
	return now;
}

void __real_session_push_begin(struct session *to, size_t count);
void __wrap_session_push_begin(struct session *to, size_t count);
void __wrap_session_push_begin(struct session *to, size_t count)
{
	if (seen_count < SEEN_MAX) {
		seen[seen_count++] = look();
	}
	__real_session_push_begin(to, count);
}

static void start(void)
{
	static struct kvs_region_options options = {
		.memory_bytes = MEMORY_BYTES,
		.memory_bytes_max = MEMORY_BYTES,
		.segment_bytes = SEGMENT_BYTES,
		.instance_id = 1,
		.hash_key = { 1 },
		.fenced = true,
	};
	int pair[2];
	kvd.seam = &seam_system;
	kvd.config.memory_bytes = MEMORY_BYTES;
	kvd.config.output_bytes_max = 64u << 20;
	if (kvs_region_create(&region, &options) != KVS_REGION_OK) {
		abort();
	}
	kvs_epoch_init(&epochs, &region.header->hot, true);
	struct keyspace_options keyspace = {
		.seam = &seam_system,
		.region = &region,
		.epochs = &epochs,
		.revoke_ms = 5000,
		.revoke_min_ms = 50,
		.value_bytes_max = 1u << 20,
	};
	kvd.keyspace = keyspace_create(&keyspace);
	(void)keyspace_recover_finish(kvd.keyspace, 0, false);
	kvs_region_go_alive(&region);
	kvd.stats = stats_create(&kvd);
	if (loop_create(&kvd.loop, &seam_system) != 0 || kvd.stats == NULL ||
	    !events_create(&kvd) || !pubsub_create(&kvd) || !tracking_create(&kvd) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
		abort();
	}
	sessions = session_shared_create(&kvd, NULL);
	session = session_open(sessions, pair[0]);
	if (session == NULL) {
		abort();
	}
	(void)close(pair[1]); // nothing is sent: what is answered is thrown away
}

static void stop(void)
{
	session_shared_destroy(sessions);
	tracking_destroy(&kvd);
	pubsub_destroy(&kvd);
	events_destroy(&kvd);
	stats_destroy(kvd.stats);
	loop_destroy(kvd.loop);
	keyspace_destroy(kvd.keyspace);
	kvs_epoch_fini(&epochs);
	kvs_region_close(&region);
}

/// Runs commands that are separated by ';', with single spaces between their words.
static void run(const char *lines)
{
	while (*lines) {
		struct resp_arg argv[8];
		uint32_t argc = 0;
		size_t end = strcspn(lines, ";");
		for (size_t at = 0; at < end && argc < 8;) {
			size_t bytes = strcspn(lines + at, " ;");
			argv[argc++] = (struct resp_arg){ lines + at, bytes };
			at += bytes + (lines[at + bytes] == ' ');
		}
		if (command_dispatch(&kvd, session, argv, argc) != COMMAND_DONE) {
			tap_diag("not done: %s", lines);
		}
		(void)courier_turn(&kvd, 0);
		session->output_end = session->output_sent;
		lines += end + (lines[end] == ';');
	}
}

static void test_after_publish(const char *lines, unsigned messages)
{
	run("FLUSHALL;SET a 1;SET b 2;EXPIRE b 1000;GET a;GET b;GET c");
	seen_count = 0;
	run(lines);
	struct seen now = look();
	unsigned early = 0;
	for (unsigned i = 0; i < seen_count; i++) {
		early += memcmp(&seen[i], &now, sizeof(now)) != 0;
	}
	ok(early == 0 && seen_count >= messages, "A: %s: %u messages, all behind the change", lines,
	   seen_count);
}

int main(void)
{
	start();
	run("HELLO 3;CLIENT TRACKING ON");
	ok(tracking_flags(session) == TRACKING_ON, "it tracks");
	test_after_publish("SET a x", 1);
	test_after_publish("SET a x XX GET", 1);
	test_after_publish("SETEX a 100 x", 1);
	test_after_publish("PSETEX a 100000 x", 1);
	test_after_publish("SETNX c x", 1);
	test_after_publish("GETSET a x", 1);
	test_after_publish("MSET a x b y c z", 3);
	test_after_publish("MSETNX c z", 1);
	test_after_publish("INCR a", 1);
	test_after_publish("INCRBYFLOAT a 1.5", 1);
	test_after_publish("APPEND a x", 1);
	test_after_publish("SETRANGE a 1 x", 1);
	test_after_publish("SETBIT a 1 1", 1);
	test_after_publish("BITFIELD a SET u8 0 9", 1);
	test_after_publish("BITOP NOT c a", 1);
	test_after_publish("DEL a b", 2);
	test_after_publish("UNLINK a", 1);
	test_after_publish("GETDEL a", 1);
	test_after_publish("DELIFEQ a 1", 1);
	test_after_publish("EXPIRE a 100", 1);
	test_after_publish("PERSIST b", 1);
	test_after_publish("GETEX a EX 100", 1);
	test_after_publish("RENAME a c", 2);
	test_after_publish("COPY a c", 1);
	test_after_publish("FLUSHALL", 1);
	test_after_publish("MULTI;SET a x;DEL b;SET c z;EXEC", 3);
	test_after_publish("MULTI;SET a x;FLUSHALL;SET c z;EXEC", 1);
	stop();
	return tap_done();
}

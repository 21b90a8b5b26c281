// SPDX-License-Identifier: MIT
//
// The persister's thread: when it commits, what it leaves out, what it says when the disk is full
// and that it goes on by itself. E: what was reported durable is in the store.
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/daemon/persist_thread.h"

struct found {
	uint64_t records;
	uint64_t last_seq;
	uint64_t place_of_seq[1 << 16]; // by seq modulo
};

static int look(void *context, const struct kvs_record_view *view, const void *value,
		uint64_t place)
{
	struct found *found = context;
	(void)value;
	found->records++;
	found->last_seq = view->seq > found->last_seq ? view->seq : found->last_seq;
	found->place_of_seq[view->seq & 0xffff] = place;
	return 0;
}

static void look_into(const char *dir, struct found *found)
{
	memset(found, 0, sizeof(*found));
	struct store *store = fixture_store(dir);
	struct store_walk walk = { .record = look, .context = found, .check_records = true };
	if (store_recover(store, &walk) != STORE_OK) {
		tap_diag("%s", store_why(store));
	}
	store_close(store);
}

static struct found found;

// A lone client gets one commit a write, without waiting for company.
static void test_group(const char *dir)
{
	struct life life;
	struct life_options options = options_of(dir, PERSIST_GROUP);
	life_begin(&life, &options);
	bool durable = true;
	uint64_t seq = 0;
	for (unsigned i = 0; i < 40; i++) {
		seq = set(&life, i, i, 64);
		persist_request(life.persist, seq);
		durable = durable && life_wait(&life, seq);
	}
	ok(durable, "each of 40 writes becomes durable before the next");
	ok_u64(life_counter(&life, KVS_COUNTER_commits), 40, "by a commit of its own");
	ok_u64(life_counter(&life, KVS_COUNTER_commit_records), 40, "of one record");
	ok_u64(kvs_load_relaxed_32(&life.region.header->marks.notify), 40, "each notified");
	for (unsigned i = 0; i < 5000; i++) {
		seq = set(&life, i, i, 64);
	}
	persist_request(life.persist, seq);
	ok(life_wait(&life, seq), "5000 writes at once become durable");
	ok(life_counter(&life, KVS_COUNTER_commits) < 60, "by few commits");
	ok_int(life_end(&life), 0, "stopped");
	look_into(dir, &found);
	ok_u64(found.last_seq, seq, "the store holds the last of them");
	ok_u64(found.records, 5040, "and every one: group leaves nothing out");
}

// Lazy: nothing before its time unless someone asks; only the last version of a key is written.
static void test_lazy(const char *dir)
{
	struct life life;
	struct life_options options = options_of(dir, PERSIST_LAZY);
	life_begin(&life, &options);
	uint64_t seq = 0;
	for (unsigned i = 0; i < 1000; i++) {
		seq = set(&life, i % 10, i, 100);
		persist_notice(life.persist);
	}
	ok_u64(life_counter(&life, KVS_COUNTER_commits), 0, "noticed work waits for its time");
	persist_request(life.persist, seq);
	ok(life_wait(&life, seq), "unless someone asks for it");
	ok_u64(life_counter(&life, KVS_COUNTER_commit_records), 10, "one record a key is written");
	ok_u64(life_counter(&life, KVS_COUNTER_commit_skipped_records), 990, "the others are not");
	seq = set(&life, 3, 1, 100);
	persist_notice(life.persist);
	ok_int(life_end(&life), 0, "stopped");
	look_into(dir, &found);
	ok_u64(found.last_seq, seq, "stopping makes everything durable");

	options.lazy_bytes = 100000;
	life_begin(&life, &options);
	uint64_t first = set(&life, 0, 0, 100);
	for (unsigned i = 1; i < 1500; i++) {
		seq = set(&life, i, i, 100);
	}
	persist_notice(life.persist);
	// The persister may look while they are written; what comes after that look waits.
	ok(life_wait(&life, first), "lazy_bytes is a reason to commit, too");
	ok_int(life_end(&life), 0, "stopped");

	options.lazy_bytes = UINT64_MAX;
	options.lazy_ms = 20;
	life_begin(&life, &options);
	seq = set(&life, 1, 2, 100);
	persist_notice(life.persist);
	ok(life_wait(&life, seq), "and so is lazy_ms");
	ok_int(life_end(&life), 0, "stopped");
}

// A full disk: waiters are told, nothing is lost, and with room it goes on by itself.
static void test_full(const char *dir)
{
	struct life life;
	struct life_options options = options_of(dir, PERSIST_GROUP);
	struct rlimit before;
	(void)signal(SIGXFSZ, SIG_IGN);
	if (getrlimit(RLIMIT_FSIZE, &before) != 0) {
		tap_skip("no file size limit here");
		return;
	}
	life_begin(&life, &options);
	struct rlimit tight = { .rlim_cur = 400u << 10, .rlim_max = before.rlim_max };
	bool limited = setrlimit(RLIMIT_FSIZE, &tight) == 0;
	uint64_t seq = 0;
	uint64_t good_seq = 0;
	bool failed = false;
	for (unsigned i = 0; limited && i < 2000 && !failed; i++) {
		seq = set(&life, i, i, 3000);
		persist_request(life.persist, seq);
		failed = !life_wait(&life, seq);
		good_seq = failed ? good_seq : seq;
	}
	ok(failed, "a write is told that it is not durable");
	const char *why = "";
	ok(persist_degraded(life.persist, &why), "the state is degraded");
	ok(strstr(why, dir) != NULL && strstr(why, "LimitFSIZE") != NULL, "and says why: %s", why);
	ok(life_counter(&life, KVS_COUNTER_commits_failed) > 0, "the failure is counted");
	ok(life_durable_seq(&life) == good_seq, "durable_seq stands at the last good commit");
	if (setrlimit(RLIMIT_FSIZE, &before) != 0) {
		tap_diag("the limit stays");
	}
	uint64_t next = set(&life, 1, 1, 10);
	persist_request(life.persist, next);
	ok(life_wait(&life, next), "with room the next write is durable");
	ok(life_durable_seq(&life) >= seq, "and so is the one that was not");
	ok(!persist_degraded(life.persist, &why), "the state is good again");
	ok_int(life_end(&life), 0, "stopped");
	look_into(dir, &found);
	ok_u64(found.last_seq, next, "the store has them");

	life_begin(&life, &options);
	limited = setrlimit(RLIMIT_FSIZE, &tight) == 0;
	(void)set(&life, 1, 1, 2000000);
	ok_int(life_end(&life), limited ? STORE_NO_SPACE : STORE_OK,
	       "stopping without room says so");
	(void)setrlimit(RLIMIT_FSIZE, &before);
}

static int ignore_record(void *context, const struct kvs_record_view *view, const void *value,
			 uint64_t place)
{
	(void)context;
	(void)view;
	(void)value;
	(void)place;
	return 0;
}

// Turns a byte of block `number` round, behind LMDB's back.
static bool damage_block(const char *dir, uint64_t number)
{
	char path[FIXTURE_PATH_BYTES + 32];
	static _Alignas(8) unsigned char page[4096];
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned done = 0;
	for (off_t at = 0; fd >= 0 && pread(fd, page, sizeof(page), at) == (ssize_t)sizeof(page);
	     at += (off_t)sizeof(page)) {
		struct store_block_header header;
		memcpy(&header, page + 16, sizeof(header));
		if (header.marker == STORE_BLOCK_MARKER && header.number == number) {
			unsigned char byte = page[1000] ^ 1;
			done += pwrite(fd, &byte, 1, at + 1000) == 1;
		}
	}
	if (fd >= 0) {
		(void)close(fd);
	}
	return done > 0;
}

// Waits until the store is written anew.
static bool wait_until_renewed(struct life *life)
{
	const char *why;
	uint64_t count;
	struct pollfd wake = { .fd = life->wake_fd, .events = POLLIN };
	while (persist_degraded(life->persist, &why)) {
		if (poll(&wake, 1, 100000) != 1 ||
		    read(life->wake_fd, &count, sizeof(count)) != sizeof(count)) {
			return false;
		}
	}
	return true;
}

// An old block cannot be read: what is new is written all the same, and nothing else is said, as
// long as the store cannot be written anew.
static void test_uncompacted(const char *dir)
{
	struct life life;
	char blocker[FIXTURE_PATH_BYTES + 32];
	(void)snprintf(blocker, sizeof(blocker), "%s/store.new", dir);
	int blocking = open(blocker, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct life_options options = options_of(dir, PERSIST_GROUP);
	struct rlimit before;
	const char *why = "";
	if (getrlimit(RLIMIT_FSIZE, &before) != 0) {
		tap_skip("no file size limit here");
		return;
	}
	options.floor_bytes = 400u << 10;
	life_begin(&life, &options);
	uint64_t seq = 0;
	for (unsigned i = 0; i < 100; i++) {
		seq = set(&life, i, i, 3000);
	}
	persist_request(life.persist, seq);
	ok(life_wait(&life, seq) && damage_block(dir, 1), "the first block is damaged");
	bool durable = true;
	for (unsigned i = 0; i < 200; i++) {
		seq = set(&life, i % 10, i, 3000);
		persist_set_live_bytes(life.persist, keyspace_live_bytes(life.keyspace));
		persist_request(life.persist, seq);
		durable = durable && life_wait(&life, seq);
	}
	ok(durable, "E: writes are durable");
	bool degraded = persist_degraded(life.persist, &why);
	ok(degraded && persist_uncompacted(life.persist) && strstr(why, "damaged") != NULL,
	   "only compaction rests: %s", why);
	struct rlimit tight = { .rlim_cur = 100, .rlim_max = before.rlim_max };
	bool limited = setrlimit(RLIMIT_FSIZE, &tight) == 0;
	seq = set(&life, 1, 1, 3000);
	persist_request(life.persist, seq);
	ok(limited && !life_wait(&life, seq) && persist_degraded(life.persist, &why) &&
		   !persist_uncompacted(life.persist) && strstr(why, "LimitFSIZE") != NULL,
	   "what else fails is told: %s", why);
	ok(life_counter(&life, KVS_COUNTER_unpersisted_bytes) > 3000, "and how much waits");
	(void)setrlimit(RLIMIT_FSIZE, &before);
	seq = set(&life, 1, 2, 3000);
	persist_request(life.persist, seq);
	ok(life_wait(&life, seq) && persist_uncompacted(life.persist) &&
		   persist_degraded(life.persist, &why) && strstr(why, "damaged") != NULL,
	   "and after that the damage again: %s", why);
	ok_u64(life_counter(&life, KVS_COUNTER_unpersisted_bytes), 0, "nothing waits");
	ok(blocking >= 0 && close(blocking) == 0 && unlink(blocker) == 0 &&
		   wait_until_renewed(&life) && persist_renewals(life.persist) == 1,
	   "E: it is written anew as soon as it can be");
	seq = set(&life, 1, 3, 3000);
	persist_request(life.persist, seq);
	ok(life_wait(&life, seq) && !persist_degraded(life.persist, &why), "and all is well");
	ok_int(life_end(&life), 0, "stopped");
	struct store *store = fixture_store(dir);
	struct store_walk walk = { .record = ignore_record, .check_records = true };
	ok_int(store_recover(store, &walk), STORE_OK, "the next life can read all of it");
	store_close(store);
}

// A line of a thread's file in /proc, "" if there is none.
static void thread_line(const char *thread, const char *file, const char *start, char line[256])
{
	char path[320];
	(void)snprintf(path, sizeof(path), "/proc/self/task/%s/%s", thread, file);
	FILE *lines = fopen(path, "re");
	bool is_found = false;
	while (lines != NULL && !is_found && fgets(line, 256, lines) != NULL) {
		is_found = strncmp(line, start, strlen(start)) == 0;
	}
	if (lines != NULL) {
		(void)fclose(lines);
	}
	if (!is_found) {
		line[0] = '\0';
	}
}

// The persister's thread gets no signal: they are the loop's, and SIGXFSZ is nobody's death.
static void test_signals(const char *dir)
{
	struct life life;
	struct life_options options = options_of(dir, PERSIST_GROUP);
	life_begin(&life, &options);
	uint64_t seq = set(&life, 1, 1, 64);
	persist_request(life.persist, seq);
	ok(life_wait(&life, seq), "it runs");
	uint64_t blocked = 0;
	unsigned threads = 0;
	DIR *tasks = opendir("/proc/self/task");
	const struct dirent *task;
	while (tasks != NULL && (task = readdir(tasks)) != NULL) {
		char line[256];
		thread_line(task->d_name, "comm", "kvd-persist", line);
		if (line[0] != '\0') {
			threads++;
			thread_line(task->d_name, "status", "SigBlk:", line);
			blocked = line[0] != '\0' ? strtoull(line + 7, NULL, 16) : 0;
		}
	}
	if (tasks != NULL) {
		(void)closedir(tasks);
	}
	ok_u64(threads, 1, "one thread of that name");
	static const int signals[] = { SIGXFSZ, SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGUSR1 };
	unsigned open = 0;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		open += (blocked >> (signals[i] - 1) & 1) == 0;
	}
	ok_u64(open, 0, "D: no signal reaches it (%" PRIx64 ")", blocked);
	ok_int(life_end(&life), 0, "stopped");
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	static void (*const tests[])(const char *dir) = { test_group, test_lazy, test_full,
							  test_uncompacted, test_signals };
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		char dir[FIXTURE_PATH_BYTES];
		fixture_dir(dir);
		tests[i](dir);
		fixture_remove(dir);
	}
	return tap_done();
}

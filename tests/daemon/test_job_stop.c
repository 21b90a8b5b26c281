// SPDX-License-Identifier: MIT
//
// A backup or a verification that is asked to stop, wherever it is: it ends within a transaction's
// work, says why, and leaves nothing (G). What holds back the log says how far it has come.
#include "daemon/job.h"

#include <sys/wait.h>

#include "tests/daemon/job_fixture.h"

static void test_told_to_stop(enum job_kind kind, const char *name)
{
	struct job job;
	begin_job(&job, kind);
	job.cancelled = 1;
	refuses(&job, "cancelled", name);
	begin_job(&job, kind);
	job.follower.give_up = 1;
	refuses(&job, "writes come faster", name);
	begin_job(&job, kind);
	job.asked_ns = 0;
	refuses(&job, "nobody asks", name);
}

// ---- a backup that has much to do ---------------------------------------------------------------

// More than two transactions of it.
static void put_much(void)
{
	for (unsigned number = 1000; number < 1060; number++) {
		put(number, LARGE_BYTES);
	}
}

// Writes it in memory, as much of it in the log, and what it makes of both is read for its sum.
static void back_up_much(struct job *job, bool in_log)
{
	bool whole;
	begin_job(job, JOB_BACKUP);
	if (in_log) {
		put_much();
	}
	(void)job_backup(job);
	(void)take_backups(&whole);
}

static struct job *watched;
static unsigned cancel_at_sync;
static uint64_t passed_seq;   // of what it follows, at the last sync
static unsigned passed_steps; // how often it had risen
static bool holds_nothing;    // once it is written

static bool is_at_sync(void)
{
	return syncs == cancel_at_sync;
}

static bool is_being_sealed(void)
{
	// Relaxed: this thread's own, as below.
	bool is_sealing = kvs_load_relaxed(&watched->phase) == JOB_SEALING;
	holds_nothing = kvs_load_relaxed(&watched->follower.passed_seq) == UINT64_MAX;
	return is_sealing;
}

static void note_passed(void)
{
	uint64_t seq = kvs_load_relaxed(&watched->follower.passed_seq);
	passed_steps += seq > passed_seq;
	passed_seq = seq;
}

static void test_holds_back(bool in_log)
{
	struct job job;
	passed_steps = 0;
	passed_seq = UINT64_MAX;
	watched = &job;
	meanwhile = note_passed;
	back_up_much(&job, in_log);
	meanwhile = NULL;
	uint64_t last_seq = keyspace_last_seq(life.keyspace);
	end_job(&job);
	ok(passed_steps >= (in_log ? 3 : 0) && passed_seq == last_seq,
	   "what is read of the log is let go in %u steps, before all is written", passed_steps);
}

static void test_stops_soon(bool in_log)
{
	const char *name = in_log ? "memory and log" : "memory";
	struct job job;
	unsigned more = 0;
	back_up_much(&job, in_log);
	end_job(&job);
	unsigned all = syncs;
	for (cancel_at_sync = 1; cancel_at_sync <= all; cancel_at_sync += tap_step(1, 3)) {
		cancels = is_at_sync;
		back_up_much(&job, in_log);
		more = syncs > cancel_at_sync + more ? syncs - cancel_at_sync : more;
		end_job(&job);
	}
	ok(all > 5 && more <= 1, "%s: cancelled at each of %u syncs of data: %u more", name, all,
	   more);
	watched = &job;
	cancels = is_being_sealed;
	back_up_much(&job, in_log);
	ok(strcmp(job.error, "cancelled") == 0 && calls - cancelled_at < 5,
	   "%s: as it is summed: %u more calls", name, calls - cancelled_at);
	ok(holds_nothing, "which holds nothing back any more");
	end_job(&job);
}

// ---- a child that hangs ----

static enum job_phase cancel_phase;
static unsigned cancel_calls; // in that phase, before it is cancelled

static bool is_in_phase(void)
{
	bool is_there = kvs_load_relaxed(&watched->phase) == cancel_phase; // our own
	return is_there && cancel_calls-- == 0;
}

// Whoever is not there any more was waited for, and need not have been for long: it was killed.
static bool has_no_child(void)
{
	return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
}

static void test_child_hangs(enum job_kind kind, enum job_phase phase, unsigned waits,
			     const char *name)
{
	struct job job;
	(void)setenv(CHILD_DOES, "hangs", 1);
	begin_job(&job, kind);
	watched = &job;
	cancel_phase = phase;
	cancel_calls = waits;
	cancels = is_in_phase;
	refuses(&job, "cancelled", name);
	ok(has_no_child(), "its child is gone");
	(void)unsetenv(CHILD_DOES);
}

static void test_children_hang(void)
{
	test_child_hangs(JOB_BACKUP, JOB_READING_BACK, 3, "what reads a backup hangs");
	test_child_hangs(JOB_VERIFY, JOB_READING_STORE, 3, "what reads the store hangs");
	// More than a pipe takes.
	for (unsigned number = 0; number < 30000; number++) {
		put(number + 100000, 8);
	}
	test_child_hangs(JOB_VERIFY, JOB_READING_MEMORY, 10, "what is sent to it is not read");
}

// ---- a backup that waits ------------------------------------------------------------------------

// What becomes of it at the third wait.
enum third { IT_IS_PUBLISHED, IT_IS_CANCELLED, IT_GOES_ON };

static struct {
	uint64_t published; // the log's word behind what the walk meets
	enum third third;
	unsigned waits;
} unpublished;

static void waited(void)
{
	if (++unpublished.waits == 3 && unpublished.third == IT_IS_PUBLISHED) {
		// Release: as the writer (partner: kvs_log_published()).
		kvs_store_release(&life.keyspace->log.published, unpublished.published);
	} else if (unpublished.waits == 3 && unpublished.third == IT_IS_CANCELLED) {
		cancel_now();
	}
}

// Entries are published before the log is, so the walk meets what the log does not have yet.
static bool back_up_unpublished(struct job *job, enum third third)
{
	uint64_t *published = &life.keyspace->log.published;
	begin_job(job, JOB_BACKUP);
	uint64_t before = kvs_load_relaxed(published); // our own
	put(5, 2000);
	unpublished.published = kvs_load_relaxed(published); // the same
	unpublished.third = third;
	unpublished.waits = 0;
	kvs_store_release(published, before); // partner: kvs_log_published()
	at_wait = waited;
	bool refused;
	bool sound = backup_is_sound(job, &refused);
	at_wait = NULL;
	kvs_store_release(published, unpublished.published); // partner: kvs_log_published()
	return sound && refused == (third != IT_IS_PUBLISHED);
}

static void test_waits(void)
{
	struct job job;
	char version[64];
	bool good = back_up_unpublished(&job, IT_IS_PUBLISHED);
	ok(good && unpublished.waits == 3, "E: a backup waits for what is being published: %s",
	   job.error);
	(void)snprintf(version, sizeof(version), "\"version\":%llu,",
		       (unsigned long long)keyspace_last_seq(life.keyspace));
	ok(strstr(job.result.data, version) != NULL, "and has it: %s", job.result.data);
	end_job(&job);
	ok(back_up_unpublished(&job, IT_IS_CANCELLED) && strcmp(job.error, "cancelled") == 0,
	   "one that is cancelled meanwhile ends: %s", job.error);
	ok_u64(unpublished.waits, 3, "at once");
	end_job(&job);
	ok(back_up_unpublished(&job, IT_GOES_ON) && strstr(job.error, "never published") != NULL,
	   "and what never comes is not waited for: %s", job.error);
	end_job(&job);
}

// Behind its last record the log has zeroes, which are none.
static void test_damaged_log(void)
{
	struct job job;
	uint64_t *published = &life.keyspace->log.published;
	begin_job(&job, JOB_BACKUP);
	uint64_t before = kvs_load_relaxed(published); // our own
	kvs_store_release(published, before + 64);     // partner: kvs_log_published()
	refuses(&job, "the log in memory is damaged", "a log that is no log");
	kvs_store_release(published, before); // the same
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_child(argc, argv, &code)) {
		return code;
	}
	(void)sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
	begin_life();
	test_told_to_stop(JOB_BACKUP, "a backup");
	test_told_to_stop(JOB_VERIFY, "a verification");
	test_waits();
	test_damaged_log();
	test_children_hang();
	put_much();
	for (int in_log = 0; in_log < 2; in_log++) {
		test_stops_soon(in_log != 0);
		test_holds_back(in_log != 0);
	}
	(void)life_end(&life);
	fixture_remove(dir);
	return tap_done();
}

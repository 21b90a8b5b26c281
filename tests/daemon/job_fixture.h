// SPDX-License-Identifier: MIT
//
// A life with some keys, jobs of it that run on the test's own thread, and the child that reads the
// store for them, which is the test program itself and may do anything.
#pragma once

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>

#include "daemon/job_internal.h"
#include "daemon/storage/seal.h"
#include "daemon/storage/verify.h"
#include "shm/hash.h"
#include "tests/daemon/job_shims.h"
#include "tests/daemon/persist_fixture.h"

#define KEYS 300u
#define LARGE_BYTES 300000u
#define CHILD_DOES "KVD_TEST_CHILD" // what the reader of the store does instead

static struct life life;
static char dir[FIXTURE_PATH_BYTES];

// ---- the child ----------------------------------------------------------------------------------

static int misbehave(const char *how, char **argv)
{
	char unused[4096];
	if (strcmp(how, "ends at once") == 0) {
		return VERIFY_GOOD;
	}
	if (strcmp(how, "hangs") == 0) {
		(void)sleep(60); // who waits for it waits so long
		return VERIFY_GOOD;
	}
	while (strcmp(argv[3], "compare") == 0 && strcmp(how, "talks nonsense") != 0 &&
	       fread(unused, 1, sizeof(unused), stdin) > 0) {
	}
	if (strncmp(how, "finds once ", 11) == 0) { // and leaves a file as it does
		int fd = open(how + 11, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		puts(fd >= 0 ? "extra 6e6f 1\ndamaged 0\ndone 1 1 1 1 1"
			     : "damaged 0\ndone 1 1 1 1 1");
		return VERIFY_GOOD;
	}
	if (strcmp(how, "crashes") == 0 || strcmp(how, "is killed") == 0) {
		struct rlimit no_core = { 0, 0 };
		(void)setrlimit(RLIMIT_CORE, &no_core);
		int number = strcmp(how, "crashes") == 0 ? SIGSEGV : SIGKILL;
		(void)sigaction(SIGSEGV, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
		(void)raise(number);
	} else if (strcmp(how, "fails") == 0) {
		puts("failed no reason at all");
		return VERIFY_FAILED;
	} else if (strcmp(how, "says nothing") == 0) {
		return VERIFY_GOOD;
	} else if (strcmp(how, "finds another value") == 0) {
		puts("extra 6e6f 1\ndamaged 0\ndone 1 1 1 1 1");
		return VERIFY_GOOD;
	} else if (strcmp(how, "finds a newer value") == 0) {
		puts("extra 6b3939 9999999999\ndamaged 0\ndone 1 1 1 1 1"); // of k99
		return VERIFY_GOOD;
	} else if (strcmp(how, "finds damage") == 0) {
		puts("damage 7 9 6b31 as it says\ndamage 7 9 - and so on\ndamaged 2\n"
		     "done 1 1 1 1 1");
		return VERIFY_DAMAGED;
	} else if (strncmp(how, "misses ", 7) == 0) {
		printf("missing %s\nmissing 1 1\nmissing 18446744073709551615 1\ndamaged 0\n"
		       "done 1 1 1 1 1\n",
		       how + 7);
		return VERIFY_GOOD;
	} else if (strcmp(how, "talks nonsense") == 0) {
		for (unsigned i = 0; i < 5000; i++) {
			(void)fputs("never ending ", stdout);
		}
		puts("\nword\ndamage 1\ndamage 1 2\nmissing x\nextra\nextra 6\nextra zz 1\n"
		     "extra 6 1\nmissing 17 18446744073709551615\nprogress 1\ndone 1 2\nextra  1");
	}
	(void)fflush(stdout);
	return store_verify_child(argv[2], argv[3]);
}

static bool fixture_is_child(int argc, char **argv, int *code)
{
	if (argc != 4 || strcmp(argv[1], VERIFY_OPTION) != 0) {
		return false;
	}
	const char *how = getenv(CHILD_DOES);
	*code = how != NULL ? misbehave(how, argv) : store_verify_child(argv[2], argv[3]);
	return true;
}

// ---- a job --------------------------------------------------------------------------------------

static void put(unsigned number, size_t value_bytes)
{
	static unsigned char value[LARGE_BYTES];
	char key[32];
	uint64_t seq;
	size_t bytes = (size_t)snprintf(key, sizeof(key), "k%u", number);
	keyspace_tick(life.keyspace);
	if (keyspace_set(life.keyspace, key, bytes, value, value_bytes, 0, &seq) != KEYSPACE_OK) {
		printf("Bail out! no room for a value\n");
		exit(1);
	}
}

// So often the writer does something in the middle of a job.
static unsigned meanwhile_left;

static void begin_life(void)
{
	struct life_options options = {
		.dir = dir,
		.memory_bytes = 48u << 20,
		.segment_bytes = 1u << 20,
		.policy = PERSIST_GROUP,
		.ratio_percent = 200,
		.floor_bytes = UINT64_C(1) << 30,
	};
	fixture_dir_fast(dir);
	life_begin(&life, &options);
	for (unsigned number = 0; number < KEYS; number++) {
		put(number, number == 7 ? LARGE_BYTES : 2000);
	}
	if (life_commit(&life, life_published(&life)) != STORE_OK) {
		printf("Bail out! a commit failed\n");
		exit(1);
	}
}

// What was written beside the last one is durable, and what that replaced is free again.
static void make_room(void)
{
	if (life_commit(&life, life_published(&life)) != STORE_OK) {
		printf("Bail out! a commit failed\n");
		exit(1);
	}
	for (unsigned i = 0; i < 200; i++) {
		cleaner_turn(life.keyspace, seam_system.monotonic_ns());
	}
}

static void begin_job(struct job *job, enum job_kind kind)
{
	*job = (struct job){
		.kind = kind,
		.seam = &seam_system,
		.persist = life.persist,
		.log = keyspace_log(life.keyspace),
		.dir = strdup(dir),
		.walk = {
			.map = &life.region.map,
			.slot = &life.page->slot[1],
			.hot = &life.region.header->hot,
			.fenced = !kvs_epoch_membarrier_works(),
		},
		.hash_seed = 5,
		.instance_id = 77,
		.durable_seq = life_durable_seq(&life),
		.store = JOB_STORE_GOOD,
		.begun_ns = seam_system.monotonic_ns(),
		// However slow this machine is, somebody goes on asking.
		.asked_ns = seam_system.monotonic_ns() + UINT64_C(3600000000000),
	};
	text_init(&job->result, JOB_RESULT_BYTES_MAX);
	make_room();
	if (kind == JOB_BACKUP) {
		(void)keyspace_follow(life.keyspace, &job->follower, &job->from, &job->seq);
	}
	cancel_word = &job->cancelled;
	meanwhile_left = 3;
	calls = syncs = cancelled_at = 0;
}

static void end_job(struct job *job)
{
	fail_at = cancel_at = 0;
	cancels = NULL;
	if (job->kind == JOB_BACKUP) {
		keyspace_unfollow(life.keyspace);
	}
	text_fini(&job->result);
	free(job->made);
	free(job->dir);
}

// ---- what became of it ------------------------------------------------------------------------

// How many names are in DIR/backup; all are removed. *whole: the last of them has its seal.
static unsigned take_backups(bool *whole)
{
	char at[FIXTURE_PATH_BYTES + 16];
	char path[FIXTURE_PATH_BYTES + 300];
	struct seal_facts facts;
	char why[256];
	unsigned count = 0;
	(void)snprintf(at, sizeof(at), "%s/backup", dir);
	DIR *folder = opendir(at);
	const struct dirent *entry;
	while (folder != NULL && (entry = readdir(folder)) != NULL) {
		if (entry->d_name[0] == '.') {
			continue;
		}
		(void)snprintf(path, sizeof(path), "%s/%s", at, entry->d_name);
		int fd = shim_open(path, O_RDONLY | O_CLOEXEC);
		*whole = seal_read(fd, &facts, why, sizeof(why)) == 0 && facts.keys == KEYS;
		(void)close(fd);
		fixture_remove(path);
		count++;
	}
	if (folder != NULL) {
		(void)closedir(folder);
	}
	return count;
}

// Is it as it should be? *refused: it was not made.
static bool backup_is_sound(struct job *job, bool *refused)
{
	bool whole = false;
	bool good = job_backup(job);
	*refused = !good;
	fail_at = 0;
	unsigned count = take_backups(&whole);
	bool sound = good ? count == 1 && whole && job->made != NULL
			  : count == 0 && job->error[0] != '\0';
	// Relaxed: this thread's own. It holds back nothing of the log any more.
	sound = sound && kvs_load_relaxed(&job->follower.passed_seq) == UINT64_MAX;
	if (!sound) {
		tap_diag("%u backups, %s: %s", count, good ? "good" : "refused", job->error);
	}
	return sound;
}

static bool verify_is_sound(struct job *job, bool *refused)
{
	bool good = job_verify(job);
	*refused = !good;
	bool sound =
		good ? strstr(job->result.data, "\"damaged\":0,") != NULL : job->error[0] != '\0';
	if (!sound) {
		tap_diag("%s: %s", job->error, good ? job->result.data : "");
	}
	return sound;
}

static void refuses(struct job *job, const char *words, const char *name)
{
	bool refused;
	bool sound = job->kind == JOB_BACKUP ? backup_is_sound(job, &refused)
					     : verify_is_sound(job, &refused);
	ok(sound && refused && strstr(job->error, words) != NULL, "%s: %s", name, job->error);
	end_job(job);
}

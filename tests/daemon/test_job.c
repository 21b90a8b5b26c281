// SPDX-License-Identifier: MIT
//
// A backup and a verification of which any call fails, that are cancelled at any, and whose child
// says or does anything: they are refused with a reason and leave nothing, or what they made is
// whole; and no verification finds damage where there is none (E).
#include "daemon/job.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>

#include "daemon/job_internal.h"
#include "daemon/storage/seal.h"
#include "daemon/storage/verify.h"
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
	while (strcmp(argv[3], "compare") == 0 && strcmp(how, "talks nonsense") != 0 &&
	       fread(unused, 1, sizeof(unused), stdin) > 0) {
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
	} else if (strcmp(how, "finds damage") == 0) {
		puts("damage 7 9 6b31 as it says\ndamage 7 9 - and so on\ndamaged 2\n"
		     "done 1 1 1 1 1");
		return VERIFY_DAMAGED;
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

// ---- a job --------------------------------------------------------------------------------------

static void begin_life(void)
{
	static unsigned char value[LARGE_BYTES];
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
		char key[32];
		uint64_t seq;
		size_t bytes = (size_t)snprintf(key, sizeof(key), "k%u", number);
		keyspace_tick(life.keyspace);
		if (keyspace_set(life.keyspace, key, bytes, value, number == 7 ? LARGE_BYTES : 2000,
				 0, &seq) != KEYSPACE_OK) {
			printf("Bail out! no room for a value\n");
			exit(1);
		}
	}
	if (life_commit(&life, life_published(&life)) != STORE_OK) {
		printf("Bail out! a commit failed\n");
		exit(1);
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
		.asked_ns = seam_system.monotonic_ns(),
	};
	text_init(&job->result, JOB_RESULT_BYTES_MAX);
	if (kind == JOB_BACKUP) {
		(void)keyspace_follow(life.keyspace, &job->follower, &job->from, &job->seq);
	}
	cancel_word = &job->cancelled;
	calls = 0;
}

static void end_job(struct job *job)
{
	fail_at = cancel_at = 0;
	if (job->kind == JOB_BACKUP) {
		keyspace_unfollow(life.keyspace);
	}
	text_fini(&job->result);
	free(job->made);
	free(job->dir);
}

// ---- backups ------------------------------------------------------------------------------------

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

static void test_each(const char *name, enum job_kind kind, bool (*is_sound)(struct job *, bool *),
		      unsigned *place)
{
	struct job job;
	bool refused;
	unsigned bad = 0;
	unsigned refusals = 0;
	begin_job(&job, kind);
	ok(is_sound(&job, &refused) && !refused, "%s succeeds: %s", name, job.error);
	unsigned all = calls;
	end_job(&job);
	for (unsigned n = 1; n <= all && bad < 5; n += tap_step(1, 7)) {
		begin_job(&job, kind);
		*place = n;
		bad += !is_sound(&job, &refused);
		refusals += refused;
		end_job(&job);
	}
	ok(bad == 0, "E: %s: at each of %u calls it is whole or refused", name, all);
	ok(refusals > 1, "%u were refused", refusals);
}

static void refuses(struct job *job, const char *words, const char *name)
{
	bool refused;
	bool sound = job->kind == JOB_BACKUP ? backup_is_sound(job, &refused)
					     : verify_is_sound(job, &refused);
	ok(sound && refused && strstr(job->error, words) != NULL, "%s: %s", name, job->error);
	end_job(job);
}

static void test_backup_names(void)
{
	struct job job;
	char path[FIXTURE_PATH_BYTES + 64];
	(void)snprintf(path, sizeof(path), "%s/backup/mine", dir);
	begin_job(&job, JOB_BACKUP);
	(void)snprintf(job.name, sizeof(job.name), "mine");
	ok(job_backup(&job) && access(path, F_OK) == 0, "under a name: %s", job.error);
	end_job(&job);
	begin_job(&job, JOB_BACKUP);
	(void)snprintf(job.name, sizeof(job.name), "mine");
	ok(!job_backup(&job) && strstr(job.error, "is there already") != NULL,
	   "which another does not get: %s", job.error);
	end_job(&job);
	bool whole = false;
	ok(take_backups(&whole) == 1 && whole, "it is whole");
	begin_job(&job, JOB_BACKUP);
	free(job.dir);
	job.dir = malloc(5000);
	memset(job.dir, 'x', 4999);
	job.dir[4999] = '\0';
	refuses(&job, "too long", "a path that is too long");
	begin_job(&job, JOB_BACKUP);
	(void)snprintf(job.dir, strlen(job.dir) + 1, "%s", "/dev");
	job.dir[0] = '\0';
	(void)snprintf(path, sizeof(path), "%s/backup", dir);
	ok(rmdir(path) == 0, "the folder of backups is empty");
	int fd = shim_open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	(void)close(fd);
	free(job.dir);
	job.dir = strdup(dir);
	refuses(&job, "", "a file in the place of the folder");
	(void)unlink(path);
}

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

// ---- what the child does ------------------------------------------------------------------------

static void child_does(const char *how)
{
	if (how != NULL) {
		(void)setenv(CHILD_DOES, how, 1);
	} else {
		(void)unsetenv(CHILD_DOES);
	}
}

static void test_child(void)
{
	struct job job;
	static const char *const troubles[][3] = {
		{ "is killed", "ended from outside", "ended from outside" },
		{ "crashes", "reading it ended with signal", NULL },
		{ "fails", "no reason at all", "no reason at all" },
		{ "says nothing", NULL, "before it had" },
		{ "finds damage", "as it says", NULL },
	};
	for (size_t i = 0; i < sizeof(troubles) / sizeof(troubles[0]); i++) {
		child_does(troubles[i][0]);
		if (troubles[i][1] != NULL) {
			begin_job(&job, JOB_BACKUP);
			refuses(&job, troubles[i][1], troubles[i][0]);
		}
		if (troubles[i][2] != NULL) {
			begin_job(&job, JOB_VERIFY);
			refuses(&job, troubles[i][2], troubles[i][0]);
		}
	}
	static const char *const answers[][2] = {
		{ "crashes", "reading it ended with signal" },
		{ "finds damage", "as it says" },
		{ "finds another value", "the store has a value that memory has not" },
	};
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		child_does(answers[i][0]);
		begin_job(&job, JOB_VERIFY);
		ok(job_verify(&job) && job.store_damaged > 0 && job.memory_damaged == 0 &&
			   strstr(job.result.data, answers[i][1]) != NULL,
		   "%s: that is the answer: %s", answers[i][0], job.result.data);
		end_job(&job);
	}
	child_does("ends at once");
	begin_job(&job, JOB_VERIFY);
	refuses(&job, "", "one that ends at once");
	child_does("talks nonsense");
	bool refused;
	begin_job(&job, JOB_VERIFY);
	ok(verify_is_sound(&job, &refused) && !refused, "what makes no sense is passed over");
	end_job(&job);
	child_does(NULL);
}

static void test_verify_stores(void)
{
	struct job job;
	begin_job(&job, JOB_VERIFY);
	job.store = JOB_STORE_NONE;
	ok(job_verify(&job) && strstr(job.result.data, "\"store\":\"none\"") != NULL,
	   "memory alone: %s", job.result.data);
	end_job(&job);
	begin_job(&job, JOB_VERIFY);
	job.store = JOB_STORE_FAILED;
	ok(job_verify(&job) && strstr(job.result.data, "\"store\":\"failed\"") != NULL,
	   "and beside a store that failed");
	end_job(&job);
	begin_job(&job, JOB_VERIFY);
	free(job.dir);
	job.dir = strdup("/nonexistent");
	refuses(&job, "cannot be read", "no store");
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], VERIFY_OPTION) == 0) {
		const char *how = getenv(CHILD_DOES);
		return how != NULL ? misbehave(how, argv) : store_verify_child(argv[2], argv[3]);
	}
	(void)sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
	begin_life();
	test_each("a backup, EIO", JOB_BACKUP, backup_is_sound, &fail_at);
	test_each("a backup, cancelled", JOB_BACKUP, backup_is_sound, &cancel_at);
	test_each("a verification, EIO", JOB_VERIFY, verify_is_sound, &fail_at);
	test_each("a verification, cancelled", JOB_VERIFY, verify_is_sound, &cancel_at);
	test_backup_names();
	test_told_to_stop(JOB_BACKUP, "a backup");
	test_told_to_stop(JOB_VERIFY, "a verification");
	test_child();
	test_verify_stores();
	(void)life_end(&life);
	fixture_remove(dir);
	return tap_done();
}

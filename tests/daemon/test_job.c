// SPDX-License-Identifier: MIT
//
// A backup and a verification of which any call fails, that are cancelled at any, and whose child
// says or does anything: they are refused with a reason and leave nothing, or what they made is
// whole; and no verification finds damage where there is none (E).
#include "daemon/job.h"

#include <signal.h>

#include "tests/daemon/job_fixture.h"

// ---- backups ------------------------------------------------------------------------------------

// At each of the first syncs.
static void write_meanwhile(void)
{
	if (meanwhile_left > 0) {
		meanwhile_left--;
		for (unsigned number = 0; number < 40; number++) {
			put(number, number == 7 ? LARGE_BYTES : 500);
		}
	}
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
	// What begins it is tried in a slow run, too.
	for (unsigned n = 1; n <= all && bad < 5; n += n < 10 ? 1 : tap_step(1, 7)) {
		begin_job(&job, kind);
		*place = n;
		bad += !is_sound(&job, &refused);
		refusals += refused;
		end_job(&job);
	}
	ok(bad == 0, "E: %s: at each of %u calls it is whole or refused", name, all);
	ok(refusals > 1, "%u were refused", refusals);
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

static uint64_t one_second(void)
{
	return UINT64_C(1800000000000);
}

static void touch_backup(const char *name, bool folder)
{
	char path[FIXTURE_PATH_BYTES + 64];
	(void)snprintf(path, sizeof(path), "%s/backup/%s", dir, name);
	int fd = folder ? -1 : shim_open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (folder ? mkdir(path, 0700) != 0 : close(fd) != 0) {
		printf("Bail out! %s\n", path);
		exit(1);
	}
}

static bool is_there(const char *name)
{
	char path[FIXTURE_PATH_BYTES + 64];
	(void)snprintf(path, sizeof(path), "%s/backup/%s", dir, name);
	return access(path, F_OK) == 0;
}

static void test_backup_clock(void)
{
	struct seam stopped = seam_system;
	struct job job;
	char name[64];
	bool whole = false;
	stopped.wall_ms = one_second;
	for (unsigned i = 0; i < 2; i++) {
		begin_job(&job, JOB_BACKUP);
		job.seam = &stopped;
		ok(job_backup(&job), "a backup of that second: %s", job.made);
		end_job(&job);
	}
	ok(take_backups(&whole) == 2 && whole, "two of a second have two names");
	touch_backup("kvd-20270115T080000Z.backup", false);
	for (unsigned i = 2; i < 100; i++) {
		(void)snprintf(name, sizeof(name), "kvd-20270115T080000Z-%u.backup", i);
		touch_backup(name, false);
	}
	begin_job(&job, JOB_BACKUP);
	job.seam = &stopped;
	ok(!job_backup(&job) && strstr(job.error, "is there already") != NULL,
	   "more than a hundred have not: %s", job.error);
	end_job(&job);
	(void)take_backups(&whole);
}

static void test_tidy(void)
{
	bool whole = false;
	touch_backup("a.new", true);
	touch_backup("b.fetch", false);
	touch_backup("c.fetch", true);
	touch_backup(".fetch", false);
	touch_backup("d", false);
	job_backup_tidy(dir, seam_system.wall_ms());
	ok(!is_there("a.new") && is_there("b.fetch"), "what was cut off goes, what is fetched not");
	job_backup_tidy(dir, seam_system.wall_ms() + 120000);
	ok(!is_there("b.fetch") && is_there("c.fetch") && is_there(".fetch") && is_there("d"),
	   "a minute later nobody comes for it; what has no such name stays");
	touch_backup("b.fetch", false);
	job_backup_tidy(dir, 0);
	ok(!is_there("b.fetch") && is_there("d"), "nor after a restart");
	job_backup_tidy("/nonexistent", 0);
	ok(take_backups(&whole) == 2, "the rest is there");
	char path[FIXTURE_PATH_BYTES + 64];
	(void)snprintf(path, sizeof(path), "%s/backup/.fetch", dir);
	(void)unlink(path);
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
	bool answered;
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
		{ "finds a newer value", "the store has a value that memory has not" },
	};
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		child_does(answers[i][0]);
		begin_job(&job, JOB_VERIFY);
		answered = job_verify(&job);
		ok(answered && job.store_damaged > 0 && job.memory_damaged == 0 &&
			   strstr(job.result.data, answers[i][1]) != NULL,
		   "%s: that is the answer: %s", answers[i][0], job.result.data);
		end_job(&job);
	}
	char once[FIXTURE_PATH_BYTES + 32];
	(void)snprintf(once, sizeof(once), "finds once %s/once", dir);
	child_does(once);
	begin_job(&job, JOB_VERIFY);
	answered = job_verify(&job);
	ok(answered && job.store_damaged == 0 && unlink(once + 11) == 0,
	   "what a second look does not find was removed meanwhile: %s", job.result.data);
	end_job(&job);
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

// A value of memory that is not what was written.
static unsigned char *value_of(const char *key)
{
	struct kvs_hit hit = { 0 };
	uint64_t hash = keyspace_hash(life.keyspace, key, strlen(key));
	ok(keyspace_find(life.keyspace, hash, key, strlen(key), &hit) == KVS_FIND_HIT, "a record");
	return (unsigned char *)(uintptr_t)hit.value;
}

static void test_damaged_memory(void)
{
	struct job job;
	bool answered;
	unsigned char *byte = value_of("k7") + LARGE_BYTES - 1;
	*byte ^= 1;
	begin_job(&job, JOB_VERIFY);
	answered = job_verify(&job);
	ok(answered && job.memory_damaged == 1 && job.store_damaged == 0, "a large value: %s",
	   job.result.data);
	end_job(&job);
	*byte ^= 1;
	byte = value_of("k99") + 100;
	*byte ^= 1;
	begin_job(&job, JOB_VERIFY);
	answered = job_verify(&job);
	ok(answered && job.memory_damaged == 1 && job.store_damaged == 0 &&
		   strstr(job.remedy, "the store is whole") != NULL,
	   "is damaged: %s", job.result.data);
	end_job(&job);
	child_does("finds damage");
	begin_job(&job, JOB_VERIFY);
	answered = job_verify(&job);
	ok(answered && job.memory_damaged == 1 && job.store_damaged == 2 &&
		   strstr(job.remedy, "restore a backup") != NULL,
	   "and so is the store: %s", job.remedy);
	end_job(&job);
	child_does(NULL);
	begin_job(&job, JOB_BACKUP);
	refuses(&job, "", "no backup is made of it");
	*byte ^= 1;
}

// What the store has not, and what was only on its way.
static void test_missing(void)
{
	struct job job;
	bool answered;
	char told[64];
	uint64_t place;
	uint64_t seq = life_lookup(&life, "k99", 3, &place);
	const struct {
		uint64_t seq;
		bool damaged;
	} cases[] = { { seq, true }, { seq + 1000, false } };
	for (size_t i = 0; i < 2; i++) {
		(void)snprintf(told, sizeof(told), "misses %llu %llu",
			       (unsigned long long)kvs_hash(5, "k99", 3),
			       (unsigned long long)cases[i].seq);
		child_does(told);
		begin_job(&job, JOB_VERIFY);
		answered = job_verify(&job);
		ok(answered && (job.store_damaged == 1) == cases[i].damaged, "%s: %s",
		   cases[i].damaged ? "missing" : "another version", job.result.data);
		end_job(&job);
	}
	child_does(NULL);
}

// What is newer than the store need not be in it; what is called durable must.
static void test_undurable(void)
{
	for (int durable = 0; durable < 2; durable++) {
		struct job job;
		begin_job(&job, JOB_VERIFY);
		put(5, 500);
		job.durable_seq = durable != 0 ? keyspace_last_seq(life.keyspace) : job.durable_seq;
		bool answered = job_verify(&job);
		ok(answered && job.memory_damaged == 0 && job.store_damaged == (unsigned)durable,
		   "a value that was not committed, %s: %s",
		   durable != 0 ? "and is called durable" : "nor called durable", job.result.data);
		end_job(&job);
	}
}

static void test_verify_stores(void)
{
	struct job job;
	bool answered;
	begin_job(&job, JOB_VERIFY);
	job.store = JOB_STORE_NONE;
	answered = job_verify(&job);
	ok(answered && strstr(job.result.data, "\"store\":\"none\"") != NULL, "memory alone: %s",
	   job.result.data);
	end_job(&job);
	begin_job(&job, JOB_VERIFY);
	job.store = JOB_STORE_FAILED;
	answered = job_verify(&job);
	ok(answered && strstr(job.result.data, "\"store\":\"failed\"") != NULL,
	   "and beside a store that failed");
	end_job(&job);
	begin_job(&job, JOB_VERIFY);
	free(job.dir);
	job.dir = strdup("/nonexistent");
	refuses(&job, "cannot be read", "no store");
}

// A FLUSHALL has its effect before it is durable: what the store has until then is no damage.
static void test_flush(void)
{
	struct job job;
	bool answered;
	bool refused;
	begin_job(&job, JOB_VERIFY);
	ok(keyspace_flush(life.keyspace) == KEYSPACE_OK, "a FLUSHALL");
	ok(verify_is_sound(&job, &refused) && !refused, "one that is not durable is no damage");
	end_job(&job);
	begin_job(&job, JOB_VERIFY);
	job.durable_seq = life_durable_seq(&life);
	ok(verify_is_sound(&job, &refused) && !refused, "nor is one that is");
	end_job(&job);
	child_does("finds another value");
	begin_job(&job, JOB_VERIFY);
	answered = job_verify(&job);
	ok(answered && job.store_damaged == 1, "and behind that an older value is");
	end_job(&job);
	child_does(NULL);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_child(argc, argv, &code)) {
		return code;
	}
	(void)sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
	begin_life();
	test_each("a backup, EIO", JOB_BACKUP, backup_is_sound, &fail_at);
	test_each("a backup, cancelled", JOB_BACKUP, backup_is_sound, &cancel_at);
	test_each("a verification, EIO", JOB_VERIFY, verify_is_sound, &fail_at);
	test_each("a verification, cancelled", JOB_VERIFY, verify_is_sound, &cancel_at);
	meanwhile = write_meanwhile;
	test_each("a backup beside writes, EIO", JOB_BACKUP, backup_is_sound, &fail_at);
	meanwhile = NULL;
	test_backup_clock();
	test_tidy();
	test_backup_names();
	test_child();
	test_missing();
	test_undurable();
	test_damaged_memory();
	test_verify_stores();
	test_flush();
	(void)life_end(&life);
	fixture_remove(dir);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// E, I: what kvd's storage does to its folder is recorded, call by call, and then every crash is
// made up that a file system may leave: after each call everything, or nothing that was not synced,
// or any part of it, with writes dropped, reordered and torn at sectors, and names changed or not.
// kvd must open each and hold what it promised, while a store is written anew or restored, too; and
// what has a backup's name must be whole. The same search must find variants that are wrong.
//
// State N of seed S is always the same: KVD_TEST_SEED=S KVD_CRASH_STATE=N shows it alone.
#include <sys/wait.h>

#include "daemon/storage/verify.h"
#include "tests/crash/crash_check.h"
#include "tests/crash/crash_copies.h"
#include "tests/crash/crash_image.h"

#define STATES_DEFAULT 1000u
#define MUTANT_STATES_MAX 4000u
#define MUTANT_SEED 4000u // found in time, whatever seed else is tried
#define PENDING_MAX 512u
#define SCRIPTS_MIN 3u
#define FAILURES_MAX 5u
#define VARIANTS 3u	  // of a point with calls that may or may not have arrived
#define VARIANTS_NAMES 9u // when the last one gave a thing another name

/// The search: where it stands in one script's record, and what it found.
struct search {
	struct crash_record record;
	struct script script;
	struct crash_image base; // what is on the device for certain
	struct crash_image state;
	size_t pending[PENDING_MAX]; // calls that may have arrived, oldest first
	bool certain[PENDING_MAX];   // this one has; but one before it may have, and lies beneath
	size_t pending_count;
	uint64_t seed;
	uint64_t state_number; // of this seed
	uint64_t states;       // checked
	uint64_t states_max;
	uint64_t stride;      // every so many states of a script are checked
	uint64_t stride_rare; // the same, while it did what it does seldom
	uint64_t rare;	      // of this seed
	uint64_t renamed;     // of this seed: those right behind a change of names, all checked
	bool is_renamed;
	uint64_t only; // check this state alone; UINT64_MAX = all
	uint64_t torn;
	uint64_t outcomes; // states that were not as of what was promised, but later
	unsigned failures;
	unsigned failures_max;
	bool counting; // nothing is checked, only counted
	bool quiet;
	char root[FIXTURE_PATH_BYTES]; // of all that this process writes
	char live[FIXTURE_PATH_BYTES]; // where scripts run
	char laid[FIXTURE_PATH_BYTES]; // where states are laid out
};

// A third of the scripts run where two names cannot be exchanged.
static bool has_no_exchange(uint64_t seed)
{
	return seed % 3 == 0;
}

enum variant { ALL_ARRIVED, NONE_ARRIVED, SOME_ARRIVED };

// ---- one state ----------------------------------------------------------------------------------

static bool is_of_names(const struct crash_op *op)
{
	return op->kind != CRASH_WRITE && op->kind != CRASH_SIZE;
}

// Builds a state: what is certain, and of the rest what `variant` and *random say. Changes of names
// arrive in order, up to some point, as a journal keeps them; or, one time in three, in any.
static void build(struct search *search, enum variant variant, uint64_t *random)
{
	uint64_t dice = tap_random(random);
	uint64_t drop_percent = dice % 100;
	uint64_t tear_percent = (dice >> 8) % 60;
	bool journal = (dice >> 16) % 3 != 0;
	bool names_stop = false;
	crash_image_copy(&search->state, &search->base);
	for (size_t i = 0; i < search->pending_count; i++) {
		const struct crash_op *op = &search->record.ops[search->pending[i]];
		bool arrives = variant == ALL_ARRIVED || search->certain[i];
		if (variant == SOME_ARRIVED && !arrives) {
			arrives = tap_random(random) % 100 >= drop_percent;
			if (is_of_names(op) && journal) {
				names_stop = names_stop || !arrives;
				arrives = !names_stop;
			} else if (op->kind == CRASH_WRITE &&
				   tap_random(random) % 100 < tear_percent) {
				uint64_t sector = tap_random(random) % 2 == 0 ? 512 : 4096;
				crash_image_tear(&search->state, op, sector, random);
				search->torn++;
				continue;
			}
		}
		if (arrives) {
			crash_image_apply(&search->state, op);
		}
	}
}

static void report(struct search *search, size_t after, enum variant variant, const char *wrong)
{
	static const char *const variants[] = { "all", "nothing", "a part" };
	search->failures++;
	if (search->quiet) {
		return;
	}
	tap_diag("seed %llu state %llu: call %zu of %zu, %s of %zu unsynced calls arrived: %s",
		 (unsigned long long)search->seed, (unsigned long long)search->state_number, after,
		 search->record.count, variants[variant], search->pending_count, wrong);
	tap_diag("see it alone with KVD_TEST_SEED=%llu KVD_CRASH_STATE=%llu",
		 (unsigned long long)search->seed, (unsigned long long)search->state_number);
}

static void visit_variant(struct search *search, size_t after, enum variant variant,
			  const struct crash_promise *promise)
{
	uint64_t number = search->state_number++;
	uint64_t random = search->seed * 1000003 + number;
	uint64_t stride = search->is_renamed ? 1
			  : promise->rare    ? search->stride_rare
					     : search->stride;
	bool wanted = search->only != UINT64_MAX ? search->only == number
						 : (number + search->seed) % stride == 0;
	search->renamed += search->counting && search->is_renamed;
	search->rare += search->counting && promise->rare && !search->is_renamed;
	if (!wanted || search->counting || search->states >= search->states_max ||
	    search->failures >= search->failures_max) {
		return;
	}
	struct crash_expected expected = {
		.script = &search->script,
		.promise = *promise,
		.no_exchange = has_no_exchange(search->seed),
		.random = number,
	};
	build(search, variant, &random);
	crash_image_lay(&search->state, &search->record, search->laid);
	uint64_t recovered_seq = 0;
	const char *wrong = crash_check(search->laid, &expected, &recovered_seq);
	search->states++;
	search->outcomes += recovered_seq > promise->durable_seq;
	if (wrong != NULL) {
		report(search, after, variant, wrong);
	}
}

// A crash between two calls: `after` calls have been made, and this was promised and asked for.
static void visit(struct search *search, size_t after, const struct crash_promise *promise)
{
	visit_variant(search, after, ALL_ARRIVED, promise);
	if (search->pending_count == 0) {
		return;
	}
	visit_variant(search, after, NONE_ARRIVED, promise);
	for (unsigned i = 0; i < (search->is_renamed ? VARIANTS_NAMES : VARIANTS); i++) {
		visit_variant(search, after, SOME_ARRIVED, promise);
	}
}

// ---- all states of a record ---------------------------------------------------------------------

// What is pending of this file or folder is on the device now, in the order in which it was made.
static void settle(struct search *search, uint32_t inode)
{
	size_t kept = 0;
	for (size_t i = 0; i < search->pending_count; i++) {
		const struct crash_op *op = &search->record.ops[search->pending[i]];
		if (op->inode == inode) {
			crash_image_apply(&search->base, op);
		} else {
			search->certain[kept] = search->certain[i];
			search->pending[kept++] = search->pending[i];
		}
	}
	search->pending_count = kept;
}

// The last call went through to the device. What is older and lies beneath it stays uncertain.
static void settle_last(struct search *search)
{
	size_t last = search->pending_count - 1;
	const struct crash_op *op = &search->record.ops[search->pending[last]];
	for (size_t i = 0; i < last; i++) {
		const struct crash_op *older = &search->record.ops[search->pending[i]];
		if (older->inode == op->inode) {
			search->certain[last] = true;
			return;
		}
	}
	crash_image_apply(&search->base, op);
	search->pending_count = last;
}

static void walk_record(struct search *search)
{
	const struct crash_record *record = &search->record;
	crash_image_free(&search->base);
	search->pending_count = 0;
	search->state_number = 0;
	for (size_t i = 0; i < record->count; i++) {
		const struct crash_op *op = &record->ops[i];
		if (op->kind == CRASH_SYNC) {
			settle(search, op->inode);
		} else if (search->pending_count == PENDING_MAX) {
			printf("Bail out! too many calls without a sync\n");
			exit(1);
		} else {
			search->certain[search->pending_count] = false;
			search->pending[search->pending_count++] = i;
		}
		search->is_renamed = false;
		if (op->through) {
			visit(search, i, &op->promise); // on its way
			settle_last(search);
		}
		bool ends = i + 1 == record->count;
		search->is_renamed = op->kind == CRASH_RENAME || op->kind == CRASH_MOVE ||
				     op->kind == CRASH_EXCHANGE;
		visit(search, i + 1, ends ? &record->promise : &op[1].promise);
	}
}

static void begin(struct search *search)
{
	fixture_dir_fast(search->root);
	(void)snprintf(search->live, sizeof(search->live), "%.400s/live", search->root);
	(void)snprintf(search->laid, sizeof(search->laid), "%.400s/laid", search->root);
}

static void end(struct search *search)
{
	fixture_remove(search->root);
	crash_image_free(&search->base);
	crash_image_free(&search->state);
	script_free(&search->script);
}

// Records the script of a seed and tries its crashes.
static void search_seed(struct search *search, uint64_t seed, const struct script_faults *faults,
			const struct recorder_faults *device)
{
	struct recorder_faults with = *device;
	with.no_exchange = has_no_exchange(seed);
	if (mkdir(search->live, 0700) != 0) {
		printf("Bail out! cannot make %s\n", search->live);
		exit(1);
	}
	script_free(&search->script);
	search->script = (struct script){
		.random = seed,
		.record = &search->record,
		.faults = *faults,
	};
	recorder_begin(&search->record, search->live, &with);
	bool ran = script_run(&search->script, search->live);
	recorder_end();
	fixture_remove(search->live);
	search->seed = seed;
	search->failures += !ran;
	search->counting = true;
	search->stride = search->stride_rare = 1;
	search->rare = search->renamed = 0;
	walk_record(search);
	search->counting = false;
	// A small number of states is spread over the whole of several scripts; as many are of what
	// happens seldom as of the rest.
	uint64_t each = search->states_max * 2 / 5 + 1;
	uint64_t usual = search->state_number - search->rare - search->renamed;
	search->stride = usual * SCRIPTS_MIN / each + 1;
	search->stride_rare = search->rare * SCRIPTS_MIN / each + 1;
	walk_record(search);
	crash_record_free(&search->record);
}

// ---- what must be found -------------------------------------------------------------------------

struct mutant {
	const char *name;
	struct script_faults faults;
	struct recorder_faults device;
};

static const struct mutant mutants[] = {
	{ "pages are not synced before the meta page", .device = { .deaf_files = true } },
	{ "the meta page is not synced", .device = { .deaf_through = true } },
	{ "folders are not synced", .device = { .deaf_folders = true } },
	{ "the environment is opened with MDB_NOSYNC", .device = { .no_sync = true } },
	{ "writes are acknowledged before the commit", .faults = { .acknowledged_early = true } },
	{ "the word that a life ended in order is kept", .faults = { .word_kept = true } },
	{ "compaction trusts a version only in memory", .faults = { .trusts_memory = true } },
	{ "compaction deletes a block too many", .faults = { .deletes_too_much = true } },
};

// In a process of its own: what it leaves may send LMDB anywhere. Returns the number of states it
// took to find the mutant, 0 if it was not found.
static uint64_t find_mutant(const struct mutant *mutant, uint64_t seed)
{
	int ends[2];
	if (pipe(ends) != 0) {
		return 0;
	}
	pid_t child = fork();
	if (child == 0) {
		static struct search search;
		search = (struct search){
			.quiet = true,
			.only = UINT64_MAX,
			.states_max = MUTANT_STATES_MAX,
			.failures_max = 1,
		};
		(void)freopen("/dev/null", "w", stdout);
		begin(&search);
		for (uint64_t i = 0; search.failures == 0 && search.states < search.states_max;
		     i++) {
			search_seed(&search, seed + i, &mutant->faults, &mutant->device);
		}
		uint64_t found = search.failures > 0 ? search.states : 0;
		end(&search);
		_exit(write(ends[1], &found, sizeof(found)) == sizeof(found) ? 0 : 1);
	}
	(void)close(ends[1]);
	uint64_t found = 0;
	int status;
	bool told = child > 0 && read(ends[0], &found, sizeof(found)) == sizeof(found);
	(void)close(ends[0]);
	if (child > 0 && waitpid(child, &status, 0) == child && !told) {
		return 1; // what it left killed its reader
	}
	return found;
}

static void test_mutants(void)
{
	for (size_t i = 0; i < sizeof(mutants) / sizeof(mutants[0]); i++) {
		uint64_t found = find_mutant(&mutants[i], MUTANT_SEED);
		ok(found > 0, "it is found that %s", mutants[i].name);
		tap_diag("after %llu states at most", (unsigned long long)found);
	}
}

// ---- a device that keeps something else ---------------------------------------------------------

static void test_read_back(struct search *search)
{
	char path[FIXTURE_PATH_BYTES + SCRIPT_BACKUP_PATH_BYTES + 1];
	struct recorder_faults none = { 0 };
	struct script *script = &search->script;
	script_free(script);
	*script = (struct script){ .random = 7 };
	if (mkdir(search->live, 0700) != 0) {
		printf("Bail out! cannot make %s\n", search->live);
		exit(1);
	}
	recorder_begin(&search->record, search->live, &none);
	script_prepare(script, search->live);
	bool good = script_begin(script);
	script_write(script, 200);
	ok(good && script_backup(script), "a backup");
	recorder_spoil(true);
	ok(!script_backup(script), "E: a backup is read back from the device");
	(void)snprintf(path, sizeof(path), "%s/%s", search->live, script->backups[1].path);
	ok(access(path, F_OK) != 0, "and what is wrong gets no name");
	script->backups_count = 1;
	(void)life_end(&script->life);
	ok(!script_restore(script), "E: so is a restore");
	recorder_spoil(false);
	ok(script_restore(script) && script_restore(script) && script->restores == 2,
	   "which can be done again, in place and elsewhere");
	recorder_end();
	crash_record_free(&search->record);
	fixture_remove(search->live);
}

int main(int argc, char **argv)
{
	int code;
	static struct search search;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	if (argc == 4 && strcmp(argv[1], VERIFY_OPTION) == 0) { // of a backup
		return store_verify_child(argv[2], argv[3]);
	}
	uint64_t seed = tap_seed(4000);
	unsigned usual = tap_rounds(STATES_DEFAULT, 40);
	const char *wanted = getenv("KVD_CRASH_STATES");
	const char *only = getenv("KVD_CRASH_STATE");
	search.states_max = wanted != NULL ? strtoull(wanted, NULL, 10) : usual;
	search.failures_max = FAILURES_MAX;
	search.only = only != NULL ? strtoull(only, NULL, 10) : UINT64_MAX;
	begin(&search);
	struct script_faults no_faults = { 0 };
	struct recorder_faults no_device = { 0 };
	unsigned commits = 0;
	unsigned compacted = 0;
	unsigned renewals = 0;
	unsigned backups = 0;
	unsigned restores = 0;
	uint64_t scripts = 0;
	while (search.states < search.states_max && search.failures < FAILURES_MAX &&
	       (scripts == 0 || only == NULL)) {
		search_seed(&search, seed + scripts++, &no_faults, &no_device);
		commits += search.script.commits;
		compacted += search.script.compacted;
		renewals += search.script.renewals;
		backups += search.script.backups_count;
		restores += search.script.restores;
	}
	ok_u64(search.failures, 0,
	       "E, I: %llu crash states of %llu scripts, %u commits, %u blocks compacted, "
	       "%u stores written anew, %u backups, %u restores",
	       (unsigned long long)search.states, (unsigned long long)scripts, commits, compacted,
	       renewals, backups, restores);
	if (only == NULL) {
		ok(search.states < 100 || (search.torn > 0 && search.outcomes > 0),
		   "%llu writes were torn, %llu states held more than was promised",
		   (unsigned long long)search.torn, (unsigned long long)search.outcomes);
		tap_diag("counted crash-states %llu", (unsigned long long)search.states);
		test_read_back(&search);
		if (tap_slowness() == 1) {
			test_mutants();
		}
	}
	end(&search);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// The simulation's front: a seed each in a process of its own, one on each processor. One that
// fails is run again with fewer commands until no shorter run fails, and printed with the command
// that repeats it; some are run twice, and must leave the same trace.
//
// KVD_SIM_SEEDS is how many (400), KVD_TEST_SEED the first, KVD_SIM_ONE=SEED[:COMMANDS] runs one
// and tells all that happens in it.
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/simulation/sim.h"
#include "tests/tap/tap.h"

#define SEEDS_DEFAULT 400u
#define FAILURES_MAX 10u
#define TWICE_EVERY 25u
#define SEEDS_FOR_ALL 400u // in which everything happens that may
#define SECONDS_MAX 60u	   // of processor time, for one seed
#define PROCESSORS_MAX 8u  // seeds at a time

/// What a seed's process tells at its end.
struct outcome {
	uint64_t trace, steps, lives, crashes, adoptions, loads, points, faults, refused, splits,
		gets, revoked, plans, recounts, bounds, evicted, spilled, promoted, reseeds, moved,
		returned, unread, squeezed, sleeps;
	uint64_t is_good;
};

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *at)
{
	(void)status;
	(void)kind;
	(void)at;
	return remove(path);
}

static void run_here(uint64_t seed, unsigned commands, bool verbose, int out)
{
	const char *log = getenv("KVD_SIM_LOG");
	if (freopen(log != NULL ? log : "/dev/null", "a", stderr) == NULL) {
		_exit(3);
	}
	(void)dup2(out, SIM_KEPT_FD - 1 + 200);
	const struct rlimit limit = { SECONDS_MAX, SECONDS_MAX };
	if (setrlimit(RLIMIT_CPU, &limit) != 0) {
		_exit(3);
	}
	(void)setenv("KVD_POISON", "1", 1);
	(void)setenv("KVD_FENCED", "1", 1); // barriers of the kernel order nothing on one thread
	sim.seed = seed;
	sim.verbose = verbose;
	sim.plan.commands = commands;
	sim_run();
	struct outcome outcome = { sim.trace,
				   sim.step,
				   sim.lives,
				   sim.crashes,
				   sim.adoptions,
				   sim.loads,
				   sim.points,
				   sim.faults,
				   sim.refused,
				   sim.splits,
				   sim.gets,
				   sim.revoked,
				   sim.plans,
				   sim.recounts,
				   sim.bounds,
				   sim.evicted,
				   sim.spilled,
				   sim.promoted,
				   sim.reseeds,
				   sim.moved,
				   sim.returned,
				   sim.unread,
				   sim.squeezed,
				   sim.sleeps,
				   1 };
	ssize_t done = write(SIM_KEPT_FD - 1 + 200, &outcome, sizeof(outcome));
	(void)fflush(stdout);
	_exit(done == (ssize_t)sizeof(outcome) ? 0 : 3);
}

/// A seed under way.
struct run {
	pid_t pid;
	int end; // of a pipe, for its outcome
	char dir[sizeof(sim.dir)];
};

// Begins a seed; what it prints is thrown away if `quiet`.
static struct run begin_seed(uint64_t seed, unsigned commands, bool verbose, bool quiet)
{
	struct run run;
	int ends[2];
	const char *tmp = getenv("TMPDIR");
	const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	bool is_short =
		tmp != NULL && strlen(tmp) < sizeof(sim.dir) / 2; // sockets have short names
	(void)snprintf(sim.dir, sizeof(sim.dir), "%s/kvd-sim-XXXXXX", is_short ? tmp : memory);
	if (mkdtemp(sim.dir) == NULL || pipe(ends) != 0) {
		abort();
	}
	(void)fflush(stdout);
	memcpy(run.dir, sim.dir, sizeof(run.dir));
	run.end = ends[0];
	run.pid = fork();
	if (run.pid == 0) {
		(void)close(ends[0]);
		if (quiet && freopen("/dev/null", "w", stdout) == NULL) {
			_exit(3);
		}
		run_here(seed, commands, verbose, ends[1]);
	}
	(void)close(ends[1]);
	return run;
}

// Waits for its end.
static struct outcome end_seed(const struct run *run, uint64_t seed, bool quiet)
{
	struct outcome outcome = { 0 };
	int status = 0;
	if (read(run->end, &outcome, sizeof(outcome)) != (ssize_t)sizeof(outcome)) {
		outcome.is_good = 0;
	}
	(void)close(run->end);
	(void)waitpid(run->pid, &status, 0);
	if (WIFSIGNALED(status) && !quiet) {
		tap_diag("seed %" PRIu64 ": killed by signal %d", seed, WTERMSIG(status));
	}
	(void)nftw(run->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	return outcome;
}

static struct outcome run_seed(uint64_t seed, unsigned commands, bool verbose, bool quiet)
{
	struct run run = begin_seed(seed, commands, verbose, quiet);
	return end_seed(&run, seed, quiet);
}

// The shortest run that still fails: halves, then quarters, and so on.
static void shrink(uint64_t seed)
{
	unsigned commands = 1000;
	for (unsigned step = commands / 2; step > 0; step /= 2) {
		while (commands > step && !run_seed(seed, commands - step, false, true).is_good) {
			commands -= step;
		}
	}
	tap_diag("again, and all that happens: KVD_SIM_ONE=%" PRIu64 ":%u meson test -C build "
		 "simulation -v",
		 seed, commands);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static int run_one(const char *text)
{
	char *end;
	uint64_t seed = strtoull(text, &end, 10);
	unsigned commands = *end == ':' ? (unsigned)strtoul(end + 1, NULL, 10) : 0;
	struct outcome outcome = run_seed(seed, commands, true, false);
	ok(outcome.is_good, "seed %" PRIu64 ", %u commands", seed, commands);
	return tap_done();
}

static void add(struct outcome *sum, const struct outcome *one)
{
	sum->steps += one->steps;
	sum->lives += one->lives;
	sum->crashes += one->crashes;
	sum->adoptions += one->adoptions;
	sum->loads += one->loads;
	sum->points += one->points;
	sum->faults += one->faults;
	sum->refused += one->refused;
	sum->splits += one->splits;
	sum->gets += one->gets;
	sum->revoked += one->revoked;
	sum->plans += one->plans;
	sum->recounts += one->recounts;
	sum->bounds += one->bounds;
	sum->evicted += one->evicted;
	sum->spilled += one->spilled;
	sum->promoted += one->promoted;
	sum->reseeds += one->reseeds;
	sum->moved += one->moved;
	sum->returned += one->returned;
	sum->squeezed += one->squeezed;
	sum->sleeps += one->sleeps;
	sum->unread += one->unread;
}

static void report(const struct outcome *sum)
{
	tap_diag("%" PRIu64 " steps, %" PRIu64 " lives, %" PRIu64 " crashes, %" PRIu64
		 " regions adopted, %" PRIu64 " stores loaded, %" PRIu64 " crash points passed",
		 sum->steps, sum->lives, sum->crashes, sum->adoptions, sum->loads, sum->points);
	tap_diag("%" PRIu64 " faults, %" PRIu64 " of them refused memory, %" PRIu64
		 " splits of a bucket, %" PRIu64 " gets of mapped readers, %" PRIu64
		 " sections revoked, %" PRIu64 " looks at the whole region",
		 sum->faults, sum->refused, sum->splits, sum->gets, sum->revoked, sum->plans);
	tap_diag("all counts held against a scan %" PRIu64 " times, the bound moved %" PRIu64,
		 sum->recounts, sum->bounds);
	tap_diag("%" PRIu64 " keys evicted, %" PRIu64 " values spilled, %" PRIu64
		 " put back, %" PRIu64 " could not be read",
		 sum->evicted, sum->spilled, sum->promoted, sum->unread);
	tap_diag("%" PRIu64 " times another hash key, room was made for %" PRIu64
		 " of them, %" PRIu64 " large values moved, %" PRIu64 " times memory given back",
		 sum->reseeds, sum->squeezed, sum->moved, sum->returned);
}

// A proof of nothing where nothing happened.
static void all_happened(const struct outcome *sum)
{
	const struct {
		const char *what;
		uint64_t count;
	} wanted[] = {
		{ "regions adopted", sum->adoptions },
		{ "stores loaded", sum->loads },
		{ "memory refused", sum->refused },
		{ "splits", sum->splits },
		{ "sections revoked", sum->revoked },
		{ "counts held against a scan", sum->recounts },
		{ "the bound moved", sum->bounds },
		{ "keys evicted", sum->evicted },
		{ "values spilled", sum->spilled },
		{ "values put back", sum->promoted },
		{ "values not read", sum->unread },
		{ "another hash key", sum->reseeds },
		{ "large values moved", sum->moved },
		{ "memory given back", sum->returned },
		{ "room made for another hash key", sum->squeezed },
		{ "sleeps that were cut", sum->sleeps },
	};
	unsigned missing = 0;
	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		if (wanted[i].count == 0) {
			tap_diag("never: %s", wanted[i].what);
			missing++;
		}
	}
	ok(missing == 0, "all of it happened: what was to be tried was");
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		// Not the child of a kvd that runs itself: each would begin all seeds anew.
		(void)fprintf(stderr, "%s: no arguments: %s\n", argv[0], argv[1]);
		return 2;
	}
	const char *one = getenv("KVD_SIM_ONE");
	if (one != NULL) {
		return run_one(one);
	}
	uint64_t first = number_from("KVD_TEST_SEED", 1);
	uint64_t seeds = number_from("KVD_SIM_SEEDS", SEEDS_DEFAULT);
	struct outcome sum = { 0 };
	struct run runs[PROCESSORS_MAX];
	uint64_t shrunk_max = number_from("KVD_SIM_SHRINK", 3);
	uint64_t failures_max = number_from("KVD_SIM_FAILURES", FAILURES_MAX);
	unsigned failures = 0;
	unsigned differ = 0;
	unsigned twice = 0;
	uint64_t done = 0, begun = 0;
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t processors = online < 1 ? 1 : (uint64_t)online;
	processors = processors < PROCESSORS_MAX ? processors : PROCESSORS_MAX;
	tap_diag("KVD_TEST_SEED=%" PRIu64 ", %" PRIu64 " seeds", first, seeds);
	for (; done < seeds && failures < failures_max; done++) {
		uint64_t seed = first + done;
		for (; begun < seeds && begun < done + processors; begun++) {
			runs[begun % PROCESSORS_MAX] = begin_seed(first + begun, 0, false, false);
		}
		struct outcome outcome = end_seed(&runs[done % PROCESSORS_MAX], seed, false);
		add(&sum, &outcome);
		if (!outcome.is_good) {
			failures++;
			if (failures <= shrunk_max) {
				shrink(seed);
			}
		} else if (done % TWICE_EVERY == 0) {
			struct outcome again = run_seed(seed, 0, false, true);
			twice++;
			if (memcmp(&again, &outcome, sizeof(again)) != 0) {
				differ++;
				tap_diag("seed %" PRIu64 " ran differently the second time", seed);
			}
		}
	}
	while (begun > done && begun > 0) { // when there were failures enough
		begun--;
		(void)end_seed(&runs[begun % PROCESSORS_MAX], first + begun, true);
	}
	ok(failures == 0, "%" PRIu64 " seeds from %" PRIu64 ": what was promised is kept", done,
	   first);
	ok(differ == 0, "%u of them twice: the same to the last step", twice);
	report(&sum);
	if (done >= SEEDS_FOR_ALL) {
		all_happened(&sum);
	}
	tap_diag("counted seeds-simulated %" PRIu64, done);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// Two reading processes beside one. Each is a fork that opens its own client, waits at a gate for
// the other and then reads for a fixed time; rates are added. One process runs on the first
// processor and on the second by turns, so that a difference between the two is in both sides of
// the ratio.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/get.h"
#include "shm/atomics.h"

#define PAIR_SLICE 1024u // keys between two looks at the clock

/// Shared by the processes of one measurement.
struct pair_gate {
	uint64_t go; // all are ready
	uint64_t ready[2];
	double reads_per_s[2];
};

struct pair {
	const struct get_pair *given;
	const struct get_way *way;
	struct pair_gate *gate;
};

static void pair_child(const struct pair *pair, unsigned which, unsigned cpu)
{
	const struct get_pair *given = pair->given;
	uint64_t (*clock_ns)(void) = given->cpu_time ? bench_thread_cpu_ns : bench_now_ns;
	struct get_side side;
	bench_pin(cpu);
	get_side_open(&side, given->socket_path, pair->way->is_lmdb ? given->lmdb_path : NULL);
	// Each starts elsewhere in the stream; one slice first, so that nothing is cold.
	size_t at = which * (given->stream->count / 2 / PAIR_SLICE * PAIR_SLICE);
	volatile uint64_t sum = pair->way->run(&side, given->stream->keys, PAIR_SLICE);
	// Release: partner is the parent's load-acquire; then the parent's store of `go`.
	kvs_store_release(&pair->gate->ready[which], 1);
	while (kvs_load_acquire(&pair->gate->go) == 0) {
		(void)usleep(100);
	}
	uint64_t start_ns = bench_now_ns(), counted_ns = clock_ns(), reads = 0;
	while (bench_now_ns() - start_ns < given->run_ns) {
		sum = sum +
		      pair->way->run(&side, given->stream->keys + at * BENCH_KEY_BYTES, PAIR_SLICE);
		reads += PAIR_SLICE;
		at = at + 2 * PAIR_SLICE > given->stream->count ? 0 : at + PAIR_SLICE;
	}
	counted_ns = clock_ns() - counted_ns;
	pair->gate->reads_per_s[which] = (double)reads * 1e9 / (double)counted_ns;
	get_side_close(&side);
}

// Runs `count` processes, the first on processor `cpu`. Returns the sum of their rates.
static double pair_run(const struct pair *pair, unsigned count, unsigned cpu)
{
	pid_t pids[2], parent = getpid();
	memset(pair->gate, 0, sizeof(*pair->gate));
	(void)fflush(stdout);
	for (unsigned i = 0; i < count; i++) {
		pids[i] = fork();
		if (pids[i] < 0) {
			bench_die("fork: %s", strerror(errno));
		}
		if (pids[i] == 0) {
			if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
				_exit(1);
			}
			pair_child(pair, i, cpu + i);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < count; i++) {
		while (kvs_load_acquire(&pair->gate->ready[i]) == 0) {
			if (waitpid(pids[i], NULL, WNOHANG) != 0) {
				bench_die("a reading process failed");
			}
			(void)usleep(1000);
		}
	}
	kvs_store_release(&pair->gate->go, 1); // partner: the children's load-acquire
	double sum = 0;
	for (unsigned i = 0; i < count; i++) {
		int status = 0;
		if (waitpid(pids[i], &status, 0) != pids[i] || status != 0) {
			bench_die("a reading process failed");
		}
		sum += pair->gate->reads_per_s[i];
	}
	return sum;
}

void get_pair(struct bench_rows *rows, const struct get_way *way, const struct get_pair *given)
{
	double one[BENCH_REPEATS_MAX], two[BENCH_REPEATS_MAX], ratio[BENCH_REPEATS_MAX];
	char id[64], label[96];
	struct pair pair = { .given = given, .way = way };
	unsigned repeats = given->repeats;
	pair.gate = mmap(NULL, sizeof(*pair.gate), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pair.gate == MAP_FAILED) {
		bench_die("mmap: %s", strerror(errno));
	}
	if (given->stream->count < 4 * PAIR_SLICE) {
		bench_die("two processes need a stream of at least %u keys", 4 * PAIR_SLICE);
	}
	for (unsigned i = 0; i < repeats; i++) {
		double first = pair_run(&pair, 1, 0);
		two[i] = pair_run(&pair, 2, 0);
		one[i] = (first + pair_run(&pair, 1, 1)) / 2;
		ratio[i] = two[i] / one[i];
	}
	(void)munmap(pair.gate, sizeof(*pair.gate));
	(void)snprintf(id, sizeof(id), "%s_one_process", way->id);
	(void)snprintf(label, sizeof(label), "%s; one process", way->label);
	bench_add(rows, id, label, "reads/s", one, repeats);
	(void)snprintf(id, sizeof(id), "%s_two_processes", way->id);
	(void)snprintf(label, sizeof(label), "%s; two processes", way->label);
	bench_add(rows, id, label, "reads/s", two, repeats);
	(void)snprintf(id, sizeof(id), "%s_two_to_one", way->id);
	(void)snprintf(label, sizeof(label), "%s; two to one", way->label);
	bench_add(rows, id, label, "times", ratio, repeats);
}

// SPDX-License-Identifier: MIT
//
// How fast records become durable: the keyspace and the persister without the socket. One thread
// sets random keys of a fixed set in groups and asks for durability after each, at most `ahead`
// groups in front of the commits, as pipelining clients do; compaction runs all the while. Prints
// one line a second (records, file size against live bytes, slowest commit) and a summary.
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

#include "tests/daemon/persist_fixture.h"

struct plan {
	unsigned seconds;
	unsigned keys;
	unsigned group; // records a request
	unsigned ahead; // groups not yet durable
	uint32_t value_bytes;
	unsigned floor_mib; // below it nothing is compacted
};

struct tally {
	uint64_t records;
	uint64_t began_ns;
	uint64_t said_ns;
	uint64_t said_records;
	uint64_t slowest_ns; // from request to durable
	double worst_ratio;
	uint64_t *latencies_ns;
	size_t latencies_count;
	size_t latencies_max;
};

static uint64_t now_ns(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t write_group(struct life *life, const struct plan *plan, uint64_t *random)
{
	static unsigned char value[4096];
	uint64_t seq = 0;
	keyspace_tick(life->keyspace);
	for (unsigned i = 0; i < plan->group;) {
		char key[17];
		uint64_t number = tap_random(random) % plan->keys;
		(void)snprintf(key, sizeof(key), "k%015llu", (unsigned long long)number);
		if (keyspace_set(life->keyspace, key, 16, value, plan->value_bytes, 0, &seq) ==
		    KEYSPACE_OK) {
			i++;
			continue;
		}
		uint64_t last = keyspace_last_seq(life->keyspace);
		persist_request(life->persist, last);
		(void)life_wait(life, last);
		cleaner_turn(life->keyspace, now_ns());
	}
	return seq;
}

static void say(struct life *life, struct tally *tally, uint64_t at_ns)
{
	double seconds = (double)(at_ns - tally->said_ns) / 1e9;
	double live = (double)keyspace_live_bytes(life->keyspace);
	struct stat facts = { .st_size = 0 };
	char path[FIXTURE_PATH_BYTES + 32];
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", getenv("BENCH_DIR"));
	(void)stat(path, &facts);
	double ratio = (double)facts.st_size / live;
	printf("%7.0f records/s  log %.2f x live  file %.2f x live  commits %llu  compacted %llu "
	       "MB\n",
	       (double)(tally->records - tally->said_records) / seconds,
	       (double)life_counter(life, KVS_COUNTER_store_bytes) / live, ratio,
	       (unsigned long long)life_counter(life, KVS_COUNTER_commits),
	       (unsigned long long)life_counter(life, KVS_COUNTER_compaction_rewritten_bytes) >>
		       20);
	fflush(stdout);
	if (ratio > tally->worst_ratio && at_ns - tally->began_ns > 5000000000u) {
		tally->worst_ratio = ratio;
	}
	tally->said_ns = at_ns;
	tally->said_records = tally->records;
}

static void measure(struct life *life, const struct plan *plan, struct tally *tally)
{
	uint64_t random = 42;
	uint64_t seqs[64];
	uint64_t asked_ns[64];
	unsigned head = 0;
	unsigned waiting = 0;
	uint64_t end_ns = now_ns() + plan->seconds * UINT64_C(1000000000);
	tally->began_ns = tally->said_ns = now_ns();
	for (uint64_t at_ns = tally->began_ns; at_ns < end_ns; at_ns = now_ns()) {
		if (waiting == plan->ahead) {
			if (!life_wait(life, seqs[head % 64])) {
				printf("a commit failed\n");
				exit(1);
			}
			uint64_t took_ns = now_ns() - asked_ns[head % 64];
			if (tally->latencies_count < tally->latencies_max) {
				tally->latencies_ns[tally->latencies_count++] = took_ns;
			}
			head++;
			waiting--;
			tally->records += plan->group;
		}
		uint64_t seq = write_group(life, plan, &random);
		seqs[(head + waiting) % 64] = seq;
		asked_ns[(head + waiting) % 64] = now_ns();
		waiting++;
		persist_set_live_bytes(life->persist, keyspace_live_bytes(life->keyspace));
		persist_request(life->persist, seq);
		cleaner_turn(life->keyspace, at_ns);
		if (at_ns - tally->said_ns >= 1000000000u) {
			say(life, tally, at_ns);
		}
	}
}

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left;
	uint64_t b = *(const uint64_t *)right;
	return a < b ? -1 : a > b;
}

static double cpu_seconds(void)
{
	struct rusage used;
	(void)getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

// Of the persister's thread alone.
static double persister_seconds(const struct life *life)
{
	clockid_t clock;
	struct timespec used = { 0 };
	if (pthread_getcpuclockid(life->persist->thread, &clock) == 0) {
		(void)clock_gettime(clock, &used);
	}
	return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static unsigned number(int argc, char **argv, int index, unsigned otherwise)
{
	return argc > index ? (unsigned)strtoul(argv[index], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	struct plan plan = {
		.seconds = number(argc, argv, 1, 10),
		.keys = number(argc, argv, 2, 1000000),
		.group = number(argc, argv, 3, 2500),
		.ahead = number(argc, argv, 4, 2),
		.value_bytes = number(argc, argv, 5, 64),
		.floor_mib = number(argc, argv, 6, 64),
	};
	if (plan.ahead == 0 || plan.ahead > 64 || plan.value_bytes > 4096 || plan.keys == 0) {
		printf("usage: store_append [SECONDS [KEYS [GROUP [AHEAD 1..64 [VALUE "
		       "BYTES]]]]]\n");
		return 2;
	}
	char dir[FIXTURE_PATH_BYTES];
	fixture_dir(dir);
	(void)setenv("BENCH_DIR", dir, 1);
	struct life_options options = {
		.dir = dir,
		.memory_bytes = (uint64_t)plan.keys * (plan.value_bytes + 100) * 2 + (256u << 20),
		.segment_bytes = 2u << 20,
		.policy = PERSIST_GROUP,
		.lazy_ms = 1000,
		.lazy_bytes = 16u << 20,
		.ratio_percent = 200,
		.floor_bytes = (uint64_t)plan.floor_mib << 20,
		.threaded = true,
	};
	static struct life life;
	life_begin(&life, &options);
	static struct tally tally;
	tally.latencies_max = 1u << 22;
	tally.latencies_ns = malloc(tally.latencies_max * sizeof(uint64_t));
	measure(&life, &plan, &tally);
	double seconds = (double)(now_ns() - tally.began_ns) / 1e9;
	qsort(tally.latencies_ns, tally.latencies_count, sizeof(uint64_t), compare);
	size_t last = tally.latencies_count > 0 ? tally.latencies_count - 1 : 0;
	printf("%.0f records/s over %.0f s; request to durable: p50 %.2f, p99 %.2f, max %.2f ms; "
	       "file at most %.2f x live; processor %.2f s a second, %.0f ns a record of it in the "
	       "persister\n",
	       (double)tally.records / seconds, seconds, (double)tally.latencies_ns[last / 2] / 1e6,
	       (double)tally.latencies_ns[last * 99 / 100] / 1e6,
	       (double)tally.latencies_ns[last] / 1e6, tally.worst_ratio, cpu_seconds() / seconds,
	       persister_seconds(&life) * 1e9 / (double)tally.records);
	free(tally.latencies_ns);
	(void)life_end(&life);
	fixture_remove(dir);
	return 0;
}

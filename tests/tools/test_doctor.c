// SPDX-License-Identifier: MIT
//
// The judges of kvctl doctor: facts of a machine and a kvd that are well lead to nothing but ok;
// each row changes some, and then one finding says so and the others do not. A finding that asks
// for something says what.
#include <stdio.h>
#include <string.h>

#include "tests/tap/tap.h"
#include "tools/doctor.h"

#define GIB (INT64_C(1) << 30)
#define MIB (INT64_C(1) << 20)
#define TEXT(field, text) (void)snprintf(field, sizeof(field), "%s", text)

static struct doctor_facts facts;
#define MACHINE (facts.machine)
#define KERNEL (facts.kernel)
#define PROCESS (facts.process)
#define KVD (facts.kvd)
#define FOLDER (facts.folder)
#define MEASURE (facts.measure)

static void be_well(void)
{
	facts = (struct doctor_facts){
		.machine = { .thp = "madvise",
			     .thp_shmem = "advise",
			     .memory_bytes = 16 * GIB,
			     .available_bytes = 12 * GIB,
			     .commit_limit_bytes = 8 * GIB,
			     .committed_bytes = 7 * GIB,
			     .clock = "tsc" },
		.kernel = { .release = "6.12.0",
			    .membarrier = true,
			    .pidfd = true,
			    .peer_pidfd = true,
			    .noexec_seal = true,
			    .populate = true,
			    .collapse = true },
		.process = { .pid = 4711,
			     .uid = 990,
			     .files_limit = 65536,
			     .locked_limit_bytes = 8 * MIB,
			     .file_limit_bytes = DOCTOR_NO_LIMIT,
			     .group_limit_bytes = DOCTOR_NO_LIMIT,
			     .region_bytes = GIB,
			     .region_huge_bytes = GIB - 4 * MIB },
		.kvd = { .reached = true,
			 .policy = "lazy",
			 .state = "ok",
			 .pages = "transparent",
			 .exact = true,
			 .bound_bytes = 4 * GIB,
			 .bound_max_bytes = 8 * GIB,
			 .used_bytes = GIB,
			 .file_bytes = GIB + 16 * MIB,
			 .expected_bytes = GIB + 16 * MIB,
			 .fragmentation_percent = 12,
			 .in_the_way = "nothing",
			 .clients = 20,
			 .clients_max = 10000,
			 .undurable = 400,
			 .store_bytes = 2 * GIB,
			 .store_live_bytes = GIB },
		.folder = { .path = "/var/lib/kvd",
			    .type = "ext4",
			    .present = true,
			    .free_bytes = 100 * GIB,
			    .store_bytes = 2 * GIB,
			    .locked_by = 4711 },
		.measure = { .done = true,
			     .huge = DOCTOR_HUGE_JOINED,
			     .bytes = 64 * MIB,
			     .small_ns = 150,
			     .huge_ns = 100,
			     .ratio = 1.5 },
	};
}

static void go_down(void)
{
	KVD = (struct doctor_kvd){ .why = "nobody listens at /x: there is no such socket. Start "
					  "kvd" };
	PROCESS = (struct doctor_process){ .uid = DOCTOR_UNKNOWN };
	FOLDER.locked_by = 0;
}

static void judge_all(struct doctor_finding *findings)
{
	memset(findings, 0, sizeof(*findings) * doctor_checks_count);
	for (size_t i = 0; i < doctor_checks_count; i++) {
		doctor_checks[i].judge(&facts, &findings[i]);
	}
}

static void test_well(void)
{
	struct doctor_finding findings[64];
	be_well();
	judge_all(findings);
	for (size_t i = 0; i < doctor_checks_count; i++) {
		ok(findings[i].state == DOCTOR_OK && findings[i].text[0] && !findings[i].remedy[0],
		   "%s: all is well: %s", doctor_checks[i].name, findings[i].text);
	}
}

static uint64_t seen; // checks that were seen to say something

// Whether one finding is that and the others are as they were.
static void expect(const char *what, const char *check, enum doctor_state state, const char *text,
		   const char *remedy)
{
	struct doctor_finding findings[64];
	unsigned others = 0;
	const struct doctor_finding *found = NULL;
	judge_all(findings);
	for (size_t i = 0; i < doctor_checks_count; i++) {
		bool meant = strcmp(doctor_checks[i].name, check) == 0;
		bool down = !KVD.reached && i == 0; // said by itself
		others += !meant && !down && findings[i].state > DOCTOR_SKIPPED;
		found = meant ? &findings[i] : found;
		seen |= meant && state != DOCTOR_OK ? UINT64_C(1) << i : 0;
	}
	if (!ok(found && found->state == state && strstr(found->text, text) && others == 0 &&
			(remedy ? strstr(found->remedy, remedy) != NULL : !found->remedy[0]),
		"%s: %s of %s", what, doctor_state_name(state), check)) {
		printf("# %s: %s -> %s; %u others\n", found ? doctor_state_name(found->state) : "?",
		       found ? found->text : "?", found ? found->remedy : "?", others);
	}
}

static void test_rows(void)
{
#define X(what, change, check, state, text, remedy) \
	be_well();                                  \
	change;                                     \
	expect(what, check, DOCTOR_##state, text, remedy);
#include "tests/tools/doctor_rows.tbl.h"
#undef X
}

static void test_down(void)
{
	static const char *const told[] = { "disk", "former", "machine",    "pool",  "gain",
					    "swap", "kernel", "membarrier", "clock", NULL };
	struct doctor_finding findings[64];
	unsigned wrong = 0;
	be_well();
	go_down();
	expect("kvd is down", "kvd", DOCTOR_WARNING, "there is no such socket", "Start kvd");
	judge_all(findings);
	for (size_t i = 1; i < doctor_checks_count; i++) {
		size_t j = 0;
		while (told[j] && strcmp(told[j], doctor_checks[i].name) != 0) {
			j++;
		}
		wrong += findings[i].state != (told[j] ? DOCTOR_OK : DOCTOR_SKIPPED) ||
			 !findings[i].text[0];
	}
	ok_int((int)wrong, 0, "then what can be told without it is, and the rest skipped");
	FOLDER.locked_by = 12;
	expect("it is starting", "kvd", DOCTOR_WARNING, "no such socket",
	       "process 12 has the lock");
	TEXT(KVD.why, "KVD.STATS: ERR unknown command");
	FOLDER.locked_by = 0;
	expect("it is something else", "kvd", DOCTOR_WARNING, "unknown command", "--socket");
	expect("there are data", "store", DOCTOR_SKIPPED, "2.15 GB in the store", "kvctl verify");
}

int main(void)
{
	ok(doctor_checks_count <= 64, "%zu checks", doctor_checks_count);
	test_well();
	test_rows();
	test_down();
	for (size_t i = 0; i < doctor_checks_count; i++) {
		ok(seen >> i & 1, "%s has something to say", doctor_checks[i].name);
	}
	return tap_done();
}

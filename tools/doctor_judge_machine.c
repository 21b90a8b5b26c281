// SPDX-License-Identifier: MIT
//
// What is made of the machine, and of what it grants kvd's process.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/doctor_parts.h"

#define DOCTOR_HUGE_PERCENT 80
#define DOCTOR_BIG_BYTES (INT64_C(64) << 20) // below this pages make little difference
#define DOCTOR_CLIENTS_PERCENT 80
#define DOCTOR_FILES_FEW 1024

static bool is_hugetlb(const struct doctor_facts *facts)
{
	return strcmp(facts->kvd.pages, "hugetlb") == 0;
}

void judge_machine(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_machine *machine = &facts->machine;
	const struct doctor_kvd *kvd = &facts->kvd;
	int64_t wanted = is_hugetlb(facts) ? 0 : kvd->bound_bytes - kvd->file_bytes;
	int64_t left = machine->commit_limit_bytes - machine->committed_bytes;
	if (machine->available_bytes < 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "/proc/meminfo cannot be read");
	} else if (wanted > machine->available_bytes) {
		doctor_say(finding, DOCTOR_WARNING,
			   "the region may take %s more, and the machine has %s left: when it "
			   "fills the kernel ends a process",
			   doctor_size(wanted), doctor_size(machine->available_bytes));
		doctor_advise(finding, "CONFIG SET maxmemory lower, or end what takes the rest");
	} else if (machine->overcommit == 2 && wanted > left) {
		doctor_say(finding, DOCTOR_WARNING,
			   "the region may take %s more, and vm.overcommit_memory = 2 leaves %s",
			   doctor_size(wanted), doctor_size(left));
		doctor_advise(finding, "sysctl vm.overcommit_memory=0, or a higher "
				       "vm.overcommit_ratio");
	} else {
		doctor_say(finding, DOCTOR_OK, "%s of %s available%s%s",
			   doctor_size(machine->available_bytes),
			   doctor_size(machine->memory_bytes),
			   wanted > 0 ? ", the region may take more: " : "",
			   wanted > 0 ? doctor_size(wanted) : "");
	}
}

void judge_group(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_process *process = &facts->process;
	const struct doctor_kvd *kvd = &facts->kvd;
	int64_t limit = process->group_limit_bytes;
	if (doctor_is_down(facts, finding)) {
		return;
	}
	if (limit < 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "kvd's control groups cannot be read");
	} else if (limit == DOCTOR_NO_LIMIT) {
		doctor_say(finding, DOCTOR_OK, "no control group limits kvd's memory");
	} else if (!is_hugetlb(facts) && kvd->bound_bytes > limit) {
		doctor_say(finding, DOCTOR_WARNING,
			   "the region may have %s, and %s lets kvd have %s: when it fills the "
			   "kernel ends kvd",
			   doctor_size(kvd->bound_bytes), process->group, doctor_size(limit));
		doctor_advise(finding, "CONFIG SET maxmemory lower, or raise the limit (MemoryMax=,"
				       " MemoryHigh=, docker run --memory)");
	} else if (!is_hugetlb(facts) && kvd->bound_bytes > limit / 10 * 9) {
		doctor_say(finding, DOCTOR_NOTE,
			   "the region may have %s of the %s that %s lets kvd have: little is left "
			   "for clients' buffers and the store's pages",
			   doctor_size(kvd->bound_bytes), doctor_size(limit), process->group);
		doctor_advise(finding, "raise the limit (MemoryMax=), or lower memory");
	} else {
		doctor_say(finding, DOCTOR_OK, "%s lets kvd have %s", process->group,
			   doctor_size(limit));
	}
}

// The region as it is; what could be is with `gain` and `pool`.
void judge_pages(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_process *process = &facts->process;
	const struct doctor_machine *machine = &facts->machine;
	const struct doctor_kvd *kvd = &facts->kvd;
	if (doctor_is_down(facts, finding)) {
		return;
	}
	bool small = strcmp(kvd->pages, "small") == 0;
	if (is_hugetlb(facts)) {
		doctor_say(finding, DOCTOR_OK, "all of the region has huge pages of the pool");
	} else if (process->region_bytes <= 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "%s",
			   process->region_why[0] ? process->region_why : "the region is empty");
		doctor_advise(finding, "kvctl doctor as root");
	} else {
		int64_t huge = process->region_huge_bytes, all = process->region_bytes;
		int64_t percent = (int64_t)(100.0 * (double)huge / (double)all);
		bool few = all >= DOCTOR_BIG_BYTES && percent < DOCTOR_HUGE_PERCENT;
		doctor_say(finding, few ? DOCTOR_NOTE : DOCTOR_OK,
			   "%" PRId64 " %% of the region's %s have huge pages (huge-pages = %s%s%s"
			   "; shmem_enabled: %s)",
			   percent, doctor_size(all), small ? "off" : kvd->pages,
			   machine->thp[0] ? "; enabled: " : "", machine->thp,
			   machine->thp_shmem[0] ? machine->thp_shmem : "not there");
		if (few && small) {
			doctor_advise(finding, "huge-pages = transparent, or hugetlb");
		} else if (few) {
			doctor_advise(finding, "the kernel had no more in one piece: prefault = yes"
					       " takes them at the start, huge-pages = hugetlb "
					       "from a pool of their own");
		}
	}
}

void judge_pool(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_machine *machine = &facts->machine;
	const struct doctor_kvd *kvd = &facts->kvd;
	int64_t idle_bytes = machine->pool_available * 2 * 1024 * 1024;
	if (machine->pool_pages < 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "the kernel has no huge pages of 2 MiB");
	} else if (kvd->bound_bytes > 0 && !is_hugetlb(facts) && idle_bytes >= kvd->bound_bytes) {
		doctor_say(finding, DOCTOR_NOTE,
			   "%" PRId64 " huge pages can be had, and kvd, for whose %s they would do,"
			   " uses none",
			   machine->pool_available, doctor_size(kvd->bound_bytes));
		doctor_advise(finding, "huge-pages = hugetlb, if they are for kvd");
	} else {
		doctor_say(finding, DOCTOR_OK, "%" PRId64 " huge pages, %" PRId64 " can be had%s",
			   machine->pool_pages, machine->pool_available,
			   is_hugetlb(facts) ? " besides those that kvd has" : "");
	}
}

void judge_gain(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_measure *measure = &facts->measure;
	const struct doctor_machine *machine = &facts->machine;
	if (!measure->done) {
		doctor_say(finding, DOCTOR_SKIPPED, "not measured: %s", measure->why);
	} else if (measure->huge == DOCTOR_HUGE_NONE) {
		doctor_say(finding, DOCTOR_NOTE,
			   "the kernel gives shared memory no huge pages (shmem_enabled: %s); a "
			   "dependent read in %s of small ones takes %.0f ns",
			   machine->thp_shmem[0] ? machine->thp_shmem : "not there",
			   doctor_size(measure->bytes), measure->small_ns);
		doctor_advise(finding, "Linux 6.1 joins small ones when it is asked to; before, "
				       "echo advise > /sys/kernel/mm/transparent_hugepage/"
				       "shmem_enabled; or huge-pages = hugetlb");
	} else {
		doctor_say(finding, DOCTOR_OK,
			   "a dependent read in %s takes %.0f ns in pages of 4 KiB and %.0f ns in "
			   "pages of 2 MiB (%s): %.2f times as fast",
			   doctor_size(measure->bytes), measure->small_ns, measure->huge_ns,
			   measure->huge == DOCTOR_HUGE_POOL ? "of the pool" : "joined",
			   measure->ratio);
	}
}

void judge_swap(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	int64_t swap_bytes = facts->machine.swap_bytes;
	int64_t may_lock_bytes = facts->process.locked_limit_bytes;
	if (swap_bytes < 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "/proc/meminfo cannot be read");
	} else if (swap_bytes == 0) {
		doctor_say(finding, DOCTOR_OK, "the machine has no swap");
	} else if (facts->kvd.locked || is_hugetlb(facts)) {
		doctor_say(finding, DOCTOR_OK, "the region's pages stay in memory");
	} else {
		doctor_say(finding, DOCTOR_NOTE,
			   "the machine has %s of swap: a read of what is there takes milliseconds",
			   doctor_size(swap_bytes));
		bool may = may_lock_bytes == DOCTOR_NO_LIMIT ||
			   (facts->kvd.reached && may_lock_bytes >= facts->kvd.bound_max_bytes);
		doctor_advise(finding, "mlock = yes%s; or MemorySwapMax=0 in the unit",
			      may ? "" : " with LimitMEMLOCK=infinity in the unit");
	}
}

void judge_files(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	int64_t files = facts->process.files_limit;
	const struct doctor_kvd *kvd = &facts->kvd;
	if (doctor_is_down(facts, finding)) {
		return;
	}
	if (kvd->clients_max <= 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "how many clients kvd takes is not known");
	} else if (kvd->clients >= kvd->clients_max / 100.0 * DOCTOR_CLIENTS_PERCENT) {
		doctor_say(finding, DOCTOR_WARNING,
			   "%" PRId64 " clients are connected, of at most %" PRId64, kvd->clients,
			   kvd->clients_max);
		doctor_advise(finding, "a higher maxclients, with three times as many files for it:"
				       " LimitNOFILE= in the unit; kvctl clients shows who they "
				       "are");
	} else if (files >= 0 && files <= DOCTOR_FILES_FEW) {
		doctor_say(finding, DOCTOR_NOTE,
			   "kvd may open %" PRId64 " files, so no more than %" PRId64
			   " clients may come",
			   files, kvd->clients_max);
		doctor_advise(finding, "LimitNOFILE=65536 in the unit");
	} else {
		doctor_say(finding, DOCTOR_OK, "%" PRId64 " of %" PRId64 " clients are connected",
			   kvd->clients, kvd->clients_max);
	}
}

void judge_file_size(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	int64_t limit = facts->process.file_limit_bytes;
	int64_t store = facts->folder.store_bytes;
	if (doctor_is_down(facts, finding)) {
		return;
	}
	if (limit < 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "the limits of kvd's process cannot be read");
	} else if (limit == DOCTOR_NO_LIMIT) {
		doctor_say(finding, DOCTOR_OK, "files may have any size");
	} else if (limit / 2 < store || limit / 2 < facts->kvd.bound_bytes) {
		doctor_say(finding, DOCTOR_WARNING,
			   "kvd may write no file larger than %s, and the store may come to twice "
			   "what is live",
			   doctor_size(limit));
		doctor_advise(finding, "LimitFSIZE=infinity in the unit, ulimit -f unlimited");
	} else {
		doctor_say(finding, DOCTOR_OK, "files may have %s", doctor_size(limit));
	}
}

void judge_membarrier(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	if (facts->kernel.membarrier) {
		doctor_say(finding, DOCTOR_OK, "readers begin without a fence");
		return;
	}
	doctor_say(finding, DOCTOR_NOTE, "membarrier is refused: each read pays a fence");
	doctor_advise(finding, "let the filter of system calls pass membarrier "
			       "(SystemCallFilter=, the container's profile)");
}

void judge_kernel(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_kernel *kernel = &facts->kernel;
	const struct {
		bool there;
		const char *without;
	} uses[] = {
		{ kernel->peer_pidfd, "SO_PEERPIDFD (a client is looked up by its pid, then looked "
				      "at again)" },
		{ kernel->noexec_seal, "MFD_NOEXEC_SEAL (mode 0600 alone keeps the region from "
				       "being executed)" },
		{ kernel->populate, "MADV_POPULATE_WRITE (pages are allocated without being "
				    "mapped)" },
		{ kernel->collapse, "MADV_COLLAPSE (huge pages as shmem_enabled says)" },
	};
	char missing[512] = "";
	for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
		size_t used = strlen(missing);
		if (!uses[i].there) {
			(void)snprintf(missing + used, sizeof missing - used, "%s%s",
				       used ? ", " : "", uses[i].without);
		}
	}
	if (!kernel->pidfd) {
		doctor_say(finding, DOCTOR_WARNING,
			   "Linux %s refuses pidfd_open: no client could be watched, so none may "
			   "map the region",
			   kernel->release);
		doctor_advise(finding, "let the filter of system calls pass it (the container's "
				       "profile); Linux 5.3 has it");
	} else if (missing[0]) {
		doctor_say(finding, DOCTOR_NOTE, "Linux %s works, without %s", kernel->release,
			   missing);
		doctor_advise(finding, "Linux 6.5 has them all");
	} else {
		doctor_say(finding, DOCTOR_OK, "Linux %s has all that kvd uses", kernel->release);
	}
}

void judge_clock(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	static const char *const quick[] = { "tsc", "kvm-clock", "hyperv_clocksource_tsc_page",
					     "arch_sys_counter", NULL };
	const char *clock = facts->machine.clock;
	if (!clock[0]) {
		doctor_say(finding, DOCTOR_SKIPPED, "the kernel shows no clock source");
	} else if (doctor_is_among(clock, quick)) {
		doctor_say(finding, DOCTOR_OK, "clock source %s", clock);
	} else {
		doctor_say(finding, DOCTOR_NOTE, "clock source %s: reading it takes a system call",
			   clock);
		doctor_advise(finding, "choose one of available_clocksource in "
				       "/sys/devices/system/clocksource/clocksource0, tsc best");
	}
}

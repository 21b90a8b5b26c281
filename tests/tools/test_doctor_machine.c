// SPDX-License-Identifier: MIT
//
// Facts for kvctl doctor out of files of the kernel that were made up, and out of none.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/lib/kernel_files.h"
#include "tests/tap/tap.h"
#include "tools/doctor.h"

#define MIB (INT64_C(1) << 20)

static void test_machine(void)
{
	struct doctor_machine machine;
	kernel_files_begin();
	doctor_machine_find(root, &machine);
	ok(!machine.thp[0] && !machine.thp_shmem[0] && !machine.clock[0] &&
		   machine.pool_pages == DOCTOR_UNKNOWN && machine.available_bytes < 0 &&
		   machine.swap_bytes < 0 && machine.overcommit < 0,
	   "of a machine that shows nothing nothing is known");
	put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
	put("/sys/kernel/mm/transparent_hugepage/shmem_enabled",
	    "always within_size advise [never] deny force\n");
	put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "12\n");
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "7\n");
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "2\n");
	put("/proc/sys/vm/overcommit_memory", "2\n");
	put("/proc/meminfo", "MemTotal:        4096 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n"
			     "SwapTotal:          0 kB\nSwapFree: 0 kB\nCommitLimit: 3072 kB\n"
			     "Committed_AS:    1024 kB\nHugePages_Total:  12\n");
	doctor_machine_find(root, &machine);
	ok_str(machine.thp, "madvise", "the word in brackets");
	ok_str(machine.thp_shmem, "never", "of shared memory");
	ok_str(machine.clock, "tsc", "the clock");
	ok(machine.pool_pages == 12 && machine.pool_available == 5, "the pool");
	ok(machine.memory_bytes == 4 * MIB && machine.available_bytes == 2 * MIB &&
		   machine.swap_bytes == 0 && machine.commit_limit_bytes == 3 * MIB &&
		   machine.committed_bytes == MIB && machine.overcommit == 2,
	   "memory");
	put("/proc/meminfo", "MemTotal:\nMemAvailable: -5 kB\nSwapTotal: many kB\n\n:\n");
	put("/sys/kernel/mm/transparent_hugepage/enabled", "[[[");
	doctor_machine_find(root, &machine);
	ok(machine.memory_bytes < 0 && machine.available_bytes < 0 && machine.swap_bytes < 0,
	   "nonsense is nothing that is known");
	kernel_files_end();
}

static void test_process(void)
{
	struct doctor_process process = { .pid = 0 };
	kernel_files_begin();
	doctor_process_find(root, &process);
	ok(process.files_limit < 0 && process.group_limit_bytes < 0, "no process");
	process.pid = 12;
	doctor_process_find(root, &process);
	ok(process.files_limit < 0 && process.group_limit_bytes < 0, "one that is hidden");
	put("/proc/12/limits",
	    "Limit                     Soft Limit           Hard Limit           Units     \n"
	    "Max file size             unlimited            unlimited            bytes     \n"
	    "Max open files            1024                 524288               files     \n"
	    "Max locked memory         8388608              8388608              bytes     \n");
	put("/proc/meminfo", "MemTotal:        4194304 kB\n");
	put("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
	put("/proc/self/cgroup", "0::/mine\n");
	put("/proc/12/cgroup", "0::/kvd\n");
	put("/sys/fs/cgroup/mine/memory.max", "1000000\n");
	put("/sys/fs/cgroup/kvd/memory.max", "max\n");
	doctor_process_find(root, &process);
	ok(process.files_limit == 1024 && process.locked_limit_bytes == 8 * MIB &&
		   process.file_limit_bytes == DOCTOR_NO_LIMIT,
	   "its limits, the soft ones");
	ok(process.group_limit_bytes == DOCTOR_NO_LIMIT, "its group has none");
	put("/sys/fs/cgroup/kvd/memory.high", "2097152\n");
	doctor_process_find(root, &process);
	ok(process.group_limit_bytes == 2 * MIB, "its group's, and not that of who asks");
	ok_str(process.group, "/sys/fs/cgroup/kvd/memory.high", "with the file that says so");
	kernel_files_end();
}

static void test_pages(void)
{
	struct doctor_process process = { .pid = 12 };
	kernel_files_begin();
	doctor_process_pages(root, &process);
	ok(process.region_bytes == 0 && strstr(process.region_why, "No such file"),
	   "pages that are not told: %s", process.region_why);
	put("/proc/12/smaps",
	    "7f0000000000-7f0000200000 rw-s 00000000 00:01 7      /memfd:kvd-region (deleted)\n"
	    "Size:               2048 kB\nRss:                1024 kB\nShmemPmdMapped:  512 kB\n"
	    "Shared_Hugetlb:        0 kB\nPrivate_Hugetlb:       0 kB\nVmFlags: rd wr sh\n"
	    "7f0000400000-7f0000600000 rw-p 00000000 00:00 0      [heap]\n"
	    "Rss:                1024 kB\nShmemPmdMapped:  512 kB\n"
	    "af0000400000-af0000600000 r--s 00000000 00:01 7      /memfd:kvd-region (deleted)\n"
	    "Rss:                   0 kB\nShared_Hugetlb:     2048 kB\n");
	doctor_process_pages(root, &process);
	ok(process.region_bytes == 3 * MIB && process.region_huge_bytes == 2 * MIB + 512 * 1024,
	   "those of the region alone, joined and of the pool: %" PRId64 " of %" PRId64,
	   process.region_huge_bytes, process.region_bytes);
	kernel_files_end();
}

static void test_folder(void)
{
	struct doctor_folder folder = { 0 };
	char path[512], locks[256];
	struct stat facts;
	kernel_files_begin();
	doctor_folder_find(root, &folder);
	ok(!folder.present && !folder.why[0], "no folder");
	(void)snprintf(folder.path, sizeof(folder.path), "%s/data", root);
	doctor_folder_find(root, &folder);
	ok(!folder.present && strstr(folder.why, "No such file"), "one that is not there");
	put("/data/kvd.lock", "");
	put("/data/store/data.mdb", "12345678");
	put("/data/store.failed-1/data.mdb", "");
	put("/data/store.before-2/data.mdb", "");
	doctor_folder_find(root, &folder);
	ok(folder.present && folder.free_bytes > 0 && folder.type[0], "one that is, on %s",
	   folder.type);
	ok(folder.former == 2 && strncmp(folder.former_name, "store.", 6) == 0,
	   "with stores that were put aside");
	(void)snprintf(path, sizeof(path), "%s/data/store/data.mdb", root);
	ok(stat(path, &facts) == 0 && folder.store_bytes == (int64_t)facts.st_blocks * 512,
	   "and one");
	ok(folder.locked_by == 0, "of nobody");
	(void)snprintf(path, sizeof(path), "%s/data/kvd.lock", root);
	if (stat(path, &facts) != 0) {
		abort();
	}
	(void)snprintf(locks, sizeof(locks),
		       "1: POSIX  ADVISORY  WRITE 7 00:01:9 0 EOF\n"
		       "2: FLOCK  ADVISORY  WRITE 12 %02x:%02x:%" PRIu64 " 0 EOF\n"
		       "2: -> FLOCK  ADVISORY  WRITE 13 %02x:%02x:%" PRIu64 " 0 EOF\n",
		       major(facts.st_dev), minor(facts.st_dev), (uint64_t)facts.st_ino,
		       major(facts.st_dev), minor(facts.st_dev), (uint64_t)facts.st_ino);
	put("/proc/locks", locks);
	folder.former = 0;
	doctor_folder_find(root, &folder);
	ok(folder.locked_by == 12, "of whoever has its lock, and not of who waits for it");
	kernel_files_end();
}

int main(void)
{
	struct doctor_kernel kernel;
	test_machine();
	test_process();
	test_pages();
	test_folder();
	doctor_kernel_find(&kernel);
	ok(kernel.release[0], "the kernel says what it is: %s", kernel.release);
	return tap_done();
}

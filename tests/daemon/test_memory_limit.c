// SPDX-License-Identifier: MIT
//
// Limits of memory as trees of files tell them: the machine's, control groups of both versions,
// those above ours, containers that see a part of the tree, and files that say nothing good.
#include "daemon/memory_limit.h"

#include <string.h>

#include "tests/lib/kernel_files.h"
#include "tests/tap/tap.h"

#define MIB (UINT64_C(1) << 20)
#define UNIFIED "30 23 0:26 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n"
#define OLD "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"

/// A new tree of a machine with 4 GiB.
static void begin(const char *mounts, const char *groups)
{
	kernel_files_begin();
	put("/proc/meminfo", "MemTotal:        4194304 kB\nMemFree:          100 kB\n");
	put("/proc/self/mountinfo", mounts);
	put("/proc/self/cgroup", groups);
}

static void end(uint64_t bytes, const char *what, const char *name)
{
	struct memory_limit limit = memory_limit_find(root);
	ok(limit.bytes == bytes && strcmp(limit.what, what) == 0, "%s: %llu by '%s'", name,
	   (unsigned long long)limit.bytes, limit.what);
	kernel_files_end();
}

static void test_machine(void)
{
	begin("22 1 8:1 / / rw - ext4 /dev/root rw\n", "0::/\n");
	end(4096 * MIB, "", "a machine without groups");
	begin(UNIFIED, "0::/system.slice/kvd.service\n");
	put("/sys/fs/cgroup/system.slice/kvd.service/memory.max", "max\n");
	put("/sys/fs/cgroup/system.slice/kvd.service/memory.high", "max\n");
	end(4096 * MIB, "", "a group without a limit");
	begin(UNIFIED, "0::/kvd\n");
	put("/sys/fs/cgroup/kvd/memory.max", "9000000000\n");
	end(4096 * MIB, "", "a group that may use more than there is");
}

static void test_unified(void)
{
	begin(UNIFIED, "0::/system.slice/kvd.service\n");
	put("/sys/fs/cgroup/system.slice/kvd.service/memory.max", "536870912\n");
	end(512 * MIB, "/sys/fs/cgroup/system.slice/kvd.service/memory.max", "MemoryMax=512M");
	begin(UNIFIED, "0::/system.slice/kvd.service\n");
	put("/sys/fs/cgroup/system.slice/kvd.service/memory.max", "536870912\n");
	put("/sys/fs/cgroup/system.slice/memory.max", "268435456\n");
	end(256 * MIB, "/sys/fs/cgroup/system.slice/memory.max", "a group above has less");
	begin(UNIFIED, "0::/kvd\n");
	put("/sys/fs/cgroup/kvd/memory.max", "536870912\n");
	put("/sys/fs/cgroup/kvd/memory.high", "134217728\n");
	end(128 * MIB, "/sys/fs/cgroup/kvd/memory.high", "what slows it down counts, too");
	begin(UNIFIED, "0::/\n");
	put("/sys/fs/cgroup/memory.max", "67108864");
	end(64 * MIB, "/sys/fs/cgroup/memory.max", "a container with a name space of its own");
}

static void test_room(void)
{
	begin(UNIFIED, "0::/a/kvd\n");
	put("/proc/12/cgroup", "0::/other\n");
	put("/sys/fs/cgroup/a/kvd/memory.max", "100000000\n");
	put("/sys/fs/cgroup/a/kvd/memory.current", "10000000\n");
	put("/sys/fs/cgroup/a/memory.max", "200000000\n");
	put("/sys/fs/cgroup/a/memory.current", "180000000\n");
	put("/sys/fs/cgroup/other/memory.max", "max\n");
	put("/sys/fs/cgroup/other/memory.high", "50000000\n");
	put("/sys/fs/cgroup/other/memory.current", "60000000\n");
	ok_u64(memory_limit_find(root).room_bytes, 20000000, "room is what the fullest group has");
	struct memory_limit limit = memory_limit_find_of(root, 12);
	ok(limit.bytes == 50000000 && limit.room_bytes == 0,
	   "another process has the groups that it is in, and one that is beyond its limit none");
	limit = memory_limit_find_of(root, 13);
	ok(limit.bytes == 4096 * MIB && limit.room_bytes == UINT64_MAX, "one that is not there");
	end(100000000, "/sys/fs/cgroup/a/kvd/memory.max", "this one's are as ever");
}

static void test_old(void)
{
	begin(OLD, "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n");
	put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	end(4096 * MIB, "", "version 1 without a limit");
	begin(OLD, "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n");
	put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "1073741824\n");
	put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "536870912\n");
	end(512 * MIB, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "version 1");
	begin("35 31 0:32 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
	      "4:memory:/docker/x\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "33554432\n");
	end(32 * MIB, "/sys/fs/cgroup/memory/memory.limit_in_bytes",
	    "a container that sees its part of the tree only");
	begin("33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" OLD UNIFIED,
	      "4:memory:/a\n0::/b\n");
	put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "100000000\n");
	put("/sys/fs/cgroup/b/memory.max", "50000000\n");
	end(50000000, "/sys/fs/cgroup/b/memory.max", "both versions at once");
}

static void test_nonsense(void)
{
	begin(UNIFIED, "0::/../../etc\n");
	put("/sys/fs/cgroup/memory.max", "12345678\n");
	end(4096 * MIB, "", "a path that leads out is not followed");
	begin(UNIFIED "x\n\n - cgroup2\n35 31 0:32 - cgroup2 x y\n", "0::/kvd\n0\n:\n\n");
	put("/sys/fs/cgroup/kvd/memory.max", "-5\n");
	end(4096 * MIB, "", "what is no number is no limit");
	begin(UNIFIED, "0::/kvd\n");
	put("/sys/fs/cgroup/kvd/memory.max", "99999999999999999999999\n");
	end(4096 * MIB, "", "nor is one too many digits long");
	begin("", "");
	put("/proc/meminfo", "");
	end(UINT64_MAX, "", "nothing is known");
}

static void test_default(void)
{
	struct memory_limit limit = { .bytes = UINT64_MAX };
	ok_u64(memory_limit_default(&limit, 256 * MIB, 16 * MIB), 256 * MIB, "no limit");
	limit.bytes = 300 * MIB + 5;
	ok_u64(memory_limit_default(&limit, 256 * MIB, 16 * MIB), 150 * MIB, "half of it");
	limit.bytes = 3 * MIB;
	ok_u64(memory_limit_default(&limit, 256 * MIB, 16 * MIB), 16 * MIB, "but not too little");
}

int main(void)
{
	test_machine();
	test_unified();
	test_room();
	test_old();
	test_nonsense();
	test_default();
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// Facts from files of the kernel. What cannot be read or understood is not known, and no error.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "daemon/hugetlb.h"
#include "daemon/memory_limit.h"
#include "shm/newer_linux.h"
#include "tools/doctor.h"

#define MACHINE_LINE_BYTES 1024
#define MACHINE_LINES_MAX 1000000 // of one file

static FILE *machine_open(const char *root, const char *path)
{
	char full[PATH_MAX];
	int n = snprintf(full, sizeof full, "%s%s", root, path);
	return n > 0 && (size_t)n < sizeof full ? fopen(full, "re") : NULL;
}

static void machine_line(const char *root, const char *path, char *line, size_t line_bytes)
{
	FILE *file = machine_open(root, path);
	if (!file || !fgets(line, (int)line_bytes, file)) {
		line[0] = '\0';
	}
	line[strcspn(line, "\n")] = '\0';
	if (file) {
		(void)fclose(file);
	}
}

static int64_t machine_number(const char *text)
{
	char *end;
	errno = 0;
	long long number = strtoll(text, &end, 10);
	return end != text && errno == 0 && number >= 0 ? number : DOCTOR_UNKNOWN;
}

// Of "always [madvise] never" the word in brackets.
static void machine_choice(const char *root, const char *path, char *word, size_t word_bytes)
{
	char line[256];
	machine_line(root, path, line, sizeof line);
	const char *open = strchr(line, '[');
	size_t bytes = open ? strcspn(open + 1, "]") : 0;
	(void)snprintf(word, word_bytes, "%.*s", (int)bytes, open ? open + 1 : "");
}

static int64_t machine_kib(const char *line, const char *name)
{
	size_t bytes = strlen(name);
	if (strncmp(line, name, bytes) != 0 || line[bytes] != ':') {
		return DOCTOR_UNKNOWN;
	}
	int64_t kib = machine_number(line + bytes + 1);
	return kib >= 0 && kib < INT64_MAX / 1024 ? kib * 1024 : DOCTOR_UNKNOWN;
}

static void machine_memory(const char *root, struct doctor_machine *machine)
{
	char line[MACHINE_LINE_BYTES];
	const struct {
		const char *name;
		int64_t *bytes;
	} wanted[] = {
		{ "MemTotal", &machine->memory_bytes },
		{ "MemAvailable", &machine->available_bytes },
		{ "SwapTotal", &machine->swap_bytes },
		{ "CommitLimit", &machine->commit_limit_bytes },
		{ "Committed_AS", &machine->committed_bytes },
	};
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
		*wanted[i].bytes = DOCTOR_UNKNOWN;
	}
	FILE *file = machine_open(root, "/proc/meminfo");
	while (file && fgets(line, sizeof line, file)) {
		for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
			int64_t bytes = machine_kib(line, wanted[i].name);
			*wanted[i].bytes = bytes >= 0 ? bytes : *wanted[i].bytes;
		}
	}
	if (file) {
		(void)fclose(file);
	}
}

void doctor_machine_find(const char *root, struct doctor_machine *machine)
{
	char line[64];
	*machine = (struct doctor_machine){ 0 };
	machine_choice(root, "/sys/kernel/mm/transparent_hugepage/enabled", machine->thp,
		       sizeof machine->thp);
	machine_choice(root, "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		       machine->thp_shmem, sizeof machine->thp_shmem);
	machine_line(root, "/sys/devices/system/clocksource/clocksource0/current_clocksource",
		     machine->clock, sizeof machine->clock);
	machine_line(root, "/proc/sys/vm/overcommit_memory", line, sizeof line);
	machine->overcommit = machine_number(line);
	machine_memory(root, machine);
	struct hugetlb_pool pool = hugetlb_pool_find(root);
	machine->pool_pages = pool.known ? (int64_t)pool.total : DOCTOR_UNKNOWN;
	machine->pool_available = pool.known ? (int64_t)pool.available : DOCTOR_UNKNOWN;
}

void doctor_kernel_find(struct doctor_kernel *kernel)
{
	struct utsname names;
	int pair[2], pidfd = -1;
	socklen_t bytes = sizeof pidfd;
	*kernel = (struct doctor_kernel){ 0 };
	if (uname(&names) == 0) {
		(void)snprintf(kernel->release, sizeof kernel->release, "%s", names.release);
	}
	long barriers = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
	kernel->membarrier = barriers > 0 && (barriers & MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0;
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	kernel->pidfd = self >= 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
		kernel->peer_pidfd =
			getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &bytes) == 0;
		(void)close(pair[0]);
		(void)close(pair[1]);
	}
	int sealed = memfd_create("kvctl-doctor", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
	kernel->noexec_seal = sealed >= 0;
	// Of no bytes: the kernel looks whether it knows the advice, and does nothing.
	void *page = (void *)(uintptr_t)sysconf(_SC_PAGESIZE);
	kernel->populate = madvise(page, 0, MADV_POPULATE_WRITE) == 0;
	kernel->collapse = madvise(page, 0, MADV_COLLAPSE) == 0;
	const int opened[] = { self, pidfd, sealed };
	for (size_t i = 0; i < sizeof opened / sizeof opened[0]; i++) {
		if (opened[i] >= 0) {
			(void)close(opened[i]);
		}
	}
}

// The soft limit of that name: "Max open files            1024        4096        files".
static void process_limit(const char *line, const char *name, int64_t *limit)
{
	size_t bytes = strlen(name);
	if (strncmp(line, name, bytes) == 0) {
		const char *text = line + bytes + strspn(line + bytes, " ");
		*limit =
			strncmp(text, "unlimited", 9) == 0 ? DOCTOR_NO_LIMIT : machine_number(text);
	}
}

void doctor_process_find(const char *root, struct doctor_process *process)
{
	char path[64], line[MACHINE_LINE_BYTES];
	process->files_limit = DOCTOR_UNKNOWN;
	process->locked_limit_bytes = DOCTOR_UNKNOWN;
	process->file_limit_bytes = DOCTOR_UNKNOWN;
	process->group_limit_bytes = DOCTOR_UNKNOWN;
	if (process->pid <= 0) {
		return;
	}
	(void)snprintf(path, sizeof path, "/proc/%" PRId64 "/limits", process->pid);
	FILE *file = machine_open(root, path);
	while (file && fgets(line, sizeof line, file)) {
		process_limit(line, "Max open files", &process->files_limit);
		process_limit(line, "Max locked memory", &process->locked_limit_bytes);
		process_limit(line, "Max file size", &process->file_limit_bytes);
	}
	if (file) {
		(void)fclose(file);
	}
	if (process->files_limit < 0) {
		return; // nor are its groups to be seen
	}
	struct memory_limit limit = memory_limit_find_of(root, (int)process->pid);
	if (limit.what[0]) {
		process->group_limit_bytes = (int64_t)limit.bytes;
		(void)snprintf(process->group, sizeof process->group, "%s", limit.what);
	} else if (limit.bytes != UINT64_MAX) {
		process->group_limit_bytes = DOCTOR_NO_LIMIT;
	}
}

void doctor_process_pages(const char *root, struct doctor_process *process)
{
	static const char *const huge[] = { "ShmemPmdMapped", "Shared_Hugetlb", "Private_Hugetlb" };
	char path[64], line[MACHINE_LINE_BYTES];
	bool inside = false;
	process->region_bytes = 0;
	process->region_huge_bytes = 0;
	(void)snprintf(path, sizeof path, "/proc/%" PRId64 "/smaps", process->pid);
	FILE *file = process->pid > 0 ? machine_open(root, path) : NULL;
	if (!file) {
		(void)snprintf(process->region_why, sizeof process->region_why,
			       "which pages the region has cannot be read: %s",
			       process->pid > 0 ? strerror(errno) : "no process is seen");
		return;
	}
	for (unsigned i = 0; i < MACHINE_LINES_MAX && fgets(line, sizeof line, file); i++) {
		if (strchr("0123456789abcdef", line[0]) != NULL) {
			inside = strstr(line, "/memfd:kvd-region") != NULL;
			continue;
		}
		if (!inside) {
			continue;
		}
		int64_t bytes = machine_kib(line, "Rss");
		process->region_bytes += bytes > 0 ? bytes : 0;
		for (size_t j = 0; j < sizeof huge / sizeof huge[0]; j++) {
			bytes = machine_kib(line, huge[j]);
			process->region_huge_bytes += bytes > 0 ? bytes : 0;
			process->region_bytes += bytes > 0 && j > 0 ? bytes : 0; // not in Rss
		}
	}
	(void)fclose(file);
}

static void folder_type(struct doctor_folder *folder, uint64_t magic)
{
	static const struct {
		uint64_t magic;
		const char *name;
	} types[] = {
		{ EXT4_SUPER_MAGIC, "ext4" },
		{ XFS_SUPER_MAGIC, "xfs" },
		{ BTRFS_SUPER_MAGIC, "btrfs" },
		{ F2FS_SUPER_MAGIC, "f2fs" },
		{ OVERLAYFS_SUPER_MAGIC, "overlay" },
		{ TMPFS_MAGIC, "tmpfs" },
		{ RAMFS_MAGIC, "ramfs" },
		{ NFS_SUPER_MAGIC, "nfs" },
		{ 0xff534d42, "cifs" },
		{ 0xfe534d42, "cifs" },
		{ V9FS_MAGIC, "9p" },
		{ 0x65735546, "fuse" },
		{ 0x2fc12fc1, "zfs" },
	};
	(void)snprintf(folder->type, sizeof folder->type, "type %#" PRIx64, magic);
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		if (types[i].magic == magic) {
			(void)snprintf(folder->type, sizeof folder->type, "%s", types[i].name);
		}
	}
}

// Who has the lock, without taking it: a kvd that comes just now must not meet us there.
static int64_t folder_owner(const char *root, const struct doctor_folder *folder)
{
	char path[PATH_MAX], line[MACHINE_LINE_BYTES], place[64];
	struct stat facts;
	int64_t owner = 0;
	(void)snprintf(path, sizeof path, "%s/kvd.lock", folder->path);
	FILE *file = stat(path, &facts) == 0 ? machine_open(root, "/proc/locks") : NULL;
	(void)snprintf(place, sizeof place, " %02x:%02x:%" PRIu64 " ", major(facts.st_dev),
		       minor(facts.st_dev), (uint64_t)facts.st_ino);
	for (unsigned i = 0; file && i < MACHINE_LINES_MAX && fgets(line, sizeof line, file); i++) {
		const char *kind = strstr(line, "FLOCK");
		char word[3][32];
		if (kind && strstr(kind, place) && !strstr(line, "->") &&
		    sscanf(kind, "%31s %31s %31s %" SCNd64, word[0], word[1], word[2], &owner) !=
			    4) {
			owner = 0;
		}
	}
	if (file) {
		(void)fclose(file);
	}
	return owner;
}

static bool folder_is_former(const char *name)
{
	static const char *const begins[] = { "store.failed-", "store.before-", "store.replaced-" };
	for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++) {
		if (strncmp(name, begins[i], strlen(begins[i])) == 0) {
			return true;
		}
	}
	return false;
}

static void folder_read(struct doctor_folder *folder)
{
	DIR *dir = opendir(folder->path);
	struct dirent *entry;
	folder->present = dir != NULL;
	(void)snprintf(folder->why, sizeof folder->why, "%s", dir ? "" : strerror(errno));
	while (dir && (entry = readdir(dir)) != NULL) {
		if (folder_is_former(entry->d_name)) {
			folder->former++;
			(void)snprintf(folder->former_name, sizeof folder->former_name, "%s",
				       entry->d_name);
		}
	}
	if (dir) {
		(void)closedir(dir);
	}
}

void doctor_folder_find(const char *root, struct doctor_folder *folder)
{
	char path[PATH_MAX];
	struct statfs system;
	struct stat facts;
	if (!folder->path[0]) {
		return;
	}
	folder_read(folder);
	if (!folder->present) {
		return;
	}
	if (statfs(folder->path, &system) == 0) {
		folder_type(folder, (uint64_t)system.f_type & UINT32_MAX);
		folder->free_bytes = (int64_t)system.f_bavail * system.f_bsize;
	}
	(void)snprintf(path, sizeof path, "%s/store/data.mdb", folder->path);
	if (stat(path, &facts) == 0) {
		folder->store_bytes = (int64_t)facts.st_blocks * 512;
	}
	folder->locked_by = folder_owner(root, folder);
}

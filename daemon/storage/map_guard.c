// SPDX-License-Identifier: MIT
//
// Files are known by device and inode where that can be asked for, and in /proc/self/maps, which
// some file systems give another device there, by inode and name.
#include "daemon/storage/map_guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include "shm/atomics.h"

static _Thread_local struct map_guard_section *current_section; // NULL = in none
static _Thread_local unsigned fault_file;
static pthread_once_t install_once = PTHREAD_ONCE_INIT;
static int install_error;
static struct sigaction action_before;

// Before anything is known (LMDB is opening them) it is enough that the page is not there: a
// section touches these maps, malloc's memory and the stack.
static bool is_guarded(const struct map_guard *guard, const siginfo_t *info)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	bool is_known = false;
	fault_file = MAP_GUARD_FILES;
	for (unsigned i = 0; i < MAP_GUARD_FILES; i++) {
		const struct map_guard_file *file = &guard->files[i];
		is_known = is_known || file->start != file->end;
		if (at >= file->start && at < file->end) {
			fault_file = i;
			return true;
		}
	}
	return !is_known && (info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR);
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	struct map_guard_section *section = current_section;
	if (section != NULL && info->si_code > 0 && is_guarded(section->guard, info)) {
		const ucontext_t *interrupted = context;
		current_section = NULL;
		// Cheaper here than in each section: siglongjmp() restores no mask.
		(void)pthread_sigmask(SIG_SETMASK, &interrupted->uc_sigmask, NULL);
		siglongjmp(section->back, 1);
	}
	// Not ours. The instruction is repeated, and meets what was there before; a signal that
	// somebody sent is sent once more, for when this one is over.
	(void)sigaction(number, &action_before, NULL);
	if (info->si_code <= 0) {
		(void)raise(number);
	}
}

static void install(void)
{
	struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
	(void)sigemptyset(&action.sa_mask);
	if (sigaction(SIGBUS, NULL, &action_before) != 0 || sigaction(SIGBUS, &action, NULL) != 0) {
		install_error = errno;
	}
}

int map_guard_install(void)
{
	int rc = pthread_once(&install_once, install);
	return rc != 0 ? rc : install_error;
}

void map_guard_unblock(sigset_t *set)
{
	(void)sigdelset(set, SIGBUS);
}

// Reads a line of /proc/self/maps. False if it is not of this inode and name.
static bool maps_line(const char *line, ino_t inode, const char *name, struct map_guard_file *found)
{
	unsigned long start;
	unsigned long end;
	unsigned long line_inode;
	const char *slash = strrchr(line, '/');
	size_t length = strlen(name);
	if (slash == NULL || strncmp(slash + 1, name, length) != 0 ||
	    (slash[1 + length] != '\n' && slash[1 + length] != ' ') ||
	    sscanf(line, "%lx-%lx %*4s %*x %*x:%*x %lu", &start, &end, &line_inode) != 3) {
		return false;
	}
	found->start = start;
	found->end = end;
	return line_inode == inode;
}

void map_guard_learn(struct map_guard *guard, unsigned index, const char *path, bool is_kept)
{
	struct map_guard_file *file = &guard->files[index];
	struct map_guard_file found = { 0 };
	struct stat facts;
	char *line = NULL;
	size_t line_bytes = 0;
	const char *slash = strrchr(path, '/');
	FILE *maps = stat(path, &facts) == 0 ? fopen("/proc/self/maps", "re") : NULL;
	if (maps == NULL) {
		return; // the others, or any page, count as guarded
	}
	while (getline(&line, &line_bytes, maps) > 0) {
		if (!maps_line(line, facts.st_ino, slash != NULL ? slash + 1 : path, &found)) {
			continue;
		}
		if (file->start == file->end) {
			file->start = found.start;
			file->end = found.end;
		} else if (file->end == found.start) {
			file->end = found.end;
		}
	}
	free(line);
	(void)fclose(maps);
	file->device = facts.st_dev;
	file->inode = facts.st_ino;
	file->is_kept = is_kept;
}

sigjmp_buf *map_guard_enter(struct map_guard_section *section, const struct map_guard *guard)
{
	section->guard = guard;
	current_section = section;
	kvs_fence_full(); // partner: on_bus_error(), in this thread
	return &section->back;
}

void map_guard_leave(void)
{
	kvs_fence_full(); // as in map_guard_enter()
	current_section = NULL;
}

unsigned map_guard_fault(void)
{
	return fault_file;
}

// As much as can be read, the rest zeroes. The copy is mapped over the file, in one step.
static void keep_private(const struct map_guard *guard, const struct map_guard_file *file)
{
	struct map_guard_section section;
	size_t bytes = file->end - file->start;
	char *copy = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy == MAP_FAILED) {
		return; // it stays as it is, file and all
	}
	if (sigsetjmp(*map_guard_enter(&section, guard), 0) == 0) {
		memcpy(copy, (const void *)file->start, bytes);
		map_guard_leave();
	}
	if (mremap(copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)file->start) ==
	    MAP_FAILED) {
		(void)munmap(copy, bytes);
	}
}

static bool is_of(const struct map_guard *guard, int fd)
{
	struct stat facts;
	if (fstat(fd, &facts) != 0) {
		return false;
	}
	for (unsigned i = 0; i < MAP_GUARD_FILES; i++) {
		const struct map_guard_file *file = &guard->files[i];
		if (file->start != file->end && facts.st_ino == file->inode &&
		    facts.st_dev == file->device) {
			return true;
		}
	}
	return false;
}

static void close_files(const struct map_guard *guard)
{
	DIR *folder = opendir("/proc/self/fd");
	const struct dirent *entry;
	while (folder != NULL && (entry = readdir(folder)) != NULL) {
		char *end;
		long fd = strtol(entry->d_name, &end, 10);
		if (end != entry->d_name && *end == '\0' && is_of(guard, (int)fd)) {
			(void)close((int)fd);
		}
	}
	if (folder != NULL) {
		(void)closedir(folder);
	}
}

void map_guard_abandon(struct map_guard *guard)
{
	for (unsigned i = 0; i < MAP_GUARD_FILES; i++) {
		const struct map_guard_file *file = &guard->files[i];
		if (file->start == file->end) {
			continue;
		}
		if (file->is_kept) {
			keep_private(guard, file);
		} else {
			(void)munmap((void *)file->start, file->end - file->start);
		}
	}
	close_files(guard);
}

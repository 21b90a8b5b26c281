// SPDX-License-Identifier: MIT
//
// Both ends of the probe. The child has the file read in order first, at disk speed, so that its
// own walk and kvd's recovery after it find the pages cached; it limits its own processor time,
// since a damaged tree may also send its reader round in circles.
#include "daemon/storage/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/remedy.h"
#include "daemon/storage/child.h"
#include "daemon/storage/pages.h"
#include "daemon/storage/recover.h"
#include "daemon/storage/restored.h"
#include "daemon/storage/store.h"

#define WARM_CHUNK_BYTES (2u << 20) // as much as the kernel submits at once
#define CPU_SECONDS_BASE 20u
#define CPU_BYTES_PER_SECOND (UINT64_C(50) << 20) // far below what the walk does

static int probe_record(void *context, const struct kvs_record_view *view, const void *value,
			uint64_t place)
{
	(void)context;
	(void)view;
	(void)value;
	(void)place;
	return 0;
}

// Has the file read in order, ahead of the walk, if it fits the page cache; a hint, so failures
// are not told. What is cached already is not copied for it: that took 0.1 s a GB.
static void warm(int fd, uint64_t file_bytes)
{
	uint64_t memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	for (uint64_t at = 0; at < file_bytes && file_bytes < memory_bytes / 2;
	     at += WARM_CHUNK_BYTES) {
		(void)posix_fadvise(fd, (off_t)at, WARM_CHUNK_BYTES, POSIX_FADV_WILLNEED);
	}
}

static void limit_time(uint64_t file_bytes)
{
	rlim_t seconds = CPU_SECONDS_BASE + file_bytes / CPU_BYTES_PER_SECOND;
	struct rlimit limit = { .rlim_cur = seconds, .rlim_max = seconds + 1 };
	(void)setrlimit(RLIMIT_CPU, &limit); // if refused, the walk is merely not bounded
	struct rlimit no_core = { 0, 0 };
	(void)setrlimit(RLIMIT_CORE, &no_core); // a crash here is an answer, not an accident
}

// Looks at the raw pages before LMDB does. Returns as store_pages_check().
static int check_pages(const char *dir, char *why, size_t why_bytes)
{
	char path[4096];
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return 0; // LMDB will say it better
	}
	struct stat facts;
	int result = 0;
	if (fstat(fd, &facts) == 0 && facts.st_size > 0) {
		limit_time((uint64_t)facts.st_size);
		warm(fd, (uint64_t)facts.st_size);
		result = store_pages_check(fd, (uint64_t)facts.st_size, false, why, why_bytes);
	}
	(void)close(fd);
	return result;
}

int store_probe_child(const char *dir)
{
	char why[512] = "";
	char detail[200];
	int result = check_pages(dir, detail, sizeof(detail));
	if (result > 0) {
		return 0;
	}
	if (result < 0) {
		(void)snprintf(why, sizeof(why),
			       "%s/store: the store is damaged: %s; restore a backup, or move this "
			       "folder away to start empty",
			       dir, detail);
		result = STORE_DAMAGED;
	} else {
		struct store *store;
		struct store_options options = { .dir = dir, .read_only = true };
		result = store_open(&store, &options, why, sizeof(why));
		if (result == STORE_OK) {
			struct store_walk walk = { .record = probe_record, .check_records = true };
			result = store_recover(store, &walk);
			(void)snprintf(why, sizeof(why), "%s", store_why(store));
			store_close(store);
		}
	}
	if (result != STORE_OK) {
		(void)fputs(why, stdout);
		(void)fflush(stdout);
	}
	return -result;
}

static void read_all(int fd, char *out, size_t out_bytes)
{
	size_t done = 0;
	while (done + 1 < out_bytes) {
		ssize_t got = read(fd, out + done, out_bytes - 1 - done);
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got <= 0) {
			break;
		}
		done += (size_t)got;
	}
	out[done] = '\0';
}

static int judge(const char *dir, int status, const char *told, char *why, size_t why_bytes)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		return STORE_OK;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) <= -STORE_SYSTEM && told[0] != '\0') {
		(void)snprintf(why, why_bytes, "%s", told);
		return -WEXITSTATUS(status);
	}
	if (WIFSIGNALED(status) && !child_crashed(status)) {
		(void)snprintf(why, why_bytes,
			       "cannot check %s/store: what reads it was ended from outside by "
			       "signal %d (%s); start kvd again%s",
			       dir, WTERMSIG(status), strsignal(WTERMSIG(status)),
			       WTERMSIG(status) != SIGKILL
				       ? ""
				       : ", with more memory if the kernel ended it for "
					 "lack of that (dmesg)");
		return STORE_SYSTEM;
	}
	if (!WIFSIGNALED(status)) {
		// Whoever finds damage says so: this one never looked (the loader, no memory).
		(void)snprintf(why, why_bytes,
			       "cannot check %s/store: what was to read it ended with exit code "
			       "%d before it had; start kvd again, with more memory if there was "
			       "none",
			       dir, WEXITSTATUS(status));
		return STORE_SYSTEM;
	}
	(void)snprintf(why, why_bytes,
		       "%s/store: the store is damaged: reading it ended with signal %d; restore "
		       "a backup, or move this folder away to start empty",
		       dir, WTERMSIG(status));
	return STORE_DAMAGED;
}

int store_probe(const char *dir, char *why, size_t why_bytes)
{
	char path[4096];
	struct stat facts;
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	int found = stat(path, &facts);
	// An empty file is what a kvd leaves that was killed while creating it.
	if (found != 0 ? errno == ENOENT : facts.st_size == 0) {
		return restored_check(dir, why, why_bytes) == 0 ? STORE_OK : STORE_DAMAGED;
	}
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0) {
		(void)snprintf(why, why_bytes, "cannot check %s/store: %s; %s", dir,
			       strerror(errno), remedy_of_errno(errno));
		return STORE_SYSTEM;
	}
	pid_t pid;
	char *const arguments[] = { (char *)"kvd", (char *)STORE_PROBE_OPTION, (char *)dir, NULL };
	int rc = child_start(arguments, STDIN_FILENO, ends[1], &pid);
	(void)close(ends[1]);
	if (rc != 0) {
		(void)close(ends[0]);
		(void)snprintf(why, why_bytes, "cannot check %s/store: %s; %s", dir, strerror(rc),
			       rc == ENOENT ? "mount /proc (mount -t proc proc /proc)"
					    : remedy_of_errno(rc));
		return STORE_SYSTEM;
	}
	char told[1024];
	read_all(ends[0], told, sizeof(told));
	(void)close(ends[0]);
	int status;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR) {
			(void)snprintf(why, why_bytes, "cannot check %s/store: %s", dir,
				       strerror(errno));
			return STORE_SYSTEM;
		}
	}
	return judge(dir, status, told, why, why_bytes);
}

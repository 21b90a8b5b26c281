// SPDX-License-Identifier: MIT
//
// The file is never replaced: clients of the previous kvd look into this very inode. It is written
// whole, a page, for a client of an older library maps that much.
#include "daemon/generation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/remedy.h"
#include "shm/record.h"

#define VERSIONS_AHEAD (UINT64_C(1) << 20) // noted above what was handed out
#define VERSIONS_LEFT (VERSIONS_AHEAD / 2) // when there are fewer, it is time for more
#define LOOK_NS UINT64_C(1000000000)

// Returns 0 or -errno.
static int write_page(int fd, const struct kvs_generation *record)
{
	unsigned char page[KVS_PAGE_BYTES] = { 0 };
	memcpy(page, record, sizeof(*record));
	ssize_t done;
	do {
		done = pwrite(fd, page, sizeof(page), 0);
	} while (done < 0 && errno == EINTR);
	if (done < 0) {
		return -errno;
	}
	return done == (ssize_t)sizeof(page) ? 0 : -ENOSPC;
}

static void say_short(const char *path, off_t bytes)
{
	log_warning("%s is too short to say anything (%lld bytes): a region that is kept is taken "
		    "for the last that served from this folder, and without one, under the memory "
		    "policy, versions begin anew; if another folder's data is served now, stop kvd "
		    "and what keeps the region, and start it again",
		    path, (long long)bytes);
}

// Takes what an earlier kvd left. What cannot be is as good as nothing.
static int take(struct generation *generation, const char *path)
{
	struct kvs_generation *now = &generation->now;
	*now = (struct kvs_generation){ .generation = 0 };
	if (!kvs_generation_read(generation->fd, now)) {
		*now = (struct kvs_generation){ .generation = 0 };
		return -errno; // or it is too short
	}
	if (now->version > KVS_SEQ_MAX) {
		log_warning("%s names a version that cannot be: versions begin anew", path);
		now->version = 0;
	}
	return 0;
}

static int open_file(struct generation *generation, const char *path)
{
	struct stat facts;
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	generation->fd = open(path, flags);
	bool is_new = generation->fd < 0 && errno == ENOENT;
	if (is_new) {
		generation->fd = open(path, flags | O_CREAT, 0600);
	}
	if (generation->fd < 0 || fstat(generation->fd, &facts) != 0) {
		return -errno;
	}
	if (!S_ISREG(facts.st_mode)) {
		return -EEXIST;
	}
	if (!is_new && facts.st_size < (off_t)sizeof(generation->now)) {
		say_short(path, facts.st_size);
	}
	int error = take(generation, path);
	// The room is taken now, so that a disk that is full later is in nobody's way.
	if (error == 0 && ftruncate(generation->fd, KVS_PAGE_BYTES) != 0) {
		error = -errno;
	}
	return error != 0 ? error : -posix_fallocate(generation->fd, 0, KVS_PAGE_BYTES);
}

int generation_open(struct generation *generation, const char *dir, char *why, size_t why_bytes)
{
	char path[4096];
	*generation = (struct generation){ .fd = -1 };
	if (snprintf(path, sizeof(path), "%s/kvd.gen", dir) >= (int)sizeof(path)) {
		(void)snprintf(why, why_bytes, "the path of the data folder is too long: %s", dir);
		return -ENAMETOOLONG;
	}
	int error = open_file(generation, path);
	if (error != 0) {
		(void)snprintf(why, why_bytes, "cannot write %s: %s; %s", path, strerror(-error),
			       remedy_of_errno(-error));
		generation_close(generation);
	}
	return error;
}

// It is to say what `now` has. A failure is told once, not each time.
static int write_now(struct generation *generation)
{
	int error = write_page(generation->fd, &generation->now);
	generation->is_due = error != 0;
	if (error != 0 && !generation->is_failing) {
		log_error("cannot write kvd.gen: %s; %s; kvd serves and tries again: under the "
			  "memory policy a life after a crash would hand out versions anew if it "
			  "fails for 2^28 of them",
			  strerror(-error), remedy_of_errno(-error));
	} else if (error == 0 && generation->is_failing) {
		LOG_AT(LOG_LEVEL_NOTICE, "kvd.gen can be written again");
	}
	generation->is_failing = error != 0;
	return error;
}

int generation_serve(struct generation *generation, uint64_t instance_id, bool is_next)
{
	struct kvs_generation next = generation->now;
	next.generation += is_next;
	next.named = next.generation;
	next.instance_id = instance_id;
	if (is_next) {
		int error = write_page(generation->fd, &next);
		if (error != 0) {
			return error;
		}
		generation->now = next;
	} else if (memcmp(&next, &generation->now, sizeof(next)) != 0) {
		generation->now = next;
		(void)write_now(generation); // or in a later turn
	}
	return 0;
}

static void reserve(struct generation *generation, uint64_t last_seq)
{
	if (last_seq + VERSIONS_LEFT > generation->now.version &&
	    generation->now.version < KVS_SEQ_MAX) {
		uint64_t version = last_seq + VERSIONS_AHEAD;
		generation->now.version = version < KVS_SEQ_MAX ? version : KVS_SEQ_MAX;
		generation->is_due = true;
	}
}

void generation_turn(struct generation *generation, uint64_t last_seq, uint64_t now_ns)
{
	reserve(generation, last_seq);
	bool is_time = now_ns - generation->looked_ns >= LOOK_NS;
	if (is_time) {
		struct kvs_generation said;
		generation->looked_ns = now_ns;
		generation->is_due = generation->is_due ||
				     !kvs_generation_read(generation->fd, &said) ||
				     memcmp(&said, &generation->now, sizeof(said)) != 0;
	}
	if (generation->is_due && (is_time || !generation->is_failing)) {
		(void)write_now(generation);
	}
}

void generation_note_version(struct generation *generation, uint64_t last_seq)
{
	reserve(generation, last_seq);
	if (generation->is_due) {
		(void)write_now(generation);
	}
}

int generation_keep_version(struct generation *generation, uint64_t last_seq)
{
	reserve(generation, last_seq);
	int error = generation->is_due ? write_now(generation) : 0;
	return error == 0 && fsync(generation->fd) != 0 ? -errno : error;
}

void generation_end_versions(struct generation *generation, uint64_t last_seq)
{
	generation->now.version = last_seq;
	(void)write_now(generation); // otherwise the next life leaves a gap
}

int generation_renew(struct generation *generation, const char *dir, char *why, size_t why_bytes)
{
	struct generation fresh;
	int error = generation_open(&fresh, dir, why, why_bytes);
	if (error != 0) {
		return error;
	}
	error = write_page(fresh.fd, &generation->now);
	int old_fd = error == 0 ? fcntl(generation->fd, F_DUPFD_CLOEXEC, 3) : -1;
	if (error == 0 && dup3(fresh.fd, generation->fd, O_CLOEXEC) < 0) {
		error = -errno;
	}
	generation_close(&fresh);
	if (error != 0) {
		(void)snprintf(why, why_bytes, "cannot write %s/kvd.gen: %s; %s", dir,
			       strerror(-error), remedy_of_errno(-error));
	} else if (old_fd >= 0) {
		// A client that maps it sees that; others find that it has no name.
		struct kvs_generation over = generation->now;
		over.generation++;
		(void)write_page(old_fd, &over);
	}
	if (old_fd >= 0) {
		close(old_fd);
	}
	return error;
}

void generation_close(struct generation *generation)
{
	if (generation->fd >= 0) {
		close(generation->fd);
	}
	generation->fd = -1;
}

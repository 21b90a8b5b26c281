// SPDX-License-Identifier: MIT
//
// The job's end of the two pipes. The child is never waited for without a bound: who reads it looks
// now and then whether the job is to end.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/job_internal.h"
#include "daemon/remedy.h"
#include "daemon/storage/child.h"
#include "daemon/storage/verify.h"

#define CHILD_LOOK_MS 100
#define CHILD_LINE_BYTES 4096u
#define CHILD_PIPE_BYTES (1 << 18)

bool job_child_begin(struct job_child *child, const char *dir, const char *how)
{
	int in[2];
	int out[2];
	char *const arguments[] = { (char *)"kvd", (char *)VERIFY_OPTION, (char *)dir, (char *)how,
				    NULL };
	child->input_fd = child->output_fd = -1;
	child->pid = 0;
	if (pipe2(in, O_CLOEXEC) != 0) {
		return job_fail(child->job, "cannot look at the store: %s; %s", strerror(errno),
				remedy_of_errno(errno));
	}
	if (pipe2(out, O_CLOEXEC) != 0) {
		int error = errno;
		(void)close(in[0]);
		(void)close(in[1]);
		return job_fail(child->job, "cannot look at the store: %s; %s", strerror(error),
				remedy_of_errno(error));
	}
	(void)fcntl(in[1], F_SETPIPE_SZ, CHILD_PIPE_BYTES); // fewer switches, if it may be
	(void)fcntl(in[1], F_SETFL, O_NONBLOCK);
	int rc = child_start(arguments, in[0], out[1], &child->pid);
	(void)close(in[0]);
	(void)close(out[1]);
	child->input_fd = in[1];
	child->output_fd = out[0];
	if (rc != 0) {
		child->pid = 0;
		job_child_kill(child);
		return job_fail(child->job, "cannot look at the store: %s; %s", strerror(rc),
				remedy_of_errno(rc));
	}
	return true;
}

bool job_child_send(struct job_child *child, const void *data, size_t bytes)
{
	const char *at = data;
	while (bytes > 0) {
		struct pollfd wait = { .fd = child->input_fd, .events = POLLOUT };
		if (poll(&wait, 1, CHILD_LOOK_MS) <= 0) {
			if (job_must_stop(child->job)) {
				return false;
			}
			continue;
		}
		// SIGPIPE is ignored by all of kvd.
		ssize_t n = write(child->input_fd, at, bytes);
		if (n < 0 && errno != EINTR && errno != EAGAIN) {
			return false;
		}
		at += n > 0 ? n : 0;
		bytes -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void close_one(int *fd)
{
	if (*fd >= 0) {
		(void)close(*fd);
		*fd = -1;
	}
}

static int reap(struct job_child *child)
{
	int status = 0;
	while (child->pid > 0 && waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
	}
	child->pid = 0;
	return status;
}

void job_child_kill(struct job_child *child)
{
	close_one(&child->input_fd);
	close_one(&child->output_fd);
	if (child->pid > 0) {
		(void)kill(child->pid, SIGKILL);
		(void)reap(child);
	}
}

static void take_line(const struct job_child *child, char *line)
{
	unsigned long long done;
	unsigned long long total;
	if (sscanf(line, "progress %llu %llu", &done, &total) == 2) {
		kvs_store_relaxed(&child->job->total_bytes, total); // for those who ask
		job_progress(child->job, done);
	} else {
		child->line(child->context, line);
	}
}

// Whole lines from the buffer; what is left of one moves to its start.
static size_t take_lines(const struct job_child *child, char *buffer, size_t bytes)
{
	char *at = buffer;
	char *end;
	while ((end = memchr(at, '\n', (size_t)(buffer + bytes - at))) != NULL) {
		*end = '\0';
		take_line(child, at);
		at = end + 1;
	}
	size_t left = (size_t)(buffer + bytes - at);
	memmove(buffer, at, left);
	return left == CHILD_LINE_BYTES ? 0 : left; // no line of ours is that long
}

// False: the job is to end.
static bool read_lines(const struct job_child *child)
{
	char buffer[CHILD_LINE_BYTES];
	size_t bytes = 0;
	for (;;) {
		struct pollfd wait = { .fd = child->output_fd, .events = POLLIN };
		if (job_must_stop(child->job)) {
			return false;
		}
		if (poll(&wait, 1, CHILD_LOOK_MS) <= 0) {
			continue;
		}
		ssize_t n = read(child->output_fd, buffer + bytes, sizeof(buffer) - bytes);
		if (n == 0) {
			return true;
		}
		if (n < 0 && errno != EINTR) {
			return job_fail(child->job, "cannot read what was found: %s",
					strerror(errno));
		}
		bytes = take_lines(child, buffer, bytes + (n > 0 ? (size_t)n : 0));
	}
}

int job_child_finish(struct job_child *child)
{
	close_one(&child->input_fd);
	if (!read_lines(child)) {
		job_child_kill(child);
		return -1;
	}
	close_one(&child->output_fd);
	int status = reap(child);
	if (WIFEXITED(status)) {
		return WEXITSTATUS(status);
	}
	if (child_crashed(status)) {
		(void)job_fail(child->job, "the store is damaged: reading it ended with signal %d",
			       WTERMSIG(status));
		return JOB_CHILD_CRASHED;
	}
	(void)job_fail(child->job, "what reads the store was ended from outside by signal %d (%s)",
		       WTERMSIG(status), strsignal(WTERMSIG(status)));
	return -1;
}

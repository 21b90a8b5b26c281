// SPDX-License-Identifier: MIT
//
// A process that reads through the mapping as it is told, line by line on standard input, one line
// of answer each: so that tests/system/readers.py knows when it is inside a section, and what every
// call returned. Argument: the socket.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libclient/kvclient.h"

#define LINE_BYTES 256u
#define THREADS_MAX 64u
#define LOOKS_PER_SECTION 50u // at one value: long enough for its memory to be used again

static kvc *client;
static kvc_reader *reader;
static int told_fd = -1; // the forked child reads here until its parent closes it
static pid_t child = -1;

static void answer(const char *word, int64_t number)
{
	printf("%s%" PRId64 "\n", word, number);
	fflush(stdout);
}

static int client_open(const char *socket_path, const char *name)
{
	struct kvc_options options;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.name = name;
	options.reconnect_max_ms = 20;
	int status = kvc_open(&client, &options);
	return status == KVC_OK ? kvc_reader_open(client, &reader) : status;
}

static int get(kvc_reader *with, const char *key)
{
	int status = kvc_get(with, key, strlen(key), NULL, 0, NULL);
	return status == KVC_TRUNCATED ? KVC_OK : status; // the value is not looked at
}

static struct kvc_view viewed;

static int view(const char *key)
{
	return kvc_view(reader, key, strlen(key), &viewed);
}

/// How many bytes of the value that is viewed are not zero.
static int64_t count_bytes(void)
{
	const unsigned char *bytes = viewed.value;
	int64_t count = 0;
	for (size_t i = 0; i < viewed.value_bytes; i++) {
		count += bytes[i] != 0;
	}
	return count;
}

/// A child of a process with a view open: it ends that, reads by itself, and stays until "reap".
static void fork_child(const char *key)
{
	int pipe_fds[2];
	if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
		answer("pipe ", -1);
		return;
	}
	child = fork();
	if (child == 0) {
		char byte;
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(pipe_fds[1]);
		int ended = kvc_end(reader);
		int status = get(reader, key);
		printf("%d %d %d\n", (int)getpid(), ended, status);
		fflush(stdout);
		ssize_t end = read(pipe_fds[0], &byte, 1);
		_exit(end != 0);
	}
	(void)close(pipe_fds[0]);
	told_fd = pipe_fds[1];
}

static void *thread_main(void *key)
{
	kvc_reader *own;
	int status = kvc_reader_open(client, &own);
	for (unsigned i = 0; i < 10 && status == KVC_OK; i++) {
		status = get(own, key);
	}
	if (status == KVC_OK) {
		status = kvc_reader_close(own);
	}
	return status == KVC_OK ? NULL : key;
}

/// So many threads at a time, some times over; the answer is how many failed.
static void churn(unsigned threads_count, char *key)
{
	pthread_t thread[THREADS_MAX];
	unsigned failed = 0;
	for (unsigned round = 0; round < 20; round++) {
		unsigned started = 0;
		while (started < threads_count && started < THREADS_MAX &&
		       pthread_create(&thread[started], NULL, thread_main, key) == 0) {
			started++;
		}
		failed += threads_count - started;
		for (unsigned i = 0; i < started; i++) {
			void *result;
			failed += pthread_join(thread[i], &result) != 0 || result != NULL;
		}
	}
	answer("", failed);
}

/// Every byte of a value is the same, whichever write it comes from.
static bool is_torn(const struct kvc_view *value)
{
	const unsigned char *bytes = value->value;
	return value->value_bytes == 0 || bytes[0] == 0 ||
	       memcmp(bytes, bytes + 1, value->value_bytes - 1) != 0;
}

/// Reads in sections until the next line comes: good ones, revoked ones, and torn values in good
/// ones are counted.
static void read_on(const char *key)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	uint64_t good = 0, revoked = 0, torn = 0;
	answer("", 0);
	while (poll(&input, 1, 0) == 0) {
		unsigned seen_torn = 0;
		if (kvc_begin(reader) != KVC_OK) {
			continue; // soon
		}
		struct kvc_view value;
		bool there = kvc_view(reader, key, strlen(key), &value) == KVC_OK;
		for (unsigned i = 0; i < LOOKS_PER_SECTION && there; i++) {
			seen_torn += is_torn(&value);
		}
		int status = kvc_end(reader);
		good += status == KVC_OK;
		revoked += status == KVC_REVOKED;
		torn += status == KVC_OK ? seen_torn : 0;
	}
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", good, revoked, torn);
	fflush(stdout);
}

static void reap(void)
{
	(void)close(told_fd);
	int status;
	answer("", waitpid(child, &status, 0) == child ? status : -1);
}

static void obey(const char *socket_path, const char *word, char *argument)
{
	if (strcmp(word, "open") == 0) {
		answer("", client_open(socket_path, argument));
	} else if (strcmp(word, "begin") == 0) {
		answer("", kvc_begin(reader));
	} else if (strcmp(word, "view") == 0) {
		answer("", view(argument));
	} else if (strcmp(word, "count") == 0) {
		answer("", count_bytes());
	} else if (strcmp(word, "end") == 0) {
		answer("", kvc_end(reader));
	} else if (strcmp(word, "get") == 0) {
		answer("", get(reader, argument));
	} else if (strcmp(word, "mapped") == 0) {
		answer("", kvc_is_mapped(client));
	} else if (strcmp(word, "closefrom") == 0) {
		closefrom(STDERR_FILENO + 1);
		answer("", 0);
	} else if (strcmp(word, "exec") == 0) {
		(void)execl("/proc/self/exe", "reader", socket_path, (char *)NULL);
		answer("exec ", errno);
	} else if (strcmp(word, "fork") == 0) {
		fork_child(argument);
	} else if (strcmp(word, "reap") == 0) {
		reap();
	} else if (strcmp(word, "churn") == 0) {
		churn(40, argument);
	} else if (strcmp(word, "read") == 0) {
		read_on(argument);
	} else {
		answer("what? ", -1);
	}
}

int main(int argc, char **argv)
{
	char line[LINE_BYTES];
	if (argc != 2) {
		return 2;
	}
	setvbuf(stdin, NULL, _IONBF, 0); // exec() must find what was not read yet
	answer("", getpid());
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		char *argument = strchr(line, ' ');
		if (argument) {
			*argument++ = '\0';
		}
		obey(argv[1], line, argument ? argument : line + strlen(line));
	}
	return 0;
}

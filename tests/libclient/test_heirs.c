// SPDX-License-Identifier: MIT
//
// B: a process that shares the memory of one that ended has its views, too: what kvd takes back
// with the dead is not read on as if it were good.
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "shm/atomics.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"

#define STACK_BYTES (256u << 10)
#define ROUNDS_MAX 20000 // of half a millisecond: kvd learns of a death by its descriptor

struct family {
	const char *socket_path;
	kvc *client;
	kvc_reader *reader;
	int go[2];     // to the heir: its parent is dead, and kvd knows
	int answer[2]; // what kvc_end() said, then what a new get did
};

/// Runs in its parent's memory, when that is dead.
static int heir(void *context)
{
	struct family *f = context;
	char byte;
	if (read(f->go[0], &byte, 1) != 1) {
		_exit(1);
	}
	char value = 0;
	int said[2] = { kvc_end(f->reader), 0 };
	said[1] = kvc_get(f->reader, "k", 1, &value, 1, NULL);
	_exit(write(f->answer[1], said, sizeof(said)) != (ssize_t)sizeof(said) || value != 'b');
}

static int parent(struct family *f)
{
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = f->socket_path };
	struct kvc_view view;
	char *stack = malloc(STACK_BYTES);
	if (!stack || kvc_open(&f->client, &options) != KVC_OK ||
	    kvc_reader_open(f->client, &f->reader) != KVC_OK || kvc_begin(f->reader) != KVC_OK ||
	    kvc_view(f->reader, "k", 1, &view) != KVC_OK ||
	    clone(heir, stack + STACK_BYTES, CLONE_VM, f) < 0) {
		return 1;
	}
	return 0;
}

int main(void)
{
#ifdef KVS_SANITIZED
	tap_skip("two processes in one memory: sanitizers do not know that");
	return tap_done();
#endif
	if (getenv("KVD_TEST_EMULATED")) {
		tap_skip("two processes in one memory: valgrind does not know that");
		return tap_done();
	}
	struct harness *h = harness_start(NULL);
	struct family f = { .socket_path = harness_socket(h) };
	struct harness_connection *connection = harness_connect(h);
	if (pipe(f.go) != 0 || pipe(f.answer) != 0) {
		abort();
	}
	(void)harness_command(connection, "SET", "k", "a", NULL);
	pid_t child = fork();
	if (child == 0) {
		_exit(parent(&f));
	}
	int status = -1;
	ok(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
	   "a process opens a view, shares its memory and ends");
	const char *attached = NULL;
	for (int i = 0; i < ROUNDS_MAX; i++) {
		attached = harness_command(connection, "INFO", "everything", NULL);
		if (attached && strstr(attached, "clients_attached:0\r")) {
			break;
		}
		attached = NULL;
		(void)usleep(500);
	}
	ok(attached != NULL, "D: kvd lets go of its pages");
	(void)harness_command(connection, "SET", "k", "b", NULL);
	int said[2] = { -1, -1 };
	ok(write(f.go[1], "x", 1) == 1 &&
		   read(f.answer[0], said, sizeof(said)) == (ssize_t)sizeof(said),
	   "who shares it goes on");
	ok_int(said[0], KVC_REVOKED, "B: its view is said to be taken back");
	ok_int(said[1], KVC_OK, "B: and its next get gives what the key has now");
	harness_disconnect(connection);
	harness_free(h);
	return tap_done();
}

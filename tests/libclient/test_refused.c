// SPDX-License-Identifier: MIT
//
// The library on a system that refuses, at each call in turn: memory, mappings, descriptors of its
// own; and that interrupts what waits. Against the fake kvd, which is refused nothing. Whatever is
// refused is said, with a status that is no lie, or done without; and the next time all is well.
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "libclient/internal.h"
#include "tests/lib/refuse_memory.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)
#define CALLS_MAX 400u
#define REQUESTS 40u

// Either what is refused is counted, or what is interrupted, of which there is more or less as kvd
// is quick or slow.
static __thread bool interrupting;

static int refuse_int(int error)
{
	if (interrupting == (error == EINTR) && refuse_now()) {
		errno = error;
		return -1;
	}
	return 0;
}

#define REFUSE_INT(type, name, error, parameters, ...)                           \
	type __real_##name parameters;                                           \
	type __wrap_##name parameters;                                           \
	type __wrap_##name parameters                                            \
	{                                                                        \
		return refuse_int(error) != 0 ? -1 : __real_##name(__VA_ARGS__); \
	}

REFUSE_INT(int, epoll_create1, EMFILE, (int flags), flags)
REFUSE_INT(int, eventfd, EMFILE, (unsigned count, int flags), count, flags)
REFUSE_INT(int, epoll_ctl, ENOMEM, (int set, int operation, int fd, struct epoll_event *event), set,
	   operation, fd, event)
REFUSE_INT(int, connect, EINTR, (int fd, const struct sockaddr *to, socklen_t bytes), fd, to, bytes)
REFUSE_INT(int, socket, EMFILE, (int domain, int type, int protocol), domain, type, protocol)
REFUSE_INT(ssize_t, sendmsg, EINTR, (int fd, const struct msghdr *message, int flags), fd, message,
	   flags)
REFUSE_INT(ssize_t, recvmsg, EINTR, (int fd, struct msghdr *message, int flags), fd, message, flags)

void *__real_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return !interrupting && refuse_now()
		       ? MAP_FAILED
		       : __real_mmap64(at, bytes, protection, flags, fd, offset);
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
	return !interrupting && refuse_now() ? NULL : __real_strdup(text);
}

static struct kvc_options options_of(struct fake *fake)
{
	struct kvc_options options;
	kvc_options_init(&options);
	options.socket_path = fake->socket_path;
	options.name = "refused";
	options.connect_timeout_ms = options.request_timeout_ms = 60000;
	options.reconnect_min_ms = 1;
	options.reconnect_max_ms = 2;
	return options;
}

// Never that kvd or what it says is wrong, for they are not.
static bool is_refusal(int status)
{
	return status == KVC_UNREACHABLE || status == KVC_NO_MEMORY || status == KVC_SYSTEM;
}

static unsigned waiting(struct fake *fake, unsigned at, bool *reached)
{
	static const char value[100];
	unsigned wrong = 0;
	kvc *client = NULL;
	kvc_reader *reader = NULL;
	kvc_batch *batch = NULL;
	char byte = 0;
	struct kvc_options options = options_of(fake);
	refuse_arm(at);
	int opened = kvc_open(&client, &options);
	int status = opened;
	status = status == KVC_OK ? kvc_reader_open(client, &reader) : status;
	status = status == KVC_OK ? kvc_get(reader, "a", 1, &byte, 1, NULL) : status;
	bool wrong_value = status == KVC_OK && byte != '1';
	status = status == KVC_OK ? kvc_set(client, "b", 1, value, sizeof(value), NULL, NULL)
				  : status;
	status = status == KVC_OK ? kvc_batch_new(&batch) : status;
	status = status == KVC_OK ? kvc_sync(client) : status;
	*reached = refuse.refused > 0;
	refuse.armed = false;
	wrong += (status != KVC_OK && !(is_refusal(status) && *reached)) || wrong_value;
	wrong += (opened == KVC_OK) != (client != NULL);
	kvc_batch_free(batch);
	if (client) {
		client->conn.pause_ns = client->link.pause_ns = 0;
		wrong += kvc_set(client, "b", 1, value, sizeof(value), NULL, NULL) != KVC_OK;
		wrong += kvc_close(client) != KVC_OK;
	}
	return wrong;
}

struct done {
	unsigned calls, good;
};

static void done(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct done *done = user;
	(void)async;
	done->calls++;
	done->good += result->status == KVC_OK;
}

static unsigned without_waiting(struct fake *fake, unsigned at, bool *reached)
{
	static const char value[3000];
	unsigned wrong = 0, submitted = 0;
	kvc_async *async = NULL;
	struct done told = { 0 };
	struct kvc_options options = options_of(fake);
	refuse_arm(at);
	int status = kvc_async_open(&async, &options, NULL);
	for (unsigned i = 0; status == KVC_OK && i < REQUESTS; i++) {
		status =
			kvc_async_set(async, "c", 1, value, sizeof(value), NULL, done, &told, NULL);
		submitted += status == KVC_OK;
	}
	int dispatched = async ? kvc_async_dispatch(async) : KVC_OK;
	*reached = refuse.refused > 0;
	refuse.armed = false;
	wrong += status != KVC_OK && !(is_refusal(status) && *reached);
	wrong += dispatched != KVC_OK;
	for (unsigned i = 0; async && told.calls < submitted && i < 1000000; i++) {
		(void)kvc_async_dispatch(async);
	}
	wrong += told.calls != submitted || (!*reached && told.good != submitted);
	(void)kvc_async_close(async);
	return wrong;
}

static void test_each(struct fake *fake, unsigned (*run)(struct fake *, unsigned, bool *),
		      unsigned least, const char *what)
{
	unsigned wrong = 0, at = 1;
	for (bool reached = true; reached && at < CALLS_MAX; at++) {
		unsigned one = run(fake, at, &reached);
		if (one > 0) {
			tap_diag("%s: call %u refused", what, at);
		}
		wrong += one;
	}
	ok(wrong == 0 && at > least && at < CALLS_MAX, "%s: each of %u calls", what, at - 2);
}

int main(void)
{
	static struct fake fake;
	fake_start(&fake, MEMORY_BYTES);
	fake_put_text(&fake, "a", "1");
	test_each(&fake, waiting, 10, "functions that wait");
	test_each(&fake, without_waiting, 10, "those that do not");
	interrupting = true;
	test_each(&fake, waiting, 3, "interrupted, functions that wait");
	test_each(&fake, without_waiting, 1, "interrupted, those that do not");
	fake_stop(&fake);
	return tap_done();
}

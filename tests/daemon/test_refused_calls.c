// SPDX-License-Identifier: MIT
//
// The door and attaching on a system that refuses, at each call in turn and with more than one
// reason: whoever cannot be served is told why or left, nothing is kept open, and when nothing is
// refused any more all is well.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/generation.h"
#include "daemon/listener.h"
#include "daemon/readers.h"
#include "shm/epoch_scan.h"
#include "shm/limits.h"
#include "shm/region.h"
#include "tests/daemon/wire_stub.h"
#include "tests/lib/refuse_memory.h"
#include "tests/tap/tap.h"

#define CALLS_MAX 300u

static int refuse_errno; // of what is no memory

static int refuse_int(void)
{
	if (refuse_now()) {
		errno = refuse_errno;
		return -1;
	}
	return 0;
}

#define REFUSE_INT(name, parameters, ...)                                   \
	int __real_##name parameters;                                       \
	int __wrap_##name parameters;                                       \
	int __wrap_##name parameters                                        \
	{                                                                   \
		return refuse_int() != 0 ? -1 : __real_##name(__VA_ARGS__); \
	}

REFUSE_INT(socket, (int domain, int type, int protocol), domain, type, protocol)
REFUSE_INT(bind, (int fd, const struct sockaddr *to, socklen_t bytes), fd, to, bytes)
REFUSE_INT(listen, (int fd, int backlog), fd, backlog)
REFUSE_INT(connect, (int fd, const struct sockaddr *to, socklen_t bytes), fd, to, bytes)
REFUSE_INT(getsockopt, (int fd, int level, int name, void *value, socklen_t *bytes), fd, level,
	   name, value, bytes)
REFUSE_INT(fchmod, (int fd, mode_t mode), fd, mode)
REFUSE_INT(memfd_create, (const char *name, unsigned flags), name, flags)
REFUSE_INT(ftruncate64, (int fd, off_t bytes), fd, bytes)
REFUSE_INT(poll, (struct pollfd * set, nfds_t count, int timeout_ms), set, count, timeout_ms)
REFUSE_INT(eventfd, (unsigned count, int flags), count, flags)
REFUSE_INT(epoll_create1, (int flags), flags)
REFUSE_INT(epoll_ctl, (int set, int operation, int fd, struct epoll_event *event), set, operation,
	   fd, event)

void *__real_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return refuse_int() != 0 ? MAP_FAILED
				 : __real_mmap64(at, bytes, protection, flags, fd, offset);
}

static char folder[96], path[128];

static size_t open_count(void)
{
	size_t count = 0;
	DIR *dir = opendir("/proc/self/fd");
	while (dir && readdir(dir)) {
		count++;
	}
	if (dir) {
		(void)closedir(dir);
	}
	return count;
}

// ---- the door -----------------------------------------------------------------------------------

static int dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool is_served(void)
{
	int fd = dial();
	bool served = fd >= 0 && send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6;
	for (unsigned i = 0; served && i < 20; i++) {
		(void)loop_turn(stub.kvd.loop, 0);
	}
	served = served && stub_expect(fd, "+PONG\r\n");
	if (fd >= 0) {
		close(fd);
	}
	stub_turns();
	return served;
}

static unsigned open_door(unsigned at, bool *reached)
{
	struct listener *listener = NULL;
	char error[512] = "";
	stub_start(PERSIST_MEMORY);
	stub.kvd.config.socket_path = path;
	stub.kvd.config.dir = folder;
	stub.kvd.config.socket_mode = 0660;
	refuse_arm(at);
	int result = listener_open(&listener, &stub.kvd, error, sizeof(error));
	*reached = refuse.refused > 0;
	refuse.armed = false;
	bool good = result == 0 ? listener != NULL : *reached && error[0] != '\0';
	if (result == 0) {
		stub.kvd.listener = listener;
		good = good && is_served();
		listener_close(listener);
	}
	stub_stop();
	return !good;
}

// A client comes while something is refused, and another afterwards.
static unsigned come_in(unsigned at, bool *reached)
{
	struct listener *listener = NULL;
	char error[512] = "";
	stub_start(PERSIST_MEMORY);
	stub.kvd.config.socket_path = path;
	stub.kvd.config.dir = folder;
	stub.kvd.config.socket_mode = 0660;
	if (listener_open(&listener, &stub.kvd, error, sizeof(error)) != 0) {
		tap_diag("%s", error);
		abort();
	}
	stub.kvd.listener = listener;
	int fd = dial();
	bool good = fd >= 0 && send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6;
	refuse_arm(at);
	for (unsigned i = 0; i < 20; i++) {
		(void)loop_turn(stub.kvd.loop, 0);
	}
	*reached = refuse.refused > 0;
	refuse.armed = false;
	stub.now_ns += UINT64_C(10000000000); // past a pause in accepting
	good = good && is_served();
	close(fd);
	stub_turns();
	listener_close(listener);
	stub_stop();
	return !good;
}

// ---- attaching ----------------------------------------------------------------------------------

static void drop_all(int fd)
{
	char text[4096];
	union {
		char bytes[CMSG_SPACE(sizeof(int) * 8)];
		struct cmsghdr align;
	} control;
	struct iovec piece = { .iov_base = text, .iov_len = sizeof(text) };
	for (;;) {
		struct msghdr message = { .msg_iov = &piece,
					  .msg_iovlen = 1,
					  .msg_control = control.bytes,
					  .msg_controllen = sizeof(control.bytes) };
		if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) <= 0) {
			return;
		}
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);
		if (head && head->cmsg_type == SCM_RIGHTS) {
			int fds[8];
			size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(head), count * sizeof(int));
			for (size_t i = 0; i < count; i++) {
				close(fds[i]);
			}
		}
	}
}

static unsigned attach(unsigned at, bool *reached)
{
	static struct kvs_region region;
	static struct kvs_epoch_domain domain;
	struct readers *readers = NULL;
	struct kvs_region_options options = { .memory_bytes = 8 << 20,
					      .memory_bytes_max = 8 << 20,
					      .segment_bytes = KVS_SEGMENT_BYTES_MIN,
					      .instance_id = 7,
					      .hash_key = { 1 },
					      .fenced = true };
	uint64_t gen = 7;
	stub_start(PERSIST_MEMORY);
	int gen_fd = memfd_create("gen", MFD_CLOEXEC);
	if (kvs_region_create(&region, &options) != KVS_REGION_OK || ftruncate(gen_fd, 4096) != 0 ||
	    pwrite(gen_fd, &gen, sizeof(gen), 0) != sizeof(gen)) {
		abort();
	}
	kvs_epoch_init(&domain, &region.header->hot, true);
	struct generation generation = { .fd = gen_fd };
	if (readers_create(&readers, &stub.kvd, &domain, &region, &generation) != 0) {
		abort();
	}
	stub.kvd.readers = readers;
	int other = stub_connect(NULL), fd = stub_connect(NULL);
	stub_send_text(fd, "ATTACH\r\nATTACH PAGE\r\nPING\r\n");
	refuse_arm(at);
	stub_turns();
	*reached = refuse.refused > 0;
	refuse.armed = false;
	drop_all(fd);
	stub_send_text(other, "PING\r\n");
	bool good = stub_expect(other, "+PONG\r\n");
	stub_send_text(other, "ATTACH\r\n");
	stub_turns();
	char first = 0;
	good = good && recv(other, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && first == '*';
	drop_all(other);
	close(fd);
	close(other);
	stub_turns();
	session_shared_destroy(stub.sessions);
	readers_destroy(readers);
	good = good && domain.pages_count == 0;
	kvs_epoch_fini(&domain);
	kvs_region_close(&region);
	close(gen_fd);
	loop_destroy(stub.kvd.loop);
	return !good;
}

static void test_each(unsigned (*run)(unsigned, bool *), const char *what)
{
	static const int reasons[] = { EMFILE, EINVAL, ENOPROTOOPT, ENOENT, ECONNREFUSED };
	unsigned wrong = 0, all = 0;
	size_t before = open_count();
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		unsigned at = 1;
		refuse_errno = reasons[i];
		for (bool reached = true; reached && at < CALLS_MAX; at++) {
			unsigned one = run(at, &reached);
			size_t now = open_count();
			if (one > 0 || now != before) {
				tap_diag("%s: call %u refused with %s: %zu descriptors more", what,
					 at, strerror(reasons[i]), now - before);
				wrong++;
				before = now;
			}
		}
		all += at - 2;
	}
	ok(wrong == 0 && all > 20, "%s: each of %u calls", what, all);
}

int main(void)
{
	const char *base = getenv("TMPDIR");
	(void)snprintf(folder, sizeof(folder), "%.60s/kvd-refused-XXXXXX", base ? base : "/tmp");
	if (!mkdtemp(folder)) {
		return 1;
	}
	(void)snprintf(path, sizeof(path), "%s/kvd.sock", folder);
	test_each(open_door, "opening the door");
	test_each(come_in, "a client comes");
	test_each(attach, "attaching");
	(void)unlink(path);
	(void)rmdir(folder);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// The manager's end of sd_notify, for tests: a datagram socket under an abstract name that the
// kernel chooses, and what arrives there; and descriptors that can be told apart.
#pragma once

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct notify_fixture {
	int fd;
	char address[128]; // as in NOTIFY_SOCKET
};

/// One message: its text, and its first descriptor, -1 if there is none.
struct notify_message {
	char text[4097];
	int fd;
};

static inline void notify_fixture_open(struct notify_fixture *fixture)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t bytes = sizeof(address.sun_family);
	fixture->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (bind(fixture->fd, (const struct sockaddr *)&address, bytes) != 0) {
		perror("bind");
	}
	bytes = sizeof(address);
	if (getsockname(fixture->fd, (struct sockaddr *)&address, &bytes) != 0) {
		perror("getsockname");
	}
	(void)snprintf(fixture->address, sizeof(fixture->address), "@%.*s",
		       (int)(bytes - offsetof(struct sockaddr_un, sun_path) - 1),
		       address.sun_path + 1);
}

/// What waits there; an empty text if nothing does.
static inline void notify_fixture_read(const struct notify_fixture *fixture,
				       struct notify_message *message)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec piece = { .iov_base = message->text, .iov_len = sizeof(message->text) - 1 };
	struct msghdr header = { .msg_iov = &piece,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control) };
	ssize_t bytes = recvmsg(fixture->fd, &header, MSG_CMSG_CLOEXEC);
	message->text[bytes > 0 ? bytes : 0] = '\0';
	message->fd = -1;
	if (bytes >= 0 && header.msg_controllen >= CMSG_LEN(sizeof(int))) {
		memcpy(&message->fd, CMSG_DATA(&control.header), sizeof(int));
	}
}

/// A memfd with `text` in it.
static inline int notify_fixture_file(const char *text)
{
	int fd = memfd_create("fixture", MFD_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		perror("memfd_create");
	}
	return fd;
}

/// Does `fd` have `text` in it? False if it is closed.
static inline int notify_fixture_is(int fd, const char *text)
{
	char found[64] = "";
	ssize_t bytes = pread(fd, found, sizeof(found) - 1, 0);
	return bytes == (ssize_t)strlen(text) && strcmp(found, text) == 0;
}

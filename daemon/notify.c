// SPDX-License-Identifier: MIT
//
// The sd_notify protocol is one datagram of NAME=value lines; that does not take a library.

#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/seam.h"

#define NOTIFY_WAIT_S 2

/// The address in $NOTIFY_SOCKET. Its length; 0 = there is none, negative: errno.
static int notify_address(struct sockaddr_un *address)
{
	const char *path = getenv("NOTIFY_SOCKET");
	if (!path || (path[0] != '/' && path[0] != '@')) {
		return 0;
	}
	size_t path_bytes = strlen(path);
	if (path_bytes >= sizeof(address->sun_path)) {
		return -ENAMETOOLONG;
	}
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(address->sun_path, path, path_bytes);
	if (path[0] == '@') {
		address->sun_path[0] = '\0'; // abstract name
	}
	return (int)(offsetof(struct sockaddr_un, sun_path) + path_bytes);
}

static int notify_send_by(int sender, const struct seam *seam, const char *text, size_t bytes,
			  int fd, int flags)
{
	struct sockaddr_un address;
	int address_bytes = notify_address(&address);
	if (address_bytes <= 0) {
		return address_bytes < 0 ? address_bytes : 1;
	}
	union {
		struct cmsghdr header; // aligned
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec piece = { .iov_base = (void *)(uintptr_t)text, .iov_len = bytes };
	struct msghdr message = { .msg_name = &address,
				  .msg_namelen = (socklen_t)address_bytes,
				  .msg_iov = &piece,
				  .msg_iovlen = 1 };
	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.bytes);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	ssize_t sent;
	do {
		sent = seam->sendmsg(sender, &message, MSG_NOSIGNAL | flags);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

/// A copy of the socket that the keeper gave, if it is one that can send to $NOTIFY_SOCKET: to that
/// of kvd --supervise no other can. Else a new one. Negative: errno.
static int notify_sender(void)
{
	struct sockaddr_un address, peer;
	socklen_t peer_bytes = sizeof(peer);
	const char *text = getenv(NOTIFY_FD);
	char *end = NULL;
	long given = text != NULL ? strtol(text, &end, 10) : -1;
	int bytes = notify_address(&address);
	if (given > 2 && given <= INT_MAX && *end == '\0' && bytes > 0 &&
	    getpeername((int)given, (struct sockaddr *)&peer, &peer_bytes) == 0 &&
	    peer_bytes == (socklen_t)bytes && memcmp(&peer, &address, (size_t)bytes) == 0) {
		(void)fcntl((int)given, F_SETFD, FD_CLOEXEC); // not for children of this process
		int copy = fcntl((int)given, F_DUPFD_CLOEXEC, 3);
		return copy < 0 ? -errno : copy;
	}
	int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return sender < 0 ? -errno : sender;
}

int notify_send(const struct seam *seam, const char *text, size_t bytes, int fd)
{
	if (!getenv("NOTIFY_SOCKET")) {
		return 1;
	}
	int sender = notify_sender();
	if (sender < 0) {
		return sender;
	}
	const struct timeval wait = { .tv_sec = NOTIFY_WAIT_S };
	(void)setsockopt(sender, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)); // a bound, no need
	int result = notify_send_by(sender, seam, text, bytes, fd, 0);
	(void)close(sender);
	return result;
}

static void notify_tell(const char *text)
{
	int error = notify_send(&seam_system, text, strlen(text), -1);
	if (error < 0) {
		log_warning("cannot tell the service manager: %s", strerror(-error));
	}
}

void notify_ready(void)
{
	notify_tell("READY=1");
}

void notify_stopping(void)
{
	notify_tell("STOPPING=1");
}

int notify_open(void)
{
	if (!getenv("NOTIFY_SOCKET")) {
		return -1;
	}
	int sender = notify_sender();
	if (sender < 0) {
		log_warning("cannot ping the service manager's watchdog, which will end kvd: %s",
			    strerror(-sender));
	}
	return sender < 0 ? -1 : sender;
}

void notify_watchdog(int sender)
{
	static const char text[] = "WATCHDOG=1";
	// Not waited for, not told of: the next one comes soon, and the loop must not hang for it.
	(void)notify_send_by(sender, &seam_system, text, sizeof(text) - 1, -1, MSG_DONTWAIT);
}

void notify_status(const char *format, ...)
{
	char text[256] = "STATUS=";
	size_t head = strlen(text);
	va_list args;
	va_start(args, format);
	int n = vsnprintf(text + head, sizeof(text) - head, format, args);
	va_end(args);
	if (n < 0) {
		return;
	}
	text[head + strcspn(text + head, "\n")] = '\0';
	notify_tell(text);
}

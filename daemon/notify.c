// SPDX-License-Identifier: MIT
//
// The sd_notify protocol is one datagram of NAME=value lines; that does not take a library.

#include "daemon/notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/log.h"

static void notify_send(const char *text, size_t bytes)
{
	const char *path = getenv("NOTIFY_SOCKET");
	if (!path || (path[0] != '/' && path[0] != '@')) {
		return;
	}
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t path_bytes = strlen(path);
	if (path_bytes >= sizeof(address.sun_path)) {
		log_warning("NOTIFY_SOCKET is too long, the service manager is not told anything");
		return;
	}
	memcpy(address.sun_path, path, path_bytes);
	if (path[0] == '@') {
		address.sun_path[0] = '\0'; // abstract name
	}
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		log_warning("cannot tell the service manager: %m");
		return;
	}
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes);
	if (sendto(fd, text, bytes, MSG_NOSIGNAL, (const struct sockaddr *)&address, length) < 0) {
		log_warning("cannot tell the service manager: %m");
	}
	close(fd);
}

void notify_ready(void)
{
	static const char text[] = "READY=1";
	notify_send(text, sizeof(text) - 1);
}

void notify_stopping(void)
{
	static const char text[] = "STOPPING=1";
	notify_send(text, sizeof(text) - 1);
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
	notify_send(text, strlen(text));
}

// SPDX-License-Identifier: MIT
//
// A deliberately plain RESP client: blocking, one reply at a time, bytes as they came. Tests
// compare raw replies, so it shares no code with the parser of the product.
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/lib/harness.h"
#include "tests/lib/harness_internal.h"

#define HARNESS_COMMAND_ARGS_MAX 64

struct harness_connection {
	int fd;
	char *input; // [start, end) is unread
	size_t start;
	size_t end;
	size_t input_bytes;
	char saved;	 // byte that a reply's NUL stands on
	size_t saved_at; // its place, or SIZE_MAX
};

static int socket_open(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static struct harness_connection *connection_new(int fd)
{
	struct harness_connection *c = calloc(1, sizeof(*c));
	if (!c) {
		harness_bail(NULL, "out of memory");
	}
	c->fd = fd;
	c->saved_at = SIZE_MAX;
	return c;
}

struct harness_connection *harness_connect(const struct harness *h)
{
	int fd = socket_open(harness_socket(h));
	if (fd < 0) {
		harness_bail(harness_log_path(h), "connect %s: %s", harness_socket(h),
			     strerror(errno));
	}
	return connection_new(fd);
}

void harness_disconnect(struct harness_connection *c)
{
	if (c) {
		close(c->fd);
		free(c->input);
		free(c);
	}
}

int harness_fd(const struct harness_connection *c)
{
	return c->fd;
}

bool harness_send(struct harness_connection *c, const void *bytes, size_t length)
{
	const char *at = bytes;
	while (length) {
		ssize_t sent = send(c->fd, at, length, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR) {
			continue;
		}
		if (sent <= 0) {
			return false;
		}
		at += sent;
		length -= (size_t)sent;
	}
	return true;
}

static bool input_fill(struct harness_connection *c, uint64_t deadline_ms)
{
	if (c->end == c->input_bytes) {
		c->input_bytes = c->input_bytes ? c->input_bytes * 2 : 65536;
		c->input = realloc(c->input, c->input_bytes + 1);
		if (!c->input) {
			harness_bail(NULL, "out of memory");
		}
	}
	for (;;) {
		struct pollfd wait = { .fd = c->fd, .events = POLLIN };
		uint64_t now_ms = harness_now_ms();
		int ready = now_ms < deadline_ms ? poll(&wait, 1, (int)(deadline_ms - now_ms)) : 0;
		if (ready < 0 && errno == EINTR) {
			continue;
		}
		if (ready <= 0) {
			return false;
		}
		ssize_t got = recv(c->fd, c->input + c->end, c->input_bytes - c->end, 0);
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got <= 0) {
			return false;
		}
		c->end += (size_t)got;
		return true;
	}
}

/// Position after the line that starts at `at`, 0 if it did not come.
static size_t line_end(struct harness_connection *c, size_t at, uint64_t deadline_ms)
{
	for (size_t searched = at;;) {
		if (searched < c->end) {
			char *end = memchr(c->input + searched, '\n', c->end - searched);
			if (end) {
				return (size_t)(end - c->input) + 1;
			}
			searched = c->end;
		}
		if (!input_fill(c, deadline_ms)) {
			return 0;
		}
	}
}

/// Position after the reply that starts at `at`, 0 if it did not come. Not recursive: `wanted`
/// counts the replies still owed, an array adds its elements.
static size_t reply_end(struct harness_connection *c, size_t at, uint64_t deadline_ms)
{
	for (long long wanted = 1; wanted > 0; wanted--) {
		size_t end = line_end(c, at, deadline_ms);
		if (!end) {
			return 0;
		}
		char type = c->input[at];
		long long count =
			strchr("*%~>|$=!", type) ? strtoll(c->input + at + 1, NULL, 10) : 0;
		at = end;
		bool is_string = strchr("$=!", type) != NULL;
		if (count < 0 || (count == 0 && !is_string)) {
			continue;
		}
		if (is_string) { // an empty one has its end of line, too
			at += (size_t)count + 2;
			while (c->end < at) {
				if (!input_fill(c, deadline_ms)) {
					return 0;
				}
			}
		} else {
			wanted += type == '%' || type == '|' ? 2 * count : count;
			wanted += type == '|'; // attributes precede the reply itself
		}
	}
	return at;
}

const char *harness_reply(struct harness_connection *c, size_t *length)
{
	uint64_t deadline_ms = harness_now_ms() + harness_timeout_ms();
	if (c->saved_at != SIZE_MAX) {
		c->input[c->saved_at] = c->saved;
		c->saved_at = SIZE_MAX;
	}
	if (c->start) {
		memmove(c->input, c->input + c->start, c->end - c->start);
		c->end -= c->start;
		c->start = 0;
	}
	size_t end = reply_end(c, 0, deadline_ms);
	if (!end) {
		return NULL;
	}
	c->saved = c->input[end]; // input has one byte more than input_bytes
	c->saved_at = end;
	c->input[end] = '\0';
	c->start = end;
	if (length) {
		*length = end;
	}
	return c->input;
}

bool harness_append(struct harness_connection *c, size_t argc, const void *const *argv,
		    const size_t *argv_bytes)
{
	char *frame = NULL;
	size_t frame_bytes = 0;
	FILE *out = open_memstream(&frame, &frame_bytes);
	if (!out) {
		harness_bail(NULL, "out of memory");
	}
	fprintf(out, "*%zu\r\n", argc);
	for (size_t i = 0; i < argc; i++) {
		fprintf(out, "$%zu\r\n", argv_bytes[i]);
		if (fwrite(argv[i], 1, argv_bytes[i], out) != argv_bytes[i]) {
			harness_bail(NULL, "out of memory");
		}
		fputs("\r\n", out);
	}
	if (fclose(out)) {
		harness_bail(NULL, "out of memory");
	}
	bool sent = harness_send(c, frame, frame_bytes);
	free(frame);
	return sent;
}

const char *harness_command_argv(struct harness_connection *c, size_t argc, const void *const *argv,
				 const size_t *argv_bytes, size_t *length)
{
	return harness_append(c, argc, argv, argv_bytes) ? harness_reply(c, length) : NULL;
}

const char *harness_command(struct harness_connection *c, ...)
{
	const void *argv[HARNESS_COMMAND_ARGS_MAX];
	size_t argv_bytes[HARNESS_COMMAND_ARGS_MAX];
	size_t argc = 0;
	va_list args;
	va_start(args, c);
	for (const char *arg; (arg = va_arg(args, const char *)) != NULL;) {
		if (argc == HARNESS_COMMAND_ARGS_MAX) {
			harness_bail(NULL, "more than %d arguments", HARNESS_COMMAND_ARGS_MAX);
		}
		argv[argc] = arg;
		argv_bytes[argc++] = strlen(arg);
	}
	va_end(args);
	return harness_command_argv(c, argc, argv, argv_bytes, NULL);
}

bool harness_ping(const char *socket_path)
{
	int fd = socket_open(socket_path);
	if (fd < 0) {
		return false;
	}
	struct harness_connection *c = connection_new(fd);
	const char *reply = harness_send(c, "PING\r\n", 6) ? harness_reply(c, NULL) : NULL;
	bool good = reply && strcmp(reply, "+PONG\r\n") == 0;
	harness_disconnect(c);
	return good;
}

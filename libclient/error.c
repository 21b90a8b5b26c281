// SPDX-License-Identifier: MIT
//
// Results and their sentences, and the border where kvd's error replies become one of them.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "libclient/internal.h"

const char *kvc_strerror(int status)
{
	switch (status) {
#define X(name, number, sentence) \
	case number:              \
		return sentence;
#include "shm/status.tbl.h"
#undef X
	default:
		return "unknown status";
	}
}

const char *kvc_version(void)
{
	return KVD_VERSION;
}

void kvc_error_set(char *text, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, KVC_ERROR_TEXT_BYTES, format, args);
	va_end(args);
}

// The path of the socket that nobody answers at, as far as it can tell itself.
static const char *error_path_state(const char *path, int error)
{
	struct stat status;
	if (error != ECONNREFUSED) {
		return error == ENOENT ? "there is no such socket" : strerror(error);
	}
	// unreached: who removes the socket just now.
	if (stat(path, &status) == 0 && !S_ISSOCK(status.st_mode)) {
		return "that is not a socket";
	}
	return "its kvd is gone, only the socket is left";
}

void kvc_error_connect(const kvc *client, struct kvc_conn *conn, int error)
{
	const char *path = client->socket_path, *from = client->socket_from;
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED:
		kvc_error_set(conn->error_text,
			      "nobody listens at %s (%s): %s. Start kvd, or name its socket by the "
			      "option or by KVD_SOCKET; a kvd started by hand may listen at "
			      "DIR/kvd.sock",
			      path, from, error_path_state(path, error));
		return;
	case EACCES:
	case EPERM:
		kvc_error_set(conn->error_text,
			      "not allowed to connect to %s (%s): %s. The mode and group of the "
			      "socket and of its folders decide who may",
			      path, from, strerror(error));
		return;
	case EAGAIN:
		kvc_error_set(conn->error_text,
			      "kvd at %s (%s) took no connection in time: its queue is full. It is "
			      "stopped, or has too much to do",
			      path, from);
		return;
	default:
		kvc_error_set(conn->error_text, "cannot connect to %s (%s): %s", path, from,
			      strerror(error));
	}
}

void kvc_error_place(const kvc *client, struct kvc_conn *conn)
{
	char text[KVC_ERROR_TEXT_BYTES];
	memcpy(text, conn->error_text, sizeof(text));
	kvc_error_set(conn->error_text, "kvd at %s (%s): %.*s", client->socket_path,
		      client->socket_from, (int)sizeof(text) - 150, text);
}

static bool error_begins(const struct kvc_reply *reply, const char *prefix)
{
	size_t bytes = strlen(prefix);
	return reply->text_bytes >= bytes && memcmp(reply->text, prefix, bytes) == 0;
}

int kvc_error_reply(struct kvc_conn *conn, const struct kvc_reply *reply)
{
	kvc_error_set(conn->error_text, "%s", reply->text);
	if (error_begins(reply, "OOM ")) {
		return KVC_NO_MEMORY;
	}
	if (error_begins(reply, "IOERR ")) {
		return KVC_NOT_DURABLE;
	}
	if (error_begins(reply, "DAMAGED ")) {
		return KVC_DAMAGED;
	}
	if (error_begins(reply, "ERR value is not an integer") ||
	    error_begins(reply, "ERR increment or decrement would overflow")) {
		return KVC_NOT_NUMBER;
	}
	static const char *const large[] = { "over the limit", "too large", "too long",
					     "exceeds maximum allowed size" };
	for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
		if (strstr(reply->text, large[i])) {
			return KVC_TOO_LARGE;
		}
	}
	return KVC_REFUSED;
}

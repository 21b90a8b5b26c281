// SPDX-License-Identifier: MIT
//
// Results and their sentences, and the border where kvd's error replies become one of them.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

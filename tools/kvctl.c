// SPDX-License-Identifier: MIT
//
// kvctl: kvd from the shell. This file holds what all verbs share (start, connection, errors) and
// the two verbs about kvctl itself; the others are in cmd_*.c.
#include "tools/kvctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shm/limits.h"
#include "tools/jsonl.h"
#include "tools/output.h"
#include "tools/units.h"

#define KVCTL_SOCKET_DEFAULT "/run/kvd/kvd.sock"
#define KVCTL_SHOW_BYTES_MAX 80u

__attribute__((format(printf, 1, 0))) static void kvctl_say(const char *format, va_list args)
{
	fputs("kvctl: ", stderr);
	vfprintf(stderr, format, args);
	putc('\n', stderr);
}

int kvctl_error(int code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	kvctl_say(format, args);
	va_end(args);
	return code;
}

int kvctl_remark(const struct kvctl *kvctl, int code, const char *format, ...)
{
	if (!kvctl->quiet) {
		va_list args;
		va_start(args, format);
		kvctl_say(format, args);
		va_end(args);
	}
	return code;
}

const char *kvctl_show(const void *key, size_t key_bytes)
{
	static char text[2][KVCTL_SHOW_BYTES_MAX * 4 + 8];
	static unsigned turn;
	char *out = text[turn++ % 2];
	bool cut = key_bytes > KVCTL_SHOW_BYTES_MAX;
	FILE *memory = fmemopen(out, sizeof text[0], "w");
	if (!memory) {
		return "(a key)";
	}
	output_escaped(memory, key, cut ? KVCTL_SHOW_BYTES_MAX : key_bytes);
	fputs(cut ? "..." : "", memory);
	(void)fclose(memory);
	return out;
}

double kvctl_seconds(void)
{
	struct timespec now;
	if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
		return 0;
	}
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int kvctl_exit_code(int status)
{
	switch (status) {
	case KVC_OK:
		return KVCTL_OK;
	case KVC_INVALID:
		return KVCTL_USAGE;
	case KVC_UNREACHABLE:
	case KVC_UNKNOWN:
	case KVC_PROTOCOL:
	case KVC_LAYOUT:
	case KVC_SYSTEM:
		return KVCTL_UNREACHABLE;
	case KVC_TIMEOUT:
	case KVC_BUSY:
	case KVC_REVOKED:
		return KVCTL_TIMEOUT;
	case KVC_DAMAGED:
		return KVCTL_CORRUPT;
	default:
		return KVCTL_NO;
	}
}

// Why nothing answers at the socket's path, as far as the path itself can tell.
static const char *kvctl_socket_state(const char *path)
{
	struct stat status;
	if (strlen(path) > KVS_SOCKET_PATH_BYTES_MAX) {
		return "the path is too long for a socket (107 bytes)";
	}
	if (stat(path, &status) != 0) {
		return errno == ENOENT ? "there is no such socket" : strerror(errno);
	}
	if (!S_ISSOCK(status.st_mode)) {
		return "that is not a socket";
	}
	if (access(path, W_OK) != 0) {
		return "no permission: its mode and group say who may connect";
	}
	return "nobody listens there";
}

int kvctl_fail(const struct kvctl *kvctl, int status, const char *what)
{
	int code = kvctl_exit_code(status);
	const char *text = kvctl->client ? kvc_error_text(kvctl->client) : "";
	text = text ? text : "";
	if (status == KVC_UNREACHABLE) {
		return kvctl_error(code,
				   "%s: no kvd answers at %s (%s). Start kvd, or name its socket "
				   "with --socket PATH or KVD_SOCKET",
				   what, kvctl->socket_path,
				   kvctl_socket_state(kvctl->socket_path));
	}
	if (status == KVC_TIMEOUT) {
		return kvctl_error(code, "%s: no answer in time (--timeout MS allows more); %s",
				   what, kvc_strerror(status));
	}
	if (status == KVC_REFUSED && *text) {
		return kvctl_error(code, "%s: %s", what, text);
	}
	return kvctl_error(code, "%s: %s%s%s", what, kvc_strerror(status), *text ? ": " : "", text);
}

static int kvctl_options(const struct kvctl *kvctl, struct kvc_options *options)
{
	const char *timeout = kvctl->options.value[OPTION_timeout];
	kvc_options_init(options);
	options->socket_path = kvctl->options.value[OPTION_socket];
	options->name = "kvctl";
	if (timeout) {
		int64_t timeout_ms;
		if (!units_duration_parse(timeout, 1, &timeout_ms) || timeout_ms < 1 ||
		    timeout_ms > INT32_MAX) {
			return kvctl_error(KVCTL_USAGE,
					   "--timeout '%s' is no time: write milliseconds, or 2s",
					   timeout);
		}
		options->request_timeout_ms = (uint32_t)timeout_ms;
		options->connect_timeout_ms = (uint32_t)timeout_ms;
	}
	return KVCTL_OK;
}

static int kvctl_open(struct kvctl *kvctl, enum kvctl_via via)
{
	struct kvc_options options;
	int code = kvctl_options(kvctl, &options);
	if (code != KVCTL_OK || kvctl->client) {
		return code;
	}
	options.flags = via == KVCTL_VIA_SOCKET ? KVC_OPEN_SOCKET_ONLY : 0;
	bool too_long = strlen(kvctl->socket_path) > KVS_SOCKET_PATH_BYTES_MAX;
	int status = too_long ? KVC_UNREACHABLE : kvc_open(&kvctl->client, &options);
	if (status == KVC_LAYOUT && via == KVCTL_VIA_ANY) {
		kvctl_remark(kvctl, 0, "%s; reading through the socket", kvc_strerror(status));
		options.flags = KVC_OPEN_SOCKET_ONLY;
		status = kvc_open(&kvctl->client, &options);
	}
	return status == KVC_OK ? KVCTL_OK : kvctl_fail(kvctl, status, "cannot connect");
}

int kvctl_connect(struct kvctl *kvctl)
{
	return kvctl_open(kvctl, KVCTL_VIA_SOCKET);
}

int kvctl_reader(struct kvctl *kvctl, enum kvctl_via *via)
{
	const char *text = kvctl->options.value[OPTION_via];
	*via = KVCTL_VIA_ANY;
	if (text && strcmp(text, "shm") == 0) {
		*via = KVCTL_VIA_SHM;
	} else if (text && strcmp(text, "socket") == 0) {
		*via = KVCTL_VIA_SOCKET;
	} else if (text) {
		return kvctl_error(KVCTL_USAGE, "--via '%s': it can be shm or socket", text);
	}
	int code = kvctl_open(kvctl, *via);
	if (code != KVCTL_OK) {
		return code;
	}
	if (*via == KVCTL_VIA_SHM && !kvc_is_mapped(kvctl->client)) {
		return kvctl_error(
			KVCTL_UNREACHABLE,
			"--via shm: kvd at %s passed no mapping to this process (a bridge "
			"or a container between?); --via socket works",
			kvctl->socket_path);
	}
	int status = kvc_reader_open(kvctl->client, &kvctl->reader);
	return status == KVC_OK ? KVCTL_OK : kvctl_fail(kvctl, status, "cannot open a reader");
}

int kvctl_command(struct kvctl *kvctl, const struct kvc_reply **reply, int argc,
		  const char *const *argv)
{
	size_t argv_bytes[8];
	const void *argv_data[8];
	if (argc > 8) {
		return kvctl_error(KVCTL_USAGE, "%s: too many arguments", argv[0]);
	}
	for (int i = 0; i < argc; i++) {
		argv_data[i] = argv[i];
		argv_bytes[i] = strlen(argv[i]);
	}
	int status = kvc_command(kvctl->client, argc, argv_data, argv_bytes, reply);
	if (status != KVC_OK) {
		return kvctl_fail(kvctl, status, argv[0]);
	}
	if ((*reply)->type == KVC_REPLY_ERROR) {
		return kvctl_error(KVCTL_NO, "%s: %.*s", argv[0], (int)(*reply)->text_bytes,
				   (*reply)->text);
	}
	return KVCTL_OK;
}

int kvctl_key(const char *key, size_t *key_bytes)
{
	*key_bytes = strlen(key);
	if (*key_bytes == 0 || *key_bytes > KVS_KEY_BYTES_MAX) {
		return kvctl_error(KVCTL_USAGE, "key '%s' has %zu bytes, a key has 1 to %u",
				   kvctl_show(key, *key_bytes), *key_bytes, KVS_KEY_BYTES_MAX);
	}
	return KVCTL_OK;
}

int cmd_version(struct kvctl *kvctl)
{
	if (kvctl->json) {
		printf("{\"kvctl\":\"%s\",\"libkvclient\":\"%s\"}\n", KVD_VERSION, kvc_version());
	} else {
		printf("kvctl %s, libkvclient %s\n", KVD_VERSION, kvc_version());
	}
	return KVCTL_OK;
}

// Everything not flushed before is flushed here, so that a full disk is not mistaken for success.
static int kvctl_finish(struct kvctl *kvctl, int code)
{
	int status = KVC_OK;
	if (kvctl->reader) {
		status = kvc_reader_close(kvctl->reader);
	}
	if (status == KVC_OK && kvctl->client) {
		status = kvc_close(kvctl->client);
	}
	if (status != KVC_OK) {
		(void)kvctl_error(0, "cannot close: %s", kvc_strerror(status));
	}
	if (fflush(stdout) != 0 || ferror(stdout)) {
		return kvctl_error(KVCTL_USAGE, "cannot write to standard output: %s",
				   strerror(errno));
	}
	return code;
}

int main(int argc, char **argv)
{
	char error[200];
	struct kvctl kvctl = { .terminal = isatty(STDOUT_FILENO) == 1 };
	if (!options_parse(&kvctl.options, argc, argv, error, sizeof error)) {
		return kvctl_error(KVCTL_USAGE, "%s", error);
	}
	const char *environment = getenv("KVD_SOCKET");
	const char *chosen = kvctl.options.value[OPTION_socket];
	kvctl.socket_path = chosen			  ? chosen
			    : environment && *environment ? environment
							  : KVCTL_SOCKET_DEFAULT;
	kvctl.json = kvctl.options.value[OPTION_json] != NULL;
	kvctl.quiet = kvctl.options.value[OPTION_quiet] != NULL;
	const struct verb *verb = kvctl.options.verb;
	if (kvctl.options.value[OPTION_help]) {
		return kvctl_finish(&kvctl, cmd_help(&kvctl));
	}
	if (!verb) {
		return kvctl_error(KVCTL_USAGE, "no verb given; 'kvctl help' lists them");
	}
	return kvctl_finish(&kvctl, verb->run(&kvctl));
}

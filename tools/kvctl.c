// SPDX-License-Identifier: MIT
//
// kvctl: kvd from the shell. This file holds what all verbs share (start, connection, errors) and
// the two verbs about kvctl itself; the others are in cmd_*.c.
#include "tools/kvctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

// `text` is what libkvclient has to say about it.
static int kvctl_fail_text(const struct kvctl *kvctl, int status, const char *what,
			   const char *text)
{
	int code = kvctl_exit_code(status);
	const char *colon = *text ? ": " : "";
	const char *open = kvctl->writes ? ". It may have been applied: look before repeating" : "";
	if (status == KVC_TIMEOUT) {
		return kvctl_error(code, "%s: no answer in time (--timeout MS allows more)%s%s%s",
				   what, colon, text, open);
	}
	if (status == KVC_UNKNOWN) {
		return kvctl_error(code, "%s: no answer came%s%s%s", what, colon, text, open);
	}
	// A full kvd and a user's quota are both -OOM: only kvd's own words tell them apart.
	bool complete = status == KVC_UNREACHABLE || status == KVC_REFUSED ||
			status == KVC_INVALID || status == KVC_NO_MEMORY;
	if (complete && *text) {
		return kvctl_error(code, "%s: %s", what, text);
	}
	return kvctl_error(code, "%s: %s%s%s", what, kvc_strerror(status), colon, text);
}

int kvctl_fail(const struct kvctl *kvctl, int status, const char *what)
{
	return kvctl_fail_text(kvctl, status, what,
			       kvctl->client ? kvc_error_text(kvctl->client) : kvctl->open_text);
}

int kvctl_fail_read(const struct kvctl *kvctl, int status, const char *what)
{
	return kvctl_fail_text(kvctl, status, what, kvc_reader_error_text(kvctl->reader));
}

static int kvctl_options(struct kvctl *kvctl, struct kvc_options *options)
{
	const char *timeout = kvctl->options.value[OPTION_timeout];
	kvc_options_init(options);
	options->socket_path = kvctl->options.value[OPTION_socket];
	options->name = "kvctl";
	options->error_text = kvctl->open_text;
	options->error_text_bytes = sizeof kvctl->open_text;
	if (options->socket_path && !*options->socket_path) {
		return kvctl_error(KVCTL_USAGE, "--socket '' is no path");
	}
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
	int status = kvc_open(&kvctl->client, &options);
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

int kvctl_connect_quietly(struct kvctl *kvctl)
{
	struct kvc_options options;
	int code = kvctl_options(kvctl, &options);
	if (code != KVCTL_OK) {
		return code;
	}
	options.flags = KVC_OPEN_SOCKET_ONLY;
	int status = kvc_open(&kvctl->client, &options);
	if (status != KVC_OK && !kvctl->open_text[0]) {
		(void)snprintf(kvctl->open_text, sizeof kvctl->open_text, "%s",
			       kvc_strerror(status));
	}
	return kvctl_exit_code(status);
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

const struct kvc_reply *kvctl_field(const struct kvc_reply *map, const char *name)
{
	size_t elements = map->type == KVC_REPLY_MAP ? 2 * map->count : map->count;
	if (map->type != KVC_REPLY_MAP && map->type != KVC_REPLY_ARRAY) {
		return NULL;
	}
	for (size_t i = 0; i + 1 < elements; i += 2) {
		const struct kvc_reply *key = &map->element[i];
		if (key->type == KVC_REPLY_STRING && key->text_bytes == strlen(name) &&
		    memcmp(key->text, name, key->text_bytes) == 0) {
			return &map->element[i + 1];
		}
	}
	return NULL;
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
	bool said = code == KVCTL_USAGE; // by a verb that writes much and looks after each part
	if ((fflush(stdout) != 0 || ferror(stdout)) && !said) {
		return kvctl_error(KVCTL_USAGE, "cannot write to standard output: %s",
				   strerror(errno));
	}
	return code;
}

// Whoever starts kvctl with a standard stream closed would have its socket take the number, and
// what is printed go to kvd. In its place comes one that cannot be used the wrong way round.
static bool kvctl_fill_streams(void)
{
	static const int modes[] = { O_WRONLY, O_RDONLY, O_WRONLY };
	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd) {
			return false;
		}
	}
	return true;
}

int main(int argc, char **argv)
{
	char error[200];
	if (!kvctl_fill_streams()) {
		return KVCTL_USAGE; // nowhere to say why
	}
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

// SPDX-License-Identifier: MIT
//
// What the verbs of kvctl share: the parsed command line, the connection, exit codes, and the way
// errors are said. Each verb is one function, in a file by family (cmd_value.c, cmd_server.c, …).
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libclient/kvclient.h"
#include "tools/options.h"

enum kvctl_exit {
	KVCTL_OK = 0,
	KVCTL_NO = 1,	 // not found, condition did not hold, refused, or not all of it done
	KVCTL_USAGE = 2, // command line, or a local file
	KVCTL_UNREACHABLE = 3,
	KVCTL_TIMEOUT = 4,
	KVCTL_CORRUPT = 5, // damage found
};

enum kvctl_via {
	KVCTL_VIA_ANY, // the mapping if there is one
	KVCTL_VIA_SHM,
	KVCTL_VIA_SOCKET,
};

struct kvctl {
	struct options options;
	const char *socket_path; // as libkvclient will choose it, for messages
	kvc *client;		 // NULL until kvctl_connect()
	kvc_reader *reader;	 // NULL until kvctl_reader()
	char open_text[512];	 // why it could not be opened
	bool writes;		 // a request under way changes something
	bool json;
	bool quiet;
	bool terminal; // standard output is one
};

/// "kvctl: …" on standard error. Returns `code`, so that verbs can say `return kvctl_error(…)`.
int kvctl_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/// The same unless --quiet: a remark or an expected answer.
int kvctl_remark(const struct kvctl *kvctl, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/// Says a failed call of libkvclient and returns the exit code for it. `what` says what was tried.
int kvctl_fail(const struct kvctl *kvctl, int status, const char *what);
/// The same for a call with kvctl->reader.
int kvctl_fail_read(const struct kvctl *kvctl, int status, const char *what);
/// Exit code for a result of libkvclient, no message.
int kvctl_exit_code(int status);
/// Text of a key for messages: escaped, cut when very long. Two texts live at a time.
const char *kvctl_show(const void *key, size_t key_bytes);

/// Opens the client as the options say. Returns KVCTL_OK, or the exit code after saying the error.
int kvctl_connect(struct kvctl *kvctl);
/// The same without saying an error of the connection, which is in open_text then.
int kvctl_connect_quietly(struct kvctl *kvctl);
/// As kvctl_connect() with a reader; checks --via.
int kvctl_reader(struct kvctl *kvctl, enum kvctl_via *via);
/// Runs one command; *reply is good until the next call. Error replies are said and KVCTL_NO.
int kvctl_command(struct kvctl *kvctl, const struct kvc_reply **reply, int argc,
		  const char *const *argv);

/// The value of a name in a map, or in the array of pairs that a map is over RESP2; NULL if none.
const struct kvc_reply *kvctl_field(const struct kvc_reply *map, const char *name);

/// Key argument with its length checked; USAGE after saying what is wrong.
int kvctl_key(const char *key, size_t *key_bytes);
/// Monotonic seconds.
double kvctl_seconds(void);

int cmd_value_get(struct kvctl *kvctl);
int cmd_value_set(struct kvctl *kvctl);
int cmd_value_del(struct kvctl *kvctl);
int cmd_value_mget(struct kvctl *kvctl);
int cmd_value_incr(struct kvctl *kvctl);
int cmd_value_ttl(struct kvctl *kvctl);
int cmd_value_expire(struct kvctl *kvctl);
int cmd_scan(struct kvctl *kvctl);
int cmd_server_stats(struct kvctl *kvctl);
int cmd_server_clients(struct kvctl *kvctl);
int cmd_readers(struct kvctl *kvctl);
int cmd_server_memory(struct kvctl *kvctl);
int cmd_server_ping(struct kvctl *kvctl);
int cmd_server_flush(struct kvctl *kvctl);
int cmd_health(struct kvctl *kvctl);
int cmd_doctor(struct kvctl *kvctl);
int cmd_load(struct kvctl *kvctl);
int cmd_dump(struct kvctl *kvctl);
int cmd_verify(struct kvctl *kvctl);
int cmd_backup(struct kvctl *kvctl);
int cmd_restore(struct kvctl *kvctl);
int cmd_bridge(struct kvctl *kvctl);
int cmd_help(struct kvctl *kvctl);
int cmd_version(struct kvctl *kvctl);

// SPDX-License-Identifier: MIT
//
// What kvd says of itself, by the commands that anybody may use. An answer that does not come, or
// is not understood, leaves its facts unknown: the doctor is for times when not everything works.
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/doctor.h"
#include "tools/kvctl.h"

#define KVD_ARGS_MAX 8

// One command; NULL with *why if it was not answered with what it should be.
static const struct kvc_reply *kvd_ask(struct kvctl *kvctl, int argc, const char *const *argv,
				       char *why, size_t why_bytes)
{
	const void *data[KVD_ARGS_MAX];
	size_t bytes[KVD_ARGS_MAX];
	const struct kvc_reply *reply = NULL;
	for (int i = 0; i < argc && i < KVD_ARGS_MAX; i++) {
		data[i] = argv[i];
		bytes[i] = strlen(argv[i]);
	}
	int status = kvc_command(kvctl->client, argc, data, bytes, &reply);
	if (status != KVC_OK) {
		(void)snprintf(why, why_bytes, "%s: %s", argv[0], kvc_strerror(status));
		return NULL;
	}
	if (reply->type == KVC_REPLY_ERROR) {
		(void)snprintf(why, why_bytes, "%s: %.*s", argv[0], (int)reply->text_bytes,
			       reply->text);
		return NULL;
	}
	return reply;
}

static cJSON *kvd_ask_json(struct kvctl *kvctl, const char *command, char *why, size_t why_bytes)
{
	const struct kvc_reply *reply = kvd_ask(kvctl, 1, &command, why, why_bytes);
	cJSON *root = NULL;
	if (reply && reply->type == KVC_REPLY_STRING) {
		root = cJSON_ParseWithLength(reply->text, reply->text_bytes);
	}
	if (reply && !root) {
		(void)snprintf(why, why_bytes, "%s: the reply is not one of kvd", command);
	}
	return root;
}

static int64_t kvd_number(const cJSON *object, const char *name)
{
	const cJSON *node = cJSON_GetObjectItemCaseSensitive(object, name);
	return cJSON_IsNumber(node) ? (int64_t)node->valuedouble : 0;
}

static void kvd_text(const cJSON *object, const char *name, char *out, size_t out_bytes)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
	(void)snprintf(out, out_bytes, "%s", text ? text : "");
}

static bool kvd_stats(struct kvctl *kvctl, struct doctor_kvd *kvd)
{
	cJSON *root = kvd_ask_json(kvctl, "KVD.STATS", kvd->why, sizeof kvd->why);
	const cJSON *counters = cJSON_GetObjectItemCaseSensitive(root, "counters");
	kvd_text(root, "policy", kvd->policy, sizeof kvd->policy);
	kvd_text(root, "state", kvd->state, sizeof kvd->state);
	kvd_text(root, "why", kvd->state_why, sizeof kvd->state_why);
	int64_t behind = kvd_number(root, "applied_seq") - kvd_number(root, "durable_seq");
	kvd->undurable = behind > 0 ? behind : 0;
	kvd->store_bytes = kvd_number(counters, "store_bytes");
	kvd->store_live_bytes = kvd_number(counters, "store_live_bytes");
	kvd->clients = kvd_number(counters, "clients_connected");
	kvd->damage_met = kvd_number(counters, "damage_met");
	kvd->recovered_lost = kvd_number(counters, "recovered_lost");
	kvd->verify_damaged = kvd_number(counters, "verify_damaged_store") +
			      kvd_number(counters, "verify_damaged_memory");
	bool good = root != NULL;
	cJSON_Delete(root);
	return good;
}

static void kvd_memory(struct kvctl *kvctl, struct doctor_kvd *kvd)
{
	char why[256];
	cJSON *root = kvd_ask_json(kvctl, "KVD.MEMORY", why, sizeof why);
	const cJSON *file = cJSON_GetObjectItemCaseSensitive(root, "file");
	const cJSON *pages = cJSON_GetObjectItemCaseSensitive(root, "pages");
	const cJSON *records = cJSON_GetObjectItemCaseSensitive(root, "records");
	const cJSON *percent = cJSON_GetObjectItemCaseSensitive(records, "fragmentation_percent");
	kvd->bound_bytes = kvd_number(root, "bound_bytes");
	kvd->used_bytes = kvd_number(root, "used_bytes");
	kvd->file_bytes = kvd_number(file, "bytes");
	kvd->expected_bytes = kvd_number(file, "expected_bytes");
	kvd->exact = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(file, "exact"));
	kvd->locked = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(pages, "locked"));
	kvd->fragmentation_percent = cJSON_IsNumber(percent) ? percent->valuedouble : 0;
	kvd_text(pages, "kind", kvd->pages, sizeof kvd->pages);
	kvd_text(root, "in_the_way", kvd->in_the_way, sizeof kvd->in_the_way);
	kvd->wanted_bytes = kvd_number(root, "wanted_bytes");
	kvd_text(root, "bound_waits_for", kvd->bound_waits_for, sizeof kvd->bound_waits_for);
	cJSON_Delete(root);
}

static void kvd_option(const struct kvc_reply *reply, const char *name, char *out, size_t out_bytes)
{
	const struct kvc_reply *value = reply ? kvctl_field(reply, name) : NULL;
	bool text = value && value->type == KVC_REPLY_STRING;
	(void)snprintf(out, out_bytes, "%.*s", text ? (int)value->text_bytes : 0,
		       text ? value->text : "");
}

static void kvd_options(struct kvctl *kvctl, struct doctor_facts *facts)
{
	static const char *const argv[] = { "CONFIG",	  "GET",       "dir",
					    "maxclients", "when-full", "memory-max" };
	char why[256], text[512];
	const struct kvc_reply *reply = kvd_ask(kvctl, 6, argv, why, sizeof why);
	kvd_option(reply, "maxclients", text, sizeof text);
	facts->kvd.clients_max = strtoll(text, NULL, 10);
	kvd_option(reply, "memory-max", text, sizeof text);
	facts->kvd.bound_max_bytes = strtoll(text, NULL, 10);
	kvd_option(reply, "when-full", text, sizeof text);
	facts->kvd.evicts = strcmp(text, "evict") == 0 || strcmp(text, "spill") == 0;
	kvd_option(reply, "dir", text, sizeof text);
	if (facts->folder.path[0] || !text[0]) {
		return;
	}
	if (text[0] != '/' && facts->process.pid > 0) {
		(void)snprintf(facts->folder.path, sizeof facts->folder.path,
			       "/proc/%" PRId64 "/cwd/%.400s", facts->process.pid, text);
	} else {
		(void)snprintf(facts->folder.path, sizeof facts->folder.path, "%s", text);
	}
}

static int64_t kvd_reader_number(const struct kvc_reply *reader, const char *name)
{
	const struct kvc_reply *value = kvctl_field(reader, name);
	return value && value->type == KVC_REPLY_INTEGER ? value->integer : 0;
}

static void kvd_readers(struct kvctl *kvctl, struct doctor_kvd *kvd)
{
	static const char *const argv[] = { "KVD.READERS" };
	const struct kvc_reply *reply =
		kvd_ask(kvctl, 1, argv, kvd->readers_why, sizeof kvd->readers_why);
	const struct kvc_reply *readers = reply ? kvctl_field(reply, "readers") : NULL;
	size_t count = readers && readers->type == KVC_REPLY_ARRAY ? readers->count : 0;
	if (reply && !readers) {
		(void)snprintf(kvd->readers_why, sizeof kvd->readers_why,
			       "KVD.READERS: the reply is not one of kvd");
	}
	for (size_t i = 0; i < count; i++) {
		const struct kvc_reply *reader = &readers->element[i];
		const struct kvc_reply *name = kvctl_field(reader, "name");
		int64_t age_us = kvd_reader_number(reader, "age_us");
		int64_t held_bytes = kvd_reader_number(reader, "held_bytes");
		if (held_bytes > 0 && age_us > kvd->stuck_age_us) {
			kvd->stuck_pid = kvd_reader_number(reader, "pid");
			kvd->stuck_age_us = age_us;
			kvd->stuck_held_bytes = held_bytes;
			bool text = name && name->type == KVC_REPLY_STRING && name->text_bytes > 0;
			(void)snprintf(kvd->stuck_name, sizeof kvd->stuck_name, "%.*s",
				       text ? (int)name->text_bytes : 7,
				       text ? name->text : "no name");
		}
	}
}

// "… pid=12 uid=34 …" of each line. Other processes than this one, one of many connections each.
static void kvd_clients(struct kvctl *kvctl, struct doctor_facts *facts)
{
	static const char *const argv[] = { "CLIENT", "LIST" };
	char why[256];
	const struct kvc_reply *reply = kvd_ask(kvctl, 2, argv, why, sizeof why);
	char *text = reply && reply->type == KVC_REPLY_STRING
			     ? strndup(reply->text, reply->text_bytes)
			     : NULL;
	char *place = NULL;
	for (char *line = text ? strtok_r(text, "\r\n", &place) : NULL; line;
	     line = strtok_r(NULL, "\r\n", &place)) {
		const char *pid_at = strstr(line, " pid="), *uid_at = strstr(line, " uid=");
		int64_t pid = pid_at ? strtoll(pid_at + 5, NULL, 10) : 0;
		int64_t uid = uid_at ? strtoll(uid_at + 5, NULL, 10) : -1;
		if (uid >= 0 && uid == facts->process.uid && pid != getpid()) {
			facts->kvd.own_uid_clients++;
			facts->kvd.own_uid_pid = pid;
		}
	}
	free(text);
}

// Who listens, as the kernel has it: kvd may live in another pid namespace and call itself 1.
static void kvd_process(const char *path, struct doctor_process *process)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t bytes = sizeof peer;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	process->uid = DOCTOR_UNKNOWN;
	if (strlen(path) < sizeof address.sun_path) {
		memcpy(address.sun_path, path, strlen(path) + 1);
		if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
		    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0) {
			process->pid = peer.pid;
			process->uid = peer.uid;
		}
	}
	if (fd >= 0) {
		(void)close(fd);
	}
}

int doctor_kvd_find(struct kvctl *kvctl, struct doctor_facts *facts)
{
	struct doctor_kvd *kvd = &facts->kvd;
	int code = kvctl_connect_quietly(kvctl);
	facts->process.uid = DOCTOR_UNKNOWN;
	if (code == KVCTL_USAGE) { // said, if it is an option
		return kvctl->open_text[0] ? kvctl_error(code, "%s", kvctl->open_text) : code;
	}
	if (code != KVCTL_OK) {
		(void)snprintf(kvd->why, sizeof kvd->why, "%s", kvctl->open_text);
		return KVCTL_OK;
	}
	kvd->reached = kvd_stats(kvctl, kvd);
	if (kvd->reached) {
		kvd_process(kvctl->socket_path, &facts->process);
		kvd_memory(kvctl, kvd);
		kvd_options(kvctl, facts);
		kvd_readers(kvctl, kvd);
		kvd_clients(kvctl, facts);
	}
	return KVCTL_OK;
}

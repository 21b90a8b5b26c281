// SPDX-License-Identifier: MIT
//
// kvctl's verbs about kvd itself: stats, clients, ping, flush.
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/jsonl.h"
#include "tools/kvctl.h"
#include "tools/output.h"
#include "tools/units.h"

#define CMD_SERVER_NAME_BYTES 256u
#define CMD_SERVER_FIELDS_MAX 64u // of one line of CLIENT LIST
#define CMD_SERVER_DEPTH_MAX 8u
#define CMD_SERVER_EXACT_MAX 9007199254740992.0 // whole numbers a double holds

// ---- stats --------------------------------------------------------------------------------------

static const struct {
	const char *name;
	const char *help;
} cmd_server_counter[] = {
#define X(name, kind, help) { #name, help },
#include "shm/counters.tbl.h"
#undef X
};

static const char *cmd_server_counter_help(const char *name)
{
	const char *dot = strrchr(name, '.');
	const char *last = dot ? dot + 1 : name;
	for (size_t i = 0; i < sizeof cmd_server_counter / sizeof cmd_server_counter[0]; i++) {
		if (strcmp(cmd_server_counter[i].name, last) == 0) {
			return cmd_server_counter[i].help;
		}
	}
	return "";
}

static void cmd_server_scalar(const cJSON *node, char *out, size_t out_bytes)
{
	double number = node->valuedouble;
	if (cJSON_IsString(node)) {
		snprintf(out, out_bytes, "%s", node->valuestring);
	} else if (!cJSON_IsNumber(node)) {
		snprintf(out, out_bytes, "%s",
			 cJSON_IsTrue(node)    ? "true"
			 : cJSON_IsFalse(node) ? "false"
					       : "null");
	} else if (trunc(number) == number && fabs(number) < CMD_SERVER_EXACT_MAX) {
		snprintf(out, out_bytes, "%.0f", number);
	} else {
		snprintf(out, out_bytes, "%.6g", number);
	}
}

// Of the counters, whose names no other statistic has, the first part may be left out.
static bool cmd_server_matches(const char *pattern, const char *name)
{
	static const char counters[] = "counters.";
	size_t bytes = sizeof counters - 1;
	return fnmatch(pattern, name, 0) == 0 ||
	       (strncmp(name, counters, bytes) == 0 && fnmatch(pattern, name + bytes, 0) == 0);
}

// Nested members become one row each, their names joined by dots.
static bool cmd_server_flatten(struct output_table *table, const cJSON *node, const char *prefix,
			       const char *pattern, unsigned depth)
{
	unsigned index = 0;
	for (const cJSON *child = node->child; child; child = child->next, index++) {
		char name[CMD_SERVER_NAME_BYTES], value[CMD_SERVER_NAME_BYTES];
		const char *dot = *prefix ? "." : "";
		if (child->string) {
			snprintf(name, sizeof name, "%s%s%s", prefix, dot, child->string);
		} else {
			snprintf(name, sizeof name, "%s%s%u", prefix, dot, index);
		}
		if (cJSON_IsObject(child) || cJSON_IsArray(child)) {
			if (depth < CMD_SERVER_DEPTH_MAX &&
			    !cmd_server_flatten(table, child, name, pattern, depth + 1)) {
				return false;
			}
			continue;
		}
		if (pattern && !cmd_server_matches(pattern, name)) {
			continue;
		}
		cmd_server_scalar(child, value, sizeof value);
		if (!output_table_row(
			    table,
			    (const char *const[]){ name, value, cmd_server_counter_help(name) })) {
			return false;
		}
	}
	return true;
}

// Asks for JSON and prints it, or a row for each of its members.
static int cmd_server_json(struct kvctl *kvctl, const char *command, const char *pattern)
{
	const struct kvc_reply *reply;
	int code = kvctl_connect(kvctl);
	if (code == KVCTL_OK) {
		code = kvctl_command(kvctl, &reply, 1, &command);
	}
	if (code != KVCTL_OK) {
		return code;
	}
	cJSON *root = NULL;
	if (reply->type == KVC_REPLY_STRING) {
		root = cJSON_ParseWithLength(reply->text, reply->text_bytes);
	}
	if (!root) {
		return kvctl_error(KVCTL_UNREACHABLE, "%s: the reply is not JSON", command);
	}
	if (kvctl->json) {
		printf("%.*s\n", (int)reply->text_bytes, reply->text);
	} else {
		struct output_table table;
		output_table_begin(&table, stdout, kvctl->terminal, kvctl->terminal ? 3 : 2);
		if (!cmd_server_flatten(&table, root, "", pattern, 0)) {
			code = kvctl_error(KVCTL_NO, "out of memory");
		}
		output_table_end(&table);
	}
	cJSON_Delete(root);
	return code;
}

int cmd_server_stats(struct kvctl *kvctl)
{
	const char *pattern = kvctl->options.argument[0];
	if (kvctl->json && pattern) {
		return kvctl_error(KVCTL_USAGE, "stats: a pattern does not go with --json");
	}
	return cmd_server_json(kvctl, "KVD.STATS", pattern);
}

int cmd_server_memory(struct kvctl *kvctl)
{
	return cmd_server_json(kvctl, "KVD.MEMORY", NULL);
}

// ---- clients ------------------------------------------------------------------------------------

struct cmd_server_field {
	const char *name;
	const char *value;
};

// Splits one line "id=3 name=x …" in place. Returns the number of fields.
static size_t cmd_server_fields(char *line, struct cmd_server_field *field)
{
	size_t count = 0;
	char *place = NULL;
	for (char *word = strtok_r(line, " ", &place); word && count < CMD_SERVER_FIELDS_MAX;
	     word = strtok_r(NULL, " ", &place)) {
		char *equals = strchr(word, '=');
		if (equals) {
			*equals = '\0';
			field[count++] = (struct cmd_server_field){ word, equals + 1 };
		}
	}
	return count;
}

static const char *cmd_server_field(const struct cmd_server_field *field, size_t count,
				    const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(field[i].name, name) == 0) {
			return field[i].value;
		}
	}
	return NULL;
}

static void cmd_server_client_json(const struct cmd_server_field *field, size_t count)
{
	putchar('{');
	for (size_t i = 0; i < count; i++) {
		if (i > 0) {
			putchar(',');
		}
		jsonl_write_string(stdout, field[i].name, strlen(field[i].name));
		putchar(':');
		jsonl_write_string(stdout, field[i].value, strlen(field[i].value));
	}
	puts("}");
}

// What people look for in a list of clients, as far as this kvd tells it.
static size_t cmd_server_columns(const struct cmd_server_field *field, size_t count,
				 const char **column)
{
	static const char *const wanted[] = { "id",   "pid",	  "uid",   "name", "age",  "idle",
					      "maps", "attached", "flags", "db",   "omem", "cmd" };
	size_t columns = 0;
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
		if (columns < OUTPUT_COLUMNS_MAX && cmd_server_field(field, count, wanted[i])) {
			column[columns++] = wanted[i];
		}
	}
	return columns;
}

static bool cmd_server_clients_print(const struct kvctl *kvctl, char *text)
{
	struct cmd_server_field field[CMD_SERVER_FIELDS_MAX];
	const char *column[OUTPUT_COLUMNS_MAX], *cell[OUTPUT_COLUMNS_MAX];
	size_t columns = 0;
	struct output_table table = { 0 };
	bool good = true;
	char *place = NULL;
	for (char *line = strtok_r(text, "\r\n", &place); line && good;
	     line = strtok_r(NULL, "\r\n", &place)) {
		size_t count = cmd_server_fields(line, field);
		if (kvctl->json) {
			cmd_server_client_json(field, count);
			continue;
		}
		if (columns == 0) {
			columns = cmd_server_columns(field, count, column);
			if (columns == 0) {
				continue;
			}
			output_table_begin(&table, stdout, kvctl->terminal, columns);
			good = output_table_row(&table, column);
		}
		for (size_t i = 0; i < columns; i++) {
			const char *value = cmd_server_field(field, count, column[i]);
			cell[i] = value ? value : "";
		}
		good = good && output_table_row(&table, cell);
	}
	output_table_end(&table);
	return good;
}

int cmd_server_clients(struct kvctl *kvctl)
{
	const struct kvc_reply *reply;
	int code = kvctl_connect(kvctl);
	if (code == KVCTL_OK) {
		code = kvctl_command(kvctl, &reply, 2, (const char *const[]){ "CLIENT", "LIST" });
	}
	if (code != KVCTL_OK) {
		return code;
	}
	if (reply->type != KVC_REPLY_STRING) {
		return kvctl_error(KVCTL_UNREACHABLE, "CLIENT LIST: the reply is not one of kvd");
	}
	char *text = strndup(reply->text, reply->text_bytes);
	if (!text || !cmd_server_clients_print(kvctl, text)) {
		code = kvctl_error(KVCTL_NO, "out of memory");
	}
	free(text);
	return code;
}

// ---- ping, flush --------------------------------------------------------------------------------

int cmd_server_ping(struct kvctl *kvctl)
{
	const struct kvc_reply *reply;
	char text[32];
	int code = kvctl_connect(kvctl);
	double start = kvctl_seconds();
	if (code == KVCTL_OK) {
		code = kvctl_command(kvctl, &reply, 1, (const char *const[]){ "PING" });
	}
	if (code != KVCTL_OK) {
		return code;
	}
	double seconds = kvctl_seconds() - start;
	units_duration(text, sizeof text, seconds);
	if (reply->type != KVC_REPLY_STATUS || strcmp(reply->text, "PONG") != 0) {
		return kvctl_error(KVCTL_UNREACHABLE, "PING: the reply is not one of kvd");
	}
	if (kvctl->json) {
		printf("{\"ok\":true,\"seconds\":%.6f}\n", seconds);
	} else if (!kvctl->quiet) {
		printf("PONG %s\n", text);
	}
	return KVCTL_OK;
}

// Asks on the terminal. KVCTL_OK if it may be done.
static int cmd_server_sure(struct kvctl *kvctl)
{
	const struct kvc_reply *reply;
	char answer[16] = "";
	if (kvctl->options.value[OPTION_yes]) {
		return KVCTL_OK;
	}
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
		return kvctl_error(KVCTL_USAGE, "flush removes every key: say --yes");
	}
	int code = kvctl_command(kvctl, &reply, 1, (const char *const[]){ "DBSIZE" });
	if (code != KVCTL_OK) {
		return code;
	}
	fprintf(stderr, "Remove all %" PRId64 " keys of kvd at %s? [y/N] ", reply->integer,
		kvctl->socket_path);
	if (!fgets(answer, sizeof answer, stdin) || (answer[0] != 'y' && answer[0] != 'Y')) {
		return kvctl_remark(kvctl, KVCTL_NO, "nothing was removed");
	}
	return KVCTL_OK;
}

int cmd_server_flush(struct kvctl *kvctl)
{
	const struct kvc_reply *reply;
	int code = kvctl_connect(kvctl);
	if (code == KVCTL_OK) {
		code = cmd_server_sure(kvctl);
	}
	if (code == KVCTL_OK) {
		kvctl->writes = true;
		code = kvctl_command(kvctl, &reply, 1, (const char *const[]){ "FLUSHALL" });
	}
	if (code == KVCTL_OK && kvctl->json) {
		puts("{\"flushed\":true}");
	}
	return code;
}

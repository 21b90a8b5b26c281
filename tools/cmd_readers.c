// SPDX-License-Identifier: MIT
//
// kvctl readers: who reads the shared region, who keeps kvd from using memory again, and an end to
// that.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/jsonl.h"
#include "tools/kvctl.h"
#include "tools/output.h"

#define CMD_READERS_NUMBER_BYTES 24u

static const char *const cmd_readers_column[] = {
	"pid",	"uid",		 "name",  "state",   "age_us",	       "held_bytes",
	"open", "epochs_behind", "pages", "revoked", "short_deadline", "id",
};

#define CMD_READERS_COLUMNS (sizeof cmd_readers_column / sizeof cmd_readers_column[0])

static void cmd_readers_json(const struct kvc_reply *row)
{
	const char *comma = "{";
	for (size_t i = 0; i < CMD_READERS_COLUMNS; i++) {
		const struct kvc_reply *field = kvctl_field(row, cmd_readers_column[i]);
		if (!field) {
			continue; // of a kvd that does not tell it
		}
		printf("%s\"%s\":", comma, cmd_readers_column[i]);
		if (field->type == KVC_REPLY_STRING) {
			jsonl_write_string(stdout, field->text, field->text_bytes);
		} else if (strcmp(cmd_readers_column[i], "short_deadline") == 0) {
			printf("%s", field->integer ? "true" : "false");
		} else {
			printf("%" PRId64, field->integer);
		}
		comma = ",";
	}
	puts("}");
}

static bool cmd_readers_row(struct output_table *table, const struct kvc_reply *row)
{
	char number[CMD_READERS_COLUMNS][CMD_READERS_NUMBER_BYTES];
	const char *cell[CMD_READERS_COLUMNS];
	for (size_t i = 0; i < CMD_READERS_COLUMNS; i++) {
		const struct kvc_reply *field = kvctl_field(row, cmd_readers_column[i]);
		if (field && field->type == KVC_REPLY_STRING) {
			cell[i] = field->text;
			continue;
		}
		snprintf(number[i], sizeof number[i], "%" PRId64, field ? field->integer : 0);
		cell[i] = number[i];
	}
	return output_table_row(table, cell);
}

static int cmd_readers_list(struct kvctl *kvctl)
{
	const struct kvc_reply *reply;
	struct output_table table = { 0 };
	bool good = true;
	int code = kvctl_command(kvctl, &reply, 1, (const char *const[]){ "KVD.READERS" });
	if (code != KVCTL_OK) {
		return code;
	}
	const struct kvc_reply *rows = kvctl_field(reply, "readers");
	if (!rows || rows->type != KVC_REPLY_ARRAY) {
		return kvctl_error(KVCTL_UNREACHABLE, "KVD.READERS: the reply is not one of kvd");
	}
	if (!kvctl->json) {
		output_table_begin(&table, stdout, kvctl->terminal, CMD_READERS_COLUMNS);
		good = output_table_row(&table, cmd_readers_column);
	}
	for (size_t i = 0; good && i < rows->count; i++) {
		if (kvctl->json) {
			cmd_readers_json(&rows->element[i]);
		} else {
			good = cmd_readers_row(&table, &rows->element[i]);
		}
	}
	if (!kvctl->json) {
		output_table_end(&table);
	}
	return good ? KVCTL_OK : kvctl_error(KVCTL_NO, "out of memory");
}

static int cmd_readers_kick(struct kvctl *kvctl, const char *who)
{
	const struct kvc_reply *reply;
	bool by_id = strncmp(who, "id:", 3) == 0;
	const char *number = by_id ? who + 3 : who;
	if (*number == '\0' || strspn(number, "0123456789") != strlen(number)) {
		return kvctl_error(KVCTL_USAGE,
				   "readers kick '%s': a pid, or id:N with an id that "
				   "'kvctl readers' shows",
				   who);
	}
	const char *const argv[] = { "KVD.READERS", "KICK", by_id ? "ID" : "PID", number };
	int code = kvctl_command(kvctl, &reply, 4, argv);
	if (code != KVCTL_OK) {
		return code;
	}
	if (reply->type != KVC_REPLY_ARRAY || reply->count != 2) {
		return kvctl_error(KVCTL_UNREACHABLE, "KVD.READERS: the reply is not one of kvd");
	}
	int64_t kicked = reply->element[0].integer, revoked = reply->element[1].integer;
	if (kvctl->json) {
		printf("{\"kicked\":%" PRId64 ",\"revoked\":%" PRId64 "}\n", kicked, revoked);
	}
	if (kicked == 0) {
		return kvctl_remark(kvctl, KVCTL_NO, "readers kick %s: no such reader is attached",
				    who);
	}
	if (!kvctl->json && !kvctl->quiet) {
		printf("%" PRId64 " detached, %" PRId64 " open views taken back\n", kicked,
		       revoked);
	}
	return KVCTL_OK;
}

int cmd_readers(struct kvctl *kvctl)
{
	const char *verb = kvctl->options.argument[0];
	const char *who = verb ? kvctl->options.argument[1] : NULL;
	if (verb && (strcmp(verb, "kick") != 0 || !who)) {
		return kvctl_error(KVCTL_USAGE, "readers: either nothing, or 'kick' and whom");
	}
	int code = kvctl_connect(kvctl);
	if (code != KVCTL_OK) {
		return code;
	}
	return who ? cmd_readers_kick(kvctl, who) : cmd_readers_list(kvctl);
}

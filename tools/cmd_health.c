// SPDX-License-Identifier: MIT
//
// kvctl health: one word and an exit status, for whoever watches kvd. What kvd says of its store
// decides; that it answers at all is the other half.
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "tools/jsonl.h"
#include "tools/kvctl.h"

static const struct {
	const char *state; // as KVD.STATS tells it
	const char *word;
	int code;
} cmd_health_states[] = {
	{ "ok", "OK", KVCTL_OK },
	{ "degraded", "DEGRADED", KVCTL_NO },
	{ "failed", "FAILED", KVCTL_CORRUPT },
};
#define CMD_HEALTH_STATES (sizeof cmd_health_states / sizeof cmd_health_states[0])

static const char *cmd_health_text(const cJSON *root, const char *name)
{
	const cJSON *node = cJSON_GetObjectItemCaseSensitive(root, name);
	return cJSON_IsString(node) ? node->valuestring : NULL;
}

static double cmd_health_number(const cJSON *root, const char *name)
{
	const cJSON *node = cJSON_GetObjectItemCaseSensitive(root, name);
	return cJSON_IsNumber(node) ? node->valuedouble : 0;
}

static int cmd_health_print(const struct kvctl *kvctl, const cJSON *root)
{
	const char *state = cmd_health_text(root, "state");
	const char *why = cmd_health_text(root, "why");
	size_t i = 0;
	while (i < CMD_HEALTH_STATES &&
	       (!state || strcmp(state, cmd_health_states[i].state) != 0)) {
		i++;
	}
	if (i == CMD_HEALTH_STATES) {
		return kvctl_error(KVCTL_UNREACHABLE, "KVD.STATS: the reply tells no known state");
	}
	double behind =
		cmd_health_number(root, "applied_seq") - cmd_health_number(root, "durable_seq");
	if (kvctl->json) {
		printf("{\"state\":\"%s\",\"undurable\":%.0f", state, behind > 0 ? behind : 0);
		if (why) {
			printf(",\"why\":");
			jsonl_write_string(stdout, why, strlen(why));
		}
		puts("}");
	} else if (!kvctl->quiet) {
		printf("%s%s%s\n", cmd_health_states[i].word, why ? ": " : "", why ? why : "");
	}
	return cmd_health_states[i].code;
}

int cmd_health(struct kvctl *kvctl)
{
	const struct kvc_reply *reply;
	cJSON *root = NULL;
	int code = kvctl_connect(kvctl);
	if (code == KVCTL_OK) {
		code = kvctl_command(kvctl, &reply, 1, (const char *const[]){ "KVD.STATS" });
	}
	if (code != KVCTL_OK) {
		return code;
	}
	if (reply->type == KVC_REPLY_STRING) {
		root = cJSON_ParseWithLength(reply->text, reply->text_bytes);
	}
	if (!root) {
		return kvctl_error(KVCTL_UNREACHABLE, "KVD.STATS: the reply is not JSON");
	}
	code = cmd_health_print(kvctl, root);
	cJSON_Delete(root);
	return code;
}

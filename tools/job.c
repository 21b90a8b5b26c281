// SPDX-License-Identifier: MIT
//
// Asking is what keeps a job alive: kvd gives one up for which nobody asks any more, so a kvctl
// that is killed leaves none behind.
#include "tools/job.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "tools/kvctl.h"
#include "tools/progress.h"

#define JOB_ASK_EVERY_MS 20
#define JOB_ASK_SELDOM_MS 200

static volatile sig_atomic_t job_signal;

static void job_on_signal(int number)
{
	job_signal = number;
}

bool job_watch_signals(void)
{
	struct sigaction action = { .sa_handler = job_on_signal, .sa_flags = (int)SA_RESETHAND };
	(void)signal(SIGXFSZ, SIG_IGN); // a file size limit is an error of a write, not the end
	if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0) {
		(void)kvctl_error(0, "cannot handle signals: %s", strerror(errno));
		return false;
	}
	return true;
}

bool job_interrupted(void)
{
	return job_signal != 0;
}

double job_number(const cJSON *object, const char *name)
{
	const cJSON *member = cJSON_GetObjectItem(object, name);
	return cJSON_IsNumber(member) ? cJSON_GetNumberValue(member) : 0;
}

// How it is doing; the caller deletes it. NULL after saying the error, with *code.
static cJSON *job_ask(struct kvctl *kvctl, const char *command, int *code)
{
	const struct kvc_reply *reply;
	cJSON *told = NULL;
	*code = kvctl_command(kvctl, &reply, 2, (const char *const[]){ command, "STATUS" });
	if (*code == KVCTL_OK && reply->type == KVC_REPLY_STRING) {
		told = cJSON_ParseWithLength(reply->text, reply->text_bytes);
	}
	if (*code == KVCTL_OK && !told) {
		*code = kvctl_error(KVCTL_UNREACHABLE, "%s: the reply is not JSON", command);
	}
	return told;
}

// What it came to.
static int job_over(const char *command, const char *state, cJSON *told, cJSON **result)
{
	const char *error = cJSON_GetStringValue(cJSON_GetObjectItem(told, "error"));
	if (strcmp(state, "done") != 0) {
		return kvctl_error(KVCTL_NO, "%s: %s", command,
				   error ? error : "kvd knows nothing of it: was it restarted?");
	}
	*result = cJSON_DetachItemFromObject(told, "result");
	return cJSON_IsObject(*result)
		       ? KVCTL_OK
		       : kvctl_error(KVCTL_UNREACHABLE, "%s: the reply is not kvd's", command);
}

static int job_wait(struct kvctl *kvctl, const char *command, cJSON **result)
{
	const struct kvc_reply *reply;
	struct progress progress;
	int code = KVCTL_OK;
	bool running = true;
	bool cancelled = false;
	progress_start(&progress, !kvctl->quiet, 0);
	for (unsigned asked = 0; running && code == KVCTL_OK; asked++) {
		struct timespec pause = {
			.tv_nsec = (asked < 50 ? JOB_ASK_EVERY_MS : JOB_ASK_SELDOM_MS) * 1000000L,
		};
		(void)nanosleep(&pause, NULL); // a signal may end it: the better
		// It is waited for all the same: nothing is left only when it has ended, and it may
		// have been done before.
		if (job_interrupted() && !cancelled) {
			cancelled = true;
			code = kvctl_command(kvctl, &reply, 2,
					     (const char *const[]){ command, "CANCEL" });
		}
		if (code != KVCTL_OK) {
			break;
		}
		cJSON *told = job_ask(kvctl, command, &code);
		const char *state = cJSON_GetStringValue(cJSON_GetObjectItem(told, "state"));
		running = state && strcmp(state, "running") == 0;
		if (running) {
			progress.total_bytes = (uint64_t)job_number(told, "total_bytes");
			progress_update(&progress, (uint64_t)job_number(told, "done_bytes"), 0);
		} else if (told) {
			code = cancelled && (!state || strcmp(state, "done") != 0)
				       ? kvctl_error(KVCTL_NO, "interrupted: nothing was kept")
				       : job_over(command, state ? state : "", told, result);
		}
		cJSON_Delete(told);
	}
	(void)progress_stop(&progress);
	return code;
}

int job_run(struct kvctl *kvctl, const char *command, const char *name, cJSON **result)
{
	const struct kvc_reply *reply;
	*result = NULL;
	if (!job_watch_signals()) {
		return KVCTL_NO;
	}
	int code = kvctl_connect(kvctl);
	if (code == KVCTL_OK) {
		code = kvctl_command(kvctl, &reply, name ? 3 : 2,
				     (const char *const[]){ command, "START", name });
	}
	if (code == KVCTL_OK) {
		code = job_wait(kvctl, command, result);
	}
	if (code != KVCTL_OK) {
		cJSON_Delete(*result);
		*result = NULL;
	}
	return code;
}

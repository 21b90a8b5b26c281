// SPDX-License-Identifier: MIT
//
// KVD.BACKUP and KVD.VERIFY: begin, ask, cancel. What they write and read is all there is, and
// takes disk and processor time: so they need the right to administer.
#include "daemon/commands.h"

#include <ctype.h>
#include <string.h>

#include "daemon/job.h"
#include "daemon/text.h"

#define JOB_TOLD_BYTES_MAX (2u << 20)

// A name that can be nothing but a file in one folder.
static bool take_name(struct call *call, char name[JOB_NAME_BYTES_MAX + 1])
{
	const struct resp_arg *arg = &call->argv[2];
	bool good = arg->bytes > 0 && arg->bytes <= JOB_NAME_BYTES_MAX && arg->data[0] != '.';
	for (size_t i = 0; good && i < arg->bytes; i++) {
		good = isalnum((unsigned char)arg->data[i]) ||
		       memchr("._-+", arg->data[i], 4) != NULL;
	}
	if (good && arg->bytes > 4 && memcmp(arg->data + arg->bytes - 4, ".new", 4) == 0) {
		good = false;
	}
	if (!good) {
		commands_errorf(call,
				"ERR a backup's name has 1 to %u letters, digits, '.', '_', "
				"'-' or '+', does not begin with '.', and does not end in "
				"'.new'",
				JOB_NAME_BYTES_MAX);
		return false;
	}
	memcpy(name, arg->data, arg->bytes);
	name[arg->bytes] = '\0';
	return true;
}

static void begin(struct call *call, enum job_kind kind)
{
	char name[JOB_NAME_BYTES_MAX + 1] = "";
	char why[512];
	if (call->argc == 3 && !take_name(call, name)) {
		return;
	}
	if (!jobs_begin(call->kvd->jobs, kind, name[0] != '\0' ? name : NULL, why, sizeof(why))) {
		commands_errorf(call, "ERR %s", why);
		return;
	}
	reply_ok(call->session);
}

static void run(struct call *call, enum job_kind kind)
{
	struct text text;
	bool named =
		kind == JOB_BACKUP && call->argc == 3 && commands_arg_is(&call->argv[1], "start");
	if (!call->kvd->jobs) {
		commands_error(call, "ERR this kvd has nothing to back up or verify");
	} else if (named || (call->argc == 2 && commands_arg_is(&call->argv[1], "start"))) {
		begin(call, kind);
	} else if (call->argc == 2 && commands_arg_is(&call->argv[1], "status")) {
		text_init(&text, JOB_TOLD_BYTES_MAX);
		jobs_tell(call->kvd->jobs, kind, &text);
		reply_bulk(call->session, text.data ? text.data : "{}", text.data ? text.bytes : 2);
		text_fini(&text);
	} else if (call->argc == 2 && commands_arg_is(&call->argv[1], "cancel")) {
		jobs_cancel(call->kvd->jobs, kind);
		reply_ok(call->session);
	} else {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
	}
}

void commands_job_backup(struct call *call)
{
	run(call, JOB_BACKUP);
}

void commands_job_verify(struct call *call)
{
	run(call, JOB_VERIFY);
}

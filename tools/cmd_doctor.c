// SPDX-License-Identifier: MIT
//
// kvctl doctor: everything that is known to go wrong around kvd is looked at once, and what is not
// as it should be comes with what to do about it. It changes nothing, and without kvd it tells what
// can be told.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/doctor.h"
#include "tools/jsonl.h"
#include "tools/kvctl.h"
#include "tools/output.h"

#define DOCTOR_DIR_DEFAULT "/var/lib/kvd"
#define DOCTOR_WALK_BYTES (INT64_C(32) << 30) // more pages are not walked: kvd might wait for it

// Where the data may be if nobody says so: beside the socket, or where they usually are.
static void doctor_guess_folder(const struct kvctl *kvctl, struct doctor_folder *folder)
{
	char lock[sizeof folder->path + 16];
	const char *slash = strrchr(kvctl->socket_path, '/');
	if (slash) {
		(void)snprintf(folder->path, sizeof folder->path, "%.*s",
			       (int)(slash - kvctl->socket_path), kvctl->socket_path);
		(void)snprintf(lock, sizeof lock, "%s/kvd.lock", folder->path);
		if (access(lock, F_OK) == 0) {
			return;
		}
	}
	(void)snprintf(folder->path, sizeof folder->path, "%s", DOCTOR_DIR_DEFAULT);
}

static int doctor_gather(struct kvctl *kvctl, struct doctor_facts *facts)
{
	const char *dir = kvctl->options.argument[0];
	if (dir && !*dir) {
		return kvctl_error(KVCTL_USAGE, "doctor '' is no folder");
	}
	(void)snprintf(facts->folder.path, sizeof facts->folder.path, "%s", dir ? dir : "");
	int code = doctor_kvd_find(kvctl, facts);
	if (code != KVCTL_OK) {
		return code;
	}
	if (!facts->folder.path[0]) {
		doctor_guess_folder(kvctl, &facts->folder);
	}
	doctor_machine_find("", &facts->machine);
	doctor_kernel_find(&facts->kernel);
	doctor_process_find("", &facts->process);
	doctor_folder_find("", &facts->folder);
	if (facts->kvd.file_bytes > DOCTOR_WALK_BYTES) {
		(void)snprintf(facts->process.region_why, sizeof facts->process.region_why,
			       "the region has so many pages that kvd might wait while they are "
			       "counted");
	} else if (facts->kvd.reached) {
		doctor_process_pages("", &facts->process);
	}
	if (kvctl->options.value[OPTION_no_measure]) {
		(void)snprintf(facts->measure.why, sizeof facts->measure.why, "--no-measure");
	} else {
		doctor_measure_reads(&facts->machine, &facts->measure);
	}
	return KVCTL_OK;
}

static void doctor_json_member(const char *name, const char *text, const char *before)
{
	printf("%s\"%s\":", before, name);
	jsonl_write_string(stdout, text, strlen(text));
}

static void doctor_print_json(const struct doctor_facts *facts,
			      const struct doctor_finding *findings, enum doctor_state worst)
{
	const struct doctor_measure *measure = &facts->measure;
	static const char *const pages[] = { [DOCTOR_HUGE_NONE] = "none",
					     [DOCTOR_HUGE_JOINED] = "joined",
					     [DOCTOR_HUGE_POOL] = "pool" };
	printf("{\"worst\":\"%s\",\"reached\":%s,\"checks\":[", doctor_state_name(worst),
	       facts->kvd.reached ? "true" : "false");
	for (size_t i = 0; i < doctor_checks_count; i++) {
		doctor_json_member("check", doctor_checks[i].name, i ? ",{" : "{");
		doctor_json_member("state", doctor_state_name(findings[i].state), ",");
		doctor_json_member("finding", findings[i].text, ",");
		if (findings[i].remedy[0]) {
			doctor_json_member("remedy", findings[i].remedy, ",");
		}
		putchar('}');
	}
	putchar(']');
	if (measure->done) {
		printf(",\"measured\":{\"huge_pages\":\"%s\",\"bytes\":%lld,\"small_ns\":%.1f",
		       pages[measure->huge], (long long)measure->bytes, measure->small_ns);
		if (measure->huge != DOCTOR_HUGE_NONE) {
			printf(",\"huge_ns\":%.1f,\"ratio\":%.2f", measure->huge_ns,
			       measure->ratio);
		}
		putchar('}');
	}
	puts("}");
}

// On a terminal the remedy stands below what it is for, in a pipe in a column of its own.
static bool doctor_row(struct output_table *table, const struct doctor_check *check,
		       const struct doctor_finding *finding)
{
	const char *const cell[] = { check->name, doctor_state_name(finding->state), finding->text,
				     finding->remedy };
	bool good = output_table_row(table, cell);
	if (good && table->aligned && finding->remedy[0]) {
		char text[sizeof finding->remedy + 8];
		(void)snprintf(text, sizeof text, "-> %s", finding->remedy);
		good = output_table_row(table, (const char *const[]){ "", "", text });
	}
	return good;
}

static int doctor_print_table(const struct kvctl *kvctl, const struct doctor_finding *findings)
{
	static const char *const head[] = { "check", "state", "finding", "remedy" };
	struct output_table table;
	output_table_begin(&table, stdout, kvctl->terminal, kvctl->terminal ? 3 : 4);
	bool good = output_table_row(&table, head);
	for (size_t i = 0; good && i < doctor_checks_count; i++) {
		if (!kvctl->quiet || findings[i].state >= DOCTOR_NOTE) {
			good = doctor_row(&table, &doctor_checks[i], &findings[i]);
		}
	}
	output_table_end(&table);
	return good ? KVCTL_OK : kvctl_error(KVCTL_NO, "out of memory");
}

int cmd_doctor(struct kvctl *kvctl)
{
	struct doctor_facts facts = { 0 };
	enum doctor_state worst = DOCTOR_OK;
	struct doctor_finding *findings = calloc(doctor_checks_count, sizeof *findings);
	int code = findings ? doctor_gather(kvctl, &facts) : kvctl_error(KVCTL_NO, "out of memory");
	for (size_t i = 0; code == KVCTL_OK && i < doctor_checks_count; i++) {
		doctor_checks[i].judge(&facts, &findings[i]);
		worst = findings[i].state > worst ? findings[i].state : worst;
	}
	if (code == KVCTL_OK && kvctl->json) {
		doctor_print_json(&facts, findings, worst);
	} else if (code == KVCTL_OK) {
		code = doctor_print_table(kvctl, findings);
	}
	free(findings);
	if (code != KVCTL_OK) {
		return code;
	}
	return worst == DOCTOR_DAMAGE	 ? KVCTL_CORRUPT
	       : !facts.kvd.reached	 ? KVCTL_UNREACHABLE
	       : worst == DOCTOR_WARNING ? KVCTL_NO
					 : KVCTL_OK;
}

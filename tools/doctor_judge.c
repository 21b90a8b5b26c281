// SPDX-License-Identifier: MIT
//
// What is made of what kvd says of itself, and of its folder; the machine is judged in
// doctor_judge_machine.c.
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tools/doctor_parts.h"
#include "tools/units.h"

#define DOCTOR_FULL_PERCENT 95	     // of the bound
#define DOCTOR_FRAGMENTED_PERCENT 60 // beyond what the cleaner leaves alone
#define DOCTOR_STUCK_US 1000000
#define DOCTOR_UNDURABLE_MAX 1000000

const struct doctor_check doctor_checks[] = {
#define X(function, name, help) { name, help, judge_##function },
#include "tools/doctor.tbl.h"
#undef X
};
const size_t doctor_checks_count = sizeof doctor_checks / sizeof doctor_checks[0];

const char *doctor_state_name(enum doctor_state state)
{
	static const char *const names[] = {
		[DOCTOR_OK] = "ok",	      [DOCTOR_SKIPPED] = "skipped", [DOCTOR_NOTE] = "note",
		[DOCTOR_WARNING] = "warning", [DOCTOR_DAMAGE] = "damage",
	};
	return names[state];
}

void doctor_say(struct doctor_finding *finding, enum doctor_state state, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	finding->state = state;
	(void)vsnprintf(finding->text, sizeof finding->text, format, args);
	va_end(args);
}

void doctor_advise(struct doctor_finding *finding, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)vsnprintf(finding->remedy, sizeof finding->remedy, format, args);
	va_end(args);
}

const char *doctor_size(int64_t bytes)
{
	static char text[4][32];
	static unsigned turn;
	char *out = text[turn++ % 4];
	units_size(out, sizeof text[0], (double)(bytes > 0 ? bytes : 0));
	return out;
}

bool doctor_is_down(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	if (!facts->kvd.reached) {
		doctor_say(finding, DOCTOR_SKIPPED, "kvd cannot be asked");
	}
	return !facts->kvd.reached;
}

bool doctor_is_among(const char *word, const char *const *words)
{
	while (*words && strcmp(word, *words) != 0) {
		words++;
	}
	return *words != NULL;
}

// What libkvclient says of a connection that fails ends with what to do: "no such socket. Start …".
static void say_unreachable(const char *why, struct doctor_finding *finding)
{
	const char *end = strstr(why, ". ");
	int bytes = end ? (int)(end - why) : (int)strlen(why);
	doctor_say(finding, DOCTOR_WARNING, "%.*s", bytes, why);
	doctor_advise(finding, "%s",
		      end ? end + 2 : "say where kvd is: --socket PATH, or KVD_SOCKET");
}

void judge_kvd(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	if (facts->kvd.reached && facts->process.pid > 0) {
		doctor_say(finding, DOCTOR_OK, "kvd serves, process %" PRId64, facts->process.pid);
	} else if (facts->kvd.reached) {
		doctor_say(finding, DOCTOR_OK, "kvd serves, in another pid namespace");
	} else {
		say_unreachable(facts->kvd.why, finding);
		if (facts->folder.locked_by > 0) {
			doctor_advise(finding,
				      "process %" PRId64 " has the lock of %s: it is starting (its "
				      "log says how far it is), or has another socket",
				      facts->folder.locked_by, facts->folder.path);
		}
	}
}

void judge_store(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_kvd *kvd = &facts->kvd;
	const struct doctor_folder *folder = &facts->folder;
	if (doctor_is_down(facts, finding)) {
		if (folder->present && folder->store_bytes > 0) {
			doctor_say(finding, DOCTOR_SKIPPED,
				   "kvd cannot be asked; %s in the store of %s",
				   doctor_size(folder->store_bytes), folder->path);
			doctor_advise(finding, "kvctl verify %s reads it without kvd",
				      folder->path);
		}
	} else if (strcmp(kvd->policy, "memory") == 0) {
		doctor_say(finding, DOCTOR_OK, "nothing is kept on disk (persist memory)");
	} else if (strcmp(kvd->state, "failed") == 0) {
		doctor_say(finding, DOCTOR_DAMAGE, "the store is FAILED: %s", kvd->state_why);
		doctor_advise(finding, "kvd writes another from memory by itself, if there is room;"
				       " kvctl backup saves all until then; see kvd's log");
	} else if (strcmp(kvd->state, "ok") != 0) {
		doctor_say(finding, DOCTOR_WARNING, "the store is %s: %s", kvd->state,
			   kvd->state_why);
		doctor_advise(finding, "make room on the disk, or look after the device (dmesg)");
	} else if (kvd->undurable > DOCTOR_UNDURABLE_MAX) {
		doctor_say(finding, DOCTOR_WARNING, "%" PRId64 " versions wait for their commit",
			   kvd->undurable);
		doctor_advise(finding, "the disk does not keep up with what is written: a faster "
				       "one, or fewer writes");
	} else {
		doctor_say(finding, DOCTOR_OK, "persist %s, %s in the store, %s of it current",
			   kvd->policy, doctor_size(kvd->store_bytes),
			   doctor_size(kvd->store_live_bytes));
	}
}

void judge_damage(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_kvd *kvd = &facts->kvd;
	if (doctor_is_down(facts, finding)) {
		return;
	}
	if (kvd->damage_met + kvd->recovered_lost + kvd->verify_damaged > 0) {
		doctor_say(finding, DOCTOR_DAMAGE,
			   "since kvd started: %" PRId64 " damaged places found by verifying, "
			   "%" PRId64 " in passing, %" PRId64 " keys lost at the start",
			   kvd->verify_damaged, kvd->damage_met, kvd->recovered_lost);
		doctor_advise(finding, "kvctl verify names what is damaged now, kvctl backup saves "
				       "the rest; have the machine's memory and disk tested");
	} else {
		doctor_say(finding, DOCTOR_OK, "nothing damaged was met since kvd started");
	}
}

// Why the folder cannot be judged, if it cannot.
static bool folder_is_unknown(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_folder *folder = &facts->folder;
	if (!folder->present) {
		bool known = folder->path[0] != '\0';
		doctor_say(finding, DOCTOR_SKIPPED, "%s: %s",
			   known ? folder->path : "the data folder",
			   known ? folder->why : "not known");
		doctor_advise(finding, "kvctl doctor DIR, as a user who may look there");
	}
	return !folder->present;
}

void judge_disk(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	static const char *const passing[] = { "tmpfs", "ramfs", NULL };
	static const char *const remote[] = { "nfs", "cifs", "9p", "fuse", NULL };
	const struct doctor_folder *folder = &facts->folder;
	const struct doctor_kvd *kvd = &facts->kvd;
	bool keeps = !kvd->reached || strcmp(kvd->policy, "memory") != 0;
	if (folder_is_unknown(facts, finding)) {
		return;
	}
	if (keeps && doctor_is_among(folder->type, passing)) {
		doctor_say(finding, DOCTOR_WARNING, "%s is on %s: all of it goes with the machine",
			   folder->path, folder->type);
		doctor_advise(finding, "--dir on a disk, or --persist memory if nothing is to "
				       "last");
	} else if (keeps && doctor_is_among(folder->type, remote)) {
		doctor_say(finding, DOCTOR_WARNING,
			   "%s is on %s, whose locks and syncs are not those of a disk",
			   folder->path, folder->type);
		doctor_advise(finding, "--dir on a local disk");
	} else if (keeps && folder->free_bytes < folder->store_bytes) {
		doctor_say(finding, DOCTOR_WARNING,
			   "%s has %s free, and the store %s: one that fails could not be written "
			   "anew",
			   folder->path, doctor_size(folder->free_bytes),
			   doctor_size(folder->store_bytes));
		doctor_advise(finding, "make room on that disk");
	} else {
		doctor_say(finding, DOCTOR_OK, "%s on %s, %s free", folder->path, folder->type,
			   doctor_size(folder->free_bytes));
	}
}

void judge_former(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_folder *folder = &facts->folder;
	if (folder_is_unknown(facts, finding)) {
		return;
	}
	if (folder->former > 0) {
		doctor_say(finding, DOCTOR_NOTE, "%s has %" PRId64 " former store%s, %s",
			   folder->path, folder->former, folder->former > 1 ? "s" : "",
			   folder->former_name);
		doctor_advise(finding, "nothing reads them: remove them when nobody wants them any "
				       "more");
	} else {
		doctor_say(finding, DOCTOR_OK, "%s has no former stores", folder->path);
	}
}

// KVD.MEMORY may not have been answered, or not by a kvd that knows it.
static bool memory_is_unknown(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	bool unknown = doctor_is_down(facts, finding);
	if (!unknown && facts->kvd.bound_bytes <= 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "kvd does not tell how its memory is used");
		unknown = true;
	}
	return unknown;
}

void judge_memory(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_kvd *kvd = &facts->kvd;
	if (memory_is_unknown(facts, finding)) {
		return;
	}
	// What is kept back for the cleaner and for removals is in use by nobody.
	bool full = kvd->used_bytes >= kvd->bound_bytes / 100 * DOCTOR_FULL_PERCENT ||
		    strncmp(kvd->in_the_way, "memory", 6) == 0;
	bool waits = kvd->in_the_way[0] && strcmp(kvd->in_the_way, "nothing") != 0;
	bool bad = full && !kvd->evicts;
	// Longer than it takes to empty segments, that is.
	bool falls = kvd->wanted_bytes > 0 && kvd->wanted_bytes < kvd->bound_bytes &&
		     strncmp(kvd->bound_waits_for, "segments", 8) != 0;
	if (falls) {
		doctor_say(finding, DOCTOR_WARNING,
			   "%s of %s in use; the bound is to be %s, and is not yet: %s",
			   doctor_size(kvd->used_bytes), doctor_size(kvd->bound_bytes),
			   doctor_size(kvd->wanted_bytes), kvd->bound_waits_for);
		doctor_advise(finding,
			      "kvctl readers names who stands in the way, kvctl health the "
			      "store; or CONFIG SET maxmemory higher, or remove keys");
		return;
	}
	doctor_say(finding, bad ? DOCTOR_WARNING : DOCTOR_OK, "%s of %s in use%s%s",
		   doctor_size(kvd->used_bytes), doctor_size(kvd->bound_bytes),
		   waits ? "; in the way of more: " : "", waits ? kvd->in_the_way : "");
	if (bad) {
		doctor_advise(finding, "CONFIG SET maxmemory higher, or CONFIG SET when-full "
				       "evict; or remove keys, or let them expire");
	}
}

void judge_fragmentation(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_kvd *kvd = &facts->kvd;
	if (memory_is_unknown(facts, finding)) {
		return;
	}
	bool high = kvd->fragmentation_percent > DOCTOR_FRAGMENTED_PERCENT &&
		    kvd->used_bytes > kvd->bound_bytes / 2;
	doctor_say(finding, high ? DOCTOR_WARNING : DOCTOR_OK,
		   "%.1f %% of what segments hold is dead, or ends too short to use",
		   kvd->fragmentation_percent);
	if (high) {
		doctor_advise(finding, "see what keeps the cleaner from it: kvctl memory "
				       "(in_the_way), kvctl readers");
	}
}

void judge_holes(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_kvd *kvd = &facts->kvd;
	if (doctor_is_down(facts, finding)) {
		return;
	}
	int64_t strays = kvd->exact ? kvd->file_bytes - kvd->expected_bytes : 0;
	if (kvd->file_bytes <= 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "what the region's file has is not known");
	} else if (strays > 0) {
		doctor_say(finding, DOCTOR_NOTE,
			   "the region's file has %s more than is counted: a process reads where "
			   "nothing is, or a life before left them",
			   doctor_size(strays));
		doctor_advise(finding, "kvd gives them back by itself; if they come again, "
				       "allow-attach says who may map the region");
	} else {
		doctor_say(finding, DOCTOR_OK, "the region's file has %s, all of it counted",
			   doctor_size(kvd->file_bytes));
	}
}

void judge_readers(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_kvd *kvd = &facts->kvd;
	char age[32];
	if (doctor_is_down(facts, finding)) {
		return;
	}
	if (kvd->readers_why[0]) {
		doctor_say(finding, DOCTOR_SKIPPED, "%s", kvd->readers_why);
		return;
	}
	if (kvd->stuck_pid == 0 || kvd->stuck_age_us < DOCTOR_STUCK_US) {
		doctor_say(finding, DOCTOR_OK, "no reader keeps memory for longer than a second");
		return;
	}
	units_duration(age, sizeof age, (double)kvd->stuck_age_us / 1e6);
	doctor_say(finding, DOCTOR_WARNING,
		   "process %" PRId64 " (%s) has had a view open for %s and keeps %s from being "
		   "used again",
		   kvd->stuck_pid, kvd->stuck_name, age, doctor_size(kvd->stuck_held_bytes));
	doctor_advise(finding,
		      "end or mend it; kvctl readers kick %" PRId64 " takes its views back now",
		      kvd->stuck_pid);
}

void judge_uid(const struct doctor_facts *facts, struct doctor_finding *finding)
{
	const struct doctor_kvd *kvd = &facts->kvd;
	int64_t uid = facts->process.uid;
	if (doctor_is_down(facts, finding)) {
		return;
	}
	if (uid < 0) {
		doctor_say(finding, DOCTOR_SKIPPED, "the user of kvd's process is not known");
	} else if (uid == 0) {
		doctor_say(finding, DOCTOR_NOTE, "kvd runs as root");
		doctor_advise(finding, "run it as a user of its own (User=kvd in the unit)");
	} else if (kvd->own_uid_clients > 0) {
		doctor_say(finding, DOCTOR_WARNING,
			   "%" PRId64 " clients have kvd's own uid %" PRId64 ", process %" PRId64
			   " among them: they could write its memory past all checks",
			   kvd->own_uid_clients, uid, kvd->own_uid_pid);
		doctor_advise(finding, "run kvd as a user that nothing else has (User=kvd in the "
				       "unit)");
	} else {
		doctor_say(finding, DOCTOR_OK, "kvd has uid %" PRId64 ", and no client has it",
			   uid);
	}
}

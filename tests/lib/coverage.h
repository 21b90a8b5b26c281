// SPDX-License-Identifier: MIT
//
// Read into every file of a build that counts branches (./check --coverage), before all else. The
// runtime writes the counts at exit() alone; here a child that leaves by _exit() writes them, too,
// and so does who dies at a crash point of its own, or is killed by a test: by a signal that has
// nothing to say elsewhere, and ends it as hard once the counts are written.
#pragma once

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define COVERAGE_KILL (SIGRTMAX - 1) // tests/lib/kvdtest.py knows it

void __gcov_dump(void);
__attribute__((weak)) void faults_rest(void); // tests/crash/faults.c: nothing fails any more

static void coverage_rest(void)
{
	if (faults_rest != NULL) {
		faults_rest(); // the runtime knows no failures
	}
}

__attribute__((noreturn)) static inline void coverage_exit(int status)
{
	coverage_rest();
	__gcov_dump();
	_exit(status);
}

static inline int coverage_kill(pid_t pid, int number)
{
	if (pid == getpid() && number == SIGKILL) {
		coverage_rest();
		__gcov_dump();
	}
	return kill(pid, number);
}

static inline void coverage_die(int number)
{
	(void)number;
	(void)coverage_kill(getpid(), SIGKILL);
}

__attribute__((constructor)) static void coverage_listen(void)
{
	struct sigaction action = { .sa_handler = coverage_die };
	(void)sigaction(COVERAGE_KILL, &action, NULL);
	if (faults_rest != NULL) {
		(void)atexit(coverage_rest); // before the runtime writes
	}
}

#define _exit(status) coverage_exit(status)
#define kill(pid, number) coverage_kill(pid, number)

// SPDX-License-Identifier: MIT
//
// A membarrier() that fails when a test says so. The program is linked with --wrap=syscall; every
// other call goes through. Where the kernel has none a fence does: these tests have one thread.
#pragma once

#include <errno.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/syscall.h>

static unsigned membarrier_failures; // so many coming calls fail
static unsigned membarrier_calls;

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

long __wrap_syscall(long number, ...)
{
	long argument[6];
	va_list list;
	va_start(list, number);
	for (unsigned i = 0; i < 6; i++) {
		argument[i] = va_arg(list, long);
	}
	va_end(list);
	bool barrier = number == SYS_membarrier && argument[0] != MEMBARRIER_CMD_QUERY;
	membarrier_calls += barrier;
	if (barrier && membarrier_failures > 0) {
		membarrier_failures--;
		errno = EPERM;
		return -1;
	}
	long result = __real_syscall(number, argument[0], argument[1], argument[2], argument[3],
				     argument[4], argument[5]);
	if (barrier && result != 0) {
		__atomic_thread_fence(__ATOMIC_SEQ_CST); // good enough where the kernel has none
		return 0;
	}
	return result;
}

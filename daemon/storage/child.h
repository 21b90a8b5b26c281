// SPDX-License-Identifier: MIT
//
// This program again, as a child that looks at a store: without region, lock or sockets, so that a
// crash in it is just an answer.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/// Starts `kvd arguments[1] …` with these two as standard input and output and no other descriptor
/// but standard error. 0 or errno. The caller waits for *pid.
int child_start(char *const arguments[], int input_fd, int output_fd, pid_t *pid);

/// Did what the child read end it? `status` as from waitpid(). False for a signal that comes from
/// outside, as the kernel's when memory is out: it says nothing about the store.
bool child_crashed(int status);

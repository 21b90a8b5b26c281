// SPDX-License-Identifier: MIT
//
// posix_spawn() and not fork(): the parent may have gigabytes mapped and threads that hold locks.
#include "daemon/storage/child.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/self.h"

extern char **environ;

int child_start(char *const arguments[], int input_fd, int output_fd, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	char path[PATH_MAX];
	if (posix_spawn_file_actions_init(&actions) != 0) {
		return ENOMEM;
	}
	int rc = posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
	if (rc == 0 && input_fd != STDIN_FILENO) {
		rc = posix_spawn_file_actions_adddup2(&actions, input_fd, STDIN_FILENO);
	}
	if (rc == 0) {
		rc = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	}
	if (rc == 0) {
		rc = posix_spawn(pid, self_program(path, sizeof(path)), &actions, NULL, arguments,
				 environ);
	}
	(void)posix_spawn_file_actions_destroy(&actions);
	return rc;
}

bool child_crashed(int status)
{
	// The last: its own limit of processor time, for a reader that goes round in circles.
	static const int crashes[] = { SIGSEGV, SIGBUS,	 SIGABRT, SIGFPE,
				       SIGILL,	SIGTRAP, SIGXCPU };
	for (size_t i = 0; WIFSIGNALED(status) && i < sizeof(crashes) / sizeof(crashes[0]); i++) {
		if (WTERMSIG(status) == crashes[i]) {
			return true;
		}
	}
	return false;
}

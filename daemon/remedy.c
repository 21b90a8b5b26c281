// SPDX-License-Identifier: MIT
//
// The limits are named as a shell and as systemd call them.
#include "daemon/remedy.h"

#include <errno.h>
#include <stddef.h>
#include <sysexits.h>

const char *remedy_of_errno(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return "let kvd's user read and write it";
	case EROFS:
		return "mount its file system for writing";
	case ENOSPC:
		return "make room on that disk";
	case EDQUOT:
		return "raise that quota, or make room within it";
	case EFBIG:
		return "raise the limit on file sizes (ulimit -f, LimitFSIZE=)";
	case EMFILE:
		return "raise the limit on open files (ulimit -n, LimitNOFILE=)";
	case ENFILE:
		return "raise the system's limit on open files (sysctl fs.file-max)";
	case ENOMEM:
		return "free memory, or raise the limit on address space (ulimit -v, LimitAS=)";
	case EAGAIN:
		return "raise the limit on processes and threads (ulimit -u, TasksMax=)";
	case ENOTDIR:
	case EISDIR:
	case EEXIST:
	case ELOOP:
		return "move away what stands in its place";
	case ENOENT:
		return "create the folder above it";
	case ENAMETOOLONG:
		return "choose a shorter path";
	case EIO:
		return "the device reports errors: check it (dmesg)";
	default:
		return "look into the system's log (dmesg)";
	}
}

bool remedy_is_lasting(int exit_code)
{
	static const int lasting[] = { EX_USAGE,    EX_DATAERR,	 EX_NOINPUT, EX_NOUSER, EX_NOHOST,
				       EX_CANTCREAT, EX_PROTOCOL, EX_NOPERM,  EX_CONFIG };
	for (size_t i = 0; i < sizeof(lasting) / sizeof(lasting[0]); i++) {
		if (exit_code == lasting[i]) {
			return true;
		}
	}
	return false;
}

int remedy_exit_code(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
	case EROFS:
		return EX_NOPERM;
	case ENOSPC:
	case EDQUOT:
	case EIO:
		return EX_IOERR;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return EX_OSERR;
	default:
		return EX_CANTCREAT;
	}
}

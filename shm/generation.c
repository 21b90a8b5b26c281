// SPDX-License-Identifier: MIT
//
// One call: kvd writes the record by one, too, so what is read is one record or, on a file system
// that lets both happen at once, a mixture that names no region.
#include "shm/generation.h"

#include <errno.h>
#include <unistd.h>

bool kvs_generation_read(int fd, struct kvs_generation *out)
{
	ssize_t got;
	errno = 0;
	do {
		got = pread(fd, out, sizeof(*out), 0);
	} while (got < 0 && errno == EINTR); // unreached: a file does not interrupt
	return got == (ssize_t)sizeof(*out);
}

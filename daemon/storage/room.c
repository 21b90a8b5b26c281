// SPDX-License-Identifier: MIT
//
// A file without a name is written to, which the kernel has room for or not, and closed before any
// of it can have come to the device: it waits there for more than that.
#include "daemon/storage/room.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

#define ROOM_PIECE_BYTES (64u << 10)

static bool is_want_of_room(int error)
{
	return error == ENOSPC || error == EDQUOT;
}

// 0 or errno.
static int fill(int fd)
{
	static const char zeroes[ROOM_PIECE_BYTES];
	for (size_t bytes = 0; bytes < ROOM_BYTES;) {
		ssize_t n = write(fd, zeroes, sizeof(zeroes));
		if (n <= 0 && errno != EINTR) {
			return n < 0 ? errno : ENOSPC;
		}
		bytes += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int room_refused(const char *folder)
{
	int fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	int error = fd < 0 ? errno : fill(fd);
	if (fd >= 0) {
		(void)close(fd);
	}
	return is_want_of_room(error) ? error : 0;
}

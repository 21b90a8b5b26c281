// SPDX-License-Identifier: MIT
//
// The listener from inside, for listener*.c alone: its two doors.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "daemon/loop.h"
#include "shm/limits.h"

struct session_shared;

/// A socket file and who waits at it.
struct listener_door {
	struct loop_source source; // fd -1 = closed
	struct listener *listener;
	bool is_open;	   // in the loop
	bool is_waited_at; // somebody came in this turn
	dev_t device;	   // of the socket file, so that only our own is removed
	ino_t inode;
	char path[KVS_SOCKET_PATH_BYTES_MAX + 1];
};

struct listener {
	struct kvd *kvd;
	struct session_shared *sessions;
	struct listener_door doors[2]; // socket, socket-also
	struct loop_timer pause;       // nothing can be accepted now: try again later
	int reserve_fd;
};
#define LISTENER_DOORS 2

/// Writes `text` (printf form). Returns -error.
int listener_fail(int error, char *text, size_t text_bytes, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/// Where the first door is, from the configuration. Returns 0, or -errno with `text` filled.
int listener_door_set_path(struct listener_door *door, char *text, size_t text_bytes);

/// Binds, listens, joins the loop. Returns 0, or -errno and perhaps `text`; then close it.
int listener_door_bind(struct listener_door *door, char *text, size_t text_bytes);

/// Opens the second door. kvd serves without it too; then whoever relies on it has to know.
void listener_door_open_also(struct listener_door *door);

/// Binds it anew if its file is gone.
void listener_door_reopen(struct listener_door *door);

/// Nothing if it is closed. Of socket files only our own is removed.
void listener_door_close(struct listener_door *door);

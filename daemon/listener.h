// SPDX-License-Identifier: MIT
//
// The door: binds kvd's Unix socket, accepts within bounds, and hands connections to sessions.
// Whoever is refused gets an error that says why.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct kvd;
struct listener;
struct session_shared;

/// Binds and listens at kvd->config.socket_path (when empty: config.dir "/kvd.sock") and joins
/// the loop. A socket file nobody answers at is replaced; one that answers is another kvd. Uses
/// kvd->loop, kvd->config and kvd->seam; sessions use the rest once clients come, so call it last
/// and set kvd->listener from *out before the loop runs. Returns 0, or -errno with one line in
/// `error` that names the path and the remedy. kvd->config.socket_also_path, if there is one, is a
/// second door: its folder is made if only that is missing, and what keeps it shut is a warning.
int listener_open(struct listener **out, struct kvd *kvd, char *error, size_t error_bytes);

/// The folder of a door was removed and made anew: what has no socket file any more gets one. If it
/// cannot be, that is logged.
void listener_reopen(struct listener *listener);

/// Stops accepting and removes the socket file; sessions stay. First step of a stop.
void listener_shut(struct listener *listener);

/// Last step of a stop, after persist_stop(): answers what was held (by what is durable then),
/// sends what the sockets take, closes all sessions and frees. The loop must not run again. NULL
/// is fine.
void listener_close(struct listener *listener);

/// The sessions behind it.
struct session_shared *listener_sessions(const struct listener *listener);
/// Where it listens, and where else; NULL if nowhere else.
const char *listener_path(const struct listener *listener);
const char *listener_path_also(const struct listener *listener);

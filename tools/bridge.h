// SPDX-License-Identifier: MIT
//
// The pairs of `kvctl bridge`: a TCP client and its connection to kvd, and the bytes between them.
// What either side does to its connection (end of what it sends, close, reset) is done to the other
// one after the bytes before it. Descriptors and credentials do not pass.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Bytes that may wait for a side that does not read. Then the other one is not read either.
#define BRIDGE_WAITING_BYTES_MAX 65536u

struct bridge_pair;

/// Who carries the bytes: every pair of one epoll descriptor. One thread.
struct bridge {
	int epoll_fd;
	unsigned connections;
	struct bridge_pair *pairs; // all of them
	struct bridge_pair *again; // those that used up their turn with more to do
	struct bridge_pair *ended; // closed; their memory goes when no event can name them any more
	char buffer[BRIDGE_WAITING_BYTES_MAX];
};

/// Takes both non-blocking descriptors and begins to carry. False if there is no memory, or epoll
/// refuses: both are closed then. Events of a pair name it in their data.ptr.
bool bridge_open(struct bridge *bridge, int client_fd, int kvd_fd);

/// Carries what can be carried now, in a bounded turn: something happened to one of its ends.
void bridge_serve(struct bridge *bridge, struct bridge_pair *pair);

/// Gives those that had more to do another turn, and frees those that ended. Returns whether some
/// have still more to do: the next wait must not block.
bool bridge_turn(struct bridge *bridge);

/// Closes every pair, without what waits in them.
void bridge_close(struct bridge *bridge);

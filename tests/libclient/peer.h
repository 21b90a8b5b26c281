// SPDX-License-Identifier: MIT
//
// The other end of a connection, moved by the test itself and byte by byte: no thread, so that what
// an asynchronous handle does between two bytes can be looked at, and every order repeated. It
// keeps a few numbers instead of a store, and remembers what it has run.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libclient/kvclient.h"
#include "shm/resp.h"

#define PEER_ALL SIZE_MAX
#define PEER_RAN_MAX 65536

struct peer {
	char dir[64];
	char path[100];
	int listener; // -1 = nobody listens
	int fd;	      // the connection, -1 = none
	char *in;
	size_t in_bytes, in_capacity;
	char *out;
	size_t out_start, out_bytes, out_capacity;
	struct resp_request_state state;
	struct resp_request request;
	size_t got; // bytes of requests so far, on all connections
	unsigned accepted;
	uint64_t seq;
	int64_t sum;
	bool multi;
	size_t queued;
	unsigned char ran[PEER_RAN_MAX]; // how often a request that carried #N was run
	size_t runs;			 // requests run in all
	char last[256];			 // words of the last one
	char prefixes[16384];		 // asked for on this connection, each between blanks
	const char *error;		 // answer to everything instead
};

void peer_start(struct peer *peer);
void peer_stop(struct peer *peer);
void peer_listen(struct peer *peer, bool on);
/// Takes the connection that waits, if one does.
bool peer_accept(struct peer *peer);
void peer_hang_up(struct peer *peer);

/// Reads at most `bytes`, runs what is complete. Returns how many there were.
size_t peer_read(struct peer *peer, size_t bytes);
/// Writes at most `bytes` of the replies. Returns how many went.
size_t peer_write(struct peer *peer, size_t bytes);
/// Replies that wait to be written.
size_t peer_owes(const struct peer *peer);
/// Adds to what is to be written.
__attribute__((format(printf, 2, 3))) void peer_say(struct peer *peer, const char *format, ...);

/// An asynchronous handle on the peer, not connected yet; bails out if it cannot be had.
kvc_async *peer_open(struct peer *peer, const struct kvc_async_options *options);
/// True if the handle's descriptor asks for a dispatch now.
bool peer_is_due(kvc_async *async);
/// Dispatches until the descriptor is quiet. Returns how often.
unsigned peer_turn(kvc_async *async);
/// Both ends until nothing moves any more.
void peer_settle(struct peer *peer, kvc_async *async);

/// What a completion was called with.
struct peer_seen {
	unsigned calls;
	int status;
};
extern unsigned peer_calls; // of peer_see() in this process
/// A completion whose `user` is a struct peer_seen.
void peer_see(kvc_async *async, void *user, const struct kvc_result *result);
/// Submits a set of the key #N to `bytes` zeroes, at most PEER_SET_BYTES.
#define PEER_SET_BYTES 300000u
int peer_set(kvc_async *async, unsigned number, size_t bytes, kvc_done done, void *user,
	     uint64_t *id);

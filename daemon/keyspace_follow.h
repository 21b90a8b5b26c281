// SPDX-License-Identifier: MIT
//
// A second follower of the log, for a while, beside the persister or without one: a backup. What it
// has not passed is neither cleaned nor freed, as with what is not durable. It never makes a writer
// wait for long: when what it holds back is a quarter of the memory it is asked to give up.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/log.h"

struct keyspace;

struct keyspace_follower {
	uint64_t passed_seq; // written by the follower, release; UINT64_MAX: it needs nothing more
	uint64_t give_up;    // written by the loop, relaxed: stop as soon as you can
};

/// From now on nothing behind the present end of the log goes before the follower has passed it.
/// *from gets that end, *seq the last version before it. False if there is a follower already.
/// Call with: the follower zeroed. Thread must: be the loop's. Orders: nothing, the thread that
/// follows is started later.
bool keyspace_follow(struct keyspace *keyspace, struct keyspace_follower *follower,
		     struct kvs_log_position *from, uint64_t *seq);

/// It is over, whatever it said. NULL-safe in that nothing happens if there is none.
/// Call with: its thread not reading the log any more. Thread must: be the loop's.
void keyspace_unfollow(struct keyspace *keyspace);

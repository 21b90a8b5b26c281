// SPDX-License-Identifier: MIT
//
// Sessions without a database: a loop, real sessions over socket pairs, a clock that only moves
// when told to, and a dispatcher with a handful of commands that write nothing but a sequence
// number. Commands of the stub (case-sensitive): PING, ECHO x, BIG n (a bulk of n bytes), SET k v
// (a write), SLOW (takes 100 µs), LONG (takes 20 ms), PARK (a write that needs memory), SYNC, QUIT,
// FDS (sends three descriptors), REF n (a bulk of n bytes that can be pinned), WREF n (the same by
// a write), CUT n (an array of n integers, each in a turn of its own), WCUT n (the same by a write
// that needs memory), ATTACH [PAGE] (if kvd.readers is set).
#pragma once

#include "daemon/kvd.h"
#include "daemon/pubsub.h"
#include "daemon/session.h"

struct stub {
	uint64_t now_ns;  // the clock
	uint64_t step_ns; // by which it moves with every look at it
	uint64_t last_seq;
	struct keyspace_written written;
	uint64_t durable_seq;
	uint64_t failed_seq;
	uint64_t requested_seq; // last persist_request()
	unsigned notices;
	bool memory_short; // PARK parks
	bool room_is_back; // and those that were parked are asked again
	unsigned parks;	   // how often it was asked while memory was short
	uint64_t commands; // dispatched and answered
	uint64_t ticks;	   // looks at the wall clock
	uint64_t pins;	   // of stub_large
	uint64_t orphaned; // what each of them keeps, 0 = nothing
	uint64_t cuts;	   // CUT stopped so often
	uint64_t states;   // that CUT and WCUT keep now
	unsigned long epoll_calls;
	int epoll_timeout_ms; // of the last call
	struct kvd kvd;
	struct session_shared *sessions;
};

extern struct stub stub;

/// A large value that can be pinned; its bytes are made by stub_start().
#define STUB_LARGE_BYTES 3000000u
extern unsigned char stub_large[STUB_LARGE_BYTES];

/// Loop and sessions, no listener. `policy` is the server's.
void stub_start(enum persist_policy policy);
void stub_stop(void);

/// A connected client: returns its end of a socket pair (non-blocking), *session is the other.
int stub_connect(struct session **session);
/// Turns of the loop without waiting, until nothing is left to do at once (at most 100000).
void stub_turns(void);
/// Sends all of it, with turns when the socket is full.
void stub_send(int fd, const void *data, size_t bytes);
void stub_send_text(int fd, const char *text);
/// Reads what is there after stub_turns(), up to `bytes`. Returns how much; *ended = EOF or reset.
size_t stub_receive(int fd, char *out, size_t bytes, bool *ended);
/// Receives and compares with `text`; shows both when they differ.
bool stub_expect(int fd, const char *text);
/// True if the connection ended and nothing was left to read.
bool stub_ended(int fd);
/// Sends a message to all who get it, in one go. Returns how many.
size_t stub_publish(enum pubsub_kind kind, const char *channel, const char *message, size_t bytes);
uint64_t stub_counter(int counter); // enum kvs_counter

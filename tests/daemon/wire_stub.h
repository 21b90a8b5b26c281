// SPDX-License-Identifier: MIT
//
// Sessions without a database: a loop, real sessions over socket pairs, a clock that only moves
// when told to, and a dispatcher with a handful of commands that write nothing but a sequence
// number. Commands of the stub (case-sensitive): PING, ECHO x, BIG n (a bulk of n bytes), SET k v
// and MSET k v k v (writes), SLOW (takes 100 µs), LONG (takes 20 ms), PARK (a write that needs
// memory), SYNC, QUIT, FDS (sends three descriptors), REF n (a bulk of n bytes that can be pinned),
// WREF n (the same by a write), CUT n (an array of n integers, each in a turn of its own), WCUT n
// (the same by a write that needs memory), ATTACH [PAGE] (if kvd.readers is set), COLD k k … (the
// values of these keys, of which wire_stub_cold.c has none) and WCOLD (the same by a write that
// needs memory then).
#pragma once

#include "daemon/command.h"
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
	enum command_outcome set_outcome; // what SET and MSET answer instead of being done
	uint32_t set_crc; // of the values of the last one that was
	bool set_arrived; // the first of them stood in stub_arrived
	bool intakes; // large values of SET and MSET are received in stub_arrived
	int intake_result; // unless this is not KEYSPACE_OK
	bool machine_full; // it has no pages for them
	unsigned intakes_asked;
	unsigned intakes_open;
	unsigned long epoll_calls;
	int epoll_timeout_ms; // of the last call
	struct kvd kvd;
	struct session_shared *sessions;
};

extern struct stub stub;

/// A large value that can be pinned; its bytes are made by stub_start().
#define STUB_LARGE_BYTES 3000000u
extern unsigned char stub_large[STUB_LARGE_BYTES];

/// Where a large value is received, one at a time, if stub.intakes; those of more bytes than the
/// first are large ones, and so many at most are received at a time.
#define STUB_INTAKE_LEAST 50000u
#define STUB_INTAKE_STEP 10000u
extern unsigned char stub_arrived[STUB_LARGE_BYTES];
/// COLD and WCOLD.
enum command_outcome stub_cold(struct session *session, const struct resp_arg *argv, uint32_t argc);
/// SET and MSET.
enum command_outcome stub_set(struct session *session, const struct resp_arg *argv, uint32_t argc);

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

// SPDX-License-Identifier: MIT
//
// A history: what clients asked of kvd, when, and what they were answered. The clients write it
// into a file that they share (tests/history/clients.c), so that what a killed one had asked is
// there too; the checker (check.h) looks for what no kvd that keeps its word can have answered.
#pragma once

#include <stdint.h>

#define HISTORY_MARKER UINT64_C(0x31302d7473696864)
#define HISTORY_CLIENTS_MAX 64u
#define HISTORY_EVENTS_MAX 8192u // of one client

// Keys by number. Counters are only incremented; the keys of a family are only ever written
// together, in one batch that gives all of them the same value.
#define HISTORY_REGISTERS 24u
#define HISTORY_COUNTERS 6u
#define HISTORY_FAMILIES 4u
#define HISTORY_FAMILY_KEYS 4u
#define HISTORY_COUNTER_FIRST HISTORY_REGISTERS
#define HISTORY_FAMILY_FIRST (HISTORY_REGISTERS + HISTORY_COUNTERS)
#define HISTORY_KEYS (HISTORY_FAMILY_FIRST + HISTORY_FAMILIES * HISTORY_FAMILY_KEYS)

enum history_kind {
	HISTORY_SET = 1,
	HISTORY_DELETE,
	HISTORY_INCREMENT,    // by one; the value is the result
	HISTORY_SWAP,	      // set if the version is `expected`
	HISTORY_BATCH_SET,    // one of those with the same group
	HISTORY_BATCH_DELETE, // told nothing of whether it was there
	HISTORY_READ,
	HISTORY_SNAPSHOT, // one of several reads with the same group, of one moment
	HISTORY_SYNC,
	HISTORY_CRASH,	   // kvd died after begin, without its region, and served again before end
	HISTORY_RECOVERED, // what a key was after the crash whose number is the group
};

enum history_result {
	HISTORY_OPEN = 0, // not answered, or with an error that leaves it open
	HISTORY_OK,
	HISTORY_ABSENT,
	HISTORY_NOT_APPLIED,
	HISTORY_FAILED, // it certainly did nothing, or read nothing
	HISTORY_BROKEN, // what it read was never written
};

enum history_policy { HISTORY_MEMORY, HISTORY_LAZY, HISTORY_GROUP, HISTORY_EACH };

struct history_event {
	uint64_t begin_ns; // monotonic clock
	uint64_t end_ns;   // 0 = never answered
	uint64_t version;  // as answered, 0 = not told
	uint64_t value;	   // written or read: a number of its own for each write but of counters
	uint64_t expected;
	uint32_t group;
	uint32_t client;
	uint16_t key;
	uint8_t kind;
	uint8_t result;
	uint32_t reserved;
};
_Static_assert(sizeof(struct history_event) == 56, "no padding");

struct history_file {
	uint64_t marker;
	uint64_t seed;
	uint32_t policy;
	uint32_t clients_count;
	// Shared words of the clients while they run:
	uint32_t stop;
	uint32_t gate; // writers wait while it is set
	uint32_t parked[HISTORY_CLIENTS_MAX];
	uint32_t events_count[HISTORY_CLIENTS_MAX];
	struct history_event events[HISTORY_CLIENTS_MAX][HISTORY_EVENTS_MAX];
};

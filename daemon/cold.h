// SPDX-License-Identifier: MIT
//
// Values on their way from the store: what a command asks for that is in the store alone is read by
// a few threads beside the persister, and kept in buffers until all who wait for it have it. Many
// that want one version share one reading. What a command wants it gets all together, or it waits
// in line and holds nothing: so buffers have a bound, and nobody waits for somebody who waits.
//
//	          cold_wait_begin()                 read
//	 WANTED ────────────────────► LOADING ─────────────────► LOADED ──► answered, put back
//	   ▲     buffers have room       │  ▲
//	   │                             ▼  │ its new place, or the store is there again
//	   └─ held by nobody           AWAITED ──► FAILED: unreadable, or read-wait is over
//
// Everything but the reading itself belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/record.h"

struct cold;
struct cold_wait;
struct keyspace;
struct kvd;
struct parcel;
struct store;

/// Values that are read at once, by a thread each.
#define COLD_THREADS 4u

/// `ready` is called when all that `owner` waits for has come, or will not come.
typedef void cold_ready(void *owner);

/// Starts the threads; kvd has its keyspace, its loop and its persister. 0 or -errno.
int cold_start(struct cold **out, struct kvd *kvd, struct store *store, cold_ready *ready);
/// Ends them. Call with: no wait left, the store still open. NULL is fine.
void cold_stop(struct cold *cold);

/// The loop's part: takes what was read, and puts values back. For a fraction of a millisecond.
void cold_turn(struct cold *cold, uint64_t now_ns);
/// When that wants to be called next without an event: 0 = at once, UINT64_MAX = never.
uint64_t cold_next_ns(const struct cold *cold);

/// What one command wants, nothing at first. NULL if memory is short.
struct cold_wait *cold_wait_create(struct cold *cold, void *owner);
/// It is answered, or nobody is there any more: lets go of all that it has. NULL is fine.
void cold_wait_drop(struct cold_wait *wait);

/// The value of a stub, until cold_wait_drop(). NULL: it is one of those that are wanted now.
const void *cold_wait_value(struct cold_wait *wait, const struct kvs_record_view *stub);
/// What it gave last, if `at` points into that; else NULL.
struct parcel *cold_wait_parcel(const struct cold_wait *wait, const void *at);
/// Why something that was asked for since it last waited cannot be had, as an error reply; false:
/// all of it may come.
bool cold_wait_failed(const struct cold_wait *wait, char *text, size_t bytes);
/// `ready` is to be called when all is there, which may be at once.
void cold_wait_begin(struct cold_wait *wait);
/// Bytes of memory that the list of what is wanted takes.
size_t cold_wait_bytes(const struct cold_wait *wait);

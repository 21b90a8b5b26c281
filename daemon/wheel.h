// SPDX-License-Identifier: MIT
//
// A hierarchical timing wheel over wall time: which records end when, at eight bytes each. It knows
// places and times and nothing of records, so an item may be out of date; whoever takes one out
// asks the table. Six levels of 64 slots, the first of 64 ms a slot, the last of two years; what is
// beyond waits in a list. Each level says by one word which slots have something, so that the next
// event is found, and any jump forward made, in a bounded number of steps.
//
// An item is the record's place (offset / 8, 40 bits) and the lowest 24 bits of its time. Up to the
// fourth level all times of a slot share what is above, so items move down without a look at their
// record. Everything that takes long is a list of detached chunks, of which one at a time is taken:
// what is due, what has to be looked at, what has to be put further down.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/wheel_pool.h"

#define WHEEL_SLOT_SHIFT 6u // ms of a slot of the first level, as a power of two
#define WHEEL_DIGIT_BITS 6u
#define WHEEL_SLOTS (1u << WHEEL_DIGIT_BITS)
#define WHEEL_LEVELS 6u
#define WHEEL_LEVELS_KNOWN 4u // levels below it: the time of an item follows from its chunk
#define WHEEL_SPAN_SHIFT (WHEEL_SLOT_SHIFT + WHEEL_DIGIT_BITS * WHEEL_LEVELS)
#define WHEEL_TIME_BITS 24u
#define WHEEL_TIME_MASK ((UINT64_C(1) << WHEEL_TIME_BITS) - 1)
// Time that went back by no more than this is waited for; beyond that everything is put anew.
#define WHEEL_BACK_MS 1000u

/// Chunks one behind the other, by their numbers; 0 = none.
struct wheel_list {
	uint32_t first, last;
};

/// Lists of chunks that are no part of any slot any more, in the order they should be worked off.
enum wheel_work {
	WHEEL_SORT, // to be put where their time belongs, which is known: wheel_sort()
	WHEEL_DUE,  // their time has come, as far as the wheel knows
	WHEEL_LOOK, // whose time only the record tells, or that are to be looked through
	WHEEL_WORKS,
};

/// All zero = empty.
struct wheel {
	struct wheel_pool pool;
	uint64_t at_ms;			 // the start of a slot: no slot holds what is before
	uint64_t occupied[WHEEL_LEVELS]; // a bit for each slot
	struct wheel_list slots[WHEEL_LEVELS][WHEEL_SLOTS];
	struct wheel_list far;	 // beyond the last level
	struct wheel_list early; // before at_ms, and not due: wall time went back a little
	struct wheel_list works[WHEEL_WORKS];
	uint64_t items;	     // in all lists, out of date or not
	uint64_t sorted;     // ever put further down
	uint32_t sweep_next; // slot, counted through all levels, that a sweep takes next
};

static inline uint64_t wheel_item_place(uint64_t item)
{
	return item >> WHEEL_TIME_BITS;
}

/// May the item be of a record that ends then?
static inline bool wheel_item_agrees(uint64_t item, uint64_t time_ms)
{
	return ((item ^ time_ms) & WHEEL_TIME_MASK) == 0;
}

/// Adds an item; place below 2^40. False if there is no memory for it.
bool wheel_put(struct wheel *wheel, uint64_t place, uint64_t time_ms, uint64_t now_ms);

/// Detaches what is due by now. In a bounded number of steps, whatever time does: if it went back,
/// everything is detached and put anew from where it is now.
void wheel_advance(struct wheel *wheel, uint64_t now_ms);

/// When something is to be done next: 0 = now, UINT64_MAX = never.
uint64_t wheel_next_ms(const struct wheel *wheel);

/// Takes a chunk out of a list, NULL = it is empty. The caller gives it back by wheel_drop(), or by
/// wheel_put_back(): that is, the items from `from` on, to be taken first.
struct wheel_chunk *wheel_take(struct wheel *wheel, enum wheel_work work);
void wheel_drop(struct wheel *wheel, struct wheel_chunk *chunk);
void wheel_put_back(struct wheel *wheel, enum wheel_work work, struct wheel_chunk *chunk,
		    uint32_t from);
static inline bool wheel_has(const struct wheel *wheel, enum wheel_work work)
{
	return wheel->works[work].first != 0;
}

/// Puts a chunk's worth of what waits for that further down. False if there is no memory for it:
/// some items are lost then.
bool wheel_sort(struct wheel *wheel, uint64_t now_ms);

/// How late the first of what is due is, 0 = nothing is.
uint64_t wheel_lag_ms(const struct wheel *wheel, uint64_t now_ms);

/// A sweep: has the next slot that holds something looked through, in the end what stands in none,
/// with `due` what is due, too. False if that was the last.
bool wheel_sweep(struct wheel *wheel, bool due);

/// Each item in any list, out of date or not. Must not change the wheel.
void wheel_visit(const struct wheel *wheel, void (*visit)(void *context, uint64_t item),
		 void *context);

/// Forgets everything; the memory goes back by and by.
void wheel_clear(struct wheel *wheel, struct reclaim *reclaim);
/// The same at once.
void wheel_fini(struct wheel *wheel);

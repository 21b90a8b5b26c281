// SPDX-License-Identifier: MIT
//
// Bytes that many connections are sent, kept once: a large message stands here until the slowest of
// its receivers has read it. It is charged to each uid that has it once, however many of the uid's
// connections have yet to read it. Everything belongs to the loop's thread.
#pragma once

#include <stddef.h>

struct session_owner;
struct session_shared;

/// One uid's part in it.
struct parcel_share {
	struct parcel_share *next;
	struct session_owner *owner;
	size_t holders;
};

struct parcel {
	size_t references;
	size_t bytes;
	struct parcel_share *shares;
	char data[];
};

/// With one reference; NULL if memory is short. The bytes are the caller's to fill in.
struct parcel *parcel_create(size_t bytes);
/// Gives a reference up; with the last it is freed, a large one bit by bit. NULL is fine.
void parcel_release(struct session_shared *shared, struct parcel *parcel);

/// One more reference, for the uid `owner`, which is charged with its first one: whoever asks sees
/// to the room before. NULL if memory is short.
struct parcel_share *parcel_hold(struct session_shared *shared, struct parcel *parcel,
				 struct session_owner *owner);
/// Gives such a reference up; what the uid was charged goes with its last.
void parcel_let_go(struct session_shared *shared, struct parcel *parcel,
		   struct parcel_share *share);

// SPDX-License-Identifier: MIT
//
// Reading the whole log in order: how a restarted kvd gets its data back, and how the probe looks
// at every byte of a store that nobody has vouched for yet.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/storage/store.h"

struct store_walk {
	/// Gets every record in the order of the log. `value` points at the bytes of a LARGE
	/// record's value, else it is NULL; view and value hold until it returns. Anything but 0
	/// ends the walk.
	int (*record)(void *context, const struct kvs_record_view *view, const void *value,
		      uint64_t place);
	/// Now and then: bytes of blocks done, and of all. May be NULL.
	void (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
	void *context;
	bool check_records; // each record's own checksum too, not only that of its block
};

/// Walks the log of an open store. Returns STORE_OK, an enum store_error (store_why() tells), or
/// what the record callback returned.
///
/// What the callback must do with what it gets, so that compaction's rules hold (daemon/persist.h):
/// the highest seq of a key wins, at equal seq the later place; a tombstone wins like a value and
/// is remembered to the end; a FLUSH record removes every seq below its own, wherever it stands in
/// the log, and the newest becomes the header's flush_seq; a value that has expired is kept like
/// any other and expires later by a tombstone of its own.
/// Call with: no transaction open. Thread must: own the store.
int store_recover(struct store *store, const struct store_walk *walk);

// SPDX-License-Identifier: MIT
//
// Values that leave memory: a stub in a value's place, and the stub's place in the store when
// compaction has moved the record. None of it is a write: the key keeps its version, so nothing is
// logged, told or counted as a change, and whoever compares versions sees none. How they come back:
// keyspace_promote.h.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keyspace;
struct kvs_record_view;

enum keyspace_cold_result {
	KEYSPACE_COLD_DONE = 0,
	KEYSPACE_COLD_OTHER,	 // the key has not got what this is about
	KEYSPACE_COLD_UNDURABLE, // the version is not in the store yet
	KEYSPACE_COLD_UNPLACED,	 // where it stands there is not known any more
	KEYSPACE_COLD_SMALL,	 // a stub would take as much
	KEYSPACE_COLD_NO_ROOM,	 // for the copy
	KEYSPACE_COLD_MORE,	 // a part of the copy is made
};

/// Where the persister says up to which block of the store places mean nothing for sure, because
/// compaction judges what stands there, or has been through (persist_judged()). NULL = no store:
/// nothing can leave memory.
void keyspace_set_judged(struct keyspace *keyspace, const uint64_t *judged);

/// Leaves a stub of a key's value, which stays in the store. Readers of the value keep it for as
/// long as their sections last.
/// Call with: no batch open. Thread must: be the writer. Orders: the entry is store-released, then
/// a full fence; partner the persister's between its word and its search.
enum keyspace_cold_result keyspace_spill(struct keyspace *keyspace, const void *key,
					 size_t key_bytes);

/// The record of this version stands at `place` now: if it is current, whoever has to find it there
/// is told. OTHER: it is not.
/// Thread must: be the writer. Orders: nothing: others take the place for a hint.
enum keyspace_cold_result keyspace_move(struct keyspace *keyspace, const void *key,
					size_t key_bytes, uint64_t seq, uint64_t place);

/// Are values to leave memory, so that their places in the store have to be known, too
/// (persist_follow_values())?
bool keyspace_follows_places(struct keyspace *keyspace);
/// Is the store to be looked through for places (persist_want_places())? `known`: that is not under
/// way, and all that it found was told. Nothing leaves memory meanwhile.
bool keyspace_wants_places(struct keyspace *keyspace, bool known, uint64_t now_ns);
/// The store has failed: nothing leaves memory, which has what will be written to another.
void keyspace_halt_spill(struct keyspace *keyspace, bool halt);
/// Where the record of this version stands in the store. False: the key has not got its stub.
/// Thread must: be the writer. Orders: nothing, as above.
bool keyspace_stub_place(struct keyspace *keyspace, const void *key, size_t key_bytes, uint64_t seq,
			 uint64_t *place);

/// Keys whose value is in the store alone.
uint64_t keyspace_count_stubs(const struct keyspace *keyspace);
/// Those of them that do not know where: the life before was killed before it heard that compaction
/// had moved what they stand for.
uint64_t keyspace_stubs_astray(const struct keyspace *keyspace);
/// A stub is no longer current, or about to be told its place.
void keyspace_stub_leaves(struct keyspace *keyspace, const struct kvs_record_view *view);

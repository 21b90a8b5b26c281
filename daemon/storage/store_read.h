// SPDX-License-Identifier: MIT
//
// Reading single records by their place, beside the thread that owns the store: what a key whose
// value is only in the store needs. A place is a block's number and an offset. Blocks never change
// and their numbers are never used twice, in a store that is written anew neither, so a place means
// one record for ever; but compaction appends records anew and deletes the block, and then nothing
// stands there. Whoever keeps a place is told the new one (persist_next_move()).
//
// What is found is believed only if it is the record that was asked for: block and record have
// their checksums, and key and version are compared.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/storage/store.h"
#include "shm/record.h"

struct store_block;
struct store_reader;

/// Who reads beside the owner, by index: each is of one thread.
enum store_reader_use {
	STORE_READER_RENEWAL, // the owner itself, of the store that another one is to replace
	STORE_READER_JOB,     // a backup
	STORE_READER_LOADS,   // and all from there on: values that somebody waits for
};

/// Answers besides STORE_OK and enum store_error.
enum store_read_answer {
	STORE_READ_GONE = 1, // nothing stands there any more: the record has another place
	STORE_READ_SHUT = 2, // nothing can be read now: it failed, or another is being written
};

/// What is asked for.
struct store_wanted {
	uint64_t place;
	uint64_t seq;
	const void *key;
	uint32_t key_bytes;
	uint32_t value_bytes; // known, too: what bounds how much is read
};

/// A record that was found, in memory of its own.
struct store_record {
	unsigned char *bytes;	     // the caller frees
	struct kvs_record_view view; // into it
	const void *value;	     // value_bytes of it, wherever the record has them
};

/// One of the store's `readers`, `index` of them. Returns STORE_OK or STORE_NO_MEMORY.
/// Call with: an index that nobody else has. The reader goes before the store does.
int store_reader_open(struct store_reader **out, struct store *store, unsigned index);
void store_reader_close(struct store_reader *reader);

/// Reads one record. Returns STORE_OK with *record filled, an enum store_read_answer, or an enum
/// store_error, of which store_reader_why() tells more.
/// Call with: a place that was durable when it was learnt. Thread must: own the reader, not the
/// store. Orders: the store's lock.
int store_reader_read(struct store_reader *reader, const struct store_wanted *wanted,
		      struct store_record *record);

/// A whole block, in the reader's memory until its next call. Answers as store_reader_read().
int store_reader_block(struct store_reader *reader, uint64_t number,
		       const struct store_block **block);

/// Looks for a record whose place is not known any more in the store that another one is to
/// replace, newest block first, whatever else cannot be read there. Returns STORE_OK with
/// wanted->place, STORE_READ_GONE if it is not there, or an enum store_error.
/// Call with: store_renew_begin() done. Thread must: own reader and store. Orders: the store's
/// lock.
int store_reader_find(struct store_reader *reader, struct store_wanted *wanted);

/// What the last error was, in one line. Valid until the next call.
const char *store_reader_why(const struct store_reader *reader);

// SPDX-License-Identifier: MIT
//
// What a loader gets out of an input file, whatever its format: one key with its value, or one
// place in the input that is not a record and why. The parsers (jsonl, deb822) fill it; load and
// the reader check consume it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ITEM_ERROR_BYTES 200u

enum item_result {
	ITEM_READY,  // one record
	ITEM_BAD,    // something that is no record: item->error says what, parsing can go on
	ITEM_END,    // the input is used up
	ITEM_FAILED, // reading failed or memory is out: item->error says why, stop
};

/// One record. `key` and `value` are owned by the parser and good until its next call.
struct item {
	const char *key;
	size_t key_bytes;
	const char *value;
	size_t value_bytes;
	int64_t ttl_ms;		      // -1 = no expiry
	uint64_t line;		      // where it begins in the input, from 1
	char error[ITEM_ERROR_BYTES]; // for ITEM_BAD and ITEM_FAILED
};

// SPDX-License-Identifier: MIT
//
// Cold start: the store is probed by a child, opened, and read into the keyspace.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvd;
struct store;

/// Is there a store in the data folder?
bool service_store_exists(const char *dir);

/// The exit code of an enum store_error: damage is not the same as a full disk or a wrong owner.
int service_store_exit_code(int error);

/// Opens the store, and probes it before unless it `is_known` to be as a kvd left it that had
/// checked it and that nothing but its end has been heard of; what memory has then can be written
/// anew. `is_new`: there was none. Returns 0 with *store open, or an exit code with `why` filled.
/// With `is_known` *is_damaged may be set: *store is then fit only to be written anew, and
/// store_why() tells what is wrong with it.
int service_store_open(struct kvd *kvd, struct store **store, bool is_known, bool *is_new,
		       bool *is_damaged, char *why, size_t why_bytes);

/// Fills the keyspace from it; `had_lives`: it was there before it was opened; `noted_seq`: how far
/// versions came, as kvd.gen knows: if that is beyond what is in the store, a life has gone on that
/// could not tell the store; `heeds_stop`: a signal that asks kvd to stop ends this. Returns 0 or
/// an exit code with `why` filled.
int service_recover(struct kvd *kvd, struct store *store, bool had_lives, uint64_t noted_seq,
		    bool heeds_stop, char *why, size_t why_bytes);

// SPDX-License-Identifier: MIT
//
// The life of a store in one kvd: begun when kvd can serve, followed while it does, ended in order.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct kvd;
struct generation;
struct kvs_region;
struct service_adoption;
struct store;

/// Has this life a store?
bool service_persist_is_on(const struct kvd *kvd);

/// Begins a life: makes durable where its versions begin, then starts the persister. In the region
/// of the life before they go on without a gap: if that did not say that it ended, nothing is to be
/// said anew, so a disk that is full or fails cannot end the start; what is not durable of that
/// region is committed at once. If it did, and the disk is full, `generation` keeps that word until
/// a commit succeeds, which is tried from then on. If the store is damaged besides the persister
/// writes it anew, and until then nothing is durable. Returns 0, or an exit code with `why` filled.
/// Call with: nobody having seen a version of this life. Thread must: own the store; the persister
/// has it until service_persist_stop().
int service_persist_start(struct kvd *kvd, struct store *store, struct kvs_region *region,
			  struct generation *generation, const struct service_adoption *adoption,
			  char *why, size_t why_bytes);

/// Makes all durable and says in the store that this life ended in order: then the next one goes on
/// with the versions where this one stopped. Returns 0, or an exit code; what failed is logged.
int service_persist_stop(struct kvd *kvd, struct store *store);

/// What was said last of a store, 0 at first.
enum service_persist_said {
	SERVICE_STORE_GOOD,
	SERVICE_STORE_GROWS,
	SERVICE_STORE_UNWRITABLE,
	SERVICE_STORE_FAILED,
};

/// Says once that the store cannot be written, has failed, or is not compacted, and once that it is
/// good again.
void service_persist_watch(struct kvd *kvd, enum service_persist_said *said);

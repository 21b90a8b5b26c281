// SPDX-License-Identifier: MIT
//
// Starting warm: is there a region of the life before, and may this life go on with it?
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvd;
struct kvs_adopt;
struct kvs_generation;
struct kvs_region;
struct store;

/// What becomes of a kept region.
enum service_adoption_way {
	SERVICE_ADOPT_NOTHING,	// there is none, or it is of no use: a new region, and the store
	SERVICE_ADOPT_IN_PLACE, // this life goes on in it
	SERVICE_ADOPT_READ_OUT, // all that is in it goes into a new region
};

struct service_adoption {
	enum service_adoption_way way;
	bool was_given;	       // the keeper had something, of use or not
	bool store_is_damaged; // what is in it is not known, and it is written anew
	bool fill_store;       // the store is empty, or of before: all that is served goes into it
	bool leave_store;      // what stood in it was never in the region: it is put aside
	uint64_t lost;	       // keys and versions that could not be read
	const char *name;      // what the keeper calls it; NULL = it has none that is of use
	const char *why;       // it is read out and not taken over
};

/// Takes a kept region, if the keeper has one that can be used: of a layout that this kvd knows,
/// and the last that served from this folder, or this folder is new (`said` is what kvd.gen says
/// now). Sets kvd->instance_id. What is refused is closed, and the log says why. Returns 0, or
/// an exit code with `why` filled: then what was kept stays with the keeper for the next start. The
/// caller closes the region unless it is SERVICE_ADOPT_NOTHING.
int service_adopt_open(struct kvd *kvd, struct kvs_region *region,
		       const struct kvs_generation *said, struct service_adoption *adoption,
		       char *why, size_t why_bytes);

/// Looks at all of it. `plan` can be carried out, and nothing acknowledged is lost by it; or the
/// way becomes SERVICE_ADOPT_NOTHING: then what the region has and the store has not is in the
/// store now, as far as it could be read, and the log says why. `store` is NULL under the memory
/// policy; one that is damaged gets nothing. Returns 0, or an exit code with `why` filled: then
/// nothing has changed and the next start may try again. In any case kvs_adopt_fini() frees the
/// plan.
int service_adopt_look(struct kvd *kvd, struct kvs_region *region, struct store *store,
		       struct service_adoption *adoption, struct kvs_adopt *plan, char *why,
		       size_t why_bytes);

/// Hands the region to the keeper, for the next life; one that it had before goes only with
/// service_adopt_kept(), when kvd.gen says which of them serves.
void service_adopt_keep(struct kvd *kvd, const struct kvs_region *region,
			const struct service_adoption *adoption);
void service_adopt_kept(struct kvd *kvd, const struct service_adoption *adoption);

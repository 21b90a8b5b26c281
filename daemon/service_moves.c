// SPDX-License-Identifier: MIT
//
// Records that stand elsewhere in the store by now: whoever must find them there is told, some of
// them in each turn.
#include "daemon/service_moves.h"

#include "daemon/keyspace.h"
#include "daemon/keyspace_cold.h"
#include "daemon/kvd.h"
#include "daemon/persist.h"

#define MOVES_A_TURN 128u // a search each: some tens of microseconds

// What compaction moves is told of values, too, while some are to leave memory; and where they
// stand that it moved before, by a look at all of the store.
static void follow_values(const struct kvd *kvd, uint64_t now_ns)
{
	struct persist *persist = kvd->persist;
	const char *why;
	bool failed = persist_state(persist, &why) == PERSIST_STATE_FAILED ||
		      persist_uncompacted(persist);
	keyspace_halt_spill(kvd->keyspace, failed);
	persist_follow_values(persist, keyspace_follows_places(kvd->keyspace));
	bool known = persist_places_known(persist);
	if (!known && keyspace_stubs_astray(kvd->keyspace) == 0) {
		persist_places_enough(persist);
	}
	if (keyspace_wants_places(kvd->keyspace, known, now_ns)) {
		persist_want_places(persist);
	}
}

bool service_moves_turn(const struct kvd *kvd, uint64_t now_ns)
{
	struct persist_move move;
	follow_values(kvd, now_ns);
	for (unsigned i = 0; i < MOVES_A_TURN; i++) {
		if (!persist_next_move(kvd->persist, &move)) {
			return false;
		}
		// What was written since has another version, and its own place.
		(void)keyspace_move(kvd->keyspace, move.key, move.key_bytes, move.seq, move.place);
	}
	return true;
}

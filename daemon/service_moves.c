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

bool service_moves_turn(const struct kvd *kvd)
{
	struct persist_move move;
	for (unsigned i = 0; i < MOVES_A_TURN; i++) {
		if (!persist_next_move(kvd->persist, &move)) {
			return false;
		}
		// What was written since has another version, and its own place.
		(void)keyspace_move(kvd->keyspace, move.key, move.key_bytes, move.seq, move.place);
	}
	return true;
}

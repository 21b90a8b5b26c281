// SPDX-License-Identifier: MIT
//
// What is cleaned next, and for which reason: the rest of a segment whose judging stopped half-way,
// a segment with enough dead in it, or, where keys may go, one that is judged.
#include "daemon/keyspace_internal.h"

// Of segments that are only cleaned where keys may go, or values.
#define CLEANER_EVICTING_LIVE_PERCENT 50u
#define CLEANER_SPILLING_LIVE_PERCENT 80u

static uint64_t passed_seq(const struct keyspace *keyspace)
{
	bool followed = keyspace->persisted || keyspace->follower != NULL;
	return followed ? keyspace->durable_seen : UINT64_MAX;
}

// Takes the victim that was found, from there on.
static void victim_begin(struct keyspace *keyspace, uint32_t victim, uint32_t offset)
{
	struct cleaner_state *state = &keyspace->cleaner;
	const struct kvs_segment *segment = &keyspace->log.segments[victim];
	state->victim = victim;
	state->offset = offset;
	state->victim_copied_bytes = 0;
	state->victim_used_bytes = kvs_log_written_bytes(&keyspace->log, victim);
	// Of what is judged about half goes.
	uint64_t stays = keyspace->evict.judging ? segment->live_bytes / 2 : segment->live_bytes;
	state->victim_dead_bytes = keyspace->region->segment_bytes - stays;
}

// Is all that decides about victims as it was when there was none? Then a search, which looks at
// every segment, would be for nothing: of a request that is refused, and asked again, two each.
static bool finds_none(const struct keyspace *keyspace, uint64_t passed, uint64_t percent,
		       bool wanted)
{
	const struct cleaner_none *none = &keyspace->cleaner.none;
	return none->next_seq == keyspace->log.next_seq && none->passed_seq == passed &&
	       none->live_bytes == keyspace->live_bytes && none->stubs == keyspace->stubs &&
	       none->full_count == keyspace->log.full_count &&
	       none->survivor == keyspace->log.survivor.segment && percent <= none->percent &&
	       (none->judged || !wanted);
}

static uint32_t find_victim(struct keyspace *keyspace, uint64_t percent, bool wanted,
			    uint32_t *offset)
{
	struct cleaner_state *state = &keyspace->cleaner;
	uint64_t passed = passed_seq(keyspace);
	*offset = 0;
	uint32_t victim = wanted ? evict_resume(keyspace, passed, offset) : KVS_SEGMENT_NONE;
	if (victim != KVS_SEGMENT_NONE || finds_none(keyspace, passed, percent, wanted)) {
		return victim;
	}
	victim = cleaner_choose(&state->choice, &keyspace->log, passed, percent);
	if (victim == KVS_SEGMENT_NONE && wanted) {
		victim = evict_choose(keyspace, passed, offset);
	}
	state->none = (struct cleaner_none){
		.next_seq = victim == KVS_SEGMENT_NONE ? keyspace->log.next_seq : 0,
		.passed_seq = passed,
		.percent = percent,
		.live_bytes = keyspace->live_bytes,
		.stubs = keyspace->stubs,
		.full_count = keyspace->log.full_count,
		.survivor = keyspace->log.survivor.segment,
		.judged = wanted,
	};
	return victim;
}

bool cleaner_finds(struct keyspace *keyspace, uint64_t live_share_max_percent)
{
	struct cleaner_state *state = &keyspace->cleaner;
	const struct evict_state *evict = &keyspace->evict;
	bool wanted = evict_is_wanted(keyspace);
	if (state->victim != KVS_SEGMENT_NONE && evict->judging && !wanted) {
		evict_pause(keyspace);
	}
	if (state->victim != KVS_SEGMENT_NONE) {
		return true;
	}
	// Where keys may go little is copied for the sake of dead bytes: it would promote what
	// nobody reads. But a value that leaves memory has to come back from the store.
	uint64_t percent = live_share_max_percent;
	uint64_t most =
		evict->spills ? CLEANER_SPILLING_LIVE_PERCENT : CLEANER_EVICTING_LIVE_PERCENT;
	if (evict_is_possible(keyspace) && percent > most) {
		percent = most;
	}
	uint32_t offset;
	uint32_t victim = find_victim(keyspace, percent, wanted, &offset);
	if (victim == KVS_SEGMENT_NONE) {
		return false;
	}
	victim_begin(keyspace, victim, offset);
	return true;
}

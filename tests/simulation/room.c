// SPDX-License-Identifier: MIT
//
// Memory that is short. Keys that go are told to the model as they go, and values that leave memory
// and come back are held against it; the bound on memory moves; the table gets another hash key;
// large values are moved, as if others had no place;
// and between two turns of the cleaner, whatever was done in the turn, all that kvd counts must be
// what a fresh look at its region finds.
#include "daemon/cleaner.h"
#include "daemon/keyspace_internal.h"
#include "daemon/keyspace_promote.h"
#include "daemon/keyspace_recount.h"
#include "tests/simulation/sim.h"

#define RECOUNT_CHANCE 40u
#define BOUND_CHANCE 60u
#define BOUND_LEAST_BYTES (1u << 20)
#define BOUND_TIGHT_BYTES (5u << 18) // so that keys have to go
#define SPILL_CHANCE 4u		     // also where memory is not short
#define RESEED_CHANCE 1000u
#define RESEED_CHANCE_FULL 20u
#define WANT_CHANCE 20u
#define WANT_RUNS 3u // that are in the way, about

// ---- what goes ----

enum evict_result __real_evict_record(struct keyspace *keyspace, const struct kvs_record_view *view,
				      uint64_t hash);
enum evict_result __wrap_evict_record(struct keyspace *keyspace, const struct kvs_record_view *view,
				      uint64_t hash);
enum evict_result __wrap_evict_record(struct keyspace *keyspace, const struct kvs_record_view *view,
				      uint64_t hash)
{
	if (sim.plan.when_full == SIM_REJECTS) {
		sim_fail("a key is evicted by a kvd that refuses");
	}
	if (sim.plan.when_full == SIM_SPILLS) {
		enum evict_result result = __real_evict_record(keyspace, view, hash);
		sim.spilled += result == EVICT_DONE;
		return result;
	}
	unsigned index = sim_model_evicting(view->key, view->key_bytes);
	enum evict_result result = __real_evict_record(keyspace, view, hash);
	sim_model_evicted(index, result == EVICT_DONE, keyspace_last_seq(keyspace));
	sim.evicted += result == EVICT_DONE;
	return result;
}

enum keyspace_cold_result __real_keyspace_promote(struct keyspace *keyspace,
						  const struct keyspace_loaded *loaded,
						  struct keyspace_promotion *promotion,
						  uint64_t until_ns);
enum keyspace_cold_result __wrap_keyspace_promote(struct keyspace *keyspace,
						  const struct keyspace_loaded *loaded,
						  struct keyspace_promotion *promotion,
						  uint64_t until_ns);
enum keyspace_cold_result __wrap_keyspace_promote(struct keyspace *keyspace,
						  const struct keyspace_loaded *loaded,
						  struct keyspace_promotion *promotion,
						  uint64_t until_ns)
{
	enum keyspace_cold_result result =
		__real_keyspace_promote(keyspace, loaded, promotion, until_ns);
	if (result == KEYSPACE_COLD_DONE) {
		sim_note("a value of %zu bytes is back", loaded->value_bytes);
		sim_model_promoted(loaded->key, loaded->key_bytes, loaded->value,
				   loaded->value_bytes);
		sim.promoted++;
	}
	return result;
}

static void spill_one(struct keyspace *keyspace)
{
	const struct sim_key *key = sim_model_key((unsigned)sim_below(sim.plan.keys));
	if (keyspace_spill(keyspace, key->name, key->name_bytes) == KEYSPACE_COLD_DONE) {
		sim_note("the value of %s is spilled", key->name);
		sim_sleep_forget();
		sim.spilled++;
	}
}

// ---- the rest of what a turn may meet ----

static void move_bound(struct keyspace *keyspace)
{
	bool refuses = sim.plan.when_full == SIM_REJECTS;
	bool spills = sim.plan.when_full == SIM_SPILLS;
	uint64_t most = refuses ? (uint64_t)sim.plan.memory_mib << 20 : BOUND_TIGHT_BYTES;
	uint64_t bytes = BOUND_LEAST_BYTES + sim_below(most - BOUND_LEAST_BYTES + 1);
	if ((refuses || spills) && bytes < keyspace_memory_least(keyspace, spills)) {
		return; // as CONFIG SET refuses it
	}
	sim_note("the bound is to be %llu", (unsigned long long)bytes);
	sim.bounds++;
	sim_sleep_forget();
	keyspace_set_memory(keyspace, bytes);
}

// Somebody finds no place but where a large value stands: as if the gaps were short.
static void want_place(struct keyspace *keyspace)
{
	struct kvs_large *large = &keyspace->large;
	struct mover *mover = &keyspace->mover;
	if (large->wanted_bytes != 0 || mover->from != 0 || large->runs_count == 0) {
		return;
	}
	const struct kvs_large_run *run = large->sentinel.next;
	for (uint64_t n = sim_below(large->runs_count); n > 0; n--) {
		run = run->next;
	}
	uint64_t bytes = run->bytes * (1 + sim_below(WANT_RUNS));
	if (bytes <= kvs_large_end(large) - run->offset) {
		mover->search.run_bytes_max = bytes;
		kvs_large_want(large, bytes, &mover->search);
		kvs_large_keep_clear(large, run->offset);
		mover->moved = mover->rounds = 0;
		sim_sleep_forget();
		mover->asked_ns = keyspace->seam->monotonic_ns();
	}
}

static uint64_t counted(const struct keyspace *keyspace, enum kvs_counter counter)
{
	return kvs_load_relaxed(kvs_counter_word(keyspace->region->base, counter));
}

static void recount(struct keyspace *keyspace)
{
	struct keyspace_recount found;
	if (keyspace_recount(keyspace, &found) != 0) {
		return; // no memory for it
	}
	sim.recounts++;
	if (found.differences > 0) {
		sim_fail("%llu counts are wrong: %s", (unsigned long long)found.differences,
			 found.first);
	}
}

// More often where there is no memory for a second table.
static uint64_t reseed_chance(const struct keyspace *keyspace)
{
	uint32_t needed = keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE) + 2;
	bool is_full = kvs_log_segments_free(&keyspace->log) <= needed;
	return is_full ? RESEED_CHANCE / RESEED_CHANCE_FULL : RESEED_CHANCE;
}

// A rebuild of the table that was published, though there was no memory for it at first.
static void count_squeezed(const struct keyspace *keyspace, uint64_t published)
{
	const struct reseed_state *reseed = &keyspace->reseed;
	if (counted(keyspace, KVS_COUNTER_table_reseeds) != published) {
		sim.squeezed += sim.squeezes;
	}
	sim.squeezes = reseed->running && (sim.squeezes || reseed->short_ns != 0);
}

void __real_cleaner_turn(struct keyspace *keyspace, uint64_t now_ns);
void __wrap_cleaner_turn(struct keyspace *keyspace, uint64_t now_ns);
void __wrap_cleaner_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	if (sim.serves && !sim.quiet) {
		if (sim.plan.resizes && sim_chance(BOUND_CHANCE)) {
			move_bound(keyspace);
		}
		if (sim.plan.when_full == SIM_SPILLS && sim_chance(SPILL_CHANCE)) {
			spill_one(keyspace);
		}
		if (sim.plan.reseeds && sim_chance(reseed_chance(keyspace))) {
			keyspace->table.crowded = true; // as by keys that were made to collide
			sim_sleep_forget();
		}
		if (sim.plan.moves && sim_chance(WANT_CHANCE)) {
			want_place(keyspace);
		}
	}
	uint64_t reseeds = keyspace->reseed.begun_ns;
	uint64_t moved = counted(keyspace, KVS_COUNTER_large_moved);
	uint64_t returned = counted(keyspace, KVS_COUNTER_memory_returned_bytes);
	uint64_t published = counted(keyspace, KVS_COUNTER_table_reseeds);
	__real_cleaner_turn(keyspace, now_ns);
	count_squeezed(keyspace, published);
	sim.moved += (unsigned)(counted(keyspace, KVS_COUNTER_large_moved) - moved);
	sim.returned += counted(keyspace, KVS_COUNTER_memory_returned_bytes) != returned;
	sim.reseeds += keyspace->reseed.begun_ns != reseeds && keyspace->reseed.running;
	if (sim.serves && sim_chance(RECOUNT_CHANCE)) {
		recount(keyspace);
	}
}

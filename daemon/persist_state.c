// SPDX-License-Identifier: MIT
//
// What the persister tells others of the store's state: words and a text that its thread leaves
// behind, read by whoever asks.
#include "daemon/persist_internal.h"

#include <string.h>

void persist_distrust(struct persist *persist, const char *why)
{
	pthread_mutex_lock(&persist->mutex);
	strlcpy(persist->why, why, sizeof(persist->why));
	pthread_mutex_unlock(&persist->mutex);
	// Release: the text (partner: persist_take_distrust()).
	kvs_store_release(&persist->distrusted, 1);
	persist_bring(persist, PERSIST_SLEEP_BACKOFF);
}

void persist_take_distrust(struct persist *persist)
{
	if (kvs_load_acquire(&persist->distrusted) == 0) { // partner: persist_distrust()
		return;
	}
	persist->untrusted = true;
	persist->retry_at_ns = 0;
	kvs_store_release(&persist->degraded, PERSIST_UNTRUSTED); // partner: persist_state()
	// Release: after the word that says the same (partner: persist_state()).
	kvs_store_release(&persist->distrusted, 0);
}

enum persist_state persist_state(struct persist *persist, const char **why)
{
	// Acquire, and first: one of the two words tells (partner: persist_take_distrust()).
	bool distrusted = kvs_load_acquire(&persist->distrusted) != 0;
	// Acquire: partner commit_failed()'s release.
	uint64_t trouble = kvs_load_acquire(&persist->degraded);
	trouble = distrusted ? PERSIST_UNTRUSTED : trouble;
	if (trouble == PERSIST_GOOD) {
		*why = "";
		return PERSIST_STATE_OK;
	}
	pthread_mutex_lock(&persist->mutex);
	strlcpy(persist->why_told,
		trouble == PERSIST_UNCOMPACTED ? persist->why_uncompacted : persist->why,
		sizeof(persist->why_told));
	pthread_mutex_unlock(&persist->mutex);
	*why = persist->why_told;
	return trouble == PERSIST_UNTRUSTED ? PERSIST_STATE_FAILED : PERSIST_STATE_DEGRADED;
}

bool persist_degraded(struct persist *persist, const char **why)
{
	return persist_state(persist, why) != PERSIST_STATE_OK;
}

const char *persist_state_name(enum persist_state state)
{
	static const char *const names[] = {
		[PERSIST_STATE_OK] = "ok",
		[PERSIST_STATE_DEGRADED] = "degraded",
		[PERSIST_STATE_FAILED] = "failed",
	};
	return names[state];
}

uint64_t persist_renewals(const struct persist *persist)
{
	return kvs_load_relaxed(&persist->renewals); // a statistic
}

bool persist_uncompacted(const struct persist *persist)
{
	return kvs_load_acquire(&persist->degraded) == PERSIST_UNCOMPACTED; // partner: as above
}

uint64_t persist_failed_seq(const struct persist *persist)
{
	// Acquire: partner commit_failed()'s release.
	return kvs_load_acquire(&persist->failed_seq);
}

void persist_request(struct persist *persist, uint64_t seq)
{
	if (seq > kvs_load_relaxed(&persist->requested_seq)) {
		// Release: partner someone_waits()'s acquire.
		kvs_store_release(&persist->requested_seq, seq);
	}
	kvs_count(&persist->requests_count, 1);
	persist_bring(persist, PERSIST_SLEEP_LAZY);
}

void persist_notice(struct persist *persist)
{
	persist_bring(persist, PERSIST_SLEEP_IDLE);
}

void persist_tune(struct persist *persist, const struct persist_options *options)
{
	// Relaxed: each value stands for itself (partner: the persister, at each commit).
	kvs_store_relaxed(&persist->options.lazy_ms, options->lazy_ms);
	kvs_store_relaxed(&persist->options.lazy_bytes, options->lazy_bytes);
	kvs_store_relaxed(&persist->options.group_delay_us, options->group_delay_us);
	kvs_store_relaxed(&persist->options.compact_ratio_percent, options->compact_ratio_percent);
	kvs_store_relaxed(&persist->options.compact_floor_bytes, options->compact_floor_bytes);
}

void persist_set_live_bytes(struct persist *persist, uint64_t live_bytes)
{
	kvs_store_relaxed(&persist->live_bytes,
			  live_bytes); // a hint: partner persist_compact_wanted()
}

struct store *persist_store(const struct persist *persist)
{
	return persist->options.store;
}

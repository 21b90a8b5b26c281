// SPDX-License-Identifier: MIT
//
// Most options are read from kvd->config whenever they matter; what is here is the rest. Applying
// is the same whichever option changed, so that none can be forgotten.
#include "daemon/config_live.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/access.h"
#include "daemon/config_set.h"
#include "daemon/config_settle.h"
#include "daemon/events.h"
#include "daemon/files.h"
#include "daemon/hugetlb.h"
#include "daemon/keyspace.h"
#include "daemon/keyspace_stays.h"
#include "daemon/kvd.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/memory_limit.h"
#include "daemon/persist.h"
#include "daemon/session.h"
#include "daemon/stats.h"

/// The option behind a field, if it was set.
static bool live_is_set(const struct config_change *change, size_t offset, size_t *index)
{
	*index = config_option_at(offset);
	return change->set[*index];
}

static bool live_check_events(struct config_change *change, size_t index, char *error,
			      size_t error_bytes)
{
	unsigned flags;
	const char *text = change->config.notify_events;
	if (!events_flags_parse(text, strlen(text), &flags)) {
		(void)snprintf(error, error_bytes,
			       "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.");
		return false;
	}
	char canonical[EVENTS_FLAGS_BYTES];
	events_flags_print(flags, canonical);
	return config_change_set(change, index, canonical, error, error_bytes);
}

static bool live_check_percentiles(struct config_change *change, size_t index, char *error,
				   size_t error_bytes)
{
	char canonical[256] = "";
	const char *at = change->config.latency_percentiles;
	while (*(at += strspn(at, " "))) {
		char *end;
		double percent = strtod(at, &end);
		size_t used = strlen(canonical);
		if (end == at || (*end && *end != ' ') || used > sizeof(canonical) - 32) {
			(void)snprintf(error, error_bytes,
				       "Invalid latency-tracking-info-percentiles parameters");
			return false;
		}
		if (!(percent >= 0.0 && percent <= 100.0)) {
			(void)snprintf(error, error_bytes,
				       "latency-tracking-info-percentiles parameters should sit "
				       "between [0.0,100.0]");
			return false;
		}
		(void)snprintf(canonical + used, sizeof(canonical) - used, "%s%.10g",
			       used ? " " : "", percent);
		at = end;
	}
	return config_change_set(change, index, canonical, error, error_bytes);
}

/// Names in lists of users are looked up: that may take as long as the machine's directory does.
static bool live_check_access(struct config_change *change, size_t *index, char *error,
			      size_t error_bytes)
{
	const struct config *config = &change->config;
	const struct {
		size_t offset;
		const char *list;
	} lists[] = {
#define X(right, option, field) { offsetof(struct config, field), config->field },
#include "daemon/access.tbl.h"
#undef X
	};
	int failure = 0;
	for (size_t i = 0; i < ACCESS_RIGHTS && failure == 0; i++) {
		if (live_is_set(change, lists[i].offset, index)) {
			failure = access_check(lists[i].list, error, error_bytes);
		}
	}
	change->no_memory = failure == ENOMEM;
	return failure == 0;
}

static bool live_check_clients(const struct config_change *change, char *error, size_t error_bytes)
{
	struct files_shares shares = files_share(files_limit());
	if (change->config.clients_max > shares.clients_max) {
		(void)snprintf(error, error_bytes,
			       "The operating system is not able to handle the specified number of "
			       "clients, try with %llu (%llu files may be open: ulimit -n, "
			       "LimitNOFILE=)",
			       (unsigned long long)shares.clients_max,
			       (unsigned long long)shares.limit);
		return false;
	}
	return true;
}

/// One of the two names for what is done when memory is full was set: the other follows, in the
/// file too, where each of them would have the next start do what it says.
static bool live_follow_policy(struct config_change *change, size_t *index, char *error,
			       size_t error_bytes)
{
	struct config *config = &change->config;
	size_t full, policy;
	bool by_full = live_is_set(change, offsetof(struct config, when_full), &full);
	bool by_policy = live_is_set(change, offsetof(struct config, maxmemory_policy), &policy);
	bool evicts = config->maxmemory_policy != CONFIG_POLICY_NONE;
	if (!by_full && !by_policy) {
		return true;
	}
	if (by_full && by_policy) {
		*index = policy;
		if (!config_policy_agrees(config, error, error_bytes)) {
			return false;
		}
	} else if (by_policy && evicts) {
		config->when_full = CONFIG_WHEN_FULL_EVICT;
	} else if (by_policy && config->when_full == CONFIG_WHEN_FULL_EVICT) {
		// Where values are spilled no key goes either, which is what `noeviction` asks for.
		bool rejects = config->when_full_kept == CONFIG_WHEN_FULL_REJECT;
		config->when_full =
			rejects ? CONFIG_WHEN_FULL_REJECT : config_when_full_default(config);
	} else if (by_full && config->when_full != CONFIG_WHEN_FULL_EVICT) {
		config->maxmemory_policy = CONFIG_POLICY_NONE;
	} else if (by_full && !evicts) {
		config->maxmemory_policy = CONFIG_POLICY_ALLKEYS;
	}
	if (config->when_full != CONFIG_WHEN_FULL_EVICT) {
		config->when_full_kept = config->when_full;
	}
	change->set[full] = true;
	change->set[policy] = true;
	return true;
}

/// So many bytes more: has the system's pool of huge pages as many?
static bool live_check_pool(uint64_t more_bytes, char *error, size_t error_bytes)
{
	struct hugetlb_pool pool = hugetlb_pool_find("");
	uint64_t wanted = hugetlb_pages_for(more_bytes); // they were to spare before
	wanted -= HUGETLB_SPARE_PAGES;
	if (wanted > pool.available) {
		(void)snprintf(
			error, error_bytes,
			"%llu more huge pages of 2MiB are wanted, and %llu can be had: write "
			"%llu to /proc/sys/vm/nr_hugepages first",
			(unsigned long long)wanted, (unsigned long long)pool.available,
			(unsigned long long)(pool.total + wanted - pool.available));
		return false;
	}
	return true;
}

/// What the machine has not is never promised.
static bool live_check_more(const struct kvd *kvd, const struct config_change *change, char *error,
			    size_t error_bytes)
{
	uint64_t bytes = config_memory_bytes(&change->config);
	uint64_t present_bytes = config_memory_bytes(&kvd->config);
	bool has_pool = change->config.huge_pages == CONFIG_PAGES_HUGETLB;
	if (bytes > present_bytes && has_pool) {
		if (!live_check_pool(bytes - present_bytes, error, error_bytes)) {
			return false;
		}
	} else if (bytes > present_bytes) {
		struct memory_limit limit = memory_limit_find("");
		bool is_group = limit.what[0] != '\0';
		if (bytes > limit.bytes) {
			(void)snprintf(error, error_bytes, "%llu bytes are more than %s %llu%s%s",
				       (unsigned long long)bytes,
				       is_group ? "this process may use:" : "the machine has:",
				       (unsigned long long)limit.bytes, is_group ? ", says " : "",
				       limit.what);
			return false;
		}
	}
	return true;
}

static struct keyspace_eviction live_eviction(const struct config *config)
{
	return (struct keyspace_eviction){
		.on = config->when_full != CONFIG_WHEN_FULL_REJECT,
		.spills = config->when_full == CONFIG_WHEN_FULL_SPILL,
		.volatile_only = config->maxmemory_policy < CONFIG_POLICY_ALLKEYS,
		.never = config->evict_never,
	};
}

static enum config_live live_too_few(uint64_t least_bytes, uint64_t bytes, const char *what,
				     const char *remedy, char *error, size_t error_bytes)
{
	(void)snprintf(error, error_bytes, "%s needs %llu bytes, and %llu would be too few: %s",
		       what, (unsigned long long)least_bytes, (unsigned long long)bytes, remedy);
	return CONFIG_LIVE_REFUSED;
}

/// What has to stay is not taken away, nor anything else for a bound that would not be reached.
static enum config_live live_check_less(const struct kvd *kvd, const struct config_change *change,
					struct keyspace_stays *stays, char *error,
					size_t error_bytes)
{
	uint64_t bytes = config_memory_bytes(&change->config);
	const struct keyspace_eviction how = live_eviction(&change->config);
	bool looks = keyspace_stays_any(&how);
	if (bytes >= config_memory_bytes(&kvd->config)) {
		return CONFIG_LIVE_FITS;
	}
	if (looks && stays && keyspace_stays_step(kvd->keyspace, &how, stays)) {
		return CONFIG_LIVE_COUNTING;
	}
	uint64_t all_bytes = keyspace_memory_least(kvd->keyspace, false);
	if (bytes >= all_bytes) {
		return CONFIG_LIVE_FITS; // nothing has to go
	}
	if (!how.on) {
		return live_too_few(all_bytes, bytes, "what is stored",
				    "remove keys first, or let them expire", error, error_bytes);
	}
	if (looks && !stays) {
		return CONFIG_LIVE_COUNTING;
	}
	const struct keyspace_stays nothing = { .over = true };
	uint64_t least_bytes = keyspace_stays_least(kvd->keyspace, &how, looks ? stays : &nothing);
	least_bytes = least_bytes < all_bytes ? least_bytes : all_bytes;
	if (bytes >= least_bytes) {
		return CONFIG_LIVE_FITS;
	}
	return how.spills
		       ? live_too_few(least_bytes, bytes, "what stays of keys and values",
				      "remove keys first, or let them expire", error, error_bytes)
		       : live_too_few(least_bytes, bytes, "what may not be evicted",
				      "let more be (evict-never, maxmemory-policy), or remove "
				      "keys first",
				      error, error_bytes);
}

static bool live_check_others(struct config_change *change, size_t *index, char *error,
			      size_t error_bytes)
{
	if (live_is_set(change, offsetof(struct config, notify_events), index) &&
	    !live_check_events(change, *index, error, error_bytes)) {
		return false;
	}
	if (live_is_set(change, offsetof(struct config, latency_percentiles), index) &&
	    !live_check_percentiles(change, *index, error, error_bytes)) {
		return false;
	}
	if (live_is_set(change, offsetof(struct config, clients_max), index) &&
	    !live_check_clients(change, error, error_bytes)) {
		return false;
	}
	return live_check_access(change, index, error, error_bytes);
}

enum config_live config_live_check(const struct kvd *kvd, struct config_change *change,
				   struct keyspace_stays *stays, size_t *index, char *error,
				   size_t error_bytes)
{
	if (!live_follow_policy(change, index, error, error_bytes)) {
		return CONFIG_LIVE_REFUSED;
	}
	*index = config_count(); // several together, or one of them
	if (!config_change_check(change, error, error_bytes)) {
		return CONFIG_LIVE_REFUSED;
	}
	if (live_is_set(change, offsetof(struct config, maxmemory_bytes), index)) {
		if (!live_check_more(kvd, change, error, error_bytes)) {
			return CONFIG_LIVE_REFUSED;
		}
		enum config_live fits = live_check_less(kvd, change, stays, error, error_bytes);
		if (fits != CONFIG_LIVE_FITS) {
			return fits;
		}
	}
	return live_check_others(change, index, error, error_bytes) ? CONFIG_LIVE_FITS
								    : CONFIG_LIVE_REFUSED;
}

void config_live_eviction(struct kvd *kvd)
{
	const struct config *config = &kvd->config;
	const struct keyspace_eviction how = live_eviction(config);
	if (!keyspace_set_eviction(kvd->keyspace, &how)) {
		log_warning("no memory for counting what is read: nothing is evicted until "
			    "when-full is set once more");
	}
}

void config_live_apply(struct kvd *kvd)
{
	const struct config *config = &kvd->config;
	unsigned flags;
	log_set_least((enum log_level)config->log_level);
	keyspace_set_revoke(kvd->keyspace, config->revoke_ms, config->revoke_min_ms,
			    config->on_stuck == 1);
	keyspace_set_reseed(kvd->keyspace, config->reseed_ms);
	keyspace_set_write_wait(kvd->keyspace, config->write_wait_ms);
	keyspace_set_memory(kvd->keyspace, config_memory_bytes(config));
	keyspace_set_memory_return(kvd->keyspace, config->memory_return_ms);
	config_live_eviction(kvd);
	if (kvd->persist) {
		struct persist_options options = {
			.lazy_ms = config->lazy_ms,
			.lazy_bytes = config->lazy_bytes,
			.group_delay_us = config->group_delay_us,
			.compact_ratio_percent = config->compact_ratio_percent,
			.compact_floor_bytes = config->compact_floor_bytes,
		};
		persist_tune(kvd->persist, &options);
	}
	if (kvd->events &&
	    events_flags_parse(config->notify_events, strlen(config->notify_events), &flags)) {
		events_set_notified(kvd, flags);
	}
	if (kvd->listener) {
		(void)session_set_limits(listener_sessions(kvd->listener)); // it has said so
	}
	stats_settle_timing(kvd);
}

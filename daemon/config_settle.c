// SPDX-License-Identifier: MIT
//
// Derived options and cross checks, apart from parsing because they are policy: how large a value
// may be for this memory, how many segments the cleaner needs to make progress.
#include "daemon/config_settle.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/access.h"
#include "daemon/config_option.h"
#include "daemon/config_text.h"
#include "daemon/memory_limit.h"
#include "daemon/remedy.h"

#define CONFIG_SEGMENTS_DEFAULT_MIN 32u // the default segment leaves at least so many
#define CONFIG_SIZE_TEXT_BYTES 32
#define CONFIG_MEMORY_DEFAULT_MIN (UINT64_C(16) << 20) // however little there is

struct settle {
	struct config *config;
	const struct config_chosen *chosen;
	char *error;
	size_t error_bytes;
	bool *no_memory;
};

__attribute__((format(printf, 2, 3))) static bool refuse(struct settle *s, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)vsnprintf(s->error, s->error_bytes, format, args);
	va_end(args);
	return false;
}

static bool no_memory(struct settle *s)
{
	*s->no_memory = true;
	return refuse(s, "out of memory; %s", remedy_of_errno(ENOMEM));
}

static const char *size_text(uint64_t bytes, char text[CONFIG_SIZE_TEXT_BYTES])
{
	config_text_print_size(bytes, text, CONFIG_SIZE_TEXT_BYTES);
	return text;
}

static bool socket_length_settle(struct settle *s, const char *option, const char *path)
{
	size_t length = strlen(path);
	if (length > KVS_SOCKET_PATH_BYTES_MAX) {
		return refuse(s,
			      "%s: the path has %zu bytes, sockets allow %u: give a shorter one "
			      "with --%s PATH (%.60s...)",
			      option, length, KVS_SOCKET_PATH_BYTES_MAX, option, path);
	}
	return true;
}

static bool socket_settle(struct settle *s)
{
	struct config *config = s->config;
	if (!*config->socket_path) {
		char *path = NULL;
		if (asprintf(&path, "%s/kvd.sock", config->dir) < 0) {
			return no_memory(s);
		}
		free(config->socket_path);
		config->socket_path = path;
	}
	if (!*config->socket_also_path && !s->chosen->place) {
		char *path = strdup(KVS_SOCKET_PATH_DEFAULT);
		if (!path) {
			return no_memory(s);
		}
		free(config->socket_also_path);
		config->socket_also_path = path;
	}
	return socket_length_settle(s, "socket", config->socket_path) &&
	       socket_length_settle(s, "socket-also", config->socket_also_path);
}

static uint64_t physical_bytes(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	long page_bytes = sysconf(_SC_PAGE_SIZE);
	return pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
}

/// Of the two bounds on the region; what is derived from the memory must fit both.
static uint64_t lower_bound(const struct config *config)
{
	uint64_t bytes = config_memory_bytes(config);
	return bytes < config->memory_bytes ? bytes : config->memory_bytes;
}

static bool memory_settle(struct settle *s)
{
	struct config *config = s->config;
	char memory[CONFIG_SIZE_TEXT_BYTES];
	char given[CONFIG_SIZE_TEXT_BYTES];
	if (!s->chosen->memory) {
		struct memory_limit limit = memory_limit_find("");
		config->memory_bytes = memory_limit_default(&limit, config->memory_bytes,
							    CONFIG_MEMORY_DEFAULT_MIN);
	}
	(void)size_text(config->memory_bytes, memory);
	if (config->memory_max_bytes == 0) {
		uint64_t machine_bytes = physical_bytes();
		uint64_t highest_bytes = KVS_REGION_BYTES_MAX / 16;
		machine_bytes = machine_bytes < highest_bytes ? machine_bytes : highest_bytes;
		config->memory_max_bytes =
			machine_bytes > config->memory_bytes ? machine_bytes : config->memory_bytes;
	}
	if (config->memory_max_bytes < config->memory_bytes) {
		return refuse(s,
			      "memory-max: %s is less than memory (%s): raise it or lower memory",
			      size_text(config->memory_max_bytes, given), memory);
	}
	uint64_t bound_bytes = lower_bound(config);
	uint64_t fitting_bytes = bound_bytes / 2; // the old and the new while overwriting
	if (config->value_bytes_max == 0) {
		uint64_t eighth = bound_bytes / 8;
		config->value_bytes_max =
			eighth < KVS_VALUE_BYTES_DEFAULT ? eighth : KVS_VALUE_BYTES_DEFAULT;
	} else if (config->value_bytes_max > fitting_bytes) {
		if (s->chosen->memory) {
			return refuse(s,
				      "value-max: %s exceeds half of memory (%s): raise memory or "
				      "lower value-max",
				      size_text(config->value_bytes_max, given),
				      size_text(bound_bytes, memory));
		}
		config->value_bytes_max = fitting_bytes;
	}
	return true;
}

// Less than any memory can be is a bound that writes meet at once, which is what Redis does with
// it. But where keys or values could go for it nothing would ever be enough.
static bool maxmemory_serves(struct settle *s)
{
	const struct config *config = s->config;
	bool evicts = config->when_full == CONFIG_WHEN_FULL_EVICT;
	bool spills = config->when_full == CONFIG_WHEN_FULL_SPILL;
	if (!config_is_bounded(config) ||
	    (!evicts && !(spills && config->maxmemory_bytes >= KVS_MEMORY_BYTES_MIN))) {
		return true;
	}
	char given[CONFIG_SIZE_TEXT_BYTES];
	char least[CONFIG_SIZE_TEXT_BYTES];
	char segment[CONFIG_SIZE_TEXT_BYTES];
	return refuse(s,
		      "maxmemory: %s is less than %u segments of %s, without which %s for it: give "
		      "at least %s, or start kvd with a smaller segment",
		      size_text(config->maxmemory_bytes, given), CONFIG_SEGMENTS_MIN,
		      size_text(config->segment_bytes, segment),
		      evicts ? "no key can go" : "no value can leave memory",
		      size_text(config_memory_least(config), least));
}

static bool maxmemory_settle(struct settle *s)
{
	struct config *config = s->config;
	char given[CONFIG_SIZE_TEXT_BYTES];
	char other[CONFIG_SIZE_TEXT_BYTES];
	if (config->maxmemory_bytes == 0) {
		config->maxmemory_bytes = config->memory_bytes;
	}
	(void)size_text(config->maxmemory_bytes, given);
	if (config->maxmemory_bytes > config->memory_max_bytes) {
		return refuse(s,
			      "maxmemory: %s exceeds memory-max (%s), for which addresses are laid "
			      "out when kvd starts: start it with a higher memory-max",
			      given, size_text(config->memory_max_bytes, other));
	}
	uint64_t bound_bytes = config_memory_bytes(config);
	if (config->value_max_given && config->value_bytes_max > bound_bytes / 2) {
		return refuse(s,
			      "maxmemory: value-max (%s) exceeds half of %s: raise maxmemory, or "
			      "start kvd with a lower value-max",
			      size_text(config->value_bytes_max, other), given);
	}
	return maxmemory_serves(s);
}

// Values are spilled to a store.
static bool spill_settle(struct settle *s)
{
	const struct config *config = s->config;
	if (config->when_full == CONFIG_WHEN_FULL_SPILL && config->persist_policy == 0) {
		return refuse(s, "when-full: spill needs a store, and persist is memory: choose "
				 "reject or evict, or another policy");
	}
	return true;
}

bool config_policy_agrees(const struct config *config, char *error, size_t error_bytes)
{
	bool evicts = config->maxmemory_policy != CONFIG_POLICY_NONE;
	if (evicts == (config->when_full == CONFIG_WHEN_FULL_EVICT)) {
		return true;
	}
	char when_full[CONFIG_VALUE_BYTES_MAX], policy[CONFIG_VALUE_BYTES_MAX];
	config_value(config, config_option_at(offsetof(struct config, when_full)), when_full,
		     sizeof(when_full));
	config_value(config, config_option_at(offsetof(struct config, maxmemory_policy)), policy,
		     sizeof(policy));
	(void)snprintf(error, error_bytes,
		       "when-full %s and maxmemory-policy %s contradict each other, two names for "
		       "one thing: give one of them, or %s",
		       when_full, policy,
		       evicts ? "when-full evict" : "a maxmemory-policy that evicts");
	return false;
}

// Two names for one thing: a policy that evicts says so, and so does when-full. Nobody is asked for
// reject only because there is no store.
static bool policy_settle(struct settle *s)
{
	struct config *config = s->config;
	if (!s->chosen->when_full) {
		config->when_full = config_when_full_default(config);
	}
	bool evicts = config->when_full == CONFIG_WHEN_FULL_EVICT;
	config->when_full_kept = evicts ? config_when_full_default(config) : config->when_full;
	if (!s->chosen->policy) {
		config->maxmemory_policy = evicts ? CONFIG_POLICY_ALLKEYS : CONFIG_POLICY_NONE;
	} else if (config->maxmemory_policy != CONFIG_POLICY_NONE) {
		config->when_full = CONFIG_WHEN_FULL_EVICT;
	} else {
		config->when_full = config->when_full_kept;
	}
	return spill_settle(s);
}

static bool buffers_settle(struct settle *s)
{
	struct config *config = s->config;
	uint64_t least = config_buffers_bytes_min(
		config_request_bytes_max((size_t)config->value_bytes_max, config->memory_bytes));
	if (config->buffers_bytes_max == 0) {
		// One user at its share leaves the others room for a request of the largest size.
		uint64_t half = config->memory_bytes / 2;
		config->buffers_bytes_max = half > 2 * least ? half : 2 * least;
	} else if (config->buffers_bytes_max < least) {
		char given[CONFIG_SIZE_TEXT_BYTES];
		return refuse(s,
			      "client-buffers-max: %s is too little for one request: give at least "
			      "%lluMiB, or lower value-max and memory",
			      size_text(config->buffers_bytes_max, given),
			      (unsigned long long)((least + (1u << 20) - 1) >> 20));
	}
	return true;
}

static bool segment_settle(struct settle *s)
{
	struct config *config = s->config;
	bool has_pool = config->huge_pages == CONFIG_PAGES_HUGETLB;
	uint64_t least_bytes = has_pool ? KVS_HUGE_PAGE_BYTES : KVS_SEGMENT_BYTES_MIN;
	if (config->segment_bytes == 0) {
		uint64_t bytes = KVS_SEGMENT_BYTES_DEFAULT;
		while (bytes > least_bytes &&
		       lower_bound(config) / bytes < CONFIG_SEGMENTS_DEFAULT_MIN) {
			bytes /= 2;
		}
		config->segment_bytes = bytes;
	}
	uint64_t bytes = config->segment_bytes;
	char memory[CONFIG_SIZE_TEXT_BYTES];
	char given[CONFIG_SIZE_TEXT_BYTES];
	if (bytes < KVS_SEGMENT_BYTES_MIN || (bytes & (bytes - 1)) != 0) {
		return refuse(s, "segment: %s is not a power of two from %uKiB to %uMiB",
			      size_text(bytes, given), KVS_SEGMENT_BYTES_MIN >> 10,
			      KVS_SEGMENT_BYTES_MAX >> 20);
	}
	if (bytes < least_bytes) {
		return refuse(
			s,
			"segment: %s is less than a page of huge-pages = hugetlb (2MiB): raise "
			"segment, or choose huge-pages = transparent",
			size_text(bytes, given));
	}
	if (config->memory_bytes / bytes < CONFIG_SEGMENTS_MIN) {
		return refuse(s,
			      "segment: memory (%s) holds fewer than %u of %s: lower segment or "
			      "raise memory",
			      size_text(config->memory_bytes, memory), CONFIG_SEGMENTS_MIN,
			      size_text(bytes, given));
	}
	return true;
}

/// Names are looked up here so that a wrong one ends the start.
static bool access_settle(struct settle *s)
{
	const struct {
		const char *option;
		const char *list;
	} lists[] = {
#define X(right, option, field) { option, s->config->field },
#include "daemon/access.tbl.h"
#undef X
	};
	char why[256];
	for (size_t i = 0; i < ACCESS_RIGHTS; i++) {
		int failure = access_check(lists[i].list, why, sizeof(why));
		if (failure != 0) {
			*s->no_memory = failure == ENOMEM;
			return refuse(s, "%s: %s", lists[i].option, why);
		}
	}
	return true;
}

static bool revoke_settle(struct settle *s)
{
	const struct config *config = s->config;
	if (config->revoke_min_ms > config->revoke_ms) {
		char revoke[CONFIG_SIZE_TEXT_BYTES];
		char revoke_min[CONFIG_SIZE_TEXT_BYTES];
		config_text_print_duration(config->revoke_ms, revoke, sizeof(revoke));
		config_text_print_duration(config->revoke_min_ms, revoke_min, sizeof(revoke_min));
		return refuse(s,
			      "revoke-min: %s is longer than revoke (%s): lower it or raise revoke",
			      revoke_min, revoke);
	}
	return true;
}

bool config_settle(struct config *config, const struct config_chosen *chosen, char *error,
		   size_t error_bytes, bool *no_memory)
{
	struct settle s = {
		.config = config,
		.chosen = chosen,
		.error = error,
		.error_bytes = error_bytes,
		.no_memory = no_memory,
	};
	return policy_settle(&s) && socket_settle(&s) && memory_settle(&s) && buffers_settle(&s) &&
	       segment_settle(&s) && maxmemory_settle(&s) && revoke_settle(&s) && access_settle(&s);
}

bool config_settle_running(struct config *config, char *error, size_t error_bytes)
{
	struct settle s = { .config = config, .error = error, .error_bytes = error_bytes };
	return spill_settle(&s) && maxmemory_settle(&s) && buffers_settle(&s) && revoke_settle(&s);
}

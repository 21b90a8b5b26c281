// SPDX-License-Identifier: MIT
//
// Derived options and cross checks, apart from parsing because they are policy: how large a value
// may be for this memory, how many segments the cleaner needs to make progress.
#include "daemon/config_settle.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config_text.h"

#define CONFIG_SEGMENTS_DEFAULT_MIN 32u // the default segment leaves at least so many
#define CONFIG_SEGMENTS_MIN 16u		// a chosen one too: heads, reserve and room to clean
#define CONFIG_SIZE_TEXT_BYTES 32

struct settle {
	struct config *config;
	bool memory_chosen;
	char *error;
	size_t error_bytes;
};

__attribute__((format(printf, 2, 3))) static bool refuse(struct settle *s, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)vsnprintf(s->error, s->error_bytes, format, args);
	va_end(args);
	return false;
}

static bool socket_settle(struct settle *s)
{
	struct config *config = s->config;
	if (!*config->socket_path) {
		char *path = NULL;
		if (asprintf(&path, "%s/kvd.sock", config->dir) < 0) {
			return refuse(s, "out of memory");
		}
		free(config->socket_path);
		config->socket_path = path;
	}
	size_t length = strlen(config->socket_path);
	if (length > KVS_SOCKET_PATH_BYTES_MAX) {
		return refuse(
			s,
			"socket: the path has %zu bytes, sockets allow %u: give a shorter one "
			"with --socket PATH (%.60s...)",
			length, KVS_SOCKET_PATH_BYTES_MAX, config->socket_path);
	}
	return true;
}

static uint64_t physical_bytes(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	long page_bytes = sysconf(_SC_PAGE_SIZE);
	return pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
}

static bool memory_settle(struct settle *s)
{
	struct config *config = s->config;
	char memory[CONFIG_SIZE_TEXT_BYTES];
	config_text_print_size(config->memory_bytes, memory, sizeof(memory));
	if (config->memory_max_bytes == 0) {
		uint64_t machine_bytes = physical_bytes();
		uint64_t highest_bytes = KVS_REGION_BYTES_MAX / 16;
		machine_bytes = machine_bytes < highest_bytes ? machine_bytes : highest_bytes;
		config->memory_max_bytes =
			machine_bytes > config->memory_bytes ? machine_bytes : config->memory_bytes;
	}
	if (config->memory_max_bytes < config->memory_bytes) {
		return refuse(s, "memory-max: must not be less than memory (%s)", memory);
	}
	uint64_t fitting_bytes = config->memory_bytes / 2; // the old and the new while overwriting
	if (config->value_bytes_max == 0) {
		uint64_t eighth = config->memory_bytes / 8;
		config->value_bytes_max =
			eighth < KVS_VALUE_BYTES_DEFAULT ? eighth : KVS_VALUE_BYTES_DEFAULT;
	} else if (config->value_bytes_max > fitting_bytes) {
		if (s->memory_chosen) {
			return refuse(
				s,
				"value-max: must not exceed half of memory (%s): raise memory "
				"or lower "
				"value-max",
				memory);
		}
		config->value_bytes_max = fitting_bytes;
	}
	return true;
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
		config_text_print_size(config->buffers_bytes_max, given, sizeof(given));
		return refuse(s,
			      "client-buffers-max: %s is too little for one request: give at least "
			      "%lluMiB, or lower value-max and memory",
			      given, (unsigned long long)((least + (1u << 20) - 1) >> 20));
	}
	return true;
}

static bool segment_settle(struct settle *s)
{
	struct config *config = s->config;
	if (config->segment_bytes == 0) {
		uint64_t bytes = KVS_SEGMENT_BYTES_DEFAULT;
		while (bytes > KVS_SEGMENT_BYTES_MIN &&
		       config->memory_bytes / bytes < CONFIG_SEGMENTS_DEFAULT_MIN) {
			bytes /= 2;
		}
		config->segment_bytes = bytes;
	}
	uint64_t bytes = config->segment_bytes;
	if (bytes < KVS_SEGMENT_BYTES_MIN || (bytes & (bytes - 1)) != 0) {
		return refuse(s, "segment: must be a power of two from %uKiB to %uMiB",
			      KVS_SEGMENT_BYTES_MIN >> 10, KVS_SEGMENT_BYTES_MAX >> 20);
	}
	if (config->memory_bytes / bytes < CONFIG_SEGMENTS_MIN) {
		return refuse(
			s, "segment: memory must hold at least %u: lower segment or raise memory",
			CONFIG_SEGMENTS_MIN);
	}
	return true;
}

bool config_settle(struct config *config, bool memory_chosen, char *error, size_t error_bytes)
{
	struct settle s = {
		.config = config,
		.memory_chosen = memory_chosen,
		.error = error,
		.error_bytes = error_bytes,
	};
	if (!socket_settle(&s) || !memory_settle(&s) || !buffers_settle(&s) ||
	    !segment_settle(&s)) {
		return false;
	}
	if (config->revoke_min_ms > config->revoke_ms) {
		return refuse(&s, "revoke-min: must not be longer than revoke");
	}
	return true;
}

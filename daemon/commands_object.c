// SPDX-License-Identifier: MIT
//
// OBJECT and MEMORY: what is known about a value besides its bytes, and where kvd's memory is.
#include "daemon/commands_object.h"
#include "daemon/commands.h"

#include "shm/counters.h"
#include "shm/record.h"

#define OBJECT_INT_BYTES_MAX 20u    // Redis keeps longer texts as they are
#define OBJECT_EMBSTR_BYTES_MAX 44u // longest that Redis keeps in one piece with its header
#define OBJECT_ENTRY_BYTES 8u	    // in the table

const char *commands_object_encoding_name(const struct keyspace_value *value)
{
	int64_t number;
	if (value->value_bytes <= OBJECT_INT_BYTES_MAX &&
	    resp_parse_int(value->value, value->value_bytes, &number)) {
		return "int";
	}
	return value->value_bytes <= OBJECT_EMBSTR_BYTES_MAX ? "embstr" : "raw";
}

/// The value that an OBJECT command asks about: a read that nobody is told of.
static bool object_lookup(struct call *call, struct keyspace_value *value)
{
	bool found = commands_peek(call, 2, value);
	stats_add(call->kvd->stats, found ? KVS_COUNTER_socket_hits : KVS_COUNTER_socket_misses, 1);
	if (!found) {
		reply_null(call->session);
	}
	return found;
}

void commands_object_encoding(struct call *call)
{
	struct keyspace_value value;
	if (object_lookup(call, &value)) {
		reply_text(call->session, commands_object_encoding_name(&value));
	}
}

void commands_object_freq(struct call *call)
{
	struct keyspace_value value;
	if (object_lookup(call, &value)) {
		commands_error(call, "ERR An LFU maxmemory policy is not selected, access "
				     "frequency not tracked. Please note that when switching "
				     "between policies at runtime LRU and LFU data will take some "
				     "time to adjust.");
	}
}

void commands_object_idletime(struct call *call)
{
	struct keyspace_value value;
	if (object_lookup(call, &value)) {
		uint64_t now_ms = keyspace_now_ms(call->kvd->keyspace);
		uint64_t idle_ms = now_ms > value.time_ms ? now_ms - value.time_ms : 0;
		reply_integer(call->session, (int64_t)(idle_ms / 1000));
	}
}

void commands_object_refcount(struct call *call)
{
	struct keyspace_value value;
	if (object_lookup(call, &value)) {
		reply_integer(call->session, 1);
	}
}

// ---- MEMORY ----

void commands_memory_usage(struct call *call)
{
	struct keyspace_value value;
	for (uint32_t i = 3; i < call->argc; i += 2) {
		int64_t samples = 0;
		bool known = commands_arg_is(&call->argv[i], "samples") && i + 1 < call->argc;
		if (known && !commands_arg_int(call, &call->argv[i + 1], &samples, NULL)) {
			return;
		}
		if (!known || samples < 0) {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return;
		}
	}
	if (!commands_stat(call, 2, &value)) {
		reply_null(call->session);
		return;
	}
	uint64_t bytes =
		kvs_record_bytes(call->argv[2].bytes, value.value_bytes, value.expiry_ms != 0);
	reply_integer(call->session, (int64_t)(bytes + OBJECT_ENTRY_BYTES));
}

static uint64_t memory_counter(const struct call *call, enum kvs_counter counter)
{
	return stats_get(call->kvd->stats, counter);
}

void commands_memory_doctor(struct call *call)
{
	uint64_t used = memory_counter(call, KVS_COUNTER_memory_used_bytes);
	uint64_t limit = memory_counter(call, KVS_COUNTER_memory_limit_bytes);
	const char *text = "Memory is not short.";
	if (limit > 0 && used > limit / 100 * 90) {
		text = "Memory is nearly full: writes may have to wait or be refused with -OOM. "
		       "Raise memory, or let keys expire.";
	}
	reply_verbatim(call->session, text, strlen(text));
}

void commands_memory_purge(struct call *call)
{
	reply_ok(call->session); // what is free is given back all the time
}

void commands_memory_malloc_stats(struct call *call)
{
	static const char text[] = "Stats not supported for the current allocator";
	reply_bulk(call->session, text, sizeof(text) - 1);
}

void commands_memory_stats(struct call *call)
{
	struct session *session = call->session;
	uint64_t used = memory_counter(call, KVS_COUNTER_memory_used_bytes);
	uint64_t live = memory_counter(call, KVS_COUNTER_memory_live_bytes) -
			memory_counter(call, KVS_COUNTER_cold_bytes);
	uint64_t keys = keyspace_count(call->kvd->keyspace);
	uint64_t peak = call->kvd->stats->memory_peak_bytes;
	peak = used > peak ? used : peak;
	call->kvd->stats->memory_peak_bytes = peak;
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{ "peak.allocated", peak }, { "total.allocated", used },
		{ "startup.allocated", 0 }, { "overhead.total", used > live ? used - live : 0 },
		{ "keys.count", keys },	    { "keys.bytes-per-key", keys ? live / keys : 0 },
		{ "dataset.bytes", live },
	};
	const size_t count = sizeof(rows) / sizeof(rows[0]);
	reply_map(session, count + 2);
	for (size_t i = 0; i < count; i++) {
		reply_text(session, rows[i].name);
		reply_integer(session, (int64_t)rows[i].value);
	}
	reply_text(session, "dataset.percentage");
	reply_double(session, used ? 100.0 * (double)live / (double)used : 0.0);
	reply_text(session, "peak.percentage");
	reply_double(session, peak ? 100.0 * (double)used / (double)peak : 0.0);
}

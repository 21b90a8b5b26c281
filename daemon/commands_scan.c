// SPDX-License-Identifier: MIT
//
// Commands over all keys: SCAN in bounded pieces, KEYS in one go, RANDOMKEY, DBSIZE, FLUSHALL.
#include "daemon/commands.h"

#include <stdlib.h>

#include "daemon/glob.h"
#include "daemon/keyspace_view.h"

#define SCAN_COUNT_MAX 10000 // keys looked at by one SCAN, whatever COUNT asks: about a millisecond
#define SCAN_EMPTY_FACTOR 10 // cursor positions visited at least for each key wanted, as Redis
#define SCAN_CLOCK_EVERY 256 // positions between two looks at the clock
#define SCAN_SLICE_NS 200000u

/// Keys found by a scan, as places in the region: they stay good while the command only reads.
struct scan {
	const char *pattern; // NULL = all
	size_t pattern_bytes;
	struct session *session; // KEYS: answered as found; NULL: collected
	struct resp_arg *found;
	size_t found_count;
	size_t found_capacity;
	uint64_t seen; // keys visited, matching or not
	bool no_memory;
};

static void scan_visit(void *context, const void *key, size_t key_bytes,
		       const struct keyspace_value *value)
{
	struct scan *scan = context;
	(void)value;
	scan->seen++;
	if (scan->pattern &&
	    !glob_match(scan->pattern, scan->pattern_bytes, key, key_bytes, false)) {
		return;
	}
	if (scan->session) {
		scan->found_count++;
		reply_bulk(scan->session, key, key_bytes);
		return;
	}
	if (scan->found_count == scan->found_capacity) {
		size_t capacity = scan->found_capacity ? 2 * scan->found_capacity : 64;
		struct resp_arg *found = realloc(scan->found, capacity * sizeof(*found));
		if (!found) {
			scan->no_memory = true;
			return;
		}
		scan->found = found;
		scan->found_capacity = capacity;
	}
	scan->found[scan->found_count++] = (struct resp_arg){ key, key_bytes };
}

/// Unsigned decimal as strtoul reads it: a sign is allowed, nothing at all is 0.
static bool scan_cursor(const struct resp_arg *arg, uint64_t *cursor)
{
	size_t i = 0;
	bool negative = false;
	*cursor = 0;
	if (arg->bytes && (arg->data[0] == '-' || arg->data[0] == '+')) {
		negative = arg->data[0] == '-';
		i = 1;
		if (arg->bytes == 1) {
			return false;
		}
	}
	for (; i < arg->bytes; i++) {
		unsigned digit = (unsigned char)arg->data[i] - (unsigned)'0';
		if (digit > 9 || __builtin_mul_overflow(*cursor, 10, cursor) ||
		    __builtin_add_overflow(*cursor, digit, cursor)) {
			return false;
		}
	}
	*cursor = negative ? 0 - *cursor : *cursor;
	return true;
}

struct scan_options {
	int64_t count;
	bool nothing; // a TYPE that no key has
};

static bool scan_parse(struct call *call, struct scan *scan, struct scan_options *options)
{
	for (uint32_t i = 2; i < call->argc; i += 2) {
		const struct resp_arg *word = &call->argv[i];
		const struct resp_arg *value = &call->argv[i + 1];
		if (i + 1 >= call->argc) {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
		if (commands_arg_is(word, "count")) {
			if (!commands_arg_int(call, value, &options->count, NULL)) {
				return false;
			}
			if (options->count < 1) {
				commands_error(call, COMMANDS_TEXT_SYNTAX);
				return false;
			}
		} else if (commands_arg_is(word, "match")) {
			if (!commands_arg_pattern(call, value)) {
				return false;
			}
			bool all = value->bytes == 1 && value->data[0] == '*';
			scan->pattern = all ? NULL : value->data;
			scan->pattern_bytes = value->bytes;
		} else if (commands_arg_is(word, "type")) {
			options->nothing = !commands_arg_is(value, "string");
		} else {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
	}
	return true;
}

/// Scans until `count` keys were seen, or so many positions that a table with that many keys would
/// have been through, or, in a sparse table, for the time of one slice. Returns the next cursor.
static uint64_t scan_run(struct call *call, struct scan *scan, uint64_t cursor, uint64_t count)
{
	const struct seam *seam = call->kvd->seam;
	uint64_t start_ns = seam->monotonic_ns();
	for (uint64_t visits = 1;; visits++) {
		cursor = keyspace_view_scan(call->kvd->keyspace, cursor, scan_visit, scan);
		if (!cursor || scan->seen >= count) {
			return cursor;
		}
		if (visits >= count * SCAN_EMPTY_FACTOR && visits % SCAN_CLOCK_EVERY == 0 &&
		    seam->monotonic_ns() - start_ns >= SCAN_SLICE_NS) {
			return cursor;
		}
	}
}

void commands_scan_scan(struct call *call)
{
	struct scan scan = { 0 };
	struct scan_options options = { .count = 10 };
	uint64_t cursor;
	if (!scan_cursor(&call->argv[1], &cursor)) {
		commands_error(call, "ERR invalid cursor");
		return;
	}
	if (!scan_parse(call, &scan, &options)) {
		return;
	}
	uint64_t count = options.count < SCAN_COUNT_MAX ? (uint64_t)options.count : SCAN_COUNT_MAX;
	cursor = scan_run(call, &scan, cursor, count);
	if (scan.no_memory) {
		commands_error(call, COMMANDS_TEXT_OOM);
	} else {
		char text[RESP_NUMBER_BYTES_MAX];
		size_t found = options.nothing ? 0 : scan.found_count;
		// Cursors use the top bit as well; two halves keep them unsigned.
		size_t bytes = 0;
		if (cursor > INT64_MAX) {
			bytes = resp_format_int(text, (int64_t)(cursor / 10));
			text[bytes++] = (char)('0' + cursor % 10);
		} else {
			bytes = resp_format_int(text, (int64_t)cursor);
		}
		reply_array(call->session, 2);
		reply_bulk(call->session, text, bytes);
		reply_array(call->session, found);
		for (size_t i = 0; i < found; i++) {
			reply_bulk(call->session, scan.found[i].data, scan.found[i].bytes);
		}
	}
	free(scan.found);
}

void commands_scan_keys(struct call *call)
{
	const struct resp_arg *pattern = &call->argv[1];
	if (!commands_arg_pattern(call, pattern)) {
		return;
	}
	bool all = pattern->bytes == 1 && pattern->data[0] == '*';
	struct scan scan = {
		.pattern = all ? NULL : pattern->data,
		.pattern_bytes = pattern->bytes,
		.session = call->session,
	};
	size_t mark = reply_deferred_begin(call->session);
	uint64_t cursor = 0;
	do {
		cursor = keyspace_view_scan(call->kvd->keyspace, cursor, scan_visit, &scan);
	} while (cursor && !call->session->dead);
	reply_deferred_end(call->session, mark, scan.found_count);
}

#define RANDOM_PROBES 64u	 // positions looked at before being less particular
#define RANDOM_KEYS 32u		 // places that every position is taken to have
#define RANDOM_SLICE_NS 1000000u // more than a table of the smallest size takes

/// What stands at one position of the table: the key in place `wanted`, and how many there are.
struct scan_probe {
	uint64_t wanted;
	uint64_t seen;
	struct resp_arg key;
	bool found;
};

static void scan_probe_visit(void *context, const void *key, size_t key_bytes,
			     const struct keyspace_value *value)
{
	struct scan_probe *probe = context;
	(void)value;
	if (probe->seen++ == probe->wanted) {
		probe->key = (struct resp_arg){ key, key_bytes };
		probe->found = true;
	}
}

/// Every key has the same chance: a position is drawn, and a place of as many as hardly any
/// position fills; if nothing is there, the dice are thrown again. Where keys are so few that this
/// finds none the next one from a drawn position on is taken, for which the whole table may have to be gone
/// through, though not for longer than a millisecond: then it is null as if there were none.
void commands_scan_randomkey(struct call *call)
{
	struct keyspace *keyspace = call->kvd->keyspace;
	const struct seam *seam = call->kvd->seam;
	struct scan_probe probe = { 0 };
	uint64_t random[2 * RANDOM_PROBES];
	if (keyspace_view_count(keyspace) == 0) {
		reply_null(call->session);
		return;
	}
	seam->random_bytes(random, sizeof(random));
	for (unsigned i = 0; i < RANDOM_PROBES && !probe.found; i++) {
		probe = (struct scan_probe){ .wanted = random[2 * i] % RANDOM_KEYS };
		(void)keyspace_view_scan(keyspace, random[2 * i + 1], scan_probe_visit, &probe);
	}
	uint64_t cursor = random[1];
	uint64_t start_ns = seam->monotonic_ns();
	for (uint64_t visits = 1, turns = 0; !probe.found && turns < 2; visits++) {
		probe = (struct scan_probe){ 0 };
		cursor = keyspace_view_scan(keyspace, cursor, scan_probe_visit, &probe);
		turns += cursor == 0;
		if (visits % SCAN_CLOCK_EVERY == 0 &&
		    seam->monotonic_ns() - start_ns >= RANDOM_SLICE_NS) {
			break;
		}
	}
	if (probe.found) {
		reply_bulk(call->session, probe.key.data, probe.key.bytes);
	} else {
		reply_null(call->session);
	}
}

void commands_scan_dbsize(struct call *call)
{
	reply_integer(call->session, (int64_t)keyspace_view_count(call->kvd->keyspace));
}

void commands_scan_flush(struct call *call)
{
	if (call->argc > 2 || (call->argc == 2 && !commands_arg_is(&call->argv[1], "sync") &&
			       !commands_arg_is(&call->argv[1], "async"))) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	if (commands_wrote(call, keyspace_flush(call->kvd->keyspace), 0)) {
		reply_ok(call->session);
	}
}

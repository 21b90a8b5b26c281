// SPDX-License-Identifier: MIT
//
// Commands over all keys: SCAN in bounded pieces, KEYS in slices, RANDOMKEY, DBSIZE, FLUSHALL.
#include "daemon/commands.h"

#include <stdlib.h>

#include "daemon/glob.h"
#include "daemon/keyspace_view.h"

#define SCAN_COUNT_MAX 10000 // keys looked at by one SCAN, whatever COUNT asks
#define SCAN_CLOCK_EVERY 16  // positions between two looks at the clock
#define SCAN_SLICE_NS 200000u

/// Keys found by a scan, as places in the region: they stay good while the command only reads.
struct scan {
	struct glob *pattern; // NULL = all
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
	if (scan->pattern && !glob_fits(scan->pattern, key, key_bytes)) {
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

/// Makes a pattern ready; false: the error was answered.
static bool scan_pattern(struct call *call, struct scan *scan, const struct resp_arg *pattern)
{
	if (!commands_arg_pattern(call, pattern)) {
		return false;
	}
	glob_free(scan->pattern);
	bool all = pattern->bytes == 1 && pattern->data[0] == '*';
	scan->pattern = all ? NULL : glob_prepare(pattern->data, pattern->bytes);
	if (!all && !scan->pattern) {
		commands_error(call, COMMANDS_TEXT_OOM);
	}
	return all || scan->pattern;
}

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
			if (!scan_pattern(call, scan, value)) {
				return false;
			}
		} else if (commands_arg_is(word, "type")) {
			options->nothing = !commands_arg_is(value, "string");
		} else {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
	}
	return true;
}

/// Scans until `count` keys were seen, but no longer than one slice. Returns the next cursor.
static uint64_t scan_run(struct call *call, struct scan *scan, uint64_t cursor, uint64_t count)
{
	const struct seam *seam = call->kvd->seam;
	uint64_t start_ns = seam->monotonic_ns();
	for (uint64_t visits = 1;; visits++) {
		cursor = keyspace_view_scan(call->kvd->keyspace, cursor, scan_visit, scan);
		if (!cursor || scan->seen >= count) {
			return cursor;
		}
		if (visits % SCAN_CLOCK_EVERY == 0 &&
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
		glob_free(scan.pattern);
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
	glob_free(scan.pattern);
}

/// KEYS on its way.
struct scan_keys {
	struct scan scan;
	struct keyspace *keyspace;
	uint64_t cursor;
};

static void scan_keys_free(void *state)
{
	struct scan_keys *keys = state;
	keyspace_scan_over(keys->keyspace);
	glob_free(keys->scan.pattern);
	free(keys);
}

static struct scan_keys *scan_keys_begin(struct call *call)
{
	struct scan scan = { 0 };
	if (!scan_pattern(call, &scan, &call->argv[1])) {
		return NULL;
	}
	struct scan_keys *keys = calloc(1, sizeof(*keys));
	if (!keys) {
		glob_free(scan.pattern);
		commands_error(call, COMMANDS_TEXT_OOM);
		return NULL;
	}
	keys->keyspace = call->kvd->keyspace;
	keys->scan = scan;
	keys->scan.session = call->session;
	keyspace_scan_begins(keys->keyspace);
	call->state = keys;
	call->state_free = scan_keys_free;
	(void)reply_deferred_begin(call->session);
	return keys;
}

void commands_scan_keys(struct call *call)
{
	struct scan_keys *keys = call->state;
	if (!keys) {
		keys = scan_keys_begin(call);
	}
	if (!keys) {
		return;
	}
	do {
		keys->cursor =
			keyspace_view_scan(keys->keyspace, keys->cursor, scan_visit, &keys->scan);
	} while (keys->cursor && !call->session->dead && !commands_slice_over(call));
	call->again = keys->cursor && !call->session->dead;
	if (!call->again) {
		reply_deferred_end(call->session, call->mark, keys->scan.found_count);
	}
}

#define RANDOM_FEW 2048u    // keys, of which one is chosen by going through the whole table
#define RANDOM_WALK 65536u  // positions, twice a table of the smallest size: so far that goes
#define RANDOM_PROBES 4096u // positions of a full table to be drawn
#define RANDOM_PLACES 32u   // that every position is taken to have

/// Draws one of the keys that are visited.
struct scan_draw {
	uint64_t random; // state
	uint64_t places; // a key is drawn from so many places, filled or not; 0 = from those seen
	uint64_t seen;
	uint64_t wanted;
	unsigned probes; // so many were made
	unsigned walks;	 // so many were begun
	uint64_t cursor; // of the walk, up to end; equal = it is over
	uint64_t end;
	bool found;
	size_t key_bytes;
	unsigned char key[KVS_KEY_BYTES_MAX]; // a copy: the record may be gone in the next slice
};

static uint64_t scan_random(struct scan_draw *draw)
{
	uint64_t word = draw->random += UINT64_C(0x9e3779b97f4a7c15); // splitmix64
	word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
	return word ^ word >> 31;
}

static void scan_draw_visit(void *context, const void *key, size_t key_bytes,
			    const struct keyspace_value *value)
{
	struct scan_draw *draw = context;
	(void)value;
	draw->seen++;
	bool wanted = draw->places > 0 ? draw->seen - 1 == draw->wanted
				       : scan_random(draw) % draw->seen == 0;
	if (wanted) {
		memcpy(draw->key, key, key_bytes);
		draw->key_bytes = key_bytes;
		draw->found = true;
	}
}

/// A step of a walk through the table in plain order, to its end but not further than RANDOM_WALK.
static void scan_draw_walk(struct keyspace *keyspace, struct scan_draw *draw)
{
	uint64_t position = keyspace_view_skip(keyspace, draw->cursor, draw->end - draw->cursor);
	uint64_t cursor = keyspace_view_cursor(keyspace, position);
	bool more = keyspace_view_scan(keyspace, cursor, scan_draw_visit, draw) != 0;
	draw->cursor = more && position + 1 < draw->end ? position + 1 : draw->end;
}

/// One step. True if it is decided.
static bool scan_draw_step(struct keyspace *keyspace, struct scan_draw *draw)
{
	if (draw->probes < RANDOM_PROBES) {
		draw->probes++;
		draw->seen = 0;
		draw->wanted = scan_random(draw) % RANDOM_PLACES;
		uint64_t cursor = keyspace_view_cursor(keyspace, scan_random(draw));
		(void)keyspace_view_scan(keyspace, cursor, scan_draw_visit, draw);
		return draw->found;
	}
	if (draw->cursor < draw->end) {
		scan_draw_walk(keyspace, draw);
		return false;
	}
	if (draw->found || draw->walks == 2) {
		return true;
	}
	draw->places = 0;
	draw->seen = 0;
	draw->cursor = draw->walks++ == 0 ? 0 : scan_random(draw);
	draw->end = draw->cursor + RANDOM_WALK;
	return false;
}

static struct scan_draw *scan_draw_begin(struct call *call)
{
	struct scan_draw *draw = calloc(1, sizeof(*draw));
	if (!draw) {
		commands_error(call, COMMANDS_TEXT_OOM);
		return NULL;
	}
	call->kvd->seam->random_bytes(&draw->random, sizeof(draw->random));
	draw->places = RANDOM_PLACES;
	uint64_t count = keyspace_view_count(call->kvd->keyspace);
	draw->probes = count > RANDOM_FEW ? 0 : RANDOM_PROBES;
	draw->walks = count > 0 ? 0 : 2;
	call->state = draw;
	call->state_free = free;
	return draw;
}

/// Every key has the same chance. Of many, a position of the table is drawn, and a place of as many
/// as hardly any position fills; if nothing is there, the dice are thrown again. Of few keys one is
/// drawn by going through them all. A table that is too large for that has yet to shrink to what is
/// left in it: then only a part of it, from a drawn position on, is gone through as well, and if
/// that is empty the answer is null as if there were none.
void commands_scan_randomkey(struct call *call)
{
	struct scan_draw *draw = call->state ? call->state : scan_draw_begin(call);
	while (draw && !scan_draw_step(call->kvd->keyspace, draw)) {
		if (commands_slice_over(call)) {
			call->again = true;
			return;
		}
	}
	if (draw && draw->found) {
		reply_bulk(call->session, draw->key, draw->key_bytes);
	} else if (draw) {
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
		if (__builtin_expect(call->kvd->events_wanted & EVENT_FLUSH, 0)) {
			events_add(call->kvd, EVENT_FLUSH, "flush", "", 0);
		}
		reply_ok(call->session);
	}
}

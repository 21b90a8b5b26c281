// SPDX-License-Identifier: MIT
//
// One key: the search of Wing and Gong for an order, with the memory of Lowe for what failed. What
// changes nothing and fits the present value is always taken at once, which loses no order, so only
// writes branch; and of writes whose version is known only the next can come. An operation that was
// never answered may be left out.
#include <stdlib.h>
#include <string.h>

#include "tests/history/check.h"

#define STEPS_MAX UINT64_C(5000000)
#define SEEN_START 1024u

struct state {
	uint64_t value;	  // 0 = absent
	uint64_t version; // of that value, 0 = unknown
	uint64_t floor;	  // highest version that this key had
};

// States that lead nowhere, by a hash of 64 bits: two that share one are not expected in a lifetime
// of histories.
struct seen {
	uint64_t *word;
	size_t capacity; // power of two
	size_t count;
};

struct search {
	struct history_operation *operations;
	size_t count;
	size_t left; // answered operations that have no place yet
	struct seen seen;
	uint64_t hash; // of those that have one
	uint64_t steps;
	bool failed; // given up
};

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static bool seen_grow(struct seen *seen)
{
	size_t capacity = seen->capacity == 0 ? SEEN_START : seen->capacity * 2;
	uint64_t *word = calloc(capacity, sizeof(*word));
	if (word == NULL) {
		return false;
	}
	for (size_t i = 0; i < seen->capacity; i++) {
		size_t at = seen->word[i] & (capacity - 1);
		while (seen->word[i] != 0 && word[at] != 0) {
			at = (at + 1) & (capacity - 1);
		}
		word[at] = seen->word[i] != 0 ? seen->word[i] : word[at];
	}
	free(seen->word);
	seen->word = word;
	seen->capacity = capacity;
	return true;
}

// 1 if it was not there, 0 if it was, -1 without memory.
static int seen_add(struct seen *seen, uint64_t hash)
{
	if (seen->count * 2 >= seen->capacity && !seen_grow(seen)) {
		return -1;
	}
	hash |= 1;
	size_t at = hash & (seen->capacity - 1);
	while (seen->word[at] != 0) {
		if (seen->word[at] == hash) {
			return 0;
		}
		at = (at + 1) & (seen->capacity - 1);
	}
	seen->word[at] = hash;
	seen->count++;
	return 1;
}

// Does the version of `state` agree with one that was told? Either may be unknown.
static bool agrees(const struct state *state, uint64_t version)
{
	return state->version == 0 || version == 0 || state->version == version;
}

// Would a swap that expects `expected` be applied? 1, 0, or -1: either.
static int swap_applies(const struct state *state, uint64_t expected)
{
	if (expected == 0 || state->value == 0) {
		return expected == 0 && state->value == 0;
	}
	return state->version == 0 ? -1 : state->version == expected;
}

/// Changes nothing?
static bool is_pure(const struct history_operation *o)
{
	return o->kind == HISTORY_READ || o->result == HISTORY_NOT_APPLIED ||
	       (o->kind == HISTORY_DELETE && o->result == HISTORY_ABSENT);
}

static bool pure_fits(const struct history_operation *o, const struct state *state)
{
	if (o->kind == HISTORY_READ) {
		return o->result == HISTORY_ABSENT
			       ? state->value == 0
			       : state->value == o->value && agrees(state, o->version);
	}
	return o->kind == HISTORY_DELETE ? state->value == 0
					 : swap_applies(state, o->expected) != 1;
}

// The state after a write; false if it cannot come now.
static bool apply(const struct history_operation *o, const struct state *before,
		  struct state *after)
{
	*after = *before;
	bool open = o->result == HISTORY_OPEN;
	switch (o->kind) {
	case HISTORY_DELETE:
		after->value = 0;
		after->version = 0;
		return open || before->value != 0;
	case HISTORY_BATCH_DELETE:
		after->value = 0;
		after->version = 0;
		return true;
	case HISTORY_INCREMENT:
		after->value++;
		after->version = 0;
		return open || after->value == o->value;
	case HISTORY_SWAP:
		if (swap_applies(before, o->expected) == 0) {
			return false;
		}
		break;
	default:
		break;
	}
	if (o->version != 0 && o->version <= before->floor) {
		return false;
	}
	after->value = o->value;
	after->version = o->version;
	after->floor = o->version != 0 ? o->version : before->floor;
	return true;
}

static void place(struct search *s, size_t i, bool done)
{
	struct history_operation *o = &s->operations[i];
	o->done = done;
	s->hash ^= mix(i + 1);
	if (o->end_ns != UINT64_MAX) {
		s->left += done ? (size_t)-1 : 1;
	}
}

// Whether operation i may come next is told by going through them in order: it must have begun
// before any that has no place yet ended.
struct window {
	size_t first;
	size_t i;
	uint64_t soonest_end_ns;
};

static bool window_next(const struct search *s, struct window *w, size_t *out)
{
	for (; w->i < s->count; w->i++) {
		const struct history_operation *o = &s->operations[w->i];
		if (o->done) {
			continue;
		}
		if (o->begin_ns > w->soonest_end_ns) {
			return false;
		}
		if (o->end_ns < w->soonest_end_ns) {
			w->soonest_end_ns = o->end_ns;
		}
		*out = w->i++;
		return true;
	}
	return false;
}

static size_t first_open(const struct search *s, size_t from)
{
	while (from < s->count && s->operations[from].done) {
		from++;
	}
	return from;
}

// Takes all that fits and changes nothing. Returns how many; they are put on `trail`.
static size_t take_pure(struct search *s, size_t first, const struct state *state, size_t *trail)
{
	size_t taken = 0;
	bool again = true;
	while (again) {
		struct window w = { .i = first_open(s, first), .soonest_end_ns = UINT64_MAX };
		size_t i;
		again = false;
		while (window_next(s, &w, &i)) {
			if (is_pure(&s->operations[i]) && pure_fits(&s->operations[i], state)) {
				place(s, i, true);
				trail[taken++] = i;
				again = true;
			}
		}
	}
	return taken;
}

static bool search_on(struct search *s, size_t first, const struct state *state, size_t *trail)
{
	size_t taken = take_pure(s, first, state, trail);
	if (s->left == 0) {
		return true;
	}
	first = first_open(s, first);
	// Each part from numbers of its own, or a value and an operation would cancel out.
	uint64_t key = s->hash ^ mix(state->value ^ UINT64_C(1) << 61) ^
		       mix(state->version ^ UINT64_C(1) << 62) ^
		       mix(state->floor ^ UINT64_C(1) << 63);
	int fresh = seen_add(&s->seen, key);
	s->failed = s->failed || fresh < 0 || ++s->steps > STEPS_MAX;
	struct window w = { .i = first, .soonest_end_ns = UINT64_MAX };
	size_t i;
	while (fresh > 0 && !s->failed && window_next(s, &w, &i)) {
		struct state after;
		if (is_pure(&s->operations[i]) || !apply(&s->operations[i], state, &after)) {
			continue;
		}
		place(s, i, true);
		if (search_on(s, first, &after, trail + taken)) {
			return true;
		}
		place(s, i, false);
	}
	for (; taken > 0; taken--) {
		place(s, trail[taken - 1], false);
	}
	return false;
}

int history_key_linear(struct history_operation *operations, size_t count, uint64_t value,
		       uint64_t version, uint64_t *steps)
{
	struct search s = { .operations = operations, .count = count };
	struct state start = { .value = value, .version = version, .floor = version };
	size_t *trail = calloc(count + 1, sizeof(*trail));
	for (size_t i = 0; i < count; i++) {
		operations[i].done = false;
		s.left += operations[i].end_ns != UINT64_MAX;
	}
	bool found = trail != NULL && search_on(&s, 0, &start, trail);
	s.failed = s.failed || trail == NULL;
	*steps += s.steps;
	free(trail);
	free(s.seen.word);
	return found ? 1 : s.failed ? -1 : 0;
}

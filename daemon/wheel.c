// SPDX-License-Identifier: MIT
//
// Where an item stands follows from the highest digit in which its time differs from the wheel's
// own; so all of one level comes before all of the next, and the first slot of the lowest level
// that has one is the next event. Whenever the wheel's time reaches a digit's start, what stands
// there is detached: no slot is ever passed over, and none is waited for while it is worked off.
#include "daemon/wheel.h"

#include <string.h>

static unsigned level_shift(unsigned level)
{
	return WHEEL_SLOT_SHIFT + WHEEL_DIGIT_BITS * level;
}

static unsigned digit_of(uint64_t time_ms, unsigned level)
{
	return (unsigned)(time_ms >> level_shift(level)) & (WHEEL_SLOTS - 1);
}

static uint64_t slot_start_of(uint64_t time_ms)
{
	return time_ms >> WHEEL_SLOT_SHIFT << WHEEL_SLOT_SHIFT;
}

static bool list_add(struct wheel *wheel, struct wheel_list *list, uint64_t item, uint64_t time_ms)
{
	struct wheel_pool *pool = &wheel->pool;
	struct wheel_chunk *chunk = list->last != 0 ? wheel_pool_chunk(pool, list->last) : NULL;
	if (__builtin_expect(chunk == NULL || chunk->count == WHEEL_CHUNK_ITEMS, 0)) {
		uint32_t number = wheel_pool_take(pool);
		if (number == 0) {
			return false;
		}
		if (chunk != NULL) {
			chunk->next = number;
		} else {
			list->first = number;
		}
		list->last = number;
		chunk = wheel_pool_chunk(pool, number);
		chunk->next = 0;
		chunk->number = number;
		chunk->count = 0;
		chunk->time_ms = time_ms;
	}
	chunk->items[chunk->count++] = item;
	wheel->items++;
	return true;
}

static void list_join(struct wheel *wheel, struct wheel_list *to, struct wheel_list *from)
{
	if (from->first == 0) {
		return;
	}
	if (to->first == 0) {
		to->first = from->first;
	} else {
		wheel_pool_chunk(&wheel->pool, to->last)->next = from->first;
	}
	to->last = from->last;
	*from = (struct wheel_list){ 0 };
}

// Where an item of this time belongs. Marks the slot as occupied.
static struct wheel_list *list_for(struct wheel *wheel, uint64_t time_ms, uint64_t now_ms)
{
	if (time_ms < wheel->at_ms) {
		return time_ms <= now_ms ? &wheel->works[WHEEL_DUE] : &wheel->early;
	}
	uint64_t differs = (time_ms ^ wheel->at_ms) >> WHEEL_SLOT_SHIFT;
	unsigned level = (63u - (unsigned)__builtin_clzll(differs | 1)) / WHEEL_DIGIT_BITS;
	if (level >= WHEEL_LEVELS) {
		return &wheel->far;
	}
	unsigned digit = digit_of(time_ms, level);
	wheel->occupied[level] |= UINT64_C(1) << digit;
	return &wheel->slots[level][digit];
}

bool wheel_put(struct wheel *wheel, uint64_t place, uint64_t time_ms, uint64_t now_ms)
{
	if (wheel->items == 0) {
		wheel->at_ms = slot_start_of(now_ms); // nothing stands relative to the former one
	}
	uint64_t item = place << WHEEL_TIME_BITS | (time_ms & WHEEL_TIME_MASK);
	return list_add(wheel, list_for(wheel, time_ms, now_ms), item, time_ms);
}

static void detach(struct wheel *wheel, unsigned level, unsigned digit, enum wheel_work work)
{
	wheel->occupied[level] &= ~(UINT64_C(1) << digit);
	list_join(wheel, &wheel->works[work], &wheel->slots[level][digit]);
}

// The wheel's time becomes `at_ms`, the start of a slot behind all that is detached so far: what
// stands at that digit of upper levels has to go down, or is due as a whole.
static void move_to(struct wheel *wheel, uint64_t at_ms, uint64_t now_ms)
{
	if (at_ms >> WHEEL_SPAN_SHIFT != wheel->at_ms >> WHEEL_SPAN_SHIFT) {
		list_join(wheel, &wheel->works[WHEEL_LOOK], &wheel->far);
	}
	wheel->at_ms = at_ms;
	for (unsigned level = 1; level < WHEEL_LEVELS; level++) {
		uint64_t slot_ms = UINT64_C(1) << level_shift(level);
		if ((at_ms & (slot_ms - 1)) != 0) {
			break;
		}
		enum wheel_work work = at_ms + slot_ms <= now_ms    ? WHEEL_DUE
				       : level < WHEEL_LEVELS_KNOWN ? WHEEL_SORT
								    : WHEEL_LOOK;
		detach(wheel, level, digit_of(at_ms, level), work);
	}
}

// When the next slot ends, if it is of the first level, or begins, if it has to go down.
static uint64_t next_event_ms(const struct wheel *wheel)
{
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		if (wheel->occupied[level] != 0) {
			unsigned shift = level_shift(level);
			uint64_t digit = (unsigned)__builtin_ctzll(wheel->occupied[level]);
			uint64_t above = wheel->at_ms >> (shift + WHEEL_DIGIT_BITS);
			uint64_t slot = above << WHEEL_DIGIT_BITS | digit;
			return (slot + (level == 0)) << shift;
		}
	}
	return wheel->far.first != 0 ? ((wheel->at_ms >> WHEEL_SPAN_SHIFT) + 1) << WHEEL_SPAN_SHIFT
				     : UINT64_MAX;
}

// Wall time was set back: everything is put anew, relative to now.
static void seat_anew(struct wheel *wheel, uint64_t now_ms)
{
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		while (wheel->occupied[level] != 0) {
			unsigned digit = (unsigned)__builtin_ctzll(wheel->occupied[level]);
			detach(wheel, level, digit,
			       level < WHEEL_LEVELS_KNOWN ? WHEEL_SORT : WHEEL_LOOK);
		}
	}
	list_join(wheel, &wheel->works[WHEEL_LOOK], &wheel->far);
	list_join(wheel, &wheel->works[WHEEL_LOOK], &wheel->early);
	wheel->at_ms = slot_start_of(now_ms);
}

void wheel_advance(struct wheel *wheel, uint64_t now_ms)
{
	if (wheel->at_ms > now_ms && wheel->at_ms - now_ms > WHEEL_BACK_MS) {
		seat_anew(wheel, now_ms);
	}
	if (now_ms >= wheel->at_ms) {
		list_join(wheel, &wheel->works[WHEEL_DUE], &wheel->early);
	}
	// At most one step for each slot: a step empties one, and nothing is filled here.
	uint64_t event_ms = next_event_ms(wheel);
	for (; event_ms <= now_ms; event_ms = next_event_ms(wheel)) {
		if (wheel->occupied[0] != 0) {
			detach(wheel, 0, (unsigned)__builtin_ctzll(wheel->occupied[0]), WHEEL_DUE);
		}
		move_to(wheel, event_ms, now_ms);
	}
	if (slot_start_of(now_ms) > wheel->at_ms) {
		wheel->at_ms = slot_start_of(now_ms); // no slot begins on the way there
	}
}

uint64_t wheel_next_ms(const struct wheel *wheel)
{
	for (unsigned work = 0; work < WHEEL_WORKS; work++) {
		if (wheel->works[work].first != 0) {
			return 0;
		}
	}
	uint64_t event_ms = next_event_ms(wheel);
	return wheel->early.first != 0 && wheel->at_ms < event_ms ? wheel->at_ms : event_ms;
}

struct wheel_chunk *wheel_take(struct wheel *wheel, enum wheel_work work)
{
	struct wheel_list *list = &wheel->works[work];
	if (list->first == 0) {
		return NULL;
	}
	struct wheel_chunk *chunk = wheel_pool_chunk(&wheel->pool, list->first);
	list->first = chunk->next;
	if (list->first == 0) {
		list->last = 0;
	}
	chunk->next = 0;
	wheel->items -= chunk->count;
	return chunk;
}

void wheel_drop(struct wheel *wheel, struct wheel_chunk *chunk)
{
	wheel_pool_give(&wheel->pool, chunk->number);
}

void wheel_put_back(struct wheel *wheel, enum wheel_work work, struct wheel_chunk *chunk,
		    uint32_t from)
{
	if (from >= chunk->count) {
		wheel_drop(wheel, chunk);
		return;
	}
	struct wheel_list *list = &wheel->works[work];
	chunk->count -= from;
	memmove(chunk->items, chunk->items + from, chunk->count * sizeof(chunk->items[0]));
	chunk->next = list->first;
	list->first = chunk->number;
	if (list->last == 0) {
		list->last = chunk->number;
	}
	wheel->items += chunk->count;
}

bool wheel_sort(struct wheel *wheel, uint64_t now_ms)
{
	struct wheel_chunk *chunk = wheel_take(wheel, WHEEL_SORT);
	bool good = true;
	if (chunk == NULL) {
		return true;
	}
	wheel->sorted += chunk->count;
	for (uint32_t i = 0; i < chunk->count; i++) {
		uint64_t time_ms =
			(chunk->time_ms & ~WHEEL_TIME_MASK) | (chunk->items[i] & WHEEL_TIME_MASK);
		good = list_add(wheel, list_for(wheel, time_ms, now_ms), chunk->items[i],
				time_ms) &&
		       good;
	}
	wheel_drop(wheel, chunk);
	return good;
}

uint64_t wheel_lag_ms(const struct wheel *wheel, uint64_t now_ms)
{
	if (!wheel_has(wheel, WHEEL_DUE)) {
		return 0;
	}
	uint32_t first = wheel->works[WHEEL_DUE].first;
	uint64_t time_ms = wheel_pool_chunk(&wheel->pool, first)->time_ms;
	return now_ms > time_ms ? now_ms - time_ms : 0;
}

bool wheel_sweep(struct wheel *wheel, bool due)
{
	while (wheel->sweep_next < WHEEL_LEVELS * WHEEL_SLOTS) {
		unsigned level = wheel->sweep_next / WHEEL_SLOTS;
		unsigned digit = wheel->sweep_next++ % WHEEL_SLOTS;
		if (wheel->slots[level][digit].first != 0) {
			detach(wheel, level, digit, WHEEL_LOOK);
			return true;
		}
	}
	wheel->sweep_next = 0;
	list_join(wheel, &wheel->works[WHEEL_LOOK], &wheel->far);
	list_join(wheel, &wheel->works[WHEEL_LOOK], &wheel->early);
	if (due) {
		list_join(wheel, &wheel->works[WHEEL_LOOK], &wheel->works[WHEEL_DUE]);
	}
	return false;
}

static void visit_list(const struct wheel *wheel, const struct wheel_list *list,
		       void (*visit)(void *context, uint64_t item), void *context)
{
	for (uint32_t number = list->first; number != 0;) {
		const struct wheel_chunk *chunk = wheel_pool_chunk(&wheel->pool, number);
		for (uint32_t i = 0; i < chunk->count; i++) {
			visit(context, chunk->items[i]);
		}
		number = chunk->next;
	}
}

void wheel_visit(const struct wheel *wheel, void (*visit)(void *context, uint64_t item),
		 void *context)
{
	for (unsigned i = 0; i < WHEEL_LEVELS * WHEEL_SLOTS; i++) {
		visit_list(wheel, &wheel->slots[i / WHEEL_SLOTS][i % WHEEL_SLOTS], visit, context);
	}
	for (unsigned i = 0; i < WHEEL_WORKS; i++) {
		visit_list(wheel, &wheel->works[i], visit, context);
	}
	visit_list(wheel, &wheel->far, visit, context);
	visit_list(wheel, &wheel->early, visit, context);
}

static void forget(struct wheel *wheel)
{
	memset(wheel->occupied, 0, sizeof(wheel->occupied));
	memset(wheel->slots, 0, sizeof(wheel->slots));
	memset(wheel->works, 0, sizeof(wheel->works));
	wheel->far = (struct wheel_list){ 0 };
	wheel->early = (struct wheel_list){ 0 };
	wheel->items = 0;
	wheel->sweep_next = 0;
}

void wheel_clear(struct wheel *wheel, struct reclaim *reclaim)
{
	forget(wheel);
	wheel_pool_clear(&wheel->pool, reclaim);
}

void wheel_fini(struct wheel *wheel)
{
	forget(wheel);
	wheel_pool_fini(&wheel->pool);
}

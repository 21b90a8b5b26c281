// SPDX-License-Identifier: MIT
//
// The writer's part of a moment: before a wanted key changes for the first time, what it was is
// noted, by address. That costs a write one branch while no moment is open.
#include <stdlib.h>

#include "daemon/keyspace_moment_parts.h"

static const unsigned char moment_nothing[1]; // stands for a value that is not of interest

static bool moment_pin_run(struct keyspace_moment *moment, uint64_t run)
{
	if (moment->runs_count == moment->runs_capacity) {
		uint32_t capacity = moment->runs_capacity ? moment->runs_capacity * 2 : 16;
		uint64_t *runs = reallocarray(moment->runs, capacity, sizeof(*runs));
		if (runs == NULL) {
			return false;
		}
		moment->runs = runs;
		moment->runs_capacity = capacity;
	}
	kvs_large_hold(&moment->keyspace->large, run);
	moment->runs[moment->runs_count++] = run;
	return true;
}

// Notes a value, which stays where it is; NULL = absent. `run` is where a large one stands, 0 = in
// the log.
static void moment_note(struct keyspace_moment *moment, uint32_t index, const unsigned char *value,
			uint32_t bytes, uint64_t run)
{
	struct moment_note *note = &moment->notes[index];
	if (!moment_is_noted(note)) {
		uint32_t *link =
			moment->last ? &moment->notes[moment->last - 1].next : &moment->first;
		*link = moment->last = index + 1;
		moment->notes_count++;
	}
	if (value == NULL) {
		note->value = NULL;
		note->bytes = MOMENT_ABSENT;
		return;
	}
	note->value = moment->values ? value : moment_nothing;
	note->bytes = moment->values ? bytes : 0;
	if (!moment->values || value == moment_nothing) {
		return;
	}
	if (run != 0) {
		moment->is_lost = moment->is_lost || !moment_pin_run(moment, run);
		return;
	}
	const struct keyspace *keyspace = moment->keyspace;
	uint64_t offset = (uintptr_t)value - (uintptr_t)keyspace->region->base;
	uint32_t segment = kvs_log_segment_of(&keyspace->log, offset - 1); // it may be empty
	moment->segments[segment / 64] |= UINT64_C(1) << (segment % 64);
	moment->is_held = true;
	// Behind a FLUSHALL a note may be made anew, wherever it stands: from the first on.
	uint32_t from = moment->is_flushed ? moment->first : index + 1;
	moment->unsettled = moment->unsettled ? moment->unsettled : from;
}

static void moment_note_old(struct keyspace_moment *moment, uint32_t index,
			    const struct keyspace_op *op, const struct kvs_hit *hit)
{
	bool there = hit != NULL && hit->kind != KVS_ENTRY_TOMBSTONE &&
		     (hit->view.expiry_ms == 0 || hit->view.expiry_ms > moment->now_ms);
	if (moment_is_noted(&moment->notes[index]) || (!there && op->kind != KEYSPACE_OP_SET)) {
		return;
	}
	if (there && hit->kind == KVS_ENTRY_STUB) {
		moment->is_torn = moment->is_torn || moment->values;
		moment_note(moment, index, moment_nothing, 0, 0);
		return;
	}
	bool large = there && (hit->view.flags & KVS_RECORD_LARGE) != 0;
	moment_note(moment, index, there ? hit->value : NULL, there ? hit->view.value_bytes : 0,
		    large ? kvs_record_run(&hit->view).offset : 0);
}

// The rest of a batch with a FLUSHALL: what it leaves behind.
static void moment_note_new(struct keyspace_moment *moment, uint32_t index,
			    const struct keyspace_op *op)
{
	const struct keyspace *keyspace = moment->keyspace;
	const unsigned char *base = keyspace->region->base;
	struct kvs_record_view view;
	bool there = op->kind == KEYSPACE_OP_SET &&
		     (op->expiry_ms == 0 || op->expiry_ms > keyspace->now_ms) &&
		     kvs_record_parse(base + op->offset, op->record_bytes, &view) == 0;
	const unsigned char *value = NULL;
	if (there) {
		value = op->run_offset != 0 ? base + op->run_offset : view.payload;
	}
	moment_note(moment, index, value, op->value_bytes, op->run_offset);
}

void keyspace_moments_see(struct keyspace *keyspace, const struct keyspace_op *op,
			  const struct kvs_hit *hit)
{
	struct keyspace_moment *moment;
	LIST_FOREACH (moment, &keyspace->moments, link) {
		if (moment->is_final || moment->is_lost) {
			continue;
		}
		uint64_t hash = kvs_hash(moment->seed, op->key, op->key_bytes);
		uint32_t place = *moment_place(moment, hash, op->key, op->key_bytes);
		uint32_t index = (place & MOMENT_INDEX_MASK) - 1;
		if (place == 0 || index < moment->next) {
			continue; // nobody wants it, or nobody any more
		}
		if (moment->is_flushed) {
			moment_note_new(moment, index, op);
		} else {
			moment_note_old(moment, index, op, hit);
		}
	}
}

void keyspace_moment_unpin(struct keyspace_moment *moment)
{
	for (uint32_t i = 0; i < moment->runs_count; i++) {
		keyspace_unpin(moment->keyspace, moment->runs[i]);
	}
	moment->runs_count = 0;
	if (moment->is_held) {
		memset(moment->segments, 0, moment->segments_words * sizeof(*moment->segments));
	}
	moment->is_held = false;
}

// Forgets all notes. What it takes is in proportion to what was noted, and never long.
static void moment_clear(struct keyspace_moment *moment)
{
	size_t bytes = moment->count * sizeof(*moment->notes);
	keyspace_moment_unpin(moment);
	if (moment->notes_count > MOMENT_WALK_MAX) {
		struct moment_note *notes = kvs_mapped_alloc(bytes);
		moment->is_lost = moment->is_lost || notes == NULL;
		if (notes != NULL) {
			reclaim_free_mapped(&moment->keyspace->reclaim, moment->notes, bytes);
			moment->notes = notes;
		}
	} else {
		for (uint32_t at = moment->first; at != 0;) {
			struct moment_note *note = &moment->notes[at - 1];
			at = note->next;
			*note = (struct moment_note){ 0 };
		}
	}
	moment->notes_count = moment->first = moment->last = moment->unsettled = 0;
}

void keyspace_moments_flush(struct keyspace *keyspace)
{
	struct keyspace_moment *moment;
	LIST_FOREACH (moment, &keyspace->moments, link) {
		if (!moment->is_final) {
			moment_clear(moment);
			moment->is_flushed = true;
			moment->is_anew = true;
			moment->next = 0; // what was read is older than that
			moment->is_final = !keyspace->batch.open;
		}
	}
}

void keyspace_moments_batch_over(struct keyspace *keyspace)
{
	struct keyspace_moment *moment;
	LIST_FOREACH (moment, &keyspace->moments, link) {
		moment->is_final = moment->is_flushed;
	}
}

bool keyspace_moments_hold(const struct keyspace *keyspace, uint32_t segment)
{
	const struct keyspace_moment *moment;
	LIST_FOREACH (moment, &keyspace->moments, link) {
		if (moment->segments[segment / 64] >> (segment % 64) & 1) {
			return true;
		}
	}
	return false;
}

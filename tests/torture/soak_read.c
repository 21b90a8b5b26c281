// SPDX-License-Identifier: MIT
//
// The readers of a soak, and what they may find. What was loaded of a key's state before it is read
// bounds what may be found from below, what is loaded behind it from above; a key that was being
// written meanwhile may be absent for a reason that is not known here, and is not judged.
#include <time.h>
#include <unistd.h>

#include "tests/torture/soak_clients.h"

static uint64_t pick_key(uint64_t *random)
{
	uint64_t dice = tap_random(random);
	uint64_t within = dice >> 8;
	switch (dice % 4) {
	case 0:
		return within % KEPT_KEYS;
	case 1:
		return KEPT_KEYS + within % ENDING_KEYS;
	case 2:
		return KEPT_KEYS + ENDING_KEYS + within % (CACHE_KEYS / 20); // often
	default:
		return KEPT_KEYS + ENDING_KEYS + within % CACHE_KEYS;
	}
}

static struct key_state state_of(uint64_t key)
{
	const struct key_state *state = &soak->key[key];
	// `sent` first: what is read behind it may only be later (judge_absent() looks again).
	struct key_state copy = { .sent = load(&state->sent) };
	copy.acked = load(&state->acked);
	copy.removed = load(&state->removed);
	copy.ends_ms = load(&state->ends_ms);
	copy.phase = load(&state->phase);
	if (copy.phase % 2 == 0 || copy.phase != load(&soak->phase)) {
		copy.phase = 0;
	}
	return copy;
}

static void saw(struct reading *r, int status, uint64_t key, const struct key_state *before,
		uint64_t before_ms, const unsigned char *value, const struct kvc_meta *meta)
{
	struct sight sight = { .key = key, .before = *before, .before_ms = before_ms };
	if (status == KVC_UNREACHABLE || status == KVC_TIMEOUT) {
		add(&soak->unreachable, 1); // not through the mapping: kvd was away
		return;
	}
	if (status == KVC_REVOKED) {
		add(&soak->revoked, 1);
		return;
	}
	if (status != KVC_OK && status != KVC_NOT_FOUND) {
		add(&soak->failed, 1);
		store(&soak->last_error, (uint64_t)(int64_t)status);
		return;
	}
	if (status == KVC_OK) {
		add(&soak->from_socket, (meta->flags & KVC_META_SOCKET) != 0);
		sight.found = true;
		sight.whole = meta->value_bytes >= VALUE_LEAST &&
			      value_check(value, meta->value_bytes, key, &sight.count);
		if (sight.whole) {
			memcpy(&sight.ends_ms, value + VALUE_BYTES_MIN, EXPIRY_BYTES);
		}
	}
	r->sights[r->count++] = sight;
}

// Nothing was evicted between the write that was acknowledged last and the look behind the read.
static bool stays(const struct key_state *before, const struct key_state *after)
{
	return before->phase != 0 && before->phase == after->phase && before->acked == before->sent;
}

static bool may_be_absent(const struct sight *sight, const struct key_state *after)
{
	uint64_t now_ms = wall_ms();
	const struct key_state *before = &sight->before;
	uint64_t ends_ms = after->ends_ms < before->ends_ms ? after->ends_ms : before->ends_ms;
	return (is_cached(sight->key) && !stays(before, after)) || before->acked == 0 ||
	       before->removed >= before->acked || (ends_ms != 0 && ends_ms <= now_ms);
}

// Call with: the section over, and not revoked.
static void judge_all(struct reading *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		const struct sight *sight = &r->sights[i];
		const struct key_state after = state_of(sight->key);
		add(&soak->reads, 1);
		if (!sight->found) {
			bool unsure = after.sent != sight->before.sent; // it was being written
			add(&soak->unjudged, unsure);
			add(&soak->missed, !unsure && !may_be_absent(sight, &after));
		} else if (!sight->whole) {
			add(&soak->broken, 1);
		} else {
			add(&soak->old, sight->count < sight->before.acked);
			add(&soak->unsent, sight->count > after.sent);
			add(&soak->dead, sight->ends_ms != 0 && sight->ends_ms <= sight->before_ms);
		}
	}
	r->count = 0;
}

static void read_views(struct reading *r)
{
	uint64_t key[VIEWS];
	struct key_state before[VIEWS];
	for (unsigned i = 0; i < VIEWS; i++) {
		key[i] = pick_key(&r->random);
		before[i] = state_of(key[i]);
	}
	uint64_t before_ms = wall_ms();
	int status = kvc_begin(r->reader);
	if (status != KVC_OK) {
		saw(r, status, 0, before, 0, NULL, NULL);
		r->count = 0;
		return;
	}
	for (unsigned i = 0; i < VIEWS; i++) {
		char name[24];
		struct kvc_view view = { 0 };
		status = kvc_view(r->reader, name, name_of(name, key[i]), &view);
		saw(r, status, key[i], &before[i], before_ms, view.value, &view.meta);
	}
	status = kvc_end(r->reader);
	if (status != KVC_OK) {
		r->count = 0; // what was seen may have been anything
		add(&soak->revoked, 1);
	}
	judge_all(r);
}

bool read_copy(struct reading *r, uint64_t key)
{
	char name[24];
	struct kvc_meta meta = { 0 };
	struct key_state before = state_of(key);
	uint64_t before_ms = wall_ms();
	int status = kvc_get(r->reader, name, name_of(name, key), r->copy, sizeof(r->copy), &meta);
	saw(r, status, key, &before, before_ms, r->copy, &meta);
	judge_all(r);
	return status == KVC_OK;
}

void reader_process(unsigned actor, uint64_t random)
{
	static struct reading r;
	unsigned rounds = 0;
	r.random = random;
	r.reader = open_reader(open_client(0));
	while (load(&soak->stop) == 0) {
		pass_gate(actor);
		if (++rounds % 8 == 0) {
			(void)usleep(500); // the others need the processors, too
		}
		if (tap_random(&r.random) % 2) {
			read_views(&r);
		} else {
			read_copy(&r, pick_key(&r.random));
		}
	}
	_exit(0);
}

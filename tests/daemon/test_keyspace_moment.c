// SPDX-License-Identifier: MIT
//
// Reads of many keys at one moment: whatever is written, expires, is renamed, flushed, cleaned or
// collapsed between any two of them, each value is the one of the moment. A model of all keys is
// kept beside the keyspace and copied when a moment is opened.
#include "daemon/keyspace_moment.h"
#include "tests/daemon/keyspace_fixture.h"

#define KEYS 240u
#define WANTED_MAX 400u
#define SMALL 40u
#define MIDDLE 9000u
#define LARGE 30000u // more than a quarter of a segment

struct model {
	bool there;
	uint32_t fill;
	uint32_t bytes;
	uint64_t expiry_ms;
};

static struct fixture f;
static struct model model[KEYS];
static uint64_t random_state;
static uint32_t fills;

static uint32_t draw(uint32_t below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(random_state >> 33) % below;
}

static struct resp_arg key_of(uint32_t key)
{
	static char names[KEYS][8];
	int n = snprintf(names[key], sizeof(names[key]), "k%u", key);
	return (struct resp_arg){ names[key], (size_t)n };
}

static void fill_value(unsigned char *out, uint32_t bytes, uint32_t fill)
{
	for (uint32_t i = 0; i < bytes; i++) {
		out[i] = (unsigned char)(fill * 31 + i * (fill | 1));
	}
}

static bool alive(const struct model *key, uint64_t now_ms)
{
	return key->there && (key->expiry_ms == 0 || key->expiry_ms > now_ms);
}

// ---- one write, in the keyspace and in the model ----

static void write_set(uint32_t key, uint32_t bytes, uint64_t expiry_ms)
{
	static unsigned char value[LARGE];
	struct resp_arg name = key_of(key);
	fill_value(value, bytes, ++fills);
	int result = keyspace_set(f.keyspace, name.data, name.bytes, value, bytes, expiry_ms, NULL);
	if (result == KEYSPACE_OK) {
		model[key] = (struct model){ true, fills, bytes, expiry_ms };
	} else {
		ok_int(result, KEYSPACE_WAIT, "a write");
	}
}

static void write_delete(uint32_t key)
{
	struct resp_arg name = key_of(key);
	int result = keyspace_delete(f.keyspace, name.data, name.bytes);
	if (result == KEYSPACE_OK || result == KEYSPACE_ABSENT) {
		model[key].there = false;
	}
}

static void write_expire(uint32_t key)
{
	struct resp_arg name = key_of(key);
	uint64_t expiry_ms = draw(3) ? fixture_wall_ms + 1 + draw(40) : 0;
	if (keyspace_expire(f.keyspace, name.data, name.bytes, expiry_ms) == KEYSPACE_OK) {
		model[key].expiry_ms = expiry_ms;
	}
}

// RENAME, as a batch of its own unless one is open.
static void write_rename(uint32_t from, uint32_t to, bool in_batch)
{
	struct resp_arg a = key_of(from);
	struct resp_arg b = key_of(to);
	if (from == to) {
		return;
	}
	if (!in_batch) {
		keyspace_batch_begin(f.keyspace);
	}
	bool good =
		keyspace_rename_copy(f.keyspace, a.data, a.bytes, b.data, b.bytes) == KEYSPACE_OK &&
		keyspace_delete(f.keyspace, a.data, a.bytes) == KEYSPACE_OK;
	if (!in_batch) {
		good = keyspace_batch_commit(f.keyspace) == KEYSPACE_OK && good;
	}
	if (good) {
		model[to] = model[from];
		model[from].there = false;
	}
}

static void write_one(bool in_batch)
{
	static const uint32_t sizes[] = { 0, SMALL, SMALL, MIDDLE, LARGE };
	uint32_t key = draw(KEYS);
	switch (draw(8)) {
	case 0:
		write_delete(key);
		break;
	case 1:
		write_expire(key);
		break;
	case 2:
		write_rename(key, draw(KEYS), in_batch);
		break;
	default:
		write_set(key, sizes[draw(5)], draw(4) ? 0 : fixture_wall_ms + 1 + draw(60));
		break;
	}
}

// A batch; true if there was a FLUSHALL in it.
static bool write_batch(bool flush)
{
	struct model before[KEYS];
	memcpy(before, model, sizeof(before));
	keyspace_batch_begin(f.keyspace);
	uint32_t count = 1 + draw(12);
	for (uint32_t i = 0; i < count; i++) {
		if (flush && (i == count / 2 || i == count / 3)) {
			(void)keyspace_flush(f.keyspace);
			memset(model, 0, sizeof(model));
		}
		write_one(true);
	}
	if (keyspace_batch_commit(f.keyspace) != KEYSPACE_OK) {
		memcpy(model, before, sizeof(before));
		return false;
	}
	return flush;
}

static void churn(uint32_t writes)
{
	static unsigned char value[SMALL * 20];
	for (uint32_t i = 0; i < writes; i++) {
		(void)keyspace_set(f.keyspace, "other", 5, value, sizeof(value), 0, NULL);
	}
	fixture_durable(&f);
}

// ---- a moment beside the model ----

struct wanted {
	struct keyspace_moment *moment;
	struct resp_arg args[WANTED_MAX];
	uint32_t key[WANTED_MAX];
	uint32_t count;
	struct model at[KEYS]; // as they were
	bool values;
	bool flushed;
	unsigned wrong;
	unsigned changed;
};

static void wanted_open(struct wanted *w, uint32_t count, bool values)
{
	*w = (struct wanted){ .count = count, .values = values };
	for (uint32_t i = 0; i < count; i++) {
		w->key[i] = draw(KEYS);
		w->args[i] = key_of(w->key[i]);
	}
	w->moment = keyspace_moment_create(f.keyspace, w->args, count, values, random_state);
	while (!keyspace_moment_enter(w->moment)) {
		if (draw(4) == 0) {
			write_one(false); // before the moment
		}
	}
	ok(keyspace_moment_open(w->moment), "a moment of %u keys is open", count);
	memcpy(w->at, model, sizeof(model));
	for (uint32_t i = 0; i < KEYS; i++) {
		w->at[i].there = alive(&w->at[i], f.keyspace->now_ms);
	}
}

static void wanted_next(struct wanted *w, uint32_t i)
{
	static unsigned char expected[LARGE];
	struct keyspace_value value = { 0 };
	bool changed;
	const struct model *was = &w->at[w->key[i]];
	bool found = keyspace_moment_next(w->moment, &value, &changed) == KEYSPACE_OK;
	bool good = found == was->there;
	if (good && found && w->values) {
		fill_value(expected, was->bytes, was->fill);
		good = value.value_bytes == was->bytes &&
		       memcmp(value.value, expected, was->bytes) == 0;
	}
	// Who is not told of a change must have what there is.
	const struct model *is = &model[w->key[i]];
	bool same = alive(is, f.keyspace->now_ms) == was->there &&
		    (!was->there || is->fill == was->fill);
	bool ended = is->fill == was->fill && was->expiry_ms != 0 &&
		     was->expiry_ms <= f.keyspace->now_ms; // nobody has logged it yet
	good = good && (changed || same || w->flushed || ended);
	w->changed += changed;
	if (!good && w->wrong++ == 0) {
		tap_diag("key %u of %u (k%u): found %d of %zu bytes, was %d of %u, changed %d", i,
			 w->count, w->key[i], found, value.value_bytes, was->there, was->bytes,
			 changed);
	}
}

// What comes between two keys.
static void between(struct wanted *w, bool flushes)
{
	bool flushed = false;
	switch (draw(12)) {
	case 0:
		fixture_wall_ms += draw(10);
		keyspace_tick(f.keyspace);
		break;
	case 1:
		churn(draw(300)); // the log goes round: segments are cleaned and used again
		break;
	case 2:
		(void)write_batch(false);
		break;
	case 3:
		if (flushes && draw(20) == 0) {
			flushed = write_batch(true);
		} else if (flushes && draw(20) == 0 && keyspace_flush(f.keyspace) == KEYSPACE_OK) {
			memset(model, 0, sizeof(model));
			flushed = true;
		}
		break;
	default:
		write_one(false);
		break;
	}
	if (flushed && !w->flushed) {
		w->flushed = true;
		memcpy(w->at, model, sizeof(model));
		for (uint32_t i = 0; i < KEYS; i++) {
			w->at[i].there = alive(&w->at[i], f.keyspace->now_ms);
		}
	}
}

static void run_one(bool persisted, bool flushes, uint64_t seed)
{
	static struct wanted w;
	random_state = seed;
	memset(model, 0, sizeof(model));
	fixture_open_sized(&f, persisted, seed, 4u << 20, false);
	unsigned wrong = 0;
	unsigned changed = 0;
	unsigned rounds = tap_rounds(40, 5);
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < 60; i++) {
			write_one(false);
		}
		fixture_durable(&f);
		wanted_open(&w, 1 + draw(WANTED_MAX), draw(5) > 0);
		unsigned anew = 0;
		for (uint32_t i = 0; i < w.count; i++) {
			for (uint32_t n = draw(3); n > 0; n--) {
				between(&w, flushes);
			}
			while (draw(3) == 0 && !keyspace_moment_settle(w.moment)) {
			}
			if (keyspace_moment_begins_anew(w.moment)) {
				ok(w.flushed && ++anew <= 1, "behind a FLUSHALL keys begin anew");
				i = 0;
			}
			wanted_next(&w, i);
		}
		wrong += w.wrong;
		changed += w.changed;
		keyspace_moment_close(w.moment);
	}
	ok(wrong == 0 && changed > 2 * rounds,
	   "I: %s values of the moment%s (%u of them changed since)",
	   persisted ? "durable" : "plain", flushes ? ", or behind a FLUSHALL" : "", changed);
	for (int i = 0; i < 40; i++) {
		(void)keyspace_flush(f.keyspace);
		fixture_durable(&f);
	}
	ok_u64(f.region.large_bytes, 0, "G: nothing stays pinned");
	ok(LIST_EMPTY(&f.keyspace->moments) && f.keyspace->log.retired_count == 0,
	   "G: nor does a segment");
	fixture_close(&f);
}

// ---- bounds ----

static void test_places(void)
{
	struct keyspace_moment *moments[KEYSPACE_MOMENTS_MAX + 2];
	struct resp_arg args[1] = { key_of(1) };
	fixture_open(&f, false, 3);
	struct keyspace_writer writer = { 0 };
	unsigned open = 0;
	keyspace_set_writer(f.keyspace, &writer);
	for (unsigned i = 0; i < KEYSPACE_MOMENTS_MAX + 2; i++) {
		writer.uid = i / (KEYSPACE_MOMENTS_WRITER_MAX + 1);
		moments[i] = keyspace_moment_create(f.keyspace, args, 1, true, i);
		(void)keyspace_moment_enter(moments[i]);
		bool good = keyspace_moment_open(moments[i]);
		bool fits = i % (KEYSPACE_MOMENTS_WRITER_MAX + 1) < KEYSPACE_MOMENTS_WRITER_MAX;
		ok(good == fits, "G: number %u of a uid %s", i % 5,
		   fits ? "is open" : "has to wait");
		open += good;
	}
	struct keyspace_moment *more[KEYSPACE_MOMENTS_MAX];
	for (unsigned i = 0; i < KEYSPACE_MOMENTS_MAX; i++) {
		writer.uid = 100 + i;
		more[i] = keyspace_moment_create(f.keyspace, args, 1, true, i);
		(void)keyspace_moment_enter(more[i]);
		open += keyspace_moment_open(more[i]);
	}
	ok_u64(open, KEYSPACE_MOMENTS_MAX, "G: so many at once");
	keyspace_moment_close(moments[0]);
	bool again = false;
	for (unsigned i = 0; i < KEYSPACE_MOMENTS_MAX && !again; i++) {
		again = keyspace_moment_open(more[KEYSPACE_MOMENTS_MAX - 1]);
	}
	ok(again, "and another when one is over");
	for (unsigned i = 1; i < KEYSPACE_MOMENTS_MAX + 2; i++) {
		keyspace_moment_close(moments[i]);
	}
	for (unsigned i = 0; i < KEYSPACE_MOMENTS_MAX; i++) {
		keyspace_moment_close(more[i]);
	}
	fixture_close(&f);
}

// A moment that nobody reads on costs the cleaner nothing once its notes are settled.
static void test_not_hostage(void)
{
	static struct wanted w;
	random_state = 9;
	memset(model, 0, sizeof(model));
	fixture_open_sized(&f, true, 7, 4u << 20, false);
	for (uint32_t key = 0; key < KEYS; key++) {
		write_set(key, 2000, 0);
	}
	fixture_durable(&f);
	wanted_open(&w, WANTED_MAX, true);
	unsigned refused = 0;
	for (unsigned round = 0; round < 40; round++) {
		for (uint32_t key = 0; key < KEYS; key++) {
			uint32_t before = fills;
			write_set(key, 2000, 0);
			refused += model[key].fill == before;
		}
		fixture_durable(&f);
		while (!keyspace_moment_settle(w.moment)) {
		}
	}
	ok_u64(refused, 0, "D: no write finds too little room");
	for (uint32_t i = 0; i < w.count; i++) {
		wanted_next(&w, i);
	}
	ok(w.wrong == 0 && w.changed > KEYS / 2, "I: and each value is that of the moment");
	ok(keyspace_moment_bytes(w.moment) > 300000, "G: what was copied is counted");
	keyspace_moment_close(w.moment);
	fixture_close(&f);
}

// Until it is settled, what was noted stays although its segment was cleaned.
static void test_unsettled(void)
{
	static struct wanted w;
	random_state = 11;
	memset(model, 0, sizeof(model));
	fixture_open_sized(&f, false, 7, 4u << 20, false);
	for (uint32_t key = 0; key < KEYS; key++) {
		write_set(key, 400, 0);
	}
	wanted_open(&w, WANTED_MAX, true);
	for (uint32_t key = 0; key < KEYS; key++) {
		write_set(key, 400, 0);
	}
	for (unsigned i = 0; i < 60; i++) {
		churn(400);
	}
	for (uint32_t i = 0; i < w.count / 2; i++) {
		wanted_next(&w, i);
	}
	ok(w.wrong == 0, "B: noted values stay until they are copied");
	while (!keyspace_moment_settle(w.moment)) {
	}
	for (unsigned i = 0; i < 60; i++) {
		churn(400);
	}
	for (uint32_t i = w.count / 2; i < w.count; i++) {
		wanted_next(&w, i);
	}
	ok(w.wrong == 0, "B: and afterwards");
	keyspace_moment_close(w.moment);
	fixture_close(&f);
}

// Behind a FLUSHALL the rest of its batch may write a key again: the note that is made anew is
// copied, too.
static void test_noted_anew(void)
{
	static struct wanted w;
	random_state = 13;
	memset(model, 0, sizeof(model));
	fixture_open_sized(&f, false, 7, 4u << 20, false);
	wanted_open(&w, WANTED_MAX, true);
	keyspace_batch_begin(f.keyspace);
	(void)keyspace_flush(f.keyspace);
	memset(model, 0, sizeof(model));
	for (unsigned round = 0; round < 2; round++) {
		for (uint32_t key = 0; key < 20; key++) {
			write_set(key, round == 0 && key < 10 ? LARGE : 400, 0);
		}
	}
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK, "a FLUSHALL and writes are applied");
	ok(keyspace_moment_begins_anew(w.moment) && !keyspace_moment_begins_anew(w.moment),
	   "it begins anew once");
	while (!keyspace_moment_settle(w.moment)) {
	}
	unsigned inside = 0;
	unsigned found = 0;
	for (uint32_t i = 0; i < w.count; i++) {
		struct keyspace_value value;
		bool changed;
		if (keyspace_moment_next(w.moment, &value, &changed) == KEYSPACE_OK) {
			uintptr_t at = (uintptr_t)value.value - (uintptr_t)f.region.base;
			inside += at < f.region.bytes;
			found += value.value_bytes == 400;
		}
	}
	ok(found > 10 && inside == 0, "B: what is settled does not stand in the log any more");
	keyspace_moment_close(w.moment);
	fixture_close(&f);
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 20261121;
	tap_diag("seed %" PRIu64, seed);
	for (unsigned i = 0; i < 8; i++) {
		run_one(i % 2 == 0, i % 4 >= 2, seed + i);
	}
	test_places();
	test_not_hostage();
	test_unsettled();
	test_noted_anew();
	return tap_done();
}

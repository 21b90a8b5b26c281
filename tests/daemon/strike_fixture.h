// SPDX-License-Identifier: MIT
//
// A store, or a life with one, that is struck (guard_shims.h) at one place after the other, each
// time in a child, for what was lost stays in the process.
#pragma once

#include <sys/wait.h>

#include "tests/daemon/guard_shims.h"
#include "tests/daemon/persist_fixture.h"

#define RECORDS 12u
#define UNHARMED 3 // exit code of a child that nothing came to

static int append(struct store *store, uint64_t first, uint64_t last)
{
	static struct fixture_record record;
	uint64_t place;
	int result = STORE_OK;
	for (uint64_t seq = first; seq <= last && result == STORE_OK; seq++) {
		fixture_record(&record, seq, seq, seq % 4 == 0 ? 60000 : 9000, 0);
		result = store_append(store, &record.view, NULL, &place);
	}
	return result;
}

static int commit(struct store *store, uint64_t first, uint64_t last)
{
	int result = store_begin(store);
	result = result == STORE_OK ? append(store, first, last) : result;
	return result == STORE_OK ? store_commit(store, last) : result;
}

static int count_good(void *context, const struct kvs_record_view *view, const void *value,
		      uint64_t place)
{
	(void)place;
	*(unsigned *)context += fixture_same(view, value, view->seq);
	return 0;
}

static int recover_all(struct store *store, unsigned *good)
{
	*good = 0;
	struct store_walk walk = { .record = count_good, .context = good, .check_records = true };
	return store_recover(store, &walk);
}

static bool write_durably(struct life *life, unsigned number)
{
	char key[32];
	uint64_t seq = 0;
	size_t bytes = (size_t)snprintf(key, sizeof(key), "k%u", number % 50);
	keyspace_tick(life->keyspace);
	if (keyspace_set(life->keyspace, key, bytes, "value", 5, 0, &seq) != KEYSPACE_OK) {
		_exit(94);
	}
	cleaner_turn(life->keyspace, seam_system.monotonic_ns());
	persist_set_live_bytes(life->persist, keyspace_live_bytes(life->keyspace));
	persist_request(life->persist, seq);
	return life_wait(life, seq);
}

/// A life with a persister's thread, which is struck at the n-th place from here on.
static void strike_life(struct life *life, const char *dir, unsigned n, bool lock)
{
	struct life_options options = {
		.dir = dir,
		.memory_bytes = 32u << 20,
		.segment_bytes = 1u << 20,
		.policy = PERSIST_GROUP,
		.ratio_percent = 150,
		.floor_bytes = 1,
		.threaded = true,
	};
	life_begin(life, &options);
	strike_lock = lock;
	strike_at = n;
	strike_dir = dir;
}

static int in_child(int (*what)(const char *, unsigned, bool), unsigned n, bool lock)
{
	char dir[FIXTURE_PATH_BYTES];
	int status = 0;
	int code;
	fixture_dir_fast(dir);
	(void)fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		code = what(dir, n, lock);
		(void)fflush(stdout);
		_exit(code); // what was lost is left, which is no leak
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		status = -1;
	}
	fixture_remove(dir);
	if (!WIFEXITED(status)) {
		tap_diag("signal %d", WTERMSIG(status));
		return 98;
	}
	return WEXITSTATUS(status);
}

// Each place in turn, or so many of them.
static void test_each(const char *name, int (*what)(const char *, unsigned, bool), bool lock,
		      unsigned places_min, unsigned step)
{
	unsigned harmed = 0;
	unsigned bad = 0;
	unsigned quiet = 0; // in a row: no such place any more
	for (unsigned n = 1; quiet < 8 && bad < 5 && n < 2000; n += step) {
		int code = in_child(what, n, lock);
		quiet = code == UNHARMED ? quiet + 1 : 0;
		harmed += code == 0;
		if (code != 0 && code != UNHARMED) {
			tap_diag("%s: place %u: %d", name, n, code);
			bad++;
		}
	}
	ok(bad == 0, "E: %s: %u places, each refused and recovered from", name, harmed);
	ok(harmed >= places_min / step, "enough of them");
	printf("# counted map-faults %u\n", harmed);
}

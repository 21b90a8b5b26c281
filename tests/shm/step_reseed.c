// SPDX-License-Identifier: MIT
//
// Another hash key for the table, at every instruction: a child rebuilds it and publishes the new
// side, with writes, removals and the cleaner's moves in between. Behind each instruction that may
// have changed the region this process looks up every key as a client would, by the hash of now and
// by that of the first key; at some it plans to take the region over, as the next kvd would after a
// kill.
//
//   A  no key that is there is missed, and no value older than an acknowledged one is returned.
//   F  whatever the moment, the region can be taken over with all its keys.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/adopt.h"
#include "tests/shm/step.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define REBUILDS_DEFAULT 10u
#define COPIED_AT_ONCE 32u // buckets
#define LOOKED_AT 12u	   // keys
#define PLAN_EVERY 11u	   // stops
#define OLD_KEY 11u	   // the fixture's
#define NOBODY UINT32_MAX

// What child and parent share: the child acts, and says here what it has promised.
struct script {
	int region_fd;
	struct step_watch memory;
	uint64_t random;
	unsigned rebuilds;
	bool mutant; // changes of what is copied are made on one side, to see that it is noticed
	bool stepping;
	char keys[STEP_KEYS][16];
	uint64_t acknowledged[STEP_KEYS]; // seq, 0 = absent
	uint32_t pending;		  // key of the operation under way, or NOBODY
	bool pending_removal;
	unsigned published;
	unsigned changes;
};

struct watcher {
	struct script *script;
	struct kvs_map map;
	struct kvs_region region;
	uint64_t stops;
	uint64_t plans;
	uint64_t missed;
	uint64_t stale;
	uint64_t broken;
	uint64_t refused;
};

static void child_change(struct script *s, struct fixture *f)
{
	unsigned i = (unsigned)(tap_random(&s->random) % LOOKED_AT);
	size_t key_bytes = strlen(s->keys[i]);
	static const char value[40];
	s->pending_removal = tap_random(&s->random) % 3 == 0;
	s->pending = i;
	f->table.reseed.active = f->table.reseed.active && !s->mutant;
	if (s->pending_removal) {
		(void)fixture_remove(f, s->keys[i], key_bytes);
		s->acknowledged[i] = 0;
	} else {
		s->acknowledged[i] = fixture_set(f, s->keys[i], key_bytes, value,
						 tap_random(&s->random) % sizeof(value));
	}
	f->region.header->marks.applied_seq = f->log.next_seq - 1;
	s->pending = NOBODY;
	s->changes++;
}

static void child_walk(struct script *s)
{
	s->stepping = true;
	step_mark();
}

static void child_rebuild(struct script *s, struct fixture *f)
{
	const uint64_t hash_key[2] = { tap_random(&s->random), 0 };
	int result;
	child_walk(s);
	(void)kvs_table_reseed_begin(&f->table, hash_key);
	for (unsigned n = 0; (result = kvs_table_reseed_step(&f->table, COPIED_AT_ONCE)) == 0;
	     n++) {
		child_change(s, f);
		f->table.reseed.active = true;
		if (n == 8) {
			uint32_t head = f->log.head.segment;
			s->stepping = false;
			step_roll(f);
			child_walk(s);
			(void)fixture_clean(f, head);
		}
	}
	child_change(s, f);
	f->table.reseed.active = true;
	kvs_table_reseed_publish(&f->table);
	s->published += result == 1;
	child_change(s, f);
	s->stepping = false;
}

static void child(void *context)
{
	struct script *s = context;
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	step_colliding_keys(&f.table, s->keys);
	for (unsigned i = 0; i < STEP_KEYS; i++) {
		s->acknowledged[i] = fixture_set(&f, s->keys[i], strlen(s->keys[i]), "first", 5);
	}
	(void)kvs_table_secure(&f.table, 8);
	kvs_log_publish(&f.log);
	s->pending = NOBODY;
	s->region_fd = f.region.fd;
	s->memory = (struct step_watch){ .at = f.region.base, .bytes = f.region.bytes };
	step_mark(); // the parent maps the region
	for (unsigned n = 0; n < s->rebuilds; n++) {
		while (fixture_reclaim(&f) > 0) {
		}
		child_rebuild(s, &f);
	}
}

static void check_key(struct watcher *w, unsigned i, uint64_t hash)
{
	const struct script *s = w->script;
	size_t key_bytes = strlen(s->keys[i]);
	bool pending = s->pending == i;
	struct kvs_hit hit;
	enum kvs_find_result result = kvs_table_find(&w->map, hash, s->keys[i], key_bytes, &hit);
	if (result == KVS_FIND_UNMAPPED) {
		(void)kvs_map_extend(&w->map);
		result = kvs_table_find(&w->map, hash, s->keys[i], key_bytes, &hit);
	}
	if (result == KVS_FIND_HIT) {
		bool newer = pending && !s->pending_removal && hit.view.seq > s->acknowledged[i];
		w->stale += hit.view.seq != s->acknowledged[i] && !newer;
		w->broken += !kvs_record_crc_ok(&hit.view);
	} else if (result == KVS_FIND_ABSENT) {
		w->missed += s->acknowledged[i] != 0 && !(pending && s->pending_removal);
	} else {
		w->broken++;
	}
}

static void check_keys(struct watcher *w)
{
	const struct script *s = w->script;
	for (unsigned i = 0; i < LOOKED_AT; i++) {
		size_t key_bytes = strlen(s->keys[i]);
		check_key(w, i, kvs_map_hash(&w->map, s->keys[i], key_bytes));
		check_key(w, i, kvs_hash(OLD_KEY, s->keys[i], key_bytes));
	}
}

static void check_plan(struct watcher *w)
{
	struct kvs_adopt plan;
	w->plans++;
	if (kvs_adopt_plan(&plan, &w->region, UINT64_MAX) != 0 || plan.damaged_count > 0) {
		w->refused++;
		tap_diag("%s, %" PRIu64 " damaged", plan.why, plan.damaged_count);
	}
	kvs_adopt_fini(&plan);
}

static void map_region(struct watcher *w, pid_t pid)
{
	char path[64];
	const struct kvs_region_options options = { .memory_bytes = MEMORY,
						    .segment_bytes = SEGMENT,
						    .fenced = !kvs_epoch_membarrier_works() };
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, w->script->region_fd);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || kvs_map_open(&w->map, fd) != KVS_MAP_OK ||
	    kvs_region_adopt(&w->region, fd, &options) != KVS_REGION_OK) {
		printf("Bail out! cannot map the child's region\n");
		exit(99);
	}
}

static enum step_state run(struct watcher *w, struct script *s)
{
	pid_t pid = step_start(child, s);
	map_region(w, pid);
	uint64_t root = 0;
	enum step_state state;
	while ((state = step_continue(pid)) == STEP_STOPPED) {
		while (s->stepping && state == STEP_STOPPED) {
			uint64_t now = kvs_load_acquire(&kvs_map_header(&w->map)->hot.table_root);
			if (++w->stops % PLAN_EVERY == 0 || now != root) {
				check_plan(w);
			}
			root = now;
			check_keys(w);
			state = step_store(pid, &s->memory);
		}
		if (state != STEP_STOPPED) {
			break;
		}
	}
	if (state == STEP_STOPPED) {
		step_kill(pid);
	}
	kvs_map_close(&w->map);
	kvs_region_close(&w->region);
	return state;
}

static struct script *new_script(uint64_t random, unsigned rebuilds, bool mutant)
{
	struct script *s = step_shared(sizeof(*s));
	s->random = random;
	s->rebuilds = rebuilds;
	s->mutant = mutant;
	return s;
}

static void test_rebuilds(uint64_t seed, unsigned rebuilds)
{
	struct script *s = new_script(seed, rebuilds, false);
	struct watcher w = { .script = s };
	ok(run(&w, s) == STEP_ENDED, "the script ran to its end");
	tap_diag("%" PRIu64 " stores and system calls", w.stops);
	tap_diag("%u changes meanwhile, %" PRIu64 " plans", s->changes, w.plans);
	ok_u64(s->published, rebuilds, "the hash key changed that many times");
	ok_u64(w.missed, 0, "A1: no key that is there was missed at any instruction");
	ok_u64(w.stale, 0, "A2: no value older than an acknowledged one, and none out of nowhere");
	ok_u64(w.broken, 0, "B: no torn record, no damage seen");
	ok(w.refused == 0 && w.plans > rebuilds, "F: the region could be taken over each time");
	munmap(s, sizeof(*s));
}

static void test_teeth(uint64_t seed)
{
	struct script *s = new_script(seed, 1, true);
	struct watcher w = { .script = s };
	ok(run(&w, s) == STEP_ENDED && w.missed + w.stale > 0,
	   "a change of what was copied, made on one side alone, is noticed");
	munmap(s, sizeof(*s));
}

int main(int argc, char **argv)
{
	const char *why;
	if (!step_supported(&why)) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	uint64_t seed = tap_seed(26);
	unsigned rebuilds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : REBUILDS_DEFAULT;
	test_rebuilds(seed, rebuilds);
	test_teeth(seed);
	return tap_done();
}

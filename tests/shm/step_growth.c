// SPDX-License-Identifier: MIT
//
// Table growth against readers, at every instruction: a child runs splits, merges, inserts,
// replacements, removals and the cleaner's moves, stopped behind every instruction that stores to
// the region, and where the table has changed this process looks up every key as a client would. A
// kill -9 of kvd at that boundary would leave exactly that state behind.
//
//   A  no key that is there is missed, and no value older than an acknowledged one is returned.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/shm/step.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define OPERATIONS_DEFAULT 100u
#define WATCHED_OVERFLOW_BYTES 4096u
#define NOBODY UINT32_MAX

// What child and parent share: the child acts, and says here what it has promised.
struct script {
	int region_fd;
	struct step_watch region;
	uint64_t random;
	unsigned operations;
	bool mutant; // move an entry the wrong way, to see that it is noticed
	bool stepping;
	char keys[STEP_KEYS][16];
	uint64_t acknowledged[STEP_KEYS]; // seq, 0 = absent
	uint32_t pending;		  // key of the operation under way, or NOBODY
	bool pending_removal;
	unsigned counts[6];
};

struct watcher {
	struct script *script;
	struct kvs_map map;
	unsigned char *shadow; // table and overflow bytes as last seen
	uint64_t shadow_table_bytes;
	uint64_t shadow_root;
	uint64_t stops;
	uint64_t changes;
	uint64_t missed;
	uint64_t stale;
	uint64_t broken;
};

static void child_operation(struct script *s, struct fixture *f, unsigned operation)
{
	unsigned i = (unsigned)(tap_random(&s->random) % STEP_KEYS);
	size_t key_bytes = strlen(s->keys[i]);
	char value[40] = { 0 };
	s->counts[operation]++;
	switch (operation) {
	case 0:
	case 1:
		s->pending = i;
		s->pending_removal = false;
		s->acknowledged[i] = fixture_set(f, s->keys[i], key_bytes, value,
						 tap_random(&s->random) % sizeof(value));
		break;
	case 2:
		s->pending = i;
		s->pending_removal = true;
		(void)fixture_remove(f, s->keys[i], key_bytes);
		s->acknowledged[i] = 0;
		break;
	case 3:
		// Keep near the smallest table, where the keys' own chain is split and merged.
		if (f->table.buckets > f->table.buckets_min + 1) {
			(void)step_force_merge(&f->table);
			break;
		}
		(void)step_force_split(&f->table);
		break;
	default:
		if (f->table.buckets == f->table.buckets_min) {
			(void)step_force_split(&f->table);
			break;
		}
		(void)step_force_merge(&f->table);
		break;
	}
	s->pending = NOBODY;
}

// An entry moves to another place of its chain: what must never happen.
static void child_mutant(struct script *s, struct fixture *f)
{
	struct kvs_hit hit;
	uint64_t hash = kvs_map_hash(&f->region.map, s->keys[0], strlen(s->keys[0]));
	if (fixture_find(&f->region.map, s->keys[0], strlen(s->keys[0]), &hit) == KVS_FIND_HIT) {
		kvs_table_remove(&f->table, hash, hit.slot);
		(void)kvs_table_insert(&f->table, hash, hit.entry);
	}
}

// Fills the head segment with bulky values, so that a full segment holds few records.
static void child_fill_segment(struct script *s, struct fixture *f)
{
	static char bulk[3000];
	uint32_t head = f->log.head.segment;
	for (unsigned i = 0; f->log.head.segment == head; i = (i + 1) % STEP_KEYS) {
		s->acknowledged[i] =
			fixture_set(f, s->keys[i], strlen(s->keys[i]), bulk, sizeof(bulk));
	}
}

static void child(void *context)
{
	struct script *s = context;
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	step_colliding_keys(&f.table, s->keys);
	for (unsigned i = 0; i < STEP_KEYS; i += 1 + i % 3) {
		s->acknowledged[i] = fixture_set(&f, s->keys[i], strlen(s->keys[i]), "first", 5);
	}
	(void)kvs_table_secure(&f.table, 8);
	s->pending = NOBODY;
	s->region_fd = f.region.fd_readonly;
	s->region = (struct step_watch){ .at = f.region.base, .bytes = f.region.bytes };
	step_mark(); // the parent maps the region
	for (unsigned n = 0; n < s->operations; n++) {
		unsigned operation = (unsigned)(tap_random(&s->random) % 6);
		(void)fixture_reclaim(&f);
		s->stepping = true;
		step_mark();
		if (s->mutant) {
			child_mutant(s, &f);
		} else {
			child_operation(s, &f, operation);
		}
		s->stepping = false;
		step_mark();
	}
	child_fill_segment(s, &f);
	uint32_t victim = f.log.head.segment;
	child_fill_segment(s, &f);
	s->stepping = true;
	step_mark();
	(void)fixture_clean(&f, victim);
	s->stepping = false;
}

static void check_keys(struct watcher *w)
{
	const struct script *s = w->script;
	for (unsigned i = 0; i < STEP_KEYS; i++) {
		struct kvs_hit hit;
		enum kvs_find_result result =
			fixture_find(&w->map, s->keys[i], strlen(s->keys[i]), &hit);
		if (result == KVS_FIND_UNMAPPED) {
			(void)kvs_map_extend(&w->map);
			result = fixture_find(&w->map, s->keys[i], strlen(s->keys[i]), &hit);
		}
		bool pending = s->pending == i;
		if (result == KVS_FIND_HIT) {
			bool newer =
				pending && !s->pending_removal && hit.view.seq > s->acknowledged[i];
			w->stale += hit.view.seq != s->acknowledged[i] && !newer;
			w->broken += !kvs_record_crc_ok(&hit.view);
		} else if (result == KVS_FIND_ABSENT) {
			w->missed += s->acknowledged[i] != 0 && !(pending && s->pending_removal);
		} else {
			w->broken++;
		}
	}
}

// Has the table changed since the last look? Remembers what it looks like now.
static bool table_changed(struct watcher *w)
{
	const unsigned char *table = w->map.base + w->map.ranges[KVS_RANGE_TABLE_0].offset;
	const unsigned char *overflow = w->map.base + w->map.ranges[KVS_RANGE_OVERFLOW_0].offset;
	uint64_t root = kvs_load_acquire(&kvs_map_header(&w->map)->hot.table_root);
	// Bucket 0, and those that splits of this script add behind the smallest table.
	uint64_t tail = w->shadow_table_bytes - KVS_PAGE_BYTES;
	bool same = root == w->shadow_root &&
		    memcmp(w->shadow, table, sizeof(struct kvs_bucket)) == 0 &&
		    memcmp(w->shadow + KVS_PAGE_BYTES, table + tail, KVS_PAGE_BYTES) == 0 &&
		    memcmp(w->shadow + 2 * KVS_PAGE_BYTES, overflow, WATCHED_OVERFLOW_BYTES) == 0;
	if (!same) {
		w->shadow_root = root;
		memcpy(w->shadow, table, sizeof(struct kvs_bucket));
		memcpy(w->shadow + KVS_PAGE_BYTES, table + tail, KVS_PAGE_BYTES);
		memcpy(w->shadow + 2 * KVS_PAGE_BYTES, overflow, WATCHED_OVERFLOW_BYTES);
	}
	return !same;
}

static void map_region(struct watcher *w, pid_t pid)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, w->script->region_fd);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || kvs_map_open(&w->map, fd) != KVS_MAP_OK) {
		printf("Bail out! cannot map the child's region\n");
		exit(99);
	}
	close(fd);
}

static enum step_state run(struct watcher *w, struct script *s)
{
	pid_t pid = step_start(child, s);
	map_region(w, pid);
	// The first split needs table memory behind the smallest table: map and watch it when it is
	// there.
	w->shadow_table_bytes = w->map.ready[KVS_RANGE_TABLE_0];
	enum step_state state;
	while ((state = step_continue(pid)) == STEP_STOPPED) {
		if (w->map.ready[KVS_RANGE_TABLE_0] > w->shadow_table_bytes) {
			w->shadow_table_bytes += KVS_PAGE_BYTES;
		}
		while (s->stepping && state == STEP_STOPPED) {
			w->stops++;
			if (table_changed(w)) {
				w->changes++;
				check_keys(w);
			}
			state = step_store(pid, &s->region);
		}
		if (state != STEP_STOPPED) {
			break;
		}
		(void)kvs_map_extend(&w->map);
		check_keys(w);
	}
	if (state == STEP_STOPPED) {
		step_kill(pid);
	}
	kvs_map_close(&w->map);
	return state;
}

static struct script *new_script(uint64_t random, unsigned operations, bool mutant)
{
	struct script *s = step_shared(sizeof(*s));
	s->random = random;
	s->operations = operations;
	s->mutant = mutant;
	return s;
}

static void test_growth(uint64_t seed, unsigned operations)
{
	struct script *s = new_script(seed, operations, false);
	struct watcher w = { .script = s, .shadow = calloc(3, KVS_PAGE_BYTES) };
	ok(run(&w, s) == STEP_ENDED, "the script ran to its end");
	tap_diag("%" PRIu64 " stores and system calls, %" PRIu64 " with a changed table", w.stops,
		 w.changes);
	tap_diag("%u sets, %u removals, %u splits and merges", s->counts[0] + s->counts[1],
		 s->counts[2], s->counts[3] + s->counts[4] + s->counts[5]);
	ok_u64(w.missed, 0, "A1: no key that is there was missed at any instruction");
	ok_u64(w.stale, 0, "A2: no value older than an acknowledged one, and none out of nowhere");
	ok_u64(w.broken, 0, "B1: no torn record, no damage seen");
	ok(w.changes > operations, "the table was seen to change");
	free(w.shadow);
	munmap(s, sizeof(*s));
}

static void test_teeth(uint64_t seed)
{
	struct script *s = new_script(seed, 3, true);
	struct watcher w = { .script = s, .shadow = calloc(3, KVS_PAGE_BYTES) };
	ok(run(&w, s) == STEP_ENDED && w.missed > 0, "an entry moved within its chain is noticed");
	free(w.shadow);
	munmap(s, sizeof(*s));
}

int main(int argc, char **argv)
{
	const char *why;
	if (!step_supported(&why)) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	uint64_t seed = tap_seed(16);
	unsigned operations = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : OPERATIONS_DEFAULT;
	test_growth(seed, operations);
	test_teeth(seed);
	return tap_done();
}

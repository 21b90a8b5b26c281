// SPDX-License-Identifier: MIT
//
// kvd killed at every instruction. A child works on a keyspace of small segments and is stopped
// behind every instruction that may have changed the region: killed anywhere in between it would
// leave the same behind. At each boundary at which the region has changed this process does what
// the next kvd would: it plans the region's adoption and asks for every key what it would then
// hold, the records that are to be applied included. Now and then it carries the plan out, on a
// copy, and goes on writing there. And it looks every key up as a process that maps the region.
//
//   A     a get finds the value before what is under way, or the one behind it, nothing in between.
//   F, I  what was acknowledged is there, and of what is under way all or nothing.
//
// Argument: 1 or 2, which half of the scripts. KVD_STEP_BOUNDARIES sets how many boundaries are
// looked at (5000 a half).
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/adopt.h"
#include "tests/daemon/step_script.h"
#include "tests/tap/tap.h"

#define BOUNDARIES_DEFAULT 10000u
#define CARRY_OUT_EVERY 97u // boundaries between two plans that are carried out
#define WATCHED_SEGMENTS 48u
#define WATCHED_TAIL_BYTES 1024u

struct watcher {
	struct script *script;
	struct kvs_region region;
	unsigned char *shadow;
	unsigned char shadow_head[WATCHED_TAIL_BYTES];
	unsigned char shadow_survivor[WATCHED_TAIL_BYTES];
	uint64_t stops, changes, carried_out;
	uint64_t refused, wrong, wrong_later, wrong_seen;
	uint64_t counts[SCRIPT_COUNTS]; // of all scripts
};

// The end of the newest segment of a state, where records are being written.
static bool segment_changed(struct watcher *w, uint64_t state, unsigned char *shadow)
{
	const struct kvs_region *region = &w->region;
	uint64_t newest = KVS_SEGMENT_NONE;
	for (uint32_t i = 0; i < WATCHED_SEGMENTS; i++) {
		const struct kvs_segment_entry *entry = &region->directory[i];
		if (entry->state == state &&
		    (newest == KVS_SEGMENT_NONE ||
		     entry->first_seq >= region->directory[newest].first_seq)) {
			newest = i;
		}
	}
	if (newest == KVS_SEGMENT_NONE) {
		return false;
	}
	uint64_t end = region->directory[newest].used_bytes;
	uint64_t from = end > WATCHED_TAIL_BYTES ? end - WATCHED_TAIL_BYTES : 0;
	const unsigned char *now = region->base + from;
	now += kvs_region_segment_offset(region, (uint32_t)newest);
	if (memcmp(shadow, now, WATCHED_TAIL_BYTES) == 0) {
		return false;
	}
	memcpy(shadow, now, WATCHED_TAIL_BYTES);
	return true;
}

// Bytes of the region that a writer may change, one range after the other.
static bool region_changed(struct watcher *w)
{
	const struct kvs_map *map = &w->region.map;
	const struct {
		uint64_t offset, bytes;
	} parts[] = {
		{ 0, 1024 },
		{ w->region.header->segment_directory_offset, WATCHED_SEGMENTS * 64 },
		{ map->ranges[KVS_RANGE_TABLE_0].offset, 64 },
		{ map->ranges[KVS_RANGE_TABLE_0].offset + 65536, 64 },
		{ map->ranges[KVS_RANGE_TABLE_1].offset, 64 },
		{ map->ranges[KVS_RANGE_TABLE_1].offset + 65536, 64 },
		{ map->ranges[KVS_RANGE_OVERFLOW_0].offset, 1024 },
		{ map->ranges[KVS_RANGE_OVERFLOW_1].offset, 1024 },
	};
	bool changed = segment_changed(w, KVS_SEGMENT_HEAD, w->shadow_head) ||
		       segment_changed(w, KVS_SEGMENT_SURVIVOR, w->shadow_survivor);
	unsigned char *at = w->shadow;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		const unsigned char *now = w->region.base + parts[i].offset;
		if (memcmp(at, now, parts[i].bytes) != 0) {
			memcpy(at, now, parts[i].bytes);
			changed = true;
		}
		at += parts[i].bytes;
	}
	return changed;
}

static uint32_t number_of(const void *value)
{
	uint32_t number = 0;
	if (value != NULL) {
		memcpy(&number, value, sizeof(number));
	}
	return number;
}

static uint32_t hit_number(const struct kvs_hit *hit)
{
	return hit->kind == KVS_ENTRY_STUB ? script_stub_number(hit) : number_of(hit->value);
}

static const void *record_value(const struct kvs_region *region, const struct kvs_record_view *view)
{
	if ((view->flags & KVS_RECORD_LARGE) != 0) {
		return region->base + kvs_record_run(view).offset;
	}
	return view->payload;
}

// What every key would have after the plan is carried out.
static void plan_contents(const struct watcher *w, struct kvs_adopt *plan,
			  uint32_t found[SCRIPT_KEYS])
{
	const struct script *s = w->script;
	struct kvs_log log = { .region = plan->region, .segments = plan->segments };
	struct kvs_log_position at = plan->unapplied;
	struct kvs_record_view view;
	for (unsigned i = 0; i < SCRIPT_KEYS; i++) {
		struct kvs_hit hit;
		found[i] = 0;
		if (fixture_find(&plan->region->map, s->keys[i], strlen(s->keys[i]), &hit) ==
			    KVS_FIND_HIT &&
		    hit.kind != KVS_ENTRY_TOMBSTONE) {
			found[i] = hit_number(&hit);
		}
	}
	while (kvs_log_follow(&log, &at, plan->end, &view)) {
		for (unsigned i = 0; i < SCRIPT_KEYS; i++) {
			bool same = view.key_bytes == strlen(s->keys[i]) &&
				    memcmp(view.key, s->keys[i], view.key_bytes) == 0;
			if ((view.flags & KVS_RECORD_FLUSH) != 0) {
				found[i] = 0;
			} else if (same) {
				bool gone = (view.flags & KVS_RECORD_TOMBSTONE) != 0;
				found[i] = gone ? 0 : number_of(record_value(plan->region, &view));
			}
		}
	}
}

static bool is_allowed(const struct script *s, const uint32_t found[SCRIPT_KEYS])
{
	bool sure = memcmp(found, s->sure, sizeof(s->sure)) == 0;
	return sure || (s->pending && memcmp(found, s->maybe, sizeof(s->maybe)) == 0);
}

static int copy_region(const struct watcher *w)
{
	int fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)w->region.bytes) != 0) {
		script_bail("no memory for a copy");
	}
	off_t at = 0;
	while ((at = lseek(w->region.fd, at, SEEK_DATA)) >= 0) {
		off_t end = lseek(w->region.fd, at, SEEK_HOLE);
		if (pwrite(fd, w->region.base + at, (size_t)(end - at), at) != end - at) {
			script_bail("no memory for a copy");
		}
		at = end;
	}
	(void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
	return fd;
}

static void keyspace_contents(const struct script *s, struct world *copy,
			      uint32_t found[SCRIPT_KEYS])
{
	for (unsigned i = 0; i < SCRIPT_KEYS; i++) {
		struct keyspace_value value;
		struct kvs_hit hit;
		size_t bytes = strlen(s->keys[i]);
		found[i] = 0;
		if (keyspace_stat(copy->keyspace, s->keys[i], bytes, &value) == KEYSPACE_OK &&
		    fixture_find(&copy->region.map, s->keys[i], bytes, &hit) == KVS_FIND_HIT) {
			found[i] = hit_number(&hit);
		}
	}
}

// The next life goes on writing; what it did not write must stay.
static bool goes_on(const struct script *s, struct world *copy, const uint32_t before[SCRIPT_KEYS])
{
	uint32_t found[SCRIPT_KEYS];
	uint64_t alive = 1;
	unsigned char value[3000] = { 0xaa };
	for (unsigned n = 0; n < 100; n++) {
		(void)keyspace_set(copy->keyspace, "other", 5, value, sizeof(value), 0, NULL);
		script_durable(copy);
	}
	keyspace_contents(s, copy, found);
	for (unsigned i = 0; i < SCRIPT_KEYS; i++) {
		alive += before[i] != 0;
	}
	struct keyspace_value value_of_bulk;
	alive += keyspace_stat(copy->keyspace, "bulk", 4, &value_of_bulk) == KEYSPACE_OK;
	return memcmp(before, found, sizeof(found)) == 0 && keyspace_count(copy->keyspace) == alive;
}

static void carry_out(struct watcher *w)
{
	struct world copy = { 0 };
	struct kvs_adopt plan;
	uint32_t found[SCRIPT_KEYS];
	struct kvs_region_options options = { .memory_bytes = SCRIPT_MEMORY,
					      .segment_bytes = SCRIPT_SEGMENT,
					      .fenced = true };
	w->carried_out++;
	if (kvs_region_adopt(&copy.region, copy_region(w), &options) != KVS_REGION_OK ||
	    kvs_adopt_plan(&plan, &copy.region, copy.region.header->marks.durable_seq) != 0) {
		w->refused++;
		return;
	}
	kvs_epoch_init(&copy.epochs, &copy.region.header->hot, true);
	kvs_epoch_hold(&copy.epochs, &copy.region.header->adoptions);
	struct keyspace_options keyspace = script_options(&copy);
	copy.keyspace = keyspace_adopt(&keyspace, &plan);
	kvs_adopt_fini(&plan);
	kvs_epoch_adopt(&copy.epochs, script_monotonic_ns());
	keyspace_contents(w->script, &copy, found);
	w->wrong += !is_allowed(w->script, found);
	w->wrong_later += !goes_on(w->script, &copy, found);
	keyspace_destroy(copy.keyspace);
	kvs_epoch_fini(&copy.epochs);
	kvs_region_close(&copy.region);
}

// What a get would find of every key now. Each key by itself: a batch is not there all at once.
static void look_as_reader(struct watcher *w)
{
	const struct script *s = w->script;
	for (unsigned i = 0; i < SCRIPT_KEYS; i++) {
		struct kvs_hit hit;
		enum kvs_find_result result =
			fixture_find(&w->region.map, s->keys[i], strlen(s->keys[i]), &hit);
		bool there = result == KVS_FIND_HIT && hit.kind != KVS_ENTRY_TOMBSTONE;
		uint32_t found = there ? hit_number(&hit) : 0;
		bool good = result == KVS_FIND_HIT || result == KVS_FIND_ABSENT;
		good = good && (found == s->sure[i] || (s->pending && found == s->maybe[i]));
		if (!good && w->wrong_seen++ == 0 && !s->mutant) {
			tap_diag("key %u was %" PRIu32 ", becomes %" PRIu32 ", is %" PRIu32 " (%d)",
				 i, s->sure[i], s->maybe[i], found, (int)result);
		}
	}
}

static void look(struct watcher *w)
{
	struct kvs_adopt plan;
	uint32_t found[SCRIPT_KEYS];
	int result = kvs_adopt_plan(&plan, &w->region, w->region.header->marks.durable_seq);
	if (result != 0 || plan.damaged_count > 0) {
		if (w->refused++ == 0) {
			tap_diag("refused: %s", plan.why);
		}
	} else {
		plan_contents(w, &plan, found);
		w->wrong += !is_allowed(w->script, found);
	}
	kvs_adopt_fini(&plan);
	if (!w->script->mutant && w->changes % CARRY_OUT_EVERY == 0) {
		carry_out(w);
	}
}

static void map_child(struct watcher *w, pid_t pid)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, w->script->region_fd);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct kvs_region_options options = { .memory_bytes = SCRIPT_MEMORY,
					      .segment_bytes = SCRIPT_SEGMENT,
					      .fenced = true };
	if (fd < 0 || kvs_region_adopt(&w->region, fd, &options) != KVS_REGION_OK) {
		script_bail("cannot map the child's region");
	}
}

static void run(struct watcher *w, struct script *s, uint64_t most)
{
	pid_t pid = step_start(script_run, s);
	map_child(w, pid);
	enum step_state state;
	while ((state = step_continue(pid)) == STEP_STOPPED && s->stepping) {
		while (s->stepping && state == STEP_STOPPED) {
			w->stops++;
			if (region_changed(w)) {
				w->changes++;
				look(w);
				look_as_reader(w);
			}
			state = step_store(pid, &s->region);
		}
		if (state != STEP_STOPPED || w->changes >= most) {
			break;
		}
	}
	for (unsigned i = 0; i < SCRIPT_COUNTS; i++) {
		w->counts[i] += s->counts[i];
	}
	ok(state == STEP_STOPPED, "the script ran (%" PRIu64 " boundaries)", w->changes);
	if (state == STEP_STOPPED) {
		step_kill(pid);
	}
	kvs_region_close(&w->region);
}

// How often there was each; returns how many there never were of what memory does by itself.
static unsigned tell_counts(const struct watcher *w)
{
	static const char *const names[SCRIPT_COUNTS] = {
		"sets",
		"large ones",
		"removals",
		"batches",
		"splits and merges",
		"commits",
		"flushes",
		"batches with repeated keys",
		"values that left",
		"ends",
		"evictions",
		"times another bound",
		[SCRIPT_MOVES] = "large values moved",
		[SCRIPT_RETURNS] = "times memory given back",
		[SCRIPT_PLACES] = "other places in the store",
		[SCRIPT_RESEEDS] = "other hash keys",
		[SCRIPT_PREFAULTS] = "scripts with all memory taken at the start",
	};
	unsigned never = 0;
	for (unsigned i = 0; i < SCRIPT_COUNTS; i++) {
		tap_diag("%" PRIu64 " %s", w->counts[i], names[i]);
		never += i >= SCRIPT_MOVES && w->counts[i] == 0;
	}
	return never;
}

int main(int argc, char **argv)
{
	const char *why;
	if (!step_supported(&why)) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	const char *text = getenv("KVD_STEP_BOUNDARIES");
	uint64_t wanted = text != NULL ? strtoull(text, NULL, 10) : BOUNDARIES_DEFAULT;
	uint64_t half = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	uint64_t seed = tap_seed(1) + (half << 32);
	struct script *s = step_shared(sizeof(*s));
	struct watcher w = { .script = s, .shadow = calloc(1, 1u << 16) };
	while (w.changes < wanted && w.refused + w.wrong + w.wrong_later + w.wrong_seen == 0) {
		memset(s, 0, sizeof(*s));
		s->random = seed++;
		run(&w, s, wanted);
	}
	tap_diag("%" PRIu64 " stores and system calls, %" PRIu64 " changed the region, %" PRIu64
		 " plans carried out",
		 w.stops, w.changes, w.carried_out);
	unsigned never = tell_counts(&w);
	tap_diag("counted step-boundaries %" PRIu64, w.changes);
	ok_u64(w.refused, 0, "F1: the region can be taken over at every instruction");
	ok_u64(w.wrong, 0, "F, I: with all that was acknowledged, and whole batches");
	ok_u64(w.wrong_later, 0, "F1: and goes on from there");
	ok_u64(w.wrong_seen, 0, "A: a get finds what was before or what is behind");
	ok(never == 0 || wanted < BOUNDARIES_DEFAULT, "all that memory does by itself happened");
	memset(s, 0, sizeof(*s));
	struct watcher mutant = { .script = s, .shadow = w.shadow };
	s->random = seed;
	s->mutant = true;
	run(&mutant, s, 300);
	ok(mutant.wrong + mutant.refused > 0, "an entry before its record is noticed");
	return tap_done();
}

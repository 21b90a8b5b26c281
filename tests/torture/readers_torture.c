// SPDX-License-Identifier: MIT
//
// Eight processes read while one writes at full speed, and every few milliseconds one of the eight
// is killed where it stands and replaced; only a kill inside a section, which the word in its slot
// proves, is counted. Values are overwritten in many sizes, keys come and go so that the table
// grows and shrinks, large values take and leave their runs. What comes free is overwritten with
// poison, and a view is looked at just before its section ends, when it is oldest.
//
//   A  a key that is there is never missed, and no reader sees a key go back to an older version
//   B  every value read is whole and one that was written for that key, and none is poison
//   D  dead readers hold nothing back: each is forgotten within 100 ms, and memory is all there
//      again within a second of the end
//
// Arguments: light or fenced. Ends after KVD_TEST_KILLS kills (100) and KVD_TEST_READS reads
// (1.5e7), and not before KVD_TEST_SECONDS (0).
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "shm/region.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"
#include "tests/torture/readers_torture.h"
#include "tests/torture/slot.h"
#include "tests/torture/value.h"

#define READERS 8u
#define KILL_EVERY_MS 5u
#define FORGOTTEN_MS 100u
#define FORGOTTEN_TURNS 20u // in less kvd may not have had its turn: the machine is busy
#define VIEWS_PER_SECTION 32u
#define WRITES_LEAST 1000u
#define FREE_MS_MAX 30000u // it takes a commit, and the machine may be busy
// The same records may begin in the middle of a segment, and those that shared one with others may
// stand in a survivor segment now. And a segment that has lost less than a fifth is left alone.
#define ALIGNMENT_SEGMENTS 2u

static struct tally *tally;
static uint64_t seed;

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(uint64_t ms)
{
	struct timespec time = { .tv_sec = (time_t)(ms / 1000),
				 .tv_nsec = (long)(ms % 1000) * 1000000 };
	(void)nanosleep(&time, NULL);
}

static void fail(int status)
{
	tally_add(&tally->failed, 1);
	tally->last_error = status;
}

struct reading {
	kvc_reader *reader;
	uint64_t random;
	uint64_t newest[TORTURE_KEYS];	     // what this process has seen of each key
	uint64_t seen[VIEWS_PER_SECTION][2]; // of the open section: key, count
	unsigned seen_count;
	uint64_t broken; // in the open section: counts only if it ends well
	uint64_t poisoned;
	uint64_t missed;
	bool told_revoked; // by a view of the open section: its end has to say so, too
	unsigned char copy[TORTURE_VALUE_BYTES_MAX];
};

// What one answer says about one key.
static void judge(struct reading *r, int status, uint64_t key, const void *value, size_t bytes,
		  const struct kvc_meta *meta)
{
	uint64_t count = 0;
	if (status == KVC_NOT_FOUND) {
		r->missed += key % TORTURE_REMOVABLE_EVERY != 0;
		return;
	}
	if (status != KVC_OK) {
		fail(status);
		return;
	}
	if (meta->flags & KVC_META_SOCKET) {
		tally_add(&tally->from_socket, 1);
		r->broken += strcmp(kvc_reader_error_text(r->reader), kvc_strerror(KVC_DAMAGED)) ==
			     0; // what it found in the mapping made no sense
	}
	if (!value_check(value, bytes, key, &count)) {
		const unsigned char *at = value;
		r->broken++;
		r->poisoned += bytes > 0 && at[bytes - 1] == KVS_POISON_BYTE;
		return;
	}
	r->seen[r->seen_count][0] = key;
	r->seen[r->seen_count++][1] = count;
}

// The section ended well: what was seen in it counts.
static void accept_section(struct reading *r)
{
	for (unsigned i = 0; i < r->seen_count; i++) {
		uint64_t *newest = &r->newest[r->seen[i][0]];
		tally_add(&tally->backwards, r->seen[i][1] < *newest);
		*newest = r->seen[i][1] > *newest ? r->seen[i][1] : *newest;
	}
	tally_add(&tally->broken, r->broken);
	tally_add(&tally->poisoned, r->poisoned);
	tally_add(&tally->missed, r->missed);
	tally_add(&tally->reads, r->seen_count);
}

static void read_views(struct reading *r)
{
	struct kvc_view views[VIEWS_PER_SECTION];
	uint64_t keys[VIEWS_PER_SECTION];
	int found[VIEWS_PER_SECTION];
	int status = kvc_begin(r->reader);
	if (status != KVC_OK) {
		fail(status);
		return;
	}
	for (unsigned i = 0; i < VIEWS_PER_SECTION; i++) {
		char name[24];
		keys[i] = tap_random(&r->random) % TORTURE_KEYS;
		views[i] = (struct kvc_view){ 0 };
		found[i] = kvc_view(r->reader, name, value_key(name, keys[i]), &views[i]);
		r->told_revoked |= found[i] == KVC_REVOKED;
	}
	for (unsigned i = 0; i < VIEWS_PER_SECTION && !r->told_revoked; i++) {
		judge(r, found[i], keys[i], views[i].value, views[i].value_bytes, &views[i].meta);
	}
	status = kvc_end(r->reader);
	if (status == KVC_OK && !r->told_revoked) {
		accept_section(r);
	} else if (status == KVC_REVOKED) {
		tally_add(&tally->revoked, 1); // this process stood still past the deadline
	} else {
		fail(status != KVC_OK ? status : KVC_REVOKED);
	}
}

static void read_copies(struct reading *r)
{
	for (unsigned i = 0; i < VIEWS_PER_SECTION; i++) {
		char name[24];
		uint64_t key = tap_random(&r->random) % TORTURE_KEYS;
		struct kvc_meta meta = { 0 };
		size_t name_bytes = value_key(name, key);
		int status = kvc_get(r->reader, name, name_bytes, r->copy, sizeof(r->copy), &meta);
		judge(r, status, key, r->copy, meta.value_bytes, &meta);
	}
	accept_section(r);
}

static void reader_process(const char *socket_path, uint32_t flags, uint64_t random)
{
	static struct reading r;
	struct kvc_options options;
	kvc *client;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.flags = flags;
	options.connect_timeout_ms = options.request_timeout_ms = 60000; // machines may be slow
	r.random = random;
	int status = kvc_open(&client, &options);
	if (status == KVC_OK) {
		status = kvc_reader_open(client, &r.reader);
	}
	if (status != KVC_OK) {
		fail(status);
		_exit(1);
	}
	for (;;) {
		r.seen_count = 0;
		r.broken = 0;
		r.poisoned = 0;
		r.missed = 0;
		r.told_revoked = false;
		if (tap_random(&r.random) % 2) {
			read_views(&r);
		} else {
			read_copies(&r);
		}
	}
}

static pid_t spawn_reader(const char *socket_path, bool fenced, uint64_t number)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		reader_process(socket_path, fenced ? KVC_OPEN_FENCED : 0, seed + number);
	}
	return pid;
}

static pid_t spawn_writer(const char *socket_path, bool load_only)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		readers_torture_write(socket_path, tally, seed, load_only);
	}
	return pid;
}

static bool wait_for(pid_t pid)
{
	int status = -1;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static uint64_t stat_of(struct harness_connection *c, const char *name)
{
	char quoted[64];
	const char *text = harness_command(c, "KVD.STATS", NULL);
	(void)snprintf(quoted, sizeof(quoted), "\"%s\":", name);
	const char *at = text != NULL ? strstr(text, quoted) : NULL;
	return at != NULL ? strtoull(at + strlen(quoted), NULL, 10) : UINT64_MAX;
}

// Waits until a statistic is at least `least` (and nothing is retired), for at most `limit_ms`.
// Returns the time it took, or UINT64_MAX.
static uint64_t wait_free(struct harness_connection *c, uint64_t least, uint64_t limit_ms)
{
	uint64_t start = now_ms();
	do {
		if (stat_of(c, "segments_free") >= least && stat_of(c, "segments_retired") == 0) {
			return now_ms() - start;
		}
		pause_ms(5);
	} while (now_ms() - start < limit_ms);
	tap_diag("free %" PRIu64 " (wanted %" PRIu64 "), full %" PRIu64 ", retired %" PRIu64,
		 stat_of(c, "segments_free"), least, stat_of(c, "segments_full"),
		 stat_of(c, "segments_retired"));
	return UINT64_MAX;
}

// Is nothing of this process known to kvd any more? Its row would have its pid behind the word.
static bool is_forgotten(struct harness_connection *c, pid_t pid)
{
	char row[32];
	(void)snprintf(row, sizeof(row), "pid\r\n:%d\r\n", (int)pid);
	const char *text = harness_command(c, "KVD.READERS", NULL);
	return text != NULL && strstr(text, row) == NULL;
}

struct campaign {
	struct harness *harness;
	struct harness_connection *connection;
	bool fenced;
	pid_t readers[READERS];
	uint64_t number; // of readers started so far
	uint64_t random;
	uint64_t kills;	     // inside a section
	uint64_t others;     // outside
	uint64_t slowest_ms; // until one was forgotten
	uint64_t late;	     // for longer than that, although kvd answered all the time
};

static void campaign_spawn(struct campaign *c, unsigned i)
{
	bool fenced = c->fenced && i % 2 == 0;
	c->readers[i] = spawn_reader(harness_socket(c->harness), fenced, ++c->number);
}

static void campaign_kill(struct campaign *c)
{
	unsigned i = (unsigned)(tap_random(&c->random) % READERS);
	pid_t pid = c->readers[i];
	bool inside = slot_stop(pid) && slot_look(pid).open > 0;
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	uint64_t start_ms = now_ms(), took_ms = 0, turns = 0;
	for (; !is_forgotten(c->connection, pid) && took_ms < FORGOTTEN_MS * 20; turns++) {
		took_ms = now_ms() - start_ms;
	}
	c->late += took_ms > FORGOTTEN_MS && turns > FORGOTTEN_TURNS;
	c->slowest_ms = took_ms > c->slowest_ms ? took_ms : c->slowest_ms;
	c->kills += inside;
	c->others += !inside;
	campaign_spawn(c, i);
}

// By the socket nobody comes to memory that was freed. Those of revoked sections are counted among
// these and not among the reads.
static uint64_t mapped_reads(void)
{
	uint64_t reads = __atomic_load_n(&tally->reads, __ATOMIC_RELAXED);
	uint64_t others = __atomic_load_n(&tally->from_socket, __ATOMIC_RELAXED);
	return reads > others ? reads - others : 0;
}

static void torture(struct campaign *c, uint64_t kills, uint64_t reads, uint64_t seconds)
{
	uint64_t end = now_ms() + seconds * 1000;
	for (unsigned i = 0; i < READERS; i++) {
		campaign_spawn(c, i);
	}
	while (tally->failed == 0 && tally->broken == 0 &&
	       (c->kills < kills || mapped_reads() < reads ||
		__atomic_load_n(&tally->writes, __ATOMIC_RELAXED) <= WRITES_LEAST ||
		now_ms() < end)) {
		pause_ms(KILL_EVERY_MS);
		campaign_kill(c);
	}
}

static void report(const struct campaign *c, uint64_t kills, uint64_t reads)
{
	tap_diag("%" PRIu64 " reads (%" PRIu64 " by socket), %" PRIu64 " writes, %" PRIu64
		 " kills inside a section and %" PRIu64 " outside, %" PRIu64 " revoked sections",
		 tally->reads, tally->from_socket, tally->writes, c->kills, c->others,
		 tally->revoked);
	tap_diag("counted reader-kills %" PRIu64, c->kills);
	tap_diag("counted poison-reads %" PRIu64, mapped_reads());
	ok(c->kills >= kills, "readers were killed inside a section");
	ok(mapped_reads() >= reads && tally->writes > WRITES_LEAST,
	   "there was reading and writing");
	ok(c->late == 0,
	   "D: the dead are forgotten at once (%" PRIu64 " late, slowest %" PRIu64 " ms)", c->late,
	   c->slowest_ms);
	ok(tally->from_socket * 2 < tally->reads, "C: mostly through the mapping");
	ok_u64(tally->poisoned, 0, "B1: no value was memory that had come free");
	ok_u64(tally->broken, 0, "B: every value read was whole and written for its key");
	ok_u64(tally->missed, 0, "A1: no key that is there was missed");
	ok_u64(tally->backwards, 0, "A2: no key went back to an older version");
	ok_u64(tally->writes_failed, 0, "D: no write failed");
	ok_u64(tally->failed, 0, "no read failed");
	if (tally->failed != 0) {
		tap_diag("last error: %s", kvc_strerror(tally->last_error));
	}
}

static uint64_t environment_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	bool fenced = argc > 1 && strcmp(argv[1], "fenced") == 0;
	uint64_t kills = environment_number("KVD_TEST_KILLS", 100);
	uint64_t reads = environment_number("KVD_TEST_READS", 15000000);
	seed = tap_seed(20);
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (tally == MAP_FAILED) {
		printf("Bail out! no shared memory\n");
		return 99;
	}
	// Commits are frequent because what is not durable is never cleaned.
	const char *const args[] = {
		"--memory",	   "48MiB", "--segment",    "64KiB", "--persist", "lazy",
		"--lazy-interval", "100ms", "--write-wait", "60s",   NULL
	};
	struct harness *h = harness_new();
	harness_setenv(h, "KVD_FENCED", fenced ? "1" : NULL);
	harness_setenv(h, "KVD_POISON", "1");
	harness_launch(h, args);
	struct harness_connection *c = harness_connect(h);
	struct campaign campaign = {
		.harness = h, .connection = c, .fenced = fenced, .random = seed
	};
	uint64_t empty = stat_of(c, "segments_free");
	ok(wait_for(spawn_writer(harness_socket(h), true)), "load");
	(void)harness_command(c, "KVD.SYNC", NULL);
	pause_ms(1000); // what is back within a second of the load must be back after the torture
	uint64_t loaded = stat_of(c, "segments_free");

	pid_t writer = spawn_writer(harness_socket(h), false);
	torture(&campaign, kills, reads, environment_number("KVD_TEST_SECONDS", 0));
	__atomic_store_n(&tally->stop, 1, __ATOMIC_RELAXED);
	ok(wait_for(writer), "the writer ended");
	for (unsigned i = 0; i < READERS; i++) {
		(void)kill(campaign.readers[i], SIGKILL);
		(void)waitpid(campaign.readers[i], NULL, 0);
	}
	report(&campaign, kills, reads);

	uint64_t more = ALIGNMENT_SEGMENTS + (empty - loaded) / 4;
	uint64_t took = wait_free(c, loaded - more, FREE_MS_MAX);
	ok(took != UINT64_MAX, "D: free segments are back (%" PRIu64 " ms)", took);
	const char *reply = harness_command(c, "FLUSHALL", NULL);
	if (!ok(reply != NULL && strncmp(reply, "+OK", 3) == 0, "FLUSHALL")) {
		tap_diag("%s", reply != NULL ? reply : "no reply");
	}
	(void)harness_command(c, "KVD.SYNC", NULL);
	took = wait_free(c, empty, FREE_MS_MAX);
	ok(took != UINT64_MAX, "D: every segment is free again after FLUSHALL (%" PRIu64 " ms)",
	   took);
	harness_disconnect(c);
	ok_int(harness_stop(h), 0, "kvd stops cleanly");
	harness_free(h);
	return tap_done();
}

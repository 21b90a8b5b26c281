// SPDX-License-Identifier: MIT
//
// Eight processes read while one writes at full speed, and every 100 ms one of the eight is killed
// where it stands, mostly inside a section, and replaced. Values are overwritten in many sizes,
// keys come and go so that the table grows and shrinks, large values take and leave their runs.
//
//   A  a key that is there is never missed, and no reader sees a key go back to an older version
//   B  every value read is whole and one that was written for that key
//   D  dead readers hold nothing back: memory is all there again within a second of the end
//
// Arguments: light or fenced. KVD_TEST_SECONDS sets the duration (5).
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"
#include "tests/torture/value.h"

#define READERS 8u
#define KEYS 4000u
#define REMOVABLE_EVERY 8u // keys that the writer also removes
#define COMING_AND_GOING 30000u
#define PIPELINE 64u
#define VALUE_BYTES_MAX 40000u
#define KILL_EVERY_MS 100u
#define VIEWS_PER_SECTION 32u
#define KEY_BYTES_AT_REST 200u
// The same records may begin in the middle of a segment, and those that shared one with others may
// stand in a survivor segment now.
#define ALIGNMENT_SEGMENTS 2u

// Shared by all processes of the test; each word is only ever added to.
struct tally {
	uint64_t reads;
	uint64_t from_socket;
	uint64_t missed;
	uint64_t broken;
	uint64_t backwards;
	uint64_t revoked;
	uint64_t failed;
	int last_error;
	uint64_t writes;
	uint64_t writes_failed;
	uint64_t stop; // the writer ends its round and exits
};

static struct tally *tally;
static uint64_t seed;

static void add(uint64_t *word, uint64_t by)
{
	(void)__atomic_fetch_add(word, by, __ATOMIC_RELAXED);
}

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
	add(&tally->failed, 1);
	tally->last_error = status;
}

struct reading {
	kvc_reader *reader;
	uint64_t random;
	uint64_t newest[KEYS];		     // what this process has seen of each key
	uint64_t seen[VIEWS_PER_SECTION][2]; // of the open section: key, count
	unsigned seen_count;
	uint64_t broken; // in the open section: counts only if it ends well
	uint64_t missed;
	unsigned char copy[VALUE_BYTES_MAX];
};

// What one answer says about one key.
static void judge(struct reading *r, int status, uint64_t key, const void *value, size_t bytes,
		  const struct kvc_meta *meta)
{
	uint64_t count = 0;
	if (status == KVC_NOT_FOUND) {
		r->missed += key % REMOVABLE_EVERY != 0;
		return;
	}
	if (status != KVC_OK) {
		fail(status);
		return;
	}
	add(&tally->from_socket, (meta->flags & KVC_META_SOCKET) != 0);
	if (!value_check(value, bytes, key, &count)) {
		r->broken++;
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
		add(&tally->backwards, r->seen[i][1] < *newest);
		*newest = r->seen[i][1] > *newest ? r->seen[i][1] : *newest;
	}
	add(&tally->broken, r->broken);
	add(&tally->missed, r->missed);
	add(&tally->reads, r->seen_count);
}

static void read_views(struct reading *r)
{
	int status = kvc_begin(r->reader);
	if (status != KVC_OK) {
		fail(status);
		return;
	}
	for (unsigned i = 0; i < VIEWS_PER_SECTION; i++) {
		char name[24];
		uint64_t key = tap_random(&r->random) % KEYS;
		struct kvc_view view = { 0 };
		size_t name_bytes = value_key(name, key);
		status = kvc_view(r->reader, name, name_bytes, &view);
		judge(r, status, key, view.value, view.value_bytes, &view.meta);
	}
	status = kvc_end(r->reader);
	if (status == KVC_OK) {
		accept_section(r);
	} else if (status == KVC_REVOKED) {
		add(&tally->revoked, 1);
	} else {
		fail(status);
	}
}

static void read_copies(struct reading *r)
{
	for (unsigned i = 0; i < VIEWS_PER_SECTION; i++) {
		char name[24];
		uint64_t key = tap_random(&r->random) % KEYS;
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
		r.missed = 0;
		if (tap_random(&r.random) % 2) {
			read_views(&r);
		} else {
			read_copies(&r);
		}
	}
}

struct writing {
	kvc *client;
	uint64_t random;
	uint64_t counts[KEYS];
	unsigned outstanding;
	unsigned char value[VALUE_BYTES_MAX];
};

static void take_replies(struct writing *w)
{
	for (; w->outstanding > 0; w->outstanding--) {
		const struct kvc_reply *reply;
		int status = kvc_pipeline_reply(w->client, &reply);
		bool good = status == KVC_OK && reply->type != KVC_REPLY_ERROR;
		add(&tally->writes_failed, !good);
		if (!good && tally->writes_failed < 3) {
			tap_diag("write: %s",
				 status == KVC_OK ? reply->text : kvc_strerror(status));
		}
		add(&tally->writes, good);
	}
}

static void send_command(struct writing *w, const char *verb, const char *key, size_t key_bytes,
			 const void *value, size_t value_bytes)
{
	const void *argv[] = { verb, key, value };
	size_t bytes[] = { strlen(verb), key_bytes, value_bytes };
	int status = kvc_pipeline_append(w->client, value == NULL ? 2 : 3, argv, bytes);
	if (status != KVC_OK) {
		add(&tally->writes_failed, 1);
	} else if (++w->outstanding == PIPELINE) {
		take_replies(w);
	}
}

static void write_one(struct writing *w, uint64_t key)
{
	char name[24];
	size_t name_bytes = value_key(name, key);
	uint64_t dice = tap_random(&w->random);
	if (key % REMOVABLE_EVERY == 0 && dice % 4 == 0) {
		send_command(w, "DEL", name, name_bytes, NULL, 0);
		return;
	}
	size_t bytes = VALUE_BYTES_MIN + (dice >> 8) % 300;
	if (dice % 500 == 1) {
		bytes = 17000 + (dice >> 8) % (VALUE_BYTES_MAX - 17000); // in the large range
	}
	value_fill(w->value, bytes, key, ++w->counts[key]);
	send_command(w, "SET", name, name_bytes, w->value, bytes);
}

// Other keys come and go in waves, and the table follows them.
static void write_wave(struct writing *w, uint64_t *wave, uint64_t step)
{
	char name[24];
	uint64_t number = *wave % COMING_AND_GOING;
	bool coming = *wave / COMING_AND_GOING % 2 == 0;
	size_t name_bytes = value_key(name, 1000000 + number);
	send_command(w, coming ? "SET" : "DEL", name, name_bytes, coming ? "x" : NULL, 1);
	*wave += step;
}

// Leaves the same keys with values of the same size, whatever was written before.
static void write_rest(struct writing *w)
{
	char name[24];
	for (uint64_t number = 0; number < COMING_AND_GOING; number++) {
		size_t name_bytes = value_key(name, 1000000 + number);
		send_command(w, "DEL", name, name_bytes, NULL, 0);
	}
	for (uint64_t key = 0; key < KEYS; key++) {
		value_fill(w->value, KEY_BYTES_AT_REST, key, ++w->counts[key]);
		size_t name_bytes = value_key(name, key);
		send_command(w, "SET", name, name_bytes, w->value, KEY_BYTES_AT_REST);
	}
	take_replies(w);
}

static void writer_process(const char *socket_path, bool load_only)
{
	static struct writing w;
	struct kvc_options options;
	uint64_t wave = 0;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.flags = KVC_OPEN_SOCKET_ONLY;
	options.request_timeout_ms = 30000;
	w.random = seed;
	if (kvc_open(&w.client, &options) != KVC_OK) {
		_exit(1);
	}
	while (load_only && wave < COMING_AND_GOING) {
		write_wave(&w, &wave, 1); // the table was as large as it will be
	}
	write_rest(&w);
	while (!load_only && __atomic_load_n(&tally->stop, __ATOMIC_RELAXED) == 0) {
		for (unsigned i = 0; i < PIPELINE; i++) {
			write_one(&w, tap_random(&w.random) % KEYS);
			write_wave(&w, &wave, 1);
		}
	}
	if (!load_only) {
		write_rest(&w);
	}
	(void)kvc_close(w.client);
	_exit(0);
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
		writer_process(socket_path, load_only);
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

static unsigned torture(struct harness *h, bool fenced, unsigned seconds, pid_t *readers)
{
	uint64_t number = 0, random = seed, kills = 0, end = now_ms() + seconds * 1000;
	for (unsigned i = 0; i < READERS; i++) {
		readers[i] = spawn_reader(harness_socket(h), fenced && i % 2 == 0, ++number);
	}
	for (uint64_t next = now_ms() + KILL_EVERY_MS; now_ms() < end; next += KILL_EVERY_MS) {
		uint64_t now = now_ms();
		pause_ms(next > now ? next - now : 1);
		unsigned i = (unsigned)(tap_random(&random) % READERS);
		(void)kill(readers[i], SIGKILL);
		(void)waitpid(readers[i], NULL, 0);
		readers[i] = spawn_reader(harness_socket(h), fenced && i % 2 == 0, ++number);
		kills++;
	}
	return (unsigned)kills;
}

static void report(unsigned kills, unsigned seconds)
{
	tap_diag("%" PRIu64 " reads (%" PRIu64 " by socket), %" PRIu64 " writes, %u kills, %" PRIu64
		 " revoked sections",
		 tally->reads, tally->from_socket, tally->writes, kills, tally->revoked);
	ok(kills >= seconds * 5, "readers were killed %u times", kills);
	ok(tally->reads > 1000 && tally->writes > 1000, "there was reading and writing");
	ok(tally->from_socket * 2 < tally->reads, "C: mostly through the mapping");
	ok_u64(tally->broken, 0, "B: every value read was whole and written for its key");
	ok_u64(tally->missed, 0, "A: no key that is there was missed");
	ok_u64(tally->backwards, 0, "A: no key went back to an older version");
	ok_u64(tally->writes_failed, 0, "D: no write failed");
	ok_u64(tally->failed, 0, "no read failed");
	if (tally->failed != 0) {
		tap_diag("last error: %s", kvc_strerror(tally->last_error));
	}
}

int main(int argc, char **argv)
{
	bool fenced = argc > 1 && strcmp(argv[1], "fenced") == 0;
	const char *text = getenv("KVD_TEST_SECONDS");
	unsigned seconds = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 5;
	seed = tap_seed(20);
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (tally == MAP_FAILED) {
		printf("Bail out! no shared memory\n");
		return 99;
	}
	// Commits are frequent because what is not durable is never cleaned.
	const char *const args[] = { "--memory",	"48MiB",     "--segment",
				     "64KiB",		"--persist", "lazy",
				     "--lazy-interval", "100ms",     NULL };
	struct harness *h = harness_new();
	harness_setenv(h, "KVD_FENCED", fenced ? "1" : NULL);
	harness_launch(h, args);
	struct harness_connection *c = harness_connect(h);
	uint64_t empty = stat_of(c, "segments_free");
	ok(wait_for(spawn_writer(harness_socket(h), true)), "load");
	(void)harness_command(c, "KVD.SYNC", NULL);
	pause_ms(1000); // what is back within a second of the load must be back after the torture
	uint64_t loaded = stat_of(c, "segments_free");

	pid_t readers[READERS];
	pid_t writer = spawn_writer(harness_socket(h), false);
	unsigned kills = torture(h, fenced, seconds, readers);
	__atomic_store_n(&tally->stop, 1, __ATOMIC_RELAXED);
	ok(wait_for(writer), "the writer ended");
	for (unsigned i = 0; i < READERS; i++) {
		(void)kill(readers[i], SIGKILL);
		(void)waitpid(readers[i], NULL, 0);
	}
	report(kills, seconds);

	uint64_t took = wait_free(c, loaded - ALIGNMENT_SEGMENTS, 10000);
	ok(took <= 1000, "D: free segments are back within a second (%" PRIu64 " ms)", took);
	const char *reply = harness_command(c, "FLUSHALL", NULL);
	ok(reply != NULL && strncmp(reply, "+OK", 3) == 0, "FLUSHALL");
	(void)harness_command(c, "KVD.SYNC", NULL);
	took = wait_free(c, empty, 10000);
	ok(took <= 1000, "D: every segment is free again after FLUSHALL (%" PRIu64 " ms)", took);
	harness_disconnect(c);
	ok_int(harness_stop(h), 0, "kvd stops cleanly");
	harness_free(h);
	return tap_done();
}

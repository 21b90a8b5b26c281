// SPDX-License-Identifier: MIT
//
// Four readers and two writers that go on while kvd dies and comes back, for warm_restart.py, which
// kills it. Every key belongs to one writer and its counts only rise, so whoever reads knows what
// is too old (below what was acknowledged before the read began) and what cannot be (above what was
// sent by the end of it).
//
// Arguments: socket, seed. Runs until its standard input ends, then prints `name number` lines.
// A line "keys" on standard input is answered by the number of keys that have been acknowledged.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "tests/tap/tap.h"
#include "tests/torture/value.h"

#define READERS 4u
#define WRITERS 2u
#define KEYS 20000u
#define PIPELINE 16u
#define VALUE_BYTES_MAX 30000u
#define VIEWS_PER_SECTION 16u
#define WARM_STALL_NS 1000000u

// Shared by all processes; each word has one writer, or is only added to.
struct warm {
	uint64_t sent[KEYS];
	uint64_t acked[KEYS];
	uint64_t acked_keys;
	uint64_t reads, from_socket, revoked, unreachable;
	uint64_t missed, broken, old, unsent, failed;
	uint64_t stalls; // reads through the mapping that took more than a millisecond
	uint64_t writes, writes_open, writes_refused;
	int last_error;
	uint64_t stop;
};

static struct warm *warm;

static uint64_t load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void store(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static void add(uint64_t *word, uint64_t by)
{
	(void)__atomic_fetch_add(word, by, __ATOMIC_RELAXED);
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static kvc *open_client(const char *socket_path, uint32_t flags)
{
	struct kvc_options options;
	kvc *client;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.flags = flags;
	options.reconnect_min_ms = 1;
	options.reconnect_max_ms = 5;
	while (kvc_open(&client, &options) != KVC_OK) {
		if (load(&warm->stop) != 0) {
			_exit(0);
		}
		(void)usleep(1000);
	}
	return client;
}

// ---- readers ----

struct seen {
	uint64_t key, least, count;
};

struct reading {
	kvc_reader *reader;
	uint64_t random;
	struct seen seen[VIEWS_PER_SECTION];
	unsigned seen_count;
	uint64_t broken, missed;
	unsigned char copy[VALUE_BYTES_MAX];
};

static void judge(struct reading *r, int status, uint64_t key, uint64_t least, const void *value,
		  size_t bytes, const struct kvc_meta *meta)
{
	uint64_t count = 0;
	if (status == KVC_NOT_FOUND) {
		r->missed += least > 0;
		return;
	}
	if (status == KVC_UNREACHABLE || status == KVC_TIMEOUT) {
		add(&warm->unreachable, 1); // not through the mapping: kvd was away
		return;
	}
	if (status == KVC_REVOKED) {
		add(&warm->revoked, 1);
		return;
	}
	if (status != KVC_OK) {
		add(&warm->failed, 1);
		warm->last_error = status;
		return;
	}
	add(&warm->from_socket, (meta->flags & KVC_META_SOCKET) != 0);
	if (!value_check(value, bytes, key, &count)) {
		r->broken++;
		return;
	}
	r->seen[r->seen_count++] = (struct seen){ .key = key, .least = least, .count = count };
}

static void accept_all(struct reading *r)
{
	for (unsigned i = 0; i < r->seen_count; i++) {
		const struct seen *seen = &r->seen[i];
		add(&warm->old, seen->count < seen->least);
		add(&warm->unsent, seen->count > load(&warm->sent[seen->key]));
	}
	add(&warm->broken, r->broken);
	add(&warm->missed, r->missed);
	add(&warm->reads, r->seen_count);
}

static uint64_t pick(struct reading *r, char name[24], size_t *name_bytes, uint64_t *least)
{
	uint64_t key = tap_random(&r->random) % KEYS;
	*name_bytes = value_key(name, key);
	*least = load(&warm->acked[key]);
	return key;
}

static void read_views(struct reading *r)
{
	uint64_t key[VIEWS_PER_SECTION], least[VIEWS_PER_SECTION];
	char name[VIEWS_PER_SECTION][24];
	size_t bytes[VIEWS_PER_SECTION];
	for (unsigned i = 0; i < VIEWS_PER_SECTION; i++) {
		key[i] = pick(r, name[i], &bytes[i], &least[i]);
	}
	int status = kvc_begin(r->reader);
	if (status != KVC_OK) {
		judge(r, status, 0, 0, NULL, 0, NULL);
		return;
	}
	for (unsigned i = 0; i < VIEWS_PER_SECTION; i++) {
		struct kvc_view view = { 0 };
		status = kvc_view(r->reader, name[i], bytes[i], &view);
		judge(r, status, key[i], least[i], view.value, view.value_bytes, &view.meta);
	}
	status = kvc_end(r->reader);
	if (status == KVC_OK) {
		accept_all(r);
	} else {
		judge(r, status, 0, 0, NULL, 0, NULL);
	}
}

static void read_copies(struct reading *r)
{
	for (unsigned i = 0; i < VIEWS_PER_SECTION; i++) {
		char name[24];
		size_t name_bytes;
		uint64_t least;
		uint64_t key = pick(r, name, &name_bytes, &least);
		struct kvc_meta meta = { 0 };
		uint64_t began_ns = now_ns();
		int status = kvc_get(r->reader, name, name_bytes, r->copy, sizeof(r->copy), &meta);
		bool mapped = status == KVC_OK && (meta.flags & KVC_META_SOCKET) == 0;
		add(&warm->stalls, mapped && now_ns() - began_ns > WARM_STALL_NS);
		judge(r, status, key, least, r->copy, meta.value_bytes, &meta);
	}
	accept_all(r);
}

static void reader_process(const char *socket_path, uint64_t random)
{
	static struct reading r;
	kvc *client = open_client(socket_path, 0);
	r.random = random;
	if (kvc_reader_open(client, &r.reader) != KVC_OK) {
		_exit(1);
	}
	while (load(&warm->stop) == 0) {
		r.seen_count = 0;
		r.broken = 0;
		r.missed = 0;
		if (tap_random(&r.random) % 2) {
			read_views(&r);
		} else {
			read_copies(&r);
		}
	}
	_exit(0);
}

// ---- writers ----

struct writing {
	kvc *client;
	uint64_t random;
	uint64_t key[PIPELINE], count[PIPELINE];
	unsigned outstanding;
	unsigned char value[VALUE_BYTES_MAX];
};

static void take_replies(struct writing *w)
{
	for (unsigned i = 0; i < w->outstanding; i++) {
		const struct kvc_reply *reply;
		int status = kvc_pipeline_reply(w->client, &reply);
		if (status == KVC_OK && reply->type != KVC_REPLY_ERROR) {
			uint64_t before = load(&warm->acked[w->key[i]]);
			add(&warm->acked_keys, before == 0);
			store(&warm->acked[w->key[i]], w->count[i]);
			add(&warm->writes, 1);
		} else if (status == KVC_OK) {
			add(&warm->writes_refused, 1);
		} else {
			add(&warm->writes_open, 1); // it may have been applied or not
		}
	}
	w->outstanding = 0;
}

static void write_one(struct writing *w, uint64_t key)
{
	char name[24];
	uint64_t dice = tap_random(&w->random);
	size_t bytes = VALUE_BYTES_MIN + (dice >> 8) % 300;
	if (dice % 400 == 1) {
		bytes = 17000 + (dice >> 8) % (VALUE_BYTES_MAX - 17000); // in the large range
	}
	uint64_t count = load(&warm->sent[key]) + 1;
	value_fill(w->value, bytes, key, count);
	const void *argv[] = { "SET", name, w->value };
	size_t argv_bytes[] = { 3, value_key(name, key), bytes };
	store(&warm->sent[key], count);
	if (kvc_pipeline_append(w->client, 3, argv, argv_bytes) != KVC_OK) {
		add(&warm->writes_open, 1);
		(void)usleep(200);
		return;
	}
	w->key[w->outstanding] = key;
	w->count[w->outstanding++] = count;
	if (w->outstanding == PIPELINE) {
		take_replies(w);
	}
}

static void writer_process(const char *socket_path, uint64_t random, unsigned number)
{
	static struct writing w;
	w.client = open_client(socket_path, KVC_OPEN_SOCKET_ONLY);
	w.random = random;
	while (load(&warm->stop) == 0) {
		uint64_t key = tap_random(&w.random) % (KEYS / WRITERS) * WRITERS + number;
		write_one(&w, key);
	}
	take_replies(&w);
	_exit(0);
}

// ---- the parent ----

static void serve_input(void)
{
	char line[64];
	while (fgets(line, sizeof(line), stdin) != NULL) {
		printf("keys %llu reads %llu writes %llu\n",
		       (unsigned long long)load(&warm->acked_keys),
		       (unsigned long long)load(&warm->reads),
		       (unsigned long long)load(&warm->writes));
		fflush(stdout);
	}
}

static void report(void)
{
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{ "reads", warm->reads },
		{ "from_socket", warm->from_socket },
		{ "revoked", warm->revoked },
		{ "unreachable", warm->unreachable },
		{ "missed", warm->missed },
		{ "broken", warm->broken },
		{ "old", warm->old },
		{ "unsent", warm->unsent },
		{ "failed", warm->failed },
		{ "last_error", (uint64_t)(int64_t)warm->last_error },
		{ "stalls", warm->stalls },
		{ "writes", warm->writes },
		{ "writes_open", warm->writes_open },
		{ "writes_refused", warm->writes_refused },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		printf("%s %llu\n", rows[i].name, (unsigned long long)rows[i].value);
	}
}

// When nobody writes any more every key is at least what was acknowledged. Returns how many are
// not.
static uint64_t sweep(const char *socket_path, uint64_t random)
{
	static struct reading r;
	uint64_t lost = 0;
	kvc *client = open_client(socket_path, 0);
	r.random = random;
	if (kvc_reader_open(client, &r.reader) != KVC_OK) {
		return KEYS;
	}
	for (uint64_t key = 0; key < KEYS; key++) {
		struct kvc_meta meta = { 0 };
		char name[24];
		uint64_t count = 0;
		int status = kvc_get(r.reader, name, value_key(name, key), r.copy, sizeof(r.copy),
				     &meta);
		bool there = status == KVC_OK && value_check(r.copy, meta.value_bytes, key, &count);
		lost += load(&warm->acked[key]) > (there ? count : 0);
		lost += count > load(&warm->sent[key]);
	}
	(void)kvc_close(client);
	return lost;
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		(void)fprintf(stderr, "usage: warm_clients SOCKET SEED\n");
		return 2;
	}
	uint64_t seed = strtoull(argv[2], NULL, 0);
	warm = mmap(NULL, sizeof(*warm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (warm == MAP_FAILED) {
		return 1;
	}
	for (unsigned i = 0; i < READERS + WRITERS; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (i < READERS) {
				reader_process(argv[1], seed + i);
			}
			writer_process(argv[1], seed + i, i - READERS);
		}
	}
	serve_input();
	store(&warm->stop, 1);
	int bad = 0, status;
	while (waitpid(-1, &status, 0) > 0 || errno == EINTR) {
		bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	}
	report();
	printf("lost %llu\n", (unsigned long long)sweep(argv[1], seed));
	printf("died %d\n", bad);
	return 0;
}

// SPDX-License-Identifier: MIT
//
// A storm of processes that come and go in every way while values are overwritten: children that
// read with what they inherited, that call exec() or closefrom() with a view open, start threads,
// die inside a section, leave a grandchild behind.
//
//   B  what is read is whole and of its key, in every child; a view that is not good is told
//   D  nothing of all these stays in kvd: no attachment, no connection, no descriptor, no memory
//
// KVD_TEST_STORM (1000) processes, four at a time.
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
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

#define KEYS 500u
#define AT_ONCE 4u
#define THREADS 6u
#define READS 8u
#define VALUE_BYTES_MAX 600u
#define PATIENCE_MS 90000u // machines may be slow
#define SETTLE_MS 60000u

enum way { WAY_INHERIT, WAY_EXEC, WAY_CLOSEFROM, WAY_THREADS, WAY_DIE, WAY_GRANDCHILD, WAYS };

struct tally {
	uint64_t reads, broken, failed, revoked, ways[WAYS];
	int last_error;
};

static struct tally *tally;

static void add(uint64_t *word, uint64_t by)
{
	(void)__atomic_fetch_add(word, by, __ATOMIC_RELAXED);
}

static void judge(int status, uint64_t key, const void *value, size_t bytes)
{
	uint64_t count;
	add(&tally->reads, 1);
	if (status != KVC_OK) {
		add(&tally->failed, 1);
		tally->last_error = status;
	} else {
		add(&tally->broken, !value_check(value, bytes, key, &count));
	}
}

static void read_copies(kvc_reader *reader, uint64_t random)
{
	unsigned char copy[VALUE_BYTES_MAX];
	for (unsigned i = 0; i < READS; i++) {
		char name[24];
		struct kvc_meta meta = { 0 };
		uint64_t key = tap_random(&random) % KEYS;
		int status = kvc_get(reader, name, value_key(name, key), copy, sizeof(copy), &meta);
		judge(status, key, copy, meta.value_bytes);
	}
}

// Opens a section with a view in it, and leaves it open.
static struct kvc_view open_view(kvc_reader *reader, uint64_t key)
{
	char name[24];
	struct kvc_view view = { 0 };
	if (kvc_begin(reader) != KVC_OK ||
	    kvc_view(reader, name, value_key(name, key), &view) != KVC_OK) {
		add(&tally->failed, 1);
	}
	return view;
}

static void end_view(kvc_reader *reader, const struct kvc_view *view, uint64_t key)
{
	uint64_t count;
	bool whole = value_check(view->value, view->value_bytes, key, &count);
	int status = kvc_end(reader);
	add(&tally->reads, status == KVC_OK);
	add(&tally->broken, status == KVC_OK && !whole);
	add(&tally->revoked, status == KVC_REVOKED);
	add(&tally->failed, status != KVC_OK && status != KVC_REVOKED);
}

struct thread {
	pthread_t thread;
	kvc *client;
	uint64_t random;
};

static void *thread_main(void *context)
{
	struct thread *t = context;
	kvc_reader *reader;
	if (kvc_reader_open(t->client, &reader) != KVC_OK) {
		add(&tally->failed, 1);
		return NULL;
	}
	read_copies(reader, t->random);
	add(&tally->failed, kvc_reader_close(reader) != KVC_OK);
	return NULL;
}

static void churn(kvc *client, uint64_t random)
{
	struct thread threads[THREADS];
	unsigned started = 0;
	for (; started < THREADS; started++) {
		threads[started] = (struct thread){ .client = client, .random = random + started };
		if (pthread_create(&threads[started].thread, NULL, thread_main,
				   &threads[started]) != 0) {
			break;
		}
	}
	add(&tally->failed, started < THREADS);
	for (unsigned i = 0; i < started; i++) {
		(void)pthread_join(threads[i].thread, NULL);
	}
}

// What one child does with the client that it inherited.
static void child(kvc *client, kvc_reader *reader, enum way way, uint64_t random)
{
	uint64_t key = tap_random(&random) % KEYS;
	struct kvc_view view;
	add(&tally->failed, kvc_end(reader) != KVC_REVOKED); // its parent's section
	read_copies(reader, random);
	add(&tally->ways[way], 1);
	switch (way) {
	case WAY_EXEC:
		(void)open_view(reader, key);
		(void)execl("/proc/self/exe", "storm", "nothing", (char *)NULL);
		add(&tally->failed, 1);
		break;
	case WAY_CLOSEFROM:
		view = open_view(reader, key);
		closefrom(STDERR_FILENO + 1);
		end_view(reader, &view, key);
		read_copies(reader, random + 1);
		break;
	case WAY_THREADS:
		churn(client, random);
		break;
	case WAY_DIE:
		(void)open_view(reader, key);
		(void)kill(getpid(), SIGKILL);
		break;
	case WAY_GRANDCHILD:
		view = open_view(reader, key);
		if (fork() == 0) {
			add(&tally->failed, kvc_end(reader) != KVC_REVOKED);
			read_copies(reader, random + 2);
			_exit(0);
		}
		end_view(reader, &view, key);
		break;
	default:
		view = open_view(reader, key);
		end_view(reader, &view, key);
		break;
	}
	_exit(0);
}

// Overwrites all values again and again.
static void writer_process(const char *socket_path, uint64_t random)
{
	static unsigned char value[VALUE_BYTES_MAX];
	struct kvc_options options;
	kvc *client;
	uint64_t count = 0;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.flags = KVC_OPEN_SOCKET_ONLY;
	options.connect_timeout_ms = options.request_timeout_ms = PATIENCE_MS;
	if (kvc_open(&client, &options) != KVC_OK) {
		_exit(1);
	}
	for (;;) {
		char name[24];
		uint64_t key = count < KEYS ? count : tap_random(&random) % KEYS;
		size_t bytes = VALUE_BYTES_MIN + tap_random(&random) % 500;
		value_fill(value, bytes, key, ++count);
		if (kvc_set(client, name, value_key(name, key), value, bytes, NULL, NULL) !=
		    KVC_OK) {
			_exit(1);
		}
		if (count == KEYS) {
			(void)kill(getpid(), SIGSTOP); // everything is there
		}
	}
}

static unsigned descriptors_of(pid_t pid)
{
	char path[32];
	unsigned count = 0;
	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *folder = opendir(path);
	while (folder != NULL && readdir(folder) != NULL) {
		count++;
	}
	if (folder != NULL) {
		(void)closedir(folder);
	}
	return count;
}

static uint64_t stat_of(struct harness_connection *c, const char *name)
{
	char quoted[64];
	const char *text = harness_command(c, "KVD.STATS", NULL);
	(void)snprintf(quoted, sizeof(quoted), "\"%s\":", name);
	const char *at = text != NULL ? strstr(text, quoted) : NULL;
	return at != NULL ? strtoull(at + strlen(quoted), NULL, 10) : UINT64_MAX;
}

// Waits until kvd is as it was: so many attached, connected and open.
static bool settles(struct harness *h, struct harness_connection *c, uint64_t connected,
		    unsigned descriptors)
{
	struct timespec moment = { .tv_nsec = 5000000 };
	for (unsigned waited_ms = 0; waited_ms < SETTLE_MS; waited_ms += 5) {
		if (stat_of(c, "clients_attached") <= 1 &&
		    stat_of(c, "clients_connected") <= connected &&
		    stat_of(c, "segments_retired") == 0 &&
		    descriptors_of(harness_pid(h)) <= descriptors) {
			return true;
		}
		(void)nanosleep(&moment, NULL);
	}
	tap_diag("attached %" PRIu64 ", connected %" PRIu64 " (%" PRIu64 "), descriptors %u (%u)",
		 stat_of(c, "clients_attached"), stat_of(c, "clients_connected"), connected,
		 descriptors_of(harness_pid(h)), descriptors);
	return false;
}

static void storm(kvc *client, kvc_reader *reader, unsigned wanted, uint64_t random)
{
	unsigned running = 0;
	add(&tally->failed, kvc_begin(reader) != KVC_OK); // children find it open
	for (unsigned i = 0; i < wanted || running > 0;) {
		if (i < wanted && running < AT_ONCE) {
			uint64_t dice = tap_random(&random);
			fflush(NULL);
			pid_t pid = fork();
			if (pid == 0) {
				child(client, reader, dice % WAYS, dice);
			}
			running += pid > 0;
			i++;
			continue;
		}
		int status = 0;
		pid_t pid = waitpid(-1, &status, 0);
		running -= pid > 0;
		add(&tally->failed, pid > 0 && !WIFEXITED(status) &&
					    !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
		if (i % 50 == 0) {
			(void)kvc_end(reader); // its own, however old
			read_copies(reader, random);
			add(&tally->failed, kvc_begin(reader) != KVC_OK);
		}
	}
	(void)kvc_end(reader);
}

// Starts the writer; every key has a value when this returns.
static pid_t start_writer(const char *socket_path, uint64_t random)
{
	int status = 0;
	pid_t pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		writer_process(socket_path, random);
	}
	(void)waitpid(pid, &status, WUNTRACED);
	(void)kill(pid, SIGCONT);
	return WIFSTOPPED(status) ? pid : -1;
}

static void report(unsigned wanted)
{
	uint64_t all = 0;
	for (unsigned i = 0; i < WAYS; i++) {
		all += tally->ways[i];
	}
	tap_diag("%" PRIu64 " processes, %" PRIu64 " of them called exec, %" PRIu64
		 " closefrom, %" PRIu64 " with threads, %" PRIu64 " killed in a section, %" PRIu64
		 " with a grandchild; %" PRIu64 " reads, %" PRIu64 " views revoked",
		 all, tally->ways[WAY_EXEC], tally->ways[WAY_CLOSEFROM], tally->ways[WAY_THREADS],
		 tally->ways[WAY_DIE], tally->ways[WAY_GRANDCHILD], tally->reads, tally->revoked);
	ok_u64(all, wanted, "processes came and went");
	ok_u64(tally->broken, 0, "B: every value read was whole and of its key");
	ok_u64(tally->failed, 0, "B: no read failed");
	if (tally->failed != 0) {
		tap_diag("last error: %s", kvc_strerror(tally->last_error));
	}
}

int main(int argc, char **argv)
{
	const char *text = getenv("KVD_TEST_STORM");
	unsigned wanted = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 1000;
	if (argc > 1 && strcmp(argv[1], "nothing") == 0) {
		return 0; // what exec() finds
	}
	uint64_t random = tap_seed(24);
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	const char *const args[] = { "--memory", "8MiB",	 "--segment", "64KiB", "--persist",
				     "memory",	 "--write-wait", "60s",	      NULL };
	struct harness *h = harness_new();
	harness_setenv(h, "KVD_POISON", "1");
	harness_launch(h, args);
	pid_t writer = start_writer(harness_socket(h), random);
	struct harness_connection *c = harness_connect(h);
	struct kvc_options options;
	kvc *client;
	kvc_reader *reader;
	kvc_options_init(&options);
	options.socket_path = harness_socket(h);
	options.connect_timeout_ms = options.request_timeout_ms = PATIENCE_MS;
	if (tally == MAP_FAILED || writer < 0 || kvc_open(&client, &options) != KVC_OK ||
	    kvc_reader_open(client, &reader) != KVC_OK) {
		printf("Bail out! cannot begin\n");
		return 99;
	}
	read_copies(reader, random);
	uint64_t connected = stat_of(c, "clients_connected");
	unsigned descriptors = descriptors_of(harness_pid(h));
	(void)kill(writer, SIGCONT);
	storm(client, reader, wanted, random);
	report(wanted);
	(void)kill(writer, SIGKILL);
	(void)waitpid(writer, NULL, 0);
	ok(settles(h, c, connected, descriptors), "D: nothing of them is left in kvd");
	(void)kvc_close(client);
	harness_disconnect(c);
	ok_int(harness_stop(h), 0, "kvd stops cleanly");
	harness_free(h);
	return tap_done();
}

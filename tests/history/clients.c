// SPDX-License-Identifier: MIT
//
// Makes a history: seven processes that read and write, and this one, which starts them, kills some
// of them if told to, and after a crash without the region writes down what is left. It obeys lines
// on its standard input, one line of answer each:
//
//   crash      kvd is about to be killed and its region with it
//   park       it was: waits until no writer is on its way
//   recovered  it serves again: what every key is now is written down, then the writers go on
//   count      how many events there are, instead of "ok"
//
// The end of the input ends the run. Arguments: socket, file, seed, policy, milliseconds between
// kills of clients (0 = none).
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/history/clients.h"
#include "tests/tap/tap.h"
#include "tests/torture/value.h"

#define LINE_BYTES 64u
#define PARK_MS_MAX 30000u

static const enum actor_role roles[] = { ACTOR_MAPPED, ACTOR_MAPPED, ACTOR_SOCKET, ACTOR_WRITER,
					 ACTOR_WRITER, ACTOR_WRITER, ACTOR_ASYNC };
#define ROLES (sizeof(roles) / sizeof(roles[0]))

struct run {
	struct history_file *file;
	const char *socket_path;
	uint64_t random;
	uint32_t kill_every_ms;
	struct {
		pid_t pid;
		uint32_t client;
	} child[ROLES];
	uint64_t crash_ns;
	uint32_t crashes;
	unsigned bad; // children that ended by themselves, badly
};

uint64_t actor_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void actor_pause_us(unsigned us)
{
	struct timespec time = { .tv_nsec = (long)us * 1000 };
	(void)nanosleep(&time, NULL);
}

int actor_is_over(const struct actor *actor)
{
	return __atomic_load_n(&actor->file->stop, __ATOMIC_SEQ_CST) != 0;
}

struct history_event *actor_begin(struct actor *actor, enum history_kind kind, unsigned key)
{
	uint32_t *count = &actor->file->events_count[actor->client];
	if (*count == HISTORY_EVENTS_MAX) {
		actor_pause_us(1000);
		return NULL;
	}
	struct history_event *event = &actor->file->events[actor->client][*count];
	event->client = actor->client;
	event->key = (uint16_t)key;
	event->kind = (uint8_t)kind;
	event->begin_ns = actor_now_ns();
	__atomic_store_n(count, *count + 1, __ATOMIC_RELEASE);
	return event;
}

void actor_end(struct history_event *event, enum history_result result)
{
	event->end_ns = actor_now_ns();
	event->result = (uint8_t)result;
}

void actor_forget_failed(struct actor *actor)
{
	uint32_t count = actor->file->events_count[actor->client];
	uint32_t kept = count;
	struct history_event *events = actor->file->events[actor->client];
	while (kept > 0 && events[kept - 1].result == HISTORY_FAILED) {
		kept--;
	}
	memset(&events[kept], 0, (count - kept) * sizeof(*events));
	__atomic_store_n(&actor->file->events_count[actor->client], kept, __ATOMIC_RELEASE);
	if (kept < count) {
		actor_pause_us(1000);
	}
}

size_t actor_key(char name[24], unsigned key)
{
	return value_key(name, key);
}

void actor_connect(struct actor *actor, uint32_t flags)
{
	struct kvc_options options;
	kvc_options_init(&options);
	options.socket_path = actor->socket_path;
	options.flags = flags;
	options.reconnect_min_ms = 1;
	options.reconnect_max_ms = 5;
	while (kvc_open(&actor->kvc, &options) != KVC_OK) {
		if (actor_is_over(actor)) {
			_exit(0);
		}
		if (actor->client != 0) {
			actor_pass_gate(actor); // it is not on its way either
		}
		actor_pause_us(1000);
	}
	if (kvc_reader_open(actor->kvc, &actor->reader) != KVC_OK) {
		_exit(1);
	}
}

void actor_pass_gate(struct actor *actor)
{
	uint32_t *parked = &actor->file->parked[actor->client];
	while (__atomic_load_n(&actor->file->gate, __ATOMIC_SEQ_CST) != 0 &&
	       !actor_is_over(actor)) {
		__atomic_store_n(parked, 1, __ATOMIC_SEQ_CST);
		actor_pause_us(200);
	}
	__atomic_store_n(parked, 0, __ATOMIC_SEQ_CST);
}

// ---- the parent ----

static void play(const struct run *run, uint32_t client, enum actor_role role)
{
	static struct actor actor;
	actor.file = run->file;
	actor.client = client;
	actor.socket_path = run->socket_path;
	actor.random = run->random + client;
	switch (role) {
	case ACTOR_MAPPED:
		actor_read_mapped(&actor);
		break;
	case ACTOR_SOCKET:
		actor_read_socket(&actor);
		break;
	case ACTOR_WRITER:
		actor_write(&actor);
		break;
	case ACTOR_ASYNC:
		actor_write_async(&actor);
		break;
	}
	_exit(0);
}

static void spawn(struct run *run, unsigned i)
{
	uint32_t client = run->file->clients_count++;
	pid_t pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		play(run, client, roles[i]);
	}
	run->child[i].pid = pid;
	run->child[i].client = client;
}

static void kill_one(struct run *run)
{
	unsigned i = (unsigned)(tap_random(&run->random) % ROLES);
	if (run->file->clients_count == HISTORY_CLIENTS_MAX) {
		return;
	}
	(void)kill(run->child[i].pid, SIGKILL);
	(void)waitpid(run->child[i].pid, NULL, 0);
	spawn(run, i);
}

// False if a writer does not come to rest.
static bool park(struct run *run)
{
	uint64_t until_ns = actor_now_ns() + PARK_MS_MAX * UINT64_C(1000000);
	__atomic_store_n(&run->file->gate, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < ROLES; i++) {
		const uint32_t *parked = &run->file->parked[run->child[i].client];
		while ((roles[i] == ACTOR_WRITER || roles[i] == ACTOR_ASYNC) &&
		       __atomic_load_n(parked, __ATOMIC_SEQ_CST) == 0) {
			if (actor_now_ns() > until_ns) {
				(void)fprintf(stderr, "client %u does not rest\n",
					      run->child[i].client);
				return false;
			}
			actor_pause_us(200);
		}
	}
	return true;
}

// Writes down what every key is; then writers may go on. False if something could not be read.
static bool write_down(struct run *run)
{
	static struct actor actor;
	bool good = true;
	actor.file = run->file;
	actor.socket_path = run->socket_path;
	actor_connect(&actor, KVC_OPEN_SOCKET_ONLY);
	for (unsigned key = 0; key < HISTORY_KEYS && good; key++) {
		actor_get(&actor, HISTORY_RECOVERED, key);
		uint32_t last = run->file->events_count[0] - 1;
		run->file->events[0][last].group = run->crashes;
		good = run->file->events[0][last].result != HISTORY_FAILED;
		if (!good) {
			(void)fprintf(stderr, "key %u: %s\n", key,
				      kvc_reader_error_text(actor.reader));
		}
	}
	struct history_event *crash = actor_begin(&actor, HISTORY_CRASH, 0);
	if (crash != NULL) {
		actor_end(crash, HISTORY_OK);
		crash->begin_ns = run->crash_ns;
		crash->group = run->crashes++;
	}
	(void)kvc_close(actor.kvc);
	__atomic_store_n(&run->file->gate, 0, __ATOMIC_SEQ_CST);
	return good && crash != NULL;
}

static void obey(struct run *run, const char *line)
{
	bool good = true;
	if (strcmp(line, "count\n") == 0) {
		uint64_t events = 0;
		for (uint32_t i = 0; i < run->file->clients_count; i++) {
			events += run->file->events_count[i];
		}
		printf("%" PRIu64 "\n", events);
		fflush(stdout);
		return;
	}
	if (strcmp(line, "crash\n") == 0) {
		run->crash_ns = actor_now_ns();
	} else if (strcmp(line, "park\n") == 0) {
		good = park(run);
	} else if (strcmp(line, "recovered\n") == 0) {
		good = write_down(run);
	}
	printf("%s\n", good ? "ok" : "no");
	fflush(stdout);
}

static void serve(struct run *run)
{
	char line[LINE_BYTES];
	for (;;) {
		struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
		int timeout_ms = run->kill_every_ms != 0 ? (int)run->kill_every_ms : -1;
		int ready = poll(&input, 1, timeout_ms);
		if (ready > 0 && fgets(line, sizeof(line), stdin) == NULL) {
			return;
		}
		if (ready > 0) {
			obey(run, line);
		} else if (ready == 0 && run->file->gate == 0) {
			kill_one(run);
		}
	}
}

static struct history_file *map_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(struct history_file)) != 0) {
		return NULL;
	}
	void *map =
		mmap(NULL, sizeof(struct history_file), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)close(fd);
	return map == MAP_FAILED ? NULL : map;
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		(void)fprintf(stderr, "usage: history_clients SOCKET FILE SEED POLICY KILL_MS\n");
		return 2;
	}
	struct run run = { .file = map_file(argv[2]),
			   .socket_path = argv[1],
			   .random = strtoull(argv[3], NULL, 0),
			   .kill_every_ms = (uint32_t)strtoul(argv[5], NULL, 0) };
	if (run.file == NULL) {
		perror(argv[2]);
		return 1;
	}
	setvbuf(stdin, NULL, _IONBF, 0); // poll() must know what was not read yet
	run.file->marker = HISTORY_MARKER;
	run.file->seed = run.random;
	run.file->policy = (uint32_t)strtoul(argv[4], NULL, 0);
	run.file->clients_count = 1; // this process is 0
	for (unsigned i = 0; i < ROLES; i++) {
		spawn(&run, i);
	}
	serve(&run);
	__atomic_store_n(&run.file->stop, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < ROLES; i++) {
		int status = 0;
		while (waitpid(run.child[i].pid, &status, 0) < 0 && errno == EINTR) {
		}
		run.bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	}
	printf("clients %u bad %u\n", run.file->clients_count, run.bad);
	return run.bad != 0;
}

// SPDX-License-Identifier: MIT
//
// Readers and writers for soak.py, which kills kvd, and readers, under them.
//
// Arguments: socket, seed. Lines on standard input, each answered by one: "status", "mode churn",
// "mode grow", "mode shrink", "phase N" (odd: from now on no key is evicted; even: it may be; said
// before kvd may), "kill" (a reader, another takes its place), "park" (everybody is
// answered and waits), "sweep" (while parked: all keys are looked at; how many there are),
// "resume". Ends when its input does.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/torture/soak_clients.h"

#define PARK_MS_MAX 120000u

struct soak *soak;
static const char *socket_path;

uint64_t wall_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

size_t name_of(char name[24], uint64_t key)
{
	return (size_t)snprintf(name, 24, "%s:%07llu", is_cached(key) ? "cache" : "keep",
				(unsigned long long)key);
}

static void wait_a_moment(void)
{
	if (load(&soak->stop) != 0) {
		_exit(0);
	}
	(void)usleep(1000);
}

kvc *open_client(uint32_t flags)
{
	struct kvc_options options;
	kvc *client;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.flags = flags;
	options.reconnect_min_ms = 1;
	options.reconnect_max_ms = 20;
	options.request_timeout_ms = 60000;
	while (kvc_open(&client, &options) != KVC_OK) {
		wait_a_moment();
	}
	return client;
}

kvc_reader *open_reader(kvc *client)
{
	kvc_reader *reader;
	while (kvc_reader_open(client, &reader) != KVC_OK) {
		wait_a_moment();
	}
	return reader;
}

void pass_gate(unsigned actor)
{
	uint64_t gate;
	while ((gate = load(&soak->gate)) != 0 && load(&soak->stop) == 0) {
		store(&soak->parked[actor], gate);
		(void)usleep(1000);
	}
}

static pid_t actors[ACTORS];

static void spawn_actor(unsigned actor, uint64_t random)
{
	pid_t parent = getpid();
	(void)fflush(NULL);
	store(&soak->parked[actor], 0);
	actors[actor] = fork();
	if (actors[actor] == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) {
			_exit(0);
		}
		if (actor < READERS) {
			reader_process(actor, random);
		}
		writer_process(actor, random);
	}
}

static void kill_reader(uint64_t *random)
{
	unsigned actor = (unsigned)(tap_random(random) % READERS);
	(void)kill(actors[actor], SIGKILL);
	while (waitpid(actors[actor], NULL, 0) < 0 && errno == EINTR) {
	}
	spawn_actor(actor, tap_random(random));
}

static bool park(void)
{
	static uint64_t gates;
	uint64_t gate = ++gates;
	store(&soak->gate, gate);
	for (unsigned waited = 0; waited < PARK_MS_MAX; waited++) {
		unsigned parked = 0;
		for (unsigned i = 0; i < ACTORS; i++) {
			parked += load(&soak->parked[i]) == gate;
		}
		if (parked == ACTORS) {
			return true;
		}
		(void)usleep(1000);
	}
	return false;
}

// Nobody writes: every key is as its writer knows it. Returns how many were found.
static uint64_t sweep(void)
{
	static struct reading r;
	uint64_t found = 0;
	kvc *client = open_client(0);
	r.reader = open_reader(client);
	for (uint64_t key = 0; key < KEYS; key++) {
		found += read_copy(&r, key);
	}
	(void)kvc_close(client);
	return found;
}

static void report(void)
{
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{ "reads", soak->reads },
		{ "from_socket", soak->from_socket },
		{ "revoked", soak->revoked },
		{ "unreachable", soak->unreachable },
		{ "unjudged", soak->unjudged },
		{ "missed", soak->missed },
		{ "broken", soak->broken },
		{ "old", soak->old },
		{ "unsent", soak->unsent },
		{ "dead", soak->dead },
		{ "failed", soak->failed },
		{ "writes", soak->writes },
		{ "writes_open", soak->writes_open },
		{ "writes_refused", soak->writes_refused },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		printf("%s %llu%c", rows[i].name, (unsigned long long)rows[i].value,
		       i + 1 < sizeof(rows) / sizeof(rows[0]) ? ' ' : '\n');
	}
}

static void obey(const char *line, uint64_t *random)
{
	if (strcmp(line, "status\n") == 0) {
		report();
	} else if (strcmp(line, "kill\n") == 0) {
		kill_reader(random);
		printf("ok\n");
	} else if (strcmp(line, "park\n") == 0) {
		printf("%s\n", park() ? "ok" : "stuck");
	} else if (strcmp(line, "sweep\n") == 0) {
		printf("%llu\n", (unsigned long long)sweep());
	} else if (strncmp(line, "phase ", 6) == 0) {
		store(&soak->phase, strtoull(line + 6, NULL, 10));
		printf("ok\n");
	} else if (strcmp(line, "resume\n") == 0) {
		store(&soak->gate, 0);
		printf("ok\n");
	} else {
		enum mode mode = strcmp(line, "mode grow\n") == 0     ? MODE_GROW
				 : strcmp(line, "mode shrink\n") == 0 ? MODE_SHRINK
								      : MODE_CHURN;
		store(&soak->mode, mode);
		printf("ok\n");
	}
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		(void)fprintf(stderr, "usage: soak_clients SOCKET SEED\n");
		return 2;
	}
	uint64_t random = strtoull(argv[2], NULL, 0);
	socket_path = argv[1];
	soak = mmap(NULL, sizeof(*soak), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (soak == MAP_FAILED) {
		return 1;
	}
	for (unsigned i = 0; i < ACTORS; i++) {
		spawn_actor(i, tap_random(&random));
	}
	char line[64];
	while (fgets(line, sizeof(line), stdin) != NULL) {
		obey(line, &random);
	}
	store(&soak->stop, 1);
	(void)fputs(soak->refusal, stderr);
	int bad = 0;
	for (unsigned i = 0; i < ACTORS; i++) {
		int status = 0;
		while (waitpid(actors[i], &status, 0) < 0 && errno == EINTR) {
		}
		bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	}
	return bad > 0 ? 3 : 0;
}

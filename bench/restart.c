// SPDX-License-Identifier: MIT
//
// What a death of kvd costs under --supervise: how long nobody is served, and what a process that
// reads through the mapping notices. kvd is killed several times in a row while it holds the keys.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/kvbench.h"
#include "bench/server.h"

#define RESTART_BACKOFF_S 11 // a life of ten seconds is followed by a start without a pause

// The reading process writes, this one reads and resets.
struct restart_shared {
	uint64_t reads;
	uint64_t longest_ns;
	uint64_t failed;
};

static void restart_reader(const char *socket_path, uint64_t keys, struct restart_shared *shared)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	kvc_reader *reader = bench_reader(bench_client(socket_path));
	uint64_t random = 1;
	for (;;) {
		char key[BENCH_KEY_BYTES], value[BENCH_VALUE_BYTES];
		struct kvc_meta meta = { 0 };
		bench_key(key, bench_random_below(&random, keys));
		uint64_t began_ns = bench_now_ns();
		int status = kvc_get(reader, key, sizeof(key), value, sizeof(value), &meta);
		uint64_t took_ns = bench_now_ns() - began_ns;
		bool mapped = status == KVC_OK && (meta.flags & KVC_META_SOCKET) == 0;
		__atomic_fetch_add(&shared->failed, !mapped, __ATOMIC_RELAXED);
		__atomic_fetch_add(&shared->reads, 1, __ATOMIC_RELAXED);
		if (took_ns > __atomic_load_n(&shared->longest_ns, __ATOMIC_RELAXED)) {
			__atomic_store_n(&shared->longest_ns, took_ns, __ATOMIC_RELAXED);
		}
	}
}

// The process that serves, not the one that watches it.
static pid_t restart_child(const struct harness *server)
{
	struct harness_connection *connection = harness_connect(server);
	const char *text = harness_command(connection, "INFO", "server", NULL);
	const char *at = text ? strstr(text, "process_id:") : NULL;
	pid_t pid = at ? (pid_t)strtol(at + strlen("process_id:"), NULL, 10) : 0;
	harness_disconnect(connection);
	if (pid <= 1) {
		bench_die("INFO tells no process_id");
	}
	return pid;
}

static void restart_pause(time_t seconds)
{
	struct timespec left = { .tv_sec = seconds };
	while (nanosleep(&left, &left) != 0 && errno == EINTR) {
	}
}

// One PING on a connection of its own.
static bool restart_is_served(const char *socket_path)
{
	char answer[16];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	bool served = fd >= 0 && connect(fd, (void *)&address, sizeof(address)) == 0 &&
		      send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6 &&
		      recv(fd, answer, sizeof(answer), 0) > 0;
	if (fd >= 0) {
		close(fd);
	}
	return served;
}

// Kills kvd and waits until a new one answers.
static double restart_once(const struct harness *server)
{
	pid_t pid = restart_child(server);
	uint64_t began_ns = bench_now_ns();
	if (kill(pid, SIGKILL) != 0) {
		bench_die("kill: %s", strerror(errno));
	}
	do {
		(void)usleep(500);
	} while (!restart_is_served(harness_socket(server)));
	return (double)(bench_now_ns() - began_ns) / 1e6;
}

static void restart_measure(struct bench_rows *rows, uint64_t keys, uint64_t kills)
{
	static double outage_ms[BENCH_REPEATS_MAX], longest_us[BENCH_REPEATS_MAX];
	static double quiet_us[BENCH_REPEATS_MAX];
	struct restart_shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
					     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		bench_die("mmap: %s", strerror(errno));
	}
	struct harness *server = bench_server_start_supervised("lazy", bench_memory_for(keys));
	bench_load(harness_socket(server), keys);
	pid_t reader = fork();
	if (reader == 0) {
		restart_reader(harness_socket(server), keys, shared);
	}
	for (uint64_t i = 0; i < kills; i++) {
		__atomic_store_n(&shared->longest_ns, 0, __ATOMIC_RELAXED);
		restart_pause(RESTART_BACKOFF_S);
		quiet_us[i] =
			(double)__atomic_exchange_n(&shared->longest_ns, 0, __ATOMIC_RELAXED) / 1e3;
		outage_ms[i] = restart_once(server);
		restart_pause(1); // the reader has attached anew by then
		longest_us[i] =
			(double)__atomic_load_n(&shared->longest_ns, __ATOMIC_RELAXED) / 1e3;
	}
	(void)kill(reader, SIGKILL);
	(void)waitpid(reader, NULL, 0);
	bench_add(rows, "outage", "from kill -9 to the first answer", "ms", outage_ms, kills);
	bench_add(rows, "longest_get", "longest get from the kill to a second later", "us",
		  longest_us, kills);
	bench_add(rows, "longest_get_quiet", "longest get of the 11 seconds before", "us", quiet_us,
		  kills);
	bench_add_one(rows, "reads", "reads in all", "", (double)shared->reads);
	bench_add_one(rows, "not_mapped", "of them not through the mapping", "",
		      (double)shared->failed);
	bench_server_free(server);
}

int restart_main(int argc, char **argv)
{
	static struct bench_rows rows;
	uint64_t keys = 1000000, kills = 5;
	bool json = false;
	const struct bench_option options[] = {
		{ "--keys", 1, 100000000, &keys },
		{ "--kills", 1, BENCH_REPEATS_MAX, &kills },
	};
	if (!bench_options(argc, argv, options, 2, &json,
			   "usage: kvbench restart [--keys N] [--kills N] [--json]\n"
			   "kill -9 of kvd under --supervise, with a process that reads on.\n")) {
		return 2;
	}
	restart_measure(&rows, keys, kills);
	bench_print("restart", &rows, json);
	return 0;
}

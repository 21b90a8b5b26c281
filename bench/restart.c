// SPDX-License-Identifier: MIT
//
// What a death of kvd costs. Under --supervise: how long nobody is served, and what a process that
// reads through the mapping notices, when kvd is killed several times in a row while it holds the
// keys. And without its region: how fast it comes back from the store, with small records and with
// large ones. All of it is wall time, so nothing else should run.
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
#define RESTART_STALL_NS 1000000u
#define RESTART_VALUE_BYTES (16u << 10) // of the large records

// The reading process writes, this one reads and resets.
struct restart_shared {
	uint64_t reads;
	uint64_t longest_ns;
	uint64_t stalls; // reads of more than RESTART_STALL_NS
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
		__atomic_fetch_add(&shared->stalls, took_ns > RESTART_STALL_NS, __ATOMIC_RELAXED);
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

// One request on a connection of its own.
static bool restart_asks(const char *socket_path, const char *request)
{
	char answer[16];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	ssize_t bytes = (ssize_t)strlen(request);
	bool served = fd >= 0 && connect(fd, (void *)&address, sizeof(address)) == 0 &&
		      send(fd, request, (size_t)bytes, MSG_NOSIGNAL) == bytes &&
		      recv(fd, answer, sizeof(answer), 0) > 0 && answer[0] == '+';
	if (fd >= 0) {
		close(fd);
	}
	return served;
}

// Kills kvd and waits until a new one answers; then until it has accepted a write.
static double restart_once(const struct harness *server, double *written_ms)
{
	const char *path = harness_socket(server);
	pid_t pid = restart_child(server);
	uint64_t began_ns = bench_now_ns();
	if (kill(pid, SIGKILL) != 0) {
		bench_die("kill: %s", strerror(errno));
	}
	do {
		(void)usleep(500);
	} while (!restart_asks(path, "PING\r\n"));
	double outage_ms = (double)(bench_now_ns() - began_ns) / 1e6;
	if (!restart_asks(path, "SET restart 1\r\n")) {
		bench_die("kvd refuses a write after its restart");
	}
	*written_ms = (double)(bench_now_ns() - began_ns) / 1e6;
	return outage_ms;
}

static void restart_warm(struct bench_rows *rows, uint64_t keys, uint64_t kills)
{
	static double outage_ms[BENCH_REPEATS_MAX], written_ms[BENCH_REPEATS_MAX];
	static double longest_us[BENCH_REPEATS_MAX], quiet_us[BENCH_REPEATS_MAX];
	static double stalls[BENCH_REPEATS_MAX];
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
		__atomic_store_n(&shared->stalls, 0, __ATOMIC_RELAXED);
		outage_ms[i] = restart_once(server, &written_ms[i]);
		restart_pause(1); // the reader has attached anew by then
		longest_us[i] =
			(double)__atomic_load_n(&shared->longest_ns, __ATOMIC_RELAXED) / 1e3;
		stalls[i] = (double)__atomic_load_n(&shared->stalls, __ATOMIC_RELAXED);
	}
	(void)kill(reader, SIGKILL);
	(void)waitpid(reader, NULL, 0);
	bench_add(rows, "outage", "from kill -9 to the first answer", "ms", outage_ms, kills);
	bench_add(rows, "outage_write", "to the first accepted write", "ms", written_ms, kills);
	bench_add(rows, "longest_get", "longest get from the kill to a second later", "us",
		  longest_us, kills);
	bench_add(rows, "stalls", "gets over 1 ms in that time", "", stalls, kills);
	bench_add(rows, "longest_get_quiet", "longest get of the 11 seconds before", "us", quiet_us,
		  kills);
	bench_add_one(rows, "reads", "reads in all", "", (double)shared->reads);
	bench_add_one(rows, "not_mapped", "of them not through the mapping", "",
		      (double)shared->failed);
	bench_server_free(server);
}

static void restart_load_large(const struct harness *server, uint64_t count)
{
	struct harness_connection *connection = harness_connect(server);
	char *value = malloc(RESTART_VALUE_BYTES);
	if (value == NULL) {
		bench_die("out of memory");
	}
	for (uint64_t i = 0; i < count; i++) {
		char key[BENCH_KEY_BYTES];
		bench_key(key, i);
		memset(value, (int)('a' + i % 26), RESTART_VALUE_BYTES);
		const void *const words[] = { "SET", key, value };
		const size_t bytes[] = { 3, sizeof(key), RESTART_VALUE_BYTES };
		if (!harness_command_argv(connection, 3, words, bytes, NULL)) {
			bench_die("kvd refused a SET");
		}
	}
	free(value);
	harness_disconnect(connection);
}

// Starts from the store alone; the samples are what it reads a second, in `units`.
static void restart_cold(struct harness *server, uint64_t starts, double units, double *samples)
{
	struct harness_connection *connection = harness_connect(server);
	(void)harness_command(connection, "SET", "restart", "1", NULL);
	(void)harness_command(connection, "KVD.SYNC", NULL); // of what came before, too
	harness_disconnect(connection);
	for (uint64_t i = 0; i < starts; i++) {
		harness_kill(server);
		uint64_t began_ns = bench_now_ns();
		harness_restart(server);
		samples[i] = units * 1e9 / (double)(bench_now_ns() - began_ns);
	}
	bench_server_free(server);
}

static void restart_colds(struct bench_rows *rows, uint64_t keys, uint64_t mib, uint64_t starts)
{
	static double samples[BENCH_REPEATS_MAX];
	struct harness *server = bench_server_start("lazy", bench_memory_for(keys));
	bench_load(harness_socket(server), keys);
	restart_cold(server, starts, (double)keys / 1e6, samples);
	bench_add(rows, "cold_records", "small records a second, from the store", "M", samples,
		  starts);
	uint64_t count = (mib << 20) / RESTART_VALUE_BYTES;
	server = bench_server_start("lazy", (mib << 20) * 3 / 2 + (UINT64_C(64) << 20));
	restart_load_large(server, count);
	restart_cold(server, starts, (double)(mib << 20) / 1e6, samples);
	bench_add(rows, "cold_values", "values of 16 KiB a second, from the store", "MB", samples,
		  starts);
}

int restart_main(int argc, char **argv)
{
	static struct bench_rows rows;
	uint64_t keys = 1000000, kills = 5, mib = 512;
	bool json = false;
	const struct bench_option options[] = {
		{ "--keys", 1, 100000000, &keys },
		{ "--kills", 1, BENCH_REPEATS_MAX, &kills },
		{ "--values-mib", 1, 1 << 20, &mib },
	};
	if (!bench_options(argc, argv, options, 3, &json,
			   "usage: kvbench restart [--keys N] [--kills N] [--values-mib N] "
			   "[--json]\n"
			   "kill -9 of kvd under --supervise, with a process that reads on;\n"
			   "then starts from the store alone.\n")) {
		return 2;
	}
	restart_warm(&rows, keys, kills);
	restart_colds(&rows, keys, mib, kills);
	bench_print("restart", &rows, json);
	return 0;
}

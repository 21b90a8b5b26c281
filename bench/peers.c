// SPDX-License-Identifier: MIT
//
// Starting and ending the peers; see peers.h.
#include "bench/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/common.h"

#define PEER_START_NS UINT64_C(10000000000)

// The first line of `program --version`. False: there is no such program.
static bool peer_version(const char *program, char *out, size_t out_bytes)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0) {
		bench_die("pipe2: %s", strerror(errno));
	}
	pid_t pid = fork();
	if (pid == 0) {
		(void)dup2(ends[1], STDOUT_FILENO);
		(void)execlp(program, program, "--version", (char *)NULL);
		_exit(127);
	}
	(void)close(ends[1]);
	size_t bytes = 0;
	ssize_t got = 1;
	while (got > 0 && bytes < out_bytes - 1) {
		got = read(ends[0], out + bytes, out_bytes - 1 - bytes);
		bytes += got > 0 ? (size_t)got : 0;
	}
	(void)close(ends[0]);
	out[bytes] = '\0';
	out[strcspn(out, "\n")] = '\0';
	int status = 0;
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		bench_die("%s --version: %s", program, strerror(errno));
	}
	return bytes > 0;
}

static bool peer_listens(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool listens =
		fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
	if (fd >= 0) {
		(void)close(fd);
	}
	return listens;
}

__attribute__((noreturn)) static void peer_run(enum bench_peer_kind kind, const char *path,
					       unsigned memory_mib)
{
	char memory[16];
	(void)snprintf(memory, sizeof(memory), "%u", memory_mib ? memory_mib : 1024);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	FILE *null = freopen("/dev/null", "w", stdout);
	if (kind == BENCH_PEER_REDIS && null) {
		(void)execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path,
			     "--save", "", "--appendonly", "no", "--daemonize", "no", (char *)NULL);
	} else if (null) {
		// As nobody, if this is root: memcached demands a name then.
		(void)execlp("memcached", "memcached", "-u", "root", "-s", path, "-m", memory, "-t",
			     "1", (char *)NULL);
	}
	_exit(127);
}

bool bench_peer_start(struct bench_peer *peer, enum bench_peer_kind kind, const char *dir)
{
	const char *program = kind == BENCH_PEER_REDIS ? "redis-server" : "memcached";
	*peer = (struct bench_peer){ .memory_mib = peer->memory_mib };
	if (!peer_version(program, peer->version, sizeof(peer->version))) {
		return false;
	}
	if (snprintf(peer->socket_path, sizeof(peer->socket_path), "%s/%s.sock", dir, program) >=
	    (int)sizeof(peer->socket_path)) {
		bench_die("%s: too long for the path of a socket", dir);
	}
	peer->pid = fork();
	if (peer->pid == 0) {
		peer_run(kind, peer->socket_path, peer->memory_mib);
	}
	if (peer->pid < 0) {
		bench_die("fork: %s", strerror(errno));
	}
	uint64_t end_ns = bench_now_ns() + PEER_START_NS;
	while (!peer_listens(peer->socket_path)) {
		const struct timespec pause = { .tv_nsec = 10000000 };
		if (bench_now_ns() > end_ns || waitpid(peer->pid, NULL, WNOHANG) != 0) {
			bench_die("%s does not start", program);
		}
		(void)nanosleep(&pause, NULL);
	}
	return true;
}

void bench_peer_stop(struct bench_peer *peer)
{
	if (peer->pid > 0) {
		(void)kill(peer->pid, SIGKILL);
		(void)waitpid(peer->pid, NULL, 0);
		(void)unlink(peer->socket_path);
	}
	peer->pid = 0;
}

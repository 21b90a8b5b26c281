// SPDX-License-Identifier: MIT
//
// Starting, stopping and cleaning up after a kvd. Readiness is asked for, never guessed: the socket
// must accept and PING must answer, within one deadline for everything.
#include "tests/lib/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/harness_internal.h"

#define HARNESS_ARGS_MAX 64
#define HARNESS_ENV_MAX 16
#define HARNESS_SOCKET_BYTES_MAX 107
#define GENTLE_MS 20000u

struct harness {
	pid_t pid;
	pid_t owner; // a forked child of the test must not remove its parent's folder
	char *root;
	char *dir;
	char *socket_path;
	char *log_path;
	char *args[HARNESS_ARGS_MAX + 1];
	char *env_name[HARNESS_ENV_MAX];
	char *env_value[HARNESS_ENV_MAX];
	size_t env_count;
};

uint64_t harness_now_ms(void)
{
	struct timespec now;
	if (clock_gettime(CLOCK_MONOTONIC, &now)) {
		return 0;
	}
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t harness_timeout_ms(void)
{
	const char *text = getenv("KVD_TEST_TIMEOUT_S");
	uint64_t seconds = text ? strtoull(text, NULL, 10) : 0;
	return (seconds ? seconds : 60) * 1000;
}

void harness_bail(const char *log_path, const char *format, ...)
{
	va_list args;
	FILE *log = log_path ? fopen(log_path, "r") : NULL;
	char line[1024];
	while (log && fgets(line, sizeof(line), log)) {
		printf("# kvd: %s%s", line, strchr(line, '\n') ? "" : "\n");
	}
	if (log) {
		(void)fclose(log);
	}
	printf("Bail out! ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	(void)fflush(stdout);
	exit(99);
}

__attribute__((format(printf, 1, 2))) static char *text_format(const char *format, ...)
{
	char *text = NULL;
	va_list args;
	va_start(args, format);
	int length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0) {
		harness_bail(NULL, "out of memory");
	}
	return text;
}

struct harness *harness_new(void)
{
	struct harness *h = calloc(1, sizeof(*h));
	const char *base = getenv("TMPDIR");
	if (!h) {
		harness_bail(NULL, "out of memory");
		return NULL;
	}
	// A socket's path is short by law; a long TMPDIR must not fail every test.
	if (!base || !*base || strlen(base) + sizeof("/kvd-test-XXXXXX/data/kvd.sock") > 100) {
		base = "/tmp";
	}
	h->owner = getpid();
	h->root = text_format("%s/kvd-test-XXXXXX", base);
	if (!mkdtemp(h->root)) {
		harness_bail(NULL, "cannot make %s: %s", h->root, strerror(errno));
	}
	h->dir = text_format("%s/data", h->root);
	h->socket_path = text_format("%s/kvd.sock", h->dir);
	h->log_path = text_format("%s/kvd.log", h->root);
	if (mkdir(h->dir, 0700)) {
		harness_bail(NULL, "cannot make %s: %s", h->dir, strerror(errno));
	}
	return h;
}

static const char *program_path(char *out, size_t out_bytes)
{
	const char *program = getenv("KVD_PROGRAM");
	if (program) {
		return program;
	}
	ssize_t length = readlink("/proc/self/exe", out, out_bytes - 1);
	if (length <= 0) {
		harness_bail(NULL, "set KVD_PROGRAM: /proc/self/exe cannot be read");
		return NULL;
	}
	out[length] = '\0';
	char *slash = strrchr(out, '/');
	size_t used = slash ? (size_t)(slash - out) : 0;
	if (snprintf(out + used, out_bytes - used, "/../../daemon/kvd") < 0) {
		harness_bail(NULL, "program path");
	}
	return out;
}

static void args_keep(struct harness *h, const char *const *args)
{
	char *old[HARNESS_ARGS_MAX + 1];
	memcpy(old, h->args, sizeof(old));
	memset(h->args, 0, sizeof(h->args));
	for (size_t i = 0; args && args[i]; i++) {
		if (i == HARNESS_ARGS_MAX) {
			harness_bail(NULL, "more than %d arguments", HARNESS_ARGS_MAX);
		}
		h->args[i] = text_format("%s", args[i]);
	}
	for (size_t i = 0; old[i]; i++) {
		free(old[i]);
	}
}

static void child_exec(const struct harness *h, const char *program, pid_t parent)
{
	char *argv[2 * HARNESS_ARGS_MAX + 8];
	size_t argc = 0;
	char *wrapper = getenv("KVD_WRAPPER") ? strdup(getenv("KVD_WRAPPER")) : NULL;
	for (char *rest = wrapper, *word; (word = strsep(&rest, " ")) != NULL;) {
		if (*word && argc < HARNESS_ARGS_MAX) {
			argv[argc++] = word;
		}
	}
	argv[argc++] = (char *)program;
	argv[argc++] = (char *)"--dir";
	argv[argc++] = h->dir;
	for (size_t i = 0; h->args[i]; i++) {
		argv[argc++] = h->args[i];
	}
	argv[argc] = NULL;
	int log = open(h->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	int null = open("/dev/null", O_RDONLY);
	if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) {
		_exit(97);
	}
	(void)close_range(3, ~0u, 0);
	for (size_t i = 0; i < h->env_count; i++) {
		if (h->env_value[i]) {
			(void)setenv(h->env_name[i], h->env_value[i], 1);
		} else {
			(void)unsetenv(h->env_name[i]);
		}
	}
	// Nothing may outlive a test that crashed; the parent may have died before the call.
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent) {
		_exit(98);
	}
	execvp(argv[0], argv);
	dprintf(2, "cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(96);
}

static void spawn(struct harness *h)
{
	char buffer[PATH_MAX];
	const char *program = program_path(buffer, sizeof(buffer));
	pid_t parent = getpid();
	if (h->pid) {
		harness_bail(NULL, "kvd is running already");
	}
	(void)fflush(stdout);
	pid_t pid = fork();
	if (pid < 0) {
		harness_bail(NULL, "fork: %s", strerror(errno));
	}
	if (pid == 0) {
		child_exec(h, program, parent);
	}
	h->pid = pid;
}

void harness_spawn(struct harness *h, const char *const *args)
{
	args_keep(h, args);
	for (size_t i = 0; args && args[i]; i++) {
		if (strcmp(args[i], "--socket") == 0 && args[i + 1]) {
			free(h->socket_path);
			h->socket_path = text_format("%s", args[i + 1]);
		}
	}
	spawn(h);
}

void harness_launch(struct harness *h, const char *const *args)
{
	harness_spawn(h, args);
	if (!harness_wait_ready(h)) {
		harness_bail(h->log_path, "kvd ended at its start with %d", harness_wait(h));
	}
}

struct harness *harness_start(const char *const *args)
{
	struct harness *h = harness_new();
	harness_launch(h, args);
	return h;
}

static void pause_ms(long ms)
{
	struct timespec pause = { .tv_sec = 0, .tv_nsec = ms * 1000000 };
	(void)nanosleep(&pause, NULL);
}

bool harness_wait_ready(struct harness *h)
{
	uint64_t deadline_ms = harness_now_ms() + harness_timeout_ms();
	while (harness_now_ms() < deadline_ms) {
		siginfo_t info = { 0 };
		if (waitid(P_PID, (id_t)h->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		    info.si_pid == h->pid) {
			return false;
		}
		if (harness_ping(h->socket_path)) {
			return true;
		}
		pause_ms(2);
	}
	harness_bail(h->log_path, "kvd did not answer PING at %s in time", h->socket_path);
	return false;
}

void harness_setenv(struct harness *h, const char *name, const char *value)
{
	size_t i = 0;
	while (i < h->env_count && strcmp(h->env_name[i], name) != 0) {
		i++;
	}
	if (i == HARNESS_ENV_MAX) {
		harness_bail(NULL, "more than %d environment variables", HARNESS_ENV_MAX);
	}
	if (i == h->env_count) {
		h->env_name[h->env_count++] = text_format("%s", name);
	}
	free(h->env_value[i]);
	h->env_value[i] = value ? text_format("%s", value) : NULL;
}

int harness_wait(struct harness *h)
{
	uint64_t deadline_ms = harness_now_ms() + harness_timeout_ms();
	int status = 0;
	if (!h->pid) {
		harness_bail(NULL, "kvd is not running");
	}
	for (;;) {
		pid_t pid = waitpid(h->pid, &status, WNOHANG);
		if (pid == h->pid) {
			break;
		}
		if (harness_now_ms() > deadline_ms) {
			harness_kill(h);
			harness_bail(h->log_path, "kvd did not end in time");
		}
		pause_ms(2);
	}
	h->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int harness_stop(struct harness *h)
{
	if (h->pid && kill(h->pid, SIGTERM)) {
		harness_bail(h->log_path, "SIGTERM: %s", strerror(errno));
	}
	return harness_wait(h);
}

void harness_kill(struct harness *h)
{
	if (!h->pid) {
		return;
	}
	(void)kill(h->pid, SIGKILL);
	while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR) {
	}
	h->pid = 0;
}

void harness_restart(struct harness *h)
{
	spawn(h);
	if (!harness_wait_ready(h)) {
		harness_bail(h->log_path, "kvd ended at its restart with %d", harness_wait(h));
	}
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st;
	(void)type;
	(void)walk;
	return remove(path);
}

// So that kvd writes what it has counted.
static void end_gently(struct harness *h)
{
	if (!h->pid || kill(h->pid, SIGTERM)) {
		return;
	}
	for (unsigned waited_ms = 0; waited_ms < GENTLE_MS; waited_ms += 2) {
		if (waitpid(h->pid, NULL, WNOHANG) == h->pid) {
			h->pid = 0;
			return;
		}
		pause_ms(2);
	}
}

void harness_free(struct harness *h)
{
	if (!h) {
		return;
	}
	if (h->owner == getpid()) {
		if (getenv("KVD_TEST_GENTLE")) {
			end_gently(h);
		}
		harness_kill(h);
		if (getenv("KVD_TEST_KEEP")) {
			printf("# kept %s\n", h->root);
		} else if (nftw(h->root, remove_one, 16, FTW_DEPTH | FTW_PHYS)) {
			printf("# could not remove %s: %s\n", h->root, strerror(errno));
		}
	}
	for (size_t i = 0; h->args[i]; i++) {
		free(h->args[i]);
	}
	for (size_t i = 0; i < h->env_count; i++) {
		free(h->env_name[i]);
		free(h->env_value[i]);
	}
	free(h->root);
	free(h->dir);
	free(h->socket_path);
	free(h->log_path);
	free(h);
}

pid_t harness_pid(const struct harness *h)
{
	return h->pid;
}

const char *harness_dir(const struct harness *h)
{
	return h->dir;
}

const char *harness_root(const struct harness *h)
{
	return h->root;
}

const char *harness_socket(const struct harness *h)
{
	return h->socket_path;
}

const char *harness_log_path(const struct harness *h)
{
	return h->log_path;
}

bool harness_log_has(const struct harness *h, const char *text)
{
	FILE *log = fopen(h->log_path, "r");
	char *line = NULL;
	size_t line_bytes = 0;
	bool found = false;
	while (log && !found && getline(&line, &line_bytes, log) >= 0) {
		found = strstr(line, text) != NULL;
	}
	free(line);
	if (log) {
		(void)fclose(log);
	}
	return found;
}

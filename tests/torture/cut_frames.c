// SPDX-License-Identifier: MIT
//
// Writers killed at every byte: of each kind of request a process of its own sends so many bytes,
// none, one, ... all but one, all, and kills itself.
//
//   I  part of a request, or of a transaction, changes nothing; a whole one is applied once
//
// One process after the other; kvd has forgotten the one before the next begins. KVD_TEST_ROUNDS
// (1) repeats all of it.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/harness.h"
#include "tests/tap/tap.h"

#define FRAME_BYTES_MAX 131072u
#define MIDDLE_BYTES 24u // this far from either end of a long request every byte is tried
#define WORDS_MAX 8u
#define BIG_BYTES 100000u // beyond what is kept inline: it is staged in the large range

// A request, or several that are one: words, "\n" ends each. BIG stands for a long value.
struct kind {
	const char *name;
	const char *text;
	const char *key;
	const char *before, *after; // what GET of the key says
	bool may_wait;		    // for memory; if its client is gone by then it is not applied
};

static const struct kind kinds[] = {
	{ "SET", "SET k new", "k", "old", "new" },
	{ "SET with conditions", "SET k new XX GET PX 1000000", "k", "old", "new" },
	{ "SET of a large value", "SET k BIG", "k", "old", "BIG" },
	{ "DEL", "DEL k", "k", "old", NULL },
	{ "INCR", "INCR n", "n", "41", "42" },
	{ "INCRBY", "INCRBY n 10", "n", "41", "51" },
	{ "APPEND", "APPEND k er", "k", "old", "older" },
	{ "SETRANGE", "SETRANGE k 1 xyz", "k", "old", "oxyz" },
	{ "GETDEL", "GETDEL k", "k", "old", NULL },
	{ "RENAME", "RENAME other k", "k", "old", "2nd" },
	{ "MSET", "MSET k new other new", "k", "old", "new" },
	{ "a transaction", "MULTI\nINCR n\nINCR n\nSET k new\nEXEC", "n", "41", "43" },
	{ "a watched transaction", "WATCH k\nMULTI\nAPPEND k er\nEXEC", "k", "old", "older" },
	{ "FLUSHALL", "FLUSHALL", "k", "old", NULL, true },
};

static char big[BIG_BYTES + 1];

static size_t put_word(char *out, const char *word, size_t bytes)
{
	if (bytes == 3 && memcmp(word, "BIG", 3) == 0) {
		word = big;
		bytes = BIG_BYTES;
	}
	int head = snprintf(out, 32, "$%zu\r\n", bytes);
	memcpy(out + head, word, bytes);
	memcpy(out + head + bytes, "\r\n", 2);
	return (size_t)head + bytes + 2;
}

// Encodes the requests of `text`; returns their bytes.
static size_t encode(char *out, const char *text)
{
	size_t at = 0;
	while (*text != '\0') {
		const char *word[WORDS_MAX];
		size_t bytes[WORDS_MAX], count = 0;
		for (; *text != '\0' && *text != '\n'; text += *text == ' ') {
			word[count] = text;
			bytes[count] = strcspn(text, " \n");
			text += bytes[count++];
		}
		text += *text == '\n';
		at += (size_t)snprintf(out + at, 16, "*%zu\r\n", count);
		for (size_t i = 0; i < count; i++) {
			at += put_word(out + at, word[i], bytes[i]);
		}
	}
	return at;
}

// A process that sends so many bytes and is gone.
static void writer(const char *socket_path, const char *frame, size_t bytes)
{
	pid_t pid = fork();
	if (pid == 0) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
		if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
			_exit(1);
		}
		while (bytes > 0) {
			ssize_t sent = send(fd, frame, bytes, MSG_NOSIGNAL);
			if (sent <= 0) {
				_exit(1);
			}
			frame += sent;
			bytes -= (size_t)sent;
		}
		(void)kill(getpid(), SIGKILL);
	}
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
	}
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
		printf("Bail out! a writer could not write\n");
		exit(99);
	}
}

static uint64_t number_of(const char *text, const char *name)
{
	const char *at = text != NULL ? strstr(text, name) : NULL;
	return at != NULL ? strtoull(at + strlen(name), NULL, 10) : UINT64_MAX;
}

static uint64_t connections_received(struct harness_connection *c)
{
	const char *text = harness_command(c, "INFO", "stats", NULL);
	return number_of(text, "total_connections_received:");
}

// Waits until kvd has met the writer and this connection is again the only one: all that the dead
// had sent was read.
static void forgotten(struct harness_connection *c, uint64_t received)
{
	while (connections_received(c) <= received) {
	}
	const char *text;
	do {
		text = harness_command(c, "INFO", "clients", NULL);
	} while (text != NULL && number_of(text, "connected_clients:") != 1);
}

static bool prepare(struct harness_connection *c)
{
	const char *reply = harness_command(c, "MSET", "k", "old", "n", "41", "other", "2nd", NULL);
	return reply != NULL && strcmp(reply, "+OK\r\n") == 0;
}

// Is the key what it should be?
static bool is_now(struct harness_connection *c, const char *key, const char *value)
{
	static char expected[FRAME_BYTES_MAX];
	size_t bytes = 0;
	if (value == NULL) {
		memcpy(expected, "$-1\r\n", 5);
		bytes = 5;
	} else {
		bytes = put_word(expected, value, strlen(value));
	}
	size_t length = 0;
	const void *argv[] = { "GET", key };
	const size_t argv_bytes[] = { 3, strlen(key) };
	const char *reply = harness_command_argv(c, 2, argv, argv_bytes, &length);
	return reply != NULL && length == bytes && memcmp(reply, expected, bytes) == 0;
}

static bool is_tried(size_t cut, size_t bytes, uint64_t *random)
{
	return cut <= MIDDLE_BYTES * 4 || bytes - cut <= MIDDLE_BYTES ||
	       tap_random(random) % 2000 == 0;
}

static unsigned try_kind(struct harness *h, struct harness_connection *c, const struct kind *kind,
			 uint64_t *random)
{
	static char frame[FRAME_BYTES_MAX];
	size_t bytes = encode(frame, kind->text);
	unsigned tried = 0, wrong = 0;
	for (size_t cut = 0; cut <= bytes && wrong == 0; cut++) {
		if (!is_tried(cut, bytes, random)) {
			continue;
		}
		wrong += !prepare(c);
		uint64_t received = connections_received(c);
		writer(harness_socket(h), frame, cut);
		forgotten(c, received);
		const char *expected = cut < bytes ? kind->before : kind->after;
		if (!is_now(c, kind->key, expected) &&
		    !(kind->may_wait && is_now(c, kind->key, kind->before))) {
			tap_diag("%zu of %zu bytes: not %s", cut, bytes, expected);
			wrong++;
		}
		tried++;
	}
	ok(wrong == 0, "I: %s, cut at %u places", kind->name, tried);
	return tried;
}

int main(void)
{
	const char *text = getenv("KVD_TEST_ROUNDS");
	unsigned rounds = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 1, tried = 0;
	uint64_t random = tap_seed(23);
	memset(big, 'b', BIG_BYTES);
	const char *const args[] = { "--memory",  "24MiB",  "--segment", "64KiB",
				     "--persist", "memory", NULL };
	struct harness *h = harness_start(args);
	struct harness_connection *c = harness_connect(h);
	for (unsigned round = 0; round < rounds; round++) {
		for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			tried += try_kind(h, c, &kinds[i], &random);
		}
	}
	tap_diag("%u writers killed", tried);
	harness_disconnect(c);
	ok_int(harness_stop(h), 0, "kvd stops cleanly");
	harness_free(h);
	return tap_done();
}

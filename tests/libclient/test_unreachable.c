// SPDX-License-Identifier: MIT
//
// What is said when there is no connection: whether nobody listens, or somebody does and refuses,
// which socket was tried, who named it, and what may help.
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define NOBODY 65534
#define TRIES 100u

static char folder[64];

struct attempt {
	int status;
	int error;
	char text[512];
};

static struct attempt try_open_for(const char *path, uint32_t flags, uint32_t timeout_ms)
{
	struct attempt attempt = { .text = "" };
	struct kvc_options options;
	kvc *client;
	kvc_options_init(&options);
	options.socket_path = path;
	options.flags = flags;
	options.connect_timeout_ms = timeout_ms;
	options.error_text = attempt.text;
	options.error_text_bytes = sizeof(attempt.text);
	attempt.status = kvc_open(&client, &options);
	attempt.error = errno;
	(void)kvc_close(client);
	return attempt;
}

static struct attempt try_open(const char *path, uint32_t flags)
{
	return try_open_for(path, flags, 30000);
}

// Until it is told why: however far the first request comes before the other end closes.
static struct attempt try_open_until(const char *path, const char *words)
{
	struct attempt got = try_open(path, 0);
	for (unsigned i = 0; i < TRIES && !strstr(got.text, words); i++) {
		got = try_open(path, 0);
	}
	return got;
}

static void ok_text(const struct attempt *attempt, const char *words, const char *what)
{
	ok(strstr(attempt->text, words), "%s: %s: %s", what, words, attempt->text);
}

static void place(char *path, size_t path_bytes, const char *name)
{
	(void)snprintf(path, path_bytes, "%s/%s", folder, name);
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, path, strlen(path) + 1);
	return address;
}

// A socket at `path` that listens with so short a queue.
static int bind_at(const char *path, int backlog)
{
	struct sockaddr_un address = address_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 ||
	    bind(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) != 0 ||
	    listen(fd, backlog) != 0) {
		printf("Bail out! %s: %s\n", path, strerror(errno));
		exit(99);
	}
	return fd;
}

static void test_nobody(void)
{
	char path[128];
	place(path, sizeof(path), "none");
	struct attempt got = try_open(path, 0);
	ok_int(got.status, KVC_UNREACHABLE, "no socket");
	ok_int(got.error, ENOENT, "errno");
	ok_text(&got, "nobody listens at ", "no socket");
	ok_text(&got, path, "no socket");
	ok_text(&got, "(as given)", "no socket");
	ok_text(&got, "no such socket", "no socket");
	ok_text(&got, "DIR/kvd.sock", "no socket");
	(void)setenv("KVD_SOCKET", path, 1);
	got = try_open(NULL, 0);
	ok_text(&got, "(from KVD_SOCKET)", "named by the environment");
	ok_text(&got, path, "named by the environment");
	(void)unsetenv("KVD_SOCKET");

	place(path, sizeof(path), "left");
	close(bind_at(path, 1));
	got = try_open(path, 0);
	ok_int(got.status, KVC_UNREACHABLE, "a socket whose owner is gone");
	ok_text(&got, "nobody listens at ", "left");
	ok_text(&got, "its kvd is gone", "left");
	(void)unlink(path);

	place(path, sizeof(path), "plain");
	FILE *file = fopen(path, "w");
	ok(file && fclose(file) == 0, "a plain file");
	got = try_open(path, 0);
	ok_int(got.status, KVC_UNREACHABLE, "it is no socket");
	ok_text(&got, "not a socket", "plain");
	char below[160];
	(void)snprintf(below, sizeof(below), "%s/s", path);
	got = try_open(below, 0);
	ok_int(got.error, ENOTDIR, "nor a folder");
	ok_text(&got, strerror(ENOTDIR), "plain");
	(void)unlink(path);

	memset(path, 'p', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	got = try_open(path, 0);
	ok_int(got.status, KVC_INVALID, "a path too long for a socket");
	ok_text(&got, "107 bytes", "too long");
	got = try_open("/nowhere/kvd.sock", 1u << 30);
	ok_text(&got, kvc_strerror(KVC_INVALID), "what has no text of its own");
}

static void test_refusal(void)
{
	char path[128];
	place(path, sizeof(path), "busy");
	int listener = bind_at(path, 0), queued[8], count = 0;
	struct sockaddr_un address = address_of(path);
	do {
		queued[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	} while (connect(queued[count++], (const struct sockaddr *)(const void *)&address,
			 sizeof(address)) == 0 &&
		 count < 8);
	struct attempt got = try_open_for(path, 0, 50);
	ok_int(got.status, KVC_UNREACHABLE, "a full queue");
	ok_int(got.error, ETIMEDOUT, "errno");
	ok_text(&got, "took no connection in time: its queue is full", "a full queue");
	ok_text(&got, path, "a full queue");
	while (count > 0) {
		close(queued[--count]);
	}
	(void)chmod(path, 0600);
	if (geteuid() == 0 && seteuid(NOBODY) != 0) {
		tap_skip("cannot become somebody else");
	} else if (geteuid() != NOBODY) {
		tap_skip("only root can become somebody else");
	} else {
		got = try_open(path, 0);
		ok_int(seteuid(0), 0, "root again");
		ok_int(got.status, KVC_UNREACHABLE, "no permission");
		ok_int(got.error, EACCES, "errno");
		ok_text(&got, "not allowed to connect to ", "no permission");
		ok_text(&got, "mode and group", "no permission");
	}
	close(listener);
	(void)unlink(path);
}

static void wait_for_pause(const struct kvc_conn *conn)
{
	while (kvc_now_ns() < conn->next_attempt_ns) {
		usleep(100);
	}
}

static void test_kvd_refuses(struct fake *fake)
{
	kvc_reader *reader;
	struct attempt got = try_open(fake->socket_path, 0);
	ok_int(got.status, KVC_OK, "a kvd");
	ok_str(got.text, "", "says nothing");
	kvc *client = fake_client(fake, &reader, 0);
	fake_set(fake, refusal, "-ERR max number of clients reached\r\n");
	got = try_open_until(fake->socket_path,
			     "turned this connection away: ERR max number of clients");
	ok_int(got.status, KVC_UNREACHABLE, "turned away");
	ok_text(&got, "turned this connection away: ERR max number of clients", "turned away");
	ok_text(&got, fake->socket_path, "turned away");
	ok_text(&got, "maxclients", "turned away");
	int status;
	unsigned tries = 0;
	do {
		wait_for_pause(&client->conn);
		status = kvc_set(client, "a", 1, "1", 1, NULL, NULL);
	} while (!strstr(kvc_error_text(client), "turned this") && ++tries < TRIES);
	ok_int(status, KVC_UNREACHABLE, "a later connection");
	ok(strstr(kvc_error_text(client), "turned this connection away: ERR max"),
	   "says the same: %s", kvc_error_text(client));
	ok(client->conn.pause_ns > 0, "and waits before the next one");
	fake_set(fake, refusal, "-ERR kvd is out of memory\r\n");
	got = try_open_until(fake->socket_path, "raise its memory");
	ok_text(&got, "raise its memory", "out of memory");
	fake_set(fake, refusal, NULL);
	wait_for_pause(&client->conn);
	ok_int(kvc_set(client, "a", 1, "1", 1, NULL, NULL), KVC_OK, "let in again");

	fake_set(fake, hang_up_at_accept, true);
	got = try_open(fake->socket_path, 0);
	fake_set(fake, hang_up_at_accept, false);
	ok_int(got.status, KVC_UNREACHABLE, "hung up on");
	ok_text(&got, "kvd at ", "hung up on");
	ok(!strstr(got.text, "nobody listens"), "is not nobody");
	fake_set(fake, attach, FAKE_ATTACH_SILENT);
	got = try_open_for(fake->socket_path, 0, 50);
	fake_set(fake, attach, FAKE_ATTACH_OK);
	ok_int(got.status, KVC_TIMEOUT, "no answer");
	ok_text(&got, "no reply before the deadline", "no answer");
	ok_text(&got, fake->socket_path, "no answer");
	ok_int(kvc_close(client), KVC_OK, "close");
}

int main(void)
{
	static struct fake fake;
	fake_start(&fake, 8u << 20);
	(void)snprintf(folder, sizeof(folder), "%s", fake.dir);
	(void)unsetenv("KVD_SOCKET");
	test_nobody();
	test_refusal();
	test_kvd_refuses(&fake);
	fake_stop(&fake);
	return tap_done();
}

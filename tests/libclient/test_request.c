// SPDX-License-Identifier: MIT
//
// Writes and commands: what each reply means, and what is said when there is none: UNREACHABLE (kvd
// has not got it), UNKNOWN (it may have), TIMEOUT. Descriptors taken away by the application.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (16u << 20)

static int set(kvc *client, const char *key, const char *value)
{
	return kvc_set(client, key, strlen(key), value, strlen(value), NULL, NULL);
}

static void wait_for_pause(kvc *client)
{
	while (kvc_now_ns() < client->conn.next_attempt_ns) {
		usleep(100);
	}
}

static void test_set(struct fake *fake, kvc *client, kvc_reader *reader)
{
	char buffer[8];
	uint64_t version = 0;
	struct kvc_meta meta;
	ok_int(kvc_set(client, "a", 1, "one", 3, NULL, &version), KVC_OK, "set");
	ok(kvc_get(reader, "a", 1, buffer, sizeof(buffer), &meta) == KVC_OK &&
		   memcmp(buffer, "one", 3) == 0,
	   "A: visible at once");
	ok(version != 0 && meta.version == version, "its version");
	struct kvc_set_options options = { .struct_bytes = sizeof(options),
					   .flags = KVC_SET_IF_ABSENT };
	ok_int(kvc_set(client, "a", 1, "two", 3, &options, NULL), KVC_NOT_APPLIED, "not absent");
	ok_int(kvc_set(client, "", 0, "x", 1, NULL, NULL), KVC_INVALID, "no key");
	ok_int(kvc_set(client, "a", 1, NULL, 1, NULL, NULL), KVC_INVALID, "no value");
	ok_int(kvc_set(client, "a", 1, NULL, 0, NULL, NULL), KVC_OK, "an empty value");
	ok_int(kvc_set(client, "a", 1, "x", SIZE_MAX / 4, NULL, NULL), KVC_TOO_LARGE, "too large");
	options.flags = KVC_SET_IF_ABSENT | KVC_SET_IF_PRESENT;
	ok_int(kvc_set(client, "a", 1, "x", 1, &options, NULL), KVC_INVALID, "contradiction");
	options.flags = 1u << 20;
	ok_int(kvc_set(client, "a", 1, "x", 1, &options, NULL), KVC_INVALID, "unknown flag");
	ok_int(kvc_delete(client, "a", 1), KVC_OK, "delete");
	ok_int(kvc_delete(client, "a", 1), KVC_NOT_FOUND, "delete of nothing");
	static char large[300000];
	memset(large, 'x', sizeof(large));
	uint64_t requests = fake_get(fake, &fake->requests);
	ok_int(kvc_set(client, "large", 5, large, 16000, NULL, NULL), KVC_OK, "a long value");
	ok_int(kvc_set(client, "large", 5, large, sizeof(large), NULL, NULL), KVC_NO_MEMORY,
	       "-OOM");
	ok_str(kvc_error_text(client), "OOM no room here", "with its text");
	ok_u64(fake_get(fake, &fake->requests) - requests, 2, "each arrived once");
	ok_int(kvc_sync(client), KVC_OK, "sync");
	ok_int(kvc_sync(client), KVC_OK, "sync with nothing to do");
}

static void test_errors(struct fake *fake, kvc *client)
{
	static const struct {
		const char *text;
		int status;
	} cases[] = {
		{ "OOM command not allowed when used memory > 'maxmemory'.", KVC_NO_MEMORY },
		{ "IOERR not durable: No space left on device", KVC_NOT_DURABLE },
		{ "ERR value is not an integer or out of range", KVC_NOT_NUMBER },
		{ "ERR increment or decrement would overflow", KVC_NOT_NUMBER },
		{ "ERR string exceeds maximum allowed size (proto-max-bulk-len)", KVC_TOO_LARGE },
		{ "NOPERM this user has no permissions", KVC_REFUSED },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake_set(fake, error, cases[i].text);
		fake_set(fake, request, FAKE_ERROR);
		ok_int(set(client, "a", "1"), cases[i].status, "%s", cases[i].text);
		ok_str(kvc_error_text(client), cases[i].text, "its text");
		ok_int(kvc_increment(client, "a", 1, 1, NULL), cases[i].status, "incr: the same");
		ok_int(kvc_expire(client, "a", 1, -1), cases[i].status, "persist: the same");
	}
	fake_set(fake, request, FAKE_GARBAGE);
	ok_int(set(client, "a", "1"), KVC_PROTOCOL, "not RESP");
	fake_set(fake, request, FAKE_ANSWER);
	ok_int(set(client, "a", "1"), KVC_OK, "well again");
}

static void test_no_answer(struct fake *fake, kvc *client)
{
	client->options.request_timeout_ms = 100;
	fake_set(fake, request, FAKE_SILENT);
	uint64_t start_ns = kvc_now_ns();
	ok_int(set(client, "a", "2"), KVC_TIMEOUT, "sent, no answer in time");
	uint64_t took_ms = (kvc_now_ns() - start_ns) / 1000000;
	ok(took_ms >= 99, "after 100 ms (%llu)", (unsigned long long)took_ms);
	client->options.request_timeout_ms = 60000;
	fake_set(fake, request, FAKE_HANG_UP);
	uint64_t requests = fake_get(fake, &fake->requests);
	wait_for_pause(client);
	ok_int(set(client, "a", "3"), KVC_UNKNOWN, "sent, then the connection broke");
	ok_u64(fake_get(fake, &fake->requests) - requests, 1, "it is not sent a second time");
	fake_set(fake, request, FAKE_ANSWER);
	wait_for_pause(client);
	ok_int(set(client, "a", "4"), KVC_OK, "well again");
	ok_int(kvc_sync(client), KVC_UNKNOWN, "sync cannot speak for the earlier connection");
	ok_int(set(client, "a", "4"), KVC_OK, "a write");
	ok_int(kvc_sync(client), KVC_OK, "on this one it can");

	fake_kill(fake);
	ok_int(set(client, "a", "5"), KVC_UNREACHABLE, "nobody there");
	uint64_t attempt_ns = client->conn.next_attempt_ns;
	ok_int(set(client, "a", "5"), KVC_UNREACHABLE, "at once again");
	ok(client->conn.next_attempt_ns >= attempt_ns, "with a pause");
	fake_revive(fake, true);
	wait_for_pause(client);
	ok_int(set(client, "a", "6"), KVC_OK, "A: back");

	// Dead and back again while idle: the stale connection is replaced before anything is lost.
	requests = fake_get(fake, &fake->requests);
	fake_kill(fake);
	fake_revive(fake, true);
	ok_int(set(client, "a", "7"), KVC_OK, "a stale connection is replaced");
	ok_u64(fake_get(fake, &fake->requests) - requests, 1, "once");
	fake_set(fake, hang_up_at_accept, true);
	fake_kill(fake);
	fake_revive(fake, true);
	int status = set(client, "a", "8");
	ok(status == KVC_UNREACHABLE || status == KVC_UNKNOWN, "hung up on at once: %d", status);
	ok(client->conn.pause_ns > 0, "is a failed attempt");
	fake_set(fake, hang_up_at_accept, false);
	wait_for_pause(client);
	ok_int(set(client, "a", "9"), KVC_OK, "well again");
}

// An application that closes all descriptors and reuses the numbers must not find our bytes in its
// files, nor us its.
static void test_hijack(struct fake *fake, kvc *client, kvc_reader *reader)
{
	char byte, path[128];
	int pair[2];
	fake_put_stub(fake, "cold", 1);
	ok_int(set(client, "a", "1"), KVC_OK, "connected");
	ok_int(kvc_get(reader, "cold", 4, &byte, 1, NULL), KVC_OK, "the link too");
	int conn = client->conn.fd, link = client->link.fd;
	(void)snprintf(path, sizeof(path), "%s/file", fake->dir);
	int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	(void)socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	(void)dup2(file, conn);
	(void)dup2(pair[0], link);
	ok_int(set(client, "a", "2"), KVC_OK, "a file in our place: a new connection");
	ok_int(kvc_get(reader, "cold", 4, &byte, 1, NULL), KVC_OK,
	       "a socket in the link's place: too");
	ok_int((int)lseek(file, 0, SEEK_END), 0, "nothing was written to the file");
	ok_int(recv(pair[1], &byte, 1, MSG_DONTWAIT), -1, "nor to the socket");
	ok(fcntl(conn, F_GETFD) >= 0 && fcntl(link, F_GETFD) >= 0, "and they are still open");
	close(conn);
	close(link);
	close(client->conn.fd);
	close(client->link.fd);
	ok_int(set(client, "a", "3"), KVC_OK, "closed by somebody: a new connection");
	ok_int(kvc_get(reader, "cold", 4, &byte, 1, NULL), KVC_OK, "for the link too");
	ok_int(kvc_get(reader, "a", 1, &byte, 1, NULL), KVC_OK, "reads need none");
	close(file);
	close(pair[0]);
	close(pair[1]);
	(void)unlink(path);
}

static int append(kvc *client, const char *word, const void *data, size_t bytes)
{
	const void *argv[] = { word, data };
	const size_t argv_bytes[] = { strlen(word), bytes };
	return kvc_pipeline_append(client, 2, argv, argv_bytes);
}

static void test_pipeline(struct fake *fake, kvc *client)
{
	const struct kvc_reply *reply;
	static char large[40000];
	memset(large, 'p', sizeof(large));
	ok_int(kvc_pipeline_reply(client, &reply), KVC_INVALID, "no reply is owed");
	uint64_t requests = fake_get(fake, &fake->requests);
	ok_int(append(client, "ECHO", "1", 1), KVC_OK, "append");
	ok_u64(fake_get(fake, &fake->requests) - requests, 0, "nothing sent yet");
	ok_int(set(client, "a", "1"), KVC_INVALID, "no other call meanwhile");
	ok(kvc_pipeline_reply(client, &reply) == KVC_OK && reply->text[0] == '1', "the reply");
	bool good = true;
	for (size_t i = 0; i < 1000; i++) {
		good = good && append(client, "ECHO", large, i * 40) == KVC_OK;
	}
	for (size_t i = 0; i < 1000; i++) {
		good = good && kvc_pipeline_reply(client, &reply) == KVC_OK &&
		       reply->type == KVC_REPLY_STRING && reply->text_bytes == i * 40 &&
		       reply->text[i * 40] == '\0';
	}
	ok(good, "20 MB through both directions at once, in order");
	fake_set(fake, request, FAKE_HANG_UP);
	good = append(client, "ECHO", "1", 1) == KVC_OK && append(client, "ECHO", "2", 1) == KVC_OK;
	ok(good && kvc_pipeline_reply(client, &reply) == KVC_UNKNOWN && !reply, "broken: UNKNOWN");
	ok_int(kvc_pipeline_reply(client, &reply), KVC_UNKNOWN, "for each");
	ok_int(kvc_pipeline_reply(client, &reply), KVC_INVALID, "and no more");
	// Hung up on in the middle of a send: the first command arrived, so nothing is sent again.
	static char huge[8 << 20];
	memset(huge, 'h', sizeof(huge));
	fake_set(fake, request, FAKE_ANSWER);
	wait_for_pause(client);
	good = append(client, "ECHO", "1", 1) == KVC_OK &&
	       kvc_pipeline_reply(client, &reply) == KVC_OK;
	fake_set(fake, request, FAKE_HANG_UP);
	requests = fake_get(fake, &fake->requests);
	good = good && append(client, "ECHO", "2", 1) == KVC_OK &&
	       append(client, "ECHO", huge, sizeof(huge)) == KVC_OK;
	ok(good && kvc_pipeline_reply(client, &reply) == KVC_UNKNOWN &&
		   kvc_pipeline_reply(client, &reply) == KVC_UNKNOWN,
	   "broken while sending: UNKNOWN");
	ok_u64(fake_get(fake, &fake->requests) - requests, 1, "and not sent again");
	fake_set(fake, request, FAKE_ANSWER);
	fake_kill(fake);
	(void)append(client, "ECHO", "1", 1);
	ok_int(kvc_pipeline_reply(client, &reply), KVC_UNREACHABLE, "nobody there: UNREACHABLE");
	ok_int(kvc_pipeline_reply(client, &reply), KVC_INVALID, "and no more");
	fake_revive(fake, true);
	wait_for_pause(client);
	ok(append(client, "ECHO", "3", 1) == KVC_OK && kvc_pipeline_reply(client, &reply) == KVC_OK,
	   "well again");
}

static void test_command(kvc *client)
{
	const void *argv[] = { "KVD.WATERMARKS" };
	const size_t bytes[] = { 14 };
	const struct kvc_reply *reply;
	ok(kvc_command(client, 1, argv, bytes, &reply) == KVC_OK &&
		   reply->type == KVC_REPLY_ARRAY && reply->count == 2 &&
		   reply->element[1].type == KVC_REPLY_INTEGER,
	   "an array");
	argv[0] = "NO.SUCH.THING.";
	ok(kvc_command(client, 1, argv, bytes, &reply) == KVC_OK && reply->type == KVC_REPLY_ERROR,
	   "an error reply is a reply");
	ok_str(kvc_error_text(client), reply->text, "with its text");
	ok_int(kvc_command(client, 0, argv, bytes, &reply), KVC_INVALID, "no command");
}

static void test_batch(struct fake *fake, kvc *client, kvc_reader *reader)
{
	kvc_batch *batch;
	char byte;
	uint64_t requests = fake_get(fake, &fake->requests);
	ok_int(kvc_batch_new(&batch), KVC_OK, "a batch");
	ok_int(kvc_batch_commit(client, batch), KVC_OK, "an empty one is done at once");
	ok_u64(fake_get(fake, &fake->requests) - requests, 0, "without a word");
	ok_int(kvc_batch_delete(batch, "gone", 4), KVC_OK, "delete");
	ok_int(kvc_batch_delete(batch, "", 0), KVC_INVALID, "no key");
	ok_int(kvc_batch_set(batch, "b", 1, "x", 1, -1), KVC_INVALID, "a negative time");
	ok_int(kvc_batch_set(batch, "b", 1, "x", KVS_BATCH_BYTES_MAX, 0), KVC_TOO_LARGE,
	       "too large");
	ok_int(kvc_batch_commit(client, batch), KVC_OK, "commit");
	ok_u64(fake_get(fake, &fake->requests) - requests, 3, "MULTI, DEL, EXEC");
	ok_int(kvc_batch_commit(client, batch), KVC_OK, "it can be sent again");
	kvc_batch_reset(batch);
	(void)kvc_batch_set(batch, "b", 1, "x", 1, 0); // the fake knows no SET
	ok_int(kvc_batch_commit(client, batch), KVC_REFUSED, "an error in it: %s",
	       kvc_error_text(client));
	fake_set(fake, request, FAKE_HANG_UP);
	ok_int(kvc_batch_commit(client, batch), KVC_UNKNOWN, "broken after it was sent");
	fake_set(fake, request, FAKE_ANSWER);
	ok_int(kvc_get(reader, "b", 1, &byte, 1, NULL), KVC_NOT_FOUND, "nothing of it");
	kvc_batch_free(batch);
	wait_for_pause(client);
}

int main(void)
{
	struct fake fake;
	kvc_reader *reader;
	fake_start(&fake, MEMORY_BYTES);
	kvc *client = fake_client(&fake, &reader, 0);
	// Default action for SIGPIPE: the process would die of it.
	(void)signal(SIGPIPE, SIG_DFL);
	test_set(&fake, client, reader);
	test_errors(&fake, client);
	test_no_answer(&fake, client);
	test_hijack(&fake, client, reader);
	test_pipeline(&fake, client);
	test_command(client);
	test_batch(&fake, client, reader);
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_stop(&fake);
	return tap_done();
}

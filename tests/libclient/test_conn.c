// SPDX-License-Identifier: MIT
//
// One connection against an end that the test moves itself: what is said when it breaks before kvd
// has answered, in the midst of a request, behind a pipeline, when nobody reads; and memory that
// could not be had for a request, which sticks until the next one.
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libclient/form.h"
#include "tests/libclient/peer.h"
#include "tests/tap/tap.h"

#define LARGE_BYTES (4u << 20) // more than a socket holds

static char large[LARGE_BYTES];

static kvc *open_client(const struct peer *peer, uint32_t timeout_ms)
{
	kvc *client = NULL;
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = peer->path,
				       .request_timeout_ms = timeout_ms,
				       .reconnect_min_ms = 1,
				       .reconnect_max_ms = 1,
				       .flags = KVC_OPEN_NO_CONNECT | KVC_OPEN_SOCKET_ONLY };
	ok_int(kvc_open(&client, &options), KVC_OK, "a client, not connected yet");
	return client;
}

// A connection that is accepted, and has answered once if it is to be `proved`.
static kvc *connected(struct peer *peer, uint32_t timeout_ms, bool proved)
{
	kvc *client = open_client(peer, timeout_ms);
	do { // whoever still waits to be accepted was a client of the test before
		peer_hang_up(peer);
	} while (peer_accept(peer));
	(void)kvc_conn_ensure(client, &client->conn, KVC_NEVER);
	(void)peer_accept(peer);
	if (proved) {
		peer_say(peer, ":1\r\n");
		peer_write(peer, PEER_ALL);
		ok_int(kvc_set(client, "a", 1, "1", 1, NULL, NULL), KVC_OK, "that is answered");
	}
	return client;
}

static int set(kvc *client)
{
	return kvc_set(client, "a", 1, "1", 1, NULL, NULL);
}

// What it says before it hangs up on a connection that it never answered.
static void test_last_words(struct peer *peer)
{
	static const struct {
		const char *words, *text;
		int status;
	} rows[] = {
		{ "", "kvd closed the connection", KVC_UNREACHABLE },
		{ "+hello\r\n", "kvd closed the connection", KVC_UNREACHABLE },
		{ "$10\r\nhal", "kvd closed the connection", KVC_UNREACHABLE },
		{ "hello\r\n", "not a RESP reply", KVC_PROTOCOL },
		{ "-ERR go away\r\n", "go away", KVC_REFUSED },
		{ "-ERR max number of clients reached\r\n", "turned this connection away",
		  KVC_UNREACHABLE },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		kvc *client = connected(peer, 60000, false);
		if (rows[i].words[0] != '\0') {
			peer_say(peer, "%s", rows[i].words);
		}
		peer_write(peer, PEER_ALL);
		peer_hang_up(peer);
		ok_int(set(client), rows[i].status, "hung up on after '%.5s'", rows[i].words);
		ok(strstr(kvc_error_text(client), rows[i].text) != NULL, "it says: %s",
		   kvc_error_text(client));
		ok(client->conn.pause_ns > 0, "and waits before the next attempt");
		(void)kvc_close(client);
	}
}

static void test_nobody_reads(struct peer *peer)
{
	for (int proved = 0; proved <= 1; proved++) {
		kvc *client = connected(peer, 60000, proved);
		client->options.request_timeout_ms = 100;
		ok_int(kvc_set(client, "a", 1, large, LARGE_BYTES, NULL, NULL), KVC_TIMEOUT,
		       "nobody reads");
		ok(strstr(kvc_error_text(client), "kvd took no more") != NULL, "it says so: %s",
		   kvc_error_text(client));
		ok((client->conn.pause_ns > 0) == !proved, "who has answered once is tried again");
		(void)kvc_close(client);
		client = connected(peer, 60000, proved);
		(void)shutdown(peer->fd, SHUT_WR); // says no more, and does not read either
		ok_int(kvc_set(client, "a", 1, large, LARGE_BYTES, NULL, NULL), KVC_UNREACHABLE,
		       "an end in the midst of a request");
		(void)kvc_close(client);
		client = connected(peer, 60000, proved);
		peer_say(peer, "+OK\r\n");
		peer_write(peer, PEER_ALL);
		(void)shutdown(peer->fd, SHUT_WR);
		ok_int(kvc_set(client, "a", 1, large, LARGE_BYTES, NULL, NULL), KVC_UNREACHABLE,
		       "or after an answer to half of it");
		(void)kvc_close(client);
	}
}

// A connection that ended while it was idle is replaced, unless replies are lost with it.
static void test_pipeline(struct peer *peer)
{
	const void *argv[] = { "ECHO", large };
	const size_t bytes[] = { 4, 1 }, many[] = { 4, KVC_PIPELINE_BYTES };
	const struct kvc_reply *reply;
	kvc *client = connected(peer, 60000, true);
	ok_int(kvc_pipeline_append(client, 2, argv, many), KVC_OK,
	       "a command that is sent at once");
	peer_hang_up(peer);
	ok_int(kvc_pipeline_append(client, 2, argv, bytes), KVC_OK, "one that is not");
	ok_int(kvc_pipeline_reply(client, &reply), KVC_UNREACHABLE, "nobody has got it");
	ok_int(kvc_pipeline_reply(client, &reply), KVC_UNKNOWN, "nor is the other answered");
	ok_int(kvc_pipeline_append(client, 2, argv, many), KVC_OK, "a long one");
	ok_int(kvc_pipeline_append(client, 2, argv, many), KVC_OK, "and another");
	(void)peer_accept(peer);
	peer_hang_up(peer);
	int first = kvc_pipeline_reply(client, &reply);
	ok(first == KVC_UNKNOWN || first == KVC_UNREACHABLE, "each is told");
	client->options.request_timeout_ms = 100; // where the pause is over already: nobody answers
	ok_int(kvc_pipeline_append(client, 2, argv, many), KVC_OK, "one behind what is lost");
	int status;
	unsigned told = 1;
	while ((status = kvc_pipeline_reply(client, &reply)) != KVC_INVALID && told < 10) {
		told++;
	}
	ok_u64(told, 3, "once");
	(void)kvc_close(client);
}

// Memory that was not to be had, as a failed allocation leaves it.
static void test_no_memory(struct peer *peer)
{
	const void *argv[] = { "PING" };
	const size_t bytes[] = { 4 };
	const struct kvc_reply *reply;
	struct kvc_buffer buffer = { .data = NULL };
	kvc_batch *batch = NULL;
	kvc_buffer_append(&buffer, "x", 1);
	kvc_buffer_append(&buffer, "x", SIZE_MAX);
	ok(buffer.failed && buffer.bytes == 1, "more bytes than there are addresses");
	kvc_buffer_append(&buffer, "x", 1);
	ok(buffer.failed && buffer.bytes == 1, "nothing is added behind a hole");
	kvc_buffer_free(&buffer);
	kvc *client = connected(peer, 60000, true);
	ok_int(kvc_batch_new(&batch), KVC_OK, "a batch");
	batch->frame.buffer.failed = true;
	ok_int(kvc_batch_delete(batch, "a", 1), KVC_NO_MEMORY, "with a hole in it");
	ok_int(kvc_batch_commit(client, batch), KVC_NO_MEMORY, "is never sent");
	kvc_batch_reset(batch);
	ok_int(kvc_batch_delete(batch, "a", 1), KVC_OK, "and is good again when it is emptied");
	kvc_batch_free(batch);
	ok_int(kvc_pipeline_append(client, 1, argv, bytes), KVC_OK, "a pipeline");
	client->conn.frame.buffer.failed = true;
	ok_int(kvc_pipeline_append(client, 1, argv, bytes), KVC_NO_MEMORY, "with a hole");
	peer_say(peer, "+PONG\r\n");
	peer_write(peer, PEER_ALL);
	ok(kvc_pipeline_reply(client, &reply) == KVC_OK && strcmp(reply->text, "PONG") == 0,
	   "keeps what was before it");
	ok_int(kvc_conn_send(client, &client->link, KVC_NEVER), KVC_UNREACHABLE,
	       "a life line that is gone is not replaced in passing");
	(void)kvc_close(client);
}

// Its number is something else's by now.
static void test_taken(struct peer *peer)
{
	kvc *client = connected(peer, 100000, true);
	int fd = client->conn.fd, ends[2];
	ok_int(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0, "another socket");
	ok_int(dup2(ends[0], fd), fd, "takes its number");
	peer_hang_up(peer);
	peer_listen(peer, false);
	const void *argv[] = { "PING" };
	const size_t bytes[] = { 4 };
	const struct kvc_reply *reply;
	ok_int(kvc_command(client, 1, argv, bytes, &reply), KVC_UNREACHABLE, "no command");
	ok_int(set(client), KVC_UNREACHABLE, "nothing is sent there");
	char byte;
	ok(recv(ends[1], &byte, 1, MSG_DONTWAIT) < 0, "not a byte");
	close(ends[0]);
	close(ends[1]);
	(void)kvc_close(client);
	ok_int(close(fd), 0, "and it is not closed either");
	peer_listen(peer, true);
}

int main(void)
{
	static struct peer peer;
	peer_start(&peer);
	test_last_words(&peer);
	test_nobody_reads(&peer);
	test_pipeline(&peer);
	test_no_memory(&peer);
	test_taken(&peer);
	peer_stop(&peer);
	return tap_done();
}

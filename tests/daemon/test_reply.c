// SPDX-License-Identifier: MIT
//
// Every kind of reply in both protocol versions, and what happens when there is no room.

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/reply.h"
#include "shm/counters.h"
#include "tests/daemon/wire_stub.h"
#include "tests/tap/tap.h"

static struct session *session;
static int fd;

static bool wrote(const char *text)
{
	size_t bytes = session_output_used(session);
	bool same = bytes == strlen(text) &&
		    memcmp(session->output + session->output_sent, text, bytes) == 0;
	if (!same) {
		tap_diag("got '%.*s', expected '%s'", (int)bytes,
			 session->output + session->output_sent, text);
	}
	session->output_sent = session->output_end = 0;
	return same;
}

static void write_all(void)
{
	reply_ok(session);
	reply_status(session, "QUEUED");
	reply_error(session, "ERR two\r\nlines");
	reply_errorf(session, "ERR %d", 7);
	reply_integer(session, -42);
	reply_bulk(session, "a\0b", 3);
	reply_bulk(session, NULL, 0);
	reply_text(session, "text");
	reply_null(session);
	reply_null_array(session);
	reply_array(session, 2);
	reply_map(session, 2);
	reply_set(session, 3);
	reply_boolean(session, true);
	reply_boolean(session, false);
	reply_double(session, 1.5);
	reply_double(session, -INFINITY);
	reply_verbatim(session, "v", 1);
}

static bool wrote_bytes(const char *text, size_t bytes)
{
	bool same = session_output_used(session) == bytes &&
		    memcmp(session->output + session->output_sent, text, bytes) == 0;
	session->output_sent = session->output_end = 0;
	return same;
}

static void test_versions(void)
{
	static const char two[] =
		"+OK\r\n+QUEUED\r\n-ERR two  lines\r\n-ERR 7\r\n:-42\r\n$3\r\na\0b\r\n"
		"$0\r\n\r\n$4\r\ntext\r\n$-1\r\n*-1\r\n*2\r\n*4\r\n*3\r\n:1\r\n:0\r\n"
		"$3\r\n1.5\r\n$4\r\n-inf\r\n$1\r\nv\r\n";
	static const char three[] =
		"+OK\r\n+QUEUED\r\n-ERR two  lines\r\n-ERR 7\r\n:-42\r\n$3\r\na\0b\r\n"
		"$0\r\n\r\n$4\r\ntext\r\n_\r\n_\r\n*2\r\n%2\r\n~3\r\n#t\r\n#f\r\n"
		",1.5\r\n,-inf\r\n=5\r\ntxt:v\r\n";
	write_all();
	ok(wrote_bytes(two, sizeof(two) - 1), "RESP2");
	session->resp_version = 3;
	write_all();
	ok(wrote_bytes(three, sizeof(three) - 1), "RESP3");
	ok_u64(session->errors_count, 4, "errors are counted");
	session->resp_version = 2;
}

static void test_deferred(void)
{
	reply_integer(session, 1);
	uint64_t outer = reply_deferred_begin(session);
	reply_integer(session, 2);
	uint64_t inner = reply_deferred_begin(session);
	for (int i = 0; i < 12; i++) {
		reply_integer(session, 3);
	}
	reply_deferred_end(session, inner, 12);
	reply_deferred_end(session, outer, 2);
	ok(wrote(":1\r\n*2\r\n:2\r\n*12\r\n:3\r\n:3\r\n:3\r\n:3\r\n:3\r\n:3\r\n:3\r\n:3\r\n:3\r\n:"
		 "3\r\n:3\r\n"
		 ":3\r\n"),
	   "arrays whose length comes last nest");
	uint64_t empty = reply_deferred_begin(session);
	reply_deferred_end(session, empty, 0);
	ok(wrote("*0\r\n"), "an empty one");
}

// Nobody reads any more: what was written is dropped between two slices, the head of an array with
// it, whether or not the buffer has been given back since. What comes behind it stays what it is.
static void test_dropped(void)
{
	for (int elements = 0; elements < 3; elements++) {
		for (int trimmed = 0; trimmed < 2; trimmed++) {
			reply_integer(session, 1);
			uint64_t mark = reply_deferred_begin(session);
			for (int i = 0; i < elements; i++) {
				reply_integer(session, 2);
			}
			session->output_sent = session->output_end;
			if (trimmed) {
				session->output_position += session->output_end;
				session->output_sent = session->output_end = 0;
			}
			reply_integer(session, 3);
			reply_deferred_end(session, mark, 7);
			ok(wrote(":3\r\n"), "an array whose head %s, behind %d elements",
			   trimmed ? "is gone" : "was passed over", elements);
		}
	}
}

static void test_growth(void)
{
	char chunk[1000];
	memset(chunk, 'x', sizeof(chunk));
	uint64_t mark = reply_deferred_begin(session);
	for (int i = 0; i < 500; i++) {
		reply_bulk(session, chunk, sizeof(chunk));
	}
	reply_deferred_end(session, mark, 500);
	ok(session_output_used(session) == 6 + 500 * 1009 &&
		   memcmp(session->output + session->output_sent, "*500\r\n$1000\r\nx", 14) == 0,
	   "a reply larger than a buffer");
	session->output_sent = session->output_end = 0;
	stub.kvd.config.output_bytes_max = 1 << 20;
	mark = reply_deferred_begin(session);
	for (int i = 0; i < 2000; i++) {
		reply_bulk(session, chunk, sizeof(chunk));
	}
	reply_deferred_end(session, mark, 2000);
	ok(session->dead && session_output_used(session) <= 1 << 20,
	   "G: over its limit the session is marked for closing, and commands need not look");
	ok_u64(stub_counter(KVS_COUNTER_clients_dropped_output), 1, "and counted once");
}

int main(void)
{
	stub_start(PERSIST_MEMORY);
	fd = stub_connect(&session);
	test_versions();
	test_deferred();
	test_dropped();
	test_growth();
	close(fd);
	stub_stop();
	return tap_done();
}

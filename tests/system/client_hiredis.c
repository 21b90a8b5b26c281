// SPDX-License-Identifier: MIT
//
// What hiredis says to a server and makes of its answers: client_hiredis SOCKET RESP. Each line of
// standard output is what was noted: what it is, a tab, the value. client_hiredis.py runs this with
// kvd and with Redis. Blocking and event-driven, with a small adapter to epoll of our own; RESP3
// and its pushes from hiredis 1.0 on.
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define HAS_RESP3 (HIREDIS_MAJOR >= 1)
#define WAIT_MS 20000
#define PIPELINED 1000

static void die(const char *what)
{
	(void)fprintf(stderr, "%s\n", what);
	exit(1);
}

static void print_bytes(const char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes && i < 200; i++) {
		if (data[i] > ' ' && data[i] < 127 && data[i] != '\\') {
			(void)putchar(data[i]);
		} else {
			(void)printf("\\x%02x", (unsigned char)data[i]);
		}
	}
	if (bytes > 200) {
		(void)printf("... %zu bytes", bytes);
	}
}

static void print_reply(const redisReply *reply)
{
	if (!reply) {
		(void)printf("no reply");
		return;
	}
	(void)printf("%d:", reply->type);
	switch (reply->type) {
	case REDIS_REPLY_INTEGER:
		(void)printf("%lld", reply->integer);
		return;
	case REDIS_REPLY_NIL:
		return;
	case REDIS_REPLY_ARRAY:
#if HAS_RESP3
	case REDIS_REPLY_MAP:
	case REDIS_REPLY_SET:
	case REDIS_REPLY_PUSH:
#endif
		(void)printf("(");
		for (size_t i = 0; i < reply->elements; i++) {
			(void)printf("%s", i > 0 ? " " : "");
			print_reply(reply->element[i]);
		}
		(void)printf(")");
		return;
	default:
		print_bytes(reply->str, reply->len);
	}
}

static void say(const char *what, redisReply *reply)
{
	(void)printf("%s\t", what);
	print_reply(reply);
	(void)printf("\n");
	(void)fflush(stdout);
}

static void say_text(const char *what, const char *text)
{
	(void)printf("%s\t%s\n", what, text);
	(void)fflush(stdout);
}

/// Sends a command and notes its reply under its own text (%b takes bytes and their number).
static void ask(redisContext *c, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	redisReply *reply = redisvCommand(c, format, args);
	va_end(args);
	say(format, reply);
	if (!reply) {
		die(c->errstr);
	}
	freeReplyObject(reply);
}

static redisContext *connect_to(const char *path)
{
	redisContext *c = redisConnectUnix(path);
	if (!c || c->err) {
		die(c ? c->errstr : "no memory");
	}
	return c;
}

static void values(redisContext *c)
{
	ask(c, "SET %s %b", "key", "\0\xff\r\n", (size_t)4);
	ask(c, "GET key");
	ask(c, "GET none");
	ask(c, "SET key other NX");
	ask(c, "SET key other XX GET");
	ask(c, "INCR number");
	ask(c, "INCRBYFLOAT number 1.5");
	ask(c, "MSET a 1 b 2");
	ask(c, "MGET a none b");
	ask(c, "EXPIRE a 100");
	ask(c, "PERSIST a");
	ask(c, "APPEND b %s", "");
	ask(c, "SETBIT bits 7 1");
	ask(c, "BITFIELD bits GET u8 0 INCRBY u8 0 10");
	ask(c, "LCS a b IDX");
	ask(c, "INCR key");
	ask(c, "NOSUCH a");
	ask(c, "SET key");
	ask(c, "CONFIG GET maxmemory-policy");
	ask(c, "OBJECT ENCODING a");
	ask(c, "COMMAND INFO nosuch");
	ask(c, "PUBSUB NUMSUB a b");
	ask(c, "MULTI");
	ask(c, "INCR a");
	ask(c, "GET none");
	ask(c, "INCR key");
	ask(c, "EXEC");
	ask(c, "EXEC");
	ask(c, "DEL a b key none");
}

static void pipelined(redisContext *c)
{
	for (int i = 0; i < PIPELINED; i++) {
		if (redisAppendCommand(c, i % 2 ? "GET p%d" : "SET p%d %d", i / 2, i) != REDIS_OK) {
			die(c->errstr);
		}
	}
	bool same = true;
	for (int i = 0; i < PIPELINED; i++) {
		void *reply;
		if (redisGetReply(c, &reply) != REDIS_OK) {
			die(c->errstr);
		}
		char wanted[16];
		(void)snprintf(wanted, sizeof(wanted), "%d", i - 1);
		same = same && strcmp(((redisReply *)reply)->str, i % 2 ? wanted : "OK") == 0;
		freeReplyObject(reply);
	}
	say_text("1000 at once, in order", same ? "yes" : "no");
	size_t bytes = 1 << 20;
	char *large = malloc(bytes);
	if (!large) {
		die("no memory");
	}
	memset(large, 'x', bytes);
	const char *words[] = { "SET", "large", large };
	size_t lengths[] = { 3, 5, bytes };
	redisReply *reply = redisCommandArgv(c, 3, words, lengths);
	say("a large value", reply);
	freeReplyObject(reply);
	ask(c, "GET large");
	ask(c, "FLUSHALL");
	free(large);
}

// ---- events ------------------------------------------------------------------------------------

/// The connection's events on an epoll of its own.
struct poller {
	int epoll;
	int fd;
	uint32_t wanted;
};

static void poller_want(struct poller *poller, uint32_t add, uint32_t drop)
{
	poller->wanted = (poller->wanted | add) & ~drop;
	struct epoll_event event = { .events = poller->wanted };
	(void)epoll_ctl(poller->epoll, EPOLL_CTL_MOD, poller->fd, &event);
}

static void poller_add_read(void *data)
{
	poller_want(data, EPOLLIN, 0);
}

static void poller_del_read(void *data)
{
	poller_want(data, 0, EPOLLIN);
}

static void poller_add_write(void *data)
{
	poller_want(data, EPOLLOUT, 0);
}

static void poller_del_write(void *data)
{
	poller_want(data, 0, EPOLLOUT);
}

static void poller_cleanup(void *data)
{
	struct poller *poller = data;
	(void)epoll_ctl(poller->epoll, EPOLL_CTL_DEL, poller->fd, NULL);
	poller->fd = -1;
}

static void poller_attach(struct poller *poller, redisAsyncContext *ac)
{
	struct epoll_event event = { 0 };
	*poller = (struct poller){ .epoll = epoll_create1(EPOLL_CLOEXEC), .fd = ac->c.fd };
	if (poller->epoll < 0 || epoll_ctl(poller->epoll, EPOLL_CTL_ADD, poller->fd, &event) != 0) {
		die("epoll");
	}
	ac->ev.data = poller;
	ac->ev.addRead = poller_add_read;
	ac->ev.delRead = poller_del_read;
	ac->ev.addWrite = poller_add_write;
	ac->ev.delWrite = poller_del_write;
	ac->ev.cleanup = poller_cleanup;
}

/// Runs callbacks until `*count` is `wanted` or the connection is gone.
static void poller_run(struct poller *poller, redisAsyncContext *ac, const int *count, int wanted)
{
	while (*count < wanted && poller->fd >= 0) {
		struct epoll_event event;
		if (epoll_wait(poller->epoll, &event, 1, WAIT_MS) != 1) {
			die("nothing came for 20 s");
		}
		if (event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
			redisAsyncHandleRead(ac);
		}
		if (poller->fd >= 0 && event.events & EPOLLOUT) {
			redisAsyncHandleWrite(ac);
		}
	}
}

/// What callbacks have seen.
struct seen {
	int replies;
	int in_order;
	int messages;
	int ended;
};

static void on_number(redisAsyncContext *ac, void *reply, void *data)
{
	(void)data;
	struct seen *seen = ac->data;
	redisReply *number = reply;
	seen->replies++;
	seen->in_order +=
		number && number->type == REDIS_REPLY_INTEGER && number->integer == seen->replies;
}

static void on_reply(redisAsyncContext *ac, void *reply, void *data)
{
	say(data, reply);
	((struct seen *)ac->data)->replies++;
}

static void on_message(redisAsyncContext *ac, void *reply, void *data)
{
	(void)data;
	if (reply) {
		say("message", reply);
		((struct seen *)ac->data)->messages++;
	}
}

static void on_end(const redisAsyncContext *ac, int status)
{
	((struct seen *)ac->data)->ended++;
	say_text("the connection ends", status == REDIS_OK ? "as asked" : "unasked");
}

static redisAsyncContext *connect_async(const char *path, struct poller *poller, struct seen *seen)
{
	redisAsyncContext *ac = redisAsyncConnectUnix(path);
	if (!ac || ac->err) {
		die(ac ? ac->errstr : "no memory");
	}
	ac->data = seen;
	poller_attach(poller, ac);
	if (redisAsyncSetDisconnectCallback(ac, on_end) != REDIS_OK) {
		die("no callback");
	}
	return ac;
}

#define ASYNC(call)                       \
	do {                              \
		if ((call) != REDIS_OK) { \
			die(#call);       \
		}                         \
	} while (0)

/// Sends a command whose reply is noted as `what`.
static void ask_async(redisAsyncContext *ac, const char *what, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	ASYNC(redisvAsyncCommand(ac, on_reply, (void *)(uintptr_t)what, format, args));
	va_end(args);
}

static void events(const char *path, const char *resp)
{
	struct poller poller, listening;
	struct seen seen = { 0 }, heard = { 0 };
	redisAsyncContext *ac = connect_async(path, &poller, &seen);
	redisAsyncContext *listener = connect_async(path, &listening, &heard);
	for (int i = 0; i < PIPELINED; i++) {
		ASYNC(redisAsyncCommand(ac, on_number, NULL, "INCR events"));
	}
	poller_run(&poller, ac, &seen.replies, PIPELINED);
	say_text("1000 callbacks, in order", seen.in_order == PIPELINED ? "yes" : "no");
	ask_async(ac, "an error", "INCR");
	ask_async(ac, "and what follows", "GET events");
	ask_async(ac, "multi", "MULTI");
	ask_async(ac, "queued", "INCR events");
	ask_async(ac, "exec", "EXEC");
	poller_run(&poller, ac, &seen.replies, PIPELINED + 5);
	if (resp[0] == '3') {
		ASYNC(redisAsyncCommand(listener, NULL, NULL, "HELLO 3"));
	}
	ASYNC(redisAsyncCommand(listener, on_message, NULL, "SUBSCRIBE news sport"));
	ASYNC(redisAsyncCommand(listener, on_message, NULL, "PSUBSCRIBE n*"));
	poller_run(&listening, listener, &heard.messages, 3);
	ask_async(ac, "publish", "PUBLISH news hello");
	ask_async(ac, "publish", "PUBLISH sport %b", "\0\n", (size_t)2);
	poller_run(&poller, ac, &seen.replies, PIPELINED + 7);
	poller_run(&listening, listener, &heard.messages, 6);
	ASYNC(redisAsyncCommand(listener, NULL, NULL, "UNSUBSCRIBE news"));
	poller_run(&listening, listener, &heard.messages, 7);
	redisAsyncDisconnect(ac);
	poller_run(&poller, ac, &seen.ended, 1);
	redisAsyncFree(listener);
	(void)close(poller.epoll);
	(void)close(listening.epoll);
}

// ---- pushes of RESP3 ---------------------------------------------------------------------------

#if HAS_RESP3
static void on_push(void *data, void *reply)
{
	say("pushed", reply);
	freeReplyObject(reply);
	++*(int *)data;
}

static void pushes(const char *path)
{
	int count = 0;
	redisContext *c = connect_to(path), *other = connect_to(path);
	c->privdata = &count;
	ask(other, "SET cached 1");
	freeReplyObject(redisCommand(c, "HELLO 3"));
	(void)redisSetPushCallback(c, on_push);
	ask(c, "CLIENT TRACKING ON");
	ask(c, "GET cached");
	ask(other, "SET cached 2");
	ask(c, "PING"); // the push comes before its answer
	ask(c, "GET cached");
	ask(c, "SET cached 3");
	ask(c, "GET none");
	ask(c, "INCRBYFLOAT number 0.5");
	ask(c, "MGET none cached");
	ask(other, "FLUSHALL");
	ask(c, "PING");
	if (redisAppendCommand(c, "SUBSCRIBE news") != REDIS_OK) { // answered by a push alone
		die(c->errstr);
	}
	ask(c, "GET none");
	ask(other, "PUBLISH news hello");
	ask(c, "GET in-between");
	(void)printf("pushes\t%d\n", count);
	redisFree(c);
	redisFree(other);
}
#endif

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		(void)printf("%d.%d.%d\n", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
		return 0;
	}
	if (argc != 3) {
		die("client_hiredis SOCKET 2|3");
	}
	redisContext *c = connect_to(argv[1]);
	if (argv[2][0] == '3') {
		freeReplyObject(redisCommand(c, "HELLO 3"));
	}
	values(c);
	pipelined(c);
	redisFree(c);
	events(argv[1], argv[2]);
#if HAS_RESP3
	if (argv[2][0] == '3') {
		pushes(argv[1]);
	}
#endif
	say_text("over", "");
	return 0;
}

// SPDX-License-Identifier: MIT
//
// A peer that speaks RESP and makes no sense: replies of another kind than was asked for, of every
// kind there is, descriptors of other files or of none, a region whose header lies. H: each gives
// an error that says so, and nothing is left over; what is well formed is understood.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)
#define MANY_NODES 70000u // more than are kept

static const struct kvc_reply *ask(struct fake *fake, kvc *client, const char *answer)
{
	const void *argv[] = { "ANY" };
	const size_t bytes[] = { 3 };
	const struct kvc_reply *reply = NULL;
	fake_set(fake, says, answer);
	int status = kvc_command(client, 1, argv, bytes, &reply);
	return status == KVC_OK ? reply : NULL;
}

static void test_kinds(struct fake *fake, kvc *client)
{
	const struct kvc_reply *reply = ask(fake, client, ",1.5\r\n");
	ok(reply && reply->type == KVC_REPLY_DOUBLE && fabs(reply->number - 1.5) < 1e-9,
	   "a double");
	reply = ask(fake, client, "#t\r\n");
	ok(reply && reply->type == KVC_REPLY_BOOLEAN && reply->integer == 1, "a boolean");
	reply = ask(fake, client, "(12345678901234567890\r\n");
	ok(reply && reply->type == KVC_REPLY_STRING && reply->text_bytes == 20, "a big number");
	reply = ask(fake, client, "=7\r\ntxt:abc\r\n");
	ok(reply && reply->type == KVC_REPLY_STRING && strcmp(reply->text, "abc") == 0,
	   "a verbatim string");
	reply = ask(fake, client, "!5\r\nERR x\r\n");
	ok(reply && reply->type == KVC_REPLY_ERROR && strcmp(reply->text, "ERR x") == 0,
	   "a long error");
	ok_str(kvc_error_text(client), "ERR x", "whose text is kept");
	reply = ask(fake, client, "~2\r\n:1\r\n_\r\n");
	ok(reply && reply->type == KVC_REPLY_ARRAY && reply->count == 2 &&
		   reply->element[1].type == KVC_REPLY_NIL,
	   "a set");
	reply = ask(fake, client, "%1\r\n+k\r\n*1\r\n+v\r\n");
	ok(reply && reply->type == KVC_REPLY_MAP && reply->count == 1 &&
		   strcmp(reply->element[1].element[0].text, "v") == 0,
	   "a map");
	reply = ask(fake, client, "|1\r\n+a\r\n*2\r\n:1\r\n:2\r\n+OK\r\n");
	ok(reply && reply->type == KVC_REPLY_STATUS && strcmp(reply->text, "OK") == 0,
	   "an attribute is passed over");
	reply = ask(fake, client, ">2\r\n+message\r\n+x\r\n:5\r\n");
	ok(reply && reply->type == KVC_REPLY_INTEGER && reply->integer == 5, "so is a push");
	ok(!ask(fake, client, "*1\r\n$4\r\nab\r\nc\r\n") &&
		   strstr(kvc_error_text(client), "not a RESP reply"),
	   "what is not whole is no reply: %s", kvc_error_text(client));
	static char large[MANY_NODES * 4 + 16];
	int at = snprintf(large, sizeof(large), "*%u\r\n", MANY_NODES);
	for (unsigned i = 0; i < MANY_NODES; i++) {
		memcpy(large + at, ":1\r\n", 5);
		at += 4;
	}
	reply = ask(fake, client, large);
	ok(reply && reply->count == MANY_NODES && reply->element[MANY_NODES - 1].integer == 1,
	   "a reply of many nodes");
	size_t capacity = client->conn.nodes_capacity;
	reply = ask(fake, client, large);
	ok(reply && client->conn.nodes_capacity == capacity, "its memory is used again");
	reply = ask(fake, client, "+OK\r\n");
	ok(reply && client->conn.nodes_capacity < capacity, "and not kept");
}

// What each function makes of an answer to another question.
static void test_other_answers(struct fake *fake, kvc *client)
{
	kvc_batch *batch = NULL;
	fake_set(fake, says, "+OK\r\n");
	ok_int(kvc_set(client, "a", 1, "1", 1, NULL, NULL), KVC_PROTOCOL, "no version");
	ok(strstr(kvc_error_text(client), "KVD.SET: unexpected reply"), "it says which: %s",
	   kvc_error_text(client));
	ok_int(kvc_delete(client, "a", 1), KVC_PROTOCOL, "no number of keys");
	ok_int(kvc_increment(client, "a", 1, 1, NULL), KVC_PROTOCOL, "no sum");
	ok_int(kvc_expire(client, "a", 1, 5), KVC_PROTOCOL, "no number of times to live");
	ok_int(kvc_expire(client, "a", 1, -1), KVC_PROTOCOL, "nor of those taken away");
	ok_int(kvc_batch_new(&batch), KVC_OK, "a batch");
	ok_int(kvc_batch_delete(batch, "a", 1), KVC_OK, "of one");
	ok_int(kvc_batch_commit(client, batch), KVC_PROTOCOL, "a transaction without results");
	fake_set(fake, says, ":5\r\n");
	ok_int(kvc_increment(client, "a", 1, 1, NULL), KVC_OK, "a sum that nobody wants");
	fake_set(fake, says, "*2\r\n:1\r\n:1\r\n");
	ok_int(kvc_batch_commit(client, batch), KVC_PROTOCOL, "or with more");
	fake_set(fake, says, "*1\r\n-WRONGTYPE x\r\n");
	ok_int(kvc_batch_commit(client, batch), KVC_REFUSED, "or with an error");
	kvc_batch_free(batch);
}

static void test_other_values(struct fake *fake, kvc *client)
{
	static const char *const answers[] = {
		"+OK\r\n",
		"*3\r\n$1\r\nx\r\n:1\r\n:1\r\n",
		"*4\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
		"*4\r\n$1\r\nx\r\n+x\r\n:1\r\n:1\r\n",
		"*4\r\n$1\r\nx\r\n:1\r\n+x\r\n:1\r\n",
		"*4\r\n$1\r\nx\r\n:1\r\n:1\r\n+x\r\n",
	};
	kvc_reader *reader;
	char byte;
	uint64_t applied, durable;
	struct kvc_item item = { .key = "a", .key_bytes = 1, .buffer = &byte, .buffer_bytes = 1 };
	ok_int(kvc_reader_open(client, &reader), KVC_OK, "a reader by socket");
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		fake_set(fake, says, answers[i]);
		ok_int(kvc_get(reader, "a", 1, &byte, 1, NULL), KVC_PROTOCOL, "no value: %zu", i);
		ok(kvc_get_many(reader, &item, 1, 0) == KVC_OK && item.status == KVC_PROTOCOL,
		   "nor of several");
	}
	ok(strstr(kvc_reader_error_text(reader), "unexpected reply"), "it says so: %s",
	   kvc_reader_error_text(reader));
	ok_int(kvc_get_many(reader, &item, 1, KVC_GET_SNAPSHOT), KVC_PROTOCOL, "no snapshot");
	fake_set(fake, says, "+OK\r\n");
	ok_int(kvc_get_many(reader, &item, 1, KVC_GET_SNAPSHOT), KVC_PROTOCOL, "none at all");
	fake_set(fake, says, "*2\r\n:1\r\n:1\r\n");
	ok_int(kvc_get_many(reader, &item, 1, KVC_GET_SNAPSHOT), KVC_PROTOCOL, "of another size");
	fake_set(fake, says, "-ERR no\r\n");
	ok_int(kvc_get_many(reader, &item, 1, KVC_GET_SNAPSHOT), KVC_REFUSED, "refused");
	ok_int(kvc_watermarks(reader, &applied, &durable), KVC_REFUSED, "watermarks refused");
	fake_set(fake, says, "+OK\r\n");
	ok_int(kvc_watermarks(reader, &applied, &durable), KVC_PROTOCOL, "no watermarks");
	fake_set(fake, says, "*1\r\n:1\r\n");
	ok_int(kvc_watermarks(reader, &applied, &durable), KVC_PROTOCOL, "or one");
	fake_set(fake, says, "*2\r\n:7\r\n:6\r\n");
	ok(kvc_watermarks(reader, &applied, &durable) == KVC_OK && applied == 7 && durable == 6,
	   "two are what was asked for");
	ok_int(kvc_reader_close(reader), KVC_OK, "close");
}

static unsigned descriptors(void)
{
	unsigned count = 0;
	DIR *folder = opendir("/proc/self/fd");
	while (folder && readdir(folder)) {
		count++;
	}
	if (folder) {
		(void)closedir(folder);
	}
	return count;
}

static int open_client(struct fake *fake, enum fake_attach attach, char *text, kvc **client)
{
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = fake->socket_path,
				       .error_text = text,
				       .error_text_bytes = text ? KVC_ERROR_TEXT_BYTES : 0 };
	fake_set(fake, attach, attach);
	int status = kvc_open(client, &options);
	fake_set(fake, attach, FAKE_ATTACH_OK);
	return status;
}

// Descriptors with replies that have none: kept by nobody.
static void test_gifts(struct fake *fake)
{
	kvc *client;
	kvc_reader *reader;
	unsigned before = descriptors();
	char byte;
	ok_int(open_client(fake, FAKE_ATTACH_NO_FDS, NULL, &client), KVC_OK, "a client by socket");
	ok_int(kvc_reader_open(client, &reader), KVC_OK, "its reader");
	fake_set(fake, request, FAKE_SAYS);
	fake_set(fake, fds_more, 3);
	fake_set(fake, says, "$-1\r\n");
	for (unsigned i = 0; i < 3; i++) {
		ok_int(kvc_get(reader, "a", 1, &byte, 1, NULL), KVC_NOT_FOUND, "a gift");
	}
	fake_set(fake, fds_more, 0);
	fake_set(fake, request, FAKE_ANSWER);
	ok_int(kvc_close(client), KVC_OK, "close");
	for (unsigned i = 0; i < 30000 && descriptors() > before; i++) {
		usleep(1000); // the other end closes in its thread
	}
	ok(descriptors() <= before, "H: no descriptor is left");
}

static void test_attach_replies(struct fake *fake)
{
	static const char *const replies[] = {
		"+OK\r\n",
		"*2\r\n$3\r\nfds\r\n:3\r\n",
		"*4\r\n$6\r\nlayout\r\n:1\r\n$3\r\ngen\r\n:1\r\n",
		"*4\r\n$6\r\nlayout\r\n:1\r\n$3\r\nfds\r\n:3\r\n",
		"*6\r\n$6\r\nlayout\r\n:1\r\n$3\r\nfds\r\n:3\r\n$3\r\ngen\r\n:1\r\n",
		"*2\r\n$6\r\nlayout\r\n$3\r\nabc\r\n",
		"*4\r\n$6\r\nlayout\r\n*0\r\n:1\r\n:2\r\n",
		"*1\r\n$6\r\nlayout\r\n",
		"*2\r\n_\r\n:1\r\n",
		"*2\r\n$6\r\nfoobar\r\n:1\r\n",
	};
	char text[KVC_ERROR_TEXT_BYTES], map[256];
	kvc *client;
	for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
		fake_set(fake, says, replies[i]);
		text[0] = '\0';
		ok_int(open_client(fake, FAKE_ATTACH_SAYS, text, &client), KVC_PROTOCOL,
		       "a reply to KVD.ATTACH without what it needs: %zu", i);
		ok(strstr(text, "KVD.ATTACH: unexpected reply"), "it says so: %s", text);
	}
	const struct kvs_region_header *header = fake->fixture.region.header;
	(void)snprintf(map, sizeof(map),
		       "%%4\r\n$6\r\nlayout\r\n+%u\r\n$3\r\nfds\r\n+3\r\n$3\r\ngen\r\n+%llu\r\n"
		       "$11\r\nincarnation\r\n+%llu\r\n",
		       kvs_layout_fingerprint(), (unsigned long long)fake->said.generation,
		       (unsigned long long)header->hot.incarnation);
	fake_set(fake, says, map);
	ok_int(open_client(fake, FAKE_ATTACH_SAYS, NULL, &client), KVC_OK, "a map of texts");
	ok_int(kvc_is_mapped(client), 1, "is understood");
	ok_int(kvc_close(client), KVC_OK, "close");
	char *three = strstr(map, "+3");
	three[1] = '0';
	ok_int(open_client(fake, FAKE_ATTACH_SAYS, NULL, &client), KVC_OK, "none announced");
	ok_int(kvc_is_mapped(client), 0, "is understood, too");
	ok_int(kvc_close(client), KVC_OK, "close");
	three[1] = '3';
	char *gen = strstr(map, "gen\r\n+") + 6;
	*gen = *gen == '9' ? '8' : '9';
	uint32_t *writer = &fake->fixture.region.header->hot.writer;
	kvs_store_release_32(writer, KVS_WRITER_DIED);
	ok_int(open_client(fake, FAKE_ATTACH_SAYS, text, &client), KVC_UNREACHABLE,
	       "B: a page of another region than is served");
	ok(strstr(text, "kvd restarted while attaching"), "it says so: %s", text);
	kvs_store_release_32(writer, fake->writer);
	three[1] = '2';
	ok_int(open_client(fake, FAKE_ATTACH_SAYS, NULL, &client), KVC_OK, "two announced");
	ok_int(kvc_is_mapped(client), 0, "three came: nothing is mapped");
	ok_int(kvc_close(client), KVC_OK, "close");
}

static int file_of(const char *name, const void *bytes, size_t count, int seals)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)KVS_PAGE_BYTES) != 0 ||
	    pwrite(fd, bytes, count, 0) != (ssize_t)count || fcntl(fd, F_ADD_SEALS, seals) != 0) {
		printf("Bail out! %s: %s\n", name, strerror(errno));
		exit(99);
	}
	return fd;
}

static void test_files(struct fake *fake)
{
	int short_file = memfd_create("short", MFD_CLOEXEC), pipes[2];
	const struct {
		const char *what;
		int place, fd;
	} rows[] = {
		{ "a page of no bytes", 1, short_file },
		{ "one that may shrink", 1, file_of("open", KVS_PAGE_MARKER, 8, F_SEAL_GROW) },
		{ "one that is none", 1, file_of("none", "kvd-none", 8, F_SEAL_SHRINK) },
		{ "something without seals", 1, pipe(pipes) == 0 ? pipes[0] : -1 },
		{ "a kvd.gen that is no file", 2, pipes[1] },
	};
	char text[KVC_ERROR_TEXT_BYTES];
	kvc *client;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		text[0] = '\0';
		fake_set(fake, fds_instead[rows[i].place], rows[i].fd);
		ok_int(open_client(fake, FAKE_ATTACH_OK, text, &client), KVC_SYSTEM, "H: %s",
		       rows[i].what);
		ok(strstr(text, rows[i].place == 1 ? "cannot map the reader page" : "is no file"),
		   "it says so: %s", text);
		fake_set(fake, fds_instead[rows[i].place], 0);
	}
	struct kvs_page_header header = { .state = KVS_PAGE_DETACHED };
	memcpy(header.marker, KVS_PAGE_MARKER, sizeof(header.marker));
	int detached = file_of("detached", &header, sizeof(header), F_SEAL_SHRINK);
	fake_set(fake, fds_instead[1], detached);
	ok_int(open_client(fake, FAKE_ATTACH_OK, text, &client), KVC_UNREACHABLE,
	       "B: a page that was taken back before it was mapped");
	fake_set(fake, fds_instead[1], 0);
	close(detached);
	fake_set(fake, fds_instead[0], short_file);
	ok_int(open_client(fake, FAKE_ATTACH_OK, text, &client), KVC_DAMAGED, "H: no region");
	ok(strstr(text, "contradicts itself"), "it says so: %s", text);
	fake_set(fake, fds_instead[0], 0);
	close(rows[1].fd);
	close(rows[2].fd);
	close(pipes[0]);
	close(pipes[1]);
	close(short_file);
}

static void test_headers(struct fake *fake)
{
	struct kvs_region_header *header = fake->fixture.region.header;
	struct kvs_region_header saved = *header;
	char text[KVC_ERROR_TEXT_BYTES];
	kvc *client;
	header->layout_version++;
	ok_int(open_client(fake, FAKE_ATTACH_OK, text, &client), KVC_LAYOUT, "another layout");
	*header = saved;
	header->hash_kind = KVS_HASH_KINDS_COUNT;
	ok_int(open_client(fake, FAKE_ATTACH_OK, text, &client), KVC_LAYOUT, "another hash");
	ok(strstr(text, "set hash = xxh3"), "it says what helps: %s", text);
	*header = saved;
	header->lifecycle = KVS_REGION_RETIRED;
	ok_int(open_client(fake, FAKE_ATTACH_OK, text, &client), KVC_UNREACHABLE,
	       "a kvd that stops");
	*header = saved;
	header->flags |= KVS_HEADER_READERS_FENCE;
	ok_int(open_client(fake, FAKE_ATTACH_OK, text, &client), KVC_OK, "one that wants fences");
	ok(client->attachment && client->attachment->fenced, "gets them");
	ok_int(kvc_close(client), KVC_OK, "close");
	*header = saved;
	ok_int(open_client(fake, FAKE_ATTACH_OK, text, &client), KVC_OK, "and none of that");
	ok_int(kvc_close(client), KVC_OK, "close");
}

int main(void)
{
	static struct fake fake;
	kvc *client;
	fake_start(&fake, MEMORY_BYTES);
	fake_put_text(&fake, "a", "1");
	ok_int(open_client(&fake, FAKE_ATTACH_NO_FDS, NULL, &client), KVC_OK, "a client");
	fake_set(&fake, request, FAKE_SAYS);
	test_kinds(&fake, client);
	test_other_answers(&fake, client);
	test_other_values(&fake, client);
	fake_set(&fake, request, FAKE_ANSWER);
	ok_int(kvc_close(client), KVC_OK, "close");
	test_gifts(&fake);
	test_attach_replies(&fake);
	test_files(&fake);
	test_headers(&fake);
	fake_stop(&fake);
	return tap_done();
}

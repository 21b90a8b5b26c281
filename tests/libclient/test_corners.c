// SPDX-License-Identifier: MIT
//
// Corners that usual runs meet by chance: a kvd that goes twice in the middle of a read by socket,
// that passes pages while it is silent, a region that contradicts itself between two loads, and no
// memory for a copy. H: each has an answer, and afterwards all is well.
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "tests/lib/refuse_memory.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)
#define WILD_BYTES 65536u
#define MANY 300u // more than go through the socket at once

static int get(kvc_reader *reader, const char *key, char *byte)
{
	return kvc_get(reader, key, strlen(key), byte, 1, NULL);
}

// Each as the first thing that is done with a reader.
static void test_first(struct fake *fake)
{
	kvc_reader *reader;
	uint64_t applied = 0, durable;
	char byte;
	kvc *client = fake_client(fake, &reader, KVC_OPEN_NO_CONNECT);
	fake_put_text(fake, "a short key", "1");
	ok(get(reader, "a short key", &byte) == KVC_OK && byte == '1' && kvc_is_mapped(client),
	   "a short key as the first that is read");
	ok_int(kvc_close(client), KVC_OK, "close");
	client = fake_client(fake, &reader, KVC_OPEN_NO_CONNECT);
	ok(kvc_watermarks(reader, &applied, &durable) == KVC_OK && applied > 0 &&
		   kvc_is_mapped(client),
	   "watermarks as the first");
	ok_int(kvc_close(client), KVC_OK, "close");
}

static void test_first_of_many(struct fake *fake)
{
	kvc_reader *reader;
	char bytes[2][4];
	kvc *client = fake_client(fake, &reader, KVC_OPEN_NO_CONNECT);
	struct kvc_item items[2] = {
		{ .key = "a", .key_bytes = 1, .buffer = bytes[0], .buffer_bytes = 4 },
		{ .key = "gone", .key_bytes = 4, .buffer = bytes[1], .buffer_bytes = 4 },
	};
	fake_put(fake, "gone", "x", 1, 1);
	for (uint32_t flags = 0; flags <= KVC_GET_SNAPSHOT; flags += KVC_GET_SNAPSHOT) {
		ok(kvc_get_many(reader, items, 2, flags) == KVC_OK && items[0].status == KVC_OK &&
			   items[1].status == KVC_NOT_FOUND && kvc_is_mapped(client),
		   "many keys as the first that is read%s; what expired is not there",
		   flags ? ", as a snapshot" : "");
	}
	ok_int(kvc_close(client), KVC_OK, "close");
}

// A reader that finds no slot, and no page can be had: kvd is silent, speaks no RESP, or somebody
// has taken the number of the link's descriptor.
static void test_no_slot(struct fake *fake)
{
	kvc_reader *first, *second, *third;
	char byte;
	kvc *client = fake_client(fake, &first, 0);
	ok_int(get(first, "a", &byte), KVC_OK, "one reader");
	client->attachment->pages[0]->header.readers_count = 1;
	fake_set(fake, says, "?what\r\n");
	fake_set(fake, attach, FAKE_ATTACH_SAYS);
	ok(kvc_reader_open(client, &second) == KVC_OK && !second->slot && client->link.fd < 0,
	   "H: where a page is asked for, something that is no RESP");
	fake_set(fake, attach, FAKE_ATTACH_OK);
	client->attachment->pages_retry_ns = 0;
	ok(kvc_reader_open(client, &third) == KVC_OK && !third->slot,
	   "without a link none is asked for");
	client->link.pause_ns = 0; // as if the pause before another attempt were over
	ok(get(third, "a", &byte) == KVC_OK && byte == '1', "it reads when there is one again");
	ok_int(kvc_close(client), KVC_OK, "close");
	client = fake_client(fake, &first, 0);
	ok_int(get(first, "a", &byte), KVC_OK, "another client");
	client->attachment->pages[0]->header.readers_count = 1;
	fake_kill(fake);
	fake_set(fake, attach, FAKE_ATTACH_SILENT);
	fake_revive(fake, true);
	ok(get(first, "a", &byte) == KVC_OK && client->attach_sent,
	   "F: an adopted region is read while KVD.ATTACH is not answered");
	ok(kvc_reader_open(client, &second) == KVC_OK && !second->slot,
	   "no page is asked for meanwhile");
	fake_set(fake, attach, FAKE_ATTACH_OK);
	ok_int(kvc_close(client), KVC_OK, "close");
}

// What a get by socket does when its connection breaks, and breaks again.
static void test_breaks_twice(struct fake *fake)
{
	static struct kvc_item items[MANY];
	kvc_reader *reader;
	char byte;
	uint64_t applied, durable;
	unsigned wrong = 0;
	kvc *client = fake_client(fake, &reader, KVC_OPEN_SOCKET_ONLY);
	for (unsigned i = 0; i < MANY; i++) {
		items[i] = (struct kvc_item){
			.key = "a", .key_bytes = 1, .buffer = &byte, .buffer_bytes = 1
		};
	}
	items[7].key_bytes = 0;
	ok_int(get(reader, "a", &byte), KVC_OK, "a get by socket");
	fake_set(fake, request, FAKE_HANG_UP);
	ok(kvc_get_many(reader, items, MANY, 0) == KVC_UNREACHABLE, "kvd hangs up, twice: %s",
	   kvc_reader_error_text(reader));
	for (unsigned i = 0; i < MANY; i++) {
		wrong += items[i].status != (i == 7 ? KVC_INVALID : KVC_UNREACHABLE);
	}
	ok_u64(wrong, 0, "which each item says");
	client->link.pause_ns = 0; // as if the pause before another attempt were over
	ok(kvc_get_many(reader, items, MANY, KVC_GET_SNAPSHOT) == KVC_UNREACHABLE,
	   "so it does amid a snapshot");
	fake_set(fake, request, FAKE_GARBAGE);
	client->link.pause_ns = 0; // as if the pause before another attempt were over
	ok_int(kvc_watermarks(reader, &applied, &durable), KVC_PROTOCOL,
	       "H: garbage where watermarks are asked for");
	fake_set(fake, request, FAKE_ANSWER);
	client->link.pause_ns = 0;
	ok_int(kvc_get_many(reader, items, MANY, 0), KVC_OK, "then they are read");
	ok_int(kvc_close(client), KVC_OK, "close");
}

// A new connection for requests, after the link has been given up.
static void test_no_link(struct fake *fake)
{
	kvc_reader *reader;
	char byte;
	kvc *client = fake_client(fake, &reader, 0);
	ok_int(get(reader, "a", &byte), KVC_OK, "attached");
	fake_put_stub(fake, "stub", 1);
	fake_set(fake, request, FAKE_HANG_UP);
	ok(get(reader, "stub", &byte) == KVC_UNREACHABLE && client->link.fd < 0,
	   "a read by socket is hung up on");
	fake_set(fake, request, FAKE_ANSWER);
	const struct kvc_attachment *before = client->attachment;
	ok(before && kvc_set(client, "b", 1, "2", 1, NULL, NULL) == KVC_OK && before->doubted,
	   "a write meanwhile: nobody can tell whether kvd is still the one that is mapped");
	client->link.pause_ns = 0;
	ok(get(reader, "b", &byte) == KVC_OK && byte == '2' && client->attachment != NULL,
	   "A: so it attaches anew");
	ok_int(kvc_close(client), KVC_OK, "close");
}

// Puts a large value that stands beyond all that the region says is there.
static bool put_wild(struct fixture *f)
{
	const struct kvs_map *map = &f->region.map;
	const struct kvs_range_bounds *range = &map->ranges[KVS_RANGE_LARGE];
	struct kvs_run run = { .offset = range->offset + range->bytes_max - WILD_BYTES };
	struct kvs_record_spec spec = { .key = "wild",
					.key_bytes = 4,
					.payload = &run,
					.payload_bytes = sizeof(run),
					.value_bytes = WILD_BYTES,
					.seq = f->log.next_seq,
					.flags = KVS_RECORD_LARGE };
	uint64_t bytes = kvs_record_bytes(spec.key_bytes, spec.payload_bytes, false), offset;
	if (kvs_table_secure(&f->table, 1) != 0 || kvs_log_secure(&f->log, bytes, bytes, 0) != 0) {
		return false;
	}
	void *at = kvs_log_append(&f->log, (uint32_t)bytes, &offset);
	uint32_t written = kvs_record_write(at, &spec);
	uint64_t hash = kvs_map_hash(map, "wild", 4);
	kvs_log_publish(&f->log);
	return kvs_table_insert(&f->table, hash,
				kvs_entry_make(hash, KVS_ENTRY_LARGE, written, offset));
}

// However often one looks.
static void test_never_mapped(struct fake *fake)
{
	kvc_reader *reader;
	struct kvc_view view;
	struct kvc_item item = { .key = "wild", .key_bytes = 4 };
	char byte;
	kvc *client = fake_client(fake, &reader, 0);
	pthread_mutex_lock(&fake->mutex);
	bool put = put_wild(&fake->fixture);
	pthread_mutex_unlock(&fake->mutex);
	uint64_t requests = fake_get(fake, &fake->requests);
	ok(put && get(reader, "wild", &byte) == KVC_TRUNCATED, "H: a get ends: the socket answers");
	ok(kvc_get_many(reader, &item, 1, 0) == KVC_OK && item.status == KVC_TRUNCATED &&
		   item.meta.flags == KVC_META_SOCKET,
	   "H: so do many");
	ok(kvc_begin(reader) == KVC_OK && get(reader, "wild", &byte) == KVC_TRUNCATED &&
		   kvc_view(reader, "wild", 4, &view) == KVC_OK && view.value_bytes == WILD_BYTES &&
		   view.meta.flags == KVC_META_SOCKET && kvc_end(reader) == KVC_OK,
	   "H: so does a section, for a get and a view");
	ok_u64(fake_get(fake, &fake->requests) - requests, 4, "each asked once");
	ok_int(kvc_close(client), KVC_OK, "close");
	pthread_mutex_lock(&fake->mutex);
	(void)fixture_remove(&fake->fixture, "wild", 4);
	pthread_mutex_unlock(&fake->mutex);
}

// What kvd takes back while a section is open, by either of the two words that say so.
static void test_taken_back(struct fake *fake)
{
	kvc_reader *reader;
	struct kvc_token token;
	struct kvc_view view;
	char byte;
	kvc *client = fake_client(fake, &reader, 0);
	ok(kvc_get_token(reader, "a", 1, &byte, 1, NULL, &token) == KVC_OK &&
		   kvc_check(reader, &token) == KVC_OK,
	   "a token");
	uint64_t *oldest = &fake->fixture.region.header->hot.oldest_valid, saved = *oldest;
	kvs_store_relaxed(&reader->slot->revoked_upto, UINT64_MAX);
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "B: revoked amid a check: not believed");
	kvs_store_relaxed(&reader->slot->revoked_upto, 0);
	ok_int(kvc_check(reader, &token), KVC_OK, "then it is again");
	ok(kvc_begin(reader) == KVC_OK && kvc_view(reader, "a", 1, &view) == KVC_OK, "a view");
	kvs_store_relaxed(oldest, UINT64_MAX >> KVS_EPOCH_SHIFT);
	ok_int(kvc_view(reader, "absent", 6, &view), KVC_REVOKED,
	       "B: every epoch up to now is refused: nothing follows from a miss");
	ok_int(kvc_end(reader), KVC_REVOKED, "nor is what was seen before good");
	kvs_store_relaxed(oldest, saved);
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "a later section is");
	ok_int(kvc_close(client), KVC_OK, "close");
}

// A region that says that it was adopted, and not when.
static void test_adopted_when(struct fake *fake)
{
	kvc_reader *reader;
	char byte;
	kvc *client = fake_client(fake, &reader, 0);
	ok_int(get(reader, "a", &byte), KVC_OK, "attached");
	struct kvs_region_header *header = fake->fixture.region.header;
	uint64_t next = header->hot.incarnation + 1;
	header->adoptions.epoch[next % KVS_ADOPTIONS_KEPT] = 0;
	kvs_store_release(&header->hot.incarnation, next);
	uint64_t attached = fake_get(fake, &fake->attached);
	ok(get(reader, "a", &byte) == KVC_OK && fake_get(fake, &fake->attached) == attached + 1,
	   "H: it is attached to anew before it is read");
	kvs_store_release(&header->hot.incarnation, next + KVS_ADOPTIONS_KEPT);
	ok(get(reader, "a", &byte) == KVC_OK && fake_get(fake, &fake->attached) == attached + 2,
	   "F: so it is after more adoptions than are remembered");
	ok_int(kvc_close(client), KVC_OK, "close");
}

// A page that kvd has given up before its client has seen it.
static void test_page_given_up(struct fake *fake)
{
	struct kvs_page_header header = { .state = KVS_PAGE_DETACHED };
	kvc *client = NULL;
	struct kvc_options options;
	int fd = memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	memcpy(header.marker, KVS_PAGE_MARKER, sizeof(header.marker));
	ok(pwrite(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) &&
		   ftruncate(fd, KVS_PAGE_BYTES) == 0 &&
		   fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0,
	   "a page that is detached");
	kvc_options_init(&options);
	options.socket_path = fake->socket_path;
	fake_set(fake, fds_instead[1], fd);
	ok_int(kvc_open(&client, &options), KVC_UNREACHABLE, "H: is not attached to");
	fake_set(fake, fds_instead[1], 0);
	close(fd);
	ok(kvc_open(&client, &options) == KVC_OK && kvc_close(client) == KVC_OK, "the next one is");
}

// No memory, at each allocation of a view by socket and of opening.
static void test_memory(struct fake *fake)
{
	struct {
		struct kvc_options known;
		uint64_t unknown;
	} options = { .unknown = 1 };
	char text[64] = "before";
	unsigned at = 1, wrong = 0;
	for (bool reached = true; reached; at++) {
		kvc_reader *reader;
		struct kvc_view view;
		kvc *client = fake_client(fake, &reader, KVC_OPEN_SOCKET_ONLY);
		wrong += kvc_begin(reader) != KVC_OK;
		refuse_arm(at);
		int status = kvc_view(reader, "a", 1, &view);
		reached = refuse.refused > 0;
		refuse.armed = false;
		wrong += status != (reached ? KVC_NO_MEMORY : KVC_OK);
		wrong += kvc_end(reader) != KVC_OK || kvc_close(client) != KVC_OK;
	}
	ok(wrong == 0 && at > 3, "a view by socket without memory, each of %u times", at - 2);
	kvc *client = NULL;
	kvc_options_init(&options.known);
	options.known.struct_bytes = sizeof(options);
	options.known.error_text = text;
	options.known.error_text_bytes = sizeof(text);
	refuse_arm(1);
	ok(kvc_open(&client, &options.known) == KVC_NO_MEMORY && !client &&
		   strcmp(text, "before") == 0,
	   "no memory, and options of which nothing is known: no word about it");
	refuse_arm(1);
	ok(kvc_open(&client, NULL) == KVC_NO_MEMORY && !client, "nor without options");
	refuse.armed = false;
}

int main(void)
{
	static struct fake fake;
	fake_start(&fake, MEMORY_BYTES);
	fake_put_text(&fake, "a", "1");
	test_first(&fake);
	test_first_of_many(&fake);
	test_no_slot(&fake);
	test_breaks_twice(&fake);
	test_no_link(&fake);
	test_never_mapped(&fake);
	test_taken_back(&fake);
	test_adopted_when(&fake);
	test_page_given_up(&fake);
	test_memory(&fake);
	fake_stop(&fake);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// Reads in sections that are nested, revoked, without a mapping, or over memory that cannot be
// read: what a get inside a section says is what its views say. B: nothing of a revoked section is
// believed. H: damage, pages that lie and tables that never rest give answers, by socket if at all.
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)

// Linked in front of the system's.
int __real_mprotect(void *at, size_t bytes, int protection);
int __wrap_mprotect(void *at, size_t bytes, int protection);
int __real_memcmp(const void *a, const void *b, size_t bytes);
int __wrap_memcmp(const void *a, const void *b, size_t bytes);
static bool mprotect_fails;
static uint64_t *moving_root; // moves at every comparison

int __wrap_mprotect(void *at, size_t bytes, int protection)
{
	if (mprotect_fails) {
		errno = ENOMEM;
		return -1;
	}
	return __real_mprotect(at, bytes, protection);
}

int __wrap_memcmp(const void *a, const void *b, size_t bytes)
{
	if (moving_root) {
		kvs_store_release(moving_root,
				  *moving_root + (UINT64_C(1) << KVS_ROOT_TURNS_SHIFT));
	}
	return __real_memcmp(a, b, bytes);
}

static int get(kvc_reader *reader, const char *key, char *byte)
{
	*byte = 0;
	return kvc_get(reader, key, strlen(key), byte, 1, NULL);
}

static int view(kvc_reader *reader, const char *key, struct kvc_view *out)
{
	return kvc_view(reader, key, strlen(key), out);
}

static void test_depth(kvc_reader *reader)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < KVS_NESTING_MASK; i++) {
		wrong += kvc_begin(reader) != KVC_OK;
	}
	ok_u64(wrong, 0, "%u sections in one another", (unsigned)KVS_NESTING_MASK);
	ok_int(kvc_begin(reader), KVC_INVALID, "not one more");
	for (unsigned i = 0; i < KVS_NESTING_MASK; i++) {
		wrong += kvc_end(reader) != KVC_OK;
	}
	ok_u64(wrong, 0, "and each of them ends");
	ok_int(kvc_end(reader), KVC_INVALID, "once");
}

// What a get inside a section finds.
static void test_nested(struct fake *fake, kvc_reader *reader)
{
	static char large[2048];
	char byte;
	uint64_t applied = 0, durable = 0;
	struct kvc_view out;
	fake_put_stub(fake, "stub", 1);
	fake_put_tombstone(fake, "gone");
	fake_put(fake, "late", "x", 1, 1);
	ok_int(kvc_begin(reader), KVC_OK, "a section");
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "a get in it");
	ok_int(get(reader, "absent", &byte), KVC_NOT_FOUND, "of nothing");
	ok_int(get(reader, "gone", &byte), KVC_NOT_FOUND, "of what was removed");
	ok_int(get(reader, "late", &byte), KVC_NOT_FOUND, "of what has expired");
	ok_int(view(reader, "late", &out), KVC_NOT_FOUND, "as a view of it says");
	ok(get(reader, "stub", &byte) == KVC_OK && byte == 's', "of what only the socket has");
	ok(kvc_begin(reader) == KVC_OK && view(reader, "stub", &out) == KVC_OK &&
		   out.meta.flags == KVC_META_SOCKET && kvc_end(reader) == KVC_OK &&
		   *(const char *)out.value == 's',
	   "a copy of it lives as long as the outermost section");
	ok(kvc_watermarks(reader, &applied, &durable) == KVC_OK &&
		   applied == fake->fixture.region.header->marks.applied_seq,
	   "watermarks");
	memset(large, 'l', sizeof(large));
	for (unsigned i = 0; i < 100; i++) { // until kvd has published more than is mapped
		char key[8];
		(void)snprintf(key, sizeof(key), "l%u", i);
		fake_put(fake, key, large, sizeof(large), 0);
	}
	ok(get(reader, "l99", &byte) == KVC_TRUNCATED && byte == 'l', "of what is not mapped yet");
	ok_int(kvc_end(reader), KVC_OK, "its end");
	ok_int(kvc_ttl_ms(1), 0, "a time to live is never below 0");
}

// Memory of more of the region is refused: the socket answers.
static void test_no_memory(struct fake *fake, kvc_reader *reader)
{
	static char large[2048];
	char byte;
	struct kvc_view out;
	struct kvc_item item = { .key = "m99", .key_bytes = 3 };
	for (unsigned i = 0; i < 100; i++) {
		char key[8];
		(void)snprintf(key, sizeof(key), "m%u", i);
		fake_put(fake, key, large, sizeof(large), 0);
	}
	mprotect_fails = true;
	ok_int(get(reader, "m99", &byte), KVC_TRUNCATED, "a get of what cannot be mapped");
	ok(kvc_get_many(reader, &item, 1, 0) == KVC_OK && item.status == KVC_TRUNCATED &&
		   item.meta.flags == KVC_META_SOCKET,
	   "one of several, by socket");
	ok(kvc_get_many(reader, &item, 1, KVC_GET_SNAPSHOT) == KVC_OK &&
		   item.meta.flags == KVC_META_SOCKET,
	   "a snapshot");
	ok_int(kvc_begin(reader), KVC_OK, "a section");
	ok_int(get(reader, "m99", &byte), KVC_TRUNCATED, "a get in it");
	ok(view(reader, "m99", &out) == KVC_OK && out.meta.flags == KVC_META_SOCKET, "a view");
	ok_int(kvc_end(reader), KVC_OK, "its end");
	mprotect_fails = false;
	ok(kvc_begin(reader) == KVC_OK && view(reader, "m99", &out) == KVC_OK &&
		   out.meta.flags == 0,
	   "then it is mapped");
	ok_int(kvc_end(reader), KVC_OK, "its end");
}

// As kvd takes memory back: everything up to the present epoch, and then no more.
static void take_back(kvc_reader *reader, bool on)
{
	kvs_store_relaxed(&reader->slot->revoked_upto, on ? UINT64_MAX : 0);
}

static void test_revoked(struct fake *fake, kvc_reader *reader)
{
	char byte;
	struct kvc_view out;
	struct kvc_token token;
	struct kvc_meta meta;
	struct kvc_item item = { .key = "a", .key_bytes = 1 };
	ok_int(kvc_begin(reader), KVC_OK, "a section");
	ok_int(view(reader, "a", &out), KVC_OK, "with a view");
	take_back(reader, true);
	ok_int(view(reader, "absent", &out), KVC_REVOKED, "B: a miss in it is not believed");
	ok_int(get(reader, "a", &byte), KVC_REVOKED, "B: nor a get");
	ok_int(kvc_get_many(reader, &item, 1, 0), KVC_REVOKED, "B: nor several");
	ok_int(kvc_get_many(reader, &item, 1, KVC_GET_SNAPSHOT), KVC_REVOKED, "B: or a snapshot");
	ok_int(kvc_end(reader), KVC_REVOKED, "B: its end says so");
	uint64_t requests = fake_get(fake, &fake->requests);
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "D: a get that is revoked each time");
	ok(fake_get(fake, &fake->requests) == requests + 1, "is answered by the socket");
	ok(kvc_get_token(reader, "a", 1, &byte, 1, &meta, &token) == KVC_OK &&
		   meta.flags == KVC_META_SOCKET && kvc_check(reader, &token) == KVC_CHANGED,
	   "its token stands for nothing");
	struct kvc_item items[2] = { { .key = "a", .key_bytes = 1 }, { .key = "" } };
	ok(kvc_get_many(reader, items, 2, 0) == KVC_OK && items[0].status == KVC_TRUNCATED &&
		   items[0].meta.flags == KVC_META_SOCKET && items[1].status == KVC_INVALID,
	   "so are several, but for what is no key");
	ok_int(kvc_get_many(reader, &item, 1, KVC_GET_SNAPSHOT), KVC_BUSY,
	       "a snapshot that is revoked each time is none");
	take_back(reader, false);
	ok(kvc_begin(reader) == KVC_OK && kvc_begin(reader) == KVC_OK &&
		   view(reader, "a", &out) == KVC_OK,
	   "a section in a section");
	take_back(reader, true);
	ok_int(kvc_end(reader), KVC_OK, "the inner one has nothing to say");
	ok_int(kvc_end(reader), KVC_REVOKED, "B: the outer one has");
	take_back(reader, false);
}

static void test_tokens(kvc_reader *reader)
{
	struct kvc_token token, other;
	char byte;
	ok_int(kvc_get_token(reader, "a", 1, &byte, 1, NULL, &token), KVC_OK, "a token");
	ok_int(kvc_check(reader, &token), KVC_OK, "stands for what is there");
	ok_int(kvc_begin(reader), KVC_OK, "in a section");
	ok_int(kvc_check(reader, &token), KVC_OK, "too");
	take_back(reader, true);
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "B: not in a revoked one");
	(void)kvc_end(reader);
	take_back(reader, false);
	static const char *const words[] = { "region", "life", NULL, NULL, "range" };
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (words[i]) {
			other = token;
			other.opaque[i] += 100;
			ok_int(kvc_check(reader, &other), KVC_CHANGED, "of another %s: changed",
			       words[i]);
		}
	}
	other = token;
	other.opaque[3] += KVS_HUGE_PAGE_BYTES; // where another client of the process had mapped
	ok_int(kvc_check(reader, &other), KVC_CHANGED, "of what is not mapped here: changed");
	other = token;
	other.opaque[7] += 100;
	other.opaque[8] += 100;
	ok_int(kvc_check(reader, &other), KVC_CHANGED, "of another record in its place: changed");
	ok_int(kvc_check(reader, &token), KVC_OK, "the token itself is good");
}

// Without a mapping a section is a bracket around copies.
static void test_by_socket(struct fake *fake)
{
	char byte;
	uint64_t applied, durable;
	struct kvc_view out;
	struct kvc_token token = { { 0 } };
	kvc_reader *reader;
	kvc *client = fake_client(fake, &reader, KVC_OPEN_SOCKET_ONLY);
	ok(kvc_begin(reader) == KVC_OK && kvc_begin(reader) == KVC_OK, "sections by socket");
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "a get in them");
	ok(view(reader, "a", &out) == KVC_OK && out.meta.flags == KVC_META_SOCKET, "a view");
	ok_int(kvc_watermarks(reader, &applied, &durable), KVC_OK, "watermarks");
	ok_int(kvc_view_token(reader, "a", 1, &out, &token), KVC_OK, "a view with a token");
	token.opaque[5] = 1;
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "which stands for nothing");
	struct kvc_item items[3] = { { .key = "a", .key_bytes = 1 },
				     { .key = "", .key_bytes = 0 },
				     { .key = "a", .key_bytes = 1, .buffer_bytes = 1 } };
	ok(kvc_get_many(reader, items, 3, 0) == KVC_OK && items[0].status == KVC_TRUNCATED &&
		   items[1].status == KVC_INVALID && items[2].status == KVC_INVALID,
	   "one of several without a key, or a buffer, is said to be");
	client->options.request_timeout_ms = 100000;
	ok(kvc_get_many(reader, items, 3, KVC_GET_SNAPSHOT) == KVC_OK &&
		   items[0].status == KVC_TRUNCATED && items[1].status == KVC_INVALID &&
		   items[2].status == KVC_INVALID,
	   "in a snapshot, too, however long it may take");
	ok_int(kvc_end(reader), KVC_OK, "an end");
	ok_int(kvc_reader_close(reader), KVC_BUSY, "no closing before the last one");
	ok_int(kvc_end(reader), KVC_OK, "the last");
	fake_set(fake, request, FAKE_ERROR);
	fake_set(fake, error, "ERR no");
	ok_int(get(reader, "a", &byte), KVC_REFUSED, "refused");
	static struct kvc_item many[300];
	for (unsigned i = 0; i < 300; i++) {
		many[i] = (struct kvc_item){ .key = "a", .key_bytes = 1 };
	}
	fake_set(fake, request, FAKE_HANG_UP);
	ok_int(get(reader, "a", &byte), KVC_UNREACHABLE, "hung up on, twice");
	ok_int(kvc_get_many(reader, many, 300, 0), KVC_UNREACHABLE, "with many under way");
	ok(many[0].status == KVC_UNREACHABLE && many[299].status == KVC_UNREACHABLE,
	   "which is said of each");
	fake_set(fake, request, FAKE_ANSWER);
	ok_int(kvc_close(client), KVC_OK, "close");
	client = fake_client(fake, &reader, KVC_OPEN_FENCED);
	ok(get(reader, "a", &byte) == KVC_OK && kvc_begin(reader) == KVC_OK, "a fenced section");
	take_back(reader, true);
	ok_int(kvc_end(reader), KVC_REVOKED, "B: is taken back like any other");
	take_back(reader, false);
	ok_int(kvc_close(client), KVC_OK, "close");
}

// kvd drops the page again and again: each time the client attaches anew, but not for ever at once.
static void test_dropped(struct fake *fake)
{
	kvc_reader *reader;
	char byte;
	unsigned good = 0;
	kvc *client = fake_client(fake, &reader, 0);
	// Those count that follow quickly: on a slow machine there are more of them.
	for (unsigned i = 0; i < 1000 && (i < 30 || client->link.pause_ns == 0); i++) {
		fake_detach(fake);
		good += get(reader, "a", &byte) == KVC_OK && byte == '1';
	}
	ok(good > 0 && client->link.pause_ns > 0, "after %u attachments it waits", good);
	ok_int(kvc_close(client), KVC_OK, "close");
	client = fake_client(fake, &reader, 0);
	ok_int(get(reader, "a", &byte), KVC_OK, "attached");
	close(client->link.fd); // by the application
	ok(get(reader, "stub", &byte) == KVC_OK && byte == 's',
	   "a life line that was taken away is replaced");
	ok_int(kvc_close(client), KVC_OK, "close");
}

static void test_damage(struct fake *fake, kvc_reader *reader)
{
	char byte;
	struct kvc_view out;
	struct kvc_item item = { .key = "wild", .key_bytes = 4 };
	struct fixture *f = &fake->fixture;
	uint64_t hash = kvs_map_hash(&f->region.map, "wild", 4);
	kvs_table_insert(&f->table, hash, kvs_entry_make(hash, KVS_ENTRY_VALUE, 64, 8));
	ok_int(get(reader, "wild", &byte), KVC_NOT_FOUND, "H: damage: the socket answers");
	fake_set(fake, request, FAKE_ERROR);
	fake_set(fake, error, "ERR no");
	ok_int(get(reader, "wild", &byte), KVC_DAMAGED, "H: or cannot");
	ok(strcmp(kvc_reader_error_text(reader), kvc_strerror(KVC_DAMAGED)) == 0, "it says so");
	fake_set(fake, error, "DAMAGED the record of this key");
	ok(get(reader, "wild", &byte) == KVC_DAMAGED &&
		   strcmp(kvc_reader_error_text(reader), "DAMAGED the record of this key") == 0,
	   "H: or says itself that it is damaged");
	(void)kvc_get_many(reader, &item, 1, 0);
	ok(item.status < 0, "H: nor of several");
	ok_int(kvc_begin(reader), KVC_OK, "a section");
	ok_int(get(reader, "wild", &byte), KVC_DAMAGED, "H: a get in it");
	ok_int(view(reader, "wild", &out), KVC_DAMAGED, "H: a view");
	fake_set(fake, request, FAKE_ANSWER);
	ok_int(view(reader, "wild", &out), KVC_NOT_FOUND, "H: which the socket answers");
	ok_int(kvc_end(reader), KVC_OK, "its end");
}

// A key beside one that has its tag and its length, in a table that moves at every look.
static void test_moving(struct fake *fake, kvc_reader *reader)
{
	char byte;
	struct kvs_hit hit;
	struct fixture *f = &fake->fixture;
	uint64_t hash = kvs_map_hash(&f->region.map, "z", 1);
	(void)fixture_find(&f->region.map, "a", 1, &hit);
	kvs_table_insert(&f->table, hash,
			 kvs_entry_make(hash, KVS_ENTRY_VALUE, 64, kvs_entry_offset(hit.entry)));
	uint64_t requests = fake_get(fake, &fake->requests);
	moving_root = &f->region.header->hot.table_root;
	int status = get(reader, "z", &byte);
	moving_root = NULL;
	ok_int(status, KVC_NOT_FOUND, "D: a miss in a table that never rests");
	ok_u64(fake_get(fake, &fake->requests), requests + 1, "is the socket's");
}

// Keys that are hashed in the other way: no quick way, the same answers.
static void test_siphash(void)
{
	static struct fake fake;
	kvc_reader *reader;
	char byte;
	struct kvc_view out;
	fake_start(&fake, MEMORY_BYTES);
	fake.fixture.region.header->hash_kind = KVS_HASH_SIPHASH;
	fake.fixture.region.map.hash_kind = KVS_HASH_SIPHASH;
	fake_put_text(&fake, "a", "1");
	kvc *client = fake_client(&fake, &reader, 0);
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "a get under SipHash");
	ok_int(get(reader, "b", &byte), KVC_NOT_FOUND, "of nothing");
	ok(kvc_begin(reader) == KVC_OK && view(reader, "a", &out) == KVC_OK &&
		   out.meta.flags == 0 && kvc_end(reader) == KVC_OK,
	   "a view");
	ok_u64(fake.requests, 0, "all of it in the mapping");
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_stop(&fake);
}

// Pages that say they have fewer slots, that are none, or that kvd refuses to give.
static void test_pages(struct fake *fake)
{
	enum { READERS = KVS_PAGES_PER_CLIENT_MAX * KVS_READERS_PER_PAGE + 1 };
	static kvc_reader *readers[READERS];
	kvc_reader *first, *second, *third;
	char byte;
	kvc *client = fake_client(fake, &first, 0);
	ok_int(get(first, "a", &byte), KVC_OK, "one reader");
	struct kvs_reader_page *page = client->attachment->pages[0];
	page->header.readers_count = 1;
	fake_set(fake, attach, FAKE_ATTACH_REFUSED);
	(void)kvc_reader_open(client, &second);
	ok(get(second, "a", &byte) == KVC_OK && byte == '1' && !second->slot,
	   "H: a second one where no slot is said to be, and no page given: by socket");
	uint64_t attached = fake_get(fake, &fake->attached);
	fake_set(fake, attach, FAKE_ATTACH_OK);
	ok(get(second, "a", &byte) == KVC_OK && fake_get(fake, &fake->attached) == attached,
	   "no page is asked for again at once");
	client->attachment->pages_retry_ns = 0;
	fake_set(fake, fds_instead[1], fake->gen_fd);
	ok(get(second, "a", &byte) == KVC_OK && !second->slot, "H: a page that is none");
	fake_set(fake, fds_instead[1], 0);
	client->attachment->pages_retry_ns = 0;
	fake_set(fake, attach, FAKE_ATTACH_NO_FDS);
	ok(get(second, "a", &byte) == KVC_OK && !second->slot, "or none at all");
	fake_set(fake, attach, FAKE_ATTACH_OK);
	client->attachment->pages_retry_ns = 0;
	page->header.readers_count = UINT64_MAX;
	(void)kvc_reader_open(client, &third);
	ok(get(second, "a", &byte) == KVC_OK && second->slot && third->slot,
	   "H: more slots than a page has are not believed");
	unsigned with = 0, good = 0;
	for (unsigned i = 0; i < READERS; i++) {
		good += kvc_reader_open(client, &readers[i]) == KVC_OK &&
			get(readers[i], "a", &byte) == KVC_OK && byte == '1';
		with += readers[i]->slot != NULL;
	}
	ok_u64(good, READERS, "%u readers more", (unsigned)READERS);
	ok_u64(client->attachment->pages_count, KVS_PAGES_PER_CLIENT_MAX, "G: fill all pages");
	ok(with < READERS, "the rest read by socket");
	ok_int(kvc_close(client), KVC_OK, "close");
}

int main(void)
{
	static struct fake fake;
	kvc_reader *reader;
	fake_start(&fake, MEMORY_BYTES);
	fake_put_text(&fake, "a", "1");
	kvc *client = fake_client(&fake, &reader, 0);
	char byte;
	ok_int(get(reader, "a", &byte), KVC_OK, "attached");
	test_depth(reader);
	test_nested(&fake, reader);
	test_no_memory(&fake, reader);
	test_revoked(&fake, reader);
	test_tokens(reader);
	test_by_socket(&fake);
	test_damage(&fake, reader);
	test_moving(&fake, reader);
	ok_int(kvc_close(client), KVC_OK, "close");
	test_dropped(&fake);
	test_pages(&fake);
	fake_stop(&fake);
	test_siphash();
	return tap_done();
}

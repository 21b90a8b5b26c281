// SPDX-License-Identifier: MIT
//
// Life of an attachment: no descriptors, another layout, kvd dead, restarted with a new region,
// restarted with the same one, connection lost; sections and what revokes them.
// A: never old data after a restart. B: revoked views say so. F: reads go on while kvd is dead.
#include <errno.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "tests/lib/revoke.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)

static int get(kvc_reader *reader, const char *key, char *byte)
{
	*byte = 0;
	return kvc_get(reader, key, strlen(key), byte, 1, NULL);
}

// As get(), until the pause after failed attempts is over.
static int get_soon(kvc_reader *reader, const char *key, char *byte)
{
	uint64_t end_ns = kvc_now_ns() + UINT64_C(30000000000);
	int status;
	do {
		status = get(reader, key, byte);
	} while (status == KVC_UNREACHABLE && kvc_now_ns() < end_ns);
	return status;
}

static int open_with(struct fake *fake, enum fake_attach attach, uint32_t flags, kvc **client)
{
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = fake->socket_path,
				       .name = "tester",
				       .connect_timeout_ms =
					       attach == FAKE_ATTACH_SILENT ? 100 : 30000,
				       .flags = flags };
	fake_set(fake, attach, attach);
	int status = kvc_open(client, &options);
	fake_set(fake, attach, FAKE_ATTACH_OK);
	return status;
}

static void test_socket_mode(struct fake *fake, kvc *client, const char *what)
{
	char byte;
	kvc_reader *reader;
	struct kvc_view view;
	uint64_t applied = 0, durable = 0;
	ok_int(kvc_is_mapped(client), 0, "%s: not mapped", what);
	ok_int(kvc_reader_open(client, &reader), KVC_OK, "%s: a reader", what);
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "%s: get", what);
	ok_int(get(reader, "zzz", &byte), KVC_NOT_FOUND, "%s: get of nothing", what);
	ok_int(kvc_begin(reader), KVC_OK, "%s: begin", what);
	ok(kvc_view(reader, "a", 1, &view) == KVC_OK && view.value_bytes == 1 &&
		   *(const char *)view.value == '1' && view.meta.flags == KVC_META_SOCKET,
	   "%s: view", what);
	ok_int(kvc_close(client), KVC_BUSY, "%s: no closing over a view", what);
	ok_int(kvc_end(reader), KVC_OK, "%s: end", what);
	ok_int(kvc_watermarks(reader, &applied, &durable), KVC_OK, "%s: watermarks", what);
	ok_u64(applied, fake->fixture.region.header->marks.applied_seq, "%s: applied", what);
	struct kvc_item items[2] = {
		{ .key = "a", .key_bytes = 1, .buffer = &byte, .buffer_bytes = 1 },
		{ .key = "no", .key_bytes = 2 },
	};
	for (uint32_t flags = 0; flags <= KVC_GET_SNAPSHOT; flags++) {
		ok_int(kvc_get_many(reader, items, 2, flags), KVC_OK, "%s: many, flags %u", what,
		       flags);
		ok(items[0].status == KVC_OK && items[1].status == KVC_NOT_FOUND,
		   "%s: each as it is", what);
	}
	ok_int(kvc_close(client), KVC_OK, "%s: close", what);
}

static void test_granted_later(struct fake *fake)
{
	kvc *client;
	kvc_reader *reader;
	char byte;
	ok_int(open_with(fake, FAKE_ATTACH_REFUSED, 0, &client), KVC_OK, "refused at first");
	ok(client->attach_again_ns != UINT64_MAX, "C: it is asked for again");
	client->attach_again_ns = UINT64_MAX - 1;
	ok_int(kvc_reader_open(client, &reader), KVC_OK, "a reader");
	ok(get(reader, "a", &byte) == KVC_OK && !kvc_is_mapped(client), "but not yet");
	fake_set(fake, attach, FAKE_ATTACH_REFUSED);
	client->attach_again_ns = 0;
	ok(get(reader, "a", &byte) == KVC_OK && !kvc_is_mapped(client), "refused again");
	ok(client->attach_again_ns > 0, "C: and asked for later");
	fake_set(fake, attach, FAKE_ATTACH_OK);
	client->attach_again_ns = 0;
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "granted later");
	ok_int(kvc_is_mapped(client), 1, "C: reads need no socket then");
	ok_int(kvc_reader_close(reader), KVC_OK, "close the reader");
	ok_int(kvc_close(client), KVC_OK, "close");
}

static void test_opening(struct fake *fake)
{
	kvc *client;
	fake_put_text(fake, "a", "1");
	ok_int(open_with(fake, FAKE_ATTACH_NO_FDS, 0, &client), KVC_OK,
	       "no descriptors: no failure");
	ok_str(fake->name, "tester", "the name was sent");
	test_socket_mode(fake, client, "bridge");
	ok_int(open_with(fake, FAKE_ATTACH_REFUSED, 0, &client), KVC_OK, "refused: no failure");
	client->attach_again_ns = UINT64_MAX - 1; // however long this takes
	test_socket_mode(fake, client, "refused");
	test_granted_later(fake);
	ok_int(open_with(fake, FAKE_ATTACH_OK, KVC_OPEN_SOCKET_ONLY, &client), KVC_OK,
	       "socket only");
	test_socket_mode(fake, client, "socket only");
	ok_int(open_with(fake, FAKE_ATTACH_LAYOUT, 0, &client), KVC_LAYOUT, "another layout");
	ok_int(open_with(fake, FAKE_ATTACH_OVERTAKEN, 0, &client), KVC_UNREACHABLE,
	       "B: a page that the present life never gave is not used");
	ok(!client, "gives no client");
	ok_int(open_with(fake, FAKE_ATTACH_UNSEALED, 0, &client), KVC_SYSTEM,
	       "C: a page that another holder of it could cut off is not used");
	ok_int(open_with(fake, FAKE_ATTACH_UNKNOWN, 0, &client), KVC_PROTOCOL, "no kvd at all");
	ok_int(open_with(fake, FAKE_ATTACH_SILENT, 0, &client), KVC_TIMEOUT, "a kvd that hangs");
	fake_set(fake, hang_up_at_accept, true);
	ok_int(open_with(fake, FAKE_ATTACH_OK, 0, &client), KVC_UNREACHABLE, "hung up on");
	fake_set(fake, hang_up_at_accept, false);
	ok_int(open_with(fake, FAKE_ATTACH_UNKNOWN, KVC_OPEN_NO_CONNECT, &client), KVC_OK,
	       "no connecting at open");
	kvc_reader *reader;
	char byte;
	ok_int(kvc_reader_open(client, &reader), KVC_OK, "a reader of it");
	ok_int(kvc_is_mapped(client), 0, "not mapped before the first get");
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "the first get attaches");
	ok_int(kvc_is_mapped(client), 1, "mapped then");
	ok_int(kvc_close(client), KVC_OK, "close");
}

static void test_dead(struct fake *fake)
{
	kvc_reader *reader;
	char byte;
	kvc *client = fake_client(fake, &reader, 0);
	fake_put_text(fake, "a", "1");
	fake_put_stub(fake, "cold", 1);
	ok(get(reader, "a", &byte) == KVC_OK, "alive");
	uint64_t accepted = fake_get(fake, &fake->accepted);
	fake_kill(fake);
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "F: read on while kvd is dead");
	ok_int(kvc_set(client, "a", 1, "2", 1, NULL, NULL), KVC_UNREACHABLE, "writes cannot");
	ok(strstr(kvc_error_text(client), "nobody listens"), "and say why: %s",
	   kvc_error_text(client));
	ok_int(get(reader, "cold", &byte), KVC_UNREACHABLE, "nor what is only on disk");
	ok(*kvc_reader_error_text(reader), "with a reason: %s", kvc_reader_error_text(reader));

	fake_revive(fake, false);
	fake_put_text(fake, "b", "3");
	ok_int(get_soon(reader, "a", &byte), KVC_NOT_FOUND,
	       "A: a new region: nothing of the old one");
	ok(get(reader, "b", &byte) == KVC_OK && byte == '3', "A: what is in the new one");
	ok(fake_get(fake, &fake->accepted) == accepted + 1, "attached once");
	ok_int(kvc_is_mapped(client), 1, "mapped again");

	fake_kill(fake);
	fake_say_generation(fake, 77, 1);
	ok_int(get(reader, "b", &byte), KVC_UNREACHABLE,
	       "A: newer generation, no kvd: no old data");
	ok_int(kvc_is_mapped(client), 0, "not mapped");
	fake_revive(fake, false);
	fake_put_text(fake, "b", "4");
	ok(get_soon(reader, "b", &byte) == KVC_OK && byte == '4', "back after the pause");
	ok_int(kvc_close(client), KVC_OK, "close");
}

static void test_back_off(struct fake *fake)
{
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = fake->socket_path,
				       .reconnect_min_ms = 50,
				       .reconnect_max_ms = 400,
				       .flags = KVC_OPEN_NO_CONNECT };
	kvc *client;
	kvc_reader *reader;
	char byte;
	(void)kvc_open(&client, &options);
	(void)kvc_reader_open(client, &reader);
	fake_set(fake, hang_up_at_accept, true);
	uint64_t accepted = fake_get(fake, &fake->accepted);
	uint64_t before = accepted, calls = 0;
	uint64_t start_ns = kvc_now_ns(), took_ns = 0;
	// A process that does not run for a while has not asked often meanwhile, either.
	while (took_ns < UINT64_C(300000000) ||
	       (accepted - before < 2 && took_ns < UINT64_C(30000000000))) {
		(void)get(reader, "a", &byte);
		calls++;
		took_ns = kvc_now_ns() - start_ns;
		accepted = fake_get(fake, &fake->accepted);
	}
	accepted -= before;
	ok(accepted >= 2 && accepted <= 10, "%llu gets in %llu ms made %llu connections",
	   (unsigned long long)calls, (unsigned long long)(took_ns / 1000000),
	   (unsigned long long)accepted);
	fake_set(fake, hang_up_at_accept, false);
	ok_int(kvc_close(client), KVC_OK, "close");
}

static void test_detached(struct fake *fake)
{
	kvc_reader *reader;
	struct kvc_view view;
	char byte;
	kvc *client = fake_client(fake, &reader, 0);
	fake_put_text(fake, "a", "1");
	ok_int(kvc_begin(reader), KVC_OK, "a section");
	ok_int(kvc_view(reader, "a", 1, &view), KVC_OK, "a view");
	uint64_t attached = fake_get(fake, &fake->attached);
	const struct kvc_attachment *old = reader->attachment;
	fake_detach(fake);
	ok_int(kvc_view(reader, "a", 1, &view), KVC_OK, "detached meanwhile: the section goes on");
	ok_int(kvc_end(reader), KVC_OK, "and ends well");
	ok_u64(fake_get(fake, &fake->attached), attached, "no new attachment so far");
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "the next get attaches anew");
	ok_u64(fake_get(fake, &fake->attached), attached + 1, "once");
	ok(reader->attachment != old, "to another attachment");

	fake_kill(fake);
	fake_detach(fake);
	ok_int(get(reader, "a", &byte), KVC_UNREACHABLE, "detached and nobody there: no reading");
	struct kvs_region_header *header = fake->fixture.region.header;
	kvs_store_release(&header->lifecycle, KVS_REGION_ALIVE);
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_revive(fake, false);

	client = fake_client(fake, &reader, 0);
	fake_put_text(fake, "a", "1");
	ok(get(reader, "a", &byte) == KVC_OK, "a new client");
	kvs_store_release(&fake->fixture.region.header->lifecycle, KVS_REGION_RETIRED);
	fake_kill(fake);
	fake_detach(fake);
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "F: shut down cleanly: read on");
	ok_int(kvc_begin(reader), KVC_OK, "F: sections too");
	ok_int(kvc_end(reader), KVC_OK, "F: end");
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_revive(fake, false);
}

static void test_adopted(struct fake *fake)
{
	kvc_reader *reader;
	char byte;
	kvc *client = fake_client(fake, &reader, 0);
	client->options.connect_timeout_ms = client->options.request_timeout_ms = 1000000;
	fake_put_text(fake, "a", "1");
	ok(get(reader, "a", &byte) == KVC_OK, "before");
	fake_kill(fake);
	fake_set(fake, attach, FAKE_ATTACH_SILENT);
	fake_revive(fake, true);
	uint64_t start_ns = kvc_now_ns();
	bool good = true;
	for (int i = 0; i < 100; i++) {
		good = good && get(reader, "a", &byte) == KVC_OK && byte == '1';
	}
	ok(good, "F: adopted by a kvd that is slow to answer: read on meanwhile");
	ok(kvc_now_ns() - start_ns < UINT64_C(60000000000), "F: without waiting for it");
	const struct kvc_attachment *old = reader->attachment;
	struct kvs_hot *hot = &fake->fixture.region.header->hot;
	uint64_t last_epoch;
	ok(kvc_attachment_honoured(old, &last_epoch), "which holds back what was unlinked");
	kvs_store_release(&hot->oldest_valid, last_epoch);
	ok(kvc_attachment_honoured(old, &last_epoch), "D: until the readers before it");
	kvs_store_release(&hot->oldest_valid, last_epoch + 1);
	ok(!kvc_attachment_honoured(old, &last_epoch), "D: have had their time");
	kvc_conn_drop(&client->link); // that attempt came to nothing
	fake_set(fake, attach, FAKE_ATTACH_OK);
	uint64_t end_ns = kvc_now_ns() + UINT64_C(30000000000);
	while (reader->attachment == old && kvc_now_ns() < end_ns) {
		good = good && get(reader, "a", &byte) == KVC_OK;
	}
	ok(good && reader->attachment != old, "and moves to the new attachment when it is there");
	ok_u64(reader->incarnation, fake->fixture.region.header->hot.incarnation,
	       "of the new incarnation");
	ok_int(kvc_close(client), KVC_OK, "close");
}

// A section that is revoked while it is open is one that began before what kvd revokes up to.
static void test_revoked_gets(struct fake *fake, kvc_reader *reader)
{
	static const size_t sizes[] = { 1, 16, 128, 1000 };
	static const char *const keys[] = { "short", "not so short", "longer than what is quick" };
	unsigned char value[1000], copy[1000];
	unsigned believed = 0;
	memset(value, 'v', sizeof(value));
	for (unsigned i = 0; i < 4 * 3; i++) {
		struct kvc_meta meta = { 0 };
		const char *key = keys[i / 4];
		fake_put(fake, key, value, sizes[i % 4], 0);
		kvs_store_release(&reader->slot->revoked_upto, KVS_SEQ_MAX);
		int status = kvc_get(reader, key, strlen(key), copy, sizeof(copy), &meta);
		believed += status != KVC_OK || (meta.flags & KVC_META_SOCKET) == 0;
		kvs_store_release(&reader->slot->revoked_upto, 0);
	}
	ok_u64(believed, 0, "B: what was copied in a revoked section is asked for again");
}

static void test_sections(struct fake *fake)
{
	kvc_reader *reader, *other;
	struct kvc_view view;
	char byte;
	kvc *client = fake_client(fake, &reader, 0);
	fake_put_text(fake, "a", "1");
	(void)kvc_reader_open(client, &other);
	ok_int(kvc_end(reader), KVC_INVALID, "end without begin");
	ok_int(kvc_view(reader, "a", 1, &view), KVC_INVALID, "view without begin");
	ok_int(kvc_begin(reader), KVC_OK, "begin");
	ok_int(kvc_begin(reader), KVC_OK, "nested");
	ok_int(kvc_view(reader, "a", 1, &view), KVC_OK, "view");
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "a get inside");
	ok_int(kvc_view(reader, "b", 1, &view), KVC_NOT_FOUND, "no such key");
	ok(!view.value, "gives no value");
	ok_int(kvc_end(reader), KVC_OK, "inner end");
	ok_int(kvc_close(client), KVC_BUSY, "close with a view open");
	ok_int(kvc_reader_close(reader), KVC_BUSY, "closing the reader too");
	ok(get(other, "a", &byte) == KVC_OK, "other readers go on");
	ok_int(kvc_end(reader), KVC_OK, "outer end");
	ok((reader->slot->word & KVS_NESTING_MASK) == 0, "the slot is quiet");
	(void)kvc_begin(reader);
	uint64_t open = reader->phase;
	(void)kvc_begin(reader);
	(void)kvc_end(reader);
	ok(reader->phase == open && (open & KVC_PHASE_OPEN || reader->fenced),
	   "the quick ways are open again after an inner section");
	(void)kvc_end(reader);

	ok_int(kvc_begin(reader), KVC_OK, "a section that is held too long");
	ok_int(kvc_view(reader, "a", 1, &view), KVC_OK, "with a view");
	pthread_mutex_lock(&fake->mutex);
	struct kvs_epoch_domain *domain = &fake->fixture.epochs;
	uint64_t stamp = kvs_epoch_stamp(domain);
	(void)kvs_epoch_scan(domain, 1000);
	(void)kvs_epoch_scan(domain, 2000);
	ok(!kvs_epoch_passed(domain, stamp), "D: it holds memory back");
	ok_u64(revoke_all(domain, stamp, 1000000, 1000, 1000), 1, "D: kvd revokes it");
	pthread_mutex_unlock(&fake->mutex);
	ok_int(get(reader, "a", &byte), KVC_REVOKED, "B: a get in it says so");
	ok_int(kvc_end(reader), KVC_REVOKED, "B: its end says so");
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "and the next get is good");
	test_revoked_gets(fake, reader);
	ok_int(kvc_reader_close(other), KVC_OK, "close a reader");
	ok_int(kvc_close(client), KVC_OK, "close");
}

static void test_many_readers(struct fake *fake)
{
	enum { READERS = 100 };
	kvc_reader *first, *readers[READERS];
	char byte;
	kvc *client = fake_client(fake, &first, 0);
	fake_put_text(fake, "a", "1");
	bool good = true, distinct = true;
	for (int i = 0; i < READERS; i++) {
		good = good && kvc_reader_open(client, &readers[i]) == KVC_OK;
		good = good && get(readers[i], "a", &byte) == KVC_OK;
		for (int j = 0; j < i; j++) {
			distinct = distinct && readers[i]->slot != readers[j]->slot;
		}
	}
	ok(good, "100 readers");
	ok(distinct && readers[99]->slot, "each with a slot of its own");
	ok_u64(client->attachment->pages_count, 4, "on four pages");
	const struct kvs_slot *slot = readers[50]->slot;
	(void)kvc_reader_close(readers[50]);
	(void)kvc_reader_open(client, &readers[50]);
	ok(readers[50]->slot == slot, "a slot is used again");
	ok_int(kvc_close(client), KVC_OK, "close closes them all");
}

static void test_damage(struct fake *fake)
{
	kvc_reader *reader;
	char byte;
	kvc *client = fake_client(fake, &reader, 0);
	fake_put_text(fake, "a", "1");
	struct kvs_hit hit;
	pthread_mutex_lock(&fake->mutex);
	(void)fixture_find(&fake->fixture.region.map, "a", 1, &hit);
	uint64_t entry = *hit.slot;
	kvs_store_release(hit.slot, entry & ~KVS_ENTRY_LOCATION_MASK); // points into the header
	pthread_mutex_unlock(&fake->mutex);
	ok_int(get(reader, "a", &byte), KVC_NOT_FOUND, "damage: the socket answers");
	ok_str(kvc_reader_error_text(reader), kvc_strerror(KVC_DAMAGED), "and it is reported");
	fake_kill(fake);
	ok_int(get(reader, "a", &byte), KVC_DAMAGED, "damage, and no socket");
	kvs_store_release(hit.slot, entry);
	ok(get(reader, "a", &byte) == KVC_OK && byte == '1', "mended");
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_revive(fake, false);
}

int main(void)
{
	struct fake fake;
	fake_start(&fake, MEMORY_BYTES);
	test_opening(&fake);
	test_dead(&fake);
	test_back_off(&fake);
	test_detached(&fake);
	test_adopted(&fake);
	test_sections(&fake);
	test_many_readers(&fake);
	test_damage(&fake);
	fake_stop(&fake);
	return tap_done();
}

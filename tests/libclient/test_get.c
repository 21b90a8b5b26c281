// SPDX-License-Identifier: MIT
//
// The copying get: what it returns for every kind of entry, and what it does not do on a hit.
// A: visible at once. B: copies are whole. C: no system call, no allocation.
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)

// Every allocation of the library passes here (linked with --wrap).
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
static __thread uint64_t allocations; // the server thread has its own

void *__wrap_malloc(size_t bytes)
{
	allocations++;
	return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	allocations++;
	return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
	allocations++;
	return __real_realloc(old, bytes);
}

static uint64_t wall_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void test_values(struct fake *fake, kvc_reader *reader)
{
	char buffer[64];
	struct kvc_meta meta;
	fake_put_text(fake, "greeting", "hello");
	ok_int(kvc_get(reader, "greeting", 8, buffer, sizeof(buffer), &meta), KVC_OK, "A: a hit");
	ok(memcmp(buffer, "hello", 5) == 0, "its bytes");
	ok_u64(meta.value_bytes, 5, "its size");
	ok_int(meta.ttl_ms, -1, "no expiry");
	ok_u64(meta.version, 1, "its version");
	ok_u64(meta.time_ms, KVS_TIME_ORIGIN_MS + 1, "its time");
	ok_u64(meta.flags, 0, "not by socket");
	ok_int(kvc_get(reader, "greeting", 8, NULL, 0, &meta), KVC_TRUNCATED, "no buffer at all");
	ok_int(kvc_get(reader, "greeting", 8, buffer, 3, &meta), KVC_TRUNCATED, "a small buffer");
	ok_u64(meta.value_bytes, 5, "the size it would take");
	fake_put_text(fake, "greeting", "hallo");
	ok_int(kvc_get(reader, "greeting", 8, buffer, 5, NULL), KVC_OK, "A: overwritten");
	ok(memcmp(buffer, "hallo", 5) == 0, "the newer bytes");
	ok_int(kvc_get(reader, "greetinG", 8, buffer, 5, NULL), KVC_NOT_FOUND, "no such key");
	fake_put_text(fake, "empty", "");
	ok_int(kvc_get(reader, "empty", 5, NULL, 0, &meta), KVC_OK, "an empty value");
	fake_put_tombstone(fake, "greeting");
	ok_int(kvc_get(reader, "greeting", 8, buffer, 5, NULL), KVC_NOT_FOUND,
	       "A: a tombstone is a miss");
	fake_put_stub(fake, "cold", 10);
	ok_int(kvc_get(reader, "cold", 4, buffer, sizeof(buffer), &meta), KVC_OK,
	       "a value that is only on disk comes by socket");
	ok(memcmp(buffer, "ssssssssss", 10) == 0 && meta.flags == KVC_META_SOCKET, "and says so");
}

// Every length that is copied in its own way, of keys too, into buffers of every size around it:
// the bytes, and not one beyond them.
static void test_lengths(struct fake *fake, kvc_reader *reader)
{
	static char value[300], buffer[320];
	unsigned wrong = 0;
	for (size_t i = 0; i < sizeof(value); i++) {
		value[i] = (char)(i * 7 + 1);
	}
	for (size_t key_bytes = 1; key_bytes <= 20; key_bytes++) {
		for (size_t bytes = 0; bytes <= 260; bytes += bytes < 140 ? 1 : 40) {
			char key[32];
			(void)snprintf(key, sizeof(key), "%.*s", (int)key_bytes,
				       "abcdefghijklmnopqrstuvwxyz");
			fake_put(fake, key, value, bytes, 0);
			for (size_t room = bytes > 2 ? bytes - 2 : 0; room <= bytes + 2; room++) {
				size_t copied = room < bytes ? room : bytes;
				struct kvc_meta meta;
				memset(buffer, '#', sizeof(buffer));
				int status = kvc_get(reader, key, key_bytes, buffer, room, &meta);
				wrong += status != (room < bytes ? KVC_TRUNCATED : KVC_OK);
				wrong += meta.value_bytes != bytes;
				wrong += memcmp(buffer, value, copied) != 0;
				wrong += buffer[copied] != '#';
			}
		}
	}
	ok_u64(wrong, 0, "B: keys of 1 to 20 bytes, values of 0 to 260, rooms around them");
}

static void test_arguments(kvc_reader *reader)
{
	char key[600];
	memset(key, 'k', sizeof(key));
	ok_int(kvc_get(reader, key, 511, NULL, 0, NULL), KVC_NOT_FOUND, "the longest key");
	ok_int(kvc_get(reader, key, 512, NULL, 0, NULL), KVC_TOO_LARGE, "a longer one");
	ok_int(kvc_get(reader, key, 0, NULL, 0, NULL), KVC_INVALID, "none");
	ok_int(kvc_get(reader, NULL, 4, NULL, 0, NULL), KVC_INVALID, "no key");
	ok_int(kvc_get(NULL, key, 4, NULL, 0, NULL), KVC_INVALID, "no reader");
	ok_int(kvc_get(reader, key, 4, NULL, 4, NULL), KVC_INVALID, "no buffer but a size");
	ok_int(kvc_get_alloc(reader, key, 4, NULL, NULL), KVC_INVALID, "nowhere to put it");
}

static void test_alloc(struct fake *fake, kvc_reader *reader)
{
	void *value = &value;
	struct kvc_meta meta;
	static char large[20000];
	memset(large, 'L', sizeof(large));
	fake_put(fake, "large", large, 15000, 0);
	ok_int(kvc_get_alloc(reader, "large", 5, &value, &meta), KVC_OK, "get_alloc");
	ok(meta.value_bytes == 15000 && memcmp(value, large, 15000) == 0 &&
		   ((char *)value)[15000] == '\0',
	   "whole, with a NUL behind it");
	free(value);
	ok_int(kvc_get_alloc(reader, "small", 5, &value, NULL), KVC_NOT_FOUND,
	       "get_alloc of nothing");
	ok(!value, "gives NULL");
	fake_put_stub(fake, "cold2", 17000);
	ok_int(kvc_get_alloc(reader, "cold2", 5, &value, &meta), KVC_OK, "get_alloc by socket");
	ok(meta.value_bytes == 17000 && ((char *)value)[16999] == 's', "whole");
	free(value);
}

static void test_expiry(struct fake *fake, kvc_reader *reader)
{
	struct kvc_meta meta;
	uint64_t now_ms = wall_ms();
	fake_put(fake, "past", "x", 1, now_ms - 1);
	ok_int(kvc_get(reader, "past", 4, NULL, 0, NULL), KVC_NOT_FOUND, "expired");
	fake_put(fake, "past", "x", 1, now_ms - 3600000);
	ok_int(kvc_get(reader, "past", 4, NULL, 0, NULL), KVC_NOT_FOUND, "long ago");
	fake_put(fake, "later", "x", 1, now_ms + 3600000);
	ok_int(kvc_get(reader, "later", 5, NULL, 0, &meta), KVC_TRUNCATED, "not yet expired");
	ok(meta.ttl_ms > 3500000 && meta.ttl_ms <= 3600000 + 20, "with its time left");
	uint64_t expiry_ms = wall_ms() + 30;
	fake_put(fake, "soon", "x", 1, expiry_ms);
	char byte;
	int status;
	bool early = false;
	bool late = false;
	do {
		uint64_t before_ms = wall_ms();
		status = kvc_get(reader, "soon", 4, &byte, 1, NULL);
		late = late || (status == KVC_OK && before_ms >= expiry_ms);
		early = early || (status == KVC_NOT_FOUND && wall_ms() < expiry_ms);
	} while (status == KVC_OK);
	ok(!early, "it never expires early");
	ok(!late, "nor is it seen after its time, to the millisecond");
}

static void test_counters(struct fake *fake, kvc_reader *reader)
{
	const struct kvs_slot *slot = reader->slot;
	uint64_t hits = slot->hits, misses = slot->misses, samples = slot->sample_count;
	char byte;
	fake_put_text(fake, "n", "1");
	for (int i = 0; i < 64000; i++) {
		(void)kvc_get(reader, "n", 1, &byte, 1, NULL);
	}
	(void)kvc_get(reader, "nn", 2, &byte, 1, NULL);
	ok_u64(slot->hits - hits, 64000, "hits are counted");
	ok_u64(slot->misses - misses, 1, "misses too");
	samples = slot->sample_count - samples;
	ok(samples > 900 && samples < 1100, "one in 64 is sampled (%llu of 64000)",
	   (unsigned long long)samples);
	ok_u64(reader->ring->hash[0], kvs_hash(11, "n", 1), "with its hash");
}

// While kvd wishes it every hit leaves its hash, in the order of the gets; wishes are bounded.
static void test_samples(struct fake *fake, kvc_reader *reader)
{
	struct kvs_page_header *header = &fake->pages[0]->page->header;
	const struct kvs_slot *slot = reader->slot;
	char byte, name[8];
	unsigned wrong = 0;
	kvs_store_relaxed(&header->sample_every, 1);
	for (int i = 0; i < 200; i++) {
		(void)kvc_get(reader, "n", 1, &byte, 1, NULL); // the next sample is at most so far
	}
	for (unsigned i = 0; i < 300; i++) {
		(void)snprintf(name, sizeof(name), "s%u", i % 3);
		fake_put_text(fake, name, "1");
		uint64_t before = slot->sample_count;
		(void)kvc_get(reader, name, strlen(name), &byte, 1, NULL);
		wrong += slot->sample_count != before + 1 ||
			 reader->ring->hash[before % KVS_RING_SAMPLES] !=
				 kvs_hash(11, name, strlen(name));
	}
	ok_u64(wrong, 0, "every hit is sampled while kvd wishes it");
	static const uint64_t wishes[] = { 0, 64, 65, UINT64_MAX };
	for (unsigned i = 0; i < 4; i++) {
		kvs_store_relaxed(&header->sample_every, wishes[i]);
		uint64_t before = slot->sample_count;
		for (int j = 0; j < 6400; j++) {
			(void)kvc_get(reader, "n", 1, &byte, 1, NULL);
		}
		wrong += slot->sample_count - before < 80 || slot->sample_count - before > 125;
	}
	ok_u64(wrong, 0, "no wish makes it rarer than one in 64");
	kvs_store_relaxed(&header->sample_every, 0);
}

// A kvd that knows no rings, whatever else it has behind the page: nothing is left anywhere, and
// nothing behind the page is touched.
static void test_ringless(bool ringless)
{
	struct fake fake;
	kvc_reader *reader;
	char byte;
	fake_start(&fake, MEMORY_BYTES);
	fake.ringless = ringless;
	fake.rings_unsaid = !ringless;
	kvc *client = fake_client(&fake, &reader, 0);
	fake_put_text(&fake, "n", "1");
	for (int i = 0; i < 1000; i++) {
		(void)kvc_get(reader, "n", 1, &byte, 1, NULL);
	}
	ok(reader->ring == NULL && reader->slot->hits == 1000 && reader->slot->sample_count == 0,
	   "of a page without rings none is sampled");
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_stop(&fake);
}

static void test_no_allocation(kvc_reader *reader)
{
	char buffer[8];
	struct kvc_view view;
	uint64_t before = allocations;
	for (int i = 0; i < 1000; i++) {
		(void)kvc_get(reader, "n", 1, buffer, sizeof(buffer), NULL);
		(void)kvc_begin(reader);
		(void)kvc_view(reader, "n", 1, &view);
		(void)kvc_end(reader);
	}
	ok_u64(allocations - before, 0, "C1: hits allocate nothing");
	void *value = NULL;
	ok_int(kvc_get_alloc(reader, "n", 1, &value, NULL), KVC_OK, "get_alloc");
	free(value);
	ok(allocations > before, "does, so the counter counts");
}

// A sanitizer or valgrind makes system calls of its own.
static bool under_supervision(void)
{
	char line[512];
#ifdef KVS_SANITIZED
	bool found = true;
#else
	bool found = false;
#endif
	FILE *maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof(line), maps)) {
		found = found || strstr(line, "vgpreload") || strstr(line, "valgrind");
	}
	if (maps) {
		fclose(maps);
	}
	return found;
}

// In a child that may do nothing but read, write and exit: the kernel kills it for anything else.
static int strict_child(struct fake *fake)
{
	kvc_reader *reader;
	char buffer[8];
	struct kvc_meta meta;
	struct kvc_view view;
	struct kvc_token token;
	int bad = 0;
	if (!fake_client(fake, &reader, 0) ||
	    kvc_get(reader, "n", 1, buffer, sizeof(buffer), NULL) != KVC_OK) {
		return 3;
	}
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) {
		return 4;
	}
	for (int i = 0; i < 10000; i++) {
		bad += kvc_get(reader, "n", 1, buffer, sizeof(buffer), &meta) != KVC_OK;
		bad += kvc_get(reader, "nn", 2, buffer, sizeof(buffer), NULL) != KVC_NOT_FOUND;
		bad += kvc_get(reader, "later", 5, buffer, sizeof(buffer), NULL) != KVC_OK;
		bad += kvc_get_token(reader, "later", 5, buffer, sizeof(buffer), NULL, &token) !=
		       KVC_OK;
		bad += kvc_check(reader, &token) != KVC_OK;
		bad += kvc_begin(reader) != KVC_OK;
		bad += kvc_view(reader, "n", 1, &view) != KVC_OK;
		bad += kvc_end(reader) != KVC_OK;
	}
	return bad != 0;
}

static void test_no_system_call(struct fake *fake)
{
	if (under_supervision()) {
		tap_skip("C: no system call (a sanitizer or valgrind makes its own)");
		return;
	}
	pid_t child = fork();
	if (child == 0) {
		syscall(SYS_exit, strict_child(fake));
	}
	int status = 0;
	(void)waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 4) {
		tap_skip("C: no system call (no seccomp here)");
		return;
	}
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0,
	   "C1: hits, misses and checks make no system call");
}

static void test_growth(struct fake *fake, kvc_reader *reader)
{
	char key[16], buffer[16];
	int bad = 0;
	fake->fixture.step_after_write = true;
	uint64_t before = fake->fixture.region.header->ready[KVS_RANGE_LOG];
	for (int i = 0; i < 20000; i++) {
		(void)snprintf(key, sizeof(key), "grow%d", i);
		pthread_mutex_lock(&fake->mutex);
		bad += fixture_set(&fake->fixture, key, strlen(key), key, strlen(key)) == 0;
		pthread_mutex_unlock(&fake->mutex);
		bad += kvc_get(reader, key, strlen(key), buffer, sizeof(buffer), NULL) != KVC_OK;
	}
	ok_int(bad, 0, "A: each of 20000 new keys is found at once, in memory mapped as it comes");
	ok(fake->fixture.region.header->ready[KVS_RANGE_LOG] > before, "the region did grow");
}

int main(void)
{
	struct fake fake;
	kvc_reader *reader;
	fake_start(&fake, MEMORY_BYTES);
	kvc *client = fake_client(&fake, &reader, 0);
	ok_int(kvc_is_mapped(client), 1, "mapped");
	test_values(&fake, reader);
	test_lengths(&fake, reader);
	test_arguments(reader);
	test_alloc(&fake, reader);
	test_expiry(&fake, reader);
	test_counters(&fake, reader);
	test_samples(&fake, reader);
	test_no_allocation(reader);
	test_no_system_call(&fake);
	test_growth(&fake, reader);
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_stop(&fake);
	test_ringless(true);
	test_ringless(false);
	return tap_done();
}

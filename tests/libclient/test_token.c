// SPDX-License-Identifier: MIT
//
// Tokens: KVC_OK is never said of what has changed, whatever became of the table and of the memory
// behind it: rewritten, removed, expired, flushed, grown, moved by the cleaner, and given to
// another record at the very same place, by one thread in every order and by two at once. And what
// has not changed is found so, or nobody would keep a token.
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/record.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (2u << 20)
#define KEYS 24u
#define TOKENS 2048u
#define LONGER 100u // times the writes: so long the other thread may take to come to its checks
#ifdef KVS_SANITIZED
#define STEPS 60000u
#define WRITES 15000u
#else
#define STEPS 400000u
#define WRITES 60000u
#endif

// What the opaque words are; see libclient/token.c.
enum { WORD_OFFSET = 3, WORD_ENTRY = 5 };

// Under valgrind a fraction has to do.
static unsigned slower(void)
{
	return getenv("KVD_TEST_EMULATED") ? 20 : 1;
}

static bool take(kvc_reader *reader, const char *key, struct kvc_token *token)
{
	struct kvc_meta meta;
	char buffer[8];
	int status = kvc_get_token(reader, key, strlen(key), buffer, sizeof(buffer), &meta, token);
	return status == KVC_OK || status == KVC_TRUNCATED;
}

static void test_one(struct fake *fake, kvc *client, kvc_reader *reader)
{
	struct kvc_token token, other, nothing = { { 0 } };
	struct kvc_view view;
	char buffer[4];
	struct kvc_meta meta;
	fake_put_text(fake, "k", "one");
	ok_int(kvc_get_token(reader, "k", 1, buffer, 4, &meta, &token), KVC_OK, "get with a token");
	ok(meta.value_bytes == 3 && memcmp(buffer, "one", 3) == 0, "the value");
	ok_int(kvc_check(reader, &token), KVC_OK, "nothing has changed");
	fake_put_text(fake, "other", "x");
	ok_int(kvc_check(reader, &token), KVC_OK, "another key has");
	pthread_mutex_lock(&fake->mutex);
	(void)fixture_reclaim(&fake->fixture);
	pthread_mutex_unlock(&fake->mutex);
	ok_int(kvc_check(reader, &token), KVC_OK, "a scan of the epochs changes nothing");
	ok_int(kvc_check(reader, &token), KVC_OK, "nor the next time");
	other = token;
	fake_put_text(fake, "k", "one");
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "written again, with the same value");
	ok_int(kvc_check(reader, &other), KVC_CHANGED, "so says a copy");
	(void)kvc_begin(reader);
	ok_int(kvc_view_token(reader, "k", 1, &view, &token), KVC_OK, "view with a token");
	ok_int(kvc_check(reader, &token), KVC_OK, "checked inside the section");
	fake_put_text(fake, "k", "two");
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "which sees changes too");
	ok_int(kvc_end(reader), KVC_OK, "end");
	(void)take(reader, "k", &token);
	fake_put_tombstone(fake, "k");
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "removed");
	ok_int(kvc_get_token(reader, "k", 1, buffer, 4, NULL, &token), KVC_NOT_FOUND, "absent");
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "absence has no token");
	ok_int(kvc_check(reader, &nothing), KVC_CHANGED, "zeros stand for nothing");
	fake_put_stub(fake, "stub", 10);
	ok(take(reader, "stub", &token), "a value that only the socket has");
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "has no token");
	ok_int(kvc_check(NULL, &token), KVC_INVALID, "no reader");
	ok_int(kvc_get_token(reader, "k", 1, NULL, 0, NULL, NULL), KVC_INVALID, "no token");
	kvc_reader *second;
	fake_put_text(fake, "k", "three");
	(void)take(reader, "k", &token);
	(void)kvc_reader_open(client, &second);
	ok_int(kvc_check(second, &token), KVC_OK, "another reader can check it");
	fake_put_text(fake, "k", "four");
	ok_int(kvc_check(second, &token), KVC_CHANGED, "and sees the change");
	(void)kvc_reader_close(second);
}

static void test_expiry(struct fake *fake, kvc_reader *reader)
{
	struct timespec now;
	struct kvc_token token;
	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	fake_put(fake, "late", "x", 1, now_ms + 60000);
	ok(take(reader, "late", &token), "a value that expires in a minute");
	ok_int(kvc_check(reader, &token), KVC_OK, "has not");
	bool taken = false; // in its time, on a machine that may be slow
	uint64_t soon_ms = 100;
	for (; !taken && soon_ms < 60000; soon_ms *= 2) {
		clock_gettime(CLOCK_REALTIME, &now);
		now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
		fake_put(fake, "soon", "x", 1, now_ms + soon_ms);
		taken = take(reader, "soon", &token);
	}
	ok(taken, "one that expires soon");
	int status;
	do { // the last check is one behind that time
		clock_gettime(CLOCK_REALTIME, &now);
		status = kvc_check(reader, &token);
	} while (status == KVC_OK &&
		 (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 < now_ms + soon_ms);
	ok_int(status, KVC_CHANGED, "does, without a write");
}

// A kvd that comes back: with the same keys at the same places of another region, and with the same
// region.
static void test_lives(struct fake *fake, kvc_reader *reader)
{
	struct kvc_token old, token;
	fake_kill(fake);
	fake_revive(fake, false);
	fake_put_text(fake, "k", "one");
	(void)take(reader, "k", &old);
	ok_int(kvc_check(reader, &old), KVC_OK, "a new region");
	fake_kill(fake);
	ok_int(kvc_check(reader, &old), KVC_OK, "kvd is dead: what it left has not changed");
	fake_revive(fake, false);
	fake_put_text(fake, "k", "two");
	ok_int(kvc_check(reader, &old), KVC_CHANGED, "another region, not attached yet");
	(void)take(reader, "k", &token);
	ok(old.opaque[WORD_OFFSET] == token.opaque[WORD_OFFSET] &&
		   old.opaque[WORD_ENTRY] == token.opaque[WORD_ENTRY],
	   "the same entry at the same place");
	ok_int(kvc_check(reader, &old), KVC_CHANGED, "is another one");
	ok_int(kvc_check(reader, &token), KVC_OK, "the new one holds");
	fake_kill(fake);
	fake_revive(fake, true);
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "the region is adopted");
	pid_t child = fork();
	if (child == 0) {
		_exit(kvc_check(reader, &token) == KVC_CHANGED ? 0 : 1);
	}
	int status = -1;
	ok(waitpid(child, &status, 0) == child && status == 0, "a child has to attach first");
}

/// What one thread does to the region, and what it knows.
struct world {
	struct fake *fake;
	uint64_t random;
	uint64_t version[KEYS]; // present one, 0 = absent; stored when it is visible
	unsigned changes, failed, flushes, reseeds, extras;
};

static size_t key_of(char *key, const char *word, unsigned number)
{
	return (size_t)snprintf(key, 24, "%s%u", word, number);
}

// The cleaner: until a few segments are free.
static void make_room(struct world *world)
{
	struct kvs_log *log = &world->fake->fixture.log;
	for (unsigned tries = 0; kvs_log_segments_free(log) < 4 && tries < 1000; tries++) {
		uint32_t victim = KVS_SEGMENT_NONE;
		for (uint32_t i = 0; i < log->touched_count; i++) {
			if (kvs_log_cleanable(log, i, UINT64_MAX) &&
			    (victim == KVS_SEGMENT_NONE ||
			     log->segments[i].live_bytes < log->segments[victim].live_bytes)) {
				victim = i;
			}
		}
		if (victim != KVS_SEGMENT_NONE) {
			(void)fixture_clean(&world->fake->fixture, victim);
		}
		(void)fixture_reclaim(&world->fake->fixture);
		(void)sched_yield(); // the other thread may stand in a section
	}
}

static void flush(struct world *world)
{
	struct fixture *f = &world->fake->fixture;
	if (!kvs_table_switch_side(&f->table, NULL, NULL)) {
		return; // the other side is not empty yet
	}
	for (unsigned i = 0; i < KEYS; i++) {
		kvs_store_release(&world->version[i], UINT64_MAX);
	}
	for (uint32_t i = 0; i < f->log.touched_count; i++) {
		f->log.segments[i].live_bytes = 0;
	}
	world->flushes++;
}

// One change of the region. UINT64_MAX stands for absent: above every version there was.
// The table is rebuilt under another hash key: no token outlives that.
static void reseed(struct world *world)
{
	struct kvs_table *table = &world->fake->fixture.table;
	const uint64_t hash_key[2] = { tap_random(&world->random), 0 };
	if (!kvs_table_reseed_begin(table, hash_key)) {
		return; // the other side is not empty yet
	}
	while (kvs_table_reseed_step(table, 100) == 0) {
	}
	kvs_table_reseed_publish(table);
	world->reseeds++;
}

static void change(struct world *world)
{
	static const char value[6000]; // large: few places to choose from
	struct fixture *f = &world->fake->fixture;
	char key[24];
	uint64_t dice = tap_random(&world->random) % 10000;
	unsigned number = (unsigned)(tap_random(&world->random) % KEYS);
	number = number >= KEYS / 2 ? 0 : number; // one of them changes most of all
	size_t bytes = key_of(key, "key", number);
	pthread_mutex_lock(&world->fake->mutex);
	make_room(world);
	if (dice < 7000) {
		uint64_t seq = fixture_set(f, key, bytes, value, sizeof(value));
		world->failed += seq == 0;
		if (seq != 0) {
			kvs_store_release(&world->version[number], seq); // partner: test_two()
		}
	} else if (dice < 7500) {
		(void)fixture_remove(f, key, bytes);
		kvs_store_release(&world->version[number], UINT64_MAX);
	} else if (dice < 9000) {
		// Others come and go, so that the table grows and shrinks.
		bytes = key_of(key, "extra", world->extras++ / 2 % 2000);
		bool grow = world->extras / 4000 % 2 == 0;
		if (grow) {
			world->failed += fixture_set(f, key, bytes, "", 0) == 0;
		} else {
			(void)fixture_remove(f, key, bytes);
		}
	} else if (dice < 9996) {
		(void)fixture_reclaim(f);
	} else if (dice < 9998) {
		reseed(world);
	} else {
		flush(world);
	}
	pthread_mutex_unlock(&world->fake->mutex);
}

static void begin_world(struct world *world, struct fake *fake, uint64_t seed)
{
	*world = (struct world){ .fake = fake, .random = seed };
	fake->fixture.step_after_write = true;
	fake->fixture.table.buckets_min = 16; // so that it grows early
	for (unsigned i = 0; i < KEYS; i++) {
		world->version[i] = UINT64_MAX;
	}
}

// Thousands of tokens of all ages are held against what is known.
static void test_every_order(struct fake *fake, kvc_reader *reader, uint64_t seed)
{
	static struct {
		struct kvc_token token;
		uint64_t version;
		unsigned number;
	} held[TOKENS];
	struct world world;
	unsigned wrong = 0, kept = 0, renamed = 0, changed = 0, needless = 0, youngest = 0;
	begin_world(&world, fake, seed);
	for (unsigned i = 0; i < STEPS / slower(); i++) {
		// Every other one is the youngest: those are the ones that hold.
		unsigned at = (unsigned)(tap_random(&world.random) % TOKENS);
		at = i % 2 ? at : youngest;
		change(&world);
		uint64_t present = world.version[held[at].number];
		if (held[at].version != 0) {
			uint64_t entry;
			int status = kvc_check(reader, &held[at].token);
			memcpy(&entry,
			       fake->fixture.region.base + held[at].token.opaque[WORD_OFFSET],
			       sizeof(entry));
			bool same = held[at].version == present;
			wrong += status == KVC_OK && !same;
			kept += status == KVC_OK;
			needless += status == KVC_CHANGED && same;
			changed += status == KVC_CHANGED && !same;
			renamed += !same && entry == held[at].token.opaque[WORD_ENTRY];
		}
		if (i % 3 == 0) {
			char key[24];
			unsigned number = (unsigned)(tap_random(&world.random) % KEYS);
			(void)key_of(key, "key", number);
			held[at].number = number;
			youngest = at;
			held[at].version =
				take(reader, key, &held[at].token) ? world.version[number] : 0;
		}
	}
	ok_u64(wrong, 0, "of %u tokens none is believed that should not be", changed);
	ok(renamed > 10 || slower() > 1,
	   "%u times the same word stood at the same place for another record", renamed);
	ok(kept > 100, "%u are believed, %u needlessly not", kept, needless);
	ok(world.failed == 0 && world.flushes > 1 && world.reseeds > 1,
	   "%u flushes, %u changes of the hash key, every write went through", world.flushes,
	   world.reseeds);
}

static uint64_t stop;
static uint64_t enough; // release by the one that holds tokens, acquire by the one that writes

static void *write_on(void *argument)
{
	struct world *world = argument;
	const unsigned writes = WRITES / slower();
	for (unsigned i = 0; i < writes || (!kvs_load_acquire(&enough) && i / LONGER < writes);
	     i++) {
		change(world);
		world->changes++;
	}
	kvs_store_release(&stop, 1);
	return NULL;
}

// One writes, the other holds tokens: never is one believed that is older than what was visible
// before the check.
static void test_two(struct fake *fake, kvc_reader *reader, uint64_t seed)
{
	static struct kvc_token token[KEYS];
	uint64_t version[KEYS] = { 0 };
	struct world world;
	pthread_t writer;
	unsigned wrong = 0, kept = 0, changed = 0;
	begin_world(&world, fake, seed);
	if (pthread_create(&writer, NULL, write_on, &world) != 0) {
		printf("Bail out! no thread\n");
		exit(99);
	}
	for (unsigned i = 0; kvs_load_acquire(&stop) == 0; i++) {
		char key[24];
		unsigned number = i % 3 ? 0 : i % KEYS;
		uint64_t floor = kvs_load_acquire(&world.version[number]);
		int status = kvc_check(reader, &token[number]);
		wrong += status == KVC_OK && version[number] < floor && floor != UINT64_MAX;
		kept += status == KVC_OK;
		changed += status == KVC_CHANGED;
		if (kept > 0 && changed > KEYS) {
			kvs_store_release(&enough, 1); // partner: the load in write_on()
		}
		if (status == KVC_CHANGED) {
			struct kvc_meta meta = { .version = 0 };
			(void)key_of(key, "key", number);
			(void)kvc_get_token(reader, key, strlen(key), NULL, 0, &meta,
					    &token[number]);
			version[number] = meta.version;
		}
	}
	pthread_join(writer, NULL);
	ok_u64(wrong, 0, "beside a writer: %u believed, %u not, none wrongly", kept, changed);
	ok(kept > 0 && changed > KEYS && world.failed < world.changes / 2,
	   "both went on; %u of %u changes found no room", world.failed, world.changes);
}

int main(void)
{
	struct fake fake;
	kvc_reader *reader;
	uint64_t seed = tap_seed(1234);
	fake_start(&fake, MEMORY_BYTES);
	kvc *client = fake_client(&fake, &reader, 0);
	test_one(&fake, client, reader);
	test_expiry(&fake, reader);
	test_lives(&fake, reader);
	fake_kill(&fake);
	fake_revive(&fake, false);
	test_every_order(&fake, reader, seed);
	fake_kill(&fake);
	fake_revive(&fake, false);
	test_two(&fake, reader, seed + 1);
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_stop(&fake);
	return tap_done();
}

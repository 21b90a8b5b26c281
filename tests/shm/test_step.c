// SPDX-License-Identifier: MIT
//
// The stepping of step.h itself: from store to store a test has to see what it sees from
// instruction to instruction. A child changes memory in every way there is, once stepped the one
// way and once the other, and the states that its parent sees must be the same ones in that order.
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shm/crc32c.h"
#include "tests/shm/step.h"
#include "tests/tap/tap.h"

#define PAGE ((size_t)sysconf(_SC_PAGESIZE))
#define WATCHED_PAGES 3u
#define STATES_MAX 1000u

struct script {
	struct step_watch watch;
	int file; // some bytes to be read
	bool crash;
	volatile unsigned char *nothing; // NULL
	volatile uint32_t own;		 // not watched
};

struct trace {
	uint32_t states[STATES_MAX];
	unsigned count;
	uint64_t stops;
	enum step_state end;
};

static void copy_string(unsigned char *to, const unsigned char *from, size_t bytes)
{
#if defined(__x86_64__)
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
#else
	memcpy(to, from, bytes);
#endif
}

static void store_words(struct script *s, unsigned char *at)
{
	volatile uint64_t *words = (volatile uint64_t *)(void *)at;
	volatile uint32_t *across = (volatile uint32_t *)(void *)(at + PAGE - 2);
	words[0] = 1;
	words[0] = 1; // no change
	at[9] = 3;
	*across = 0x01020304;
	for (unsigned i = 0; i < 40; i++) {
		s->own += i;
		words[2 + i % 4] += i;
	}
	uint64_t expected = 77;
	(void)__atomic_compare_exchange_n(&words[0], &expected, 5, false, __ATOMIC_SEQ_CST,
					  __ATOMIC_SEQ_CST);
	(void)__atomic_fetch_add(&words[0], 6, __ATOMIC_SEQ_CST);
}

static void child(void *context)
{
	struct script *s = context;
	static unsigned char bytes[3000];
	unsigned char *at = s->watch.at;
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = (unsigned char)(i * 7 + 1);
	}
	step_mark();
	store_words(s, at);
	copy_string(at + 100, bytes, 13);
	copy_string(at + PAGE - 5, bytes, 10);
	copy_string(at + 200, bytes, 1);
	struct iovec parts[2] = { { at + 300, 50 }, { at + 2 * PAGE - 20, 40 } };
	if (preadv(s->file, parts, 2, 0) != 90 || preadv(-1, parts, 2, 0) != -1) {
		_exit(1);
	}
	memcpy(at + 500, bytes, 700);
	memcpy(at + PAGE, bytes, sizeof(bytes));
	memset(at + PAGE + 50, 0, 90);
	if (s->crash) {
		*s->nothing = 1;
	}
	step_mark(); // one more on the way
	at[0]++;
}

static enum step_state from_instruction(pid_t pid, struct step_watch *watch)
{
	(void)watch;
	return step_one(pid);
}

static void follow(struct script *s, enum step_state (*step)(pid_t, struct step_watch *),
		   struct trace *trace)
{
	size_t bytes = WATCHED_PAGES * PAGE;
	unsigned char *shadow = calloc(1, bytes);
	memset(trace, 0, sizeof(*trace));
	memset(s->watch.at, 0, bytes);
	pid_t pid = step_start(child, s);
	while ((trace->end = step(pid, &s->watch)) == STEP_STOPPED) {
		trace->stops++;
		if (memcmp(shadow, s->watch.at, bytes) != 0 && trace->count < STATES_MAX) {
			memcpy(shadow, s->watch.at, bytes);
			trace->states[trace->count++] = kvs_crc32c(0, shadow, bytes);
		}
	}
	free(shadow);
}

#define FOLLOWED 1500u

struct followed {
	struct script *script;
	uint32_t states[FOLLOWED + 1];
	unsigned count;
};

static uint32_t state_of(const struct script *s)
{
	return kvs_crc32c(0, s->watch.at, s->watch.bytes);
}

static bool note(void *context)
{
	struct followed *f = context;
	f->states[f->count] = state_of(f->script);
	return f->count++ < FOLLOWED;
}

// Brought to a place on its path at once a child has done what one has that was stepped there.
static void test_path(struct script *s)
{
	static struct step_path path;
	static struct followed f;
	unsigned wrong = 0;
	bool there;
	f.script = s;
	memset(s->watch.at, 0, s->watch.bytes);
	pid_t pid = step_start(child, s);
	enum step_state followed = step_follow(pid, &path, note, &f);
	ok(followed == STEP_STOPPED && path.steps == FOLLOWED, "%u instructions are followed",
	   path.steps);
	step_kill(pid);
	for (unsigned i = 0; i <= FOLLOWED;
	     i += i < 600 ? 1 : 13) { // a string store among the first
		memset(s->watch.at, 0, s->watch.bytes);
		pid = step_start(child, s);
		enum step_state state = step_to(pid, &path, i, &there);
		wrong += state != STEP_STOPPED || !there || state_of(s) != f.states[i];
		step_kill(pid);
	}
	ok_u64(wrong, 0, "a child is brought to each of them at once");
	path.at[FOLLOWED] = (uintptr_t)test_path;
	pid = step_start(child, s);
	ok(step_to(pid, &path, FOLLOWED, &there) == STEP_STOPPED && !there,
	   "one that takes another way stops at the next mark");
	ok(step_one(pid) == STEP_STOPPED && step_continue(pid) == STEP_ENDED, "and goes on");
}

int main(void)
{
	const char *why;
	static const unsigned char bytes[90] = { 1, 2, 3, [60] = 4 };
	if (!step_supported(&why)) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	static struct trace all, stores;
	struct script *s = step_shared(sizeof(*s));
	s->watch = (struct step_watch){ .at = step_shared(WATCHED_PAGES * PAGE),
					.bytes = WATCHED_PAGES * PAGE };
	s->file = memfd_create("bytes", MFD_CLOEXEC);
	if (s->file < 0 || pwrite(s->file, bytes, sizeof(bytes), 0) != sizeof(bytes)) {
		printf("Bail out! no file\n");
		return 99;
	}
	follow(s, from_instruction, &all);
	follow(s, step_store, &stores);
	tap_diag("%u states, %" PRIu64 " instructions, %" PRIu64 " stores and system calls",
		 all.count, all.stops, stores.stops);
	ok(all.end == STEP_ENDED && stores.end == STEP_ENDED, "the child ran to its end");
	ok(all.count > 100 && all.count < STATES_MAX, "its memory was seen to change");
	ok_u64(stores.count, all.count, "as often from store to store");
	ok(memcmp(all.states, stores.states, sizeof(all.states)) == 0, "in the same way");
#if defined(__x86_64__)
	ok(stores.stops < all.stops / 2, "in fewer stops");
#endif
#if defined(__x86_64__)
	test_path(s);
#endif
	s->crash = true;
	follow(s, step_store, &stores);
	ok(stores.end == STEP_CRASHED, "a fault elsewhere is a crash");
	close(s->file);
	return tap_done();
}

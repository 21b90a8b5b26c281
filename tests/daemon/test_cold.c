// SPDX-License-Identifier: MIT
//
// Values on their way from the store: many that want one version share one reading, a wait has all
// that it wants or holds nothing (G), what becomes of a reading is told to who waits for it, and
// nothing is kept for who does not.
#include "tests/daemon/cold_fixture.h"

static void test_shared(void)
{
	unsigned told[3] = { 0 };
	start();
	struct cold_wait *a = wait_for(&told[0], 1, 1);
	struct cold_wait *b = wait_for(&told[1], 1, 1);
	struct cold_wait *c = wait_for(&told[2], 2, 1);
	cold_turn(cold, now_ns);
	ok(counters[KVS_COUNTER_cold_loads] == 2 && counters[KVS_COUNTER_cold_loads_shared] == 1 &&
		   counters[KVS_COUNTER_cold_gets] == 3 && counters[KVS_COUNTER_cold_waits] == 3,
	   "two that want one version share a reading");
	disk.result[2] = STORE_DAMAGED;
	let_read(2);
	ok(told[0] == 1 && told[1] == 1 && told[2] == 1, "all of them are told");
	const unsigned char *value = ask(a, 1);
	ok(is_value(value, 1) && ask(b, 1) == value, "A: the same bytes");
	ok(cold_wait_parcel(a, value + 5) != NULL &&
		   cold_wait_parcel(a, value + VALUE_BYTES) == NULL,
	   "which stand in a buffer");
	ok(ask(c, 2) == NULL && says(c, "DAMAGED the value of 'key'"),
	   "G: what cannot be read is an error that names it");
	ok_u64(counters[KVS_COUNTER_cold_load_errors], 1, "and counts");
	ok(writer.promoted == 1 && counters[KVS_COUNTER_cold_promotions] == 1, "one is put back");
	cold_wait_drop(a);
	ok(is_value(ask(b, 1), 1), "it stays for who still has it");
	cold_wait_drop(b);
	cold_wait_drop(c);
	stop("shared");
}

// Eight values fit.
static void test_line(void)
{
	unsigned told[3] = { 0 };
	start();
	struct cold_wait *a = wait_for(&told[0], 1, 6);
	struct cold_wait *b = wait_for(&told[1], 5, 5); // two of them a has, too
	struct cold_wait *c = wait_for(&told[2], 20, 1);
	ok_u64(counters[KVS_COUNTER_cold_loads], 6, "G: who finds no room for all holds nothing");
	let_read(6);
	ok(told[0] == 1 && told[1] == 0 && told[2] == 0, "nor does who came behind him go first");
	ok_u64(cold->bytes, 6 * VALUE_BYTES, "what stands in buffers is bounded");
	cold_wait_drop(a);
	ok_u64(cold_next_ns(cold), 0, "with room it is his turn");
	cold_turn(cold, now_ns);
	ok_u64(counters[KVS_COUNTER_cold_loads], 12, "and that of the next");
	let_read(6);
	ok(told[1] == 1 && told[2] == 1, "both get theirs");
	ok(is_value(ask(b, 5), 5) && is_value(ask(b, 9), 9), "A: each value");
	// What it held before is let go of as it has to stand in line for more.
	for (unsigned i = 30; i < 33; i++) {
		(void)ask(b, i);
	}
	cold_wait_begin(b);
	ok(cold->bytes <= 2 * VALUE_BYTES && told[1] == 1, "G: who wants more keeps nothing");
	cold_wait_drop(c);
	cold_turn(cold, now_ns);
	let_read(8);
	ok(told[1] == 2 && is_value(ask(b, 5), 5) && is_value(ask(b, 32), 32), "until all fit");
	cold_wait_drop(b);
	stop("in line");
}

static void test_too_much(void)
{
	unsigned told = 0;
	start();
	struct cold_wait *wait = cold_wait_create(cold, &told);
	(void)ask_bytes(wait, 1, 9000);
	ok(says(wait, ""), "one that is larger than all buffers may come");
	(void)ask(wait, 2);
	ok(says(wait, "ERR the values that this needs"), "G: two that do not fit never will");
	cold_wait_drop(wait);
	wait = cold_wait_create(cold, &told);
	for (unsigned i = 0; i < 40000; i++) {
		(void)ask_bytes(wait, VERSIONS + i, 0);
		if (i == 2000) {
			ok(wait->count == 1024 && says(wait, ""), "a thousand at a time");
		}
		wait->fresh = i < 2000 ? wait->fresh : 0; // as if it had waited
	}
	ok(wait->count == 16384 && says(wait, "ERR more than 16384 values"), "G: nor so many");
	cold_wait_drop(wait);
	stop("too much");
}

static void test_late(void)
{
	unsigned told = 0;
	start();
	struct cold_wait *wait = wait_for(&told, 1, 1);
	await_begun(1);
	ok_u64(cold_next_ns(cold), now_ns + 100 * MS, "a wait has an end");
	now_ns += 100 * MS;
	cold_turn(cold, now_ns);
	ok(told == 1 && ask(wait, 1) == NULL && says(wait, "TRYAGAIN"), "G: which is an error");
	cold_wait_drop(wait);
	ok_u64(cold->loads.count, 1, "what is being read goes on");
	let_read(1);
	ok_u64(writer.promoted, 0, "and is not put back for nobody");
	stop("late");
}

// Five are wanted, four threads read.
static void test_unwanted(void)
{
	unsigned told[5] = { 0 };
	struct cold_wait *wait[5];
	start();
	for (unsigned i = 0; i < 5; i++) {
		wait[i] = wait_for(&told[i], 1 + i, 1);
	}
	await_begun(COLD_THREADS);
	for (unsigned i = 0; i < 5; i++) {
		cold_wait_drop(wait[i]);
	}
	ok_u64(cold->loads.count, COLD_THREADS, "what nobody has begun is forgotten at once");
	let_read(COLD_THREADS);
	ok(disk.begun == COLD_THREADS && told[4] == 0, "and never read");
	stop("unwanted");
}

static void test_gone(void)
{
	unsigned told = 0;
	start();
	disk.result[1] = STORE_READ_GONE;
	struct cold_wait *wait = wait_for(&told, 1, 1);
	await_begun(1);
	writer.place = 90; // compaction was faster
	let_read(1);
	await_begun(2);
	ok(disk.last_place == 90 && told == 0, "what was moved is read at its new place, at once");
	let_read(1); // nothing is there either
	now_ns += MS;
	cold_turn(cold, now_ns);
	await_begun(3);
	disk.result[1] = STORE_READ_SHUT;
	let_read(1);
	ok_u64(told, 0, "also while the store cannot be read");
	now_ns += MS;
	cold_turn(cold, now_ns);
	await_begun(4);
	disk.result[1] = STORE_OK;
	kvd.config.latency_ms = 2;
	let_read(1);
	ok(told == 1 && is_value(ask(wait, 1), 1), "A: until it is there");
	ok_u64(slow_ms, 2, "LATENCY is told how long that took");
	cold_wait_drop(wait);
	disk.result[2] = STORE_READ_GONE;
	wait = wait_for(&told, 2, 1);
	await_begun(5);
	writer.has_stub = false;
	let_read(1);
	ok(told == 2 && counters[KVS_COUNTER_cold_load_errors] == 0,
	   "what was replaced meanwhile is asked for anew, and no error");
	cold_wait_drop(wait);
	disk.result[3] = STORE_NO_MEMORY;
	wait = wait_for(&told, 3, 1);
	now_ns += MS;
	let_read(1);
	ok(told == 3 && slow_ms == 2 && ask(wait, 3) == NULL && says(wait, "OOM"),
	   "G: memory may be short");
	cold_wait_drop(wait);
	stop("gone");
}

// A large value is put back in slices: nobody waits for that.
static void test_slices(void)
{
	unsigned told[2] = { 0 };
	start();
	writer.slices = 3;
	struct cold_wait *a = wait_for(&told[0], 1, 1);
	let_read(1);
	ok(told[0] == 1 && is_value(ask(a, 1), 1), "who waits has it before it is back");
	cold_wait_drop(a);
	ok(writer.promoted == 0 && cold_next_ns(cold) == 0, "the rest comes in the next turns");
	ok_u64(cold->loads.count, 1, "until then it stays");
	struct cold_wait *b = wait_for(&told[1], 1, 1);
	ok(told[1] == 1 && is_value(ask(b, 1), 1) && counters[KVS_COUNTER_cold_loads] == 1,
	   "for others, too");
	now_ns += MS; // a turn has no time: a slice of it all the same
	for (unsigned turns = 0; turns < 5; turns++) {
		cold_turn(cold, now_ns);
	}
	ok(writer.promoted == 1 && counters[KVS_COUNTER_cold_promotions] == 1, "then it is back");
	ok(cold->loads.count == 1 && TAILQ_EMPTY(&cold->returning), "and stays for who has it");
	cold_wait_drop(b);
	writer.result = KEYSPACE_COLD_NO_ROOM;
	a = wait_for(&told[0], 2, 1);
	let_read(1);
	cold_wait_drop(a);
	writer.result = KEYSPACE_COLD_OTHER;
	a = wait_for(&told[0], 3, 1);
	let_read(1);
	cold_wait_drop(a);
	ok(counters[KVS_COUNTER_cold_promotions_declined] == 1 &&
		   counters[KVS_COUNTER_cold_promotions_void] == 1 &&
		   counters[KVS_COUNTER_cold_promotions] == 1,
	   "what does not come back counts, too");
	writer.slices = 100;
	a = wait_for(&told[0], 4, 1);
	let_read(1);
	cold_wait_drop(a);
	cold_stop(cold);
	(void)close(wake_fd);
	ok_u64(writer.dropped, 1, "a stop leaves no half");
	parcels = 0; // freed with it
}

int main(void)
{
	test_shared();
	test_line();
	test_too_much();
	test_late();
	test_unwanted();
	test_gone();
	test_slices();
	return tap_done();
}

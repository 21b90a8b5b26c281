// SPDX-License-Identifier: MIT
//
// The loop: order of timers, removal in the middle of a turn, the two ways to wake and to stop
// it, and that it sleeps when there is nothing to do.

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/seam.h"
#include "tests/tap/tap.h"

static uint64_t clock_ns = 1000;
static int last_timeout_ms;

static uint64_t fake_clock(void)
{
	return clock_ns;
}

static int fake_wait(int epoll_fd, struct epoll_event *events, int count, int timeout_ms)
{
	last_timeout_ms = timeout_ms;
	return epoll_wait(epoll_fd, events, count, 0);
}

static uint64_t thread_clock_ns = 5000000000;

static uint64_t fake_thread_clock(void)
{
	return thread_clock_ns;
}

static struct seam seam;

struct item {
	struct loop_timer timer;
	unsigned fired;
	uint64_t fired_order;
	struct item *cancels;
};

static struct loop *loop;
static uint64_t fire_count;

/// What only prepares a test: shown when it fails.
static void must(bool good)
{
	if (!good) {
		ok(false, "preparation");
	}
}

static void item_due(struct loop_timer *timer, uint64_t now_ns)
{
	struct item *item = (struct item *)(void *)timer;
	item->fired++;
	item->fired_order = ++fire_count;
	if (item->cancels) {
		loop_timer_cancel(loop, &item->cancels->timer);
	}
	if (now_ns < timer->due_ns) {
		item->fired = 1000; // too early
	}
}

static void test_timers(void)
{
	enum { COUNT = 500 };
	static struct item items[COUNT];
	uint64_t seed = tap_seed(3);
	for (int i = 0; i < COUNT; i++) {
		items[i].timer.due = item_due;
		must(loop_timer_set(loop, &items[i].timer,
				    clock_ns + 1 + tap_random(&seed) % 1000000));
	}
	for (int i = 0; i < COUNT; i += 3) {
		must(loop_timer_set(loop, &items[i].timer,
				    clock_ns + 1 + tap_random(&seed) % 1000000));
	}
	for (int i = 0; i < COUNT; i += 5) {
		loop_timer_cancel(loop, &items[i].timer);
		loop_timer_cancel(loop, &items[i].timer);
	}
	for (int step = 0; step < 101; step++) {
		clock_ns += 10000;
		(void)loop_turn(loop, 0);
	}
	bool good = true;
	for (int i = 0; i < COUNT; i++) {
		good = good && items[i].fired == (i % 5 == 0 ? 0 : 1);
		for (int j = 0; j < i && good; j++) {
			if (items[i].fired && items[j].fired &&
			    items[i].timer.due_ns < items[j].timer.due_ns) {
				good = items[i].fired_order < items[j].fired_order;
			}
		}
	}
	ok(good, "500 timers, set, moved and cancelled, fire once, in order, never early");
	struct item first = { .timer = { .due = item_due } };
	struct item second = { .timer = { .due = item_due } };
	first.cancels = &second;
	must(loop_timer_set(loop, &first.timer, clock_ns + 10));
	must(loop_timer_set(loop, &second.timer, clock_ns + 20));
	clock_ns += 100;
	(void)loop_turn(loop, 0);
	ok(first.fired == 1 && second.fired == 0, "a timer may cancel one that is due too");
}

static uint64_t hook_next = UINT64_MAX;
static unsigned hook_turns;

static void hook_turn(void *context, uint64_t now_ns)
{
	(void)context;
	(void)now_ns;
	hook_turns++;
}

static uint64_t hook_next_ns(void *context)
{
	(void)context;
	return hook_next;
}

static void test_sleep(void)
{
	ok(loop_hook(loop, hook_turn, hook_next_ns, NULL), "a hook is added");
	(void)loop_turn(loop, -1);
	ok_int(last_timeout_ms, -1, "nothing pending: it sleeps without a timeout");
	hook_next = clock_ns + 1500000;
	(void)loop_turn(loop, -1);
	ok_int(last_timeout_ms, 2, "a hook's deadline is rounded up to milliseconds");
	struct item item = { .timer = { .due = item_due } };
	must(loop_timer_set(loop, &item.timer, clock_ns + 1000000));
	(void)loop_turn(loop, -1);
	ok_int(last_timeout_ms, 1, "the earlier of timer and hook counts");
	hook_next = 0;
	(void)loop_turn(loop, -1);
	ok_int(last_timeout_ms, 0, "a hook may ask for no sleep");
	hook_next = UINT64_MAX;
	loop_timer_cancel(loop, &item.timer);
	ok(hook_turns >= 4, "hooks run in every turn");
}

static struct loop_source pair[2];
static unsigned pair_calls[2];

static void pair_ready(struct loop_source *source, uint32_t events)
{
	(void)events;
	size_t own = source == &pair[1];
	pair_calls[own]++;
	loop_remove(loop, &pair[!own]); // the other's event of this turn must not come
	loop_remove(loop, source);
}

static void test_remove(void)
{
	for (int i = 0; i < 2; i++) {
		pair[i] =
			(struct loop_source){ .fd = eventfd(1, EFD_CLOEXEC), .ready = pair_ready };
		must(loop_add(loop, &pair[i], EPOLLIN) == 0);
	}
	(void)loop_turn(loop, 0);
	(void)loop_turn(loop, 0);
	ok_u64(pair_calls[0] + pair_calls[1], 1, "a removed source's waiting event is dropped");
	close(pair[0].fd);
	close(pair[1].fd);
	struct loop_source bad = { .fd = -1 };
	ok_int(loop_add(loop, &bad, EPOLLIN), -EBADF, "a bad descriptor is an error");
}

static void test_wake_and_stop(void)
{
	uint64_t one = 1;
	must(write(loop_wake_fd(loop), &one, sizeof(one)) == (ssize_t)sizeof(one));
	unsigned turns = hook_turns;
	(void)loop_turn(loop, 0);
	ok(hook_turns == turns + 1, "the eventfd starts a turn");
	ok_int(read(loop_wake_fd(loop), &one, sizeof(one)), -1, "and is emptied by it");
	must(kill(getpid(), SIGHUP) == 0 && kill(getpid(), SIGUSR1) == 0 &&
	     kill(getpid(), SIGUSR2) == 0);
	for (int i = 0; i < 3; i++) {
		(void)loop_turn(loop, 0);
	}
	ok(!loop_stopping(loop), "SIGHUP and the like from a process do nothing");
	must(kill(getpid(), SIGTERM) == 0);
	ok_int(loop_run(loop), 0, "SIGTERM ends the loop");
	ok(loop_stopping(loop) && loop_signal(loop) == SIGTERM, "and says so");
	must(kill(getpid(), SIGTERM) == 0 && kill(getpid(), SIGINT) == 0); // see the end of main()
}

static uint64_t work_wall_ns, work_thread_ns;

static void work_due(struct loop_timer *timer, uint64_t now_ns)
{
	(void)timer;
	(void)now_ns;
	clock_ns += work_wall_ns;
	thread_clock_ns += work_thread_ns;
}

/// A turn that takes so long by the two clocks, one millisecond after the last.
static void turn_of(uint64_t wall_ns, uint64_t thread_ns)
{
	struct loop_timer timer = { .due = work_due };
	clock_ns += 1000000;
	work_wall_ns = wall_ns;
	work_thread_ns = thread_ns;
	must(loop_timer_set(loop, &timer, clock_ns));
	(void)loop_turn(loop, 0);
}

static void test_longest(void)
{
	loop_longest_reset(loop);
	turn_of(3000000, 3000000);
	turn_of(2000000, 2000000);
	ok_u64(loop_longest(loop).thread_ns, 3000000, "G: the longest turn is remembered");
	turn_of(9000000, 400000);
	ok_u64(loop_longest(loop).thread_ns, 3000000, "G: what others did meanwhile is not in it");
	ok_u64(loop_longest(loop).wall_ns, 9000000, "G: but in the other measure");
	loop_longest_reset(loop);
	turn_of(50000, 50000);
	clock_ns -= 1000000; // the next turn follows at once: no new sample
	turn_of(70000, 70000);
	ok_u64(loop_longest(loop).thread_ns, 70000, "G: never more than passed on the wall");
}

int main(void)
{
	log_init(LOG_LEVEL_ERROR);
	seam = seam_system;
	seam.monotonic_ns = fake_clock;
	seam.thread_ns = fake_thread_clock;
	seam.epoll_wait = fake_wait;
	if (loop_create(&loop, &seam) != 0) {
		return 1;
	}
	test_timers();
	test_sleep();
	test_remove();
	test_longest();
	test_wake_and_stop();
	loop_destroy(loop);
	ok(true, "signals that came after the first do not end the process behind the loop's back");
	return tap_done();
}

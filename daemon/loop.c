// SPDX-License-Identifier: MIT
//
// One thread, one epoll set, one binary heap of deadlines. The sleep is computed from the earliest
// timer and from what the hooks ask for, so there is no tick: nothing pending means no wake-up.

#include "daemon/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/seam.h"
#include "daemon/signals.h"

#define LOOP_EVENTS_MAX 256
#define LOOP_WAITS_MAX 16 // looks at the set in one turn
#define LOOP_HOOKS_MAX 8
#define LOOP_SLEEP_MS_MAX \
	3600000		       // epoll takes an int; an hour more or less is no wake-up to speak of
#define LOOP_SAMPLE_NS 200000u // between two looks at the clock of processor time

struct loop_hook {
	void (*turn)(void *context, uint64_t now_ns);
	uint64_t (*next_ns)(void *context);
	void *context;
};

struct loop {
	const struct seam *seam;
	int epoll_fd;
	uint64_t now_ns;
	struct loop_longest longest;
	uint64_t sampled_ns;	    // when the clock of processor time was looked at last
	uint64_t sampled_thread_ns; // and what it said
	bool stopping;
	int signal;
	sigset_t signals_before;
	struct loop_source wake;
	struct loop_source signals;
	struct loop_timer **heap; // heap[0] is the earliest
	size_t heap_count;
	size_t heap_capacity;
	struct loop_hook hooks[LOOP_HOOKS_MAX];
	size_t hooks_count;
	struct epoll_event events[LOOP_EVENTS_MAX]; // of this turn; data.ptr NULL = source removed
};

static struct loop *loop_of_wake(struct loop_source *source)
{
	return (struct loop *)(void *)((char *)source - offsetof(struct loop, wake));
}

static void loop_wake_ready(struct loop_source *source, uint32_t events)
{
	(void)events;
	uint64_t count;
	ssize_t n = loop_of_wake(source)->seam->read(source->fd, &count, sizeof(count));
	(void)n; // only its being readable matters: the hooks look for themselves
}

static void loop_signal_ready(struct loop_source *source, uint32_t events)
{
	(void)events;
	struct loop *loop =
		(struct loop *)(void *)((char *)source - offsetof(struct loop, signals));
	struct signalfd_siginfo info;
	if (read(source->fd, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
		return;
	}
	int signal = (int)info.ssi_signo;
	bool hung_up = signal == SIGHUP && info.ssi_code == SI_KERNEL; // the terminal is gone
	if (signal == SIGTERM || signal == SIGINT || hung_up) {
		loop->signal = signal;
		loop->stopping = true;
	} else {
		log_notice("SIG%s from process %u does nothing: CONFIG SET changes options, "
			   "a restart reads the file anew",
			   sigabbrev_np(signal), (unsigned)info.ssi_pid);
	}
}

static int loop_create_signals(struct loop *loop)
{
	sigset_t set;
	signals_taken(&set);
	int error = signals_hold(&loop->signals_before);
	if (error != 0) {
		return -error;
	}
	loop->signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return loop->signals.fd < 0 ? -errno : 0;
}

int loop_create(struct loop **out, const struct seam *seam)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	if (!loop) {
		return -ENOMEM;
	}
	loop->seam = seam;
	loop->wake = (struct loop_source){ .fd = -1, .ready = loop_wake_ready };
	loop->signals = (struct loop_source){ .fd = -1, .ready = loop_signal_ready };
	int error = loop_create_signals(loop);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (error == 0 && loop->epoll_fd < 0) {
		error = -errno;
	}
	if (error == 0) {
		loop->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		error = loop->wake.fd < 0 ? -errno : loop_add(loop, &loop->wake, EPOLLIN);
	}
	if (error == 0) {
		error = loop_add(loop, &loop->signals, EPOLLIN);
	}
	if (error != 0) {
		loop_destroy(loop);
		return error;
	}
	loop->now_ns = seam->monotonic_ns();
	*out = loop;
	return 0;
}

void loop_destroy(struct loop *loop)
{
	if (!loop) {
		return;
	}
	// A second request to stop came while the first was obeyed: it must not end the process
	// now, by the signal's own way, with everything done but an exit code.
	struct signalfd_siginfo info;
	while (loop->signals.fd >= 0 && read(loop->signals.fd, &info, sizeof(info)) > 0) {
	}
	(void)pthread_sigmask(SIG_SETMASK, &loop->signals_before, NULL);
	const int fds[] = { loop->epoll_fd, loop->wake.fd, loop->signals.fd };
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0) {
			close(fds[i]);
		}
	}
	free(loop->heap);
	free(loop);
}

bool loop_hook(struct loop *loop, void (*turn)(void *context, uint64_t now_ns),
	       uint64_t (*next_ns)(void *context), void *context)
{
	if (loop->hooks_count == LOOP_HOOKS_MAX) {
		return false;
	}
	loop->hooks[loop->hooks_count++] = (struct loop_hook){ turn, next_ns, context };
	return true;
}

int loop_add(struct loop *loop, struct loop_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };
	source->events = events;
	source->batch_place = 0;
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) == 0 ? 0 : -errno;
}

int loop_modify(struct loop *loop, struct loop_source *source, uint32_t events)
{
	if (source->events == events) {
		return 0;
	}
	struct epoll_event event = { .events = events, .data.ptr = source };
	source->events = events;
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) == 0 ? 0 : -errno;
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
	if (source->batch_place > 0) {
		loop->events[source->batch_place - 1].data.ptr = NULL;
		source->batch_place = 0;
	}
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL) != 0) {
		log_error("epoll: cannot remove a descriptor: %m");
	}
}

static void loop_heap_put(struct loop *loop, size_t place, struct loop_timer *timer)
{
	loop->heap[place] = timer;
	timer->place = place + 1;
}

static void loop_heap_up(struct loop *loop, size_t place, struct loop_timer *timer)
{
	while (place > 0) {
		size_t parent = (place - 1) / 2;
		if (loop->heap[parent]->due_ns <= timer->due_ns) {
			break;
		}
		loop_heap_put(loop, place, loop->heap[parent]);
		place = parent;
	}
	loop_heap_put(loop, place, timer);
}

static void loop_heap_down(struct loop *loop, size_t place, struct loop_timer *timer)
{
	for (;;) {
		size_t child = place * 2 + 1;
		if (child >= loop->heap_count) {
			break;
		}
		if (child + 1 < loop->heap_count &&
		    loop->heap[child + 1]->due_ns < loop->heap[child]->due_ns) {
			child++;
		}
		if (timer->due_ns <= loop->heap[child]->due_ns) {
			break;
		}
		loop_heap_put(loop, place, loop->heap[child]);
		place = child;
	}
	loop_heap_put(loop, place, timer);
}

bool loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t due_ns)
{
	loop_timer_cancel(loop, timer);
	if (loop->heap_count == loop->heap_capacity) {
		size_t capacity = loop->heap_capacity ? loop->heap_capacity * 2 : 16;
		struct loop_timer **heap = reallocarray(loop->heap, capacity, sizeof(*heap));
		if (!heap) {
			return false;
		}
		loop->heap = heap;
		loop->heap_capacity = capacity;
	}
	timer->due_ns = due_ns;
	loop_heap_up(loop, loop->heap_count++, timer);
	return true;
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
	if (timer->place == 0) {
		return;
	}
	size_t place = timer->place - 1;
	timer->place = 0;
	struct loop_timer *last = loop->heap[--loop->heap_count];
	if (last == timer) {
		return;
	}
	if (place > 0 && loop->heap[(place - 1) / 2]->due_ns > last->due_ns) {
		loop_heap_up(loop, place, last);
	} else {
		loop_heap_down(loop, place, last);
	}
}

static void loop_run_timers(struct loop *loop)
{
	// Only those due as of this turn's time: what they set again is later than that.
	while (loop->heap_count > 0 && loop->heap[0]->due_ns <= loop->now_ns) {
		struct loop_timer *timer = loop->heap[0];
		loop_timer_cancel(loop, timer);
		timer->due(timer, loop->now_ns);
	}
}

/// How long epoll may sleep: rounded up, so that a deadline has passed when it returns.
static int loop_timeout_ms(struct loop *loop, int limit_ms)
{
	uint64_t next = loop->heap_count > 0 ? loop->heap[0]->due_ns : UINT64_MAX;
	for (size_t i = 0; i < loop->hooks_count; i++) {
		if (loop->hooks[i].next_ns) {
			uint64_t hook_next = loop->hooks[i].next_ns(loop->hooks[i].context);
			next = hook_next < next ? hook_next : next;
		}
	}
	if (next == UINT64_MAX) {
		return limit_ms;
	}
	uint64_t now = next > loop->now_ns ? loop->seam->monotonic_ns() : loop->now_ns;
	uint64_t wait_ms = next > now ? (next - now + 999999) / 1000000 : 0;
	int timeout = wait_ms < LOOP_SLEEP_MS_MAX ? (int)wait_ms : LOOP_SLEEP_MS_MAX;
	return limit_ms >= 0 && limit_ms < timeout ? limit_ms : timeout;
}

/// Looks at the clock of processor time, which is a system call, now and then only.
static void loop_measure_begin(struct loop *loop)
{
	if (loop->now_ns - loop->sampled_ns >= LOOP_SAMPLE_NS) {
		loop->sampled_ns = loop->now_ns;
		loop->sampled_thread_ns = loop->seam->thread_ns();
	}
}

/// The turn took at most what passed on the wall, and at most what the thread has used since the
/// last sample: where others took the processor away meanwhile the second is far less.
static void loop_measure_end(struct loop *loop)
{
	uint64_t wall_ns = loop->seam->monotonic_ns() - loop->now_ns;
	struct loop_longest *longest = &loop->longest;
	longest->wall_ns = wall_ns > longest->wall_ns ? wall_ns : longest->wall_ns;
	if (__builtin_expect(wall_ns > longest->thread_ns, 0)) {
		uint64_t used_ns = loop->seam->thread_ns() - loop->sampled_thread_ns;
		used_ns = used_ns < wall_ns ? used_ns : wall_ns;
		longest->thread_ns = used_ns > longest->thread_ns ? used_ns : longest->thread_ns;
	}
}

struct loop_longest loop_longest(const struct loop *loop)
{
	return loop->longest;
}

void loop_longest_reset(struct loop *loop)
{
	loop->longest = (struct loop_longest){ 0 };
}

static void loop_run_sources(struct loop *loop, int n)
{
	for (int i = 0; i < n; i++) {
		struct loop_source *source = loop->events[i].data.ptr;
		source->batch_place = (size_t)i + 1;
	}
	for (int i = 0; i < n; i++) {
		struct loop_source *source = loop->events[i].data.ptr;
		if (source) {
			source->batch_place = 0;
			source->ready(source, loop->events[i].events);
		}
	}
}

int loop_turn(struct loop *loop, int timeout_ms)
{
	int n = loop->seam->epoll_wait(loop->epoll_fd, loop->events, LOOP_EVENTS_MAX,
				       loop_timeout_ms(loop, timeout_ms));
	if (n < 0 && errno != EINTR) {
		return -errno;
	}
	loop->now_ns = loop->seam->monotonic_ns();
	loop_measure_begin(loop);
	loop_run_sources(loop, n);
	// A full array: others stand behind, and whoever came last must not wait for turns because
	// of that. Sources do little here; the work is done by the hooks.
	for (int waits = 1; n == LOOP_EVENTS_MAX && waits < LOOP_WAITS_MAX; waits++) {
		n = loop->seam->epoll_wait(loop->epoll_fd, loop->events, LOOP_EVENTS_MAX, 0);
		loop_run_sources(loop, n);
	}
	loop_run_timers(loop);
	for (size_t i = 0; i < loop->hooks_count; i++) {
		loop->hooks[i].turn(loop->hooks[i].context, loop->now_ns);
	}
	loop_measure_end(loop);
	return 0;
}

int loop_run(struct loop *loop)
{
	while (!loop->stopping) {
		int error = loop_turn(loop, -1);
		if (error != 0) {
			log_error("epoll: %s", strerrordesc_np(-error));
			return error;
		}
	}
	return 0;
}

void loop_stop(struct loop *loop)
{
	loop->stopping = true;
}

bool loop_stopping(const struct loop *loop)
{
	return loop->stopping;
}

int loop_signal(const struct loop *loop)
{
	return loop->signal;
}

int loop_wake_fd(const struct loop *loop)
{
	return loop->wake.fd;
}

uint64_t loop_now_ns(const struct loop *loop)
{
	return loop->now_ns;
}

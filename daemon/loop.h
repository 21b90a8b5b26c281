// SPDX-License-Identifier: MIT
//
// The event loop: one epoll set, timers, hooks that run once a turn, and the two ways in from
// outside, an eventfd for other threads and a signalfd. It sleeps without a timeout when nothing is
// pending: an idle kvd uses no CPU. Everything belongs to the thread that calls loop_run(), except
// loop_wake_fd()'s descriptor.
//
// A turn: wait; take the time; run all ready sources; run due timers; run the hooks in the order in
// which they were added.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct seam;

/// A descriptor in the epoll set (level-triggered unless EPOLLET is asked for). Embedded by its
/// owner; `ready` gets EPOLL* bits. A source may be removed by any callback, also while its own
/// event of this turn is still to come.
struct loop_source {
	int fd;
	uint32_t events; // interest now
	void (*ready)(struct loop_source *source, uint32_t events);
	size_t batch_place; // the loop's: where in this turn's event array it stands, + 1
};

/// A deadline. Embedded by its owner, zeroed before its first use; fires once. `due` may set it
/// again, later than now.
struct loop_timer {
	uint64_t due_ns;
	size_t place; // the loop's: index in its heap + 1, 0 = not set
	void (*due)(struct loop_timer *timer, uint64_t now_ns);
};

/// Returns 0 or -errno. SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 are blocked in the calling
/// thread (threads started later inherit that). The first two end loop_run(), and so does a SIGHUP
/// for a terminal that is gone; others are logged.
int loop_create(struct loop **out, const struct seam *seam);
void loop_destroy(struct loop *loop);

/// Runs turns until loop_stop() or a signal. Returns 0, or -errno if epoll fails.
int loop_run(struct loop *loop);
/// One turn that waits at most `timeout_ms` (-1 = as long as nothing is pending). For tests.
int loop_turn(struct loop *loop, int timeout_ms);
void loop_stop(struct loop *loop);
bool loop_stopping(const struct loop *loop);
/// The signal that ended loop_run(), 0 if it was loop_stop().
int loop_signal(const struct loop *loop);

/// Adds `turn`, called once in every turn, last; `next_ns` (may be NULL) tells until when the loop
/// may sleep: monotonic ns, 0 = not at all, UINT64_MAX = for ever. It is asked behind the last hook
/// of the turn, and has to reckon with what those behind its own have done. At most 8 hooks; false
/// beyond.
/// main.c adds the cleaner's first, then the listener adds its own: what was freed is used at once.
bool loop_hook(struct loop *loop, void (*turn)(void *context, uint64_t now_ns),
	       uint64_t (*next_ns)(void *context), void *context);

/// Adds `source` to the set / changes its interest / takes it out. Return 0 or -errno.
int loop_add(struct loop *loop, struct loop_source *source, uint32_t events);
int loop_modify(struct loop *loop, struct loop_source *source, uint32_t events);
void loop_remove(struct loop *loop, struct loop_source *source);

/// Sets (or moves) a timer. False if memory is short. A cancelled timer may be freed.
bool loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t due_ns);
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer);

/// An eventfd: any thread writes 1 to it to start a turn (the persister after each commit). The
/// loop owns it.
int loop_wake_fd(const struct loop *loop);

/// Monotonic time as of the start of this turn.
uint64_t loop_now_ns(const struct loop *loop);

/// The longest turn, from the end of one wait to the beginning of the next: so long may somebody
/// have waited whose request came just then.
struct loop_longest {
	uint64_t wall_ns; // whatever else the machine did meanwhile included
	uint64_t thread_ns; // processor time of this thread, up to 200 us too much
};
struct loop_longest loop_longest(const struct loop *loop);
/// Begins anew (CONFIG RESETSTAT).
void loop_longest_reset(struct loop *loop);

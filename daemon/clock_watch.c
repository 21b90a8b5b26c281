// SPDX-License-Identifier: MIT
//
// A timerfd that nobody waits for. One that was cancelled, or whose year has come, goes on telling:
// it is never set again, so nothing can have it fire over and over.
#include "daemon/clock_watch.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "daemon/keyspace.h"
#include "daemon/log.h"

#define CLOCK_WATCH_SECONDS 7258118400 // of 2200, since 1970

static void clock_watch_ready(struct loop_source *source, uint32_t events)
{
	struct clock_watch *watch =
		(struct clock_watch *)(void *)((char *)source -
					       offsetof(struct clock_watch, source));
	uint64_t count;
	(void)events;
	ssize_t got = read(source->fd, &count, sizeof(count));
	if (got != (ssize_t)sizeof(count) && errno != ECANCELED && errno != EAGAIN) {
		log_error("cannot tell any more when the clock is set: %m; it is looked at each "
			  "second");
		clock_watch_stop(watch);
		return;
	}
	keyspace_clock_was_set(watch->keyspace);
}

void clock_watch_start(struct clock_watch *watch, struct loop *loop, struct keyspace *keyspace)
{
	const struct itimerspec never = { .it_value.tv_sec = CLOCK_WATCH_SECONDS };
	int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (fd < 0) {
		return;
	}
	*watch = (struct clock_watch){
		.keyspace = keyspace,
		.source = { .fd = fd, .ready = clock_watch_ready },
	};
	if (timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) != 0 ||
	    loop_add(loop, &watch->source, EPOLLIN) != 0) {
		(void)close(fd);
		return;
	}
	watch->loop = loop;
	keyspace_watch_clock(keyspace, true);
}

void clock_watch_stop(struct clock_watch *watch)
{
	if (watch->loop == NULL) {
		return;
	}
	keyspace_watch_clock(watch->keyspace, false);
	loop_remove(watch->loop, &watch->source);
	(void)close(watch->source.fd);
	watch->loop = NULL;
}

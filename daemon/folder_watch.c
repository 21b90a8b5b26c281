// SPDX-License-Identifier: MIT
//
// A folder that is removed tells no watch of its own while somebody has it open, as kvd has. So the
// removals in it are watched, and its name is what is looked at then, a little later.
#include "daemon/folder_watch.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"

// Between the last removal in it and that of its name there may be a slow disk.
#define FIRST_LOOK_NS UINT64_C(10000000)
#define LAST_LOOK_NS UINT64_C(1000000000)

static bool is_there(const struct folder_watch *watch)
{
	struct stat facts;
	if (stat(watch->path, &facts) != 0) {
		return errno != ENOENT && errno != ENOTDIR; // what cannot be looked at is no proof
	}
	return facts.st_dev == watch->device && facts.st_ino == watch->inode;
}

static void look_in(struct folder_watch *watch, uint64_t pause_ns)
{
	watch->pause_ns = pause_ns;
	(void)loop_timer_set(watch->loop, &watch->timer, loop_now_ns(watch->loop) + pause_ns);
}

static void look(struct loop_timer *timer, uint64_t now_ns)
{
	struct folder_watch *watch =
		(struct folder_watch *)((char *)timer - offsetof(struct folder_watch, timer));
	(void)now_ns;
	if (is_there(watch)) {
		if (watch->pause_ns < LAST_LOOK_NS) {
			look_in(watch, watch->pause_ns * 2);
		} else {
			// Not before: what is put into a folder that somebody removes keeps it.
			watch->lost(watch->context);
		}
	} else if (watch->gone(watch->context)) {
		look_in(watch, LAST_LOOK_NS);
	}
}

static void something_removed(struct loop_source *source, uint32_t events)
{
	struct folder_watch *watch =
		(struct folder_watch *)((char *)source - offsetof(struct folder_watch, source));
	char buffer[4096];
	(void)events;
	// What it was is of no interest, and what is left comes with the next turn.
	if (read(source->fd, buffer, sizeof(buffer)) < 0 && errno != EAGAIN && errno != EINTR) {
		LOG_AT(LOG_LEVEL_WARNING, "watching the data folder %s: %s; it is not watched",
		       watch->path, strerror(errno));
		folder_watch_stop(watch);
		return;
	}
	look_in(watch, FIRST_LOOK_NS);
}

// 0 or an errno, with the descriptor open that then is to be closed.
static int open_watch(struct folder_watch *watch)
{
	struct stat facts;
	watch->source.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (watch->source.fd < 0 || stat(watch->path, &facts) != 0 ||
	    inotify_add_watch(watch->source.fd, watch->path, IN_DELETE | IN_ONLYDIR) < 0) {
		return errno;
	}
	watch->device = facts.st_dev;
	watch->inode = facts.st_ino;
	return -loop_add(watch->loop, &watch->source, EPOLLIN);
}

void folder_watch_start(struct folder_watch *watch, struct loop *loop, const char *path,
			bool (*gone)(void *context), void (*lost)(void *context), void *context)
{
	folder_watch_stop(watch);
	*watch = (struct folder_watch){ .loop = loop,
					.path = path,
					.gone = gone,
					.lost = lost,
					.context = context,
					.source = { .ready = something_removed },
					.timer = { .due = look } };
	int error = open_watch(watch);
	if (error != 0) {
		log_warning("watching the data folder %s: %s; that it is removed is noticed only "
			    "by the next write%s",
			    path, strerror(error),
			    error == EMFILE || error == ENOSPC
				    ? " (raise fs.inotify.max_user_instances or "
				      "fs.inotify.max_user_watches)"
				    : "");
		if (watch->source.fd >= 0) {
			(void)close(watch->source.fd);
		}
		watch->loop = NULL;
	}
}

void folder_watch_stop(struct folder_watch *watch)
{
	if (watch->loop == NULL) {
		return;
	}
	loop_timer_cancel(watch->loop, &watch->timer);
	loop_remove(watch->loop, &watch->source);
	(void)close(watch->source.fd);
	watch->loop = NULL;
}

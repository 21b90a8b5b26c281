/* SPDX-License-Identifier: MIT */
/*
 * Prints the keys under a prefix as they change, in sd-event's loop: one input source for the
 * handle's descriptor, one timer for what it has to do when the descriptor stays quiet.
 *
 *     cc watch_sdevent.c $(pkg-config --cflags --libs kvclient libsystemd) -o watch_sdevent
 *     ./watch_sdevent session:
 */
#include <kvclient.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-event.h>

struct watcher {
	kvc_async *async;
	sd_event_source *timer;
};

static void changed(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
		    size_t key_bytes)
{
	(void)user;
	switch (event) {
	case KVC_WATCH_READY:
		printf("watching\n");
		break;
	case KVC_WATCH_LOST: /* whoever keeps values has to drop them now */
		printf("lost: %s\n", kvc_async_error_text(async));
		break;
	case KVC_WATCH_CHANGED:
		if (key) {
			printf("changed %.*s\n", (int)key_bytes, (const char *)key);
		} else {
			printf("flushed\n");
		}
		break;
	}
	fflush(stdout);
}

/* The timer goes off when the handle is due; called whenever that may have changed. */
static int set_timer(struct watcher *watcher)
{
	uint64_t now_us = 0;
	int timeout_ms = kvc_async_timeout_ms(watcher->async);
	int result = sd_event_source_set_enabled(watcher->timer,
						 timeout_ms < 0 ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
	if (timeout_ms >= 0 && result >= 0) {
		result = sd_event_now(sd_event_source_get_event(watcher->timer), CLOCK_MONOTONIC,
				      &now_us);
	}
	if (timeout_ms >= 0 && result >= 0) {
		result = sd_event_source_set_time(watcher->timer,
						  now_us + (uint64_t)timeout_ms * 1000);
	}
	return result;
}

static int dispatch(struct watcher *watcher)
{
	int status = kvc_async_dispatch(watcher->async);
	if (status != KVC_OK) {
		fprintf(stderr, "watch_sdevent: %s\n", kvc_strerror(status));
	}
	return set_timer(watcher);
}

static int on_ready(sd_event_source *source, int fd, uint32_t events, void *user)
{
	(void)source;
	(void)fd;
	(void)events;
	return dispatch(user);
}

static int on_time(sd_event_source *source, uint64_t time_us, void *user)
{
	(void)source;
	(void)time_us;
	return dispatch(user);
}

static int run(struct watcher *watcher, const char *prefix)
{
	sd_event *loop = NULL;
	kvc_watch *watch;
	sigset_t signals;
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	int status = kvc_watch_open(watcher->async, prefix, strlen(prefix), KVC_WATCH_PREFIX,
				    changed, watcher, &watch);
	if (status != KVC_OK) {
		fprintf(stderr, "watch_sdevent: %s\n", kvc_strerror(status));
		return -1;
	}
	int result = sd_event_default(&loop);
	if (result >= 0) {
		result = sd_event_add_io(loop, NULL, kvc_async_fd(watcher->async), EPOLLIN,
					 on_ready, watcher);
	}
	if (result >= 0) {
		result = sd_event_add_time(loop, &watcher->timer, CLOCK_MONOTONIC, 0, 1000, on_time,
					   watcher);
	}
	if (result >= 0) { /* both end the loop */
		result = sd_event_add_signal(loop, NULL, SIGTERM, NULL, NULL);
	}
	if (result >= 0) {
		result = sd_event_add_signal(loop, NULL, SIGINT, NULL, NULL);
	}
	if (result >= 0) {
		result = sd_event_loop(loop);
	}
	if (result < 0) {
		fprintf(stderr, "watch_sdevent: %s\n", strerror(-result));
	}
	sd_event_source_unref(watcher->timer);
	sd_event_unref(loop);
	return result;
}

int main(int argc, char **argv)
{
	struct watcher watcher = { .timer = NULL };
	struct kvc_options options;
	if (argc != 2) {
		fprintf(stderr, "usage: watch_sdevent PREFIX\n");
		return 2;
	}
	kvc_options_init(&options);
	options.flags = KVC_OPEN_NO_CONNECT; /* kvd may come later: the watch waits for it */
	int status = kvc_async_open(&watcher.async, &options, NULL);
	if (status != KVC_OK) {
		fprintf(stderr, "watch_sdevent: %s\n", kvc_strerror(status));
		return 1;
	}
	int result = run(&watcher, argv[1]);
	kvc_async_close(watcher.async);
	return result < 0 ? 1 : 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Stores lines "KEY VALUE" from standard input, as many under way at once as the handle takes, in
 * one plain epoll loop. Full queue: no more input is read until there is room. The end of the input
 * is followed by a sync, so that the exit code says whether everything would survive a power cut.
 *
 *     cc async_epoll.c $(pkg-config --cflags --libs kvclient) -o async_epoll
 *     printf 'a 1\nb 2\n' | ./async_epoll
 */
#include <errno.h>
#include <fcntl.h>
#include <kvclient.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* The state of the program: what the callbacks get as `user`. */
struct loader {
	kvc_async *async;
	char line[65536]; /* read and not submitted yet: the beginning of it */
	size_t bytes;
	int full;   /* a submit was answered KVC_BUSY */
	int ended;  /* end of the input */
	int synced; /* the sync was answered */
	unsigned long stored, failed;
};

static void stored(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct loader *loader = user;
	(void)async;
	if (result->status == KVC_OK) {
		loader->stored++;
	} else {
		loader->failed++;
		fprintf(stderr, "async_epoll: %s\n", result->error_text);
	}
}

static void synced(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct loader *loader = user;
	(void)async;
	loader->synced = 1;
	if (result->status != KVC_OK) {
		loader->failed++;
		fprintf(stderr, "async_epoll: sync: %s\n", result->error_text);
	}
}

static void room(kvc_async *async, void *user)
{
	(void)async;
	((struct loader *)user)->full = 0;
}

/* Submits the whole lines that have been read. */
static void submit_lines(struct loader *loader)
{
	char *at = loader->line, *end = loader->line + loader->bytes, *newline;
	while (!loader->full && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
		char *blank = memchr(at, ' ', (size_t)(newline - at));
		char *value = blank ? blank + 1 : newline;
		size_t key_bytes = (size_t)((blank ? blank : newline) - at);
		int status = kvc_async_set(loader->async, at, key_bytes, value,
					   (size_t)(newline - value), NULL, stored, loader, NULL);
		if (status == KVC_BUSY) {
			loader->full = 1; /* this line again when room() was called */
			break;
		}
		if (status != KVC_OK) {
			loader->failed++;
			fprintf(stderr, "async_epoll: %s\n", kvc_strerror(status));
		}
		at = newline + 1;
	}
	loader->bytes = (size_t)(end - at);
	memmove(loader->line, at, loader->bytes);
}

static void read_input(struct loader *loader)
{
	ssize_t got =
		read(0, loader->line + loader->bytes, sizeof(loader->line) - loader->bytes - 1);
	if (got > 0) {
		loader->bytes += (size_t)got;
	} else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
		loader->ended = 1;
		if (loader->bytes > 0 && loader->line[loader->bytes - 1] != '\n') {
			loader->line[loader->bytes++] = '\n'; /* a last line without its end */
		}
	}
}

static int loop(struct loader *loader)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = kvc_async_fd(loader->async) };
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC), asked = 0, wants_input = 0;
	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event.data.fd, &event) != 0) {
		return -1;
	}
	while (!loader->synced) {
		submit_lines(loader);
		if (!asked && loader->ended && loader->bytes == 0) {
			asked = kvc_async_sync(loader->async, synced, loader, NULL) == KVC_OK;
		}
		/* Files are always readable, and epoll refuses them: they are read at once. */
		int want = !loader->ended && loader->bytes < sizeof(loader->line) / 2;
		struct epoll_event input = { .events = EPOLLIN, .data.fd = 0 };
		if (want && !wants_input && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &input) != 0) {
			read_input(loader);
		} else if (want != wants_input) {
			wants_input = want;
			if (!want) {
				(void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, 0, NULL);
			}
		}
		struct epoll_event got;
		int timeout_ms = kvc_async_timeout_ms(loader->async);
		int ready = epoll_wait(epoll_fd, &got, 1, want && !wants_input ? 0 : timeout_ms);
		if (ready > 0 && got.data.fd == 0) {
			read_input(loader);
		} else if (ready >= 0 && kvc_async_dispatch(loader->async) != KVC_OK) {
			break;
		}
	}
	close(epoll_fd);
	return 0;
}

int main(void)
{
	static struct loader loader;
	struct kvc_async_options options = { .struct_bytes = sizeof(options),
					     .writable = room,
					     .user = &loader };
	char why[512] = "";
	struct kvc_options where = { .struct_bytes = sizeof(where),
				     .error_text = why,
				     .error_text_bytes = sizeof(why) };
	int status = kvc_async_open(&loader.async, &where, &options);
	if (status != KVC_OK) {
		fprintf(stderr, "async_epoll: %s\n", *why ? why : kvc_strerror(status));
		return 1;
	}
	if (loop(&loader) != 0) {
		perror("async_epoll");
	}
	kvc_async_close(loader.async);
	printf("%lu stored, %lu failed\n", loader.stored, loader.failed);
	return loader.failed == 0 && loader.synced ? 0 : 1;
}

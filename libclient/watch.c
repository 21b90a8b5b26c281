// SPDX-License-Identifier: MIT
//
// Opening and closing watches, and the life of the connection they share.
#include "libclient/watch.h"

#include <stdlib.h>
#include <string.h>

#define WATCH_MAX 1024u // each prefix costs kvd a comparison for every write

// The first watch of a handle brings the connection that pushes come on.
static int watching_ensure(kvc_async *async)
{
	if (async->watching) {
		return KVC_OK;
	}
	struct kvc_watching *watching = calloc(1, sizeof(*watching));
	if (!watching) {
		return KVC_NO_MEMORY;
	}
	// It connects in a dispatch, never here: the options say so since the handle was opened.
	int status = kvc_open(&watching->stream.client, &async->stream.client->options);
	if (status != KVC_OK) {
		free(watching);
		return status;
	}
	watching->stream.epoll_fd = async->stream.epoll_fd;
	async->watching = watching;
	return KVC_OK;
}

static int watch_check(const void *key, size_t key_bytes, uint32_t flags, kvc_watched watched,
		       kvc_watch **out)
{
	bool prefix = flags & KVC_WATCH_PREFIX;
	if (!out || !watched || (flags & ~(uint32_t)KVC_WATCH_PREFIX) || (!key && key_bytes > 0)) {
		return KVC_INVALID;
	}
	return prefix && key_bytes == 0 ? KVC_OK : kvc_key_check(key, key_bytes);
}

int kvc_watch_open(kvc_async *async, const void *key, size_t key_bytes, uint32_t flags,
		   kvc_watched watched, void *user, kvc_watch **out)
{
	int status = watch_check(key, key_bytes, flags, watched, out);
	if (status == KVC_OK) {
		status = kvc_async_enter(async);
	}
	if (status != KVC_OK) {
		return status;
	}
	*out = NULL;
	status = watching_ensure(async);
	struct kvc_watching *watching = async->watching;
	if (status == KVC_OK && watching->count == WATCH_MAX) {
		status = KVC_TOO_LARGE;
	}
	kvc_watch *watch = status == KVC_OK ? calloc(1, sizeof(*watch) + key_bytes) : NULL;
	if (!watch) {
		return kvc_async_leave(async, status == KVC_OK ? KVC_NO_MEMORY : status);
	}
	watch->async = async;
	watch->watched = watched;
	watch->user = user;
	watch->prefix = flags & KVC_WATCH_PREFIX;
	watch->bytes = key_bytes;
	if (key_bytes > 0) {
		memcpy(watch->key, key, key_bytes);
	}
	watch->next = watching->list;
	watching->list = watch;
	watching->count++;
	watching->opened_some = true;
	if (kvc_stream_is_open(&watching->stream) && !kvc_watching_extend(watching, watch)) {
		(void)kvc_watch_close(watch);
		return kvc_async_leave(async, KVC_NO_MEMORY);
	}
	*out = watch;
	return kvc_async_leave(async, KVC_OK);
}

void kvc_watching_sweep(struct kvc_watching *watching)
{
	for (kvc_watch **at = &watching->list; *at && watching->closed_some;) {
		kvc_watch *watch = *at;
		if (watch->watched) {
			at = &watch->next;
		} else {
			*at = watch->next;
			free(watch);
		}
	}
	watching->closed_some = false;
}

int kvc_watch_close(kvc_watch *watch)
{
	if (!watch) {
		return KVC_OK;
	}
	kvc_async *async = watch->async;
	int status = kvc_async_enter(async);
	if (status == KVC_INVALID) {
		return status; // the handle is being closed, and the watch with it
	}
	watch->watched = NULL;
	async->watching->count--;
	async->watching->closed_some = true;
	if (!async->inside) {
		kvc_watching_sweep(async->watching);
	}
	return status == KVC_OK ? kvc_async_leave(async, KVC_OK) : KVC_OK;
}

void kvc_watching_forget(kvc_async *async, bool orphan)
{
	struct kvc_watching *watching = async->watching;
	if (!watching) {
		return;
	}
	if (orphan) {
		watching->prefixes = (struct kvc_prefixes){ .item = NULL };
	}
	kvc_stream_forget(&watching->stream, async->stream.epoll_fd, orphan);
	kvc_watching_lose(watching);
}

void kvc_watching_free(kvc_async *async)
{
	struct kvc_watching *watching = async->watching;
	if (!watching) {
		return;
	}
	while (watching->list) {
		kvc_watch *next = watching->list->next;
		free(watching->list);
		watching->list = next;
	}
	kvc_stream_drop(&watching->stream);
	(void)kvc_close(watching->stream.client); // it has no readers
	kvc_buffer_free(&watching->stream.out);
	free(watching->prefixes.item);
	free(watching);
	async->watching = NULL;
}

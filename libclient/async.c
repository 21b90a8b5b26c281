// SPDX-License-Identifier: MIT
//
// The handle of the asynchronous form: its life, its one descriptor, and what a dispatch does. The
// descriptor is an epoll set that lives as long as the handle, whatever happens to the sockets in
// it; an eventfd in it stands for work that no socket tells of.
#include "libclient/async.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "libclient/watch.h"

#define ASYNC_REQUESTS_MAX 4096
#define ASYNC_BYTES_MAX (16u << 20)

// An epoll set with an eventfd in it. False: errno says why.
static bool async_open_fds(int *epoll_fd, int *wake_fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	*epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	*wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (*epoll_fd >= 0 && *wake_fd >= 0 &&
	    epoll_ctl(*epoll_fd, EPOLL_CTL_ADD, *wake_fd, &event) == 0) {
		return true;
	}
	int error = errno;
	if (*epoll_fd >= 0) {
		close(*epoll_fd);
	}
	if (*wake_fd >= 0) {
		close(*wake_fd);
	}
	*epoll_fd = *wake_fd = -1;
	errno = error;
	return false;
}

// In a forked child: requests and descriptors are the parent's, their completions are called there.
// The two descriptors stay open: whether the numbers are still theirs nobody can tell.
static void async_forget(kvc_async *async)
{
	bool orphan = async->busy;
	kvc_client_after_fork(async->stream.client);
	async->generation = async->stream.client->generation;
	if (!orphan) {
		free(async->ring);
	}
	async->ring = NULL;
	async->capacity = 0;
	async->head = async->unsent = async->awaited = async->tail;
	async->cancelled_first = async->cancelled_last = 0;
	async->gaps = async->untold = 0;
	async->awake = async->busy = async->inside = async->blocked = false;
	async->more_input = async->waits_to_try = false;
	(void)async_open_fds(&async->stream.epoll_fd, &async->wake_fd);
	kvc_stream_forget(&async->stream, async->stream.epoll_fd, orphan);
	kvc_watching_forget(async, orphan);
}

int kvc_async_enter(kvc_async *async)
{
	if (!async) {
		return KVC_INVALID;
	}
	kvc *client = async->stream.client;
	if (kvs_load_relaxed(&client->sentinel[KVC_SENTINEL_GENERATION]) != async->generation) {
		async_forget(async);
	}
	if (async->closing) {
		return KVC_INVALID;
	}
	if (async->wake_fd < 0) {
		return KVC_SYSTEM; // a child that got no descriptors
	}
	async->busy = client->conn.busy = true;
	kvc_frame_begin(&client->conn.frame);
	return KVC_OK;
}

// Is there anything to do that no socket will tell of?
static bool async_has_work(const kvc_async *async)
{
	const struct kvc_stream *stream = &async->stream;
	if (async->more_input || async->cancelled_first != 0 ||
	    (async->blocked && async->writable && kvc_queue_has_room(async)) ||
	    kvc_watching_has_work(async)) {
		return true;
	}
	if (async->head < async->tail) {
		if (kvc_queue_at(async, async->head)->settled) {
			return true; // to be told, or those behind it
		}
	}
	if (kvc_stream_unsent(stream) == 0) {
		return false;
	}
	// unreached: a sending that broke has left input to look at, see above.
	return kvc_stream_is_open(stream) ? !stream->wants_out && !stream->send_broken
					  : !async->waits_to_try;
}

int kvc_async_leave(kvc_async *async, int status)
{
	if (async->inside) {
		return status; // the dispatch around it sees to the rest
	}
	bool work = async_has_work(async);
	uint64_t count = 1;
	if (work != async->awake) {
		ssize_t moved = work ? write(async->wake_fd, &count, sizeof(count))
				     : read(async->wake_fd, &count, sizeof(count));
		// unreached: an eventfd of our own moves its 8 bytes.
		async->awake = moved == (ssize_t)sizeof(count) ? work : async->awake;
	}
	async->busy = async->stream.client->conn.busy = false;
	return status;
}

bool kvc_async_called(kvc_async *async, struct kvc_budget *budget)
{
	const uint64_t *sentinel = async->stream.client->sentinel;
	budget->calls--;
	if (async->closing ||
	    kvs_load_relaxed(&sentinel[KVC_SENTINEL_GENERATION]) != budget->generation) {
		budget->stopped = true;
		budget->calls = budget->fills = 0;
	}
	return !budget->stopped;
}

static int async_options(kvc_async *async, const struct kvc_async_options *given)
{
	struct kvc_async_options options = { .struct_bytes = sizeof(options) };
	if (given && !kvc_copy_sized(&options, sizeof(options), given)) {
		return KVC_INVALID;
	}
	async->requests_max = options.requests_max ? options.requests_max : ASYNC_REQUESTS_MAX;
	async->bytes_max = options.bytes_max ? options.bytes_max : ASYNC_BYTES_MAX;
	async->writable = options.writable;
	async->user = options.user;
	return KVC_OK;
}

static void async_free(kvc_async *async)
{
	kvc_watching_free(async);
	if (async->stream.client) {
		kvc_stream_drop(&async->stream);
		(void)kvc_close(async->stream.client); // it has no readers
	}
	if (async->wake_fd >= 0) {
		close(async->wake_fd);
		close(async->stream.epoll_fd);
	}
	kvc_buffer_free(&async->stream.out);
	free(async->ring);
	free(async);
}

int kvc_async_open(kvc_async **out, const struct kvc_options *options,
		   const struct kvc_async_options *async_options_given)
{
	struct kvc_options quiet = { .struct_bytes = sizeof(quiet) };
	if (!out || (options && !kvc_copy_sized(&quiet, sizeof(quiet), options))) {
		return KVC_INVALID;
	}
	*out = NULL;
	kvc_async *async = calloc(1, sizeof(*async));
	if (!async) {
		return KVC_NO_MEMORY;
	}
	struct kvc_stream *stream = &async->stream;
	stream->epoll_fd = async->wake_fd = -1;
	uint32_t flags = quiet.flags;
	quiet.struct_bytes = sizeof(quiet);
	quiet.flags |= KVC_OPEN_NO_CONNECT;
	async->head = async->tail = async->unsent = async->awaited = 1;
	int status = async_options(async, async_options_given);
	if (status == KVC_OK) {
		status = kvc_open(&stream->client, &quiet);
	}
	if (status == KVC_OK && !async_open_fds(&stream->epoll_fd, &async->wake_fd)) {
		status = KVC_SYSTEM;
	}
	if (status == KVC_OK && !(flags & KVC_OPEN_NO_CONNECT)) {
		async->generation = stream->client->generation;
		status = kvc_stream_connect(stream);
		if (status != KVC_OK && quiet.error_text && quiet.error_text_bytes > 0) {
			(void)snprintf(quiet.error_text, quiet.error_text_bytes, "%s",
				       stream->client->conn.error_text);
		}
	}
	if (status != KVC_OK) {
		int error = errno;
		async_free(async);
		errno = error;
		return status;
	}
	async->generation = stream->client->generation;
	*out = async;
	return KVC_OK;
}

void kvc_async_finish(kvc_async *async)
{
	async->closing = true;
	kvc_queue_finish(async);
	async_free(async);
}

int kvc_async_close(kvc_async *async)
{
	if (!async) {
		return KVC_OK;
	}
	int status = kvc_async_enter(async);
	if (status == KVC_INVALID) {
		return status; // it is being closed
	}
	if (async->inside) {
		async->closing = true; // the dispatch around this call does the rest
		return KVC_OK;
	}
	kvc_async_finish(async);
	return KVC_OK;
}

int kvc_async_fd(kvc_async *async)
{
	return kvc_async_enter(async) == KVC_OK ? kvc_async_leave(async, async->stream.epoll_fd)
						: -1;
}

size_t kvc_async_pending(kvc_async *async)
{
	if (kvc_async_enter(async) != KVC_OK) {
		return 0;
	}
	size_t pending = async->untold;
	(void)kvc_async_leave(async, KVC_OK);
	return pending;
}

const char *kvc_async_error_text(const kvc_async *async)
{
	return async ? async->broke_text : "";
}

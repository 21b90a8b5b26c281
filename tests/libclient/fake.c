// SPDX-License-Identifier: MIT
//
// The fake kvd's life, its listener and its connections; what it answers is in fake_commands.c,
// what a test writes into its region in fake_write.c.
#include "tests/libclient/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/libclient/fake_internal.h"

static void fake_hang_up(struct fake *fake, size_t i)
{
	struct fake_connection *c = fake->connections[i];
	(void)shutdown(c->fd, SHUT_RDWR); // at once, even if the thread's poll still holds it
	close(c->fd);
	for (unsigned j = 0; j < c->fds_count; j++) {
		close(c->fds[j]);
	}
	free(c->in);
	free(c->out);
	free(c->queue);
	resp_request_free(&c->request);
	free(c);
	fake->connections[i] = NULL;
}

static bool fake_send(struct fake_connection *c)
{
	size_t sent = 0;
	while (sent < c->out_bytes) {
		struct iovec iov = { .iov_base = c->out + sent, .iov_len = c->out_bytes - sent };
		union {
			char bytes[CMSG_SPACE(sizeof(c->fds))];
			struct cmsghdr align;
		} control;
		memset(&control, 0, sizeof(control));
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
		if (c->fds_count > 0) {
			message.msg_control = control.bytes;
			message.msg_controllen = CMSG_SPACE(c->fds_count * sizeof(int));
			struct cmsghdr *header = CMSG_FIRSTHDR(&message);
			header->cmsg_level = SOL_SOCKET;
			header->cmsg_type = SCM_RIGHTS;
			header->cmsg_len = CMSG_LEN(c->fds_count * sizeof(int));
			memcpy(CMSG_DATA(header), c->fds, c->fds_count * sizeof(int));
		}
		ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
		if (n < 0) {
			return false;
		}
		for (unsigned i = 0; i < c->fds_count; i++) {
			close(c->fds[i]);
		}
		c->fds_count = 0;
		sent += (size_t)n;
	}
	c->out_bytes = 0;
	return true;
}

// Reads once and runs what is complete. False: hang up.
static bool fake_serve(struct fake *fake, struct fake_connection *c)
{
	static const struct resp_limits limits = { .bulk_bytes_max = KVS_VALUE_BYTES_MAX,
						   .request_bytes_max = SIZE_MAX / 2,
						   .inline_bytes_max = KVS_INLINE_BYTES_MAX,
						   .args_max = KVS_COMMAND_ARGS_MAX };
	const char *before = c->in;
	fake_grow(&c->in, &c->in_capacity, c->in_bytes + 65536);
	resp_request_moved(&c->state, &c->request, before, c->in);
	ssize_t got = recv(c->fd, c->in + c->in_bytes, c->in_capacity - c->in_bytes, 0);
	if (got <= 0) {
		return false;
	}
	c->in_bytes += (size_t)got;
	for (;;) {
		enum resp_result result =
			resp_parse_request(&c->state, c->in, c->in_bytes, &limits, &c->request);
		if (result == RESP_MORE) {
			return true;
		}
		if (result != RESP_COMPLETE || !fake_run(fake, c) || !fake_send(c)) {
			return false;
		}
		memmove(c->in, c->in + c->request.consumed, c->in_bytes - c->request.consumed);
		c->in_bytes -= c->request.consumed;
		if (c->in_bytes == 0) {
			return true;
		}
	}
}

static void fake_down(struct fake *fake)
{
	for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++) {
		if (fake->connections[i]) {
			fake_hang_up(fake, i);
		}
	}
	if (fake->listener >= 0) {
		(void)shutdown(fake->listener, SHUT_RDWR);
		close(fake->listener);
		(void)unlink(fake->socket_path);
		fake->listener = -1;
	}
}

static void fake_accept(struct fake *fake)
{
	int fd = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0) {
		return;
	}
	fake->accepted++;
	if (fake->leave_at_accept) {
		fake->leave_at_accept = false;
		close(fd);
		fake_down(fake);
		return;
	}
	if (fake->refusal && send(fd, fake->refusal, strlen(fake->refusal), MSG_NOSIGNAL) < 0) {
		fake_bail("refusal");
	}
	bool wanted = !fake->refusal && !fake->hang_up_at_accept;
	for (size_t i = 0; i < FAKE_CONNECTIONS_MAX && wanted; i++) {
		if (!fake->connections[i]) {
			fake->connections[i] = calloc(1, sizeof(struct fake_connection));
			fake->connections[i]->fd = fd;
			return;
		}
	}
	close(fd);
}

static void *fake_main(void *context)
{
	struct fake *fake = context;
	pthread_mutex_lock(&fake->mutex);
	while (!fake->stopping) {
		struct pollfd fds[FAKE_CONNECTIONS_MAX + 2];
		fds[0] = (struct pollfd){ .fd = fake->wake[0], .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = fake->listener, .events = POLLIN };
		for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++) {
			const struct fake_connection *c = fake->connections[i];
			fds[i + 2] = (struct pollfd){ .fd = c ? c->fd : -1, .events = POLLIN };
		}
		pthread_mutex_unlock(&fake->mutex);
		(void)poll(fds, FAKE_CONNECTIONS_MAX + 2, -1);
		pthread_mutex_lock(&fake->mutex);
		if (fds[0].revents) {
			char byte;
			if (read(fake->wake[0], &byte, 1) != 1) {
				fake_bail("wake");
			}
			continue; // what was polled may be closed by now
		}
		if (fds[1].revents) {
			fake_accept(fake);
		}
		for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++) {
			if (fds[i + 2].revents && fake->connections[i] &&
			    !fake_serve(fake, fake->connections[i])) {
				fake_hang_up(fake, i);
			}
		}
	}
	pthread_mutex_unlock(&fake->mutex);
	return NULL;
}

static void fake_wake(struct fake *fake)
{
	if (write(fake->wake[1], "x", 1) != 1) {
		fake_bail("wake");
	}
}

static void fake_listen(struct fake *fake)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", fake->socket_path);
	(void)unlink(fake->socket_path);
	fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fake->listener < 0 ||
	    bind(fake->listener, (const struct sockaddr *)(const void *)&address,
		 sizeof(address)) != 0 ||
	    listen(fake->listener, 16) != 0) {
		fake_bail("listen");
	}
}

void fake_say_generation(struct fake *fake, uint64_t generation, uint64_t instance_id)
{
	fake->said = (struct kvs_generation){ .generation = generation,
					      .named = generation,
					      .instance_id = instance_id };
	if (pwrite(fake->gen_fd, &fake->said, sizeof(fake->said), 0) !=
	    (ssize_t)sizeof(fake->said)) {
		fake_bail("kvd.gen");
	}
}

// As the kernel at kvd's end.
static void fake_writer(struct fake *fake, uint32_t writer)
{
	kvs_store_release_32(&fake->fixture.region.header->hot.writer, writer);
}

static void fake_new_region(struct fake *fake, uint64_t memory_bytes)
{
	fixture_open(&fake->fixture, memory_bytes, KVS_SEGMENT_BYTES_MIN);
	struct kvs_region *region = &fake->fixture.region;
	region->header->instance_id += fake->said.generation; // another one's
	region->map.instance_id = region->header->instance_id;
	fake_writer(fake, ++fake->writer);
	fake_say_generation(fake, fake->said.generation + 1, region->header->instance_id);
}

void fake_start(struct fake *fake, uint64_t memory_bytes)
{
	memset(fake, 0, sizeof(*fake));
	const char *temporary = getenv("TMPDIR");
	(void)snprintf(fake->dir, sizeof(fake->dir), "%s/kvc-XXXXXX",
		       temporary ? temporary : "/tmp");
	if (!mkdtemp(fake->dir)) {
		fake_bail("mkdtemp");
	}
	(void)snprintf(fake->socket_path, sizeof(fake->socket_path), "%s/kvd.sock", fake->dir);
	(void)snprintf(fake->gen_path, sizeof(fake->gen_path), "%s/kvd.gen", fake->dir);
	fake->gen_fd = open(fake->gen_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fake->gen_fd < 0 || ftruncate(fake->gen_fd, KVS_PAGE_BYTES) != 0 ||
	    pipe2(fake->wake, O_CLOEXEC) != 0) {
		fake_bail("kvd.gen");
	}
	pthread_mutex_init(&fake->mutex, NULL);
	fake_new_region(fake, memory_bytes);
	fake_listen(fake);
	if (pthread_create(&fake->thread, NULL, fake_main, fake) != 0) {
		fake_bail("thread");
	}
}

static void fake_drop_pages(struct fake *fake)
{
	for (size_t i = 0; i < fake->pages_count; i++) {
		struct kvs_reader_page *page = fake->pages[i]->page;
		kvs_epoch_remove(&fake->fixture.epochs, fake->pages[i]);
		munmap(page, KVS_PAGE_FILE_BYTES);
	}
	fake->pages_count = 0;
}

void fake_stop(struct fake *fake)
{
	fake_set(fake, stopping, true);
	fake_wake(fake);
	pthread_join(fake->thread, NULL);
	fake_down(fake);
	fake_drop_pages(fake);
	fixture_close(&fake->fixture);
	close(fake->gen_fd);
	(void)unlink(fake->gen_path);
	close(fake->wake[0]);
	close(fake->wake[1]);
	(void)rmdir(fake->dir);
	pthread_mutex_destroy(&fake->mutex);
}

void fake_kill(struct fake *fake)
{
	pthread_mutex_lock(&fake->mutex);
	fake_writer(fake, KVS_WRITER_DIED);
	fake_down(fake);
	pthread_mutex_unlock(&fake->mutex);
	fake_wake(fake);
}

void fake_revive(struct fake *fake, bool adopt)
{
	pthread_mutex_lock(&fake->mutex);
	fake_drop_pages(fake);
	if (adopt) {
		kvs_epoch_hold(&fake->fixture.epochs, &fake->fixture.region.header->adoptions);
		fake_writer(fake, ++fake->writer);
		kvs_epoch_adopt(&fake->fixture.epochs, fake->fixture.now_ns);
	} else {
		uint64_t memory_bytes = fake->fixture.region.memory_bytes;
		fixture_close(&fake->fixture);
		fake_new_region(fake, memory_bytes);
	}
	fake_listen(fake);
	pthread_mutex_unlock(&fake->mutex);
	fake_wake(fake);
}

void fake_detach(struct fake *fake)
{
	pthread_mutex_lock(&fake->mutex);
	for (size_t i = 0; i < fake->pages_count; i++) {
		kvs_epoch_detach(&fake->fixture.epochs, fake->pages[i]);
	}
	pthread_mutex_unlock(&fake->mutex);
}

uint64_t fake_get(struct fake *fake, const uint64_t *field)
{
	pthread_mutex_lock(&fake->mutex);
	uint64_t value = *field;
	pthread_mutex_unlock(&fake->mutex);
	return value;
}

kvc *fake_client(struct fake *fake, kvc_reader **reader, uint32_t flags)
{
	struct kvc_options options;
	kvc *client;
	kvc_options_init(&options);
	options.socket_path = fake->socket_path;
	options.flags = flags;
	options.connect_timeout_ms = options.request_timeout_ms = 60000; // machines may be slow
	options.reconnect_min_ms = 1;
	options.reconnect_max_ms = 4;
	if (kvc_open(&client, &options) != KVC_OK || kvc_reader_open(client, reader) != KVC_OK) {
		fake_bail("cannot open a client");
	}
	return client;
}

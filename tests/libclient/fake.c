// SPDX-License-Identifier: MIT
#include "tests/libclient/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shm/resp.h"

#define FAKE_STUB_BYTE 's' // what a stub's value consists of, as the socket answers it

struct fake_connection {
	int fd;
	char *in;
	size_t in_bytes, in_capacity;
	struct resp_request_state state;
	struct resp_request request;
	char *out;
	size_t out_bytes, out_capacity;
	int fds[3];
	unsigned fds_count; // ride on the next send
	bool multi;
	size_t queued;
	char *queue; // GETV replies of a transaction, ready
	size_t queue_bytes, queue_capacity;
};

__attribute__((noreturn)) static void fake_bail(const char *what)
{
	printf("Bail out! fake kvd: %s: %s\n", what, strerror(errno));
	exit(99);
}

static void fake_grow(char **data, size_t *capacity, size_t needed)
{
	if (needed > *capacity) {
		*capacity = needed * 2;
		*data = realloc(*data, *capacity);
		if (!*data) {
			fake_bail("realloc");
		}
	}
}

static void fake_append(struct fake_connection *c, const void *data, size_t bytes)
{
	fake_grow(&c->out, &c->out_capacity, c->out_bytes + bytes);
	memcpy(c->out + c->out_bytes, data, bytes);
	c->out_bytes += bytes;
}

__attribute__((format(printf, 2, 3))) static void fake_say(struct fake_connection *c,
							   const char *format, ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	int bytes = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fake_append(c, text, (size_t)bytes);
}

static void fake_hang_up(struct fake *fake, size_t i)
{
	struct fake_connection *c = fake->connections[i];
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

static int fake_page(struct fake *fake)
{
	int fd = memfd_create("fake-page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, KVS_PAGE_BYTES) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
		fake_bail("page");
	}
	void *at = mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct kvs_epoch_page *page =
		at == MAP_FAILED ? NULL : kvs_epoch_add(&fake->fixture.epochs, at, fake);
	if (!page || fake->pages_count == FAKE_PAGES_MAX) {
		fake_bail("page in the domain");
	}
	fake->pages[fake->pages_count++] = page;
	return fd;
}

static void fake_reply_attach(struct fake *fake, struct fake_connection *c, bool page_only)
{
	const struct kvs_region *region = &fake->fixture.region;
	unsigned fds = page_only ? 1 : 3;
	switch (fake->attach) {
	case FAKE_ATTACH_REFUSED:
		fake_say(c, "-ERR KVD.ATTACH: no\r\n");
		return;
	case FAKE_ATTACH_UNKNOWN:
		fake_say(c, "-ERR unknown command 'KVD.ATTACH', with args beginning with: \r\n");
		return;
	case FAKE_ATTACH_SILENT:
		return;
	default:
		break;
	}
	fake->attached++;
	if (fake->attach != FAKE_ATTACH_NO_FDS) {
		if (!page_only) {
			c->fds[c->fds_count++] = fcntl(region->fd_readonly, F_DUPFD_CLOEXEC, 0);
		}
		c->fds[c->fds_count++] = fake_page(fake);
		if (!page_only) {
			c->fds[c->fds_count++] = fcntl(fake->gen_fd, F_DUPFD_CLOEXEC, 0);
		}
	}
	uint32_t layout = kvs_layout_fingerprint() + (fake->attach == FAKE_ATTACH_LAYOUT);
	fake_say(c, "*8\r\n$5\r\nproto\r\n:1\r\n$6\r\nlayout\r\n:%u\r\n$3\r\nfds\r\n:%u\r\n",
		 layout, fds);
	fake_say(c, "$3\r\ngen\r\n:%llu\r\n", (unsigned long long)*fake->gen);
}

static void fake_reply_getv(struct fake *fake, struct fake_connection *c,
			    const struct resp_arg *key)
{
	struct kvs_hit hit;
	if (fixture_find(&fake->fixture.region.map, key->data, key->bytes, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE) {
		fake_say(c, "$-1\r\n");
		return;
	}
	size_t bytes = hit.view.value_bytes;
	fake_say(c, "*4\r\n$%zu\r\n", bytes);
	if (hit.value) {
		fake_append(c, hit.value, bytes);
	} else {
		fake_grow(&c->out, &c->out_capacity, c->out_bytes + bytes);
		memset(c->out + c->out_bytes, FAKE_STUB_BYTE, bytes);
		c->out_bytes += bytes;
	}
	fake_say(c, "\r\n:%llu\r\n:-1\r\n:%llu\r\n", (unsigned long long)hit.view.seq,
		 (unsigned long long)kvs_record_time_ms(hit.view.record));
}

static bool fake_is(const struct resp_request *r, const char *word)
{
	return r->argc > 0 && r->argv[0].bytes == strlen(word) &&
	       memcmp(r->argv[0].data, word, strlen(word)) == 0;
}

static void fake_reply_set(struct fake *fake, struct fake_connection *c,
			   const struct resp_request *r)
{
	struct kvs_hit hit;
	bool there = fixture_find(&fake->fixture.region.map, r->argv[1].data, r->argv[1].bytes,
				  &hit) == KVS_FIND_HIT;
	if (r->argc > 3 && r->argv[3].data[0] == 'N' && there) {
		fake_say(c, "$-1\r\n");
		return;
	}
	if (r->argv[2].bytes > KVS_SEGMENT_BYTES_MIN / 2) {
		fake_say(c, "-OOM no room here\r\n");
		return;
	}
	uint64_t seq = fixture_set(&fake->fixture, r->argv[1].data, r->argv[1].bytes,
				   r->argv[2].data, r->argv[2].bytes);
	if (seq == 0) {
		fake_bail("no room in the region");
	}
	fake_say(c, ":%llu\r\n", (unsigned long long)seq);
}

// One command outside a transaction.
static void fake_command(struct fake *fake, struct fake_connection *c, const struct resp_request *r)
{
	const struct kvs_watermarks *marks = &fake->fixture.region.header->marks;
	if (fake_is(r, "KVD.GETV") && r->argc == 2) {
		fake_reply_getv(fake, c, &r->argv[1]);
	} else if (fake_is(r, "KVD.SET") && r->argc >= 3) {
		fake_reply_set(fake, c, r);
	} else if (fake_is(r, "KVD.WATERMARKS")) {
		fake_say(c, "*2\r\n:%llu\r\n:%llu\r\n", (unsigned long long)marks->applied_seq,
			 (unsigned long long)marks->durable_seq);
	} else if (fake_is(r, "KVD.SYNC")) {
		fake_say(c, "+OK\r\n");
	} else if (fake_is(r, "DEL") && r->argc == 2) {
		fake_say(c, ":%d\r\n",
			 fixture_remove(&fake->fixture, r->argv[1].data, r->argv[1].bytes));
	} else if (fake_is(r, "ECHO") && r->argc == 2) {
		fake_say(c, "$%zu\r\n", r->argv[1].bytes);
		fake_append(c, r->argv[1].data, r->argv[1].bytes);
		fake_say(c, "\r\n");
	} else {
		fake_say(c, "-ERR unknown command '%.*s'\r\n", (int)r->argv[0].bytes,
			 r->argv[0].data);
	}
}

// MULTI runs its commands at once and keeps their replies for EXEC: there is one thread here.
static bool fake_transaction(struct fake *fake, struct fake_connection *c,
			     const struct resp_request *r)
{
	if (fake_is(r, "MULTI")) {
		c->multi = true;
		c->queued = c->queue_bytes = 0;
		fake_say(c, "+OK\r\n");
		return true;
	}
	if (!c->multi) {
		return false;
	}
	if (fake_is(r, "EXEC")) {
		c->multi = false;
		fake_say(c, "*%zu\r\n", c->queued);
		fake_append(c, c->queue, c->queue_bytes);
		return true;
	}
	size_t before = c->out_bytes;
	fake_command(fake, c, r);
	size_t bytes = c->out_bytes - before;
	fake_grow(&c->queue, &c->queue_capacity, c->queue_bytes + bytes);
	memcpy(c->queue + c->queue_bytes, c->out + before, bytes);
	c->queue_bytes += bytes;
	c->out_bytes = before;
	c->queued++;
	fake_say(c, "+QUEUED\r\n");
	return true;
}

// Runs one request. False: hang up.
static bool fake_run(struct fake *fake, struct fake_connection *c)
{
	const struct resp_request *r = &c->request;
	if (fake_is(r, "CLIENT") && r->argc == 3) {
		(void)snprintf(fake->name, sizeof(fake->name), "%.*s", (int)r->argv[2].bytes,
			       r->argv[2].data);
		fake_say(c, "+OK\r\n");
		return true;
	}
	if (fake_is(r, "KVD.ATTACH")) {
		fake_reply_attach(fake, c, r->argc == 2);
		return true;
	}
	fake->requests++;
	(void)snprintf(fake->last, sizeof(fake->last), "%.*s", (int)r->argv[0].bytes,
		       r->argv[0].data);
	switch (fake->request) {
	case FAKE_SILENT:
		return true;
	case FAKE_HANG_UP:
		return false;
	case FAKE_ERROR:
		fake_say(c, "-%s\r\n", fake->error);
		return true;
	case FAKE_GARBAGE:
		fake_say(c, "what?\r\n");
		return true;
	case FAKE_ANSWER:
		break;
	}
	if (!fake_transaction(fake, c, r)) {
		fake_command(fake, c, r);
	}
	return true;
}

static bool fake_send(struct fake_connection *c)
{
	size_t sent = 0;
	while (sent < c->out_bytes) {
		struct iovec iov = { .iov_base = c->out + sent, .iov_len = c->out_bytes - sent };
		union {
			char bytes[CMSG_SPACE(3 * sizeof(int))];
			struct cmsghdr align;
		} control;
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

static void fake_accept(struct fake *fake)
{
	int fd = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0) {
		return;
	}
	fake->accepted++;
	for (size_t i = 0; i < FAKE_CONNECTIONS_MAX && !fake->hang_up_at_accept; i++) {
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
	fake->gen_fd = memfd_create("fake-gen", MFD_CLOEXEC);
	if (fake->gen_fd < 0 || ftruncate(fake->gen_fd, KVS_PAGE_BYTES) != 0 ||
	    pipe2(fake->wake, O_CLOEXEC) != 0) {
		fake_bail("kvd.gen");
	}
	fake->gen = mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fake->gen_fd, 0);
	kvs_store_release(fake->gen, 1);
	pthread_mutex_init(&fake->mutex, NULL);
	fixture_open(&fake->fixture, memory_bytes, KVS_SEGMENT_BYTES_MIN);
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
		munmap(page, KVS_PAGE_BYTES);
	}
	fake->pages_count = 0;
}

static void fake_down(struct fake *fake)
{
	for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++) {
		if (fake->connections[i]) {
			fake_hang_up(fake, i);
		}
	}
	if (fake->listener >= 0) {
		close(fake->listener);
		(void)unlink(fake->socket_path);
		fake->listener = -1;
	}
}

void fake_stop(struct fake *fake)
{
	fake_set(fake, stopping, true);
	fake_wake(fake);
	pthread_join(fake->thread, NULL);
	fake_down(fake);
	fake_drop_pages(fake);
	fixture_close(&fake->fixture);
	munmap(fake->gen, KVS_PAGE_BYTES);
	close(fake->gen_fd);
	close(fake->wake[0]);
	close(fake->wake[1]);
	(void)rmdir(fake->dir);
	pthread_mutex_destroy(&fake->mutex);
}

void fake_kill(struct fake *fake)
{
	pthread_mutex_lock(&fake->mutex);
	fake_down(fake);
	pthread_mutex_unlock(&fake->mutex);
	fake_wake(fake);
}

void fake_revive(struct fake *fake, bool adopt)
{
	pthread_mutex_lock(&fake->mutex);
	fake_drop_pages(fake);
	if (adopt) {
		struct kvs_hot *hot = &fake->fixture.region.header->hot;
		kvs_store_release(&hot->incarnation, kvs_load_relaxed(&hot->incarnation) + 1);
	} else {
		uint64_t memory_bytes = fake->fixture.region.memory_bytes;
		fixture_close(&fake->fixture);
		fixture_open(&fake->fixture, memory_bytes, KVS_SEGMENT_BYTES_MIN);
		kvs_store_release(fake->gen, kvs_load_relaxed(fake->gen) + 1);
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

// What fixture_set() does, for any kind of record; applied_seq is the caller's.
static uint64_t fake_write(struct fixture *f, const char *key, struct kvs_record_spec *spec,
			   enum kvs_entry_kind kind)
{
	spec->key = key;
	spec->key_bytes = (uint32_t)strlen(key);
	spec->seq = f->log.next_seq;
	spec->time_ms = KVS_TIME_ORIGIN_MS + spec->seq;
	uint64_t bytes =
		kvs_record_bytes(spec->key_bytes, spec->payload_bytes, spec->expiry_ms != 0);
	uint64_t hash = kvs_hash(f->region.map.hash_seed, key, spec->key_bytes);
	if (kvs_table_secure(&f->table, 1) != 0 || kvs_log_secure(&f->log, bytes, bytes, 0) != 0) {
		fake_bail("no room in the log");
	}
	uint64_t offset;
	void *at = kvs_log_append(&f->log, (uint32_t)bytes, &offset);
	uint32_t written = kvs_record_write(at, spec);
	uint64_t entry = kvs_entry_make(hash, kind, written, offset);
	struct kvs_hit hit;
	if (kvs_table_find(&f->region.map, hash, key, spec->key_bytes, &hit) == KVS_FIND_HIT) {
		kvs_table_replace(hit.slot, entry);
	} else if (!kvs_table_insert(&f->table, hash, entry)) {
		fake_bail("no room in the table");
	}
	kvs_log_publish(&f->log);
	return spec->seq;
}

static void fake_put_spec(struct fake *fake, const char *key, struct kvs_record_spec spec,
			  enum kvs_entry_kind kind)
{
	pthread_mutex_lock(&fake->mutex);
	struct kvs_watermarks *marks = &fake->fixture.region.header->marks;
	if (kind == KVS_ENTRY_TOMBSTONE) {
		kvs_store_release(&marks->last_removal_seq, fake->fixture.log.next_seq);
	}
	uint64_t seq = fake_write(&fake->fixture, key, &spec, kind);
	kvs_store_release(&marks->applied_seq, seq);
	pthread_mutex_unlock(&fake->mutex);
}

void fake_put(struct fake *fake, const char *key, const void *value, size_t value_bytes,
	      uint64_t expiry_ms)
{
	struct kvs_record_spec spec = { .payload = value,
					.payload_bytes = (uint32_t)value_bytes,
					.value_bytes = (uint32_t)value_bytes,
					.expiry_ms = expiry_ms };
	fake_put_spec(fake, key, spec, KVS_ENTRY_VALUE);
}

void fake_put_text(struct fake *fake, const char *key, const char *value)
{
	fake_put(fake, key, value, strlen(value), 0);
}

void fake_put_stub(struct fake *fake, const char *key, size_t value_bytes)
{
	struct kvs_record_spec spec = { .value_bytes = (uint32_t)value_bytes,
					.flags = KVS_RECORD_STUB };
	fake_put_spec(fake, key, spec, KVS_ENTRY_STUB);
}

void fake_put_tombstone(struct fake *fake, const char *key)
{
	struct kvs_record_spec spec = { .flags = KVS_RECORD_TOMBSTONE };
	fake_put_spec(fake, key, spec, KVS_ENTRY_TOMBSTONE);
}

void fake_put_batch(struct fake *fake, const char *const *keys, size_t count, const void *value,
		    size_t value_bytes)
{
	pthread_mutex_lock(&fake->mutex);
	uint64_t seq = 0;
	for (size_t i = 0; i < count; i++) {
		struct kvs_record_spec spec = {
			.payload = value,
			.payload_bytes = (uint32_t)value_bytes,
			.value_bytes = (uint32_t)value_bytes,
			.flags = i + 1 < count ? KVS_RECORD_MORE : 0,
		};
		seq = fake_write(&fake->fixture, keys[i], &spec, KVS_ENTRY_VALUE);
	}
	kvs_store_release(&fake->fixture.region.header->marks.applied_seq, seq);
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
	options.request_timeout_ms = 2000;
	options.reconnect_min_ms = 1;
	options.reconnect_max_ms = 4;
	if (kvc_open(&client, &options) != KVC_OK || kvc_reader_open(client, reader) != KVC_OK) {
		fake_bail("cannot open a client");
	}
	return client;
}

// SPDX-License-Identifier: MIT
//
// What the fake kvd answers: KVD.ATTACH with its descriptors, and the few commands the tests need.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/libclient/fake_internal.h"

#define FAKE_STUB_BYTE 's' // what a stub's value consists of, as the socket answers it

void fake_bail(const char *what)
{
	printf("Bail out! fake kvd: %s: %s\n", what, strerror(errno));
	exit(99);
}

void fake_grow(char **data, size_t *capacity, size_t needed)
{
	if (needed > *capacity) {
		*capacity = needed * 2;
		*data = realloc(*data, *capacity);
		if (!*data) {
			fake_bail("realloc");
		}
	}
}

void fake_append(struct fake_connection *c, const void *data, size_t bytes)
{
	fake_grow(&c->out, &c->out_capacity, c->out_bytes + bytes);
	memcpy(c->out + c->out_bytes, data, bytes);
	c->out_bytes += bytes;
}

void fake_say(struct fake_connection *c, const char *format, ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	int bytes = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fake_append(c, text, (size_t)bytes);
}

static int fake_page(struct fake *fake)
{
	int fd = memfd_create("fake-page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int shrink = fake->attach == FAKE_ATTACH_UNSEALED ? 0 : F_SEAL_SHRINK;
	off_t bytes = fake->ringless ? (off_t)KVS_PAGE_BYTES : (off_t)KVS_PAGE_FILE_BYTES;
	if (fd < 0 || ftruncate(fd, bytes) != 0 ||
	    fcntl(fd, F_ADD_SEALS, shrink | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
		fake_bail("page");
	}
	void *at = mmap(NULL, KVS_PAGE_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct kvs_epoch_page *page =
		at == MAP_FAILED ? NULL : kvs_epoch_add(&fake->fixture.epochs, at, fake);
	if (!page || fake->pages_count == FAKE_PAGES_MAX) {
		fake_bail("page in the domain");
	}
	page->page->header.rings = fake->ringless || fake->rings_unsaid ? 0 : 1;
	fake->pages[fake->pages_count++] = page;
	return fd;
}

// Adds a descriptor to the next reply, or the one that is to be passed instead.
static void fake_pass(struct fake *fake, struct fake_connection *c, unsigned place, int fd)
{
	int other = fake->fds_instead[place];
	int copy = fcntl(other > 0 ? other : fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0 || c->fds_count == sizeof(c->fds) / sizeof(c->fds[0])) {
		fake_bail("a descriptor to pass");
	}
	c->fds[c->fds_count++] = copy;
}

// As kvd: an open file of the client's own.
static void fake_pass_gen(struct fake *fake, struct fake_connection *c)
{
	char path[32];
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fake->gen_fd);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fake_bail("kvd.gen to pass");
	}
	fake_pass(fake, c, 2, fd);
	close(fd);
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
			fake_pass(fake, c, 0, region->fd_readonly);
		}
		int page = fake_page(fake);
		fake_pass(fake, c, 1, page);
		close(page);
		if (!page_only) {
			fake_pass_gen(fake, c);
		}
		for (unsigned i = 0; i < fake->fds_more; i++) {
			fake_pass(fake, c, 2, fake->gen_fd);
		}
	}
	if (fake->attach == FAKE_ATTACH_SAYS) {
		fake_append(c, fake->says, strlen(fake->says));
		return;
	}
	uint32_t layout = kvs_layout_fingerprint() + (fake->attach == FAKE_ATTACH_LAYOUT);
	fake_say(c, "*10\r\n$5\r\nproto\r\n:1\r\n$6\r\nlayout\r\n:%u\r\n$3\r\nfds\r\n:%u\r\n",
		 layout, fds);
	fake_say(c, "$3\r\ngen\r\n:%llu\r\n", (unsigned long long)fake->said.generation);
	fake_say(c, "$11\r\nincarnation\r\n:%llu\r\n",
		 (unsigned long long)(region->header->hot.incarnation -
				      (fake->attach == FAKE_ATTACH_OVERTAKEN)));
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
bool fake_run(struct fake *fake, struct fake_connection *c)
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
	case FAKE_SAYS:
		for (unsigned i = 0; i < fake->fds_more; i++) {
			fake_pass(fake, c, 2, fake->gen_fd);
		}
		fake_append(c, fake->says, strlen(fake->says));
		return true;
	case FAKE_ANSWER:
		break;
	}
	if (!fake_transaction(fake, c, r)) {
		fake_command(fake, c, r);
	}
	return true;
}

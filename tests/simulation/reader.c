// SPDX-License-Identifier: MIT
//
// Processes that map the region. They attach as libkvclient does and read by the read side of shm,
// between any two steps of kvd: what they find must be what the model has at that moment, and what
// they hold must not change until the end of the section, unless that says that it was taken back.
// Some die inside a section, some stay in it for so long that they are sent away.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/epoch.h"
#include "shm/generation.h"
#include "shm/layout.h"
#include "shm/map.h"
#include "shm/table.h"
#include "tests/simulation/sim.h"

#define HELD_MAX 4u

struct held {
	const unsigned char *at;
	unsigned char *copy;
	size_t bytes;
};

struct reader {
	bool *dead; // of the process that it is now
	int pid;
	struct sim_conn *conn;
	bool asked, attached, inside;
	struct sim_text in;
	struct kvs_map map;
	struct kvs_reader_page *page;
	struct kvs_slot *slot;
	struct kvs_hot *hot;
	int gen_fd;
	uint32_t writer;
	uint64_t gen, incarnation;
	uint64_t stuck_until_ns;
	struct held held[HELD_MAX];
	unsigned held_count;
};

static struct reader readers[SIM_READERS_MAX];

static void reader_born(struct reader *reader)
{
	static int pid = 2000;
	*reader = (struct reader){ .dead = sim_alloc(sizeof(bool)), .pid = pid++ };
}

void sim_readers_begin(void)
{
	for (unsigned i = 0; i < sim.plan.readers; i++) {
		reader_born(&readers[i]);
	}
}

static void reader_detach(struct reader *reader)
{
	if (reader->conn != NULL) {
		sim_conn_close(reader->conn, false);
	}
	if (reader->attached) {
		kvs_map_close(&reader->map);
		(void)close(reader->gen_fd);
	}
	bool *dead = reader->dead;
	*reader = (struct reader){ .dead = dead, .pid = reader->pid };
}

static void reader_dies(struct reader *reader)
{
	sim_note("reader %d dies %s", reader->pid, reader->inside ? "inside" : "outside");
	*reader->dead = true;
	sim_process_ended();
	reader_detach(reader);
	reader_born(reader);
}

static uint64_t number_behind(const char *text, const char *name)
{
	const char *at = strstr(text, name);
	if (at == NULL) {
		sim_fail("KVD.ATTACH does not tell %s", name);
	}
	return strtoull(at + strlen(name), NULL, 10);
}

static const void *map_page(int fd, int protection)
{
	void *at = mmap(NULL, KVS_PAGE_BYTES, protection, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED) {
		sim_fail("a page that kvd sent cannot be mapped");
	}
	return at;
}

static void reader_attached(struct reader *reader, const int *fds)
{
	sim_text_add(&reader->in, "", 1);
	reader->gen = number_behind(reader->in.data, "\r\ngen\r\n:");
	reader->incarnation = number_behind(reader->in.data, "\r\nincarnation\r\n:");
	int result = kvs_map_open(&reader->map, fds[0]);
	reader->page =
		(struct kvs_reader_page *)(uintptr_t)map_page(fds[1], PROT_READ | PROT_WRITE);
	reader->gen_fd = fds[2];
	(void)close(fds[0]);
	(void)close(fds[1]);
	if (result == KVS_MAP_NOT_ALIVE) { // it stopped meanwhile
		(void)close(fds[2]);
		reader_detach(reader);
		return;
	}
	if (result != KVS_MAP_OK) {
		sim_fail("a region that kvd sent cannot be mapped (%d)", result);
	}
	reader->slot = &reader->page->slot[sim_below(KVS_READERS_PER_PAGE)];
	reader->hot = (struct kvs_hot *)(uintptr_t)&kvs_map_header(&reader->map)->hot;
	reader->writer = kvs_load_relaxed_32(&reader->hot->writer);
	reader->attached = true;
	sim_note("reader %d is attached", reader->pid);
}

static void reader_attach(struct reader *reader)
{
	static const char request[] = "*1\r\n$10\r\nKVD.ATTACH\r\n";
	if (reader->conn == NULL) {
		reader->conn = sim_connect(reader->pid, 300, reader->dead);
		return;
	}
	if (!reader->asked) {
		sim_conn_send(reader->conn, request, sizeof(request) - 1);
		reader->asked = true;
	}
	(void)sim_conn_deliver(reader->conn, true);
	char bytes[1024];
	long count = sim_conn_take(reader->conn, bytes, sizeof(bytes));
	if (count < 0) {
		reader_detach(reader);
		return;
	}
	sim_text_add(&reader->in, bytes, (size_t)count);
	if (reader->in.bytes > 0 && reader->in.data[0] == '-' && sim.refused > 0) {
		reader_detach(reader); // perhaps another time
		return;
	}
	int fds[8];
	bool is_whole = reader->in.bytes > 0 &&
			memmem(reader->in.data, reader->in.bytes, "\r\ngen\r\n:", 8) != NULL &&
			reader->in.data[reader->in.bytes - 1] == '\n';
	if (is_whole) {
		if (sim_conn_fds(reader->conn, fds) != 3) {
			sim_fail("KVD.ATTACH sends no descriptors");
		}
		reader_attached(reader, fds);
	}
}

// As libclient/attach.c: may the region of a life that is over be read as if in its last epoch?
static bool reader_is_honoured(const struct reader *reader, uint64_t *last_epoch)
{
	uint64_t since = kvs_load_acquire(&reader->hot->incarnation) - reader->incarnation;
	*last_epoch = 0;
	if (since == 0) {
		return true;
	}
	const struct kvs_adoptions *adoptions = &kvs_map_header(&reader->map)->adoptions;
	uint64_t next = reader->incarnation + 1;
	uint64_t boundary = kvs_load_relaxed(&adoptions->epoch[next % KVS_ADOPTIONS_KEPT]);
	if (since >= KVS_ADOPTIONS_KEPT || boundary == 0 ||
	    kvs_load_relaxed(&reader->hot->oldest_valid) >= boundary) {
		return false;
	}
	*last_epoch = boundary - 1;
	return true;
}

// As libclient/serving.c.
static bool reader_is_served(const struct reader *reader)
{
	struct kvs_generation said;
	uint32_t writer = kvs_load_acquire_32(&reader->hot->writer);
	if (kvs_writer_is_there(writer) && writer == reader->writer) {
		return true;
	}
	return kvs_generation_read(reader->gen_fd, &said) &&
	       kvs_generation_names(&said, reader->gen, reader->map.instance_id);
}

static bool reader_enter(struct reader *reader)
{
	uint64_t last_epoch;
	(void)kvs_epoch_enter(reader->slot, reader->hot, true);
	bool honoured = reader_is_honoured(reader, &last_epoch);
	if (last_epoch > 0) {
		kvs_store_relaxed(&reader->slot->word, last_epoch << KVS_EPOCH_SHIFT | 1);
	}
	if (honoured && reader_is_served(reader) &&
	    kvs_load_relaxed(&reader->page->header.state) == KVS_PAGE_ATTACHED) {
		reader->inside = true;
		reader->stuck_until_ns = sim_chance(20) ? sim.mono_ns + sim_below(10000000000) : 0;
		return true;
	}
	kvs_store_release(&reader->slot->word, 0);
	return false;
}

static void reader_check_held(const struct reader *reader, const char *when)
{
	for (unsigned i = 0; i < reader->held_count; i++) {
		const struct held *held = &reader->held[i];
		if (memcmp(held->at, held->copy, held->bytes) != 0) {
			sim_fail("reader %d: a view of %zu bytes changed %s", reader->pid,
				 held->bytes, when);
		}
	}
}

static void reader_leave(struct reader *reader)
{
	bool good = kvs_epoch_leave(reader->slot, reader->hot);
	if (good) {
		reader_check_held(reader, "and its section was good");
	} else {
		sim_note("reader %d was revoked", reader->pid);
		sim.revoked++;
	}
	reader->held_count = 0;
	reader->inside = false;
}

static void reader_get(struct reader *reader)
{
	unsigned index = (unsigned)sim_below(sim_chance(2) ? sim.plan.keys : sim_model_keys());
	const struct sim_key *key = sim_model_key(index);
	uint64_t hash = kvs_map_hash(&reader->map, key->name, key->name_bytes);
	struct kvs_hit hit;
	enum kvs_find_result found =
		kvs_table_find(&reader->map, hash, key->name, key->name_bytes, &hit);
	if (found == KVS_FIND_UNMAPPED) {
		if (kvs_map_extend(&reader->map) != 0) {
			sim_fail("the map cannot be extended");
		}
		found = kvs_table_find(&reader->map, hash, key->name, key->name_bytes, &hit);
	}
	// A section that was taken back, or is of an older life, may see anything.
	if (!kvs_epoch_still_good(reader->slot, reader->hot) || !reader_is_served(reader) ||
	    reader->map.instance_id != sim.instance) {
		return;
	}
	sim.gets++;
	if (found == KVS_FIND_MOVING) {
		return;
	}
	if (found != KVS_FIND_HIT && found != KVS_FIND_ABSENT) {
		sim_fail("reader %d: looking up %s gives %d", reader->pid, key->name, (int)found);
	}
	if (found == KVS_FIND_ABSENT || hit.kind == KVS_ENTRY_TOMBSTONE) {
		sim_model_saw(index, NULL, 0, 0);
		return;
	}
	if (hit.kind == KVS_ENTRY_STUB) {
		sim_model_saw_stub(index, hit.view.value_bytes);
		return;
	}
	sim_model_saw(index, hit.value, hit.view.value_bytes, hit.view.seq);
	if (reader->held_count < HELD_MAX) {
		struct held *held = &reader->held[reader->held_count++];
		held->at = hit.value;
		held->bytes = hit.view.value_bytes;
		held->copy = sim_alloc(held->bytes + 1);
		memcpy(held->copy, held->at, held->bytes);
	}
}

void sim_reader_step(void)
{
	if (sim.plan.readers == 0) {
		return;
	}
	struct reader *reader = &readers[sim_below(sim.plan.readers)];
	if (!reader->attached) {
		if (sim.up) {
			reader_attach(reader);
		}
		return;
	}
	if (!sim.quiet && sim_chance(400)) {
		reader_dies(reader);
	} else if (!reader->inside) {
		if (!reader_enter(reader)) {
			reader_detach(reader);
		}
	} else if (sim.mono_ns < reader->stuck_until_ns || sim_chance(3)) {
		if (kvs_epoch_still_good(reader->slot, reader->hot)) {
			reader_check_held(reader, "inside its section");
		}
	} else if (sim_chance(3)) {
		reader_leave(reader);
	} else {
		reader_get(reader);
	}
}

// SPDX-License-Identifier: MIT
//
// The keeper, the kernel's part in kvd's presence, and the inspector. The keeper holds the region
// of the last life, as systemd's store of descriptors does, unless the seed says there is none.
// The inspector has the plan phase of adoption look at the region, which reads and checks all of
// it: after each crash, and now and then while kvd serves.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/fdstore.h"
#include "daemon/keyspace_internal.h"
#include "daemon/kvd.h"
#include "daemon/presence.h"
#include "shm/adopt.h"
#include "shm/layouts.h"
#include "tests/simulation/sim.h"

struct kept {
	char name[FDSTORE_NAME_BYTES_MAX + 1];
	int fd;	    // the keeper's copy, -1 = none
	bool taken; // by this life
};

struct fdstore {
	struct kept entries[2]; // of two names, in the order in which they came
};

static struct fdstore keeper = { .entries = { { .fd = -1 }, { .fd = -1 } } };

bool sim_keeper_has(void)
{
	return keeper.entries[0].fd >= 0;
}

static void forget(unsigned i)
{
	(void)close(keeper.entries[i].fd);
	if (i == 0) {
		keeper.entries[0] = keeper.entries[1];
	}
	keeper.entries[1].fd = -1;
}

void sim_keeper_drop(void)
{
	while (sim_keeper_has()) {
		forget(0);
	}
}

// The newest: kvd has it kept when it is about to serve.
static int newest(void)
{
	return keeper.entries[keeper.entries[1].fd >= 0 ? 1 : 0].fd;
}

// What kvd.gen says: which region was the last to serve. A kvd that died before that is kept too.
static uint64_t serving_generation(void)
{
	char path[4096];
	uint64_t word = 0;
	(void)snprintf(path, sizeof(path), "%s/kvd.gen", sim.dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, &word, sizeof(word)) != (ssize_t)sizeof(word)) {
			word = 0;
		}
		(void)close(fd);
	}
	return word;
}

uint64_t sim_keeper_instance(void)
{
	uint64_t generation = serving_generation();
	for (unsigned i = 0; i < 2 && keeper.entries[i].fd >= 0; i++) {
		struct kvs_region_header header;
		if (pread(keeper.entries[i].fd, &header, sizeof(header), 0) !=
		    (ssize_t)sizeof(header)) {
			sim_fail("the kept region cannot be read");
		}
		if (header.generation == generation || generation == 0) {
			return header.instance_id;
		}
	}
	return 0;
}

struct fdstore *fdstore_create(const struct seam *seam)
{
	(void)seam;
	keeper.entries[0].taken = keeper.entries[1].taken = false;
	return &keeper;
}

void fdstore_destroy(struct fdstore *store)
{
	(void)store;
}

int fdstore_take(struct fdstore *store, const char *name)
{
	for (unsigned i = 0; i < 2; i++) {
		struct kept *entry = &store->entries[i];
		if (entry->fd >= 0 && !entry->taken && strcmp(entry->name, name) == 0) {
			entry->taken = true;
			return fcntl(entry->fd, F_DUPFD_CLOEXEC, 3);
		}
	}
	return -1;
}

bool fdstore_has_any(const struct fdstore *store)
{
	return store->entries[0].fd >= 0 || store->entries[1].fd >= 0;
}

void fdstore_settle(struct fdstore *store)
{
	(void)store;
}

bool fdstore_offered(const struct fdstore *store)
{
	(void)store;
	return sim.plan.keeper;
}

bool fdstore_keep(struct fdstore *store, const char *name, int fd)
{
	fdstore_drop(store, name); // one a name is all that kvd wants
	struct kept *entry = &store->entries[store->entries[0].fd >= 0 ? 1 : 0];
	if (entry->fd >= 0) {
		sim_fail("more regions are kept than the old one and the new");
	}
	(void)snprintf(entry->name, sizeof(entry->name), "%s", name);
	entry->fd = fcntl(fd, F_DUPFD_CLOEXEC, SIM_KEPT_FD);
	entry->taken = true;
	return entry->fd >= 0;
}

void fdstore_drop(struct fdstore *store, const char *name)
{
	for (unsigned i = 2; i-- > 0;) {
		if (store->entries[i].fd >= 0 && strcmp(store->entries[i].name, name) == 0) {
			forget(i);
		}
	}
}

// ---- the kernel's part in what the region says of its writer ----

struct presence {
	uint32_t *word; // NULL: no kvd says that it is there
};

static struct presence present;

int presence_start(struct presence **out, uint32_t *word)
{
	present.word = word;
	kvs_store_release_32(word, sim.lives);
	*out = &present;
	return 0;
}

void presence_end(struct presence *presence)
{
	if (presence != NULL) {
		kvs_store_release_32(presence->word, 0);
		presence->word = NULL;
	}
}

void sim_presence_over(void)
{
	if (present.word != NULL) {
		kvs_store_release_32(present.word, KVS_WRITER_DIED);
		present.word = NULL;
	}
}

// ---- the inspector ----

static void plan_region(int fd, uint64_t durable_seq, const char *when)
{
	struct kvs_region region;
	int result = kvs_region_read_out(&region, fd, kvs_layouts_former());
	(void)close(fd);
	if (result != KVS_REGION_OK) {
		if (result != KVS_REGION_UNFILLED) {
			sim_fail("%s: the region cannot be mapped (%d)", when, result);
		}
		return;
	}
	struct kvs_adopt plan;
	memset(&plan, 0, sizeof(plan));
	result = kvs_adopt_plan(&plan, &region, durable_seq);
	if (result != 0 || plan.damaged_count > 0) {
		sim_fail("%s: the region is damaged: %d, %llu entries, %s", when, result,
			 (unsigned long long)plan.damaged_count, plan.why);
	}
	sim.plans++;
	kvs_adopt_fini(&plan);
	kvs_region_close(&region);
}

void sim_check_region(bool dead)
{
	bool persisted = sim.plan.policy != 0;
	uint64_t durable_seq = persisted ? sim_disk_durable() : UINT64_MAX;
	if (dead) {
		if (sim_keeper_has()) {
			plan_region(fcntl(newest(), F_DUPFD_CLOEXEC, 3), durable_seq,
				    "after a crash");
		}
		return;
	}
	const struct kvs_region *region = sim.kvd->keyspace->region;
	plan_region(fcntl(region->fd, F_DUPFD_CLOEXEC, 3), durable_seq, "while kvd serves");
}

// SPDX-License-Identifier: MIT
//
// The keeper, and the inspector. The keeper holds the region of the last life, as systemd's store
// of descriptors does, unless the seed says that there is none. The inspector has the plan phase of
// adoption look at the region, which reads and checks all of it: after each crash, and now and then
// while kvd serves.
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/fdstore.h"
#include "daemon/keyspace_internal.h"
#include "daemon/kvd.h"
#include "shm/adopt.h"
#include "tests/simulation/sim.h"

struct fdstore {
	bool taken;
};

static int kept = -1; // the keeper's copy
static struct fdstore fdstore;

bool sim_keeper_has(void)
{
	return kept >= 0;
}

void sim_keeper_drop(void)
{
	if (kept >= 0) {
		(void)close(kept);
	}
	kept = -1;
}

uint64_t sim_keeper_instance(void)
{
	struct kvs_region_header header;
	if (pread(kept, &header, sizeof(header), 0) != (ssize_t)sizeof(header)) {
		sim_fail("the kept region cannot be read");
	}
	return header.instance_id;
}

struct fdstore *fdstore_create(const struct seam *seam)
{
	(void)seam;
	fdstore.taken = false;
	return &fdstore;
}

void fdstore_destroy(struct fdstore *store)
{
	(void)store;
}

int fdstore_take(struct fdstore *store, const char *name)
{
	(void)name;
	if (store->taken || kept < 0) {
		return -1;
	}
	store->taken = true;
	return fcntl(kept, F_DUPFD_CLOEXEC, 3);
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
	(void)store;
	(void)name;
	sim_keeper_drop();
	kept = fcntl(fd, F_DUPFD_CLOEXEC, SIM_KEPT_FD);
	return kept >= 0;
}

void fdstore_drop(struct fdstore *store, const char *name)
{
	(void)store;
	(void)name;
	sim_keeper_drop();
}

// ---- the inspector ----

static void plan_region(int fd, uint64_t durable_seq, const char *when)
{
	struct kvs_region region;
	struct kvs_region_options options = {
		.memory_bytes = UINT64_C(1) << 21,
		.segment_bytes = 64 << 10,
		.any_geometry = true,
	};
	int result = kvs_region_adopt(&region, fd, &options);
	if (result != KVS_REGION_OK) {
		(void)close(fd);
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
		if (kept >= 0) {
			plan_region(fcntl(kept, F_DUPFD_CLOEXEC, 3), durable_seq, "after a crash");
		}
		return;
	}
	const struct kvs_region *region = sim.kvd->keyspace->region;
	plan_region(fcntl(region->fd, F_DUPFD_CLOEXEC, 3), durable_seq, "while kvd serves");
}

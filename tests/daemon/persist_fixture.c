// SPDX-License-Identifier: MIT
//
// See the header. The pieces are the daemon's own; only the loop is missing.
#include "tests/daemon/persist_fixture.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

static void bail(const char *what)
{
	printf("Bail out! %s\n", what);
	exit(1);
}

static int recover(void *context, const struct kvs_record_view *view, const void *value,
		   uint64_t place)
{
	return keyspace_recover_record(context, view, value, place);
}

static void begin_region(struct life *life, const struct life_options *options)
{
	struct kvs_region_options region = {
		.memory_bytes = options->memory_bytes,
		.memory_bytes_max = options->memory_bytes,
		.segment_bytes = options->segment_bytes,
		.instance_id = 77,
		.hash_key = { 5 },
		.fenced = !kvs_epoch_membarrier_works(),
	};
	if (kvs_region_create(&life->region, &region) != KVS_REGION_OK) {
		bail("no region");
	}
	kvs_epoch_init(&life->epochs, &life->region.header->hot, region.fenced);
	life->page = mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			  -1, 0);
	if (life->page == MAP_FAILED || kvs_epoch_add(&life->epochs, life->page, NULL) == NULL) {
		bail("no reader page");
	}
	struct keyspace_options keyspace = {
		.seam = &seam_system,
		.region = &life->region,
		.epochs = &life->epochs,
		.persisted = true,
		.revoke_ms = 5000,
		.revoke_min_ms = 50,
		.value_bytes_max = options->memory_bytes / 8,
	};
	life->keyspace = keyspace_create(&keyspace);
	if (life->keyspace == NULL) {
		bail("no keyspace");
	}
}

static void begin_store(struct life *life, const struct life_options *options)
{
	char path[FIXTURE_PATH_BYTES + 16];
	struct stat file;
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", options->dir);
	bool is_new = stat(path, &file) != 0 || file.st_size == 0;
	life->store = fixture_store(options->dir);
	struct store_walk walk = {
		.record = recover,
		.context = life->keyspace,
		.check_records = true,
	};
	struct store_facts facts;
	store_facts(life->store, &facts);
	if (options->spills) {
		keyspace_recover_spill(life->keyspace, facts.oldest_block);
	}
	int result = store_recover(life->store, &walk);
	if (result != STORE_OK) {
		tap_diag("%d: %s", result, store_why(life->store));
		bail("the store cannot be recovered");
	}
	bool unended = !options->heeds_end || (!is_new && !facts.ended);
	(void)keyspace_recover_finish(life->keyspace, facts.durable_seq, unended);
	kvs_region_go_alive(&life->region);
}

void life_begin(struct life *life, const struct life_options *options)
{
	memset(life, 0, sizeof(*life));
	begin_region(life, options);
	begin_store(life, options);
	life->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	life->threaded = options->threaded;
	struct persist_options persist = {
		.policy = options->policy,
		.lazy_ms = options->lazy_ms,
		.lazy_bytes = options->lazy_bytes,
		.compact_ratio_percent = options->ratio_percent,
		.compact_floor_bytes = options->floor_bytes,
		.seam = &seam_system,
		.store = life->store,
		.log = keyspace_log(life->keyspace),
		.map = &life->region.map,
		.slot = &life->page->slot[0],
		.region_base = life->region.base,
		.start_position = life_published(life),
		.wake_fd = life->wake_fd,
		.collect_moves = options->collect_moves,
	};
	if (!life->threaded) {
		life->persist = persist_new(&persist);
	} else if (persist_start(&life->persist, &persist) != 0) {
		life->persist = NULL;
	}
	if (life->persist == NULL) {
		bail("no persister");
	}
}

int life_end(struct life *life)
{
	int result = 0;
	if (life->threaded) {
		char why[600];
		result = persist_stop(life->persist, why, sizeof(why));
	} else {
		persist_free(life->persist);
	}
	store_close(life->store);
	keyspace_destroy(life->keyspace);
	kvs_epoch_fini(&life->epochs);
	munmap(life->page, KVS_PAGE_BYTES);
	kvs_region_close(&life->region);
	close(life->wake_fd);
	return result;
}

int life_commit(struct life *life, uint64_t position)
{
	struct persist *persist = life->persist;
	persist_set_live_bytes(persist, keyspace_live_bytes(life->keyspace));
	persist->round_end = (struct kvs_log_position){ .segment = (uint32_t)(position >> 32),
							.offset = (uint32_t)position };
	while (persist->position.segment != persist->round_end.segment ||
	       persist->position.offset != persist->round_end.offset) {
		int result = persist_commit(persist, false);
		if (result != STORE_OK) {
			return result;
		}
		kvs_store_release(&life->region.header->marks.durable_seq, persist->durable_seq);
	}
	return STORE_OK;
}

bool life_compact_idle(struct life *life)
{
	return persist_compact_idle_wanted(life->persist) &&
	       persist_commit(life->persist, true) == STORE_OK;
}

uint64_t life_published(const struct life *life)
{
	return kvs_load_acquire(&keyspace_log(life->keyspace)->published);
}

uint64_t life_counter(const struct life *life, enum kvs_counter counter)
{
	return kvs_load_relaxed(kvs_counter_word(life->region.base, counter));
}

uint64_t life_durable_seq(const struct life *life)
{
	return kvs_load_acquire(&life->region.header->marks.durable_seq);
}

bool life_wait(struct life *life, uint64_t seq)
{
	for (;;) {
		if (life_durable_seq(life) >= seq) {
			return true;
		}
		if (persist_failed_seq(life->persist) >= seq) {
			return false;
		}
		struct pollfd poll_fd = { .fd = life->wake_fd, .events = POLLIN };
		uint64_t count;
		if (poll(&poll_fd, 1, 100000) != 1 ||
		    read(life->wake_fd, &count, sizeof(count)) != sizeof(count)) {
			bail("a commit that was asked for does not come");
		}
	}
}

uint64_t life_lookup(const struct life *life, const char *key, size_t key_bytes, uint64_t *place)
{
	struct kvs_hit hit;
	uint64_t hash = keyspace_hash(life->keyspace, key, key_bytes);
	if (keyspace_find(life->keyspace, hash, key, key_bytes, &hit) != KVS_FIND_HIT) {
		return 0;
	}
	*place = kvs_load_relaxed(&hit.view.record->place);
	return hit.view.seq;
}

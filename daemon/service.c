// SPDX-License-Identifier: MIT
//
// Starting and stopping kvd. Each part is a row of one table: how it starts, how it stops. A
// failure in the middle unwinds exactly what was started, by the same rows backwards.
#include "daemon/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/cleaner.h"
#include "daemon/cold.h"
#include "daemon/config_live.h"
#include "daemon/config_names.h"
#include "daemon/config_rewrite.h"
#include "daemon/events.h"
#include "daemon/fdstore.h"
#include "daemon/generation.h"
#include "daemon/job.h"
#include "daemon/keyspace.h"
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_sums.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/notify.h"
#include "daemon/persist.h"
#include "daemon/readers.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/service_events.h"
#include "daemon/service_folder.h"
#include "daemon/service_moves.h"
#include "daemon/service_parts.h"
#include "daemon/service_process.h"
#include "daemon/stats.h"
#include "daemon/storage/datadir.h"
#include "daemon/watchdog.h"
#include "shm/log.h"
#include "shm/region.h"

static int start_process(struct service *service)
{
	struct kvd *kvd = &service->kvd;
	if (kvd->config.huge_pages == CONFIG_PAGES_HUGETLB) {
		// Before other processes of this uid are kept out: then it is root's alone.
		int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
		kvd->pagemap_fd = fd > 0 ? fd : 0;
	}
	return service_process(&service->kvd.config, service->why, sizeof(service->why));
}

// Before anything that opens a descriptor to keep.
static int start_fdstore(struct service *service)
{
	service->kvd.fdstore = fdstore_create(service->kvd.seam);
	if (service->kvd.fdstore == NULL) {
		(void)snprintf(service->why, sizeof(service->why), "out of memory; %s",
			       remedy_of_errno(ENOMEM));
		return EX_OSERR;
	}
	return 0;
}

static void stop_fdstore(struct service *service)
{
	fdstore_destroy(service->kvd.fdstore);
}

static int start_loop(struct service *service)
{
	int error = loop_create(&service->kvd.loop, service->kvd.seam);
	if (error != 0) {
		(void)snprintf(service->why, sizeof(service->why),
			       "cannot create the event loop: %s; %s", strerror(-error),
			       remedy_of_errno(-error));
		return EX_OSERR;
	}
	return 0;
}

static void stop_loop(struct service *service)
{
	loop_destroy(service->kvd.loop);
}

static int start_generation(struct service *service)
{
	int error = generation_open(&service->generation, service->kvd.config.dir, service->why,
				    sizeof(service->why));
	return error == 0 ? 0 : remedy_exit_code(-error);
}

static void stop_generation(struct service *service)
{
	generation_close(&service->generation);
}

static int start_events(struct service *service)
{
	return service_events_start(&service->kvd, service->why, sizeof(service->why));
}

static void stop_events(struct service *service)
{
	service_events_stop(&service->kvd);
}

// Also while it is not yet told that the region serves: the lock is this kvd's.
static int start_presence(struct service *service)
{
	int error = presence_start(&service->presence, &service->region.header->hot.writer);
	if (error != 0) {
		(void)snprintf(service->why, sizeof(service->why), "cannot start a thread: %s; %s",
			       strerror(-error), remedy_of_errno(-error));
		return EX_OSERR;
	}
	return 0;
}

// Before the lock goes: from then on another kvd can serve while this one still ends.
static void stop_presence(struct service *service)
{
	presence_end(service->presence);
}

static void stop_readers(struct service *service)
{
	jobs_destroy(service->kvd.jobs);
	readers_destroy(service->kvd.readers);
	stats_destroy(service->kvd.stats);
}

static int start_readers(struct service *service)
{
	int error = readers_create(&service->kvd.readers, &service->kvd, &service->epochs,
				   &service->region, &service->generation);
	if (error == 0) {
		keyspace_set_write_wait(service->kvd.keyspace, service->kvd.config.write_wait_ms);
		error = keyspace_start_prepare(service->kvd.keyspace);
	}
	config_live_eviction(&service->kvd);
	service->kvd.stats = stats_create(&service->kvd);
	service->kvd.jobs = jobs_create(&service->kvd);
	if (error != 0 || service->kvd.stats == NULL || service->kvd.jobs == NULL) {
		error = error != 0 ? -error : ENOMEM;
		(void)snprintf(service->why, sizeof(service->why),
			       "cannot start serving readers: %s; %s", strerror(error),
			       remedy_of_errno(error));
		stop_readers(service); // some of them may have started
		return EX_OSERR;
	}
	return 0;
}

// Large values of a region that was taken over are looked at once.
static void sums_turn(struct service *service, uint64_t now_ns)
{
	struct persist *persist = service->kvd.persist;
	bool wants_places;
	if (service->sums == NULL) {
		return;
	}
	service->sums_next_ns = keyspace_sums_turn(service->sums, now_ns, &wants_places);
	if (wants_places && persist_places_known(persist)) {
		persist_want_places(persist);
	}
	if (service->sums_next_ns == UINT64_MAX) {
		keyspace_sums_end(service->sums);
		service->sums = NULL;
	}
}

// The writer's share of every turn.
static void service_turn(void *context, uint64_t now_ns)
{
	struct service *service = context;
	struct keyspace *keyspace = service->kvd.keyspace;
	service_events_hold(&service->kvd);
	(void)readers_sample(service->kvd.readers, now_ns);
	cleaner_turn(keyspace, now_ns);
	events_tell(&service->kvd, NULL); // of keys whose time came
	if (service->kvd.cold != NULL) {
		cold_turn(service->kvd.cold, now_ns);
	}
	stats_turn(&service->kvd);
	generation_turn(&service->generation, keyspace_last_seq(keyspace), now_ns);
	jobs_turn(service->kvd.jobs);
	service_folder_turn(service);
	sums_turn(service, now_ns);
	if (service->kvd.persist == NULL) {
		return;
	}
	service->moves_wait = service_moves_turn(&service->kvd, now_ns);
	service_persist_watch(&service->kvd, &service->said);
	persist_set_live_bytes(service->kvd.persist, keyspace_live_bytes(keyspace));
	uint64_t last_seq = keyspace_last_seq(keyspace);
	if (last_seq != service->noticed_seq) {
		service->noticed_seq = last_seq;
		persist_notice(service->kvd.persist);
	}
}

// As of what the commands of the turn have left, which the listener has run since.
static uint64_t service_next_ns(void *context)
{
	struct service *service = context;
	const struct cold *cold = service->kvd.cold;
	if (service->moves_wait) {
		return 0;
	}
	uint64_t cleaner_ns = cleaner_next_ns(service->kvd.keyspace);
	uint64_t cold_ns = cold != NULL ? cold_next_ns(cold) : UINT64_MAX;
	uint64_t next_ns = cleaner_ns < cold_ns ? cleaner_ns : cold_ns;
	uint64_t sums_ns = service->sums != NULL ? service->sums_next_ns : UINT64_MAX;
	next_ns = next_ns < sums_ns ? next_ns : sums_ns;
	uint64_t sample_ns =
		readers_sample_next_ns(service->kvd.readers, loop_now_ns(service->kvd.loop));
	return next_ns < sample_ns ? next_ns : sample_ns;
}

static int start_listener(struct service *service)
{
	if (!loop_hook(service->kvd.loop, service_turn, service_next_ns, service)) {
		(void)snprintf(service->why, sizeof(service->why), "the event loop is full");
		return EX_SOFTWARE;
	}
	int error = listener_open(&service->kvd.listener, &service->kvd, service->why,
				  sizeof(service->why));
	if (error != 0) {
		return remedy_exit_code(-error);
	}
	return 0;
}

// Begins the life that clients see: only what can be served costs versions.
static int start_life(struct service *service)
{
	if (service_is_persisted(service)) {
		int code = service_persist_start(&service->kvd, service->store, &service->region,
						 &service->generation, &service->adoption,
						 service->why, sizeof(service->why));
		if (code != 0) {
			return code;
		}
	}
	int code = service_begin(service);
	if (code != 0) {
		(void)service_persist_stop(&service->kvd, service->store);
		return code;
	}
	watchdog_start(&service->watchdog, service->kvd.loop);
	clock_watch_start(&service->clock_watch, service->kvd.loop, service->kvd.keyspace);
	service_folder_watch(service);
	return 0;
}

static void stop_listener(struct service *service)
{
	listener_close(service->kvd.listener);
	service->kvd.listener = NULL;
	cold_stop(service->kvd.cold); // nobody waits any more
	service->kvd.cold = NULL;
	config_rewriter_destroy(service->kvd.config_rewriter);
}

// The last to start are the first to stop, in two halves: no new clients, then, when everything is
// durable, the answers that waited for it. Only of a life that began: whoever keeps the region lets
// go of it when he hears of a stop, so a start that fails says nothing of the kind.
static void stop_life(struct service *service)
{
	notify_stopping();
	datadir_leaving(service->kvd.folder);
	watchdog_stop(&service->watchdog);
	clock_watch_stop(&service->clock_watch);
	service_folder_unwatch(service);
	service->kvd.stopping = true;
	listener_shut(service->kvd.listener);
	jobs_destroy(service->kvd.jobs); // it reads what the persister has
	service->kvd.jobs = NULL;
	service->stop_code = service_persist_stop(&service->kvd, service->store);
	if (service->stop_code == 0 && service_is_persisted(service)) {
		generation_end_versions(&service->generation,
					keyspace_last_seq(service->kvd.keyspace));
	}
	kvs_store_release(&service->region.header->lifecycle, KVS_REGION_RETIRED);
}

struct service_step {
	int (*start)(struct service *service); // 0, or an exit code with service->why filled
	void (*stop)(struct service *service); // NULL = nothing to undo
};

static const struct service_step service_steps[] = {
	{ start_process, NULL },
	{ start_fdstore, stop_fdstore },
	{ service_folder_start, service_folder_stop },
	{ start_generation, stop_generation },
	{ start_loop, stop_loop },
	{ service_start_region, service_stop_region },
	{ service_start_store, service_stop_store },
	{ service_start_keyspace, service_stop_keyspace },
	{ start_events, stop_events },
	{ service_start_load, NULL },
	{ service_start_memory, NULL },
	{ start_presence, stop_presence },
	{ start_readers, stop_readers },
	{ start_listener, stop_listener },
	{ start_life, stop_life },
};
#define SERVICE_STEPS (sizeof(service_steps) / sizeof(service_steps[0]))

static void service_unwind(struct service *service, size_t started)
{
	while (started-- > 0) {
		if (service_steps[started].stop != NULL) {
			service_steps[started].stop(service);
		}
	}
	config_names_fini(&service->kvd);
	config_fini(&service->kvd.config);
	free(service);
}

// Clients that are told nothing look at one path; if kvd is not there, its line says what to tell.
static void service_say_started(const struct service *service)
{
	const char *path = listener_path(service->kvd.listener);
	const char *also = listener_path_also(service->kvd.listener);
	bool is_found = strcmp(path, KVS_SOCKET_PATH_DEFAULT) == 0 ||
			(also != NULL && strcmp(also, KVS_SOCKET_PATH_DEFAULT) == 0);
	char hint[2 * KVS_SOCKET_PATH_BYTES_MAX + 64] = "";
	if (!is_found) {
		(void)snprintf(hint, sizeof(hint), " (kvctl --socket %s, or KVD_SOCKET=%s)", path,
			       path);
	}
	LOG_AT(LOG_LEVEL_NOTICE, "kvd %s serves %llu keys at %s%s%s%s", KVD_VERSION,
	       (unsigned long long)keyspace_count(service->kvd.keyspace), path,
	       also != NULL ? " and " : "", also != NULL ? also : "", hint);
}

int service_start(struct service **out, const struct config *config)
{
	struct service *service = calloc(1, sizeof(*service));
	if (service == NULL) {
		(void)fprintf(stderr, "kvd: out of memory; %s\n", remedy_of_errno(ENOMEM));
		struct config unused = *config;
		config_fini(&unused);
		return EX_OSERR;
	}
	service->kvd.seam = &seam_system;
	service->kvd.config = *config;
	service->kvd.started_ns = seam_system.monotonic_ns();
	service->kvd.started_wall_ms = seam_system.wall_ms();
	service->kvd.durable_wall_ms = service->kvd.started_wall_ms;
	service->generation.fd = -1;
	service->kept.fd = service->kept.fd_readonly = -1;
	unsigned char random[20];
	seam_system.random_bytes(random, sizeof(random));
	seam_system.random_bytes(&service->kvd.lookup_seed, sizeof(service->kvd.lookup_seed));
	for (size_t i = 0; i < sizeof(random); i++) {
		(void)snprintf(service->kvd.run_id + 2 * i, 3, "%02x", random[i]);
	}
	for (size_t i = 0; i < SERVICE_STEPS; i++) {
		int code = service_steps[i].start(service);
		if (code != 0) {
			(void)fprintf(stderr, "kvd: %s\n", service->why);
			service_unwind(service, i);
			return code;
		}
	}
	fdstore_settle(service->kvd.fdstore);
	notify_ready();
	service_say_started(service);
	*out = service;
	return 0;
}

int service_run(struct service *service)
{
	int error = loop_run(service->kvd.loop);
	if (error != 0) {
		LOG_AT(LOG_LEVEL_ERROR, "the event loop failed: %s; %s; kvd stops",
		       strerror(-error), remedy_of_errno(-error));
		return EX_OSERR;
	}
	return 0;
}

int service_stop(struct service *service)
{
	uint64_t seq = keyspace_last_seq(service->kvd.keyspace);
	stop_life(service);
	int code = service->stop_code;
	if (code == 0) {
		LOG_AT(LOG_LEVEL_NOTICE, "kvd stops, everything up to version %llu is %s",
		       (unsigned long long)seq,
		       service_is_persisted(service) ? "durable" : "gone (memory policy)");
	}
	service_unwind(service, SERVICE_STEPS - 1);
	return code;
}

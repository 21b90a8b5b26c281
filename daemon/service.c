// SPDX-License-Identifier: MIT
//
// Starting and stopping kvd. Each part is a row of one table: how it starts, how it stops. A
// failure in the middle unwinds exactly what was started, by the same rows backwards.
#include "daemon/service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/cleaner.h"
#include "daemon/config_names.h"
#include "daemon/config_rewrite.h"
#include "daemon/events.h"
#include "daemon/fdstore.h"
#include "daemon/generation.h"
#include "daemon/job.h"
#include "daemon/keyspace.h"
#include "daemon/keyspace_create.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/notify.h"
#include "daemon/persist.h"
#include "daemon/readers.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/service_adopt.h"
#include "daemon/service_events.h"
#include "daemon/service_persist.h"
#include "daemon/service_process.h"
#include "daemon/service_recover.h"
#include "daemon/service_region.h"
#include "daemon/stats.h"
#include "daemon/storage/dirlock.h"
#include "daemon/storage/store.h"
#include "daemon/watchdog.h"
#include "shm/adopt.h"
#include "shm/epoch_scan.h"
#include "shm/log.h"
#include "shm/region.h"

struct service {
	struct kvd kvd;
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct generation generation;
	struct store *store;
	struct kvs_adopt plan;
	bool is_adopting; // the region of the life before is taken over
	bool is_alike; // and is laid out as this life is configured
	int lock_fd;
	int stop_code;
	bool store_is_new;    // nothing was there to recover from
	enum service_persist_said said; // of the store, in the log
	struct watchdog watchdog;
	uint64_t noticed_seq; // last seq the persister was told of
	char why[1024];	      // of a step that failed
};

static bool is_persisted(const struct service *service)
{
	return service->kvd.config.persist_policy != PERSIST_MEMORY;
}

static int start_process(struct service *service)
{
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

static int start_lock(struct service *service)
{
	service->lock_fd =
		dirlock_take(service->kvd.config.dir, service->why, sizeof(service->why));
	return service->lock_fd >= 0 ? 0 : remedy_exit_code(errno);
}

static void stop_lock(struct service *service)
{
	dirlock_release(service->lock_fd);
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

static uint64_t generation_of(const struct service *s)
{
	return kvs_load_relaxed(s->generation.word);
}

static int create_region(struct service *service)
{
	return service_region_create(&service->kvd, &service->region, service->why,
				     sizeof(service->why));
}

static void open_epochs(struct service *service)
{
	struct kvs_region_header *header = service->region.header;
	kvs_epoch_init(&service->epochs, &header->hot,
		       (header->flags & KVS_HEADER_READERS_FENCE) != 0);
}

static int start_region(struct service *service)
{
	service->is_adopting =
		service_adopt_open(&service->kvd, &service->region, &service->is_alike);
	int code = service->is_adopting ? 0 : create_region(service);
	if (code == 0) {
		open_epochs(service);
	}
	return code;
}

static void stop_region(struct service *service)
{
	kvs_epoch_fini(&service->epochs);
	kvs_region_close(&service->region);
}

static int start_store(struct service *service)
{
	if (!is_persisted(service)) {
		return 0;
	}
	return service_store_open(&service->kvd, &service->store, &service->store_is_new,
				  service->why, sizeof(service->why));
}

static void stop_store(struct service *service)
{
	store_close(service->store);
}

// The kept region goes, a new one comes.
static int replace_region(struct service *service)
{
	stop_region(service);
	service->is_adopting = false;
	int code = create_region(service);
	if (code == 0) {
		open_epochs(service);
	}
	return code;
}

static int start_keyspace(struct service *service)
{
	const struct config *config = &service->kvd.config;
	if (service->is_adopting &&
	    !service_adopt_look(&service->kvd, &service->region, service->store, service->is_alike,
				generation_of(service), &service->plan)) {
		int code = replace_region(service);
		if (code != 0) {
			return code;
		}
	}
	struct keyspace_options options = {
		.seam = service->kvd.seam,
		.region = &service->region,
		.epochs = &service->epochs,
		.persisted = is_persisted(service),
		.block_on_stuck = config->on_stuck == 1,
		.revoke_ms = config->revoke_ms,
		.revoke_min_ms = config->revoke_min_ms,
		.value_bytes_max = config->value_bytes_max,
		.reseed_interval_ms = config->reseed_ms,
		.lookup_seed = service->kvd.lookup_seed,
	};
	if (service->is_adopting) {
		kvs_epoch_hold(&service->epochs, &service->region.header->adoptions);
		service->kvd.keyspace = keyspace_adopt(&options, &service->plan);
	} else {
		service->kvd.keyspace = keyspace_create(&options);
	}
	kvs_adopt_fini(&service->plan);
	if (service->kvd.keyspace == NULL) {
		(void)snprintf(service->why, sizeof(service->why),
			       "out of memory while building the table: this machine cannot give "
			       "kvd the first pages of --memory %llu",
			       (unsigned long long)config->memory_bytes);
		return EX_OSERR;
	}
	return 0;
}

static void stop_keyspace(struct service *service)
{
	keyspace_destroy(service->kvd.keyspace);
}

static int start_events(struct service *service)
{
	return service_events_start(&service->kvd, service->why, sizeof(service->why));
}

static void stop_events(struct service *service)
{
	service_events_stop(&service->kvd);
}

static int start_load(struct service *service)
{
	struct kvd *kvd = &service->kvd;
	uint64_t lives = generation_of(service);
	if (service->store_is_new && lives > 0) {
		log_warning("%s has been served %llu times before, and %s/store is new or empty: "
			    "if data is missing, stop kvd and bring the store back from a backup",
			    kvd->config.dir, (unsigned long long)lives, kvd->config.dir);
	}
	if (service->is_adopting) {
		uint64_t last_seq = keyspace_last_seq(kvd->keyspace);
		LOG_AT(LOG_LEVEL_NOTICE,
		       "took over %llu keys of the life before in %llu ms, %llu versions are not "
		       "durable yet",
		       (unsigned long long)keyspace_count(kvd->keyspace),
		       (unsigned long long)(kvd->seam->monotonic_ns() - kvd->started_ns) / 1000000,
		       (unsigned long long)(last_seq - keyspace_durable_seq(kvd->keyspace)));
		return 0;
	}
	if (is_persisted(service)) {
		return service_recover(kvd, service->store, !service->store_is_new, service->why,
				       sizeof(service->why));
	}
	// No store tells which versions earlier lives handed out.
	uint64_t last_seq = generation_version(&service->generation);
	(void)keyspace_recover_finish(kvd->keyspace, last_seq, last_seq != 0);
	if (service_store_exists(kvd->config.dir)) {
		log_warning("%s/store holds data that --persist memory neither reads nor updates: "
			    "a later start with another policy will serve it again",
			    kvd->config.dir);
	}
	return 0;
}

static int start_readers(struct service *service)
{
	int error = readers_create(&service->kvd.readers, &service->kvd, &service->epochs,
				   &service->region, service->generation.fd);
	if (error == 0) {
		error = keyspace_start_prepare(service->kvd.keyspace);
	}
	service->kvd.stats = stats_create(&service->kvd);
	service->kvd.jobs = jobs_create(&service->kvd);
	if (error != 0 || service->kvd.stats == NULL || service->kvd.jobs == NULL) {
		error = error != 0 ? -error : ENOMEM;
		(void)snprintf(service->why, sizeof(service->why),
			       "cannot start serving readers: %s; %s", strerror(error),
			       remedy_of_errno(error));
		return EX_OSERR;
	}
	return 0;
}

static void stop_readers(struct service *service)
{
	jobs_destroy(service->kvd.jobs);
	readers_destroy(service->kvd.readers);
	stats_destroy(service->kvd.stats);
}

// The writer's share of every turn.
static void service_turn(void *context, uint64_t now_ns)
{
	struct service *service = context;
	struct keyspace *keyspace = service->kvd.keyspace;
	service_events_hold(&service->kvd);
	cleaner_turn(keyspace, now_ns);
	events_tell(&service->kvd, NULL); // of keys whose time came
	stats_turn(&service->kvd);
	generation_note_version(&service->generation, keyspace_last_seq(keyspace));
	jobs_turn(service->kvd.jobs);
	if (service->kvd.persist == NULL) {
		return;
	}
	service_persist_watch(&service->kvd, &service->said);
	persist_set_live_bytes(service->kvd.persist, keyspace_live_bytes(keyspace));
	uint64_t last_seq = keyspace_last_seq(keyspace);
	if (last_seq != service->noticed_seq) {
		service->noticed_seq = last_seq;
		persist_notice(service->kvd.persist);
	}
}

static uint64_t service_next_ns(void *context)
{
	const struct service *service = context;
	return cleaner_next_ns(service->kvd.keyspace);
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
	if (is_persisted(service)) {
		int code = service_persist_start(&service->kvd, service->store, &service->region,
						 service->why, sizeof(service->why));
		if (code != 0) {
			return code;
		}
	}
	// Readers of an older region, or life, learn of this one before anybody can get a reply,
	// and not before their calls find a socket to queue at.
	kvs_region_go_alive(&service->region);
	if (service->is_adopting) {
		kvs_epoch_adopt(&service->epochs, service->kvd.seam->monotonic_ns());
	} else {
		service->region.header->generation = generation_of(service) + 1;
		generation_advance(&service->generation);
	}
	watchdog_start(&service->watchdog, service->kvd.loop);
	SEAM_CRASH(adoption_begun);
	service_adopt_keep(&service->kvd, &service->region, !service->is_adopting);
	return 0;
}

// The last to start are the first to stop, in two halves: no new clients, then, when everything is
// durable, the answers that waited for it.
static void stop_listener(struct service *service)
{
	notify_stopping();
	watchdog_stop(&service->watchdog);
	service->kvd.stopping = true;
	listener_shut(service->kvd.listener);
	jobs_destroy(service->kvd.jobs); // it reads what the persister has
	service->kvd.jobs = NULL;
	service->stop_code = service_persist_stop(&service->kvd, service->store);
	kvs_store_release(&service->region.header->lifecycle, KVS_REGION_RETIRED);
	listener_close(service->kvd.listener);
	service->kvd.listener = NULL;
	config_rewriter_destroy(service->kvd.config_rewriter);
}

struct service_step {
	int (*start)(struct service *service); // 0, or an exit code with service->why filled
	void (*stop)(struct service *service); // NULL = nothing to undo
};

static const struct service_step service_steps[] = {
	{ start_process, NULL },
	{ start_fdstore, stop_fdstore },
	{ start_lock, stop_lock },
	{ start_generation, stop_generation },
	{ start_loop, stop_loop },
	{ start_region, stop_region },
	{ start_store, stop_store },
	{ start_keyspace, stop_keyspace },
	{ start_events, stop_events },
	{ start_load, NULL },
	{ start_readers, stop_readers },
	{ start_listener, stop_listener },
	{ start_life, NULL }, // stop_listener() ends it
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
		return EX_OSERR;
	}
	service->kvd.seam = &seam_system;
	service->kvd.config = *config;
	service->kvd.started_ns = seam_system.monotonic_ns();
	service->kvd.started_wall_ms = seam_system.wall_ms();
	service->kvd.durable_wall_ms = service->kvd.started_wall_ms;
	service->lock_fd = service->generation.fd = -1;
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
	stop_listener(service);
	int code = service->stop_code;
	if (code == 0) {
		LOG_AT(LOG_LEVEL_NOTICE, "kvd stops, everything up to version %llu is %s",
		       (unsigned long long)seq,
		       is_persisted(service) ? "durable" : "gone (memory policy)");
	}
	service_unwind(service, SERVICE_STEPS - 2);
	return code;
}

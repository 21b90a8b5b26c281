// SPDX-License-Identifier: MIT
//
// Who owns the store makes the folder anew, for it is the store that needs it: the persister, or
// the loop where there is none. Then the loop does its part. The socket comes first: whoever sees
// in the old kvd.gen that it is over comes to it.
#include "daemon/service_folder.h"

#include <errno.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/fdstore.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/persist.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/service_parts.h"
#include "daemon/signals.h"
#include "daemon/storage/datadir.h"
#include "daemon/storage/dirlock.h"

static void tell_wait(void *context, const char *text)
{
	const struct service *service = context;
	LOG_AT(LOG_LEVEL_NOTICE, "%s: %s", service->kvd.config.dir, text);
	notify_status("%s", text);
}

// What a kept region alone has is not given up by a request to stop.
static bool is_wait_over(void *context)
{
	const struct service *service = context;
	return !fdstore_has_any(service->kvd.fdstore) && signals_stop_waits();
}

int service_folder_start(struct service *service)
{
	const struct dirlock_patience patience = { .tell = tell_wait,
						   .is_over = is_wait_over,
						   .context = service };
	int error = datadir_take(&service->kvd.folder, service->kvd.config.dir, &patience,
				 service->why, sizeof(service->why));
	if (error != 0) {
		return error == ECANCELED ? EX_TEMPFAIL : remedy_exit_code(error);
	}
	SEAM_CRASH(start_locked);
	return 0;
}

void service_folder_stop(struct service *service)
{
	datadir_release(service->kvd.folder);
}

// Without a store nobody else owns the folder. Moved away is not removed: it may come back.
static bool make_anew(struct service *service)
{
	char why[sizeof(service->remake_why)] = "";
	int remade = datadir_remake(service->kvd.folder, why, sizeof(why));
	if (remade < 0 && strcmp(why, service->remake_why) != 0) {
		log_error("%s: %s; nobody new can find kvd until it can be: make room for it there",
			  service->kvd.config.dir, why);
	}
	memcpy(service->remake_why, why, sizeof(why));
	return remade != 0;
}

static bool folder_gone(void *context)
{
	struct service *service = context;
	if (service->kvd.persist == NULL) {
		return make_anew(service);
	}
	persist_distrust(service->kvd.persist, "the data folder was removed");
	return false; // it tries until it can
}

// A cleaner of old files may have taken the socket: nobody new could come.
static void folder_lost(void *context)
{
	const struct service *service = context;
	listener_reopen(service->kvd.listener);
}

void service_folder_watch(struct service *service)
{
	folder_watch_start(&service->folder_watch, service->kvd.loop, service->kvd.config.dir,
			   folder_gone, folder_lost, service);
}

void service_folder_unwatch(struct service *service)
{
	folder_watch_stop(&service->folder_watch);
}

void service_folder_turn(struct service *service)
{
	char why[512];
	const char *dir = service->kvd.config.dir;
	uint64_t remade = datadir_remade(service->kvd.folder);
	if (remade == service->remade_seen) {
		return;
	}
	service->remade_seen = remade;
	log_error("the data folder %s was removed; kvd made it anew%s: whatever else was in it is "
		  "lost",
		  dir, service_is_persisted(service) ? " and writes the store from memory" : "");
	listener_reopen(service->kvd.listener);
	int error = generation_renew(&service->generation, dir, why, sizeof(why));
	if (error != 0) {
		log_error("%s; the next kvd will not know what served from here", why);
	}
	if (!service->kvd.stopping) {
		service_folder_watch(service);
	}
}

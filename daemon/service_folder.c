// SPDX-License-Identifier: MIT
//
// The persister makes the folder anew, for it is the store that needs it; the loop then does its
// part. The socket comes first: whoever sees in the old kvd.gen that it is over comes to it.
#include "daemon/service_folder.h"

#include <errno.h>
#include <sysexits.h>

#include "daemon/fdstore.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/notify.h"
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

void service_folder_turn(struct service *service)
{
	char why[512];
	const char *dir = service->kvd.config.dir;
	uint64_t remade = datadir_remade(service->kvd.folder);
	if (remade == service->remade_seen) {
		return;
	}
	service->remade_seen = remade;
	log_error("the data folder %s was removed; kvd made it anew and writes the store from "
		  "memory: whatever else was in it is lost",
		  dir);
	listener_reopen(service->kvd.listener);
	int error = generation_renew(&service->generation, dir, why, sizeof(why));
	if (error != 0) {
		log_error("%s; the next kvd will not know what served from here", why);
	}
}

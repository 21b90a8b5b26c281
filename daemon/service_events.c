// SPDX-License-Identifier: MIT
//
// The three exist before the first session and end after the last.
#include "daemon/service_events.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/events.h"
#include "daemon/keyspace.h"
#include "daemon/kvd.h"
#include "daemon/pubsub.h"
#include "daemon/remedy.h"
#include "daemon/tracking.h"

#define SERVICE_ERRANDS_MAX 64u // on their way: no more keys are looked for then

int service_events_start(struct kvd *kvd, char *why, size_t why_bytes)
{
	const char *letters = kvd->config.notify_events;
	unsigned flags = 0;
	if (letters && !events_flags_parse(letters, strlen(letters), &flags)) {
		(void)snprintf(why, why_bytes,
			       "notify-keyspace-events = %s: not one of the letters "
			       "Ag$lshzxeKEtmdn",
			       letters);
		return EX_USAGE;
	}
	if (!events_create(kvd) || !pubsub_create(kvd) || !tracking_create(kvd)) {
		(void)snprintf(why, why_bytes, "cannot listen to changes of keys: %s",
			       remedy_of_errno(ENOMEM));
		service_events_stop(kvd);
		return EX_OSERR;
	}
	events_set_notified(kvd, flags);
	return 0;
}

void service_events_stop(struct kvd *kvd)
{
	tracking_destroy(kvd);
	pubsub_destroy(kvd);
	events_destroy(kvd);
}

void service_events_hold(struct kvd *kvd)
{
	uint64_t on_their_way = kvd->courier.given - kvd->courier.done;
	keyspace_hold_expiry(kvd->keyspace, on_their_way > SERVICE_ERRANDS_MAX);
}

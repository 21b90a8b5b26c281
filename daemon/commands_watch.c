// SPDX-License-Identifier: MIT
//
// WATCH: a transaction runs only if none of the watched keys has another version than when it was
// watched. Versions are never handed out twice, so nothing has to be told of changes: a key that
// expired, came into being or was written is seen when EXEC compares. An absent key has version 0;
// that it came and went again is told like other events of keys.
#include "daemon/commands_watch.h"
#include "daemon/commands.h"

#include "shm/hash.h"
#include "shm/map.h"

static void watch_refused(struct call *call)
{
	if (call->session->watch.count == SESSION_WATCH_MAX) {
		commands_errorf(call, "ERR too many watched keys: a connection may watch %u",
				SESSION_WATCH_MAX);
	} else {
		commands_error(call, "ERR no room for another watched key (client-buffers-max, "
				     "client-uid-share)");
	}
}

void commands_watch_watch(struct call *call)
{
	struct session *session = call->session;
	if (session->multi.active) {
		commands_error(call, "ERR WATCH inside MULTI is not allowed");
		return;
	}
	for (uint32_t i = 1; i < call->argc; i++) {
		const struct resp_arg *key = &call->argv[i];
		struct keyspace_value value;
		uint64_t seq = commands_stat(call, i, &value) ? value.seq : 0;
		uint64_t hash = kvs_hash(call->kvd->lookup_seed, key->data, key->bytes);
		if (!session_watch_add(session, key->data, key->bytes, hash, seq)) {
			watch_refused(call);
			return;
		}
		if (seq == 0) {
			events_set_watched(call->kvd, true);
		}
	}
	reply_ok(session);
}

void commands_watch_unwatch(struct call *call)
{
	session_watch_reset(call->session);
	reply_ok(call->session);
}

bool commands_watch_changed(const struct call *call)
{
	const struct session_watch *watch = &call->session->watch;
	for (uint32_t i = 0; i < watch->capacity; i++) {
		const struct session_watched *watched = watch->places[i];
		struct keyspace_value value;
		if (watched) {
			bool found = keyspace_stat(call->kvd->keyspace, watched->key,
						   watched->key_bytes, &value) == KEYSPACE_OK;
			if (watched->touched || (found ? value.seq : 0) != watched->seq) {
				return true;
			}
		}
	}
	return false;
}

// SPDX-License-Identifier: MIT
//
// Messages to subscribers of the stub; see wire_stub.h.
#include <stdlib.h>
#include <string.h>

#include "daemon/parcel.h"
#include "tests/daemon/wire_stub.h"

size_t stub_publish(enum pubsub_kind kind, const char *channel, const char *message, size_t bytes)
{
	char *at[2];
	struct parcel *parcel = pubsub_parcel(strlen(channel), bytes, &at[0], &at[1]);
	if (!parcel) {
		abort();
	}
	memcpy(at[0], channel, strlen(channel));
	memcpy(at[1], message, bytes);
	pubsub_begin(&stub.kvd, kind, parcel);
	parcel_release(stub.sessions, parcel);
	(void)pubsub_go(&stub.kvd, 0);
	return pubsub_sent(&stub.kvd);
}

// SPDX-License-Identifier: MIT
//
// In the making.
#include "daemon/tracking.h"

void tracking_leave(struct session *session)
{
	(void)session;
}

void tracking_changed(struct kvd *kvd, const char *key, size_t key_bytes, struct session *origin)
{
	(void)kvd;
	(void)key;
	(void)key_bytes;
	(void)origin;
}

void tracking_turn(struct kvd *kvd)
{
	(void)kvd;
}

// SPDX-License-Identifier: MIT
//
// In the making.
#include "daemon/tracking.h"

void tracking_leave(struct session *session)
{
	(void)session;
}

void tracking_turn(struct kvd *kvd)
{
	(void)kvd;
}

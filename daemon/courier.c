// SPDX-License-Identifier: MIT
//
// One queue: whoever comes behind something long waits for it, but with everybody else served
// meanwhile.
#include "daemon/courier.h"

#include "daemon/kvd.h"
#include "daemon/seam.h"

void courier_add(struct courier *courier, struct errand *errand)
{
	errand->next = NULL;
	if (courier->last) {
		courier->last->next = errand;
	} else {
		courier->first = errand;
	}
	courier->last = errand;
	courier->given++;
}

static void courier_end_first(struct kvd *kvd)
{
	struct courier *courier = &kvd->courier;
	struct errand *errand = courier->first;
	courier->first = errand->next;
	courier->last = courier->first ? courier->last : NULL;
	courier->done++;
	errand->end(kvd, errand);
}

bool courier_turn(struct kvd *kvd, uint64_t until_ns)
{
	struct courier *courier = &kvd->courier;
	while (courier->first) {
		if (!courier->first->go(kvd, courier->first, until_ns)) {
			return true;
		}
		courier_end_first(kvd);
		if (until_ns != 0 && courier->first && kvd->seam->monotonic_ns() >= until_ns) {
			return true;
		}
	}
	return false;
}

void courier_drop(struct kvd *kvd)
{
	while (kvd->courier.first) {
		courier_end_first(kvd);
	}
}

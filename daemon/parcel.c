// SPDX-License-Identifier: MIT
//
// Few uids share a parcel: their shares are a list, the one found last in front.
#include "daemon/parcel.h"

#include <stdlib.h>

#include "daemon/session_parts.h"

struct parcel *parcel_create(size_t bytes)
{
	struct parcel *parcel = malloc(sizeof(*parcel) + bytes);
	if (parcel) {
		parcel->references = 1;
		parcel->bytes = bytes;
		parcel->shares = NULL;
	}
	return parcel;
}

void parcel_release(struct session_shared *shared, struct parcel *parcel)
{
	if (parcel && --parcel->references == 0) {
		reclaim_free(&shared->reclaim, parcel, sizeof(*parcel) + parcel->bytes);
	}
}

/// The share of a uid, moved to the front; NULL if it has none.
static struct parcel_share *parcel_share_of(struct parcel *parcel,
					    const struct session_owner *owner)
{
	struct parcel_share **at = &parcel->shares;
	while (*at && (*at)->owner != owner) {
		at = &(*at)->next;
	}
	struct parcel_share *share = *at;
	if (share) {
		*at = share->next;
		share->next = parcel->shares;
		parcel->shares = share;
	}
	return share;
}

struct parcel_share *parcel_hold(struct session_shared *shared, struct parcel *parcel,
				 struct session_owner *owner)
{
	struct parcel_share *share = parcel_share_of(parcel, owner);
	if (!share) {
		share = malloc(sizeof(*share));
		if (!share) {
			return NULL;
		}
		*share = (struct parcel_share){ .next = parcel->shares, .owner = owner };
		parcel->shares = share;
		session_owner_charge(shared, owner, parcel->bytes);
	}
	share->holders++;
	parcel->references++;
	return share;
}

void parcel_let_go(struct session_shared *shared, struct parcel *parcel, struct parcel_share *share)
{
	if (--share->holders == 0) {
		struct parcel_share **at = &parcel->shares;
		while (*at != share) {
			at = &(*at)->next;
		}
		*at = share->next;
		session_owner_uncharge(shared, share->owner, parcel->bytes);
		free(share);
	}
	parcel_release(shared, parcel);
}

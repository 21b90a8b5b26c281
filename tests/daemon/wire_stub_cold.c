// SPDX-License-Identifier: MIT
//
// The part of the stub behind sessions that would read values from the store.
#include "daemon/cold.h"

// Nothing is in a store alone here.
struct cold_wait *cold_wait_create(struct cold *cold, void *owner)
{
	(void)cold;
	(void)owner;
	return NULL;
}

void cold_wait_drop(struct cold_wait *wait)
{
	(void)wait;
}

void cold_wait_begin(struct cold_wait *wait)
{
	(void)wait;
}

const void *cold_wait_value(struct cold_wait *wait, const struct kvs_record_view *view)
{
	(void)wait;
	(void)view;
	return NULL;
}

struct parcel *cold_wait_parcel(const struct cold_wait *wait, const void *at)
{
	(void)wait;
	(void)at;
	return NULL;
}

bool cold_wait_failed(const struct cold_wait *wait, char *text, size_t bytes)
{
	(void)wait;
	(void)text;
	(void)bytes;
	return false;
}

size_t cold_wait_bytes(const struct cold_wait *wait)
{
	(void)wait;
	return 0;
}

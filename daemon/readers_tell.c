// SPDX-License-Identifier: MIT
//
// What is told of attached processes: who holds the oldest grace period, since when; and how one
// that holds it too long is sent away by hand, before its deadline or where there is none.

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/readers_parts.h"
#include "daemon/session.h"

#define READERS_LOOK_INTERVAL_NS UINT64_C(5000000) // a barrier for everybody, and all slots
#define READERS_LOOK_PAGES 32u			   // in one call, a tenth of a millisecond

/// Adds what one page holds.
static void readers_info_page(struct readers_info *info, const struct kvs_epoch_page *page,
			      uint64_t now_ns)
{
	info->pages++;
	info->revoked += page->revoked_times;
	info->short_deadline = info->short_deadline || page->short_deadline;
	for (unsigned i = 0; i < KVS_READERS_PER_PAGE; i++) {
		uint64_t epoch = page->seen_epoch[i];
		if (epoch == 0) {
			continue;
		}
		// Seen first behind the time of whoever asks: it is young.
		uint64_t since_ns = page->seen_since_ns[i];
		uint64_t age_ns = now_ns > since_ns ? now_ns - since_ns : 0;
		bool older = info->oldest_epoch == 0 || epoch < info->oldest_epoch ||
			     (epoch == info->oldest_epoch && age_ns > info->age_ns);
		info->open++;
		if (older) {
			info->oldest_epoch = epoch;
			info->age_ns = age_ns;
		}
	}
}

static void readers_info_fill(struct readers_info *info, const struct reader_client *client,
			      uint64_t now_ns)
{
	*info = (struct readers_info){
		.id = client->id,
		.session_id = client->session ? client->id : 0,
		.pid = client->pid,
		.uid = client->uid,
	};
	memcpy(info->name, readers_name(client), sizeof(info->name));
	for (uint32_t i = 0; i < client->pages_count; i++) {
		readers_info_page(info, client->pages[i], now_ns);
	}
}

bool readers_info(const struct readers *readers, size_t n, struct readers_info *info)
{
	const struct reader_client *client = TAILQ_FIRST(&readers->clients);
	for (; client && n > 0; n--) {
		client = TAILQ_NEXT(client, link);
	}
	if (client) {
		readers_info_fill(info, client, 0);
		readers_sum(client, &info->hits, &info->misses);
		info->inside = readers_busy(client);
	}
	return client != NULL;
}

bool readers_look(struct readers *readers, uint64_t now_ns)
{
	bool passing = kvs_epoch_passing(readers->domain);
	if (!passing && readers->looked_ns != 0 &&
	    now_ns - readers->looked_ns < READERS_LOOK_INTERVAL_NS) {
		return true;
	}
	// Who asks while a pass is under way is told as of that one.
	if (!kvs_epoch_pass(readers->domain, now_ns, READERS_LOOK_PAGES, NULL) &&
	    !kvs_epoch_passing(readers->domain)) {
		log_warning("the kernel refuses a barrier: who reads is told as of the last look");
	}
	readers->looked_ns = now_ns;
	return !kvs_epoch_passing(readers->domain);
}

struct readers_grace readers_grace(const struct readers *readers, uint64_t now_ns)
{
	const struct kvs_epoch_domain *domain = readers->domain;
	struct readers_grace grace = { .epoch = domain->epoch, .oldest = domain->oldest };
	if (kvs_epoch_held(domain)) {
		// Own words: this thread is the one that stores them.
		uint64_t since_ns = kvs_load_relaxed(&domain->adoptions->hold_since_ns);
		grace.held = true;
		grace.held_epoch = kvs_load_relaxed(&domain->hot->oldest_valid);
		grace.held_epoch += grace.held_epoch == 0; // the first epoch there is
		grace.held_ns = now_ns > since_ns ? now_ns - since_ns : 0;
	}
	return grace;
}

/// What decides the order; the rest is only filled in for those that are told.
struct readers_place {
	const struct reader_client *client; // NULL = kvd itself
	uint64_t epoch;			    // UINT64_MAX = nothing is open
	uint64_t age_ns;
	size_t order;
};

static int readers_by_place(const void *a, const void *b)
{
	const struct readers_place *left = a, *right = b;
	if (left->epoch != right->epoch) {
		return left->epoch < right->epoch ? -1 : 1;
	}
	if (left->age_ns != right->age_ns) {
		return left->age_ns > right->age_ns ? -1 : 1;
	}
	return left->order < right->order ? -1 : 1;
}

static struct readers_place readers_place(const struct readers *readers,
					  const struct reader_client *client, uint64_t now_ns,
					  size_t order)
{
	struct readers_info info = { 0 };
	if (!client) {
		readers_info_page(&info, readers->own_entry, now_ns);
	}
	for (uint32_t i = 0; client && i < client->pages_count; i++) {
		readers_info_page(&info, client->pages[i], now_ns);
	}
	return (struct readers_place){
		.client = client,
		.epoch = info.open > 0 ? info.oldest_epoch : UINT64_MAX,
		.age_ns = info.age_ns,
		.order = order,
	};
}

static void readers_info_own(struct readers_info *info, const struct readers *readers,
			     uint64_t now_ns)
{
	*info = (struct readers_info){ .pid = (int32_t)getpid(), .uid = geteuid(), .name = "kvd" };
	readers_info_page(info, readers->own_entry, now_ns);
}

size_t readers_list(const struct readers *readers, uint64_t now_ns, size_t max,
		    struct readers_info **infos)
{
	size_t count = 0;
	size_t all = readers->count + 1;
	struct readers_place *places = calloc(all, sizeof(*places));
	*infos = calloc(all < max ? all : max, sizeof(**infos));
	if (!places || !*infos) {
		free(places);
		free(*infos);
		*infos = NULL;
		return 0;
	}
	const struct reader_client *client;
	TAILQ_FOREACH (client, &readers->clients, link) {
		places[count] = readers_place(readers, client, now_ns, count);
		count++;
	}
	places[count] = readers_place(readers, NULL, now_ns, count);
	qsort(places, all, sizeof(*places), readers_by_place);
	count = all < max ? all : max;
	for (size_t i = 0; i < count; i++) {
		if (places[i].client) {
			readers_info_fill(*infos + i, places[i].client, now_ns);
		} else {
			readers_info_own(*infos + i, readers, now_ns);
		}
	}
	free(places);
	return count;
}

static bool readers_is_meant(const struct reader_client *client,
			     const struct readers_kicked *kicked)
{
	return kicked->id != 0 ? client->id == kicked->id : client->pid == kicked->pid;
}

static bool readers_may_kick(const struct reader_client *client,
			     const struct readers_kicked *kicked)
{
	return readers_is_meant(client, kicked) && (kicked->any_user || client->uid == kicked->uid);
}

bool readers_kick(struct readers *readers, struct readers_kicked *kicked, uint64_t now_ns)
{
	size_t pages_count = 0;
	struct reader_client *client, *next;
	TAILQ_FOREACH (client, &readers->clients, link) {
		bool mine = readers_may_kick(client, kicked);
		pages_count += mine ? client->pages_count : 0;
		kicked->others += !mine && readers_is_meant(client, kicked);
	}
	if (pages_count == 0) {
		return true;
	}
	struct kvs_epoch_page **pages = calloc(pages_count, sizeof(struct kvs_epoch_page *));
	if (!pages) {
		return false;
	}
	size_t at = 0;
	TAILQ_FOREACH (client, &readers->clients, link) {
		for (uint32_t i = 0; readers_may_kick(client, kicked) && i < client->pages_count;
		     i++) {
			pages[at++] = client->pages[i];
		}
	}
	bool good = kvs_epoch_expel(readers->domain, pages, pages_count, now_ns, &kicked->revoked);
	free(pages);
	for (client = TAILQ_FIRST(&readers->clients); good && client; client = next) {
		next = TAILQ_NEXT(client, link);
		if (readers_may_kick(client, kicked)) {
			kicked->attachments++;
			readers_client_free(client);
		}
	}
	return good;
}

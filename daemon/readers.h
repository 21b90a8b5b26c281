// SPDX-License-Identifier: MIT
//
// Client processes that map the region: their reader pages, the descriptors they get, and what
// happens when they die or hang up. Also the small table that turns uids into the writer index of
// records. Everything here belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/limits.h"

struct generation;
struct kvd;
struct kvs_epoch_domain;
struct kvs_region;
struct kvs_slot;
struct reader_client;
struct readers;
struct session;

/// Of DIR/kvd.gen, `generation`, a fresh read-only descriptor is made for each client. Nothing is
/// owned: domain, region and generation must outlive the readers. kvd->loop must be there. Returns
/// 0 or -errno.
int readers_create(struct readers **out, struct kvd *kvd, struct kvs_epoch_domain *domain,
		   struct kvs_region *region, const struct generation *generation);
/// Takes every page out of the domain and frees. NULL is fine.
void readers_destroy(struct readers *readers);

/// A slot of kvd's own page, for a thread of kvd (the persister) that reads the region; NULL when
/// all are taken. It is scanned, and never revoked by mistake: its owner keeps sections short.
struct kvs_slot *readers_own_slot(struct readers *readers);

/// KVD.ATTACH: answers `session` by itself, with descriptors or an error. The first call of a
/// connection passes region, page and generation; `page_only` (KVD.ATTACH PAGE) adds one more page.
void readers_attach(struct kvd *kvd, struct session *session, bool page_only);

/// The session's connection is gone. If its process lives, its pages stay in the domain, marked
/// DETACHED, until nothing is being read through them.
void readers_session_closed(struct readers *readers, struct session *session);

/// Reader pages of all attached processes of one user.
uint32_t readers_pages(const struct readers *readers, uint32_t uid);
/// Those processes; one that attached by two connections counts twice.
uint32_t readers_clients(const struct readers *readers, uint32_t uid);

/// One attached process, for KVD.STATS and KVD.READERS.
struct readers_info {
	uint64_t id;	     // of the connection by which it attached; 0 = kvd itself
	uint64_t session_id; // the same while that is open, 0 = detached
	int32_t pid;
	uint32_t uid;
	char name[KVS_CLIENT_NAME_BYTES_MAX + 1]; // empty = none
	uint32_t pages;
	uint64_t hits; // as the process itself counts them: never trusted
	uint64_t misses;
	uint64_t revoked;      // how often views were taken back from it
	bool inside;	       // a view is open now
	bool short_deadline;   // it was revoked twice
	uint32_t open;	       // sections, as of the last look
	uint64_t oldest_epoch; // in which the oldest of them began, 0 = none is open
	uint64_t age_ns;       // how long kvd has seen that one
};

/// Fills `info` for the n-th attached process; false beyond the last.
bool readers_info(const struct readers *readers, size_t n, struct readers_info *info);
size_t readers_count(const struct readers *readers);

/// Where grace periods stand.
struct readers_grace {
	uint64_t epoch;
	uint64_t oldest;     // nothing with a lower stamp is being read
	bool held;	     // an adopted region: sections of an earlier life are waited for
	uint64_t held_epoch; // those that began in it or later
	uint64_t held_ns;    // since so long
};

struct readers_grace readers_grace(const struct readers *readers, uint64_t now_ns);

/// Looks at all slots, some in each call, unless that was done some ms ago; `now_ns` is monotonic.
/// False: there are more.
bool readers_look(struct readers *readers, uint64_t now_ns);
/// Those who hold back the most first, kvd itself among them, then those who hold back nothing; at
/// most `max`, without `hits`, `misses` and `inside`. Returns how many; *infos is from malloc, NULL
/// if memory is short.
size_t readers_list(const struct readers *readers, uint64_t now_ns, size_t max,
		    struct readers_info **infos);

/// Whom readers_kick() means: the attachment with this id, or all of this process.
struct readers_kicked {
	uint64_t id; // 0 = by pid
	int32_t pid;
	size_t attachments; // out: how many
	size_t revoked;	    // out: sections that were taken back
	bool any_user;	    // else only those of `uid`
	uint32_t uid;
	size_t others; // out: attachments of other users, left as they are
};

/// Takes the open sections of a process back now and detaches it; it may attach anew. False if the
/// kernel refused the barrier or memory is short: then it was not done, or not wholly.
bool readers_kick(struct readers *readers, struct readers_kicked *kicked, uint64_t now_ns);
/// Takes the hashes of what was read from the rings and warms those keys, if memory is so full that
/// it matters; a share of each process, so that none has more of a say for reading faster. When to
/// come again at the latest; `now_ns` is monotonic.
uint64_t readers_sample(struct readers *readers, uint64_t now_ns);
/// The same as of now: memory may have become short since.
uint64_t readers_sample_next_ns(struct readers *readers, uint64_t now_ns);

/// Hits and misses of mapped reads as clients count them, those that have gone included.
void readers_totals(const struct readers *readers, uint64_t *hits, uint64_t *misses);

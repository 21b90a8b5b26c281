// SPDX-License-Identifier: MIT
//
// Client processes that map the region: their reader pages, the descriptors they get, and what
// happens when they die or hang up. Also the small table that turns uids into the writer index of
// records. Everything here belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvd;
struct kvs_epoch_domain;
struct kvs_region;
struct kvs_slot;
struct reader_client;
struct readers;
struct session;

/// `gen_fd` is DIR/kvd.gen, open for reading at least; a fresh read-only descriptor of it is made
/// for each client. Nothing is owned: domain, region and gen_fd must outlive the readers. kvd->loop
/// must be there. Returns 0 or -errno.
int readers_create(struct readers **out, struct kvd *kvd, struct kvs_epoch_domain *domain,
		   struct kvs_region *region, int gen_fd);
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

/// Index of a uid for keyspace_set_writer(): 1..4095, 0 when the table is full.
uint16_t readers_writer_index(struct readers *readers, uint32_t uid);
/// The other way round; false for an index that was never given out.
bool readers_writer_uid(const struct readers *readers, uint16_t index, uint32_t *uid);

/// One attached process, for KVD.STATS.
struct readers_info {
	uint64_t session_id; // 0 = detached
	int32_t pid;
	uint32_t uid;
	uint32_t pages;
	uint64_t hits; // as the process itself counts them: never trusted
	uint64_t misses;
	uint64_t revoked; // views taken back from it
	bool inside;	  // a view is open now
};

/// Fills `info` for the n-th attached process; false beyond the last.
bool readers_info(const struct readers *readers, size_t n, struct readers_info *info);
size_t readers_count(const struct readers *readers);
/// Hits and misses of mapped reads as clients count them, those that have gone included.
void readers_totals(const struct readers *readers, uint64_t *hits, uint64_t *misses);

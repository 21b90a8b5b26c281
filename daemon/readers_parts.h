// SPDX-License-Identifier: MIT
//
// Shared by readers.c (who is attached, until when), readers_attach.c (how one gets there) and
// readers_tell.c (what is told of them, and who is sent away).
#pragma once

#include <sys/queue.h>

#include "daemon/files.h"
#include "daemon/kvd.h"
#include "daemon/loop.h"
#include "daemon/readers.h"
#include "shm/epoch_scan.h"
#include "shm/limits.h"

/// All attached processes of one user.
struct readers_user {
	LIST_ENTRY(readers_user) link;
	uint32_t uid;
	uint32_t clients;
	uint32_t pages;
};

struct reader_client {
	TAILQ_ENTRY(reader_client) link;
	struct readers *readers;
	struct session *session; // NULL once its connection is gone
	uint64_t id;		 // of that connection
	int32_t pid;
	uint32_t uid;
	struct readers_user *user;
	struct loop_source process; // pidfd: readable when the process has ended
	struct loop_timer recheck;  // detached: is anything still being read?
	uint64_t recheck_ns;
	struct kvs_epoch_page *pages[KVS_PAGES_PER_CLIENT_MAX];
	uint32_t pages_count;
	uint32_t sample_turn; // which slot is looked at first
	uint32_t sample_page; // which page is looked at next
	struct readers_sight *sights[KVS_PAGES_PER_CLIENT_MAX]; // of each page
	char name[KVS_CLIENT_NAME_BYTES_MAX + 1]; // that its connection had, once that is gone
};

struct readers {
	struct kvd *kvd;
	struct kvs_epoch_domain *domain;
	struct kvs_region *region;
	const struct generation *generation;
	TAILQ_HEAD(, reader_client) clients;
	size_t count;
	LIST_HEAD(, readers_user) users;
	uint32_t pages; // of all clients
	struct files_shares files; // of the descriptors; each process that is watched takes one
	struct kvs_reader_page *own_page;
	struct kvs_epoch_page *own_entry;
	uint32_t own_slots;
	bool own_uid_warned;
	uint64_t sampled_ns; // when the rings were looked at last
	size_t sample_at; // the client whose turn is next
	uint64_t went; // keys and values that did, as of then
	uint64_t went_ns; // when that rose last
	bool sampling; // readers were told to leave many samples
	uint64_t looked_ns; // when readers_look() last did, 0 = never
	uint64_t gone_hits; // of clients that are not there any more
	uint64_t gone_misses;
};

/// A descriptor that tells the end of the process that connected, -1 with errno if there is none to
/// be had. With KVD_NO_PEERPIDFD=1 in the environment it is made as on kernels before 6.5.
int readers_pidfd(const struct session *session);

/// The name that its connection has or had; empty = none.
const char *readers_name(const struct reader_client *client);

/// What kvd has seen of the rings behind one page.
struct readers_sight {
	uint64_t seen[KVS_READERS_PER_PAGE]; // sample_count of each slot
};

/// Is anything being read through its pages?
bool readers_busy(const struct reader_client *client);

/// Adds what its readers counted, as far as it can be believed: a sum that only says "about".
void readers_sum(const struct reader_client *client, uint64_t *hits, uint64_t *misses);

/// The record of a session that attaches for the first time; NULL with errno.
struct reader_client *readers_client_open(struct readers *readers, struct session *session);
/// Takes its pages out of the domain at once and forgets it.
void readers_client_free(struct reader_client *client);

// SPDX-License-Identifier: MIT
//
// Shared by readers.c (who is attached, until when) and readers_attach.c (how one gets there).
#pragma once

#include <sys/queue.h>

#include "daemon/kvd.h"
#include "daemon/loop.h"
#include "daemon/readers.h"
#include "shm/epoch_scan.h"
#include "shm/limits.h"
#include "shm/record.h"

struct reader_client {
	TAILQ_ENTRY(reader_client) link;
	struct readers *readers;
	struct session *session; // NULL once its connection is gone
	int32_t pid;
	uint32_t uid;
	struct loop_source process; // pidfd: readable when the process has ended
	struct loop_timer recheck;  // detached: is anything still being read?
	uint64_t recheck_ns;
	struct kvs_epoch_page *pages[KVS_PAGES_PER_CLIENT_MAX];
	uint32_t pages_count;
};

struct readers {
	struct kvd *kvd;
	struct kvs_epoch_domain *domain;
	struct kvs_region *region;
	int gen_fd;
	TAILQ_HEAD(, reader_client) clients;
	size_t count;
	struct kvs_reader_page *own_page;
	struct kvs_epoch_page *own_entry;
	uint32_t own_slots;
	bool own_uid_warned;
	uint64_t gone_hits; // of clients that are not there any more
	uint64_t gone_misses;
	uint16_t uids_count;
	uint32_t uids[KVS_WRITERS_MAX]; // index - 1 -> uid
};

/// A descriptor that tells the end of the process that connected, -1 with errno if there is none to
/// be had. With KVD_NO_PEERPIDFD=1 in the environment it is made as on kernels before 6.5.
int readers_pidfd(const struct session *session);

/// The record of a session that attaches for the first time; NULL with errno.
struct reader_client *readers_client_open(struct readers *readers, struct session *session);
/// Takes its pages out of the domain at once and forgets it.
void readers_client_free(struct reader_client *client);

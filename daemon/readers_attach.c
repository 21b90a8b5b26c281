// SPDX-License-Identifier: MIT
//
// KVD.ATTACH: makes a reader page and passes three descriptors. Each is a fresh open file, so that
// no client shares an offset, flags or a lock with another; the page is made, sized and sealed
// here, so that nobody can shrink it under kvd's feet.

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/generation.h"
#include "daemon/log.h"
#include "daemon/readers_parts.h"
#include "daemon/refuse.h"
#include "daemon/remedy.h"
#include "daemon/reply.h"
#include "daemon/session.h"
#include "daemon/session_flight.h"
#include "shm/newer_linux.h"
#include "shm/region.h"

#define READERS_PROTOCOL 1

int readers_pidfd(const struct session *session)
{
	const char *forced = getenv("KVD_NO_PEERPIDFD");
	if (!forced || strcmp(forced, "1") != 0) {
		int pidfd = -1;
		socklen_t length = sizeof(pidfd);
		if (getsockopt(session->source.fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) ==
		    0) {
			return pidfd;
		}
		if (errno != ENOPROTOOPT) {
			return -1;
		}
	}
	if (session->pid <= 0) {
		errno = ESRCH; // it lives in a namespace that cannot be seen from here
		return -1;
	}
	int pidfd = pidfd_open(session->pid, 0);
	if (pidfd < 0) {
		return -1;
	}
	// The pid may have been given to another process since it connected, but then the socket
	// has been hung up. (A child that inherited the socket keeps it open: then the pid's end is
	// seen as this pidfd's, and the child attaches by itself.)
	struct pollfd peer = { .fd = session->source.fd, .events = POLLRDHUP };
	if (poll(&peer, 1, 0) < 0 || (peer.revents & (POLLHUP | POLLRDHUP | POLLERR))) {
		close(pidfd);
		errno = ESRCH;
		return -1;
	}
	return pidfd;
}

/// A page for one client, sealed at its size. Returns its descriptor, or -1 with errno.
static int readers_page_create(struct kvs_reader_page **page)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create("kvd-page", flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL) {
		fd = memfd_create("kvd-page", flags);
	}
	if (fd < 0) {
		return -1;
	}
	void *at = MAP_FAILED;
	if (fchmod(fd, 0600) == 0 && ftruncate(fd, KVS_PAGE_FILE_BYTES) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
		at = mmap(NULL, KVS_PAGE_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	if (at == MAP_FAILED) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	*page = at;
	return fd;
}

/// The same file, opened anew and read-only.
static int readers_reopen(int fd)
{
	char path[32];
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void readers_close(const int *fds, unsigned count)
{
	int error = errno;
	for (unsigned i = 0; i < count; i++) {
		if (fds[i] >= 0) {
			close(fds[i]);
		}
	}
	errno = error;
}

/// One more page for a client. Returns its descriptor, or -1 with errno.
static int readers_page_add(struct reader_client *client)
{
	struct kvs_reader_page *page = NULL;
	int fd = readers_page_create(&page);
	if (fd < 0) {
		return -1;
	}
	struct readers_sight *sight = calloc(1, sizeof(*sight));
	struct kvs_epoch_page *entry =
		sight ? kvs_epoch_add(client->readers->domain, page, client) : NULL;
	if (!entry) {
		free(sight);
		(void)munmap(page, KVS_PAGE_FILE_BYTES);
		close(fd);
		errno = ENOMEM;
		return -1;
	}
	page->header.rings = 1; // before the client has it
	page->header.sample_every = client->readers->sampling;
	client->sights[client->pages_count] = sight;
	client->pages[client->pages_count++] = entry;
	client->user->pages++;
	client->readers->pages++;
	return fd;
}

static void readers_reply_text(struct session *session, const char *name, const char *value)
{
	reply_text(session, name);
	reply_text(session, value);
}

static void readers_reply_number(struct session *session, const char *name, uint64_t value)
{
	reply_text(session, name);
	reply_integer(session, (int64_t)value);
}

static void readers_reply(const struct readers *readers, struct session *session, unsigned fds)
{
	const struct kvs_region_header *header = readers->region->header;
	char instance[24];
	(void)snprintf(instance, sizeof(instance), "%016" PRIx64, header->instance_id);
	reply_map(session, 10);
	readers_reply_number(session, "proto", READERS_PROTOCOL);
	readers_reply_number(session, "layout", kvs_layout_fingerprint());
	readers_reply_text(session, "instance", instance);
	// Own words: this thread is the one that stores them.
	readers_reply_number(session, "incarnation", kvs_load_relaxed(&header->hot.incarnation));
	readers_reply_number(session, "region_bytes", header->region_bytes);
	readers_reply_number(session, "segment_bytes", header->segment_bytes);
	readers_reply_number(session, "page_readers", KVS_READERS_PER_PAGE);
	readers_reply_number(session, "pid", (uint64_t)getpid());
	readers_reply_number(session, "fds", fds);
	readers_reply_number(session, "gen", readers->generation->now.generation);
}

static void readers_refuse(struct session *session, const char *what)
{
	int error = errno;
	refuse(session, REFUSAL_ATTACH, "%s: %s; %s; it reads through the socket", what,
	       strerrordesc_np(error), remedy_of_errno(error));
	reply_errorf(session, "ERR KVD.ATTACH: %s: %s", what, strerrordesc_np(error));
}

/// Is it this session's turn to attach? Answers with an error if not.
static bool readers_may_attach(struct session *session, bool page_only)
{
	const struct reader_client *client = session->reader_client;
	const char *why = NULL;
	if (session->fds_count > 0) {
		why = "ERR KVD.ATTACH: descriptors of this connection are still on their way";
	} else if (page_only && !client) {
		why = "ERR KVD.ATTACH PAGE: this connection is not attached, call KVD.ATTACH first";
	} else if (!page_only && client) {
		why = "ERR KVD.ATTACH: this connection is attached already, KVD.ATTACH PAGE adds a "
		      "page";
	} else if (client && client->pages_count == KVS_PAGES_PER_CLIENT_MAX) {
		why = "ERR KVD.ATTACH PAGE: the limit of pages of one connection is reached";
	}
	if (why) {
		reply_error(session, why);
	}
	if (client && client->pages_count == KVS_PAGES_PER_CLIENT_MAX) {
		refuse(session, REFUSAL_PAGES,
		       "its connection has %u, the most that one may have; "
		       "open another connection, or let threads share",
		       KVS_PAGES_PER_CLIENT_MAX);
	}
	return !why;
}

/// Is there a page left, for all and for the user? Answers with an error if not.
static bool readers_has_page(const struct readers *readers, struct session *session)
{
	const struct config *config = &readers->kvd->config;
	uint64_t share = config->pages_max * config->pages_share_percent / 100;
	uint32_t mine = readers_pages(readers, session->uid);
	bool bounded = session->uid != 0 && session->uid != geteuid();
	if (config->pages_max == 0 || // in some tests
	    (readers->pages < config->pages_max && (!bounded || mine < share || mine == 0))) {
		return true;
	}
	bool all = readers->pages >= config->pages_max;
	refuse(session, REFUSAL_PAGES,
	       "%u pages are in use%s, the limit; raise %s, or close readers",
	       all ? readers->pages : mine, all ? "" : " by its user",
	       all ? "reader-pages-max" : "reader-pages-max or reader-pages-uid-share");
	reply_errorf(session,
		     "ERR KVD.ATTACH: no reader page is left%s (%s); reads through the "
		     "socket work",
		     all ? "" : " for this user",
		     all ? "reader-pages-max" : "reader-pages-uid-share");
	return false;
}

/// Is there a descriptor left to watch one more process, for all and for the user? Answers with an
/// error if not.
static bool readers_may_watch(const struct readers *readers, struct session *session)
{
	const struct config *config = &readers->kvd->config;
	uint64_t max = files_attached_max(&readers->files, config->clients_max);
	uint64_t share = max * config->pages_share_percent / 100;
	uint32_t mine = readers_clients(readers, session->uid);
	bool bounded = session->uid != 0 && session->uid != geteuid();
	if (readers->count < max && (!bounded || mine < share || mine == 0)) {
		return true;
	}
	bool all = readers->count >= max;
	refuse(session, REFUSAL_ATTACH,
	       "%llu processes%s are watched, as many as there are descriptors for; %s%s, or close "
	       "readers",
	       (unsigned long long)(all ? readers->count : mine), all ? "" : " of its user",
	       remedy_of_errno(EMFILE), all ? "" : ", or raise reader-pages-uid-share");
	reply_errorf(session,
		     "ERR KVD.ATTACH: no descriptor is left to watch this process%s; reads through "
		     "the socket work",
		     all ? "" : " for this user");
	return false;
}

/// May so many descriptors more be on their way? Answers with an error if not.
static bool readers_may_send(struct session *session, unsigned count)
{
	bool mine;
	if (session_flight_begin(session, count, &mine)) {
		return true;
	}
	struct session_flight_counts counts = session_flight_counts(session);
	refuse(session, REFUSAL_FLIGHT,
	       "%llu descriptors are on their way to its user and %llu to all, of %llu, and were "
	       "not received; close who does not read the reply to KVD.ATTACH (kvctl clients), or "
	       "raise the limit (LimitNOFILE=, ulimit -n)",
	       (unsigned long long)counts.mine, (unsigned long long)counts.all,
	       (unsigned long long)counts.max);
	reply_errorf(session,
		     "ERR KVD.ATTACH: too many descriptors are on their way%s and were not "
		     "received; reads through the socket work",
		     mine ? " to this user" : "");
	return false;
}

static void readers_warn_own_uid(struct readers *readers, const struct session *session)
{
	if (!readers->own_uid_warned && session->uid == geteuid() && session->uid != 0) {
		readers->own_uid_warned = true;
		log_warning("process %d attaches with kvd's own uid %u: it could open the region "
			    "for writing; run kvd as a user of its own to be safe from clients",
			    (int)session->pid, session->uid);
	}
}

void readers_attach(struct kvd *kvd, struct session *session, bool page_only)
{
	struct readers *readers = kvd->readers;
	if (!readers_may_attach(session, page_only) || !readers_has_page(readers, session)) {
		return;
	}
	unsigned count = page_only ? 1 : 3;
	if ((!page_only && !readers_may_watch(readers, session)) ||
	    !readers_may_send(session, count)) {
		return;
	}
	struct reader_client *client = session->reader_client;
	if (!client) {
		client = readers_client_open(readers, session);
		if (!client) {
			session_flight_cancel(session, count);
			readers_refuse(session, "its process cannot be watched");
			return;
		}
	}
	int fds[SESSION_FDS_MAX] = { -1, -1, -1 };
	int page = readers_page_add(client);
	bool good = page >= 0;
	if (page_only) {
		fds[0] = page;
	} else if (good) {
		fds[0] = readers_reopen(readers->region->fd_readonly);
		fds[1] = page;
		fds[2] = readers_reopen(readers->generation->fd);
		good = fds[0] >= 0 && fds[2] >= 0;
	} else {
		fds[1] = page;
	}
	good = good && session_send_fds(session, fds, count);
	if (!good) {
		readers_close(fds, count);
		session_flight_cancel(session, count);
		readers_refuse(session, "no descriptor or page can be made");
		if (!page_only) {
			readers_client_free(client);
		}
		return;
	}
	readers_warn_own_uid(readers, session);
	readers_reply(readers, session, count);
}

// SPDX-License-Identifier: MIT
//
// Attached processes. A page lives from KVD.ATTACH until its process is dead (the pidfd says so,
// the end of the connection does not: a forked child may keep that open, or the process may have
// closed it and go on reading), or until the connection is gone and nothing is being read through
// it.

#include "daemon/readers.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/keyspace.h"
#include "daemon/log.h"
#include "daemon/readers_parts.h"
#include "daemon/session.h"
#include "shm/counters.h"
#include "shm/map.h"
#include "shm/record.h"

#define READERS_STUCK_NS UINT64_C(100000000) // told of then; revocation has its own deadlines
#define READERS_RECHECK_FIRST_NS UINT64_C(10000000)
#define READERS_RECHECK_LAST_NS UINT64_C(1000000000)

static void readers_gauge(struct readers *readers, enum kvs_counter counter, uint64_t by)
{
	void *base = keyspace_map(readers->kvd->keyspace)->base;
	kvs_count(kvs_counter_word(base, counter), by); // partner: none, statistics
}

const char *readers_name(const struct reader_client *client)
{
	return client->session ? client->session->name : client->name;
}

/// A view has been open since long while memory waits for it to end. Told once for each view,
/// before it is taken back.
static void readers_stuck(void *owner, uint64_t age_ns)
{
	const struct reader_client *client = owner;
	const char *name = readers_name(client);
	log_warning("process %d (uid %u, name '%s') has had a view open for %llu ms, and memory "
		    "waits for it: it should end its views sooner, or copy",
		    (int)client->pid, (unsigned)client->uid, name,
		    (unsigned long long)(age_ns / 1000000));
}

int readers_create(struct readers **out, struct kvd *kvd, struct kvs_epoch_domain *domain,
		   struct kvs_region *region, const struct generation *generation)
{
	struct readers *readers = calloc(1, sizeof(*readers));
	if (!readers) {
		return -ENOMEM;
	}
	readers->kvd = kvd;
	readers->domain = domain;
	readers->region = region;
	readers->generation = generation;
	readers->files = files_share(files_limit());
	TAILQ_INIT(&readers->clients);
	LIST_INIT(&readers->users);
	readers->own_page = mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (readers->own_page == MAP_FAILED) {
		free(readers);
		return -ENOMEM;
	}
	readers->own_entry = kvs_epoch_add(domain, readers->own_page, NULL);
	if (!readers->own_entry) {
		(void)munmap(readers->own_page, KVS_PAGE_BYTES);
		free(readers);
		return -ENOMEM;
	}
	domain->stuck_ns = READERS_STUCK_NS;
	domain->stuck = readers_stuck;
	*out = readers;
	return 0;
}

struct kvs_slot *readers_own_slot(struct readers *readers)
{
	if (readers->own_slots == KVS_READERS_PER_PAGE) {
		return NULL;
	}
	return &readers->own_page->slot[readers->own_slots++];
}

void readers_sum(const struct reader_client *client, uint64_t *hits, uint64_t *misses)
{
	for (uint32_t i = 0; i < client->pages_count; i++) {
		for (unsigned j = 0; j < KVS_READERS_PER_PAGE; j++) {
			const struct kvs_slot *slot = &client->pages[i]->page->slot[j];
			*hits += kvs_load_relaxed(&slot->hits); // partner: kvs_count() in clients
			*misses += kvs_load_relaxed(&slot->misses);
		}
	}
}

static struct readers_user *readers_user_join(struct readers *readers, uint32_t uid)
{
	struct readers_user *user;
	LIST_FOREACH (user, &readers->users, link) {
		if (user->uid == uid) {
			user->clients++;
			return user;
		}
	}
	user = calloc(1, sizeof(*user));
	if (user) {
		user->uid = uid;
		user->clients = 1;
		LIST_INSERT_HEAD(&readers->users, user, link);
	}
	return user;
}

static void readers_user_leave(struct readers_user *user)
{
	if (--user->clients == 0) {
		LIST_REMOVE(user, link);
		free(user);
	}
}

void readers_client_free(struct reader_client *client)
{
	struct readers *readers = client->readers;
	readers_sum(client, &readers->gone_hits, &readers->gone_misses);
	loop_timer_cancel(readers->kvd->loop, &client->recheck);
	for (uint32_t i = 0; i < client->pages_count; i++) {
		struct kvs_reader_page *page = client->pages[i]->page;
		free(client->sights[i]);
		kvs_epoch_remove(readers->domain, client->pages[i]);
		if (munmap(page, KVS_PAGE_FILE_BYTES) != 0) {
			log_error("cannot unmap a reader page: %m");
		}
	}
	if (client->process.fd >= 0) {
		loop_remove(readers->kvd->loop, &client->process);
		close(client->process.fd);
	}
	if (client->session) {
		client->session->reader_client = NULL;
	}
	readers->pages -= client->pages_count;
	client->user->pages -= client->pages_count;
	readers_user_leave(client->user);
	TAILQ_REMOVE(&readers->clients, client, link);
	readers->count--;
	readers_gauge(readers, KVS_COUNTER_clients_attached, UINT64_MAX); // minus one
	free(client);
}

/// Who shares the memory of a process without being a thread of it (clone() with CLONE_VM, a child
/// between vfork() and exec()) has its pages, too, and may go on. Its views end as taken back, and
/// the next ones find the page detached, before anything that they held is used again.
static void readers_expel_heirs(struct reader_client *client)
{
	struct kvs_epoch_domain *domain = client->readers->domain;
	uint64_t before = domain->revocations;
	size_t revoked;
	// Without a barrier the page goes all the same: hardly anybody is there to read by it.
	(void)kvs_epoch_expel(domain, client->pages, client->pages_count,
			      loop_now_ns(client->readers->kvd->loop), &revoked);
	domain->revocations = before; // the dead are not counted among those who were slow
}

static void readers_process_ended(struct loop_source *source, uint32_t events)
{
	(void)events;
	struct reader_client *client =
		(struct reader_client *)(void *)((char *)source -
						 offsetof(struct reader_client, process));
	log_debug("process %d ended while attached", (int)client->pid);
	readers_expel_heirs(client);
	readers_gauge(client->readers, KVS_COUNTER_readers_dead, 1);
	readers_client_free(client);
}

bool readers_busy(const struct reader_client *client)
{
	for (uint32_t i = 0; i < client->pages_count; i++) {
		if (kvs_epoch_page_busy(client->pages[i])) {
			return true;
		}
	}
	return false;
}

/// Tells the readers of all pages to attach anew; true once nothing is being read through them, for
/// which every announcement must be visible here.
static bool readers_detached_idle(const struct reader_client *client)
{
	bool ordered = true;
	for (uint32_t i = 0; i < client->pages_count; i++) {
		ordered = kvs_epoch_detach(client->readers->domain, client->pages[i]) && ordered;
	}
	return ordered && !readers_busy(client);
}

static void readers_recheck(struct loop_timer *timer, uint64_t now_ns)
{
	struct reader_client *client =
		(struct reader_client *)(void *)((char *)timer -
						 offsetof(struct reader_client, recheck));
	if (readers_detached_idle(client)) {
		readers_client_free(client);
		return;
	}
	client->recheck_ns *= 2;
	if (client->recheck_ns > READERS_RECHECK_LAST_NS) {
		client->recheck_ns = READERS_RECHECK_LAST_NS;
	}
	if (!loop_timer_set(client->readers->kvd->loop, timer, now_ns + client->recheck_ns)) {
		log_warning("out of memory: pages of process %d stay until it ends",
			    (int)client->pid);
	}
}

/// The client record of a session that attaches for the first time.
static struct reader_client *readers_client_new(struct readers *readers, struct session *session,
						int pidfd)
{
	struct reader_client *client = calloc(1, sizeof(*client));
	if (!client) {
		return NULL;
	}
	client->readers = readers;
	client->session = session;
	client->id = session->id;
	client->pid = session->pid;
	client->uid = session->uid;
	client->user = readers_user_join(readers, session->uid);
	if (!client->user) {
		free(client);
		return NULL;
	}
	client->recheck.due = readers_recheck;
	client->process = (struct loop_source){ .fd = pidfd, .ready = readers_process_ended };
	if (loop_add(readers->kvd->loop, &client->process, EPOLLIN) != 0) {
		readers_user_leave(client->user);
		free(client);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&readers->clients, client, link);
	readers->count++;
	readers_gauge(readers, KVS_COUNTER_clients_attached, 1);
	session->reader_client = client;
	return client;
}

struct reader_client *readers_client_open(struct readers *readers, struct session *session)
{
	int pidfd = readers_pidfd(session);
	if (pidfd < 0) {
		return NULL;
	}
	struct reader_client *client = readers_client_new(readers, session, pidfd);
	if (!client) {
		close(pidfd);
		errno = ENOMEM;
	}
	return client;
}

void readers_session_closed(struct readers *readers, struct session *session)
{
	struct reader_client *client = session->reader_client;
	if (!client) {
		return;
	}
	client->session = NULL;
	session->reader_client = NULL;
	memcpy(client->name, session->name, sizeof(client->name));
	struct pollfd process = { .fd = client->process.fd, .events = POLLIN };
	if (poll(&process, 1, 0) > 0) {
		readers_process_ended(&client->process, EPOLLIN);
		return;
	}
	if (readers_detached_idle(client)) {
		readers_client_free(client);
		return;
	}
	log_info("process %d closed its connection and still reads: its pages stay",
		 (int)client->pid);
	client->recheck_ns = READERS_RECHECK_FIRST_NS;
	if (!loop_timer_set(readers->kvd->loop, &client->recheck,
			    loop_now_ns(readers->kvd->loop) + client->recheck_ns)) {
		log_warning("out of memory: pages of process %d stay until it ends",
			    (int)client->pid);
	}
}

void readers_destroy(struct readers *readers)
{
	if (!readers) {
		return;
	}
	struct reader_client *client;
	while ((client = TAILQ_FIRST(&readers->clients)) != NULL) {
		readers_client_free(client);
	}
	kvs_epoch_remove(readers->domain, readers->own_entry);
	(void)munmap(readers->own_page, KVS_PAGE_BYTES);
	free(readers);
}

static const struct readers_user *readers_user(const struct readers *readers, uint32_t uid)
{
	const struct readers_user *user = LIST_FIRST(&readers->users);
	while (user && user->uid != uid) {
		user = LIST_NEXT(user, link);
	}
	return user;
}

uint32_t readers_pages(const struct readers *readers, uint32_t uid)
{
	const struct readers_user *user = readers_user(readers, uid);
	return user ? user->pages : 0;
}

uint32_t readers_clients(const struct readers *readers, uint32_t uid)
{
	const struct readers_user *user = readers_user(readers, uid);
	return user ? user->clients : 0;
}

size_t readers_count(const struct readers *readers)
{
	return readers->count;
}

void readers_totals(const struct readers *readers, uint64_t *hits, uint64_t *misses)
{
	*hits = readers->gone_hits;
	*misses = readers->gone_misses;
	const struct reader_client *client;
	TAILQ_FOREACH (client, &readers->clients, link) {
		readers_sum(client, hits, misses);
	}
}

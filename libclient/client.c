// SPDX-License-Identifier: MIT
//
// A client's life: options in, everything out again at the end, and the two things that hold it
// together between threads and processes: the mutex, and the sentinel page that tells a forked
// child (by fork() or by raw clone) that what it has inherited belongs to its parent.
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "libclient/internal.h"

#define CLIENT_SOCKET_DEFAULT "/run/kvd/kvd.sock"
#define CLIENT_CONNECT_TIMEOUT_MS 1000
#define CLIENT_REQUEST_TIMEOUT_MS 5000
#define CLIENT_RECONNECT_MIN_MS 10
#define CLIENT_RECONNECT_MAX_MS 1000

void kvc_options_init(struct kvc_options *options)
{
	if (options) {
		*options = (struct kvc_options){ .struct_bytes = sizeof(*options) };
	}
}

bool kvc_copy_sized(void *to, size_t to_bytes, const void *from)
{
	size_t from_bytes;
	memcpy(&from_bytes, from, sizeof(from_bytes));
	if (from_bytes < sizeof(size_t) || from_bytes > KVS_PAGE_BYTES) {
		return false;
	}
	memset(to, 0, to_bytes);
	memcpy(to, from, from_bytes < to_bytes ? from_bytes : to_bytes);
	for (size_t i = to_bytes; i < from_bytes; i++) {
		if (((const unsigned char *)from)[i] != 0) {
			return false;
		}
	}
	return true;
}

bool kvc_set_options_copy(struct kvc_set_options *to, const struct kvc_set_options *from)
{
	if (!from) {
		*to = (struct kvc_set_options){ .struct_bytes = sizeof(*to) };
		return true;
	}
	return kvc_copy_sized(to, sizeof(*to), from);
}

// The path to connect to, and who chose it.
static const char *client_socket(kvc *client)
{
	const char *path = client->options.socket_path;
	client->socket_from = "as given";
	if (!path) {
		path = secure_getenv("KVD_SOCKET");
		client->socket_from = "from KVD_SOCKET";
	}
	if (!path || !*path) {
		path = CLIENT_SOCKET_DEFAULT;
		client->socket_from = "the default";
	}
	return path;
}

// Tells the caller of a kvc_open() that failed why.
static void client_explain(const struct kvc_options *options, const char *text, int status)
{
	if (options->error_text && options->error_text_bytes > 0) {
		(void)snprintf(options->error_text, options->error_text_bytes, "%s",
			       *text ? text : kvc_strerror(status));
	}
}

static int client_options(kvc *client, const struct kvc_options *given)
{
	struct kvc_options *options = &client->options;
	if (given && !kvc_copy_sized(options, sizeof(*options), given)) {
		return KVC_INVALID;
	}
	if (options->flags &
	    ~(uint32_t)(KVC_OPEN_SOCKET_ONLY | KVC_OPEN_FENCED | KVC_OPEN_NO_CONNECT)) {
		return KVC_INVALID;
	}
	uint32_t *const times[] = { &options->connect_timeout_ms, &options->request_timeout_ms,
				    &options->reconnect_min_ms, &options->reconnect_max_ms };
	const uint32_t defaults[] = { CLIENT_CONNECT_TIMEOUT_MS, CLIENT_REQUEST_TIMEOUT_MS,
				      CLIENT_RECONNECT_MIN_MS, CLIENT_RECONNECT_MAX_MS };
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		if (*times[i] == 0) {
			*times[i] = defaults[i];
		}
	}
	if (options->reconnect_max_ms < options->reconnect_min_ms) {
		options->reconnect_max_ms = options->reconnect_min_ms;
	}
	const char *path = client_socket(client);
	if (strlen(path) > KVS_SOCKET_PATH_BYTES_MAX) {
		kvc_error_set(client->link.error_text,
			      "the path of the socket (%s) has over %u bytes: %.100s...",
			      client->socket_from, KVS_SOCKET_PATH_BYTES_MAX, path);
		errno = ENAMETOOLONG;
		return KVC_INVALID;
	}
	if (options->name && strlen(options->name) > KVS_CLIENT_NAME_BYTES_MAX) {
		return KVC_INVALID;
	}
	client->socket_path = strdup(path);
	client->name = options->name && *options->name ? strdup(options->name) : NULL;
	bool short_of_memory =
		!client->socket_path || (options->name && *options->name && !client->name);
	options->socket_path = client->socket_path;
	options->name = client->name;
	return short_of_memory ? KVC_NO_MEMORY : KVC_OK;
}

// The generation last: who sees it may use everything else.
static void client_sentinel_set(kvc *client)
{
	kvs_store_relaxed(&client->sentinel[KVC_SENTINEL_OPEN],
			  client->generation | KVC_PHASE_OPEN);
	// Release: partner is the acquire in kvc_client_after_fork().
	kvs_store_release(&client->sentinel[KVC_SENTINEL_GENERATION], client->generation);
}

// The sentinel must be private and anonymous: WIPEONFORK is not to be had on shared mappings.
static int client_sentinel(kvc *client)
{
	void *page = mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	if (page == MAP_FAILED) {
		return KVC_SYSTEM;
	}
	client->sentinel = page;
	// unreached: kernels before 4.14.
	if (madvise(page, KVS_PAGE_BYTES, MADV_WIPEONFORK) != 0) {
		return KVC_SYSTEM;
	}
	client->generation = 1;
	client_sentinel_set(client);
	return KVC_OK;
}

static void client_free(kvc *client)
{
	kvc_conn_free(&client->conn);
	if (client->attachment) {
		kvc_attachment_release(client, client->attachment);
	}
	kvc_conn_free(&client->link);
	if (client->sentinel) {
		(void)munmap(client->sentinel, KVS_PAGE_BYTES);
	}
	(void)pthread_mutex_destroy(&client->mutex);
	free(client->socket_path);
	free(client->name);
	free(client);
}

int kvc_open(kvc **out, const struct kvc_options *options)
{
	if (!out) {
		return KVC_INVALID;
	}
	*out = NULL;
	kvc *client = calloc(1, sizeof(*client));
	// unreached: glibc has nothing to refuse here.
	if (!client || pthread_mutex_init(&client->mutex, NULL) != 0) {
		struct kvc_options told = { 0 };
		if (options && kvc_copy_sized(&told, sizeof(told), options)) {
			client_explain(&told, "", KVC_NO_MEMORY);
		}
		free(client);
		return KVC_NO_MEMORY;
	}
	kvc_conn_init(&client->conn, false);
	kvc_conn_init(&client->link, true);
	int status = client_options(client, options);
	if (status == KVC_OK) {
		status = client_sentinel(client);
	}
	if (status == KVC_OK && !(client->options.flags & KVC_OPEN_NO_CONNECT)) {
		kvc_client_lock(client);
		status = kvc_link_ensure(client, true);
		kvc_client_unlock(client);
	}
	if (status != KVC_OK) {
		int error = errno;
		client_explain(&client->options, client->link.error_text, status);
		client_free(client);
		errno = error;
		return status;
	}
	client->options.error_text = NULL; // the caller's, and only for this call
	*out = client;
	return KVC_OK;
}

int kvc_close(kvc *client)
{
	if (!client) {
		return KVC_OK;
	}
	kvc_client_lock(client);
	for (const kvc_reader *reader = client->readers; reader; reader = reader->next) {
		// A section that was open at a fork is the parent's and does not count here.
		if (kvc_reader_depth(reader) != 0 && !kvc_reader_is_foreign(reader)) {
			kvc_client_unlock(client);
			return KVC_BUSY;
		}
	}
	kvc_reader *readers = client->readers;
	client->readers = NULL;
	while (readers) {
		kvc_reader *next = readers->next;
		kvc_reader_free(readers);
		readers = next;
	}
	kvc_client_unlock(client);
	client_free(client);
	return KVC_OK;
}

const char *kvc_error_text(const kvc *client)
{
	return client ? client->conn.error_text : "";
}

int kvc_is_mapped(const kvc *client)
{
	return client && kvs_load_relaxed(&client->sentinel[KVC_SENTINEL_GENERATION]) != 0 &&
	       kvs_load_relaxed(&client->mapped) != 0;
}

// What was being changed by another thread at the moment of the fork is in no known state: it is
// left alone for ever. A leak in a child is better than a crash.
static void client_orphan(kvc *client, struct kvc_conn *conn)
{
	struct kvc_conn old = *conn;
	kvc_conn_init(conn, old.takes_fds);
	conn->fd = old.fd;
	conn->fd_device = old.fd_device;
	conn->fd_inode = old.fd_inode;
	client->orphans[old.takes_fds] = (struct kvc_orphan){
		.in = old.in,
		.nodes = old.nodes,
		.frame = old.frame.buffer.data,
	};
}

// Forgets what a fork copied.
static void client_disown(kvc *client)
{
	client->generation++;
	client->mapped = 0;
	if (client->conn.busy) {
		client_orphan(client, &client->conn);
	}
	kvc_conn_drop(&client->conn);
	kvc_frame_begin(&client->conn.frame);
	client->conn.queued = client->conn.lost = 0;
	client->conn.unsynced = client->conn.sync_lost = false;
	if (client->busy) {
		client_orphan(client, &client->link);
		client->leaks = true;
	}
	kvc_conn_drop(&client->link);
	if (client->attachment) {
		kvc_attachment_release(client, client->attachment);
		client->attachment = NULL;
	}
	client->conn.busy = client->busy = client->attach_sent = false;
}

void kvc_client_after_fork(kvc *client)
{
	uint64_t *sentinel = client->sentinel;
	// Acquire: partner is the release store below, by the thread that did the repair.
	while (kvc_unlikely(kvs_load_acquire(&sentinel[KVC_SENTINEL_GENERATION]) == 0)) {
		// unreached: two threads of a child at the same moment.
		if (!kvs_compare_exchange(&sentinel[KVC_SENTINEL_REPAIR], 0, 1)) {
			(void)sched_yield(); // another thread of this child is at it
			continue;
		}
		(void)pthread_mutex_init(&client->mutex,
					 NULL); // a thread that is not here may hold it
		client_disown(client);
		client_sentinel_set(client);
	}
}

void kvc_client_lock(kvc *client)
{
	kvc_client_after_fork(client);
	(void)pthread_mutex_lock(&client->mutex);
	client->busy = true;
}

void kvc_client_unlock(kvc *client)
{
	client->busy = false;
	(void)pthread_mutex_unlock(&client->mutex);
}

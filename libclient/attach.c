// SPDX-License-Identifier: MIT
//
// Attaching: KVD.ATTACH over the link, three descriptors back, two mappings from them. The third,
// kvd.gen, is kept for when kvd is gone; nothing that an application does to its descriptors
// disturbs reads. A client to which no descriptors can be passed, or whose layout differs, reads
// through the socket instead.
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "libclient/serving.h"

#define ATTACH_QUICK_NS UINT64_C(100000000) // an attachment that lasted less counts as quick
#define ATTACH_AGAIN_NS UINT64_C(1000000000) // after kvd refused it
#define ATTACH_QUICK_MAX 8u		    // after so many in a row the next one has to wait

enum attach_fd { ATTACH_FD_REGION, ATTACH_FD_PAGE, ATTACH_FD_GEN };

// Light sections need this process registered before the first of them. Repeating it is cheap.
static bool attach_light_sections(const kvc *client, const struct kvs_map *map)
{
#ifdef KVS_TSAN
	(void)client;
	(void)map;
	return false; // ThreadSanitizer does not see a membarrier in another process
#else
	// unreached: where the kernel has no membarrier, the region wants fences.
	return !map->readers_fence && !(client->options.flags & KVC_OPEN_FENCED) &&
	       syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
#endif
}

struct kvs_reader_page *kvc_page_map(int fd, bool *rings)
{
	struct stat status;
	int seals = fcntl(fd, F_GET_SEALS); // negative where there are none
	// unreached: an open descriptor has a status.
	if (fstat(fd, &status) != 0 || status.st_size < (off_t)KVS_PAGE_BYTES || seals < 0 ||
	    !(seals & F_SEAL_SHRINK)) {
		errno = EPERM; // somebody could take the page away under a reader
		return NULL;
	}
	// Of a kvd that knows no rings the file ends sooner, and what is behind is left alone.
	void *at = mmap(NULL, KVS_PAGE_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED) {
		return NULL;
	}
	struct kvs_reader_page *page = at;
	// unreached: every kernel since 2.6.16 knows this advice.
	if (madvise(at, KVS_PAGE_FILE_BYTES, MADV_DONTFORK) != 0 ||
	    memcmp(page->header.marker, KVS_PAGE_MARKER, sizeof(page->header.marker)) != 0) {
		(void)munmap(at, KVS_PAGE_FILE_BYTES);
		return NULL;
	}
	*rings = status.st_size >= (off_t)KVS_PAGE_FILE_BYTES && page->header.rings == 1;
	return page;
}

static void attachment_free(struct kvc_attachment *attachment, uint64_t generation)
{
	// In a child the pages were never mapped; their addresses may be something else's by now.
	bool own = attachment->generation == generation;
	for (uint32_t i = 0; own && i < attachment->pages_count; i++) {
		(void)munmap(attachment->pages[i], KVS_PAGE_FILE_BYTES);
	}
	kvc_serving_drop(attachment);
	if (attachment->map.base) {
		kvs_map_close(&attachment->map);
	}
	free(attachment);
}

void kvc_attachment_release(const kvc *client, struct kvc_attachment *attachment)
{
	if (client->leaks && attachment->generation != client->generation) {
		return; // the count was being changed when it was copied
	}
	if (--attachment->references == 0) {
		attachment_free(attachment, client->generation);
	}
}

// Is the other end of the link still there?
static bool attach_link_alive(const struct kvc_conn *link)
{
	char byte;
	if (link->fd < 0 || !kvc_io_is_ours(link)) {
		return false;
	}
	ssize_t got = recv(link->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	// unreached: a call that does not wait is not interrupted.
	return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

void kvc_attachment_doubt(kvc *client)
{
	kvc_client_lock(client);
	struct kvc_attachment *attachment = client->attachment;
	// A kvd that adopted the region has said so in it before it answers anybody.
	// unreached: a child has forgotten what its parent had before it connects.
	if (attachment && attachment->generation == client->generation &&
	    kvs_load_acquire(&attachment->hot->incarnation) == attachment->incarnation &&
	    !attach_link_alive(&client->link)) {
		attachment->doubted = true;
		for (uint32_t i = 0; i < attachment->pages_count; i++) {
			// What kvd does when it drops a page; this one's kvd is no more (partner:
			// the load after the announcement in kvc_reader_announce()).
			kvs_store_release(&attachment->pages[i]->header.state, KVS_PAGE_DETACHED);
		}
	}
	kvc_client_unlock(client);
}

bool kvc_attachment_honoured(const struct kvc_attachment *attachment, uint64_t *last_epoch)
{
	const struct kvs_hot *hot = attachment->hot;
	// Acquire: what began with it is written (partner: kvs_epoch_adopt()).
	uint64_t since = kvs_load_acquire(&hot->incarnation) - attachment->incarnation;
	*last_epoch = 0;
	if (since == 0) {
		return true;
	}
	const struct kvs_adoptions *adoptions = &kvs_map_header(&attachment->map)->adoptions;
	uint64_t next = attachment->incarnation + 1;
	uint64_t boundary = kvs_load_relaxed(&adoptions->epoch[next % KVS_ADOPTIONS_KEPT]);
	kvs_fence_acquire(); // the word was not given to a later adoption meanwhile, see below
	since = kvs_load_relaxed(&hot->incarnation) - attachment->incarnation;
	if (since >= KVS_ADOPTIONS_KEPT || boundary == 0 ||
	    kvs_load_relaxed(&hot->oldest_valid) >= boundary) {
		return false;
	}
	*last_epoch = boundary - 1;
	return true;
}

bool kvc_attachment_valid(const struct kvc_attachment *attachment)
{
	uint64_t last_epoch;
	if (attachment->doubted || !kvc_attachment_honoured(attachment, &last_epoch)) {
		return false;
	}
	return kvs_load_relaxed(&attachment->pages[0]->header.state) == KVS_PAGE_ATTACHED ||
	       kvc_attachment_retired(attachment);
}

bool kvc_attachment_retired(const struct kvc_attachment *attachment)
{
	// Acquire: everything kvd ever wrote into this region comes before (partner: its last
	// store).
	return kvs_load_acquire(&kvs_map_header(&attachment->map)->lifecycle) == KVS_REGION_RETIRED;
}

static int attach_map_error(struct kvc_conn *link, int error)
{
	switch (error) {
	case KVS_MAP_SYSTEM:
		kvc_error_set(link->error_text, "cannot map the region: %s", strerror(errno));
		return KVC_SYSTEM;
	case KVS_MAP_LAYOUT:
		kvc_error_set(link->error_text, "%s", kvc_strerror(KVC_LAYOUT));
		return KVC_LAYOUT;
	case KVS_MAP_HASH:
		kvc_error_set(link->error_text,
			      "this kvd hashes keys in a way that this libkvclient does not know: "
			      "reading by socket; update libkvclient, or set hash = xxh3 for kvd");
		return KVC_LAYOUT;
	case KVS_MAP_NOT_ALIVE:
		kvc_error_set(link->error_text, "kvd is stopping");
		return KVC_UNREACHABLE;
	default:
		kvc_error_set(link->error_text, "the region's header contradicts itself");
		return KVC_DAMAGED;
	}
}

// Maps what the three descriptors stand for. On failure the caller frees what is there.
static int attach_map(kvc *client, struct kvc_attachment *attachment)
{
	struct kvc_conn *link = &client->link;
	int error = kvs_map_open(&attachment->map, link->fds[ATTACH_FD_REGION]);
	if (error != KVS_MAP_OK) {
		attachment->map.base = NULL;
		return attach_map_error(link, error);
	}
	attachment->hot = &kvs_map_header(&attachment->map)->hot;
	attachment->incarnation = kvs_load_relaxed(&attachment->hot->incarnation);
	uint32_t writer = kvs_load_relaxed_32(&attachment->hot->writer);
	attachment->writer = kvs_writer_is_there(writer) ? writer : KVS_WRITER_NEVER;
	if (!kvc_serving_take(attachment, link->fds[ATTACH_FD_GEN])) {
		kvc_error_set(link->error_text, "what came as kvd.gen is no file");
		return KVC_SYSTEM;
	}
	link->fds[ATTACH_FD_GEN] = -1; // it is kept
	struct kvs_reader_page *page = kvc_page_map(link->fds[ATTACH_FD_PAGE],
						    &attachment->rings[0]);
	if (!page) {
		kvc_error_set(link->error_text, "cannot map the reader page: %s", strerror(errno));
		return KVC_SYSTEM;
	}
	attachment->pages[attachment->pages_count++] = page;
	attachment->fenced = !attach_light_sections(client, &attachment->map);
	return KVC_OK;
}

static bool attach_field(const struct kvc_reply *map, const char *name, uint64_t *number)
{
	const struct kvc_reply *field = kvc_reply_field(map, name);
	int64_t parsed;
	if (field && field->type == KVC_REPLY_INTEGER) {
		*number = (uint64_t)field->integer;
		return true;
	}
	if (field && field->text && resp_parse_int(field->text, field->text_bytes, &parsed)) {
		*number = (uint64_t)parsed;
		return true;
	}
	return false;
}

// Builds an attachment from the reply. OK with *out NULL: kvd passed no descriptors.
static int attach_build(kvc *client, const struct kvc_reply *reply, struct kvc_attachment **out)
{
	struct kvc_conn *link = &client->link;
	uint64_t layout, fds, gen, incarnation = 0;
	if (!attach_field(reply, "layout", &layout) || !attach_field(reply, "fds", &fds) ||
	    !attach_field(reply, "gen", &gen) ||
	    (fds > 0 && !attach_field(reply, "incarnation", &incarnation))) {
		kvc_error_set(link->error_text, "KVD.ATTACH: unexpected reply");
		return KVC_PROTOCOL;
	}
	if (layout != kvs_layout_fingerprint()) {
		return attach_map_error(link, KVS_MAP_LAYOUT);
	}
	if (fds != KVC_FDS_ATTACH || link->fds_count != KVC_FDS_ATTACH) {
		kvc_error_set(link->error_text, "no descriptors came through: reading by socket");
		return KVC_OK;
	}
	struct kvc_attachment *attachment = calloc(1, sizeof(*attachment));
	if (!attachment) {
		return KVC_NO_MEMORY;
	}
	attachment->references = 1;
	attachment->generation = client->generation;
	attachment->gen = gen;
	attachment->gen_fd = -1;
	int status = attach_map(client, attachment);
	// The life that gave the page, not the one that the region is in now: that may have adopted
	// it since, and does not look at the page.
	if (status == KVC_OK &&
	    (attachment->incarnation != incarnation || !kvc_attachment_valid(attachment) ||
	     kvc_serving_now(client, attachment) != KVC_SERVING_THIS)) {
		kvc_error_set(link->error_text, "kvd restarted while attaching");
		status = KVC_UNREACHABLE;
	}
	if (status != KVC_OK) {
		int error = errno;
		attachment_free(attachment, client->generation);
		errno = error;
		return status;
	}
	*out = attachment;
	return KVC_OK;
}

static void attach_close_fds(struct kvc_conn *link)
{
	for (unsigned i = 0; i < link->fds_count; i++) {
		if (link->fds[i] >= 0) {
			close(link->fds[i]);
		}
	}
	link->fds_count = 0;
}

static void attach_replace(kvc *client, struct kvc_attachment *attachment)
{
	if (client->attachment) {
		kvc_attachment_release(client, client->attachment);
	}
	client->attachment = attachment;
	kvs_store_relaxed(&client->mapped, attachment != NULL);
	uint64_t now_ns = kvc_now_ns();
	bool quick = now_ns - client->attached_ns < ATTACH_QUICK_NS;
	client->attaches_quick = quick ? client->attaches_quick + 1 : 0;
	client->attached_ns = now_ns;
	if (client->attaches_quick > ATTACH_QUICK_MAX) {
		kvc_conn_back_off(client, &client->link); // should this one not last either
	}
}

// Takes the reply to KVD.ATTACH. Errors of the mapping leave the link usable for reads by socket.
static int attach_finish(kvc *client, bool wait)
{
	struct kvc_conn *link = &client->link;
	const struct kvc_reply *reply;
	uint64_t deadline_ns = wait ? kvc_deadline_ns(client->options.connect_timeout_ms) : 0;
	int status = kvc_conn_reply(client, link, deadline_ns, &reply);
	if (status == KVC_TIMEOUT && !wait) {
		return status;
	}
	client->attach_sent = false;
	if (status != KVC_OK) {
		return status == KVC_UNKNOWN ? KVC_UNREACHABLE : status;
	}
	struct kvc_attachment *attachment = NULL;
	client->attach_again_ns = UINT64_MAX;
	if (reply->type == KVC_REPLY_ERROR) {
		(void)kvc_error_reply(link, reply); // for its text
		bool unknown = strstr(link->error_text, "unknown command") != NULL;
		// Else not to be mapped for this client, for now: reads go by socket.
		status = unknown ? KVC_PROTOCOL : KVC_OK;
		client->attach_again_ns = kvc_now_ns() + ATTACH_AGAIN_NS;
	} else {
		status = attach_build(client, reply, &attachment);
	}
	attach_close_fds(link);
	if (status == KVC_UNREACHABLE) {
		kvc_conn_drop(link);
		kvc_conn_back_off(client, link);
		return status;
	}
	attach_replace(client, attachment);
	return status;
}

// What kvd refused on a link that is open it may grant later: there is a page again, or the right.
static bool attach_is_due_again(const kvc *client)
{
	return !client->attachment && kvc_now_ns() >= client->attach_again_ns;
}

int kvc_link_ensure(kvc *client, bool wait)
{
	struct kvc_conn *link = &client->link;
	if (link->fd >= 0 && !kvc_io_is_ours(link)) {
		kvc_conn_drop(link);
	}
	if (link->fd < 0) {
		client->attach_sent = false;
	} else if (!client->attach_sent && !attach_is_due_again(client)) {
		return KVC_OK;
	}
	uint64_t deadline_ns = wait ? kvc_deadline_ns(client->options.connect_timeout_ms) : 0;
	if (!client->attach_sent) {
		int status = kvc_conn_ensure(client, link, deadline_ns);
		if (status != KVC_OK || (client->options.flags & KVC_OPEN_SOCKET_ONLY)) {
			return status;
		}
		kvc_frame_begin(&link->frame);
		kvc_frame_args(&link->frame, 1);
		kvc_frame_text(&link->frame, "KVD.ATTACH");
		status = kvc_conn_send(client, link, deadline_ns);
		if (status != KVC_OK) {
			return status;
		}
		client->attach_sent = true;
	}
	return attach_finish(client, wait);
}

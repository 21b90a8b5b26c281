// SPDX-License-Identifier: MIT
//
// Slots of reader pages: which are taken, and another page from kvd when all are.
#include <sys/syscall.h>
#include <unistd.h>

#include "libclient/internal.h"

#define SLOT_PAGE_RETRY_NS UINT64_C(1000000000) // after kvd refused another page

// Slots of a page that kvd scans; never more than a page has, whatever stands there.
static uint32_t slot_count(const struct kvs_reader_page *page)
{
	uint64_t count = kvs_load_relaxed(&page->header.readers_count);
	return count < KVS_READERS_PER_PAGE ? (uint32_t)count : KVS_READERS_PER_PAGE;
}

// KVD.ATTACH PAGE: one more page of the attachment that hangs on the link.
static bool slot_another_page(kvc *client, struct kvc_attachment *attachment)
{
	struct kvc_conn *link = &client->link;
	if (attachment->pages_count == KVS_PAGES_PER_CLIENT_MAX || client->attach_sent ||
	    !kvc_io_is_ours(link) || kvc_now_ns() < attachment->pages_retry_ns) {
		return false;
	}
	const struct kvc_reply *reply;
	kvc_frame_begin(&link->frame);
	kvc_frame_args(&link->frame, 2);
	kvc_frame_text(&link->frame, "KVD.ATTACH");
	kvc_frame_text(&link->frame, "PAGE");
	int status = kvc_conn_request(client, link, &reply);
	struct kvs_reader_page *page = NULL;
	if (status == KVC_OK && reply->type == KVC_REPLY_ERROR) {
		(void)kvc_error_reply(link, reply); // for its text
	} else if (status == KVC_OK && link->fds_count == 1) {
		page = kvc_page_map(link->fds[0], &attachment->rings[attachment->pages_count]);
	}
	for (unsigned i = 0; i < link->fds_count; i++) {
		close(link->fds[i]);
	}
	link->fds_count = 0;
	if (!page) {
		attachment->pages_retry_ns = kvc_now_ns() + SLOT_PAGE_RETRY_NS;
		return false;
	}
	attachment->pages[attachment->pages_count++] = page;
	return true;
}

struct kvs_slot *kvc_slot_claim(kvc *client, const uint64_t **page_state,
				struct kvs_sample_ring **ring)
{
	struct kvc_attachment *attachment = client->attachment;
	uint32_t i = 0;
	do {
		for (; i < attachment->pages_count; i++) {
			struct kvs_reader_page *page = attachment->pages[i];
			uint32_t count = slot_count(page);
			uint32_t free_slots =
				~attachment->used[i] & (uint32_t)((UINT64_C(1) << count) - 1);
			if (free_slots == 0) {
				continue;
			}
			uint32_t slot = (uint32_t)__builtin_ctz(free_slots);
			attachment->used[i] |= UINT32_C(1) << slot;
			*page_state = &page->header.state;
			*ring = attachment->rings[i] ? kvs_page_ring(page, slot) : NULL;
			kvs_store_relaxed(&page->slot[slot].thread_id,
					  (uint64_t)syscall(SYS_gettid));
			return &page->slot[slot];
		}
	} while (slot_another_page(client, attachment));
	return NULL;
}

void kvc_slot_free(struct kvc_attachment *attachment, const struct kvs_slot *slot)
{
	for (uint32_t i = 0; i < attachment->pages_count; i++) {
		const struct kvs_slot *first = attachment->pages[i]->slot;
		if (slot >= first && slot < first + KVS_READERS_PER_PAGE) {
			attachment->used[i] &= ~(UINT32_C(1) << (slot - first));
		}
	}
}

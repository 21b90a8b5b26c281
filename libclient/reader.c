// SPDX-License-Identifier: MIT
//
// Readers: a handle each, a slot each. When anything about the attachment has changed, the next
// section begins here: the reader moves to the newest attachment, which is made if need be. It
// waits for kvd only when the old mapping may not be read any more.
#include <stdlib.h>

#include "libclient/internal.h"
#include "libclient/serving.h"

// Leaves the attachment. The slot's word is 0: no section is open, or it is another process's.
static void reader_detach(kvc_reader *reader)
{
	struct kvc_attachment *attachment = reader->attachment;
	kvs_store_relaxed(&reader->phase, KVC_PHASE_NEVER);
	if (!attachment) {
		return;
	}
	if (attachment->generation == reader->client->generation) {
		kvc_slot_free(attachment, reader->slot);
	}
	reader->slot = NULL;
	reader->attachment = NULL;
	kvc_attachment_release(reader->client, attachment);
}

// Brings the reader to the newest attachment. False: there is none, or no slot in it.
static bool reader_move(kvc_reader *reader)
{
	kvc *client = reader->client;
	struct kvc_attachment *newest = client->attachment;
	// unreached: a child has forgotten what its parent had.
	if (reader->attachment != newest || (newest && newest->generation != client->generation)) {
		reader_detach(reader);
	}
	reader->generation = client->generation;
	if (!newest) {
		return false;
	}
	if (!reader->attachment) {
		reader->slot = kvc_slot_claim(client, &reader->page_state, &reader->ring);
		if (!reader->slot) {
			return false;
		}
		reader->attachment = newest;
		newest->references++;
		reader->hot = newest->hot;
		reader->writer = newest->writer;
		reader->incarnation = newest->incarnation;
		reader->map = &newest->map;
		kvs_quick_aim_clear(&reader->aim);
		reader->fenced = newest->fenced;
		reader->hits_sampled = 0; // of another slot: the next one
	}
	kvs_store_relaxed(&reader->phase, kvc_reader_phase_outside(reader));
	return true;
}

// May the attachment be used? Where kvd.gen does not tell, who listens is asked first: a kvd that
// serves gives another attachment, one that was about to end none, and then nobody listens.
static bool reader_may_use(kvc *client, const struct kvc_attachment *attachment)
{
	if (!attachment) {
		return false;
	}
	bool valid = kvc_attachment_valid(attachment);
	enum kvc_serving serving = kvc_serving_now(client, attachment);
	if (valid && serving == KVC_SERVING_UNTOLD) {
		kvc_conn_drop(&client->link);
		client->attach_sent = false;
		(void)kvc_link_ensure(client, true);
		if (client->attachment != attachment) {
			return true; // or there is none to be had
		}
		serving = kvc_serving_now(client, attachment);
	}
	if (serving == KVC_SERVING_OTHER) {
		client->link.pause_ns = 0; // a new kvd: failures with the old one do not count
	}
	return valid && serving == KVC_SERVING_THIS;
}

// Makes the client's attachment the newest that can be had.
static void reader_refresh(kvc *client)
{
	struct kvc_attachment *attachment = client->attachment;
	bool valid = reader_may_use(client, attachment);
	if (client->attachment != attachment) {
		return;
	}
	if (attachment && !valid) {
		client->attachment = NULL;
		kvs_store_relaxed(&client->mapped, 0);
		kvc_attachment_release(client, attachment);
	}
	bool same =
		valid && kvs_load_relaxed(&attachment->hot->incarnation) == attachment->incarnation;
	if (same || (client->options.flags & KVC_OPEN_SOCKET_ONLY)) {
		return;
	}
	if (attachment && !client->attach_sent) {
		kvc_conn_drop(&client->link); // the life line of what is over
	}
	// What is only adopted by a new kvd may be read meanwhile: no waiting for it then.
	(void)kvc_link_ensure(client, !valid); // without success the socket tells why
}

bool kvc_reader_enter_slow(kvc_reader *reader)
{
	kvc *client = reader->client;
	uint64_t word;
	if (kvc_serving_enter(reader, &word)) {
		return true;
	}
	// unreached: kvd goes between two loads, four times in a row.
	for (unsigned i = 0; i < KVC_ATTEMPTS_MAX; i++) {
		kvc_client_lock(client);
		reader_refresh(client);
		bool mapped = reader_move(reader);
		kvc_client_unlock(client);
		if (!mapped) {
			return false;
		}
		(void)kvs_epoch_enter(reader->slot, reader->hot, reader->fenced);
		// As in kvc_reader_enter(), but for the incarnation: an adopted region is read
		// meanwhile, as if its former kvd were still in its last epoch. Whether it serves
		// reader_refresh() has looked.
		uint64_t last_epoch;
		bool honoured = kvc_attachment_honoured(reader->attachment, &last_epoch);
		if (last_epoch > 0) {
			kvs_store_relaxed(&reader->slot->word, last_epoch << KVS_EPOCH_SHIFT | 1);
		}
		// unreached: kvd goes between two loads.
		if (honoured &&
		    // unreached: as above.
		    (kvs_load_relaxed(reader->page_state) == KVS_PAGE_ATTACHED ||
		     kvc_attachment_retired(reader->attachment))) {
			return true;
		}
		kvs_store_release(&reader->slot->word, 0);
	}
	return false;
}

// How many hits to the next sample, on average: kvd's wish, within bounds.
static uint64_t reader_sample_every(const kvc_reader *reader)
{
	const struct kvs_page_header *header =
		(const struct kvs_page_header *)(const void *)((const char *)reader->page_state -
							       offsetof(struct kvs_page_header,
									state));
	// Relaxed: a wish (partner: kvd's store as memory fills).
	uint64_t every = kvs_load_relaxed(&header->sample_every);
	return every - 1 < KVS_SAMPLE_EVERY ? every : KVS_SAMPLE_EVERY;
}

int kvc_reader_sample(kvc_reader *reader, const void *key, size_t key_bytes)
{
	struct kvs_slot *slot = reader->slot;
	uint64_t count = kvs_load_relaxed(&slot->sample_count);
	uint64_t hits = kvs_load_relaxed(&slot->hits);
	if (reader->ring != NULL) {
		uint64_t hash = reader->map->hash_kind == KVS_HASH_XXH3
					? kvc_reader_hash(reader, key, key_bytes)
					: kvs_map_hash(reader->map, key, key_bytes);
		kvs_store_relaxed(&reader->ring->hash[count % KVS_RING_SAMPLES], hash);
		// Release: the hash before it (partner: kvd's acquire).
		kvs_store_release(&slot->sample_count, count + 1);
	}
	uint64_t scattered = hits * UINT64_C(0x9e3779b97f4a7c15);
	scattered = (scattered ^ scattered >> 29) * UINT64_C(0xbf58476d1ce4e5b9) >> 32;
	reader->hits_sampled = hits + 1 + scattered % (2 * reader_sample_every(reader) - 1);
	return KVC_OK;
}

bool kvc_reader_extend(kvc_reader *reader)
{
	kvc_client_lock(reader->client);
	int error = kvs_map_extend(&reader->attachment->map);
	kvs_quick_aim_clear(&reader->aim);
	kvc_client_unlock(reader->client);
	return error == 0;
}

int kvc_reader_open(kvc *client, kvc_reader **out)
{
	if (!client || !out) {
		return KVC_INVALID;
	}
	*out = NULL;
	kvc_reader *reader = aligned_alloc(KVS_CACHE_LINE_BYTES, (sizeof(*reader) + 63) / 64 * 64);
	if (!reader) {
		return KVC_NO_MEMORY;
	}
	*reader = (struct kvc_reader){
		.sentinel = client->sentinel,
		.phase = KVC_PHASE_NEVER,
		.client = client,
	};
	kvc_client_lock(client);
	reader->next = client->readers;
	if (reader->next) {
		reader->next->previous = reader;
	}
	client->readers = reader;
	(void)reader_move(reader); // what there is now; the first get sees to the rest
	kvc_client_unlock(client);
	*out = reader;
	return KVC_OK;
}

void kvc_reader_free(kvc_reader *reader)
{
	kvc_blobs_free(reader);
	reader_detach(reader);
	free(reader);
}

int kvc_reader_close(kvc_reader *reader)
{
	if (!reader) {
		return KVC_OK;
	}
	kvc *client = reader->client;
	kvc_client_lock(client);
	if (kvc_reader_depth(reader) != 0 && !kvc_reader_is_foreign(reader)) {
		kvc_client_unlock(client);
		return KVC_BUSY;
	}
	if (reader->next) {
		reader->next->previous = reader->previous;
	}
	if (reader->previous) {
		reader->previous->next = reader->next;
	} else {
		client->readers = reader->next;
	}
	kvc_reader_free(reader);
	kvc_client_unlock(client);
	return KVC_OK;
}

const char *kvc_reader_error_text(const kvc_reader *reader)
{
	return reader ? reader->error_text : "";
}

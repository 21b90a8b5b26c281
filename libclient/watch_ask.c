// SPDX-License-Identifier: MIT
//
// What kvd is asked for. It broadcasts the names of changed keys by prefix (CLIENT TRACKING in its
// BCAST mode, as in Redis), but takes no prefixes that overlap and forgets single ones only all at
// once. So it is asked for the shortest prefixes that cover every watch; a prefix that takes the
// place of others, or too many that nobody wants any more, begin the subscription anew, and then
// something may have been missed.
#include <stdlib.h>
#include <string.h>

#include "libclient/watch.h"

#define ASK_STALE_PREFIXES 16u // so many that nobody wants any more are put up with
#define ASK_PREFIXES 64u       // in a request, so that nobody waits for kvd to take a thousand

bool kvc_watch_covers(const char *prefix, size_t prefix_bytes, const char *key, size_t bytes)
{
	return prefix_bytes <= bytes && memcmp(prefix, key, prefix_bytes) == 0;
}

static bool prefixes_reserve(struct kvc_prefixes *set)
{
	if (set->count < set->capacity) {
		return true;
	}
	size_t capacity = set->capacity ? set->capacity * 2 : 4;
	struct kvc_prefix *item = reallocarray(set->item, capacity, sizeof(*item));
	if (!item) {
		return false;
	}
	set->item = item;
	set->capacity = capacity;
	return true;
}

static enum kvc_prefix_added prefixes_add(struct kvc_prefixes *set, const kvc_watch *watch)
{
	if (!prefixes_reserve(set)) {
		return KVC_PREFIX_NO_MEMORY;
	}
	size_t kept = 0;
	for (size_t i = 0; i < set->count; i++) {
		const struct kvc_prefix *prefix = &set->item[i];
		if (kvc_watch_covers(prefix->key, prefix->bytes, watch->key, watch->bytes)) {
			return KVC_PREFIX_COVERED; // and then it covers none of the others
		}
		if (!kvc_watch_covers(watch->key, watch->bytes, prefix->key, prefix->bytes)) {
			set->item[kept++] = *prefix;
		}
	}
	bool replaces = kept < set->count;
	struct kvc_prefix *added = &set->item[kept];
	added->bytes = watch->bytes;
	memcpy(added->key, watch->key, watch->bytes);
	set->count = kept + 1;
	return replaces ? KVC_PREFIX_REPLACES : KVC_PREFIX_NEW;
}

static struct kvc_frame *ask_begin(struct kvc_watching *watching, size_t args)
{
	struct kvc_frame *frame = &watching->stream.client->conn.frame;
	kvc_frame_begin(frame);
	kvc_frame_args(frame, args);
	return frame;
}

// Appends the request in the frame. False: out of memory.
static bool ask_send(struct kvc_watching *watching)
{
	kvc *client = watching->stream.client;
	if (client->conn.frame.buffer.failed ||
	    !kvc_stream_append(&watching->stream, &client->conn.frame)) {
		return false;
	}
	if (watching->asked == watching->answered) {
		watching->deadline_ns = kvc_deadline_ns(client->options.request_timeout_ms);
	}
	watching->asked++;
	return true;
}

static bool ask_piece(struct kvc_watching *watching, size_t first, size_t end)
{
	const struct kvc_prefixes *set = &watching->prefixes;
	struct kvc_frame *frame = ask_begin(watching, 4 + 2 * (end - first));
	kvc_frame_text(frame, "CLIENT");
	kvc_frame_text(frame, "TRACKING");
	kvc_frame_text(frame, "ON");
	kvc_frame_text(frame, "BCAST");
	for (size_t i = first; i < end; i++) {
		kvc_frame_text(frame, "PREFIX");
		kvc_frame_arg(frame, set->item[i].key, set->item[i].bytes);
	}
	return ask_send(watching);
}

// Asks for the prefixes from `first` on; the reply to the last request confirms all of them.
static bool ask_prefixes(struct kvc_watching *watching, size_t first)
{
	size_t count = watching->prefixes.count;
	while (count - first > ASK_PREFIXES) {
		if (!ask_piece(watching, first, first + ASK_PREFIXES)) {
			return false;
		}
		first += ASK_PREFIXES;
	}
	return ask_piece(watching, first, count);
}

// Asks for everything that is watched; the reply confirms all of it.
static bool ask_all(struct kvc_watching *watching)
{
	watching->prefixes.count = 0;
	for (const kvc_watch *watch = watching->list; watch; watch = watch->next) {
		if (watch->watched &&
		    prefixes_add(&watching->prefixes, watch) == KVC_PREFIX_NO_MEMORY) {
			return false;
		}
	}
	if (!ask_prefixes(watching, 0)) {
		return false;
	}
	for (kvc_watch *watch = watching->list; watch; watch = watch->next) {
		watch->answer = watching->asked;
	}
	return true;
}

bool kvc_watching_introduce(struct kvc_watching *watching)
{
	struct kvc_frame *frame = ask_begin(watching, 2);
	kvc_frame_text(frame, "HELLO");
	kvc_frame_text(frame, "3");
	return ask_send(watching) && ask_all(watching);
}

// Ends the subscription of this connection and begins another.
static bool ask_anew(struct kvc_watching *watching)
{
	struct kvc_frame *frame = ask_begin(watching, 3);
	kvc_frame_text(frame, "CLIENT");
	kvc_frame_text(frame, "TRACKING");
	kvc_frame_text(frame, "OFF");
	for (kvc_watch *watch = watching->list; watch; watch = watch->next) {
		watch->gap = watch->gap || watch->told_ready;
		watch->on = false;
	}
	watching->state_due = true;
	watching->half_asked = !(ask_send(watching) && ask_all(watching));
	return !watching->half_asked;
}

bool kvc_watching_extend(struct kvc_watching *watching, kvc_watch *watch)
{
	if (watching->half_asked) {
		return true; // with all the others, by the next turn
	}
	if (watching->prefixes.count > 2 * watching->count + ASK_STALE_PREFIXES) {
		return ask_anew(watching);
	}
	// unreached: these are all.
	switch (prefixes_add(&watching->prefixes, watch)) {
	case KVC_PREFIX_NO_MEMORY:
		return false;
	case KVC_PREFIX_REPLACES:
		return ask_anew(watching);
	case KVC_PREFIX_NEW:
		if (!ask_prefixes(watching, watching->prefixes.count - 1)) {
			watching->prefixes.count--; // or who wants it next would take it as covered
			return false;
		}
		break;
	case KVC_PREFIX_COVERED:
		break;
	}
	watch->answer = watching->asked;
	watch->on = watching->answered == watching->asked;
	watching->state_due = watching->state_due || watch->on;
	return true;
}

void kvc_watching_lose(struct kvc_watching *watching)
{
	for (kvc_watch *watch = watching->list; watch; watch = watch->next) {
		// Told once: also to those that were never ready, so that nobody waits in vain.
		watch->gap = watch->gap || watch->told_ready || !watch->told_any;
		watch->on = false;
	}
	watching->state_due = watching->list != NULL;
	watching->asked = watching->answered = 0;
	watching->prefixes.count = 0;
	watching->push = NULL;
	watching->more_input = watching->half_asked = false;
}

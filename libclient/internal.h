// SPDX-License-Identifier: MIT
//
// What the files of libkvclient share: the connection, the attachment (one mapping with its reader
// pages), the reader, and who may touch which of them. Three owners: a reader's fields belong to
// the thread that holds the handle; `conn` and what hangs on it to the one thread that calls
// functions of the kvc; everything else of a kvc to whoever holds its mutex. Nothing here is
// installed.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "libclient/kvclient.h"
#include "shm/epoch.h"
#include "shm/hash.h"
#include "shm/map.h"
#include "shm/resp.h"
#include "shm/table.h"
#include "shm/table_quick.h"

#define KVC_NEVER UINT64_MAX // a deadline that does not come

// A reader's phase: where its quick ways may go. It is a word of the sentinel page, so that one
// comparison says "this process, attached, and no section open" or "one section open".
#define KVC_PHASE_OPEN (UINT64_C(1) << 63)   // with the generation: one section, in the mapping
#define KVC_PHASE_FENCED (UINT64_C(1) << 62) // with the generation: outside, a fence is needed
#define KVC_PHASE_NEVER (UINT64_C(1) << 61)  // no quick way: detached, nested, copies to free
#define KVC_ERROR_TEXT_BYTES 512u
#define KVC_FDS_MAX 4u
#define KVC_FDS_ATTACH 3u	       // region, reader page, kvd.gen
#define KVC_PIPELINE_BYTES (64u << 10) // queued commands go out beyond this
#define KVC_ATTEMPTS_MAX 4u	       // of one get in the mapping, before the socket answers it

/// The functions that are counted in nanoseconds: everything inlined, no canary (they have no
/// arrays).
#if defined(__has_attribute) && __has_attribute(no_stack_protector)
#define KVC_HOT __attribute__((flatten, no_stack_protector))
#else
#define KVC_HOT __attribute__((flatten))
#endif

#define kvc_likely(x) __builtin_expect(!!(x), 1)
#define kvc_unlikely(x) __builtin_expect(!!(x), 0)

/// Bytes that grow. A failed allocation sticks in `failed`, so that building reads straight down
/// and is checked once.
struct kvc_buffer {
	char *data;
	size_t bytes;
	size_t capacity;
	bool failed;
};

/// One or more requests ready to send. A long value is not copied: it goes out between
/// buffer[0, long_at) and the rest.
struct kvc_frame {
	struct kvc_buffer buffer;
	const void *long_data; // NULL = none; the caller's memory
	size_t long_bytes;
	size_t long_at;
};

/// A connection to kvd's socket.
struct kvc_conn {
	int fd;			      // -1 = none
	bool takes_fds;		      // ask for descriptors with every receive
	bool proved;		      // has answered since it was opened
	bool busy;		      // a call is inside: a fork now copies it half-changed
	uint64_t fd_device, fd_inode; // what `fd` was when it was opened
	char *in;		      // received, not yet consumed: in[in_start, in_end)
	size_t in_start, in_end, in_capacity;
	size_t reply_bytes; // of the reply last handed out, at in_start
	struct resp_reply_state measure;
	size_t skip;		 // replies to drop before the next one: CLIENT SETNAME
	struct kvc_reply *nodes; // tree of the reply last handed out
	size_t nodes_capacity;
	struct kvc_frame frame; // the request being built; memory is kept
	size_t sent;		// pipelined commands sent, replies not taken
	size_t queued;		// pipelined commands in `frame`
	size_t lost;		// pipelined commands whose replies will never come
	bool unsynced;		// commands were answered since the last KVD.SYNC
	bool sync_lost;		// and then the connection broke: nobody can say any more
	int fds[KVC_FDS_MAX];
	unsigned fds_count;
	uint64_t pause_ns; // back-off: 0 = the last attempt was good
	uint64_t next_attempt_ns;
	uint64_t random;
	char error_text[KVC_ERROR_TEXT_BYTES];
};

/// One mapping of a region with the reader pages that kvd gave for it. Replaced, never changed,
/// when kvd changes; lives until the last reader has moved on.
struct kvc_attachment {
	struct kvs_map map; // `ready` rises under the client's mutex
	const struct kvs_hot *hot;
	int gen_fd;	      // kvd.gen; see serving.c
	uint64_t gen;	      // what kvd said was in it then
	uint64_t incarnation; // of the life that gave the pages
	uint32_t writer;      // hot.writer of that life; KVS_WRITER_NEVER if it had none
	uint64_t generation;  // of the process that made it: pages are mapped only there
	uint32_t references;  // under the mutex
	uint32_t pages_count;
	bool fenced;
	bool doubted; // see kvc_attachment_doubt()
	struct kvs_reader_page *pages[KVS_PAGES_PER_CLIENT_MAX];
	uint32_t used[KVS_PAGES_PER_CLIENT_MAX]; // bit per slot
	bool rings[KVS_PAGES_PER_CLIENT_MAX]; // it has them
	uint64_t pages_retry_ns;		 // after a refused page
};

/// A value that came by socket into an open section; freed when the section ends.
struct kvc_blob {
	struct kvc_blob *next;
	char bytes[];
};

struct kvc_reader {
	// Lines 0 and 1: what every get loads; nothing is stored there on that path but what
	// follows from a changed root.
	const uint64_t *sentinel; // the client's; 0 in a forked child
	uint64_t phase; // see KVC_PHASE_OPEN; the bare generation: attached, outside any section
	struct kvs_slot *slot; // NULL = not attached
	const struct kvs_hot *hot;
	const uint64_t *page_state;
	uint64_t incarnation;
	uint64_t hits_sampled; // the next hit of the slot that leaves its hash
	uint32_t writer;       // as in the attachment
	struct kvs_quick_aim aim;

	uint64_t depth; // open sections unless the phase is OPEN; relaxed, kvc_close() looks
	const struct kvs_map *map;
	struct kvs_sample_ring *ring; // of the slot; NULL: kvd does not look
	bool fenced;
	bool section_mapped; // the open section reads the mapping; unless the phase is OPEN
	bool section_lost;   // it was open at a fork: it belongs to the parent
	uint64_t generation; // of the process that opened the section or claimed the slot
	struct kvc_attachment *attachment; // holds a reference while `slot` is set
	struct kvc_blob *blobs;
	kvc *client;
	kvc_reader *next, *previous; // the client's list, under its mutex
	char error_text[KVC_ERROR_TEXT_BYTES];
};

/// Words of the sentinel page: private, anonymous, zeroed by the kernel in a forked child.
enum kvc_sentinel {
	KVC_SENTINEL_GENERATION,
	KVC_SENTINEL_OPEN,   // the same with KVC_PHASE_OPEN
	KVC_SENTINEL_REPAIR, // taken by the thread that repairs a child's copy
};

/// Memory of a connection that a fork copied half-changed: never freed.
struct kvc_orphan {
	void *in, *nodes, *frame;
};

struct kvc {
	uint64_t *sentinel;
	uint64_t generation;	    // counts forks between kvc_open() and here, from 1
	uint64_t mapped;	    // kvc_is_mapped(); relaxed
	struct kvc_options options; // own copies of the strings
	char *socket_path;
	const char *socket_from; // who chose it, in words
	char *name;

	struct kvc_conn conn; // requests of the caller; one thread at a time

	pthread_mutex_t mutex; // guards all below
	bool busy;	       // somebody holds the mutex: a fork now copies a half-changed state
	bool leaks;	       // a fork did: attachments of the parent are never freed here
	struct kvc_orphan orphans[2]; // of conn and link
	bool attach_sent;	      // KVD.ATTACH went out on `link`, its reply has not come
	uint64_t attach_again_ns;     // kvd refused it: when to ask again, UINT64_MAX = not
	struct kvc_conn
		link; // the attachment's life line, and reads that the mapping cannot answer
	struct kvc_attachment *attachment; // newest, NULL = socket mode; holds a reference
	uint64_t attached_ns;		   // when it was made
	uint32_t attaches_quick;	   // in a row, each soon after the one before
	kvc_reader *readers;
};

/// Where a get puts what it finds.
struct kvc_sink {
	void *buffer;
	size_t buffer_bytes;
	bool allocate;	       // malloc value_bytes + 1 into `buffer` instead
	struct kvc_meta *meta; // may be NULL
};

// client.c: life and the lock.

/// Takes the client's mutex; in a forked child first makes the inherited state this process's own.
void kvc_client_lock(kvc *client);
void kvc_client_unlock(kvc *client);

/// In a forked child that has not used the client yet: forgets the parent's sockets, pages and
/// requests. Cheap otherwise. Any thread.
void kvc_client_after_fork(kvc *client);

/// Copies a struct whose first member says how large the caller believes it to be. What we know and
/// it does not have is zero; false if it sets what we do not know.
bool kvc_copy_sized(void *to, size_t to_bytes, const void *from);
/// Copies caller's options of whatever size; NULL = defaults. False if they set what we do not
/// know.
bool kvc_set_options_copy(struct kvc_set_options *to, const struct kvc_set_options *from);

// buffer.c: bytes and request frames.

void kvc_buffer_append(struct kvc_buffer *buffer, const void *data, size_t bytes);
void kvc_buffer_free(struct kvc_buffer *buffer);
void kvc_frame_begin(struct kvc_frame *frame);		    // empties it
void kvc_frame_args(struct kvc_frame *frame, size_t count); // starts a request of `count` arguments
void kvc_frame_arg(struct kvc_frame *frame, const void *data, size_t bytes);
void kvc_frame_text(struct kvc_frame *frame, const char *text); // an argument
void kvc_frame_int(struct kvc_frame *frame, int64_t number);	// an argument
/// An argument that is sent from the caller's memory if it is long; one in a frame, which must be
/// sent before the memory goes away.
void kvc_frame_value(struct kvc_frame *frame, const void *data, size_t bytes);
/// KVC_OK, TOO_LARGE or INVALID for a key's length.
int kvc_key_check(const void *key, size_t key_bytes);

// conn.c: one connection. All return a kvc_status and leave the reason in conn->error_text.

uint64_t kvc_now_ns(void);		       // monotonic
uint64_t kvc_deadline_ns(uint32_t timeout_ms); // so many from now
void kvc_conn_init(struct kvc_conn *conn, bool takes_fds);
/// Closes, if the descriptor is still ours, and forgets what was under way; pipelined commands
/// count as lost. Keeps memory and back-off.
void kvc_conn_drop(struct kvc_conn *conn);
void kvc_conn_free(struct kvc_conn *conn);
/// Connects unless connected. UNREACHABLE at once while backing off.
int kvc_conn_ensure(kvc *client, struct kvc_conn *conn, uint64_t deadline_ns);
/// An attempt was no good: the next one has to wait, longer each time.
void kvc_conn_back_off(const kvc *client, struct kvc_conn *conn);
/// Sends conn->frame whole. UNREACHABLE: kvd has not got a whole request. A connection that turns
/// out stale before anything left is replaced once.
int kvc_conn_send(kvc *client, struct kvc_conn *conn, uint64_t deadline_ns);
/// Waits for the next reply. UNKNOWN if the connection ends, TIMEOUT, UNREACHABLE if kvd turned the
/// connection away; all drop it. With a deadline of 0 TIMEOUT means "not yet" and drops nothing.
/// The reply is good until the next call with `conn`.
int kvc_conn_reply(kvc *client, struct kvc_conn *conn, uint64_t deadline_ns,
		   const struct kvc_reply **reply);
/// True if kvd turned the new connection away, by an error that no request has asked for: none was
/// run. The text says what may help.
bool kvc_conn_is_rejected(struct kvc_conn *conn, const struct kvc_reply *reply);
/// Sends conn->frame, one request, and waits for its reply.
int kvc_conn_request(kvc *client, struct kvc_conn *conn, const struct kvc_reply **reply);

// io.c: the system calls under a connection.

/// True if conn->fd is still the socket that was opened: an application may have closed it and been
/// given its number for something else.
bool kvc_io_is_ours(const struct kvc_conn *conn);
int kvc_io_connect(kvc *client, struct kvc_conn *conn, uint64_t deadline_ns);
/// Sends all of `iov`, reading what arrives meanwhile. *sent_any says whether a byte left.
int kvc_io_send(struct kvc_conn *conn, struct iovec *iov, int count, uint64_t deadline_ns,
		bool *sent_any);
/// Receives once. OK, TIMEOUT (deadline), UNKNOWN (end of the connection), SYSTEM, NO_MEMORY.
int kvc_io_fill(struct kvc_conn *conn, uint64_t deadline_ns);

// reply.c

/// Builds the tree of the complete reply of `nodes` nodes at conn->in[in_start]. Strings stay in
/// the input buffer and get their NUL there.
int kvc_reply_build(struct kvc_conn *conn, size_t nodes, const struct kvc_reply **reply);
/// Value of `name` in a map (or flat array) reply, NULL if it has none.
const struct kvc_reply *kvc_reply_field(const struct kvc_reply *map, const char *name);

// error.c

__attribute__((format(printf, 2, 3))) void kvc_error_set(char *text, const char *format, ...);
/// Why connect() failed, what was tried, and the remedy. `error` is its errno.
void kvc_error_connect(const kvc *client, struct kvc_conn *conn, int error);
/// Puts before the text which kvd it speaks of.
void kvc_error_place(const kvc *client, struct kvc_conn *conn);
/// Status for an error reply; copies its text.
int kvc_error_reply(struct kvc_conn *conn, const struct kvc_reply *reply);

// attach.c: all under the client's mutex.

/// Makes `link` usable: connected, and attached unless only the socket is wanted. With `wait` false
/// never blocks: TIMEOUT if kvd has not answered yet.
int kvc_link_ensure(kvc *client, bool wait);
/// True if the region itself tells nothing against reading it: its lives, the pages' state.
bool kvc_attachment_valid(const struct kvc_attachment *attachment);
/// A new connection for requests was made: if the attachment's life line is gone, the kvd behind it
/// may be another than the one whose region is mapped, and kvd.gen need not tell (the data folder
/// may have been replaced). Then the next section of every reader attaches anew. Takes the mutex.
void kvc_attachment_doubt(kvc *client);
/// May the mapping be read, as far as kvd's lives go? True if kvd is the one that gave it, or a
/// later one has adopted the region and still waits for views that it cannot see: then *last_epoch
/// is the last epoch of the life that gave it, else 0. A view opened meanwhile announces that
/// epoch, so that it is refused when it ends if kvd has given up waiting.
bool kvc_attachment_honoured(const struct kvc_attachment *attachment, uint64_t *last_epoch);
/// True if kvd shut down cleanly: the region is frozen for ever, or until it is adopted.
bool kvc_attachment_retired(const struct kvc_attachment *attachment);
/// Drops a reference; the last one unmaps.
void kvc_attachment_release(const kvc *client, struct kvc_attachment *attachment);

// slot.c: under the mutex too.

/// Finds a free slot and its ring, asking kvd for another page if need be. NULL: none to be had.
struct kvs_slot *kvc_slot_claim(kvc *client, const uint64_t **state, struct kvs_sample_ring **);
void kvc_slot_free(struct kvc_attachment *attachment, const struct kvs_slot *slot);

/// Maps KVS_PAGE_FILE_BYTES of a reader page and keeps them out of forked children. *rings: are
/// there any behind it? NULL if it is not one; errno.
struct kvs_reader_page *kvc_page_map(int fd, bool *rings);

// reader.c

/// Enters a section where the fast way refused. True: in the mapping, section announced. False:
/// only the socket can answer. Outside any section only.
bool kvc_reader_enter_slow(kvc_reader *reader);
/// Maps what kvd has published since. False if that failed.
bool kvc_reader_extend(kvc_reader *reader);
void kvc_reader_free(kvc_reader *reader); // out of the list already; under the mutex

// view.c

void kvc_blobs_free(kvc_reader *reader);

// request.c

/// Begins a call of the one thread that uses `conn`: after a fork check. INVALID while pipelined
/// replies are still to be taken, unless the call is part of a pipeline.
int kvc_conn_enter(kvc *client, bool pipeline);
int kvc_conn_leave(kvc *client, int status); // returns `status`

// socket_get.c: reads through the socket.

/// One key through the socket. KVC_OK, NOT_FOUND, TRUNCATED or an error.
int kvc_socket_get(kvc_reader *reader, const void *key, size_t key_bytes, struct kvc_sink *sink);
/// Items whose status is KVC_BUSY, pipelined; with `atomic` all of one moment. OK, or what stopped
/// it.
int kvc_socket_get_many(kvc_reader *reader, struct kvc_item *items, size_t count, bool atomic);
int kvc_socket_watermarks(kvc_reader *reader, uint64_t *applied, uint64_t *durable);

// get.c

/// True if a record with this expiry is gone at `now_ms`, or, with `now_ms` 0, now.
bool kvc_expired(uint64_t expiry_ms, uint64_t now_ms);
int64_t kvc_ttl_ms(uint64_t expiry_ms); // time left by the coarse clock, not below 0
/// The get of one key with all its detours. Outside any section.
int kvc_get_into(kvc_reader *reader, const void *key, size_t key_bytes, struct kvc_sink *sink);
/// Puts `bytes` of value into the sink: KVC_OK, TRUNCATED or NO_MEMORY.
int kvc_sink_fill(struct kvc_sink *sink, const void *value, size_t bytes);
void kvc_sink_drop(struct kvc_sink *sink); // what was allocated turned out no good

/// What a look into the table came to.
enum kvc_looked {
	KVC_LOOKED_VALUE,
	KVC_LOOKED_ABSENT,   // or removed, or expired
	KVC_LOOKED_UNMAPPED, // extend and look again
	KVC_LOOKED_SOCKET,   // only the socket can answer
	KVC_LOOKED_DAMAGED,  // likewise, and something is wrong
};

/// The hash to begin a search with: it may be out of date, which kvs_table_find() sees and the
/// quick ways do by the root.
static inline uint64_t kvc_reader_hash(const kvc_reader *reader, const void *key, size_t key_bytes)
{
	return kvs_hash(reader->aim.hash_seed, key, key_bytes);
}

/// One search and what it means for a reader; time as in kvc_expired().
/// Call with: hash = kvc_reader_hash(). Thread must: be in a mapped section. Orders:
/// kvs_table_find().
enum kvc_looked kvc_look(kvc_reader *reader, uint64_t hash, const void *key, size_t key_bytes,
			 uint64_t now_ms, struct kvs_hit *hit);
uint64_t kvc_wall_ms(void); // precise, since 1970

/// What follows the comparison of the phase: the announcement, then one look at what may have
/// changed; at the writer only if `attended`, a constant. False: nothing is announced,
/// kvc_reader_enter_slow() knows what to do.
/// Call with: a reader outside any section whose phase is its sentinel's: in a forked child the
/// page behind `slot` is not there. Thread must: own it. Orders: as kvs_epoch_enter(). The page
/// state is loaded after the announcement, which makes a Dekker pair with kvs_epoch_detach(); the
/// writer's word at any moment (partner: the kernel's store at kvd's end, before another serves).
static inline __attribute__((always_inline)) bool
kvc_reader_announce(const kvc_reader *reader, bool fenced, bool attended, uint64_t *word)
{
	struct kvs_slot *slot = reader->slot;
	const struct kvs_hot *hot = reader->hot;
	*word = kvs_epoch_enter_first(slot, hot, fenced); // never nested here
	uint64_t changed = (kvs_load_relaxed(&hot->incarnation) ^ reader->incarnation) |
			   (kvs_load_relaxed(reader->page_state) ^ KVS_PAGE_ATTACHED) |
			   (attended ? kvs_load_relaxed_32(&hot->writer) ^ reader->writer : 0);
	if (kvc_unlikely(changed != 0)) {
		kvs_store_release(&slot->word, 0);
		return false;
	}
	return true;
}

/// Enters a section if nothing changed since the last time, by what the writer's membarrier allows
/// (kvc_reader_enter() fences where it has to). False: as kvc_reader_announce(), or a fence is
/// needed, or a section is open. *word is for kvs_epoch_leave_last(), *generation the sentinel's.
static inline __attribute__((always_inline)) bool
kvc_reader_enter_quick(const kvc_reader *reader, uint64_t *word, uint64_t *generation)
{
	*generation = kvs_load_relaxed(&reader->sentinel[KVC_SENTINEL_GENERATION]);
	return kvc_likely(*generation == kvs_load_relaxed(&reader->phase)) &&
	       kvc_reader_announce(reader, false, true, word);
}

/// True if the reader is attached, in this process, and outside any section.
static inline bool kvc_reader_may_enter(const kvc_reader *reader)
{
	return kvs_load_relaxed(&reader->sentinel[KVC_SENTINEL_GENERATION]) ==
	       (kvs_load_relaxed(&reader->phase) & ~KVC_PHASE_FENCED);
}

/// kvc_reader_enter_quick() of a reader that may need the fence.
static inline bool kvc_reader_enter_word(const kvc_reader *reader, uint64_t *word)
{
	return kvc_reader_may_enter(reader) &&
	       kvc_reader_announce(reader,
				   (kvs_load_relaxed(&reader->phase) & KVC_PHASE_FENCED) != 0, true,
				   word);
}

static inline bool kvc_reader_enter(const kvc_reader *reader)
{
	uint64_t word;
	return kvc_reader_enter_word(reader, &word);
}

/// The phase of a reader that is attached and outside any section.
static inline uint64_t kvc_reader_phase_outside(const kvc_reader *reader)
{
	return reader->generation | (reader->fenced ? KVC_PHASE_FENCED : 0);
}

/// True if one section is open that the quick ways know. Relaxed: kvc_close() looks.
static inline bool kvc_reader_is_open(const kvc_reader *reader)
{
	return (kvs_load_relaxed(&reader->phase) & KVC_PHASE_OPEN) != 0;
}

/// Open sections of the reader, and whether they are in the mapping.
static inline uint64_t kvc_reader_depth(const kvc_reader *reader)
{
	return kvc_reader_is_open(reader) ? 1 : kvs_load_relaxed(&reader->depth);
}

static inline bool kvc_reader_section_mapped(const kvc_reader *reader)
{
	return kvc_reader_is_open(reader) || reader->section_mapped;
}

static inline bool kvc_reader_leave(kvc_reader *reader)
{
	return kvs_epoch_leave(reader->slot, reader->hot);
}

/// Leaves the hash of a hit in the slot's ring and chooses which hit is next, on average after the
/// page's sample_every, by a product, so that a program that reads the same keys round and round is
/// not always caught at the same one. Returns KVC_OK, for the sake of the caller's last call.
int kvc_reader_sample(kvc_reader *reader, const void *key, size_t key_bytes);

static inline bool kvc_reader_count(kvc_reader *reader)
{
	struct kvs_slot *slot = reader->slot;
	uint64_t hits = kvs_load_relaxed(&slot->hits) + 1;
	kvs_store_relaxed(&slot->hits, hits);
	return kvc_unlikely(hits >= reader->hits_sampled);
}

static inline int kvc_reader_hit(kvc_reader *reader, const void *key, size_t key_bytes)
{
	return kvc_reader_count(reader) ? kvc_reader_sample(reader, key, key_bytes) : KVC_OK;
}

/// What is known about a value that the quick way found.
static inline void kvc_meta_quick(const struct kvs_quick *quick, struct kvc_meta *meta)
{
	meta->version = quick->seq;
	meta->time_ms = kvs_record_time_word_ms(quick->time_key);
	meta->ttl_ms = quick->expiry_ms == 0 ? -1 : kvc_ttl_ms(quick->expiry_ms);
	meta->value_bytes = quick->value_bytes;
	meta->flags = 0;
}

static inline void kvc_meta_fill(const struct kvs_hit *hit, struct kvc_meta *meta)
{
	struct kvs_quick quick = { .time_key = kvs_load_relaxed(&hit->view.record->time_key),
				   .seq = hit->view.seq,
				   .expiry_ms = hit->view.expiry_ms,
				   .value_bytes = hit->view.value_bytes };
	kvc_meta_quick(&quick, meta);
}

/// True in a forked child that has not attached yet, and for a reader that is not attached.
static inline bool kvc_reader_is_foreign(const kvc_reader *reader)
{
	return kvs_load_relaxed(reader->sentinel) != reader->generation;
}

/* SPDX-License-Identifier: MIT */
/*
 * libkvclient: read what kvd shares at memory speed, and write to it through its socket.
 *
 * Two kinds of handle. A `kvc` is a connection: one per process is usual, one thread at a time may
 * call functions that take it, except where a line says otherwise. A `kvc_reader` is a place in
 * the shared mapping from which one thread at a time reads; open one for each thread that reads,
 * or hand one from thread to thread. The library starts no threads, keeps no globals and installs
 * no signal handlers. After fork() the child may go on using both: the first call in the child
 * attaches anew; views that were open at the fork belong to the parent and end as KVC_REVOKED in
 * the child.
 *
 * Keys are 1..511 bytes, values up to the server's limit; both are any bytes. Read kvclient(3) for
 * the caveats before using views.
 */
#ifndef KVCLIENT_H
#define KVCLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KVC_API __attribute__((visibility("default")))
#else
#define KVC_API
#endif

/* Results: 0 is success, positive an answer that a caller expects, negative an error. The list is
 * shm/status.tbl.h; kvc_strerror() has the sentences. */
enum kvc_status {
	KVC_OK = 0,
	KVC_NOT_FOUND = 1,      /* no such key, or expired */
	KVC_NOT_APPLIED = 2,    /* a condition (absent, present, version) did not hold */
	KVC_TRUNCATED = 3,      /* the caller's buffer is too small; the needed size is filled in */
	KVC_CHANGED = 4,        /* what a token stands for may have changed: read it again */

	KVC_REVOKED = -1,       /* kvd took the memory back from a view held too long: discard */
	KVC_BUSY = -2,          /* views still open, no consistent snapshot, or a queue is full */
	KVC_UNREACHABLE = -3,   /* nobody listens, or we are refused: kvd got no whole request */
	KVC_TIMEOUT = -4,       /* deadline passed; if it was a write, it may have been applied */
	KVC_UNKNOWN = -5,       /* broke after a write was sent: it may have been applied */
	KVC_NO_MEMORY = -6,     /* kvd's memory is full (-OOM) or malloc failed here */
	KVC_TOO_LARGE = -7,     /* key, value or batch over its limit */
	KVC_INVALID = -8,       /* an argument is not valid */
	KVC_REFUSED = -9,       /* kvd answered with an error; kvc_error_text() has it */
	KVC_PROTOCOL = -10,     /* the peer does not speak as kvd does */
	KVC_LAYOUT = -11,       /* kvd's region has another layout: update the older side */
	KVC_DAMAGED = -12,      /* the region contradicts itself */
	KVC_NOT_DURABLE = -13,  /* applied and visible, but the store failed (-IOERR) */
	KVC_SYSTEM = -14,       /* a system call failed; errno says which way */
	KVC_NOT_NUMBER = -15,   /* increment of something that is not an integer, or overflow */
	KVC_CANCELLED = -16     /* by kvc_async_cancel() or _close(); may have been applied */
};

typedef struct kvc kvc;
typedef struct kvc_reader kvc_reader;

/* Options. Set struct_bytes to sizeof(struct kvc_options) (kvc_options_init does), zero means the
 * default, so that fields can be added later without breaking callers. */
struct kvc_options {
	size_t struct_bytes;
	const char *socket_path;      /* default: $KVD_SOCKET, then /run/kvd/kvd.sock */
	const char *name;             /* shown by CLIENT LIST; default: none */
	uint32_t connect_timeout_ms;  /* default 1000 */
	uint32_t request_timeout_ms;  /* one request or reply; default 5000 */
	uint32_t reconnect_min_ms;    /* first pause after a failed attempt; default 10 */
	uint32_t reconnect_max_ms;    /* doubles up to this, with jitter; default 1000 */
	uint32_t flags;               /* enum kvc_open_flags */
	char *error_text;             /* where kvc_open() says why it failed; NULL: nowhere */
	size_t error_text_bytes;      /* room there; 512 are enough for any text */
};

enum kvc_open_flags {
	KVC_OPEN_SOCKET_ONLY = 1,     /* never map, all reads through the socket */
	KVC_OPEN_FENCED = 2,          /* full fence on begin even where membarrier works (tests) */
	KVC_OPEN_NO_CONNECT = 4       /* connect at the first call instead of in kvc_open() */
};

/* What is known about a value besides its bytes. */
struct kvc_meta {
	uint64_t version;     /* seq of the write: grows with every write, never reused */
	uint64_t time_ms;     /* when written, wall clock, ms since 1970; 0 by socket */
	int64_t ttl_ms;       /* time left, -1 = no expiry */
	uint32_t value_bytes;
	uint32_t flags;       /* enum kvc_meta_flags */
};

enum kvc_meta_flags {
	KVC_META_SOCKET = 1   /* answered by the socket, not by the mapping */
};

/* A value in shared memory, good until kvc_end(). */
struct kvc_view {
	const void *value;
	size_t value_bytes;
	struct kvc_meta meta;
};

KVC_API void kvc_options_init(struct kvc_options *options);

/* Opens a client; `options` may be NULL. On success *out is owned by the caller until kvc_close();
 * else options->error_text has the reason in words: which socket was tried, and what may help.
 * Errors: UNREACHABLE, TIMEOUT, LAYOUT (reads then still work with SOCKET_ONLY), DAMAGED, PROTOCOL,
 * SYSTEM (errno says why), NO_MEMORY, INVALID. A daemon that passes no descriptors (a bridge, a
 * container) is no error: reads go through the socket. */
KVC_API int kvc_open(kvc **out, const struct kvc_options *options);

/* Closes. KVC_BUSY, and nothing is closed, while one of its readers has a view open; other readers
 * are closed with it. NULL is fine. */
KVC_API int kvc_close(kvc *client);

/* Text of the last error reply or system error of a call that took this client; valid until the
 * next one. Readers have their own: kvc_reader_error_text(). */
KVC_API const char *kvc_error_text(const kvc *client);
KVC_API const char *kvc_strerror(int status);   /* static text for any status */
KVC_API const char *kvc_version(void);          /* "0.1.0" */

/* 1 if reads go through the mapping now, 0 if through the socket. One that kvd refused is asked for
 * again by reads, at most once a second. Any thread. */
KVC_API int kvc_is_mapped(const kvc *client);

/* ---- readers ------------------------------------------------------------------------------ */

/* Opens a reader of `client`; may be called by any thread. It must not outlive the client. */
KVC_API int kvc_reader_open(kvc *client, kvc_reader **out);
/* KVC_BUSY while a view is open. */
KVC_API int kvc_reader_close(kvc_reader *reader);
/* Why this reader's last failing call failed; valid until its next call. */
KVC_API const char *kvc_reader_error_text(const kvc_reader *reader);

/* Copying get. Fills at most `buffer_bytes` at `buffer` and `meta` (either may be NULL / 0).
 * The bytes were validated after the copy: never torn, never reused memory.
 * Returns KVC_OK, KVC_NOT_FOUND, KVC_TRUNCATED (meta->value_bytes has the size, the buffer the
 * beginning); errors as for requests where the socket had to answer.
 * A hit in the mapping makes no system call, takes no lock and allocates nothing. */
KVC_API int kvc_get(kvc_reader *reader, const void *key, size_t key_bytes, void *buffer,
		    size_t buffer_bytes, struct kvc_meta *meta);

/* As kvc_get, into memory from malloc that the caller frees: *value is NULL unless KVC_OK. */
KVC_API int kvc_get_alloc(kvc_reader *reader, const void *key, size_t key_bytes, void **value,
			  struct kvc_meta *meta);

/* Zero-copy. kvc_begin opens a section, kvc_view finds values in it, kvc_end closes it and says
 * whether all that was seen was good. Sections nest; keep them short (milliseconds): kvd takes
 * memory back from sections held for seconds, and then kvc_end returns KVC_REVOKED and everything
 * derived from the views must be discarded. Do nothing irreversible with a view before kvc_end
 * returned KVC_OK. A value that is only on disk or only reachable by socket is copied into memory
 * owned by the reader until kvc_end. */
KVC_API int kvc_begin(kvc_reader *reader);
KVC_API int kvc_view(kvc_reader *reader, const void *key, size_t key_bytes, struct kvc_view *view);
KVC_API int kvc_end(kvc_reader *reader);

/* One of many keys to get. */
struct kvc_item {
	const void *key;
	size_t key_bytes;
	void *buffer;           /* filled up to buffer_bytes */
	size_t buffer_bytes;
	struct kvc_meta meta;
	int status;             /* as kvc_get would return */
};

enum kvc_get_flags {
	KVC_GET_SNAPSHOT = 1    /* all items from one moment: batches seen whole or not at all */
};

/* Gets `count` items; per-item results are in `status`. Returns KVC_OK, or the error that stopped
 * it; with KVC_GET_SNAPSHOT KVC_BUSY if writers never paused long enough. */
KVC_API int kvc_get_many(kvc_reader *reader, struct kvc_item *items, size_t count, uint32_t flags);

/* Stands for one version of one key as a reader saw it; for caches above this library. Plain bytes:
 * copy and keep it, use it with any reader in this process. Zeroed it stands for nothing. */
struct kvc_token {
	uint64_t opaque[10];
};

/* As kvc_get and kvc_view, and fill *token. It stands for nothing (KVC_CHANGED for ever) unless the
 * result is KVC_OK or KVC_TRUNCATED and came from the mapping. */
KVC_API int kvc_get_token(kvc_reader *reader, const void *key, size_t key_bytes, void *buffer,
			  size_t buffer_bytes, struct kvc_meta *meta, struct kvc_token *token);
KVC_API int kvc_view_token(kvc_reader *reader, const void *key, size_t key_bytes,
			   struct kvc_view *view, struct kvc_token *token);

/* Is what *token stands for still the key's value? KVC_OK: it is, as surely as if it had been read
 * now; never said of anything older. KVC_CHANGED: it may have changed (also when only the table or
 * the attachment did): read it again. A few loads: no system call, no search, no lock. Brings
 * *token up to date. As any use of a reader: one thread at a time. */
KVC_API int kvc_check(kvc_reader *reader, struct kvc_token *token);

/* Watermarks as this reader sees them: highest applied and durable version. A value is durable
 * when its version is at most *durable. Ask where it matters: this line changes with every
 * write, so a get does not look at it. */
KVC_API int kvc_watermarks(kvc_reader *reader, uint64_t *applied, uint64_t *durable);

/* ---- writes: through the socket ------------------------------------------------------------ */

enum kvc_set_flags {
	KVC_SET_IF_ABSENT = 1,
	KVC_SET_IF_PRESENT = 2,
	KVC_SET_IF_VERSION = 4,  /* only if the current version is `version`; 0 = only if absent */
	KVC_SET_KEEP_TTL = 8
};

struct kvc_set_options {
	size_t struct_bytes;     /* sizeof(struct kvc_set_options) */
	int64_t ttl_ms;          /* 0 = none */
	uint64_t version;        /* for KVC_SET_IF_VERSION */
	uint32_t flags;          /* enum kvc_set_flags */
};

/* Stores. `options` may be NULL; *version (may be NULL) gets the new version. Returns KVC_OK,
 * KVC_NOT_APPLIED, or an error of a request: UNREACHABLE, TIMEOUT, UNKNOWN, NO_MEMORY, TOO_LARGE,
 * REFUSED, NOT_DURABLE, PROTOCOL. When it returns KVC_OK the value is visible to every later get
 * on the machine, and as durable as kvd's policy says. */
KVC_API int kvc_set(kvc *client, const void *key, size_t key_bytes, const void *value,
		    size_t value_bytes, const struct kvc_set_options *options, uint64_t *version);

/* KVC_OK if it was there, KVC_NOT_FOUND if not. */
KVC_API int kvc_delete(kvc *client, const void *key, size_t key_bytes);

/* Adds `delta` to a decimal integer (absent = 0); *result gets the new value. */
KVC_API int kvc_increment(kvc *client, const void *key, size_t key_bytes, int64_t delta,
			  int64_t *result);

/* Sets the time left; ttl_ms < 0 removes the expiry, 0 deletes. KVC_NOT_FOUND if absent. */
KVC_API int kvc_expire(kvc *client, const void *key, size_t key_bytes, int64_t ttl_ms);

/* Waits until everything this client wrote is durable (at once under the memory policy).
 * KVC_UNKNOWN, once: the connection on which something was written has broken since, and what was
 * not durable then may be lost. KVC_NOT_DURABLE: kvd could not write its store. */
KVC_API int kvc_sync(kvc *client);

/* ---- atomic batches: applied whole or not at all ------------------------------------------- */

typedef struct kvc_batch kvc_batch;

/* A batch only collects; nothing is sent before kvc_batch_commit. Not bound to a thread. */
KVC_API int kvc_batch_new(kvc_batch **out);
KVC_API void kvc_batch_free(kvc_batch *batch);
KVC_API void kvc_batch_reset(kvc_batch *batch);   /* empties it for reuse, keeps its memory */
KVC_API int kvc_batch_set(kvc_batch *batch, const void *key, size_t key_bytes, const void *value,
			  size_t value_bytes, int64_t ttl_ms);
KVC_API int kvc_batch_delete(kvc_batch *batch, const void *key, size_t key_bytes);
KVC_API int kvc_batch_increment(kvc_batch *batch, const void *key, size_t key_bytes, int64_t delta);
KVC_API int kvc_batch_expire(kvc_batch *batch, const void *key, size_t key_bytes, int64_t ttl_ms);
/* Sends and waits. KVC_OK: all applied. KVC_NOT_NUMBER: an increment met no integer; as in Redis
 * the other operations were applied. Any other error reply: nothing was. Batches over 64 MiB are
 * KVC_TOO_LARGE when they are built. The batch keeps its content (kvc_batch_reset empties it). */
KVC_API int kvc_batch_commit(kvc *client, kvc_batch *batch);

/* ---- anything else -------------------------------------------------------------------------- */

/* A reply in a tree; strings are NUL-terminated after their bytes. */
enum kvc_reply_type {
	KVC_REPLY_NIL, KVC_REPLY_STATUS, KVC_REPLY_ERROR, KVC_REPLY_INTEGER, KVC_REPLY_STRING,
	KVC_REPLY_ARRAY, KVC_REPLY_MAP, KVC_REPLY_DOUBLE, KVC_REPLY_BOOLEAN, KVC_REPLY_PUSH
};

struct kvc_reply {
	enum kvc_reply_type type;
	int64_t integer;                 /* INTEGER, BOOLEAN */
	double number;                   /* DOUBLE */
	const char *text;                /* STATUS, ERROR, STRING */
	size_t text_bytes;
	struct kvc_reply *element;       /* ARRAY, PUSH: count; MAP: 2 * count, key then value */
	size_t count;
};

/* What a request came to. Fields beyond `status` are set where the request has such a result. */
struct kvc_result {
	int status;                    /* enum kvc_status */
	const char *error_text;        /* in words what `status` stands for; never NULL */
	uint64_t version;              /* set, get */
	int64_t integer;               /* increment: the new value */
	const void *value;             /* get */
	size_t value_bytes;
	struct kvc_meta meta;          /* get */
	const struct kvc_reply *reply; /* command: also an error reply has the status KVC_OK */
};

/* Sends one command of `argc` arguments and waits for its reply. *reply is owned by the client and
 * good until its next call. KVC_OK also for error replies: look at reply->type. */
KVC_API int kvc_command(kvc *client, int argc, const void *const *argv, const size_t *argv_bytes,
			const struct kvc_reply **reply);

/* Pipelining: append commands, then take their replies in order, one for each. Unsent commands
 * go out with the first kvc_pipeline_reply, or when 64 KiB are waiting. If the connection
 * breaks, each reply still owed is KVC_UNKNOWN (or KVC_UNREACHABLE, if nothing left). Until all
 * replies are taken other calls with this client are KVC_INVALID, and so is taking one more than
 * is owed. */
KVC_API int kvc_pipeline_append(kvc *client, int argc, const void *const *argv,
				const size_t *argv_bytes);
KVC_API int kvc_pipeline_reply(kvc *client, const struct kvc_reply **reply);

/* ---- asynchronous requests: for programs with an event loop --------------------------------- */

/* A handle is one connection for requests and, if anything is watched, one for changes. One thread
 * at a time may use it; nothing of it blocks, starts a thread, or sets a timer. The loop polls
 * kvc_async_fd() for reading (POLLIN, level-triggered), at most kvc_async_timeout_ms() long, and
 * then calls kvc_async_dispatch().
 *
 * Every request that was accepted has its completion called exactly once, in kvc_async_dispatch()
 * or kvc_async_close(), never in the function that submits. Completions come in the order of
 * submission, except that of a cancelled request, which comes with the next dispatch. When the
 * connection breaks, what was sent whole becomes KVC_UNKNOWN (it may have been applied; a get:
 * KVC_UNREACHABLE), everything else KVC_UNREACHABLE: kvd has not got it, repeating is safe. The
 * next request connects anew; after a failed attempt requests are KVC_UNREACHABLE until a pause is
 * over (reconnect_min_ms ...). When the oldest request is over request_timeout_ms it is
 * KVC_TIMEOUT and the connection is given up.
 *
 * Inside a completion everything may be called but kvc_async_dispatch() (KVC_INVALID);
 * kvc_async_close() then takes effect when the completion returns. A forked child may go on with
 * the handle: it has none of the requests (their completions are called in the parent only), a
 * connection of its own, and another kvc_async_fd(). */
typedef struct kvc_async kvc_async;

/* `result` and what it points to is good until the completion returns. */
typedef void (*kvc_done)(kvc_async *async, void *user, const struct kvc_result *result);

struct kvc_async_options {
	size_t struct_bytes;      /* sizeof(struct kvc_async_options) */
	uint32_t requests_max;    /* accepted and not answered; default 4096 */
	size_t bytes_max;         /* not sent yet; default 16 MiB. Alone a request may be larger */
	/* Called in a dispatch, once after KVC_BUSY, when half of both is free again, or NULL. */
	void (*writable)(kvc_async *async, void *user);
	void *user;
};

/* Either options may be NULL. Errors as kvc_open(); with KVC_OPEN_NO_CONNECT the first dispatch
 * after a submit connects. Connecting to a Unix socket does not wait. */
KVC_API int kvc_async_open(kvc_async **out, const struct kvc_options *options,
			   const struct kvc_async_options *async_options);
/* Completions still owed are called with KVC_CANCELLED, watches end without a word. NULL is fine.
 * KVC_INVALID: it is being closed already. */
KVC_API int kvc_async_close(kvc_async *async);

/* One descriptor for the handle's whole life, owned by it, also across reconnects; -1: none. It is
 * an epoll set: poll it, do nothing else with it. */
KVC_API int kvc_async_fd(kvc_async *async);
/* Milliseconds until a dispatch is due even if the descriptor stays quiet, for poll(); -1: never.
 * May be earlier after every other call with the handle. */
KVC_API int kvc_async_timeout_ms(kvc_async *async);
/* Does a bounded piece of what there is to do; the descriptor stays readable while there is more.
 * KVC_OK, KVC_CANCELLED (the handle was closed in a completion and is gone), KVC_INVALID. */
KVC_API int kvc_async_dispatch(kvc_async *async);
/* Sends what the socket takes now, without waiting for the loop. Calls nobody. */
KVC_API int kvc_async_flush(kvc_async *async);
/* Requests whose completion has not been called. */
KVC_API size_t kvc_async_pending(kvc_async *async);
/* Why the last connection was given up or could not be had; valid until the next dispatch. */
KVC_API const char *kvc_async_error_text(const kvc_async *async);

/* Cancels the request `id`: its completion is called with KVC_CANCELLED by the next dispatch.
 * KVC_OK: it will never be applied. KVC_UNKNOWN: it was sent, and may be. KVC_NOT_FOUND: its
 * completion has been called, or it is cancelled already. */
KVC_API int kvc_async_cancel(kvc_async *async, uint64_t id);

/* Requests. Keys, values, options, batches and arguments are copied; the meaning of each and of its
 * results is that of the function of the same name that waits. `done` may be NULL; *id (may be
 * NULL) is for kvc_async_cancel(), never 0 and never reused. KVC_OK: accepted. Otherwise nothing
 * was and nobody is called: KVC_BUSY (the queue is full), INVALID, TOO_LARGE, NO_MEMORY.
 * A get goes through the socket; reading the mapping needs no waiting: use a reader. Commands that
 * change which replies come (SUBSCRIBE, MONITOR, CLIENT REPLY) do not go with this. */
KVC_API int kvc_async_set(kvc_async *async, const void *key, size_t key_bytes, const void *value,
			  size_t value_bytes, const struct kvc_set_options *options, kvc_done done,
			  void *user, uint64_t *id);
KVC_API int kvc_async_delete(kvc_async *async, const void *key, size_t key_bytes, kvc_done done,
			     void *user, uint64_t *id);
KVC_API int kvc_async_increment(kvc_async *async, const void *key, size_t key_bytes, int64_t delta,
				kvc_done done, void *user, uint64_t *id);
KVC_API int kvc_async_expire(kvc_async *async, const void *key, size_t key_bytes, int64_t ttl_ms,
			     kvc_done done, void *user, uint64_t *id);
KVC_API int kvc_async_get(kvc_async *async, const void *key, size_t key_bytes, kvc_done done,
			  void *user, uint64_t *id);
KVC_API int kvc_async_sync(kvc_async *async, kvc_done done, void *user, uint64_t *id);
KVC_API int kvc_async_commit(kvc_async *async, const kvc_batch *batch, kvc_done done, void *user,
			     uint64_t *id);
KVC_API int kvc_async_command(kvc_async *async, int argc, const void *const *argv,
			      const size_t *argv_bytes, kvc_done done, void *user, uint64_t *id);

/* ---- watching: being told of changes -------------------------------------------------------- */

typedef struct kvc_watch kvc_watch;

enum kvc_watch_flags {
	KVC_WATCH_PREFIX = 1    /* every key that begins so; 0 bytes: every key */
};

enum kvc_watch_event {
	KVC_WATCH_READY = 1,    /* from now on changes are told: what is read now can be kept */
	KVC_WATCH_CHANGED = 2,  /* `key` was written, removed or expired; NULL: all were removed */
	KVC_WATCH_LOST = 3      /* changes may be missed until READY: drop what was kept */
};

/* `key` is good until it returns. Any function of the handle may be called but its dispatch. */
typedef void (*kvc_watched)(kvc_async *async, void *user, enum kvc_watch_event event,
			    const void *key, size_t key_bytes);

/* Watches a key or, with KVC_WATCH_PREFIX, all keys that begin with `key`. `watched` is called from
 * kvc_async_dispatch(): READY or LOST first, again when that changes (kvd went, or cut this client
 * off because it did not read fast enough; the handle connects anew by itself), and CHANGED in
 * between, also for changes by this process. Opening or closing a watch may make others LOST and
 * READY again. *out is owned by the caller until kvc_watch_close() or kvc_async_close(). A handle
 * has at most 1024 (KVC_TOO_LARGE); each costs kvd some time for every write, so watch a prefix
 * rather than many keys. INVALID, NO_MEMORY, SYSTEM. */
KVC_API int kvc_watch_open(kvc_async *async, const void *key, size_t key_bytes, uint32_t flags,
			   kvc_watched watched, void *user, kvc_watch **out);
/* Not another call of `watched` after this. NULL is fine. */
KVC_API int kvc_watch_close(kvc_watch *watch);

#ifdef __cplusplus
}
#endif
#endif /* KVCLIENT_H */

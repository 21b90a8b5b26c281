// SPDX-License-Identifier: MIT
//
// Every maximum two processes must agree on, once, with its unit in its name. A limit that only one
// side enforces still stands here, so that help texts, the manual and the tests quote one number.
#pragma once

#include <assert.h>
#include <stdint.h>

#define KVS_KEY_BYTES_MAX 511u // LMDB's own key limit; keeps an exported keyed copy possible
#define KVS_VALUE_BYTES_MAX (512u << 20) // absolute; Redis's proto-max-bulk-len
#define KVS_VALUE_BYTES_DEFAULT (64u << 20) // default limit: min(this, memory / 8)
#define KVS_BATCH_BYTES_MAX (64u << 20) // all records of one atomic batch together

#define KVS_CACHE_LINE_BYTES 64u
#define KVS_PAGE_BYTES 4096u
#define KVS_HUGE_PAGE_BYTES (2u << 20)
#define KVS_RECORD_ALIGN_BYTES 8u

#define KVS_SEGMENT_BYTES_DEFAULT (2u << 20)
#define KVS_SEGMENT_BYTES_MIN (64u << 10)
#define KVS_SEGMENT_BYTES_MAX (64u << 20)
#define KVS_MEMORY_BYTES_MIN (2u << 20) // header, table and a handful of small segments
#define KVS_REGION_BYTES_MAX (UINT64_C(1) << 43) // what a 40-bit location of 8-byte units can name

#define KVS_BUCKET_ENTRIES 7u
#define KVS_CHAIN_BUCKETS_MAX 1024u // bound on a client's walk: a longer chain must be damage
// Overflow buckets of a chain beyond what the table's load explains (kvs_table_chain_has_room()):
#define KVS_CHAIN_BUCKETS_WRITE 32u // a write that would make a chain longer is refused
#define KVS_CHAIN_BUCKETS_RESEED 8u // only keys made to collide do that: other hash key, please
#define KVS_FIND_RETRIES_MAX 64u // root moved during a miss; beyond this the socket answers
#define KVS_SNAPSHOT_RETRIES_MAX 64u // consistent multi-get; beyond this KVC_BUSY

#define KVS_READERS_PER_PAGE 31u
#define KVS_PAGES_PER_CLIENT_MAX 32u

#define KVS_COMMAND_ARGS_MAX (1024u * 1024u) // RESP array length, as Redis
#define KVS_INLINE_BYTES_MAX (64u << 10) // one inline command line, as Redis
#define KVS_CLIENTS_RESERVED 8u // beyond maxclients, for root and kvd's own user
#define KVS_CLIENT_NAME_BYTES_MAX 128u
#define KVS_SOCKET_PATH_BYTES_MAX 107u // sun_path less its NUL
#define KVS_SOCKET_PATH_DEFAULT "/run/kvd/kvd.sock" // where clients look that are told nothing

static_assert(KVS_BATCH_BYTES_MAX >= KVS_VALUE_BYTES_DEFAULT, "a default value fits a batch");
static_assert(KVS_SEGMENT_BYTES_MIN / 4 > KVS_KEY_BYTES_MAX + 64,
	      "a key fits beside a small value");

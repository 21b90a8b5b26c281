// SPDX-License-Identifier: MIT
//
// kvd's options, once; `dynamic` ones may be set while kvd runs. No guard: it is expanded several
// times.
#ifndef CONFIG_STRING
#define CONFIG_STRING(field, name, dflt, dynamic, help)
#endif
#ifndef CONFIG_SIZE
#define CONFIG_SIZE(field, name, dflt, min, max, dynamic, help)
#endif
#ifndef CONFIG_DURATION_MS
#define CONFIG_DURATION_MS(field, name, dflt, min, max, dynamic, help)
#endif
#ifndef CONFIG_NUMBER
#define CONFIG_NUMBER(field, name, dflt, min, max, dynamic, help)
#endif
#ifndef CONFIG_INTEGER
#define CONFIG_INTEGER(field, name, dflt, min, max, dynamic, help)
#endif
#ifndef CONFIG_CHOICE
#define CONFIG_CHOICE(field, name, choices, dflt, dynamic, help)
#endif
#ifndef CONFIG_FLAG // no|yes, default no; on the command line only, where its name means yes
#define CONFIG_FLAG(field, name, help)
#endif
#ifndef CONFIG_MODE
#define CONFIG_MODE(field, name, dflt, dynamic, help)
#endif

#define CONFIG_MIB (UINT64_C(1) << 20)

CONFIG_STRING(dir, "dir", "/var/lib/kvd", 0, "data folder: the store, kvd.gen, the lock")
CONFIG_STRING(socket_path, "socket", "", 0, "socket path; default DIR/kvd.sock")
CONFIG_STRING(socket_also_path, "socket-also", "", 0,
	      "a second socket; default " KVS_SOCKET_PATH_DEFAULT
	      ", where clients look, if neither dir nor socket is given")
CONFIG_STRING(config_path, "config", "", 0,
	      "read options from this file, one `name = value` a line")
CONFIG_FLAG(supervise, "supervise",
	    "run kvd as a child that is started again when it dies; see kvd(8)")
CONFIG_MODE(socket_mode, "socket-mode", 0660, 0, "permissions of the socket, octal")
CONFIG_SIZE(memory_bytes, "memory", 256 * CONFIG_MIB, KVS_MEMORY_BYTES_MIN,
	    KVS_REGION_BYTES_MAX / 16, 0,
	    "bound on the region at the start: table, records, large values all count; if none is "
	    "given half of what the process may use, if that is less")
CONFIG_SIZE(memory_max_bytes, "memory-max", 0, 0, KVS_REGION_BYTES_MAX / 16, 0,
	    "highest bound that may ever be set while running; 0 = the machine's memory, or "
	    "`memory` if larger")
CONFIG_SIZE(maxmemory_bytes, "maxmemory", 0, 0, KVS_REGION_BYTES_MAX / 16, 1,
	    "the bound on the region that holds, up to memory-max; 0 = `memory`. If it is less "
	    "than 16 segments nothing is freed for it: commands that need memory are refused "
	    "while more is in use; where keys could go it is an error")
CONFIG_DURATION_MS(memory_return_ms, "memory-return", 60000, 0, 86400000, 1,
		   "pages of free segments that nothing needed for so long go back to the system; "
		   "0 = never, and so is it with prefault")
CONFIG_CHOICE(huge_pages, "huge-pages", "off|transparent|hugetlb", 1, 0,
	      "pages of the region: small ones; joined to huge ones of 2MiB where the kernel does "
	      "that; or huge ones of the system's pool (vm.nr_hugepages), all taken at the start")
CONFIG_CHOICE(prefault, "prefault", "no|yes", 0, 0,
	      "take all of the memory from the system at the start and keep it, instead of as it "
	      "is needed; a start for which there is too little fails")
CONFIG_CHOICE(mlock, "mlock", "no|yes", 0, 0,
	      "keep the region out of swap; needs LimitMEMLOCK=infinity, ulimit -l unlimited")
CONFIG_CHOICE(when_full, "when-full", "reject|evict|spill", 2, 1,
	      "what is done when memory is full: writes are refused; or the keys that are read "
	      "least are removed; or their values leave memory and are read from the store when "
	      "somebody asks for them (not with `persist memory`, where reject is the default)")
CONFIG_CHOICE(maxmemory_policy, "maxmemory-policy",
	      "volatile-lru|volatile-lfu|volatile-random|volatile-ttl|allkeys-lru|allkeys-lfu|"
	      "allkeys-random|noeviction",
	      7, 1,
	      "the same by Redis's names: those that begin with allkeys stand for evict, those "
	      "that begin with volatile for evict among the keys with a time to live")
CONFIG_STRING(evict_never, "evict-never", "", 1,
	      "prefixes of keys that are never evicted, and whose values stay in memory, with "
	      "spaces between them")
CONFIG_SIZE(value_bytes_max, "value-max", 0, 0, KVS_VALUE_BYTES_MAX, 0,
	    "largest value; 0 = 64MiB or an eighth of the memory, whichever is less")
CONFIG_SIZE(segment_bytes, "segment", 0, 0, KVS_SEGMENT_BYTES_MAX, 0,
	    "log segment, a power of two; 0 = 2MiB, less for a small region")
CONFIG_CHOICE(hash_kind, "hash", "xxh3|siphash", 0, 0,
	      "how a new region hashes keys; siphash is slower to read, and nobody without access "
	      "to the region can make keys collide; a region that was kept keeps its own")
CONFIG_DURATION_MS(
	reseed_ms, "reseed-interval", 60000, 1, 86400000, 1,
	"least time between two rebuilds of the table under another hash key, where keys "
	"were made to collide; until then writes to a crowded chain are refused")
CONFIG_CHOICE(persist_policy, "persist", "memory|lazy|group|sync", 1, 0,
	      "memory: nothing on disk; lazy: a commit a second; group: acknowledge after the "
	      "commit; sync: group without delay")
CONFIG_DURATION_MS(lazy_ms, "lazy-interval", 1000, 1, 3600000, 1,
		   "lazy policy: time between commits")
CONFIG_SIZE(lazy_bytes, "lazy-bytes", 16 * CONFIG_MIB, 4096, UINT64_MAX, 1,
	    "lazy policy: commit earlier after so many bytes")
CONFIG_NUMBER(group_delay_us, "group-delay-us", 0, 0, 1000000, 1,
	      "group policy: longest wait for company, microseconds")
CONFIG_NUMBER(compact_ratio_percent, "compact-ratio", 200, 110, 10000, 1,
	      "store may hold this share of the live bytes, percent")
CONFIG_SIZE(compact_floor_bytes, "compact-floor", 64 * CONFIG_MIB, 0, UINT64_MAX, 1,
	    "below this the store is not compacted")
CONFIG_CHOICE(keep_failed_store, "keep-failed-store", "no|yes", 0, 0,
	      "a store that failed and was written anew stays as DIR/store.failed-TIME")
CONFIG_NUMBER(clients_max, "maxclients", 10000, 1, 1000000, 1, "connections at once")
CONFIG_NUMBER(clients_share_percent, "maxclients-uid-share", 80, 1, 100, 1,
	      "share of maxclients that one user may have, percent; root and kvd's own user may "
	      "have all")
CONFIG_STRING(allow_attach, "allow-attach", "*", 1,
	      "who may map the shared memory, of those who may connect: * or none, or some of "
	      "user:NAME, user:UID, group:NAME, group:GID; root and kvd's own user always may. "
	      "Others read through the socket")
CONFIG_STRING(allow_write, "allow-write", "*", 1,
	      "who may change keys and publish, a list as in allow-attach")
CONFIG_STRING(allow_admin, "allow-admin", "none", 1,
	      "who may change kvd and other users' connections, have backups made and all "
	      "verified, a list as in allow-attach")
CONFIG_STRING(quota_exempt, "quota-exempt", "none", 1,
	      "whom no quota holds for, a list as in allow-attach; root and kvd's own user are "
	      "exempt too")
CONFIG_SIZE(quota_stored_bytes, "quota-stored-bytes", 0, 0, UINT64_MAX / 4, 1,
	    "bytes of records that one user may own; who wrote a key last owns it; 0 = no quota")
CONFIG_SIZE(quota_write_bytes, "quota-write-bytes", 0, 0, UINT64_MAX / 4, 1,
	    "bytes a second that one user may write; beyond it his connections are read no "
	    "further for a while; 0 = no quota")
CONFIG_NUMBER(quota_writes, "quota-writes", 0, 0, UINT32_MAX, 1,
	      "keys a second that one user may write, likewise; 0 = no quota")
CONFIG_DURATION_MS(quota_burst_ms, "quota-burst", 1000, 1, 3600000, 1,
		   "who wrote less may then write as much at once as in so long")
CONFIG_NUMBER(pages_max, "reader-pages-max", 8192, 1, 65536, 1,
	      "reader pages of all processes that map the shared memory, each for up to 31 "
	      "threads; beyond it others read through the socket")
CONFIG_NUMBER(pages_share_percent, "reader-pages-uid-share", 50, 1, 100, 1,
	      "share of reader-pages-max that the processes of one user may have, percent; root "
	      "and kvd's own user may have all")
CONFIG_CHOICE(zero_freed, "zero-freed", "no|yes", 0, 0,
	      "overwrite what a removed key left in the shared memory with zeroes before the "
	      "memory is free for other keys")
CONFIG_SIZE(output_bytes_max, "client-output-max", 256 * CONFIG_MIB, 65536, UINT64_MAX, 1,
	    "a client whose unread replies exceed this is closed")
CONFIG_SIZE(subscriber_output_max, "subscriber-output-max", 32 * CONFIG_MIB, 0, UINT64_MAX, 1,
	    "a subscriber that leaves as much unread is closed; 0 = only client-output-max counts")
CONFIG_SIZE(subscriber_soft_bytes, "subscriber-output-soft", 8 * CONFIG_MIB, 0, UINT64_MAX, 1,
	    "the same for a subscriber that leaves as much unread all the time for "
	    "subscriber-output-soft-time; 0 = no such bound")
CONFIG_DURATION_MS(subscriber_soft_ms, "subscriber-output-soft-time", 60000, 0, 86400000, 1,
		   "how long")
CONFIG_NUMBER(subscriber_patterns_max, "subscriber-patterns-max", 1000, 0, UINT32_MAX, 1,
	      "patterns that a client may subscribe to: each is held against every message")
CONFIG_STRING(notify_events, "notify-keyspace-events", "", 1,
	      "which changes of keys are published as messages, letters as in Redis: K E for the "
	      "channels, g $ x e n m or A for the events")
CONFIG_NUMBER(tracking_keys_max, "tracking-table-max-keys", 1000000, 0, UINT32_MAX, 1,
	      "keys that CLIENT TRACKING remembers for all clients together; beyond it some are "
	      "reported as changed; 0 = no bound")
CONFIG_SIZE(buffers_bytes_max, "client-buffers-max", 0, 0, UINT64_MAX / 4, 1,
	    "bound on the buffers of all clients: requests, replies, transactions; 0 = half of "
	    "`memory`, at least six requests of the largest size")
CONFIG_NUMBER(uid_share_percent, "client-uid-share", 50, 1, 100, 1,
	      "share of client-buffers-max that the clients of one user may hold, percent")
CONFIG_DURATION_MS(frame_timeout_ms, "frame-timeout", 60000, 0, 86400000, 1,
		   "a client is closed when nothing more of an unfinished request came for so "
		   "long; 0 = never")
CONFIG_NUMBER(atomic_keys_max, "atomic-keys-max", 1048576, 0, KVS_COMMAND_ARGS_MAX, 1,
	      "keys of one MSET or MSETNX, and of all commands of a transaction: such a request is "
	      "never cut, everybody waits for it, up to 0.6 us a key; 0 = as many as a request may "
	      "have. A DEL or UNLINK of more, or of more than 512 keys, is cut instead")
CONFIG_DURATION_MS(write_wait_ms, "write-wait", 1000, 0, 600000, 1,
		   "how long a write waits for memory before -OOM")
CONFIG_DURATION_MS(read_wait_ms, "read-wait", 5000, 1, 600000, 1,
		   "how long a command waits for a value that is in the store alone")
CONFIG_DURATION_MS(revoke_ms, "revoke", 5000, 1, 3600000, 1,
		   "a view older than this is taken back when memory is wanted")
CONFIG_DURATION_MS(revoke_min_ms, "revoke-min", 50, 1, 3600000, 1,
		   "the same when free segments are below the reserve")
CONFIG_CHOICE(on_stuck, "on-stuck", "revoke|block", 0, 1,
	      "what to do about a reader past its deadline")
CONFIG_NUMBER(idle_timeout_s, "timeout", 0, 0, INT32_MAX, 1,
	      "a client that says nothing for so many seconds is closed, but no subscriber and "
	      "nobody who reads the shared memory; 0 = never")
CONFIG_INTEGER(slowlog_us, "slowlog-log-slower-than", 10000, -1, INT64_MAX, 1,
	       "commands that take as many microseconds are kept for SLOWLOG; 0 = all, -1 = none")
CONFIG_NUMBER(slowlog_entries, "slowlog-max-len", 128, 0, 65536, 1,
	      "the newest so many of them are kept")
CONFIG_NUMBER(latency_ms, "latency-monitor-threshold", 0, 0, INT64_MAX, 1,
	      "commands and loads that take as many milliseconds are kept for LATENCY; 0 = none")
CONFIG_CHOICE(latency_tracking, "latency-tracking", "no|yes", 1, 1,
	      "keep a histogram of each command's times")
CONFIG_STRING(latency_percentiles, "latency-tracking-info-percentiles", "50 99 99.9", 1,
	      "which percentiles of them INFO tells")
CONFIG_CHOICE(log_level, "loglevel", "debug|info|notice|warning|error", 2, 1,
	      "least important line that is logged")

#undef CONFIG_STRING
#undef CONFIG_SIZE
#undef CONFIG_DURATION_MS
#undef CONFIG_NUMBER
#undef CONFIG_INTEGER
#undef CONFIG_CHOICE
#undef CONFIG_FLAG
#undef CONFIG_MODE
#undef CONFIG_MIB

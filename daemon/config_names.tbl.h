// SPDX-License-Identifier: MIT
//
// Redis's options that kvd has no option of its own for, sorted by name: what CONFIG GET answers,
// and what CONFIG SET accepts. No guard: it is expanded several times.
//   START  fixed, in Redis too
//   FIXED  only what is true is accepted; the last column says why nothing else is
//   KEPT   has no meaning in kvd, so nothing depends on it: accepted if Redis would, and told back
//   OTHERS stands for options of kvd's own, in Redis's form: those are set
//   HIDDEN as KEPT, but told only when asked for by its whole name
// Types as Redis checks them: BOOL, INT and MEM with bounds, ENUM with words, TEXT. A FIXED value
// of NULL is computed in config_names.c. Expand with X(name, kind, type, value, min, max, words,
// why).
// clang-format off

#define NO_AOF "kvd has no append only file: what is durable is chosen at its start, --persist"
#define NO_TCP "kvd listens on Unix sockets only: see kvctl bridge"

X("acllog-max-len", KEPT, INT, "128", 0, INT64_MAX, NULL, NULL)
X("active-expire-effort", KEPT, INT, "1", 1, 10, NULL, NULL)
X("activedefrag", FIXED, BOOL, "no", 0, 0, NULL, "kvd's memory is cleaned all the time")
X("activerehashing", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("appendfsync", FIXED, ENUM, NULL, 0, 0, "everysec|always|no", NO_AOF)
X("appendonly", FIXED, BOOL, "no", 0, 0, NULL, NO_AOF)
X("auto-aof-rewrite-min-size", KEPT, MEM, "67108864", 0, INT64_MAX, NULL, NULL)
X("auto-aof-rewrite-percentage", KEPT, INT, "100", 0, INT32_MAX, NULL, NULL)
X("bind", FIXED, TEXT, "", 0, 0, NULL, NO_TCP)
X("busy-reply-threshold", KEPT, INT, "5000", 0, INT64_MAX, NULL, NULL)
X("client-output-buffer-limit", OTHERS, TEXT, NULL, 0, 0, NULL, NULL)
X("client-query-buffer-limit", FIXED, MEM, NULL, 1 << 20, INT64_MAX, NULL,
  "it follows from value-max")
X("cluster-enabled", START, BOOL, "no", 0, 0, NULL, NULL)
X("daemonize", START, BOOL, "no", 0, 0, NULL, NULL)
X("databases", START, INT, "1", 1, INT32_MAX, NULL, NULL)
X("dynamic-hz", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("enable-debug-command", START, ENUM, "yes", 0, 0, "no|yes|local", NULL)
X("hash-max-listpack-entries", KEPT, INT, "512", 0, INT64_MAX, NULL, NULL)
X("hash-max-listpack-value", KEPT, MEM, "64", 0, INT64_MAX, NULL, NULL)
X("hash-max-ziplist-entries", KEPT, INT, "512", 0, INT64_MAX, NULL, NULL)
X("hash-max-ziplist-value", KEPT, MEM, "64", 0, INT64_MAX, NULL, NULL)
X("hll-sparse-max-bytes", KEPT, MEM, "3000", 0, INT64_MAX, NULL, NULL)
X("hz", KEPT, INT, "10", 0, INT32_MAX, NULL, NULL)
X("io-threads", START, INT, "1", 1, 128, NULL, NULL)
X("key-load-delay", HIDDEN, INT, "0", INT32_MIN, INT32_MAX, NULL, NULL)
X("lazyfree-lazy-eviction", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("lazyfree-lazy-expire", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("lazyfree-lazy-server-del", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("lazyfree-lazy-user-del", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("lazyfree-lazy-user-flush", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("lfu-decay-time", KEPT, INT, "1", 0, INT32_MAX, NULL, NULL)
X("lfu-log-factor", KEPT, INT, "10", 0, INT32_MAX, NULL, NULL)
X("list-compress-depth", KEPT, INT, "0", 0, INT32_MAX, NULL, NULL)
X("list-max-listpack-size", KEPT, INT, "-2", INT32_MIN, INT32_MAX, NULL, NULL)
X("list-max-ziplist-size", KEPT, INT, "-2", INT32_MIN, INT32_MAX, NULL, NULL)
X("logfile", START, TEXT, "", 0, 0, NULL, NULL)
X("lua-time-limit", KEPT, INT, "5000", 0, INT64_MAX, NULL, NULL)
X("masterauth", FIXED, TEXT, "", 0, 0, NULL, "kvd has no master")
X("masteruser", FIXED, TEXT, "", 0, 0, NULL, "kvd has no master")
X("maxmemory-clients", FIXED, PERCENT, "0", -100, INT64_MAX, NULL,
  "see client-buffers-max and client-uid-share")
X("maxmemory-eviction-tenacity", KEPT, INT, "10", 0, 100, NULL, NULL)
X("maxmemory-samples", KEPT, INT, "5", 1, INT32_MAX, NULL, NULL)
X("min-replicas-to-write", FIXED, INT, "0", 0, INT32_MAX, NULL, "kvd has no replicas")
X("oom-score-adj", FIXED, ENUM, "no", 0, 0, "no|yes|relative|absolute",
  "whoever starts kvd sets that")
X("pidfile", START, TEXT, "", 0, 0, NULL, NULL)
X("port", FIXED, INT, "0", 0, 65535, NULL, "Unable to listen on this port: " NO_TCP)
X("protected-mode", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("proto-max-bulk-len", FIXED, MEM, NULL, 1 << 20, INT64_MAX, NULL,
  "kvd takes it at its start only, --value-max")
X("rdb-key-save-delay", HIDDEN, INT, "0", INT32_MIN, INT32_MAX, NULL, NULL)
X("rdbcompression", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("repl-backlog-size", KEPT, MEM, "1048576", 1, INT64_MAX, NULL, NULL)
X("repl-backlog-ttl", KEPT, INT, "3600", 0, INT64_MAX, NULL, NULL)
X("repl-diskless-load", KEPT, ENUM, "disabled", 0, 0, "disabled|on-empty-db|swapdb", NULL)
X("repl-diskless-sync", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("repl-diskless-sync-delay", KEPT, INT, "5", 0, INT32_MAX, NULL, NULL)
X("repl-ping-replica-period", KEPT, INT, "10", 1, INT32_MAX, NULL, NULL)
X("repl-timeout", KEPT, INT, "60", 1, INT32_MAX, NULL, NULL)
X("replica-priority", KEPT, INT, "100", 0, INT32_MAX, NULL, NULL)
X("replica-read-only", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("replica-serve-stale-data", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("replicaof", START, TEXT, "", 0, 0, NULL, NULL)
X("requirepass", FIXED, TEXT, "", 0, 0, NULL,
  "kvd knows its clients from the kernel: who may come says the socket's mode")
X("sanitize-dump-payload", KEPT, ENUM, "no", 0, 0, "no|yes|clients", NULL)
X("save", FIXED, TEXT, "", 0, 0, NULL,
  "kvd writes all the time: what is durable is chosen at its start, --persist")
X("set-max-intset-entries", KEPT, INT, "512", 0, INT64_MAX, NULL, NULL)
X("shutdown-on-sigint", FIXED, TEXT, "default", 0, 0, NULL, "a stop makes everything durable")
X("shutdown-on-sigterm", FIXED, TEXT, "default", 0, 0, NULL, "a stop makes everything durable")
X("slave-priority", KEPT, INT, "100", 0, INT32_MAX, NULL, NULL)
X("slave-read-only", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("slave-serve-stale-data", KEPT, BOOL, "yes", 0, 0, NULL, NULL)
X("slaveof", START, TEXT, "", 0, 0, NULL, NULL)
X("stop-writes-on-bgsave-error", FIXED, BOOL, "no", 0, 0, NULL,
  "writes that wait for a commit are answered with what became of it")
X("stream-node-max-bytes", KEPT, MEM, "4096", 0, INT64_MAX, NULL, NULL)
X("stream-node-max-entries", KEPT, INT, "100", 0, INT64_MAX, NULL, NULL)
X("supervised", START, ENUM, "no", 0, 0, "upstart|systemd|auto|no", NULL)
X("syslog-enabled", START, BOOL, "no", 0, 0, NULL, NULL)
X("tcp-backlog", START, INT, "511", 0, INT32_MAX, NULL, NULL)
X("tcp-keepalive", KEPT, INT, "0", 0, INT32_MAX, NULL, NULL)
X("tls-port", FIXED, INT, "0", 0, 65535, NULL, NO_TCP)
X("unixsocket", START, TEXT, NULL, 0, 0, NULL, NULL)
X("unixsocketperm", START, INT, NULL, 0, 0777, NULL, NULL)
X("watchdog-period", FIXED, INT, "0", 0, INT32_MAX, NULL, "kvd has no watchdog of its own")
X("zset-max-listpack-entries", KEPT, INT, "128", 0, INT64_MAX, NULL, NULL)
X("zset-max-listpack-value", KEPT, MEM, "64", 0, INT64_MAX, NULL, NULL)
X("zset-max-ziplist-entries", KEPT, INT, "128", 0, INT64_MAX, NULL, NULL)
X("zset-max-ziplist-value", KEPT, MEM, "64", 0, INT64_MAX, NULL, NULL)

#undef NO_AOF
#undef NO_TCP
// clang-format on

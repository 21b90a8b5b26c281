// SPDX-License-Identifier: MIT
//
// Every command once, sorted by name: what runs it, its arity and flags as Redis has them, which
// right its user must have, where its keys are, and what help says. A subcommand is a row
// "command|subcommand"; a command that has some is in a table of its own (commands_NAME.tbl.h),
// included here in its place. Expand with X(id, name, run, arity, flags, right, first key,
// last key, key step, group, since, syntax, summary).
//
// Rights: R_ANY, whoever may connect; R_ATTACH, R_WRITE, R_ADMIN, whom the option of that name lets
// (allow-attach, ...); R_OTHERS, the right to administer for what is another user's. What needs the
// right to administer is in Redis's categories @admin and @dangerous.
// clang-format off

#define F_WRITE COMMAND_WRITE
#define F_REMOVE (COMMAND_WRITE | COMMAND_REMOVES)
#define F_OOM (COMMAND_WRITE | COMMAND_DENYOOM)
#define F_VALUE (F_OOM | COMMAND_TAKES_VALUE)
#define F_READ COMMAND_READONLY
#define F_FAST COMMAND_FAST
#define F_ANY (COMMAND_LOADING | COMMAND_STALE)
#define F_CONN (F_ANY | COMMAND_NOSCRIPT)
#define F_ADMIN (F_CONN | COMMAND_ADMIN)
#define F_REPLICA (COMMAND_ADMIN | COMMAND_NOSCRIPT | COMMAND_STALE | COMMAND_NO_ASYNC_LOADING)
#define F_SUBSCRIBE (F_CONN | COMMAND_PUBSUB | COMMAND_SUBSCRIBER)
#define F_OPEN (F_CONN | COMMAND_FAST | COMMAND_ALLOW_BUSY)
#define R_ANY 0
#define R_ATTACH COMMAND_NEEDS_ATTACH
#define R_WRITE COMMAND_NEEDS_WRITE
#define R_ADMIN (COMMAND_NEEDS_ADMIN | COMMAND_ADMIN)
#define R_OTHERS (COMMAND_NEEDS_ADMIN_OTHERS | COMMAND_ADMIN)

#include "daemon/commands_acl.tbl.h"
X(append, "append", commands_string_append, 3, F_OOM | F_FAST, R_WRITE, 1, 1, 1, "string", "2.0.0",
  "key value", "Adds bytes to the end of a value; creates the key if it is absent.")
X(asking, "asking", commands_alone_no_cluster, 1, F_FAST, R_ANY, 0, 0, 0, "cluster", "3.0.0",
  "", "Is refused: there is no cluster.")
X(auth, "auth", commands_connection_auth, -2, F_OPEN | COMMAND_NO_AUTH, R_ANY, 0, 0, 0,
  "connection", "1.0.0",
  "[username] password", "Accepted for the user default only: the kernel tells kvd who connects.")
X(bgrewriteaof, "bgrewriteaof", commands_server_bgrewriteaof, 1, COMMAND_ADMIN | COMMAND_NOSCRIPT,
  R_ANY, 0, 0, 0, "server", "1.0.0",
  "", "Is refused: there is no such file.")
X(bgsave, "bgsave", commands_server_bgsave, -1, COMMAND_ADMIN | COMMAND_NOSCRIPT, R_ANY, 0, 0, 0,
  "server", "1.0.0",
  "[SCHEDULE]", "Asks for a commit of all that was written; LASTSAVE tells when it was done.")
X(bitcount, "bitcount", commands_bit_bitcount, -2, F_READ | COMMAND_SLOW_OK, R_ANY, 1, 1, 1,
  "bitmap", "2.6.0",
  "key [start end [BYTE|BIT]]", "Counts the bits of a value, or of a part of it, that are 1.")
X(bitfield, "bitfield", commands_bitfield_bitfield, -2, F_OOM, R_WRITE, 1, 1, 1, "bitmap", "3.2.0",
  "key [GET encoding offset|[OVERFLOW WRAP|SAT|FAIL] SET encoding offset value|[OVERFLOW "
  "WRAP|SAT|FAIL] INCRBY encoding offset increment ...]",
  "Reads, sets and adds to integers of any width at any bit of a value.")
X(bitfield_ro, "bitfield_ro", commands_bitfield_ro, -2, F_READ | F_FAST, R_ANY, 1, 1, 1, "bitmap",
  "6.0.0",
  "key [GET encoding offset ...]", "Reads integers of any width at any bit of a value.")
X(bitop, "bitop", commands_bitop_bitop, -4, F_OOM | COMMAND_SLOW_OK, R_WRITE, 2, -1, 1, "bitmap",
  "2.6.0",
  "AND|OR|XOR|NOT destkey key [key ...]",
  "Combines values bit by bit and stores the result; returns its length in bytes.")
X(bitpos, "bitpos", commands_bit_bitpos, -3, F_READ | COMMAND_SLOW_OK, R_ANY, 1, 1, 1, "bitmap",
  "2.8.7",
  "key bit [start [end [BYTE|BIT]]]",
  "Finds the first 1 or the first 0 among the bits of a value, or of a part of it.")
#include "daemon/commands_client.tbl.h"
#include "daemon/commands_cluster.tbl.h"
#include "daemon/commands_command.tbl.h"
#include "daemon/commands_config.tbl.h"
X(copy, "copy", commands_rename_copy, -3, F_OOM, R_WRITE, 1, 2, 1, "generic", "6.2.0",
  "source destination [DB destination-db] [REPLACE]",
  "Stores a value and its time to live under another key too, which must be absent or REPLACEd.")
X(dbsize, "dbsize", commands_scan_dbsize, 1, F_READ | F_FAST, R_ANY, 0, 0, 0, "server", "1.0.0",
  "", "Returns the number of keys.")
X(debug, "debug", commands_debug_debug, -2, F_CONN, R_ADMIN, 0, 0, 0, "server", "1.0.0",
  "subcommand [arg ...]", "For test suites: see DEBUG HELP.")
X(decr, "decr", commands_counter_decr, 2, F_OOM | F_FAST, R_WRITE, 1, 1, 1, "string", "1.0.0",
  "key", "Subtracts one from the integer in a value; an absent key counts as 0.")
X(decrby, "decrby", commands_counter_decrby, 3, F_OOM | F_FAST, R_WRITE, 1, 1, 1, "string", "1.0.0",
  "key decrement", "Subtracts a number from the integer in a value; an absent key counts as 0.")
X(del, "del", commands_generic_del, -2, F_REMOVE, R_WRITE, 1, -1, 1, "generic", "1.0.0",
  "key [key ...]", "Removes keys, up to 512 in one atomic batch; returns how many there were.")
X(delifeq, "delifeq", commands_set_delifeq, 3, F_REMOVE | F_FAST, R_WRITE, 1, 1, 1, "string",
  "9.0.0",
  "key value", "Removes a key if its value is this one (a command of Valkey's).")
X(discard, "discard", commands_multi_discard, 1, F_OPEN | COMMAND_NO_QUEUE, R_ANY, 0, 0, 0,
  "transactions", "2.0.0",
  "", "Drops what MULTI queued.")
X(echo, "echo", commands_connection_echo, 2, F_ANY | F_FAST, R_ANY, 0, 0, 0, "connection", "1.0.0",
  "message", "Returns its argument.")
X(exec, "exec", commands_multi_exec, 1, F_CONN | COMMAND_SKIP_SLOWLOG | COMMAND_NO_QUEUE |
  COMMAND_SLOW_OK, R_ANY, 0, 0, 0, "transactions", "1.2.0",
  "", "Runs what MULTI queued as one atomic batch.")
X(exists, "exists", commands_many_exists, -2, F_READ | F_FAST, R_ANY, 1, -1, 1, "generic", "1.0.0",
  "key [key ...]", "Counts which of the keys exist; one named twice counts twice.")
X(expire, "expire", commands_expire_expire, -3, F_WRITE | F_FAST, R_WRITE, 1, 1, 1, "generic",
  "1.0.0",
  "key seconds [NX|XX|GT|LT]",
  "Lets a key end in so many seconds; a time that has passed removes it.")
X(expireat, "expireat", commands_expire_expireat, -3, F_WRITE | F_FAST, R_WRITE, 1, 1, 1, "generic",
  "1.2.0",
  "key unix-time-seconds [NX|XX|GT|LT]",
  "Lets a key end at a time; one that has passed removes it.")
X(expiretime, "expiretime", commands_expire_expiretime, 2, F_READ | F_FAST, R_ANY, 1, 1, 1,
  "generic", "7.0.0",
  "key", "Returns when a key ends, in seconds since 1970, -1 for never, -2 for an absent key.")
X(flushall, "flushall", commands_scan_flush, -1, F_REMOVE | COMMAND_DANGEROUS, R_WRITE, 0, 0, 0,
  "server", "1.0.0",
  "[ASYNC|SYNC]", "Removes all keys: one record, whatever their number.")
X(flushdb, "flushdb", commands_scan_flush, -1, F_REMOVE | COMMAND_DANGEROUS, R_WRITE, 0, 0, 0,
  "server", "1.0.0",
  "[ASYNC|SYNC]", "The same as FLUSHALL, for there is one database.")
#include "daemon/commands_function.tbl.h"
X(get, "get", commands_string_get, 2, F_READ | F_FAST, R_ANY, 1, 1, 1, "string", "1.0.0",
  "key", "Returns a value.")
X(getbit, "getbit", commands_bit_getbit, 3, F_READ | F_FAST, R_ANY, 1, 1, 1, "bitmap", "2.2.0",
  "key offset", "Returns one bit of a value, 0 beyond its end.")
X(getdel, "getdel", commands_string_getdel, 2, F_REMOVE | F_FAST, R_WRITE, 1, 1, 1, "string",
  "6.2.0",
  "key", "Returns a value and removes its key.")
X(getex, "getex", commands_set_getex, -2, F_WRITE | F_FAST, R_WRITE, 1, 1, 1, "string", "6.2.0",
  "key [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|PERSIST]",
  "Returns a value and sets or takes away its time to live.")
X(getrange, "getrange", commands_range_getrange, 4, F_READ, R_ANY, 1, 1, 1, "string", "2.4.0",
  "key start end", "Returns a part of a value; negative places count from its end.")
X(getset, "getset", commands_set_getset, 3, F_VALUE | F_FAST, R_WRITE, 1, 1, 1, "string", "1.0.0",
  "key value", "Sets a value and returns the former one.")
X(hello, "hello", commands_connection_hello, -1, F_OPEN | COMMAND_NO_AUTH, R_ANY, 0, 0, 0,
  "connection", "6.0.0",
  "[protover [AUTH username password] [SETNAME clientname]]",
  "Chooses RESP2 or RESP3 and tells who answers.")
X(incr, "incr", commands_counter_incr, 2, F_OOM | F_FAST, R_WRITE, 1, 1, 1, "string", "1.0.0",
  "key", "Adds one to the integer in a value; an absent key counts as 0.")
X(incrby, "incrby", commands_counter_incrby, 3, F_OOM | F_FAST, R_WRITE, 1, 1, 1, "string", "1.0.0",
  "key increment", "Adds a number to the integer in a value; an absent key counts as 0.")
X(incrbyfloat, "incrbyfloat", commands_counter_incrbyfloat, 3, F_OOM | F_FAST, R_WRITE, 1, 1, 1,
  "string", "2.6.0",
  "key increment",
  "Adds a number with a fraction to the one in a value; an absent key counts as 0.")
X(info, "info", commands_info_info, -1, F_ANY | COMMAND_DANGEROUS | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "server", "1.0.0",
  "[section ...]", "Tells how kvd is doing, in sections of name:value lines.")
X(keys, "keys", commands_scan_keys, 2, F_READ | COMMAND_DANGEROUS | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "generic", "1.0.0",
  "pattern", "Lists all keys that match a pattern; others are served and may write meanwhile.")
X(kvd_attach, "kvd.attach", commands_kvd_attach, -1, F_CONN | COMMAND_NO_MULTI, R_ATTACH, 0, 0, 0,
  "kvd", "0.1.0",
  "[PAGE]", "Passes the descriptors with which a process reads the shared region; PAGE asks for "
  "one more reader page.")
X(kvd_backup, "kvd.backup", commands_job_backup, -2, F_CONN | COMMAND_SLOW_OK | COMMAND_NO_MULTI,
  R_ADMIN, 0, 0, 0, "kvd", "0.1.0",
  "START [name]|STATUS|CANCEL",
  "Has a backup of this moment written to DIR/backup while kvd serves. STATUS tells how it is "
  "doing, as JSON; when nobody asks for ten seconds it is given up.")
X(kvd_cas, "kvd.cas", commands_kvd_cas, -4, F_VALUE | F_FAST, R_WRITE, 1, 1, 1, "kvd", "0.1.0",
  "key version value [PX milliseconds]",
  "Sets a value if its version is still this one (0: if the key is absent); returns the new "
  "version or null.")
X(kvd_getv, "kvd.getv", commands_kvd_getv, 2, F_READ | F_FAST, R_ANY, 1, 1, 1, "kvd", "0.1.0",
  "key", "Returns value, version, time to live in ms (-1: none) and time of writing in ms, or "
  "null.")
X(kvd_memory, "kvd.memory", commands_memory_kvd, 1, F_CONN | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "kvd", "0.1.0",
  "", "Returns where memory is, how much of it holds nothing live, and what stands in the way of "
  "more, as JSON.")
X(kvd_policy, "kvd.policy", commands_kvd_policy, -1, F_CONN | F_FAST, R_ANY, 0, 0, 0, "kvd",
  "0.1.0",
  "[memory|lazy|group|sync]",
  "Tells or sets when this connection's writes are acknowledged: never earlier than the server's "
  "policy says.")
X(kvd_readers, "kvd.readers", commands_readers_readers, -1, F_CONN | COMMAND_ADMIN |
  COMMAND_SLOW_OK, R_OTHERS, 0, 0, 0, "kvd", "0.1.0",
  "[KICK ID id|PID pid]",
  "Tells who reads the shared region and who keeps memory from being used again, the longest "
  "first; KICK takes the views of one back and detaches it.")
X(kvd_set, "kvd.set", commands_kvd_set, -3, F_VALUE | F_FAST, R_WRITE, 1, 1, 1, "kvd", "0.1.0",
  "key value [NX|XX|IFVERSION version] [PX milliseconds|KEEPTTL]",
  "Sets a value; returns its version, or null if the condition does not hold.")
X(kvd_stats, "kvd.stats", commands_kvd_stats, 1, F_CONN | COMMAND_SLOW_OK, R_ANY, 0, 0, 0, "kvd",
  "0.1.0",
  "", "Returns all counters and what else is known about this kvd as JSON.")
X(kvd_sync, "kvd.sync", commands_kvd_sync, 1, F_CONN | COMMAND_NO_MULTI, R_ANY, 0, 0, 0, "kvd",
  "0.1.0",
  "", "Answers when all that this connection wrote is durable; at once when kvd keeps nothing on "
  "disk.")
X(kvd_verify, "kvd.verify", commands_job_verify, -2, F_CONN | COMMAND_SLOW_OK | COMMAND_NO_MULTI,
  R_ADMIN, 0, 0, 0, "kvd", "0.1.0",
  "START|STATUS|CANCEL",
  "Has all of memory and of the store read and compared, with every checksum, while kvd serves. "
  "STATUS as for KVD.BACKUP.")
X(kvd_watermarks, "kvd.watermarks", commands_kvd_watermarks, 1, F_CONN | F_FAST, R_ANY, 0, 0, 0,
  "kvd", "0.1.0",
  "", "Returns the newest applied and the newest durable version.")
X(lastsave, "lastsave", commands_server_lastsave, 1, F_ANY | COMMAND_FAST | COMMAND_CATEGORY_ADMIN,
  R_ANY, 0, 0, 0, "server", "1.0.0",
  "", "Returns when something was last committed, in seconds since 1970.")
#include "daemon/commands_latency.tbl.h"
X(lcs, "lcs", commands_lcs_lcs, -3, F_READ | COMMAND_SLOW_OK, R_ANY, 1, 2, 1, "string", "7.0.0",
  "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
  "Finds the longest sequence of bytes that two values have in common, gaps allowed.")
X(lolwut, "lolwut", commands_server_lolwut, -1, F_READ | F_FAST, R_ANY, 0, 0, 0, "server", "5.0.0",
  "[VERSION version]", "Draws something.")
#include "daemon/commands_memory.tbl.h"
X(mget, "mget", commands_many_mget, -2, F_READ | F_FAST, R_ANY, 1, -1, 1, "string", "1.0.0",
  "key [key ...]", "Returns several values, null for each key that is absent.")
#include "daemon/commands_module.tbl.h"
X(move, "move", commands_server_move, 3, F_WRITE | F_FAST, R_WRITE, 1, 1, 1, "generic", "1.0.0",
  "key db", "Is refused: there is one database.")
X(mset, "mset", commands_generic_mset, -3, F_VALUE, R_WRITE, 1, -1, 2, "string", "1.0.1",
  "key value [key value ...]", "Sets several values as one atomic batch.")
X(msetnx, "msetnx", commands_generic_msetnx, -3, F_VALUE, R_WRITE, 1, -1, 2, "string", "1.0.1",
  "key value [key value ...]",
  "Sets several values as one atomic batch if none of the keys exists.")
X(multi, "multi", commands_multi_multi, 1, F_OPEN | COMMAND_NO_QUEUE, R_ANY, 0, 0, 0,
  "transactions", "1.2.0",
  "", "Queues the commands that follow until EXEC or DISCARD.")
#include "daemon/commands_object.tbl.h"
X(persist, "persist", commands_expire_persist, 2, F_WRITE | F_FAST, R_WRITE, 1, 1, 1, "generic",
  "2.2.0",
  "key", "Takes away a key's time to live.")
X(pexpire, "pexpire", commands_expire_pexpire, -3, F_WRITE | F_FAST, R_WRITE, 1, 1, 1, "generic",
  "2.6.0",
  "key milliseconds [NX|XX|GT|LT]",
  "Lets a key end in so many milliseconds; a time that has passed removes it.")
X(pexpireat, "pexpireat", commands_expire_pexpireat, -3, F_WRITE | F_FAST, R_WRITE, 1, 1, 1,
  "generic", "2.6.0",
  "key unix-time-milliseconds [NX|XX|GT|LT]",
  "Lets a key end at a time in milliseconds; one that has passed removes it.")
X(pexpiretime, "pexpiretime", commands_expire_pexpiretime, 2, F_READ | F_FAST, R_ANY, 1, 1, 1,
  "generic", "7.0.0",
  "key", "Returns when a key ends, in ms since 1970, -1 for never, -2 for an absent key.")
X(ping, "ping", commands_connection_ping, -1, F_FAST | COMMAND_SUBSCRIBER, R_ANY, 0, 0, 0,
  "connection", "1.0.0",
  "[message]", "Answers PONG, or its argument.")
X(psetex, "psetex", commands_set_psetex, 4, F_VALUE, R_WRITE, 1, 1, 1, "string", "2.6.0",
  "key milliseconds value", "Sets a value with a time to live in milliseconds.")
X(psubscribe, "psubscribe", commands_pubsub_psubscribe, -2, F_SUBSCRIBE, R_ANY, 0, 0, 0, "pubsub",
  "2.0.0",
  "pattern [pattern ...]", "Listens to all channels that match a pattern.")
X(pttl, "pttl", commands_expire_pttl, 2, F_READ | F_FAST, R_ANY, 1, 1, 1, "generic", "2.6.0",
  "key", "Returns the time to live in milliseconds, -1 for none, -2 for an absent key.")
X(publish, "publish", commands_publish_publish, 3, F_ANY | F_FAST | COMMAND_PUBSUB |
  COMMAND_MAY_REPLICATE, R_WRITE, 0, 0, 0, "pubsub", "2.0.0",
  "channel message", "Sends a message to whoever listens to a channel; returns to how many.")
#include "daemon/commands_pubsub.tbl.h"
X(punsubscribe, "punsubscribe", commands_pubsub_punsubscribe, -1, F_SUBSCRIBE, R_ANY, 0, 0, 0,
  "pubsub", "2.0.0",
  "[pattern [pattern ...]]", "Stops listening to patterns, or to all of them.")
X(quit, "quit", commands_connection_quit, -1, F_OPEN | COMMAND_NO_AUTH | COMMAND_NO_QUEUE |
  COMMAND_SUBSCRIBER, R_ANY, 0, 0, 0, "connection", "1.0.0",
  "", "Answers and closes the connection.")
X(randomkey, "randomkey", commands_scan_randomkey, 1, F_READ, R_ANY, 0, 0, 0, "generic", "1.0.0",
  "", "Returns one of the keys, each with the same chance, or null if there are none.")
X(readonly, "readonly", commands_alone_no_cluster, 1, F_ANY | F_FAST, R_ANY, 0, 0, 0, "cluster",
  "3.0.0",
  "", "Is refused: there is no cluster.")
X(readwrite, "readwrite", commands_alone_no_cluster, 1, F_ANY | F_FAST, R_ANY, 0, 0, 0, "cluster",
  "3.0.0",
  "", "Is refused: there is no cluster.")
X(rename, "rename", commands_rename_rename, 3, F_WRITE, R_WRITE, 1, 2, 1, "generic", "1.0.0",
  "key newkey",
  "Gives a key another name, with its value and time to live; a key of that name goes.")
X(renamenx, "renamenx", commands_rename_renamenx, 3, F_WRITE | F_FAST, R_WRITE, 1, 2, 1, "generic",
  "1.0.0",
  "key newkey", "Gives a key another name if no key has it.")
X(replicaof, "replicaof", commands_alone_replicaof, 3, F_REPLICA, R_ANY, 0, 0, 0, "server", "5.0.0",
  "host port|NO ONE", "Accepts NO ONE: kvd follows nobody, and cannot.")
X(reset, "reset", commands_connection_reset, 1, F_OPEN | COMMAND_NO_AUTH | COMMAND_NO_QUEUE |
  COMMAND_SUBSCRIBER, R_ANY, 0, 0, 0, "connection", "6.2.0",
  "", "Makes this connection as it was when it was new.")
X(role, "role", commands_server_role, 1, F_CONN | COMMAND_FAST | COMMAND_CATEGORY_ADMIN, R_ANY, 0,
  0, 0, "server", "2.8.12",
  "", "Returns master, for kvd has no other.")
X(save, "save", commands_server_save, 1, COMMAND_ADMIN | COMMAND_NOSCRIPT | COMMAND_NO_MULTI, R_ANY,
  0, 0, 0, "server", "1.0.0",
  "", "Answers when all that was written is durable.")
X(scan, "scan", commands_scan_scan, -2, F_READ, R_ANY, 0, 0, 0, "generic", "2.8.0",
  "cursor [MATCH pattern] [COUNT count] [TYPE type]",
  "Goes through the keys piece by piece: start with 0, go on with the cursor returned until it is "
  "0.")
#include "daemon/commands_script.tbl.h"
X(select, "select", commands_connection_select, 2, F_ANY | F_FAST, R_ANY, 0, 0, 0, "connection",
  "1.0.0",
  "index", "Accepts database 0, the only one.")
X(set, "set", commands_set_set, -3, F_VALUE, R_WRITE, 1, 1, 1, "string", "1.0.0",
  "key value [NX|XX|IFEQ comparison-value] [GET] [EX seconds|PX milliseconds|EXAT "
  "unix-time-seconds|PXAT unix-time-milliseconds|KEEPTTL]",
  "Sets a value.")
X(setbit, "setbit", commands_bit_setbit, 4, F_OOM, R_WRITE, 1, 1, 1, "bitmap", "2.2.0",
  "key offset value", "Sets one bit of a value, which grows as needed; returns what it was.")
X(setex, "setex", commands_set_setex, 4, F_VALUE, R_WRITE, 1, 1, 1, "string", "2.0.0",
  "key seconds value", "Sets a value with a time to live in seconds.")
X(setnx, "setnx", commands_set_setnx, 3, F_VALUE | F_FAST, R_WRITE, 1, 1, 1, "string", "1.0.0",
  "key value", "Sets a value if the key is absent.")
X(setrange, "setrange", commands_range_setrange, 4, F_OOM, R_WRITE, 1, 1, 1, "string", "2.2.0",
  "key offset value",
  "Writes over a part of a value, which grows as needed; returns the length it has then.")
X(slaveof, "slaveof", commands_alone_replicaof, 3, F_REPLICA, R_ANY, 0, 0, 0, "server", "1.0.0",
  "host port|NO ONE", "What REPLICAOF was called first.")
#include "daemon/commands_slowlog.tbl.h"
X(spublish, "spublish", commands_publish_spublish, 3, F_ANY | F_FAST | COMMAND_PUBSUB |
  COMMAND_MAY_REPLICATE, R_WRITE, 0, 0, 0, "pubsub", "7.0.0",
  "shardchannel message", "As PUBLISH for shard channels, which patterns do not match.")
X(ssubscribe, "ssubscribe", commands_pubsub_ssubscribe, -2, F_SUBSCRIBE, R_ANY, 0, 0, 0, "pubsub",
  "7.0.0",
  "shardchannel [shardchannel ...]", "Listens to shard channels.")
X(strlen, "strlen", commands_string_strlen, 2, F_READ | F_FAST, R_ANY, 1, 1, 1, "string", "2.2.0",
  "key", "Returns the length of a value, 0 for an absent key.")
X(subscribe, "subscribe", commands_pubsub_subscribe, -2, F_SUBSCRIBE, R_ANY, 0, 0, 0, "pubsub",
  "2.0.0",
  "channel [channel ...]", "Listens to channels.")
X(substr, "substr", commands_range_getrange, 4, F_READ, R_ANY, 1, 1, 1, "string", "1.0.0",
  "key start end", "What GETRANGE was called first.")
X(sunsubscribe, "sunsubscribe", commands_pubsub_sunsubscribe, -1, F_SUBSCRIBE, R_ANY, 0, 0, 0,
  "pubsub", "7.0.0",
  "[shardchannel [shardchannel ...]]", "Stops listening to shard channels, or to all of them.")
X(swapdb, "swapdb", commands_server_swapdb, 3, F_WRITE | F_FAST | COMMAND_DANGEROUS, R_WRITE, 0, 0,
  0, "server", "4.0.0",
  "index1 index2", "Accepts database 0 twice, the only one.")
X(time, "time", commands_info_time, 1, F_ANY | F_FAST, R_ANY, 0, 0, 0, "server", "2.6.0",
  "", "Returns kvd's clock: seconds and microseconds.")
X(touch, "touch", commands_many_exists, -2, F_READ | F_FAST, R_ANY, 1, -1, 1, "generic", "3.2.1",
  "key [key ...]", "Counts which of the keys exist, as EXISTS does.")
X(ttl, "ttl", commands_expire_ttl, 2, F_READ | F_FAST, R_ANY, 1, 1, 1, "generic", "1.0.0",
  "key", "Returns the time to live in seconds, -1 for none, -2 for an absent key.")
X(type, "type", commands_generic_type, 2, F_READ | F_FAST, R_ANY, 1, 1, 1, "generic", "1.0.0",
  "key", "Returns string, or none for an absent key.")
X(unlink, "unlink", commands_generic_del, -2, F_REMOVE | F_FAST, R_WRITE, 1, -1, 1, "generic",
  "4.0.0",
  "key [key ...]", "The same as DEL: removing is never slow here.")
X(unsubscribe, "unsubscribe", commands_pubsub_unsubscribe, -1, F_SUBSCRIBE, R_ANY, 0, 0, 0,
  "pubsub", "2.0.0",
  "[channel [channel ...]]", "Stops listening to channels, or to all of them.")
X(unwatch, "unwatch", commands_watch_unwatch, 1, F_OPEN, R_ANY, 0, 0, 0, "transactions", "2.2.0",
  "", "Watches no key any more.")
X(wait, "wait", commands_server_wait, 3, COMMAND_NOSCRIPT, R_ANY, 0, 0, 0, "generic", "3.0.0",
  "numreplicas timeout", "Returns 0 at once: there are no replicas.")
X(watch, "watch", commands_watch_watch, -2, F_OPEN | COMMAND_NO_QUEUE, R_ANY, 1, -1, 1,
  "transactions", "2.2.0",
  "key [key ...]", "Lets the next EXEC run only if none of the keys changes before.")

#undef F_WRITE
#undef F_REMOVE
#undef F_OOM
#undef F_VALUE
#undef F_READ
#undef F_FAST
#undef F_ANY
#undef F_CONN
#undef F_ADMIN
#undef F_REPLICA
#undef F_SUBSCRIBE
#undef F_OPEN
#undef R_ANY
#undef R_ATTACH
#undef R_WRITE
#undef R_ADMIN
#undef R_OTHERS
// clang-format on

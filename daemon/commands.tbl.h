// SPDX-License-Identifier: MIT
//
// Every command once, sorted by name: what runs it, its arity and flags as Redis has them, where
// its keys are, and what help says. A subcommand is a row "command|subcommand". Expand with X(id,
// name, run, arity, flags, first key, last key, key step, group, since, syntax, summary).
// clang-format off

#define F_WRITE COMMAND_WRITE
#define F_OOM (COMMAND_WRITE | COMMAND_DENYOOM)
#define F_READ COMMAND_READONLY
#define F_FAST COMMAND_FAST
#define F_ANY (COMMAND_LOADING | COMMAND_STALE)
#define F_CONN (F_ANY | COMMAND_NOSCRIPT)
#define F_ADMIN (F_CONN | COMMAND_ADMIN)
#define F_SUBSCRIBE (F_CONN | COMMAND_PUBSUB | COMMAND_SUBSCRIBER)
#define F_OPEN (F_CONN | COMMAND_FAST | COMMAND_ALLOW_BUSY)

X(acl, "acl", commands_command_none, -2, COMMAND_CONTAINER, 0, 0, 0, "server", "6.0.0",
  "", "Container of the commands about users: there is one, whom the socket lets in.")
X(acl_cat, "acl|cat", commands_server_acl_cat, -2, F_CONN, 0, 0, 0, "server", "6.0.0",
  "[category]", "Lists the categories of commands, or the commands of one.")
X(acl_help, "acl|help", commands_command_help, 2, F_ANY, 0, 0, 0, "server", "6.0.0",
  "", "Lists the subcommands.")
X(acl_list, "acl|list", commands_server_acl_list, 2, F_ADMIN, 0, 0, 0, "server", "6.0.0",
  "", "Tells what the only user may do: everything.")
X(acl_users, "acl|users", commands_server_acl_users, 2, F_ADMIN, 0, 0, 0, "server", "6.0.0",
  "", "Lists the only user.")
X(acl_whoami, "acl|whoami", commands_server_acl_whoami, 2, F_CONN, 0, 0, 0, "server", "6.0.0",
  "", "Returns default.")
X(append, "append", commands_string_append, 3, F_OOM | F_FAST, 1, 1, 1, "string", "2.0.0",
  "key value", "Adds bytes to the end of a value; creates the key if it is absent.")
X(auth, "auth", commands_connection_auth, -2, F_OPEN | COMMAND_NO_AUTH, 0, 0, 0, "connection",
  "1.0.0",
  "[username] password", "Accepted for the user default only: the kernel tells kvd who connects.")
X(bgrewriteaof, "bgrewriteaof", commands_server_bgrewriteaof, 1,
  COMMAND_ADMIN | COMMAND_NOSCRIPT, 0, 0, 0, "server", "1.0.0",
  "", "Is refused: there is no such file.")
X(bgsave, "bgsave", commands_server_bgsave, -1, COMMAND_ADMIN | COMMAND_NOSCRIPT, 0, 0, 0,
  "server", "1.0.0",
  "[SCHEDULE]", "Asks for a commit of all that was written; LASTSAVE tells when it was done.")
X(bitcount, "bitcount", commands_bit_bitcount, -2, F_READ | COMMAND_SLOW_OK, 1, 1, 1, "bitmap",
  "2.6.0",
  "key [start end [BYTE|BIT]]", "Counts the bits of a value, or of a part of it, that are 1.")
X(bitfield, "bitfield", commands_bitfield_bitfield, -2, F_OOM, 1, 1, 1, "bitmap", "3.2.0",
  "key [GET encoding offset|[OVERFLOW WRAP|SAT|FAIL] SET encoding offset value|[OVERFLOW "
  "WRAP|SAT|FAIL] INCRBY encoding offset increment ...]",
  "Reads, sets and adds to integers of any width at any bit of a value.")
X(bitfield_ro, "bitfield_ro", commands_bitfield_ro, -2, F_READ | F_FAST, 1, 1, 1, "bitmap", "6.0.0",
  "key [GET encoding offset ...]", "Reads integers of any width at any bit of a value.")
X(bitop, "bitop", commands_bitop_bitop, -4, F_OOM | COMMAND_SLOW_OK, 2, -1, 1, "bitmap", "2.6.0",
  "AND|OR|XOR|NOT destkey key [key ...]",
  "Combines values bit by bit and stores the result; returns its length in bytes.")
X(bitpos, "bitpos", commands_bit_bitpos, -3, F_READ | COMMAND_SLOW_OK, 1, 1, 1, "bitmap", "2.8.7",
  "key bit [start [end [BYTE|BIT]]]",
  "Finds the first 1 or the first 0 among the bits of a value, or of a part of it.")
X(client, "client", commands_command_none, -2, COMMAND_CONTAINER, 0, 0, 0, "connection", "2.4.0",
  "", "Container of the connection's own commands.")
X(client_caching, "client|caching", commands_tracking_caching, 3, F_CONN, 0, 0, 0, "connection",
  "6.0.0",
  "YES|NO", "Tells whether the keys that the next command reads are to be remembered.")
X(client_getname, "client|getname", commands_client_getname, 2, F_CONN, 0, 0, 0, "connection",
  "2.6.9",
  "", "Returns the name of this connection.")
X(client_getredir, "client|getredir", commands_tracking_getredir, 2, F_CONN, 0, 0, 0, "connection",
  "6.0.0",
  "", "Returns the number of the connection that gets the invalidations of this one.")
X(client_help, "client|help", commands_command_help, 2, F_ANY, 0, 0, 0, "connection", "5.0.0",
  "", "Lists the subcommands.")
X(client_id, "client|id", commands_client_id, 2, F_CONN, 0, 0, 0, "connection", "5.0.0",
  "", "Returns the number of this connection, never reused by this kvd.")
X(client_info, "client|info", commands_client_info, 2, F_CONN, 0, 0, 0, "connection", "6.2.0",
  "", "Describes this connection in one line.")
X(client_kill, "client|kill", commands_client_kill, -3, F_ADMIN, 0, 0, 0, "connection", "2.4.0",
  "addr|[ID client-id] [TYPE NORMAL|MASTER|REPLICA|PUBSUB] [USER username] [ADDR addr] "
  "[LADDR addr] [SKIPME yes|no]", "Closes connections.")
X(client_list, "client|list", commands_client_list, -2, F_ADMIN, 0, 0, 0, "connection", "2.4.0",
  "[TYPE NORMAL|MASTER|REPLICA|PUBSUB] [ID client-id ...]",
  "Describes the open connections, one a line.")
X(client_no_evict, "client|no-evict", commands_client_no_evict, 3, F_ADMIN, 0, 0, 0, "connection",
  "7.0.0",
  "ON|OFF", "Marks this connection; kvd's bounds on buffers hold for all.")
X(client_pause, "client|pause", commands_client_pause, -3, F_ADMIN, 0, 0, 0, "connection",
  "2.9.50",
  "timeout [WRITE|ALL]", "Lets all commands, or those that write, wait for so many milliseconds.")
X(client_reply, "client|reply", commands_client_reply, 3, F_CONN, 0, 0, 0, "connection", "3.2.0",
  "ON|OFF|SKIP", "Drops the replies of this connection, or the next one.")
X(client_setinfo, "client|setinfo", commands_client_setinfo, 4, F_CONN, 0, 0, 0, "connection",
  "7.2.0",
  "LIB-NAME name|LIB-VER version", "Tells which client library speaks; CLIENT LIST shows it.")
X(client_setname, "client|setname", commands_client_setname, 3, F_CONN, 0, 0, 0, "connection",
  "2.6.9",
  "name", "Gives this connection a name, an empty one takes it away.")
X(client_tracking, "client|tracking", commands_tracking_tracking, -3, F_CONN, 0, 0, 0,
  "connection", "6.0.0",
  "ON|OFF [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] "
  "[NOLOOP]",
  "Lets kvd tell this connection when keys change that it keeps copies of.")
X(client_trackinginfo, "client|trackinginfo", commands_tracking_info, 2, F_CONN, 0, 0, 0,
  "connection", "6.2.0",
  "", "Tells how this connection tracks keys.")
X(client_unblock, "client|unblock", commands_client_unblock, -3, F_ADMIN, 0, 0, 0, "connection",
  "5.0.0",
  "client-id [TIMEOUT|ERROR]", "Finds nobody who is blocked.")
X(client_unpause, "client|unpause", commands_client_unpause, 2, F_ADMIN | COMMAND_UNPAUSES,
  0, 0, 0, "connection", "6.2.0",
  "", "Ends a pause.")
X(command, "command", commands_command_all, -1, F_ANY | COMMAND_CONTAINER, 0, 0, 0, "server",
  "2.8.13",
  "", "Describes all commands.")
X(command_count, "command|count", commands_command_count, 2, F_ANY, 0, 0, 0, "server", "2.8.13",
  "", "Returns the number of commands.")
X(command_docs, "command|docs", commands_command_docs, -2, F_ANY, 0, 0, 0, "server", "7.0.0",
  "[command-name ...]", "Returns help for all or some commands.")
X(command_getkeys, "command|getkeys", commands_getkeys_getkeys, -4, F_ANY, 0, 0, 0, "server",
  "2.8.13",
  "command [arg ...]", "Returns the keys among the arguments of a command.")
X(command_getkeysandflags, "command|getkeysandflags", commands_getkeys_getkeysandflags, -4, F_ANY,
  0, 0, 0, "server", "7.0.0",
  "command [arg ...]", "Returns the keys, and what the command does with each.")
X(command_help, "command|help", commands_command_help, 2, F_ANY, 0, 0, 0, "server", "5.0.0",
  "", "Lists the subcommands.")
X(command_info, "command|info", commands_command_info, -2, F_ANY, 0, 0, 0, "server", "2.8.13",
  "[command-name ...]", "Describes all or some commands.")
X(command_list, "command|list", commands_command_list, -2, F_ANY, 0, 0, 0, "server", "7.0.0",
  "[FILTERBY MODULE name|ACLCAT category|PATTERN pattern]",
  "Lists the names of all or some commands.")
X(config, "config", commands_command_none, -2, COMMAND_CONTAINER, 0, 0, 0, "server", "2.0.0",
  "", "Container of the commands about options.")
X(config_get, "config|get", commands_config_get, -3, F_ADMIN, 0, 0, 0, "server", "2.0.0",
  "pattern [pattern ...]", "Returns options, kvd's own and those that Redis clients ask for.")
X(config_help, "config|help", commands_command_help, 2, F_ANY, 0, 0, 0, "server", "5.0.0",
  "", "Lists the subcommands.")
X(config_resetstat, "config|resetstat", commands_config_resetstat, 2, F_ADMIN, 0, 0, 0, "server",
  "2.0.0",
  "", "Starts the counts that INFO shows again from zero.")
X(config_rewrite, "config|rewrite", commands_config_rewrite, 2, F_ADMIN | COMMAND_SLOW_OK, 0, 0, 0,
  "server", "2.8.0",
  "", "Writes what was set into the configuration file, and leaves the rest of it as it is.")
X(config_set, "config|set", commands_config_set, -4, F_ADMIN, 0, 0, 0, "server", "2.0.0",
  "parameter value [parameter value ...]", "Sets options while kvd runs, all of them or none.")
X(copy, "copy", commands_rename_copy, -3, F_OOM, 1, 2, 1, "generic", "6.2.0",
  "source destination [DB destination-db] [REPLACE]",
  "Stores a value and its time to live under another key too, which must be absent or REPLACEd.")
X(dbsize, "dbsize", commands_scan_dbsize, 1, F_READ | F_FAST, 0, 0, 0, "server", "1.0.0",
  "", "Returns the number of keys.")
X(debug, "debug", commands_debug_debug, -2, F_ADMIN, 0, 0, 0, "server", "1.0.0",
  "subcommand [arg ...]", "For test suites: see DEBUG HELP.")
X(decr, "decr", commands_counter_decr, 2, F_OOM | F_FAST, 1, 1, 1, "string", "1.0.0",
  "key", "Subtracts one from the integer in a value; an absent key counts as 0.")
X(decrby, "decrby", commands_counter_decrby, 3, F_OOM | F_FAST, 1, 1, 1, "string", "1.0.0",
  "key decrement", "Subtracts a number from the integer in a value; an absent key counts as 0.")
X(del, "del", commands_generic_del, -2, F_WRITE, 1, -1, 1, "generic", "1.0.0",
  "key [key ...]", "Removes keys, all of them in one atomic batch; returns how many there were.")
X(delifeq, "delifeq", commands_set_delifeq, 3, F_WRITE | F_FAST, 1, 1, 1, "string", "9.0.0",
  "key value", "Removes a key if its value is this one (a command of Valkey's).")
X(discard, "discard", commands_multi_discard, 1, F_OPEN | COMMAND_NO_QUEUE, 0, 0, 0, "transactions",
  "2.0.0",
  "", "Drops what MULTI queued.")
X(echo, "echo", commands_connection_echo, 2, F_ANY | F_FAST, 0, 0, 0, "connection", "1.0.0",
  "message", "Returns its argument.")
X(exec, "exec", commands_multi_exec, 1,
  F_CONN | COMMAND_SKIP_SLOWLOG | COMMAND_NO_QUEUE | COMMAND_SLOW_OK, 0, 0, 0,
  "transactions", "1.2.0",
  "", "Runs what MULTI queued as one atomic batch.")
X(exists, "exists", commands_generic_exists, -2, F_READ | F_FAST, 1, -1, 1, "generic", "1.0.0",
  "key [key ...]", "Counts which of the keys exist; one named twice counts twice.")
X(expire, "expire", commands_expire_expire, -3, F_WRITE | F_FAST, 1, 1, 1, "generic", "1.0.0",
  "key seconds [NX|XX|GT|LT]",
  "Lets a key end in so many seconds; a time that has passed removes it.")
X(expireat, "expireat", commands_expire_expireat, -3, F_WRITE | F_FAST, 1, 1, 1, "generic", "1.2.0",
  "key unix-time-seconds [NX|XX|GT|LT]",
  "Lets a key end at a time; one that has passed removes it.")
X(expiretime, "expiretime", commands_expire_expiretime, 2, F_READ | F_FAST, 1, 1, 1, "generic",
  "7.0.0",
  "key", "Returns when a key ends, in seconds since 1970, -1 for never, -2 for an absent key.")
X(flushall, "flushall", commands_scan_flush, -1, F_WRITE | COMMAND_DANGEROUS, 0, 0, 0, "server",
  "1.0.0",
  "[ASYNC|SYNC]", "Removes all keys: one record, whatever their number.")
X(flushdb, "flushdb", commands_scan_flush, -1, F_WRITE | COMMAND_DANGEROUS, 0, 0, 0, "server",
  "1.0.0",
  "[ASYNC|SYNC]", "The same as FLUSHALL, for there is one database.")
X(function, "function", commands_command_none, -2, COMMAND_CONTAINER, 0, 0, 0, "scripting", "7.0.0",
  "", "Container of the commands about functions, of which kvd has none.")
X(function_delete, "function|delete", commands_script_delete, 3, COMMAND_NOSCRIPT, 0, 0, 0,
  "scripting", "7.0.0",
  "library-name", "Finds no library to remove.")
X(function_flush, "function|flush", commands_script_flush, -2, COMMAND_NOSCRIPT, 0, 0, 0,
  "scripting", "7.0.0",
  "[ASYNC|SYNC]", "Removes all functions: there are none.")
X(function_help, "function|help", commands_command_help, 2, F_ANY, 0, 0, 0, "scripting", "7.0.0",
  "", "Lists the subcommands.")
X(function_kill, "function|kill", commands_script_kill, 2, COMMAND_NOSCRIPT | COMMAND_ALLOW_BUSY,
  0, 0, 0, "scripting", "7.0.0",
  "", "Finds no function running.")
X(function_list, "function|list", commands_script_list, -2, COMMAND_NOSCRIPT, 0, 0, 0, "scripting",
  "7.0.0",
  "[LIBRARYNAME library-name-pattern] [WITHCODE]", "Lists the libraries: there are none.")
X(function_stats, "function|stats", commands_script_stats, 2,
  COMMAND_NOSCRIPT | COMMAND_ALLOW_BUSY, 0, 0, 0, "scripting", "7.0.0",
  "", "Tells that no function runs.")
X(get, "get", commands_string_get, 2, F_READ | F_FAST, 1, 1, 1, "string", "1.0.0",
  "key", "Returns a value.")
X(getbit, "getbit", commands_bit_getbit, 3, F_READ | F_FAST, 1, 1, 1, "bitmap", "2.2.0",
  "key offset", "Returns one bit of a value, 0 beyond its end.")
X(getdel, "getdel", commands_string_getdel, 2, F_WRITE | F_FAST, 1, 1, 1, "string", "6.2.0",
  "key", "Returns a value and removes its key.")
X(getex, "getex", commands_set_getex, -2, F_WRITE | F_FAST, 1, 1, 1, "string", "6.2.0",
  "key [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|PERSIST]",
  "Returns a value and sets or takes away its time to live.")
X(getrange, "getrange", commands_range_getrange, 4, F_READ, 1, 1, 1, "string", "2.4.0",
  "key start end", "Returns a part of a value; negative places count from its end.")
X(getset, "getset", commands_set_getset, 3, F_OOM | F_FAST, 1, 1, 1, "string", "1.0.0",
  "key value", "Sets a value and returns the former one.")
X(hello, "hello", commands_connection_hello, -1, F_OPEN | COMMAND_NO_AUTH, 0, 0, 0, "connection",
  "6.0.0",
  "[protover [AUTH username password] [SETNAME clientname]]",
  "Chooses RESP2 or RESP3 and tells who answers.")
X(incr, "incr", commands_counter_incr, 2, F_OOM | F_FAST, 1, 1, 1, "string", "1.0.0",
  "key", "Adds one to the integer in a value; an absent key counts as 0.")
X(incrby, "incrby", commands_counter_incrby, 3, F_OOM | F_FAST, 1, 1, 1, "string", "1.0.0",
  "key increment", "Adds a number to the integer in a value; an absent key counts as 0.")
X(incrbyfloat, "incrbyfloat", commands_counter_incrbyfloat, 3, F_OOM | F_FAST, 1, 1, 1, "string",
  "2.6.0",
  "key increment",
  "Adds a number with a fraction to the one in a value; an absent key counts as 0.")
X(info, "info", commands_info_info, -1, F_ANY | COMMAND_DANGEROUS, 0, 0, 0, "server", "1.0.0",
  "[section ...]", "Tells how kvd is doing, in sections of name:value lines.")
X(keys, "keys", commands_scan_keys, 2, F_READ | COMMAND_DANGEROUS | COMMAND_SLOW_OK, 0, 0, 0,
  "generic", "1.0.0",
  "pattern", "Lists all keys that match a pattern; others are served and may write meanwhile.")
X(kvd_attach, "kvd.attach", commands_kvd_attach, -1, F_CONN | COMMAND_NO_MULTI, 0, 0, 0, "kvd",
  "0.1.0",
  "[PAGE]", "Passes the descriptors with which a process reads the shared region; PAGE asks for "
  "one more reader page.")
X(kvd_cas, "kvd.cas", commands_kvd_cas, -4, F_OOM | F_FAST, 1, 1, 1, "kvd", "0.1.0",
  "key version value [PX milliseconds]",
  "Sets a value if its version is still this one (0: if the key is absent); returns the new "
  "version or null.")
X(kvd_getv, "kvd.getv", commands_kvd_getv, 2, F_READ | F_FAST, 1, 1, 1, "kvd", "0.1.0",
  "key", "Returns value, version, time to live in ms (-1: none) and time of writing in ms, or "
  "null.")
X(kvd_policy, "kvd.policy", commands_kvd_policy, -1, F_CONN | F_FAST, 0, 0, 0, "kvd", "0.1.0",
  "[memory|lazy|group|sync]",
  "Tells or sets when this connection's writes are acknowledged: never earlier than the server's "
  "policy says.")
X(kvd_set, "kvd.set", commands_kvd_set, -3, F_OOM | F_FAST, 1, 1, 1, "kvd", "0.1.0",
  "key value [NX|XX|IFVERSION version] [PX milliseconds|KEEPTTL]",
  "Sets a value; returns its version, or null if the condition does not hold.")
X(kvd_stats, "kvd.stats", commands_kvd_stats, 1, F_CONN, 0, 0, 0, "kvd", "0.1.0",
  "", "Returns all counters and what else is known about this kvd as JSON.")
X(kvd_sync, "kvd.sync", commands_kvd_sync, 1, F_CONN | COMMAND_NO_MULTI, 0, 0, 0, "kvd", "0.1.0",
  "", "Answers when all that this connection wrote is durable; at once when kvd keeps nothing on "
  "disk.")
X(kvd_watermarks, "kvd.watermarks", commands_kvd_watermarks, 1, F_CONN | F_FAST, 0, 0, 0, "kvd",
  "0.1.0",
  "", "Returns the newest applied and the newest durable version.")
X(lastsave, "lastsave", commands_server_lastsave, 1,
  F_ANY | COMMAND_FAST | COMMAND_CATEGORY_ADMIN, 0, 0, 0, "server", "1.0.0",
  "", "Returns when something was last committed, in seconds since 1970.")
X(latency, "latency", commands_command_none, -2, COMMAND_CONTAINER, 0, 0, 0, "server", "2.8.13",
  "", "Container of the commands about long waits.")
X(latency_doctor, "latency|doctor", commands_latency_doctor, 2, F_ADMIN, 0, 0, 0, "server",
  "2.8.13",
  "", "Says in words what was noticed.")
X(latency_graph, "latency|graph", commands_latency_graph, 3, F_ADMIN, 0, 0, 0, "server", "2.8.13",
  "event", "Draws the times of an event.")
X(latency_help, "latency|help", commands_command_help, 2, F_ANY, 0, 0, 0, "server", "2.8.13",
  "", "Lists the subcommands.")
X(latency_histogram, "latency|histogram", commands_latency_histogram, -2, F_ADMIN, 0, 0, 0,
  "server", "7.0.0",
  "[command ...]", "Tells how long commands took, of a sample of the calls.")
X(latency_history, "latency|history", commands_latency_history, 3, F_ADMIN, 0, 0, 0, "server",
  "2.8.13",
  "event", "Returns when an event happened, and how long it took.")
X(latency_latest, "latency|latest", commands_latency_latest, 2, F_ADMIN, 0, 0, 0, "server",
  "2.8.13",
  "", "Returns the last and the longest of each event.")
X(latency_reset, "latency|reset", commands_latency_reset, -2, F_ADMIN, 0, 0, 0, "server", "2.8.13",
  "[event ...]", "Forgets events, all of them if none is named.")
X(lcs, "lcs", commands_lcs_lcs, -3, F_READ | COMMAND_SLOW_OK, 1, 2, 1, "string", "7.0.0",
  "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
  "Finds the longest sequence of bytes that two values have in common, gaps allowed.")
X(lolwut, "lolwut", commands_server_lolwut, -1, F_READ | F_FAST, 0, 0, 0, "server", "5.0.0",
  "[VERSION version]", "Draws something.")
X(memory, "memory", commands_command_none, -2, COMMAND_CONTAINER, 0, 0, 0, "server", "4.0.0",
  "", "Container of the commands about memory.")
X(memory_doctor, "memory|doctor", commands_memory_doctor, 2, 0, 0, 0, 0, "server", "4.0.0",
  "", "Says in words whether memory is short.")
X(memory_help, "memory|help", commands_command_help, 2, F_ANY, 0, 0, 0, "server", "4.0.0",
  "", "Lists the subcommands.")
X(memory_malloc_stats, "memory|malloc-stats", commands_memory_malloc_stats, 2, 0, 0, 0, 0,
  "server", "4.0.0",
  "", "Has nothing to tell: records are not allocated one by one.")
X(memory_purge, "memory|purge", commands_memory_purge, 2, 0, 0, 0, 0, "server", "4.0.0",
  "", "Has nothing to do: what is free is used again at once.")
X(memory_stats, "memory|stats", commands_memory_stats, 2, 0, 0, 0, 0, "server", "4.0.0",
  "", "Tells where the memory is.")
X(memory_usage, "memory|usage", commands_memory_usage, -3, F_READ, 2, 2, 1, "server", "4.0.0",
  "key [SAMPLES count]", "Returns the bytes that a key and its value take.")
X(mget, "mget", commands_generic_mget, -2, F_READ | F_FAST, 1, -1, 1, "string", "1.0.0",
  "key [key ...]", "Returns several values, null for each key that is absent.")
X(move, "move", commands_server_move, 3, F_WRITE | F_FAST, 1, 1, 1, "generic", "1.0.0",
  "key db", "Is refused: there is one database.")
X(mset, "mset", commands_generic_mset, -3, F_OOM, 1, -1, 2, "string", "1.0.1",
  "key value [key value ...]", "Sets several values as one atomic batch.")
X(msetnx, "msetnx", commands_generic_msetnx, -3, F_OOM, 1, -1, 2, "string", "1.0.1",
  "key value [key value ...]",
  "Sets several values as one atomic batch if none of the keys exists.")
X(multi, "multi", commands_multi_multi, 1, F_OPEN | COMMAND_NO_QUEUE, 0, 0, 0, "transactions",
  "1.2.0",
  "", "Queues the commands that follow until EXEC or DISCARD.")
X(object, "object", commands_command_none, -2, COMMAND_CONTAINER, 0, 0, 0, "generic", "2.2.3",
  "", "Container of the commands about values.")
X(object_encoding, "object|encoding", commands_object_encoding, 3, F_READ, 2, 2, 1, "generic",
  "2.2.3",
  "key", "Returns how Redis would keep a value.")
X(object_freq, "object|freq", commands_object_freq, 3, F_READ, 2, 2, 1, "generic", "4.0.0",
  "key", "Is refused: nobody counts.")
X(object_help, "object|help", commands_command_help, 2, F_ANY, 0, 0, 0,
  "generic", "6.2.0",
  "", "Lists the subcommands.")
X(object_idletime, "object|idletime", commands_object_idletime, 3, F_READ, 2, 2, 1, "generic",
  "2.2.3",
  "key", "Returns the seconds since a value was written; reading leaves no trace.")
X(object_refcount, "object|refcount", commands_object_refcount, 3, F_READ, 2, 2, 1, "generic",
  "2.2.3",
  "key", "Returns 1.")
X(persist, "persist", commands_expire_persist, 2, F_WRITE | F_FAST, 1, 1, 1, "generic", "2.2.0",
  "key", "Takes away a key's time to live.")
X(pexpire, "pexpire", commands_expire_pexpire, -3, F_WRITE | F_FAST, 1, 1, 1, "generic", "2.6.0",
  "key milliseconds [NX|XX|GT|LT]",
  "Lets a key end in so many milliseconds; a time that has passed removes it.")
X(pexpireat, "pexpireat", commands_expire_pexpireat, -3, F_WRITE | F_FAST, 1, 1, 1, "generic",
  "2.6.0",
  "key unix-time-milliseconds [NX|XX|GT|LT]",
  "Lets a key end at a time in milliseconds; one that has passed removes it.")
X(pexpiretime, "pexpiretime", commands_expire_pexpiretime, 2, F_READ | F_FAST, 1, 1, 1, "generic",
  "7.0.0",
  "key", "Returns when a key ends, in ms since 1970, -1 for never, -2 for an absent key.")
X(ping, "ping", commands_connection_ping, -1, F_FAST | COMMAND_SUBSCRIBER, 0, 0, 0, "connection",
  "1.0.0",
  "[message]", "Answers PONG, or its argument.")
X(psetex, "psetex", commands_set_psetex, 4, F_OOM, 1, 1, 1, "string", "2.6.0",
  "key milliseconds value", "Sets a value with a time to live in milliseconds.")
X(psubscribe, "psubscribe", commands_pubsub_psubscribe, -2, F_SUBSCRIBE, 0, 0, 0, "pubsub", "2.0.0",
  "pattern [pattern ...]", "Listens to all channels that match a pattern.")
X(pttl, "pttl", commands_expire_pttl, 2, F_READ | F_FAST, 1, 1, 1, "generic", "2.6.0",
  "key", "Returns the time to live in milliseconds, -1 for none, -2 for an absent key.")
X(publish, "publish", commands_pubsub_publish, 3,
  F_ANY | F_FAST | COMMAND_PUBSUB | COMMAND_MAY_REPLICATE, 0, 0, 0,
  "pubsub", "2.0.0",
  "channel message", "Sends a message to whoever listens to a channel; returns to how many.")
X(pubsub, "pubsub", commands_command_none, -2, COMMAND_CONTAINER, 0, 0, 0, "pubsub", "2.8.0",
  "", "Container of the commands about who listens.")
X(pubsub_channels, "pubsub|channels", commands_pubsub_channels, -2, F_ANY | COMMAND_PUBSUB, 0, 0, 0,
  "pubsub", "2.8.0",
  "[pattern]", "Lists the channels that somebody listens to.")
X(pubsub_help, "pubsub|help", commands_command_help, 2, F_ANY, 0, 0, 0, "pubsub", "6.2.0",
  "", "Lists the subcommands.")
X(pubsub_numpat, "pubsub|numpat", commands_pubsub_numpat, 2, F_ANY | COMMAND_PUBSUB, 0, 0, 0,
  "pubsub", "2.8.0",
  "", "Counts the patterns that somebody listens to.")
X(pubsub_numsub, "pubsub|numsub", commands_pubsub_numsub, -2, F_ANY | COMMAND_PUBSUB, 0, 0, 0,
  "pubsub", "2.8.0",
  "[channel ...]", "Counts who listens to channels, patterns apart.")
X(pubsub_shardchannels, "pubsub|shardchannels", commands_pubsub_shardchannels, -2,
  F_ANY | COMMAND_PUBSUB, 0, 0, 0, "pubsub", "7.0.0",
  "[pattern]", "Lists the shard channels that somebody listens to.")
X(pubsub_shardnumsub, "pubsub|shardnumsub", commands_pubsub_shardnumsub, -2,
  F_ANY | COMMAND_PUBSUB, 0, 0, 0, "pubsub", "7.0.0",
  "[shardchannel ...]", "Counts who listens to shard channels.")
X(punsubscribe, "punsubscribe", commands_pubsub_punsubscribe, -1, F_SUBSCRIBE, 0, 0, 0, "pubsub",
  "2.0.0",
  "[pattern [pattern ...]]", "Stops listening to patterns, or to all of them.")
X(quit, "quit", commands_connection_quit, -1,
  F_OPEN | COMMAND_NO_AUTH | COMMAND_NO_QUEUE | COMMAND_SUBSCRIBER, 0, 0, 0, "connection", "1.0.0",
  "", "Answers and closes the connection.")
X(randomkey, "randomkey", commands_scan_randomkey, 1, F_READ, 0, 0, 0, "generic", "1.0.0",
  "", "Returns one of the keys, each with the same chance, or null if there are none.")
X(rename, "rename", commands_rename_rename, 3, F_WRITE, 1, 2, 1, "generic", "1.0.0",
  "key newkey",
  "Gives a key another name, with its value and time to live; a key of that name goes.")
X(renamenx, "renamenx", commands_rename_renamenx, 3, F_WRITE | F_FAST, 1, 2, 1, "generic", "1.0.0",
  "key newkey", "Gives a key another name if no key has it.")
X(reset, "reset", commands_connection_reset, 1,
  F_OPEN | COMMAND_NO_AUTH | COMMAND_NO_QUEUE | COMMAND_SUBSCRIBER, 0, 0, 0, "connection", "6.2.0",
  "", "Makes this connection as it was when it was new.")
X(role, "role", commands_server_role, 1,
  F_CONN | COMMAND_FAST | COMMAND_CATEGORY_ADMIN, 0, 0, 0, "server", "2.8.12",
  "", "Returns master, for kvd has no other.")
X(save, "save", commands_server_save, 1, COMMAND_ADMIN | COMMAND_NOSCRIPT | COMMAND_NO_MULTI,
  0, 0, 0, "server", "1.0.0",
  "", "Answers when all that was written is durable.")
X(scan, "scan", commands_scan_scan, -2, F_READ, 0, 0, 0, "generic", "2.8.0",
  "cursor [MATCH pattern] [COUNT count] [TYPE type]",
  "Goes through the keys piece by piece: start with 0, go on with the cursor returned until it is "
  "0.")
X(select, "select", commands_connection_select, 2, F_ANY | F_FAST, 0, 0, 0, "connection", "1.0.0",
  "index", "Accepts database 0, the only one.")
X(set, "set", commands_set_set, -3, F_OOM, 1, 1, 1, "string", "1.0.0",
  "key value [NX|XX|IFEQ comparison-value] [GET] [EX seconds|PX milliseconds|EXAT "
  "unix-time-seconds|PXAT unix-time-milliseconds|KEEPTTL]",
  "Sets a value.")
X(setbit, "setbit", commands_bit_setbit, 4, F_OOM, 1, 1, 1, "bitmap", "2.2.0",
  "key offset value", "Sets one bit of a value, which grows as needed; returns what it was.")
X(setex, "setex", commands_set_setex, 4, F_OOM, 1, 1, 1, "string", "2.0.0",
  "key seconds value", "Sets a value with a time to live in seconds.")
X(setnx, "setnx", commands_set_setnx, 3, F_OOM | F_FAST, 1, 1, 1, "string", "1.0.0",
  "key value", "Sets a value if the key is absent.")
X(setrange, "setrange", commands_range_setrange, 4, F_OOM, 1, 1, 1, "string", "2.2.0",
  "key offset value",
  "Writes over a part of a value, which grows as needed; returns the length it has then.")
X(slowlog, "slowlog", commands_command_none, -2, COMMAND_CONTAINER, 0, 0, 0, "server", "2.2.12",
  "", "Container of the commands about slow commands.")
X(slowlog_get, "slowlog|get", commands_slowlog_get, -2, F_ANY | COMMAND_ADMIN, 0, 0, 0, "server",
  "2.2.12",
  "[count]", "Returns the newest commands that took long, 10 or so many, -1 for all.")
X(slowlog_help, "slowlog|help", commands_command_help, 2, F_ANY, 0, 0, 0, "server", "6.2.0",
  "", "Lists the subcommands.")
X(slowlog_len, "slowlog|len", commands_slowlog_len, 2, F_ANY | COMMAND_ADMIN, 0, 0, 0, "server",
  "2.2.12",
  "", "Returns how many are kept.")
X(slowlog_reset, "slowlog|reset", commands_slowlog_reset, 2, F_ANY | COMMAND_ADMIN, 0, 0, 0,
  "server", "2.2.12",
  "", "Forgets them.")
X(spublish, "spublish", commands_pubsub_spublish, 3,
  F_ANY | F_FAST | COMMAND_PUBSUB | COMMAND_MAY_REPLICATE, 0, 0, 0,
  "pubsub", "7.0.0",
  "shardchannel message", "As PUBLISH for shard channels, which patterns do not match.")
X(ssubscribe, "ssubscribe", commands_pubsub_ssubscribe, -2, F_SUBSCRIBE, 0, 0, 0, "pubsub", "7.0.0",
  "shardchannel [shardchannel ...]", "Listens to shard channels.")
X(strlen, "strlen", commands_string_strlen, 2, F_READ | F_FAST, 1, 1, 1, "string", "2.2.0",
  "key", "Returns the length of a value, 0 for an absent key.")
X(subscribe, "subscribe", commands_pubsub_subscribe, -2, F_SUBSCRIBE, 0, 0, 0, "pubsub", "2.0.0",
  "channel [channel ...]", "Listens to channels.")
X(substr, "substr", commands_range_getrange, 4, F_READ, 1, 1, 1, "string", "1.0.0",
  "key start end", "What GETRANGE was called first.")
X(sunsubscribe, "sunsubscribe", commands_pubsub_sunsubscribe, -1, F_SUBSCRIBE, 0, 0, 0, "pubsub",
  "7.0.0",
  "[shardchannel [shardchannel ...]]", "Stops listening to shard channels, or to all of them.")
X(swapdb, "swapdb", commands_server_swapdb, 3, F_WRITE | F_FAST | COMMAND_DANGEROUS, 0, 0, 0,
  "server", "4.0.0",
  "index1 index2", "Accepts database 0 twice, the only one.")
X(time, "time", commands_info_time, 1, F_ANY | F_FAST, 0, 0, 0, "server", "2.6.0",
  "", "Returns kvd's clock: seconds and microseconds.")
X(touch, "touch", commands_generic_exists, -2, F_READ | F_FAST, 1, -1, 1, "generic", "3.2.1",
  "key [key ...]", "Counts which of the keys exist, as EXISTS does.")
X(ttl, "ttl", commands_expire_ttl, 2, F_READ | F_FAST, 1, 1, 1, "generic", "1.0.0",
  "key", "Returns the time to live in seconds, -1 for none, -2 for an absent key.")
X(type, "type", commands_generic_type, 2, F_READ | F_FAST, 1, 1, 1, "generic", "1.0.0",
  "key", "Returns string, or none for an absent key.")
X(unlink, "unlink", commands_generic_del, -2, F_WRITE | F_FAST, 1, -1, 1, "generic", "4.0.0",
  "key [key ...]", "The same as DEL: removing is never slow here.")
X(unsubscribe, "unsubscribe", commands_pubsub_unsubscribe, -1, F_SUBSCRIBE, 0, 0, 0, "pubsub",
  "2.0.0",
  "[channel [channel ...]]", "Stops listening to channels, or to all of them.")
X(unwatch, "unwatch", commands_watch_unwatch, 1, F_OPEN, 0, 0, 0, "transactions", "2.2.0",
  "", "Watches no key any more.")
X(wait, "wait", commands_server_wait, 3, COMMAND_NOSCRIPT, 0, 0, 0, "generic", "3.0.0",
  "numreplicas timeout", "Returns 0 at once: there are no replicas.")
X(watch, "watch", commands_watch_watch, -2, F_OPEN | COMMAND_NO_QUEUE, 1, -1, 1, "transactions",
  "2.2.0",
  "key [key ...]", "Lets the next EXEC run only if none of the keys changes before.")

#undef F_WRITE
#undef F_OOM
#undef F_READ
#undef F_FAST
#undef F_ANY
#undef F_CONN
#undef F_ADMIN
#undef F_SUBSCRIBE
#undef F_OPEN
// clang-format on

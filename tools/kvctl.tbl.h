// SPDX-License-Identifier: MIT
//
// Every verb and every option of kvctl once. From this table come the parser, the help texts and
// `kvctl help --json`, against which the manual kvctl.1 is checked.
//
// VERB(name, function, arguments at least, at most (-1 = any), options besides the common ones,
// syntax of the arguments, one line of help). OPTION(identifier, "--name", letter or 0, name of its
// argument or NULL, common to all verbs?, one line of help).
#ifdef VERB
VERB(get, cmd_value_get, 1, 1, OPTION_BIT(via) | OPTION_BIT(output), "KEY",
     "write a value to standard output, byte for byte")
VERB(set, cmd_value_set, 1, 2,
     OPTION_BIT(file) | OPTION_BIT(ttl) | OPTION_BIT(keep_ttl) | OPTION_BIT(if_absent) |
	     OPTION_BIT(if_present) | OPTION_BIT(if_version),
     "KEY VALUE", "store a value: the argument, standard input (-), or a file (--file)")
VERB(del, cmd_value_del, 1, -1, 0, "KEY...", "remove keys")
VERB(mget, cmd_value_mget, 1, -1, OPTION_BIT(via), "KEY...", "print several keys with their values")
VERB(incr, cmd_value_incr, 1, 2, 0, "KEY [BY]",
     "add to an integer (absent counts as 0) and print it")
VERB(ttl, cmd_value_ttl, 1, 1, OPTION_BIT(via), "KEY", "print how long a key has left to live")
VERB(expire, cmd_value_expire, 2, 2, 0, "KEY DURATION",
     "give a key so long to live (30s, 5m, 2h, 7d; none = for ever)")
VERB(scan, cmd_scan, 0, 1, OPTION_BIT(count), "[PATTERN]",
     "list keys, all or those that match a glob pattern")
VERB(stats, cmd_server_stats, 0, 1, 0, "[PATTERN]",
     "print statistics, all or those whose name matches")
VERB(clients, cmd_server_clients, 0, 0, 0, "", "list the connections of kvd")
VERB(readers, cmd_readers, 0, 2, 0, "[kick PID|id:ID]",
     "list who reads the shared region, and who holds memory back; or take the views of one away")
VERB(memory, cmd_server_memory, 0, 0, 0, "",
     "print where memory is, how much of it holds nothing live, and what stands in the way of more")
VERB(ping, cmd_server_ping, 0, 0, 0, "", "check that kvd answers, and how fast")
VERB(health, cmd_health, 0, 0, 0, "",
     "tell whether the store can be trusted: status 0 ok, 1 degraded, 5 failed")
VERB(doctor, cmd_doctor, 0, 1, OPTION_BIT(no_measure), "[DIR]",
     "look at kvd, at what the machine grants it and at what that brings: each finding with its "
     "remedy; status 1 if something should be done, 5 damage")
VERB(flush, cmd_server_flush, 0, 0, OPTION_BIT(yes), "", "remove every key")
VERB(load, cmd_load, 0, 1, OPTION_BIT(format) | OPTION_BIT(key) | OPTION_BIT(strict), "[FILE|-]",
     "store the records of a file: JSON lines, or Debian control format")
VERB(dump, cmd_dump, 0, 1, OPTION_BIT(match), "[FILE|-]", "write every key and value as JSON lines")
VERB(verify, cmd_verify, 0, 1, 0, "[DIR|BACKUP]",
     "look whether all that is stored is undamaged: kvd's memory and store while it serves, or a "
     "data folder or a backup; status 5: it is not")
VERB(backup, cmd_backup, 0, 1, OPTION_BIT(force), "[FILE|DIR]",
     "write all data of one moment to a file, while kvd serves")
VERB(restore, cmd_restore, 2, 2, OPTION_BIT(force), "BACKUP DIR",
     "make a backup the data of a folder that no kvd uses")
VERB(bridge, cmd_bridge, 0, 0,
     OPTION_BIT(listen) | OPTION_BIT(force_any) | OPTION_BIT(max_connections), "",
     "let programs that speak only TCP reach kvd (--listen 127.0.0.1:6379)")
VERB(help, cmd_help, 0, 1, 0, "[VERB]", "explain kvctl, or one verb")
VERB(version, cmd_version, 0, 0, 0, "", "print the versions of kvctl and of libkvclient")
#endif

#ifdef OPTION
OPTION(socket, "--socket", 's', "PATH", true,
       "kvd's socket (else $KVD_SOCKET, else /run/kvd/kvd.sock)")
OPTION(json, "--json", 'j', NULL, true, "print JSON")
OPTION(timeout, "--timeout", 't', "MS", true, "how long a request may take (5000; 2s is fine too)")
OPTION(quiet, "--quiet", 'q', NULL, true, "no remarks: only data, errors and the exit status")
OPTION(help, "--help", 'h', NULL, true, "explain the verb")
OPTION(via, "--via", 0, "shm|socket", false,
       "read through the mapping only, or through the socket only")
OPTION(output, "--output", 'o', "FILE", false, "write to FILE, which appears whole or not at all")
OPTION(file, "--file", 'f', "FILE", false, "take the value from FILE")
OPTION(ttl, "--ttl", 0, "DURATION", false, "let the key live so long: 500ms, 30s, 5m, 2h, 7d")
OPTION(keep_ttl, "--keep-ttl", 0, NULL, false, "keep the time to live that the key has")
OPTION(if_absent, "--if-absent", 0, NULL, false, "only if the key does not exist")
OPTION(if_present, "--if-present", 0, NULL, false, "only if the key exists")
OPTION(if_version, "--if-version", 0, "N", false,
       "only if the key has this version (0: does not exist)")
OPTION(count, "--count", 'c', NULL, false, "print only how many keys there are")
OPTION(yes, "--yes", 'y', NULL, false, "do it without asking")
OPTION(no_measure, "--no-measure", 0, NULL, false,
       "do not measure what huge pages bring, which takes half a second and 128 MiB")
OPTION(format, "--format", 0, "jsonl|deb822", false,
       "what FILE holds: JSON lines, or Debian control records")
OPTION(key, "--key", 'k', "FIELD", false, "field that becomes the key (deb822)")
OPTION(strict, "--strict", 0, NULL, false, "stop at the first bad record")
OPTION(match, "--match", 'm', "PATTERN", false, "only keys that match a glob pattern")
OPTION(force, "--force", 0, NULL, false,
       "backup: replace a file that is there; restore: move data that is there aside")
OPTION(listen, "--listen", 'l', "ADDRESS:PORT", false,
       "where to listen: 127.0.0.1:6379, [::1]:6379; port 0: one that is free")
OPTION(force_any, "--force-any", 0, NULL, false, "listen where other machines can connect, too")
OPTION(max_connections, "--max-connections", 0, "N", false, "how many at a time (1000)")
#endif

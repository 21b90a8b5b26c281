// SPDX-License-Identifier: MIT
//
// What can be so, and what the doctor has to say about it, when all else is well. No guard: it is
// expanded once. X(what is so, the facts that change, check, state, a part of what is said, a part
// of the remedy or NULL).
// clang-format off
X("the store failed", TEXT(KVD.state, "failed"), "store", DAMAGE, "FAILED", "kvctl backup")
X("a commit fails", TEXT(KVD.state, "degraded"), "store", WARNING, "degraded", "make room")
X("the disk is slow", KVD.undurable = 2000000, "store", WARNING, "2000000", "disk")
X("no store is wanted", TEXT(KVD.policy, "memory"), "store", OK, "memory", NULL)
X("damage was met", KVD.damage_met = 1, "damage", DAMAGE, "1 in passing", "kvctl verify")
X("a verification found some", KVD.verify_damaged = 3, "damage", DAMAGE, "3 damaged", "verify")
X("keys were lost", KVD.recovered_lost = 7, "damage", DAMAGE, "7 keys", "kvctl backup")
X("no room for another store", FOLDER.free_bytes = GIB, "disk", WARNING, "anew", "make room")
X("data in memory", TEXT(FOLDER.type, "tmpfs"), "disk", WARNING, "tmpfs", "--persist memory")
X("data far away", TEXT(FOLDER.type, "nfs"), "disk", WARNING, "locks", "local disk")
X("a former store", FOLDER.former = 1, "former", NOTE, "1 former store,", "remove")
X("full of what is live", KVD.used_bytes = 4 * GIB, "memory", WARNING, "of 4.29 GB", "evict")
X("full but for the reserves", TEXT(KVD.in_the_way, "memory: x"), "memory", WARNING, "memory: x",
  "maxmemory")
X("full, and it evicts", (KVD.used_bytes = 4 * GIB, KVD.evicts = true), "memory", OK,
  "4.29 GB of", NULL)
X("memory is not told", KVD.bound_bytes = KVD.used_bytes = 0, "memory", SKIPPED, "not tell", NULL)
X("memory is not told", (KVD.bound_bytes = 0, MACHINE.pool_available = 9), "pool", OK, "can be",
  NULL)
X("something is in the way", TEXT(KVD.in_the_way, "readers: x"), "memory", OK, "readers: x",
  NULL)
X("the bound is not reached", (KVD.wanted_bytes = MIB,
  TEXT(KVD.bound_waits_for, "what came free waits for x")), "memory", WARNING,
  "is to be 1.05 MB, and is not yet: what came free waits for x", "kvctl readers")
X("the bound comes down", (KVD.wanted_bytes = MIB,
  TEXT(KVD.bound_waits_for, "segments are being emptied for it")), "memory", OK, "in use", NULL)
X("the machine is short", MACHINE.available_bytes = 2 * GIB, "machine", WARNING, "2.15 GB left",
  "maxmemory lower")
X("the machine is short, and the pool is kvd's", (MACHINE.available_bytes = 2 * GIB,
  TEXT(KVD.pages, "hugetlb")), "machine", OK, "available", NULL)
X("memory is promised strictly", MACHINE.overcommit = 2, "machine", WARNING, "overcommit",
  "overcommit_ratio")
X("nothing is known", MACHINE.available_bytes = -1, "machine", SKIPPED, "meminfo", NULL)
X("a group is smaller", (PROCESS.group_limit_bytes = 3 * GIB,
  TEXT(PROCESS.group, "/g/memory.max")), "group", WARNING, "/g/memory.max", "MemoryMax=")
X("a group is just as large", PROCESS.group_limit_bytes = 4 * GIB, "group", NOTE, "little",
  "MemoryMax=")
X("a group is large", PROCESS.group_limit_bytes = 6 * GIB, "group", OK, "6.44 GB", NULL)
X("a group is smaller, and the pool is kvd's", (PROCESS.group_limit_bytes = GIB,
  TEXT(KVD.pages, "hugetlb")), "group", OK, "1.07 GB", NULL)
X("its groups are hidden", PROCESS.group_limit_bytes = -1, "group", SKIPPED, "read", NULL)
X("much is dead", (KVD.fragmentation_percent = 70, KVD.used_bytes = 3 * GIB), "fragmentation",
  WARNING, "70.0 %", "kvctl readers")
X("much is dead of little", KVD.fragmentation_percent = 70, "fragmentation", OK, "70.0", NULL)
X("pages nobody counts", KVD.file_bytes += 8 * MIB, "holes", NOTE, "8.39 MB", "allow-attach")
X("pages on their way", (KVD.file_bytes += 8 * MIB, KVD.exact = false), "holes", OK, "has",
  NULL)
X("a view has been open", (KVD.stuck_pid = 99, KVD.stuck_age_us = 9000000), "readers", WARNING,
  "process 99", "kick 99")
X("a view is open", (KVD.stuck_pid = 99, KVD.stuck_age_us = 900000), "readers", OK, "no",
  NULL)
X("who reads is not told", TEXT(KVD.readers_why, "NOPERM"), "readers", SKIPPED, "NOPERM",
  NULL)
X("small pages where huge ones may be", PROCESS.region_huge_bytes = GIB / 2, "pages", NOTE,
  "50 %", "prefault = yes")
X("small pages are asked for", (PROCESS.region_huge_bytes = 0, TEXT(KVD.pages, "small")),
  "pages", NOTE, "0 %", "huge-pages = transparent")
X("small pages of a small region", (PROCESS.region_bytes = MIB, PROCESS.region_huge_bytes = 0),
  "pages", OK, "0 %", NULL)
X("pages of the pool", TEXT(KVD.pages, "hugetlb"), "pages", OK, "of the pool", NULL)
X("pages are not told", (PROCESS.region_bytes = 0, TEXT(PROCESS.region_why, "denied")), "pages",
  SKIPPED, "denied", "root")
X("a pool lies idle", (MACHINE.pool_pages = 3000, MACHINE.pool_available = 2500), "pool", NOTE,
  "2500", "huge-pages = hugetlb")
X("a pool of others", (MACHINE.pool_pages = 3000, MACHINE.pool_available = 100), "pool", OK,
  "3000", NULL)
X("no pool", MACHINE.pool_pages = -1, "pool", SKIPPED, "no huge pages", NULL)
X("no huge pages at all", MEASURE.huge = DOCTOR_HUGE_NONE, "gain", NOTE, "advise",
  "shmem_enabled")
X("not measured", (MEASURE.done = false, TEXT(MEASURE.why, "because")), "gain", SKIPPED,
  "because", NULL)
X("measured", (void)0, "gain", OK, "1.50 times", NULL)
X("swap", MACHINE.swap_bytes = GIB, "swap", NOTE, "1.07 GB", "LimitMEMLOCK")
X("swap, and it may lock", (MACHINE.swap_bytes = GIB,
  PROCESS.locked_limit_bytes = DOCTOR_NO_LIMIT), "swap", NOTE, "1.07 GB", "mlock = yes; or")
X("swap, and it is locked", (MACHINE.swap_bytes = GIB, KVD.locked = true), "swap", OK, "stay",
  NULL)
X("swap is not told", MACHINE.swap_bytes = -1, "swap", SKIPPED, "meminfo", NULL)
X("many clients", KVD.clients = 9000, "files", WARNING, "9000", "maxclients")
X("few files", (PROCESS.files_limit = 1024, KVD.clients_max = 480), "files", NOTE, "480",
  "LimitNOFILE")
X("how many is not told", KVD.clients_max = 0, "files", SKIPPED, "not known", NULL)
X("short files", PROCESS.file_limit_bytes = 3 * GIB, "file-size", WARNING, "3.22 GB",
  "LimitFSIZE")
X("long files", PROCESS.file_limit_bytes = 20 * GIB, "file-size", OK, "21.5 GB", NULL)
X("files of a length that is not told", PROCESS.file_limit_bytes = -1, "file-size", SKIPPED,
  "read", NULL)
X("clients of its own uid", (KVD.own_uid_clients = 2, KVD.own_uid_pid = 5), "uid", WARNING,
  "process 5", "User=kvd")
X("root", PROCESS.uid = 0, "uid", NOTE, "root", "User=kvd")
X("of a user that is not told", PROCESS.uid = -1, "uid", SKIPPED, "not known", NULL)
X("no barrier", KERNEL.membarrier = false, "membarrier", NOTE, "fence", "SystemCallFilter=")
X("no pidfd", KERNEL.pidfd = false, "kernel", WARNING, "watched", "5.3")
X("an older kernel", (KERNEL.collapse = KERNEL.peer_pidfd = false), "kernel", NOTE,
  "SO_PEERPIDFD", "6.5")
X("a slow clock", TEXT(MACHINE.clock, "hpet"), "clock", NOTE, "hpet", "tsc")
X("a clock that is not told", MACHINE.clock[0] = '\0', "clock", SKIPPED, "shows", NULL)
X("it lives elsewhere", PROCESS.pid = 0, "kvd", OK, "namespace", NULL)
X("the folder cannot be read", (FOLDER.present = false, TEXT(FOLDER.why, "denied")), "disk",
  SKIPPED, "denied", "doctor DIR")

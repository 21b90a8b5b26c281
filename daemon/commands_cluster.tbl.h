// SPDX-License-Identifier: MIT
//
// CLUSTER and those of its subcommands that clients send: all of them say that there is none.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

#define F_ALONE COMMAND_STALE

X(cluster, "cluster", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "cluster",
  "3.0.0",
  "", "Container of the commands about a cluster, which kvd is no part of.")
X(cluster_countkeysinslot, "cluster|countkeysinslot", commands_alone_no_cluster, 3, F_ALONE, R_ANY,
  0, 0, 0, "cluster", "3.0.0",
  "slot", "Is refused: there is no cluster.")
X(cluster_getkeysinslot, "cluster|getkeysinslot", commands_alone_no_cluster, 4, F_ALONE, R_ANY, 0,
  0, 0, "cluster", "3.0.0",
  "slot count", "Is refused: there is no cluster.")
X(cluster_help, "cluster|help", commands_alone_no_cluster, 2, F_ANY, R_ANY, 0, 0, 0, "cluster",
  "5.0.0",
  "", "Is refused: there is no cluster.")
X(cluster_info, "cluster|info", commands_alone_no_cluster, 2, F_ALONE, R_ANY, 0, 0, 0, "cluster",
  "3.0.0",
  "", "Is refused: there is no cluster.")
X(cluster_keyslot, "cluster|keyslot", commands_alone_no_cluster, 3, F_ALONE, R_ANY, 0, 0, 0,
  "cluster", "3.0.0",
  "key", "Is refused: there is no cluster.")
X(cluster_links, "cluster|links", commands_alone_no_cluster, 2, F_ALONE, R_ANY, 0, 0, 0, "cluster",
  "7.0.0",
  "", "Is refused: there is no cluster.")
X(cluster_myid, "cluster|myid", commands_alone_no_cluster, 2, F_ALONE, R_ANY, 0, 0, 0, "cluster",
  "3.0.0",
  "", "Is refused: there is no cluster.")
X(cluster_nodes, "cluster|nodes", commands_alone_no_cluster, 2, F_ALONE, R_ANY, 0, 0, 0, "cluster",
  "3.0.0",
  "", "Is refused: there is no cluster.")
X(cluster_shards, "cluster|shards", commands_alone_no_cluster, 2, F_ALONE, R_ANY, 0, 0, 0,
  "cluster", "7.0.0",
  "", "Is refused: there is no cluster.")
X(cluster_slots, "cluster|slots", commands_alone_no_cluster, 2, F_ALONE, R_ANY, 0, 0, 0, "cluster",
  "3.0.0",
  "", "Is refused: there is no cluster.")

#undef F_ALONE
// clang-format on

// SPDX-License-Identifier: MIT
//
// OBJECT and its subcommands: how a value is kept.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(object, "object", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "generic",
  "2.2.3",
  "", "Container of the commands about values.")
X(object_encoding, "object|encoding", commands_object_encoding, 3, F_READ, R_ANY, 2, 2, 1,
  "generic", "2.2.3",
  "key", "Returns how Redis would keep a value.")
X(object_freq, "object|freq", commands_object_freq, 3, F_READ, R_ANY, 2, 2, 1, "generic", "4.0.0",
  "key", "Is refused: nobody counts.")
X(object_help, "object|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "generic", "6.2.0",
  "", "Lists the subcommands.")
X(object_idletime, "object|idletime", commands_object_idletime, 3, F_READ, R_ANY, 2, 2, 1,
  "generic", "2.2.3",
  "key", "Returns the seconds since a value was written; reading leaves no trace.")
X(object_refcount, "object|refcount", commands_object_refcount, 3, F_READ, R_ANY, 2, 2, 1,
  "generic", "2.2.3",
  "key", "Returns 1.")
// clang-format on

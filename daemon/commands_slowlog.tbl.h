// SPDX-License-Identifier: MIT
//
// SLOWLOG and its subcommands: the commands that took long.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(slowlog, "slowlog", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "server",
  "2.2.12",
  "", "Container of the commands about slow commands.")
X(slowlog_get, "slowlog|get", commands_slowlog_get, -2, F_ANY | COMMAND_ADMIN | COMMAND_SLOW_OK,
  R_ANY, 0, 0, 0, "server", "2.2.12",
  "[count]", "Returns the newest commands that took long, 10 or so many, -1 for all.")
X(slowlog_help, "slowlog|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "server", "6.2.0",
  "", "Lists the subcommands.")
X(slowlog_len, "slowlog|len", commands_slowlog_len, 2, F_ANY | COMMAND_ADMIN, R_ANY, 0, 0, 0,
  "server", "2.2.12",
  "", "Returns how many are kept.")
X(slowlog_reset, "slowlog|reset", commands_slowlog_reset, 2, F_ANY | COMMAND_SLOW_OK, R_ADMIN, 0, 0,
  0, "server", "2.2.12",
  "", "Forgets them.")
// clang-format on

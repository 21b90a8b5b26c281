// SPDX-License-Identifier: MIT
//
// COMMAND and its subcommands: the commands themselves.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(command, "command", commands_command_all, -1, F_ANY | COMMAND_CONTAINER | COMMAND_SLOW_OK, R_ANY,
  0, 0, 0, "server", "2.8.13",
  "", "Describes all commands.")
X(command_count, "command|count", commands_command_count, 2, F_ANY, R_ANY, 0, 0, 0, "server",
  "2.8.13",
  "", "Returns the number of commands.")
X(command_docs, "command|docs", commands_command_docs, -2, F_ANY | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "server", "7.0.0",
  "[command-name ...]", "Returns help for all or some commands.")
X(command_getkeys, "command|getkeys", commands_getkeys_getkeys, -4, F_ANY | COMMAND_SLOW_OK, R_ANY,
  0, 0, 0, "server", "2.8.13",
  "command [arg ...]", "Returns the keys among the arguments of a command.")
X(command_getkeysandflags, "command|getkeysandflags", commands_getkeys_getkeysandflags, -4, F_ANY |
  COMMAND_SLOW_OK, R_ANY, 0, 0, 0, "server", "7.0.0",
  "command [arg ...]", "Returns the keys, and what the command does with each.")
X(command_help, "command|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "server", "5.0.0",
  "", "Lists the subcommands.")
X(command_info, "command|info", commands_command_info, -2, F_ANY | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "server", "2.8.13",
  "[command-name ...]", "Describes all or some commands.")
X(command_list, "command|list", commands_command_list, -2, F_ANY | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "server", "7.0.0",
  "[FILTERBY MODULE name|ACLCAT category|PATTERN pattern]",
  "Lists the names of all or some commands.")
// clang-format on

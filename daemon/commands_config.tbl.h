// SPDX-License-Identifier: MIT
//
// CONFIG and its subcommands: options.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(config, "config", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "server", "2.0.0",
  "", "Container of the commands about options.")
X(config_get, "config|get", commands_config_get, -3, F_ADMIN | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "server", "2.0.0",
  "pattern [pattern ...]", "Returns options, kvd's own and those that Redis clients ask for.")
X(config_help, "config|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "server", "5.0.0",
  "", "Lists the subcommands.")
X(config_resetstat, "config|resetstat", commands_config_resetstat, 2, F_CONN, R_ADMIN, 0, 0, 0,
  "server", "2.0.0",
  "", "Starts the counts that INFO shows again from zero.")
X(config_rewrite, "config|rewrite", commands_config_rewrite, 2, F_CONN | COMMAND_SLOW_OK, R_ADMIN,
  0, 0, 0, "server", "2.8.0",
  "", "Writes what was set into the configuration file, and leaves the rest of it as it is.")
X(config_set, "config|set", commands_config_set, -4, F_CONN | COMMAND_SLOW_OK, R_ADMIN, 0, 0, 0,
  "server", "2.0.0",
  "parameter value [parameter value ...]", "Sets options while kvd runs, all of them or none.")
// clang-format on

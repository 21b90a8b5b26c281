// SPDX-License-Identifier: MIT
//
// MODULE and its subcommands: there are no modules.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(module, "module", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "server", "4.0.0",
  "", "Container of the commands about modules, of which kvd has none.")
X(module_help, "module|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "server", "5.0.0",
  "", "Lists the subcommands.")
X(module_list, "module|list", commands_alone_no_modules, 2, COMMAND_ADMIN | COMMAND_NOSCRIPT, R_ANY,
  0, 0, 0, "server", "4.0.0",
  "", "Lists the modules: there are none.")
// clang-format on

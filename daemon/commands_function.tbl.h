// SPDX-License-Identifier: MIT
//
// FUNCTION and its subcommands: libraries of functions, of which there are none.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(function, "function", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "scripting",
  "7.0.0",
  "", "Container of the commands about functions, of which kvd has none.")
X(function_delete, "function|delete", commands_script_delete, 3, COMMAND_NOSCRIPT, R_ANY, 0, 0, 0,
  "scripting", "7.0.0",
  "library-name", "Finds no library to remove.")
X(function_flush, "function|flush", commands_script_flush, -2, COMMAND_NOSCRIPT, R_ANY, 0, 0, 0,
  "scripting", "7.0.0",
  "[ASYNC|SYNC]", "Removes all functions: there are none.")
X(function_help, "function|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "scripting",
  "7.0.0",
  "", "Lists the subcommands.")
X(function_kill, "function|kill", commands_script_kill, 2, COMMAND_NOSCRIPT | COMMAND_ALLOW_BUSY,
  R_ANY, 0, 0, 0, "scripting", "7.0.0",
  "", "Finds no function running.")
X(function_list, "function|list", commands_script_list, -2, COMMAND_NOSCRIPT, R_ANY, 0, 0, 0,
  "scripting", "7.0.0",
  "[LIBRARYNAME library-name-pattern] [WITHCODE]", "Lists the libraries: there are none.")
X(function_stats, "function|stats", commands_script_stats, 2, COMMAND_NOSCRIPT | COMMAND_ALLOW_BUSY,
  R_ANY, 0, 0, 0, "scripting", "7.0.0",
  "", "Tells that no function runs.")
// clang-format on

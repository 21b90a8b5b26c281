// SPDX-License-Identifier: MIT
//
// SCRIPT and its subcommands: there are no scripts.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(script, "script", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "scripting",
  "2.6.0",
  "", "Container of the commands about scripts, which kvd does not run.")
X(script_exists, "script|exists", commands_script_exists, -3, COMMAND_NOSCRIPT | COMMAND_SLOW_OK,
  R_ANY, 0, 0, 0, "scripting", "2.6.0",
  "sha1 [sha1 ...]", "Returns 0 for each: there are no scripts.")
X(script_flush, "script|flush", commands_script_flush, -2, COMMAND_NOSCRIPT, R_ANY, 0, 0, 0,
  "scripting", "2.6.0",
  "[ASYNC|SYNC]", "Removes all scripts: there are none.")
X(script_help, "script|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "scripting", "5.0.0",
  "", "Lists the subcommands.")
X(script_kill, "script|kill", commands_script_kill, 2, COMMAND_NOSCRIPT | COMMAND_ALLOW_BUSY, R_ANY,
  0, 0, 0, "scripting", "2.6.0",
  "", "Finds no script running.")
// clang-format on

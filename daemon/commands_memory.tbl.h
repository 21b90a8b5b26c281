// SPDX-License-Identifier: MIT
//
// MEMORY and its subcommands: where memory is.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(memory, "memory", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "server", "4.0.0",
  "", "Container of the commands about memory.")
X(memory_doctor, "memory|doctor", commands_memory_doctor, 2, 0, R_ANY, 0, 0, 0, "server", "4.0.0",
  "", "Says in words whether memory is short.")
X(memory_help, "memory|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "server", "4.0.0",
  "", "Lists the subcommands.")
X(memory_malloc_stats, "memory|malloc-stats", commands_memory_malloc_stats, 2, 0, R_ANY, 0, 0, 0,
  "server", "4.0.0",
  "", "Has nothing to tell: records are not allocated one by one.")
X(memory_purge, "memory|purge", commands_memory_purge, 2, 0, R_ANY, 0, 0, 0, "server", "4.0.0",
  "", "Has nothing to do: what is free is used again at once.")
X(memory_stats, "memory|stats", commands_memory_stats, 2, 0 | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "server", "4.0.0",
  "", "Tells where the memory is.")
X(memory_usage, "memory|usage", commands_memory_usage, -3, F_READ, R_ANY, 2, 2, 1, "server",
  "4.0.0",
  "key [SAMPLES count]", "Returns the bytes that a key and its value take.")
// clang-format on

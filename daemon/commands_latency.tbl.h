// SPDX-License-Identifier: MIT
//
// LATENCY and its subcommands: how long things took.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(latency, "latency", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "server",
  "2.8.13",
  "", "Container of the commands about long waits.")
X(latency_doctor, "latency|doctor", commands_latency_doctor, 2, F_ADMIN, R_ANY, 0, 0, 0, "server",
  "2.8.13",
  "", "Says in words what was noticed.")
X(latency_graph, "latency|graph", commands_latency_graph, 3, F_ADMIN, R_ANY, 0, 0, 0, "server",
  "2.8.13",
  "event", "Draws the times of an event.")
X(latency_help, "latency|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "server", "2.8.13",
  "", "Lists the subcommands.")
X(latency_histogram, "latency|histogram", commands_latency_histogram, -2, F_ADMIN | COMMAND_SLOW_OK,
  R_ANY, 0, 0, 0, "server", "7.0.0",
  "[command ...]", "Tells how long commands took, of a sample of the calls.")
X(latency_history, "latency|history", commands_latency_history, 3, F_ADMIN | COMMAND_SLOW_OK, R_ANY,
  0, 0, 0, "server", "2.8.13",
  "event", "Returns when an event happened, and how long it took.")
X(latency_latest, "latency|latest", commands_latency_latest, 2, F_ADMIN, R_ANY, 0, 0, 0, "server",
  "2.8.13",
  "", "Returns the last and the longest of each event.")
X(latency_reset, "latency|reset", commands_latency_reset, -2, F_CONN | COMMAND_SLOW_OK, R_ADMIN, 0,
  0, 0, "server", "2.8.13",
  "[event ...]", "Forgets events, all of them if none is named.")
// clang-format on

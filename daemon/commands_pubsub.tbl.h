// SPDX-License-Identifier: MIT
//
// PUBSUB and its subcommands: who listens to what.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(pubsub, "pubsub", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "pubsub", "2.8.0",
  "", "Container of the commands about who listens.")
X(pubsub_channels, "pubsub|channels", commands_pubsub_channels, -2, F_ANY | COMMAND_PUBSUB |
  COMMAND_SLOW_OK, R_ANY, 0, 0, 0, "pubsub", "2.8.0",
  "[pattern]", "Lists the channels that somebody listens to.")
X(pubsub_help, "pubsub|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "pubsub", "6.2.0",
  "", "Lists the subcommands.")
X(pubsub_numpat, "pubsub|numpat", commands_pubsub_numpat, 2, F_ANY | COMMAND_PUBSUB, R_ANY, 0, 0, 0,
  "pubsub", "2.8.0",
  "", "Counts the patterns that somebody listens to.")
X(pubsub_numsub, "pubsub|numsub", commands_pubsub_numsub, -2, F_ANY | COMMAND_PUBSUB |
  COMMAND_SLOW_OK, R_ANY, 0, 0, 0, "pubsub", "2.8.0",
  "[channel ...]", "Counts who listens to channels, patterns apart.")
X(pubsub_shardchannels, "pubsub|shardchannels", commands_pubsub_shardchannels, -2, F_ANY |
  COMMAND_PUBSUB | COMMAND_SLOW_OK, R_ANY, 0, 0, 0, "pubsub", "7.0.0",
  "[pattern]", "Lists the shard channels that somebody listens to.")
X(pubsub_shardnumsub, "pubsub|shardnumsub", commands_pubsub_shardnumsub, -2, F_ANY |
  COMMAND_PUBSUB | COMMAND_SLOW_OK, R_ANY, 0, 0, 0, "pubsub", "7.0.0",
  "[shardchannel ...]", "Counts who listens to shard channels.")
// clang-format on

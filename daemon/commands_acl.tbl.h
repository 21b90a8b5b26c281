// SPDX-License-Identifier: MIT
//
// ACL and its subcommands: users, of whom there is one.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(acl, "acl", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "server", "6.0.0",
  "", "Container of the commands about users: there is one, whom the socket lets in.")
X(acl_cat, "acl|cat", commands_acl_cat, -2, F_CONN | COMMAND_SLOW_OK, R_ANY, 0, 0, 0, "server",
  "6.0.0",
  "[category]", "Lists the categories of commands, or the commands of one.")
X(acl_deluser, "acl|deluser", commands_acl_deluser, -3, F_ADMIN | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "server", "6.0.0",
  "username [username ...]", "Finds nobody to remove: the only user stays.")
X(acl_dryrun, "acl|dryrun", commands_acl_dryrun, -4, F_ADMIN, R_ANY, 0, 0, 0, "server", "7.0.0",
  "username command [arg ...]", "Tells whether a user may run a command: yes.")
X(acl_genpass, "acl|genpass", commands_acl_genpass, -2, F_CONN, R_ANY, 0, 0, 0, "server", "6.0.0",
  "[bits]", "Returns random hexadecimal digits.")
X(acl_getuser, "acl|getuser", commands_acl_getuser, 3, F_ADMIN, R_ANY, 0, 0, 0, "server", "6.0.0",
  "username", "Tells what a user may do: default everything; others there are none.")
X(acl_help, "acl|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "server", "6.0.0",
  "", "Lists the subcommands.")
X(acl_list, "acl|list", commands_acl_list, 2, F_ADMIN, R_ANY, 0, 0, 0, "server", "6.0.0",
  "", "Tells what the only user may do: everything.")
X(acl_log, "acl|log", commands_acl_log, -2, F_ADMIN, R_ANY, 0, 0, 0, "server", "6.0.0",
  "[count|RESET]", "Lists what was forbidden: nothing.")
X(acl_setuser, "acl|setuser", commands_acl_setuser, -3, F_ADMIN, R_ANY, 0, 0, 0, "server", "6.0.0",
  "username [rule [rule ...]]", "Is refused: there is one user.")
X(acl_users, "acl|users", commands_acl_users, 2, F_ADMIN, R_ANY, 0, 0, 0, "server", "6.0.0",
  "", "Lists the only user.")
X(acl_whoami, "acl|whoami", commands_acl_whoami, 2, F_CONN, R_ANY, 0, 0, 0, "server", "6.0.0",
  "", "Returns default.")
// clang-format on

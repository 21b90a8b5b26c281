// SPDX-License-Identifier: MIT
//
// CLIENT and its subcommands: the connections.
// A part of commands.tbl.h, which says what the columns are.
// clang-format off

X(client, "client", commands_command_none, -2, COMMAND_CONTAINER, R_ANY, 0, 0, 0, "connection",
  "2.4.0",
  "", "Container of the connection's own commands.")
X(client_caching, "client|caching", commands_tracking_caching, 3, F_CONN, R_ANY, 0, 0, 0,
  "connection", "6.0.0",
  "YES|NO", "Tells whether the keys that the next command reads are to be remembered.")
X(client_getname, "client|getname", commands_client_getname, 2, F_CONN, R_ANY, 0, 0, 0,
  "connection", "2.6.9",
  "", "Returns the name of this connection.")
X(client_getredir, "client|getredir", commands_tracking_getredir, 2, F_CONN, R_ANY, 0, 0, 0,
  "connection", "6.0.0",
  "", "Returns the number of the connection that gets the invalidations of this one.")
X(client_help, "client|help", commands_command_help, 2, F_ANY, R_ANY, 0, 0, 0, "connection",
  "5.0.0",
  "", "Lists the subcommands.")
X(client_id, "client|id", commands_client_id, 2, F_CONN, R_ANY, 0, 0, 0, "connection", "5.0.0",
  "", "Returns the number of this connection, never reused by this kvd.")
X(client_info, "client|info", commands_client_info, 2, F_CONN, R_ANY, 0, 0, 0, "connection",
  "6.2.0",
  "", "Describes this connection in one line.")
X(client_kill, "client|kill", commands_client_kill, -3, F_ADMIN | COMMAND_SLOW_OK, R_OTHERS, 0, 0,
  0, "connection", "2.4.0",
  "addr|[ID client-id] [TYPE NORMAL|MASTER|REPLICA|PUBSUB] [USER username] [ADDR addr] "
  "[LADDR addr] [SKIPME yes|no]",
  "Closes connections: those of the same user, or all with the right to administer.")
X(client_list, "client|list", commands_client_list, -2, F_ADMIN | COMMAND_SLOW_OK, R_ANY, 0, 0, 0,
  "connection", "2.4.0",
  "[TYPE NORMAL|MASTER|REPLICA|PUBSUB] [ID client-id ...]",
  "Describes the open connections, one a line.")
X(client_no_evict, "client|no-evict", commands_client_no_evict, 3, F_ADMIN, R_ANY, 0, 0, 0,
  "connection", "7.0.0",
  "ON|OFF", "Marks this connection; kvd's bounds on buffers hold for all.")
X(client_pause, "client|pause", commands_client_pause, -3, F_CONN, R_ADMIN, 0, 0, 0, "connection",
  "2.9.50",
  "timeout [WRITE|ALL]", "Lets all commands, or those that write, wait for so many milliseconds.")
X(client_reply, "client|reply", commands_client_reply, 3, F_CONN, R_ANY, 0, 0, 0, "connection",
  "3.2.0",
  "ON|OFF|SKIP", "Drops the replies of this connection, or the next one.")
X(client_setinfo, "client|setinfo", commands_client_setinfo, 4, F_CONN, R_ANY, 0, 0, 0,
  "connection", "7.2.0",
  "LIB-NAME name|LIB-VER version", "Tells which client library speaks; CLIENT LIST shows it.")
X(client_setname, "client|setname", commands_client_setname, 3, F_CONN, R_ANY, 0, 0, 0,
  "connection", "2.6.9",
  "name", "Gives this connection a name, an empty one takes it away.")
X(client_tracking, "client|tracking", commands_tracking_tracking, -3, F_CONN, R_ANY, 0, 0, 0,
  "connection", "6.0.0",
  "ON|OFF [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] "
  "[NOLOOP]",
  "Lets kvd tell this connection when keys change that it keeps copies of.")
X(client_trackinginfo, "client|trackinginfo", commands_tracking_info, 2, F_CONN, R_ANY, 0, 0, 0,
  "connection", "6.2.0",
  "", "Tells how this connection tracks keys.")
X(client_unblock, "client|unblock", commands_client_unblock, -3, F_ADMIN, R_ANY, 0, 0, 0,
  "connection", "5.0.0",
  "client-id [TIMEOUT|ERROR]", "Finds nobody who is blocked.")
X(client_unpause, "client|unpause", commands_client_unpause, 2, F_CONN | COMMAND_UNPAUSES, R_ADMIN,
  0, 0, 0, "connection", "6.2.0",
  "", "Ends a pause.")
// clang-format on

// SPDX-License-Identifier: MIT
//
// What clients ask a server that might be one of many, or have been extended: kvd is in no cluster,
// follows nobody, and has no modules. It says so in the words of a Redis of which the same is true.
#include "daemon/commands.h"

void commands_alone_no_cluster(struct call *call)
{
	commands_error(call, "ERR This instance has cluster support disabled");
}

void commands_alone_no_modules(struct call *call)
{
	reply_array(call->session, 0);
}

void commands_alone_replicaof(struct call *call)
{
	if (commands_arg_is(&call->argv[1], "no") && commands_arg_is(&call->argv[2], "one")) {
		reply_ok(call->session);
	} else {
		commands_error(call, "ERR kvd has no replication: it follows nobody");
	}
}

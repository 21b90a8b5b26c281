// SPDX-License-Identifier: MIT
//
// ACL: the categories of commands, and the only user, who may do everything; and COMMAND LIST,
// which can list by category.
#include "daemon/commands_acl.h"
#include "daemon/commands.h"

#include "daemon/glob.h"

#define ACL_NAMES_EVERY 32u // between two looks at the clock
#define ACL_PASSWORD_BITS_MAX 4096

// ---- categories ----

// All that a command of kvd can be in, in Redis's order.
static const char *const acl_categories[] = {
	"keyspace", "read", "write",	 "string",     "bitmap",      "pubsub",	   "admin",
	"fast",	    "slow", "dangerous", "connection", "transaction", "scripting",
};
#define ACL_CATEGORIES (sizeof(acl_categories) / sizeof(acl_categories[0]))

/// Is a command about keys as such, whatever their values?
static bool acl_is_keyspace(const struct command *command)
{
	static const char *const others[] = { "lolwut", "memory|usage", "object", "wait" };
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (strcmp(command->name, others[i]) == 0) {
			return false;
		}
	}
	bool server = strcmp(command->group, "server") == 0;
	bool keys = (command->flags & (COMMAND_WRITE | COMMAND_READONLY)) != 0;
	return strcmp(command->group, "generic") == 0 || (server && keys);
}

size_t commands_categories(const struct command *command, const char *out[COMMANDS_CATEGORIES_MAX])
{
	size_t n = 0;
	bool bare = command->run == commands_command_none;
	static const char *const others[] = { "asking", "readonly", "readwrite", "wait" };
	bool connection = strncmp(command->name, "command", 7) == 0 ||
			  (strcmp(command->group, "connection") == 0 && !bare);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		connection = connection || strcmp(command->name, others[i]) == 0;
	}
	bool admin = (command->flags & (COMMAND_ADMIN | COMMAND_CATEGORY_ADMIN)) != 0;
	if (acl_is_keyspace(command)) {
		out[n++] = "@keyspace";
	}
	if (command->flags & COMMAND_READONLY) {
		out[n++] = "@read";
	}
	if (command->flags & COMMAND_WRITE) {
		out[n++] = "@write";
	}
	if (strcmp(command->group, "string") == 0) {
		out[n++] = "@string";
	}
	if (strcmp(command->group, "bitmap") == 0) {
		out[n++] = "@bitmap";
	}
	if (command->flags & COMMAND_PUBSUB) {
		out[n++] = "@pubsub";
	}
	if (admin) {
		out[n++] = "@admin";
	}
	out[n++] = command->flags & COMMAND_FAST ? "@fast" : "@slow";
	if (admin || command->flags & COMMAND_DANGEROUS) {
		out[n++] = "@dangerous";
	}
	if (connection) {
		out[n++] = "@connection";
	} else if (strcmp(command->group, "transactions") == 0) {
		out[n++] = "@transaction";
	} else if (strcmp(command->group, "scripting") == 0 && !bare) {
		out[n++] = "@scripting";
	}
	return n;
}

/// Does a command pass COMMAND LIST's filter?
static bool acl_listed(const struct command *command, const struct resp_arg *filter,
		       const struct resp_arg *value)
{
	if (!filter) {
		return true;
	}
	if (commands_arg_is(filter, "pattern")) {
		return glob_match(value->data, value->bytes, command->name, strlen(command->name),
				  true);
	}
	if (commands_arg_is(filter, "aclcat")) {
		const char *categories[COMMANDS_CATEGORIES_MAX];
		size_t count = commands_categories(command, categories);
		for (size_t i = 0; i < count; i++) {
			if (commands_arg_is(value, categories[i] + 1)) {
				return true;
			}
		}
	}
	return false; // MODULE: there are none
}

static void acl_reply_categories(struct call *call)
{
	reply_array(call->session, ACL_CATEGORIES);
	for (size_t i = 0; i < ACL_CATEGORIES; i++) {
		reply_text(call->session, acl_categories[i]);
	}
}

/// The commands that pass a filter, found in slices and answered together.
struct acl_listing {
	size_t at;
	size_t count;
	const char *names[COMMANDS_ROWS_COUNT];
};

static void acl_list(struct call *call, const struct resp_arg *filter, const struct resp_arg *value)
{
	size_t rows;
	const struct command *table = command_table(&rows);
	struct acl_listing *listing = commands_state(call, sizeof(*listing), NULL);
	for (; listing && listing->at < rows; listing->at++) {
		if (commands_cut(call)) {
			return;
		}
		if (acl_listed(&table[listing->at], filter, value)) {
			listing->names[listing->count++] = table[listing->at].name;
		}
	}
	if (listing) {
		reply_array(call->session, listing->count);
		for (size_t i = 0; i < listing->count; i++) {
			reply_text(call->session, listing->names[i]);
		}
	}
}

static void acl_reply_category(struct call *call, const struct resp_arg *category)
{
	size_t i = 0;
	while (i < ACL_CATEGORIES && !commands_arg_is(category, acl_categories[i])) {
		i++;
	}
	if (i == ACL_CATEGORIES) {
		char name[COMMANDS_EXCERPT_BYTES];
		commands_errorf(call, "ERR Unknown category '%s'",
				commands_excerpt(category, name));
		return;
	}
	const struct resp_arg filter = { .data = "aclcat", .bytes = 6 };
	acl_list(call, &filter, category);
}

void commands_command_list(struct call *call)
{
	if (call->argc == 2) {
		acl_list(call, NULL, NULL);
		return;
	}
	bool known = call->argc == 5 && commands_arg_is(&call->argv[2], "filterby") &&
		     (commands_arg_is(&call->argv[3], "module") ||
		      commands_arg_is(&call->argv[3], "aclcat") ||
		      commands_arg_is(&call->argv[3], "pattern"));
	if (!known) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
	} else if (commands_arg_pattern(call, &call->argv[4])) {
		acl_list(call, &call->argv[3], &call->argv[4]);
	}
}

// ---- one user ----

static bool acl_is_user(const struct resp_arg *name)
{
	return name->bytes == 7 && memcmp(name->data, "default", 7) == 0;
}

void commands_acl_whoami(struct call *call)
{
	reply_text(call->session, "default");
}

void commands_acl_users(struct call *call)
{
	reply_array(call->session, 1);
	reply_text(call->session, "default");
}

void commands_acl_list(struct call *call)
{
	reply_array(call->session, 1);
	reply_text(call->session, "user default on nopass ~* &* +@all");
}

void commands_acl_cat(struct call *call)
{
	if (call->argc > 3) {
		commands_error_subcommand(call);
		return;
	}
	if (call->argc == 2) {
		acl_reply_categories(call);
	} else {
		acl_reply_category(call, &call->argv[2]);
	}
}

void commands_acl_getuser(struct call *call)
{
	static const char *const fields[][2] = { { "commands", "+@all" },
						 { "keys", "~*" },
						 { "channels", "&*" } };
	struct session *session = call->session;
	if (!acl_is_user(&call->argv[2])) {
		reply_null(session);
		return;
	}
	reply_map(session, 6);
	reply_text(session, "flags");
	reply_set(session, 2);
	reply_text(session, "on");
	reply_text(session, "nopass");
	reply_text(session, "passwords");
	reply_array(session, 0);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		reply_text(session, fields[i][0]);
		reply_text(session, fields[i][1]);
	}
	reply_text(session, "selectors");
	reply_array(session, 0);
}

void commands_acl_setuser(struct call *call)
{
	commands_error(call, "ERR kvd has one user, default: who may connect is decided by the "
			     "socket's owner and mode");
}

void commands_acl_deluser(struct call *call)
{
	struct commands_walk *walk = commands_walk(call);
	for (; walk && walk->at + 2 < call->argc; walk->at++) {
		if (walk->at % ACL_NAMES_EVERY == 0 && commands_cut(call)) {
			return;
		}
		if (acl_is_user(&call->argv[walk->at + 2])) {
			commands_error(call, "ERR The 'default' user cannot be removed");
			return;
		}
	}
	if (walk) {
		reply_integer(call->session, 0);
	}
}

void commands_acl_log(struct call *call)
{
	int64_t count;
	if (call->argc > 3) {
		commands_error_subcommand(call);
	} else if (call->argc == 3 && commands_arg_is(&call->argv[2], "reset")) {
		reply_ok(call->session);
	} else if (call->argc == 2 || commands_arg_int(call, &call->argv[2], &count, NULL)) {
		reply_array(call->session, 0); // everybody may do everything
	}
}

void commands_acl_genpass(struct call *call)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char random[ACL_PASSWORD_BITS_MAX / 8];
	char text[ACL_PASSWORD_BITS_MAX / 4];
	int64_t bits = 256;
	if (call->argc > 3) {
		commands_error_subcommand(call);
		return;
	}
	if (call->argc == 3 && !commands_arg_int(call, &call->argv[2], &bits, NULL)) {
		return;
	}
	if (bits < 1 || bits > ACL_PASSWORD_BITS_MAX) {
		commands_error(call, "ERR ACL GENPASS argument must be the number of bits for the "
				     "output password, a positive number up to 4096");
		return;
	}
	size_t bytes = ((size_t)bits + 3) / 4;
	call->kvd->seam->random_bytes(random, (bytes + 1) / 2);
	for (size_t i = 0; i < bytes; i++) {
		text[i] = digits[(random[i / 2] >> (4 * (i % 2))) & 15];
	}
	reply_bulk(call->session, text, bytes);
}

void commands_acl_dryrun(struct call *call)
{
	char name[COMMANDS_EXCERPT_BYTES];
	if (!acl_is_user(&call->argv[2])) {
		commands_errorf(call, "ERR User '%s' not found",
				commands_excerpt(&call->argv[2], name));
		return;
	}
	uint32_t argc = call->argc - 3;
	const struct command *command = commands_of_request(&call->argv[3], argc);
	if (!command) {
		commands_errorf(call, "ERR Command '%s' not found",
				commands_excerpt(&call->argv[3], name));
	} else if (command->arity > 0 ? argc != (uint32_t)command->arity
				      : argc < (uint32_t)-command->arity) {
		commands_errorf(call, "ERR wrong number of arguments for '%s' command",
				command->name);
	} else {
		reply_ok(call->session);
	}
}

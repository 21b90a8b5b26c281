// SPDX-License-Identifier: MIT
//
// CONFIG: kvd's own options, and the names that Redis clients, benchmarks and exporters ask for,
// answered with what is true of kvd. Both kinds have one index: own options first.
#include "daemon/commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "daemon/config_live.h"
#include "daemon/config_names.h"
#include "daemon/config_rewrite.h"
#include "daemon/config_set.h"
#include "daemon/glob.h"
#include "daemon/keyspace_stays.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/session_rest.h"

#define CONFIG_VALUE_BYTES 4096
#define CONFIG_ERROR_BYTES 512
#define CONFIG_ALL_MAX 256
#define CONFIG_CLOCK_EVERY 16u // options between two looks at the clock

static size_t config_all_count(void)
{
	return config_count() + config_names_count();
}

static const char *config_all_name(size_t index)
{
	size_t own = config_count();
	return index < own ? config_name(index) : config_names_name(index - own);
}

static void config_all_value(const struct kvd *kvd, size_t index, char *out, size_t out_bytes)
{
	size_t own = config_count();
	if (index < own) {
		config_value(&kvd->config, index, out, out_bytes);
	} else {
		config_names_value(kvd, index - own, out, out_bytes);
	}
}

/// Index of the option that an argument names, config_all_count() if there is none.
static size_t config_all_find(const struct resp_arg *arg)
{
	size_t own = config_find(arg->data, arg->bytes);
	return own < config_count() ? own : own + config_names_find(arg->data, arg->bytes);
}

// ---- GET ----

/// The options that a call asks for, each once, looked for in slices. A name without wildcards is
/// answered as it was typed.
struct config_matches {
	uint32_t arg;  // next pattern, 0 at first
	size_t option; // next option that it is held against
	size_t index[CONFIG_ALL_MAX];
	const struct resp_arg *typed[CONFIG_ALL_MAX]; // NULL = found by a pattern
	size_t count;
	bool known[CONFIG_ALL_MAX];
};

static void config_match_add(struct config_matches *matches, size_t index,
			     const struct resp_arg *typed)
{
	if (index < CONFIG_ALL_MAX && !matches->known[index]) {
		matches->known[index] = true;
		matches->typed[matches->count] = typed;
		matches->index[matches->count++] = index;
	}
}

/// One pattern, or the rest of it. False: cut.
static bool config_match(struct call *call, struct config_matches *matches)
{
	const struct resp_arg *pattern = &call->argv[matches->arg];
	bool exact = true;
	for (size_t i = 0; exact && i < pattern->bytes; i++) {
		exact = pattern->data[i] != '*' && pattern->data[i] != '?' &&
			pattern->data[i] != '[';
	}
	if (exact) {
		size_t index = config_all_find(pattern);
		if (index < config_all_count()) {
			config_match_add(matches, index, pattern);
		}
		return !commands_cut(call);
	}
	for (; matches->option < config_all_count(); matches->option++) {
		size_t index = matches->option;
		const char *name = config_all_name(index);
		if (index % CONFIG_CLOCK_EVERY == 0 && commands_cut(call)) {
			return false;
		}
		bool hidden = index < config_count() ? config_option(index)->flag
						     : config_names_hidden(index - config_count());
		if (!hidden && !matches->known[index] &&
		    glob_match(pattern->data, pattern->bytes, name, strlen(name), true)) {
			config_match_add(matches, index, NULL);
		}
	}
	return true;
}

void commands_config_get(struct call *call)
{
	struct config_matches *matches = commands_state(call, sizeof(*matches), NULL);
	if (!matches) {
		return;
	}
	matches->arg = matches->arg ? matches->arg : 2;
	for (; matches->arg < call->argc; matches->arg++) {
		bool fits = commands_arg_pattern(call, &call->argv[matches->arg]);
		if (!fits || !config_match(call, matches)) {
			return;
		}
		matches->option = 0;
	}
	// All at once: these are the values of one moment.
	reply_map(call->session, matches->count);
	for (size_t i = 0; i < matches->count; i++) {
		char value[CONFIG_VALUE_BYTES];
		config_all_value(call->kvd, matches->index[i], value, sizeof(value));
		if (matches->typed[i]) {
			reply_bulk(call->session, matches->typed[i]->data,
				   matches->typed[i]->bytes);
		} else {
			reply_text(call->session, config_all_name(matches->index[i]));
		}
		reply_text(call->session, value);
	}
}

// ---- SET ----

/// Which option the pair at argv[i] is about, behind the `n` that were found before. False:
/// answered.
static bool config_set_find(struct call *call, uint32_t i, size_t *found, size_t n)
{
	char name[COMMANDS_EXCERPT_BYTES];
	char error[CONFIG_ERROR_BYTES];
	size_t own = config_count();
	size_t index = config_all_find(&call->argv[i]);
	(void)commands_excerpt(&call->argv[i], name);
	if (index == config_all_count()) {
		commands_errorf(call,
				"ERR Unknown option or number of arguments for CONFIG SET - '%s'",
				name);
		return false;
	}
	bool settable = index < own || config_names_settable(index - own, error, sizeof(error));
	for (size_t k = 0; settable && k < n; k++) {
		if (found[k] == index) {
			(void)snprintf(error, sizeof(error), "duplicate parameter");
			settable = false;
		}
	}
	if (!settable) {
		commands_errorf(call,
				"ERR CONFIG SET failed (possibly related to argument '%s') - %s",
				name, error);
	}
	found[n] = index;
	return settable;
}

/// An own option. One that cannot change may be set to what it is.
static bool config_set_own(const struct kvd *kvd, struct config_change *change, size_t index,
			   const char *text, char *error, size_t error_bytes)
{
	char now[CONFIG_VALUE_BYTES];
	config_value(&kvd->config, index, now, sizeof(now));
	if (!config_option(index)->dynamic && strcmp(now, text) == 0) {
		return true;
	}
	// Redis knows one level more.
	bool verbose = config_option(index)->offset == offsetof(struct config, log_level) &&
		       strcasecmp(text, "verbose") == 0;
	return config_change_set(change, index, verbose ? "info" : text, error, error_bytes);
}

/// Checks one pair and notes an own option in `change`. False: `error` says why.
static bool config_set_one(const struct call *call, struct config_change *change, size_t index,
			   const struct resp_arg *value, char *error, size_t error_bytes)
{
	size_t own = config_count();
	char *text = strndup(value->data, value->bytes);
	bool good = false;
	if (!text) {
		(void)snprintf(error, error_bytes, "out of memory");
		change->no_memory = true;
	} else if (value->bytes >= CONFIG_VALUE_BYTES || strlen(text) != value->bytes) {
		(void)snprintf(error, error_bytes, "argument is too long, or has a NUL in it");
	} else if (index < own) {
		good = config_set_own(call->kvd, change, index, text, error, error_bytes);
	} else if (config_names_is_others(index - own)) {
		good = config_names_change(change, text, error, error_bytes);
	} else {
		good = config_names_check(call->kvd, index - own, text, error, error_bytes);
	}
	free(text);
	return good;
}

/// Everything was checked: Redis's names are kept, kvd's own options are in force.
static void config_set_commit(struct call *call, const size_t *found, struct config_change *change)
{
	size_t own = config_count();
	for (uint32_t i = 2; i < call->argc; i += 2) {
		size_t index = found[(i - 2) / 2];
		const struct resp_arg *value = &call->argv[i + 1];
		char *text = index >= own ? strndup(value->data, value->bytes) : NULL;
		if (text) {
			config_names_put(call->kvd, index - own, text);
		}
		free(text);
	}
	config_change_commit(change, &call->kvd->config);
	for (size_t i = 0; i < own; i++) {
		if (change->set[i]) {
			call->kvd->config_changed[i] = true;
			log_notice("%s was set by client %llu (pid %d, uid %u)", config_name(i),
				   (unsigned long long)call->session->id, (int)call->session->pid,
				   (unsigned)call->session->uid);
		}
	}
	config_live_apply(call->kvd);
}

/// config_live_check(), cut where it has to look at all keys.
static enum config_live config_set_check(struct call *call, struct config_change *change,
					 size_t *blamed, char error[CONFIG_ERROR_BYTES])
{
	const struct kvd *kvd = call->kvd;
	enum config_live fits =
		config_live_check(kvd, change, NULL, blamed, error, CONFIG_ERROR_BYTES);
	if (fits != CONFIG_LIVE_COUNTING) {
		return fits;
	}
	struct keyspace_stays *stays = commands_state(call, sizeof(*stays), NULL);
	while (stays && fits == CONFIG_LIVE_COUNTING) {
		fits = config_live_check(kvd, change, stays, blamed, error, CONFIG_ERROR_BYTES);
		if (fits == CONFIG_LIVE_COUNTING && commands_cut(call)) {
			break;
		}
	}
	return fits;
}

void commands_config_set(struct call *call)
{
	struct config_change change;
	size_t found[CONFIG_ALL_MAX];
	char error[CONFIG_ERROR_BYTES] = "";
	char name[COMMANDS_EXCERPT_BYTES] = "";
	if (call->argc % 2 != 0 || call->argc / 2 > CONFIG_ALL_MAX) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	for (uint32_t i = 2; i < call->argc; i += 2) {
		if (!config_set_find(call, i, found, (i - 2) / 2)) {
			return;
		}
	}
	config_change_begin(&change, &call->kvd->config);
	bool good = true;
	for (uint32_t i = 2; good && i < call->argc; i += 2) {
		size_t index = found[(i - 2) / 2];
		(void)snprintf(name, sizeof(name), "%s", config_all_name(index));
		good = config_set_one(call, &change, index, &call->argv[i + 1], error,
				      sizeof(error));
	}
	size_t blamed = config_count();
	enum config_live fits =
		good ? config_set_check(call, &change, &blamed, error) : CONFIG_LIVE_REFUSED;
	if (fits == CONFIG_LIVE_COUNTING) {
		config_change_abort(&change);
		return; // cut, or answered
	}
	if (good && fits == CONFIG_LIVE_REFUSED) {
		good = false;
		if (blamed < config_count()) {
			(void)snprintf(name, sizeof(name), "%s", config_name(blamed));
		}
	}
	if (!good) {
		config_change_abort(&change);
		commands_errorf(call,
				"%s CONFIG SET failed (possibly related to argument '%s') - %s",
				change.no_memory ? "OOM" : "ERR", name, error);
		return;
	}
	config_set_commit(call, found, &change);
	reply_ok(call->session);
}

// ---- the rest ----

/// What a REWRITE keeps while its file is written.
struct config_rewriting {
	struct kvd *kvd;
	bool begun;
};

static void config_rewriting_end(void *state)
{
	const struct config_rewriting *mine = state;
	if (mine->begun) {
		config_rewriter_leave(mine->kvd->config_rewriter, mine);
	}
}

static void config_rewritten(void *context)
{
	const struct kvd *kvd = context;
	session_rest_told(kvd->sessions);
}

/// Its connection rests until a rewriting is over, and it is asked again.
static void config_rewrite_wait(struct call *call)
{
	session_rest_await(call->session);
	call->again = true;
}

static void config_rewrite_begin(struct call *call, struct config_rewriting *mine)
{
	char error[CONFIG_ERROR_BYTES] = "out of memory, or of files";
	struct kvd *kvd = call->kvd;
	bool busy = false;
	mine->kvd = kvd;
	if (!kvd->config_rewriter) {
		kvd->config_rewriter =
			config_rewriter_create(kvd->seam, kvd->loop, config_rewritten, kvd);
	}
	mine->begun = kvd->config_rewriter &&
		      config_rewriter_begin(kvd->config_rewriter, mine, &kvd->config,
					    kvd->config_changed, &busy, error, sizeof(error));
	if (mine->begun || busy) {
		config_rewrite_wait(call);
	} else {
		commands_errorf(call, "ERR Rewriting config file: %s", error);
	}
}

void commands_config_rewrite(struct call *call)
{
	char error[CONFIG_ERROR_BYTES];
	const struct kvd *kvd = call->kvd;
	bool good;
	if (!kvd->config.config_path || !*kvd->config.config_path) {
		commands_error(call, "ERR The server is running without a config file");
		return;
	}
	if (call->in_exec) {
		commands_error(call, "ERR CONFIG REWRITE waits for the disk, a transaction cannot");
		return;
	}
	struct config_rewriting *mine = commands_state(call, sizeof(*mine), config_rewriting_end);
	if (!mine) {
		return;
	}
	if (!mine->begun) {
		config_rewrite_begin(call, mine);
	} else if (!config_rewriter_take(kvd->config_rewriter, mine, &good, error, sizeof(error))) {
		config_rewrite_wait(call);
	} else if (!good) {
		log_warning("CONFIG REWRITE: %s", error);
		commands_errorf(call, "ERR Rewriting config file: %s", error);
	} else {
		log_notice("%s was rewritten by client %llu (pid %d, uid %u)",
			   kvd->config.config_path, (unsigned long long)call->session->id,
			   (int)call->session->pid, (unsigned)call->session->uid);
		reply_ok(call->session);
	}
}

void commands_config_resetstat(struct call *call)
{
	stats_reset(call->kvd->stats);
	loop_longest_reset(call->kvd->loop);
	reply_ok(call->session);
}

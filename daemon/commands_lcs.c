// SPDX-License-Identifier: MIT
//
// LCS: the longest common subsequence of two values. The work is in lcs.c; here are the options,
// and the bound that Redis puts on the memory it would take.
#include <stdlib.h>

#include "daemon/commands.h"
#include "daemon/lcs.h"

#define LCS_CELLS_A_STEP (UINT64_C(4) << 20)

struct lcs_options {
	bool length;
	bool index;
	bool with_lengths;
	int64_t shortest;
};

static bool lcs_parse(struct call *call, struct lcs_options *options)
{
	*options = (struct lcs_options){ 0 };
	for (uint32_t i = 3; i < call->argc; i++) {
		const struct resp_arg *word = &call->argv[i];
		if (commands_arg_is(word, "idx")) {
			options->index = true;
		} else if (commands_arg_is(word, "len")) {
			options->length = true;
		} else if (commands_arg_is(word, "withmatchlen")) {
			options->with_lengths = true;
		} else if (commands_arg_is(word, "minmatchlen") && i + 1 < call->argc) {
			if (!commands_arg_int(call, &call->argv[++i], &options->shortest, NULL)) {
				return false;
			}
		} else {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
	}
	if (options->length && options->index) {
		commands_error(call, "ERR If you want both the length and indexes, please just use "
				     "IDX.");
		return false;
	}
	return true;
}

struct lcs_matches {
	struct session *session;
	const struct lcs_options *options;
	size_t count;
};

static void lcs_reply_pair(struct session *session, uint32_t start, uint32_t length)
{
	reply_array(session, 2);
	reply_integer(session, start);
	reply_integer(session, (int64_t)start + length - 1);
}

static void lcs_reply_match(void *context, const struct lcs_range *range)
{
	struct lcs_matches *matches = context;
	if ((int64_t)range->length < matches->options->shortest) {
		return;
	}
	matches->count++;
	reply_array(matches->session, matches->options->with_lengths ? 3 : 2);
	lcs_reply_pair(matches->session, range->a, range->length);
	lcs_reply_pair(matches->session, range->b, range->length);
	if (matches->options->with_lengths) {
		reply_integer(matches->session, range->length);
	}
}

static void lcs_reply(struct call *call, const struct lcs *lcs, const struct lcs_options *options)
{
	struct session *session = call->session;
	uint32_t length = lcs_length(lcs);
	if (options->length) {
		reply_integer(session, length);
		return;
	}
	if (options->index) {
		struct lcs_matches matches = { .session = session, .options = options };
		reply_map(session, 2);
		reply_text(session, "matches");
		uint64_t mark = reply_deferred_begin(session);
		lcs_walk(lcs, NULL, lcs_reply_match, &matches);
		reply_deferred_end(session, mark, matches.count);
		reply_text(session, "len");
		reply_integer(session, length);
		return;
	}
	unsigned char *subsequence = malloc((size_t)length + 1);
	if (!subsequence) {
		commands_error(call, COMMANDS_TEXT_OOM);
		return;
	}
	lcs_walk(lcs, subsequence, NULL, NULL);
	reply_bulk(session, subsequence, length);
	free(subsequence);
}

/// Copies of both values, one behind the other: the work may outlast them.
static unsigned char *lcs_copies(struct call *call, size_t a_bytes, size_t b_bytes)
{
	struct keyspace_value value;
	unsigned char *copies = malloc(a_bytes + b_bytes + 1);
	if (copies && a_bytes > 0 && commands_peek(call, 1, &value)) {
		memcpy(copies, value.value, a_bytes);
	}
	if (copies && b_bytes > 0 && commands_peek(call, 2, &value)) {
		memcpy(copies + a_bytes, value.value, b_bytes);
	}
	return copies;
}

void commands_lcs_lcs(struct call *call)
{
	struct keyspace_value a;
	struct keyspace_value b;
	struct lcs_options options;
	size_t a_bytes = commands_lookup(call, 1, &a) ? a.value_bytes : 0;
	size_t b_bytes = commands_lookup(call, 2, &b) ? b.value_bytes : 0;
	if (!lcs_parse(call, &options)) {
		return;
	}
	// Redis's table of 32-bit numbers, whose size it bounds; ours is a 32nd of it.
	uint64_t table_bytes = ((uint64_t)a_bytes + 1) * (b_bytes + 1) * 4;
	if (table_bytes > keyspace_value_bytes_max(call->kvd->keyspace)) {
		commands_error(call, "ERR Insufficient memory, transient memory for LCS exceeds "
				     "proto-max-bulk-len");
		return;
	}
	unsigned char *copies = lcs_copies(call, a_bytes, b_bytes);
	struct lcs *lcs =
		copies ? lcs_begin(copies, a_bytes, copies + a_bytes, b_bytes, !options.length)
		       : NULL;
	if (lcs) {
		while (lcs_step(lcs, LCS_CELLS_A_STEP)) {
		}
		lcs_reply(call, lcs, &options);
	} else {
		commands_error(call, "ERR Insufficient memory, failed allocating transient memory "
				     "for LCS");
	}
	lcs_free(lcs);
	free(copies);
}

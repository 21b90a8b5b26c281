// SPDX-License-Identifier: MIT
//
// LATENCY: spikes, and how long each command takes. kvd times one call in many, so histograms hold
// a sample of the calls; with latency-monitor-threshold set, all of them.
#include "daemon/commands.h"

#include <inttypes.h>

#include "daemon/text.h"

#define LATENCY_TEXT_BYTES_MAX (64u << 10)
#define LATENCY_GRAPH_COLUMNS 80u
#define LATENCY_GRAPH_ROWS 4u
#define LATENCY_NAMES_EVERY 16u // between two looks at the clock

/// The event an argument names, LATENCY_EVENTS if there is none, or nothing of it happened.
static enum latency_event latency_arg_event(const struct call *call, uint32_t index)
{
	unsigned event = 0;
	while (event < LATENCY_EVENTS &&
	       !(call->kvd->stats->latency.series[event] &&
		 commands_arg_is(&call->argv[index],
				 latency_event_name((enum latency_event)event)))) {
		event++;
	}
	return (enum latency_event)event;
}

void commands_latency_history(struct call *call)
{
	enum latency_event event = latency_arg_event(call, 2);
	if (event == LATENCY_EVENTS) {
		reply_array(call->session, 0);
		return;
	}
	const struct latency_series *series = call->kvd->stats->latency.series[event];
	uint64_t mark = reply_deferred_begin(call->session);
	size_t count = 0;
	for (unsigned i = 0; i < LATENCY_SAMPLES; i++) {
		struct latency_sample sample = latency_sample(series, i);
		if (sample.time_s > 0) {
			reply_array(call->session, 2);
			reply_integer(call->session, (int64_t)sample.time_s);
			reply_integer(call->session, (int64_t)sample.ms);
			count++;
		}
	}
	reply_deferred_end(call->session, mark, count);
}

void commands_latency_latest(struct call *call)
{
	const struct latency *latency = &call->kvd->stats->latency;
	uint64_t mark = reply_deferred_begin(call->session);
	size_t count = 0;
	for (unsigned event = 0; event < LATENCY_EVENTS; event++) {
		const struct latency_series *series = latency->series[event];
		if (series) {
			struct latency_sample last = latency_sample(series, LATENCY_SAMPLES - 1);
			reply_array(call->session, 4);
			reply_text(call->session, latency_event_name((enum latency_event)event));
			reply_integer(call->session, (int64_t)last.time_s);
			reply_integer(call->session, (int64_t)last.ms);
			reply_integer(call->session, (int64_t)series->max_ms);
			count++;
		}
	}
	reply_deferred_end(call->session, mark, count);
}

void commands_latency_reset(struct call *call)
{
	struct latency *latency = &call->kvd->stats->latency;
	struct commands_walk *walk = commands_walk(call);
	uint64_t named = call->argc > 2 ? call->argc - 2 : LATENCY_EVENTS;
	for (; walk && walk->at < named; walk->at++) {
		if (walk->at % LATENCY_NAMES_EVERY == 0 && commands_cut(call)) {
			return;
		}
		enum latency_event event = call->argc > 2
						   ? latency_arg_event(call, (uint32_t)walk->at + 2)
						   : (enum latency_event)walk->at;
		walk->count += event < LATENCY_EVENTS && latency_reset(latency, event);
	}
	if (walk) {
		reply_integer(call->session, (int64_t)walk->count);
	}
}

// ---- pictures and words ----

static void latency_reply_text(struct call *call, struct text *text)
{
	reply_verbatim(call->session, text->data ? text->data : "", text->bytes);
	text_fini(text);
}

/// How long ago, as short as it can be said.
static void latency_ago(struct text *text, uint64_t seconds)
{
	if (seconds < 60) {
		text_printf(text, "%" PRIu64 "s", seconds);
	} else if (seconds < 3600) {
		text_printf(text, "%" PRIu64 "m", seconds / 60);
	} else if (seconds < 86400) {
		text_printf(text, "%" PRIu64 "h", seconds / 3600);
	} else {
		text_printf(text, "%" PRIu64 "d", seconds / 86400);
	}
}

/// What one spike puts into one row, of which 0 is the top: full below it, part of it, or nothing.
static char latency_graph_byte(uint64_t above_least, uint64_t span, unsigned row)
{
	const unsigned steps = 3 * LATENCY_GRAPH_ROWS;
	unsigned level = (unsigned)(above_least * (steps - 1) / (span > 0 ? span : 1));
	unsigned base = (LATENCY_GRAPH_ROWS - 1 - row) * 3;
	if (level < base) {
		return ' ';
	}
	return level - base < 3 ? "_o#"[level - base] : '|';
}

void commands_latency_graph(struct call *call)
{
	enum latency_event event = latency_arg_event(call, 2);
	if (event == LATENCY_EVENTS) {
		char name[COMMANDS_EXCERPT_BYTES];
		commands_errorf(call, "ERR No samples available for event '%s'",
				commands_excerpt(&call->argv[2], name));
		return;
	}
	const struct latency_series *series = call->kvd->stats->latency.series[event];
	struct latency_sample shown[LATENCY_GRAPH_COLUMNS];
	unsigned count = 0;
	uint64_t least = UINT64_MAX;
	uint64_t most = 0;
	for (unsigned i = LATENCY_SAMPLES - LATENCY_GRAPH_COLUMNS; i < LATENCY_SAMPLES; i++) {
		struct latency_sample sample = latency_sample(series, i);
		if (sample.time_s > 0) {
			shown[count++] = sample;
			least = sample.ms < least ? sample.ms : least;
			most = sample.ms > most ? sample.ms : most;
		}
	}
	struct text text;
	text_init(&text, LATENCY_TEXT_BYTES_MAX);
	text_printf(&text,
		    "%s - high %" PRIu64 " ms, low %" PRIu64 " ms (all time high %" PRIu64 " ms)\n",
		    latency_event_name(event), most, least, series->max_ms);
	for (unsigned row = 0; row < LATENCY_GRAPH_ROWS; row++) {
		for (unsigned i = 0; i < count; i++) {
			char byte = latency_graph_byte(shown[i].ms - least, most - least, row);
			text_add(&text, &byte, 1);
		}
		text_add(&text, "\n", 1);
	}
	uint64_t now_s = call->kvd->seam->wall_ms() / 1000;
	latency_ago(&text, now_s - shown[0].time_s);
	text_printf(&text, " ago to ");
	latency_ago(&text, now_s - shown[count - 1].time_s);
	text_printf(&text, " ago\n");
	latency_reply_text(call, &text);
}

static const char *latency_remedy(enum latency_event event)
{
	if (event == LATENCY_COLD_LOAD) {
		return "The disk is slow, or many values are wanted at once: more memory keeps "
		       "more of them there, kvctl memory tells how many are not.";
	}
	return "Look at SLOWLOG GET for the commands, and at kvctl stats for the longest turn of "
	       "kvd's loop.";
}

void commands_latency_doctor(struct call *call)
{
	const struct latency *latency = &call->kvd->stats->latency;
	struct text text;
	bool any = false;
	text_init(&text, LATENCY_TEXT_BYTES_MAX);
	for (unsigned event = 0; event < LATENCY_EVENTS; event++) {
		const struct latency_series *series = latency->series[event];
		if (series) {
			struct latency_sample last = latency_sample(series, LATENCY_SAMPLES - 1);
			any = true;
			text_printf(&text, "%s: worst %" PRIu64 " ms, last %" PRIu64 " ms. %s\n",
				    latency_event_name((enum latency_event)event), series->max_ms,
				    last.ms, latency_remedy((enum latency_event)event));
		}
	}
	if (!any && call->kvd->config.latency_ms == 0) {
		text_printf(&text, "Nothing is watched: set latency-monitor-threshold to the "
				   "milliseconds that are too long.\n");
	} else if (!any) {
		text_printf(&text, "Nothing took %" PRIu64 " ms or more.\n",
			    call->kvd->config.latency_ms);
	}
	latency_reply_text(call, &text);
}

// ---- histograms ----

/// Counts below each power of two of microseconds, from the first that has any to the last.
static void latency_reply_histogram(struct session *session, const struct command *command,
				    const struct stats_command *numbers)
{
	static const struct latency_histogram none; // CONFIG RESETSTAT came in between
	const struct latency_histogram *histogram = numbers->histogram ? numbers->histogram : &none;
	reply_text(session, command->name);
	reply_map(session, 2);
	reply_text(session, "calls");
	reply_integer(session, (int64_t)numbers->calls);
	reply_text(session, "histogram_usec");
	uint64_t mark = reply_deferred_begin(session);
	size_t pairs = 0;
	uint64_t below = 0;
	uint64_t told = 0;
	unsigned step = 0;
	for (uint64_t micros = 1; told < histogram->total; micros *= 2) {
		while (step < LATENCY_STEPS && latency_step_end(step) <= micros * 1024) {
			below += histogram->counts[step++];
		}
		below = step == LATENCY_STEPS ? histogram->total : below;
		if (below > told) {
			reply_integer(session, (int64_t)micros);
			reply_integer(session, (int64_t)below);
			told = below;
			pairs++;
		}
	}
	reply_deferred_map_end(session, mark, pairs);
}

/// Which commands were timed when the call began: those that are now, between two slices, are not
/// in the number of pairs that stands at the head of the reply.
struct latency_histograms {
	struct commands_walk walk;
	bool timed[COMMANDS_ROWS_COUNT];
};

/// A command and what is below it, as far as they were timed; told if `tell`. Returns their number.
static size_t latency_reply_command(struct call *call, const struct latency_histograms *all,
				    const struct command *command, bool tell)
{
	size_t subs;
	size_t first = commands_index(command);
	size_t timed = 0;
	(void)commands_subcommands(command, &subs);
	for (size_t i = first; i <= first + subs; i++) {
		if (all->timed[i] && tell) {
			latency_reply_histogram(call->session, command + (i - first),
						&call->kvd->stats->commands[i]);
		}
		timed += all->timed[i];
	}
	return timed;
}

/// The `i`-th of the commands that are asked for, NULL if it is none.
static const struct command *latency_named(const struct call *call, uint64_t i)
{
	size_t count;
	const struct command *table = command_table(&count);
	if (call->argc > 2) {
		return command_find(call->argv[i + 2].data, call->argv[i + 2].bytes);
	}
	return strchr(table[i].name, '|') ? NULL : &table[i];
}

/// Counts or tells what was asked for. False: cut.
static bool latency_walk(struct call *call, struct latency_histograms *all, bool tell)
{
	struct commands_walk *walk = &all->walk;
	uint64_t named = call->argc > 2 ? call->argc - 2 : COMMANDS_ROWS_COUNT;
	for (; walk->at < named; walk->at++) {
		if ((tell || walk->at % LATENCY_NAMES_EVERY == 0) && commands_cut(call)) {
			return false;
		}
		const struct command *command = latency_named(call, walk->at);
		walk->count += command ? latency_reply_command(call, all, command, tell) : 0;
	}
	return true;
}

void commands_latency_histogram(struct call *call)
{
	struct latency_histograms *all = commands_state(call, sizeof(*all), NULL);
	if (!all) {
		return;
	}
	for (size_t i = 0; all->walk.phase == 0 && i < COMMANDS_ROWS_COUNT; i++) {
		all->timed[i] = call->kvd->stats->commands[i].histogram != NULL;
	}
	if (all->walk.phase < 2) {
		all->walk.phase = 1;
		if (!latency_walk(call, all, false)) {
			return;
		}
		reply_map(call->session, all->walk.count);
		all->walk = (struct commands_walk){ .phase = 2 };
	}
	(void)latency_walk(call, all, true);
}

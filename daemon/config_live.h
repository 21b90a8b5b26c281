// SPDX-License-Identifier: MIT
//
// What follows when options change while kvd runs: parts of kvd that keep values of their own are
// told. Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct config_change;
struct keyspace_stays;
struct kvd;

enum config_live {
	CONFIG_LIVE_FITS,
	CONFIG_LIVE_REFUSED,  // `error` tells why, and *index which option it is about
	CONFIG_LIVE_COUNTING, // call again: it is being looked up what has to stay in memory
};

/// Could kvd live with these values? Brings them into the form in which they are told back. `stays`
/// is the same in each call, and zero at first; NULL = nothing is looked up yet.
enum config_live config_live_check(const struct kvd *kvd, struct config_change *change,
				   struct keyspace_stays *stays, size_t *index, char *error,
				   size_t error_bytes);

/// What is done when memory is full, as kvd->config says; a part of config_live_apply().
void config_live_eviction(struct kvd *kvd);

/// The options of kvd->config are others than before: every part works by them from now on.
void config_live_apply(struct kvd *kvd);

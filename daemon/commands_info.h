// SPDX-License-Identifier: MIT
//
// INFO's sections that have a file of their own.
#pragma once

#include <stddef.h>

struct kvd;
struct text;

/// What Redis counts of things that kvd never does, by section: lines with 0, because exporters
/// look for them.
void commands_info_never(struct text *text, const char *section);
/// A line about a command by its index, if it was called: how often, how long, how often in vain.
void commands_info_commandstats(const struct kvd *kvd, struct text *text, size_t command);
/// A line for each code that errors began with.
void commands_info_errorstats(const struct kvd *kvd, struct text *text);
/// A line about a command by its index, if its times were kept: the percentiles that the
/// configuration names.
void commands_info_latencystats(const struct kvd *kvd, struct text *text, size_t command);

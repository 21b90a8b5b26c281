// SPDX-License-Identifier: MIT
//
// INFO's sections that have a file of their own.
#pragma once

struct kvd;
struct text;

/// A line for each command that was called: how often, how long, how often in vain.
void commands_info_commandstats(const struct kvd *kvd, struct text *text);
/// A line for each code that errors began with.
void commands_info_errorstats(const struct kvd *kvd, struct text *text);
/// A line for each command whose times were kept: the percentiles that the configuration names.
void commands_info_latencystats(const struct kvd *kvd, struct text *text);

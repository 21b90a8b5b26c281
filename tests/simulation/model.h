// SPDX-License-Identifier: MIT
//
// The model's map, as the commands of model_run.c change it.
#pragma once

#include "tests/simulation/sim.h"

unsigned sim_model_find(const char *name, size_t bytes);
/// `value` NULL removes.
void sim_model_change(unsigned index, const struct sim_value *value, uint64_t expire_ms);
/// How many there were: a time stamp of the model.
uint64_t sim_model_changes(void);

/// A request that runs.
struct sim_run_of {
	struct sim_client *client;
	const struct sim_request *request;
	uint64_t now_ms;
	struct sim_text *reply;
};

/// The key that an argument names.
unsigned sim_run_key(const struct sim_run_of *run, unsigned argument);
/// Is it there for this request?
bool sim_run_visible(const struct sim_run_of *run, unsigned index);

void sim_run_watch(const struct sim_run_of *run);
void sim_run_unwatch(const struct sim_run_of *run);
void sim_run_multi(const struct sim_run_of *run);
void sim_run_discard(const struct sim_run_of *run);
void sim_run_exec(const struct sim_run_of *run);

// SPDX-License-Identifier: MIT
//
// How the judges of doctor.tbl.h say what they find. A finding says what is, in figures; its remedy
// what to do, in words that can be typed.
#pragma once

#include "tools/doctor.h"

#define X(function, name, help) \
	void judge_##function(const struct doctor_facts *facts, struct doctor_finding *finding);
#include "tools/doctor.tbl.h"
#undef X

void doctor_say(struct doctor_finding *finding, enum doctor_state state, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void doctor_advise(struct doctor_finding *finding, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/// A size as text; four live at a time, which is as many as a sentence has.
const char *doctor_size(int64_t bytes);
/// Is kvd down? Then that is said.
bool doctor_is_down(const struct doctor_facts *facts, struct doctor_finding *finding);
/// Is `word` among those, the last of which NULL follows?
bool doctor_is_among(const char *word, const char *const *words);

// SPDX-License-Identifier: MIT
//
// The probe: a child process that reads a store from end to end before kvd touches it. LMDB trusts
// its file and can crash on a damaged one; in a child, without the region and without a lock, a
// crash is just an answer.
#pragma once

#include <stddef.h>

/// The option that main() must hand to store_probe_child() before it does anything else.
#define STORE_PROBE_OPTION "--probe-store"

/// The child's whole work: walks the store in `dir`, writes one line to standard output if
/// something is wrong, and returns the exit code.
int store_probe_child(const char *dir);

/// Runs this program as `kvd --probe-store dir` and waits. Returns STORE_OK (also when there is no
/// store yet, unless one was being restored) or an enum store_error with `why` filled: what is
/// wrong and the remedy.
/// Call with: no environment open on that store. Thread must: any; before threads are started is
/// best.
int store_probe(const char *dir, char *why, size_t why_bytes);

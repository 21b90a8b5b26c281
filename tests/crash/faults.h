// SPDX-License-Identifier: MIT
//
// The page that the calls of faults.c and whoever tests with them share. faults_scenarios.py knows
// its layout.
#pragma once

#include <stdint.h>

struct faults {
	_Atomic uint64_t armed;	     // 0 = nothing is counted
	_Atomic uint64_t calls;	     // since then
	_Atomic uint64_t fail_at;    // this one fails; 0 = none
	_Atomic uint64_t fail_count; // and those behind it, in all
	_Atomic uint64_t seed;	     // which of its failures
	_Atomic uint64_t failed;     // how many did
	_Atomic uint64_t error;	     // of the first; 0 = it did less than was asked for
	_Atomic uint64_t where;	     // who called, from the start of `module`
	_Atomic uint64_t syncs_fail; // so many syncs of files fail, beside those that are counted
	_Atomic int64_t blocks;	     // of memory, in use
	char name[32];
	char module[32];
};

/// NULL: nothing is counted, nothing fails. A program that links faults.c sets it itself; preloaded
/// the file that KVD_FAULTS names is mapped.
extern struct faults *faults;

/// From now on nothing is counted and nothing fails.
void faults_rest(void);

// SPDX-License-Identifier: MIT
//
// Active expiry: keys whose time has come are found by walking the table a little at a time, faster
// while many are found, so that memory comes back although nobody asks for them.
#pragma once

#include <stdint.h>

struct keyspace;

/// One slice, if one is due. Returns when the next is (monotonic), UINT64_MAX if no key has an
/// expiry.
uint64_t expire_turn(struct keyspace *keyspace, uint64_t now_ns);

/// A key was given this time to expire: a walk must find it then.
void expire_expect(struct keyspace *keyspace, uint64_t expiry_ms);

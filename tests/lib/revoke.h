// SPDX-License-Identifier: MIT
//
// Revoking in one go, for tests that want to see the result at once.
#pragma once

#include "shm/epoch_scan.h"

/// Looks at all pages, revokes who holds back `stamp` for longer than the deadlines, and lets go of
/// what those held. Returns how many sections were revoked.
static inline size_t revoke_all(struct kvs_epoch_domain *domain, uint64_t stamp, uint64_t now_ns,
				uint64_t deadline_ns, uint64_t short_ns)
{
	const struct kvs_epoch_deadlines deadlines = { .stamp = stamp,
						       .deadline_ns = deadline_ns,
						       .short_ns = short_ns };
	uint64_t before = domain->revocations;
	(void)kvs_epoch_pass(domain, now_ns, SIZE_MAX, &deadlines);
	return (size_t)(domain->revocations - before);
}

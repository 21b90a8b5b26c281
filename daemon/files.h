// SPDX-License-Identifier: MIT
//
// How the descriptors that the process may have are shared out: kvd's own, with some in reserve for
// what it opens while it runs, those on their way to clients, and for each client its socket and
// the pidfd of its process. A bound on clients that the process cannot keep would be none: whoever
// comes first would take the descriptors of everybody else.
#pragma once

#include <stdint.h>

struct files_shares {
	uint64_t limit;	      // of the process
	uint64_t clients;     // for connections and for processes that are watched, together
	uint64_t clients_max; // connections at most, those kept for root aside
	uint64_t flight_max;  // descriptors on their way to clients
	uint64_t flight_kept; // of them, those that only root and kvd's own user may use
};

/// The shares of `limit` descriptors; each is at least what one client needs.
struct files_shares files_share(uint64_t limit);
/// Processes that can be watched beside so many connections.
uint64_t files_attached_max(const struct files_shares *shares, uint64_t clients_max);
/// RLIMIT_NOFILE as it is now. Any thread.
uint64_t files_limit(void);
/// Raises it as far as it goes without privilege.
void files_raise(void);

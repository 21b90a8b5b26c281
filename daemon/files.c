// SPDX-License-Identifier: MIT
//
// Shares of the descriptors; see files.h.
#include "daemon/files.h"

#include <sys/resource.h>

#include "daemon/log.h"
#include "shm/limits.h"

#define FILES_OF_KVD 32u       // it has half as many open when it serves
#define FILES_ATTACH 3u	       // what one attachment sends
#define FILES_FLIGHT_PART 4u   // of all that may be on their way
#define FILES_FLIGHT_MAX 4096u // more are never on their way to those who read
#define FILES_FLIGHT_KEPT (KVS_CLIENTS_RESERVED * FILES_ATTACH)

static uint64_t files_at_least(uint64_t number, uint64_t least)
{
	return number > least ? number : least;
}

struct files_shares files_share(uint64_t limit)
{
	struct files_shares shares = { .limit = limit };
	uint64_t part = limit / FILES_FLIGHT_PART;
	part = part < FILES_FLIGHT_MAX ? part : FILES_FLIGHT_MAX;
	shares.flight_max = files_at_least(part, (uint64_t)2 * FILES_ATTACH);
	uint64_t kept = shares.flight_max / 4;
	shares.flight_kept = kept < FILES_FLIGHT_KEPT ? kept : FILES_FLIGHT_KEPT;
	uint64_t others = FILES_OF_KVD + shares.flight_max + 2 * (uint64_t)KVS_CLIENTS_RESERVED;
	uint64_t left = limit > others ? limit - others : 0;
	shares.clients = files_at_least(left, 2);
	// Who is not watched reads through its socket; who is not connected does nothing.
	shares.clients_max = files_at_least(left / 3 * 2, 1);
	return shares;
}

uint64_t files_attached_max(const struct files_shares *shares, uint64_t clients_max)
{
	uint64_t left = shares->clients > clients_max ? shares->clients - clients_max : 1;
	return left + KVS_CLIENTS_RESERVED;
}

uint64_t files_limit(void)
{
	struct rlimit files;
	return getrlimit(RLIMIT_NOFILE, &files) == 0 ? (uint64_t)files.rlim_cur : UINT64_MAX;
}

void files_raise(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == files.rlim_max) {
		return;
	}
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) != 0) {
		log_notice("cannot raise the limit on open files to %llu: %m",
			   (unsigned long long)files.rlim_max);
	}
}

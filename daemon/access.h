// SPDX-License-Identifier: MIT
//
// Who may do what: lists of users and groups, one a right (allow-attach, allow-write, allow-admin,
// quota-exempt), against what the kernel says of who connected. Names are looked up when a list is
// parsed, never while somebody is served.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Rights, as bits; daemon/access.tbl.h has their options.
enum access_right {
	ACCESS_ATTACH = 1 << 0, // map the shared memory
	ACCESS_WRITE = 1 << 1,	// change keys, publish
	ACCESS_ADMIN = 1 << 2,	// change kvd, and other users' connections
	ACCESS_EXEMPT = 1 << 3, // no quota holds
	ACCESS_ALL = (1 << 4) - 1,
};
#define ACCESS_RIGHTS 4u

/// Who asks, as the kernel knew it when it connected.
struct access_peer {
	uint32_t uid;
	uint32_t gid;
	const uint32_t *groups; // supplementary
	size_t groups_count;
};

struct access;

/// Parses one list a right, in the order of their bits: words separated by blanks or commas, each
/// `*`, user:NAME, user:NUMBER, group:NAME or group:NUMBER, or `none` alone; NULL stands for `*`.
/// NULL if memory is short or a list is wrong: `error` says what and the remedy, *wrong which list.
struct access *access_create(const char *const lists[ACCESS_RIGHTS], unsigned *wrong, char *error,
			     size_t error_bytes);
/// NULL is fine.
void access_destroy(struct access *access);

/// Is `text` a list? 0; or `error` has one line, and it is EINVAL, or the errno with which a name
/// could not be looked up: ENOMEM says nothing about the list.
int access_check(const char *text, char *error, size_t error_bytes);

/// Does any list name a group? If not, peers need no supplementary groups.
bool access_wants_groups(const struct access *access);

/// The rights of a peer. Root and `own_uid`, kvd's, have all: they could as well stop kvd.
uint32_t access_rights(const struct access *access, const struct access_peer *peer,
		       uint32_t own_uid);

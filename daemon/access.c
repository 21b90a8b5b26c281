// SPDX-License-Identifier: MIT
//
// Lists of users and groups; see access.h. They are short, and looked at once a connection.
#include "daemon/access.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/remedy.h"

#define ACCESS_WORD_BYTES_MAX 256u
#define ACCESS_NAME_BYTES_MAX 65536u // of a user's or group's entry, members included
#define ACCESS_SEPARATORS " \t,"

enum access_kind { ACCESS_EVERYBODY, ACCESS_USER, ACCESS_GROUP };

struct access_entry {
	enum access_kind kind;
	uint32_t id;
};

struct access_list {
	struct access_entry *entries;
	size_t count;
};

struct access {
	struct access_list lists[ACCESS_RIGHTS];
	bool wants_groups;
};

/// A decimal id; (uid_t)-1 is nobody's.
static bool access_number(const char *text, uint32_t *id)
{
	uint64_t number = 0;
	size_t digits = strlen(text);
	if (digits == 0 || digits > 10 || strspn(text, "0123456789") != digits) {
		return false;
	}
	for (; *text; text++) {
		number = number * 10 + (uint64_t)(*text - '0');
	}
	*id = (uint32_t)number;
	return number < UINT32_MAX;
}

/// Looks a name up. 0, ENOENT if there is none of that name, or another errno.
static int access_name(enum access_kind kind, const char *name, uint32_t *id)
{
	char *buffer = malloc(ACCESS_NAME_BYTES_MAX);
	struct passwd user, *found_user = NULL;
	struct group group, *found_group = NULL;
	int error = ENOMEM;
	if (buffer && kind == ACCESS_USER) {
		error = getpwnam_r(name, &user, buffer, ACCESS_NAME_BYTES_MAX, &found_user);
	} else if (buffer) {
		error = getgrnam_r(name, &group, buffer, ACCESS_NAME_BYTES_MAX, &found_group);
	}
	if (found_user) {
		*id = found_user->pw_uid;
	} else if (found_group) {
		*id = found_group->gr_gid;
	} else if (error == 0 || error == ESRCH || error == EBADF || error == EPERM) {
		error = ENOENT; // what getpwnam(3) lists for it
	}
	free(buffer);
	return error;
}

/// One word, which is not `none`. 0, or as access_check().
static int access_word(const char *word, struct access_entry *entry, char *error,
		       size_t error_bytes)
{
	static const struct {
		const char *prefix;
		const char *what;
		const char *number;
		enum access_kind kind;
	} kinds[] = { { "user:", "user", "uid", ACCESS_USER },
		      { "group:", "group", "gid", ACCESS_GROUP } };
	*entry = (struct access_entry){ .kind = ACCESS_EVERYBODY };
	if (strcmp(word, "*") == 0) {
		return 0;
	}
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		size_t bytes = strlen(kinds[i].prefix);
		const char *name = word + bytes;
		if (strncmp(word, kinds[i].prefix, bytes) != 0 || !*name) {
			continue;
		}
		entry->kind = kinds[i].kind;
		int failure = access_number(name, &entry->id)
				      ? 0
				      : access_name(entry->kind, name, &entry->id);
		if (failure == ENOENT) {
			(void)snprintf(error, error_bytes,
				       "there is no %s '%s' on this machine: create it, or give "
				       "its %s",
				       kinds[i].what, name, kinds[i].number);
			failure = EINVAL;
		} else if (failure == ENOMEM) {
			(void)snprintf(error, error_bytes,
				       "out of memory while %s '%s' is looked up; %s",
				       kinds[i].what, name, remedy_of_errno(ENOMEM));
		} else if (failure != 0) {
			(void)snprintf(
				error, error_bytes, "%s '%s' cannot be looked up (%s): give its %s",
				kinds[i].what, name, strerrordesc_np(failure), kinds[i].number);
		}
		return failure;
	}
	(void)snprintf(error, error_bytes,
		       "'%s' is none of *, none, user:NAME, user:UID, group:NAME, group:GID", word);
	return EINVAL;
}

static bool access_add(struct access_list *list, struct access_entry entry)
{
	struct access_entry *entries =
		realloc(list->entries, (list->count + 1) * sizeof(*list->entries));
	if (!entries) {
		return false;
	}
	list->entries = entries;
	entries[list->count++] = entry;
	return true;
}

// Without a `list` it only looks: that needs memory for nothing but the look-up of a name.
static int access_parse(const char *text, struct access_list *list, char *error, size_t error_bytes)
{
	const char *at = text ? text : "*";
	size_t words = 0;
	bool none = false;
	while (*(at += strspn(at, ACCESS_SEPARATORS))) {
		char word[ACCESS_WORD_BYTES_MAX];
		size_t bytes = strcspn(at, ACCESS_SEPARATORS);
		if (bytes >= sizeof(word)) {
			(void)snprintf(error, error_bytes, "'%.40s…' is too long for a name", at);
			return EINVAL;
		}
		memcpy(word, at, bytes);
		word[bytes] = '\0';
		at += bytes;
		struct access_entry entry;
		words++;
		none = none || strcmp(word, "none") == 0;
		if (none && words > 1) {
			(void)snprintf(error, error_bytes,
				       "'none' stands alone: leave it out, or the others");
			return EINVAL;
		}
		if (none) {
			continue;
		}
		int failure = access_word(word, &entry, error, error_bytes);
		if (failure != 0) {
			return failure;
		}
		if (list && !access_add(list, entry)) {
			(void)snprintf(error, error_bytes, "out of memory");
			return ENOMEM;
		}
	}
	if (words == 0) {
		(void)snprintf(error, error_bytes,
			       "an empty list: write none for nobody, * for everybody");
		return EINVAL;
	}
	return 0;
}

struct access *access_create(const char *const lists[ACCESS_RIGHTS], unsigned *wrong, char *error,
			     size_t error_bytes)
{
	struct access *access = calloc(1, sizeof(*access));
	*wrong = 0;
	if (!access) {
		(void)snprintf(error, error_bytes, "out of memory");
		return NULL;
	}
	for (unsigned i = 0; i < ACCESS_RIGHTS; i++) {
		struct access_list *list = &access->lists[i];
		if (access_parse(lists[i], list, error, error_bytes) != 0) {
			*wrong = i;
			access_destroy(access);
			return NULL;
		}
		for (size_t j = 0; j < list->count; j++) {
			access->wants_groups |= list->entries[j].kind == ACCESS_GROUP;
		}
	}
	return access;
}

void access_destroy(struct access *access)
{
	for (unsigned i = 0; access && i < ACCESS_RIGHTS; i++) {
		free(access->lists[i].entries);
	}
	free(access);
}

int access_check(const char *text, char *error, size_t error_bytes)
{
	return access_parse(text, NULL, error, error_bytes);
}

bool access_wants_groups(const struct access *access)
{
	return access->wants_groups;
}

static bool access_is_in_group(const struct access_peer *peer, uint32_t gid)
{
	bool found = peer->gid == gid;
	for (size_t i = 0; i < peer->groups_count && !found; i++) {
		found = peer->groups[i] == gid;
	}
	return found;
}

static bool access_has(const struct access_list *list, const struct access_peer *peer)
{
	bool found = false;
	for (size_t i = 0; i < list->count && !found; i++) {
		const struct access_entry *entry = &list->entries[i];
		found = entry->kind == ACCESS_EVERYBODY ||
			(entry->kind == ACCESS_USER && entry->id == peer->uid) ||
			(entry->kind == ACCESS_GROUP && access_is_in_group(peer, entry->id));
	}
	return found;
}

uint32_t access_rights(const struct access *access, const struct access_peer *peer,
		       uint32_t own_uid)
{
	uint32_t rights = 0;
	if (peer->uid == 0 || peer->uid == own_uid) {
		return ACCESS_ALL;
	}
	for (unsigned i = 0; i < ACCESS_RIGHTS; i++) {
		rights |= access_has(&access->lists[i], peer) ? 1u << i : 0u;
	}
	return rights;
}

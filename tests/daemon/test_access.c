// SPDX-License-Identifier: MIT
//
// Lists of users and groups: which are accepted, what is said of the others, and whom they mean.
#include "daemon/access.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/daemon/no_memory_for_names.h"
#include "tests/tap/tap.h"

#define OWN_UID 77u

static struct access *make(const char *attach, const char *write, const char *admin)
{
	const char *const lists[ACCESS_RIGHTS] = { attach, write, admin, "none" };
	char error[256];
	unsigned wrong;
	struct access *access = access_create(lists, &wrong, error, sizeof(error));
	if (!access) {
		tap_diag("%s", error);
		abort();
	}
	return access;
}

static uint32_t rights_of(const struct access *access, uint32_t uid, uint32_t gid,
			  const uint32_t *groups, size_t count)
{
	const struct access_peer peer = {
		.uid = uid, .gid = gid, .groups = groups, .groups_count = count
	};
	return access_rights(access, &peer, OWN_UID);
}

static void test_words(void)
{
	static const char *const good[] = { "*",
					    "none",
					    "user:5",
					    "group:0",
					    "user:root",
					    "group:root",
					    " user:1,group:2\t,, user:3 " };
	static const struct {
		const char *text;
		const char *says;
	} bad[] = {
		{ "root", "none of" },
		{ "user:", "none of" },
		{ "uid:5", "none of" },
		{ "user:1 nobody-s", "'nobody-s'" },
		{ "user:4294967295", "no user" }, // (uid_t)-1
		{ "user:99999999999", "no user" },
		{ "user:-1", "no user" },
		{ "group:no such", "no group" },
		{ "**", "none of" },
		{ "none *", "'none' stands alone" },
		{ "user:1,none", "'none' stands alone" },
		{ "", "empty" },
		{ " , ", "empty" },
	};
	char error[256];
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		error[0] = '\0';
		ok(access_check(good[i], error, sizeof(error)) == 0, "'%s' is a list %s", good[i],
		   error);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ok(access_check(bad[i].text, error, sizeof(error)) == EINVAL &&
			   strstr(error, bad[i].says),
		   "'%s' is none: %s", bad[i].text, error);
	}
	char *longest = calloc(1, 2000);
	memset(longest, 'x', 1999);
	ok(access_check(longest, error, sizeof(error)) == EINVAL, "nor is a word of 1999 bytes: %s",
	   error);
	free(longest);
}

static void test_rights(void)
{
	const uint32_t groups[] = { 10, 20 };
	struct access *access = make("*", "user:5 group:20", "group:30, user:6");
	ok(rights_of(access, 0, 0, NULL, 0) == ACCESS_ALL, "H: root may do everything");
	ok(rights_of(access, OWN_UID, 0, NULL, 0) == ACCESS_ALL, "H: so may kvd's own user");
	ok(rights_of(access, 4, 4, NULL, 0) == ACCESS_ATTACH, "H: others what all may");
	ok(rights_of(access, 5, 4, NULL, 0) == (ACCESS_ATTACH | ACCESS_WRITE), "H: by its uid");
	ok(rights_of(access, 4, 20, NULL, 0) == (ACCESS_ATTACH | ACCESS_WRITE), "H: by its gid");
	ok(rights_of(access, 4, 4, groups, 2) == (ACCESS_ATTACH | ACCESS_WRITE),
	   "H: by a supplementary group");
	ok(rights_of(access, 4, 4, groups, 1) == ACCESS_ATTACH, "H: but not by another");
	ok(rights_of(access, 20, 5, NULL, 0) == ACCESS_ATTACH, "H: a uid is no gid");
	ok(rights_of(access, 6, 30, groups, 1) == (ACCESS_ATTACH | ACCESS_ADMIN), "H: by both");
	ok(access_wants_groups(access), "groups are asked for if a list names some");
	access_destroy(access);
	access = make("none", "user:5", NULL);
	ok(rights_of(access, 5, 5, NULL, 0) == (ACCESS_WRITE | ACCESS_ADMIN),
	   "none is nobody, no list is everybody");
	ok(!access_wants_groups(access), "groups are not asked for without need");
	access_destroy(access);
	const char *const lists[ACCESS_RIGHTS] = { "*", "*", "who", "*" };
	char error[256];
	unsigned wrong = 0;
	ok(!access_create(lists, &wrong, error, sizeof(error)) && wrong == 2,
	   "which list is wrong is told");
}

static void test_memory(void)
{
	char error[256];
	short_of_memory = true;
	ok_int(access_check("user:root", error, sizeof(error)), ENOMEM,
	       "no memory is not called a wrong name");
	ok(strstr(error, "out of memory") && strstr(error, "'root'"), "but what it is: %s", error);
	ok_int(access_check("user:0", error, sizeof(error)), 0, "a number needs none");
	short_of_memory = false;
}

int main(void)
{
	test_memory();
	test_words();
	test_rights();
	return tap_done();
}

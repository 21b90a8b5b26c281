// SPDX-License-Identifier: MIT
//
// Options that change while kvd runs: lists of users whose names cannot be looked up for lack of
// memory are not called wrong.
#include "daemon/config_live.h"

#include <string.h>

#include "daemon/config_set.h"
#include "tests/daemon/no_memory_for_names.h"
#include "tests/tap/tap.h"

/// As CONFIG SET of one pair. *index is what is blamed.
static bool check(const struct config *config, const char *option, const char *text,
		  struct config_change *change, size_t *index, char error[512])
{
	size_t wanted = config_find(option, strlen(option));
	config_change_begin(change, config);
	bool good = config_change_set(change, wanted, text, error, 512) &&
		    config_live_check(NULL, change, NULL, index, error, 512) == CONFIG_LIVE_FITS;
	config_change_abort(change);
	return good;
}

static void test_lists(const struct config *config)
{
	static const char *const options[] = { "allow-attach", "allow-write", "allow-admin",
					       "quota-exempt" };
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		struct config_change change;
		char error[512] = "";
		size_t index = 0;
		size_t own = config_find(options[i], strlen(options[i]));
		ok(check(config, options[i], "user:root", &change, &index, error), "%s: a list %s",
		   options[i], error);
		ok(!check(config, options[i], "user:no-such-user", &change, &index, error) &&
			   !change.no_memory && index == own,
		   "%s: a wrong name is the list's fault: %s", options[i], error);
		short_of_memory = true;
		ok(!check(config, options[i], "user:root", &change, &index, error) &&
			   change.no_memory && strstr(error, "out of memory"),
		   "G: %s: no memory for it is not: %s", options[i], error);
		short_of_memory = false;
	}
}

int main(void)
{
	struct config config;
	char error[512];
	const char *const argv[] = { "kvd", "--dir", "/tmp", NULL };
	enum config_action action = config_parse(&config, 3, (char **)argv, error, sizeof(error));
	if (ok(action == CONFIG_RUN, "a configuration")) {
		test_lists(&config);
	}
	config_fini(&config);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// kvd's entry: what was asked for, then start, serve, stop; or have a child do that, and watch it.
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "daemon/config.h"
#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "daemon/reclaim.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/service.h"
#include "daemon/signals.h"
#include "daemon/storage/probe.h"
#include "daemon/storage/verify.h"
#include "daemon/supervise.h"

#define FAILED_PAUSE_S 1 // systemd would start it ten times a second

static int supervise(struct config *config, int argc, char **argv)
{
	log_init((enum log_level)config->log_level);
	config_fini(config); // the child reads it all anew
	(void)config_arguments_without(argc, argv, "supervise");
	return supervise_run(&seam_system, argv);
}

// Whoever kept the descriptors that this life was given gives up kvd, and them, for codes that
// last: he is told another, and can try again when somebody has changed what is wrong.
static int failed(int code, bool is_given)
{
	if (!is_given || !remedy_is_lasting(code)) {
		return code;
	}
	(void)fprintf(stderr,
		      "kvd: the memory of the life before stays kept: the exit code is %d instead "
		      "of %d, so that kvd is started again until this is mended\n",
		      EX_UNAVAILABLE, code);
	struct timespec pause = { .tv_sec = FAILED_PAUSE_S };
	(void)nanosleep(&pause, NULL);
	return EX_UNAVAILABLE;
}

int main(int argc, char **argv)
{
	// The store's probe is this program again, as a child without region or lock.
	if (argc == 3 && strcmp(argv[1], STORE_PROBE_OPTION) == 0) {
		return store_probe_child(argv[2]);
	}
	// And so is who reads it for a verification.
	if (argc == 4 && strcmp(argv[1], VERIFY_OPTION) == 0) {
		return store_verify_child(argv[2], argv[3]);
	}
	// A stop waits until all is there that an orderly one needs.
	if (signals_hold(NULL) != 0) { // unreached: the set is a valid one.
		return EX_OSERR;
	}
	bool is_given = fdstore_is_given();
	struct config config;
	char error[512];
	enum config_action action = config_parse(&config, argc, argv, error, sizeof(error));
	if (action != CONFIG_RUN) {
		config_fini(&config);
	}
	switch (action) {
	case CONFIG_HELP:
		config_help();
		return 0;
	case CONFIG_VERSION:
		printf("kvd %s\n", KVD_VERSION);
		return 0;
	case CONFIG_USAGE_ERROR:
		(void)fprintf(stderr, "kvd: %s\n", error);
		return failed(EX_USAGE, is_given);
	case CONFIG_NO_MEMORY:
		(void)fprintf(stderr, "kvd: %s\n", error);
		return EX_OSERR;
	default:
		break;
	}
	if (config.supervise) {
		return supervise(&config, argc, argv);
	}
	reclaim_map_large();
	struct service *service;
	int code = service_start(&service, &config);
	if (code != 0) {
		return failed(code, is_given);
	}
	code = service_run(service);
	int stop_code = service_stop(service);
	return code != 0 ? code : stop_code;
}

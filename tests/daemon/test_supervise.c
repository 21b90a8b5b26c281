// SPDX-License-Identifier: MIT
//
// The two decisions of the supervisor: whether a child is started again, and when. What it does
// with processes is in tests/system/supervise.py.
#include "daemon/supervise.h"

#include <signal.h>
#include <stddef.h>

#include "tests/tap/tap.h"

#define EXITED(code) ((code) << 8)
#define KILLED(signal) (signal)
#define CORE 0x80

static const struct {
	struct supervise_end end;
	bool again;
	int code;
	const char *what;
} cases[] = {
	{ { .status = EXITED(0) }, false, 0, "an end in order" },
	{ { .status = EXITED(0), .ready = true }, false, 0, "the same of one that served" },
	{ { .status = KILLED(SIGKILL) }, true, 137, "a kill at its start" },
	{ { .status = KILLED(SIGSEGV) | CORE, .ready = true }, true, 139, "a crash" },
	{ { .status = KILLED(SIGTERM), .ready = true }, true, 143, "SIGTERM, without order" },
	{ { .status = KILLED(SIGKILL), .told = true }, false, 137, "a kill when told to stop" },
	{ { .status = KILLED(SIGKILL), .told = true, .keeps = true, .last = 9 },
	  true,
	  137,
	  "the same while a region is kept" },
	{ { .status = KILLED(SIGKILL), .told = true, .keeps = true, .last = 10 },
	  false,
	  137,
	  "the same once too often" },
	{ { .status = EXITED(EX_OSERR), .told = true, .keeps = true },
	  true,
	  71,
	  "no memory, when told to stop while a region is kept" },
	{ { .status = EXITED(EX_CONFIG), .told = true, .keeps = true },
	  true,
	  78,
	  "settings that do not fit then" },
	{ { .status = EXITED(0), .told = true, .keeps = true }, false, 0, "an end in order then" },
	{ { .status = EXITED(EX_IOERR), .told = true, .keeps = true, .stopping = true },
	  false,
	  74,
	  "a stop then that could not make all durable" },
	{ { .status = KILLED(SIGKILL), .stopping = true }, true, 137, "a kill while it stops" },
	{ { .status = EXITED(EX_USAGE) }, false, 64, "an unknown option" },
	{ { .status = EXITED(EX_DATAERR) }, false, 65, "a damaged store" },
	{ { .status = EXITED(EX_CANTCREAT) }, false, 73, "a folder that is in use" },
	{ { .status = EXITED(EX_TEMPFAIL) }, false, 75, "a signal at its start" },
	{ { .status = EXITED(EX_NOPERM) }, false, 77, "permissions" },
	{ { .status = EXITED(EX_CONFIG) }, false, 78, "settings that do not fit" },
	{ { .status = EXITED(EX_CONFIG), .ready = true }, true, 78, "that of one that served" },
	{ { .status = EXITED(EX_CONFIG), .keeps = true },
	  true,
	  78,
	  "that of one whose region is kept" },
	{ { .status = EXITED(EX_OSERR) }, true, 71, "no memory" },
	{ { .status = EXITED(EX_IOERR) }, true, 74, "a full disk" },
	{ { .status = EXITED(EX_SOFTWARE) }, true, 70, "a mistake of its own" },
	{ { .status = EXITED(1) }, true, 1, "whatever that is" },
	{ { .status = EXITED(EX_IOERR), .ready = true, .stopping = true },
	  false,
	  74,
	  "a stop that could not make all durable" },
	{ { .status = EXITED(EX_OSERR), .told = true }, false, 71, "any, when told to stop" },
};

static void again(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ok(supervise_again(&cases[i].end) == cases[i].again, "%s: %s", cases[i].what,
		   cases[i].again ? "started again" : "not started again");
		ok_int(supervise_code(cases[i].end.status), cases[i].code, "and its exit code");
	}
}

static void delays(void)
{
	static const uint64_t expected_ms[] = { 0,   0,	  10,	20,   40,   80,	  160,
						320, 640, 1280, 2560, 5000, 5000, 5000 };
	for (unsigned i = 0; i < sizeof(expected_ms) / sizeof(expected_ms[0]); i++) {
		ok_u64(supervise_delay_ms(i), expected_ms[i], "death %u", i);
	}
	ok_u64(supervise_delay_ms(UINT32_MAX), 5000, "and for ever");
}

int main(void)
{
	again();
	delays();
	return tap_done();
}

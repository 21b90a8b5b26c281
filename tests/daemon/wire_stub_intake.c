// SPDX-License-Identifier: MIT
//
// What sessions ask of the keyspace, and of commands, about large values that are received where
// they will stand; see wire_stub.h.
#include <string.h>

#include "daemon/command.h"
#include "daemon/keyspace.h"
#include "daemon/keyspace_intake.h"
#include "daemon/reply.h"
#include "shm/crc32c.h"
#include "tests/daemon/wire_stub.h"

unsigned char stub_arrived[STUB_LARGE_BYTES];

bool keyspace_intake_is_large(const struct keyspace *keyspace, size_t value_bytes)
{
	(void)keyspace;
	return value_bytes > STUB_INTAKE_LEAST && value_bytes <= STUB_LARGE_BYTES;
}

int keyspace_intake_begin(struct keyspace *keyspace, struct keyspace_intake *intake,
			  size_t value_bytes)
{
	(void)keyspace;
	stub.intakes_asked++;
	if (!stub.intakes || stub.intake_result != KEYSPACE_OK) {
		return stub.intakes ? stub.intake_result : KEYSPACE_FULL;
	}
	*intake = (struct keyspace_intake){ .run_offset = 1, .bytes = value_bytes };
	memset(stub_arrived, 0, sizeof(stub_arrived));
	stub.intakes_open++;
	return KEYSPACE_OK;
}

unsigned char *keyspace_intake_room(struct keyspace *keyspace, struct keyspace_intake *intake,
				    size_t *bytes)
{
	(void)keyspace;
	uint64_t step = STUB_INTAKE_STEP - intake->done % STUB_INTAKE_STEP;
	uint64_t left = intake->bytes - intake->done;
	*bytes = step < left ? step : left;
	return stub.machine_full ? NULL : stub_arrived + intake->done;
}

void keyspace_intake_came(struct keyspace *keyspace, struct keyspace_intake *intake, size_t bytes)
{
	(void)keyspace;
	intake->done += bytes;
}

const unsigned char *keyspace_intake_value(const struct keyspace *keyspace,
					   const struct keyspace_intake *intake)
{
	(void)keyspace, (void)intake;
	return stub_arrived;
}

void keyspace_intake_end(struct keyspace *keyspace, struct keyspace_intake *intake)
{
	(void)keyspace;
	stub.intakes_open -= intake->run_offset != 0;
	*intake = (struct keyspace_intake){ 0 };
}

const struct command *command_find(const char *name, size_t bytes)
{
	static const struct command set = { .name = "set",
					    .arity = -3,
					    .flags = COMMAND_WRITE | COMMAND_TAKES_VALUE,
					    .key_step = 1 };
	static const struct command mset = { .name = "mset",
					     .arity = -3,
					     .flags = COMMAND_WRITE | COMMAND_TAKES_VALUE,
					     .key_step = 2 };
	if (bytes == 4 && memcmp(name, "MSET", 4) == 0) {
		return &mset;
	}
	return bytes == 3 && memcmp(name, "SET", 3) == 0 ? &set : NULL;
}

enum command_outcome stub_set(struct session *session, const struct resp_arg *argv, uint32_t argc)
{
	if (stub.set_outcome != COMMAND_DONE && !session->no_wait) {
		stub.parks++;
		return stub.set_outcome;
	}
	stub.set_crc = 0;
	for (uint32_t i = 2; i < argc; i += 2) {
		stub.set_crc = kvs_crc32c(stub.set_crc, argv[i].data, argv[i].bytes);
	}
	stub.set_arrived = argv[2].data == (const char *)stub_arrived;
	stub.last_seq++;
	reply_ok(session);
	return COMMAND_DONE;
}

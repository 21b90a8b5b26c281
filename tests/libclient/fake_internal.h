// SPDX-License-Identifier: MIT
//
// What the parts of the fake kvd share: one connection, and how to add to its output.
#pragma once

#include "shm/resp.h"
#include "tests/libclient/fake.h"

struct fake_connection {
	int fd;
	char *in;
	size_t in_bytes, in_capacity;
	struct resp_request_state state;
	struct resp_request request;
	char *out;
	size_t out_bytes, out_capacity;
	int fds[8];
	unsigned fds_count; // ride on the next send
	bool multi;
	size_t queued;
	char *queue; // GETV replies of a transaction, ready
	size_t queue_bytes, queue_capacity;
};

/// Ends the test: the fake itself does not work.
__attribute__((noreturn)) void fake_bail(const char *what);
void fake_grow(char **data, size_t *capacity, size_t needed);
void fake_append(struct fake_connection *c, const void *data, size_t bytes);
__attribute__((format(printf, 2, 3))) void fake_say(struct fake_connection *c, const char *format,
						    ...);

/// Runs the request in c->request. False: hang up.
bool fake_run(struct fake *fake, struct fake_connection *c);

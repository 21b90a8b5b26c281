// SPDX-License-Identifier: MIT
//
// Descriptors and connections, for net.c, which moves their bytes, and net_calls.c, which is what
// kvd calls.
#pragma once

#include <sys/epoll.h>

#include "tests/simulation/sim.h"

#define CONN_FDS_MAX 8u

enum sim_fd_kind {
	FD_FREE,
	FD_EPOLL,
	FD_EVENT,
	FD_SIGNAL,
	FD_TIMER, // of wall time: count > 0 = it was set
	FD_PROCESS,
	FD_CONN,
	FD_DOOR,
};

struct sim_conn {
	struct sim_client *client;
	int pid;
	uint32_t uid;
	bool *dead;	      // its process
	struct sim_text wire; // sent, not yet there
	struct sim_text arrived;
	struct sim_text back; // from kvd
	size_t room;	      // of `back`
	int fd;		      // at kvd's side, -1 = not accepted
	bool closed;	      // by the client
	bool reset;
	bool gone; // kvd's side
	int fds[CONN_FDS_MAX];
	unsigned fds_count;
	struct sim_conn *next; // that wait to be accepted
};

struct sim_fd {
	enum sim_fd_kind kind;
	int real; // of a door
	struct sim_conn *conn;
	const bool *dead; // of a process
	uint64_t count;	  // of an eventfd or a timer
	bool watched;
	bool edge; // something happened since it was told
	uint32_t events;
	epoll_data_t data;
};

/// NULL for a real descriptor that is not a door.
struct sim_fd *sim_fd_find(int fd);
int sim_fd_new(enum sim_fd_kind kind);
/// What level-triggered epoll would say.
uint32_t sim_fd_level(const struct sim_fd *fd);
void sim_text_drop(struct sim_text *text, size_t count);
/// The next that waits at the door; NULL = nobody does.
struct sim_conn *sim_conn_accept(void);

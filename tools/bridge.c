// SPDX-License-Identifier: MIT
//
// Two flows a pair. Bytes are read into one shared buffer and written at once; only what the other
// side does not take is kept, in memory that lives until it is taken. Events are edge-triggered and
// registered once: after each, both flows go on until neither can.
#include "tools/bridge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BRIDGE_ROUNDS_MAX 16 // a turn's reads of each flow: 1 MiB, then it is another's turn

/// One direction.
struct bridge_flow {
	int from_fd;
	int to_fd;
	char *waiting; // owned, NULL while nothing waits
	size_t begin;  // what waits is waiting[begin, end)
	size_t end;
	bool ended; // no more bytes come
	bool told;  // the receiver was told that
	bool gone;  // the receiver is: what comes is dropped
};

struct bridge_pair {
	struct bridge_flow requests; // client to kvd
	struct bridge_flow replies;  // kvd to client
	struct bridge_pair *next;
	struct bridge_pair **link; // what points here in the list of all
	struct bridge_pair *again_next;
	bool is_again;
	bool has_ended;
};

enum bridge_step {
	BRIDGE_IDLE, // nothing to be done until something happens
	BRIDGE_MORE,
	BRIDGE_FAILED, // no memory
};

static bool bridge_would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static void bridge_flow_drop(struct bridge_flow *flow)
{
	free(flow->waiting);
	flow->waiting = NULL;
	flow->gone = true;
}

// Writes as much as the receiver takes. Returns how much that was; a receiver that is gone takes
// everything.
static size_t bridge_write(struct bridge_flow *flow, const char *data, size_t bytes)
{
	size_t done = 0;
	while (done < bytes && !flow->gone) {
		ssize_t count =
			send(flow->to_fd, data + done, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (count >= 0) {
			done += (size_t)count;
		} else if (errno != EINTR && bridge_would_block()) {
			return done;
		} else if (errno != EINTR) {
			bridge_flow_drop(flow);
		}
	}
	return bytes;
}

static bool bridge_keep(struct bridge_flow *flow, const char *data, size_t bytes)
{
	assert(!flow->waiting && bytes <= BRIDGE_WAITING_BYTES_MAX);
	flow->waiting = malloc(bytes);
	if (!flow->waiting) {
		return false;
	}
	memcpy(flow->waiting, data, bytes);
	flow->begin = 0;
	flow->end = bytes;
	return true;
}

// Writes what waits. True if nothing does any more.
static bool bridge_flush(struct bridge_flow *flow)
{
	if (flow->waiting) {
		flow->begin +=
			bridge_write(flow, flow->waiting + flow->begin, flow->end - flow->begin);
	}
	if (flow->waiting && flow->begin == flow->end) {
		free(flow->waiting);
		flow->waiting = NULL;
	}
	return !flow->waiting;
}

static enum bridge_step bridge_step(struct bridge *bridge, struct bridge_flow *flow)
{
	if (!bridge_flush(flow) || flow->ended) {
		return BRIDGE_IDLE;
	}
	// Without room for ancillary data the kernel closes descriptors that somebody sends.
	ssize_t count = recv(flow->from_fd, bridge->buffer, sizeof bridge->buffer, MSG_DONTWAIT);
	if (count < 0 && bridge_would_block()) {
		return errno == EINTR ? BRIDGE_MORE : BRIDGE_IDLE;
	}
	if (count <= 0) {
		flow->ended = true;
		return BRIDGE_IDLE;
	}
	size_t bytes = (size_t)count, done = bridge_write(flow, bridge->buffer, bytes);
	if (done == bytes) {
		return BRIDGE_MORE;
	}
	return bridge_keep(flow, bridge->buffer + done, bytes - done) ? BRIDGE_IDLE : BRIDGE_FAILED;
}

static enum bridge_step bridge_flow_serve(struct bridge *bridge, struct bridge_flow *flow)
{
	enum bridge_step step = BRIDGE_MORE;
	for (int round = 0; round < BRIDGE_ROUNDS_MAX && step == BRIDGE_MORE; round++) {
		step = bridge_step(bridge, flow);
	}
	return step;
}

static void bridge_end(struct bridge *bridge, struct bridge_pair *pair)
{
	close(pair->requests.from_fd);
	close(pair->requests.to_fd);
	free(pair->requests.waiting);
	free(pair->replies.waiting);
	*pair->link = pair->next;
	if (pair->next) {
		pair->next->link = pair->link;
	}
	pair->has_ended = true;
	pair->next = bridge->ended;
	bridge->ended = pair;
	bridge->connections--;
}

// Is there nothing left to carry? kvd never ends its replies while it still reads, so their end is
// that of the connection. Closing with requests unread resets the client's, as kvd itself would.
static bool bridge_is_over(const struct bridge_pair *pair)
{
	const struct bridge_flow *requests = &pair->requests, *replies = &pair->replies;
	if (replies->ended && !replies->waiting) {
		return true;
	}
	return replies->gone && (requests->gone || (requests->ended && !requests->waiting));
}

void bridge_serve(struct bridge *bridge, struct bridge_pair *pair)
{
	if (pair->has_ended) {
		return;
	}
	struct bridge_flow *requests = &pair->requests;
	enum bridge_step asked = BRIDGE_IDLE;
	if (!requests->gone) {
		asked = bridge_flow_serve(bridge, requests);
	}
	enum bridge_step answered = bridge_flow_serve(bridge, &pair->replies);
	if (asked == BRIDGE_FAILED || answered == BRIDGE_FAILED || bridge_is_over(pair)) {
		bridge_end(bridge, pair);
		return;
	}
	if (requests->ended && !requests->waiting && !requests->gone && !requests->told) {
		requests->told = true;
		if (shutdown(requests->to_fd, SHUT_WR) != 0) {
			requests->gone = true;
		}
	}
	if ((asked == BRIDGE_MORE || answered == BRIDGE_MORE) && !pair->is_again) {
		pair->is_again = true;
		pair->again_next = bridge->again;
		bridge->again = pair;
	}
}

bool bridge_turn(struct bridge *bridge)
{
	struct bridge_pair *again = bridge->again;
	bridge->again = NULL;
	while (again) {
		struct bridge_pair *pair = again;
		again = pair->again_next;
		pair->is_again = false;
		bridge_serve(bridge, pair);
	}
	while (bridge->ended) {
		struct bridge_pair *pair = bridge->ended;
		bridge->ended = pair->next;
		free(pair);
	}
	return bridge->again != NULL;
}

static bool bridge_watch(struct bridge *bridge, struct bridge_pair *pair, int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
				     .data.ptr = pair };
	return epoll_ctl(bridge->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool bridge_open(struct bridge *bridge, int client_fd, int kvd_fd)
{
	struct bridge_pair *pair = calloc(1, sizeof *pair);
	if (!pair || !bridge_watch(bridge, pair, client_fd) ||
	    !bridge_watch(bridge, pair, kvd_fd)) {
		free(pair);
		close(client_fd);
		close(kvd_fd);
		return false;
	}
	pair->requests.from_fd = pair->replies.to_fd = client_fd;
	pair->requests.to_fd = pair->replies.from_fd = kvd_fd;
	pair->next = bridge->pairs;
	pair->link = &bridge->pairs;
	if (pair->next) {
		pair->next->link = &pair->next;
	}
	bridge->pairs = pair;
	bridge->connections++;
	return true;
}

void bridge_close(struct bridge *bridge)
{
	while (bridge->pairs) {
		bridge_end(bridge, bridge->pairs);
	}
	bridge->again = NULL;
	(void)bridge_turn(bridge);
}

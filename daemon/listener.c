// SPDX-License-Identifier: MIT
//
// Binding, accepting, refusing. A descriptor is kept in reserve: when the process has no other
// left, it is given up to accept the next connection and tell it so, instead of leaving it to
// hang in the queue while epoll reports it for ever.

#include "daemon/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/kvd.h"
#include "daemon/listener_door.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/refuse.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"
#include "shm/limits.h"

#define LISTENER_ACCEPTS_A_TURN 64
#define LISTENER_CLOCK_EVERY 8 // of them between two looks at the clock
#define LISTENER_PAUSE_NS UINT64_C(100000000)

static void listener_refuse(struct listener *listener, int fd, const char *text)
{
	session_say(listener->kvd->seam, fd, text);
	close(fd);
	session_count_up(listener->sessions, KVS_COUNTER_connections_rejected, 1);
}

/// Who connects, as far as the kernel tells.
static struct refused listener_peer(int fd)
{
	struct ucred peer = { .uid = UINT32_MAX };
	socklen_t length = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
		log_warning("cannot learn who connects: %m");
	}
	return (struct refused){ .uid = peer.uid, .pid = peer.pid };
}

static bool listener_watch(struct listener *listener, uint32_t events)
{
	bool good = true;
	for (int i = 0; i < LISTENER_DOORS; i++) {
		struct listener_door *door = &listener->doors[i];
		good = (!door->is_open ||
			loop_modify(listener->kvd->loop, &door->source, events) == 0) &&
		       good;
	}
	return good;
}

static void listener_pause_over(struct loop_timer *timer, uint64_t now_ns)
{
	(void)now_ns;
	struct listener *listener =
		(struct listener *)(void *)((char *)timer - offsetof(struct listener, pause));
	if (!listener_watch(listener, EPOLLIN)) {
		log_error("cannot listen again (epoll: %m): restart kvd");
	}
}

/// Level-triggered epoll would report the waiting connection again and again.
static void listener_pause(struct listener *listener)
{
	struct loop *loop = listener->kvd->loop;
	if (loop_timer_set(loop, &listener->pause, loop_now_ns(loop) + LISTENER_PAUSE_NS) &&
	    !listener_watch(listener, 0)) {
		log_error(
			"cannot pause accepting (epoll: %m): kvd may use CPU until a descriptor is "
			"free");
	}
}

/// The process (or the system) has no descriptor left.
static void listener_out_of_descriptors(struct listener *listener, int listening_fd)
{
	int error = errno;
	if (listener->reserve_fd >= 0) {
		close(listener->reserve_fd);
		int fd = listener->kvd->seam->accept4(listening_fd, NULL, NULL,
						      SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			struct refused who = listener_peer(fd);
			refuse_peer(listener->kvd, REFUSAL_NO_DESCRIPTOR, &who,
				    "no file descriptor is left (%s): raise the limit "
				    "(LimitNOFILE=, ulimit -n) or lower maxclients",
				    strerrordesc_np(error));
			listener_refuse(listener, fd, "-ERR max number of clients reached\r\n");
		}
		listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			return;
		}
	} else {
		log_error("no file descriptor is left (%s), and none in reserve: connections wait; "
			  "raise the limit (LimitNOFILE=, ulimit -n) or lower maxclients",
			  strerrordesc_np(error));
		listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	listener_pause(listener);
}

/// Root and kvd's own user are not bounded by what is for all others: they could as well stop kvd,
/// and whoever is to find out who leaves connections open has to get in.
static bool listener_is_bounded(const struct refused *who)
{
	return who->uid != 0 && who->uid != geteuid();
}

static bool listener_is_full(const struct listener *listener, const struct refused *who)
{
	uint64_t reserved = listener_is_bounded(who) ? 0 : KVS_CLIENTS_RESERVED;
	return session_count(listener->sessions) >= listener->kvd->config.clients_max + reserved;
}

/// Connections that one user may have.
static uint64_t listener_share(const struct listener *listener)
{
	const struct config *config = &listener->kvd->config;
	uint64_t share = config->clients_max * config->clients_share_percent / 100;
	return share > 0 ? share : 1;
}

static bool listener_uid_is_full(const struct listener *listener, const struct refused *who)
{
	return listener_is_bounded(who) &&
	       session_uid_count(listener->sessions, who->uid) >= listener_share(listener);
}

static void listener_refuse_user(struct listener *listener, int fd, const struct refused *who)
{
	refuse_peer(listener->kvd, REFUSAL_UID_SHARE, who,
		    "that user has %llu connections, its share; raise maxclients or "
		    "maxclients-uid-share, or find out who leaves connections open (kvctl clients)",
		    (unsigned long long)listener_share(listener));
	listener_refuse(listener, fd,
			"-ERR max number of clients reached for this user "
			"(maxclients-uid-share)\r\n");
}

static void listener_refuse_all(struct listener *listener, int fd, const struct refused *who)
{
	refuse_peer(listener->kvd, REFUSAL_MAXCLIENTS, who,
		    "%llu clients are connected, the limit; raise maxclients, or find out who "
		    "leaves connections open (kvctl clients): for root and kvd's own user %u "
		    "places are kept",
		    (unsigned long long)listener->kvd->config.clients_max, KVS_CLIENTS_RESERVED);
	listener_refuse(listener, fd, "-ERR max number of clients reached\r\n");
}

static void listener_take(struct listener *listener, int fd)
{
	session_count_up(listener->sessions, KVS_COUNTER_connections_received, 1);
	if (session_count(listener->sessions) >= listener_share(listener)) {
		struct refused who = listener_peer(fd);
		if (listener_is_full(listener, &who)) {
			listener_refuse_all(listener, fd, &who);
			return;
		}
		if (listener_uid_is_full(listener, &who)) {
			listener_refuse_user(listener, fd, &who);
			return;
		}
	}
	if (!session_open(listener->sessions, fd)) {
		struct refused who = listener_peer(fd);
		refuse_peer(listener->kvd, REFUSAL_NO_DESCRIPTOR, &who,
			    "memory is short, or epoll refuses; see the line before, if any");
		listener_refuse(listener, fd, "-ERR kvd is out of memory\r\n");
	}
}

/// Somebody waits: accepted at the end of the turn, when those who left in it have made room.
static void listener_ready(struct loop_source *source, uint32_t events)
{
	(void)events;
	((struct listener_door *)(void *)source)->is_waited_at = true; // its first member
}

static void listener_accept(struct listener_door *door)
{
	struct listener *listener = door->listener;
	struct loop_source *source = &door->source;
	const struct seam *seam = listener->kvd->seam;
	uint64_t until_ns = seam->monotonic_ns() + SESSION_SLICE_NS;
	for (int i = 1; i <= LISTENER_ACCEPTS_A_TURN; i++) {
		int fd = seam->accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			listener_take(listener, fd);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno == EMFILE || errno == ENFILE) {
			listener_out_of_descriptors(listener, source->fd);
			return;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			log_error("cannot accept a connection: %m; %s", remedy_of_errno(errno));
			listener_pause(listener);
			return;
		}
		if (i % LISTENER_CLOCK_EVERY == 0 && seam->monotonic_ns() >= until_ns) {
			return; // the door is found open again in the next turn
		}
	}
}

static void listener_turn(void *context, uint64_t now_ns)
{
	struct listener *listener = context;
	session_shared_turn(listener->sessions, now_ns);
	for (int i = 0; i < LISTENER_DOORS; i++) {
		struct listener_door *door = &listener->doors[i];
		if (!door->is_waited_at || !door->is_open) {
			continue;
		}
		door->is_waited_at = false;
		// While those who left are being closed they still count: their places come.
		if (!session_closing(listener->sessions) ||
		    session_count(listener->sessions) < listener_share(listener)) {
			listener_accept(door);
		}
	}
}

static uint64_t listener_next_ns(void *context)
{
	const struct listener *listener = context;
	return session_shared_next_ns(listener->sessions);
}

static int listener_start(struct listener *listener, char *text, size_t text_bytes)
{
	struct kvd *kvd = listener->kvd;
	listener->sessions = session_shared_create(kvd, listener);
	if (!listener->sessions) {
		return -ENOMEM;
	}
	int error = listener_door_set_path(&listener->doors[0], text, text_bytes);
	if (error != 0) {
		return error;
	}
	listener->pause.due = listener_pause_over;
	listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (listener->reserve_fd < 0) {
		return -errno;
	}
	error = listener_door_bind(&listener->doors[0], text, text_bytes);
	if (error != 0) {
		return error;
	}
	listener_door_open_also(&listener->doors[1]);
	return loop_hook(kvd->loop, listener_turn, listener_next_ns, listener) ? 0 : -ENOSPC;
}

int listener_open(struct listener **out, struct kvd *kvd, char *error, size_t error_bytes)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	if (!listener) {
		return listener_fail(ENOMEM, error, error_bytes, "out of memory");
	}
	listener->kvd = kvd;
	for (int i = 0; i < LISTENER_DOORS; i++) {
		listener->doors[i].listener = listener;
		listener->doors[i].source =
			(struct loop_source){ .fd = -1, .ready = listener_ready };
	}
	listener->reserve_fd = -1;
	error[0] = '\0';
	int result = listener_start(listener, error, error_bytes);
	if (result != 0) {
		if (error[0] == '\0') {
			(void)listener_fail(-result, error, error_bytes,
					    "cannot listen at the socket %s: %s; %s, or choose "
					    "another path with --socket",
					    listener->doors[0].path, strerrordesc_np(-result),
					    remedy_of_errno(-result));
		}
		listener_close(listener);
		return result;
	}
	*out = listener;
	return 0;
}

void listener_shut(struct listener *listener)
{
	loop_timer_cancel(listener->kvd->loop, &listener->pause);
	for (int i = 0; i < LISTENER_DOORS; i++) {
		listener_door_close(&listener->doors[i]);
	}
}

void listener_reopen(struct listener *listener)
{
	for (int i = 0; i < LISTENER_DOORS; i++) {
		listener_door_reopen(&listener->doors[i]);
	}
}

void listener_close(struct listener *listener)
{
	if (!listener) {
		return;
	}
	listener_shut(listener);
	if (listener->sessions) {
		session_shared_finish(listener->sessions);
	}
	session_shared_destroy(listener->sessions);
	if (listener->reserve_fd >= 0) {
		close(listener->reserve_fd);
	}
	free(listener);
}

struct session_shared *listener_sessions(const struct listener *listener)
{
	return listener->sessions;
}

const char *listener_path(const struct listener *listener)
{
	return listener->doors[0].path;
}

const char *listener_path_also(const struct listener *listener)
{
	return listener->doors[1].is_open ? listener->doors[1].path : NULL;
}

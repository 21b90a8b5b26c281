// SPDX-License-Identifier: MIT
//
// kvctl bridge: lets tools that speak only TCP reach kvd's socket. Here: where it listens, whom it
// lets in, and when it stops; bridge.c carries the bytes.
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/bridge.h"
#include "tools/kvctl.h"

#define CMD_BRIDGE_CONNECTIONS 1000u
#define CMD_BRIDGE_CONNECTIONS_MAX 100000u
#define CMD_BRIDGE_DESCRIPTORS 16u // besides two a connection
#define CMD_BRIDGE_BACKLOG 511
#define CMD_BRIDGE_REST_MS 10 // after which accepting is tried again
#define CMD_BRIDGE_EVENTS 64
#define CMD_BRIDGE_ADDRESS_BYTES (INET6_ADDRSTRLEN + sizeof "[]:65535")

struct cmd_bridge {
	struct bridge bridge;
	const struct kvctl *kvctl;
	int listener_fd;
	int signal_fd;
	double rest_until;  // in seconds: nothing can be accepted before; 0 = it can
	bool is_kvd_missed; // and it was said
	unsigned connections_max;
	struct sockaddr_un kvd;
};

union cmd_bridge_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

// ---- where it listens ---------------------------------------------------------------------------

static bool cmd_bridge_number(const char *text, uint32_t max, uint32_t *number)
{
	char *end;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno != 0 || value > max) {
		return false;
	}
	*number = (uint32_t)value;
	return true;
}

// "127.0.0.1:6379", "[::1]:0".
static bool cmd_bridge_parse(const char *text, union cmd_bridge_address *address)
{
	char host[INET6_ADDRSTRLEN];
	uint32_t port;
	const char *colon = strrchr(text, ':');
	if (!colon || !cmd_bridge_number(colon + 1, UINT16_MAX, &port)) {
		return false;
	}
	bool is_v6 = *text == '[' && colon > text + 1 && colon[-1] == ']';
	const char *begin = is_v6 ? text + 1 : text, *end = is_v6 ? colon - 1 : colon;
	size_t host_bytes = (size_t)(end - begin);
	if (host_bytes >= sizeof host) {
		return false;
	}
	memcpy(host, begin, host_bytes);
	host[host_bytes] = '\0';
	memset(address, 0, sizeof *address);
	if (is_v6) {
		address->v6.sin6_family = AF_INET6;
		address->v6.sin6_port = htons((uint16_t)port);
		return inet_pton(AF_INET6, host, &address->v6.sin6_addr) == 1;
	}
	address->v4.sin_family = AF_INET;
	address->v4.sin_port = htons((uint16_t)port);
	return inet_pton(AF_INET, host, &address->v4.sin_addr) == 1;
}

static bool cmd_bridge_is_loopback(const union cmd_bridge_address *address)
{
	if (address->any.sa_family == AF_INET6) {
		return IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr);
	}
	return ntohl(address->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

static void cmd_bridge_format(const union cmd_bridge_address *address, char *out, size_t out_bytes)
{
	char host[INET6_ADDRSTRLEN] = "?";
	bool is_v6 = address->any.sa_family == AF_INET6;
	const void *binary = is_v6 ? (const void *)&address->v6.sin6_addr : &address->v4.sin_addr;
	(void)inet_ntop(address->any.sa_family, binary, host, sizeof host); // "?" if it fails
	snprintf(out, out_bytes, is_v6 ? "[%s]:%u" : "%s:%u", host,
		 ntohs(is_v6 ? address->v6.sin6_port : address->v4.sin_port));
}

// Binds and listens; *address becomes what was bound.
static int cmd_bridge_listen(struct cmd_bridge *self, const char *text,
			     union cmd_bridge_address *address)
{
	socklen_t bytes =
		address->any.sa_family == AF_INET6 ? sizeof address->v6 : sizeof address->v4;
	int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int yes = 1;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
	    bind(fd, &address->any, bytes) != 0 || listen(fd, CMD_BRIDGE_BACKLOG) != 0 ||
	    getsockname(fd, &address->any, &bytes) != 0) {
		int code =
			kvctl_error(KVCTL_USAGE, "cannot listen at %s: %s", text, strerror(errno));
		if (fd >= 0) {
			close(fd);
		}
		return code;
	}
	self->listener_fd = fd;
	return KVCTL_OK;
}

// ---- whom it lets in ----------------------------------------------------------------------------

static void cmd_bridge_rest(struct cmd_bridge *self, bool rest)
{
	struct epoll_event event = { .events = rest ? 0 : EPOLLIN, .data.ptr = &self->listener_fd };
	self->rest_until = rest ? kvctl_seconds() + CMD_BRIDGE_REST_MS / 1e3 : 0;
	// If that fails, accepting is tried sooner than it need be.
	(void)epoll_ctl(self->bridge.epoll_fd, EPOLL_CTL_MOD, self->listener_fd, &event);
}

// What the client has sent already is read: closing with it unread could take the text away.
static void cmd_bridge_refuse(struct cmd_bridge *self, int client_fd, const char *text)
{
	ssize_t ignored = send(client_fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
	ignored = recv(client_fd, self->bridge.buffer, sizeof self->bridge.buffer, MSG_DONTWAIT);
	(void)ignored;
	close(client_fd);
}

static void cmd_bridge_miss(struct cmd_bridge *self, int client_fd, int error)
{
	char text[sizeof self->kvd.sun_path + 128];
	snprintf(text, sizeof text, "-ERR kvd at %s cannot be reached: %s\r\n", self->kvd.sun_path,
		 strerror(error));
	if (!self->is_kvd_missed) {
		kvctl_remark(self->kvctl, 0, "kvd at %s cannot be reached: %s; clients are told so",
			     self->kvd.sun_path, strerror(error));
		self->is_kvd_missed = true;
	}
	cmd_bridge_refuse(self, client_fd, text);
}

// Returns a connection to kvd, or a negative errno.
static int cmd_bridge_connect(struct cmd_bridge *self)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return -errno;
	}
	if (connect(fd, (const struct sockaddr *)&self->kvd, sizeof self->kvd) != 0) {
		int error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

// One client. kvd is asked first: while its queue is full the client waits in ours.
static void cmd_bridge_accept(struct cmd_bridge *self)
{
	int yes = 1, kvd_fd = -EUSERS;
	if (self->bridge.connections < self->connections_max) {
		kvd_fd = cmd_bridge_connect(self);
	}
	if (kvd_fd == -EAGAIN || kvd_fd == -EMFILE || kvd_fd == -ENFILE || kvd_fd == -ENOMEM) {
		cmd_bridge_rest(self, true);
		return;
	}
	int client_fd = accept4(self->listener_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client_fd < 0) {
		bool gone = errno == EAGAIN || errno == ECONNABORTED || errno == EINTR;
		if (!gone) {
			cmd_bridge_rest(self, true);
		}
		if (kvd_fd >= 0) {
			close(kvd_fd);
		}
		return;
	}
	if (kvd_fd == -EUSERS) {
		cmd_bridge_refuse(self, client_fd, "-ERR max number of clients reached\r\n");
	} else if (kvd_fd < 0) {
		cmd_bridge_miss(self, client_fd, -kvd_fd);
	} else {
		self->is_kvd_missed = false;
		// Only about delay, and kernels that refuse it have none.
		(void)setsockopt(client_fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
		(void)setsockopt(client_fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
		(void)bridge_open(&self->bridge, client_fd, kvd_fd); // closes both if it cannot
	}
}

// ---- from start to stop -------------------------------------------------------------------------

static int cmd_bridge_run(struct cmd_bridge *self)
{
	struct epoll_event events[CMD_BRIDGE_EVENTS];
	bool more = false;
	for (;;) {
		int wait_ms = more ? 0 : self->rest_until > 0 ? CMD_BRIDGE_REST_MS : -1;
		int count = epoll_wait(self->bridge.epoll_fd, events, CMD_BRIDGE_EVENTS, wait_ms);
		if (count < 0 && errno != EINTR) {
			return kvctl_error(KVCTL_NO, "cannot wait for connections: %s",
					   strerror(errno));
		}
		if (self->rest_until > 0 && kvctl_seconds() >= self->rest_until) {
			cmd_bridge_rest(self, false);
		}
		for (int i = 0; i < count; i++) {
			if (events[i].data.ptr == &self->signal_fd) {
				return KVCTL_OK;
			}
			if (events[i].data.ptr == &self->listener_fd) {
				cmd_bridge_accept(self);
			} else {
				bridge_serve(&self->bridge, events[i].data.ptr);
			}
		}
		more = bridge_turn(&self->bridge);
	}
}

static bool cmd_bridge_prepare(struct cmd_bridge *self)
{
	sigset_t stop;
	struct epoll_event listener = { .events = EPOLLIN, .data.ptr = &self->listener_fd };
	struct epoll_event signals = { .events = EPOLLIN, .data.ptr = &self->signal_fd };
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	if (sigprocmask(SIG_BLOCK, &stop, NULL) != 0) {
		return false;
	}
	self->signal_fd = signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
	self->bridge.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int epoll_fd = self->bridge.epoll_fd;
	return self->signal_fd >= 0 && epoll_fd >= 0 &&
	       epoll_ctl(epoll_fd, EPOLL_CTL_ADD, self->signal_fd, &signals) == 0 &&
	       epoll_ctl(epoll_fd, EPOLL_CTL_ADD, self->listener_fd, &listener) == 0;
}

static int cmd_bridge_limits(struct cmd_bridge *self)
{
	struct rlimit limit;
	const char *text = self->kvctl->options.value[OPTION_max_connections];
	self->connections_max = CMD_BRIDGE_CONNECTIONS;
	if (text && (!cmd_bridge_number(text, CMD_BRIDGE_CONNECTIONS_MAX, &self->connections_max) ||
		     self->connections_max == 0)) {
		return kvctl_error(KVCTL_USAGE, "--max-connections '%s': it can be 1 to %u", text,
				   CMD_BRIDGE_CONNECTIONS_MAX);
	}
	rlim_t wanted = (rlim_t)self->connections_max * 2 + CMD_BRIDGE_DESCRIPTORS;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
		return kvctl_error(KVCTL_NO, "cannot read the limit of descriptors: %s",
				   strerror(errno));
	}
	if (limit.rlim_cur < wanted) {
		limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
		if (limit.rlim_cur < wanted || setrlimit(RLIMIT_NOFILE, &limit) != 0) {
			return kvctl_error(KVCTL_USAGE,
					   "%u connections need %" PRIu64 " descriptors, the limit "
					   "is %" PRIu64 ": raise it (ulimit -n) or lower "
					   "--max-connections",
					   self->connections_max, (uint64_t)wanted,
					   (uint64_t)limit.rlim_max);
		}
	}
	return KVCTL_OK;
}

static int cmd_bridge_start(struct cmd_bridge *self)
{
	const struct kvctl *kvctl = self->kvctl;
	const char *text = kvctl->options.value[OPTION_listen];
	char shown[CMD_BRIDGE_ADDRESS_BYTES];
	union cmd_bridge_address address;
	size_t path_bytes = strlen(kvctl->socket_path);
	if (!text) {
		return kvctl_error(KVCTL_USAGE,
				   "bridge: say where, as in --listen 127.0.0.1:6379 (port 0: one "
				   "that is free)");
	}
	if (!cmd_bridge_parse(text, &address)) {
		return kvctl_error(KVCTL_USAGE,
				   "--listen '%s': write ADDRESS:PORT in numbers, as in "
				   "127.0.0.1:6379 or [::1]:6379",
				   text);
	}
	bool is_open = !cmd_bridge_is_loopback(&address);
	if (is_open && !kvctl->options.value[OPTION_force_any]) {
		return kvctl_error(KVCTL_USAGE,
				   "--listen %s: other machines could read and write everything; "
				   "use 127.0.0.1 or [::1], or add --force-any",
				   text);
	}
	if (path_bytes == 0 || path_bytes >= sizeof self->kvd.sun_path) {
		return kvctl_error(KVCTL_USAGE, "--socket '%s': a path has 1 to %zu bytes",
				   kvctl->socket_path, sizeof self->kvd.sun_path - 1);
	}
	self->kvd.sun_family = AF_UNIX;
	memcpy(self->kvd.sun_path, kvctl->socket_path, path_bytes);
	int code = cmd_bridge_limits(self);
	if (code == KVCTL_OK) {
		code = cmd_bridge_listen(self, text, &address);
	}
	if (code == KVCTL_OK && !cmd_bridge_prepare(self)) {
		code = kvctl_error(KVCTL_NO, "cannot prepare: %s", strerror(errno));
	}
	if (code != KVCTL_OK) {
		return code;
	}
	cmd_bridge_format(&address, shown, sizeof shown);
	if (is_open) {
		kvctl_error(0, "warning: whoever reaches %s reads and writes everything in kvd",
			    shown);
	}
	printf(kvctl->json ? "{\"listen\":\"%s\"}\n" : "%s\n", shown);
	return fflush(stdout) == 0 ? KVCTL_OK : KVCTL_NO;
}

int cmd_bridge(struct kvctl *kvctl)
{
	struct cmd_bridge *self = calloc(1, sizeof *self);
	if (!self) {
		return kvctl_error(KVCTL_NO, "out of memory");
	}
	self->kvctl = kvctl;
	self->listener_fd = self->signal_fd = self->bridge.epoll_fd = -1;
	int code = cmd_bridge_start(self);
	if (code == KVCTL_OK) {
		code = cmd_bridge_run(self);
	}
	bridge_close(&self->bridge);
	int fds[] = { self->listener_fd, self->signal_fd, self->bridge.epoll_fd };
	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
		if (fds[i] >= 0) {
			close(fds[i]);
		}
	}
	free(self);
	return code;
}

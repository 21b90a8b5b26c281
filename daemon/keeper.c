// SPDX-License-Identifier: MIT
//
// Datagrams come from whoever knows the socket's name, so each is judged by the process that the
// kernel says it is from, and its descriptors are closed unless they are wanted. Names and numbers
// are bounded; what is beyond a bound is refused and told.
#include "daemon/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/seam.h"

#define KEEPER_MESSAGE_BYTES_MAX 4096u // as systemd
#define KEEPER_PASSED_MAX 253u	       // SCM_MAX_FD, descriptors with one message
#define KEEPER_MESSAGES_A_TURN 1024u
#define KEEPER_FIRST 3 // SD_LISTEN_FDS_START

struct keeper_entry {
	char name[FDSTORE_NAME_BYTES_MAX + 1];
	int fd;
};

struct keeper {
	const struct seam *seam;
	int fd;
	int voice; // which alone can send to it: the child's end
	char address[sizeof(((struct sockaddr_un *)0)->sun_path) + 1]; // as in NOTIFY_SOCKET
	pid_t child;
	uint64_t strangers; // messages of others
	size_t count;
	struct keeper_entry entries[KEEPER_DESCRIPTORS_MAX];
};

/// One message, and what it turned out to say.
struct keeper_message {
	char text[KEEPER_MESSAGE_BYTES_MAX + 1];
	char onward[KEEPER_MESSAGE_BYTES_MAX + 1]; // lines for the manager further out
	size_t onward_bytes;
	int fds[KEEPER_PASSED_MAX];
	size_t fds_count;
	struct ucred sender;
	const char *name; // in `text`; NULL = none was given
	bool keep;
	bool drop;
	unsigned heard;
};

/// Gives a socket a name that the kernel finds: *address. 0 or a negative errno value.
static int keeper_name(int fd, struct sockaddr_un *address, socklen_t *bytes)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (bind(fd, (const struct sockaddr *)address, sizeof(address->sun_family)) != 0) {
		return -errno;
	}
	*bytes = sizeof(*address);
	return getsockname(fd, (struct sockaddr *)address, bytes) == 0 ? 0 : -errno;
}

/// Everybody can see the name. But a datagram socket that is connected takes messages from its peer
/// alone: the kernel refuses others (EPERM), so nobody can fill the queue and keep the child from
/// being heard. It is connected before it has a name.
static int keeper_open(struct keeper *keeper)
{
	struct sockaddr_un address;
	socklen_t bytes;
	int on = 1;
	keeper->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	keeper->voice = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (keeper->fd < 0 || keeper->voice < 0 ||
	    setsockopt(keeper->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0) {
		return -errno;
	}
	int error = keeper_name(keeper->voice, &address, &bytes);
	if (error == 0 && connect(keeper->fd, (const struct sockaddr *)&address, bytes) != 0) {
		error = -errno;
	}
	error = error == 0 ? keeper_name(keeper->fd, &address, &bytes) : error;
	if (error == 0 && connect(keeper->voice, (const struct sockaddr *)&address, bytes) != 0) {
		error = -errno;
	}
	if (error != 0) {
		return error;
	}
	size_t name_bytes = bytes - offsetof(struct sockaddr_un, sun_path) - 1; // behind the 0
	(void)snprintf(keeper->address, sizeof(keeper->address), "@%.*s", (int)name_bytes,
		       address.sun_path + 1);
	return 0;
}

/// The same file, opened for the same: a second copy would only take room.
static bool keeper_is_same(int a, int b)
{
	struct stat first, second;
	return fstat(a, &first) == 0 && fstat(b, &second) == 0 && S_ISREG(first.st_mode) &&
	       S_ISREG(second.st_mode) && first.st_dev == second.st_dev &&
	       first.st_ino == second.st_ino &&
	       (fcntl(a, F_GETFL) & O_ACCMODE) == (fcntl(b, F_GETFL) & O_ACCMODE);
}

static bool keeper_has(const struct keeper *keeper, const char *name, int fd)
{
	for (size_t i = 0; i < keeper->count; i++) {
		if (strcmp(keeper->entries[i].name, name) == 0 &&
		    keeper_is_same(keeper->entries[i].fd, fd)) {
			return true;
		}
	}
	return false;
}

/// Takes `fd` over: keeps it, or closes it.
static void keeper_put(struct keeper *keeper, const char *name, int fd)
{
	bool wanted = !keeper_has(keeper, name, fd);
	if (wanted && keeper->count == KEEPER_DESCRIPTORS_MAX) {
		log_warning("supervise: descriptor '%s' is not kept, there are %u already", name,
			    KEEPER_DESCRIPTORS_MAX);
		wanted = false;
	}
	if (!wanted) {
		(void)close(fd);
		return;
	}
	struct keeper_entry *entry = &keeper->entries[keeper->count++];
	(void)snprintf(entry->name, sizeof(entry->name), "%s", name);
	entry->fd = fd;
	log_debug("supervise: descriptor '%s' is kept", name);
}

static void keeper_drop(struct keeper *keeper, const char *name)
{
	size_t left = 0;
	for (size_t i = 0; i < keeper->count; i++) {
		if (strcmp(keeper->entries[i].name, name) == 0) {
			(void)close(keeper->entries[i].fd);
			log_debug("supervise: descriptor '%s' is dropped", name);
		} else if (left++ != i) {
			keeper->entries[left - 1] = keeper->entries[i];
		}
	}
	keeper->count = left;
}

int keeper_create(struct keeper **out, const struct seam *seam, struct fdstore *inherited)
{
	struct keeper *keeper = calloc(1, sizeof(*keeper));
	if (keeper == NULL) {
		return -ENOMEM;
	}
	keeper->seam = seam;
	int error = keeper_open(keeper);
	if (error != 0) {
		keeper_destroy(keeper);
		return error;
	}
	char name[FDSTORE_NAME_BYTES_MAX + 1];
	int fd;
	while (inherited != NULL && (fd = fdstore_take_any(inherited, name)) >= 0) {
		keeper_put(keeper, name, fd);
	}
	*out = keeper;
	return 0;
}

void keeper_destroy(struct keeper *keeper)
{
	if (keeper == NULL) {
		return;
	}
	for (size_t i = 0; i < keeper->count; i++) {
		(void)close(keeper->entries[i].fd);
	}
	if (keeper->fd >= 0) {
		(void)close(keeper->fd);
	}
	if (keeper->voice >= 0) {
		(void)close(keeper->voice);
	}
	free(keeper);
}

int keeper_fd(const struct keeper *keeper)
{
	return keeper->fd;
}

size_t keeper_count(const struct keeper *keeper)
{
	return keeper->count;
}

uint64_t keeper_strangers(const struct keeper *keeper)
{
	return keeper->strangers;
}

void keeper_listen_to(struct keeper *keeper, pid_t child)
{
	keeper->child = child;
}

/// What is for the manager further out too; the number of the main process is not, it stays this
/// supervisor's.
static bool keeper_is_onward(const char *line)
{
	static const char *const names[] = {
		"READY=",    "RELOADING=",	     "STOPPING=",	"STATUS=",
		"WATCHDOG=", "EXTEND_TIMEOUT_USEC=", "MONOTONIC_USEC=", "WATCHDOG_USEC=",
		"FDSTORE=",  "FDSTOREREMOVE=",	     "FDNAME=",		"FDPOLL=",
	};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strncmp(line, names[i], strlen(names[i])) == 0) {
			return true;
		}
	}
	return false;
}

static void keeper_line(struct keeper_message *message, char *line)
{
	if (strncmp(line, "FDNAME=", 7) == 0) {
		message->name = line + 7;
	}
	message->keep |= strcmp(line, "FDSTORE=1") == 0;
	message->drop |= strcmp(line, "FDSTOREREMOVE=1") == 0;
	message->heard |= strcmp(line, "READY=1") == 0 ? KEEPER_HEARD_READY : 0u;
	message->heard |= strcmp(line, "STOPPING=1") == 0 ? KEEPER_HEARD_STOPPING : 0u;
	if (keeper_is_onward(line)) { // never more than came
		size_t bytes = strlen(line);
		memcpy(message->onward + message->onward_bytes, line, bytes);
		message->onward_bytes += bytes;
		message->onward[message->onward_bytes++] = '\n';
	}
}

static void keeper_pass_on(struct keeper *keeper, const struct keeper_message *message, int fd)
{
	int error = message->onward_bytes > 0
			    ? notify_send(keeper->seam, message->onward, message->onward_bytes, fd)
			    : 0;
	if (error < 0) {
		log_warning("supervise: cannot tell the service manager: %s", strerror(-error));
	}
}

static void keeper_obey(struct keeper *keeper, struct keeper_message *message)
{
	char *rest = message->text;
	char *line;
	while ((line = strsep(&rest, "\n")) != NULL) {
		keeper_line(message, line);
	}
	bool named = message->name != NULL && fdstore_is_name(message->name);
	if ((message->keep || message->drop) && !named) {
		log_warning("supervise: the child names no descriptor, or not in printable ASCII");
		return;
	}
	if (message->drop) {
		keeper_drop(keeper, message->name);
	}
	if (!message->keep) {
		keeper_pass_on(keeper, message, -1);
		return;
	}
	for (size_t i = 0; i < message->fds_count; i++) {
		keeper_pass_on(keeper, message, message->fds[i]);
		keeper_put(keeper, message->name, message->fds[i]);
		message->fds[i] = -1;
	}
}

static void keeper_controls(struct keeper_message *message, struct msghdr *header)
{
	for (struct cmsghdr *at = CMSG_FIRSTHDR(header); at != NULL; at = CMSG_NXTHDR(header, at)) {
		size_t bytes = at->cmsg_len - CMSG_LEN(0);
		if (at->cmsg_level != SOL_SOCKET) {
			continue;
		}
		if (at->cmsg_type == SCM_CREDENTIALS && bytes == sizeof(message->sender)) {
			memcpy(&message->sender, CMSG_DATA(at), bytes);
		} else if (at->cmsg_type == SCM_RIGHTS && message->fds_count == 0) {
			message->fds_count = bytes / sizeof(int);
			memcpy(message->fds, CMSG_DATA(at), bytes);
		}
	}
}

/// Takes one message. False when there is none.
static bool keeper_receive(struct keeper *keeper, struct keeper_message *message)
{
	union {
		struct cmsghdr header; // aligned
		char bytes[CMSG_SPACE(sizeof(struct ucred)) +
			   CMSG_SPACE(KEEPER_PASSED_MAX * sizeof(int))];
	} control;
	struct iovec piece = { .iov_base = message->text, .iov_len = KEEPER_MESSAGE_BYTES_MAX };
	struct msghdr header = { .msg_iov = &piece,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control) };
	message->onward_bytes = message->fds_count = 0;
	message->name = NULL;
	message->keep = message->drop = false;
	message->heard = 0;
	message->sender = (struct ucred){ .pid = 0 };
	ssize_t bytes;
	do {
		bytes = keeper->seam->recvmsg(keeper->fd, &header, MSG_CMSG_CLOEXEC);
	} while (bytes < 0 && errno == EINTR);
	if (bytes < 0) {
		return false;
	}
	keeper_controls(message, &header);
	message->text[bytes] = '\0';
	bool whole = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
	if (keeper->child == 0 || message->sender.pid != keeper->child) {
		keeper->strangers++;
		log_warning("supervise: a message of process %d, user %u, is ignored: it is not "
			    "the child's; %llu such so far",
			    (int)message->sender.pid, (unsigned)message->sender.uid,
			    (unsigned long long)keeper->strangers);
	} else if (!whole) {
		log_warning("supervise: a message of the child is ignored: it is too long, or too "
			    "many files are open");
	} else {
		keeper_obey(keeper, message);
	}
	for (size_t i = 0; i < message->fds_count; i++) {
		if (message->fds[i] >= 0) {
			(void)close(message->fds[i]);
		}
	}
	return true;
}

unsigned keeper_hear(struct keeper *keeper)
{
	struct keeper_message message;
	unsigned heard = 0;
	for (unsigned i = 0; i < KEEPER_MESSAGES_A_TURN && keeper_receive(keeper, &message); i++) {
		heard |= message.heard;
	}
	return heard;
}

/// LISTEN_FDNAMES. False if memory is short.
static bool keeper_announce_names(const struct keeper *keeper)
{
	char *names = malloc(keeper->count * (FDSTORE_NAME_BYTES_MAX + 1) + 1);
	if (names == NULL) {
		return false;
	}
	size_t used = 0;
	for (size_t i = 0; i < keeper->count; i++) {
		size_t bytes = strlen(keeper->entries[i].name);
		memcpy(names + used, keeper->entries[i].name, bytes);
		used += bytes;
		names[used++] = ':';
	}
	names[used - 1] = '\0';
	bool good = setenv("LISTEN_FDNAMES", names, 1) == 0;
	free(names);
	return good;
}

static bool keeper_announce(const struct keeper *keeper)
{
	char number[32];
	(void)snprintf(number, sizeof(number), "%zu", KEEPER_FIRST + keeper->count);
	if (setenv("NOTIFY_SOCKET", keeper->address, 1) != 0 || setenv(NOTIFY_FD, number, 1) != 0) {
		return false;
	}
	(void)snprintf(number, sizeof(number), "%u", KEEPER_DESCRIPTORS_MAX);
	if (setenv("FDSTORE", number, 1) != 0) {
		return false;
	}
	if (keeper->count == 0) {
		return true;
	}
	(void)snprintf(number, sizeof(number), "%zu", keeper->count);
	if (setenv("LISTEN_FDS", number, 1) != 0) {
		return false;
	}
	(void)snprintf(number, sizeof(number), "%d", (int)getpid());
	return setenv("LISTEN_PID", number, 1) == 0 && keeper_announce_names(keeper);
}

int keeper_hand_over(const struct keeper *keeper)
{
	int copies[KEEPER_DESCRIPTORS_MAX + 1]; // the last is the socket
	int behind = KEEPER_FIRST + (int)keeper->count + 1;
	// First out of the way, for they may stand where others belong.
	for (size_t i = 0; i <= keeper->count; i++) {
		int fd = i < keeper->count ? keeper->entries[i].fd : keeper->voice;
		copies[i] = fcntl(fd, F_DUPFD_CLOEXEC, behind);
		if (copies[i] < 0) {
			return -errno;
		}
	}
	for (size_t i = 0; i <= keeper->count; i++) {
		if (dup2(copies[i], KEEPER_FIRST + (int)i) < 0) { // stays open at exec
			return -errno;
		}
	}
	return keeper_announce(keeper) ? 0 : -ENOMEM;
}

// SPDX-License-Identifier: MIT
//
// One socket file: where it is, what may be in its way, its mode, and that only our own is removed.
#include "daemon/listener_door.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/seam.h"

#define LISTENER_BACKLOG 1024

int listener_fail(int error, char *text, size_t text_bytes, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, text_bytes, format, args);
	va_end(args);
	return -error;
}

int listener_door_set_path(struct listener_door *door, char *text, size_t text_bytes)
{
	const struct config *config = &door->listener->kvd->config;
	bool given = config->socket_path && config->socket_path[0];
	int n = snprintf(door->path, sizeof(door->path), "%s%s",
			 given ? config->socket_path : config->dir, given ? "" : "/kvd.sock");
	if (n < 0 || (size_t)n >= sizeof(door->path)) {
		return listener_fail(ENAMETOOLONG, text, text_bytes,
				     "the socket path has %d bytes, the limit is %u: choose a "
				     "shorter one with --socket",
				     n, KVS_SOCKET_PATH_BYTES_MAX);
	}
	return 0;
}

/// Somebody's socket file is in the way: removed if nobody answers at it.
static int listener_clear_path(struct listener_door *door, const struct sockaddr_un *address,
			       char *text, size_t text_bytes)
{
	struct stat found;
	if (lstat(door->path, &found) != 0) {
		return errno == ENOENT ? 0 : -errno;
	}
	if (!S_ISSOCK(found.st_mode)) {
		return listener_fail(EEXIST, text, text_bytes,
				     "%s exists and is not a socket: move it away or choose "
				     "another path with --socket",
				     door->path);
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return -errno;
	}
	int connected = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	int error = errno;
	close(fd);
	if (connected == 0 || error != ECONNREFUSED) {
		return listener_fail(EADDRINUSE, text, text_bytes,
				     "another process answers at %s: stop it or choose another "
				     "path with --socket",
				     door->path);
	}
	log_notice("removing the socket %s that a former kvd left behind", door->path);
	return door->listener->kvd->seam->unlink(door->path) == 0 || errno == ENOENT ? 0 : -errno;
}

/// The folder of a socket, for all to pass through; the folder above it must be there.
static bool listener_make_folder(const char *path)
{
	char folder[KVS_SOCKET_PATH_BYTES_MAX + 1];
	(void)snprintf(folder, sizeof(folder), "%s", path);
	char *slash = strrchr(folder, '/');
	if (!slash || slash == folder) {
		return false;
	}
	*slash = '\0';
	return mkdir(folder, 0755) == 0;
}

int listener_door_bind(struct listener_door *door, char *text, size_t text_bytes)
{
	mode_t mode = (mode_t)door->listener->kvd->config.socket_mode;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, door->path, strlen(door->path));
	int error = listener_clear_path(door, &address, text, text_bytes);
	if (error != 0) {
		return error;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return -errno;
	}
	door->source.fd = fd;
	// The file appears with at most this mode, then gets exactly it whatever the umask is.
	if (fchmod(fd, mode) != 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
	    chmod(door->path, mode) != 0) {
		return -errno;
	}
	struct stat made;
	if (lstat(door->path, &made) != 0) {
		return -errno;
	}
	door->device = made.st_dev;
	door->inode = made.st_ino;
	if (listen(fd, LISTENER_BACKLOG) != 0) {
		return -errno;
	}
	error = loop_add(door->listener->kvd->loop, &door->source, EPOLLIN);
	door->is_open = error == 0;
	return error;
}

void listener_door_close(struct listener_door *door)
{
	struct stat found;
	if (door->source.fd < 0) {
		return;
	}
	if (door->is_open) {
		loop_remove(door->listener->kvd->loop, &door->source);
		door->is_open = false;
	}
	close(door->source.fd);
	door->source.fd = -1;
	if (door->inode != 0 && lstat(door->path, &found) == 0 && found.st_dev == door->device &&
	    found.st_ino == door->inode && door->listener->kvd->seam->unlink(door->path) != 0) {
		log_warning("cannot remove the socket %s: %m", door->path);
	}
}

void listener_door_open_also(struct listener_door *door)
{
	struct listener *listener = door->listener;
	const char *path = listener->kvd->config.socket_also_path;
	if (!path || !*path || strcmp(path, listener->doors[0].path) == 0) {
		return;
	}
	char text[256] = "";
	(void)snprintf(door->path, sizeof(door->path), "%s", path);
	int error = listener_door_bind(door, text, sizeof(text));
	if (error == -ENOENT && listener_make_folder(path)) {
		listener_door_close(door);
		error = listener_door_bind(door, text, sizeof(text));
	}
	if (error != 0) {
		log_warning("not listening at %s as well: %s; clients need --socket %s or "
			    "KVD_SOCKET=%s",
			    path, text[0] ? text : strerrordesc_np(-error), listener->doors[0].path,
			    listener->doors[0].path);
		listener_door_close(door);
	}
}

void listener_door_reopen(struct listener_door *door)
{
	struct stat found;
	char text[256] = "";
	if (!door->is_open || lstat(door->path, &found) == 0 || errno != ENOENT) {
		return;
	}
	listener_door_close(door);
	int error = listener_door_bind(door, text, sizeof(text));
	if (error == 0) {
		log_warning("the socket %s was removed; kvd made it anew", door->path);
	} else {
		log_error("not listening at %s any more: %s; restart kvd", door->path,
			  text[0] ? text : strerrordesc_np(-error));
		listener_door_close(door);
	}
}

// SPDX-License-Identifier: MIT
//
// Both halves of a protocol that two managers speak, systemd and kvd --supervise. What is inherited
// is input: numbers that are no descriptors, names that are missing or too many, are taken for what
// they are and never trusted further.
#include "daemon/fdstore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/seam.h"

#define FDSTORE_FIRST 3 // SD_LISTEN_FDS_START
#define FDSTORE_MESSAGE_BYTES (FDSTORE_NAME_BYTES_MAX + 64u)

struct fdstore_entry {
	char *name;
	int fd;	    // -1: handed out, closed, or never there
	bool taken; // by somebody: the name is known
};

struct fdstore {
	const struct seam *seam;
	pid_t parent; // of this process when it began
	size_t count;
	bool failed; // and that was logged
	struct fdstore_entry entries[];
};

/// A whole number up to `max` that is all of `text`; `max` if it is larger, 0 if it is none.
static unsigned long fdstore_number(const char *text, unsigned long max)
{
	char *end = NULL;
	if (text == NULL || *text < '0' || *text > '9') {
		return 0;
	}
	errno = 0;
	unsigned long number = strtoul(text, &end, 10);
	if (*end != '\0') {
		return 0;
	}
	return errno == ERANGE || number > max ? max : number;
}

/// Descriptors that were meant for this process.
static size_t fdstore_inherited(void)
{
	unsigned long pid = fdstore_number(getenv("LISTEN_PID"), UINT32_MAX);
	if (pid == 0 || pid != (unsigned long)getpid()) {
		return 0;
	}
	return fdstore_number(getenv("LISTEN_FDS"), INT32_MAX - FDSTORE_FIRST);
}

bool fdstore_is_given(void)
{
	return fdstore_inherited() > 0;
}

/// The next name of a list with colons, copied; "unknown" behind its end. NULL: out of memory.
static char *fdstore_next_name(const char **list)
{
	const char *at = *list;
	if (at == NULL || *at == '\0') {
		return strdup("unknown");
	}
	size_t bytes = strcspn(at, ":");
	*list = at + bytes + (at[bytes] == ':');
	return bytes == 0 ? strdup("unknown") : strndup(at, bytes);
}

static void fdstore_enter(struct fdstore *store, size_t count, const char *names)
{
	for (size_t i = 0; i < count; i++) {
		int fd = FDSTORE_FIRST + (int)i;
		char *name = fdstore_next_name(&names);
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || name == NULL) {
			free(name); // not even open, or out of memory
			continue;
		}
		store->entries[store->count++] = (struct fdstore_entry){ .name = name, .fd = fd };
	}
}

struct fdstore *fdstore_create(const struct seam *seam)
{
	size_t all = fdstore_inherited();
	size_t count = all < FDSTORE_DESCRIPTORS_MAX ? all : FDSTORE_DESCRIPTORS_MAX;
	struct fdstore *store = calloc(1, sizeof(*store) + count * sizeof(store->entries[0]));
	if (store != NULL) {
		store->seam = seam;
		store->parent = getppid();
		fdstore_enter(store, count, getenv("LISTEN_FDNAMES"));
	}
	(void)unsetenv("LISTEN_PID"); // cannot fail for such names
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LISTEN_FDNAMES");
	if (store != NULL && all > count) {
		log_warning("%zu descriptors were inherited, those beyond the first %zu are closed",
			    all, count);
		unsigned last = (unsigned)(FDSTORE_FIRST + all - 1);
		(void)close_range((unsigned)(FDSTORE_FIRST + count), last, 0);
	}
	return store;
}

static void fdstore_close(struct fdstore_entry *entry)
{
	if (entry->fd >= 0) {
		(void)close(entry->fd);
		entry->fd = -1;
	}
}

void fdstore_destroy(struct fdstore *store)
{
	if (store == NULL) {
		return;
	}
	for (size_t i = 0; i < store->count; i++) {
		fdstore_close(&store->entries[i]);
		free(store->entries[i].name);
	}
	free(store);
}

int fdstore_take(struct fdstore *store, const char *name)
{
	for (size_t i = 0; i < store->count; i++) {
		struct fdstore_entry *entry = &store->entries[i];
		if (entry->fd >= 0 && strcmp(entry->name, name) == 0) {
			int fd = entry->fd;
			entry->fd = -1;
			entry->taken = true;
			return fd;
		}
	}
	return -1;
}

int fdstore_take_any(struct fdstore *store, char name[FDSTORE_NAME_BYTES_MAX + 1])
{
	for (size_t i = 0; i < store->count; i++) {
		struct fdstore_entry *entry = &store->entries[i];
		if (entry->fd >= 0) {
			(void)snprintf(name, FDSTORE_NAME_BYTES_MAX + 1, "%s", entry->name);
			return fdstore_take(store, entry->name);
		}
	}
	return -1;
}

bool fdstore_has_any(const struct fdstore *store)
{
	for (size_t i = 0; i < store->count; i++) {
		if (store->entries[i].fd >= 0) {
			return true;
		}
	}
	return false;
}

static bool fdstore_is_known(const struct fdstore *store, const char *name)
{
	for (size_t i = 0; i < store->count; i++) {
		if (store->entries[i].taken && strcmp(store->entries[i].name, name) == 0) {
			return true;
		}
	}
	return false;
}

static bool fdstore_is_socket(int fd)
{
	struct stat facts;
	return fstat(fd, &facts) == 0 && S_ISSOCK(facts.st_mode);
}

void fdstore_settle(struct fdstore *store)
{
	for (size_t i = 0; i < store->count; i++) {
		struct fdstore_entry *entry = &store->entries[i];
		if (entry->fd < 0 || fdstore_is_socket(entry->fd)) {
			continue;
		}
		LOG_AT(LOG_LEVEL_NOTICE,
		       "inherited descriptor '%s' is of no use here and is closed", entry->name);
		fdstore_close(entry);
		if (!fdstore_is_known(store, entry->name)) {
			fdstore_drop(store, entry->name);
		}
	}
}

bool fdstore_offered(const struct fdstore *store)
{
	(void)store; // the environment says it all today
	const char *most = getenv("FDSTORE");
	return getenv("NOTIFY_SOCKET") != NULL &&
	       (most == NULL || fdstore_number(most, UINT32_MAX) > 0);
}

bool fdstore_is_name(const char *name)
{
	size_t bytes = strlen(name);
	for (size_t i = 0; i < bytes; i++) {
		if (name[i] < ' ' || name[i] > '~' || name[i] == ':') {
			return false;
		}
	}
	return bytes > 0 && bytes <= FDSTORE_NAME_BYTES_MAX;
}

static bool fdstore_fail(struct fdstore *store, const char *what, const char *name, int error)
{
	if (!store->failed) {
		store->failed = true;
		LOG_AT(LOG_LEVEL_WARNING,
		       "cannot %s descriptor '%s' for the next life: %s; a restart may be a cold "
		       "one",
		       what, name, strerror(error));
	}
	return false;
}

/// True if the keeper was sent a message that begins with `verb` and names `name`.
static bool fdstore_send(struct fdstore *store, const char *verb, const char *what,
			 const char *name, int fd)
{
	char text[FDSTORE_MESSAGE_BYTES];
	if (!fdstore_offered(store)) {
		return false;
	}
	if (!fdstore_is_name(name)) {
		return fdstore_fail(store, what, name, EINVAL);
	}
	if (getenv("NOTIFY_SOCKET")[0] == '@' && getppid() != store->parent) {
		return fdstore_fail(store, what, name, ESRCH);
	}
	int bytes = snprintf(text, sizeof(text), "%s\nFDNAME=%s", verb, name);
	int error = notify_send(store->seam, text, (size_t)bytes, fd);
	return error == 0 || (error < 0 && fdstore_fail(store, what, name, -error));
}

bool fdstore_keep(struct fdstore *store, const char *name, int fd)
{
	if (fd < 0) {
		return fdstore_fail(store, "keep", name, EBADF);
	}
	// Without FDPOLL=0 systemd would drop what reports an error or an end.
	return fdstore_send(store, "FDSTORE=1\nFDPOLL=0", "keep", name, fd);
}

void fdstore_drop(struct fdstore *store, const char *name)
{
	(void)fdstore_send(store, "FDSTOREREMOVE=1", "drop", name, -1); // failures are told there
}

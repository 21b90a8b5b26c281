// SPDX-License-Identifier: MIT
//
// Descriptors that outlive kvd. Somebody keeps copies of them under names, systemd's store of
// descriptors or kvd --supervise, and hands them to the next life: by the LISTEN_FDS protocol of
// sd_listen_fds(3) on the way in, by FDSTORE=1 of sd_notify(3) on the way out. Without a keeper
// every life begins with nothing and keeps nothing, and that is no error.
//
// A keeper only holds what it is given. That a descriptor comes back does not say that its content
// is whole, nor that it is of this build, nor that it is the only one of its name: a life may end
// between fdstore_keep() of the new and fdstore_drop() of the old. Whoever takes one checks it.
//
// One thread calls all of this.
#pragma once

#include <stdbool.h>

/// Longest name: printable ASCII without a colon (the keepers' rule).
#define FDSTORE_NAME_BYTES_MAX 255u
/// More than so many inherited descriptors are closed unseen.
#define FDSTORE_DESCRIPTORS_MAX 256u

struct seam;
struct fdstore;

/// Is there anything for fdstore_create() to take over? Call before it.
bool fdstore_is_given(void);

/// Takes over what this process inherited: descriptors 3 to 2 + $LISTEN_FDS, if $LISTEN_PID is this
/// process, with their $LISTEN_FDNAMES ("unknown" for one without). They become close-on-exec, and
/// the three variables leave the environment, so that no child believes they were meant for it.
/// Call once, before anything opens a descriptor and before threads start. NULL: out of memory;
/// then the inherited ones stay open and close-on-exec, and nobody knows them. `seam` stays the
/// caller's, for longer than the store.
struct fdstore *fdstore_create(const struct seam *seam);

/// Closes what nobody took, sockets too, and forgets; what the keeper has it goes on keeping. NULL
/// is allowed.
void fdstore_destroy(struct fdstore *store);

/// An inherited descriptor of this name, the caller's from now on, or -1 if there is none (more).
/// Each is handed out once, those of one name in the keeper's order (kvd --supervise: oldest first;
/// systemd promises none). The keeper has its copy still: it comes back in the next life, until
/// fdstore_drop().
int fdstore_take(struct fdstore *store, const char *name);

/// The next that nobody took, whatever its name, which is written to `name`; or -1.
int fdstore_take_any(struct fdstore *store, char name[FDSTORE_NAME_BYTES_MAX + 1]);

/// Was anything inherited that nobody has taken yet?
bool fdstore_has_any(const struct fdstore *store);

/// May descriptors be called so?
bool fdstore_is_name(const char *name);

/// Everybody who wants one has taken it: closes the rest, each with a line in the log, and has the
/// keeper drop those names, unless somebody took another of the same name. Sockets stay as they
/// are: they come from socket units and are for whoever asks for them by name later.
void fdstore_settle(struct fdstore *store);

/// Is there a keeper at all ($NOTIFY_SOCKET, and $FDSTORE, where it is given, not 0)? systemd
/// before 254 does not tell whether the unit has a FileDescriptorStoreMax=, so true is a hope.
bool fdstore_offered(const struct fdstore *store);

/// Hands the keeper a copy of `fd`, which stays the caller's, under `name`. The keeper has it
/// before it learns of this process's end, whatever that is; so the next life gets it even if this
/// one is killed right after this call. What was kept under the name before stays beside it; the
/// same file again changes nothing. Keep one file under one name only. True if it was sent. False
/// without a keeper, for a bad name or descriptor, or if the keeper cannot be reached (waits for it
/// two seconds at most): the first such failure is logged, none is fatal. A keeper at an abstract
/// address that is no longer this process's parent gets nothing: the name may be a stranger's by
/// now.
bool fdstore_keep(struct fdstore *store, const char *name, int fd);

/// Has the keeper close all that it keeps under `name`. What this process inherited and did not
/// take stays to be taken. Failures as above.
void fdstore_drop(struct fdstore *store, const char *name);

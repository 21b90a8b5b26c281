// SPDX-License-Identifier: MIT
//
// DIR/kvd.gen: one mapped page with one number, by which readers of an old region learn that a new
// one serves now. Its format is frozen for ever: the first eight bytes, in the machine's byte
// order. The next eight are kvd's own: how far versions have come, for a next life that finds
// neither the region nor a store that tells.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct generation {
	int fd;
	uint64_t *word; // mapped shared
};

/// Opens (or creates) DIR/kvd.gen. Returns 0, or -errno with one line in `why`
/// that names the file and the remedy.
int generation_open(struct generation *generation, const char *dir, char *why, size_t why_bytes);

/// A new region serves from now on.
/// Call with: the region alive, no reply sent yet. Thread must: any one. Orders: release; partner
/// the client's load at begin.
void generation_advance(struct generation *generation);

/// Remembers that versions up to `seq` were handed out; kept when kvd is killed, not when the
/// machine goes down. generation_version() is what an earlier life remembered, 0 = nothing.
void generation_note_version(struct generation *generation, uint64_t seq);
/// The same, kept when the machine goes down, too. Returns 0 or -errno.
int generation_keep_version(struct generation *generation, uint64_t seq);
uint64_t generation_version(const struct generation *generation);

/// The folder was removed with it, and made anew: the same in a new file, under the same
/// descriptor and address. Who looks at the old one is told that it is over. Returns as
/// generation_open(), with the old one as it was.
/// Call with: the socket of the new folder open. Thread must: the one that advances it. Orders: as
/// generation_advance().
int generation_renew(struct generation *generation, const char *dir, char *why, size_t why_bytes);

void generation_close(struct generation *generation);

// SPDX-License-Identifier: MIT
//
// kvd's side of DIR/kvd.gen (shm/generation.h): which region serves from this folder, for readers
// of an older one and for the next kvd, and how far versions have come, for a next life that finds
// neither the region nor a store that tells. Written by calls whose results are checked.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/generation.h"

struct generation {
	int fd;			   // -1 = not open
	struct kvs_generation now; // what the file says, or is to say
	bool is_due;		   // it does not say that yet
	bool is_failing;	   // the last write failed, and the log says so
	uint64_t looked_ns;	   // when the file was last compared, or a write last tried
};

/// Opens (or creates) DIR/kvd.gen and makes sure of its page. Returns 0, or -errno with one line in
/// `why` that names the file and the remedy.
int generation_open(struct generation *generation, const char *dir, char *why, size_t why_bytes);

/// The region serves from now on; `is_next`: it has not before. Returns 0 or -errno: then readers
/// of an older region cannot be told, and this one must not serve.
/// Call with: the region alive, no reply sent yet. Thread must: any one. Orders: by the call;
/// partner kvc_serving_told() in a client that finds the former writer gone.
int generation_serve(struct generation *generation, uint64_t instance_id, bool is_next);

/// Once a turn: sees to it that the file says that versions beyond `last_seq` may have been handed
/// out, well ahead of it, and now and then that it says what it should at all: somebody may have
/// cut it short. What fails is told once and tried again; a next life that finds an older note
/// begins RECOVER_VERSION_GAP above that, so nothing is lost for as many versions.
void generation_turn(struct generation *generation, uint64_t last_seq, uint64_t now_ns);

/// The same when kvd starts: now, if it is not so.
void generation_note_version(struct generation *generation, uint64_t last_seq);
/// The same, kept when the machine goes down, too. Returns 0 or -errno.
int generation_keep_version(struct generation *generation, uint64_t last_seq);
/// A life that a store follows has ended in order: nothing was handed out beyond `last_seq`.
void generation_end_versions(struct generation *generation, uint64_t last_seq);

/// The folder was removed with it, and made anew: the same in a new file, under the same
/// descriptor. Who maps the old one is told that it is over. Returns as generation_open(), with the
/// old one as it was.
/// Call with: the socket of the new folder open. Thread must: the one that has a region serve.
/// Orders: none.
int generation_renew(struct generation *generation, const char *dir, char *why, size_t why_bytes);

void generation_close(struct generation *generation);

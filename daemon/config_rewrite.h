// SPDX-License-Identifier: MIT
//
// Writing options back into the file they came from: what was set while kvd ran takes the place of
// what stands there, everything else, comments too, stays as it is.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/config_option.h"

struct config_rewriter;
struct loop;
struct seam;

/// Rewrites config->config_path with the options of which `changed` is true. A reader of the file,
/// or a crash, finds the old file or the new one. False: `error` tells why, and the file is as it
/// was. It waits for the disk.
bool config_rewrite(const struct seam *seam, const struct config *config,
		    const bool changed[CONFIG_OPTIONS_MAX], char *error, size_t error_bytes);

// ---- the same on a thread of its own, for the loop's ----

/// `told` is called, on the loop's thread, whenever one is over or its result was taken or left.
/// NULL, and errno, if there is no room.
struct config_rewriter *config_rewriter_create(const struct seam *seam, struct loop *loop,
					       void (*told)(void *context), void *context);
/// Waits for what is on its way. NULL is fine.
void config_rewriter_destroy(struct config_rewriter *rewriter);

/// Begins to write what `config` is now, for `owner` (any pointer that is not NULL). False: another
/// is on its way, or nobody has taken its result (*busy), or `error` tells why it cannot begin.
bool config_rewriter_begin(struct config_rewriter *rewriter, const void *owner,
			   const struct config *config, const bool changed[CONFIG_OPTIONS_MAX],
			   bool *busy, char *error, size_t error_bytes);
/// Is `owner`'s over? Then *good and `error` are as config_rewrite()'s, and it is taken.
bool config_rewriter_take(struct config_rewriter *rewriter, const void *owner, bool *good,
			  char *error, size_t error_bytes);
/// Nobody will take the result of `owner`; what is on its way is done all the same.
void config_rewriter_leave(struct config_rewriter *rewriter, const void *owner);

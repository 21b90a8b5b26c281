// SPDX-License-Identifier: MIT
//
// Reading limits of memory; see memory_limit.h. What cannot be read or understood is no limit.
#include "daemon/memory_limit.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT_LINE_BYTES 4096
#define LIMIT_LINES_MAX 4096	       // of one file
#define LIMIT_NONE (UINT64_C(1) << 62) // version 1 says this much, or nearly, where there is none

/// A hierarchy of control groups: where it is mounted, which group that is, and which is ours.
struct limit_tree {
	bool is_old; // version 1
	char mount[LIMIT_LINE_BYTES];
	char top[LIMIT_LINE_BYTES];
	char group[LIMIT_LINE_BYTES];
};

static FILE *limit_open(const char *root, const char *path)
{
	char full[PATH_MAX];
	int n = snprintf(full, sizeof(full), "%s%s", root, path);
	return n > 0 && (size_t)n < sizeof(full) ? fopen(full, "re") : NULL;
}

/// A number of bytes at `text`, nothing else in the line; false for "max" and other words.
static bool limit_number(const char *text, uint64_t *bytes)
{
	char *end = NULL;
	if (*text < '0' || *text > '9') {
		return false;
	}
	errno = 0;
	unsigned long long number = strtoull(text, &end, 10);
	*bytes = number;
	return errno == 0 && (*end == '\n' || *end == '\0');
}

static void limit_lower(struct memory_limit *limit, uint64_t bytes, const char *what)
{
	if (bytes < limit->bytes && bytes < LIMIT_NONE) {
		limit->bytes = bytes;
		size_t length = strnlen(what, sizeof(limit->what) - 1);
		memcpy(limit->what, what, length);
		limit->what[length] = '\0';
	}
}

static void limit_of_machine(const char *root, struct memory_limit *limit)
{
	char line[LIMIT_LINE_BYTES];
	unsigned long long kib;
	FILE *file = limit_open(root, "/proc/meminfo");
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemTotal: %llu kB", &kib) == 1 && kib < LIMIT_NONE >> 10) {
			limit_lower(limit, (uint64_t)kib << 10, "");
			break;
		}
	}
	if (file) {
		(void)fclose(file);
	}
}

/// The number in a file, UINT64_MAX for none.
static uint64_t limit_of_file(const char *root, const char *path)
{
	char line[64];
	uint64_t bytes = UINT64_MAX;
	FILE *file = limit_open(root, path);
	if (!file || !fgets(line, sizeof(line), file) || !limit_number(line, &bytes)) {
		bytes = UINT64_MAX;
	}
	if (file) {
		(void)fclose(file);
	}
	return bytes;
}

/// Is `word` one of the words of a list with commas?
static bool limit_lists(const char *list, const char *word)
{
	size_t bytes = strlen(word);
	for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
		if (strncmp(at, word, bytes) == 0 &&
		    (at[bytes] == ',' || at[bytes] == '\0' || at[bytes] == '\n')) {
			return true;
		}
	}
	return false;
}

/// The process's group in the hierarchy: of version 2 the line "0::PATH", else the one with
/// "memory".
static bool limit_group(const char *root, int pid, struct limit_tree *tree)
{
	char line[LIMIT_LINE_BYTES];
	char path_of[32] = "/proc/self/cgroup";
	bool found = false;
	if (pid > 0) {
		(void)snprintf(path_of, sizeof(path_of), "/proc/%d/cgroup", pid);
	}
	FILE *file = limit_open(root, path_of);
	for (unsigned i = 0; file && !found && i < LIMIT_LINES_MAX; i++) {
		if (!fgets(line, sizeof(line), file)) {
			break;
		}
		char *names = strchr(line, ':');
		char *path = names ? strchr(names + 1, ':') : NULL;
		if (!path) {
			continue;
		}
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		names++;
		found = *path == '/' && !strstr(path, "/..") &&
			(tree->is_old ? limit_lists(names, "memory") : *names == '\0');
		if (found) {
			(void)snprintf(tree->group, sizeof(tree->group), "%s", path);
		}
	}
	if (file) {
		(void)fclose(file);
	}
	return found;
}

/// Is the line of mountinfo a mount of groups that limit memory? Its fields: id, parent, device,
/// root, mount point, options …, "-", type, source, options.
static bool limit_mount(char *line, struct limit_tree *tree)
{
	char type[64];
	char options[LIMIT_LINE_BYTES];
	const char *behind = strstr(line, " - ");
	if (!behind || sscanf(behind, " - %63s %*4095s %4095s", type, options) != 2 ||
	    sscanf(line, "%*31s %*31s %*31s %4095s %4095s", tree->top, tree->mount) != 2) {
		return false;
	}
	tree->is_old = strcmp(type, "cgroup") == 0;
	return strcmp(type, "cgroup2") == 0 || (tree->is_old && limit_lists(options, "memory"));
}

/// One group.
static void limit_of_folder(const char *root, bool is_old, const char *folder,
			    struct memory_limit *limit)
{
	static const char *const names[2][2] = { { "memory.max", "memory.high" },
						 { "memory.limit_in_bytes", NULL } };
	static const char *const used[2] = { "memory.current", "memory.usage_in_bytes" };
	char path[2 * LIMIT_LINE_BYTES + 32];
	(void)snprintf(path, sizeof(path), "%s/%s", folder, used[is_old]);
	uint64_t used_bytes = limit_of_file(root, path);
	used_bytes = used_bytes < UINT64_MAX ? used_bytes : 0;
	for (unsigned i = 0; i < 2 && names[is_old][i]; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", folder, names[is_old][i]);
		uint64_t bytes = limit_of_file(root, path);
		uint64_t room = bytes > used_bytes ? bytes - used_bytes : 0;
		limit_lower(limit, bytes, path);
		if (bytes < LIMIT_NONE && room < limit->room_bytes) {
			limit->room_bytes = room;
		}
	}
}

/// Our group and all above it, up to the one that is mounted.
static void limit_of_tree(const char *root, struct limit_tree *tree, struct memory_limit *limit)
{
	size_t top_bytes = strcmp(tree->top, "/") == 0 ? 0 : strlen(tree->top);
	const char *below = "";
	if (strncmp(tree->group, tree->top, top_bytes) == 0 &&
	    (tree->group[top_bytes] == '/' || tree->group[top_bytes] == '\0')) {
		below = tree->group + top_bytes;
	}
	char folder[2 * LIMIT_LINE_BYTES];
	size_t mount_bytes = strlen(tree->mount);
	(void)snprintf(folder, sizeof(folder), "%s%s", tree->mount,
		       strcmp(below, "/") == 0 ? "" : below);
	for (;;) {
		limit_of_folder(root, tree->is_old, folder, limit);
		char *slash = strrchr(folder, '/');
		if (!slash || (size_t)(slash - folder) < mount_bytes) {
			break;
		}
		*slash = '\0';
	}
}

struct memory_limit memory_limit_find(const char *root)
{
	return memory_limit_find_of(root, 0);
}

struct memory_limit memory_limit_find_of(const char *root, int pid)
{
	struct memory_limit limit = { .bytes = UINT64_MAX, .room_bytes = UINT64_MAX };
	limit_of_machine(root, &limit);
	struct limit_tree *tree = malloc(sizeof(*tree));
	char *line = malloc(LIMIT_LINE_BYTES);
	FILE *file = tree && line ? limit_open(root, "/proc/self/mountinfo") : NULL;
	for (unsigned i = 0; file && i < LIMIT_LINES_MAX; i++) {
		if (!fgets(line, LIMIT_LINE_BYTES, file)) {
			break;
		}
		if (limit_mount(line, tree) && limit_group(root, pid, tree)) {
			limit_of_tree(root, tree, &limit);
		}
	}
	if (file) {
		(void)fclose(file);
	}
	free(line);
	free(tree);
	return limit;
}

uint64_t memory_limit_default(const struct memory_limit *limit, uint64_t wanted, uint64_t least)
{
	uint64_t half = limit->bytes / 2 & ~((UINT64_C(1) << 20) - 1);
	uint64_t bytes = half < wanted ? half : wanted;
	return bytes > least ? bytes : least;
}

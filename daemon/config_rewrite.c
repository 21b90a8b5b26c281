// SPDX-License-Identifier: MIT
//
// The new text is built in memory line by line, written beside the old file with its owner and
// mode, synced, and renamed over it.
#include "daemon/config_rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/seam.h"
#include "daemon/text.h"

#define REWRITE_BYTES_MAX (1u << 20)
#define REWRITE_VALUE_BYTES 4096
#define REWRITE_TITLE "# Set while kvd ran, by CONFIG REWRITE\n"

struct rewrite {
	const struct config *config;
	char *path;		       // of the file itself, behind symbolic links
	bool left[CONFIG_OPTIONS_MAX]; // changed, and not yet written
	struct text text;
	char *error;
	size_t error_bytes;
};

static bool rewrite_fail(struct rewrite *r, const char *what)
{
	(void)snprintf(r->error, r->error_bytes, "%s %s: %s", what, r->path, strerror(errno));
	return false;
}

/// The value as the file has it, with its unit.
static void rewrite_option(struct rewrite *r, size_t index)
{
	const struct config_option *option = config_option(index);
	char value[REWRITE_VALUE_BYTES];
	if (option->kind == CONFIG_KIND_STRING) {
		(void)snprintf(value, sizeof(value), "%s", config_option_string(r->config, option));
	} else {
		config_option_print(option, config_option_get(r->config, option), value,
				    sizeof(value));
	}
	text_printf(&r->text, "%s = %s\n", option->name, value);
	r->left[index] = false;
}

/// The option that a line of the file sets, config_count() if none.
static size_t rewrite_line_option(const char *line)
{
	const char *name = line + strspn(line, " \t");
	size_t bytes = strcspn(name, " \t=:\n");
	for (size_t i = 0; i < config_count(); i++) {
		if (strlen(config_name(i)) == bytes && strncmp(name, config_name(i), bytes) == 0) {
			return i;
		}
	}
	return config_count();
}

/// Reads the file and makes the new text of it. Of an option that stands there twice the first
/// place gets the new value, and the others go.
static bool rewrite_build(struct rewrite *r, const bool changed[CONFIG_OPTIONS_MAX])
{
	FILE *file = fopen(r->path, "re");
	if (!file) {
		return rewrite_fail(r, "cannot open");
	}
	char *line = NULL;
	size_t capacity = 0;
	ssize_t bytes;
	while ((bytes = getline(&line, &capacity, file)) > 0) {
		size_t index = rewrite_line_option(line);
		if (index == config_count() || !changed[index]) {
			text_add(&r->text, line, (size_t)bytes);
			if (line[bytes - 1] != '\n') {
				text_add(&r->text, "\n", 1);
			}
		} else if (r->left[index]) {
			rewrite_option(r, index);
		}
	}
	bool bad = ferror(file) != 0;
	free(line);
	(void)fclose(file);
	bool titled = r->text.data && strstr(r->text.data, REWRITE_TITLE) != NULL;
	for (size_t i = 0; i < config_count(); i++) {
		if (r->left[i] && !titled) {
			text_add(&r->text, REWRITE_TITLE, sizeof(REWRITE_TITLE) - 1);
			titled = true;
		}
		if (r->left[i]) {
			rewrite_option(r, i);
		}
	}
	if (bad || r->text.truncated) {
		errno = bad ? EIO : EFBIG;
		return rewrite_fail(r, "cannot read");
	}
	return true;
}

static bool rewrite_write(struct rewrite *r, const struct seam *seam, int fd)
{
	for (size_t done = 0; done < r->text.bytes;) {
		ssize_t n = seam->write(fd, r->text.data + done, r->text.bytes - done);
		if (n < 0 && errno != EINTR) {
			return rewrite_fail(r, "cannot write what replaces");
		}
		done += n > 0 ? (size_t)n : 0;
	}
	return seam->fsync(fd) == 0 || rewrite_fail(r, "cannot sync what replaces");
}

/// The folder's own change must last, too. The file is new already: an error is not told.
static void rewrite_sync_folder(const struct seam *seam, const char *path)
{
	char *folder = strdup(path);
	char *slash = folder ? strrchr(folder, '/') : NULL;
	if (slash) {
		slash[slash == folder] = 0;
	}
	int fd = folder ? seam->open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
			: -1;
	if (fd >= 0) {
		int synced = seam->fsync(fd);
		(void)synced;
		(void)close(fd);
	}
	free(folder);
}

static bool rewrite_replace(struct rewrite *r, const struct seam *seam)
{
	char *path = NULL;
	struct stat old;
	if (stat(r->path, &old) != 0) {
		return rewrite_fail(r, "cannot look at");
	}
	if (asprintf(&path, "%s.new-%d", r->path, (int)getpid()) < 0) {
		errno = ENOMEM;
		return rewrite_fail(r, "cannot rewrite");
	}
	int fd = seam->open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, old.st_mode & 0777);
	bool good = fd >= 0 || rewrite_fail(r, "cannot make a file beside");
	if (good) {
		// The mode passed open() through the umask; the owner stays where kvd may do that.
		good = fchmod(fd, old.st_mode & 0777) == 0 ||
		       rewrite_fail(r, "cannot set the mode of");
		int owned = fchown(fd, old.st_uid, old.st_gid);
		(void)owned;
		good = good && rewrite_write(r, seam, fd);
		(void)close(fd);
		if (good && seam->rename(path, r->path) != 0) {
			good = rewrite_fail(r, "cannot replace");
		}
		if (!good) {
			int gone = seam->unlink(path);
			(void)gone;
		}
	}
	free(path);
	if (good) {
		rewrite_sync_folder(seam, r->path);
	}
	return good;
}

bool config_rewrite(const struct seam *seam, const struct config *config,
		    const bool changed[CONFIG_OPTIONS_MAX], char *error, size_t error_bytes)
{
	struct rewrite r = { .config = config, .error = error, .error_bytes = error_bytes };
	memcpy(r.left, changed, sizeof(r.left));
	r.path = realpath(config->config_path, NULL);
	if (!r.path) {
		(void)snprintf(error, error_bytes, "cannot find %s: %s", config->config_path,
			       strerror(errno));
		return false;
	}
	text_init(&r.text, REWRITE_BYTES_MAX);
	bool good = rewrite_build(&r, changed) && rewrite_replace(&r, seam);
	text_fini(&r.text);
	free(r.path);
	return good;
}

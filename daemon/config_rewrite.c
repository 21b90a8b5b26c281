// SPDX-License-Identifier: MIT
//
// The new text is built in memory line by line, written beside the old file with its owner and
// mode, synced, and renamed over it. A disk may take seconds for that, so a thread does it, with a
// copy of all it needs: it shares one word with the loop's thread, which says that it is over.
#include "daemon/config_rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/loop.h"
#include "daemon/seam.h"
#include "daemon/text.h"
#include "shm/atomics.h"

#define REWRITE_BYTES_MAX (1u << 20)
#define REWRITE_NUMBER_BYTES 64
#define REWRITE_ERROR_BYTES 512
#define REWRITE_TITLE "# Set while kvd ran, by CONFIG REWRITE\n"

/// What is to be written, as it was when that was asked for.
struct rewrite_order {
	char *path;
	char *lines[CONFIG_OPTIONS_MAX]; // of options that changed, NULL = it did not
};

struct rewrite {
	const struct rewrite_order *order;
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

static void order_fini(struct rewrite_order *order)
{
	for (size_t i = 0; i < config_count(); i++) {
		free(order->lines[i]);
	}
	free(order->path);
	*order = (struct rewrite_order){ 0 };
}

/// The option as the file has it, with its unit. NULL: `error` tells why.
static char *order_line(const struct config *config, const struct config_option *option,
			char *error, size_t error_bytes)
{
	char number[REWRITE_NUMBER_BYTES];
	const char *value = number;
	char *line = NULL;
	if (option->kind == CONFIG_KIND_STRING) {
		value = config_option_string(config, option);
	} else {
		config_option_print(option, config_option_get(config, option), number,
				    sizeof(number));
	}
	int bytes = asprintf(&line, "%s = %s\n", option->name, value);
	if (bytes < 0) {
		(void)snprintf(error, error_bytes, "out of memory");
		return NULL;
	}
	if (bytes - 1 > CONFIG_LINE_BYTES_MAX) {
		// kvd would not start with it any more.
		(void)snprintf(error, error_bytes,
			       "%s does not fit a line of the file, which has at most %d bytes: "
			       "name a group instead of many users, or give it to kvd as --%s",
			       option->name, CONFIG_LINE_BYTES_MAX, option->name);
		free(line);
		return NULL;
	}
	return line;
}

static bool order_init(struct rewrite_order *order, const struct config *config,
		       const bool changed[CONFIG_OPTIONS_MAX], char *error, size_t error_bytes)
{
	*order = (struct rewrite_order){ .path = strdup(config->config_path) };
	bool good = order->path != NULL;
	if (!good) {
		(void)snprintf(error, error_bytes, "out of memory");
	}
	for (size_t i = 0; good && i < config_count(); i++) {
		if (changed[i]) {
			order->lines[i] = order_line(config, config_option(i), error, error_bytes);
			good = order->lines[i] != NULL;
		}
	}
	if (!good) {
		order_fini(order);
	}
	return good;
}

static void rewrite_option(struct rewrite *r, size_t index)
{
	text_add(&r->text, r->order->lines[index], strlen(r->order->lines[index]));
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
static bool rewrite_build(struct rewrite *r)
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
		if (index == config_count() || !r->order->lines[index]) {
			text_add(&r->text, line, (size_t)bytes);
			if (line[bytes - 1] != '\n') {
				text_add(&r->text, "\n", 1);
			}
		} else if (r->left[index]) {
			rewrite_option(r, index);
		}
	}
	// Not at its end: an error of the file, or no memory for a line. The rest would be lost.
	int error = feof(file) ? 0 : ferror(file) ? EIO : ENOMEM;
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
	if (r->text.truncated) {
		(void)snprintf(r->error, r->error_bytes,
			       "cannot rewrite %s: it is larger than %u bytes, or memory is short",
			       r->path, REWRITE_BYTES_MAX);
		return false;
	}
	errno = error;
	return error == 0 || rewrite_fail(r, "cannot read");
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

static bool rewrite_run(const struct seam *seam, const struct rewrite_order *order, char *error,
			size_t error_bytes)
{
	struct rewrite r = { .order = order, .error = error, .error_bytes = error_bytes };
	for (size_t i = 0; i < config_count(); i++) {
		r.left[i] = order->lines[i] != NULL;
	}
	r.path = realpath(order->path, NULL);
	if (!r.path) {
		(void)snprintf(error, error_bytes, "cannot find %s: %s", order->path,
			       strerror(errno));
		return false;
	}
	text_init(&r.text, REWRITE_BYTES_MAX);
	bool good = rewrite_build(&r) && rewrite_replace(&r, seam);
	text_fini(&r.text);
	free(r.path);
	return good;
}

bool config_rewrite(const struct seam *seam, const struct config *config,
		    const bool changed[CONFIG_OPTIONS_MAX], char *error, size_t error_bytes)
{
	struct rewrite_order order;
	if (!order_init(&order, config, changed, error, error_bytes)) {
		return false;
	}
	bool good = rewrite_run(seam, &order, error, error_bytes);
	order_fini(&order);
	return good;
}

// ---- on a thread ----

struct config_rewriter {
	const struct seam *seam;
	struct loop *loop;
	struct loop_source source; // an eventfd, written by the thread when it is over
	void (*told)(void *context);
	void *context;
	const void *owner; // who takes the result, NULL = nobody
	bool started;	   // there is a thread to join
	pthread_t thread;
	// The thread's, from its start until `over`.
	struct rewrite_order order;
	bool good;
	char error[REWRITE_ERROR_BYTES];
	uint64_t over;
};

static void rewriter_ready(struct loop_source *source, uint32_t events)
{
	struct config_rewriter *rewriter =
		(void *)((char *)source - offsetof(struct config_rewriter, source));
	uint64_t count;
	ssize_t n = rewriter->seam->read(source->fd, &count, sizeof(count));
	(void)n; // whoever waits looks for himself
	(void)events;
	rewriter->told(rewriter->context);
}

static void *rewriter_main(void *context)
{
	struct config_rewriter *rewriter = context;
	uint64_t one = 1;
	rewriter->good = rewrite_run(rewriter->seam, &rewriter->order, rewriter->error,
				     sizeof(rewriter->error));
	kvs_store_release(&rewriter->over, 1); // partner: the acquire in rewriter_is_over()
	ssize_t n = write(rewriter->source.fd, &one, sizeof(one));
	(void)n; // it cannot be full
	return NULL;
}

static bool rewriter_is_over(const struct config_rewriter *rewriter)
{
	// Partner: the release in rewriter_main(). What the thread wrote may be read behind it.
	return kvs_load_acquire(&rewriter->over) != 0;
}

static void rewriter_join(struct config_rewriter *rewriter)
{
	if (rewriter->started) {
		int error = pthread_join(rewriter->thread, NULL);
		(void)error; // it is ours, and was not joined before
		rewriter->started = false;
		order_fini(&rewriter->order);
	}
}

struct config_rewriter *config_rewriter_create(const struct seam *seam, struct loop *loop,
					       void (*told)(void *context), void *context)
{
	struct config_rewriter *rewriter = calloc(1, sizeof(*rewriter));
	if (!rewriter) {
		return NULL;
	}
	*rewriter = (struct config_rewriter){
		.seam = seam,
		.loop = loop,
		.source = { .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .ready = rewriter_ready },
		.told = told,
		.context = context,
	};
	int error = rewriter->source.fd < 0 ? -errno : loop_add(loop, &rewriter->source, EPOLLIN);
	if (error != 0) {
		if (rewriter->source.fd >= 0) {
			(void)close(rewriter->source.fd);
		}
		free(rewriter);
		errno = -error;
		return NULL;
	}
	return rewriter;
}

void config_rewriter_destroy(struct config_rewriter *rewriter)
{
	if (rewriter) {
		rewriter_join(rewriter);
		loop_remove(rewriter->loop, &rewriter->source);
		(void)close(rewriter->source.fd);
		free(rewriter);
	}
}

bool config_rewriter_begin(struct config_rewriter *rewriter, const void *owner,
			   const struct config *config, const bool changed[CONFIG_OPTIONS_MAX],
			   bool *busy, char *error, size_t error_bytes)
{
	*busy = rewriter->owner || (rewriter->started && !rewriter_is_over(rewriter));
	if (*busy) {
		return false;
	}
	rewriter_join(rewriter); // of one that nobody asks about any more
	if (!order_init(&rewriter->order, config, changed, error, error_bytes)) {
		return false;
	}
	rewriter->error[0] = 0;
	kvs_store_release(&rewriter->over, 0); // partner: none, the thread does not run yet
	int result = pthread_create(&rewriter->thread, NULL, rewriter_main, rewriter);
	if (result != 0) {
		order_fini(&rewriter->order);
		(void)snprintf(error, error_bytes, "cannot start a thread: %s", strerror(result));
		return false;
	}
	rewriter->started = true;
	rewriter->owner = owner;
	return true;
}

bool config_rewriter_take(struct config_rewriter *rewriter, const void *owner, bool *good,
			  char *error, size_t error_bytes)
{
	if (rewriter->owner != owner || !rewriter_is_over(rewriter)) {
		return false;
	}
	*good = rewriter->good;
	(void)snprintf(error, error_bytes, "%s", rewriter->error);
	rewriter_join(rewriter);
	rewriter->owner = NULL;
	rewriter->told(rewriter->context); // the next may begin
	return true;
}

void config_rewriter_leave(struct config_rewriter *rewriter, const void *owner)
{
	if (rewriter->owner == owner) {
		rewriter->owner = NULL;
		rewriter->told(rewriter->context);
	}
}

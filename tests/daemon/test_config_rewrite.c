// SPDX-License-Identifier: MIT
//
// CONFIG REWRITE of a file, while memory is refused and the device fails, at each call in turn: the
// old file is there whole, or the new one, and nothing beside it; what kvd could not read again is
// not written.
#include "daemon/config_rewrite.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/config_set.h"
#include "daemon/loop.h"
#include "daemon/seam.h"
#include "tests/lib/refuse_memory.h"
#include "tests/tap/tap.h"

#define TEXT_BYTES (3u << 20)
#define USER 12345u // of the file, where the test may give it away

// ---- calls that fail ----------------------------------------------------------------------------

/// How often each may still succeed; -1 = always.
static struct {
	int lines, threads, eventfds, modes;
	int opens, writes, syncs, renames;
} left;

static bool may(int *count)
{
	if (*count < 0) {
		return true;
	}
	if (*count > 0) {
		--*count;
		return true;
	}
	return false;
}

ssize_t __real___getdelim(char **line, size_t *capacity, int end, FILE *file);
ssize_t __wrap___getdelim(char **line, size_t *capacity, int end, FILE *file);
ssize_t __wrap_getline(char **line, size_t *capacity, FILE *file);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*main)(void *),
			  void *context);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*main)(void *),
			  void *context);
int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
int __real_fchmod(int fd, mode_t mode);
int __wrap_fchmod(int fd, mode_t mode);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
int __wrap_asprintf(char **out, const char *format, ...) __attribute__((format(printf, 2, 3)));

// As glibc without memory for a longer line: neither the end of the file nor an error of it.
ssize_t __wrap___getdelim(char **line, size_t *capacity, int end, FILE *file)
{
	if (!may(&left.lines)) {
		errno = ENOMEM;
		return -1;
	}
	return __real___getdelim(line, capacity, end, file);
}

ssize_t __wrap_getline(char **line, size_t *capacity, FILE *file)
{
	return __wrap___getdelim(line, capacity, '\n', file);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*main)(void *),
			  void *context)
{
	return may(&left.threads) ? __real_pthread_create(thread, how, main, context) : EAGAIN;
}

int __wrap_eventfd(unsigned count, int flags)
{
	if (!may(&left.eventfds)) {
		errno = EMFILE;
		return -1;
	}
	return __real_eventfd(count, flags);
}

int __wrap_fchmod(int fd, mode_t mode)
{
	if (!may(&left.modes)) {
		errno = EPERM;
		return -1;
	}
	return __real_fchmod(fd, mode);
}

// Memory that libc takes for itself is counted with the rest.
char *__wrap_strdup(const char *text)
{
	return refuse_now() ? NULL : __real_strdup(text);
}

int __wrap_asprintf(char **out, const char *format, ...)
{
	va_list args;
	if (refuse_now()) {
		return -1;
	}
	va_start(args, format);
	int bytes = vasprintf(out, format, args);
	va_end(args);
	return bytes;
}

static int failing_open(const char *path, int flags, mode_t mode)
{
	errno = ENOSPC;
	return may(&left.opens) ? seam_system.open(path, flags, mode) : -1;
}

// A few bytes at a time, interrupted now and then.
static ssize_t failing_write(int fd, const void *from, size_t bytes)
{
	static unsigned turn;
	if (!may(&left.writes)) {
		errno = ENOSPC;
		return -1;
	}
	if (++turn % 3 == 0) {
		errno = EINTR;
		return -1;
	}
	return seam_system.write(fd, from, bytes < 7 ? bytes : 7);
}

static int failing_fsync(int fd)
{
	errno = EIO;
	return may(&left.syncs) ? seam_system.fsync(fd) : -1;
}

static int failing_rename(const char *from, const char *to)
{
	errno = EROFS;
	return may(&left.renames) ? seam_system.rename(from, to) : -1;
}

// ---- the file -----------------------------------------------------------------------------------

static char folder[128], path[160], error[512];
static struct seam seam;
static struct config config;
static bool changed[CONFIG_OPTIONS_MAX];

static const char before[] = "# mine\n"
			     "write-wait = 2s\n"
			     "  maxclients: 100\n"
			     "write-wait = 7s\n"
			     "memory=64MiB"; // and no end
static const char after[] = "# mine\n"
			    "write-wait = 3s\n"
			    "  maxclients: 100\n"
			    "memory=64MiB\n"
			    "# Set while kvd ran, by CONFIG REWRITE\n"
			    "slowlog-max-len = 7\n";

static void put(const char *text)
{
	FILE *file = fopen(path, "we");
	if (!file || fputs(text, file) < 0 || fclose(file) != 0) {
		printf("Bail out! %s\n", path);
		exit(1);
	}
}

static const char *got(void)
{
	static char text[TEXT_BYTES];
	FILE *file = fopen(path, "re");
	size_t bytes = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
	text[bytes] = '\0';
	if (file) {
		(void)fclose(file);
	}
	return text;
}

static unsigned files(void)
{
	unsigned count = 0;
	DIR *dir = opendir(folder);
	for (const struct dirent *one; dir && (one = readdir(dir)) != NULL;) {
		count += one->d_name[0] != '.';
	}
	if (dir) {
		(void)closedir(dir);
	}
	return count;
}

static bool set(const char *name, const char *value)
{
	struct config_change change;
	config_change_begin(&change, &config);
	size_t index = config_find(name, strlen(name));
	bool good = config_change_set(&change, index, value, error, sizeof(error));
	changed[index] = true;
	if (good) {
		config_change_commit(&change, &config);
	} else {
		config_change_abort(&change);
	}
	return good;
}

static bool rewrite(void)
{
	error[0] = '\0';
	return config_rewrite(&seam, &config, changed, error, sizeof(error));
}

// Lets each call of one kind fail in turn, until one succeeds without a failure.
static void test_failing(int *count, const char *what, unsigned at_least)
{
	unsigned wrong = 0, tries = 0;
	bool good = false;
	while (!good && tries < 1000) {
		put(before);
		*count = (int)tries++;
		good = rewrite();
		wrong += strcmp(got(), good ? after : before) != 0 || files() != 1;
		wrong += !good && error[0] == '\0';
	}
	*count = -1;
	ok(good && wrong == 0 && tries > at_least, "%s fails, each of %u times: the file is whole",
	   what, tries - 1);
}

static void test_failures(void)
{
	test_failing(&left.lines, "reading a line", 4);
	test_failing(&left.opens, "opening", 0);
	test_failing(&left.writes, "writing", 10);
	test_failing(&left.syncs, "a sync", 0);
	test_failing(&left.renames, "the rename", 0);
	test_failing(&left.modes, "setting the mode", 0);
	put(before);
	left.syncs = 1;
	ok(rewrite() && strcmp(got(), after) == 0, "the folder's sync fails: the file is new");
	left.syncs = left.opens = -1;
	put(before);
	left.opens = 1;
	ok(rewrite() && strcmp(got(), after) == 0, "nor need the folder be opened");
	left.opens = -1;
}

static void test_memory(void)
{
	unsigned wrong = 0, at = 1;
	for (bool reached = true; reached; at++) {
		put(before);
		refuse_arm(at);
		bool good = rewrite();
		reached = refuse.refused > 0;
		refuse.armed = false;
		wrong += strcmp(got(), good ? after : before) != 0 || files() != 1;
		wrong += (!good && error[0] == '\0') || (!good && !reached);
	}
	ok(wrong == 0 && at > 5, "no memory, each of %u times: the file is whole", at - 2);
}

static void test_kept(void)
{
	char link_path[sizeof(path) + 8];
	struct stat facts;
	mode_t mask = umask(077);
	put(before);
	bool given = chmod(path, 0654) == 0 && chown(path, USER, USER) == 0;
	(void)snprintf(link_path, sizeof(link_path), "%s.link", path);
	free(config.config_path);
	config.config_path = strdup(link_path);
	ok(symlink(path, link_path) == 0 && rewrite() && strcmp(got(), after) == 0,
	   "through a link the file that it leads to is rewritten");
	ok(lstat(link_path, &facts) == 0 && S_ISLNK(facts.st_mode), "and the link stays");
	ok(stat(path, &facts) == 0 && (facts.st_mode & 0777) == 0654, "the mode stays");
	ok(!given || (facts.st_uid == USER && facts.st_gid == USER), "the owner too%s",
	   given ? "" : " (not as this user)");
	(void)unlink(link_path);
	ok(!rewrite() && strstr(error, "cannot find") != NULL, "a link that leads nowhere: %s",
	   error);
	free(config.config_path);
	config.config_path = strdup(path);
	(void)umask(mask);
	put(after);
	ok(rewrite() && strcmp(got(), after) == 0, "again: one heading, and nothing twice");
}

// A file that kvd could not read again is worse than an error.
static void test_too_long(void)
{
	char users[CONFIG_LINE_BYTES_MAX + 2];
	size_t most = CONFIG_LINE_BYTES_MAX - strlen("allow-write = "), bytes = 0;
	while (bytes + 8 < most) {
		bytes += (size_t)snprintf(users + bytes, sizeof(users) - bytes, "user:%u,",
					  (unsigned)(bytes % 90) + 10);
	}
	bytes += (size_t)snprintf(users + bytes, sizeof(users) - bytes, "user:%0*u",
				  (int)(most - bytes - 5), 1u);
	put(before);
	ok(set("allow-write", users) && bytes == most && rewrite(), "a line that just fits: %s",
	   error);
	(void)snprintf(users + bytes - 1, sizeof(users) - bytes + 1, "11");
	put(before);
	ok(set("allow-write", users) && !rewrite() && strcmp(got(), before) == 0,
	   "one byte more is refused: %s", error);
	ok(set("allow-write", "*") && rewrite(), "until it is shorter");
	changed[config_find("allow-write", strlen("allow-write"))] = false;

	FILE *file = fopen(path, "we");
	for (unsigned i = 0; file && i < 30000; i++) {
		(void)fprintf(file, "# %038u\n", i);
	}
	ok(file && fclose(file) == 0 && !rewrite() && strstr(error, "larger than") != NULL,
	   "a file of more than a MiB: %s", error);
	ok(unlink(path) == 0 && mkdir(path, 0700) == 0 && !rewrite() && files() == 1,
	   "a folder in its place: %s", error);
	(void)rmdir(path);
}

// ---- the thread ---------------------------------------------------------------------------------

static unsigned tellings;

static void told(void *context)
{
	(void)context;
	tellings++;
}

static void test_thread(struct loop *loop)
{
	static const int one, other;
	bool busy, good = false;
	left.eventfds = 0;
	ok(config_rewriter_create(&seam, loop, told, NULL) == NULL && errno == EMFILE,
	   "no descriptor for a rewriter");
	left.eventfds = -1;
	refuse_arm(1);
	ok(config_rewriter_create(&seam, loop, told, NULL) == NULL, "no memory for one");
	refuse.armed = false;
	struct config_rewriter *rewriter = config_rewriter_create(&seam, loop, told, NULL);
	put(before);
	left.threads = 0;
	ok(!config_rewriter_begin(rewriter, &one, &config, changed, &busy, error, sizeof(error)) &&
		   !busy && strstr(error, "thread") != NULL,
	   "no thread: %s", error);
	left.threads = -1;
	refuse_arm(1);
	ok(!config_rewriter_begin(rewriter, &one, &config, changed, &busy, error, sizeof(error)) &&
		   !busy && strstr(error, "memory") != NULL,
	   "no memory for what is to be written: %s", error);
	refuse.armed = false;
	ok(config_rewriter_begin(rewriter, &one, &config, changed, &busy, error, sizeof(error)),
	   "one begins");
	ok(!config_rewriter_begin(rewriter, &other, &config, changed, &busy, error,
				  sizeof(error)) &&
		   busy,
	   "another has to wait");
	ok(!config_rewriter_take(rewriter, &other, &good, error, sizeof(error)),
	   "and does not get its result");
	config_rewriter_leave(rewriter, &other);
	while (tellings == 0) {
		(void)loop_turn(loop, -1);
	}
	ok(config_rewriter_take(rewriter, &one, &good, error, sizeof(error)) && good &&
		   strcmp(got(), after) == 0,
	   "who began does");
	ok(config_rewriter_begin(rewriter, &other, &config, changed, &busy, error, sizeof(error)),
	   "then the other may begin");
	config_rewriter_leave(rewriter, &other);
	config_rewriter_destroy(rewriter); // waits for what is on its way
	config_rewriter_destroy(NULL);
	ok(strcmp(got(), after) == 0 && files() == 1, "what nobody waits for is done all the same");
}

int main(void)
{
	const char *argv[] = { "kvd", "--dir", "/x", NULL };
	struct loop *loop;
	const char *temporary = getenv("TMPDIR");
	(void)snprintf(folder, sizeof(folder), "%s/kvd-rewrite-XXXXXX",
		       temporary ? temporary : "/tmp");
	memset(&left, -1, sizeof(left));
	seam = seam_system;
	seam.open = failing_open;
	seam.write = failing_write;
	seam.fsync = failing_fsync;
	seam.rename = failing_rename;
	if (!mkdtemp(folder) ||
	    config_parse(&config, 3, (char **)argv, error, sizeof(error)) != CONFIG_RUN ||
	    loop_create(&loop, &seam_system) != 0 || !set("write-wait", "3s") ||
	    !set("slowlog-max-len", "7")) {
		printf("Bail out! %s\n", error);
		return 1;
	}
	(void)snprintf(path, sizeof(path), "%s/kvd.conf", folder);
	free(config.config_path);
	config.config_path = strdup(path);
	test_failures();
	test_memory();
	test_kept();
	test_too_long();
	test_thread(loop);
	loop_destroy(loop);
	config_fini(&config);
	(void)unlink(path);
	(void)rmdir(folder);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// A system that refuses: preloaded into kvd, or into a client, this library stands in front of the
// calls of libc that may fail for want of memory, descriptors, space or a working device. A page
// that is shared with the test (KVD_FAULTS names its file) says which call in turn is to fail; it
// tells how many there were and which one it was. Only failures that the system could give at that
// moment are given: a socket that has room never says otherwise.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/crash/faults.h"

#define TWIN(name) __attribute__((alias(name)))
#define SHORT (-1) // not an error: less than was asked for is done

struct faults *faults;

__attribute__((constructor)) static void attach(void)
{
	const char *path = getenv("KVD_FAULTS");
	int fd =
		path != NULL ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
	if (fd >= 0) {
		void *page = (void *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE,
					     MAP_SHARED, fd, 0);
		(void)syscall(SYS_close, fd);
		faults = page != MAP_FAILED ? page : NULL;
	}
}

void faults_rest(void)
{
	faults = NULL;
}

static void tell_where(void *where)
{
	Dl_info found;
	if (dladdr(where, &found) != 0) {
		const char *slash = strrchr(found.dli_fname, '/');
		faults->where = (uint64_t)((char *)where - (char *)found.dli_fbase);
		(void)snprintf(faults->module, sizeof(faults->module), "%s",
			       slash != NULL ? slash + 1 : found.dli_fname);
	}
}

// Does this call fail? Then errno is set, or *shorter.
static bool fails(const char *name, void *where, const int *errors, size_t count, bool *shorter)
{
	if (faults == NULL || faults->armed == 0) {
		return false;
	}
	uint64_t number = ++faults->calls;
	uint64_t first = faults->fail_at;
	if (first == 0 || number < first || number - first >= faults->fail_count) {
		return false;
	}
	int error = errors[(number + faults->seed) % count];
	if (faults->failed++ == 0) {
		faults->error = (uint64_t)(error == SHORT ? 0 : error);
		(void)snprintf(faults->name, sizeof(faults->name), "%s", name);
		tell_where(where);
	}
	if (error == SHORT) {
		*shorter = true;
		return false;
	}
	errno = error;
	return true;
}

#define COUNT(errors) (sizeof(errors) / sizeof((errors)[0]))
#define FAILS_OR_SHORT(name, shorter, ...)                                                \
	({                                                                                \
		static const int errors[] = { __VA_ARGS__ };                              \
		fails(name, __builtin_return_address(0), errors, COUNT(errors), shorter); \
	})
#define FAILS(name, ...) FAILS_OR_SHORT(name, &(bool){ false }, __VA_ARGS__)

enum fd_kind { FD_OTHER, FD_FILE, FD_SOCKET };

static enum fd_kind kind_of(int fd)
{
	struct stat facts;
	if (faults == NULL || faults->armed == 0 || fd <= 2 || fstat(fd, &facts) != 0) {
		return FD_OTHER;
	}
	return S_ISREG(facts.st_mode) ? FD_FILE : S_ISSOCK(facts.st_mode) ? FD_SOCKET : FD_OTHER;
}

// ---- memory -------------------------------------------------------------------------------------

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *block);

static void *counted(void *block)
{
	if (block != NULL && faults != NULL) {
		faults->blocks++;
	}
	return block;
}

void *malloc(size_t bytes)
{
	return FAILS("malloc", ENOMEM) ? NULL : counted(__libc_malloc(bytes));
}

void *calloc(size_t count, size_t bytes)
{
	return FAILS("calloc", ENOMEM) ? NULL : counted(__libc_calloc(count, bytes));
}

void *realloc(void *block, size_t bytes)
{
	if (FAILS("realloc", ENOMEM)) {
		return NULL;
	}
	void *moved = __libc_realloc(block, bytes);
	return block == NULL ? counted(moved) : moved;
}

void *reallocarray(void *block, size_t count, size_t bytes)
{
	size_t all;
	if (__builtin_mul_overflow(count, bytes, &all)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(block, all);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
	return FAILS("aligned_alloc", ENOMEM) ? NULL : counted(__libc_memalign(alignment, bytes));
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
	if (FAILS("posix_memalign", ENOMEM)) {
		return ENOMEM;
	}
	*out = counted(__libc_memalign(alignment, bytes));
	return *out != NULL ? 0 : ENOMEM;
}

void free(void *block)
{
	if (block != NULL && faults != NULL) {
		faults->blocks--;
	}
	__libc_free(block);
}

// Both names that a library may call it by, here and below, whatever this file's own offsets are.
void *shim_mmap64(void *, size_t, int, int, int, off64_t) __asm__("mmap64");
void *shim_mmap(void *, size_t, int, int, int, off64_t) __asm__("mmap") TWIN("mmap64");

void *shim_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off64_t offset)
{
	return FAILS("mmap", ENOMEM)
		       ? MAP_FAILED
		       : (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}

int mprotect(void *at, size_t bytes, int protection)
{
	return FAILS("mprotect", ENOMEM) ? -1 : (int)syscall(SYS_mprotect, at, bytes, protection);
}

// ---- files --------------------------------------------------------------------------------------

int shim_open64(const char *path, int flags, ...) __asm__("open64");
int shim_open(const char *path, int flags, ...) __asm__("open") TWIN("open64");

int shim_open64(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
	va_end(args);
	bool failed = (flags & O_CREAT) != 0 ? FAILS("open", ENOSPC, EMFILE, EIO, EDQUOT, EROFS)
					     : FAILS("open", EMFILE, ENOMEM, EIO);
	return failed ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

// Reading and writing: what fails depends on what is read or written. Nothing else is counted.
#define FAILS_READING(name, fd, shorter)                                               \
	(kind_of(fd) == FD_FILE	    ? FAILS_OR_SHORT(name, shorter, EIO, EINTR, SHORT) \
	 : kind_of(fd) == FD_SOCKET ? FAILS_OR_SHORT(name, shorter, EINTR, ECONNRESET) \
				    : false)
#define FAILS_WRITING(name, fd, shorter)                                                           \
	(kind_of(fd) == FD_FILE ? FAILS_OR_SHORT(name, shorter, ENOSPC, EIO, EDQUOT, SHORT, EINTR) \
	 : kind_of(fd) == FD_SOCKET ? FAILS_OR_SHORT(name, shorter, EINTR, ENOBUFS, ENOMEM)        \
				    : false)
#define HALF(bytes, shorter) ((shorter) ? (bytes) / 2 : (bytes))

ssize_t read(int fd, void *to, size_t bytes)
{
	bool shorter = false;
	return FAILS_READING("read", fd, &shorter)
		       ? -1
		       : syscall(SYS_read, fd, to, HALF(bytes, shorter && bytes > 1));
}

ssize_t write(int fd, const void *from, size_t bytes)
{
	bool shorter = false;
	return FAILS_WRITING("write", fd, &shorter)
		       ? -1
		       : syscall(SYS_write, fd, from, HALF(bytes, shorter && bytes > 1));
}

ssize_t shim_pread64(int, void *, size_t, off64_t) __asm__("pread64");
ssize_t shim_pread(int, void *, size_t, off64_t) __asm__("pread") TWIN("pread64");
ssize_t shim_pwrite64(int, const void *, size_t, off64_t) __asm__("pwrite64");
ssize_t shim_pwrite(int, const void *, size_t, off64_t) __asm__("pwrite") TWIN("pwrite64");

// What is there is read whole.
ssize_t shim_pread64(int fd, void *to, size_t bytes, off64_t offset)
{
	if (kind_of(fd) == FD_FILE && FAILS("pread", EIO)) {
		return -1;
	}
	return syscall(SYS_pread64, fd, to, bytes, offset);
}

ssize_t shim_pwrite64(int fd, const void *from, size_t bytes, off64_t offset)
{
	bool shorter = false;
	return FAILS_WRITING("pwrite", fd, &shorter)
		       ? -1
		       : syscall(SYS_pwrite64, fd, from, HALF(bytes, shorter), offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
	bool shorter = false;
	return FAILS_WRITING("writev", fd, &shorter)
		       ? -1
		       : syscall(SYS_writev, fd, pieces, HALF(count, shorter && count > 1));
}

static bool sync_fails(int fd)
{
	if (faults == NULL || faults->armed == 0 || faults->syncs_fail == 0 ||
	    kind_of(fd) != FD_FILE) {
		return false;
	}
	faults->syncs_fail--;
	errno = EIO;
	return true;
}

int fsync(int fd)
{
	return FAILS("fsync", EIO, ENOSPC, EROFS) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	if (sync_fails(fd) || FAILS("fdatasync", EIO, ENOSPC, EROFS)) {
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

int shim_ftruncate64(int, off64_t) __asm__("ftruncate64");
int shim_ftruncate(int, off64_t) __asm__("ftruncate") TWIN("ftruncate64");
int shim_allocate64(int, off64_t, off64_t) __asm__("posix_fallocate64");
int shim_allocate(int, off64_t, off64_t) __asm__("posix_fallocate") TWIN("posix_fallocate64");
int shim_fallocate64(int, int, off64_t, off64_t) __asm__("fallocate64");

int shim_ftruncate64(int fd, off64_t bytes)
{
	return FAILS("ftruncate", EIO, ENOSPC, EINTR) ? -1 : (int)syscall(SYS_ftruncate, fd, bytes);
}

int shim_allocate64(int fd, off64_t offset, off64_t bytes)
{
	if (FAILS("posix_fallocate", ENOSPC, EIO, EINTR)) {
		return errno;
	}
	return syscall(SYS_fallocate, fd, 0, offset, bytes) == 0 ? 0 : errno;
}

int shim_fallocate64(int fd, int mode, off64_t offset, off64_t bytes)
{
	return FAILS("fallocate", ENOSPC, ENOMEM, EINTR)
		       ? -1
		       : (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int mkdir(const char *path, mode_t mode)
{
	return FAILS("mkdir", ENOSPC, EROFS, EIO) ? -1
						  : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *from, const char *to)
{
	return FAILS("rename", ENOSPC, EIO, EROFS)
		       ? -1
		       : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	return FAILS("renameat2", ENOSPC, EINVAL, EIO)
		       ? -1
		       : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int unlink(const char *path)
{
	return FAILS("unlink", EIO, EROFS) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

// ---- descriptors --------------------------------------------------------------------------------

#define REAL(name)                                                 \
	({                                                         \
		static __typeof__(&(name)) real;                   \
		if (real == NULL) {                                \
			*(void **)&real = dlsym(RTLD_NEXT, #name); \
		}                                                  \
		real;                                              \
	})

int memfd_create(const char *name, unsigned flags)
{
	return FAILS("memfd_create", EMFILE, ENOMEM) ? -1
						     : (int)syscall(SYS_memfd_create, name, flags);
}

int eventfd(unsigned count, int flags)
{
	return FAILS("eventfd", EMFILE, ENOMEM) ? -1 : (int)syscall(SYS_eventfd2, count, flags);
}

int epoll_create1(int flags)
{
	return FAILS("epoll_create1", EMFILE, ENOMEM) ? -1 : (int)syscall(SYS_epoll_create1, flags);
}

int epoll_ctl(int set, int operation, int fd, struct epoll_event *event)
{
	if (operation != EPOLL_CTL_DEL && FAILS("epoll_ctl", ENOMEM, ENOSPC)) {
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, set, operation, fd, event);
}

int epoll_wait(int set, struct epoll_event *events, int count, int timeout_ms)
{
	return FAILS("epoll_wait", EINTR) ? -1 : REAL(epoll_wait)(set, events, count, timeout_ms);
}

int poll(struct pollfd *set, nfds_t count, int timeout_ms)
{
	return FAILS("poll", EINTR, ENOMEM) ? -1 : REAL(poll)(set, count, timeout_ms);
}

int signalfd(int fd, const sigset_t *set, int flags)
{
	return FAILS("signalfd", EMFILE, ENOMEM) ? -1 : REAL(signalfd)(fd, set, flags);
}

int pipe2(int ends[2], int flags)
{
	return FAILS("pipe2", EMFILE, ENFILE) ? -1 : (int)syscall(SYS_pipe2, ends, flags);
}

int pidfd_open(pid_t pid, unsigned flags)
{
	return FAILS("pidfd_open", EMFILE, ENOMEM) ? -1 : (int)syscall(SYS_pidfd_open, pid, flags);
}

int socket(int domain, int type, int protocol)
{
	return FAILS("socket", EMFILE, ENOBUFS) ? -1
						: (int)syscall(SYS_socket, domain, type, protocol);
}

int bind(int fd, const struct sockaddr *address, socklen_t bytes)
{
	return FAILS("bind", ENOSPC, EROFS, ENOMEM) ? -1
						    : (int)syscall(SYS_bind, fd, address, bytes);
}

int connect(int fd, const struct sockaddr *address, socklen_t bytes)
{
	return FAILS("connect", ENOMEM, EINTR) ? -1 : (int)syscall(SYS_connect, fd, address, bytes);
}

int accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags)
{
	return FAILS("accept4", EMFILE, ENOMEM, ECONNABORTED, EINTR)
		       ? -1
		       : (int)syscall(SYS_accept4, fd, address, bytes, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return FAILS("recvmsg", EINTR, ECONNRESET, ENOMEM)
		       ? -1
		       : syscall(SYS_recvmsg, fd, message, flags);
}

ssize_t recv(int fd, void *to, size_t bytes, int flags)
{
	return FAILS("recv", EINTR, ECONNRESET, ENOMEM)
		       ? -1
		       : syscall(SYS_recvfrom, fd, to, bytes, flags, NULL, NULL);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	return FAILS("sendmsg", EINTR, ENOBUFS, ENOMEM) ? -1
							: syscall(SYS_sendmsg, fd, message, flags);
}

// ---- threads and processes ----------------------------------------------------------------------

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
		   void *argument)
{
	return FAILS("pthread_create", EAGAIN)
		       ? EAGAIN
		       : REAL(pthread_create)(thread, attributes, run, argument);
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
		const posix_spawnattr_t *attributes, char *const arguments[], char *const names[])
{
	return FAILS("posix_spawn", EAGAIN, ENOMEM)
		       ? errno
		       : REAL(posix_spawn)(pid, path, actions, attributes, arguments, names);
}

pid_t fork(void)
{
	return FAILS("fork", EAGAIN, ENOMEM) ? -1 : REAL(fork)();
}

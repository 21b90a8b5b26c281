// SPDX-License-Identifier: MIT
//
// Does the mapped region serve still? While the kvd that wrote it when this was attached is there
// it does, and a word of the region's hot line says so. When that kvd is gone another may serve
// with another region, which nobody can write into the old one: DIR/kvd.gen tells then. It is read
// through a descriptor and never mapped: a file that somebody cuts short, or a disk that fails,
// must not end the application. What the file does not tell, the socket does.
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libclient/serving.h"
#include "shm/generation.h"

// An application may have closed all descriptors that it did not open, and been given the number
// for something else; this library itself, for the same file of a later attachment. What kvd passes
// is an open file of its own, with an offset that nobody uses: it says whose it is.
static off_t serving_mark(const struct kvc_attachment *attachment)
{
	static_assert(sizeof(*attachment) >= 64, "two of them differ in what is left");
	return (off_t)((uintptr_t)attachment >> 6); // within what any file system calls an offset
}

bool kvc_serving_take(struct kvc_attachment *attachment, int fd)
{
	struct stat status;
	off_t mark = serving_mark(attachment);
	// No call on a file waits for somebody.
	// unreached: an open descriptor has a status, a file takes any offset.
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
	    lseek(fd, mark, SEEK_SET) != mark) {
		return false;
	}
	attachment->gen_fd = fd;
	return true;
}

static bool serving_is_ours(const struct kvc_attachment *attachment)
{
	return attachment->gen_fd >= 0 &&
	       lseek(attachment->gen_fd, 0, SEEK_CUR) == serving_mark(attachment);
}

void kvc_serving_drop(struct kvc_attachment *attachment)
{
	if (serving_is_ours(attachment)) {
		close(attachment->gen_fd);
	}
	attachment->gen_fd = -1;
}

enum kvc_serving kvc_serving_told(const struct kvc_attachment *attachment)
{
	struct stat status;
	struct kvs_generation said;
	// A file without a name is one that the next kvd does not find.
	// unreached: an open descriptor has a status.
	if (!serving_is_ours(attachment) || fstat(attachment->gen_fd, &status) != 0 ||
	    status.st_nlink == 0 || !kvs_generation_read(attachment->gen_fd, &said) ||
	    said.generation == 0) {
		return KVC_SERVING_UNTOLD;
	}
	return kvs_generation_names(&said, attachment->gen, attachment->map.instance_id)
		       ? KVC_SERVING_THIS
		       : KVC_SERVING_OTHER;
}

// True if no kvd can have answered anybody where this client looks for one: a kvd listens before
// it serves.
static bool serving_nobody_listens(const kvc *client)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, client->socket_path, strlen(client->socket_path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return false;
	}
	int result = connect(fd, (const struct sockaddr *)(const void *)&address, sizeof(address));
	bool nobody = result != 0 && (errno == ECONNREFUSED || errno == ENOENT);
	close(fd);
	return nobody;
}

enum kvc_serving kvc_serving_now(const kvc *client, const struct kvc_attachment *attachment)
{
	// Acquire: partners are presence_start(), presence_end() and the kernel at kvd's end.
	uint32_t writer = kvs_load_acquire_32(&attachment->hot->writer);
	if (writer == attachment->writer) {
		return KVC_SERVING_THIS;
	}
	enum kvc_serving told = kvc_serving_told(attachment);
	if (told == KVC_SERVING_UNTOLD &&
	    // A later kvd has adopted the region, or there is none at all.
	    (kvs_writer_is_there(writer) || serving_nobody_listens(client))) {
		return KVC_SERVING_THIS;
	}
	return told;
}

bool kvc_serving_enter(const kvc_reader *reader, uint64_t *word)
{
	if (!kvc_reader_may_enter(reader) ||
	    kvs_load_relaxed_32(&reader->hot->writer) == reader->writer ||
	    !kvc_reader_announce(reader, reader->fenced, false, word)) {
		return false;
	}
	if (kvc_serving_told(reader->attachment) == KVC_SERVING_THIS) {
		return true;
	}
	kvs_store_release(&reader->slot->word, 0);
	return false;
}

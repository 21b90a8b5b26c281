// SPDX-License-Identifier: MIT
//
// Does the region serve still? While its kvd is there nothing that becomes of kvd.gen matters. When
// it is gone the file tells, and where that cannot, whether anybody listens.
// A: never old data once another region serves. C: a kvd that is there costs no call. F: reads go
// on while there is none, whatever was done to the file.
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)
#define SOON_NS UINT64_C(10000000000)

// One get and one section. KVC_OK if both find `byte`, from the mapping.
static int reads(kvc_reader *reader, char byte)
{
	struct kvc_meta meta = { .flags = 0 };
	struct kvc_view view;
	char got = 0;
	int status = kvc_get(reader, "a", 1, &got, 1, &meta);
	if (status != KVC_OK || kvc_begin(reader) != KVC_OK) {
		return status;
	}
	status = kvc_view(reader, "a", 1, &view);
	bool good = status == KVC_OK && got == byte && *(const char *)view.value == byte &&
		    meta.flags == 0 && view.meta.flags == 0;
	int ended = kvc_end(reader);
	return good ? ended : status != KVC_OK ? status : KVC_DAMAGED;
}

// The same, once the pause after failed attempts is over.
static int reads_soon(kvc_reader *reader, char byte)
{
	uint64_t end_ns = kvc_now_ns() + SOON_NS;
	int status;
	do {
		status = reads(reader, byte);
	} while (status != KVC_OK && kvc_now_ns() < end_ns);
	return status;
}

// ---- what can become of the file ----

struct harm {
	const char *what;
	void (*does)(struct fake *fake, const struct kvc_attachment *attachment);
};

static void cut(struct fake *fake, const struct kvc_attachment *attachment)
{
	(void)attachment;
	ok_int(ftruncate(fake->gen_fd, 0), 0, "kvd.gen is cut to nothing");
}

static void cut_in_a_word(struct fake *fake, const struct kvc_attachment *attachment)
{
	(void)attachment;
	ok_int(ftruncate(fake->gen_fd, 12), 0, "kvd.gen is cut to less than it says");
}

static void zero(struct fake *fake, const struct kvc_attachment *attachment)
{
	(void)attachment;
	ok(ftruncate(fake->gen_fd, 0) == 0 && ftruncate(fake->gen_fd, KVS_PAGE_BYTES) == 0,
	   "kvd.gen is all zero");
}

static void unname(struct fake *fake, const struct kvc_attachment *attachment)
{
	(void)attachment;
	ok_int(unlink(fake->gen_path), 0, "kvd.gen is removed");
}

static void shut(struct fake *fake, const struct kvc_attachment *attachment)
{
	(void)fake;
	ok_int(close(attachment->gen_fd), 0, "the application closes what it does not know");
}

static int pipes[2];

// The number is something else's now.
static void take_number(struct fake *fake, const struct kvc_attachment *attachment)
{
	(void)fake;
	ok(dup2(pipes[0], attachment->gen_fd) >= 0, "and opens a pipe there");
}

static void take_number_by_same(struct fake *fake, const struct kvc_attachment *attachment)
{
	int other = open(fake->gen_path, O_RDONLY | O_CLOEXEC);
	ok(other >= 0 && dup2(other, attachment->gen_fd) >= 0 && close(other) == 0,
	   "or the same file once more");
}

static void take_number_by_file(struct fake *fake, const struct kvc_attachment *attachment)
{
	int other = open(fake->dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	ok(other >= 0 && dup2(other, attachment->gen_fd) >= 0 && close(other) == 0,
	   "or another file");
}

static const struct harm harms[] = {
	{ "cut to nothing", cut },
	{ "cut in a word", cut_in_a_word },
	{ "all zero", zero },
	{ "removed", unname },
	{ "closed", shut },
	{ "closed, a pipe in its place", take_number },
	{ "closed, a file in its place", take_number_by_file },
	{ "closed, the same in its place", take_number_by_same },
};

// A kvd and a file as they should be.
static void restore(struct fake *fake)
{
	int fd = open(fake->gen_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || dup2(fd, fake->gen_fd) < 0 || close(fd) != 0) {
		printf("Bail out! kvd.gen: %s\n", strerror(errno));
		exit(99);
	}
	fake_say_generation(fake, fake->said.generation, fake->said.instance_id);
}

static void test_harm(struct fake *fake, const struct harm *harm, uint32_t flags)
{
	kvc_reader *reader;
	kvc *client = fake_client(fake, &reader, flags);
	fake_put_text(fake, "a", "1");
	ok_int(reads(reader, '1'), KVC_OK, "kvd.gen to be %s, flags %u", harm->what, flags);
	uint64_t attached = fake_get(fake, &fake->attached);
	int fd = client->attachment->gen_fd;
	harm->does(fake, client->attachment);
	ok_int(reads(reader, '1'), KVC_OK, "C: a kvd that is there need not be looked for");
	fake_kill(fake);
	ok_int(reads(reader, '1'), KVC_OK, "F: none listens: read on");
	ok_int(reads(reader, '1'), KVC_OK, "F: and on");
	ok_u64(fake_get(fake, &fake->attached), attached, "by the same attachment");
	if (harm->does == unname) {
		restore(fake); // the next kvd makes another
	}
	fake_revive(fake, false);
	fake_put_text(fake, "a", "2");
	ok_int(reads_soon(reader, '2'), KVC_OK, "A: one listens: what that one serves");
	ok_u64(fake_get(fake, &fake->attached), attached + 1, "by another attachment");
	bool foreign = harm->does == take_number || harm->does == take_number_by_file ||
		       harm->does == take_number_by_same;
	ok(!foreign || fcntl(fd, F_GETFD) >= 0, "what is not ours is left open");
	ok_int(kvc_close(client), KVC_OK, "close");
	if (foreign) {
		close(fd);
	}
	restore(fake);
}

// ---- the file tells ----

static void test_told(struct fake *fake)
{
	kvc_reader *reader;
	kvc *client = fake_client(fake, &reader, 0);
	fake_put_text(fake, "a", "1");
	ok_int(reads(reader, '1'), KVC_OK, "attached");
	const struct kvs_generation said = fake->said;
	fake_kill(fake);
	ok_int(reads(reader, '1'), KVC_OK, "F: kvd is gone, its region still the last");
	fake->said.named--;
	fake->said.instance_id++;
	ok(pwrite(fake->gen_fd, &fake->said, sizeof(said), 0) == (ssize_t)sizeof(said),
	   "kvd.gen by a kvd that names no region");
	ok_int(reads(reader, '1'), KVC_OK, "F: then the count decides");
	fake_say_generation(fake, said.generation, said.instance_id + 1);
	ok_int(reads(reader, '1'), KVC_UNREACHABLE, "A: the same count, another region");
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_say_generation(fake, said.generation, said.instance_id);
	fake_revive(fake, true);

	client = fake_client(fake, &reader, 0);
	ok_int(reads(reader, '1'), KVC_OK, "attached again");
	fake_kill(fake);
	static const unsigned char garbage[] = "this is not what kvd has written here";
	ok(pwrite(fake->gen_fd, garbage, sizeof(garbage), 0) == (ssize_t)sizeof(garbage),
	   "garbage in kvd.gen");
	ok_int(reads(reader, '1'), KVC_UNREACHABLE, "A: what it says is not this region");
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_say_generation(fake, said.generation, said.instance_id);
	fake_revive(fake, true);
}

// A kvd that does not know the word, or whose kernel does not know robust futexes.
static void test_no_word(struct fake *fake, uint32_t flags)
{
	kvc_reader *reader;
	struct kvc_token token;
	char byte;
	kvs_store_release_32(&fake->fixture.region.header->hot.writer, 0);
	kvc *client = fake_client(fake, &reader, flags);
	fake_put_text(fake, "a", "1");
	ok_int(reads(reader, '1'), KVC_OK, "nobody says that he is there, flags %u", flags);
	ok_int(kvc_get_token(reader, "a", 1, &byte, 1, NULL, &token), KVC_OK, "a token");
	ok_int(kvc_check(reader, &token), KVC_OK, "holds");
	ok_u64(client->attachment->writer, KVS_WRITER_NEVER, "so the file is asked each time");
	fake_say_generation(fake, fake->said.generation + 1, fake->said.instance_id);
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "A: until it says something else");
	fake_kill(fake);
	ok_int(reads(reader, '1'), KVC_UNREACHABLE, "A: and then nothing is read");
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_revive(fake, false);
}

// Adopted by a kvd that is slow to answer, while the file says nothing.
static void test_adopted(struct fake *fake)
{
	kvc_reader *reader;
	kvc *client = fake_client(fake, &reader, 0);
	fake_put_text(fake, "a", "1");
	ok_int(reads(reader, '1'), KVC_OK, "attached");
	fake_kill(fake);
	cut(fake, client->attachment);
	fake_set(fake, attach, FAKE_ATTACH_SILENT);
	fake_revive(fake, true);
	ok_int(reads(reader, '1'), KVC_OK, "F: who is there now serves this region");
	restore(fake);
	ok_int(reads(reader, '1'), KVC_OK, "F: which the file says, too");
	fake_set(fake, attach, FAKE_ATTACH_OK);
	ok_int(kvc_close(client), KVC_OK, "close");
}

// A kvd that was killed: its word is marked before its socket is closed.
static void test_leaving(struct fake *fake)
{
	kvc_reader *reader;
	kvc *client = fake_client(fake, &reader, 0);
	fake_put_text(fake, "a", "1");
	ok_int(reads(reader, '1'), KVC_OK, "attached");
	cut(fake, client->attachment);
	fake_set(fake, leave_at_accept, true);
	kvs_store_release_32(&fake->fixture.region.header->hot.writer, KVS_WRITER_DIED);
	ok_int(reads(reader, '1'), KVC_OK, "F: who listens is about to end: read on");
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_revive(fake, true);
	restore(fake);
}

// ---- without a wait ----

// What a read may ask of the kernel while its kvd is gone and the file names the region: where the
// descriptor is, its status, a word of it. The file is in the page cache, so none of these waits.
static bool refuse_all_else(void)
{
#define ALLOW(number)                                                  \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(number), 0, 1), \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(SYS_lseek),
		ALLOW(SYS_fstat),
		ALLOW(SYS_newfstatat),
		ALLOW(SYS_pread64),
		ALLOW(SYS_exit),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// Tells `end` that it has attached, and goes on when that says that kvd is gone.
static int read_through_outage(struct fake *fake, int end)
{
	kvc_reader *reader;
	unsigned bad = 0;
	char byte = 'a';
	if (!fake_client(fake, &reader, 0) || reads(reader, '1') != KVC_OK ||
	    write(end, &byte, 1) != 1 || read(end, &byte, 1) != 1) {
		return 3;
	}
	if (!refuse_all_else()) {
		return 4;
	}
	for (unsigned i = 0; i < 10000; i++) {
		bad += reads(reader, '1') != KVC_OK;
	}
	return bad != 0;
}

static void test_no_wait(struct fake *fake)
{
#ifdef KVS_SANITIZED
	bool own_calls = true;
#else
	const char *preload = getenv("LD_PRELOAD");
	bool own_calls = preload != NULL && strstr(preload, "vgpreload") != NULL;
#endif
	if (own_calls) {
		tap_skip("C: what reads ask while kvd is gone (a sanitizer or valgrind asks more)");
		return;
	}
	fake_put_text(fake, "a", "1");
	int ends[2];
	int status = 0;
	char byte = 0;
	ok_int(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0, "a reader");
	pid_t child = fork();
	if (child == 0) {
		close(ends[0]); // or it would wait for itself
		syscall(SYS_exit, read_through_outage(fake, ends[1]));
	}
	close(ends[1]);
	ok(read(ends[0], &byte, 1) == 1, "attaches");
	// As the kernel does it when kvd is killed.
	kvs_store_release_32(&fake->fixture.region.header->hot.writer, KVS_WRITER_DIED);
	ok(write(ends[0], &byte, 1) == 1, "and kvd is killed");
	close(ends[0]);
	(void)waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 4) {
		tap_skip("C: what reads ask while kvd is gone (no seccomp here)");
	} else {
		ok(WIFEXITED(status) && WEXITSTATUS(status) == 0,
		   "C: 20 000 reads while kvd is gone make no call that could wait");
	}
	fake_kill(fake);
	fake_revive(fake, true);
}

// ---- nobody listens ----

static void bind_at(const struct fake *fake)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", fake->socket_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ok(fd >= 0 &&
		   bind(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) == 0,
	   "a name that a dead kvd left");
	close(fd);
}

static void test_nobody(struct fake *fake)
{
	kvc_reader *reader;
	struct rlimit limit, none;
	kvc *client = fake_client(fake, &reader, 0);
	fake_put_text(fake, "a", "1");
	ok_int(reads(reader, '1'), KVC_OK, "attached");
	fake_kill(fake);
	cut(fake, client->attachment);
	bind_at(fake);
	ok_int(reads(reader, '1'), KVC_OK, "F: nobody is behind it: read on");
	(void)unlink(fake->socket_path);
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = limit.rlim_max };
	(void)setrlimit(RLIMIT_NOFILE, &none);
	int status = reads(reader, '1');
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	ok(status < 0, "A: no descriptor to ask with: not read (%s)", kvc_strerror(status));
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_revive(fake, true);
	restore(fake);

	client = fake_client(fake, &reader, 0);
	ok_int(reads(reader, '1'), KVC_OK, "attached again");
	fake_kill(fake);
	cut(fake, client->attachment);
	ok_int(symlink(fake->socket_path, fake->socket_path), 0, "a name that leads nowhere");
	ok_int(reads(reader, '1'), KVC_UNREACHABLE, "A: nobody knows who listens: not read");
	(void)unlink(fake->socket_path);
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_revive(fake, true);
	restore(fake);
}

int main(void)
{
	static struct fake fake;
	fake_start(&fake, MEMORY_BYTES);
	if (pipe2(pipes, O_CLOEXEC) != 0) {
		printf("Bail out! pipe2: %s\n", strerror(errno));
		return 99;
	}
	for (size_t i = 0; i < sizeof(harms) / sizeof(harms[0]); i++) {
		test_harm(&fake, &harms[i], 0);
		test_harm(&fake, &harms[i], KVC_OPEN_FENCED);
	}
	test_told(&fake);
	test_no_word(&fake, 0);
	test_no_word(&fake, KVC_OPEN_FENCED);
	test_adopted(&fake);
	test_leaving(&fake);
	test_no_wait(&fake);
	test_nobody(&fake);
	close(pipes[0]);
	close(pipes[1]);
	fake_stop(&fake);
	return tap_done();
}

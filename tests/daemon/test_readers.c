// SPDX-License-Identifier: MIT
//
// Attaching: what a client gets and what it cannot do with it; and when its pages go: at the
// death of its process, or when its connection is gone and nothing is being read.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/generation.h"
#include "daemon/readers.h"
#include "shm/counters.h"
#include "shm/epoch.h"
#include "shm/epoch_scan.h"
#include "shm/record.h"
#include "shm/region.h"
#include "tests/daemon/wire_stub.h"
#include "tests/lib/membarrier.h"
#include "tests/lib/revoke.h"
#include "tests/tap/tap.h"

static struct kvs_region region;
static struct kvs_epoch_domain domain;
static struct readers *readers;
static struct generation generation = { .now = { .generation = 7 } };

static void start(void)
{
	struct kvs_region_options options = {
		.memory_bytes = 8 << 20,
		.memory_bytes_max = 8 << 20,
		.segment_bytes = KVS_SEGMENT_BYTES_MIN,
		.instance_id = 0x1234abcd,
		.hash_key = { 1 },
		.fenced = true,
	};
	stub_start(PERSIST_MEMORY);
	if (kvs_region_create(&region, &options) != KVS_REGION_OK) {
		abort();
	}
	generation.fd = memfd_create("gen", MFD_CLOEXEC); // cut short: it need not be read
	kvs_epoch_init(&domain, &region.header->hot, true);
	if (readers_create(&readers, &stub.kvd, &domain, &region, &generation) != 0) {
		abort();
	}
	stub.kvd.readers = readers;
}

static void stop(void)
{
	session_shared_destroy(stub.sessions);
	stub.sessions = NULL;
	readers_destroy(readers);
	ok_u64(domain.pages_count, 0, "at stop no page is left");
	kvs_epoch_fini(&domain);
	kvs_region_close(&region);
	close(generation.fd);
	loop_destroy(stub.kvd.loop);
}

/// Reads one reply with its descriptors; returns how many came.
static unsigned receive(int fd, char *text, size_t bytes, int *fds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * 8)];
		struct cmsghdr align;
	} control;
	struct iovec piece = { .iov_base = text, .iov_len = bytes - 1 };
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	text[n > 0 ? n : 0] = '\0';
	struct cmsghdr *head = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (!head || head->cmsg_type != SCM_RIGHTS) {
		return 0;
	}
	size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(head), count * sizeof(int));
	return (unsigned)count;
}

static struct kvs_reader_page *map_page(int fd)
{
	void *page = mmap(NULL, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return page == MAP_FAILED ? NULL : page;
}

static struct kvs_reader_page *attach(int fd)
{
	char text[1024];
	int fds[8] = { -1, -1, -1 };
	stub_send_text(fd, "ATTACH\r\n");
	stub_turns();
	unsigned count = receive(fd, text, sizeof(text), fds);
	struct kvs_reader_page *page = count == 3 ? map_page(fds[1]) : NULL;
	for (unsigned i = 0; i < count; i++) {
		close(fds[i]);
	}
	return page;
}

static void check_read_only(int fd, const char *what)
{
	bool good = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
	good = good && mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED;
	good = good && write(fd, "x", 1) < 0 && ftruncate(fd, 0) != 0;
	good = good && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0;
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	good = good && map != MAP_FAILED && mprotect(map, 4096, PROT_READ | PROT_WRITE) != 0;
	munmap(map, 4096);
	ok(good, "H: the descriptor of %s is good for reading only", what);
}

static void test_attach(void)
{
	struct session *session;
	int fd = stub_connect(&session);
	char text[1024];
	char expected[64];
	int fds[8];
	stub_send_text(fd, "ATTACH\r\n");
	stub_turns();
	unsigned count = receive(fd, text, sizeof(text), fds);
	ok_u64(count, 3, "three descriptors come with the reply");
	(void)snprintf(expected, sizeof(expected), "layout\r\n:%u\r\n", kvs_layout_fingerprint());
	ok(strncmp(text, "*20\r\n$5\r\nproto\r\n:1\r\n", 20) == 0 && strstr(text, expected) &&
		   strstr(text, "fds\r\n:3\r\n") && strstr(text, "gen\r\n:7\r\n") &&
		   strstr(text, "instance\r\n$16\r\n000000001234abcd\r\n"),
	   "the reply says what they are");
	check_read_only(fds[0], "the region");
	check_read_only(fds[2], "kvd.gen");
	ok(lseek(fds[0], 5, SEEK_SET) == 5 && lseek(region.fd_readonly, 0, SEEK_CUR) == 0,
	   "H: it is an open file of its own");
	struct stat status;
	ok(fstat(fds[1], &status) == 0 && status.st_size == KVS_PAGE_FILE_BYTES &&
		   ftruncate(fds[1], 0) != 0 && ftruncate(fds[1], 1 << 20) != 0 &&
		   fcntl(fds[1], F_ADD_SEALS, F_SEAL_WRITE) != 0,
	   "H: the page cannot be shrunk, grown or sealed");
	struct kvs_reader_page *page = map_page(fds[1]);
	ok(page && memcmp(page->header.marker, KVS_PAGE_MARKER, 8) == 0, "and is a reader page");
	ok_u64(domain.pages_count, 2, "it is in the domain, beside kvd's own");
	ok_u64(stub_counter(KVS_COUNTER_clients_attached), 1, "counted");
	page->slot[0].hits = 5;
	struct readers_info info;
	ok(readers_count(readers) == 1 && readers_info(readers, 0, &info) &&
		   info.pid == (int)getpid() && info.session_id == session->id && info.hits == 5 &&
		   !info.inside && !readers_info(readers, 1, &info),
	   "and listed");
	stub_send_text(fd, "ATTACH\r\n");
	stub_turns();
	ok(receive(fd, text, sizeof(text), fds + 3) == 0 && strstr(text, "attached already"),
	   "attaching twice is an error");
	for (unsigned i = 0; i < 3; i++) {
		close(fds[i]);
	}
	close(fd);
	stub_turns();
	ok_u64(domain.pages_count, 1,
	       "when the connection ends and nothing is read, the page goes");
	uint64_t hits = 0, misses = 0;
	readers_totals(readers, &hits, &misses);
	ok_u64(hits, 5, "what was counted stays");
	ok_u64(page->header.state, KVS_PAGE_DETACHED, "its readers learn it");
	munmap(page, KVS_PAGE_BYTES);
}

static void test_pages(void)
{
	int fd = stub_connect(NULL);
	char text[1024];
	int fds[8];
	stub_send_text(fd, "ATTACH PAGE\r\n");
	stub_turns();
	ok(receive(fd, text, sizeof(text), fds) == 0 && strstr(text, "not attached"),
	   "a page without an attachment is an error");
	struct kvs_reader_page *page = attach(fd);
	bool good = page != NULL;
	for (unsigned i = 1; i < KVS_PAGES_PER_CLIENT_MAX; i++) {
		stub_send_text(fd, "ATTACH PAGE\r\n");
		stub_turns();
		good = good && receive(fd, text, sizeof(text), fds) == 1 &&
		       strstr(text, "fds\r\n:1\r\n");
		close(fds[0]);
	}
	ok(good && domain.pages_count == 1 + KVS_PAGES_PER_CLIENT_MAX, "more pages on request");
	stub_send_text(fd, "ATTACH PAGE\r\n");
	stub_turns();
	ok(receive(fd, text, sizeof(text), fds) == 0 && strstr(text, "limit"), "G: up to a limit");
	close(fd);
	stub_turns();
	ok_u64(domain.pages_count, 1, "all go together");
	munmap(page, KVS_PAGE_BYTES);
}

static void test_detached(void)
{
	int fd = stub_connect(NULL);
	struct kvs_reader_page *page = attach(fd);
	ok(page && kvs_epoch_enter(&page->slot[3], &region.header->hot, true), "a section is open");
	close(fd);
	stub_turns();
	ok(domain.pages_count == 2 && page->header.state == KVS_PAGE_DETACHED,
	   "B: the end of the connection leaves it, but its reader is told to come again");
	stub.now_ns += 20000000;
	stub_turns();
	ok_u64(domain.pages_count, 2, "as long as it is open");
	ok(kvs_epoch_leave(&page->slot[3], &region.header->hot), "its view is good to the end");
	stub.now_ns += 2000000000;
	stub_turns();
	ok_u64(domain.pages_count, 1, "then the page goes");
	munmap(page, KVS_PAGE_BYTES);
}

/// A session with a name and a page with a section open in slot `slot`, none for -1.
static struct kvs_reader_page *attach_as(const char *name, int slot, int *fd, uint64_t *id)
{
	struct session *session;
	*fd = stub_connect(&session);
	(void)snprintf(session->name, sizeof(session->name), "%s", name);
	*id = session->id;
	struct kvs_reader_page *page = attach(*fd);
	if (page && slot >= 0) {
		(void)kvs_epoch_enter(&page->slot[slot], &region.header->hot, true);
	}
	return page;
}

static void test_list(struct kvs_reader_page *idle, const uint64_t *ids)
{
	struct readers_info *infos;
	size_t count = readers_list(readers, stub.now_ns, 10, &infos);
	ok(count == 4 && strcmp(infos[0].name, "old") == 0 && infos[0].id == ids[0] &&
		   infos[0].open == 2 && infos[0].age_ns >= 30000000,
	   "D: who holds the oldest grace period stands first, by his name");
	ok(strcmp(infos[1].name, "young") == 0 && infos[1].session_id == 0 &&
		   infos[1].id == ids[1] && infos[1].open == 1 &&
		   infos[1].oldest_epoch > infos[0].oldest_epoch,
	   "then who began later, detached or not, by the name he had");
	ok(strcmp(infos[2].name, "idle") == 0 && infos[2].open == 0 &&
		   infos[2].session_id == ids[2] && infos[3].id == 0 &&
		   infos[3].pid == (int)getpid(),
	   "then those who hold nothing, kvd itself among them");
	free(infos);
	count = readers_list(readers, stub.now_ns, 1, &infos);
	ok(count == 1 && strcmp(infos[0].name, "old") == 0, "G: as many as are wanted");
	free(infos);
	ok(idle->header.state == KVS_PAGE_ATTACHED, "looking disturbs nobody");
}

// Three processes' worth of readers: one in a section for long, one detached in a younger one.
static void test_kick(void)
{
	static const char *const names[] = { "old", "young", "idle" };
	struct kvs_reader_page *page[3];
	int fd[3];
	uint64_t ids[3];
	for (int i = 0; i < 3; i++) {
		page[i] = attach_as(names[i], i < 2 ? i : -1, &fd[i], &ids[i]);
		stub.now_ns += 10000000;
		while (!readers_look(readers, stub.now_ns)) {
		}
	}
	(void)kvs_epoch_enter(&page[0]->slot[30], &region.header->hot, true);
	close(fd[1]);
	stub_turns();
	stub.now_ns += 10000000;
	while (!readers_look(readers, stub.now_ns)) {
	}
	test_list(page[2], ids);

	struct readers_kicked nobody = { .id = 999999 };
	ok(readers_kick(readers, &nobody, stub.now_ns) && nobody.attachments == 0,
	   "kicking nobody");
	struct readers_kicked one = { .id = ids[1] };
	ok(readers_kick(readers, &one, stub.now_ns) && one.attachments == 1 && one.revoked == 1 &&
		   domain.pages_count == 3,
	   "D: one is kicked by his id, though detached");
	ok(!kvs_epoch_leave(&page[1]->slot[1], &region.header->hot), "B: and told");
	ok(page[0]->header.state == KVS_PAGE_ATTACHED && page[2]->header.state == KVS_PAGE_ATTACHED,
	   "the others are as they were");
	domain.fenced = false;
	membarrier_failures = 1;
	struct readers_kicked all = { .pid = (int32_t)getpid() };
	ok(!readers_kick(readers, &all, stub.now_ns) && all.attachments == 0 &&
		   domain.pages_count == 3,
	   "B: nobody goes while the barrier fails");
	domain.fenced = true;
	ok(readers_kick(readers, &all, stub.now_ns) && all.attachments == 2 && all.revoked == 2 &&
		   domain.pages_count == 1,
	   "D: by its pid a process with all its attachments");
	ok(!kvs_epoch_leave(&page[0]->slot[0], &region.header->hot) &&
		   !kvs_epoch_leave(&page[0]->slot[30], &region.header->hot),
	   "B: and told, of each");
	struct kvs_reader_page *again = attach(fd[0]);
	ok(again && domain.pages_count == 2, "it may attach anew, by the same connection");
	close(fd[0]);
	close(fd[2]);
	stub_turns();
	ok_u64(domain.pages_count, 1, "and is gone with that");
	for (int i = 0; i < 3; i++) {
		munmap(page[i], KVS_PAGE_BYTES);
	}
	munmap(again, KVS_PAGE_BYTES);
}

// A process that closed its connection inside a section and never leaves it, as after exec().
static void test_detached_revoked(void)
{
	int fd;
	uint64_t id;
	struct kvs_reader_page *page = attach_as("exec", 3, &fd, &id);
	close(fd);
	stub_turns();
	(void)kvs_epoch_scan(&domain, stub.now_ns);
	stub.now_ns += 2000000000;
	stub_turns();
	ok_u64(domain.pages_count, 2, "B: a section that nobody will end is honoured");
	(void)kvs_epoch_scan(&domain, stub.now_ns);
	ok_u64(revoke_all(&domain, domain.epoch, stub.now_ns, 1, 1), 1, "D: up to its deadline");
	stub.now_ns += 2000000000;
	stub_turns();
	ok_u64(domain.pages_count, 1, "then its page goes, though it looks as if it were read");
	munmap(page, KVS_PAGE_BYTES);
}

// An announcement may be on its way while the kernel refuses the barrier.
static void test_unordered(void)
{
	int fd = stub_connect(NULL);
	struct kvs_reader_page *page = attach(fd);
	domain.fenced = false;
	membarrier_failures = 2;
	close(fd);
	stub_turns();
	ok(page && membarrier_failures == 1 && domain.pages_count == 2,
	   "B: a page that seems idle stays while the barrier fails");
	stub.now_ns += 20000000;
	stub_turns();
	ok(membarrier_failures == 0 && domain.pages_count == 2, "at each look");
	stub.now_ns += 2000000000;
	stub_turns();
	ok_u64(domain.pages_count, 1, "and goes when it succeeds");
	domain.fenced = true;
	munmap(page, KVS_PAGE_BYTES);
}

static int listen_fd;
static struct sockaddr_un address = { .sun_family = AF_UNIX };

/// In the child: connect, attach, open a section, say so, sleep until killed.
static void child_main(int told_fd)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[1024];
	int fds[8];
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
	    send(fd, "ATTACH\r\n", 8, 0) != 8 || receive(fd, text, sizeof(text), fds) != 3) {
		_exit(1);
	}
	struct kvs_reader_page *page = map_page(fds[1]);
	const struct kvs_region_header *header =
		mmap(NULL, KVS_PAGE_BYTES, PROT_READ, MAP_SHARED, fds[0], 0);
	if (!page || header == MAP_FAILED || !kvs_epoch_enter(&page->slot[0], &header->hot, true)) {
		_exit(1);
	}
	if (fork() == 0) { // a grandchild keeps the connection open
		char byte;
		ssize_t n = read(told_fd, &byte, 1); // until the parent closes its end
		_exit(n > 0);
	}
	if (write(told_fd, "x", 1) != 1) {
		_exit(1);
	}
	for (;;) {
		pause();
	}
}

static void test_death(const char *name)
{
	int told[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, told) != 0) {
		abort();
	}
	pid_t child = fork();
	if (child == 0) {
		close(told[0]);
		child_main(told[1]);
	}
	close(told[1]);
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct session *session = session_open(stub.sessions, fd);
	char byte;
	fcntl(told[0], F_SETFL, O_NONBLOCK);
	ssize_t n;
	while ((n = read(told[0], &byte, 1)) != 1) {
		if (n == 0) {
			abort(); // the child failed
		}
		stub_turns();
	}
	struct readers_info info = { 0 };
	ok(session && session->pid == child && readers_info(readers, 0, &info) && info.inside &&
		   info.pid == child,
	   "%s: a process has attached and is reading", name);
	ok_u64(domain.pages_count, 2, "%s: its page is in the domain", name);
	siginfo_t ended;
	if (kill(child, SIGKILL) != 0 ||
	    waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT) != 0) {
		abort();
	}
	stub_turns();
	ok_u64(domain.pages_count, 1, "%s: D: its death frees the page at once", name);
	ok(session_count(stub.sessions) == 1 && session->reader_client == NULL,
	   "%s: though a child of it keeps the connection open", name);
	close(told[0]);
	(void)waitpid(child, NULL, 0);
	while (session_count(stub.sessions) > 0) {
		stub_turns();
	}
}

static void test_deaths(void)
{
	// An abstract name: no file, gone with the test.
	int n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "kvd-test-readers-%d",
			 (int)getpid());
	(void)n;
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listen_fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
	    listen(listen_fd, 4) != 0) {
		abort();
	}
	test_death("as this kernel can");
	uint64_t deaths = 1;
	if (getenv("KVD_TEST_EMULATED")) {
		tap_skip("as kernels before 6.5: valgrind does not know pidfd_open");
	} else {
		setenv("KVD_NO_PEERPIDFD", "1", 1);
		test_death("as kernels before 6.5");
		unsetenv("KVD_NO_PEERPIDFD");
		deaths++;
	}
	ok_u64(stub_counter(KVS_COUNTER_readers_dead), deaths, "deaths are counted");
	close(listen_fd);
}

static void test_tables(void)
{
	bool good = true;
	for (unsigned i = 0; i < KVS_READERS_PER_PAGE; i++) {
		good = good && readers_own_slot(readers) != NULL;
	}
	ok(good && readers_own_slot(readers) == NULL, "kvd's own threads have a page of slots");
}

// Many hang up at once: their pages go one share of the time after the other.
static void test_many_leave(void)
{
	int fd[6];
	uint64_t id[6];
	for (int i = 0; i < 6; i++) {
		(void)munmap(attach_as("many", -1, &fd[i], &id[i]), KVS_PAGE_BYTES);
	}
	for (int i = 0; i < 6; i++) {
		session_kill(session_find(&stub.kvd, id[i]), NULL);
		close(fd[i]);
	}
	stub.step_ns = 1000000; // by every look at the clock
	(void)loop_turn(stub.kvd.loop, 0);
	ok_u64(domain.pages_count, 6, "D: one of 6 leaves in a turn");
}

int main(void)
{
	(void)alarm(getenv("KVD_TEST_EMULATED") ? 600 : 120); // who hangs has failed
	start();
	test_attach();
	test_pages();
	test_detached();
	test_detached_revoked();
	test_kick();
	test_unordered();
	test_deaths();
	test_tables();
	test_many_leave();
	stop();
	return tap_done();
}

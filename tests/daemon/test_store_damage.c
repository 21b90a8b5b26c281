// SPDX-License-Identifier: MIT
//
// Damaged stores: bytes flipped, files cut, pages swapped. The probe must name the damage or, where
// nothing that matters was hit, let the store pass; and what it lets pass must never crash or
// mislead whoever opens it then. That second half runs in a child, so that a crash there is seen.
#include <signal.h>
#include <sys/wait.h>

#include "daemon/storage/block.h"
#include "tests/daemon/store_fixture.h"

#define RECORDS 700u
#define PAGE 4096u

struct counts {
	unsigned refused;
	unsigned passed;
	unsigned misled;  // passed, but what came out is not what went in
	unsigned crashed; // passed, and whoever opened it died
	unsigned died;	  // whoever opened it to write it anew
	unsigned lost;	  // neither used nor written anew
};

struct expected {
	uint64_t seen;
	uint64_t wrong;
};

static uint64_t number_of(const struct kvs_record_view *view)
{
	char key[32] = "";
	memcpy(key, view->key, view->key_bytes < 31 ? view->key_bytes : 31);
	return strtoull(key + 1, NULL, 10);
}

static int see(void *context, const struct kvs_record_view *view, const void *value, uint64_t place)
{
	struct expected *expected = context;
	(void)place;
	expected->seen++;
	expected->wrong += !fixture_same(view, value, number_of(view));
	return 0;
}

static int append(struct store *store, uint64_t seq)
{
	static struct fixture_record record;
	uint64_t place;
	bool large = seq % 50 == 0;
	fixture_record(&record, seq % 31, seq, large ? 70000 : (uint32_t)(seq * 7 % 900),
		       large ? KVS_RECORD_LARGE : 0);
	int result = store_append(store, &record.view, record.value, &place);
	free(record.value);
	return result;
}

// A store with a history: small and large commits, deleted blocks, hence free pages.
static void build(const char *dir)
{
	struct store *store = fixture_store(dir);
	uint64_t seq = 0;
	int result = STORE_OK;
	for (unsigned commit = 0; seq < RECORDS && result == STORE_OK; commit++) {
		result = store_begin(store);
		unsigned count = commit % 4 == 0 ? 40 : 1;
		for (unsigned i = 0; i < count && result == STORE_OK; i++) {
			result = append(store, ++seq);
		}
		struct store_facts facts;
		store_facts(store, &facts);
		// The first blocks hold no long record: they may go one by one.
		if (commit > 8 && commit < 12 && result == STORE_OK) {
			result = store_delete_oldest(store, 1);
		}
		if (result == STORE_OK) {
			result = store_commit(store, seq);
		}
	}
	if (result != STORE_OK) {
		printf("Bail out! %s\n", store_why(store));
		exit(1);
	}
	store_close(store);
}

// Opens, reads everything, then writes and deletes for a while as kvd would. 0: all was right or an
// error was reported; 1: something came out that never went in.
static int use(const char *dir)
{
	char why[600];
	struct store *store;
	struct store_options options = { .dir = dir };
	if (store_open(&store, &options, why, sizeof(why)) != STORE_OK) {
		return 0;
	}
	struct expected expected = { 0 };
	struct store_walk walk = { .record = see, .context = &expected };
	int result = store_recover(store, &walk);
	struct store_facts facts;
	store_facts(store, &facts);
	uint64_t seq = facts.durable_seq;
	for (unsigned commit = 0; commit < 6 && result == STORE_OK; commit++) {
		result = store_begin(store);
		for (unsigned i = 0; i < 60 && result == STORE_OK; i++) {
			result = append(store, ++seq);
		}
		if (result == STORE_OK) {
			result = store_delete_oldest(store, 1);
		}
		if (result == STORE_OK) {
			result = store_commit(store, seq);
		}
	}
	store_close(store);
	return expected.wrong == 0 ? 0 : 1;
}

static void judge(const char *dir, struct counts *counts)
{
	char why[600] = "";
	int result = store_probe(dir, why, sizeof(why));
	if (result != STORE_OK) {
		counts->refused++;
		if (strstr(why, dir) == NULL) {
			tap_diag("no folder in: %s", why);
			counts->misled++;
		}
		return;
	}
	counts->passed++;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		_exit(use(dir));
	}
	int status = 0;
	if (waitpid(pid, &status, 0) != pid || WIFSIGNALED(status)) {
		counts->crashed++;
	} else if (WEXITSTATUS(status) != 0) {
		counts->misled++;
	}
}

// ---- not probed, for memory has what is in it ----

// As the persister: what is new, and the oldest block if it can be read.
static int write_on(struct store *store, uint64_t seq)
{
	static unsigned char bytes[STORE_BLOCK_BYTES_MAX] __attribute__((aligned(64)));
	int result = STORE_OK;
	for (unsigned commit = 0; commit < 6 && result == STORE_OK; commit++) {
		struct store_facts facts;
		struct store_block block;
		size_t length;
		result = store_begin(store);
		for (unsigned i = 0; i < 60 && result == STORE_OK; i++) {
			result = append(store, ++seq);
		}
		store_facts(store, &facts);
		if (result == STORE_OK) {
			result = store_read_block(store, facts.oldest_block, bytes, &length);
		}
		if (result == STORE_OK && store_block_check(bytes, length, facts.oldest_block,
							    &block) != STORE_BLOCK_GOOD) {
			result = store_refuse(store, facts.oldest_block, "it is damaged");
		}
		if (result == STORE_OK) {
			result = store_delete_oldest(store, 1);
		}
		if (result == STORE_OK) {
			result = store_commit(store, seq);
		}
	}
	return result;
}

static bool write_anew(struct store *store)
{
	int result = store_renew_begin(store);
	result = result == STORE_OK ? store_begin(store) : result;
	result = result == STORE_OK ? append(store, 1) : result;
	result = result == STORE_OK ? store_commit(store, 1) : result;
	return (result == STORE_OK ? store_renew_finish(store, STORE_REPLACED_GOES) : result) ==
	       STORE_OK;
}

// 0: it goes on, or another one takes its place.
static int use_unprobed(const char *dir)
{
	char why[600];
	struct store *store;
	struct store_options options = { .dir = dir, .renewable = true };
	int result = store_open(&store, &options, why, sizeof(why));
	if (result == STORE_VERSION) {
		return 0; // not damage, as far as anybody can tell
	}
	if (store == NULL) {
		return 1;
	}
	struct store_facts facts;
	store_facts(store, &facts);
	result = result == STORE_OK ? write_on(store, facts.durable_seq) : result;
	bool good = result == STORE_OK || write_anew(store);
	store_close(store);
	struct store_options again = { .dir = dir };
	good = good && store_open(&store, &again, why, sizeof(why)) == STORE_OK;
	store_close(good ? store : NULL);
	return good ? 0 : 1;
}

static void judge_unprobed(const char *dir, struct counts *counts)
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		_exit(use_unprobed(dir));
	}
	int status = 0;
	if (waitpid(pid, &status, 0) != pid || WIFSIGNALED(status)) {
		counts->died++;
	} else if (WEXITSTATUS(status) != 0) {
		counts->lost++;
	}
}

struct image {
	unsigned char *bytes;
	size_t length;
	char path[FIXTURE_PATH_BYTES + 32];
	char dir[FIXTURE_PATH_BYTES];
};

static void load(struct image *image)
{
	fixture_dir_fast(image->dir);
	build(image->dir);
	(void)snprintf(image->path, sizeof(image->path), "%s/store/data.mdb", image->dir);
	int fd = open(image->path, O_RDONLY | O_CLOEXEC);
	struct stat facts;
	if (fd < 0 || fstat(fd, &facts) != 0) {
		printf("Bail out! no store was built\n");
		exit(1);
	}
	image->length = (size_t)facts.st_size;
	image->bytes = malloc(image->length);
	if (read(fd, image->bytes, image->length) != facts.st_size) {
		printf("Bail out! cannot read the store\n");
		exit(1);
	}
	close(fd);
}

static void save(const struct image *image, size_t length)
{
	int fd = open(image->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0 || write(fd, image->bytes, length) != (ssize_t)length) {
		printf("Bail out! cannot write the store\n");
		exit(1);
	}
	close(fd);
}

static void report(const char *what, const struct counts *counts)
{
	tap_diag("%s: %u refused, %u passed", what, counts->refused, counts->passed);
	ok_u64(counts->crashed, 0, "%s: what passed the probe crashes nobody", what);
	ok_u64(counts->misled, 0, "%s: and nothing wrong comes out of it", what);
	ok(counts->refused > 0, "%s: damage is found at all", what);
	ok_u64(counts->died, 0, "%s: without a probe nobody crashes who may write it anew", what);
	ok_u64(counts->lost, 0, "%s: and he can, or goes on with it", what);
}

// A page of the tree's own kind: headers and nodes, where LMDB believes every byte.
static bool is_tree_page(const struct image *image, size_t page)
{
	uint16_t flags;
	memcpy(&flags, image->bytes + page * PAGE + 10, sizeof(flags));
	return page < 2 || flags == 1 || flags == 2;
}

static void test_flips(struct image *image, uint64_t *state, unsigned rounds, bool tree_only)
{
	struct counts counts = { 0 };
	for (unsigned i = 0; i < rounds; i++) {
		size_t at = tap_random(state) % image->length;
		while (tree_only && !is_tree_page(image, at / PAGE)) {
			at = tap_random(state) % image->length;
		}
		if (tree_only && i % 2 == 0) {
			at -= at % PAGE - tap_random(state) % 64; // headers and node offsets
		}
		unsigned char before = image->bytes[at];
		unsigned char bits = (unsigned char)(tap_random(state) % 255 + 1);
		image->bytes[at] ^= bits;
		save(image, image->length);
		judge(image->dir, &counts);
		save(image, image->length);
		judge_unprobed(image->dir, &counts);
		image->bytes[at] = before;
	}
	report(tree_only ? "flips in the tree" : "flips anywhere", &counts);
}

static void test_cuts(struct image *image, uint64_t *state)
{
	struct counts counts = { 0 };
	for (unsigned i = 0; i < 20; i++) {
		size_t length = i < 4 ? i * PAGE : tap_random(state) % image->length;
		save(image, length);
		judge(image->dir, &counts);
		save(image, length);
		judge_unprobed(image->dir, &counts);
	}
	report("cut files", &counts);
	// The end of a file that lost it is in use, but for pages that were free when it was cut.
	char why[1024] = "";
	save(image, image->length / 2 / PAGE * PAGE);
	ok_int(store_probe(image->dir, why, sizeof(why)), STORE_DAMAGED, "half a file is damage");
	ok(strstr(why, image->dir) != NULL && strstr(why, "data.mdb is cut short") != NULL &&
		   strstr(why, "restore a backup") != NULL,
	   "what is damaged, how, and the remedy are named: %s", why);
}

// Writes that went to another page, or never happened.
static void test_pages(struct image *image, uint64_t *state)
{
	struct counts counts = { 0 };
	unsigned char page[PAGE];
	for (unsigned i = 0; i < 40; i++) {
		size_t to = tap_random(state) % (image->length / PAGE) * PAGE;
		size_t from = tap_random(state) % (image->length / PAGE) * PAGE;
		memcpy(page, image->bytes + to, PAGE);
		if (i % 2 == 0) {
			memmove(image->bytes + to, image->bytes + from, PAGE);
		} else {
			memset(image->bytes + to, 0, PAGE);
		}
		save(image, image->length);
		judge(image->dir, &counts);
		save(image, image->length);
		judge_unprobed(image->dir, &counts);
		memcpy(image->bytes + to, page, PAGE);
	}
	report("lost and misplaced pages", &counts);
}

// Whole, and with a checksum that says so, but not the one that was asked for.
static void test_misplaced(void)
{
	static _Alignas(8) unsigned char bytes[STORE_BLOCK_BYTES_MAX];
	static struct fixture_record record;
	struct store_builder builder = { .bytes = bytes };
	struct store_block block;
	fixture_record(&record, 1, 1, 100, 0);
	store_builder_reset(&builder);
	(void)store_builder_add(&builder, &record.view, NULL);
	uint32_t length = store_builder_finish(&builder, 7);
	ok_int(store_block_check(bytes, length, 7, &block), STORE_BLOCK_GOOD, "a whole block");
	ok_int(store_block_check(bytes, length, 8, &block), STORE_BLOCK_MISPLACED,
	       "in another's place is refused");
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	uint64_t state = tap_seed(20240117);
	struct image image;
	load(&image);
	struct counts whole = { 0 };
	save(&image, image.length);
	judge(image.dir, &whole);
	ok(whole.passed == 1 && whole.misled == 0 && whole.crashed == 0,
	   "the store as it was built passes");
	test_misplaced();
	test_flips(&image, &state, tap_rounds(60, 8), false);
	test_flips(&image, &state, tap_rounds(120, 16), true);
	test_cuts(&image, &state);
	test_pages(&image, &state);
	free(image.bytes);
	fixture_remove(image.dir);
	return tap_done();
}

// SPDX-License-Identifier: MIT
//
// The store on its own: blocks, transactions, reopening, and what it says when it cannot. E: what
// was committed is there after reopening, what was aborted is not.
#include "daemon/storage/store.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "daemon/storage/block.h"
#include "tests/daemon/store_fixture.h"

static void test_block(void)
{
	_Alignas(8) static unsigned char bytes[STORE_BLOCK_BYTES_MAX + 8];
	static struct fixture_record record;
	struct store_builder builder = { .bytes = bytes };
	store_builder_reset(&builder);
	for (uint64_t i = 1; i <= 20; i++) {
		fixture_record(&record, i, i * 10, (uint32_t)(i * 13), 0);
		record.bytes[24] = 0x5a; // a place in memory is not to reach the store
		(void)store_builder_add(&builder, &record.view, NULL);
	}
	fixture_record(&record, 21, 5, 1001, KVS_RECORD_LARGE);
	uint32_t offset = store_builder_add(&builder, &record.view, record.value);
	free(record.value);
	uint32_t used = builder.used;
	uint32_t value_bytes = store_builder_finish(&builder, 42);
	ok((value_bytes + STORE_PAGE_HEADER_BYTES) % STORE_PAGE_BYTES == 0,
	   "a block beyond the inline bound fills whole pages");

	struct store_block block;
	ok_int(store_block_check(bytes, value_bytes, 42, &block), STORE_BLOCK_GOOD, "good block");
	ok_u64(block.first_seq, 10, "first seq");
	ok_u64(block.last_seq, 200, "highest seq");
	uint32_t at = 0;
	uint32_t last = 0;
	uint64_t number = 0;
	bool same = true;
	struct kvs_record_view view;
	const void *value;
	for (uint32_t here = at; store_block_next(&block, &at, &view, &value) == 1; here = at) {
		number++;
		last = here;
		same = same && fixture_same(&view, value, number);
	}
	ok(same && number == 21 && last == offset, "every record comes out as it went in");
	ok_int(store_block_check(bytes, value_bytes, 43, &block), STORE_BLOCK_MISPLACED,
	       "another number is refused");
	ok_int(store_block_check(bytes, value_bytes - 8, 42, &block), STORE_BLOCK_SHORT,
	       "a cut block is refused");

	unsigned accepted = 0;
	for (uint32_t i = 0; i < used; i++) {
		bytes[i] ^= 0x10;
		accepted += store_block_check(bytes, value_bytes, 42, &block) == STORE_BLOCK_GOOD;
		bytes[i] ^= 0x10;
	}
	ok_u64(accepted, 0, "a flipped bit in any of %u bytes is refused", used);
}

struct seen {
	uint64_t count;
	uint64_t wrong;
	uint64_t sum_seq;
	uint64_t last_place;
	uint64_t stop_at;
};

// Number of a fixture's key.
static uint64_t number_of(const struct kvs_record_view *view)
{
	char key[32] = "";
	memcpy(key, view->key, view->key_bytes < 31 ? view->key_bytes : 31);
	return strtoull(key + 1, NULL, 10);
}

static int see(void *context, const struct kvs_record_view *view, const void *value, uint64_t place)
{
	struct seen *seen = context;
	seen->count++;
	seen->sum_seq += view->seq;
	seen->wrong += !fixture_same(view, value, number_of(view)) || place <= seen->last_place;
	seen->last_place = place;
	return seen->stop_at == seen->count ? 7 : 0;
}

static int walk(struct store *store, struct seen *seen)
{
	struct store_walk how = { .record = see, .context = seen, .check_records = true };
	return store_recover(store, &how);
}

static int append(struct store *store, uint64_t number, uint64_t seq, uint32_t value_bytes,
		  uint16_t flags)
{
	static struct fixture_record record;
	uint64_t place;
	fixture_record(&record, number, seq, value_bytes, flags);
	int result = store_append(store, &record.view, record.value, &place);
	free(record.value);
	return result;
}

// E: transactions of every size, small and long records among them, are there after reopening.
static void test_reopen(const char *dir)
{
	struct store *store = fixture_store(dir);
	struct seen seen = { 0 };
	ok_int(walk(store, &seen), STORE_OK, "an empty store is walked");
	ok_u64(seen.count, 0, "and holds nothing");
	uint64_t state = tap_seed(1);
	uint64_t seq = 0;
	uint64_t sum = 0;
	bool good = true;
	for (unsigned commit = 0; commit < 60; commit++) {
		good = good && store_begin(store) == STORE_OK;
		unsigned count = commit % 3 == 0 ? 1 : (unsigned)(tap_random(&state) % 400);
		for (unsigned i = 0; good && i < count; i++) {
			uint64_t kind = tap_random(&state) % 100;
			bool large = kind < 3;
			uint32_t bytes = kind < 1   ? (uint32_t)(tap_random(&state) % 300000)
					 : kind < 6 ? (uint32_t)(tap_random(&state) % 60000)
						    : (uint32_t)(tap_random(&state) % 200);
			sum += ++seq;
			good = append(store, seq % 97, seq, bytes, large ? KVS_RECORD_LARGE : 0) ==
			       STORE_OK;
		}
		good = good && store_commit(store, seq) == STORE_OK;
	}
	ok(good, "60 transactions are committed");
	uint64_t file_bytes = store_file_bytes(store);
	struct store_facts facts;
	store_facts(store, &facts);
	ok(file_bytes < facts.log_bytes + facts.log_bytes / 10 + (1u << 20),
	   "the file is little larger than its blocks");

	good = store_begin(store) == STORE_OK && append(store, 1, seq + 1, 100, 0) == STORE_OK;
	store_abort(store);
	ok(good, "a transaction is aborted");
	store_close(store);

	store = fixture_store(dir);
	memset(&seen, 0, sizeof(seen));
	ok_int(walk(store, &seen), STORE_OK, "walked after reopening");
	ok_u64(seen.count, seq, "every record, and none of the aborted transaction");
	ok_u64(seen.sum_seq, sum, "each once");
	ok_u64(seen.wrong, 0, "each as it was written, in order of place");
	struct store_facts again;
	store_facts(store, &again);
	ok(memcmp(&facts, &again, sizeof(facts)) == 0, "the state is that of the last commit");
	ok_u64(again.instance_id, 77, "the instance too");
	ok_u64(again.durable_seq, seq, "and durable_seq");
	seen = (struct seen){ .stop_at = 3 };
	ok_int(walk(store, &seen), 7, "the callback can end the walk");
	store_close(store);
}

// Spans survive being copied by compaction, and the blocks before them being deleted.
static void test_span(const char *dir)
{
	struct store *store = fixture_store(dir);
	bool good = store_begin(store) == STORE_OK &&
		    append(store, 1, 1, 200000, KVS_RECORD_LARGE) == STORE_OK &&
		    append(store, 2, 2, 60000, 0) == STORE_OK &&
		    append(store, 3, 3, 50, 0) == STORE_OK && store_commit(store, 3) == STORE_OK;
	ok(good, "two long records and a short one");
	struct store_facts facts;
	store_facts(store, &facts);
	uint64_t first = facts.oldest_block;
	uint64_t pieces = (200000 + 64 + STORE_PAYLOAD_BYTES_MAX - 1) / STORE_PAYLOAD_BYTES_MAX;
	uint64_t place = 0;
	good = store_begin(store) == STORE_OK &&
	       store_append_span(store, first, &place) == STORE_OK &&
	       store_delete_oldest(store, pieces) == STORE_OK && store_commit(store, 3) == STORE_OK;
	ok(good, "the first is moved behind the others");
	ok_u64(place, store_block_place(facts.next_block, 0), "its place is told");
	store_close(store);
	char why[600];
	ok_int(store_probe(dir, why, sizeof(why)), STORE_OK, "the probe finds nothing wrong");
	store = fixture_store(dir);
	struct seen seen = { 0 };
	ok_int(walk(store, &seen), STORE_OK, "walked");
	ok_u64(seen.count, 3, "three records");
	ok_u64(seen.wrong, 0, "as they were written");
	good = store_begin(store) == STORE_OK && store_delete_oldest(store, 1) == STORE_OK &&
	       store_commit(store, 3) == STORE_OK;
	store_close(store);
	ok(good && store_probe(dir, why, sizeof(why)) == STORE_DAMAGED,
	   "a long record without its first block is damage");
}

static int try_open(const char *dir, char *why, size_t why_bytes)
{
	struct store *store;
	struct store_options options = { .dir = dir };
	int result = store_open(&store, &options, why, why_bytes);
	store_close(store);
	return result;
}

// As a user who may not write there: root may write anywhere.
static void test_read_only(const char *dir)
{
	char why[512];
	char path[FIXTURE_PATH_BYTES + 32];
	store_close(fixture_store(dir));
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		int expected = chmod(path, 0400) == 0 &&
			       (geteuid() != 0 || (chown(path, 65534, 65534) == 0 &&
						   chmod(dir, 0755) == 0 && seteuid(65534) == 0));
		int result = try_open(dir, why, sizeof(why));
		_exit(expected && result == STORE_NO_ACCESS && strstr(why, dir) &&
				      strstr(why, "--dir")
			      ? 0
			      : 1);
	}
	int status;
	ok(waitpid(pid, &status, 0) == pid && status == 0,
	   "a store that may not be written is refused, naming folder and remedy");
}

// Replaces `from` by `to`, of the same length, wherever it stands in the file.
static unsigned patch_file(const char *path, const char *from, const char *to)
{
	unsigned patched = 0;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat facts;
	if (fd < 0 || fstat(fd, &facts) != 0) {
		return 0;
	}
	char *bytes = malloc((size_t)facts.st_size);
	if (pread(fd, bytes, (size_t)facts.st_size, 0) == facts.st_size) {
		size_t length = strlen(from);
		for (size_t i = 0; i + length <= (size_t)facts.st_size; i++) {
			if (memcmp(bytes + i, from, length) == 0) {
				patched += pwrite(fd, to, length, (off_t)i) == (ssize_t)length;
			}
		}
	}
	free(bytes);
	close(fd);
	return patched;
}

static void test_version(const char *dir)
{
	char why[600];
	char path[FIXTURE_PATH_BYTES + 32];
	store_close(fixture_store(dir));
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	ok(patch_file(path, "kvd-sto1", "kvd-sto9") > 0, "the store gets another version");
	ok_int(store_probe(dir, why, sizeof(why)), STORE_VERSION, "the probe says so");
	ok_int(try_open(dir, why, sizeof(why)), STORE_VERSION, "opening too");
	ok(strstr(why, dir) && strstr(why, "version"), "with folder and remedy: %s", why);
}

static void test_not_a_store(const char *dir)
{
	char why[600];
	char path[FIXTURE_PATH_BYTES + 32];
	ok_int(store_probe(dir, why, sizeof(why)), STORE_OK, "no store yet is fine");
	store_close(fixture_store(dir));
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	FILE *file = fopen(path, "w");
	for (int i = 0; file && i < 5000; i++) {
		fprintf(file, "this is not a store ");
	}
	if (file) {
		(void)fclose(file);
	}
	ok_int(store_probe(dir, why, sizeof(why)), STORE_DAMAGED, "a text file is no store");
	ok(strstr(why, dir) && strstr(why, "backup"), "with folder and remedy: %s", why);
}

// Only what the child does to itself speaks of the store.
static void test_probe_ended(const char *dir)
{
	static const struct {
		int signal;
		int wanted;
	} ends[] = {
		{ SIGKILL, STORE_SYSTEM },  { SIGTERM, STORE_SYSTEM },	{ SIGINT, STORE_SYSTEM },
		{ SIGHUP, STORE_SYSTEM },   { SIGBUS, STORE_DAMAGED },	{ SIGSEGV, STORE_DAMAGED },
		{ SIGABRT, STORE_DAMAGED }, { SIGXCPU, STORE_DAMAGED },
	};
	char why[600];
	char number[16];
	store_close(fixture_store(dir));
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		bool is_damage = ends[i].wanted == STORE_DAMAGED;
		(void)snprintf(number, sizeof(number), "%d", ends[i].signal);
		(void)setenv(FIXTURE_PROBE_SIGNAL, number, 1);
		ok_int(store_probe(dir, why, sizeof(why)), ends[i].wanted,
		       "a probe that ends by signal %d", ends[i].signal);
		ok((strstr(why, "the store is damaged") != NULL) == is_damage && strstr(why, dir),
		   "which is called %s: %s", is_damage ? "damage" : "what it is", why);
	}
	(void)unsetenv(FIXTURE_PROBE_SIGNAL);
	ok_int(store_probe(dir, why, sizeof(why)), STORE_OK, "and the store is as it was");
}

// A commit that finds no room fails as a whole, says why, and succeeds when there is room.
static void test_no_room(const char *dir)
{
	struct store *store = fixture_store(dir);
	bool good = store_begin(store) == STORE_OK && append(store, 1, 1, 100, 0) == STORE_OK &&
		    store_commit(store, 1) == STORE_OK;
	struct rlimit before;
	(void)signal(SIGXFSZ, SIG_IGN);
	good = good && getrlimit(RLIMIT_FSIZE, &before) == 0;
	struct rlimit tight = { .rlim_cur = 256u << 10, .rlim_max = before.rlim_max };
	good = good && setrlimit(RLIMIT_FSIZE, &tight) == 0;
	int result = STORE_OK;
	for (unsigned tries = 0; good && tries < 2; tries++) {
		result = store_begin(store);
		for (uint64_t i = 2; result == STORE_OK && i < 60; i++) {
			result = append(store, i, i, 20000, 0);
		}
		if (result == STORE_OK) {
			result = store_commit(store, 59);
		}
	}
	ok(result == STORE_NO_SPACE || result == STORE_IO, "a file size limit makes it fail: %s",
	   store_why(store));
	good = good && setrlimit(RLIMIT_FSIZE, &before) == 0;
	struct seen seen = { 0 };
	result = store_begin(store);
	for (uint64_t i = 2; result == STORE_OK && i < 60; i++) {
		result = append(store, i, i, 20000, 0);
	}
	ok(result == STORE_OK && store_commit(store, 59) == STORE_OK,
	   "with room again the same commit succeeds");
	ok_int(walk(store, &seen), STORE_OK, "walked");
	ok(good && seen.count == 59 && seen.wrong == 0, "and everything is there once");
	store_close(store);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	static void (*const tests[])(const char *dir) = {
		test_reopen,	  test_span,	    test_read_only, test_version,
		test_not_a_store, test_probe_ended, test_no_room,
	};
	test_block();
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		char dir[FIXTURE_PATH_BYTES];
		fixture_dir(dir);
		tests[i](dir);
		fixture_remove(dir);
	}
	return tap_done();
}

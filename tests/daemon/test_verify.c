// SPDX-License-Identifier: MIT
//
// Looking at all of a store: what is damaged is said, by block and by key, and the looking goes on;
// what memory has and the store has not is said, and the other way round. The reader is a child, as
// in the product: LMDB may crash on a file that was changed behind its back.
#include <errno.h>
#include <sys/wait.h>

#include "daemon/storage/seal.h"
#include "daemon/storage/verify.h"
#include "shm/hash.h"
#include "tests/daemon/store_fixture.h"

#define KEYS 600u
#define LARGE_BYTES 70000u
#define SEED 99u

struct said {
	int code; // enum verify_code, -1: it died
	char text[60000];
};

static void put(struct store *store, uint64_t number, uint64_t seq, uint32_t bytes, uint16_t flags)
{
	static struct fixture_record record;
	uint64_t place;
	fixture_record(&record, number, seq, bytes, flags);
	if (store_append(store, &record.view, record.value, &place) != STORE_OK) {
		printf("Bail out! %s\n", store_why(store));
		exit(1);
	}
	free(record.value);
}

// Keys 1..KEYS with the version of their number; 1 is large, 2 removed, 3 written twice.
static void make(const char *dir)
{
	struct store *store = fixture_store(dir);
	int result = store_begin(store);
	put(store, 1, 1, LARGE_BYTES, KVS_RECORD_LARGE);
	for (uint64_t i = 2; i <= KEYS; i++) {
		put(store, i, i, 40 + (uint32_t)(i % 200), 0);
	}
	put(store, 2, KEYS + 1, 0, KVS_RECORD_TOMBSTONE);
	put(store, 3, KEYS + 2, 10, 0);
	result = result == STORE_OK ? store_commit(store, KEYS + 2) : result;
	if (result != STORE_OK) {
		printf("Bail out! %s\n", store_why(store));
		exit(1);
	}
	store_close(store);
}

static void run(struct said *said, const struct verify_options *asked)
{
	int ends[2];
	size_t bytes = 0;
	ssize_t n;
	int status = 0;
	if (pipe(ends) != 0) {
		printf("Bail out! no pipe\n");
		exit(1);
	}
	(void)fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		struct verify_options options = *asked;
		options.out = fdopen(ends[1], "w");
		_exit(store_verify(&options));
	}
	(void)close(ends[1]);
	while ((n = read(ends[0], said->text + bytes, sizeof(said->text) - 1 - bytes)) > 0) {
		bytes += (size_t)n;
	}
	said->text[bytes] = '\0';
	(void)close(ends[0]);
	bool ended = waitpid(pid, &status, 0) == pid && WIFEXITED(status);
	said->code = ended ? WEXITSTATUS(status) : -1;
}

static bool says(const struct said *said, const char *text)
{
	return strstr(said->text, text) != NULL;
}

static uint64_t hash_of(uint64_t number)
{
	char key[32];
	int bytes = snprintf(key, sizeof(key), "k%llu", (unsigned long long)number);
	return kvs_hash(SEED, key, (size_t)bytes);
}

static void test_good(const char *dir)
{
	static struct said said;
	char done[64];
	for (unsigned alone = 0; alone < 2; alone++) {
		run(&said, &(struct verify_options){ .dir = dir, .alone = alone != 0 });
		(void)snprintf(done, sizeof(done), " %u %u\n", KEYS - 1, KEYS + 2);
		ok(said.code == VERIFY_GOOD && says(&said, "damaged 0\n") && says(&said, done),
		   "a store that is whole%s", alone ? ", with its pages" : "");
	}
}

// Memory as it is told: but for one key that it never heard of, and one that the store has not.
static void test_compare(const char *dir)
{
	static struct said said;
	char path[FIXTURE_PATH_BYTES + 16];
	(void)snprintf(path, sizeof(path), "%s/told", dir);
	FILE *told = fopen(path, "w+e");
	uint64_t seed = SEED;
	(void)fwrite(&seed, sizeof(seed), 1, told);
	for (uint64_t i = 1; i <= KEYS + 1; i++) {
		uint64_t seq = i == 3 ? KEYS + 2 : i;
		struct verify_expected one = { hash_of(i), seq | VERIFY_REQUIRED };
		one.seq = i == 10 ? KEYS + 9 : one.seq; // newer, and not durable
		if (i != 2 && i != 77) {
			(void)fwrite(&one, sizeof(one), 1, told);
		}
	}
	rewind(told);
	run(&said, &(struct verify_options){ .dir = dir, .expected = told });
	(void)fclose(told);
	char missing[64];
	(void)snprintf(missing, sizeof(missing), "missing %llu %u\n",
		       (unsigned long long)hash_of(KEYS + 1), KEYS + 1);
	ok(says(&said, missing), "what only memory has");
	ok(says(&said, "extra 6b3737 77\n"), "what only the store has, by its key");
	const char *first = strstr(said.text, "missing ");
	const char *extra = strstr(said.text, "extra ");
	ok(first != NULL && extra != NULL && strstr(first + 1, "missing ") == NULL &&
		   strstr(extra + 1, "extra ") == NULL,
	   "and nothing else: neither removals nor what is not durable");
}

static off_t size_of(const char *path)
{
	struct stat facts;
	return stat(path, &facts) == 0 ? facts.st_size : 0;
}

static void turn(const char *path, off_t at, unsigned bit)
{
	unsigned char byte = 0;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool good = fd >= 0 && pread(fd, &byte, 1, at) == 1;
	byte ^= (unsigned char)(1u << bit);
	if (!good || pwrite(fd, &byte, 1, at) != 1 || close(fd) != 0) {
		printf("Bail out! cannot write %s\n", path);
		exit(1);
	}
}

// Any bit turned, and turned back: the reader says damage, dies, or (of free pages and of what LMDB
// pads with) sees the same; and never says other keys than there are.
static void test_flips(const char *dir)
{
	static struct said said;
	char path[FIXTURE_PATH_BYTES + 32];
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	uint64_t state = tap_seed(1);
	unsigned found = 0;
	unsigned same = 0;
	unsigned died = 0;
	unsigned wrong = 0;
	for (unsigned i = 0; i < 150; i++) {
		off_t at = (off_t)(tap_random(&state) % (uint64_t)size_of(path));
		unsigned bit = (unsigned)(tap_random(&state) % 8);
		turn(path, at, bit);
		run(&said, &(struct verify_options){ .dir = dir, .alone = true });
		turn(path, at, bit);
		found += said.code == VERIFY_DAMAGED || said.code == VERIFY_FAILED;
		died += said.code == -1;
		same += said.code == VERIFY_GOOD;
		wrong += said.code == VERIFY_GOOD && !says(&said, " 599 602\n");
	}
	ok(found > 75 && wrong == 0, "bits turned: %u found, %u died of it, %u made no difference",
	   found, died, same);
}

static bool told_all(void *context, uint64_t done)
{
	*(uint64_t *)context = done;
	return true;
}

static void test_seal(const char *dir)
{
	char path[FIXTURE_PATH_BYTES + 32];
	char why[256];
	uint32_t crc;
	uint64_t read_bytes = 0;
	unsigned refused = 0;
	struct seal_facts found;
	struct seal_facts facts = { .data_bytes = 100000, .durable_seq = 7, .keys = 8 };
	(void)snprintf(path, sizeof(path), "%s/sealed", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ok(fd >= 0 && ftruncate(fd, 100000) == 0 && seal_write(fd, &facts) == 0, "sealed");
	ok(seal_read(fd, &found, why, sizeof(why)) == 0 && found.data_bytes == 100000 &&
		   found.durable_seq == 7 && found.keys == 8,
	   "and read");
	ok(seal_sum(fd, 100000, &crc, told_all, &read_bytes) == 0 && read_bytes == 100000,
	   "all of it is summed");
	ok_int(seal_sum(fd, 1 << 20, &crc, NULL, NULL), EIO, "what ends before is an error");
	for (unsigned bit = 0; bit < 88 * 8; bit++) {
		turn(path, 100000 + bit / 8, bit % 8);
		refused += seal_read(fd, &found, why, sizeof(why)) != 0;
		turn(path, 100000 + bit / 8, bit % 8);
	}
	ok_int((int)refused, 88 * 8, "each bit of the seal counts");
	unsigned tried = 0;
	refused = 0;
	for (unsigned byte = 88; byte < SEAL_BYTES; byte += tap_step(1, 20)) {
		turn(path, 100000 + byte, byte % 8);
		refused += seal_read(fd, &found, why, sizeof(why)) != 0;
		turn(path, 100000 + byte, byte % 8);
		tried++;
	}
	ok_u64(refused, tried, "and each byte of the rest of its page");
	ok(seal_read(fd, &found, why, sizeof(why)) == 0, "it is as it was");
	ok(ftruncate(fd, 100000 + 4095) == 0 && seal_read(fd, &found, why, sizeof(why)) != 0,
	   "a file that is cut short: %s", why);
	ok(ftruncate(fd, 10) == 0 && seal_read(fd, &found, why, sizeof(why)) != 0,
	   "a file that is no backup: %s", why);
	(void)close(fd);
}

int main(void)
{
	char dir[FIXTURE_PATH_BYTES];
	fixture_dir_fast(dir);
	make(dir);
	test_good(dir);
	test_compare(dir);
	test_flips(dir);
	test_seal(dir);
	fixture_remove(dir);
	return tap_done();
}

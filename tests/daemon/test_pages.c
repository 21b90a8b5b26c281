// SPDX-License-Identifier: MIT
//
// The look at raw pages, on a real store of which one word of 16 bits is something else, each word
// in turn: it ends, reads nothing outside the file, and has a word for what it finds; of what every
// tree needs nothing wrong is passed over.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/storage/pages.h"
#include "tests/daemon/store_fixture.h"
#include "tests/tap/tap.h"

#define PAGE_BYTES 4096u
#define COMMITS 12u

static char why[256];

static int check(const unsigned char *file, size_t bytes, bool trees_only)
{
	why[0] = '\0';
	return store_pages_check_image(file, bytes, trees_only, why, sizeof(why));
}

// Commits of small records and a large one, and some deleted again, so that there are free pages.
static unsigned char *make(const char *dir, size_t *bytes)
{
	char path[FIXTURE_PATH_BYTES + 32];
	struct store *store = fixture_store(dir);
	uint64_t seq = 0;
	for (unsigned commit = 0; commit < COMMITS; commit++) {
		int result = store_begin(store);
		for (unsigned i = 0; i < 3; i++) {
			static struct fixture_record record;
			uint64_t place;
			seq++;
			fixture_record(&record, seq, seq, commit == 3 && i == 0 ? 70000 : 3000,
				       commit == 3 && i == 0 ? KVS_RECORD_LARGE : 0);
			result = result == STORE_OK
					 ? store_append(store, &record.view, record.value, &place)
					 : result;
			free(record.value);
		}
		if (result != STORE_OK || store_commit(store, seq) != STORE_OK) {
			printf("Bail out! %s\n", store_why(store));
			exit(1);
		}
	}
	for (unsigned i = 0; i < 3; i++) {
		if (store_begin(store) != STORE_OK || store_delete_oldest(store, 2) != STORE_OK ||
		    store_commit(store, seq) != STORE_OK) {
			printf("Bail out! %s\n", store_why(store));
			exit(1);
		}
	}
	store_close(store);
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	struct stat facts;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char *file =
		fd >= 0 && fstat(fd, &facts) == 0 ? malloc((size_t)facts.st_size) : NULL;
	*bytes = (size_t)facts.st_size;
	if (file == NULL || read(fd, file, *bytes) != (ssize_t)*bytes) {
		printf("Bail out! %s\n", path);
		exit(1);
	}
	(void)close(fd);
	return file;
}

// One word at `at` is `value` instead. Counts what is found.
static unsigned try_word(unsigned char *file, size_t bytes, size_t at, uint16_t value,
			 unsigned *found)
{
	uint16_t before;
	unsigned wrong = 0;
	memcpy(&before, file + at, sizeof(before));
	memcpy(file + at, &value, sizeof(value));
	for (int trees_only = 0; trees_only < 2; trees_only++) {
		int result = check(file, bytes, trees_only != 0);
		wrong += result < -1 || result > 1 || (result < 0) != (why[0] != '\0');
		*found += result < 0;
	}
	memcpy(file + at, &before, sizeof(before));
	return wrong;
}

static void test_words(unsigned char *file, size_t bytes)
{
	static const uint16_t values[] = { 0, 1, 2, 3, 4, 8, 17, 511, 4095, 4097, 0x7fff, 0xffff };
	size_t step = 2 * (size_t)tap_slowness();
	unsigned wrong = 0, found = 0, tries = 0;
	for (size_t page = 0; page < bytes; page += PAGE_BYTES) {
		uint16_t flags;
		memcpy(&flags, file + page + 10, sizeof(flags));
		bool is_tree = page < 2 * PAGE_BYTES || flags == 1 || flags == 2;
		for (size_t at = page; at < page + PAGE_BYTES && is_tree; at += 2) {
			uint16_t here;
			memcpy(&here, file + at, sizeof(here));
			// Headers and places always, of the rest what is no zero.
			if (at - page >= 200 && (here == 0 || at % step != 0)) {
				continue;
			}
			for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
				wrong += try_word(file, bytes, at, values[i], &found);
			}
			wrong += try_word(file, bytes, at, (uint16_t)(here + 1), &found);
			wrong += try_word(file, bytes, at, (uint16_t)(here - 1), &found);
			wrong += try_word(file, bytes, at, (uint16_t)(here ^ 0x8000), &found);
			tries += 15;
		}
	}
	ok(wrong == 0 && found > 1000, "%u other words, found %u times in two ways", tries, found);
}

// A file that ends early, or before it began.
static void test_lengths(const unsigned char *file, size_t bytes)
{
	unsigned wrong = 0, cut = 0;
	for (size_t left = 0; left < bytes; left += left < 2 * PAGE_BYTES ? 256 : PAGE_BYTES) {
		unsigned char *part = malloc(left + 1); // so that nothing behind it is there
		if (part == NULL) {
			continue;
		}
		memcpy(part, file, left);
		int result = check(part, left, false);
		wrong += (result < 0) != (why[0] != '\0');
		cut += strstr(why, "cut short") != NULL;
		free(part);
	}
	ok(wrong == 0 && cut > 2, "a file of any other length, %u times called cut short", cut);
}

static void test_unborn(void)
{
	static unsigned char file[3 * PAGE_BYTES];
	int fd = memfd_create("pages", MFD_CLOEXEC);
	ok(fd >= 0 && write(fd, file, 2 * PAGE_BYTES) == 2 * (ssize_t)PAGE_BYTES &&
		   store_pages_unborn(fd, 2 * PAGE_BYTES) &&
		   store_pages_check(fd, 2 * PAGE_BYTES, false, why, sizeof(why)) == 1,
	   "nothing but zeroes was never born");
	ok(!store_pages_unborn(fd, 3 * PAGE_BYTES), "more than two pages were");
	ok(pwrite(fd, "x", 1, 4200) == 1 && !store_pages_unborn(fd, 2 * PAGE_BYTES),
	   "nor is something else in the second one nothing");
	(void)close(fd);
}

int main(void)
{
	char dir[FIXTURE_PATH_BYTES];
	size_t bytes;
	fixture_dir_fast(dir);
	unsigned char *file = make(dir, &bytes);
	ok_int(check(file, bytes, false), 0, "a store hangs together");
	ok_int(check(file, bytes, true), 0, "its trees alone, too");
	test_words(file, bytes);
	ok_int(check(file, bytes, false), 0, "as it was");
	test_lengths(file, bytes);
	test_unborn();
	free(file);
	fixture_remove(dir);
	return tap_done();
}

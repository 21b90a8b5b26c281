// SPDX-License-Identifier: MIT
//
// A process that reads the keys of tests/system/tenfold.py through the library and holds their
// values against what they must be: told what to read line by line on standard input, it answers
// each line with counts. Arguments: the socket, bytes of a value, bytes of a large one.
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/kvclient.h"

#define LINE_BYTES 256u
#define KEY_BYTES 32u
#define STAMP_BYTES 8u
#define TRIES 20000u // of one read
#define TRY_MS 5
#define LARGE_EVERY 100u // one key in so many has a large value

struct counts {
	unsigned right, wrong, absent, failed, by_socket;
};

static kvc *client;
static kvc_reader *reader;
static size_t value_bytes, large_bytes;

// The value is the key's number, eight digits again and again.
static bool is_value(unsigned number, const char *value, size_t bytes)
{
	char stamp[STAMP_BYTES + 1];
	size_t expected = number % LARGE_EVERY == 7 ? large_bytes : value_bytes;
	(void)snprintf(stamp, sizeof(stamp), "%08u", number % 100000000u);
	return bytes == expected && memcmp(value, stamp, STAMP_BYTES) == 0 &&
	       memcmp(value, value + STAMP_BYTES, bytes - STAMP_BYTES) == 0;
}

static void look(const char *prefix, unsigned number, struct counts *counts)
{
	char key[KEY_BYTES];
	void *value = NULL;
	struct kvc_meta meta = { 0 };
	int bytes = snprintf(key, sizeof(key), "%.8s%u", prefix, number);
	int status = kvc_get_alloc(reader, key, (size_t)bytes, &value, &meta);
	// kvd may be down for a while: its next life has the value.
	for (unsigned i = 0; i < TRIES && status != KVC_OK && status != KVC_NOT_FOUND; i++) {
		(void)poll(NULL, 0, TRY_MS);
		status = kvc_get_alloc(reader, key, (size_t)bytes, &value, &meta);
	}
	bool right = status == KVC_OK && is_value(number, value, meta.value_bytes);
	counts->right += right;
	counts->wrong += status == KVC_OK && !right;
	counts->absent += status == KVC_NOT_FOUND;
	counts->failed += status != KVC_OK && status != KVC_NOT_FOUND;
	counts->by_socket += status == KVC_OK && (meta.flags & KVC_META_SOCKET) != 0;
	free(value);
}

static void answer(const struct counts *counts)
{
	printf("%u %u %u %u %u\n", counts->right, counts->wrong, counts->absent, counts->failed,
	       counts->by_socket);
	fflush(stdout);
}

// "PREFIX FIRST END STEP": those keys; "PREFIX FIRST END STEP PREFIX KEYS EVERY": of the second
// prefix one behind EVERY of them, in turn.
static void obey(const char *line)
{
	struct counts counts = { 0 };
	char prefix[16], beside[16] = "";
	unsigned first, end, step, keys = 0, every = 1, looks = 0;
	if (sscanf(line, "%15s %u %u %u %15s %u %u", prefix, &first, &end, &step, beside, &keys,
		   &every) < 4) {
		counts.failed++;
		step = 1;
		end = first = 0;
	}
	for (unsigned number = first; number < end; number += step) {
		look(prefix, number, &counts);
		if (keys > 0 && looks++ % every == 0) {
			look(beside, looks / every % keys, &counts);
		}
	}
	answer(&counts);
}

int main(int argc, char **argv)
{
	char line[LINE_BYTES];
	struct kvc_options options;
	if (argc != 4) {
		return 2;
	}
	value_bytes = strtoul(argv[2], NULL, 10);
	large_bytes = strtoul(argv[3], NULL, 10);
	kvc_options_init(&options);
	options.socket_path = argv[1];
	options.request_timeout_ms = 60000;
	options.reconnect_max_ms = 20;
	if (value_bytes < 2 * STAMP_BYTES || large_bytes < 2 * STAMP_BYTES ||
	    kvc_open(&client, &options) != KVC_OK || kvc_reader_open(client, &reader) != KVC_OK) {
		return 3;
	}
	while (fgets(line, sizeof(line), stdin)) {
		obey(line);
	}
	(void)kvc_reader_close(reader);
	return kvc_close(client) != KVC_OK;
}

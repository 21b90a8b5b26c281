// SPDX-License-Identifier: MIT
//
// See reference.h. Parsed with the same streaming parsers as kvctl load uses, in another process.
#include "bench/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/deb822.h"
#include "tools/jsonl.h"
#include "tools/source.h"

static bool reference_add(struct reference *reference, const struct item *item)
{
	if (reference->records == reference->capacity) {
		size_t capacity = reference->capacity ? reference->capacity * 2 : 4096;
		struct record *grown = realloc(reference->record, capacity * sizeof *grown);
		if (!grown) {
			return false;
		}
		reference->record = grown;
		reference->capacity = capacity;
	}
	char *bytes = malloc(item->key_bytes + item->value_bytes + 1);
	if (!bytes) {
		return false;
	}
	memcpy(bytes, item->key, item->key_bytes);
	memcpy(bytes + item->key_bytes, item->value, item->value_bytes);
	reference->record[reference->records] =
		(struct record){ .key = bytes,
				 .memory = bytes,
				 .first = item->value_bytes > 0 ? *item->value : '\0',
				 .value = bytes + item->key_bytes,
				 .key_bytes = item->key_bytes,
				 .value_bytes = item->value_bytes,
				 .order = reference->records };
	reference->records++;
	return true;
}

static int record_compare(const void *left, const void *right)
{
	const struct record *a = left, *b = right;
	size_t shorter = a->key_bytes < b->key_bytes ? a->key_bytes : b->key_bytes;
	int order = memcmp(a->key, b->key, shorter);
	if (order == 0 && a->key_bytes != b->key_bytes) {
		order = a->key_bytes < b->key_bytes ? -1 : 1;
	}
	return order != 0 ? order : a->order < b->order ? -1 : 1;
}

static bool record_same_key(const struct record *a, const struct record *b)
{
	return a->key_bytes == b->key_bytes && memcmp(a->key, b->key, a->key_bytes) == 0;
}

// The last record of a key wins, as in load.
static void reference_settle(struct reference *reference)
{
	size_t kept = 0;
	qsort(reference->record, reference->records, sizeof *reference->record, record_compare);
	for (size_t i = 0; i < reference->records; i++) {
		struct record *record = &reference->record[i];
		if (i + 1 < reference->records && record_same_key(record, record + 1)) {
			free(record->memory);
			continue;
		}
		reference->record[kept++] = *record;
		reference->value_bytes += record->value_bytes;
		if (record->value_bytes > reference->value_bytes_max) {
			reference->value_bytes_max = record->value_bytes;
		}
	}
	reference->records = kept;
}

// splitmix64: seeded, so that two runs read in the same order.
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void reference_shuffle(struct reference *reference, uint64_t seed)
{
	uint64_t state = seed;
	for (size_t i = reference->records; i > 1; i--) {
		size_t j = (size_t)(next_random(&state) % i);
		struct record moved = reference->record[i - 1];
		reference->record[i - 1] = reference->record[j];
		reference->record[j] = moved;
	}
}

static bool reference_join_keys(struct reference *reference)
{
	size_t bytes = 0;
	for (size_t i = 0; i < reference->records; i++) {
		bytes += reference->record[i].key_bytes;
	}
	reference->keys = malloc(bytes);
	if (!reference->keys) {
		return false;
	}
	char *out = reference->keys;
	for (size_t i = 0; i < reference->records; i++) {
		struct record *record = &reference->record[i];
		memcpy(out, record->key, record->key_bytes);
		record->key = out;
		out += record->key_bytes;
	}
	return true;
}

static bool reference_parse(struct reference *reference, struct source *source, const char *field,
			    char *error, size_t error_bytes)
{
	struct deb822 deb822;
	struct jsonl jsonl;
	struct item item = { 0 };
	bool good = true;
	deb822_init(&deb822, source, field ? field : "");
	jsonl_init(&jsonl, source);
	while (good) {
		enum item_result result =
			field ? deb822_next(&deb822, &item) : jsonl_next(&jsonl, &item);
		if (result == ITEM_END) {
			break;
		}
		if (result == ITEM_FAILED) {
			snprintf(error, error_bytes, "%s", item.error);
			good = false;
		} else if (result == ITEM_BAD) {
			reference->skipped++;
		} else if (!reference_add(reference, &item)) {
			snprintf(error, error_bytes, "out of memory");
			good = false;
		}
	}
	jsonl_free(&jsonl);
	return good;
}

bool reference_read(struct reference *reference, const char *path, const char *field, uint64_t seed,
		    char *error, size_t error_bytes)
{
	struct source source;
	bool standard = strcmp(path, "-") == 0;
	int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	bool good = fd >= 0 && source_init_fd(&source, fd);
	*reference = (struct reference){ 0 };
	if (!good) {
		snprintf(error, error_bytes, "%s", strerror(errno));
	} else {
		good = reference_parse(reference, &source, field, error, error_bytes);
		source_free(&source);
	}
	if (fd >= 0 && !standard) {
		(void)close(fd);
	}
	if (good && reference->records == 0) {
		snprintf(error, error_bytes, "there is no record in it");
		good = false;
	}
	if (!good) {
		reference_free(reference);
		return false;
	}
	reference_settle(reference);
	reference_shuffle(reference, seed);
	if (!reference_join_keys(reference)) {
		snprintf(error, error_bytes, "out of memory");
		reference_free(reference);
		return false;
	}
	return true;
}

void reference_free(struct reference *reference)
{
	for (size_t i = 0; i < reference->records; i++) {
		free(reference->record[i].memory);
	}
	free(reference->record);
	free(reference->keys);
	*reference = (struct reference){ 0 };
}

// SPDX-License-Identifier: MIT
//
// The page behind the data, little or big endian as the store itself is.
#include "daemon/storage/seal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/crc32c.h"

#define SEAL_MARKER "kvd-bak1" // eight bytes, version in the text
#define SEAL_CHUNK_BYTES (1u << 20)

struct seal {
	char marker[8];
	uint32_t crc; // crc32c of bytes [12, sizeof)
	uint32_t data_crc;
	uint64_t data_bytes;
	uint64_t instance_id;
	uint64_t durable_seq;
	uint64_t keys;
	uint64_t records;
	uint64_t created_ms;
	char kvd_version[SEAL_VERSION_BYTES];
};
static_assert(sizeof(struct seal) == 88, "fixed");
static_assert(sizeof(struct seal) <= SEAL_BYTES, "one page");

static uint32_t crc_of(const struct seal *seal)
{
	return kvs_crc32c(0, (const char *)seal + 12, sizeof(*seal) - 12);
}

int seal_sum(int fd, uint64_t bytes, uint32_t *crc, bool (*told)(void *context, uint64_t done),
	     void *context)
{
	unsigned char *chunk = malloc(SEAL_CHUNK_BYTES);
	uint64_t done = 0;
	int error = chunk == NULL ? ENOMEM : 0;
	*crc = 0;
	while (error == 0 && done < bytes) {
		uint64_t left = bytes - done;
		size_t wanted = left < SEAL_CHUNK_BYTES ? (size_t)left : SEAL_CHUNK_BYTES;
		ssize_t got = pread(fd, chunk, wanted, (off_t)done);
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got <= 0) {
			error = got < 0 ? errno : EIO;
			break;
		}
		*crc = kvs_crc32c(*crc, chunk, (size_t)got);
		done += (uint64_t)got;
		if (told != NULL && !told(context, done)) {
			error = ECANCELED;
		}
	}
	free(chunk);
	return error;
}

int seal_write(int fd, const struct seal_facts *facts)
{
	unsigned char page[SEAL_BYTES] = { 0 };
	struct seal seal = {
		.data_crc = facts->data_crc,
		.data_bytes = facts->data_bytes,
		.instance_id = facts->instance_id,
		.durable_seq = facts->durable_seq,
		.keys = facts->keys,
		.records = facts->records,
		.created_ms = facts->created_ms,
	};
	memcpy(seal.marker, SEAL_MARKER, sizeof(seal.marker));
	memcpy(seal.kvd_version, facts->kvd_version, sizeof(seal.kvd_version));
	seal.crc = crc_of(&seal);
	memcpy(page, &seal, sizeof(seal));
	for (size_t done = 0; done < sizeof(page);) {
		ssize_t n = pwrite(fd, page + done, sizeof(page) - done,
				   (off_t)(facts->data_bytes + done));
		if (n < 0 && errno != EINTR) {
			return errno;
		}
		done += n > 0 ? (size_t)n : 0;
	}
	return fsync(fd) == 0 ? 0 : errno;
}

static int refuse(char *why, size_t why_bytes, const char *what)
{
	(void)snprintf(why, why_bytes, "%s", what);
	return -1;
}

int seal_read(int fd, struct seal_facts *facts, char *why, size_t why_bytes)
{
	static const unsigned char zeroes[SEAL_BYTES];
	unsigned char page[SEAL_BYTES];
	struct stat file;
	struct seal seal;
	if (fstat(fd, &file) != 0) {
		return refuse(why, why_bytes, strerror(errno));
	}
	if (!S_ISREG(file.st_mode) || file.st_size < (off_t)SEAL_BYTES) {
		return refuse(why, why_bytes, "it is no backup of kvd");
	}
	uint64_t at = (uint64_t)file.st_size - SEAL_BYTES;
	ssize_t got;
	do {
		got = pread(fd, page, sizeof(page), (off_t)at);
	} while (got < 0 && errno == EINTR);
	if (got != (ssize_t)sizeof(page)) {
		return refuse(why, why_bytes, got < 0 ? strerror(errno) : "it was cut short");
	}
	memcpy(&seal, page, sizeof(seal));
	if (memcmp(seal.marker, SEAL_MARKER, 7) != 0) {
		return refuse(why, why_bytes,
			      "it is no backup of kvd, or was cut short: no seal at its end");
	}
	if (memcmp(seal.marker, SEAL_MARKER, 8) != 0) {
		return refuse(why, why_bytes, "it is a backup of another version of kvd");
	}
	if (seal.crc != crc_of(&seal) || seal.data_bytes != at) {
		return refuse(why, why_bytes, "its seal is damaged, or does not belong to it");
	}
	// This means nothing; but a file that has changed here may have changed elsewhere.
	if (memcmp(page + sizeof(seal), zeroes, sizeof(page) - sizeof(seal)) != 0) {
		return refuse(why, why_bytes, "the page of its seal is damaged");
	}
	*facts = (struct seal_facts){
		.data_bytes = seal.data_bytes,
		.data_crc = seal.data_crc,
		.instance_id = seal.instance_id,
		.durable_seq = seal.durable_seq,
		.keys = seal.keys,
		.records = seal.records,
		.created_ms = seal.created_ms,
	};
	memcpy(facts->kvd_version, seal.kvd_version, sizeof(facts->kvd_version));
	facts->kvd_version[SEAL_VERSION_BYTES - 1] = '\0';
	return 0;
}

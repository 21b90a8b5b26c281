// SPDX-License-Identifier: MIT
//
// The run is held from its beginning, as one is that replies are sent from. A write that takes it
// holds it once more, so that one which finds no room and is tried again finds it still there.
#include "daemon/keyspace_intake.h"

#include "daemon/keyspace_internal.h"
#include "shm/crc32c.h"

bool keyspace_intake_is_large(const struct keyspace *keyspace, size_t value_bytes)
{
	return keyspace_is_large(keyspace, value_bytes) && value_bytes <= keyspace->value_bytes_max;
}

int keyspace_intake_begin(struct keyspace *keyspace, struct keyspace_intake *intake,
			  size_t value_bytes)
{
	uint64_t record_bytes = kvs_record_bytes(KVS_KEY_BYTES_MAX, sizeof(struct kvs_run), true);
	uint64_t offset;
	int result = keyspace_make_room(keyspace, record_bytes, record_bytes,
					kvs_large_bytes(keyspace->region, value_bytes),
					KEYSPACE_FOR_WRITE);
	if (result != KEYSPACE_OK) {
		return result;
	}
	result = mover_reserve(keyspace, value_bytes, &offset);
	if (result != KEYSPACE_OK) {
		return result;
	}
	*intake = (struct keyspace_intake){ .run_offset = offset, .bytes = value_bytes };
	keyspace->intake_bytes += value_bytes;
	return KEYSPACE_OK;
}

unsigned char *keyspace_intake_room(struct keyspace *keyspace, struct keyspace_intake *intake,
				    size_t *bytes)
{
	if (intake->populated <= intake->done &&
	    !keyspace_run_populate(keyspace, intake->run_offset, intake->bytes,
				   &intake->populated)) {
		return NULL;
	}
	uint64_t end = intake->populated < intake->bytes ? intake->populated : intake->bytes;
	*bytes = end - intake->done;
	return keyspace->region->base + intake->run_offset + intake->done;
}

void keyspace_intake_came(struct keyspace *keyspace, struct keyspace_intake *intake, size_t bytes)
{
	const unsigned char *at = keyspace->region->base + intake->run_offset + intake->done;
	intake->crc = kvs_crc32c(intake->crc, at, bytes);
	intake->done += bytes;
	SEAM_CRASH(value_arriving);
}

const unsigned char *keyspace_intake_value(const struct keyspace *keyspace,
					   const struct keyspace_intake *intake)
{
	return keyspace->region->base + intake->run_offset;
}

void keyspace_intake_end(struct keyspace *keyspace, struct keyspace_intake *intake)
{
	if (intake->run_offset != 0) {
		keyspace->intake_bytes -= intake->bytes;
		keyspace_unpin(keyspace, intake->run_offset);
	}
	*intake = (struct keyspace_intake){ 0 };
}

bool keyspace_intake_takes(struct keyspace *keyspace, struct keyspace_op *op)
{
	const struct keyspace_intake *intake = keyspace->slice->intake;
	if (intake == NULL || !keyspace_intake_is_whole(intake) || op->pieces_count > 0 ||
	    op->value != keyspace_intake_value(keyspace, intake) ||
	    op->value_bytes != intake->bytes) {
		return false;
	}
	op->run_offset = intake->run_offset;
	op->run_crc = intake->crc;
	op->value = NULL;
	kvs_large_hold(&keyspace->large, op->run_offset);
	return true;
}

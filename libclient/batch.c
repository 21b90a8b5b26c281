// SPDX-License-Identifier: MIT
//
// Batches: requests collected as the bytes that will be sent, between MULTI and EXEC. kvd runs them
// with nothing in between, and its log applies and persists them whole or not at all.
#include <stdlib.h>
#include <string.h>

#include "libclient/form.h"
#include "shm/record.h"

static void batch_start(kvc_batch *batch)
{
	kvc_frame_begin(&batch->frame);
	kvc_frame_args(&batch->frame, 1);
	kvc_frame_text(&batch->frame, "MULTI");
	batch->operations = 0;
	batch->record_bytes = 0;
}

int kvc_batch_new(kvc_batch **out)
{
	if (!out) {
		return KVC_INVALID;
	}
	*out = calloc(1, sizeof(**out));
	if (!*out) {
		return KVC_NO_MEMORY;
	}
	batch_start(*out);
	return KVC_OK;
}

void kvc_batch_free(kvc_batch *batch)
{
	if (batch) {
		kvc_buffer_free(&batch->frame.buffer);
		free(batch);
	}
}

void kvc_batch_reset(kvc_batch *batch)
{
	if (batch) {
		batch_start(batch);
	}
}

// Begins `command key` if it fits, `more` arguments to come.
static int batch_add(kvc_batch *batch, const char *command, const void *key, size_t key_bytes,
		     size_t value_bytes, size_t more)
{
	if (!batch) {
		return KVC_INVALID;
	}
	int status = kvc_key_check(key, key_bytes);
	if (status != KVC_OK) {
		return status;
	}
	uint64_t bytes = kvs_record_bytes(key_bytes, value_bytes, 1);
	if (value_bytes > KVS_VALUE_BYTES_MAX ||
	    batch->record_bytes + bytes > KVS_BATCH_BYTES_MAX) {
		return KVC_TOO_LARGE;
	}
	batch->record_bytes += bytes;
	batch->operations++;
	kvc_frame_args(&batch->frame, 2 + more);
	kvc_frame_text(&batch->frame, command);
	kvc_frame_arg(&batch->frame, key, key_bytes);
	return KVC_OK;
}

// A batch with a hole in it must never be sent: running out of memory sticks until it is reset.
static int batch_added(const kvc_batch *batch)
{
	return batch->frame.buffer.failed ? KVC_NO_MEMORY : KVC_OK;
}

int kvc_batch_set(kvc_batch *batch, const void *key, size_t key_bytes, const void *value,
		  size_t value_bytes, int64_t ttl_ms)
{
	if (ttl_ms < 0 || (!value && value_bytes > 0)) {
		return KVC_INVALID;
	}
	int status = batch_add(batch, "SET", key, key_bytes, value_bytes, ttl_ms > 0 ? 3 : 1);
	if (status != KVC_OK) {
		return status;
	}
	kvc_frame_arg(&batch->frame, value, value_bytes);
	if (ttl_ms > 0) {
		kvc_frame_text(&batch->frame, "PX");
		kvc_frame_int(&batch->frame, ttl_ms);
	}
	return batch_added(batch);
}

int kvc_batch_delete(kvc_batch *batch, const void *key, size_t key_bytes)
{
	int status = batch_add(batch, "DEL", key, key_bytes, 0, 0);
	return status == KVC_OK ? batch_added(batch) : status;
}

int kvc_batch_increment(kvc_batch *batch, const void *key, size_t key_bytes, int64_t delta)
{
	int status = batch_add(batch, "INCRBY", key, key_bytes, RESP_NUMBER_BYTES_MAX, 1);
	if (status != KVC_OK) {
		return status;
	}
	kvc_frame_int(&batch->frame, delta);
	return batch_added(batch);
}

int kvc_batch_expire(kvc_batch *batch, const void *key, size_t key_bytes, int64_t ttl_ms)
{
	int status = batch_add(batch, ttl_ms < 0 ? "PERSIST" : "PEXPIRE", key, key_bytes, 0,
			       ttl_ms < 0 ? 0 : 1);
	if (status != KVC_OK) {
		return status;
	}
	if (ttl_ms >= 0) {
		kvc_frame_int(&batch->frame, ttl_ms);
	}
	return batch_added(batch);
}

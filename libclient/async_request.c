// SPDX-License-Identifier: MIT
//
// The submitting functions: each builds its form as the waiting function of the same name does, and
// puts it into the queue. None of them connects, sends, or calls anybody.
#include "libclient/async.h"

// Ends a submit: what was built goes into the queue, if it is any good.
static int request_submit(kvc_async *async, const struct kvc_form *form, int status, kvc_done done,
			  void *user, uint64_t *id)
{
	if (status == KVC_OK) {
		status = kvc_queue_submit(async, form, done, user, id);
	}
	return kvc_async_leave(async, status);
}

static struct kvc_frame *request_frame(kvc_async *async)
{
	return &async->stream.client->conn.frame;
}

int kvc_async_set(kvc_async *async, const void *key, size_t key_bytes, const void *value,
		  size_t value_bytes, const struct kvc_set_options *options, kvc_done done,
		  void *user, uint64_t *id)
{
	struct kvc_form form;
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_set(&form, request_frame(async), key, key_bytes, value, value_bytes,
			      options);
	return request_submit(async, &form, status, done, user, id);
}

int kvc_async_delete(kvc_async *async, const void *key, size_t key_bytes, kvc_done done, void *user,
		     uint64_t *id)
{
	struct kvc_form form;
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_delete(&form, request_frame(async), key, key_bytes);
	return request_submit(async, &form, status, done, user, id);
}

int kvc_async_increment(kvc_async *async, const void *key, size_t key_bytes, int64_t delta,
			kvc_done done, void *user, uint64_t *id)
{
	struct kvc_form form;
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_increment(&form, request_frame(async), key, key_bytes, delta);
	return request_submit(async, &form, status, done, user, id);
}

int kvc_async_expire(kvc_async *async, const void *key, size_t key_bytes, int64_t ttl_ms,
		     kvc_done done, void *user, uint64_t *id)
{
	struct kvc_form form;
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_expire(&form, request_frame(async), key, key_bytes, ttl_ms);
	return request_submit(async, &form, status, done, user, id);
}

int kvc_async_get(kvc_async *async, const void *key, size_t key_bytes, kvc_done done, void *user,
		  uint64_t *id)
{
	struct kvc_form form;
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_get(&form, request_frame(async), key, key_bytes);
	return request_submit(async, &form, status, done, user, id);
}

int kvc_async_sync(kvc_async *async, kvc_done done, void *user, uint64_t *id)
{
	struct kvc_form form;
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	kvc_form_sync(&form, request_frame(async));
	return request_submit(async, &form, status, done, user, id);
}

int kvc_async_commit(kvc_async *async, const kvc_batch *batch, kvc_done done, void *user,
		     uint64_t *id)
{
	struct kvc_form form;
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_batch(&form, request_frame(async), batch);
	return request_submit(async, &form, status, done, user, id);
}

int kvc_async_command(kvc_async *async, int argc, const void *const *argv, const size_t *argv_bytes,
		      kvc_done done, void *user, uint64_t *id)
{
	struct kvc_form form;
	int status = kvc_async_enter(async);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_form_command(&form, request_frame(async), argc, argv, argv_bytes);
	return request_submit(async, &form, status, done, user, id);
}

// SPDX-License-Identifier: MIT
//
// The bytes of every request and the meaning of every reply, whoever waits for it. Nothing here
// sends or receives.
#include "libclient/form.h"

#include <string.h>

static void form_begin(struct kvc_form *form, enum kvc_want want, const char *command,
		       size_t replies)
{
	*form = (struct kvc_form){ .want = want, .command = command, .replies = replies };
}

// Begins `command key`, with `more` arguments to come.
static int form_key(struct kvc_form *form, struct kvc_frame *frame, enum kvc_want want,
		    const char *command, const void *key, size_t key_bytes, size_t more)
{
	int status = kvc_key_check(key, key_bytes);
	if (status != KVC_OK) {
		return status;
	}
	form_begin(form, want, command, 1);
	kvc_frame_args(frame, 2 + more);
	kvc_frame_text(frame, command);
	kvc_frame_arg(frame, key, key_bytes);
	return KVC_OK;
}

static int form_check_set(const struct kvc_set_options *options, const void *value,
			  size_t value_bytes)
{
	const uint32_t conditions = KVC_SET_IF_ABSENT | KVC_SET_IF_PRESENT | KVC_SET_IF_VERSION;
	uint32_t asked = options->flags & conditions;
	if ((options->flags & ~(conditions | KVC_SET_KEEP_TTL)) || (asked & (asked - 1)) ||
	    options->ttl_ms < 0 || (options->ttl_ms > 0 && (options->flags & KVC_SET_KEEP_TTL)) ||
	    options->version > INT64_MAX || (!value && value_bytes > 0)) {
		return KVC_INVALID;
	}
	return value_bytes <= KVS_VALUE_BYTES_MAX ? KVC_OK : KVC_TOO_LARGE;
}

static void form_set_conditions(struct kvc_frame *frame, const struct kvc_set_options *options)
{
	bool absent = (options->flags & KVC_SET_IF_VERSION) && options->version == 0;
	if (absent || (options->flags & KVC_SET_IF_ABSENT)) {
		kvc_frame_text(frame, "NX");
	} else if (options->flags & KVC_SET_IF_PRESENT) {
		kvc_frame_text(frame, "XX");
	} else if (options->flags & KVC_SET_IF_VERSION) {
		kvc_frame_text(frame, "IFVERSION");
		kvc_frame_int(frame, (int64_t)options->version);
	}
	if (options->ttl_ms > 0) {
		kvc_frame_text(frame, "PX");
		kvc_frame_int(frame, options->ttl_ms);
	}
	if (options->flags & KVC_SET_KEEP_TTL) {
		kvc_frame_text(frame, "KEEPTTL");
	}
}

int kvc_form_set(struct kvc_form *form, struct kvc_frame *frame, const void *key, size_t key_bytes,
		 const void *value, size_t value_bytes, const struct kvc_set_options *given)
{
	struct kvc_set_options options;
	if (!kvc_set_options_copy(&options, given)) {
		return KVC_INVALID;
	}
	int status = form_check_set(&options, value, value_bytes);
	if (status != KVC_OK) {
		return status;
	}
	bool if_version = (options.flags & KVC_SET_IF_VERSION) && options.version != 0;
	bool other = !if_version && (options.flags & (KVC_SET_IF_ABSENT | KVC_SET_IF_PRESENT |
						      KVC_SET_IF_VERSION)) != 0;
	size_t more = 1 + (if_version ? 2 : 0) + (other ? 1 : 0) + (options.ttl_ms > 0 ? 2 : 0) +
		      (options.flags & KVC_SET_KEEP_TTL ? 1 : 0);
	status = form_key(form, frame, KVC_WANT_SET, "KVD.SET", key, key_bytes, more);
	if (status == KVC_OK) {
		kvc_frame_value(frame, value, value_bytes);
		form_set_conditions(frame, &options);
	}
	return status;
}

int kvc_form_delete(struct kvc_form *form, struct kvc_frame *frame, const void *key,
		    size_t key_bytes)
{
	return form_key(form, frame, KVC_WANT_REMOVED, "DEL", key, key_bytes, 0);
}

int kvc_form_increment(struct kvc_form *form, struct kvc_frame *frame, const void *key,
		       size_t key_bytes, int64_t delta)
{
	int status = form_key(form, frame, KVC_WANT_SUM, "INCRBY", key, key_bytes, 1);
	if (status == KVC_OK) {
		kvc_frame_int(frame, delta);
	}
	return status;
}

int kvc_form_expire(struct kvc_form *form, struct kvc_frame *frame, const void *key,
		    size_t key_bytes, int64_t ttl_ms)
{
	int status;
	if (ttl_ms >= 0) {
		status = form_key(form, frame, KVC_WANT_REMOVED, "PEXPIRE", key, key_bytes, 1);
		if (status == KVC_OK) {
			kvc_frame_int(frame, ttl_ms);
		}
		return status;
	}
	// PERSIST answers 0 both for a key without an expiry and for none at all: EXISTS tells them
	// apart.
	status = form_key(form, frame, KVC_WANT_PERSIST, "PERSIST", key, key_bytes, 0);
	if (status == KVC_OK) {
		status = form_key(form, frame, KVC_WANT_PERSIST, "EXISTS", key, key_bytes, 0);
		form->replies = 2;
	}
	return status;
}

int kvc_form_get(struct kvc_form *form, struct kvc_frame *frame, const void *key, size_t key_bytes)
{
	return form_key(form, frame, KVC_WANT_VALUE, "KVD.GETV", key, key_bytes, 0);
}

void kvc_form_sync(struct kvc_form *form, struct kvc_frame *frame)
{
	form_begin(form, KVC_WANT_SYNC, "KVD.SYNC", 1);
	kvc_frame_args(frame, 1);
	kvc_frame_text(frame, "KVD.SYNC");
}

static int form_check_command(int argc, const void *const *argv, const size_t *argv_bytes)
{
	if (argc < 1 || !argv || !argv_bytes) {
		return KVC_INVALID;
	}
	if ((unsigned)argc > KVS_COMMAND_ARGS_MAX) {
		return KVC_TOO_LARGE;
	}
	for (int i = 0; i < argc; i++) {
		if (!argv[i] && argv_bytes[i] > 0) {
			return KVC_INVALID;
		}
		if (argv_bytes[i] > KVS_VALUE_BYTES_MAX) {
			return KVC_TOO_LARGE;
		}
	}
	return KVC_OK;
}

int kvc_form_command(struct kvc_form *form, struct kvc_frame *frame, int argc,
		     const void *const *argv, const size_t *argv_bytes)
{
	int status = form_check_command(argc, argv, argv_bytes);
	if (status != KVC_OK) {
		return status;
	}
	form_begin(form, KVC_WANT_REPLY, "a command", 1);
	kvc_frame_args(frame, (size_t)argc);
	for (int i = 0; i < argc; i++) {
		kvc_frame_arg(frame, argv[i], argv_bytes[i]);
	}
	return KVC_OK;
}

int kvc_form_batch(struct kvc_form *form, struct kvc_frame *frame, const kvc_batch *batch)
{
	if (!batch) {
		return KVC_INVALID;
	}
	const struct kvc_frame *collected = &batch->frame;
	if (collected->buffer.failed) {
		return KVC_NO_MEMORY;
	}
	form_begin(form, KVC_WANT_BATCH, "EXEC", 0);
	if (batch->operations == 0) {
		return KVC_OK;
	}
	form->operations = batch->operations;
	form->replies = batch->operations + 2;
	// Sent from the batch's own memory: the frame refers to it and adds EXEC behind it.
	frame->long_data = collected->buffer.data;
	frame->long_bytes = collected->buffer.bytes;
	frame->long_at = 0;
	kvc_frame_args(frame, 1);
	kvc_frame_text(frame, "EXEC");
	return KVC_OK;
}

static int form_unexpected(const struct kvc_form *form, struct kvc_conn *conn)
{
	kvc_error_set(conn->error_text, "%s: unexpected reply", form->command);
	return KVC_PROTOCOL;
}

// KVD.GETV: [value, version, pttl_ms, time_ms], or null.
static int form_value(const struct kvc_form *form, struct kvc_conn *conn,
		      const struct kvc_reply *reply, struct kvc_result *result)
{
	const struct kvc_reply *field = reply->element;
	if (reply->type == KVC_REPLY_NIL) {
		return KVC_NOT_FOUND;
	}
	if (reply->type != KVC_REPLY_ARRAY || reply->count < 4 ||
	    field[0].type != KVC_REPLY_STRING || field[1].type != KVC_REPLY_INTEGER ||
	    field[2].type != KVC_REPLY_INTEGER || field[3].type != KVC_REPLY_INTEGER) {
		return form_unexpected(form, conn);
	}
	result->value = field[0].text;
	result->value_bytes = field[0].text_bytes;
	result->meta = (struct kvc_meta){
		.version = (uint64_t)field[1].integer,
		.time_ms = (uint64_t)field[3].integer,
		.ttl_ms = field[2].integer,
		.value_bytes = (uint32_t)field[0].text_bytes,
		.flags = KVC_META_SOCKET,
	};
	result->version = result->meta.version;
	return KVC_OK;
}

// The result of EXEC: whole, or what went wrong with it or in it.
static int form_batch(const struct kvc_form *form, struct kvc_conn *conn,
		      const struct kvc_reply *reply)
{
	if (reply->type != KVC_REPLY_ARRAY || reply->count != form->operations) {
		return form_unexpected(form, conn);
	}
	for (size_t i = 0; i < reply->count; i++) {
		if (reply->element[i].type == KVC_REPLY_ERROR) {
			return kvc_error_reply(conn, &reply->element[i]);
		}
	}
	return KVC_OK;
}

// The last reply, which is no error.
static int form_last(const struct kvc_form *form, struct kvc_conn *conn,
		     const struct kvc_reply *reply, struct kvc_result *result)
{
	bool integer = reply->type == KVC_REPLY_INTEGER;
	// unreached: these are all.
	switch (form->want) {
	case KVC_WANT_SET:
		if (reply->type == KVC_REPLY_NIL) {
			return KVC_NOT_APPLIED;
		}
		result->version = (uint64_t)reply->integer;
		break;
	case KVC_WANT_REMOVED:
		if (integer && reply->integer == 0) {
			return KVC_NOT_FOUND;
		}
		break;
	case KVC_WANT_SUM:
		result->integer = reply->integer;
		break;
	case KVC_WANT_PERSIST:
		if (integer && form->there == 0) {
			return KVC_NOT_FOUND;
		}
		break;
	case KVC_WANT_VALUE:
		return form_value(form, conn, reply, result);
	case KVC_WANT_BATCH:
		return form_batch(form, conn, reply);
	case KVC_WANT_SYNC:
	case KVC_WANT_REPLY:
		return KVC_OK;
	}
	return integer ? KVC_OK : form_unexpected(form, conn);
}

bool kvc_form_take(struct kvc_form *form, struct kvc_conn *conn, const struct kvc_reply *reply,
		   struct kvc_result *result)
{
	form->replies--;
	if (form->want == KVC_WANT_REPLY) {
		// The caller judges it. Its text is there for those who do not look.
		if (reply->type == KVC_REPLY_ERROR) {
			kvc_error_set(conn->error_text, "%s", reply->text);
		}
		result->reply = reply;
		result->status = KVC_OK;
		return true;
	}
	// Of several errors the first is the reason of the others, and the better message.
	if (reply->type == KVC_REPLY_ERROR && form->refused == KVC_OK) {
		form->refused = kvc_error_reply(conn, reply);
	}
	form->there |= reply->integer;
	if (form->replies > 0) {
		return false;
	}
	result->status =
		form->refused != KVC_OK ? form->refused : form_last(form, conn, reply, result);
	return true;
}

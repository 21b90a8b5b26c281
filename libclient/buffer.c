// SPDX-License-Identifier: MIT
//
// Growing bytes, and the requests built in them: arrays of bulk strings, numbers without printf,
// and one long value that is sent from where it stands instead of being copied.
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/internal.h"

#define BUFFER_BYTES_MIN 512u
#define BUFFER_KEEP_BYTES (1u << 20) // an emptied buffer keeps at most this much memory
#define LONG_VALUE_BYTES (16u << 10) // from here on copying costs more than a second iovec

static char *buffer_space(struct kvc_buffer *buffer, size_t bytes)
{
	if (buffer->failed || bytes > SIZE_MAX / 2 - buffer->bytes) {
		buffer->failed = true;
		return NULL;
	}
	size_t needed = buffer->bytes + bytes;
	if (needed > buffer->capacity) {
		size_t capacity = buffer->capacity ? buffer->capacity : BUFFER_BYTES_MIN;
		while (capacity < needed) {
			capacity *= 2;
		}
		char *data = realloc(buffer->data, capacity);
		if (!data) {
			buffer->failed = true;
			return NULL;
		}
		buffer->data = data;
		buffer->capacity = capacity;
	}
	return buffer->data + buffer->bytes;
}

void kvc_buffer_append(struct kvc_buffer *buffer, const void *data, size_t bytes)
{
	char *at = buffer_space(buffer, bytes);
	if (at && bytes > 0) {
		memcpy(at, data, bytes);
		buffer->bytes += bytes;
	}
}

void kvc_buffer_free(struct kvc_buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct kvc_buffer){ 0 };
}

void kvc_frame_begin(struct kvc_frame *frame)
{
	if (frame->buffer.capacity > BUFFER_KEEP_BYTES) {
		kvc_buffer_free(&frame->buffer);
	}
	frame->buffer.bytes = 0;
	frame->buffer.failed = false;
	frame->long_data = NULL;
	frame->long_bytes = 0;
	frame->long_at = 0;
}

static void frame_number(struct kvc_frame *frame, char prefix, size_t number)
{
	char *at = buffer_space(&frame->buffer, RESP_NUMBER_BYTES_MAX);
	if (at) {
		frame->buffer.bytes += resp_format_number(at, prefix, (int64_t)number);
	}
}

void kvc_frame_args(struct kvc_frame *frame, size_t count)
{
	frame_number(frame, '*', count);
}

void kvc_frame_arg(struct kvc_frame *frame, const void *data, size_t bytes)
{
	frame_number(frame, '$', bytes);
	kvc_buffer_append(&frame->buffer, data, bytes);
	kvc_buffer_append(&frame->buffer, "\r\n", 2);
}

void kvc_frame_text(struct kvc_frame *frame, const char *text)
{
	kvc_frame_arg(frame, text, strlen(text));
}

void kvc_frame_int(struct kvc_frame *frame, int64_t number)
{
	char digits[RESP_NUMBER_BYTES_MAX];
	kvc_frame_arg(frame, digits, resp_format_int(digits, number));
}

void kvc_frame_value(struct kvc_frame *frame, const void *data, size_t bytes)
{
	// unreached: a request has one value.
	if (bytes < LONG_VALUE_BYTES || frame->long_data) {
		kvc_frame_arg(frame, data, bytes);
		return;
	}
	frame_number(frame, '$', bytes);
	frame->long_data = data;
	frame->long_bytes = bytes;
	frame->long_at = frame->buffer.bytes;
	kvc_buffer_append(&frame->buffer, "\r\n", 2);
}

int kvc_key_check(const void *key, size_t key_bytes)
{
	if (!key || key_bytes == 0) {
		return KVC_INVALID;
	}
	return key_bytes <= KVS_KEY_BYTES_MAX ? KVC_OK : KVC_TOO_LARGE;
}

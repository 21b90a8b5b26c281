/* SPDX-License-Identifier: MIT */
/*
 * Prints the value of one key, read from shared memory.
 *
 *     cc get.c $(pkg-config --cflags --libs kvclient) -o get && ./get greeting
 */
#include <ctype.h>
#include <kvclient.h>
#include <stdio.h>
#include <string.h>

/* A view is looked at in place, without a copy. What is done with it before kvc_end() has said
 * KVC_OK must be harmless if it turns out that kvd took the memory back: adding up is, printing is
 * not. */
static int count_words(kvc_reader *reader, const char *key, size_t *words)
{
	struct kvc_view view;
	int status = kvc_begin(reader);
	if (status != KVC_OK) {
		return status;
	}
	*words = 0;
	status = kvc_view(reader, key, strlen(key), &view);
	for (size_t i = 0; status == KVC_OK && i < view.value_bytes; i++) {
		const unsigned char *text = view.value;
		*words += !isspace(text[i]) && (i == 0 || isspace(text[i - 1]));
	}
	int end = kvc_end(reader);
	return end == KVC_OK ? status : end;
}

/* The plain way: a copy, complete and validated when kvc_get() returns. */
static int print_value(kvc_reader *reader, const char *key)
{
	char buffer[4096];
	struct kvc_meta meta;
	int status = kvc_get(reader, key, strlen(key), buffer, sizeof(buffer), &meta);
	if (status == KVC_OK) {
		fwrite(buffer, 1, meta.value_bytes, stdout);
		putchar('\n');
		fprintf(stderr, "version %llu, %s\n", (unsigned long long)meta.version,
			meta.flags & KVC_META_SOCKET ? "by socket" : "by mapping");
	}
	return status;
}

int main(int argc, char **argv)
{
	kvc *client = NULL;
	kvc_reader *reader = NULL;
	size_t words = 0;
	if (argc != 2) {
		fprintf(stderr, "usage: get KEY\n");
		return 2;
	}
	int status = kvc_open(&client, NULL); /* $KVD_SOCKET, or /run/kvd/kvd.sock */
	if (status == KVC_OK) {
		status = kvc_reader_open(client, &reader);
	}
	if (status == KVC_OK) {
		status = print_value(reader, argv[1]);
	}
	if (status == KVC_OK) {
		status = count_words(reader, argv[1], &words);
	}
	if (status == KVC_OK) {
		fprintf(stderr, "%zu words\n", words);
	} else {
		fprintf(stderr, "get: %s\n", kvc_strerror(status));
	}
	kvc_close(client);
	return status == KVC_OK ? 0 : 1;
}

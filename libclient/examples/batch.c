/* SPDX-License-Identifier: MIT */
/*
 * Moves an amount between two accounts in one atomic batch, and reads both back as one snapshot: no
 * reader ever sees the money twice, or nowhere.
 *
 *     cc batch.c $(pkg-config --cflags --libs kvclient) -o batch && ./batch alice bob 30
 */
#include <kvclient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int transfer(kvc *client, const char *from, const char *to, long long amount)
{
	kvc_batch *batch;
	int status = kvc_batch_new(&batch);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_batch_increment(batch, from, strlen(from), -amount);
	if (status == KVC_OK) {
		status = kvc_batch_increment(batch, to, strlen(to), amount);
	}
	if (status == KVC_OK) {
		status = kvc_batch_commit(client, batch);
	}
	kvc_batch_free(batch);
	return status;
}

static int print_both(kvc_reader *reader, const char *from, const char *to)
{
	char text[2][32];
	struct kvc_item items[2] = {
		{ .key = from, .key_bytes = strlen(from), .buffer = text[0], .buffer_bytes = 31 },
		{ .key = to, .key_bytes = strlen(to), .buffer = text[1], .buffer_bytes = 31 },
	};
	int status = kvc_get_many(reader, items, 2, KVC_GET_SNAPSHOT);
	for (int i = 0; i < 2 && status == KVC_OK; i++) {
		status = items[i].status;
		if (status == KVC_OK) {
			text[i][items[i].meta.value_bytes] = '\0';
			printf("%s %s\n", (const char *)items[i].key, text[i]);
		}
	}
	return status;
}

int main(int argc, char **argv)
{
	kvc *client = NULL;
	kvc_reader *reader = NULL;
	if (argc != 4) {
		fprintf(stderr, "usage: batch FROM TO AMOUNT\n");
		return 2;
	}
	int status = kvc_open(&client, NULL);
	if (status == KVC_OK) {
		status = kvc_reader_open(client, &reader);
	}
	if (status == KVC_OK) {
		status = transfer(client, argv[1], argv[2], strtoll(argv[3], NULL, 10));
	}
	if (status == KVC_OK) {
		status = print_both(reader, argv[1], argv[2]);
	}
	if (status != KVC_OK) {
		fprintf(stderr, "batch: %s\n", kvc_strerror(status));
	}
	kvc_close(client);
	return status == KVC_OK ? 0 : 1;
}
